"""Where are the records? In memory-mapped Arrow: ordered, immutable, found by id, made into objects when asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from tunesift.disk import create
from tunesift.errors import DataError, shown
from tunesift.files import BrokenRow
from tunesift.formats import Format
from tunesift.records import Message, Preference, Record

Row = TypeVar("Row", bound=Record | Preference)

BATCH = 1024
"""Most rows of one Arrow batch."""
BATCH_BYTES = 16 * 2**20
"""Bytes of rows after which a batch is full before that."""
_BODIES = pa.schema(
    [("file", pa.int32()), ("line", pa.int64()), ("body", pa.large_binary()), ("raw", pa.large_binary())]
)
_IDS = pa.schema([("id", pa.string())])


@dataclass(frozen=True, slots=True)
class Source:
    """The file, or the files, that a dataset was read from, and the balance of reading them."""

    path: str
    format: Format
    sha256: str
    bytes: int
    rows: int
    """Rows of the file, the broken ones included; blank lines are not rows."""
    broken: tuple[BrokenRow, ...] = ()
    """Rows that could not be read."""
    files: tuple[str, ...] = ()
    """What places call the files that were read, in their order."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """What was read and is worth a word, such as blank lines or rows that repeat an earlier one: how many of each."""


class Dataset(Sequence[Row], Generic[Row]):
    """Ordered and immutable; ids are unique; remembers the file it was read from.

    Backed by memory-mapped Arrow: rows become objects when they are asked for, so ten million records cost the
    driver an index, not their text.
    """

    def __init__(self, store: _Store, rows: _Rows | None = None, source: Source | None = None) -> None:
        self._store = store
        self._rows: _Rows = range(store.length) if rows is None else rows
        self.source = source

    @classmethod
    def of(cls, records: Iterable[Row]) -> Dataset[Row]:
        """A dataset of objects made in Python; raises `DataError` where two have one id."""
        return write_dataset(None, records)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Dataset[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Dataset[Row]:
        if isinstance(index, slice):
            return Dataset(self._store, self._rows[index], self.source)
        return cast(Row, self._store.row(int(self._rows[index])))

    def __iter__(self) -> Iterator[Row]:
        return (cast(Row, self._store.row(int(n))) for n in self._rows)

    def by_id(self, id: str) -> Row:
        """The row with this id; raises `KeyError` where there is none."""
        place = self.place(id)
        if place is None:
            raise KeyError(id)
        return self[place]

    def place(self, id: str) -> int | None:
        """Where the row with this id stands, counted from 0; None where there is none."""
        row = self._store.find(id)
        if row is None:
            return None
        if isinstance(self._rows, range):
            return self._rows.index(row) if row in self._rows else None
        order, in_order = self._places
        found = int(np.searchsorted(in_order, row))
        return int(order[found]) if found < len(order) and in_order[found] == row else None

    @cached_property
    def _places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        rows = np.asarray(self._rows, np.int64)
        order = np.argsort(rows, kind="stable")
        return order, rows[order]

    def digest(self) -> str:
        """SHA-256 over the rows' ids and contents, in order: equal where two datasets came about in the same way."""
        rows = hashlib.sha256(np.asarray(self._rows, np.int64).tobytes())
        rows.update(self._store.digest)
        return rows.hexdigest()

    def overlaps(self, other: Dataset[Any]) -> bool:  # Any: whatever its rows are
        """Whether a row of this may be one of the other's too; certain for datasets cut from the same one."""
        if self._store is not other._store:
            return True
        return bool(np.intersect1d(np.asarray(self._rows), np.asarray(other._rows)).size)

    def batches(self, size: int) -> Iterator[Dataset[Row]]:
        """Consecutive parts of at most `size` rows."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def only(self, ids: Container[str]) -> Dataset[Row]:
        """The rows whose id is among these, in order."""
        return self.where(id in ids for id in self.ids())

    def where(self, flags: Iterable[bool]) -> Dataset[Row]:
        """The rows whose flag is set, in order; one flag for each."""
        chosen = np.flatnonzero(np.fromiter(flags, bool, len(self)))
        return Dataset(self._store, np.asarray(self._rows, np.int64)[chosen], self.source)

    def as_pairs(self) -> Dataset[Preference] | None:
        """The same rows as preference pairs; None where they are not kept as such, or there are none."""
        pairs = self._store.as_pairs()
        return None if pairs is None else Dataset(pairs, self._rows, self.source)

    def left_out(self) -> list[int]:
        """Rows of the file's sound ones that this dataset does not show."""
        if len(self) == self._store.length:
            return []
        return [int(n) for n in np.setdiff1d(np.arange(self._store.length), np.asarray(self._rows))]

    def ids(self) -> Iterator[str]:
        """The ids in order, without making the rows."""
        if isinstance(self._rows, range) and self._rows.step == 1:
            return self._store.ids(self._rows.start, self._rows.stop)
        return (self._store.id(int(n)) for n in self._rows)

    def line(self, id: str) -> int | None:
        """Line (in Parquet: row) of the source file that holds this id, counted from 1; None for no such id."""
        row = self._store.find(id)
        return None if row is None else self._store.line(row)

    def file(self, id: str) -> int | None:
        """Number of the source's file that holds this id, counted from 0; None for no such id."""
        row = self._store.find(id)
        return None if row is None else self._store.file(row)

    def raw(self, id: str) -> bytes:
        """The row's own JSON text, byte for byte; empty where the source was not JSON."""
        row = self._store.find(id)
        return b"" if row is None else self._store.raw(row)


class _Store:
    """Arrow batches of equal size, and an index from id to row, made when it is first asked for."""

    def __init__(self, bodies: pa.RecordBatchFileReader, ids: pa.RecordBatchFileReader, kind: type) -> None:
        self._readers = {"body": bodies, "id": ids}
        self._held: dict[str, tuple[int, pa.RecordBatch]] = {}
        self._make = _record if kind is Record else _preference
        sizes = [ids.get_batch(n).num_rows for n in range(ids.num_record_batches)]
        self._ends = list(itertools.accumulate(sizes))
        self.length = self._ends[-1] if sizes else 0
        self.digest = (ids.schema.metadata or {}).get(b"digest", b"")

    def as_pairs(self) -> _Store | None:
        if not self.length or "chosen" not in orjson.loads(cast(bytes, self._cell("body", "body", 0))):
            return None
        return _Store(self._readers["body"], self._readers["id"], Preference)

    def row(self, number: int) -> Record | Preference:
        return self._make(self.id(number), cast(bytes, self._cell("body", "body", number)))

    def id(self, number: int) -> str:
        return cast(str, self._cell("id", "id", number))

    def ids(self, start: int, stop: int) -> Iterator[str]:
        """The ids of consecutive rows: a batch at a time is ten times as fast as one by one."""
        begin = 0
        for which, end in enumerate(self._ends):
            if begin < stop and end > start:
                column = self._readers["id"].get_batch(which).column("id")
                yield from column.slice(max(0, start - begin), stop - max(start, begin)).to_pylist()
            begin = end

    def line(self, number: int) -> int:
        return cast(int, self._cell("body", "line", number))

    def file(self, number: int) -> int:
        return cast(int, self._cell("body", "file", number))

    def raw(self, number: int) -> bytes:
        return cast(bytes, self._cell("body", "raw", number))

    @cached_property
    def _index(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        reader = self._readers["id"]
        batches = (reader.get_batch(n).column("id").to_pylist() for n in range(reader.num_record_batches))
        hashes = np.fromiter(map(hash, itertools.chain.from_iterable(batches)), np.int64, self.length)
        order = np.argsort(hashes, kind="stable").astype(np.uint32)
        hashes.sort()
        return order, hashes

    def find(self, id: str) -> int | None:
        order, hashes = self._index
        place = int(np.searchsorted(hashes, hash(id)))
        while place < self.length and hashes[place] == hash(id):
            row = int(order[place])
            if self.id(row) == id:
                return row
            place += 1
        return None

    def _cell(self, reader: str, column: str, number: int) -> object:
        held = self._held.get(reader)
        if held is None or not held[0] <= number < held[0] + held[1].num_rows:
            which = bisect_right(self._ends, number)
            held = (self._ends[which - 1] if which else 0, self._readers[reader].get_batch(which))
            self._held[reader] = held
        return held[1].column(column)[number - held[0]].as_py()


Twin = Callable[[str, int, int], bool]
"""Whether a further row of one id is read, under an id with an ordinal (`a1b2#2`); given id, row and the row's line."""

_Rows = range | npt.NDArray[np.int64]


def refuse_twins(id: str, row: int, line: int) -> bool:
    """No id may stand twice."""
    raise DataError(f'two records have the id "{shown(id)}"; every id must be unique.')


class DatasetWriter:
    """Writes rows as they come, and their ids at the end, when it is known which stand twice."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._sinks = {name: _sink(folder, name) for name in ("records", "ids")}
        self._bodies = pa.ipc.new_file(self._sinks["records"], _BODIES)
        self._open: list[tuple[int, int, bytes, bytes]] = []
        self._size = 0
        self._ends: list[int] = []
        self._open_ids: list[str] = []
        self._ids: list[pa.Array] = []
        self._hashes = array("q")
        self._content = hashlib.sha256()

    def add(self, row: Record | Preference, line: int, raw: bytes = b"", file: int = 0) -> None:
        """Write one row; `file` and `line` are where it stood in its source, `raw` its JSON text there."""
        body = _body(row)
        self._content.update(body)
        self._open.append((file, line, body, raw))
        self._open_ids.append(row.id)
        self._hashes.append(hash(row.id))
        self._size += len(body) + len(raw)
        if len(self._open) == BATCH or self._size >= BATCH_BYTES:
            self._flush()

    def finish(self, kind: type[Row], twin: Twin, source: Source | None = None) -> Dataset[Row]:
        """The dataset of all rows added; `twin` says what becomes of an id that stands twice."""
        if self._open:
            self._flush()
        self._bodies.close()
        left_out = self._settle_twins(self._opened("records"), twin)
        for ids in self._ids:
            self._content.update(orjson.dumps(ids.to_pylist()))
        schema = _IDS.with_metadata({"digest": self._content.hexdigest()})
        with pa.ipc.new_file(self._sinks["ids"], schema) as writer:
            for ids in self._ids:
                writer.write_batch(pa.record_batch([ids], schema=schema))
        store = _Store(self._opened("records"), self._opened("ids"), kind)
        rows = np.setdiff1d(np.arange(store.length), left_out) if left_out else None
        return Dataset(store, rows, source)

    def _flush(self) -> None:
        columns = [pa.array(c, f.type) for c, f in zip(zip(*self._open, strict=True), _BODIES, strict=True)]
        self._bodies.write_batch(pa.record_batch(columns, schema=_BODIES))
        self._ids.append(pa.array(self._open_ids, pa.string()))
        self._ends.append(len(self._hashes))
        self._open, self._open_ids, self._size = [], [], 0

    def _settle_twins(self, bodies: pa.RecordBatchFileReader, twin: Twin) -> list[int]:
        """Give further rows of one id an id of their own; returns those that are to be left out."""
        taken = np.sort(np.asarray(self._hashes, np.int64))
        seen: dict[str, int] = {}
        left_out = []
        for which, rows in itertools.groupby(_twins(self._hashes), lambda row: bisect_right(self._ends, row)):
            ids, lines = self._ids[which].to_pylist(), bodies.get_batch(which).column("line")
            start = self._ends[which] - len(ids)
            for row in rows:
                id, ordinal = ids[row - start], seen.get(ids[row - start], 0) + 1
                while ordinal > 1 and _among(hash(f"{id}#{ordinal}"), taken):
                    ordinal += 1
                seen[id] = ordinal
                if ordinal > 1 and not twin(id, row, lines[row - start].as_py()):
                    left_out.append(row)
                ids[row - start] = id if ordinal == 1 else f"{id}#{ordinal}"
            self._ids[which] = pa.array(ids, pa.string())
        return left_out

    def _opened(self, name: str) -> pa.RecordBatchFileReader:
        sink = self._sinks[name]
        if self._folder is None:
            return pa.ipc.open_file(pa.BufferReader(sink.getvalue()))
        sink.close()
        return pa.ipc.open_file(pa.memory_map(str(self._folder / f"{name}.arrow"), "r"))


def write_dataset(folder: Path | None, rows: Iterable[Row]) -> Dataset[Row]:
    """The dataset of rows of one kind, in files of a folder, or in memory; raises `DataError` where two have one id."""
    writer = DatasetWriter(folder)
    kind: type[Any] = Record  # Any: known only when the first row is seen
    for number, row in enumerate(rows, start=1):
        kind = type(row)
        writer.add(row, number)
    return cast(Dataset[Row], writer.finish(kind, refuse_twins))


def open_dataset(
    folder: Path, kind: type[Row], source: Source | None = None, left_out: Sequence[int] = ()
) -> Dataset[Row]:
    """The dataset that a `DatasetWriter` finished in this folder."""
    readers = [pa.ipc.open_file(pa.memory_map(str(folder / f"{n}.arrow"), "r")) for n in ("records", "ids")]
    store = _Store(readers[0], readers[1], kind)
    return Dataset(store, np.setdiff1d(np.arange(store.length), left_out) if left_out else None, source)


def _among(value: int, in_order: npt.NDArray[np.int64]) -> bool:
    place = int(np.searchsorted(in_order, value))
    return place < len(in_order) and int(in_order[place]) == value


def _twins(hashes: Sequence[int]) -> list[int]:
    """Rows whose hash is not unique, in order."""
    values = np.asarray(hashes, np.int64)
    order = np.argsort(values, kind="stable")
    same = values[order][1:] == values[order][:-1]
    either = np.concatenate([same, [False]]) | np.concatenate([[False], same])
    return sorted(int(row) for row in order[either]) if len(values) else []


def _sink(folder: Path | None, name: str) -> Any:  # Any: Arrow's sinks have no common public type
    if folder is None:
        return pa.BufferOutputStream()
    path = folder / f"{name}.arrow"
    os.close(create(path))
    return pa.OSFile(str(path), "wb")


def _body(row: Record | Preference) -> bytes:
    fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name != "id"}
    return orjson.dumps(fields, default=str)


def _message(fields: dict[str, Any]) -> Message:
    return Message(fields["role"], fields["text"], tuple(fields["images"]))


def _record(id: str, body: bytes) -> Record:
    """A record; of a preference pair its prompt and chosen answer, the rejected one beside them."""
    fields = orjson.loads(body)
    if "chosen" in fields:
        pair = _preference(id, body)
        margin = {} if pair.margin is None else {"margin": pair.margin}
        return Record(id, (*pair.prompt, pair.chosen), {**pair.extra, **margin, "rejected": pair.rejected.text})
    return Record(id, tuple(map(_message, fields["messages"])), fields["extra"])


def _preference(id: str, body: bytes) -> Preference:
    fields = orjson.loads(body)
    answers = {name: _message(fields[name]) for name in ("chosen", "rejected")}
    return Preference(
        id, tuple(map(_message, fields["prompt"])), **answers, margin=fields["margin"], extra=fields["extra"]
    )
