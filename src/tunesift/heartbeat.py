"""Does anything still move? What works says so after every piece of it, and for how long it waits on purpose."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_moved = time.monotonic()
_waiting_until = 0.0


def beat() -> None:
    """Say that a piece of work is done: a batch on a device, an answer, a commit."""
    global _moved
    _moved = time.monotonic()


def waiting(seconds: float) -> None:
    """Say that nothing will move for so long on purpose: a rate limit's pause, an outage being sat out."""
    global _waiting_until
    _waiting_until = max(_waiting_until, time.monotonic() + seconds)


def still_s() -> float:
    """Seconds for which nothing has moved and nothing was waited for."""
    return max(0.0, time.monotonic() - max(_moved, _waiting_until))


_counting, _resting = Lock(), 0


@contextmanager
def resting() -> Iterator[None]:
    """The work of this thread waits on purpose as long as the block runs: another piece may be done meanwhile."""
    global _resting
    with _counting:
        _resting += 1
    try:
        yield
    finally:
        with _counting:
            _resting -= 1


def at_rest() -> int:
    """Threads whose work waits on purpose."""
    return _resting
