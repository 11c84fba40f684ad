"""The decisions of a selection on the demo data, by a scripted student, are the expected ones; see `make golden`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow.parquet as pq

from tunesift import recipe_for, run_recipe

ROOT = Path(__file__).parents[2]
EXPECTED = ROOT / "tests" / "golden" / "select_demo.json"


def test_the_demo_is_decided_as_expected(tmp_path: Path) -> None:
    settings = ["scorer.student.kind=scripted", "keep=30%"]
    run_recipe(recipe_for("select", ROOT / "demo" / "demo.jsonl", tmp_path / "kept.jsonl", settings))
    rows = pq.read_table(tmp_path / "kept.jsonl.run" / "decisions.parquet").to_pylist()
    found = {row["record_id"]: f"{row['action']}: {row['reason']}" for row in rows}
    if os.environ.get("GOLDEN") == "rewrite":
        EXPECTED.write_text(json.dumps(found, indent=0) + "\n", "utf-8")
    assert found == json.loads(EXPECTED.read_text("utf-8"))
