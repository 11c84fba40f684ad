"""From decided records back to a file of the format they came in, in their order, whole or not at all."""

from __future__ import annotations

import base64
import errno
import gzip
import itertools
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tunesift.datasets import Dataset, Source
from tunesift.disk import NO_ROOM, sync
from tunesift.errors import ROOM_SAID, CannotCreate, DataError, DiskFull, StorageError, first_line, shown
from tunesift.files import container_of, packing
from tunesift.formats import Format
from tunesift.inputs import input_digest, input_files
from tunesift.json_text import JsonFault, parse_json
from tunesift.parquet import parquet_batches, plain_rows, read_schema
from tunesift.records import Preference, Record, RowFault, origins
from tunesift.rewriting import new_row, pair_row, write_row
from tunesift.tables import table_lines

_GROUP = 4096
"""Rows of one group of a Parquet file."""
_LINE_END = re.compile(rb"[\r\n]+[ \t]*")
_BEHIND = 'the record "{}" comes after one that stands behind it in the input; write records in the input\'s order.'

Fields = dict[str, Any]  # Any: JSON
Beside = Callable[[Record], Fields]
"""Fields to write beside those of a record."""
Texts = Callable[[], Iterator[bytes]]
"""Rows as JSON, from the first one whenever it is called."""


def write_records(records: Sequence[Record], path: Path, origin: Dataset[Record], beside: Beside | None = None) -> None:
    """Write records, in the order of their origin, in the format of the file that `origin` was read from.

    A record that `origin` holds unchanged keeps its bytes (in Parquet: its cells); another is written into the fields
    of the record whose id its own begins with (`a1b2~response` into `a1b2`). From Parquet to JSON, times become texts,
    bytes base64, and numbers that are none null; to CSV, what is no text becomes JSON, and a text that a spreadsheet
    would run as a formula gets a `'` before it. Raises `CannotCreate` where the path cannot be written.
    """
    if origin.source is None:
        raise DataError("the dataset was made in Python and has no format; read it from a file to write it back.")
    rows = _Rows(records, origin, origin.source, beside)
    if rows.from_parquet and input_digest(rows.path) != origin.source.sha256:
        raise DataError(f"E118 {rows.path}: the file changed since it was read; start again with another output.")
    with whole_or_nothing(path) as part, _column_errors(path):
        if rows.from_parquet and container_of(path) == "parquet":
            _write_cells(rows, part)
        else:
            _write_texts(rows.texts, part, path)


def write_new(records: Iterable[Record | Preference], path: Path, format: Format) -> None:
    """Write records that no row of an input was made into as new rows of a format, preference pairs as TRL has them;
    they are walked more than once.

    Raises `CannotCreate` where the path cannot be written, `DataError` where the format has no place for a record.
    """

    def texts() -> Iterator[bytes]:
        for record in records:
            try:
                yield _as_json(pair_row(record) if isinstance(record, Preference) else new_row(record, format))
            except RowFault as fault:
                said = f'{path}: the record "{shown(record.id)}" cannot be written as {format}'
                raise DataError(f"{said}: {fault.message}.") from None

    with whole_or_nothing(path) as part, _column_errors(path):
        _write_texts(texts, part, path)


def _write_texts(texts: Texts, part: Path, path: Path) -> None:
    if container_of(path) in ("csv", "tsv"):
        _write_table(texts, part, path)
    elif container_of(path) == "parquet":
        _write_columns(texts, part)
    else:
        write_json_rows(texts(), part, path)


@contextmanager
def _column_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OverflowError) as error:
        if container_of(path) != "parquet":
            raise
        reason = first_line(error)
        raise DataError(f"{path}: the rows do not fit into columns ({reason}); write .jsonl instead.") from error


def source_of(id: str, origin: Dataset[Record]) -> Record:
    """The record of the origin with this id, or else with what a derived id begins with: `a1b2` for `a1b2~response`."""
    for begin in origins(id):
        if (place := origin.place(begin)) is not None:
            return origin[place]
    raise DataError(f'no record of the input has the id "{shown(id)}"; begin a derived id with its record\'s and "~".')


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """A temporary neighbour that takes the name of `path` when all has gone well, and is removed otherwise."""
    part = _neighbour(path)
    with create_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            sync(part)
            part.replace(path)
            sync(path.parent)
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Raise `CannotCreate` where no file of this name can be made; asked before any work is done for it."""
    part = _neighbour(path)
    with create_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        part.unlink()


def _neighbour(path: Path) -> Path:
    """Where this process writes a file before it gets its name."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@contextmanager
def create_errors(path: Path) -> Iterator[None]:
    """Turn what the disk says of an output into one sentence."""
    try:
        yield
    except OSError as error:
        why = error.strerror or first_line(error)
        why = "a file stands where its folder should" if isinstance(error, FileExistsError) else why
        if error.errno in NO_ROOM:
            raise DiskFull(f"{path}: {why}; {ROOM_SAID} and start again.") from error
        if error.errno == errno.EIO:
            raise StorageError(f"{path}: {why}; check the disk and start again.") from error
        raise CannotCreate(f"{path}: cannot be written ({why}); choose a folder you may write to.") from error


def write_json_rows(rows: Iterable[bytes], part: Path, path: Path) -> None:
    """Write JSON texts as lines, or as one array where the final name says `.json`; packed where it says so."""
    with _packed(part, path) as file:
        if container_of(path) == "jsonl":
            file.writelines(_LINE_END.sub(b" ", row) + b"\n" for row in rows)
        else:
            file.write(b"[")
            file.writelines((b",\n  " if number else b"\n  ") + row for number, row in enumerate(rows))
            file.write(b"\n]\n")


def _write_table(texts: Texts, part: Path, path: Path) -> None:
    """Walked once for the columns that any row has, and once to write them."""
    names = list(dict.fromkeys(name for text in texts() for name in orjson.loads(text)))
    with _packed(part, path) as file:
        if names:
            delimiter = "," if container_of(path) == "csv" else "\t"
            file.writelines(table_lines(map(orjson.loads, texts()), names, delimiter))


@contextmanager
def _packed(part: Path, path: Path) -> Iterator[IO[bytes]]:
    with part.open("wb") as file:
        if packing(path) == ".gz":
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                yield cast(IO[bytes], packed)
        elif packing(path) == ".zst":
            with pa.CompressedOutputStream(file, "zstd") as packed:
                yield packed
        else:
            yield file


class _Rows:
    """The rows of an output, made from those of the source; they can be walked more than once."""

    def __init__(
        self, records: Sequence[Record], origin: Dataset[Record], source: Source, beside: Beside | None
    ) -> None:
        self._records, self._origin, self._beside = records, origin, beside
        self.path, self._format = Path(source.path), source.format
        self.files = input_files(self.path)
        self.from_parquet = container_of(self.files[0]) == "parquet"

    def texts(self) -> Iterator[bytes]:
        """The rows as JSON."""
        if self.from_parquet:
            for batch, pairs in self._taken():
                for (record, old), fields in zip(pairs, map(_sound, plain_rows(batch)), strict=True):
                    yield self._text(record, old, fields)
            return
        for record in self._records:
            old = source_of(record.id, self._origin)
            raw = self._origin.raw(old.id)
            unchanged = record == old and self._beside is None
            yield raw if unchanged else self._text(record, old, parse_json(raw.decode())[0])

    def cells(self) -> Iterator[pa.RecordBatch]:
        """The rows as Arrow, without what stands beside them."""
        return (self._rewritten(batch, pairs) for batch, pairs in self._taken())

    def beside(self) -> Iterator[Fields]:
        """What stands beside the rows."""
        return map(self._beside, self._records) if self._beside else iter(())

    def _taken(self) -> Iterator[tuple[pa.RecordBatch, list[tuple[Record, Record]]]]:
        """Rows of Parquet files, read forward once beside the records; both are in the same order."""
        wanted = ((record, source_of(record.id, self._origin)) for record in self._records)
        todo = next(wanted, None)
        for file, before, batch in self._batches():
            pairs: list[tuple[Record, Record]] = []
            numbers: list[int] = []
            while todo and (number := self._row_in(file, todo[1].id) - before) < batch.num_rows:
                if number < 0:
                    raise DataError(_BEHIND.format(shown(todo[0].id)))
                pairs.append(todo)
                numbers.append(int(number))
                todo = next(wanted, None)
            if pairs:
                yield _picked(batch, numbers), pairs
        if todo:
            raise DataError(_BEHIND.format(shown(todo[0].id)))

    def _batches(self) -> Iterator[tuple[int, int, pa.RecordBatch]]:
        """Batches with the number of their file and the rows of it that are before them."""
        for file, path in enumerate(self.files):
            before = 0
            for batch in parquet_batches(path):
                yield file, before, batch
                before += batch.num_rows

    def _row_in(self, file: int, id: str) -> float:
        """Row of a record in this file, from 0; beyond its end where it stands in a later one."""
        return (self._origin.line(id) or 0) - 1 if self._origin.file(id) == file else math.inf

    def _rewritten(self, batch: pa.RecordBatch, pairs: list[tuple[Record, Record]]) -> pa.RecordBatch:
        """The batch with the cells in which a record says something new; all others stay as they are."""
        columns: dict[str, dict[int, object]] = defaultdict(dict)
        for number, (record, old) in enumerate(pairs):
            if record == old:
                continue
            fields = _sound(next(plain_rows(batch.slice(number, 1))))
            for name, cell in self._put_back(record, fields).items():
                if cell != fields.get(name):
                    columns[name][number] = cell
        for name, cells in columns.items():
            batch = self._with_cells(batch, name, cells)
        return batch

    def _with_cells(self, batch: pa.RecordBatch, name: str, new: Mapping[int, object]) -> pa.RecordBatch:
        """The batch with these cells of one column, by row."""
        if name not in batch.schema.names:
            raise DataError(f'{self.path}: has no column "{name}", which a changed record needs; write .jsonl instead.')
        place = batch.schema.get_field_index(name)
        cells = [new.get(row, cell) for row, cell in enumerate(batch.column(place).to_pylist())]
        return batch.set_column(place, batch.schema.field(place), pa.array(cells, batch.schema.field(place).type))

    def _text(self, record: Record, old: Record, fields: Fields) -> bytes:
        row = fields if record == old else self._put_back(record, fields)
        return _as_json({**row, **(self._beside(record) if self._beside else {})})

    def _put_back(self, record: Record, fields: Fields) -> Fields:
        try:
            return write_row(record, fields, self._format)
        except RowFault as fault:
            said = f'{self.path}: the record "{shown(record.id)}" cannot be written as {self._format}'
            raise DataError(f"{said}: {fault.message}.") from None


def _picked(batch: pa.RecordBatch, numbers: list[int]) -> pa.RecordBatch:
    """Some rows of a batch, in order; by slices, since Arrow takes single rows of some types only."""
    parts = []
    for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        rows = [number for _, number in run]
        parts.append(batch.slice(rows[0], len(rows)))
    return parts[0] if len(parts) == 1 else pa.Table.from_batches(parts).combine_chunks().to_batches()[0]


def _sound(row: Fields | JsonFault) -> Fields:
    assert isinstance(row, dict)  # the file is as it was read, and a row that cannot be read makes no record
    return row


def _as_json(row: Fields) -> bytes:
    return orjson.dumps(row, default=lambda v: base64.b64encode(v).decode() if isinstance(v, bytes) else str(v))


def _write_cells(rows: _Rows, part: Path) -> None:
    """Arrow to Arrow: the source's own columns, and columns for what stands beside."""
    schema, more = read_schema(rows.files[0]), _schema_of(rows.beside())
    for field in more:
        place = schema.get_field_index(field.name)
        schema = schema.append(field) if place < 0 else schema.set(place, field)
    beside = rows.beside()
    with _parquet_writer(part, schema) as writer:
        for table in _groups(rows.cells()):
            new = pa.Table.from_pylist(list(itertools.islice(beside, table.num_rows)), schema=more)
            columns = [(new if name in more.names else table).column(name) for name in schema.names]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def _write_columns(texts: Texts, part: Path) -> None:
    """JSON to Arrow: walked once for the columns that any row has, and once to write them."""
    schema = _schema_of(map(orjson.loads, texts()))
    rows = texts()
    with _parquet_writer(part, schema) as writer:
        while group := [orjson.loads(text) for text in itertools.islice(rows, _GROUP)]:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _parquet_writer(part: Path, schema: pa.Schema) -> pq.ParquetWriter:
    return pq.ParquetWriter(part, schema, compression="zstd", write_page_checksum=True)


def _schema_of(rows: Iterator[Fields]) -> pa.Schema:
    """The columns of all rows, in the order in which they first come."""
    schema = pa.schema([])
    while group := list(itertools.islice(rows, _GROUP)):
        names = dict.fromkeys(name for row in group for name in row)
        found = pa.schema([(name, pa.infer_type([row.get(name) for row in group])) for name in names])
        schema = pa.unify_schemas([schema, found], promote_options="permissive")
    return schema


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(b.num_rows for b in held) >= _GROUP:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)
