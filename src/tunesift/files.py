"""From a file's bytes to its rows, each with its place; a row that cannot be read is a value, not an end."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Literal, cast

import pyarrow as pa
import pyarrow.parquet as pq

from tunesift.errors import DataError

Container = Literal["json", "jsonl", "parquet"]

MAX_LINE = 16 * 2**20
"""Bytes of one row; a longer one is quarantined."""
MAX_DEPTH = 64
"""Levels of nesting of one row."""
MAX_RATIO = 200
"""Decompressed bytes per compressed byte above which a file is taken for a bomb (from 64 MiB on)."""
KEPT_RAW = 64 * 2**10
"""Bytes of an unreadable row that are kept for the quarantine."""

_DEPTH_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.S)
_PLAIN_ELEMENT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^,\]\s]+', re.S)
_FIRST_INDENT = re.compile(r"\s*\n([ \t]+)\{")
_SURROGATE = re.compile("[\ud800-\udfff]")


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


class JsonFault(ValueError):
    """A JSON text that we do not accept: its code, what is wrong, and at which character."""

    def __init__(self, code: str, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.code, self.message, self.position = code, message, position


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [k for k, _ in pairs]
        twice = next(k for k in names if names.count(k) > 1)
        raise JsonFault("E305", f'key "{twice}" stands twice')
    return found


def _constant(name: str) -> float:
    raise JsonFault("E303", f"{name} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise JsonFault("E303", f"{text[:20]} is too large for a number")
    return value


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise JsonFault("E304", f"the whole number {text[:24]} has more than 64 bits")
    return int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int)


def parse_json(text: str, start: int = 0) -> tuple[Any, int]:
    """The JSON value that begins at `start` and where it ends; raises `JsonFault` for what we do not accept."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise JsonFault("E402", f"nested deeper than {MAX_DEPTH} levels", start) from None
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        code, hint = ("E102", "the text ends too early") if cut else ("E103", error.msg[0].lower() + error.msg[1:])
        raise JsonFault(code, f"not valid JSON: {hint}", error.pos) from None
    if text.count("{", start, end) + text.count("[", start, end) > MAX_DEPTH and _depth(text, start, end) > MAX_DEPTH:
        raise JsonFault("E402", f"nested deeper than {MAX_DEPTH} levels", start)
    if text.find("\\u", start, end) >= 0 and _has_surrogate(value):
        raise JsonFault("E302", "half of a surrogate pair stands alone in a text", start)
    return value, end


def _depth(text: str, start: int, end: int) -> int:
    depth = deepest = 0
    for token in _DEPTH_TOKEN.finditer(text, start, end):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        deepest = max(deepest, depth)
    return deepest


def _has_surrogate(value: object) -> bool:
    if isinstance(value, str):
        return bool(_SURROGATE.search(value))
    if isinstance(value, dict):
        return any(_has_surrogate(k) or _has_surrogate(v) for k, v in value.items())
    return isinstance(value, list) and any(map(_has_surrogate, value))


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, decompressed when its name ends in `.gz` or `.zst`."""
    with path.open("rb") as file:
        if path.suffix == ".gz":
            yield cast(IO[bytes], gzip.GzipFile(fileobj=file))
        elif path.suffix == ".zst":
            yield cast(IO[bytes], BufferedReader(pa.CompressedInputStream(file, "zstd")))
        else:
            yield file


def container_of(path: Path) -> Container:
    """What kind of file a name promises; raises `DataError` for an ending we do not know."""
    name = path.name.lower().removesuffix(".gz").removesuffix(".zst")
    for ending, container in ((".jsonl", "jsonl"), (".ndjson", "jsonl"), (".json", "json"), (".parquet", "parquet")):
        if name.endswith(ending):
            return cast(Container, container)
    raise DataError(
        f"{path}: the ending is not one we read; use .json, .jsonl, .parquet, or the first two with .gz or .zst."
    )


def read_rows(path: Path) -> Iterator[RawRow | BrokenRow]:
    """Every row of a file in order; raises `DataError` only for what is wrong with the file as a whole."""
    container = container_of(path)
    _check_file(path)
    if container == "parquet":
        yield from _parquet_rows(path)
        return
    try:
        with open_bytes(path) as file:
            head = file.peek(4096)[:4096] if isinstance(file, BufferedReader | gzip.GzipFile) else b""
            _check_encoding(path, head)
            array = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
            if array and container == "jsonl":
                raise DataError(f"E104 {path}: the file is one JSON array, not JSON Lines; name it .json.")
            yield from _array_rows(path, file) if array else _line_rows(path, file)
    except (EOFError, gzip.BadGzipFile, OSError) as error:
        if path.suffix not in (".gz", ".zst"):
            raise DataError(f"E119 {path}: cannot be read ({error}); check the file and its permissions.") from error
        raise DataError(f"E115 {path}: the compressed file is damaged or cut off ({error}); make it again.") from error


def _check_file(path: Path) -> None:
    if not path.exists():
        raise DataError(f"E101 {path}: there is no such file; check the path.")
    if not path.is_file():
        raise DataError(f"E117 {path}: is not a regular file; give a file of records.")
    if path.stat().st_size == 0:
        raise DataError(f"E101 {path}: the file is empty; give a file with at least one record.")


def _check_encoding(path: Path, head: bytes) -> None:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(head) > 3 and head[1:2] == b"\0" and head[3:4] == b"\0"):
        raise DataError(f"E106 {path}: the file is UTF-16; save it as UTF-8.")
    if b"\n" not in head and head.count(b"\r") > 1:
        raise DataError(f"E105 {path}: lines end in a bare carriage return; save it with line feeds.")


def _line_rows(path: Path, file: IO[bytes]) -> Iterator[RawRow | BrokenRow]:
    number = offset = 0
    limit = _bomb_limit(path)
    while line := file.readline(MAX_LINE + 1):
        number += 1
        place = Place(path.name, number, offset)
        offset += len(line)
        if offset > limit:
            raise DataError(f"E404 {path}: unpacks to more than {MAX_RATIO} times its size; unpack it yourself first.")
        if len(line) > MAX_LINE:
            while not line.endswith(b"\n") and (rest := file.readline(MAX_LINE)):
                offset += len(rest)
                line = line[:KEPT_RAW] + rest[-1:]
            yield BrokenRow(place, "E401", f"the line is longer than {MAX_LINE} bytes", line[:KEPT_RAW])
            continue
        text = line.removeprefix(b"\xef\xbb\xbf").strip()
        if text:
            yield _one_row(place, text)


def _bomb_limit(path: Path) -> int:
    packed = path.suffix in (".gz", ".zst")
    return max(64 * 2**20, MAX_RATIO * path.stat().st_size) if packed else 2**62


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


def _array_rows(path: Path, file: IO[bytes]) -> Iterator[RawRow | BrokenRow]:
    limit = _bomb_limit(path)
    content = file.read(limit + 1) if path.suffix in (".gz", ".zst") else file.read()
    if len(content) > limit:
        raise DataError(f"E404 {path}: unpacks to more than {MAX_RATIO} times its size; unpack it yourself first.")
    text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    del content
    position, line, byte, seen = text.index("[") + 1, 1, 0, 0
    first = _FIRST_INDENT.match(text, position)
    indent = first[1] if first else ""
    while True:
        position = _skip(text, position)
        line, byte = line + text.count("\n", seen, position), byte + _size(text[seen:position])
        seen = position
        if text[position : position + 1] == "]":
            return
        place = Place(path.name, line, byte)
        end = _element_end(text, position, indent)
        if end is None:
            raw = text[position : position + KEPT_RAW].encode("utf-8", "surrogateescape")
            yield BrokenRow(place, "E102", "the file ends in the middle of the array", raw)
            return
        yield _one_row(place, text[position:end].rstrip().encode("utf-8", "surrogateescape"))
        position = end


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n,":
        position += 1
    return position


def _element_end(text: str, start: int, indent: str) -> int | None:
    """Where an array's element ends, found by its brackets alone, so that a broken one does not cost its neighbours.

    Where quotes or brackets do not balance, the next line that begins like the first element ends it.
    """
    if text[start] not in "{[":
        plain = _PLAIN_ELEMENT.match(text, start)
        return plain.end() if plain and plain.end() < len(text) else None
    depth = 0
    for token in _DEPTH_TOKEN.finditer(text, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth == 0:
            inside = text.find(f"\n{indent}{{", start, token.end()) if indent else -1
            return inside if inside > 0 else token.end()
    following = text.find(f"\n{indent}{{", start)
    return following if following > 0 else None


def _parquet_rows(path: Path) -> Iterator[RawRow | BrokenRow]:
    number = 0
    for batch in parquet_batches(path):
        for fields in batch.to_pylist():
            number += 1
            yield RawRow(Place(path.name, number, 0), fields, b"")


def parquet_batches(path: Path, rows: int = 1024) -> Iterator[pa.RecordBatch]:
    """The file's rows in order, page checksums verified; raises `DataError` where the file is damaged."""
    try:
        file = pq.ParquetFile(path, memory_map=True, page_checksum_verification=True)
        names = file.schema_arrow.names
        if len({n.casefold() for n in names}) < len(names):
            raise DataError(f"E207 {path}: two columns have the same name but for case; rename one.")
        yield from file.iter_batches(batch_size=rows)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        code = "E111" if "checksum" in reason.lower() else "E110"
        raise DataError(f"{code} {path}: is not a sound Parquet file ({reason}); write it again.") from error
