"""Who hears of a training, and how does it say that it still moves before its first update is made?"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

BEAT_S = 20.0
"""Seconds between two words that something is still being loaded, or read."""


class Telling(Protocol):
    """Who hears of a training."""

    stopped: bool

    def at(self, step: int, of: int) -> None: ...

    def say(self, **said: Any) -> None: ...  # Any: JSON


@contextmanager
def beating(telling: Telling) -> Iterator[None]:
    """Say again and again that something moves, as long as the block runs: large weights take longer to come from a
    slow disk than a watchdog waits."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_S):
            telling.say(beat=True)

    thread = threading.Thread(target=beat, name="loading", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Beats:
    """Says that something moves, where it is the first to do so for a while: some items are large photographs, and
    others a word each."""

    def __init__(self, telling: Telling) -> None:
        self._telling, self._last = telling, time.monotonic()

    def moved(self) -> None:
        """One item more is done."""
        if (now := time.monotonic()) - self._last >= BEAT_S:
            self._last = now
            self._telling.say(beat=True)
