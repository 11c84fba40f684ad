"""From a file of instruction data to a dataset, with every row that could not be read set aside and counted."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import tempfile
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Generic, Literal

import orjson

from tunesift.datasets import Dataset, DatasetWriter, Row, Source
from tunesift.errors import DataError, shown
from tunesift.files import KEPT_RAW, BrokenRow, Place, RawRow, read_rows
from tunesift.formats import FORMATS, Format, RowFault, parse_row, preference_of, recognise, record_of
from tunesift.records import Preference, Record

DuplicateIds = Literal["refuse", "first", "suffix"]

_TRIED = 100
"""Rows looked at to recognise a format."""
_MANY = 10
"""Broken rows from which on their share counts, so that a small file may have one."""
_WATCHED = 1000
"""Rows at the start of a file in which the share of broken ones is watched."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read a file."""

    format: Format | None = None
    """None to recognise it by its fields."""
    duplicate_ids: DuplicateIds = "refuse"
    """What becomes of a record whose id another has: the file is refused, only the first is read, or it gets an
    ordinal (`a1b2#2`). Exact copies of a record without an id of its own always get an ordinal."""
    max_bad: float = 0.05
    """Fraction of the first 1,000 rows that may be broken."""
    limit: int | None = None
    """Number of rows to read; None for all."""


def read_dataset(path: str | Path, *, format: Format | None = None, duplicate_ids: DuplicateIds = "refuse",
                 limit: int | None = None) -> Dataset[Record]:  # fmt: skip
    """The records of a JSON, JSON Lines (also .gz, .zst) or Parquet file; of a preference file, its chosen answers.

    Broken rows are in `.source.broken`. Raises `DataError` where the file as a whole cannot be read.
    """
    return read(Path(path), Record, Reading(format, duplicate_ids, limit=limit))


def read_preferences(path: str | Path, *, limit: int | None = None) -> Dataset[Preference]:
    """The preference pairs of a file; raises `DataError` where it holds none."""
    return read(Path(path), Preference, Reading("preference", limit=limit))


def read(path: Path, kind: type[Row], reading: Reading, into: Path | None = None) -> Dataset[Row]:
    """Read a file into memory-mapped Arrow in the folder `into`, or in a temporary one that goes with the dataset."""
    folder = Path(tempfile.mkdtemp(prefix="tunesift-")) if into is None else into
    before = path.stat().st_mtime_ns if path.exists() else 0
    reader = _Reader(path, kind, reading, DatasetWriter(folder))
    try:
        data = reader.read()
        if path.stat().st_mtime_ns != before:
            raise DataError(f"E118 {path}: the file changed while it was read; start again when it is complete.")
    except BaseException:
        if into is None:
            rmtree(folder, ignore_errors=True)
        raise
    if into is None:
        weakref.finalize(data._store, rmtree, folder, True)
    return data


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; raises `DataError` where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"E119 {path}: cannot be read ({error.strerror}); check the file's permissions.") from error


class _Reader(Generic[Row]):
    """One pass over one file."""

    def __init__(self, path: Path, kind: type[Row], reading: Reading, writer: DatasetWriter) -> None:
        self.path, self.kind, self.reading, self.writer = path, kind, reading, writer
        self.broken: list[BrokenRow] = []
        self.rows = 0
        self.own_ids: set[type] = set()
        self.made = 0
        self.without_id = array("q")
        self.twins: list[tuple[str, int, int]] = []

    def read(self) -> Dataset[Row]:
        with closing(read_rows(self.path)) as all_rows:
            rows = itertools.islice(all_rows, self.reading.limit)
            head = list(itertools.islice(rows, _TRIED))
            format = self.reading.format or self._recognise(head)
            for row in itertools.chain(head, rows):
                self._take(row, format)
        if self.rows == len(self.broken):
            raise DataError(self._no_records())
        self._check_share(whole=True)
        source = Source(str(self.path), format, file_digest(self.path), self.path.stat().st_size, self.rows)
        data = self.writer.finish(self.kind, self._twin, source)
        if self.twins and self.reading.duplicate_ids == "refuse":
            raise DataError(self._twice())
        for id, number, line in self.twins:
            place, message = Place(self.path.name, line, 0), f'another record has the id "{shown(id)}" too'
            self.broken.append(BrokenRow(place, "E208", message, data._store.raw(number)[:KEPT_RAW]))
        data.source = dataclasses.replace(source, broken=tuple(sorted(self.broken, key=lambda b: b.place.line)))
        return data

    def _recognise(self, head: Iterable[RawRow | BrokenRow]) -> Format:
        sound = [row for row in head if isinstance(row, RawRow)]
        for row in sound:
            if found := recognise(row.fields):
                return found
        if not sound:
            self.broken = [row for row in head if isinstance(row, BrokenRow)]
            raise DataError(self._no_records())
        place, names = sound[0].place, shown(", ".join(sound[0].fields))
        raise DataError(f"E201 {place}: fields are {names or 'none'}, no format we know; give --format, one of "
                        f"{', '.join(FORMATS)}.")  # fmt: skip

    def _no_records(self) -> str:
        if not self.broken:
            return f"E101 {self.path}: the file has no records; give a file with at least one."
        first = self.broken[0]
        return (f"E105 {self.path}: none of its rows is a record; the first, {first.place}: {first.message}; give one "
                "record a line, or one JSON array.")  # fmt: skip

    def _take(self, row: RawRow | BrokenRow, format: Format) -> None:
        self.rows += 1
        if isinstance(row, RawRow):
            try:
                self._add(row, format)
            except RowFault as fault:
                row = BrokenRow(row.place, fault.code, fault.message, (row.raw or _as_json(row.fields))[:KEPT_RAW])
        if isinstance(row, BrokenRow):
            self.broken.append(row)
            self._check_share()

    def _add(self, row: RawRow, format: Format) -> None:
        parsed = parse_row(row.fields, format)
        if parsed.own_id is not None:
            self.own_ids.add(type(row.fields["id"]))
            if len(self.own_ids) > 1:
                raise DataError(f"E209 {row.place}: ids are texts in one record and numbers in another; make them one.")
        else:
            self.without_id.append(self.made)
        made: Record | Preference = record_of(parsed) if self.kind is Record else preference_of(parsed)
        self.writer.add(made, row.place.line, row.raw)
        self.made += 1

    def _check_share(self, whole: bool = False) -> None:
        """Stop where too many rows are broken: of the first thousand, or of the whole file if it has fewer."""
        counted = self.rows if whole else _WATCHED if self.rows < _TRIED else max(self.rows, _TRIED)
        many = len(self.broken) >= _MANY and len(self.broken) > self.reading.max_bad * counted
        if many and self.rows <= _WATCHED:
            first = self.broken[0]
            raise DataError(f"E199 {self.path}: {len(self.broken)} of the first {self.rows} rows are broken; first, "
                            f"{first.place}: {first.message}; raise max_bad to go on without them.")  # fmt: skip

    def _twin(self, id: str, row: int, line: int) -> bool:
        nameless = bisect_left(self.without_id, row)
        if self.reading.duplicate_ids == "suffix" or row in self.without_id[nameless : nameless + 1]:
            return True
        self.twins.append((id, row, line))
        return False

    def _twice(self) -> str:
        names = list(dict.fromkeys(id for id, _, _ in self.twins))
        said = "an id stands" if len(names) == 1 else f"{len(names)} ids stand"
        said = f"{said} more than once, {shown(', '.join(names[:10]))}"
        place = f"{self.path.name}:{self.twins[0][2]}"
        return f"E208 {place}: {said}; make ids unique, or set duplicate_ids=first or suffix."


def _as_json(fields: dict[str, object]) -> bytes:
    return orjson.dumps(fields, default=str)
