"""The door: whatever is costly goes through `Run.map`, which does only what has not been done yet."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import pyarrow as pa

from tunesift.books import SHELF
from tunesift.datasets import Dataset, Row, write_dataset
from tunesift.errors import (
    DataError,
    DiskFull,
    ResumeError,
    RunError,
    TooManyFailures,
    shown,
)
from tunesift.heartbeat import written
from tunesift.records import Decision, Failure
from tunesift.running.call import Call, Walked
from tunesift.running.charts import Chart, Drawing
from tunesift.running.fsio import (
    jot,
    refuse_link,
    release,
    reserve,
    storage_errors,
    temporary,
    write_batches,
    write_table,
)
from tunesift.running.journal import Journal
from tunesift.running.local import Done, together
from tunesift.running.locking import lock, now, sign
from tunesift.running.mending import reopen, retry_failed
from tunesift.running.progress import Progress
from tunesift.running.reusing import reuse
from tunesift.running.step import Checkpoint, Item, Made, Outcomes, Step, Tuner, Work
from tunesift.running.stopping import Stop
from tunesift.running.training import CHECKPOINTS, Watching, begin, finished, train, trainings
from tunesift.running.watchdog import Watchdog
from tunesift.settings import Json, semantic

_LOG = logging.getLogger(__name__)

MADE = "made"
"""Folder of the records that a page made."""
OUTPUT = "output"
"""Name of those that are its output."""
ROWS = 8192
"""Decisions that are turned into columns at a time."""
_DECISIONS = pa.schema(
    [*((name, pa.string()) for name in ("record_id", "action", "reason")), ("parents", pa.list_(pa.string()))]
)

EVERY_S = 5.0
"""Seconds between two notes of how far a stage is."""

FEW_FAILURES = 10
"""Failures of one stage that never stop a run, however small the stage."""


class Executor(Protocol):
    """Where steps run."""

    @property
    def stall_s(self) -> float: ...

    def chunk_size(self, step: object) -> int: ...

    def map(self, step: Step[Item, Made], work: Work[Item]) -> Iterator[Done[Made]]:
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
            self._hold = lock(self.folder)
            opening.callback(self._hold.release)
            sign(self.folder)
            self.stop.folder = self.folder
            reserve(self.folder)
            opening.callback(release, self.folder)
            self._journal = Journal(self.folder)
            opening.callback(self._journal.close)
            opening.enter_context(SHELF.of_run(self._journal.run))
            self._closing = opening.pop_all()
        self._open: dict[str, Walked] = {}
        self._trained: set[str] = set()
        self._noted = time.monotonic()
        self._tables: dict[str, list[Mapping[str, object]]] = {}
        self._charts: dict[str, Drawing] = {}
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
        walked = self._open.setdefault(stage, Walked())
        call = Call(journal, step, given, walked, self.stop)
        call.size = self.executor.chunk_size(step)
        self.progress.chunk, self.progress.unit = call.size, "item"
        self.progress.begin(stage, len(given), max(0, min(len(journal) - len(walked), len(given))))
        call.elsewhere = together(step) is not None
        call.allowed = int(max(FEW_FAILURES, self.max_failures * len(given)))
        began, worked = time.monotonic(), 0
        with self._watched(stage):
            for done in self.executor.map(step, call):
                items_done, failed = self._commit(call, done)
                worked += items_done
                self.progress.advance(stage, items_done, failed)
                self._note(stage, len(given), len(journal))
            if call.taken:
                self.progress.take_over(stage, call.taken)
        if call.full is not None:
            raise call.full
        self.stages.append(StageReport(stage, len(given), worked, len(call.failed), time.monotonic() - began))
        _LOG.info("stage %s: %d items, %d done now, %d failed", stage, len(given), worked, len(call.failed))
        if call.too_many:
            raise TooManyFailures(_many(stage, call.failed, call.allowed))
        if self.stop.asked and not call.complete:
            self._jot(stage, len(given), len(journal))
            self.stop.check(self.folder)
        return Outcomes(call.rows, call.failed, call.read)

    def once(self, stage: str, tuner: Tuner, data: Dataset[Any]) -> Checkpoint:  # Any: of any kind of item
        """Train unless this stage already holds a finished checkpoint of the same data; go on where it was left off.

        Raises `ResumeError` where settings or data are others than those it was begun with, `TuningError` where the
        training fails, `Stopped` where the run was asked to stop: then the next start goes on from what was saved.
        """
        folder, began = self.folder / CHECKPOINTS / stage, time.monotonic()
        made_of = begin(folder, stage, _settings(tuner), data)
        self._trained.add(stage)
        watching = Watching(self.progress, self.stop, stage, lambda step, of: self._note(stage, of, step))
        if finished(folder, made_of) is None:
            self._hold.check()
            with self._watchdog(stage), self._noted_last(watching):
                train(tuner, data, folder, watching)
        done = watching.last - max(watching.first, 0)
        self.stages.append(StageReport(stage, watching.last, done, 0, time.monotonic() - began))
        _LOG.info("training %s: %d steps now", stage, done)
        made = finished(folder, made_of)
        assert made is not None  # `train` raises otherwise
        return made

    @contextmanager
    def _watched(self, stage: str) -> Iterator[None]:
        with self._watchdog(stage):
            try:
                yield
            finally:
                self.progress.end(stage)

    @contextmanager
    def _watchdog(self, stage: str) -> Iterator[None]:
        with Watchdog(self.executor.stall_s).watching(self.folder) if self.stop.listening else nullcontext():
            try:
                yield
            except BaseException as error:
                error.add_note(f'in the stage "{stage}"')
                raise

    @contextmanager
    def _noted_last(self, watching: Watching) -> Iterator[None]:
        """Whatever ends a training, its last step is noted."""
        try:
            yield
        finally:
            if watching.first >= 0:
                self._jot(watching.stage, watching.of, watching.last)

    def _note(self, stage: str, items: int, done: int) -> None:
        """Every few seconds, for whoever looks at the folder from outside: how far the stage is."""
        if time.monotonic() - self._noted >= EVERY_S:
            self._jot(stage, items, done)

    def _jot(self, stage: str, items: int, done: int) -> None:
        self._noted = time.monotonic()
        jot(self.folder / "progress.json", {"stage": stage, "items": items, "done": done, "at": now()})

    def _commit(self, call: Call[Item, Made], done: Done[Made]) -> tuple[int, int]:
        """Write finished chunks down; where the disk is full, into the space held back for them, and no more follow."""
        entries = call.entries(done)
        written()
        self._hold.check()
        try:
            call.journal.commit(entries, seal=call.full is None, begin=call.begin_next(len(done)))
        except DiskFull as error:
            if call.full is not None or not release(self.folder):
                raise
            call.full = error
            call.journal.commit([e for e in entries if call.journal.get(e.row) is None], seal=False)
        return len(entries), sum(e.failure is not None for e in entries)

    @property
    def journal(self) -> str:
        """The name of its journal, the same in all lives of the run."""
        return self._journal.run

    def retry(self, kinds: Collection[str]) -> int:
        """Have failures of these kinds tried again, before the page runs; how many there are."""
        return retry_failed(self.folder, self._journal, kinds)

    def reopen(self) -> None:
        """Have a run that is complete go on, before the page runs: nothing that was done is done again."""
        reopen(self.folder, self._journal)

    def reuse(self, other: Path) -> int:
        """Take over, before the page runs, what stages of the same settings made in another run; how many outcomes.

        Raises `RunError` where there is no run to take from.
        """
        return reuse(self._journal, self.folder, other)

    def turn(self, done: int, of: int) -> None:
        """Say how many records have had their turn, for whoever watches a page that works on some at a time."""
        self.progress.turn(done, of)

    def random(self, *names: object) -> random.Random:
        """A stream that depends on the seed and these names only."""
        text = json.dumps([self.seed, *map(str, names)]).encode()
        return random.Random(int.from_bytes(hashlib.sha256(text).digest()[:8], "big"))

    def dataset(self, name: str, records: Iterable[Row]) -> Dataset[Row]:
        """Records, or pairs, that a page made, on disk in the run's folder: written anew whenever the page runs.

        Raises `DataError` where two have one id.
        """
        folder = self.folder / MADE / name
        refuse_link(folder.parent)
        refuse_link(folder)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            return write_dataset(folder, records)

    def table(self, name: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Add rows to a small table for the report; tables start empty whenever the page runs."""
        self._tables.setdefault(name, []).extend(rows)

    def chart(self, name: str, rows: Iterable[Mapping[str, object]], chart: Chart) -> None:
        """Add rows to a chart for the report, as `table` does; of several descriptions the last one counts.

        Of many rows an even part is stored, and the report says which. Raises `RunError` for a row without the chart's
        columns.
        """
        drawing = self._charts.setdefault(name, Drawing(chart))
        drawing.chart = chart
        drawing.add(rows)

    def finish(self, data: Dataset[Any] | None, decisions: Sequence[Decision]) -> Counter[str]:  # Any: of what was read
        """Check that every record has one decision, seal the stages, write decisions and tables; returns the counts.

        Raises `ResumeError` where the folder holds more, or other stages, than the page asked for.
        """
        counts = Counter(d.action for d in decisions)
        self._hold.check()
        _check_conservation(data, decisions)
        left = [stage for stage in self._journal.stages() if stage not in self._open]
        if left := [*left, *(stage for stage in trainings(self.folder) if stage not in self._trained)]:
            raise ResumeError(f'{self.folder}: holds the stage "{left[0]}", which was not asked for now; use another '
                              "folder, or go back.")  # fmt: skip
        for stage, walked in self._open.items():
            self._journal.opened(stage).finish(len(walked))
        self._journal.empty_stock()
        with storage_errors(self.folder):
            for path in (noted := self.folder / "progress.json", temporary(noted)):
                path.unlink(missing_ok=True)
        starts = range(0, len(decisions), ROWS)
        write_batches(self.folder / "decisions.parquet", _DECISIONS,
                      lambda: (_decided(decisions[start : start + ROWS]) for start in starts))  # fmt: skip
        if twice := sorted(self._tables.keys() & self._charts.keys()):
            raise RunError(f'the method made a table and a chart of the name "{twice[0]}"; this is a fault of it.')
        refuse_link(self.folder / "tables")
        for name, rows in self._tables.items():
            names = dict.fromkeys(column for row in rows for column in row)
            table = pa.table({column: [row.get(column) for row in rows] for column in names})
            write_table(self.folder / "tables" / f"{name}.parquet", table)
        for name, drawing in self._charts.items():
            write_table(self.folder / "tables" / f"{name}.parquet", drawing.table())
        return Counter({str(action): count for action, count in counts.items()})


def _settings(step: object) -> Json:
    """What decides a step's outcomes: its settings, and its class where they name no kind."""
    settings = semantic(step)
    return {"kind": type(step).__name__, **settings} if isinstance(settings, dict) else settings


def _distinct(stage: str, items: list[Item]) -> list[Item]:
    twice = [id for id, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise DataError(f'stage "{stage}" was given two items with the id "{shown(twice[0])}"; ids must be unique.')
    return items


def _many(stage: str, failed: Mapping[str, Failure], allowed: int) -> str:
    common = Counter(shown(f"{f.kind}: {f.message}") for f in failed.values()).most_common(3)
    said = "; ".join(f"{count} times {message}" for message, count in common)
    return f'stage "{stage}": {len(failed)} items failed, more than {allowed} ({said}); raise max_failures to go on.'


def _decided(decisions: Sequence[Decision]) -> pa.RecordBatch:
    columns = [
        [d.record_id for d in decisions], [d.action for d in decisions], [d.reason for d in decisions],
        [list(d.parents) for d in decisions],
    ]  # fmt: skip
    return pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, _DECISIONS, strict=True)], _DECISIONS)


def _check_conservation(data: Dataset[Any] | None, decisions: Sequence[Decision]) -> None:
    """Every record has one decision; the usual page decides in the order of the data, which is checked in passing."""
    given = data.ids() if data is not None else iter(())
    decided = (d.record_id for d in decisions if d.action != "create")
    if all(id == other for id, other in zip_longest(given, decided)):
        return
    counts = Counter(d.record_id for d in decisions if d.action != "create")
    ids = dict.fromkeys(data.ids()) if data is not None else {}
    for id in ids:
        if counts[id] != 1:
            raise RunError(f'record "{shown(id)}" has {counts[id]} decisions; every record must have exactly one.')
    for id in counts:
        if id not in ids:
            raise RunError(f'"{shown(id)}" was decided on and is no record of the input; a new record is "create".')
