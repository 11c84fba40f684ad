"""What is done at a time? On a CPU each core computes a pack of its own; beside a GPU the next texts are made ready.

A product that is divided among cores ends when the slowest is done with its part, again and again; where other work
runs beside, all of them wait for the core that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Part = TypeVar("Part")
Made = TypeVar("Made")


def side_by_side(work: Callable[[Part], Made], parts: Sequence[Part], lanes: int) -> Iterator[tuple[Part, Made]]:
    """What comes of each part, in order, so many at a time; the first error ends those that are not begun."""
    lanes = min(lanes, len(parts))
    if lanes < 2:
        yield from ((part, work(part)) for part in parts)
        return
    with _one_thread_each():
        pool = ThreadPoolExecutor(lanes, "lane", initializer=_set_threads, initargs=(1,))
        try:
            yield from zip(parts, pool.map(work, parts), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)


def one_ahead(work: Callable[[Part], Made], parts: Sequence[Part]) -> Iterator[Made]:
    """What comes of each part, in order; while one is used, the next is made in a thread beside."""
    if len(parts) < 2:
        yield from map(work, parts)
        return
    with ThreadPoolExecutor(1, "ahead") as pool:
        coming = pool.submit(work, parts[0])
        for part in parts[1:]:
            made, coming = coming.result(), pool.submit(work, part)
            yield made
        yield coming.result()


@contextmanager
def _one_thread_each() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _set_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)
