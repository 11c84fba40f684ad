"""From a file's bytes to its rows, each with its place; a row that cannot be read is a value, not an end."""

from __future__ import annotations

import gzip
import os
import re
import unicodedata
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from tunesift.errors import DataError, shown
from tunesift.json_text import MAX_LINE, JsonFault, element_end, parse_json, sibling_start

Container = Literal["json", "jsonl", "parquet"]

MAX_RATIO = 200
"""Decompressed bytes per compressed byte above which a file is taken for a bomb (from 64 MiB on)."""
MAX_GROUP = 2 * 2**30
"""Bytes of one row group of a Parquet file, unpacked."""
KEPT_RAW = 64 * 2**10
"""Bytes of an unreadable row that are kept for the quarantine."""

_TOO_LONG = f"the record is longer than {MAX_LINE} bytes"

_BOM = b"\xef\xbb\xbf"
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"PAR1": ".parquet", b"PK\x03\x04": ".zip"}
"""How files that are not text begin, and the ending they should have."""
_BETWEEN = re.compile(r"[ \t\r\n,]*")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: its file, its line (or row number in Parquet), counted from 1, and its first byte."""

    file: str
    line: int
    byte: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the file has it, before anyone asks what its fields mean."""

    place: Place
    fields: dict[str, Any]  # Any: whatever JSON holds
    raw: bytes
    """The row's own JSON text; empty for Parquet."""


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be read, and why: `code` is the kind of trouble, as listed in docs/formats.md."""

    place: Place
    code: str
    message: str
    raw: bytes


def packing(path: Path) -> str:
    """How a name says that a file is compressed: `.gz`, `.zst`, or an empty text."""
    ending = path.suffix.lower()
    return ending if ending in (".gz", ".zst") else ""


@contextmanager
def open_bytes(path: Path) -> Iterator[gzip.GzipFile | BufferedReader]:
    """The file's bytes, decompressed when its name ends in `.gz` or `.zst`."""
    with path.open("rb") as file:
        if packing(path) == ".gz":
            yield gzip.GzipFile(fileobj=file)
        elif packing(path) == ".zst":
            yield BufferedReader(cast(Any, pa.CompressedInputStream(file, "zstd")))  # Any: has what a raw stream has
        else:
            yield file


def container_of(path: Path) -> Container:
    """What kind of file a name promises; raises `DataError` for an ending we do not know."""
    name = path.name.lower()
    plain = name.removesuffix(packing(path))
    for ending, container in ((".jsonl", "jsonl"), (".ndjson", "jsonl"), (".json", "json"), (".parquet", "parquet")):
        if plain.endswith(ending) and (container != "parquet" or plain == name):
            return cast(Container, container)
    raise DataError(
        f"E116 {path}: the ending is not one we know; use .json, .jsonl, .parquet, or the first two with .gz or .zst."
    )


def read_rows(path: Path) -> Generator[RawRow | BrokenRow]:
    """Every row of a file in order; raises `DataError` only for what is wrong with the file as a whole.

    Whoever does not walk it to its end must close it.
    """
    check_file(path)
    container = container_of(path)
    if container == "parquet":
        yield from _parquet_rows(path)
        return
    try:
        with open_bytes(path) as file:
            head = file.peek(4096)[:4096]
            _check_encoding(path, head)
            array = head.removeprefix(_BOM).lstrip()[:1] == b"["
            if array and container == "jsonl":
                raise DataError(f"E104 {path}: the file is one JSON array, not JSON Lines; name it .json.")
            yield from _array_rows(path, file) if array else _line_rows(path, file)
    except (EOFError, OSError, zlib.error, pa.ArrowException) as error:
        if not packing(path):
            raise DataError(f"E119 {path}: cannot be read ({error}); check the file and its permissions.") from error
        raise DataError(f"E115 {path}: the compressed file is damaged or cut off ({error}); make it again.") from error


def check_file(path: Path) -> None:
    """Raise `DataError` for what is no readable, regular file of the kind that its name promises."""
    if not os.path.exists(path):  # False, too, for a name that is too long or lies in a closed folder
        raise DataError(f"E101 {path}: there is no such file; check the path.")
    if not path.is_file():
        raise DataError(f"E117 {path}: is not a regular file; give a file of records.")
    container = container_of(path)
    if path.stat().st_size == 0:
        code = "E110" if container == "parquet" else "E101"
        raise DataError(f"{code} {path}: the file is empty; give a file with at least one record.")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"E119 {path}: cannot be read ({error.strerror}); check the file's permissions.") from error
    found = next((ending for magic, ending in _MAGIC.items() if start.startswith(magic)), "")
    promised = ".parquet" if container == "parquet" else packing(path)
    if found != promised:
        what = f"begins like a {found} file" if found else f"does not begin like a {promised} file"
        raise DataError(f"E116 {path}: {what}; give it the ending of what it is.")


def _check_encoding(path: Path, head: bytes) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0\0" in (head[0:4:2], head[1:4:2]):
        raise DataError(f"E106 {path}: the file is UTF-16; save it as UTF-8.")


def _line_rows(path: Path, file: gzip.GzipFile | BufferedReader) -> Iterator[RawRow | BrokenRow]:
    head = file.peek(4096)[:4096].rstrip()
    if b"\n" not in head and b"\r" in head:
        raise DataError(f"E105 {path}: lines end in a bare carriage return; save it with line feeds.")
    number = offset = 0
    limit = _bomb_limit(path)
    while line := file.readline(MAX_LINE + 1):
        number, begin, offset = number + 1, offset, offset + len(line)
        last = line
        while len(line) > MAX_LINE and not last.endswith(b"\n") and offset <= limit:
            if not (last := file.readline(MAX_LINE)):
                break
            offset += len(last)
        if offset > limit:
            raise DataError(f"E404 {path}: unpacks to more than {MAX_RATIO} times its size; unpack it yourself first.")
        text = line.removeprefix(_BOM).strip()
        if len(line) > MAX_LINE:
            yield BrokenRow(Place(path.name, number, begin), "E401", _TOO_LONG, line[:KEPT_RAW])
        elif text:
            yield _one_row(Place(path.name, number, begin + line.index(text)), text)


def _bomb_limit(path: Path) -> int:
    return max(64 * 2**20, MAX_RATIO * path.stat().st_size) if packing(path) else 2**62


def _one_row(place: Place, raw: bytes) -> RawRow | BrokenRow:
    try:
        text = raw.decode("utf-8")
        value, end = parse_json(text)
        if text[end:].strip():
            raise JsonFault("E103", "something stands behind the record on its line", end)
        if not isinstance(value, dict):
            raise JsonFault("E201", f"a record is a JSON object, not {_name(value)}")
    except UnicodeDecodeError as error:
        where = place.byte + error.start
        return BrokenRow(place, "E301", f"byte {where} is not valid UTF-8; save the file as UTF-8", raw[:KEPT_RAW])
    except JsonFault as fault:
        return BrokenRow(place, fault.code, fault.message, raw[:KEPT_RAW])
    return RawRow(place, value, raw)


def _name(value: object) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _array_rows(path: Path, file: gzip.GzipFile | BufferedReader) -> Iterator[RawRow | BrokenRow]:
    text, bom = _text_of(path, file)
    position, line, byte, seen = text.index("[") + 1, 1, bom, 0
    sibling = sibling_start(text, position)
    broken = False
    while True:
        position = cast(re.Match[str], _BETWEEN.match(text, position)).end()
        line, byte = line + text.count("\n", seen, position), byte + _size(text[seen:position])
        seen, place = position, Place(path.name, line, byte)
        if position == len(text):
            if not broken:
                yield BrokenRow(place, "E102", "the file ends before its array does", b"")
            return
        if text[position] == "]":
            if behind := _bytes(text[position + 1 :].strip())[:KEPT_RAW]:
                yield BrokenRow(place, "E103", "something stands behind the end of the array", behind)
            return
        end = element_end(text, position, sibling)
        if end is None:
            raw = _bytes(text[position : position + KEPT_RAW])
            yield BrokenRow(place, "E102", "no end of this record is to be found; the file may be cut off", raw)
            return
        row = _one_row(place, _bytes(text[position:end].rstrip()))
        broken = isinstance(row, BrokenRow)
        yield row
        position = end


def _text_of(path: Path, file: gzip.GzipFile | BufferedReader) -> tuple[str, int]:
    """The whole file, bytes that are not UTF-8 as lone surrogates; and the bytes of its mark of UTF-8."""
    limit = _bomb_limit(path)
    content = file.read(limit + 1) if packing(path) else file.read()
    if len(content) > limit:
        raise DataError(f"E404 {path}: unpacks to more than {MAX_RATIO} times its size; unpack it yourself first.")
    plain = content.removeprefix(_BOM)
    return plain.decode("utf-8", "surrogateescape"), len(content) - len(plain)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(_bytes(text))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _parquet_rows(path: Path) -> Iterator[RawRow | BrokenRow]:
    number = 0
    for batch in parquet_batches(path):
        for fields in plain_rows(batch):
            number += 1
            place = Place(path.name, number, 0)
            if isinstance(fields, JsonFault):
                yield BrokenRow(place, fields.code, fields.message, b"")
            else:
                yield RawRow(place, fields, b"")


def plain_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | JsonFault]:
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


def parquet_batches(path: Path, rows: int = 1024) -> Iterator[pa.RecordBatch]:
    """The file's rows in order, page checksums verified; raises `DataError` where the file is damaged."""
    try:
        file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        _check_columns(path, file.schema_arrow)
        _check_unpacked(path, file.metadata)
        yield from file.iter_batches(batch_size=rows)
    except (pa.ArrowException, OSError) as error:
        reason = shown(str(error).partition("\n")[0])
        code = "E111" if "checksum" in str(error).lower() else "E110"
        raise DataError(f"{code} {path}: is not a sound Parquet file ({reason}); write it again.") from error


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_time(kind))


def _check_columns(path: Path, schema: pa.Schema) -> None:
    if len({unicodedata.normalize("NFC", n).casefold() for n in schema.names}) < len(schema.names):
        raise DataError(f"E207 {path}: two columns have the same name but for case or accents; rename one.")
    strange = [f.name for f in schema if f.metadata and b"ARROW:extension:name" in f.metadata]
    if strange:
        raise DataError(f'E802 {path}: the column "{shown(strange[0])}" has a type of an extension; write it as plain.')


def _check_unpacked(path: Path, metadata: pq.FileMetaData) -> None:
    groups = [metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)]
    if max(groups, default=0) > MAX_GROUP or sum(groups) > max(64 * 2**20, MAX_RATIO * path.stat().st_size):
        raise DataError(f"E404 {path}: unpacks to {sum(groups)} bytes, too many at a time; write smaller row groups.")
