"""From files of instruction data to a dataset, with every row that could not be read set aside and counted."""

from __future__ import annotations

import dataclasses
import itertools
import weakref
from array import array
from bisect import bisect_left
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal

import orjson

from tunesift.datasets import Dataset, DatasetWriter, Row, Source
from tunesift.errors import DataError, shown
from tunesift.files import KEPT_RAW, BrokenRow, Place, RawRow, input_container, read_rows
from tunesift.formats import (
    PROMPTS,
    TOPIC,
    Allowed,
    Format,
    Parsed,
    check_turns,
    is_empty,
    own_id,
    parse_row,
    preference_of,
    recognise,
    record_of,
)
from tunesift.images import Images
from tunesift.inputs import home_of, input_digest, input_files, names_of
from tunesift.json_text import folded
from tunesift.notes import EMPTY, TURNS, Notes
from tunesift.records import Preference, Record, RowFault
from tunesift.scratch import Scratch

DuplicateIds = Literal["refuse", "first", "suffix"]
Lenience = Literal["refuse", "accept"]

_TRIED = 100
"""Rows looked at to recognise a format, and before which the share of broken ones says little."""
FEW_BROKEN = 9
"""Broken rows that never stop a run, so that a small file may have one."""
_WATCHED = 1000
"""Rows at the start of a file in which the share of broken ones is watched."""
_ID_TYPES: dict[type, str] = {str: "texts", int: "whole numbers", float: "fractions", bool: "true or false"}


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
    empty: Lenience = "refuse"
    """What becomes of a row whose instruction is empty."""
    turns: Lenience = "refuse"
    """What becomes of a conversation whose turns are out of order."""
    truncated: Lenience = "refuse"
    """What becomes of a compressed file that is cut off; its rows before the cut can be read."""
    prompts: bool = False
    """Whether rows may have no response yet, because a model is to write it; a text alone is then a prompt."""


def read_dataset(path: str | Path, *, format: Format | None = None, duplicate_ids: DuplicateIds = "refuse",
                 limit: int | None = None, prompts: bool = False) -> Dataset[Record]:  # fmt: skip
    """The records of a file, of the files of a folder, or of those that fit a pattern such as `data/*.parquet`.

    JSON, JSON Lines, CSV, TSV (each also .gz, .zst) or Parquet; of a preference file, its chosen answers. With
    `prompts`, rows need no response, and a `.txt` file has one on each line. Broken rows are in `.source.broken`, and
    what else is worth a word in `.source.notes`. Raises `DataError` where the input as a whole cannot be read.
    """
    return read(Path(path), Record, Reading(format, duplicate_ids, limit=limit, prompts=prompts))


def read_preferences(path: str | Path, *, limit: int | None = None) -> Dataset[Preference]:
    """The preference pairs of a file, a folder or a pattern; raises `DataError` where it holds none."""
    return read(Path(path), Preference, Reading("preference", limit=limit))


@dataclass(frozen=True, slots=True)
class Texts:
    """What a file lists."""

    said: tuple[str, ...]
    broken: tuple[BrokenRow, ...]
    """Lines and rows that could not be read."""


def read_texts(path: Path) -> Texts:
    """The lines of a .txt file, or what the rows of another ask, read as an input is; blank ones are left out."""
    data = read_dataset(path, prompts=True, duplicate_ids="suffix")
    return Texts(tuple(r.messages[-1].text.strip() for r in data), data.source.broken if data.source else ())


def read(path: Path, kind: type[Row], reading: Reading, into: Path | None = None) -> Dataset[Row]:
    """Read an input into memory-mapped Arrow in the folder `into`, or in a temporary one that goes with the dataset."""
    digest = input_digest(path)
    scratch = Scratch() if into is None else None
    try:
        folder = into if scratch is None else scratch.path
        assert folder is not None  # there is one or the other
        data = _Reader(path, kind, reading, DatasetWriter(folder)).read(digest)
        if input_digest(path) != digest:
            raise DataError(f"E118 {path}: the file changed while it was read; start again when it is complete.")
    except BaseException:
        if scratch is not None:
            scratch.remove()
        raise
    if scratch is not None:
        weakref.finalize(data._store, scratch.remove)
    return data


_Row = tuple[int, RawRow | BrokenRow]
"""The number of a row's file, and the row."""


class _Reader(Generic[Row]):
    """One pass over the files of an input."""

    def __init__(self, path: Path, kind: type[Row], reading: Reading, writer: DatasetWriter) -> None:
        self.path, self.kind, self.reading, self.writer = path, kind, reading, writer
        self.files = input_files(path)
        self.names = names_of(self.files)
        self.notes = Notes()
        self.images = Images(home_of(self.files), self.notes.counts)
        self.allowed = Allowed(reading.empty == "accept", reading.turns == "accept", reading.prompts)
        self.broken: list[tuple[int, BrokenRow]] = []
        self.rows = 0
        self.columns: dict[str, str] = {}
        self.known: set[str] = set()
        self.own_ids: dict[str, Place] = {}
        self.made = 0
        self.without_id = array("q")
        self.twins: list[tuple[str, int, int]] = []

    def read(self, digest: str) -> Dataset[Row]:
        with closing(self._all_rows()) as all_rows:
            rows = itertools.islice(all_rows, self.reading.limit)
            head: list[_Row] = []
            format = self.reading.format or self._recognise(rows, head)
            for file, row in itertools.chain(head, rows):
                self._take(file, row, format)
        if self.rows == len(self.broken):
            raise DataError(self._no_records())
        self._check_share(whole=True)
        size = sum(file.stat().st_size for file in self.files)
        source = Source(str(self.path), format, digest, size, self.rows, files=self.names, notes=self.notes.told())
        data = self.writer.finish(self.kind, self._twin, source)
        places = [Place(self.names[data._store.file(number)], line) for _, number, line in self.twins]
        if self.twins and self.reading.duplicate_ids == "refuse":
            raise DataError(self._twice(places[0]))
        for (id, number, _), place in zip(self.twins, places, strict=True):
            message = f'another record has the id "{shown(id)}" too'
            broken = BrokenRow(place, "E208", message, data._store.raw(number)[:KEPT_RAW], id)
            self.broken.append((data._store.file(number), broken))
        in_order = sorted(self.broken, key=lambda b: (b[0], b[1].place.line))
        data.source = dataclasses.replace(source, broken=tuple(row for _, row in in_order))
        return data

    def _all_rows(self) -> Generator[_Row]:
        """Every row of every file, with the file's number."""
        truncated = self.reading.truncated == "accept"
        for number, (path, name) in enumerate(zip(self.files, self.names, strict=True)):
            for row in read_rows(path, name, self.notes.counts, truncated, self.reading.prompts):
                yield number, row

    def _recognise(self, rows: Iterator[_Row], head: list[_Row]) -> Format:
        """The format of the first row that has one; the rows that were taken to find it go into `head`."""
        for file, row in itertools.islice(rows, _TRIED):
            head.append((file, row))
            if isinstance(row, RawRow) and (found := recognise(row.fields, self.reading.prompts)):
                return found
        sound = [row for _, row in head if isinstance(row, RawRow)]
        if not sound:
            self.broken = [(file, row) for file, row in head if isinstance(row, BrokenRow)]
            raise DataError(self._no_records())
        place, names = sound[0].place, shown(", ".join(sound[0].fields))
        if recognise({name.lower(): cell for name, cell in sound[0].fields.items()}, self.reading.prompts):
            raise DataError(f"E201 {place}: fields are {names}, whose names must be in small letters; rename them.")
        if input_container(self.files[0]) in ("csv", "tsv"):
            raise DataError(f"E114 {self.names[0]}: its first row must name the columns, such as instruction,output; "
                            f"it has {names}.")  # fmt: skip
        raise DataError(f"E201 {place}: fields are {names or 'none'}, of no format we know; rename them, such as "
                        "instruction and output, or messages; docs/formats.md has them all.")  # fmt: skip

    def _no_records(self) -> str:
        if not self.broken:
            return f"E101 {self.path}: the file has no records; give a file with at least one."
        first = self.broken[0][1]
        said = f"E105 {self.path}: none of its rows is a record; the first, {first.place}: {first.message}"
        if len(self.files) > 1:
            return f"{said}; leave files out that hold none, by a pattern."
        hints = {"E1": "; give one record a line, or one JSON array.", "E2": "; docs/formats.md says what a row needs."}
        return f"{said}{hints.get(first.code[:2], '.')}"

    def _take(self, file: int, row: RawRow | BrokenRow, format: Format) -> None:
        self.rows += 1
        if isinstance(row, RawRow):
            self._check_names(row)
            try:
                self._add(file, row, format)
            except RowFault as fault:
                raw = (row.raw or _as_json(row.fields))[:KEPT_RAW]
                row = BrokenRow(row.place, fault.code, fault.message, raw, self._id_of(row.fields, format))
        if isinstance(row, BrokenRow):
            self.broken.append((file, row))
            self._check_share()

    def _check_names(self, row: RawRow) -> None:
        """Refuse what concerns the whole input: columns of almost one name, ids of two types."""
        for name in [n for n in row.fields if n not in self.known]:
            if (other := self.columns.setdefault(folded(name), name)) != name:
                raise DataError(f'E207 {row.place}: the columns "{shown(other)}" and "{shown(name)}" are one but for '
                                "case or accents; rename one.")  # fmt: skip
            self.known.add(name)
        if (kind := _ID_TYPES.get(type(row.fields.get("id")))) is not None:
            self.own_ids.setdefault(kind, row.place)
            if len(self.own_ids) > 1:
                said = f"ids are {' in one record and '.join(self.own_ids)} in another"
                raise DataError(f"E209 {row.place}: {said}; make them one.")

    def _add(self, file: int, row: RawRow, format: Format) -> None:
        fields = _named_prompt(row.fields) if self.reading.prompts else row.fields
        parsed = parse_row(fields, format, self.allowed)
        for message in (*parsed.messages, *([parsed.rejected] if parsed.rejected else ())):
            if message.images:
                self.images.check(message.images)
        alone = self.kind is Record and parsed.rejected is None
        made: Record | Preference = record_of(parsed) if alone else preference_of(parsed)
        if parsed.own_id is None:
            self.without_id.append(self.made)
        self.writer.add(made, row.place.line, row.raw, file)
        self.made += 1
        self.notes.take(parsed)
        self._note_lenience(parsed, row)

    def _id_of(self, fields: Mapping[str, object], format: Format) -> str:
        """The id that the record of a broken row would have; empty where that cannot be told."""
        with suppress(RowFault):
            return record_of(parse_row(fields, format, self.allowed)).id
        with suppress(RowFault):
            return own_id(fields) or ""
        return ""

    def _note_lenience(self, parsed: Parsed, row: RawRow) -> None:
        if self.allowed.empty and is_empty(parsed.messages):
            self.notes.counts[EMPTY] += 1
        if self.allowed.turns:
            try:
                check_turns(parsed.messages, row.fields, Allowed(empty=True, prompts=self.allowed.prompts))
            except RowFault:
                self.notes.counts[TURNS] += 1

    def _check_share(self, whole: bool = False) -> None:
        """Stop where too many rows are broken: of the first thousand, or of the whole file if it has fewer."""
        counted = self.rows if whole or self.rows >= _TRIED else _WATCHED
        many = len(self.broken) > FEW_BROKEN and len(self.broken) > self.reading.max_bad * counted
        if many and self.rows <= _WATCHED:
            first = self.broken[0][1]
            raise DataError(f"E199 {self.path}: {len(self.broken)} of the first {self.rows} rows are broken; first, "
                            f"{first.place}: {first.message}; raise max_bad to go on without them.")  # fmt: skip

    def _twin(self, id: str, row: int, line: int) -> bool:
        nameless = bisect_left(self.without_id, row)
        if self.reading.duplicate_ids == "suffix" or row in self.without_id[nameless : nameless + 1]:
            return True
        self.twins.append((id, row, line))
        return False

    def _twice(self, place: Place) -> str:
        names = list(dict.fromkeys(id for id, _, _ in self.twins))
        said = "an id stands" if len(names) == 1 else f"{len(names)} ids stand"
        said = f"{said} more than once, {shown(', '.join(names[:10]))}"
        return f"E208 {place}: {said}; make ids unique, or set duplicate_ids=first or suffix."


def _named_prompt(fields: Mapping[str, object]) -> Mapping[str, object]:
    """A row of a topic alone as one that has it for its prompt."""
    if TOPIC not in fields or any(name in fields for name in (*PROMPTS, "messages", "conversations", "conversation")):
        return fields
    return {PROMPTS[0] if name == TOPIC else name: value for name, value in fields.items()}


def _as_json(fields: dict[str, object]) -> bytes:
    return orjson.dumps(fields, default=str)
