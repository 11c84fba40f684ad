"""The SQLite file under the journal: its tables, whose it is, whether its rows are as they were written.

A run's identity stands in its database and in its run.json: a database that is empty, or another run's, is never taken
for a run that has done nothing yet.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from tunesift.errors import ResumeError, StorageError
from tunesift.running.fsio import make_private, read_json
from tunesift.running.locking import is_written
from tunesift.running.mounts import shared_kind
from tunesift.running.parts import Entry, Sealed, find
from tunesift.scratch import Scratch
from tunesift.settings import Json

FORMAT = 3
"""Version of a run's folder, in run.json and in the database; 3 since open rows have a checksum."""
LOST = "{}: has lost the run that stands beside it; tunesift repair {} builds it anew from the run's parts."
SPOILT = '{}: row {} of the stage "{}" is not as it was written; tunesift repair {} does it again.'

_LOG = logging.getLogger(__name__)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stage (ordinal INTEGER PRIMARY KEY, name TEXT UNIQUE, settings TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS part (
    stage TEXT, number INTEGER, rows INTEGER NOT NULL, failed INTEGER NOT NULL, bytes INTEGER NOT NULL,
    sha256 TEXT NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (stage, number)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS result (
    stage TEXT, row INTEGER, id TEXT NOT NULL, digest BLOB NOT NULL, failure TEXT, outcome TEXT NOT NULL,
    crc INTEGER NOT NULL, PRIMARY KEY (stage, row)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS given (
    stage TEXT, first INTEGER, rows INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (stage, first))
    STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intent (stage TEXT, row INTEGER, PRIMARY KEY (stage, row)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS crash (
    stage TEXT, row INTEGER, lives INTEGER NOT NULL, PRIMARY KEY (stage, row)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS stock (
    stage TEXT, id TEXT, digest BLOB NOT NULL, failure TEXT, outcome TEXT NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (stage, id)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS discarded (stage TEXT, number INTEGER, PRIMARY KEY (stage, number)) STRICT, WITHOUT ROWID;
"""


@contextmanager
def working(folder: Path, part_rows: int, anew: bool = False) -> Iterator[sqlite3.Connection]:
    """A run's database, for the one process that writes it; made where there is none.

    Raises `StorageError` where it has lost a run that the folder still holds, unless it is built `anew`.
    """
    path, said = folder / "state.db", said_identity(folder)
    if not anew and not has_content(path) and holds_run(folder):
        raise StorageError(LOST.format(path, folder))
    with closing(connected(path)) as db:
        db.text_factory = _text
        if kind := shared_kind(folder):
            _LOG.warning("%s lies on %s, where locks and memory may not be shared; start one process at a time, or use "
                         "a folder on a local disk", folder, kind)  # fmt: skip
            db.execute("PRAGMA locking_mode=EXCLUSIVE")
        make_durable(db)
        told = meta(db)
        if not anew and "run" not in told and holds_run(folder):
            raise StorageError(LOST.format(path, folder))
        if told.get("format", str(FORMAT)) != str(FORMAT) or ("run" in told and "format" not in told):
            raise ResumeError(
                f"{folder}: is a run of format {told.get('format', 2)}, not {FORMAT}; use another folder."
            )
        db.executescript(_SCHEMA)
        new = {"format": str(FORMAT), "part_rows": str(part_rows), "run": said or secrets.token_hex(16)}
        db.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", new.items())
        if said and meta(db)["run"] != said:
            raise StorageError(LOST.format(path, folder))
        yield db


def connected(path: Path) -> sqlite3.Connection:
    """A database of a run's folder, made where there is none; for any thread, each statement for itself."""
    make_private(path)
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def make_durable(db: sqlite3.Connection) -> None:
    """What is committed survives a loss of power; raises `sqlite3.DatabaseError` where the database is not whole."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=30000"):
        db.execute(f"PRAGMA {pragma}")
    check(db)


@contextmanager
def looking(path: Path) -> Iterator[sqlite3.Connection]:
    """A database that nobody is writing, as it stands: of the folder nothing is changed, which may be read-only."""
    log = path.with_name(f"{path.name}-wal")
    with ExitStack() as meanwhile:
        where = f"{path.absolute().as_uri()}?immutable=1"
        if has_content(log):  # SQLite reads it only beside files of its own making
            scratch = Scratch()
            meanwhile.callback(scratch.remove)
            copied = scratch.path
            for name in (path, log):
                shutil.copyfile(name, copied / name.name)
            where = (copied / path.name).as_uri()
        db = meanwhile.enter_context(closing(sqlite3.connect(where, uri=True, isolation_level=None)))
        db.text_factory = _text
        yield db


@contextmanager
def open_state(path: Path) -> Iterator[sqlite3.Connection]:
    """A database of a run's folder, for reading only; nothing is changed where no process writes it."""
    if not is_written(path.parent):
        with looking(path) as db:
            yield db
        return
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        yield db


def has_content(path: Path) -> bool:
    """Whether a file is there and not empty."""
    return path.exists() and path.stat().st_size > 0


def holds_run(folder: Path) -> bool:
    """Whether a folder holds what only a run with a journal leaves: its run.json, or a sealed part."""
    if (folder / "run.json").exists():
        return True
    parts = sorted((folder / "stages").glob("*/part-*.parquet"))
    return any(find(part) is not None for part in parts if not part.is_symlink() and not part.parent.is_symlink())


def said_identity(folder: Path) -> str:
    """Which journal a run's run.json names; empty where there is none, or it names none."""
    path = folder / "run.json"
    return str(read_json(path).get("journal", "")) if path.exists() else ""


def meta(db: sqlite3.Connection) -> dict[str, str]:
    """What a database says of itself; nothing where it was never a run's."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone() is None:
        return {}
    return dict(db.execute("SELECT key, value FROM meta"))


def check(db: sqlite3.Connection) -> None:
    """Raise `sqlite3.DatabaseError` where the database is not whole."""
    (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if said != "ok":
        raise sqlite3.DatabaseError(f"state.db is damaged: {said}")


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


def crc(*fields: str | int | None) -> int:
    """A checksum of a row; halves of surrogate pairs, which no sound row holds, have none that fits."""
    try:
        return zlib.crc32(orjson.dumps(fields))
    except orjson.JSONEncodeError:
        return -1


def put_rows(db: sqlite3.Connection, stage: str, entries: Sequence[Entry]) -> None:
    """Write open rows, inside the caller's transaction."""
    rows = [(stage, e.row, e.id, e.digest, e.failure, e.outcome, _crc_of(stage, e)) for e in entries]
    db.executemany("INSERT INTO result VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


@dataclass(frozen=True, slots=True)
class Rows:
    """Which open rows of a stage."""

    stage: str
    first: int = 0
    end: int = 2**62
    failed: bool = False
    """Only those that could not be done."""


def open_rows(db: sqlite3.Connection, folder: Path, rows: Rows) -> Iterator[Entry]:
    """Open rows of a range, in order; raises `StorageError` at one that is not as it was written."""
    for entry, sound in _rows(db, rows):
        if not sound:
            raise StorageError(SPOILT.format(folder / "state.db", entry.row, rows.stage, folder))
        yield entry


def sound_rows(db: sqlite3.Connection, stage: str) -> tuple[list[Entry], list[int]]:
    """The open rows of a stage that are as they were written, and the numbers of those that are not."""
    found = list(_rows(db, Rows(stage)))
    return [entry for entry, sound in found if sound], [entry.row for entry, sound in found if not sound]


def _rows(db: sqlite3.Connection, rows: Rows) -> Iterator[tuple[Entry, bool]]:
    """Open rows of a range, in order, and whether each is as it was written."""
    query = "SELECT row, id, digest, failure, outcome, crc FROM result WHERE stage = ? AND row >= ? AND row < ?"
    only = " AND failure IS NOT NULL" if rows.failed else ""
    for *fields, said in db.execute(f"{query}{only} ORDER BY row", (rows.stage, rows.first, rows.end)):
        entry = Entry(*fields)
        yield entry, _crc_of(rows.stage, entry) == said


def _crc_of(stage: str, e: Entry) -> int:
    return crc(stage, e.row, e.id, e.digest.hex(), e.failure, e.outcome)


def record(db: sqlite3.Connection, stage: str, part: Sealed) -> None:
    """Write a part down, inside the caller's transaction."""
    row = (stage, part.number, part.rows, part.failed, part.bytes, part.sha256)
    db.execute("INSERT INTO part VALUES (?, ?, ?, ?, ?, ?, ?)", (*row, crc(*row)))


def recorded(db: sqlite3.Connection, folder: Path, stage: str) -> list[Sealed]:
    """The parts of a stage, as they were written down; raises `StorageError` where a record is not as it was."""
    query = "SELECT number, rows, failed, bytes, sha256, crc FROM part WHERE stage = ? ORDER BY number"
    found = []
    for *fields, said in db.execute(query, (stage,)):
        if crc(stage, *fields) != said:
            where = f'{folder / "state.db"}: what it says of part {fields[0]} of the stage "{stage}"'
            raise StorageError(f"{where} is not as it was written; tunesift repair {folder} builds it anew.")
        found.append(Sealed(*fields))
    return found


def stock_up(db: sqlite3.Connection, stage: str, entries: Iterator[Entry]) -> None:
    """Put outcomes by for items of their id and content, inside the caller's transaction."""
    fields = ((stage, e.id, e.digest, e.failure, e.outcome) for e in entries)
    rows = ((*f, crc(stage, f[1], f[2].hex(), f[3], f[4])) for f in fields)
    db.executemany("INSERT OR REPLACE INTO stock VALUES (?, ?, ?, ?, ?, ?)", rows)


def in_stock(db: sqlite3.Connection, stage: str, id: str, digest: bytes) -> tuple[str | None, str] | None:
    """Failure and outcome that were put by for an item; None where there are none, or not as they were written."""
    query = "SELECT failure, outcome, crc FROM stock WHERE stage = ? AND id = ? AND digest = ?"
    found = db.execute(query, (stage, id, digest)).fetchone()
    if found is None or crc(stage, id, digest.hex(), *found[:2]) != found[2]:
        return None
    return found[0], found[1]


def named(db: sqlite3.Connection, stage: str) -> tuple[int, Json]:
    """A stage's place among the others, and its settings."""
    ordinal, settings = db.execute("SELECT ordinal, settings FROM stage WHERE name = ?", (stage,)).fetchone()
    try:
        return ordinal, json.loads(settings)
    except ValueError as error:
        raise sqlite3.DatabaseError(f"state.db is damaged: the settings of the stage {stage} are no JSON") from error


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")  # a changed byte must be found out here, not end in a traceback
