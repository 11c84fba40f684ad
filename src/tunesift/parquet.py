"""Parquet as we accept it: whole, of plain columns, no bomb; and its rows as JSON would have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tunesift.errors import DataError, first_line, shown
from tunesift.json_text import JsonFault, alike

MAX_RATIO = 200
"""Decompressed bytes per compressed byte above which a file is taken for a bomb (from 64 MiB on)."""
_ROWS = 1024
"""Rows of one batch."""
_AT_A_TIME = 16 * 2**20
"""Unpacked bytes of one batch."""
MAX_GROUP = 2 * 2**30
"""Bytes of one row group of a Parquet file, unpacked."""


def most_unpacked(path: Path) -> int:
    """Bytes that a packed file may unpack to."""
    return max(64 * 2**20, MAX_RATIO * path.stat().st_size)


def plain_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | JsonFault]:  # Any: whatever cells hold
    """A batch's rows as JSON has them, times as texts; what is wrong in place of a row that cannot be."""
    columns = [c.cast(pa.string()) if _is_time(c.type) else c for c in batch.columns]
    timeless = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    try:
        yield from timeless.to_pylist()
        return
    except (ValueError, OverflowError):
        pass  # some row of it; which one, the rows themselves must say
    for number in range(timeless.num_rows):
        try:
            yield timeless.slice(number, 1).to_pylist()[0]
        except UnicodeDecodeError:
            yield JsonFault("E301", "a text in it is not valid UTF-8; write the file again from UTF-8")
        except (ValueError, OverflowError) as error:
            yield JsonFault("E304", f"a value in it is out of range ({shown(str(error))})")


def parquet_batches(path: Path, packed: bool = False) -> Iterator[pa.RecordBatch]:
    """The file's rows in order, page checksums verified; raises `DataError` where the file is damaged.

    With `packed`, a text that the file holds once and names in many rows is held once here, too.
    """
    with _opened(path) as opened:
        texts = [f.name for f in read_schema(path) if _is_text(f.type)] if packed else None
        file = pq.ParquetFile(opened, read_dictionary=texts, memory_map=True, page_checksum_verification=True)
        _check_columns(path, file.schema_arrow)
        _check_unpacked(path, file.metadata)
        yield from file.iter_batches(batch_size=_ROWS)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:  # Any: a path, or a file of Arrow's
    """What Arrow opens, which takes no name that is not UTF-8; turns what it says of a damaged file into a sentence."""
    with ExitStack() as closing:
        try:
            odd = any("\udc80" <= c <= "\udcff" for c in str(path))
            yield pa.PythonFile(closing.enter_context(path.open("rb"))) if odd else path
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: a column whose name is no UTF-8
            reason = first_line(error)
            code = "E111" if "checksum" in str(error).lower() else "E110"
            raise DataError(f"{code} {path}: is not a sound Parquet file ({reason}); write it again.") from error


def bounded(path: Path, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows, no more at a time than unpack to some megabytes; raises `DataError` for a bomb."""
    total, limit = 0, most_unpacked(path)
    with _opened(path):  # a damaged column may name texts that its dictionary does not have
        for batch in batches:
            size = sum(map(_unpacked, batch.columns))
            total += size
            if total > limit:
                raise DataError(f"E404 {path}: unpacks to more than {MAX_RATIO} times its size; write it anew.")
            rows = max(1, batch.num_rows * _AT_A_TIME // max(size, _AT_A_TIME))
            yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def _unpacked(column: pa.Array) -> int:
    if not pa.types.is_dictionary(column.type) or not _is_text(column.type.value_type):
        return int(column.nbytes)
    return int(pc.sum(pc.binary_length(column.dictionary).cast(pa.int64()).take(column.indices)).as_py() or 0)


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind))


def _check_columns(path: Path, schema: pa.Schema) -> None:
    if pair := alike(schema.names):
        names = f'"{shown(pair[0])}" and "{shown(pair[1])}"'
        raise DataError(f"E207 {path}: the columns {names} are one but for case or accents; rename one.")
    strange = [f.name for f in schema if f.metadata and b"ARROW:extension:name" in f.metadata]
    if strange:
        raise DataError(f'E802 {path}: the column "{shown(strange[0])}" has a type of an extension; write it as plain.')


def _check_unpacked(path: Path, metadata: pq.FileMetaData) -> None:
    groups = [metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)]
    if max(groups, default=0) > MAX_GROUP or sum(groups) > most_unpacked(path):
        raise DataError(f"E404 {path}: unpacks to {sum(groups)} bytes, too many at a time; write smaller row groups.")


def read_schema(path: Path) -> pa.Schema:
    """A file's columns; raises `DataError` where it is damaged."""
    with _opened(path) as opened:
        return pq.read_schema(opened, memory_map=True)


def check_shards(paths: Sequence[Path]) -> None:
    """Raise `DataError` where the files of one set do not have the same columns, saying which differ."""
    first, *others = paths
    wanted = read_schema(first)
    for path in others:
        if differences := _differences(wanted, read_schema(path)):
            said = shown("; ".join(differences))
            raise DataError(f"E112 {path}: its columns are not those of {first.name}: {said}; write them alike.")


def _differences(wanted: pa.Schema, found: pa.Schema) -> list[str]:
    if wanted.equals(found):
        return []
    ours, theirs = (
        {f.name: f"{f.type}{'' if f.nullable else ' and never null'}" for f in schema} for schema in (wanted, found)
    )
    said = [f"{name} is missing" for name in ours if name not in theirs]
    said += [f"{name} is new" for name in theirs if name not in ours]
    said += [f"{n} is {theirs[n]}, not {ours[n]}" for n in ours if n in theirs and ours[n] != theirs[n]]
    return said or ["they stand in another order"]
