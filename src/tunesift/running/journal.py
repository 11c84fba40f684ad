"""What is done, on disk, whatever happens: open rows in SQLite, finished ranges of rows in sealed Parquet parts.

The transaction that records a part and deletes its rows is the only commit point. A file that no record names does
not exist. Rows are numbered in the order in which a stage was first asked for them, which a resumed page repeats.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tunesift.errors import ResumeError, StorageError
from tunesift.settings import Json, differences

PART_ROWS = 8192
"""Rows of one sealed part; the last part of a stage may have fewer."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stage (name TEXT PRIMARY KEY, settings TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS part (
    stage TEXT, number INTEGER, rows INTEGER NOT NULL, failed INTEGER NOT NULL, bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL, PRIMARY KEY (stage, number)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS result (
    stage TEXT, row INTEGER, id TEXT NOT NULL, digest BLOB NOT NULL, failure TEXT, outcome TEXT NOT NULL,
    PRIMARY KEY (stage, row)) STRICT, WITHOUT ROWID;
"""
_PART = pa.schema(
    [
        ("row", pa.int64()),
        ("id", pa.string()),
        ("digest", pa.binary(16)),
        ("failure", pa.string()),
        ("outcome", pa.string()),
    ]
)


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


class Journal:
    """The journal of a run folder; only the driver writes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with storage_errors(folder):
            self._db = sqlite3.connect(folder / "state.db", isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database; the folder can be opened again."""
        self._db.close()

    def stage(self, name: str, settings: Json) -> StageJournal:
        """The rows of one stage; raises `ResumeError` where it was started with other settings."""
        with storage_errors(self._folder):
            found = self._db.execute("SELECT settings FROM stage WHERE name = ?", (name,)).fetchone()
            if found is None:
                self._db.execute("INSERT INTO stage VALUES (?, ?)", (name, json.dumps(settings)))
        if found is not None and (changed := differences(json.loads(found[0]), settings)):
            path, old, new = changed[0]
            raise ResumeError(f'stage "{name}" was started with {path}={json.dumps(old)}; it is now {json.dumps(new)}; '
                              "use another folder, or go back.")  # fmt: skip
        return StageJournal(self._db, self._folder / "stages" / name, name)

    def stages(self) -> list[str]:
        """Names of the stages begun, in the order of their names."""
        return [name for (name,) in self._db.execute("SELECT name FROM stage ORDER BY name")]


class StageJournal:
    """The rows of one stage."""

    def __init__(self, db: sqlite3.Connection, folder: Path, name: str) -> None:
        self._db, self._folder, self._name = db, folder, name
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            parts = db.execute(
                "SELECT number, rows, bytes FROM part WHERE stage = ? ORDER BY number", (name,)
            ).fetchall()
            rows = db.execute("SELECT row FROM result WHERE stage = ?", (name,))
            self._open: set[int] = {row for (row,) in rows}
        self._sealed: dict[int, int] = {number: rows for number, rows, _ in parts}
        self._held: tuple[int, pa.Table] | None = None
        self._check_sizes([(number, size) for number, _, size in parts])
        self._drop_strangers()

    def __len__(self) -> int:
        """Rows done."""
        return sum(self._sealed.values()) + len(self._open)

    def get(self, row: int) -> Entry | None:
        """What came of a row; None for one that is not done."""
        number, inside = divmod(row, PART_ROWS)
        if number in self._sealed:
            part = self._part(number)
            return Entry(*(part.column(n)[inside].as_py() for n in _PART.names)) if inside < part.num_rows else None
        if row not in self._open:
            return None
        query = "SELECT row, id, digest, failure, outcome FROM result WHERE stage = ? AND row = ?"
        return Entry(*self._db.execute(query, (self._name, row)).fetchone())

    def commit(self, entries: Sequence[Entry]) -> None:
        """Write rows down in one transaction; they are done when this returns."""
        rows = [(self._name, e.row, e.id, e.digest, e.failure, e.outcome) for e in entries]
        with storage_errors(self._folder), transaction(self._db):
            self._db.executemany("INSERT INTO result VALUES (?, ?, ?, ?, ?, ?)", rows)
        self._open.update(e.row for e in entries)
        for number in sorted({e.row // PART_ROWS for e in entries}):
            first = number * PART_ROWS
            if all(row in self._open for row in range(first, first + PART_ROWS)):
                self._seal(number)

    def finish(self) -> None:
        """Seal what is open; the stage will get no more rows."""
        for number in sorted({row // PART_ROWS for row in self._open}):
            self._seal(number)
        query = "SELECT number, rows, failed, bytes, sha256 FROM part WHERE stage = ? ORDER BY number"
        parts: list[Json] = [dict(zip(("number", "rows", "failed", "bytes", "sha256"), r, strict=True))
                 for r in self._db.execute(query, (self._name,))]  # fmt: skip
        (settings,) = self._db.execute("SELECT settings FROM stage WHERE name = ?", (self._name,)).fetchone()
        done: Json = {"stage": self._name, "settings": json.loads(settings), "rows": len(self), "parts": parts}
        write_json(self._folder / "_SUCCESS.json", done)

    def _seal(self, number: int) -> None:
        first = number * PART_ROWS
        query = (
            "SELECT row, id, digest, failure, outcome FROM result WHERE stage = ? AND row >= ? AND row < ? ORDER BY row"
        )
        with storage_errors(self._folder):
            rows = self._db.execute(query, (self._name, first, first + PART_ROWS)).fetchall()
            table = pa.table([pa.array(c, f.type) for c, f in zip(zip(*rows, strict=True), _PART, strict=True)], _PART)
            path = self._path(number)
            part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
            pq.write_table(table, part, compression="zstd", write_page_checksum=True)
            if not pq.read_table(part, page_checksum_verification=True).equals(table):
                raise StorageError(f"{part}: reads back other than it was written; check the disk.")
            digest, size = _digest(part), part.stat().st_size
            sync(part)
            part.replace(path)
            sync(self._folder)
            failed = sum(failure is not None for _, _, _, failure, _ in rows)
            with transaction(self._db):
                self._db.execute("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)",
                                 (self._name, number, len(rows), failed, size, digest))  # fmt: skip
                self._db.execute("DELETE FROM result WHERE stage = ? AND row >= ? AND row < ?",
                                 (self._name, first, first + PART_ROWS))  # fmt: skip
        self._open.difference_update(row[0] for row in rows)
        self._sealed[number] = len(rows)

    def _part(self, number: int) -> pa.Table:
        if self._held is None or self._held[0] != number:
            with storage_errors(self._folder):
                self._held = (number, pq.read_table(self._path(number), page_checksum_verification=True))
        return self._held[1]

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}.parquet"

    def _check_sizes(self, parts: list[tuple[int, int]]) -> None:
        for number, size in parts:
            path = self._path(number)
            if not path.exists() or path.stat().st_size != size:
                raise StorageError(f"{path}: is not as it was sealed; delete the run folder to begin anew.")

    def _drop_strangers(self) -> None:
        """Remove what a crash left behind: files that no record names."""
        for path in self._folder.glob("part-*"):
            if path.suffix != ".parquet" or int(path.stem.removeprefix("part-")) not in self._sealed:
                path.unlink()


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


@contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turn what the disk says into one sentence."""
    try:
        yield
    except (sqlite3.Error, OSError, pa.ArrowException) as error:
        raise StorageError(f"{place}: {str(error).splitlines()[0][:160]}; check the disk and start again.") from error


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Json) -> None:
    """Write a small JSON file whole or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with storage_errors(path):
        part.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
        sync(part)
        part.replace(path)
        sync(path.parent)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
