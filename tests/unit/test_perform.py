"""A run from its recipe to its result: what is refused, found again, moved, and left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.interrupting import Asks, Interrupts
from tunesift import DataError, ModelUnavailable, Recipe, ResumeError, Stopped, recipe_for, run_recipe
from tunesift.perform import Summary
from tunesift.running.fsio import read_json, write_json
from tunesift.telling import told_run

SCRIPTED = "scorer.student.kind=scripted"
ROWS = [{"instruction": f"Question {n} of many?", "output": f"Answer {n} of many."} for n in range(40)]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def select(input: Path, output: Path, *settings: str) -> Recipe:
    return recipe_for("select", input, output, [SCRIPTED, *settings])


def stopped(recipe: Recipe, chunks: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe, progress=Interrupts(chunks))


def test_a_run_that_was_stopped_says_so_and_goes_on(lines: Path, tmp_path: Path) -> None:
    recipe = select(lines, tmp_path / "out.jsonl", "execution.chunk=10")
    stopped(recipe, 2)
    assert "not complete" in told_run(recipe.run_folder, as_json=False)
    assert json.loads(told_run(recipe.run_folder, as_json=True))["stages"] == {"score": 20}
    assert run_recipe(recipe).worked == 20
    assert run_recipe(recipe).worked == 0


def test_a_run_that_is_asked_to_stop_when_every_item_is_done_writes_its_output(lines: Path, tmp_path: Path) -> None:
    recipe = select(lines, tmp_path / "out.jsonl", "execution.chunk=10")
    early, late = Asks(3), Asks(1)
    with pytest.raises(Stopped):
        run_recipe(recipe, progress=early, stop=early.stop)
    assert not (tmp_path / "out.jsonl").exists()
    assert run_recipe(recipe, progress=late, stop=late.stop).worked == 10
    assert (tmp_path / "out.jsonl").exists()


def test_what_the_run_did_stays_when_it_ends_with_an_error(lines: Path, tmp_path: Path) -> None:
    recipe = select(lines, tmp_path / "out.parquet", "execution.chunk=10")
    (lines).write_text(
        lines.read_text() + json.dumps(ROWS[0] | {"n": 1}) + "\n" + json.dumps(ROWS[1] | {"n": "x"}) + "\n"
    )
    mixed = select(lines, tmp_path / "out.parquet", "keep=100%", "keep.below=null")
    with pytest.raises(DataError, match="do not fit into columns"):
        run_recipe(mixed)
    assert recipe.run_folder.exists()
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("setting", ["scorer.student.kind=transformers", "scorer.student.name=./nowhere"])
def test_a_run_that_did_nothing_leaves_nothing(lines: Path, tmp_path: Path, setting: str) -> None:
    bad = recipe_for("select", lines, tmp_path / "out.jsonl", ["scorer.student.name=./nowhere", setting])
    with pytest.raises(ModelUnavailable):
        run_recipe(bad)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl"]
    (tmp_path / "mine").mkdir()
    with pytest.raises(ModelUnavailable):
        run_recipe(
            recipe_for(
                "select", lines, tmp_path / "out.jsonl", ["scorer.student.name=./nowhere", f"folder={tmp_path}/mine"]
            )
        )
    assert (tmp_path / "mine").exists(), "a folder that was there before is not ours to remove"


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_input_and_run_may_move_between_two_starts(tmp_path: Path, ending: str) -> None:
    (tmp_path / "old").mkdir()
    input = tmp_path / "old" / f"a.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), input)
    else:
        input.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    stopped(select(input, tmp_path / "old" / f"out.{ending}", "execution.chunk=10"), 2)
    shutil.move(tmp_path / "old", tmp_path / "new")
    summary = run_recipe(select(tmp_path / "new" / f"a.{ending}", tmp_path / "new" / f"out.{ending}"))
    assert (summary.worked, summary.counts["in"]) == (20, 40)
    assert summary.output.exists()


def test_a_run_of_another_format_is_refused(lines: Path, tmp_path: Path) -> None:
    recipe = select(lines, tmp_path / "out.jsonl")
    run_recipe(recipe)
    path = recipe.run_folder / "run.json"
    write_json(path, read_json(path) | {"format": 0})
    with pytest.raises(ResumeError, match="is a run of format 0, not 3; use another folder"):
        run_recipe(recipe)


def test_the_balance_counts_every_row_once(lines: Path, tmp_path: Path) -> None:
    bad: list[Any] = [{"instruction": "x", "output": 5}, {"instruction": "", "output": "y"}]
    lines.write_text(lines.read_text() + "".join(json.dumps(row) + "\n" for row in bad))
    summary = run_recipe(select(lines, tmp_path / "out.jsonl", "keep=25%"))
    assert isinstance(summary, Summary)
    assert summary.balance == "42 in = 10 kept + 30 dropped + 2 quarantined"
    assert sum(summary.reasons.values()) == 42
    told = [reason for reason in summary.reasons if reason.startswith("quarantined: E202, first at ")]
    assert len(told) == 1
    assert told[0].endswith(': "output" must be a text, not a number')
    assert pq.read_table(summary.folder / "quarantine.parquet").num_rows == 2
