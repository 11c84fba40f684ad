"""A link in the place of anything in a run folder is not followed: it is refused, or taken away; its target stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesift import CannotCreate, ResumeError, StorageError, TunesiftError, recipe_for, run_recipe
from tunesift.running import fsio

REFUSED = (
    "LOCK", "holder.json", "state.db", "decisions.parquet", "run.json", "result.json", "report.html", "inputs",
    "inputs/source.json", "quarantine.parquet", "stages", "stages/score", "stages/score/_SUCCESS.json", "state.db-shm",
)  # fmt: skip
TAKEN_AWAY = (
    "holder.json.tmp", ".reserve", "decisions.parquet.tmp", "run.json.tmp", "report.html.tmp", "inputs/records.arrow",
    "inputs/ids.arrow", "stages/score/part-000000.parquet", "stages/score/part-000000.parquet.tmp",
    "stages/score/_SUCCESS.json.tmp",
)  # fmt: skip
"""Leftovers of a crash as much as links: they are removed, and made anew."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsio, "RESERVE_BYTES", 4096)


def linked(home: Path, name: str, kind: str) -> TunesiftError | None:
    """Put a link in a place, start a run, and look at the link's target; gives what was raised."""
    (home / "run" / name).parent.mkdir(parents=True)
    (home / "in.jsonl").write_text('{"instruction": "Say a.", "output": "a b"}\n' * 3)
    target = home / "precious"
    if kind == "file":
        target.write_text("mine")
    elif kind == "folder":
        target.mkdir()
        (target / "part-000000.parquet").write_text("mine")
    (home / "run" / name).symlink_to(target)
    said = ["scorer.student.kind=scripted", "keep=50%", f"folder={home / 'run'}"]
    error = None
    try:
        run_recipe(recipe_for("select", home / "in.jsonl", home / "out.jsonl", said))
    except TunesiftError as trouble:
        error = trouble
    if kind == "file":
        assert target.read_text() == "mine"
    elif kind == "folder":
        assert {p.name: p.read_text() for p in target.iterdir()} == {"part-000000.parquet": "mine"}
    else:
        assert not target.exists()
    return error


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_link_where_a_run_reads_or_writes_is_refused(name: str, kind: str, tmp_path: Path) -> None:
    error = linked(tmp_path, name, kind)
    assert isinstance(error, StorageError | CannotCreate | ResumeError), error
    assert (tmp_path / "run" / name).is_symlink(), "it was taken away and yet refused"


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
@pytest.mark.parametrize("name", TAKEN_AWAY)
def test_a_link_in_the_place_of_a_leftover_is_taken_away(name: str, kind: str, tmp_path: Path) -> None:
    assert linked(tmp_path, name, kind) is None
    assert not (tmp_path / "run" / name).is_symlink()


@pytest.mark.parametrize("kind", ["file", "folder", "nothing"])
def test_a_link_in_the_place_of_the_databases_log_is_not_written_through(kind: str, tmp_path: Path) -> None:
    """SQLite's own rule decides whether it is refused or replaced."""
    error = linked(tmp_path, "state.db-wal", kind)
    assert error is None or isinstance(error, StorageError)


def test_the_run_folder_itself_may_be_a_link_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in.jsonl").write_text('{"instruction": "Say a.", "output": "a b"}\n' * 3)
    said = ["scorer.student.kind=scripted", "keep=50%", f"folder={tmp_path / 'run'}"]
    run_recipe(recipe_for("select", tmp_path / "in.jsonl", tmp_path / "out.jsonl", said))
    assert (tmp_path / "elsewhere" / "result.json").exists()
