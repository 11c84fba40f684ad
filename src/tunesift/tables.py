"""Which rows does a CSV or TSV file have, and where does each begin? And back to a file that starts no formula."""

from __future__ import annotations

import csv
import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from tunesift.errors import shown
from tunesift.json_text import MAX_LINE, JsonFault, alike

BLANK = "blank lines"
"""What a note calls them."""

_FORMULA = re.compile("'*[=+\\-@\t\r\n\0＝＋－＠]")
"""How a text begins that a spreadsheet would run, and how one begins that was kept from it."""
_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


class Stream(Protocol):
    """What lines can be read from."""

    def readline(self, size: int, /) -> bytes: ...


class TableFault(ValueError):
    """A table that cannot be read: the code of the trouble, what is wrong, and where its row begins."""

    def __init__(self, code: str, message: str, line: int = 1, byte: int = 0) -> None:
        super().__init__(message)
        self.code, self.message, self.line, self.byte = code, message, line, byte


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of a table, or what is wrong with it; its first line and byte, and all of its bytes."""

    line: int
    byte: int
    raw: bytes
    cells: dict[str, str] | JsonFault


def table_rows(stream: Stream, delimiter: str, notes: Counter[str]) -> Iterator[TableRow]:
    """Every row below the names of the columns, in order; raises `TableFault` for what leaves no row readable."""
    csv.field_size_limit(max(MAX_LINE, csv.field_size_limit()))  # of the whole process: there is no other
    lines = _Lines(stream)
    names: list[str] | None = None
    for line, byte, cells in _records(lines, delimiter):
        if not "".join(cells).strip() and (names is None or len(cells) < len(names)):
            notes[BLANK] += 1
        elif names is None:
            if fault := _not_text(b"".join(lines.held), byte):
                raise TableFault(
                    fault.code, f"in the names of its columns {fault.message.partition(';')[0]}", line, byte
                )
            names = _names(cells, delimiter)
        else:
            raw = b"".join(lines.held)
            yield TableRow(line, byte, raw, _row(names, cells, raw, byte))


def _records(lines: _Lines, delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """Line, byte and cells of every record."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line, byte = lines.line + 1, lines.byte
        lines.held.clear()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            what = "a quote is opened and never closed" if "end of data" in str(error) else str(error)
            what = "a cell is too large; its quote may never be closed" if "field limit" in what else what
            if "new-line" in what:
                raise TableFault("E105", "a bare carriage return stands outside of quotes", line, byte) from None
            raise TableFault("E113", what, line, byte) from None
        if cells is None:
            return
        yield line, byte, cells


class _Lines:
    """Lines of a file as texts, those of one record held, and how far they go."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.line = self.byte = 0
        self.held: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        if len(line) > MAX_LINE:
            raise TableFault("E401", f"a line is longer than {MAX_LINE} bytes", self.line + 1, self.byte)
        text = line if self.byte else line.removeprefix(BOM_UTF8)
        self.line, self.byte = self.line + 1, self.byte + len(line)
        self.held.append(line)
        return text.decode("utf-8", "surrogateescape")


def _names(cells: list[str], delimiter: str) -> list[str]:
    other = next((d for d in _DELIMITERS if d != delimiter and d in cells[0]), None)
    if len(cells) == 1 and other:
        wanted = _DELIMITERS[delimiter].removeprefix("a ")
        raise TableFault("E114", f"its columns seem to stand apart by {_DELIMITERS[other]}, not by a {wanted}")
    if pair := alike(cells):
        raise TableFault("E207", f'two columns have the names "{shown(pair[0])}" and "{shown(pair[1])}"')
    return cells


def _not_text(raw: bytes, byte: int) -> JsonFault | None:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return JsonFault("E301", f"byte {byte + error.start} is not valid UTF-8; save the file as UTF-8")
    return None


def _row(names: list[str], cells: list[str], raw: bytes, byte: int) -> dict[str, str] | JsonFault:
    if fault := _not_text(raw, byte):
        return fault
    if len(cells) != len(names):
        return JsonFault("E201", f"the row has {len(cells)} cells, and the first row names {len(names)} columns")
    return dict(zip(names, cells, strict=True))


def table_lines(rows: Iterable[Mapping[str, object]], names: Sequence[str], delimiter: str) -> Iterator[bytes]:
    """A table's lines, names first; a text that would start a formula has a `'` before it, which `plain` takes off.

    What is no text is written as JSON, null as nothing.
    """
    writer = csv.writer(_Encoder(), delimiter=delimiter, lineterminator="\r\n")
    yield writer.writerow([inert(name) for name in names])
    for row in rows:
        yield writer.writerow([_cell(row.get(name)) for name in names])


def inert(text: str) -> str:
    """A text as a cell that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def plain(cell: str) -> str:
    """The text that `inert` made this cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


class _Encoder:
    """What csv writes to: gives each line back as bytes."""

    def write(self, line: str) -> bytes:
        return line.encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    return inert(value) if isinstance(value, str) else orjson.dumps(value).decode()
