"""Packs side by side: in order, each once, on a thread of its own with one thread of arithmetic, and put back after."""

from __future__ import annotations

import threading
import time

import pytest

from tunesift.models.lanes import side_by_side

torch = pytest.importorskip("torch", reason='needs the "local" extra')


def test_parts_come_back_in_order_and_so_many_are_worked_on_at_a_time() -> None:
    both = threading.Barrier(2, timeout=20)  # is passed by two at a time, or by nobody

    def work(part: int) -> tuple[int, int]:
        both.wait()
        time.sleep(0.01 * (part % 3))
        return part * part, torch.get_num_threads()

    before = torch.get_num_threads()
    found = list(side_by_side(work, range(10), 2))
    assert found == [(n, (n * n, 1)) for n in range(10)]
    assert torch.get_num_threads() == before


def test_one_lane_or_one_part_is_worked_on_here_with_all_threads() -> None:
    here = threading.current_thread()

    def work(part: int) -> bool:
        return threading.current_thread() is here

    before = torch.get_num_threads()
    assert list(side_by_side(work, range(3), 1)) == [(n, True) for n in range(3)]
    assert list(side_by_side(work, [7], 4)) == [(7, True)]
    assert list(side_by_side(work, [], 4)) == []
    assert torch.get_num_threads() == before


def test_an_error_ends_those_that_are_not_begun_and_threads_are_put_back() -> None:
    begun = []

    def work(part: int) -> int:
        begun.append(part)
        if part == 1:
            raise ValueError("odd")
        time.sleep(0.05)
        return part

    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="odd"):
        list(side_by_side(work, range(50), 2))
    assert len(begun) < 10
    assert torch.get_num_threads() == before
