"""What a run takes over from another: nothing that differs, nothing twice, and no model is asked again."""

from __future__ import annotations

import dataclasses
import json
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from harness.interrupting import Interrupts
from tunesift import Recipe, ResumeError, RunError, recipe_for, run_recipe
from tunesift.running.database import FORMAT
from tunesift.running.fsio import write_json
from tunesift.running.journal import Journal
from tunesift.running.parts import Entry
from tunesift.running.reusing import reuse
from tunesift.telling import told_run

ROWS = [{"instruction": f"Question {n} of many?", "output": f"Answer {n} of many."} for n in range(40)]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def select(input: Path, output: Path, *settings: str) -> Recipe:
    return recipe_for("select", input, output, ["scorer.student.kind=scripted", "keep.below=null", *settings])


def taking(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe that takes over what a run in this folder made."""
    return dataclasses.replace(recipe, reuse=folder)


@pytest.fixture
def first(lines: Path) -> Recipe:
    recipe = select(lines, lines.with_name("kept10.jsonl"), "keep=10%")
    assert run_recipe(recipe).worked == 40
    return recipe


def test_another_budget_scores_nothing_again_and_keeps_what_a_run_from_the_start_keeps(
    first: Recipe, lines: Path, tmp_path: Path
) -> None:
    again = run_recipe(taking(select(lines, tmp_path / "kept20.jsonl", "keep=20%"), first.run_folder))
    assert again.worked == 0
    assert again.counts["kept"] == 8
    run_recipe(select(lines, tmp_path / "anew.jsonl", "keep=20%"))
    assert (tmp_path / "kept20.jsonl").read_bytes() == (tmp_path / "anew.jsonl").read_bytes()
    assert json.loads(told_run(again.folder, as_json=True))["stages"] == {"score": 40}


def test_what_another_scorer_made_is_not_taken_and_the_difference_is_named(
    first: Recipe, lines: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = select(lines, tmp_path / "other.jsonl", "scorer.profile=cherry")
    with caplog.at_level(logging.WARNING):
        assert run_recipe(taking(other, first.run_folder)).worked == 40
    assert [r.message for r in caplog.records] == [
        'stage "score": the other run had profile=canonical; nothing of it is reused'
    ]


def test_of_a_changed_file_only_new_and_changed_records_are_scored(first: Recipe, tmp_path: Path) -> None:
    rows = [{"id": "x", "instruction": "New?", "output": "Yes."}, *ROWS[5:], ROWS[0] | {"output": "Another answer."}]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = run_recipe(taking(select(tmp_path / "b.jsonl", tmp_path / "b_kept.jsonl"), first.run_folder))
    assert (done.counts["in"], done.worked) == (37, 2)


def test_a_run_that_took_over_and_was_stopped_goes_on_without_asking_the_other_again(
    first: Recipe, lines: Path, tmp_path: Path
) -> None:
    rows = [*({"instruction": f"New {n}?", "output": "Yes."} for n in range(20)), *ROWS]
    lines.with_name("b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = select(tmp_path / "b.jsonl", tmp_path / "b_kept.jsonl", "execution.chunk=10")
    with pytest.raises(KeyboardInterrupt):
        run_recipe(taking(recipe, first.run_folder), progress=Interrupts(1))
    first.run_folder.rename(tmp_path / "away")
    assert run_recipe(recipe).worked == 10


def test_what_is_no_other_run_is_refused_and_leaves_no_folder(first: Recipe, lines: Path, tmp_path: Path) -> None:
    recipe = select(lines, tmp_path / "kept20.jsonl", "keep=20%")
    with pytest.raises(RunError, match="is not a run's folder"):
        run_recipe(taking(recipe, tmp_path))
    assert not recipe.run_folder.exists()
    with pytest.raises(RunError, match="is this run's own folder"):
        run_recipe(taking(first, first.run_folder))


def other_run(folder: Path) -> None:
    """A run that was killed with a row begun: two outcomes and a failure."""
    folder.mkdir()
    journal = Journal(folder)
    write_json(folder / "run.json", {"format": FORMAT, "journal": journal.run})
    stage = journal.stage("score", {"n": 1})
    rows = [Entry(row, f"r{row}", bytes(16), None, f"{row}") for row in range(2)]
    stage.commit([*rows, Entry(2, "r2", bytes(16), "refused", "no")])
    stage.begin([3])
    journal.db.close()  # as a kill leaves it


def test_another_run_is_left_as_it_is_and_what_is_put_by_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    other_run(other)
    folder.mkdir()
    with closing(Journal(folder)) as journal, caplog.at_level(logging.INFO):
        assert reuse(journal, folder, other) == 2, "a failure is not taken"
        assert [r.message for r in caplog.records] == [f"2 outcomes are put by from {other}"]
        assert reuse(journal, folder, other) == 0, "it was taken already"
        stage = journal.stage("score", {"n": 1})
        assert [stage.in_stock(f"r{row}", bytes(16)) for row in range(3)] == [(None, "0"), (None, "1"), None]
    with closing(sqlite3.connect(other / "state.db")) as db:
        assert db.execute("SELECT (SELECT count(*) FROM intent), (SELECT count(*) FROM crash)").fetchone() == (1, 0)


def test_a_run_that_has_begun_takes_over_nothing(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    other_run(other)
    folder.mkdir()
    with closing(Journal(folder)) as journal:
        journal.stage("score", {"n": 1})
        assert reuse(journal, folder, other) == 0
        assert not journal.reuses()


def test_a_run_of_another_version_is_not_taken_from(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other"
    other_run(other)
    write_json(other / "run.json", {"format": FORMAT - 1})
    folder.mkdir()
    with closing(Journal(folder)) as journal, pytest.raises(ResumeError) as refusal:
        reuse(journal, folder, other)
    assert str(refusal.value) == (
        f"{other}: is a run of another version, whose outcomes cannot be taken; leave --reuse out."
    )
