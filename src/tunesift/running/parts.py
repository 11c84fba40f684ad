"""What is a sealed part? A Parquet file of consecutive rows of a stage, which itself says whose they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tunesift.errors import StorageError
from tunesift.running.fsio import digest, failpoint, settle, storage_errors, temporary, write_part
from tunesift.settings import Json

_COLUMNS = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("digest", pa.binary(16)),
        ("failure", pa.string()),
        ("outcome", pa.string()),
    ]
)
_LABEL = b"tunesift"
CHANGED = "{}: is not as it was sealed; tunesift repair {} does its rows again."


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of a stage: which item it was, and what came of it."""

    row: int
    id: str
    digest: bytes
    """128 bits of SHA-256 of the item."""
    failure: str | None
    """Kind of the failure; None for a good outcome."""
    outcome: str
    """JSON of a good outcome; the message of a failure."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """What is known of a part without opening it."""

    number: int
    rows: int
    failed: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Label:
    """What a part says of itself, for the day on which the journal is lost."""

    stage: str
    settings: Json
    ordinal: int
    """Which stage of the run this is, in the order in which they began."""
    part_rows: int
    """Rows of every part of this run but a stage's last."""
    content: str
    """SHA-256 over the rows as they were in the journal."""


def part_path(folder: Path, number: int) -> Path:
    """Where a stage's part lies; its name is its number."""
    return folder / f"part-{number:06d}.parquet"


def content_sha256(entries: Sequence[Entry]) -> str:
    """SHA-256 over rows, whatever file they stand in."""
    rows = [(e.row, e.id, e.digest.hex(), e.failure, e.outcome) for e in entries]
    return hashlib.sha256(orjson.dumps(rows)).hexdigest()


def seal(folder: Path, number: int, label: Label, entries: Sequence[Entry]) -> Sealed:
    """Write a part durably, read back and compared; it counts only when the journal has recorded it."""
    path = part_path(folder, number)
    said = {"stage": label.stage, "settings": label.settings, "ordinal": label.ordinal,
            "part_rows": label.part_rows, "content": label.content}  # fmt: skip
    schema = _COLUMNS.with_metadata({_LABEL: json.dumps(said, sort_keys=True).encode()})
    columns = [[getattr(e, name) for e in entries] for name in _COLUMNS.names]
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, _COLUMNS, strict=True)], schema)
    written = temporary(path)
    write_part(written, table)
    with storage_errors(path):
        sha256, size = digest(written), written.stat().st_size
        settle(written, path)
    failpoint("part.settled")
    return Sealed(number, len(entries), sum(e.failure is not None for e in entries), size, sha256)


def load(folder: Path, sealed: Sealed) -> list[Entry]:
    """The rows of a part; raises `StorageError` where a byte of the file is not as it was sealed."""
    path = part_path(folder, sealed.number)
    with storage_errors(path):
        content = path.read_bytes()
        if len(content) != sealed.bytes or hashlib.sha256(content).hexdigest() != sealed.sha256:
            raise StorageError(CHANGED.format(path, folder.parent.parent))
        return _entries(_table(content))


def find(path: Path) -> tuple[Label, Sealed] | None:
    """What a part whose journal is lost says of itself; None where its rows are not those that were sealed."""
    try:
        content = path.read_bytes()
        table = _table(content)
        said = json.loads((table.schema.metadata or {})[_LABEL])
        label, entries = Label(**said), _entries(table)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    if not entries or content_sha256(entries) != label.content:
        return None
    failed = sum(e.failure is not None for e in entries)
    number = entries[0].row // label.part_rows
    return label, Sealed(number, len(entries), failed, len(content), hashlib.sha256(content).hexdigest())


def _table(content: bytes) -> pa.Table:
    """A part's rows, read without threads: one that still runs when the process leaves would end it with an abort."""
    with pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True) as file:
        return file.read(use_threads=False)


def _entries(table: pa.Table) -> list[Entry]:
    return [Entry(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)]
