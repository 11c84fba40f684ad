"""A crash before each single write, sync, rename and commit of a run: started again, the run ends as if there had been
none. The folder as a crash would leave it is copied at each of these points of one run; every copy is then resumed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tunesift import Dataset, Decision, Local, Message, Record, Run, Score, ScriptedModel, recipe_for, run_recipe
from tunesift.records import Failure
from tunesift.running import journal as storage
from tunesift.scoring.ifd import IFD

OF_THIS_LIFE = ("LOCK", "holder.json", "state.db", "state.db-wal", "state.db-shm", "run.json", "result.json",
                "report.html", "source.json")  # fmt: skip
"""Files of a run folder that say when, where and by whom it was written."""


class Camera:
    """Copies a folder whenever it is about to change."""

    def __init__(self, home: Path, album: Path) -> None:
        self.home, self.album = home, album
        self.taken: list[tuple[str, int]] = []
        """What was about to happen at each picture, and how many items were written down by then."""
        self.written = 0

    def shoot(self, what: str) -> None:
        shutil.copytree(self.home, self.album / str(len(self.taken)))
        self.taken.append((what, self.written))

    def before(self, what: str, act: Callable[..., Any]) -> Callable[..., Any]:  # Any: the act's own
        def watched(*given: Any, **options: Any) -> Any:  # Any: the act's own
            self.shoot(f"{what} {Path(str(given[0])).name}")
            return act(*given, **options)

        return watched

    def around(self, transaction: Callable[..., Any]) -> Callable[..., Any]:  # Any: a context manager
        @contextmanager
        def watched(db: Any) -> Iterator[None]:  # Any: a connection
            self.shoot("begin")
            with transaction(db):
                yield
                self.shoot("commit")
            self.shoot("committed")

        return watched

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("replace", "unlink", "write_text"):
            patch.setattr(Path, name, self.before(name, getattr(Path, name)))
        patch.setattr(os, "fsync", self.before("fsync", os.fsync))
        patch.setattr(pq, "write_table", lambda table, path, **options: self._table(table, path, options))
        patch.setattr(pq, "ParquetWriter", self._opened(pq.ParquetWriter))
        patch.setattr(storage, "transaction", self.around(storage.transaction))
        patch.setattr(storage.StageJournal, "commit", self._counted(storage.StageJournal.commit))

    def _counted(self, commit: Callable[..., None]) -> Callable[..., None]:
        def counted(journal: storage.StageJournal, entries: Sequence[storage.Entry], **more: Any) -> None:
            commit(journal, entries, **more)
            self.written += len(entries)

        return counted

    def _opened(self, writer: Callable[..., Any]) -> Callable[..., Any]:  # Any: Arrow's own
        def opened(path: Path, schema: Any, **options: Any) -> Any:  # Any: Arrow's own
            self.shoot(f"write {path.name}")
            writer(path, schema, **options).close()  # the first bytes of a file that will be cut off
            self.shoot(f"cut off {path.name}")
            return writer(path, schema, **options)

        return opened

    def _table(self, table: Any, path: Path, options: dict[str, Any]) -> None:  # Any: Arrow's own
        with pq.ParquetWriter(path, table.schema, **options) as writer:
            writer.write_table(table)


def left(home: Path) -> dict[str, bytes]:
    """Every file that a run leaves, but for those that say when it was."""
    return {
        str(p.relative_to(home)): p.read_bytes() for p in home.rglob("*") if p.is_file() and p.name not in OF_THIS_LIFE
    }


def check_crashes(tmp_path: Path, patch: pytest.MonkeyPatch, live: Callable[[Path], int], every: int = 1) -> set[str]:
    """Live once with a camera, resume the pictures, compare; `live` gives how many items were worked on.

    Returns the kinds of moments that there were.
    """
    patch.setattr(storage, "PART_ROWS", 8)
    home, album = tmp_path / "home", tmp_path / "album"
    home.mkdir()
    camera = Camera(home, album)
    with patch.context() as watching:
        camera.watch(watching)
        items = live(home)
    expected = left(home)
    assert camera.written == items
    for number, (what, written) in list(enumerate(camera.taken))[::every]:
        shutil.rmtree(home)
        (album / str(number)).rename(home)  # where it was taken: a crash moves nothing
        worked = live(home)
        assert worked <= items - written, f"crash {number}, before: {what}: work was done again"
        found = left(home)
        assert sorted(found) == sorted(expected), f"crash {number}, before: {what}"
        assert [n for n in expected if found[n] != expected[n]] == [], f"crash {number}, before: {what}"
    return {what.split(" ")[0] for what, _ in camera.taken}


def records(count: int) -> list[Record]:
    return [
        Record(f"r{n}", (Message("user", f"Say {n}."), Message("assistant", f"{n}! " * (n % 5)))) for n in range(count)
    ]


def page(home: Path) -> int:
    """A page of two stages, the second of which depends on the first."""
    data = Dataset.of(records(20))
    with Run(home / "run", Local(chunk=6)) as run:
        scorer = IFD(student=ScriptedModel(), template="bare")
        found = run.map("ifd", scorer, data).good()
        drafts = [
            Record(f"{id}~draft", (Message("user", f"{id} {s.value}"), Message("assistant", "Yes, yes.")))
            for id, s in found.items()
        ]
        again = run.map("again", scorer, drafts[:9])
        run.table("scores", [{"id": id, "value": shown(again[id])} for id in again])
        run.finish(data, [Decision(r.id, "keep", f"kept: {shown(found.get(r.id))}") for r in data])
        return sum(stage.worked for stage in run.stages)


def shown(outcome: Score | Failure | None) -> float | None:
    return outcome.value if isinstance(outcome, Score) else None


def test_a_run_survives_a_crash_before_some_of_its_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_crashes(tmp_path, monkeypatch, page, every=7)


@pytest.mark.slow
def test_a_run_survives_a_crash_before_any_of_its_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened = check_crashes(tmp_path, monkeypatch, page)
    assert happened == {"begin", "commit", "committed", "fsync", "replace", "write", "cut", "unlink"}


def select(home: Path) -> int:
    """The command `tunesift select`, on a few records of which one cannot be read."""
    source = home / "input.jsonl"
    if not source.exists():
        rows = [{"id": r.id, "instruction": r.messages[0].text, "input": "", "output": r.response} for r in records(20)]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"instruction": "cut off", "outp')
    said = ["scorer.student.kind=scripted", "scorer.template=bare", "execution.chunk=6", f"folder={home / 'run'}"]
    return run_recipe(recipe_for("select", source, home / "output.jsonl", said)).worked


@pytest.mark.slow
def test_a_command_survives_a_crash_before_any_of_its_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"begin", "commit", "committed", "fsync", "replace"} <= check_crashes(tmp_path, monkeypatch, select)
