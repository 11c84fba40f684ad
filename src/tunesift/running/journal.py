"""What is done, on disk, whatever happens: open rows in SQLite, finished ranges of rows in sealed Parquet parts.

The transaction that records a part and deletes its rows is the only commit point. A file that no record names does
not exist. Rows are numbered in the order in which a stage was first asked for them, which a resumed page repeats.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from tunesift.errors import ResumeError, StorageError, shown
from tunesift.running.database import (
    LOST,
    SPOILT,
    Rows,
    in_stock,
    looking,
    meta,
    named,
    open_rows,
    put_rows,
    record,
    recorded,
    stock_up,
    transaction,
    working,
)
from tunesift.running.fsio import LEFT, failpoint, make_folder, refuse_link, storage_errors, write_json
from tunesift.running.parts import CHANGED, Entry, Label, Sealed, content_sha256, find, load, part_path, seal
from tunesift.settings import Json, differences

PART_ROWS = 8192
"""Rows of one sealed part; the last part of a stage may have fewer. Written down when a run begins."""
_LOG = logging.getLogger(__name__)
_REUSED = "reused:"
"""Before a stage's name: the settings that it had in another run, whose outcomes were put by."""
STRANGE = "{}: holds rows that the journal has lost; tunesift repair {} takes them up again."
_BEGIN = "INSERT OR IGNORE INTO intent VALUES (?, ?)"
"""A row may be begun twice: a call of map that was stopped may have begun what it never gave out."""


def refuse_others(stage: str, begun_with: Json, settings: Json) -> None:
    """Raise `ResumeError` for a stage whose settings are not those that it was begun with; names the first of them."""
    if changed := differences(begun_with, settings):
        path, old, new = changed[0]
        was, now = (shown(json.dumps(value, ensure_ascii=False)) for value in (old, new))
        said = f'stage "{stage}" was started with {path}={was}; it is now {now}'
        raise ResumeError(f"{said}; use another folder, or go back.")


class Journal:
    """The journal of a run folder; only the driver writes it.

    To "look" changes nothing, in a folder that nobody writes; "anew" fills a database that was lost.
    """

    def __init__(self, folder: Path, how: Literal["work", "look", "anew"] = "work") -> None:
        self._folder, self._how = folder, how
        self._stages: dict[str, StageJournal] = {}
        self._closed = False
        with storage_errors(folder), ExitStack() as opening:
            if how == "look":
                self.db = opening.enter_context(looking(folder / "state.db"))
                self.run = meta(self.db).get("run", "")
                if not self.run:
                    raise StorageError(LOST.format(folder / "state.db", folder))
            else:
                self.db = opening.enter_context(working(folder, PART_ROWS, anew=how == "anew"))
                self.run = meta(self.db)["run"]
                self._count_crashes()
            self._opened = opening.pop_all()

    def _count_crashes(self) -> None:
        """What was begun and never answered was in flight when a life of this run ended without a word.

        A life that was told to leave at once left a note, and killed nobody.
        """
        left = self._folder / LEFT
        if not self._begun():
            left.unlink(missing_ok=True)
            return
        with transaction(self.db):
            if not left.exists():
                self.db.execute("INSERT INTO crash SELECT stage, row, 1 FROM intent WHERE true "
                                "ON CONFLICT DO UPDATE SET lives = lives + 1")  # fmt: skip
            self.db.execute("DELETE FROM intent")
        left.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the database in good order: what is still begun was given up, and did not end the process."""
        if not self._closed:
            self._closed = True
            with storage_errors(self._folder), self._opened:
                if self._how != "look" and self._begun():
                    self.db.execute("DELETE FROM intent")

    def _begun(self) -> bool:
        (found,) = self.db.execute("SELECT EXISTS (SELECT 1 FROM intent)").fetchone()
        return bool(found)

    def stage(self, name: str, settings: Json) -> StageJournal:
        """The rows of one stage; raises `ResumeError` where it was started with other settings, now or before."""
        with storage_errors(self._folder):
            said = json.dumps(settings)
            self.db.execute("INSERT OR IGNORE INTO stage (name, settings) VALUES (?, ?)", (name, said))
            _, begun_with = named(self.db, name)
            if name not in self._stages:
                self._check_reused(name, settings)
        refuse_others(name, begun_with, settings)
        if name not in self._stages:
            self._stages[name] = StageJournal(self.db, self._folder / "stages" / name, name)
        return self._stages[name]

    def opened(self, name: str) -> StageJournal:
        """A stage that was asked for in this life."""
        return self._stages[name]

    def stages(self) -> list[str]:
        """Names of the stages begun, in the order in which they began."""
        with storage_errors(self._folder):
            return [name for (name,) in self.db.execute("SELECT name FROM stage ORDER BY ordinal")]

    def sealed(self, stage: str) -> list[Sealed]:
        """The parts of a stage that are recorded."""
        with storage_errors(self._folder):
            return recorded(self.db, self._folder, stage)

    def failed(self, stage: str) -> Iterator[Entry]:
        """Rows of a stage that are done and could not be; parts without any are not read."""
        sound = [part.number for part in self.sealed(stage) if not part.failed]
        return (e for e in self.entries(stage, skip=sound) if e.failure is not None)

    def entries(self, stage: str, skip: Container[int] = ()) -> Iterator[Entry]:
        """All rows of a stage that are done, but those of the parts to skip; the sealed ones first."""
        yield from self.sealed_rows(stage, skip)
        with storage_errors(self._folder):
            yield from open_rows(self.db, self._folder, Rows(stage))

    def sealed_rows(self, stage: str, skip: Container[int] = ()) -> Iterator[Entry]:
        """The rows of a stage that stand in its parts, but those of the parts to skip."""
        for part in self.sealed(stage):
            if part.number not in skip:
                yield from load(self._folder / "stages" / stage, part)

    def has_one_dataset(self, stage: str) -> bool:
        """Whether all rows of a stage came as one data set."""
        with storage_errors(self._folder):
            query = ("SELECT (SELECT coalesce(sum(rows), 0) FROM part WHERE stage = :s) + "
                     "(SELECT count(*) FROM result WHERE stage = :s)")  # fmt: skip
            (rows,) = self.db.execute(query, {"s": stage}).fetchone()
            query = "SELECT 1 FROM given WHERE stage = ? AND first = 0 AND rows = ?"
            return self.db.execute(query, (stage, rows)).fetchone() is not None

    def take_back(self, stages: Sequence[str], keep: Callable[[str], Iterator[Entry]]) -> None:
        """Begin these stages again: what is kept of each waits in stock for an item of its id and content.

        All or nothing, whenever the process ends. For a journal of which no stage is open.
        """
        assert not self._stages
        for stage in stages:
            with storage_errors(self._folder):
                (self._folder / "stages" / stage / "_SUCCESS.json").unlink(missing_ok=True)
        with storage_errors(self._folder), transaction(self.db):
            for stage in stages:
                stock_up(self.db, stage, keep(stage))
                self.db.execute(
                    "INSERT OR IGNORE INTO discarded SELECT stage, number FROM part WHERE stage = ?", (stage,)
                )
                for table in ("part", "result", "given", "crash", "intent"):
                    self.db.execute(f"DELETE FROM {table} WHERE stage = ?", (stage,))  # noqa: S608  the names are our own, listed above

    def put_by(self, stage: str, settings: Json, entries: Iterator[Entry]) -> int:
        """Keep another run's outcomes of a stage in stock, for as long as the stage has the same settings; how many."""
        with storage_errors(self._folder), transaction(self.db):
            self.db.execute("INSERT INTO meta VALUES (?, ?)", (f"{_REUSED}{stage}", json.dumps(settings)))
            stock_up(self.db, stage, entries)
            (count,) = self.db.execute("SELECT count(*) FROM stock WHERE stage = ?", (stage,)).fetchone()
        return int(count)

    def reuses(self) -> bool:
        """Whether outcomes of another run were put by."""
        with storage_errors(self._folder):
            return any(key.startswith(_REUSED) for key in meta(self.db))

    def _check_reused(self, stage: str, settings: Json) -> None:
        """Forget what was put by of a stage that had other settings in the run it came from."""
        said = meta(self.db).get(f"{_REUSED}{stage}")
        if said is None or not (changed := differences(json.loads(said), settings)):
            return
        with transaction(self.db):
            self.db.execute("DELETE FROM stock WHERE stage = ?", (stage,))
            self.db.execute("DELETE FROM meta WHERE key = ?", (f"{_REUSED}{stage}",))
        _LOG.warning('stage "%s": the other run had %s=%s; nothing of it is reused', stage, *map(str, changed[0][:2]))

    def empty_stock(self) -> None:
        """Forget what waited in stock and was not asked for again."""
        with storage_errors(self._folder):
            self.db.execute("DELETE FROM stock")


class StageJournal:
    """The rows of one stage."""

    def __init__(self, db: sqlite3.Connection, folder: Path, name: str) -> None:
        self._db, self._folder, self._run, self.name = db, folder, folder.parent.parent, name
        with storage_errors(folder):
            refuse_link(folder.parent)
            refuse_link(folder)
            make_folder(folder)
            self.part_rows = int(meta(db)["part_rows"])
            self._sealed = {part.number: part for part in recorded(db, self._run, name)}
            self._open: dict[int, bytearray] = {}
            self._check_sizes()
            self._drop_strangers()
            crashed = db.execute("SELECT row, lives FROM crash WHERE stage = ?", (name,)).fetchall()
            self._mark(row for (row,) in db.execute("SELECT row FROM result WHERE stage = ?", (name,)))
            (stocked,) = db.execute("SELECT EXISTS (SELECT 1 FROM stock WHERE stage = ?)", (name,)).fetchone()
        self.crashed: dict[int, int] = dict(crashed)
        """Lives of this run that ended while a row was in flight, by row."""
        self.stocked = bool(stocked)
        """Whether outcomes of an earlier course of this stage wait for items of their id and content."""
        self._finished = (folder / "_SUCCESS.json").exists()
        self._held: tuple[int, list[Entry]] | None = None

    def __len__(self) -> int:
        """Rows done."""
        return sum(part.rows for part in self._sealed.values()) + sum(done.count(1) for done in self._open.values())

    def get(self, row: int) -> Entry | None:
        """What came of a row; None where that is to be done; raises `ResumeError` behind a finished stage's last."""
        number, inside = divmod(row, self.part_rows)
        if number in self._sealed and inside < self._sealed[number].rows:
            return self._part(number)[inside]
        if number in self._open and self._open[number][inside]:
            with storage_errors(self._folder):
                if (found := next(open_rows(self._db, self._run, Rows(self.name, row, row + 1)), None)) is not None:
                    return found
            raise StorageError(SPOILT.format(self._run / "state.db", row, self.name, self._run))
        self._check_room(number)
        return None

    def missing(self, first: int, count: int) -> Iterator[int]:
        """Rows of a range that are to be done, in order; a sealed part is passed over in one step."""
        row, end = first, first + count
        while row < end:
            number = row // self.part_rows
            last = min(end, (number + 1) * self.part_rows)
            if number in self._sealed:
                row = max(row, min(last, number * self.part_rows + self._sealed[number].rows))
                if row < last:
                    self._check_room(number)
                continue
            while row < last:
                if number not in self._open or not self._open[number][row % self.part_rows]:
                    self._check_room(number)
                    yield row
                row += 1

    def failures(self, first: int, count: int) -> Iterator[Entry]:
        """Rows of a range that are done and could not be, the sealed ones first; parts without any are not read."""
        end = first + count
        for number in sorted(n for n, part in self._sealed.items() if part.failed):
            if first < (number + 1) * self.part_rows and number * self.part_rows < end:
                yield from (e for e in self._part(number) if e.failure is not None and first <= e.row < end)
        with storage_errors(self._folder):
            yield from open_rows(self._db, self._run, Rows(self.name, first, end, failed=True))

    def expects(self, first: int, count: int, digest: str) -> bool:
        """Whether the rows from `first` on are known to be a dataset of this digest, so that none need be compared.

        The first to say so is believed where nothing is done yet; whoever says otherwise later is compared row by row,
        now and ever after.
        """
        with storage_errors(self._folder):
            place = (self.name, first)
            said = self._db.execute("SELECT rows, digest FROM given WHERE stage = ? AND first = ?", place).fetchone()
            if said is None and self._end() <= first:
                self._db.execute("INSERT INTO given VALUES (?, ?, ?, ?)", (*place, count, digest))
                return True
            if said is not None and said != (count, digest):
                self._db.execute("UPDATE given SET digest = '' WHERE stage = ? AND first = ?", place)
        return said is not None and bool(said == (count, digest))

    def _end(self) -> int:
        """One more than the last row that is done."""
        sealed = (part.number * self.part_rows + part.rows for part in self._sealed.values())
        opened = (number * self.part_rows + done.rfind(1) + 1 for number, done in self._open.items())
        return max([*sealed, *opened], default=0)

    def in_stock(self, id: str, digest: bytes) -> tuple[str | None, str] | None:
        """Failure and outcome of an earlier course of this stage for the same item; None where there are none."""
        with storage_errors(self._folder):
            return in_stock(self._db, self.name, id, digest)

    def begin(self, rows: Sequence[int]) -> None:
        """Write down that rows are about to be worked on, before anything is sent or computed for them."""
        failpoint("intent.before_commit")
        with storage_errors(self._folder), transaction(self._db):
            self._db.executemany(_BEGIN, [(self.name, row) for row in rows])
        failpoint("intent.committed")

    def commit(self, entries: Sequence[Entry], seal: bool = True, begin: Sequence[int] = ()) -> None:
        """Write rows down in one transaction; they are done when this returns. Then seal the parts that are full.

        Those that are begun in their place go with them: the disk is waited for once.
        """
        failpoint("result.before_commit")
        with storage_errors(self._folder), transaction(self._db):
            put_rows(self._db, self.name, entries)
            done = [(self.name, e.row) for e in entries]
            self._db.executemany("DELETE FROM intent WHERE stage = ? AND row = ?", done)
            self._db.executemany(_BEGIN, [(self.name, row) for row in begin])
        failpoint("result.committed")
        self._mark(e.row for e in entries)
        for number in sorted(n for n, done in self._open.items() if seal and 0 not in done):
            self._seal(number)

    def finish(self, asked: int) -> None:
        """Seal what is open; raises `ResumeError` where the stage holds other rows than the first `asked`."""
        if len(self) != asked:
            raise ResumeError(f'stage "{self.name}" holds {len(self)} rows and was now asked for {asked}; '
                              "use another folder, or go back.")  # fmt: skip
        for number in sorted(self._open):
            self._seal(number)
        parts: list[Json] = [asdict(self._sealed[number]) for number in sorted(self._sealed)]
        with storage_errors(self._folder):
            _, settings = named(self._db, self.name)
        done: dict[str, Json] = {"stage": self.name, "settings": settings, "rows": len(self), "parts": parts}
        write_json(self._folder / "_SUCCESS.json", done)
        self._finished = True

    def _seal(self, number: int) -> None:
        first = number * self.part_rows
        place = (self.name, first, first + self.part_rows)
        with storage_errors(self._folder):
            entries = list(open_rows(self._db, self._run, Rows(*place)))
            ordinal, settings = named(self._db, self.name)
        label = Label(self.name, settings, ordinal, self.part_rows, content_sha256(entries))
        part = seal(self._folder, number, label, entries)
        with storage_errors(self._folder), transaction(self._db):
            record(self._db, self.name, part)
            failpoint("seal.mid_txn")
            self._db.execute("DELETE FROM result WHERE stage = ? AND row >= ? AND row < ?", place)
        failpoint("seal.committed")
        del self._open[number]
        self._sealed[number] = part

    def _mark(self, rows: Iterator[int]) -> None:
        for row in rows:
            number, inside = divmod(row, self.part_rows)
            self._open.setdefault(number, bytearray(self.part_rows))[inside] = 1

    def _check_room(self, number: int) -> None:
        if self._finished or number in self._sealed:
            raise ResumeError(f'stage "{self.name}" was finished with {len(self)} rows and is now asked for more; '
                              "use another folder, or go back.")  # fmt: skip

    def _part(self, number: int) -> list[Entry]:
        if self._held is None or self._held[0] != number:
            self._held = (number, load(self._folder, self._sealed[number]))
        return self._held[1]

    def _check_sizes(self) -> None:
        for part in self._sealed.values():
            path = part_path(self._folder, part.number)
            if not path.exists() or path.stat().st_size != part.bytes:
                raise StorageError(CHANGED.format(path, self._run))

    def _drop_strangers(self) -> None:
        """Remove what a crash left behind; raises `StorageError` at rows that the journal should know of."""
        for path in strangers(self._folder, list(self._sealed.values())):
            if is_lost(self._db, self.name, path):
                raise StorageError(STRANGE.format(path, self._run))
            path.unlink()
        self._db.execute("DELETE FROM discarded WHERE stage = ?", (self.name,))


def strangers(folder: Path, parts: Sequence[Sealed]) -> list[Path]:
    """Files in the place of parts that no record names."""
    return sorted(set(folder.glob("part-*")) - {part_path(folder, part.number) for part in parts})


def is_lost(db: sqlite3.Connection, stage: str, path: Path) -> bool:
    """Whether a file that no record names holds rows that the journal neither has as open ones nor has given up."""
    if path.suffix != ".parquet" or path.is_symlink() or (part := find(path)) is None or part[0].stage != stage:
        return False
    label, sealed = part
    first = sealed.number * label.part_rows
    place = (stage, first, first + sealed.rows)
    (still,) = db.execute("SELECT count(*) FROM result WHERE stage = ? AND row >= ? AND row < ?", place).fetchone()
    query = "SELECT EXISTS (SELECT 1 FROM discarded WHERE stage = ? AND number = ?)"
    (given_up,) = db.execute(query, (stage, sealed.number)).fetchone()
    return still < sealed.rows and not given_up
