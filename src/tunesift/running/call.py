"""What happens in one call of `Run.map`: which items are still to be done, which are under way, which failed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Generic

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from tunesift.datasets import Dataset
from tunesift.errors import DiskFull, ResumeError, RunError, TunesiftError, shown
from tunesift.records import Failure, FailureKind, content_digest
from tunesift.running.journal import StageJournal
from tunesift.running.local import Done
from tunesift.running.parts import Entry
from tunesift.running.step import Item, Made, Step
from tunesift.running.stopping import Stop

MOST_CRASHES = 3
"""Lives of a run that one item may end; the next life sets it aside."""

_KINDS: TypeAdapter[FailureKind] = TypeAdapter(FailureKind)
_TOGETHER = 256
"""Outcomes taken from stock in one transaction."""


class Placed(Mapping[str, int]):
    """The rows of a stage that a dataset's records walked to: its places, from some row on."""

    def __init__(self, data: Dataset[Any], first: int) -> None:  # Any: whatever its rows are
        self.data, self.first = data, first

    def __getitem__(self, id: str) -> int:
        place = self.data.place(id)
        if place is None:
            raise KeyError(id)
        return self.first + place

    def __iter__(self) -> Iterator[str]:
        return self.data.ids()

    def __len__(self) -> int:
        return len(self.data)


class Walked:
    """Which row each item of a stage walked to, in this process; datasets are remembered whole, without their ids."""

    def __init__(self) -> None:
        self._whole: list[Placed] = []
        self._singly: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def whole(self, data: Dataset[Any]) -> Placed | None:  # Any: whatever its rows are
        """The rows of a dataset of which nothing, or all in this order, came before; None for others."""
        for placed in self._whole:
            if data.overlaps(placed.data):
                return placed if data.digest() == placed.data.digest() else None
        if self._singly:
            return None
        placed = Placed(data, self._count)
        self._whole.append(placed)
        self._count += len(data)
        return placed

    def row(self, id: str) -> int:
        """The row of one item; the next free one where it did not come before."""
        for placed in self._whole:
            if (row := placed.get(id)) is not None:
                return row
        row = self._singly.setdefault(id, self._count)
        self._count += row == self._count
        return row


@dataclass(frozen=True, slots=True)
class _Todo(Generic[Item]):
    """An item that is not done: its row in the stage, and its content's digest."""

    row: int
    item: Item
    digest: bytes


class Call(Generic[Item, Made]):
    """One call of map: its items, some chunks at a time, until they are done or the call is to end."""

    def __init__(
        self, journal: StageJournal, step: Step[Item, Made], given: Sequence[Item], walked: Walked, stop: Stop
    ) -> None:
        self.journal, self._step, self._given = journal, step, given
        self._walked, self._stop = walked, stop
        self._adapter: TypeAdapter[Made] = TypeAdapter(step.returns)
        self._under_way: dict[int, list[_Todo[Item]]] = {}
        self._numbers = count()
        self._suspects: list[_Todo[Item]] = []
        self._stocked: list[Entry] = []
        self.taken = 0
        """Items that were not worked on, since what another course of the stage made of them was in stock."""
        self._begun: list[_Todo[Item]] = []
        """Written down as begun, and not given out yet."""
        self._trouble: TunesiftError | None = None
        """What was found wrong with the items meanwhile."""
        self._missing = self._in_rows() if journal.stocked else self._all()
        self.size = 1
        """Items of one chunk."""
        self.elsewhere = False
        """A provider works on the items for hours: no item can be what ended the process meanwhile."""
        self.allowed = 0
        """Failures that the recipe allows."""
        self.rows: Mapping[str, int] = {}
        self.failed: dict[str, Failure] = {}
        self.full: DiskFull | None = None
        """Set once the disk was found full: what is in flight is still written down, and nothing more begins."""

    @property
    def too_many(self) -> bool:
        """More items failed than may, now and before."""
        return len(self.failed) > self.allowed

    @property
    def complete(self) -> bool:
        """Whether every item is done; asked once nothing is under way any more, it looks for one that is not."""
        if self._trouble is not None or self._suspects or self._begun or next(self._missing, None) is not None:
            return False
        self._put_by()
        return True

    def take(self, most: int) -> list[tuple[int, Sequence[Item]]]:
        """The next chunks, at most so many, written down as begun; none once the call is to end.

        What was in flight when two lives of the run ended without a word comes last and alone: what kills the process
        is found, and costs its neighbours nothing. After one such end it is tried as before, in the same company.
        """
        if most < 1 or self._is_over():
            return []
        if self._trouble is not None:
            raise self._trouble
        ready, self._begun = self._begun[: most * self.size], self._begun[most * self.size :]
        more = list(islice(self._missing, most * self.size - len(ready)))
        todo = [*ready, *more]
        chunks = [todo[start : start + self.size] for start in range(0, len(todo), self.size)]
        if not todo:
            self._put_by()
            chunks = self._suspect()
            more = [todo for chunk in chunks for todo in chunk]
        if not chunks or self._is_over():
            return []
        if more:
            self.journal.begin([todo.row for todo in more])
        begun = {next(self._numbers): chunk for chunk in chunks}
        self._under_way |= begun
        return [(number, [todo.item for todo in chunk]) for number, chunk in begun.items()]

    def begin_next(self, chunks: int) -> list[int]:
        """Rows that are to be written down as begun, to be given out when the next chunks are taken."""
        if self._is_over() or self._trouble is not None:
            return []
        before = len(self._begun)
        try:
            self._begun.extend(islice(self._missing, chunks * self.size))
        except TunesiftError as error:  # what is done now is written down first
            self._trouble = error
        return [todo.row for todo in self._begun[before:]]

    def _is_over(self) -> bool:
        return self.too_many or self.full is not None or self._stop.asked

    def _suspect(self) -> list[list[_Todo[Item]]]:
        """One suspect, when nothing else is under way."""
        while self._suspects and not self._under_way and not self._is_over():
            todo = self._suspects.pop(0)
            if self.journal.crashed[todo.row] < MOST_CRASHES:
                return [[todo]]
            self._give_up(todo)
        return []

    def _give_up(self, todo: _Todo[Item]) -> None:
        lives = self.journal.crashed[todo.row]
        failure = Failure("crashed", f"the process died {lives} times while it was worked on")
        self.failed[todo.item.id] = failure
        self.journal.commit([Entry(todo.row, todo.item.id, todo.digest, failure.kind, failure.message)])

    def _all(self) -> Iterator[_Todo[Item]]:
        """What is not done; of a dataset that is known to be the one from before, done rows are not even looked at."""
        placed = self._walked.whole(self._given) if isinstance(self._given, Dataset) else None
        if placed is None or not self.journal.expects(placed.first, len(placed), placed.data.digest()):
            yield from self._in_rows()
            return
        self.rows = placed
        for entry in self.journal.failures(placed.first, len(placed)):
            self.failed[entry.id] = failure_of(entry)
        for row in self.journal.missing(placed.first, len(placed)):
            item = self._given[row - placed.first]
            yield from self._unless_suspect(_Todo(row, item, content_digest(item)))

    def _in_rows(self) -> Iterator[_Todo[Item]]:
        """What is not done, each item compared with what stands in its row."""
        rows: dict[str, int] = {}
        self.rows = rows
        for item in self._given:
            row = rows[item.id] = self._walked.row(item.id)
            todo = _Todo(row, item, content_digest(item))
            entry = self.journal.get(row) or self._from_stock(todo)
            if entry is None:
                yield from self._unless_suspect(todo)
            elif entry.id != item.id or entry.digest != todo.digest:
                raise ResumeError(self._other(entry, item.id))
            elif entry.failure is not None:
                self.failed[item.id] = failure_of(entry)

    def _unless_suspect(self, todo: _Todo[Item]) -> Iterator[_Todo[Item]]:
        if self.journal.crashed.get(todo.row, 0) > 1 and not self.elsewhere:
            self._suspects.append(todo)
        else:
            yield todo

    def _from_stock(self, todo: _Todo[Item]) -> Entry | None:
        found = self.journal.in_stock(todo.item.id, todo.digest) if self.journal.stocked else None
        if found is None:
            return None
        entry = Entry(todo.row, todo.item.id, todo.digest, *found)
        self._stocked.append(entry)
        self.taken += 1
        if len(self._stocked) >= _TOGETHER:
            self._put_by()
        return entry

    def _put_by(self) -> None:
        if self._stocked:
            self.journal.commit(self._stocked)
            self._stocked = []

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
            said = shown(error.errors()[0]["msg"] if isinstance(error, ValidationError) else _last_line(error))
            raise RunError(f'stage "{self.journal.name}": {type(self._step).__name__} gave an outcome that is not of '
                           f"the type it returns, or cannot be written ({said}).") from error  # fmt: skip
        return written

    def read(self, row: int) -> Made | Failure:
        """What came of a row; every row of a call that has ended well is done."""
        entry = self.journal.get(row)
        assert entry is not None
        return self._adapter.validate_json(entry.outcome) if entry.failure is None else failure_of(entry)

    def _other(self, entry: Entry, id: str) -> str:
        stage = f'stage "{self.journal.name}"'
        if entry.id != id:
            return f'{stage} was given the item "{shown(entry.id)}" where it is now given "{shown(id)}".'
        return f'{stage}: the content of the item "{shown(id)}" is not what it was; use another folder, or restore it.'


def _last_line(error: Exception) -> str:
    return str(error).splitlines()[-1].strip()


def failure_of(entry: Entry) -> Failure:
    """The failure that a row holds."""
    return Failure(_KINDS.validate_python(entry.failure), entry.outcome)


def _not_finite(value: object) -> float | None:
    """The first number in a JSON value that is no number to JSON; None where there is none."""
    if isinstance(value, float):
        return None if math.isfinite(value) else value
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for v in inner if (found := _not_finite(v)) is not None), None)


def _writable(failure: Failure) -> Failure:
    """The same failure; halves of surrogate pairs, which cannot be written, become question marks."""
    return Failure(failure.kind, failure.message.encode(errors="replace").decode())
