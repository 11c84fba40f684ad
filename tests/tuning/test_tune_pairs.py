"""`tunesift tune` on preference pairs: DPO from a file to a model, with a reason for every pair."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.command import Command
from harness.tiny import MakeTiny
from tunesift import SFT, Dataset, LoRA, Message, Preference, Record, TransformersModel
from tunesift.running.sealing import sealed
from tunesift.tuning.dpo import DPO
from tunesift.tuning.forecast import forecast_on

pytest.importorskip("trl", reason='needs the "train" extra')

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("FutureWarning", "DeprecationWarning", "UserWarning")
]
WORDS = ["tune", "pairs.jsonl", "-o", "tuned", "student.name=tiny", "tuner.kind=dpo", "tuner.template=alpaca",
         "tuner.batch=2", "tuner.steps=4", "tuner.held_out=0.25", "tuner.learning_rate=1e-3"]  # fmt: skip


@pytest.fixture
def place(make_tiny: MakeTiny, shared: Path, stands_in: Path) -> Path:
    """A student of 512 tokens, ten real pairs of which some are longer, one whose answers are the same, one empty."""
    shutil.copytree(make_tiny(length=512), stands_in / "tiny")
    rows = json.loads((shared / "preference" / "dpo_en_demo.json").read_text("utf-8"))
    sizes = sorted(rows, key=lambda row: len(json.dumps(row)))
    same, empty = ({**row, "rejected": said} for row, said in (
        (sizes[10], sizes[10]["chosen"]), (sizes[11], {**sizes[11]["rejected"], "value": " "})))  # fmt: skip
    given = [*sizes[:8], *sizes[-2:], same, empty]
    (stands_in / "pairs.jsonl").write_text("".join(f"{json.dumps({**row, 'id': f'p{n}'})}\n"
                                                   for n, row in enumerate(given)))  # fmt: skip
    return stands_in


def test_every_pair_has_its_reason_and_the_loss_begins_at_that_of_no_preference(place: Path, tunesift: Command) -> None:
    done = tunesift(*WORDS)
    assert done.code == 0, done.err
    decided = {row["record_id"]: row["reason"] for row in pq.read_table("tuned.run/decisions.parquet").to_pylist()}
    assert sorted(decided[f"p{n}"] for n in range(8)) == [
        *["held out: its loss is measured"] * 2, *["trained on"] * 6]  # fmt: skip
    assert all(decided[f"p{n}"].startswith("too long: ") for n in (8, 9))
    assert decided["p10"] == "both answers are the same"
    assert decided["p11"] == "empty: the response is empty"
    said = sealed(place / "tuned")
    assert said is not None
    losses = [entry["loss"] for entry in said["history"] if "loss" in entry]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses[-1] != pytest.approx(math.log(2), abs=1e-6)
    preferred = pq.read_table("tuned.run/tables/preferred.parquet").to_pylist()
    assert {row["of"] for row in preferred} == {"trained on", "held out"}
    assert all(0 <= row["share"] <= 1 for row in preferred)
    assert "preference pairs, of which the chosen answer" not in done.out


def test_pairs_are_called_pairs(place: Path, tunesift: Command) -> None:
    assert "pairs.jsonl: 12 preference pairs, 0 unreadable rows" in tunesift("plan", *WORDS[:2], *WORDS[4:]).out
    assert "\nno preference pair can be trained on (too long: " in tunesift(*WORDS, "tuner.max_length=3").err


def test_records_that_are_no_pairs_are_refused_before_anything_is_loaded(place: Path, tunesift: Command) -> None:
    (place / "pairs.jsonl").write_text('{"instruction": "Name the sea.", "output": "The Baltic."}\n')
    assert 'a preference pair needs "chosen" and "rejected"' in tunesift(*WORDS).sentence
    assert not (place / "tuned.run").exists()


def test_the_forecast_counts_both_texts_of_a_pair_and_the_reference(place: Path) -> None:
    student = TransformersModel(name=str(place / "tiny"))
    asked, better, worse = Message("user", "x" * 40), Message("assistant", "y" * 80), Message("assistant", "z" * 20)
    pairs = [Preference(f"p{n}", (asked,), better, worse) for n in range(4)]
    of_records = forecast_on(student, SFT(batch=2, epochs=1.0), Dataset.of([Record("r", (asked, better))] * 1))
    of_pairs = forecast_on(student, DPO(batch=2), Dataset.of(pairs))
    assert of_pairs.tokens == 4 * (40 + 80 + 40 + 20) / 4
    assert of_pairs.updates == 2
    assert of_records.weights is not None
    assert of_pairs.weights == 2 * of_records.weights
    assert of_pairs.activations == 2 * (of_records.activations or 0)
    adapted = forecast_on(student, DPO(batch=2, lora=LoRA()), Dataset.of(pairs))
    assert of_records.weights < (adapted.weights or 0) < of_pairs.weights
