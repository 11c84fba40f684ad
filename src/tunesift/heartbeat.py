"""Does anything still move, and how far is what is at work? What works says so after every piece of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_moved = time.monotonic()
"""When a piece of work was done last."""
_waiting_until = 0.0
"""Until when nothing will move on purpose."""
_share = 0.0
"""Of the chunk at work, how much is done."""
_stretch = 1.0
"""How much of its chunk a call is that says which share of it is done."""
_loading = ""
"""The model that is loaded now."""
_resting = 0
"""Threads whose work waits on purpose."""
_counting = Lock()


def beat(share: float = 0.0) -> None:
    """Say that a piece of work is done: a batch on a device, an answer, a commit; and which share of its call it is."""
    global _moved, _share
    _moved = time.monotonic()
    _share += share * _stretch


def waiting(seconds: float) -> None:
    """Say that nothing will move for so long on purpose: a rate limit's pause, an outage being sat out."""
    global _waiting_until
    _waiting_until = max(_waiting_until, time.monotonic() + seconds)


def still_s() -> float:
    """Seconds for which nothing has moved and nothing was waited for."""
    return max(0.0, time.monotonic() - max(_moved, _waiting_until))


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


def written() -> None:
    """Say that a chunk is done and written down; what is at work next begins anew."""
    global _share
    beat()
    _share = 0.0


def share_done() -> float:
    """Which share of the chunk at work is done, where its model says so; for one chunk at a time on local weights."""
    return min(1.0, _share)


@contextmanager
def stretch(share: float) -> Iterator[None]:
    """What the block does of its own work is so much of the chunk's: one of several calls of a model."""
    global _stretch
    before, _stretch = _stretch, _stretch * share
    try:
        yield
    finally:
        _stretch = before


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Say that the block loads a model, which may take minutes."""
    global _loading
    _loading = name
    try:
        yield
    finally:
        _loading = ""
        beat()


def being_loaded() -> str:
    """The name of the model that is loaded now; empty where none is."""
    return _loading
