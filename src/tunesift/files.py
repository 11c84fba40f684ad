"""From a file's bytes to its rows, each with its place; a row that cannot be read is a value, not an end."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, cast

import orjson
import pyarrow as pa

from tunesift.errors import DataError, printable, shown
from tunesift.json_text import MAX_LINE, JsonFault, element_end, kind_of, parse_json, sibling_start
from tunesift.parquet import MAX_RATIO, bounded, most_unpacked, parquet_batches, plain_rows
from tunesift.tables import BLANK, TableFault, table_rows

Container = Literal["json", "jsonl", "csv", "tsv", "parquet", "txt"]
"""Of a `.txt` file every line is a text; only prompts are read from one, and nothing is written to one."""

KEPT_RAW = 64 * 2**10
"""Bytes of an unreadable row that are kept for the quarantine."""
MARKS = "byte order marks inside a file"
CUT = "files that are cut off; their rows before the cut were read"
"""What notes call these."""

_TOO_LONG = f"the record is longer than {MAX_LINE} bytes"

_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"PAR1": ".parquet", b"PK\x03\x04": ".zip"}
"""How files that are not text begin, and the ending they should have."""
_PIECE = 2**20
_BETWEEN = re.compile(r"[ \t\r\n,]*")

_ENDINGS: dict[str, Container] = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
}  # fmt: skip
_ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands: its file, its line (or row number in Parquet), counted from 1, and its first byte."""

    file: str
    line: int
    byte: int | None = None
    """None in Parquet, where rows have no bytes of their own."""

    def __str__(self) -> str:
        where = f"{shown(self.file)}:{self.line}"
        return where if self.byte is None else f"{where} (byte {self.byte})"


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row as the file has it, before anyone asks what its fields mean."""

    place: Place
    fields: dict[str, Any]  # Any: whatever JSON holds
    raw: bytes
    """The row's own JSON text; of CSV, its cells as JSON; empty for Parquet."""


@dataclass(frozen=True, slots=True)
class BrokenRow:
    """A row that cannot be read, and why: `code` is the kind of trouble, as listed in docs/formats.md."""

    place: Place
    code: str
    message: str
    raw: bytes
    id: str = ""
    """Of its record, where the row says enough for one."""


def packing(path: Path) -> str:
    """How a name says that a file is compressed: `.gz`, `.zst`, or an empty text."""
    ending = path.suffix.lower()
    return ending if ending in (".gz", ".zst") else ""


Stream = gzip.GzipFile | BufferedReader
"""A file's bytes as they are read."""


@contextmanager
def open_bytes(path: Path) -> Iterator[Stream]:
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
    if plain.endswith(_ARCHIVES):
        raise DataError(f"E801 {path}: archives are neither read nor written; unpack it, and name the file in it.")
    for ending, container in _ENDINGS.items():
        if plain.endswith(ending) and (container != "parquet" or plain == name):
            return container
    raise DataError(f"E116 {path}: the ending is not one we know; use .json, .jsonl, .csv, .tsv (also .gz, .zst) or "
                    ".parquet.")  # fmt: skip


def input_container(path: Path) -> Container:
    """The same of a file to read, which may also list texts, one on each line, in a `.txt` file."""
    listed = path.name.lower().removesuffix(packing(path)).endswith(".txt")
    return "txt" if listed else container_of(path)


@dataclass(slots=True)
class _File:
    """A file that is being read: where it is, what places call it, what was seen in it, how far it was read."""

    path: Path
    name: str
    notes: Counter[str]
    truncated: bool = False
    """Whether a compressed file may be cut off."""
    bare: bool = False
    """Whether a text may stand for a row that has it for its prompt."""
    line: int = 0
    byte: int = 0

    limit: int = field(init=False)
    """Bytes that it may unpack to."""

    def __post_init__(self) -> None:
        self.limit = most_unpacked(self.path) if packing(self.path) else 2**62

    def check_unpacked(self, size: int) -> None:
        """Raise `DataError` where this is more than it may unpack to."""
        if size > self.limit:
            raise DataError(
                f"E404 {self.path}: unpacks to more than {MAX_RATIO} times its size; unpack it yourself first."
            )

    def place(self, line: int, byte: int | None = None) -> Place:
        """A place in it."""
        return Place(self.name, line, byte)


def read_rows(
    path: Path, name: str = "", notes: Counter[str] | None = None, truncated: bool = False, bare: bool = False
) -> Generator[RawRow | BrokenRow]:
    """Every row of a file in order; raises `DataError` only for what is wrong with the file as a whole.

    Places call the file by `name`; what is worth a word is counted in `notes`. Of a compressed file that is cut off,
    the rows before the cut are read where `truncated` allows it; with `bare`, a text is a row too, and so is a line
    of a `.txt` file. Whoever does not walk it to its end must close it.
    """
    check_file(path)
    container = input_container(path) if bare else container_of(path)
    file = _File(path, printable(name or path.name), Counter() if notes is None else notes, truncated, bare)
    if container == "parquet":
        yield from _parquet_rows(file)
        return
    try:
        with open_bytes(path) as stream:
            yield from _text_rows(file, stream, container)
    except TableFault as fault:
        where = file.place(fault.line, fault.byte)
        raise DataError(f"{fault.code} {where}: {fault.message}; {_TABLE_HINTS[fault.code]}.") from None
    except (EOFError, OSError, zlib.error, pa.ArrowException) as error:
        if not packing(path):
            raise DataError(f"E119 {path}: cannot be read ({error}); check the file and its permissions.") from error
        if not truncated or not _cut_off(error):
            hint = "make it again, or set truncated=accept" if _cut_off(error) else "make it again"
            raise DataError(f"E115 {path}: the compressed file is damaged or cut off ({error}); {hint}.") from error
        file.notes[CUT] = 1
        yield BrokenRow(file.place(file.line + 1, file.byte), "E115", "the compressed file is cut off here", b"")


_TABLE_HINTS = {
    "E105": "save it with line feeds, or put quotes around the cell",
    "E301": "save the file as UTF-8",
    "E113": "close the quote, and write a quote inside a cell twice",
    "E114": "save it so, or name it .tsv if a tab separates them",
    "E207": "rename one",
    "E401": "shorten it",
}


def _cut_off(error: Exception) -> bool:
    return isinstance(error, EOFError) or "truncated" in str(error).lower()


def _text_rows(file: _File, stream: Stream, container: Container) -> Iterator[RawRow | BrokenRow]:
    head = stream.peek(4096)[:4096]
    _check_encoding(file.path, head)
    start = head.removeprefix(BOM_UTF8).rstrip()
    if b"\n" not in start and b"\r" in start and start.lstrip()[:1] != b"[":
        raise DataError(f"E105 {file.path}: lines end in a bare carriage return; save it with line feeds.")
    array = start.lstrip()[:1] == b"[" and container in ("json", "jsonl")
    if array and container == "jsonl":
        raise DataError(f"E104 {file.path}: the file is one JSON array, not JSON Lines; name it .json.")
    if container in ("csv", "tsv"):
        yield from _cell_rows(file, stream, "," if container == "csv" else "\t")
    else:
        yield from _array_rows(file, stream) if array else _line_rows(file, stream, container == "txt")


def check_exists(path: Path) -> None:
    """Raise `DataError` for a path that leads nowhere."""
    if not os.path.exists(path):  # False, too, for a name that is too long or lies in a closed folder
        raise DataError(f"E101 {path}: there is no such file; check the path.")


def check_file(path: Path) -> None:
    """Raise `DataError` for what is no readable, regular file of the kind that its name promises."""
    check_exists(path)
    if not path.is_file():
        raise DataError(f"E117 {path}: is not a regular file; give a file of records.")
    container = input_container(path)
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


def _line_rows(file: _File, stream: Stream, texts: bool) -> Iterator[RawRow | BrokenRow]:
    """A row of each line: of its JSON, or of the text that it is."""
    while line := stream.readline(MAX_LINE + 1):
        number, begin = file.line + 1, file.byte
        last, end = line, begin + len(line)
        while len(line) > MAX_LINE and not last.endswith(b"\n") and end <= file.limit:
            if not (last := stream.readline(MAX_LINE)):
                break
            end += len(last)
        file.check_unpacked(end)
        file.line, file.byte = number, end
        text = line.removeprefix(BOM_UTF8).strip()
        if number > 1 and line.startswith(BOM_UTF8):
            file.notes[MARKS] += 1
        if len(line) > MAX_LINE:
            yield BrokenRow(file.place(number, begin), "E401", _TOO_LONG, line[:KEPT_RAW])
        elif text:
            place = file.place(number, begin + line.index(text))
            yield _prompt_row(place, text) if texts else _one_row(place, text, file.bare)
        else:
            file.notes[BLANK] += 1


def _cell_rows(file: _File, stream: Stream, delimiter: str) -> Iterator[RawRow | BrokenRow]:
    for row in table_rows(stream, delimiter, file.notes):
        place = file.place(row.line, row.byte)
        file.line, file.byte = row.line + row.raw.count(b"\n") - 1, row.byte + len(row.raw)
        file.check_unpacked(file.byte)
        if isinstance(row.cells, JsonFault):
            yield BrokenRow(place, row.cells.code, row.cells.message, row.raw[:KEPT_RAW])
        else:
            fields = {name: _unfolded(name, cell) for name, cell in row.cells.items()}
            yield RawRow(place, fields, orjson.dumps(fields))


_LISTS = ("messages", "conversations", "conversation", "history", "chosen", "rejected", "prompt", "images")


def _unfolded(name: str, cell: str) -> object:
    """What a cell holds: lists of turns, and of images, stand in tables as JSON, as we write them."""
    if name not in _LISTS or not cell.startswith("["):
        return cell
    try:
        value, end = parse_json(cell)
    except JsonFault:
        return cell
    return value if isinstance(value, list) and not cell[end:].strip() else cell


def _prompt_row(place: Place, raw: bytes) -> RawRow | BrokenRow:
    try:
        fields = {"prompt": raw.decode("utf-8")}
    except UnicodeDecodeError as error:
        return _not_utf8(place, raw, error)
    return RawRow(place, fields, orjson.dumps(fields))


def _not_utf8(place: Place, raw: bytes, error: UnicodeDecodeError) -> BrokenRow:
    where = (place.byte or 0) + error.start
    return BrokenRow(place, "E301", f"byte {where} is not valid UTF-8; save the file as UTF-8", raw[:KEPT_RAW])


def _one_row(place: Place, raw: bytes, bare: bool) -> RawRow | BrokenRow:
    try:
        text = raw.decode("utf-8")
        value, end = parse_json(text)
        if text[end:].strip():
            raise JsonFault("E103", "something stands behind the record on its line", end)
        if bare and isinstance(value, str):
            value = {"prompt": value}
        if not isinstance(value, dict):
            raise JsonFault("E201", f"a record is a JSON object, not {kind_of(value)}")
    except UnicodeDecodeError as error:
        return _not_utf8(place, raw, error)
    except JsonFault as fault:
        return BrokenRow(place, fault.code, fault.message, raw[:KEPT_RAW])
    return RawRow(place, value, raw)


def _array_rows(file: _File, stream: Stream) -> Iterator[RawRow | BrokenRow]:
    text, bom = _text_of(file, stream)
    position, line, byte, seen = text.index("[") + 1, 1, bom, 0
    sibling = sibling_start(text, position)
    broken = False
    while True:
        position = cast(re.Match[str], _BETWEEN.match(text, position)).end()
        line, byte = line + text.count("\n", seen, position), byte + _size(text[seen:position])
        seen, place = position, file.place(line, byte)
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
        row = _one_row(place, _bytes(text[position:end].rstrip()), file.bare)
        broken = isinstance(row, BrokenRow)
        yield row
        position = end


def _text_of(file: _File, stream: Stream) -> tuple[str, int]:
    """The whole file, bytes that are not UTF-8 as lone surrogates; and the bytes of its mark of UTF-8."""
    if packing(file.path):  # walked once without keeping anything, lest it fill the memory before it is refused
        with open_bytes(file.path) as walked:
            size = 0
            for piece in _pieces(file, walked):
                size += len(piece)
                file.check_unpacked(size)
    content = b"".join(_pieces(file, stream)) if packing(file.path) else stream.read()
    plain = content.removeprefix(BOM_UTF8)
    return plain.decode("utf-8", "surrogateescape"), len(content) - len(plain)


def _pieces(file: _File, stream: Stream) -> Iterator[bytes]:
    """The bytes to the end, or to the cut where the file may be cut off."""
    try:
        while piece := stream.read1(_PIECE):
            yield piece
    except (EOFError, OSError, pa.ArrowException) as error:
        if not (file.truncated and _cut_off(error)):
            raise
        file.notes[CUT] = 1


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(_bytes(text))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _parquet_rows(file: _File) -> Iterator[RawRow | BrokenRow]:
    number = 0
    for batch in bounded(file.path, parquet_batches(file.path, packed=True)):
        for fields in plain_rows(batch):
            number += 1
            place = file.place(number)
            if isinstance(fields, JsonFault):
                yield BrokenRow(place, fields.code, fields.message, b"")
            else:
                yield RawRow(place, fields, b"")
