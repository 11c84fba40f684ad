"""The door: the contract of `Run.map`, each of whose lines is a test with that line as its name, and what stands
around it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import pyarrow.parquet as pq
import pytest

from tunesift import (
    INCIDENTAL,
    CannotCreate,
    DataError,
    Dataset,
    Decision,
    Failure,
    Local,
    Message,
    ModelUnavailable,
    RecipeError,
    Record,
    ResumeError,
    Run,
    RunError,
    RunLocked,
    Score,
    ScriptedModel,
    Settings,
    Stopped,
    StorageError,
    TooManyFailures,
)
from tunesift.heartbeat import resting
from tunesift.records import content_digest
from tunesift.running import journal as storage
from tunesift.running import local
from tunesift.running import run as door
from tunesift.running.fsio import read_json
from tunesift.running.progress import Progress
from tunesift.running.run import FEW_FAILURES

worked: list[str] = []
"""Ids that steps of these tests worked on, in this test, in the order in which they began."""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PART_ROWS", 8)
    worked.clear()


@dataclass(frozen=True, kw_only=True)
class Measure(Settings):
    """Length of the response, times a factor; what the response says may go wrong goes wrong."""

    student: ScriptedModel = ScriptedModel()
    factor: float = 1.0
    patience_s: Annotated[float, INCIDENTAL] = 1.0
    """A setting that changes no result."""
    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        worked.extend(r.id for r in chunk)
        return [self._one(r.response) for r in chunk]

    def _one(self, response: str) -> Score | Failure:
        if response.startswith("refuse"):
            return Failure("refused", response)
        if response == "raise":
            raise ModelUnavailable("the model is gone; start it again.")
        numbers = {"nan": math.nan, "inf": -math.inf}
        value = numbers.get(response, len(response) * self.factor)
        return Score(value, {"characters": len(response)})


def record(id: str, response: str = "Hello there.") -> Record:
    return Record(id, (Message("user", "Say hello."), Message("assistant", response)))


def records(count: int, response: str = "") -> list[Record]:
    return [record(f"r{n}", response or "x" * (n + 1)) for n in range(count)]


class Life(Protocol):
    """Opens the run of a folder once more."""

    def __call__(self, **fields: Any) -> Run: ...  # Any: fields of Run


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return lambda **fields: Run(tmp_path / "run", fields.pop("executor", Local(chunk=4)), **fields)


def rows(folder: Path) -> dict[str, list[dict[str, object]]]:
    """All sealed rows, by stage and part."""
    found = sorted((folder / "stages").glob("*/part-*.parquet"))
    return {f"{p.parent.name}/{p.name}": pq.read_table(p).to_pylist() for p in found}


def all_kept(items: Sequence[Record]) -> list[Decision]:
    return [Decision(r.id, "keep", "kept: all are") for r in items]


# The contract


def test_1_same_stage_same_id_same_content_the_recorded_outcome_without_work(life: Life) -> None:
    with life() as run:
        first = run.map("measure", Measure(), records(10))
        made = {id: first[id] for id in first}
        assert worked == [r.id for r in records(10)]
        again = run.map("measure", Measure(), records(10))
        assert {id: again[id] for id in again} == made
    with life() as run:
        later = run.map("measure", Measure(), records(10))
        assert (
            {id: later[id] for id in later}
            == made
            == {f"r{n}": Score(n + 1.0, {"characters": n + 1}) for n in range(10)}
        )
        assert run.stages[0].worked == 0
    assert len(worked) == 10


@pytest.mark.parametrize("same_life", [True, False])
@pytest.mark.parametrize("place", [2, 9])
def test_2_same_stage_same_id_other_content_resume_error(life: Life, same_life: bool, place: int) -> None:
    changed = records(10)
    changed[place] = record(f"r{place}", "something else")
    with life() as run:
        run.map("measure", Measure(), records(10))
        if same_life:
            with pytest.raises(ResumeError, match=f'^stage "measure": the content of the item "r{place}" is not what'):
                run.map("measure", Measure(), changed)
    with life() as run, pytest.raises(ResumeError, match=f'"r{place}" is not what it was; use another folder, or'):
        run.map("measure", Measure(), changed)
    assert len(worked) == 10


def test_2_same_row_other_id_resume_error(life: Life) -> None:
    with life() as run:
        run.map("measure", Measure(), records(10))
    with life() as run, pytest.raises(ResumeError, match='was given the item "r0" where it is now given "r9"'):
        run.map("measure", Measure(), records(10)[::-1])


@pytest.mark.parametrize("same_life", [True, False])
def test_3_same_stage_other_settings_resume_error_naming_the_field_the_old_value_and_the_new(
    life: Life, same_life: bool
) -> None:
    said = r'^stage "measure" was started with factor=1\.0; it is now 2\.0; use another folder, or go back\.$'
    with life() as run:
        run.map("measure", Measure(), records(3))
        if same_life:
            with pytest.raises(ResumeError, match=said):
                run.map("measure", Measure(factor=2.0), records(3))
    with life() as run, pytest.raises(ResumeError, match=said):
        run.map("measure", Measure(factor=2.0), records(3))


def test_3_a_field_within_a_field_is_named_by_its_path(life: Life) -> None:
    with life() as run:
        run.map("measure", Measure(), records(3))
    other = Measure(student=ScriptedModel(otherwise="No."))
    said = r'started with student\.otherwise="I have nothing to add\."; it is now "No\."'
    with life() as run, pytest.raises(ResumeError, match=said):
        run.map("measure", other, records(3))


def test_3_fields_marked_incidental_may_differ(life: Life) -> None:
    with life() as run:
        run.map("measure", Measure(patience_s=1.0), records(3))
    with life(executor=Local(chunk=1)) as run:
        run.map("measure", Measure(patience_s=9.0), records(3))
    assert len(worked) == 3


@dataclass(frozen=True, kw_only=True)
class MeasureOtherwise(Measure):
    """Another step with the same settings."""


def test_3_another_class_with_the_same_settings_is_another_setting(life: Life) -> None:
    with life() as run:
        run.map("measure", Measure(), records(3))
    said = 'started with kind="Measure"; it is now "MeasureOtherwise"'
    with life() as run, pytest.raises(ResumeError, match=said):
        run.map("measure", MeasureOtherwise(), records(3))


@dataclass(frozen=True, kw_only=True)
class Backwards(Local):
    """Finishes the last chunk first."""

    def map(self, step: Any, work: Any) -> Iterator[Any]:  # Any: whatever goes through
        yield from reversed([[(number, step(items))] for number, items in work.take(100)])


def test_4_outcomes_are_found_by_id_executors_may_finish_in_any_order(life: Life) -> None:
    with life(executor=Backwards(chunk=3)) as run:
        found = run.map("measure", Measure(), records(20))
        assert list(found) == [f"r{n}" for n in range(20)]
        assert [found[f"r{n}"] for n in range(20)] == [Score(n + 1.0, {"characters": n + 1}) for n in range(20)]
        assert list(found.good()) == list(found)


def test_5_failures_are_recorded_and_final(life: Life) -> None:
    mixed = [record("good"), record("bad", "refuse: no"), record("odd", "nan")]
    expected = {"bad": Failure("refused", "refuse: no"), "odd": Failure("not-finite", "a number in the outcome is nan")}
    for _ in range(2):
        with life() as run:
            found = run.map("measure", Measure(), mixed)
            assert found.failures() == expected
            assert {id: found[id] for id in expected} == expected
            assert dict(found.good()) == {"good": Score(12.0, {"characters": 12})}
            assert run.stages[0].failed == 2
            with pytest.raises(KeyError):
                found.good()["bad"]
            with pytest.raises(KeyError):
                found["never given"]
    assert sorted(worked) == ["bad", "good", "odd"]


def failing(count: int, bad: int) -> list[Record]:
    """So many records, of which the first ones but one fail, two ways."""
    said = ["refuse: too rude" if n % 3 else "refuse: too long" for n in range(bad)]
    return [record("r0"), *(record(f"r{n}", said[n - 1]) for n in range(1, bad + 1)), *records(count)[bad + 1 :]]


def test_6_more_failures_than_the_recipe_allows_too_many_failures_with_the_commonest_messages(life: Life) -> None:
    with life() as run, pytest.raises(TooManyFailures) as stop:
        run.map("measure", Measure(), failing(40, 30))
    assert str(stop.value) == (
        'stage "measure": 11 items failed, more than 10 (7 times refused: refuse: too rude; '
        "4 times refused: refuse: too long); raise max_failures to go on."
    )
    assert len(worked) == 12  # one good record, eleven failures, nothing after


def test_6_a_higher_limit_goes_on_where_it_stopped(life: Life) -> None:
    items = failing(40, 30)
    for _ in range(3):
        with life() as run, pytest.raises(TooManyFailures):
            run.map("measure", Measure(), items)
    assert len(worked) == 12  # trying again with the same limit works on nothing
    with life(max_failures=0.75) as run:
        found = run.map("measure", Measure(), items)
        assert len(found.failures()) == 30
    assert worked == [r.id for r in items]


def test_6_no_more_than_three_messages_are_named(life: Life) -> None:
    with life() as run, pytest.raises(TooManyFailures) as stop:
        run.map("measure", Measure(), [record(f"r{n}", f"refuse {n % 4}") for n in range(12)])
    assert str(stop.value).count(" times ") == 3


def test_6_few_failures_never_stop_a_run(life: Life) -> None:
    with life(max_failures=0.0) as run:
        assert len(run.map("measure", Measure(), failing(11, FEW_FAILURES)).failures()) == FEW_FAILURES


def test_6_what_is_in_flight_is_finished_before_a_run_stops(life: Life) -> None:
    step = Slow(student=ScriptedModel(concurrency=4), fail_all=True)
    with life() as run, pytest.raises(TooManyFailures):
        run.map("slow", step, records(60))
    begun = sorted(worked)
    assert 11 <= len(begun) <= 11 + 2 * 4
    with life(max_failures=1.0) as run:
        run.map("slow", step, records(60))
    assert sorted(worked) == sorted(r.id for r in records(60)), "an item was worked on twice"


def test_7_two_items_of_one_call_with_one_id_data_error_before_any_work(life: Life) -> None:
    with life() as run, pytest.raises(DataError) as refusal:
        run.map("measure", Measure(), [*records(5), record("r3")])
    assert str(refusal.value) == 'stage "measure" was given two items with the id "r3"; ids must be unique.'
    assert worked == []


def test_8_only_the_driver_writes_the_journal_whatever_executor_does_the_work(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = set()
    commit = storage.StageJournal.commit

    def watched(self: storage.StageJournal, entries: Sequence[storage.Entry], **more: Any) -> None:
        writers.add(threading.current_thread())
        commit(self, entries, **more)

    monkeypatch.setattr(storage.StageJournal, "commit", watched)
    with life() as run:
        run.map("slow", Slow(student=ScriptedModel(concurrency=4)), records(20))
    assert writers == {threading.main_thread()}


def test_9_what_was_not_committed_did_not_happen(life: Life) -> None:
    items = [*records(6), record("r6", "raise"), record("r7")]
    with life() as run, pytest.raises(ModelUnavailable, match="the model is gone"):
        run.map("measure", Measure(), items)
    assert worked == [r.id for r in items]  # r4 to r7 were one chunk, and it was never committed
    repaired = [*records(6), record("r6", "fine"), record("r7")]
    with life() as run:
        run.map("measure", Measure(), repaired)
        assert run.stages[0].worked == 4
    assert worked[8:] == ["r4", "r5", "r6", "r7"]


HOLD = """
import sys, time
from pathlib import Path
from tunesift import Local, Run
with Run(Path(sys.argv[1]), Local()):
    print("held", flush=True)
    time.sleep(60)
"""


def test_9_a_second_process_is_turned_away_by_a_lock_that_names_process_host_and_time(
    life: Life, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunLocked) as refusal, life():
            raise AssertionError("two processes write one folder")
        assert str(refusal.value).startswith(
            f"{folder} is being written by process {holder.pid} on {socket.gethostname()} since {time.strftime('%Y-')}"
        )
        assert refusal.value.exit_code == 75
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout:
            holder.stdout.close()
    with life() as run:  # the lock went with its holder
        assert json.loads((folder / "holder.json").read_text())["pid"] == os.getpid()
        assert run.folder == folder


def test_9_two_runs_of_one_process_do_not_share_a_folder(life: Life) -> None:
    with life(), pytest.raises(RunLocked, match=f"process {os.getpid()} on"), life():
        raise AssertionError("two runs write one folder")
    with life() as run:
        (run.folder / "holder.json").unlink()
        with pytest.raises(RunLocked, match="is being written by another process; wait, or stop it"), life():
            raise AssertionError("two runs write one folder")


# What comes out is what went in


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome with parts of its own."""

    name: str
    ranks: tuple[int, ...]
    by: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    margin: float | None = None


@dataclass(frozen=True, kw_only=True)
class Give(Settings):
    """Gives whatever it is told to, by id."""

    what: str
    returns: ClassVar[type[Any]]

    def __call__(self, chunk: Sequence[Record], /) -> list[Any]:
        return [GIVEN[self.what][record.id] for record in chunk]


@dataclass(frozen=True, kw_only=True)
class GiveScores(Give):
    returns: ClassVar[type[Any]] = Score


@dataclass(frozen=True, kw_only=True)
class GiveVectors(Give):
    returns: ClassVar[type[Any]] = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class GiveVerdicts(Give):
    returns: ClassVar[type[Any]] = Verdict


@dataclass(frozen=True, kw_only=True)
class GiveRecords(Give):
    returns: ClassVar[type[Any]] = Record


NASTY = 'ü € 𝄞 \u2028 \0 \x1b[31m "q" \\ null NaN </script> {}'
GIVEN: dict[str, dict[str, Any]] = {
    "scores": {
        "a": Score(0.1 + 0.2, {"conditioned": 5e-324, "direct": 1.7976931348623157e308, "tokens": 12}, NASTY),
        "b": Score(None, note="null"),
        "c": Score(-0.0, {}),
        "d": Failure("unreadable", NASTY),
        "e": Failure("too-long", ""),
    },
    "vectors": {"a": (0.1, 1 / 3, -1e-9), "b": (), "c": Failure("empty", "no text"), "d": (1.0,)},
    "verdicts": {
        "a": Verdict("a", (3, 1, 2), {"x": (0.5, 0.25)}, 0.1),
        "b": Verdict(NASTY, ()),
        "c": Failure("refused", "no"),
    },
    "records": {
        "a": Record(
            "a~response", (Message("user", NASTY), Message("assistant", "", ("a.png",))), {"n": [1, {"z": None}]}
        ),
        "b": Record("b", ()),
    },
}


@pytest.mark.parametrize("step", [GiveScores(what="scores"), GiveVectors(what="vectors"),
                                  GiveVerdicts(what="verdicts"), GiveRecords(what="records")])  # fmt: skip
@pytest.mark.parametrize("sealed", [True, False])
def test_outcomes_read_back_equal_to_what_was_made(life: Life, step: Give, sealed: bool) -> None:
    given = GIVEN[step.what]
    items = [record(id) for id in given]
    with life() as run:
        found = run.map(step.what, step, items)
        assert {id: found[id] for id in found} == given
        if sealed:
            run.finish(Dataset.of(items), all_kept(items))
    with life() as run:
        found = run.map(step.what, step, items)
        assert {id: found[id] for id in found} == given
        assert [id for id in given if id in found.good()] == list(found.good())
        assert dict(found.good()) == {id: made for id, made in given.items() if not isinstance(made, Failure)}
        assert found.failures() == {id: made for id, made in given.items() if isinstance(made, Failure)}
        assert [type(found[id]) for id in found] == [type(made) for made in given.values()]
        assert (len(found), len(found.good())) == (len(given), len(given) - len(found.failures()))


def test_a_number_that_is_not_finite_is_a_failure_wherever_it_stands(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {
        "scores": {"a": Score(math.nan), "b": Score(math.inf), "c": Score(0.5, {"loss": math.nan}), "d": Score(1.0)},
        "vectors": {"a": (0.5, math.nan), "b": (-math.inf,), "c": (1.0,)},
        "verdicts": {"a": Verdict("a", (), margin=math.nan), "b": Verdict("b", (), {"x": (math.inf,)})},
    }
    for step in (GiveScores(what="scores"), GiveVectors(what="vectors"), GiveVerdicts(what="verdicts")):
        monkeypatch.setitem(GIVEN, step.what, bad[step.what])
        with life() as run:
            found = run.map(step.what, step, [record(id) for id in bad[step.what]])
            sound = {"scores": ["d"], "vectors": ["c"], "verdicts": []}[step.what]
            assert list(found.good()) == sound
            assert {f.kind for f in found.failures().values()} == {"not-finite"}
            assert {id: found[id] for id in found.failures()} == found.failures()


@pytest.mark.parametrize("outcome", [None, "0.5", {"value": 0.5}, Score("high"), (0.5,), Score(0.5, note="\ud800")])  # type: ignore[arg-type]
def test_an_outcome_that_could_not_be_read_back_is_refused_and_its_step_named(
    life: Life, monkeypatch: pytest.MonkeyPatch, outcome: object
) -> None:
    monkeypatch.setitem(GIVEN, "scores", {"a": Score(1.0), "b": outcome})
    step = GiveScores(what="scores")
    with (
        life(executor=Local(chunk=1)) as run,
        pytest.raises(
            RunError, match=r'^stage "scores": GiveScores gave an outcome .* \((Input should|Pydantic|Error ser)'
        ),
    ):
        run.map("scores", step, [record("a"), record("b")])
    monkeypatch.setitem(GIVEN, "scores", {"b": Score(2.0)})
    with life() as run:  # what was sound before it is there, and the rest can be done once the step is right
        assert dict(run.map("scores", step, [record("a"), record("b")]).good()) == {"a": Score(1.0), "b": Score(2.0)}


def test_a_failure_that_quotes_half_a_surrogate_pair_does_not_stop_a_run(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GIVEN, "scores", {"a": Failure("unreadable", "no number in '\ud83d'")})
    with life() as run:
        found = run.map("scores", GiveScores(what="scores"), [record("a")])
        assert found.failures() == {"a": Failure("unreadable", "no number in '?'")} == {"a": found["a"]}


def test_a_stage_without_items_has_no_outcomes(life: Life) -> None:
    with life() as run:
        found = run.map("measure", Measure(), [])
        assert (len(found), list(found), dict(found.good()), found.failures()) == (0, [], {}, {})
        run.finish(Dataset.of([]), [])


# Threads


@dataclass(frozen=True, kw_only=True)
class Slow(Settings):
    """Takes a moment that depends on the id."""

    student: ScriptedModel = ScriptedModel()
    fail_all: bool = False
    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        worked.extend(r.id for r in chunk)
        time.sleep(content_digest(chunk[0].id)[0] / 255 * 0.004)
        return [self._one(r.id) for r in chunk]

    def _one(self, id: str) -> Score | Failure:
        if self.fail_all or content_digest(id)[1] % 7 == 0:
            return Failure("refused", f"{id}: no")
        return Score(content_digest(id)[2] / 255)


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


LAST_IS_DONE = threading.Event()


@dataclass(frozen=True, kw_only=True)
class Rest(Slow):
    """The first two items rest until the last is done."""

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        if chunk[0].id in ("r0", "r1"):
            with resting():
                assert LAST_IS_DONE.wait(30)
        if chunk[0].id == "r7":
            LAST_IS_DONE.set()
        return super(Rest, self).__call__(chunk)


def test_items_that_rest_before_they_are_tried_again_keep_no_others_waiting(tmp_path: Path) -> None:
    with Run(tmp_path / "run", Local()) as run:
        found = run.map("rest", Rest(student=ScriptedModel(concurrency=2)), records(8))
    assert len(found.good()) == 8


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


# Draws, tables, decisions


def test_draws_of_a_seed_are_the_same_ones_in_every_release(life: Life) -> None:
    """The first eight bytes of the SHA-256 of the seed and the names, as a JSON list, are the seed of the stream."""
    with life(seed=7) as run:
        drawn = run.random("pair", 1).random()
    text = '[7, "pair", "1"]'
    assert drawn == random.Random(int(hashlib.sha256(text.encode()).hexdigest()[:16], 16)).random()


def test_records_that_a_page_makes_are_on_disk_and_made_anew_each_time(life: Life, tmp_path: Path) -> None:
    with life() as run:
        assert list(run.dataset("winners", records(3))) == records(3)
        made = run.dataset("winners", (record(f"w{n}") for n in range(2)))
        assert list(made.ids()) == ["w0", "w1"]
        assert made[1] == record("w1")
        assert [made.line(id) for id in made.ids()] == [1, 2]
        assert any((run.folder / "made" / "winners").iterdir())
        with pytest.raises(DataError, match="same"):
            run.dataset("twins", [record("same"), record("same", "other")])
        for place in (run.folder / "made" / "elsewhere", run.folder / "made"):
            if place.exists():
                place.rename(tmp_path / "moved")
            place.symlink_to(tmp_path)
            with pytest.raises(StorageError, match="is a link"):
                run.dataset("elsewhere", records(1))


seen: list[tuple[object, ...]] = []


@dataclass(frozen=True, kw_only=True)
class Look(Measure):
    """Measures, and looks at how far its stage is, as somebody outside would."""

    folder: str = ""

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        path = Path(self.folder) / "progress.json"
        said = read_json(path) if path.exists() else {}
        seen.append(tuple(said.get(name) for name in ("stage", "items", "done")))
        return Measure.__call__(self, chunk)


running: list[Run] = []


@dataclass(frozen=True, kw_only=True)
class End(Measure):
    """Measures, and asks the run to end."""

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        running[-1].stop.ask()
        return Measure.__call__(self, chunk)


def test_nothing_more_is_begun_once_a_run_is_to_end(life: Life) -> None:
    with life() as run:
        running.append(run)
        with pytest.raises(Stopped):
            run.map("end", End(), records(20))
        assert run._journal.db.execute("SELECT row FROM intent").fetchall() == []
    assert worked == ["r0", "r1", "r2", "r3"]


@pytest.mark.parametrize(("every_s", "noted"), [(0.0, [(None,) * 3, ("look", 10, 4), ("look", 10, 8)]),
                                                (3600.0, [(None,) * 3] * 3)])  # fmt: skip
def test_how_far_a_stage_is_stands_in_its_folder_now_and_then_until_the_run_is_done(
    life: Life, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every_s: float, noted: list[object]
) -> None:
    monkeypatch.setattr(door, "EVERY_S", every_s)
    seen.clear()
    with life() as run:
        run.map("look", Look(folder=str(tmp_path / "run")), records(10))
        assert seen == noted
        run.finish(Dataset.of(records(10)), [Decision(f"r{n}", "keep", "kept: all") for n in range(10)])
        assert not (run.folder / "progress.json").exists()


@pytest.mark.parametrize("lives", [1, 2, 3])
def test_an_item_at_which_the_process_died_is_tried_again_alone_and_given_up_after_three_lives(
    life: Life, lives: int
) -> None:
    with life() as run:
        run.map("measure", Measure(), [])
        settings = run._journal.db.execute("SELECT settings FROM stage").fetchone()[0]
    for _ in range(lives):
        journal = storage.Journal(run.folder)
        journal.stage("measure", json.loads(settings)).begin([1])
        journal.db.close()  # as a kill leaves it: a row is begun, nothing came of it, and nobody closed the journal
    with life() as run:
        found = run.map("measure", Measure(), records(6))
    given_up = {"r1": Failure("crashed", "the process died 3 times while it was worked on")}
    assert found.failures() == (given_up if lives == 3 else {})
    assert worked == {1: ["r0", "r1", "r2", "r3", "r4", "r5"], 2: ["r0", "r2", "r3", "r4", "r5", "r1"],
                      3: ["r0", "r2", "r3", "r4", "r5"]}[lives]  # fmt: skip
    worked.clear()
    with life() as run:
        again = run.map("measure", Measure(), records(6))
        assert again["r1"] == (given_up["r1"] if lives == 3 else Score(2.0, {"characters": 2}))
    assert worked == []


def test_outcomes_know_which_items_were_asked_for_and_which_were_good(life: Life) -> None:
    with life() as run:
        found = run.map("measure", Measure(), [record("good"), record("bad", "refuse")])
        assert ("good" in found, "bad" in found, "other" in found) == (True, True, False)
        good = found.good()
        assert ("good" in good, "bad" in good, "other" in good, len(good)) == (True, False, False, 1)
        with pytest.raises(KeyError, match=r"^'bad'$"):
            good["bad"]


def test_draws_depend_on_the_seed_and_the_names_only(life: Life, tmp_path: Path) -> None:
    def draws(run: Run, *names: object) -> list[float]:
        stream = run.random(*names)
        return [stream.random() for _ in range(3)]

    with life(seed=7) as run:
        first = draws(run, "pair", "r1")
        random.seed(1)
        draws(run, "pair", "r2")
        assert draws(run, "pair", "r1") == first
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(draws, run, "pair", "r1").result() == first
        others = [
            draws(run, *names) for names in (("pair", "r2"), ("pair",), ("pairr1",), ("pair", "r", "1"), ("r1", "pair"))
        ]
    with Run(tmp_path / "other", Local(), seed=7) as run:
        assert draws(run, "pair", "r1") == first
    with Run(tmp_path / "third", Local(), seed=8) as run:
        others.append(draws(run, "pair", "r1"))
    assert all(other != first for other in others)
    assert len({tuple(o) for o in others}) == len(others)
    script = "import sys; from tunesift import *; from pathlib import Path; print(Run(Path('.'), Local(), 7).random('pair', 'r1').random())"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert float(told.stdout) == first[0]


def test_tables_grow_while_a_page_runs_and_start_empty_whenever_it_runs(life: Life) -> None:
    for _ in range(2):
        with life() as run:
            run.table("pairs", [{"round": 0, "weight": 0.5}])
            run.table("pairs", ({"round": n, "weight": 0.25, "note": "late"} for n in (1, 2)))
            run.table("nothing", [])
            run.finish(Dataset.of([]), [])
        table = pq.read_table(run.folder / "tables" / "pairs.parquet").to_pylist()
        assert table == [
            {"round": 0, "weight": 0.5, "note": None},
            {"round": 1, "weight": 0.25, "note": "late"},
            {"round": 2, "weight": 0.25, "note": "late"},
        ]
        assert pq.read_table(run.folder / "tables" / "nothing.parquet").num_rows == 0


def test_finishing_counts_decisions_and_writes_them_in_order(life: Life) -> None:
    data = Dataset.of(records(4))
    decisions = [
        Decision("r0", "keep", "kept: good"),
        Decision("r1", "drop", "dropped: bad"),
        Decision("r2", "replace", "replaced: better", ("r2",)),
        Decision("r2~draw-1", "create", "created: new", ("r2", "r3")),
        Decision("r3", "quarantine", "refused: no"),
    ]
    with life() as run:
        counts = run.finish(data, decisions)
    assert counts == {"keep": 1, "drop": 1, "replace": 1, "create": 1, "quarantine": 1}
    written = pq.read_table(run.folder / "decisions.parquet").to_pylist()
    assert written == [
        {"record_id": d.record_id, "action": d.action, "reason": d.reason, "parents": list(d.parents)}
        for d in decisions
    ]


def test_decisions_are_written_a_few_at_a_time_and_compared_with_what_was_written(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door, "ROWS", 3)
    data = Dataset.of(records(8))
    decisions = [Decision(r.id, "keep", f"kept: {n}", (r.id,) * (n % 3)) for n, r in enumerate(data)]
    with life() as run:
        run.finish(data, decisions)
    path = run.folder / "decisions.parquet"
    assert pq.ParquetFile(path).num_row_groups == 3
    assert [row["reason"] for row in pq.read_table(path).to_pylist()] == [d.reason for d in decisions]

    read = pq.ParquetFile.read_row_group
    for wrong in (lambda table: table.slice(1), lambda table: table.take([1, 0, 2][: table.num_rows])):
        path.unlink(missing_ok=True)
        monkeypatch.setattr(
            pq.ParquetFile,
            "read_row_group",
            lambda file, number, wrong=wrong, **options: wrong(read(file, number, **options)),
        )
        with life() as run, pytest.raises(StorageError, match="reads back other than it was written"):
            run.finish(data, decisions)
        assert not path.exists()


@pytest.mark.parametrize(("decided", "said"), [
    (["r0", "r1"], 'record "r2" has 0 decisions; every record must have exactly one.'),
    (["r0", "r1", "r2", "r1"], 'record "r1" has 2 decisions; every record must have exactly one.'),
    (["r0", "r1", "r2", "who"], '"who" was decided on and is no record of the input; a new record is "create".'),
    (["r0", "r1", "r2", ""], '"" was decided on and is no record of the input; a new record is "create".'),
])  # fmt: skip
def test_every_record_has_exactly_one_decision(life: Life, decided: list[str], said: str) -> None:
    with life() as run, pytest.raises(RunError) as refusal:
        run.finish(Dataset.of(records(3)), [Decision(id, "drop", "dropped: all") for id in decided])
    assert str(refusal.value) == said
    assert not (run.folder / "decisions.parquet").exists()


# Two lives


def test_a_second_life_that_asks_for_more_less_or_other_is_refused(life: Life) -> None:
    """The page must be the same in every life; a change that no single item shows is found at the end."""
    data = Dataset.of(records(10))
    with life() as run:
        run.map("measure", Measure(), data)
        run.map("again", Measure(), data)
    with life() as run:
        run.map("measure", Measure(), data[:7])
        run.map("again", Measure(), data)
        with pytest.raises(ResumeError, match=r'^stage "measure" holds 10 rows and was now asked for 7;'):
            run.finish(data, all_kept(list(data)))
    with life() as run:
        run.map("measure", Measure(), data)
        with pytest.raises(
            ResumeError, match='holds the stage "again", which was not asked for now; use another folder'
        ):
            run.finish(data, all_kept(list(data)))
    with life() as run:
        run.map("measure", Measure(), data)
        run.map("again", Measure(), data)
        run.finish(data, all_kept(list(data)))
    with (
        life() as run,
        pytest.raises(ResumeError, match=r'^stage "measure" was finished with 10 rows and is now asked'),
    ):
        run.map("measure", Measure(), records(11))
    assert len(worked) == 20


def page(run: Run, data: Sequence[Record], *, stray: bool = False) -> list[str]:
    """A page in rounds, each of which draws on what the round before it found."""
    weight, drawn = 1.0, []
    for number in range(3):
        stream = random.Random(os.urandom(4)) if stray else run.random("round", number)
        picked = stream.sample([r.id for r in data], 5)
        items = [record(f"{id}~{number}", f"{id} {weight:.6f}") for id in picked]
        found = run.map("write", Measure(), items).good()
        weight = sum(s.value or 0.0 for s in found.values()) / len(found) + stream.random()
        drawn += picked
    return drawn


def test_rounds_are_folded_again_from_the_journal(life: Life) -> None:
    with life() as run:
        first = page(run, records(20))
    assert len(worked) == 15
    with life() as run:
        assert page(run, records(20)) == first
        assert [s.worked for s in run.stages] == [0, 0, 0]
    assert len(worked) == 15


def test_a_page_that_draws_outside_the_run_is_caught_in_its_second_life(life: Life) -> None:
    with life() as run:
        page(run, records(20), stray=True)
    with life() as run, pytest.raises(ResumeError, match='stage "write"'):
        page(run, records(20), stray=True)


class Heard(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def begin(self, stage: str, total: int, done: int) -> None:
        self.said.append(("begin", stage, total, done))

    def advance(self, stage: str, items: int, failed: int) -> None:
        self.said.append(("advance", items, failed))

    def end(self, stage: str) -> None:
        self.said.append(("end", stage))


def test_progress_says_how_many_of_a_round_are_done_already(life: Life) -> None:
    first, second = Heard(), Heard()
    with life(progress=first) as run:
        page(run, records(20))
    with life(progress=second) as run:
        page(run, records(20))
    assert [s for s in first.said if s[0] == "begin"] == [("begin", "write", 5, 0)] * 3
    assert second.said == [("begin", "write", 5, 5), ("end", "write")] * 3
    assert sum(int(str(s[1])) for s in first.said if s[0] == "advance") == 15


def test_progress_ends_whatever_happens(life: Life) -> None:
    heard = Heard()
    with life(progress=heard) as run, pytest.raises(ModelUnavailable):
        run.map("measure", Measure(), [record("a", "raise")])
    assert heard.said == [("begin", "measure", 1, 0), ("end", "measure")]


# The folder


def test_a_folder_that_cannot_be_made_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with (
            pytest.raises(CannotCreate, match=r"cannot be written \(.+\); use another folder\.$"),
            Run(folder, Local()),
        ):
            raise AssertionError("a run in a file")


def test_a_folder_that_cannot_be_opened_is_not_left_locked(life: Life, tmp_path: Path) -> None:
    with life():
        pass
    database = tmp_path / "run" / "state.db"
    sound = database.read_bytes()
    database.write_bytes(b"this is no database, whatever its name says" * 100)
    kept = life()
    with pytest.raises(StorageError, match=r"check the disk and start again\.$"), kept:
        raise AssertionError("a damaged folder was opened")
    database.write_bytes(sound)
    with life():
        pass


def test_only_its_owner_may_read_a_run(life: Life) -> None:
    with life() as run:
        assert run.folder.stat().st_mode & 0o777 == 0o700


def test_many_kills_leave_no_rubbish_in_the_folder(life: Life) -> None:
    with life() as run:
        run.map("measure", Measure(), records(3))
        run.finish(Dataset.of(records(3)), all_kept(records(3)))
    names = sorted(str(p.relative_to(run.folder)) for p in run.folder.rglob("*") if not p.name.startswith("state.db"))
    assert names == [
        "LOCK", "decisions.parquet", "holder.json", "stages", "stages/measure", "stages/measure/_SUCCESS.json",
        "stages/measure/part-000000.parquet",
    ]  # fmt: skip
    for name in (
        "holder.json",
        "decisions.parquet",
        "stages/measure/_SUCCESS.json",
        "stages/measure/part-000000.parquet",
    ):
        path = run.folder / name
        path.with_name(f"{path.name}.tmp").write_bytes(b"left by a kill")
    with life() as run:
        run.map("measure", Measure(), records(3))
        run.finish(Dataset.of(records(3)), all_kept(records(3)))
    assert not list(run.folder.rglob("*.tmp"))
