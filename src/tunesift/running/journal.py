"""What is done, on disk, whatever happens: open rows in SQLite, finished ranges of rows in sealed Parquet parts.

The transaction that records a part and deletes its rows is the only commit point. A file that no record names does
not exist. Rows are numbered in the order in which a stage was first asked for them, which a resumed page repeats.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tunesift.errors import ResumeError, StorageError, shown
from tunesift.running.fsio import (
    digest,
    failpoint,
    make_folder,
    make_private,
    refuse_link,
    settle,
    storage_errors,
    temporary,
    write_json,
    write_part,
)
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
CREATE TABLE IF NOT EXISTS intent (stage TEXT, row INTEGER, PRIMARY KEY (stage, row)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crash (
    stage TEXT, row INTEGER, lives INTEGER NOT NULL, PRIMARY KEY (stage, row)) STRICT, WITHOUT ROWID;
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


_CHANGED = "{}: is not as it was sealed; delete the run folder to begin anew."


@dataclass(frozen=True, slots=True)
class _Sealed:
    rows: int
    sha256: str


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
        self._stages: dict[str, StageJournal] = {}
        self._closed = False
        with storage_errors(folder), ExitStack() as opening:
            make_private(folder / "state.db")
            self._db = sqlite3.connect(folder / "state.db", isolation_level=None, check_same_thread=False)
            opening.enter_context(closing(self._db))
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
                self._db.execute(f"PRAGMA {pragma}")
            (said,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if said != "ok":
                raise sqlite3.DatabaseError(f"state.db is damaged: {said}")
            self._db.executescript(_SCHEMA)
            self._count_crashes()
            opening.pop_all()

    def _count_crashes(self) -> None:
        """What was begun and never answered was in flight when a life of this run ended without a word."""
        if not self._begun():
            return
        with transaction(self._db):
            self._db.execute("INSERT INTO crash SELECT stage, row, 1 FROM intent WHERE true "
                             "ON CONFLICT DO UPDATE SET lives = lives + 1")  # fmt: skip
            self._db.execute("DELETE FROM intent")

    def close(self) -> None:
        """Close the database in good order: what is still begun was given up, and did not end the process."""
        if not self._closed:
            self._closed = True
            with closing(self._db), storage_errors(self._folder):
                if self._begun():
                    self._db.execute("DELETE FROM intent")

    def _begun(self) -> bool:
        (found,) = self._db.execute("SELECT EXISTS (SELECT 1 FROM intent)").fetchone()
        return bool(found)

    def stage(self, name: str, settings: Json) -> StageJournal:
        """The rows of one stage; raises `ResumeError` where it was started with other settings, now or before."""
        with storage_errors(self._folder):
            found = self._db.execute("SELECT settings FROM stage WHERE name = ?", (name,)).fetchone()
            if found is None:
                self._db.execute("INSERT INTO stage VALUES (?, ?)", (name, json.dumps(settings)))
        if found is not None and (changed := differences(json.loads(found[0]), settings)):
            path, old, new = changed[0]
            was, now = (shown(json.dumps(value, ensure_ascii=False)) for value in (old, new))
            raise ResumeError(f'stage "{name}" was started with {path}={was}; it is now {now}; '
                              "use another folder, or go back.")  # fmt: skip
        if name not in self._stages:
            self._stages[name] = StageJournal(self._db, self._folder / "stages" / name, name)
        return self._stages[name]

    def stages(self) -> list[str]:
        """Names of the stages begun, in the order of their names."""
        with storage_errors(self._folder):
            return [name for (name,) in self._db.execute("SELECT name FROM stage ORDER BY name")]


class StageJournal:
    """The rows of one stage."""

    def __init__(self, db: sqlite3.Connection, folder: Path, name: str) -> None:
        self._db, self._folder, self._name = db, folder, name
        with storage_errors(folder):
            refuse_link(folder.parent)
            refuse_link(folder)
            make_folder(folder)
            parts = db.execute("SELECT number, rows, bytes, sha256 FROM part WHERE stage = ?", (name,)).fetchall()
            self._sealed = {number: _Sealed(rows, sha256) for number, rows, _, sha256 in parts}
            self._open: defaultdict[int, set[int]] = defaultdict(set)
            for (row,) in db.execute("SELECT row FROM result WHERE stage = ?", (name,)):
                self._open[row // PART_ROWS].add(row)
            self._check_sizes([(number, size) for number, _, size, _ in parts])
            self._drop_strangers()
            crashed = db.execute("SELECT row, lives FROM crash WHERE stage = ?", (name,)).fetchall()
        self.crashed: dict[int, int] = dict(crashed)
        """Lives of this run that ended while a row was in flight, by row."""
        self._finished = (folder / "_SUCCESS.json").exists()
        self._held: tuple[int, pa.Table] | None = None

    def __len__(self) -> int:
        """Rows done."""
        return sum(part.rows for part in self._sealed.values()) + sum(map(len, self._open.values()))

    def get(self, row: int) -> Entry | None:
        """What came of a row; None where that is to be done; raises `ResumeError` behind a finished stage's last."""
        number, inside = divmod(row, PART_ROWS)
        if number in self._sealed and inside < self._sealed[number].rows:
            part = self._part(number)
            return Entry(*(part.column(n)[inside].as_py() for n in _PART.names))
        if row in self._open.get(number, ()):
            query = "SELECT row, id, digest, failure, outcome FROM result WHERE stage = ? AND row = ?"
            with storage_errors(self._folder):
                return Entry(*self._db.execute(query, (self._name, row)).fetchone())
        if self._finished or number in self._sealed:
            raise ResumeError(f'stage "{self._name}" was finished with {len(self)} rows and is now asked for more; '
                              "use another folder, or go back.")  # fmt: skip
        return None

    def begin(self, rows: Sequence[int]) -> None:
        """Write down that rows are about to be worked on, before anything is sent or computed for them."""
        failpoint("intent.before_commit")
        with storage_errors(self._folder), transaction(self._db):
            self._db.executemany("INSERT INTO intent VALUES (?, ?)", [(self._name, row) for row in rows])
        failpoint("intent.committed")

    def commit(self, entries: Sequence[Entry], seal: bool = True) -> None:
        """Write rows down in one transaction; they are done when this returns. Then seal the parts that are full."""
        rows = [(self._name, e.row, e.id, e.digest, e.failure, e.outcome) for e in entries]
        failpoint("result.before_commit")
        with storage_errors(self._folder), transaction(self._db):
            self._db.executemany("INSERT INTO result VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._db.executemany("DELETE FROM intent WHERE stage = ? AND row = ?", [r[:2] for r in rows])
        failpoint("result.committed")
        for entry in entries:
            self._open[entry.row // PART_ROWS].add(entry.row)
        for number in sorted(n for n, rows in self._open.items() if seal and len(rows) == PART_ROWS):
            self._seal(number)

    def finish(self, asked: int) -> None:
        """Seal what is open; raises `ResumeError` where the stage holds other rows than the first `asked`."""
        if len(self) != asked:
            raise ResumeError(f'stage "{self._name}" holds {len(self)} rows and was now asked for {asked}; '
                              "use another folder, or go back.")  # fmt: skip
        for number in sorted(self._open):
            self._seal(number)
        query = "SELECT number, rows, failed, bytes, sha256 FROM part WHERE stage = ? ORDER BY number"
        with storage_errors(self._folder):
            parts: list[Json] = [dict(zip(("number", "rows", "failed", "bytes", "sha256"), r, strict=True))
                     for r in self._db.execute(query, (self._name,))]  # fmt: skip
            (settings,) = self._db.execute("SELECT settings FROM stage WHERE name = ?", (self._name,)).fetchone()
        done: Json = {"stage": self._name, "settings": json.loads(settings), "rows": len(self), "parts": parts}
        write_json(self._folder / "_SUCCESS.json", done)
        self._finished = True

    def _seal(self, number: int) -> None:
        first = number * PART_ROWS
        place = (self._name, first, first + PART_ROWS)
        query = "SELECT row, id, digest, failure, outcome FROM result WHERE stage = ? AND row >= ? AND row < ?"
        with storage_errors(self._folder):
            rows = self._db.execute(f"{query} ORDER BY row", place).fetchall()
        table = pa.table([pa.array(c, f.type) for c, f in zip(zip(*rows, strict=True), _PART, strict=True)], _PART)
        path = self._path(number)
        part = temporary(path)
        write_part(part, table)
        with storage_errors(path):
            sha256, size = digest(part), part.stat().st_size
            settle(part, path)
        failpoint("part.settled")
        failed = sum(failure is not None for _, _, _, failure, _ in rows)
        with storage_errors(self._folder), transaction(self._db):
            self._db.execute("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?)",
                             (self._name, number, len(rows), failed, size, sha256))  # fmt: skip
            failpoint("seal.mid_txn")
            self._db.execute("DELETE FROM result WHERE stage = ? AND row >= ? AND row < ?", place)
        failpoint("seal.committed")
        del self._open[number]
        self._sealed[number] = _Sealed(len(rows), sha256)

    def _part(self, number: int) -> pa.Table:
        if self._held is None or self._held[0] != number:
            path = self._path(number)
            with storage_errors(self._folder):
                content = path.read_bytes()
                if hashlib.sha256(content).hexdigest() != self._sealed[number].sha256:
                    raise StorageError(_CHANGED.format(path))
                self._held = (number, pq.read_table(pa.BufferReader(content)))
        return self._held[1]

    def _path(self, number: int) -> Path:
        return self._folder / f"part-{number:06d}.parquet"

    def _check_sizes(self, parts: list[tuple[int, int]]) -> None:
        for number, size in parts:
            path = self._path(number)
            if not path.exists() or path.stat().st_size != size:
                raise StorageError(_CHANGED.format(path))

    def _drop_strangers(self) -> None:
        """Remove what a crash left behind: files that no record names."""
        named = {self._path(number) for number in self._sealed}
        for path in set(self._folder.glob("part-*")) - named:
            path.unlink()


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
