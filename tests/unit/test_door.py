"""The door: what `Run.map` promises; each line of it is a test with that line as its name."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness import door as shared
from harness.door import Life, Measure, Slow, record, records, worked
from tunesift import (
    DataError,
    Failure,
    Local,
    ModelUnavailable,
    Record,
    ResumeError,
    RunLocked,
    Score,
    ScriptedModel,
    TooManyFailures,
)
from tunesift.running import journal as storage
from tunesift.running.run import FEW_FAILURES

fresh, life = shared.fresh, shared.life


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
