"""A group that no record has, and a fraction that is no record, are refused before anything is scored."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesift import RecipeError, recipe_for, run_recipe


def test_a_group_that_no_record_has_is_refused_before_scoring_and_leaves_no_run_behind(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"instruction": "Say a.", "output": "a", "kind": "x"}\n' * 30)
    settings = ["scorer.student.kind=scripted", "keep.kind=quota", "keep.fraction=0.5"]
    with pytest.raises(RecipeError, match=r"keep.group: no record has the field 'nosuch'"):
        run_recipe(
            recipe_for("select", tmp_path / "in.jsonl", tmp_path / "out.jsonl", [*settings, "keep.group=nosuch"])
        )
    assert not (tmp_path / "out.jsonl.run").exists()
    done = run_recipe(
        recipe_for("select", tmp_path / "in.jsonl", tmp_path / "out.jsonl", [*settings, "keep.group=kind"])
    )
    assert done.counts["in"] == 30


@pytest.mark.parametrize("kind", ["largest", "smallest", "random", "longest", "shortest", "combined", "diverse"])
def test_a_fraction_that_is_no_record_is_refused_before_scoring(tmp_path: Path, kind: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"instruction": "Say a.", "output": "a"}\n' * 8)
    settings = ["scorer.student.kind=scripted", f"keep.kind={kind}", "keep.fraction=0.1"]
    settings += {"combined": ["keep.weights.ifd=1"], "largest": ["keep.below=null"]}.get(kind, [])
    recipe = recipe_for("select", tmp_path / "in.jsonl", tmp_path / "out.jsonl", settings)
    with pytest.raises(RecipeError) as refusal:
        run_recipe(recipe)
    assert str(refusal.value) == "keep: 10% of 8 records is none; write keep.count=1."
    assert not recipe.run_folder.exists()
    again = recipe_for(
        "select", tmp_path / "in.jsonl", tmp_path / "out.jsonl", [*settings[:2], "keep.count=1", *settings[3:]]
    )
    if kind != "diverse":  # of 8 equal records, a fifth is one candidate, and the budget not below that
        assert run_recipe(again).counts["kept"] == 1


def test_a_share_of_every_group_is_at_least_one_record(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"instruction": "Say a.", "output": "a", "kind": "x"}\n' * 8)
    settings = ["scorer.student.kind=scripted", "keep.kind=combined", "keep.weights.ifd=1", "keep.group=kind"]
    recipe = recipe_for("select", tmp_path / "in.jsonl", tmp_path / "out.jsonl", [*settings, "keep.fraction=0.1"])
    assert run_recipe(recipe).counts["kept"] == 1
