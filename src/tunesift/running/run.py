"""The door: whatever is costly goes through `Run.map`, which does only what has not been done yet."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol

import filelock
import pyarrow as pa
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from tunesift.datasets import Dataset
from tunesift.errors import CannotCreate, DataError, DiskFull, ResumeError, RunError, RunLocked, TooManyFailures, shown
from tunesift.records import Decision, Failure, FailureKind, Record, content_digest
from tunesift.running.fsio import make_folder, refuse_link, release, reserve, write_json, write_table
from tunesift.running.holder import told_holder
from tunesift.running.journal import Entry, Journal, StageJournal
from tunesift.running.local import Done
from tunesift.running.progress import Progress
from tunesift.running.step import Item, Made, Outcomes, Step
from tunesift.running.stopping import Stop
from tunesift.settings import Json, semantic

_LOG = logging.getLogger(__name__)

_KINDS: TypeAdapter[FailureKind] = TypeAdapter(FailureKind)

FEW_FAILURES = 10
"""Failures of one stage that never stop a run, however small the stage."""


MOST_CRASHES = 3
"""Lives of a run that one item may end; the next life sets it aside."""


class Executor(Protocol):
    """Where steps run."""

    def chunk_size(self, step: object) -> int: ...

    def map(self, step: Step[Item, Made], chunks: Iterable[tuple[int, Sequence[Item]]]) -> Iterator[Done[Made]]:
        """Yield chunk numbers and outcomes, all that are finished at a time, in whatever order chunks finish."""
        ...


@dataclass(frozen=True, slots=True)
class StageReport:
    """What one stage of a run did in this process."""

    stage: str
    items: int
    """Items asked for."""
    worked: int
    """Items that were not in the journal yet."""
    failed: int
    seconds: float


@dataclass
class Run:
    """One folder, one seed, one executor: the only door to lasting effects. Use it in a `with` statement."""

    folder: Path
    executor: Executor
    seed: int = 0
    max_failures: float = 0.01
    """Fraction of the items of one stage that may fail before the run stops; ten may always fail."""
    progress: Progress = field(default_factory=Progress)
    stop: Stop = field(default_factory=Stop)
    """Asked between chunks whether somebody wants the run to end."""
    stages: list[StageReport] = field(default_factory=list, init=False)

    def __enter__(self) -> Run:
        """Lock the folder and open its journal; raises `RunLocked`, naming who holds it, or `CannotCreate`."""
        with ExitStack() as opening:
            opening.callback(_locked(self.folder).release)
            who: Json = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            write_json(self.folder / "holder.json", who)
            reserve(self.folder)
            opening.callback(release, self.folder)
            self._journal = Journal(self.folder)
            opening.callback(self._journal.close)
            self._closing = opening.pop_all()
        self._open: dict[str, _Stage] = {}
        self._tables: dict[str, list[Mapping[str, object]]] = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def map(self, stage: str, step: Step[Item, Made], items: Iterable[Item]) -> Outcomes[Made]:
        """Do what is not yet in the stage's journal; return everything asked for.

        Raises `ResumeError` where settings or items differ from what the journal holds, `DataError` for two items of
        one id, `TooManyFailures` where more fail than the recipe allows.
        """
        given: Sequence[Item] = items if isinstance(items, Dataset) else _distinct(stage, list(items))
        journal = self._journal.stage(stage, _settings(step))
        opened = self._open.setdefault(stage, _Stage(journal))
        allowed = int(max(FEW_FAILURES, self.max_failures * len(given)))
        call: _Call[Item, Made] = _Call(stage, opened, step, allowed, self.stop)
        self.progress.begin(stage, len(given), max(0, min(len(journal) - len(opened.walked), len(given))))
        began, worked = time.monotonic(), 0
        try:
            for done in self.executor.map(step, call.chunks(given, self.executor.chunk_size(step))):
                items_done, failed = self._commit(call, done)
                worked += items_done
                self.progress.advance(stage, items_done, failed)
        except BaseException as error:
            error.add_note(f'in the stage "{stage}"')
            raise
        finally:
            self.progress.end(stage)
        if call.full is not None:
            raise call.full
        self.stages.append(StageReport(stage, len(given), worked, len(call.failed), time.monotonic() - began))
        _LOG.info("stage %s: %d items, %d done now, %d failed", stage, len(given), worked, len(call.failed))
        if call.too_many:
            raise TooManyFailures(_many(stage, call.failed, allowed))
        self.stop.check(self.folder)
        return Outcomes(call.rows, call.failed, call.read)

    def _commit(self, call: _Call[Item, Made], done: Done[Made]) -> tuple[int, int]:
        """Write finished chunks down; where the disk is full, into the space held back for them, and no more follow."""
        entries = call.entries(done)
        try:
            call.journal.commit(entries, seal=call.full is None)
        except DiskFull as error:
            if call.full is not None or not release(self.folder):
                raise
            call.full = error
            call.journal.commit([e for e in entries if call.journal.get(e.row) is None], seal=False)
        return len(entries), sum(e.failure is not None for e in entries)

    def random(self, *names: object) -> random.Random:
        """A stream that depends on the seed and these names only."""
        text = json.dumps([self.seed, *map(str, names)]).encode()
        return random.Random(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))

    def table(self, name: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows to a small table for the report; tables start empty whenever the page runs."""
        self._tables.setdefault(name, []).extend(rows)

    def finish(self, data: Dataset[Record] | None, decisions: Sequence[Decision]) -> Counter[str]:
        """Check that every record has one decision, seal the stages, write decisions and tables; returns the counts.

        Raises `ResumeError` where the folder holds more, or other stages, than the page asked for.
        """
        counts = Counter(d.action for d in decisions)
        _check_conservation(data, decisions)
        if left := [stage for stage in self._journal.stages() if stage not in self._open]:
            raise ResumeError(f'{self.folder}: holds the stage "{left[0]}", which was not asked for now; use another '
                              "folder, or go back.")  # fmt: skip
        for opened in self._open.values():
            opened.journal.finish(len(opened.walked))
        columns = {
            "record_id": [d.record_id for d in decisions],
            "action": [d.action for d in decisions],
            "reason": [d.reason for d in decisions],
            "parents": [list(d.parents) for d in decisions],
        }
        schema = pa.schema(
            [(n, pa.string()) for n in ("record_id", "action", "reason")] + [("parents", pa.list_(pa.string()))]
        )
        write_table(self.folder / "decisions.parquet", pa.table(columns, schema))
        refuse_link(self.folder / "tables")
        for name, rows in self._tables.items():
            names = dict.fromkeys(column for row in rows for column in row)
            table = pa.table({column: [row.get(column) for row in rows] for column in names})
            write_table(self.folder / "tables" / f"{name}.parquet", table)
        return Counter({str(action): count for action, count in counts.items()})


@dataclass(frozen=True, slots=True)
class _Todo(Generic[Item]):
    """An item that is not done: its row in the stage, and its content's digest."""

    row: int
    item: Item
    digest: bytes


class _Stage:
    """A stage in this process: its journal, and which row each id walked to."""

    def __init__(self, journal: StageJournal) -> None:
        self.journal = journal
        self.walked: dict[str, int] = {}


class _Call(Generic[Item, Made]):
    """One call of map: which items it was given, which are under way, which failed."""

    def __init__(self, stage: str, opened: _Stage, step: Step[Item, Made], allowed: int, stop: Stop) -> None:
        self.stage, self.journal, self._walked = stage, opened.journal, opened.walked
        self._maker, self._allowed = type(step).__name__, allowed
        self._adapter: TypeAdapter[Made] = TypeAdapter(step.returns)
        self._under_way: dict[int, list[_Todo[Item]]] = {}
        self.rows: dict[str, int] = {}
        self.failed: dict[str, Failure] = {}
        self.full: DiskFull | None = None
        self._stop = stop

    @property
    def too_many(self) -> bool:
        """More items failed than may, now and before."""
        return len(self.failed) > self._allowed

    def chunks(self, items: Iterable[Item], size: int) -> Iterator[tuple[int, Sequence[Item]]]:
        """The items that are not done yet, some at a time; no more of them once the call is to end.

        What was in flight when two lives of the run ended without a word comes last and alone: what kills the process
        is found, and costs its neighbours nothing. After one such end it is tried as before, in the same company.
        """
        suspects: list[_Todo[Item]] = []
        missing = self._missing(items, suspects)
        numbers = count()
        while chunk := list(islice(missing, size)):
            if self._is_over():
                return
            yield self._begun(next(numbers), chunk)
        for todo in suspects:
            if self._is_over():
                return
            if self.journal.crashed[todo.row] >= MOST_CRASHES:
                self._give_up(todo)
            else:
                yield self._begun(next(numbers), [todo])

    def _is_over(self) -> bool:
        return self.too_many or self.full is not None or self._stop.asked

    def _begun(self, number: int, chunk: list[_Todo[Item]]) -> tuple[int, Sequence[Item]]:
        self.journal.begin([todo.row for todo in chunk])
        self._under_way[number] = chunk
        return number, [todo.item for todo in chunk]

    def _give_up(self, todo: _Todo[Item]) -> None:
        lives = self.journal.crashed[todo.row]
        failure = Failure("crashed", f"the process died {lives} times while it was worked on")
        self.failed[todo.item.id] = failure
        self.journal.commit([Entry(todo.row, todo.item.id, todo.digest, failure.kind, failure.message)])

    def _missing(self, items: Iterable[Item], suspects: list[_Todo[Item]]) -> Iterator[_Todo[Item]]:
        for item in items:
            row = self._walked.setdefault(item.id, len(self._walked))
            self.rows[item.id] = row
            digest = content_digest(item)
            entry = self.journal.get(row)
            if entry is None and self.journal.crashed.get(row, 0) > 1:
                suspects.append(_Todo(row, item, digest))
            elif entry is None:
                yield _Todo(row, item, digest)
            elif entry.id != item.id or entry.digest != digest:
                raise ResumeError(_other(self.stage, entry, item.id))
            elif entry.failure is not None:
                self.failed[item.id] = _failure(entry)

    def entries(self, done: Done[Made]) -> list[Entry]:
        """What is to be written down of finished chunks."""
        entries = []
        for number, outcomes in done:
            for todo, outcome in zip(self._under_way.pop(number), outcomes, strict=True):
                written = _writable(outcome) if isinstance(outcome, Failure) else self._written(outcome)
                if isinstance(written, Failure):
                    self.failed[todo.item.id] = written
                    entries.append(Entry(todo.row, todo.item.id, todo.digest, written.kind, written.message))
                else:
                    entries.append(Entry(todo.row, todo.item.id, todo.digest, None, written))
        return entries

    def _written(self, outcome: Made) -> str | Failure:
        """JSON of an outcome that reads back as it is; a `Failure` where a number in it is not finite."""
        try:
            written = self._adapter.dump_json(outcome, warnings="error").decode()
            if "null" in written:  # None, or what JSON has no number for
                if number := _not_finite(self._adapter.dump_python(outcome, mode="json")):
                    return Failure("not-finite", f"a number in the outcome is {number}")
                self._adapter.validate_json(written)
        except (PydanticSerializationError, ValidationError) as error:
            said = shown(str(error).splitlines()[-1].strip())
            raise RunError(f'stage "{self.stage}": {self._maker} gave an outcome that is not of the type it returns, '
                           f"or cannot be written ({said}).") from error  # fmt: skip
        return written

    def read(self, row: int) -> Made | Failure:
        entry = self.journal.get(row)
        assert entry is not None  # map gives outcomes when every row is done
        return self._adapter.validate_json(entry.outcome) if entry.failure is None else _failure(entry)


def _settings(step: object) -> Json:
    """What decides a step's outcomes: its settings, and its class where they name no kind."""
    settings = semantic(step)
    return {"kind": type(step).__name__, **settings} if isinstance(settings, dict) else settings


def _not_finite(value: object) -> float | None:
    """The first number in a JSON value that is no number to JSON; None where there is none."""
    if isinstance(value, float):
        return None if math.isfinite(value) else value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for v in inner if (found := _not_finite(v)) is not None), None)


def _writable(failure: Failure) -> Failure:
    """The same failure; halves of surrogate pairs, which cannot be written, become question marks."""
    return Failure(failure.kind, failure.message.encode(errors="replace").decode())


def _failure(entry: Entry) -> Failure:
    return Failure(_KINDS.validate_python(entry.failure), entry.outcome)


def _other(stage: str, entry: Entry, id: str) -> str:
    if entry.id != id:
        return f'stage "{stage}" was given the item "{shown(entry.id)}" where it is now given "{shown(id)}".'
    return (
        f'stage "{stage}": the content of the item "{shown(id)}" is not what it was; use another folder, or restore it.'
    )


def _distinct(stage: str, items: list[Item]) -> list[Item]:
    twice = [id for id, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise DataError(f'stage "{stage}" was given two items with the id "{shown(twice[0])}"; ids must be unique.')
    return items


def _many(stage: str, failed: Mapping[str, Failure], allowed: int) -> str:
    common = Counter(shown(f"{f.kind}: {f.message}") for f in failed.values()).most_common(3)
    said = "; ".join(f"{count} times {message}" for message, count in common)
    return f'stage "{stage}": {len(failed)} items failed, more than {allowed} ({said}); raise max_failures to go on.'


def _locked(folder: Path) -> filelock.BaseFileLock:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_folder(folder)
        lock = filelock.FileLock(folder / "LOCK", timeout=0, mode=0o600)
        lock.acquire()
    except filelock.Timeout:
        raise RunLocked(told_holder(folder)) from None
    except OSError as error:
        raise CannotCreate(f"{folder}: cannot be written ({error.strerror}); use another folder.") from error
    return lock


def _check_conservation(data: Dataset[Record] | None, decisions: Sequence[Decision]) -> None:
    decided = Counter(d.record_id for d in decisions if d.action != "create")
    given = dict.fromkeys(data.ids()) if data is not None else {}
    for id in given:
        if decided[id] != 1:
            raise RunError(f'record "{shown(id)}" has {decided[id]} decisions; every record must have exactly one.')
    for id in decided:
        if id not in given:
            raise RunError(f'"{shown(id)}" was decided on and is no record of the input; a new record is "create".')
