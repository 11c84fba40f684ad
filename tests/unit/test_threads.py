"""Many chunks at once: what is in flight, what rests, and what becomes of it when something goes wrong."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from harness import door as shared
from harness.door import Life, Measure, Slow, all_kept, record, records, worked
from tunesift import (
    Dataset,
    Failure,
    Local,
    ModelUnavailable,
    RecipeError,
    Record,
    ResumeError,
    Run,
    RunError,
    Score,
    ScriptedModel,
    Settings,
)
from tunesift.errors import DiskFull
from tunesift.heartbeat import resting
from tunesift.running import journal as storage
from tunesift.running import local

fresh, life = shared.fresh, shared.life


def test_threads_leave_the_same_journal_as_one_thread(tmp_path: Path) -> None:
    found = {}
    for slots in (1, 4):
        folder = tmp_path / f"run-{slots}"
        with Run(folder, Local(), max_failures=1.0) as run:
            run.map("slow", Slow(student=ScriptedModel(concurrency=slots)), records(100))
            run.finish(Dataset.of(records(100)), all_kept(records(100)))
        found[slots] = {p.name: p.read_bytes() for p in (folder / "stages" / "slow").glob("part-*")}
    assert len(found[1]) == 13
    assert found[1] == found[4]


MEETING = threading.Barrier(4, timeout=30)


@dataclass(frozen=True, kw_only=True)
class Meet(Slow):
    """The first four items wait for one another, so that no fewer than four can be at work at once."""

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        if chunk[0].id in ("r0", "r1", "r2", "r3"):
            MEETING.wait()
        return super(Meet, self).__call__(chunk)


MANY_MEETING = threading.Barrier(40, timeout=10)


@dataclass(frozen=True, kw_only=True)
class MeetMany(Slow):
    """Forty items wait for one another, which is more than a pool of threads has by itself on any machine."""

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        MANY_MEETING.wait()
        return [Score(1.0) for _ in chunk]


def test_as_many_calls_as_an_endpoint_allows_wait_for_their_answers_at_once(tmp_path: Path) -> None:
    MANY_MEETING.reset()
    with Run(tmp_path / "run", Local()) as run:
        assert len(run.map("meet", MeetMany(student=ScriptedModel(concurrency=40)), records(80)).good()) == 80


LAST_IS_DONE = threading.Event()


@dataclass(frozen=True, kw_only=True)
class Rest(Slow):
    """The first two items rest until the last is done."""

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        if chunk[0].id in ("r0", "r1"):
            with resting():
                assert LAST_IS_DONE.wait(10)
        if chunk[0].id == "r7":
            LAST_IS_DONE.set()
        return super(Rest, self).__call__(chunk)


def test_items_that_rest_before_they_are_tried_again_keep_no_others_waiting(tmp_path: Path) -> None:
    LAST_IS_DONE.clear()  # a test that is asked again in the same process must be able to fail there too
    with Run(tmp_path / "run", Local()) as run:
        found = run.map("rest", Rest(student=ScriptedModel(concurrency=2)), records(8))
    assert len(found.good()) == 8


def test_who_waits_for_an_answer_goes_on_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "MOMENT_S", 20.0)
    began = time.monotonic()
    with Run(tmp_path / "run", Local()) as run:
        run.map("slow", Slow(student=ScriptedModel(concurrency=2)), records(12))
    assert time.monotonic() - began < 15, "each round waited its moment out"


FIRST_WAS_TURNED_AWAY = threading.Event()


@dataclass(frozen=True, kw_only=True)
class Late(Slow):
    """All but the first item answer when the disk has turned the first answer away."""

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        if chunk[0].id != "r0":
            assert FIRST_WAS_TURNED_AWAY.wait(10)
        worked.append(chunk[0].id)
        return [Score(1.0) for _ in chunk]


@pytest.mark.parametrize("written", [False, True], ids=["nothing was written", "only sealing had no room"])
def test_answers_in_flight_when_the_disk_is_full_are_written_into_the_space_held_back_and_nothing_is_sealed(
    life: Life, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    FIRST_WAS_TURNED_AWAY.clear()
    commit, sealing = storage.StageJournal.commit, []
    room = DiskFull("no room; make some and start again.")

    def full(self: storage.StageJournal, entries: Sequence[storage.Entry], seal: bool = True, **more: Any) -> None:
        sealing.append(seal)
        if len(sealing) > 1:
            commit(self, entries, seal=seal, **more)
            return
        if written:
            commit(self, entries, seal=False, **more)
        FIRST_WAS_TURNED_AWAY.set()
        raise room

    with monkeypatch.context() as patch:
        patch.setattr(storage.StageJournal, "commit", full)
        with life() as run:
            with pytest.raises(DiskFull) as refusal:
                run.map("late", Late(student=ScriptedModel(concurrency=3)), records(20))
            assert refusal.value is room
            assert not (run.folder / ".reserve").exists()
    assert sealing[0]
    assert len(sealing) > 2
    assert not any(sealing[1:]), "a part was sealed where there is no room"
    assert len(worked) <= 4, "more was begun while the disk was full"
    done = list(worked)
    with life() as run:
        run.map("late", Late(student=ScriptedModel(concurrency=3)), records(20))
    assert sorted(worked) == sorted(r.id for r in records(20)), "an answer that was paid for was lost"
    assert run.stages[0].worked == 20 - len(done)


def test_a_disk_that_is_full_where_nothing_is_held_back_ends_the_run_at_once(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def full(self: storage.StageJournal, entries: Sequence[storage.Entry], **more: Any) -> None:
        tried.append(len(entries))
        raise DiskFull("no room; make some and start again.")

    monkeypatch.setattr(storage.StageJournal, "commit", full)
    for held_back, times in ((True, 2), (False, 1)):
        tried.clear()
        with life() as run:
            if not held_back:
                (run.folder / ".reserve").unlink()
            with pytest.raises(DiskFull):
                run.map("slow", Slow(), records(8))
        assert tried == [4] * times


def test_as_many_as_concurrency_are_in_flight_and_never_more_are_begun_and_not_written_down(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, in_flight = 0, []
    commit = storage.StageJournal.commit

    def watched(self: storage.StageJournal, entries: Sequence[storage.Entry], **more: Any) -> None:
        nonlocal written
        time.sleep(0.002)  # time for others to begin, were they let
        in_flight.append(len(worked) - written)
        commit(self, entries, **more)
        written += len(entries)

    monkeypatch.setattr(storage.StageJournal, "commit", watched)
    with life() as run:
        run.map("meet", Meet(student=ScriptedModel(concurrency=4)), records(60))
    assert sorted(worked) == sorted(r.id for r in records(60))
    assert max(in_flight) <= 4


def test_what_is_begun_in_the_place_of_what_is_done_is_written_with_it(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One wait for the disk per round instead of two; never more rows begun than there are slots."""
    begun, most = storage.StageJournal.begin, []
    alone = []

    def begins(self: storage.StageJournal, rows: Sequence[int]) -> None:
        alone.append(len(rows))
        begun(self, rows)

    commit = storage.StageJournal.commit

    def commits(self: storage.StageJournal, entries: Sequence[storage.Entry], **more: Any) -> None:
        commit(self, entries, **more)
        most.append(self._db.execute("SELECT count(*) FROM intent").fetchone()[0])

    monkeypatch.setattr(storage.StageJournal, "begin", begins)
    monkeypatch.setattr(storage.StageJournal, "commit", commits)
    with life() as run:
        run.map("slow", Slow(student=ScriptedModel(concurrency=4)), records(40))
    assert alone == [4], "only the first ones were written down alone"
    assert 0 < max(most) <= 4
    assert most[-1] == 0


def test_steps_on_models_that_wait_on_a_network_get_chunks_of_one(life: Life) -> None:
    assert Local(chunk=7).chunk_size(Slow(student=ScriptedModel(concurrency=2))) == 1
    assert Local(chunk=7).chunk_size(Slow()) == 7
    assert Local().chunk_size(Measure()) == 64


@dataclass(frozen=True, kw_only=True)
class Files(ScriptedModel):
    """Takes items as files of so many."""

    chunk: int = 500


def test_steps_on_models_that_take_files_get_chunks_of_as_many_items(life: Life) -> None:
    assert Local(chunk=7).chunk_size(Slow(student=Files(concurrency=2))) == 500
    assert Local(chunk=7).chunk_size(Slow(student=Files(chunk=9))) == 9


def test_a_time_without_movement_is_more_than_none() -> None:
    assert Local(stall_s=0.5).stall_s == 0.5
    for wrong in (0.0, -1.0, math.nan):
        with pytest.raises(RecipeError) as refusal:
            Local(stall_s=wrong)
        assert str(refusal.value) == f"execution.stall_s: {wrong:g} is no time to wait; write seconds, such as 600."


@dataclass(frozen=True, kw_only=True)
class Pair(Settings):
    """Two models."""

    first: ScriptedModel
    others: tuple[ScriptedModel, ...] = ()
    by_name: Mapping[str, ScriptedModel] = field(default_factory=dict)


def test_the_smallest_concurrency_among_the_models_of_a_step_holds() -> None:
    three, five, two = (ScriptedModel(concurrency=n) for n in (3, 5, 2))
    assert local.concurrency(Pair(first=five)) == 5
    assert local.concurrency(Pair(first=five, others=(three, five))) == 3
    assert local.concurrency(Pair(first=five, others=(three,), by_name={"judge": two})) == 2
    assert local.concurrency(object()) == 1


@dataclass(frozen=True, kw_only=True)
class Stumble(Settings):
    """Raises on one id, after a moment in which others can finish."""

    student: ScriptedModel = ScriptedModel(concurrency=4)
    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score]:
        if chunk[0].response == "raise":
            raise ModelUnavailable("the endpoint answers nobody; start again when it does.")
        time.sleep(0.02)
        worked.append(chunk[0].id)
        return [Score(1.0)]


def test_what_others_finish_while_one_raises_is_written_down(life: Life) -> None:
    items = [*records(2), record("r2", "raise"), *records(10)[3:]]
    with life() as run, pytest.raises(ModelUnavailable, match="the endpoint answers nobody"):
        run.map("stumble", Stumble(), items)
    done = len(worked)
    assert 2 <= done <= 3
    assert "r2" not in worked
    items[2] = record("r2")
    with life() as run:
        run.map("stumble", Stumble(), items)
        assert run.stages[0].worked == 10 - done
    assert sorted(worked) == sorted(r.id for r in items), "paid work was thrown away and done again"


def test_what_is_in_flight_when_the_user_interrupts_is_written_down(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait, waits = local._Ended.of, iter(range(100))

    def interrupted(*given: Any) -> Any:  # Any: those of `of`
        if next(waits) == 2:
            raise KeyboardInterrupt
        return wait(*given)

    monkeypatch.setattr(local._Ended, "of", interrupted)
    with life() as run, pytest.raises(KeyboardInterrupt):
        run.map("stumble", Stumble(), records(30))
    monkeypatch.setattr(local._Ended, "of", wait)
    assert 4 <= len(worked) <= 12
    with life() as run:
        run.map("stumble", Stumble(), records(30))
    assert sorted(worked) == sorted(r.id for r in records(30))


def test_a_second_interrupt_is_not_waited_for(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any) -> Any:  # Any: those of `of`
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(local._Ended, "of", interrupted)
        with life() as run, pytest.raises(KeyboardInterrupt):
            run.map("stumble", Stumble(), records(30))
    with life() as run:
        assert len(run.map("stumble", Stumble(), records(30)).good()) == 30
        assert run.stages[0].worked == 30


def test_what_is_done_when_the_next_item_turns_out_to_have_changed_is_written_down(life: Life) -> None:
    """The next items are looked at while what is done is written; what is wrong with them must not undo that."""
    items = [record(f"r{n}") for n in range(12)]
    with life() as run, pytest.raises(ModelUnavailable):
        run.map("stumble", Stumble(), [*items[:8], record("r8", "raise")])
    done = set(worked) - {"r8"}
    worked.clear()
    changed = [*items[:7], record("r7", "other"), *items[8:]]
    fresh = [record(f"x{n}") for n in range(4)]
    with life() as run, pytest.raises(ResumeError):
        run.map("stumble", Stumble(), [*items[:7], *changed[7:], *fresh])
    assert not set(worked) & done
    again = list(worked)
    with life() as run:
        run.map("stumble", Stumble(), items)
    assert all(worked.count(id) == 1 for id in again)


def test_an_item_that_is_found_changed_while_another_is_written_down_is_told_after_that(life: Life) -> None:
    items = [record("r0", "raise"), *records(6)[1:]]
    with life() as run, pytest.raises(ModelUnavailable):
        run.map("stumble", Stumble(), items)
    assert set(worked) >= {"r1", "r2", "r3"}
    worked.clear()
    items[0] = record("r0")
    one_by_one = {"executor": Local(chunk=1)}
    alone = Stumble(student=ScriptedModel(concurrency=1))
    with life(**one_by_one) as run, pytest.raises(ResumeError, match='"r3" is not what it was'):
        run.map("stumble", alone, [*items[:3], record("r3", "other"), *items[4:]])
    assert worked == ["r0"]
    with life(**one_by_one) as run:
        assert len(run.map("stumble", alone, items).good()) == 6
    assert worked.count("r0") == 1


def test_what_is_in_flight_when_a_page_turns_out_to_have_changed_is_written_down(life: Life) -> None:
    items = [record("r0"), record("r1", "raise"), record("r2"), record("r3")]
    with life() as run, pytest.raises(ModelUnavailable):
        run.map("stumble", Stumble(), items)
    assert sorted(worked) == ["r0", "r2", "r3"]
    items[1] = record("r1")
    with life() as run, pytest.raises(ResumeError, match='"r3" is not what it was'):
        run.map("stumble", Stumble(), [*items[:3], record("r3", "other")])
    with life() as run:
        run.map("stumble", Stumble(), items)
    assert worked.count("r1") == 1


@dataclass(frozen=True, kw_only=True)
class Forgetful(Settings):
    """Loses outcomes, or makes some up."""

    change: int
    student: ScriptedModel = ScriptedModel()
    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score]:
        return [Score(1.0)] * (len(chunk) + self.change)


@pytest.mark.parametrize(("change", "slots", "said"), [
    (-1, 1, "Forgetful gave 3 outcomes for 4 items; it must give one each."),
    (1, 1, "Forgetful gave 5 outcomes for 4 items; it must give one each."),
    (-1, 4, "Forgetful gave 0 outcomes for 1 items; it must give one each."),
])  # fmt: skip
def test_a_step_that_gives_too_few_or_too_many_outcomes_is_named(
    life: Life, change: int, slots: int, said: str
) -> None:
    step = Forgetful(change=change, student=ScriptedModel(concurrency=slots))
    with life() as run, pytest.raises(RunError) as refusal:
        run.map("forget", step, records(4))
    assert str(refusal.value) == said


def test_a_chunk_of_nothing_is_refused() -> None:
    for size in (0, -3):
        with pytest.raises(RecipeError, match=rf"^execution\.chunk: {size} is no number of items; write 1 or more\.$"):
            Local(chunk=size)
