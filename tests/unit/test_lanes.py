"""Packs side by side: in order, each once, on a thread of its own with one thread of arithmetic, and put back after."""

from __future__ import annotations

import threading
import time

import pytest

from tunesift.models.lanes import one_ahead, side_by_side

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


def test_the_next_part_is_made_while_one_is_used() -> None:
    made: list[int] = []
    begun = [threading.Event() for _ in range(5)]

    def work(part: int) -> int:
        begun[part].set()
        made.append(part)
        return part * part

    found = []
    for square in one_ahead(work, range(4)):
        if len(found) < 3:
            assert begun[len(found) + 1].wait(20), "the next one waits until this one is used"
        assert len(made) <= len(found) + 2, "no more than one ahead"
        found.append(square)
    assert found == [0, 1, 4, 9]
    assert list(one_ahead(work, [])) == []
    assert list(one_ahead(lambda part: threading.current_thread(), [1])) == [threading.current_thread()]


def test_an_error_in_a_part_is_raised_where_it_would_be_used() -> None:
    def work(part: int) -> int:
        if part == 2:
            raise ValueError("odd")
        return part

    found = one_ahead(work, range(5))
    assert [next(found), next(found)] == [0, 1]
    with pytest.raises(ValueError, match="odd"):
        next(found)
