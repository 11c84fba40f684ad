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
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Generic, Protocol

import filelock
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from tunesift.datasets import Dataset
from tunesift.errors import CannotCreate, DataError, ResumeError, RunError, RunLocked, TooManyFailures
from tunesift.records import Decision, Failure, FailureKind, Record, Score, content_digest
from tunesift.running.journal import Entry, Journal, StageJournal, storage_errors, sync, write_json
from tunesift.running.local import Done
from tunesift.running.progress import Progress
from tunesift.running.step import Item, Made, Outcomes, Step
from tunesift.settings import Json, semantic

_LOG = logging.getLogger(__name__)

FEW_FAILURES = 10
"""Failures of one stage that never stop a run, however small the stage."""


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
    stages: list[StageReport] = field(default_factory=list, init=False)

    def __enter__(self) -> Run:
        """Lock the folder and open its journal; raises `RunLocked`, naming who holds it, or `CannotCreate`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = filelock.FileLock(self.folder / "LOCK", timeout=0)
            self._lock.acquire()
        except filelock.Timeout:
            raise RunLocked(_held(self.folder)) from None
        except OSError as error:
            raise CannotCreate(f"{self.folder}: cannot be written ({error.strerror}); use another folder.") from error
        who: Json = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        write_json(self.folder / "holder.json", who)
        self._journal = Journal(self.folder)
        self._open: dict[str, _Stage] = {}
        self._tables: dict[str, list[Mapping[str, object]]] = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._journal.close()
        self._lock.release()

    def map(self, stage: str, step: Step[Item, Made], items: Iterable[Item]) -> Outcomes[Made]:
        """Do what is not yet in the stage's journal; return everything asked for.

        Raises `ResumeError` where settings or items differ from what the journal holds, `DataError` for two items of
        one id, `TooManyFailures` where more fail than the recipe allows.
        """
        given: Sequence[Item] = items if isinstance(items, Dataset) else _distinct(stage, list(items))
        if stage not in self._open:
            self._open[stage] = _Stage(self._journal.stage(stage, semantic(step)))
        call: _Call[Item, Made] = _Call(stage, self._open[stage], step)
        self.progress.begin(stage, len(given), min(len(call.journal), len(given)))
        began, worked = time.monotonic(), 0
        allowed = max(FEW_FAILURES, self.max_failures * len(given))
        for done in self.executor.map(step, call.chunks(given, self.executor.chunk_size(step))):
            count, failed = call.commit(done)
            worked += count
            self.progress.advance(stage, count, failed)
            call.stopped = len(call.failed) > allowed
        self.progress.end(stage)
        self.stages.append(StageReport(stage, len(given), worked, len(call.failed), time.monotonic() - began))
        _LOG.info("stage %s: %d items, %d done now, %d failed", stage, len(given), worked, len(call.failed))
        if len(call.failed) > allowed:
            raise TooManyFailures(_many(stage, call.failed, allowed))
        return Outcomes(call.rows, call.failed, call.read)

    def random(self, *names: object) -> random.Random:
        """A stream that depends on the seed and these names only."""
        text = json.dumps([self.seed, *map(str, names)]).encode()
        return random.Random(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))

    def table(self, name: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows to a small table for the report; tables start empty whenever the page runs."""
        self._tables.setdefault(name, []).extend(rows)

    def finish(self, data: Dataset[Record] | None, decisions: Sequence[Decision]) -> Counter[str]:
        """Check that every record has one decision, write decisions and tables, seal the stages; returns the counts."""
        counts = Counter(d.action for d in decisions)
        _check_conservation(data, decisions)
        for opened in self._open.values():
            opened.journal.finish()
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
        for name, rows in self._tables.items():
            write_table(self.folder / "tables" / f"{name}.parquet", pa.Table.from_pylist([dict(r) for r in rows]))
        return Counter({str(action): count for action, count in counts.items()})


class _Stage:
    """A stage in this process: its journal, and which row each id walked to."""

    def __init__(self, journal: StageJournal) -> None:
        self.journal = journal
        self.walked: dict[str, int] = {}


class _Call(Generic[Item, Made]):
    """One call of map: which items it was given, which are under way, which failed."""

    def __init__(self, stage: str, opened: _Stage, step: Step[Item, Made]) -> None:
        self.stage, self.journal, self._walked = stage, opened.journal, opened.walked
        self._adapter: TypeAdapter[Made] = TypeAdapter(step.returns)
        self._under_way: dict[int, list[tuple[int, Item, bytes]]] = {}
        self.rows: dict[str, int] = {}
        self.failed: dict[str, Failure] = {}
        self.stopped = False

    def chunks(self, items: Iterable[Item], size: int) -> Iterator[tuple[int, Sequence[Item]]]:
        """The items that are not done yet, some at a time; none once the call is stopped."""
        chunk: list[tuple[int, Item, bytes]] = []
        number = 0
        for row, item, digest in self._missing(items):
            chunk.append((row, item, digest))
            if len(chunk) == size:
                self._under_way[number] = chunk
                yield number, [i for _, i, _ in chunk]
                chunk, number = [], number + 1
                if self.stopped:
                    return
        if chunk:
            self._under_way[number] = chunk
            yield number, [i for _, i, _ in chunk]

    def _missing(self, items: Iterable[Item]) -> Iterator[tuple[int, Item, bytes]]:
        for item in items:
            row = self._walked.setdefault(item.id, len(self._walked))
            self.rows[item.id] = row
            digest = content_digest(item)
            entry = self.journal.get(row)
            if entry is None:
                yield row, item, digest
            elif entry.id != item.id or entry.digest != digest:
                raise ResumeError(_other(self.stage, entry, item.id))
            elif entry.failure is not None:
                self.failed[item.id] = _failure(entry)

    def commit(self, done: Done[Made]) -> tuple[int, int]:
        """Write finished chunks down in one transaction; returns how many items, and how many of them failed."""
        entries = []
        for number, outcomes in done:
            for (row, item, digest), outcome in zip(self._under_way.pop(number), outcomes, strict=True):
                failure = outcome if isinstance(outcome, Failure) else _not_finite(outcome)
                if failure is not None:
                    self.failed[item.id] = failure
                    entries.append(Entry(row, item.id, digest, failure.kind, failure.message))
                elif not isinstance(outcome, Failure):
                    entries.append(Entry(row, item.id, digest, None, self._adapter.dump_json(outcome).decode()))
        self.journal.commit(entries)
        return len(entries), sum(e.failure is not None for e in entries)

    def read(self, row: int) -> Made | Failure:
        entry = self.journal.get(row)
        if entry is None:
            raise RunError(f'stage "{self.stage}" lost row {row}; start the run again.')
        return self._adapter.validate_json(entry.outcome) if entry.failure is None else _failure(entry)


def _not_finite(outcome: object) -> Failure | None:
    """A score that is not a number is a failure, whatever scorer made it."""
    if isinstance(outcome, Score) and outcome.value is not None and not math.isfinite(outcome.value):
        return Failure("not-finite", f"the score is {outcome.value}")
    return None


def _failure(entry: Entry) -> Failure:
    kinds: TypeAdapter[FailureKind] = TypeAdapter(FailureKind)
    return Failure(kinds.validate_python(entry.failure), entry.outcome)


def _other(stage: str, entry: Entry, id: str) -> str:
    if entry.id != id:
        return f'stage "{stage}" was given the item "{entry.id[:60]}" where it is now given "{id[:60]}".'
    return (
        f'stage "{stage}": the content of the item "{id[:60]}" is not what it was; use another folder, or restore it.'
    )


def _distinct(stage: str, items: list[Item]) -> list[Item]:
    twice = [id for id, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise DataError(f'stage "{stage}" was given two items with the id "{twice[0][:60]}"; ids must be unique.')
    return items


def _many(stage: str, failed: Mapping[str, Failure], allowed: float) -> str:
    common = Counter(f"{f.kind}: {f.message}"[:100] for f in failed.values()).most_common(3)
    said = "; ".join(f"{count} times {message}" for message, count in common)
    return (
        f'stage "{stage}": {len(failed)} items failed, more than {int(allowed)} ({said}); raise max_failures to go on.'
    )


def _held(folder: Path) -> str:
    try:
        who = json.loads((folder / "holder.json").read_text("utf-8"))
        return f"{folder} is being written by process {who['pid']} on {who['host']} since {who['since']}."
    except (OSError, ValueError, KeyError):
        return f"{folder} is being written by another process; wait, or stop it."


def _check_conservation(data: Dataset[Record] | None, decisions: Sequence[Decision]) -> None:
    decided = Counter(d.record_id for d in decisions if d.action != "create")
    given = list(data.ids()) if data is not None else []
    wrong = next((id for id in given if decided[id] != 1), None) or next(iter(set(decided) - set(given)), None)
    if wrong is not None:
        raise RunError(f'record "{wrong[:60]}" has {decided[wrong]} decisions; every record must have exactly one.')


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file whole or not at all."""
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        pq.write_table(table, part, compression="zstd", write_page_checksum=True)
        sync(part)
        part.replace(path)
