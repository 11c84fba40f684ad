"""Preference pairs as other trainers read them for DPO: both answers, the settings, and what has no counterpart."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest
from test_cli import Command
from test_cli import tunesift as tunesift  # a fixture, which pytest finds by this name
from test_export import NEEDED, SCHEMAS, STUDENT, TARGETS, check, everything, lines, selected, settings

from harness.tiny import MakeTiny
from tunesift import DataError, RecipeError, read_preferences, recipe_for
from tunesift.export import Exported, export, told_of
from tunesift.recipe import as_json
from tunesift.running.fsio import read_json, write_json
from tunesift.tuning.dpo import DPO

WORDS = (*STUDENT, "tuner.kind=dpo")
ASK = [{"role": "system", "content": "Be {brief}."}, {"role": "user", "content": "Why?"}]
TALK = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "1."},
    {"role": "user", "content": "Two?"},
]


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


ROWS: list[dict[str, Any]] = [
    {"id": "a", "prompt": ASK, "chosen": [answer("Because: 'yes'\n# no")], "rejected": [answer("a")], "margin": 1.5},
    {"id": "b", "chosen": [*TALK, answer("2 – зwei.")], "rejected": [*TALK, answer("3.")]},
    *({"id": f"p{n}", "prompt": f"Question {n}?", "chosen": f"Good answer {n}.", "rejected": "No."} for n in range(5)),
    {"id": "same", "prompt": "Q?", "chosen": "The same. ", "rejected": "The same."},
    {"id": "empty", "prompt": "Q?", "chosen": "Something.", "rejected": " "},
    {"id": "picture", "images": ["a.png"], "prompt": "What is <image>?", "chosen": "A dog.", "rejected": "A cat."},
    {"id": "tools", "prompt": [*ASK, {"role": "tool", "content": "3"}], "chosen": [answer("3")], "rejected": [answer("4")]},
]  # fmt: skip
LEFT_OUT = {
    "same": "both answers are the same", "empty": "the response is empty",
    "picture": "the record has images, which a text model does not read",
    "tools": "the record uses tools, which templates here do not show",
}  # fmt: skip
Pair = tuple[list[dict[str, str]], str, str]
PAIRS: dict[str, Pair] = {
    "a": (ASK, "Because: 'yes'\n# no", "a"), "b": (TALK, "2 – зwei.", "3."),
    **{f"p{n}": ([{"role": "user", "content": f"Question {n}?"}], f"Good answer {n}.", "No.") for n in range(5)},
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a selection that kept eleven pairs, seven of which can be trained on."""
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return selected(path)


def pairs(done: Exported) -> dict[str, Pair]:
    """By id, the pairs of an export, as the trainer that it is for puts them together."""
    found: dict[str, Pair] = {}
    for path in sorted(done.folder.rglob("*.json*")):
        if path.name in ("dataset_info.json", "left_out.jsonl"):
            continue
        for row in json.loads(path.read_text("utf-8")) if path.suffix == ".json" else lines(path):
            sides = [row["chosen"], row["rejected"]]
            if done.to != "llama-factory":
                assert [len(side) for side in sides] == [1, 1]
                sides = [side[0] for side in sides]
            assert {side["role"] for side in sides} == {"assistant"}
            found[row["id"]] = (row.get("messages") or row["prompt"], sides[0]["content"], sides[1]["content"])
    return found


DPO_SCHEMAS: dict[str, dict[str, Any]] = {
    # llamafactory/hparams/finetuning_args.py: RLHFArguments
    "llama-factory": {"pref_beta": float, "pref_loss": Literal["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"],
                      "ref_model": str},
    # axolotl/utils/schemas/config.py, enums.py: RLType
    "axolotl": {"rl": Literal["dpo", "gdpo", "grpo", "ipo", "orpo", "kto", "simpo", "ebft"], "rl_beta": float,
                "skip_prepare_dataset": bool},
    # trl: DPOConfig
    "trl": {"beta": float, "loss_type": list, "disable_dropout": bool},
}  # fmt: skip
OPTIM = {"optim": Literal["adamw_torch", "adamw_torch_fused", "rmsprop"]}
DPO_OF_AXOLOTL = {"path": str, "ds_type": Literal["json"], "split": str}
ONLY_SFT = {"train_on_prompt", "mask_history", "packing", "neat_packing", "train_on_inputs", "sample_packing",
            "eval_sample_packing", "completion_only_loss", "eval_packing"}  # fmt: skip


@pytest.mark.parametrize("more", [(), ("tuner.held_out=0.3", "tuner.lora.rank=4"), ("tuner.optimiser=rmsprop", "tuner.beta=1.0"),
                                  ('tuner.reference={"name":"acme/ref"}', "tuner.template=chat")])  # fmt: skip
@pytest.mark.parametrize("to", TARGETS)
def test_every_setting_of_a_preference_tuning_has_a_documented_name_and_type(
    run: Path, tmp_path: Path, to: str, more: tuple[str, ...]
) -> None:
    found = settings(export(run, tmp_path / "out", to, [*WORDS, *more]))
    schema = {name: kind for name, kind in SCHEMAS[to].items() if name not in ONLY_SFT} | DPO_SCHEMAS[to] | OPTIM
    schema |= {"optimizer": OPTIM["optim"]} if to == "axolotl" else {}
    check(found, schema, NEEDED[to])
    for data in found.get("datasets", []) + found.get("test_datasets", []):
        check(data, DPO_OF_AXOLOTL, {"path"})
        assert (tmp_path / "out" / data["path"]).is_file()


@pytest.mark.parametrize("to", TARGETS)
def test_a_selection_from_a_preference_file_is_exported_with_both_answers(run: Path, tmp_path: Path, to: str) -> None:
    done = export(run, tmp_path / "out", to, [*WORDS, "tuner.held_out=0.3"])
    assert pairs(done) == PAIRS
    assert (done.records, done.held_out) == (5, 2)
    told = "5 preference pairs to train on, 2 held out, 4 left out"
    assert told_of(done) == told
    assert (done.folder / "README.txt").read_text().startswith(f"Preference pairs of the tunesift run {run.name} for ")
    assert told in (done.folder / "README.txt").read_text()
    assert {row["id"]: row["reason"] for row in lines(done.folder / "left_out.jsonl")} == LEFT_OUT
    assert not [said for said in done.differences if "the rejected one is not written" in said]


@pytest.fixture
def tuned(run: Path) -> Path:
    """The folder of a run of `tune` by dpo as it would be over these pairs: two held out, one too long."""
    words = ["student.name=acme/llama", "tuner.kind=dpo", "tuner.max_length=300", "tuner.held_out=0.3",
             "tuner.learning_rate=1e-4", "tuner.beta=0.3"]  # fmt: skip
    tune = recipe_for("tune", run.parent / "pairs.jsonl", run.parent / "model", words)
    write_json(run / "run.json", read_json(run / "run.json") | {"recipe": as_json(tune)})
    table = pq.read_table(run / "decisions.parquet")
    rows = table.to_pylist()
    for row in rows:
        row["reason"] = "held out: its loss is measured" if row["record_id"] in ("a", "p0") else "trained on"
        if row["record_id"] in {*LEFT_OUT, "p4"}:
            row |= {"action": "drop", "reason": "too long: 400 tokens, the limit is 300"}
    pq.write_table(table.from_pylist(rows, schema=table.schema), run / "decisions.parquet")
    return run


@pytest.mark.parametrize(("to", "beta", "aside"), [
    ("llama-factory", "pref_beta", "pairs_held_out.json"), ("axolotl", "rl_beta", "pairs_held_out.jsonl"),
    ("trl", "beta", "pairs/test.jsonl"),
])  # fmt: skip
def test_a_preference_tuning_is_exported_with_its_own_settings_and_pairs(
    tuned: Path, tmp_path: Path, to: str, beta: str, aside: str
) -> None:
    done = export(tuned, tmp_path / "out", to)
    assert (done.records, done.held_out, done.left_out) == (4, 2, {})
    assert pairs(done) == {id: pair for id, pair in PAIRS.items() if id != "p4"}
    found = settings(done)
    assert (found[beta], found["learning_rate"]) == (0.3, 1e-4)
    assert all(f'"id":"{id}"' in (done.folder / aside).read_text() for id in ("a", "p0"))


def test_each_trainer_is_told_that_it_is_dpo(run: Path, tmp_path: Path) -> None:
    one, two, three = (export(run, tmp_path / to, to, [*WORDS, "tuner.held_out=0.3"]) for to in TARGETS)
    assert (settings(one)["stage"], settings(one)["pref_loss"]) == ("dpo", "sigmoid")
    info = json.loads((one.folder / "dataset_info.json").read_text())
    assert list(info) == ["pairs-kept", "pairs-kept_held_out"]
    for entry in info.values():
        (row, *_) = json.loads((one.folder / entry["file_name"]).read_text())
        assert (entry["ranking"], entry["formatting"]) == (True, "sharegpt")
        assert all(
            row[entry["columns"][name]]["role"] == entry["tags"]["assistant_tag"] for name in ("chosen", "rejected")
        )
        assert row[entry["columns"]["messages"]][-1]["role"] == entry["tags"]["user_tag"]
    assert (settings(two)["rl"], settings(two)["skip_prepare_dataset"]) == ("dpo", True)
    assert (three.settings, three.start) == ("dpo.yaml", "trl dpo --config dpo.yaml")
    assert settings(three)["loss_type"] == ["sigmoid"]


FLIPS = {
    "template": "alpaca", "epochs": 2, "steps": 5, "batch": 64, "learning_rate": 1e-3, "schedule": "linear",
    "warm_up": 0.0, "weight_decay": 0.01, "max_length": 300, "lora": {}, "precision": "float32", "held_out": 0.3,
    "seed": 3, "device_batch": 4, "gradient_checkpointing": False, "save_every": 10, "beta": 0.5,
    "optimiser": "rmsprop", "weighted": True, "reference": {"name": "acme/ref"},
}  # fmt: skip


@pytest.mark.parametrize("to", TARGETS)
def test_no_setting_of_a_preference_tuning_is_dropped_in_silence(
    run: Path, tmp_path: Path, make_tiny: MakeTiny, to: str
) -> None:
    """Another value of a setting is another file, or is named as what has no counterpart."""
    assert FLIPS.keys() | {"kind"} == {f.name for f in dataclasses.fields(DPO)}
    own = [f"student.name={make_tiny()}", "tuner.kind=dpo", "tuner.max_length=200"]
    plain = everything(export(run, tmp_path / "plain", to, own).folder)
    for name, value in FLIPS.items():
        said = [word for word in own if not word.startswith(f"tuner.{name}=")]
        after = everything(export(run, tmp_path / name, to, [*said, f"tuner.{name}={json.dumps(value)}"]).folder)
        assert after != plain, name


def test_what_has_no_counterpart_is_named(run: Path, tmp_path: Path) -> None:
    reference = 'tuner.reference={"name":"acme/ref","revision":"abc","dtype":"bfloat16"}'
    said = {to: export(run, tmp_path / to, to, [*WORDS, reference, "tuner.weighted=true"]) for to in TARGETS}
    for to, done in said.items():
        told = "\n".join(done.differences)
        assert "tuner.weighted=true: has no counterpart; every pair counts the same there." in told
        assert ("tuner.reference=acme/ref: has no counterpart" in told) is (to != "llama-factory")
        assert ("tuner.reference.revision=abc: has no counterpart" in told) is (to == "llama-factory")
        assert ("tuner.reference.dtype=bfloat16: has no counterpart" in told) is (to == "llama-factory")
        assert "a pair of more than 512 tokens is cut there" in told
    assert settings(said["llama-factory"])["ref_model"] == "acme/ref"


def test_pairs_in_a_fixed_template_are_texts_that_end(tmp_path: Path, make_tiny: MakeTiny) -> None:
    """LLaMA-Factory's `empty` adds no token; TRL, which trains for axolotl too, adds BOS and EOS to a text itself."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "x", "prompt": "Hi {you}", "chosen": "Ho", "rejected": "Hm"}) + "\n")
    run, words = selected(path), [f"student.name={make_tiny()}", "tuner.kind=dpo", "tuner.template=bare"]
    done = export(run, tmp_path / "lf", "llama-factory", words)
    assert json.loads((done.folder / "a-kept.json").read_text()) == [
        {"id": "x", "instruction": "<s>Hi {you}\n", "chosen": "Ho</s>", "rejected": "Hm</s>"}]  # fmt: skip
    entry = json.loads((done.folder / "dataset_info.json").read_text())["a-kept"]
    assert entry["columns"] == {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}
    for to, name in (("axolotl", "a-kept.jsonl"), ("trl", "a-kept/train.jsonl")):
        (row,) = lines(export(run, tmp_path / to, to, words).folder / name)
        assert row == {"id": "x", "prompt": "Hi {you}\n", "chosen": "Ho", "rejected": "Hm"}
    assert "skip_prepare_dataset" not in settings(export(run, tmp_path / "ax", "axolotl", words))


def test_turns_that_a_trainer_skips_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    twice = [{"role": "user", "content": "Hm."}, {"role": "user", "content": "Well?"}]
    rows = [{"id": "twice", "prompt": twice, "chosen": [answer("Y")], "rejected": [answer("N")]}, *ROWS[:1]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = selected(path, "turns=accept")
    assert [row["id"] for row in lines(export(run, tmp_path / "lf", "llama-factory", WORDS).folder / "left_out.jsonl")] == [
        "twice"]  # fmt: skip
    assert export(run, tmp_path / "trl", "trl", WORDS).records == 2


def test_what_is_wrong_with_an_export_of_pairs_is_a_sentence(
    run: Path, tuned: Path, tmp_path: Path, tunesift: Command
) -> None:
    (tmp_path / "rows.jsonl").write_text(json.dumps({"instruction": "Q?", "output": "A.", "rejected": "B."}) + "\n")
    with pytest.raises(DataError, match=r"holds records, not preference pairs; write tuner.kind=sft\."):
        export(selected(tmp_path / "rows.jsonl"), tmp_path / "out", "trl", WORDS)
    folder = tmp_path / "adapters"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "acme/llama"}))
    with pytest.raises(RecipeError, match=r"tuner.reference.name: .* holds adapters"):
        export(run, tmp_path / "out", "trl", [f"tuner.reference.name={folder}"])
    assert not (tmp_path / "out").exists()
    told = tunesift("export", str(tuned), "-o", str(tmp_path / "out"), "--to", "trl").out
    assert told.endswith("start it there: trl dpo --config dpo.yaml\n")


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("name", ["preference/dpo_en_demo.json", "oasst/oasst_en_dialogue_pairs.json"])
def test_real_pairs_are_exported_message_for_message(shared: Path, tmp_path: Path, name: str, to: str) -> None:
    input = tmp_path / Path(name).name
    input.symlink_to(shared / name)
    done = export(selected(input), tmp_path / "out", to, [*WORDS, "tuner.held_out=0.1"])
    left = {row["id"] for row in lines(done.folder / "left_out.jsonl")} if done.left_out else set()
    expected = {p.id: ([{"role": m.role, "content": m.text} for m in p.prompt], p.chosen.text, p.rejected.text)
                for p in read_preferences(input) if p.id not in left}  # fmt: skip
    assert pairs(done) == expected
    assert len(expected) == done.records + done.held_out > 250
