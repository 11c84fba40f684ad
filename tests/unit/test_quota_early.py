"""A group that no record has is refused before anything is scored."""

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
