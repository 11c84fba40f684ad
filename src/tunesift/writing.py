"""From decided records back to a file of the format they came in, in their order, whole or not at all."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from tunesift.datasets import Dataset, Source
from tunesift.errors import CannotCreate, DataError
from tunesift.files import container_of, parquet_batches, parse_json
from tunesift.formats import write_row
from tunesift.records import Record

_GROUP = 4096
"""Rows of one group of a Parquet file."""


Beside = Callable[[Record], dict[str, Any]]  # Any: JSON
"""Fields to write beside those of a record."""


def write_records(records: Iterable[Record], path: Path, origin: Dataset[Record], beside: Beside | None = None) -> None:
    """Write records, in the order of their origin, in the format of the file that `origin` was read from.

    A record that `origin` holds unchanged keeps its bytes; another is written into the fields of the record whose id
    its own begins with (`a1b2~response` into `a1b2`). Raises `CannotCreate` where the path cannot be written.
    """
    source = origin.source
    if source is None:
        raise DataError("the dataset was made in Python and has no format; read it from a file to write it back.")
    parquet_in = container_of(Path(source.path)) == "parquet"
    rows = (_parquet_rows if parquet_in else _json_rows)(records, origin, source, beside)
    with whole_or_nothing(path) as part:
        if container_of(path) == "parquet":
            _write_parquet(rows, part, pq.read_schema(source.path) if parquet_in and not beside else None)
        else:
            write_json_rows((json.dumps(r, ensure_ascii=False, default=str).encode() if isinstance(r, dict) else r
                             for r in rows), part, path)  # fmt: skip


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """A temporary neighbour that takes the name of `path` when all has gone well, and is removed otherwise."""
    part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise CannotCreate(
            f"{path}: cannot be written ({error.strerror}); choose a folder you may write to."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def write_json_rows(rows: Iterable[bytes], part: Path, path: Path) -> None:
    """Write JSON texts as lines, or as one array where the final name says `.json`; packed where it says so."""
    with _packed(part, path) as file:
        if container_of(path) == "jsonl":
            file.writelines(row.replace(b"\r", b"").replace(b"\n", b" ") + b"\n" for row in rows)
        else:
            file.write(b"[")
            file.writelines((b",\n  " if number else b"\n  ") + row for number, row in enumerate(rows))
            file.write(b"\n]\n")


@contextmanager
def _packed(part: Path, path: Path) -> Iterator[IO[bytes]]:
    with part.open("wb") as file:
        if path.suffix == ".gz":
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                yield cast(IO[bytes], packed)
        elif path.suffix == ".zst":
            with pa.CompressedOutputStream(file, "zstd") as packed:
                yield packed
        else:
            yield file


def base_id(id: str) -> str:
    """The id of the source record that a derived record's id begins with: `a1b2` of `a1b2~response`."""
    return id.partition("~")[0]


def _json_rows(
    records: Iterable[Record], origin: Dataset[Record], source: Source, beside: Beside | None
) -> Iterator[bytes | dict[str, Any]]:
    for record in records:
        old = origin.by_id(base_id(record.id))
        raw = origin.raw(old.id)
        if old == record and beside is None:
            yield raw
            continue
        fields = parse_json(raw.decode())[0]
        fields = fields if old == record else write_row(record, fields, source.format)
        yield {**fields, **(beside(record) if beside else {})}


def _parquet_rows(
    records: Iterable[Record], origin: Dataset[Record], source: Source, beside: Beside | None
) -> Iterator[bytes | dict[str, Any]]:
    """The source's rows, read forward once beside the records; both are in the same order."""
    rows = itertools.chain.from_iterable(b.to_pylist() for b in parquet_batches(Path(source.path)))
    read = 0
    for record in records:
        old = origin.by_id(base_id(record.id))
        line = origin.line(old.id) or 0
        fields = next(itertools.islice(rows, line - read - 1, None))
        read = line
        fields = fields if old == record else write_row(record, fields, source.format)
        yield {**fields, **(beside(record) if beside else {})}


def _write_parquet(rows: Iterable[bytes | dict[str, Any]], part: Path, schema: pa.Schema | None) -> None:
    parsed = (parse_json(row.decode())[0] if isinstance(row, bytes) else row for row in rows)
    head = list(itertools.islice(parsed, _GROUP))
    schema = schema or pa.Table.from_pylist(head).schema
    with pq.ParquetWriter(part, schema, compression="zstd", write_page_checksum=True) as writer:
        while head:
            writer.write_table(pa.Table.from_pylist(head, schema=schema))
            head = list(itertools.islice(parsed, _GROUP))
