"""The power fails: what was not synced is gone, what was acknowledged is not. A model in the small; see harness/power.py."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.power import Power
from harness.runs import make_records
from tunesift import recipe_for, run_recipe
from tunesift.running import fsio, journal

RECORDS = 20


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PART_ROWS", 8)
    monkeypatch.setattr(fsio, "RESERVE_BYTES", 4096)


def live(home: Path) -> int:
    said = ["scorer.student.kind=scripted", "execution.chunk=6", f"folder={home / 'run'}", "keep=40%"]
    return run_recipe(recipe_for("select", home / "input.jsonl", home / "output.jsonl", said)).worked


def acknowledged(home: Path) -> int:
    """Rows that the database says are done."""
    state = home / "run" / "state.db"
    if not state.exists():
        return 0
    with closing(sqlite3.connect(state)) as db:
        if not db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'part'").fetchone()[0]:
            return 0
        return int(
            db.execute("SELECT (SELECT count(*) FROM result) + (SELECT ifnull(sum(rows), 0) FROM part)").fetchone()[0]
        )


def lose_power(tmp_path: Path, every: int) -> None:
    home = tmp_path / "home"
    make_records(home, RECORDS)
    power = Power(home)
    with power.watching():
        assert live(home) == RECORDS
    expected = (home / "output.jsonl").read_bytes()
    parts = {p.name: pq.read_table(p).to_pylist() for p in (home / "run" / "stages").glob("*/part-*")}
    assert len(parts) == 3
    kept = 0
    for number, picture in list(enumerate(power.pictures))[::every]:
        shutil.rmtree(home)
        picture.restore(home)
        when = f"moment {number} of {len(power.pictures)}, before: {picture.moment}"
        done = acknowledged(home)
        kept = max(kept, done)
        assert live(home) == RECORDS - done, f"{when}: {done} rows had been acknowledged"
        assert (home / "output.jsonl").read_bytes() == expected, when
        assert parts == {p.name: pq.read_table(p).to_pylist() for p in (home / "run" / "stages").glob("*/part-*")}, when
    assert kept == RECORDS, "no picture shows a run that was done"
    last = power.pictures[-1]
    assert last.files["output.jsonl"] == expected, "the output of a run that was done does not last"
    assert "result.json" in {Path(name).name for name in last.files}
    print(len(power.pictures), "moments")


def test_a_loss_of_power_at_some_moments_loses_no_acknowledged_row(tmp_path: Path) -> None:
    lose_power(tmp_path, 5)


@pytest.mark.slow
def test_a_loss_of_power_at_any_moment_loses_no_acknowledged_row(tmp_path: Path) -> None:
    lose_power(tmp_path, 1)
