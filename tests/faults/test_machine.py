"""Properties that hold for any input, and a machine of lives: submit, answer, fail, seal, die, lock out, fill the disk."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic import TypeAdapter

from tunesift import (
    DataError,
    DiskFull,
    Failure,
    Local,
    Message,
    Record,
    ResumeError,
    Run,
    RunLocked,
    Score,
    ScriptedModel,
    Settings,
    Stopped,
    read_dataset,
    write_records,
)
from tunesift.datasets import Dataset
from tunesift.running import fsio, journal
from tunesift.running.stopping import Stop
from tunesift.scoring.selectors import Largest, Pool
from tunesift.settings import canonical

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
QUICKLY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


# Properties of rows, and of the machine


@QUICKLY
@given(st.sampled_from([Score, Failure, Record, Message]), st.data())
def test_what_is_written_of_an_outcome_reads_back_as_it_was(kind: type, data: st.DataObject) -> None:
    number = st.floats(allow_nan=False, allow_infinity=False)
    made = {
        Score: st.builds(Score, st.none() | number, st.dictionaries(TEXT, number, max_size=3), TEXT),
        Failure: st.builds(Failure, st.sampled_from(["refused", "empty", "too-long"]), TEXT),
        Message: st.builds(Message, st.sampled_from(["user", "assistant"]), TEXT),
        Record: st.builds(
            Record, TEXT, st.tuples(st.builds(Message, st.just("user"), TEXT)), st.dictionaries(TEXT, TEXT)
        ),
    }[kind]
    outcome = data.draw(made)
    adapter: TypeAdapter[object] = TypeAdapter(kind)
    assert adapter.validate_json(adapter.dump_json(outcome)) == outcome


@QUICKLY
@given(JSON, st.randoms(use_true_random=False))
def test_canonical_json_is_a_fixed_point_and_knows_no_order_of_keys(value: object, draw: random.Random) -> None:
    def shuffled(value: object) -> object:
        if isinstance(value, dict):
            return {k: shuffled(value[k]) for k in draw.sample(list(value), len(value))}
        return [shuffled(v) for v in value] if isinstance(value, list) else value

    spelt = canonical(value)  # type: ignore[arg-type]
    assert canonical(json.loads(spelt)) == spelt
    assert canonical(shuffled(value)) == spelt  # type: ignore[arg-type]


@QUICKLY
@given(st.lists(TEXT.filter(str.strip), min_size=1, max_size=12), st.booleans())
def test_a_record_read_and_written_is_the_same_bytes(texts: list[str], ascii_only: bool) -> None:
    rows = [json.dumps({"instruction": t, "input": "", "output": t}, ensure_ascii=ascii_only).encode() for t in texts]
    with tempfile.TemporaryDirectory() as name:
        path, out = Path(name) / "a.jsonl", Path(name) / "b.jsonl"
        path.write_bytes(b"".join(row + b"\n" for row in rows))
        data = read_dataset(path)
        assert len(data) == len(rows)
        write_records(data, out, data)
        assert out.read_bytes() == path.read_bytes()
        write_records(data, Path(name) / "c.parquet", data)
        back = read_dataset(Path(name) / "c.parquet")
        assert [orjson.dumps(r.messages) for r in back] == [orjson.dumps(r.messages) for r in data]


@settings(QUICKLY, max_examples=15)
@given(st.integers(1, 70), st.integers(1, 20), st.integers(1, 9))
def test_parts_cover_the_rows_of_a_stage_once_and_in_order(rows: int, part_rows: int, chunk: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "PART_ROWS", part_rows)
        patch.setattr(fsio, "RESERVE_BYTES", 4096)
        with Run(Path(name) / "run", Local(chunk=chunk)) as run:
            run.map("work", Work(), items(range(rows)))
            run.finish(None, [])
        parts = sorted((Path(name) / "run" / "stages" / "work").glob("part-*"))
        sealed = [[row["row"] for row in pq.read_table(part).to_pylist()] for part in parts]
        assert [row for part in sealed for row in part] == list(range(rows))
        assert [len(part) for part in sealed[:-1]] == [part_rows] * (len(parts) - 1)


@QUICKLY
@given(st.lists(st.integers(0, 50), unique=True, min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_what_is_kept_does_not_depend_on_the_order_of_the_records(values: list[int], draw: random.Random) -> None:
    records = [Record(f"r{v}", (Message("user", str(v)), Message("assistant", str(v)))) for v in values]

    def kept(order: Sequence[Record]) -> set[str]:
        scores = {r.id: Score(int(r.id[1:]) / 51) for r in order}
        pool = Pool(Dataset.of(order), scores, {}, "IFD", random.Random(0))
        return {d.record_id for d in Largest(fraction=0.3)(pool) if d.action == "keep"}

    assert kept(records) == kept(draw.sample(records, len(records)))


# The machine

begun: list[str] = []
"""Items that the step was called for, over all lives of one example."""
room_left: list[int] = []
"""Commits until the disk is full, once; empty for a disk with room."""


@dataclass(frozen=True, kw_only=True)
class Work(Settings):
    """A number from an item's number; every seventh fails; some kill the life, or ask it to stop."""

    student: ScriptedModel = ScriptedModel()
    returns: ClassVar[type] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        if (left := deaths.get("chunks")) is not None:
            deaths["chunks"] = left - 1
            if left <= 0:
                raise Died
        begun.extend(record.id for record in chunk)
        return [outcome(int(record.id[1:])) for record in chunk]


deaths: dict[str, int] = {}
"""`chunks`: how many more chunks this life works on."""


class Died(BaseException):
    """Stands for the end of the process: nothing after it is written down."""


def outcome(number: int) -> Score | Failure:
    return Failure("refused", f"no {number}") if number % 7 == 3 else Score(number / 3)


def items(numbers: Sequence[int]) -> list[Record]:
    return [Record(f"i{n}", (Message("user", str(n)),)) for n in numbers]


class Lives(RuleBasedStateMachine):
    """A run whose page asks for more items now and then; after every rule its outcomes are what the items say."""

    @initialize()
    def start(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="tunesift-machine-"))
        self.asked, self.lives = 0, 0
        self.lost_in_flight = 0
        self.done: dict[str, Score | Failure] = {}
        begun.clear()
        room_left.clear()
        deaths.clear()
        self.run = self.opened()

    def opened(self) -> Run:
        self.lives += 1
        return Run(self.place / "run", Local(chunk=3), max_failures=1.0, stop=Stop()).__enter__()

    def close(self) -> None:
        self.run.__exit__(None, None, None)

    def page(self, expected: type[BaseException] | None = None) -> None:
        """Ask for everything that was asked for so far, as a page that runs again does."""
        numbers = range(self.asked)
        try:
            found = self.run.map("work", Work(), items(numbers))
        except BaseException as error:
            if expected is None or not isinstance(error, expected):
                raise
            return
        self.done = {id: found[id] for id in found}

    @rule(more=st.integers(1, 9))
    def submit(self, more: int) -> None:
        self.asked += more
        self.page()

    @rule()
    def ask_again(self) -> None:
        before = len(begun)
        self.page()
        assert len(begun) == before or not self.done or len(self.done) < self.asked or self.lost_in_flight

    @rule()
    def close_and_reopen(self) -> None:
        self.close()
        self.run = self.opened()
        before = len(begun)
        complete = len(self.done) == self.asked
        self.page()
        assert len(begun) == before or not complete, "work was done again after a life that ended well"

    @rule(chunks=st.integers(0, 3), more=st.integers(1, 12))
    def die(self, chunks: int, more: int) -> None:
        """The life ends in the midst of a chunk; what was in flight is the most that is done again."""
        self.asked += more
        deaths["chunks"] = chunks
        self.page(expected=Died)
        deaths.clear()
        self.crash()
        before = len(begun)
        self.page()
        assert len(begun) - before <= self.asked
        assert len(set(begun)) == self.asked

    @rule()
    def crash(self) -> None:
        """The files as they are now, opened by another process than the one that had them open."""
        copy = self.place.with_name(f"{self.place.name}-copy")
        shutil.copytree(self.place, copy)
        self.close()
        shutil.rmtree(self.place)
        copy.rename(self.place)
        self.run = self.opened()

    @rule()
    def second_opener(self) -> None:
        with pytest.raises(RunLocked, match=f"by process {os.getpid()} "), Run(self.place / "run", Local()):
            raise AssertionError("two lives at once")

    @rule(more=st.integers(1, 12), commits=st.integers(0, 3))
    def disk_full(self, more: int, commits: int) -> None:
        """A commit finds no room, once: what was in flight goes into the room held back, and the call ends."""
        self.asked += more
        room_left.append(commits)
        self.page(expected=DiskFull)
        room_left.clear()
        self.close()
        self.run = self.opened()
        self.page()
        assert len(begun) == len(set(begun)), "an answer was lost on the full disk"

    @rule(more=st.integers(1, 12))
    def stop(self, more: int) -> None:
        self.asked += more
        self.run.stop.ask()
        self.page(expected=Stopped)
        self.close()
        self.run = self.opened()
        self.page()

    @precondition(lambda self: self.asked > 0)
    @rule()
    def another_page(self) -> None:
        with pytest.raises(ResumeError):
            self.run.map("work", Work(), [Record("i0", (Message("user", "another text"),))])

    @rule()
    def twins(self) -> None:
        with pytest.raises(DataError):
            self.run.map("twins", Work(), items([1, 1]))

    @invariant()
    def nothing_is_lost_doubled_or_changed(self) -> None:
        if hasattr(self, "done"):
            assert self.done == {f"i{n}": outcome(n) for n in range(len(self.done))}
            assert list(self.done) == [f"i{n}" for n in range(len(self.done))], "the order is not that of the input"

    def teardown(self) -> None:
        if not hasattr(self, "place"):
            return
        self.page()
        assert len(self.done) == self.asked
        self.close()
        shutil.rmtree(self.place)


@pytest.fixture
def full_at_will(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit of answers that fails for want of room when `room_left` says so."""
    monkeypatch.setattr(journal, "PART_ROWS", 8)
    monkeypatch.setattr(fsio, "RESERVE_BYTES", 4096)
    plain: Callable[..., None] = journal.StageJournal.commit

    def commit(self: journal.StageJournal, entries: Sequence[journal.Entry], **more: Any) -> None:
        if room_left:
            room_left[0] -= 1
            if room_left[0] < 0:
                room_left.clear()
                with fsio.storage_errors(Path("state.db")):
                    raise OSError(errno.ENOSPC, "No space left on device")
        plain(self, entries, **more)

    monkeypatch.setattr(journal.StageJournal, "commit", commit)


def drive(examples: int, steps: int) -> None:
    chosen = settings(max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True,
                      suppress_health_check=list(HealthCheck))  # fmt: skip
    run_state_machine_as_test(Lives, settings=chosen)


@pytest.mark.usefixtures("full_at_will")
def test_whatever_happens_in_20_stories_nothing_is_lost_doubled_or_changed() -> None:
    drive(20, 30)


@pytest.mark.slow
@pytest.mark.usefixtures("full_at_will")
def test_whatever_happens_in_200_stories_nothing_is_lost_doubled_or_changed() -> None:
    drive(200, 50)
