"""A selection on real files of every format: the balance is exact, the output in input order, memory within bounds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesift import read_dataset

CHILD = """
import json, sys
from pathlib import Path
from tunesift import recipe_for, run_recipe
done = run_recipe(recipe_for("select", Path(sys.argv[1]), Path(sys.argv[2]), ["keep=10%", *sys.argv[3:]]))
(peak,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]  # of this process alone
print(json.dumps({**done.counts, "peak": int(peak) * 1024}))
"""


def made(shared: Path, kind: str, home: Path) -> Path:
    alpaca = json.loads((shared / "alpaca" / "alpaca_sample.json").read_text("utf-8"))[:400]
    if kind == "alpaca":
        return shared / "alpaca" / "alpaca_sample.json"
    if kind == "sharegpt":
        return shared / "wizardlm" / "evol_instruct_1k.json"
    if kind == "preference":
        return shared / "preference" / "dpo_en_demo.json"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(alpaca), home / "in.parquet")
        return home / "in.parquet"
    turns = [
        [{"role": "user", "content": r["instruction"]}, {"role": "assistant", "content": r["output"]}] for r in alpaca
    ]
    (home / "in.jsonl").write_text("".join(json.dumps({"messages": t}) + "\n" for t in turns), "utf-8")
    return home / "in.jsonl"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["alpaca", "sharegpt", "messages", "preference", "parquet"])
def test_a_selection_on_a_real_file_is_balanced_ordered_and_small(kind: str, shared: Path, tmp_path: Path) -> None:
    source = made(shared, kind, tmp_path)
    output = tmp_path / f"kept{source.suffix}"
    student = ["scorer.student.kind=scripted"] if kind == "alpaca" else []
    limit = ["limit=100"] if kind != "alpaca" else []
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(source), str(output), *student, *limit],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["in"] == counts["kept"] + counts["dropped"] + counts["quarantined"]
    assert counts["peak"] < 1.5e9
    before = [tuple(m.text for m in r.messages) for r in read_dataset(source)]
    after = [tuple(m.text for m in r.messages) for r in read_dataset(output)]
    assert len(after) == counts["kept"] > 0
    places = iter(before)
    assert all(text in places for text in after), "the output is not in the order of the input"
