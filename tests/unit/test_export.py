"""A run as other trainers read it: the files' names and types are those that each project documents."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pyarrow.parquet as pq
import pytest
import yaml
from test_cli import Command
from test_cli import tunesift as tunesift  # a fixture, which pytest finds by this name

from harness.tiny import MakeTiny
from tunesift import (
    SFT,
    CannotCreate,
    DataError,
    LoRA,
    ModelError,
    RecipeError,
    RunError,
    StorageError,
    read_dataset,
    recipe_for,
    run_recipe,
)
from tunesift.export import Exported, export
from tunesift.export_rows import Rows
from tunesift.export_settings import CALLED
from tunesift.models.folders import tokenizer
from tunesift.models.transformers import TransformersModel
from tunesift.models.turns import Encoded, Encoder
from tunesift.prompts import Template, fill
from tunesift.recipe import as_json
from tunesift.running.fsio import read_json, write_json

TARGETS = ("llama-factory", "axolotl", "trl")
ROWS: list[dict[str, Any]] = [
    {"id": "a", "messages": [{"role": "system", "content": "Be {brief}."}, {"role": "user", "content": "Why?"},
                             {"role": "assistant", "content": "Because: 'yes'\n# no"}]},
    {"id": "b", "messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1."},
                             {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "2 – зwei."}]},
    *({"id": f"r{n}", "messages": [{"role": "user", "content": f"Question {n}?"},
                                   {"role": "assistant", "content": f"Answer {n}."}]} for n in range(8)),
]  # fmt: skip
STUDENT = ("student.name=acme/llama", "tuner.max_length=512")

Kind = Any  # what isinstance or get_args take

COMMON: dict[str, Kind] = {
    "gradient_accumulation_steps": int, "learning_rate": float, "weight_decay": float, "save_strategy": Literal["steps"],
    "save_steps": int, "save_total_limit": int, "logging_steps": int, "output_dir": str, "seed": int, "max_steps": int,
    "eval_strategy": Literal["steps", "no"], "eval_steps": int,
}  # fmt: skip
SCHEDULER = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]
TRANSFORMERS: dict[str, Kind] = COMMON | {
    "num_train_epochs": float, "per_device_train_batch_size": int, "per_device_eval_batch_size": int, "data_seed": int,
    "lr_scheduler_type": SCHEDULER, "optim": Literal["adamw_torch", "adamw_torch_fused"], "bf16": bool,
    "report_to": Literal["none", "all", "wandb"], "model_name_or_path": str, "model_revision": str,
}  # fmt: skip
SCHEMAS: Mapping[str, dict[str, Kind]] = {
    # llamafactory/hparams: ModelArguments, DataArguments, FinetuningArguments; TrainingArguments of transformers
    "llama-factory": TRANSFORMERS | {
        "stage": Literal["pt", "sft", "rm", "ppo", "dpo", "kto"], "do_train": bool,
        "finetuning_type": Literal["lora", "oft", "freeze", "full"], "lora_rank": int, "lora_alpha": int,
        "lora_dropout": float, "lora_target": str, "template": str, "dataset": str, "eval_dataset": str,
        "dataset_dir": str, "cutoff_len": int, "train_on_prompt": bool, "mask_history": bool, "packing": bool,
        "neat_packing": bool, "flash_attn": Literal["auto", "disabled", "sdpa", "fa2"],
        "disable_gradient_checkpointing": bool, "warmup_steps": int,
    },
    # axolotl/utils/schemas: config, datasets, model, peft, training
    "axolotl": COMMON | {
        "base_model": str, "revision_of_model": str, "datasets": list, "test_datasets": list,
        "dataset_prepared_path": str, "train_on_inputs": bool, "sequence_len": int, "sample_packing": bool,
        "eval_sample_packing": bool, "attn_implementation": str, "adapter": Literal["lora", "qlora"], "lora_r": int,
        "lora_alpha": int, "lora_dropout": float, "lora_target_modules": list, "lora_target_linear": bool,
        "num_epochs": float, "micro_batch_size": int, "lr_scheduler": SCHEDULER, "warmup_ratio": float,
        "optimizer": Literal["adamw_torch", "adamw_torch_fused", "adamw_8bit"], "bf16": Literal["auto"] | bool,
        "gradient_checkpointing": bool,
    },
    # trl: SFTConfig, ModelConfig, ScriptArguments
    "trl": TRANSFORMERS | {
        "dtype": Literal["auto", "float32", "bfloat16", "float16"], "attn_implementation": str, "use_peft": bool,
        "lora_r": int, "lora_alpha": int, "lora_dropout": float, "lora_target_modules": list, "dataset_name": str,
        "dataset_train_split": str, "dataset_test_split": str, "completion_only_loss": bool,
        "max_length": int | None, "packing": bool, "eval_packing": bool, "warmup_steps": float,
        "gradient_checkpointing": bool,
    },
}  # fmt: skip
"""By trainer, the settings that its documentation has, as far as a tuning by tunesift could need them."""
NEEDED: Mapping[str, set[str]] = {
    "llama-factory": {"model_name_or_path", "stage", "do_train", "finetuning_type", "dataset", "dataset_dir",
                      "cutoff_len", "output_dir"},
    "axolotl": {"base_model", "datasets", "sequence_len", "micro_batch_size", "gradient_accumulation_steps",
                "learning_rate", "output_dir"},
    "trl": {"model_name_or_path", "dataset_name", "output_dir"},
}  # fmt: skip
AXOLOTL_DATA: dict[str, Kind] = {
    "path": str, "ds_type": Literal["json"], "split": str, "type": Literal["chat_template", "input_output"],
    "chat_template": Literal["tokenizer_default"], "field_messages": str, "message_property_mappings": dict,
    "roles_to_train": list, "message_field_training": str, "train_on_eos": Literal["all", "turn", "last"],
}  # fmt: skip


def fits(value: object, kind: Kind) -> bool:
    """Whether a value is of a documented type; a whole number is no truth, and a fraction no whole number."""
    if get_origin(kind) is Literal:
        return value in get_args(kind) and not isinstance(value, bool)
    if isinstance(kind, types.UnionType) or get_args(kind):
        return any(fits(value, one) for one in get_args(kind))
    return value is None if kind is type(None) else type(value) is kind


def check(found: Mapping[str, object], schema: Mapping[str, Kind], needed: set[str]) -> None:
    assert needed <= found.keys()
    assert not {name: value for name, value in found.items() if name not in schema or not fits(value, schema[name])}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def settings(done: Exported) -> dict[str, Any]:
    return dict(yaml.safe_load((done.folder / done.settings).read_text("utf-8")))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def selected(input: Path, *words: str) -> Path:
    """The folder of a run that keeps every record that has a score."""
    kept = input.with_name(f"{input.stem}-kept.jsonl")
    said = ["scorer.student.kind=scripted", "keep=100%", "keep.below=null", *words]
    return run_recipe(recipe_for("select", input, kept, said)).folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a selection that kept ten conversations."""
    path = tmp_path / "talks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return selected(path)


@pytest.fixture
def tuned(run: Path) -> Path:
    """The folder of a run of `tune` as it would be over these records: three held out, one too long."""
    words = ["student.name=acme/llama", "tuner.max_length=300", "tuner.held_out=0.34", "tuner.learning_rate=1e-4"]
    tune = recipe_for("tune", run.parent / "talks.jsonl", run.parent / "model", words)
    begun = read_json(run / "run.json")
    write_json(run / "run.json", begun | {"recipe": as_json(tune)})
    table = pq.read_table(run / "decisions.parquet")
    rows = table.to_pylist()
    for row, reason in zip(rows, ["held out: its loss is measured"] * 3 + ["trained on"] * 7, strict=True):
        row["reason"] = reason
    rows[-1] |= {"action": "drop", "reason": "too long: 400 tokens, the limit is 300"}
    pq.write_table(table.from_pylist(rows, schema=table.schema), run / "decisions.parquet")
    return run


def conversations(done: Exported) -> dict[str, list[dict[str, str]]]:
    """By id, the messages of an export, as the trainer that it is for puts them together."""
    found = {}
    for path in sorted(done.folder.rglob("*.json*")):
        if path.name in ("dataset_info.json", "left_out.jsonl"):
            continue
        rows = json.loads(path.read_text("utf-8")) if path.suffix == ".json" else lines(path)
        for row in rows:
            turns = row.get("messages") or [*row["prompt"], *row["completion"]]
            found[row["id"]] = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    return found


@pytest.mark.parametrize("more", [(), ("tuner.held_out=0.3", "tuner.lora.rank=4"), ("tuner.steps=7", "tuner.packing=true"),
                                  ("tuner.lora.targets=[q_proj]", "student.revision=abc")])  # fmt: skip
@pytest.mark.parametrize("to", TARGETS)
def test_every_setting_has_a_documented_name_and_type(
    run: Path, tmp_path: Path, to: str, more: tuple[str, ...]
) -> None:
    found = settings(export(run, tmp_path / "out", to, [*STUDENT, *more]))
    check(found, SCHEMAS[to], NEEDED[to])
    for data in found.get("datasets", []) + found.get("test_datasets", []):
        check(data, AXOLOTL_DATA, {"path", "type"})
        assert (tmp_path / "out" / data["path"]).is_file()


def test_the_checks_of_types_can_fail() -> None:
    assert not fits(True, int)
    assert not fits(1, float)
    assert not fits(2, bool)
    assert not fits("yes", Literal["auto"] | bool)
    assert fits(True, Literal["auto"] | bool)


@pytest.mark.parametrize("to", TARGETS)
def test_conversations_are_written_message_for_message(run: Path, tmp_path: Path, to: str) -> None:
    done = export(run, tmp_path / "out", to, [*STUDENT, "tuner.held_out=0.3"])
    assert conversations(done) == {row["id"]: row["messages"] for row in ROWS}
    assert (done.records, done.held_out, done.left_out) == (7, 3, {})


def test_the_registry_says_what_the_files_are(run: Path, tmp_path: Path) -> None:
    done = export(run, tmp_path / "out", "llama-factory", [*STUDENT, "tuner.held_out=0.3"])
    info, found = json.loads((done.folder / "dataset_info.json").read_text()), settings(done)
    assert [found["dataset"], found["eval_dataset"]] == list(info) == ["talks-kept", "talks-kept_held_out"]
    for entry in info.values():
        assert entry["formatting"] in ("alpaca", "sharegpt")
        (row, *_) = json.loads((done.folder / entry["file_name"]).read_text())
        turn, tags = row[entry["columns"]["messages"]][-1], entry["tags"]
        assert turn[tags["role_tag"]] == tags["assistant_tag"] == "assistant"
        assert turn[tags["content_tag"]]
    assert found["dataset_dir"] == "."
    assert found["mask_history"] is True


def test_only_the_last_response_is_trained_on(run: Path, tmp_path: Path) -> None:
    done = export(run, tmp_path / "out", "axolotl", STUDENT)
    (data,) = settings(done)["datasets"]
    row = next(row for row in lines(done.folder / data["path"]) if row["id"] == "b")
    assert [turn[data["message_field_training"]] for turn in row["messages"]] == [False, False, False, True]
    done = export(run, tmp_path / "trl", "trl", STUDENT)
    row = next(row for row in lines(done.folder / "talks-kept" / "train.jsonl") if row["id"] == "b")
    assert [turn["content"] for turn in row["completion"]] == ["2 – зwei."]


FLIPS = {
    "template": "alpaca", "epochs": 2, "steps": 5, "batch": 64, "learning_rate": 1e-3, "schedule": "linear",
    "warm_up": 0.9, "weight_decay": 0.01, "max_length": 300, "packing": True, "lora": {}, "precision": "float32",
    "held_out": 0.2, "seed": 3, "device_batch": 4, "gradient_checkpointing": False, "save_every": 10,
}  # fmt: skip
LORA_FLIPS = {"rank": 3, "alpha": 5, "dropout": 0.5, "targets": ["q_proj"], "merged": True}
STUDENT_FLIPS = {"name": "acme/other", "revision": "abc", "dtype": "bfloat16", "device": "cuda:1"}
"""Without what matters to losses only: the tokens of a batch, and the limit, which here the tuner says."""


@pytest.mark.parametrize("to", TARGETS)
def test_no_setting_is_dropped_in_silence(run: Path, tmp_path: Path, make_tiny: MakeTiny, to: str) -> None:
    """Another value of a setting is another file, or is named as what has no counterpart."""
    assert FLIPS.keys() | {"kind"} == {f.name for f in dataclasses.fields(SFT)}
    assert LORA_FLIPS.keys() == {f.name for f in dataclasses.fields(LoRA)}
    left = {"kind", "max_length", "batch_tokens"}
    assert STUDENT_FLIPS.keys() | left == {f.name for f in dataclasses.fields(TransformersModel)}
    own = [f"student.name={make_tiny()}", "tuner.max_length=200"]
    plain = everything(export(run, tmp_path / "plain", to, own).folder)
    with_lora = everything(export(run, tmp_path / "lora", to, [*own, "tuner.lora={}"]).folder)
    flips = [(f"tuner.{name}", value, plain) for name, value in FLIPS.items()]
    flips += [(f"tuner.lora.{name}", value, with_lora) for name, value in LORA_FLIPS.items()]
    flips += [(f"student.{name}", value, plain) for name, value in STUDENT_FLIPS.items()]
    for name, value, before in flips:
        said = [word for word in own if not word.startswith(f"{name}=")]
        words = [*said, *(["tuner.lora={}"] if before is with_lora else []), f"{name}={json.dumps(value)}"]
        after = everything(export(run, tmp_path / name, to, words).folder)
        assert after != before, name


@pytest.mark.parametrize(("to", "word", "name", "value"), [
    ("llama-factory", "tuner.learning_rate=3e-4", "learning_rate", 3e-4),
    ("llama-factory", "tuner.schedule=constant", "lr_scheduler_type", "constant_with_warmup"),
    ("llama-factory", "tuner.lora.targets=[q_proj,v_proj]", "lora_target", "q_proj,v_proj"),
    ("llama-factory", "tuner.gradient_checkpointing=false", "disable_gradient_checkpointing", True),
    ("llama-factory", "tuner.precision=float32", "bf16", False),
    ("llama-factory", "tuner.packing=true", "neat_packing", True),
    ("llama-factory", "tuner.warm_up=0.4", "warmup_steps", 2),
    ("llama-factory", "tuner.seed=5", "data_seed", 5),
    ("axolotl", "tuner.warm_up=0.4", "warmup_ratio", 0.4),
    ("axolotl", "tuner.lora.rank=3", "lora_r", 3),
    ("axolotl", "tuner.epochs=1.5", "num_epochs", 1.5),
    ("axolotl", "tuner.steps=9", "max_steps", 9),
    ("axolotl", "tuner.precision=auto", "bf16", "auto"),
    ("axolotl", "tuner.max_length=77", "sequence_len", 77),
    ("trl", "tuner.lora.alpha=7", "lora_alpha", 7),
    ("trl", "tuner.warm_up=1", "warmup_steps", 3),
    ("trl", "tuner.seed=5", "data_seed", 5),
    ("trl", "student.dtype=bfloat16", "dtype", "bfloat16"),
])  # fmt: skip
def test_a_setting_goes_into_the_field_that_means_it(
    run: Path, tmp_path: Path, to: str, word: str, name: str, value: object
) -> None:
    assert settings(export(run, tmp_path / "out", to, [*STUDENT, word]))[name] == value


@pytest.mark.parametrize("to", TARGETS)
def test_a_batch_is_as_large_as_it_was(run: Path, tmp_path: Path, to: str) -> None:
    found = settings(export(run, tmp_path / "out", to, [*STUDENT, "tuner.batch=12", "tuner.device_batch=5"]))
    size = found.get("micro_batch_size", found.get("per_device_train_batch_size"))
    assert (size, found["gradient_accumulation_steps"]) == (4, 3)


@pytest.mark.parametrize("to", TARGETS)
def test_a_tuning_is_exported_with_its_own_settings_and_records(tuned: Path, tmp_path: Path, to: str) -> None:
    done = export(tuned, tmp_path / "out", to)
    assert (done.records, done.held_out) == (6, 3)
    assert conversations(done).keys() == {row["id"] for row in ROWS[:9]}
    found = settings(done)
    assert found["learning_rate"] == 1e-4
    assert found.get("cutoff_len", found.get("sequence_len", found.get("max_length"))) == 300
    assert found["eval_strategy"] == "steps"
    aside = {"llama-factory": "talks_held_out.json", "axolotl": "talks_held_out.jsonl", "trl": "talks/test.jsonl"}[to]
    assert all(f'"id":"{row["id"]}"' in (done.folder / aside).read_text() for row in ROWS[:3])


@pytest.mark.slow
def test_a_real_tuning_is_exported_as_it_was_done(run: Path, tmp_path: Path, make_tiny: MakeTiny) -> None:
    """Trained on and held out are those that its report names; what it left out is in no file."""
    pytest.importorskip("trl", reason='needs the "train" extra')
    long = {
        "id": "long",
        "messages": [{"role": "user", "content": "long " * 80}, {"role": "assistant", "content": "A"}],
    }
    (run.parent / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, long]))
    words = [f"student.name={make_tiny(length=128)}", "tuner.steps=1", "tuner.held_out=0.3", "tuner.device_batch=2"]
    tune = run_recipe(recipe_for("tune", run.parent / "talks.jsonl", tmp_path / "model", words))
    done = export(tune.folder, tmp_path / "out", "trl")
    assert (done.records, done.held_out) == (7, 3)
    decided = {row["record_id"]: row["reason"] for row in pq.read_table(tune.folder / "decisions.parquet").to_pylist()}
    for name, reason in (("train", "trained on"), ("test", "held out: its loss is measured")):
        ids = [row["id"] for row in lines(done.folder / "talks" / f"{name}.jsonl")]
        assert ids == [id for id, why in decided.items() if why == reason]
    assert settings(done)["max_length"] == 128


def test_what_a_method_wrote_is_exported_in_place_of_what_it_read(run: Path, tmp_path: Path) -> None:
    replies = {"kind": "scripted", "otherwise": "1. Too short.\n2. [Better Answer] A better answer altogether. [End]"}
    words = [f"teacher={json.dumps(replies)}", "halves=response"]
    made = run_recipe(recipe_for("reflection", run.parent / "talks.jsonl", tmp_path / "better.jsonl", words))
    done = export(made.folder, tmp_path / "out", "axolotl", STUDENT)
    output = {r.id: [m.text for m in r.messages] for r in read_dataset(tmp_path / "better.jsonl")}
    written = {id.partition("~")[0]: [turn["content"] for turn in turns] for id, turns in conversations(done).items()}
    assert written == output
    assert written["r3"] == ["Question 3?", "A better answer altogether."]


def test_the_student_of_a_selection_is_the_one_that_is_tuned(run: Path, tmp_path: Path) -> None:
    cherry = recipe_for("cherry", run.parent / "talks.jsonl", run.parent / "c.jsonl", ["student.name=acme/llama"])
    write_json(run / "run.json", read_json(run / "run.json") | {"recipe": as_json(cherry)})
    done = export(run, tmp_path / "out", "trl")
    assert (settings(done)["model_name_or_path"], settings(done)["max_length"]) == ("acme/llama", None)
    other = export(run, tmp_path / "other", "trl", ["student.name=acme/other"])
    assert settings(other)["model_name_or_path"] == "acme/other"


@pytest.mark.parametrize("name", ["run.json", "decisions.parquet", "inputs/source.json", "inputs/records.arrow"])
def test_a_damaged_run_is_a_sentence(run: Path, tmp_path: Path, name: str) -> None:
    (run / name).write_bytes((run / name).read_bytes()[:-40])
    with pytest.raises(StorageError):
        export(run, tmp_path / "out", "trl", STUDENT)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", TARGETS)
def test_the_held_out_loss_is_measured_twenty_times(run: Path, tmp_path: Path, to: str) -> None:
    done = export(run, tmp_path / "out", to, [*STUDENT, "tuner.held_out=0.2", "tuner.steps=100"])
    assert settings(done)["eval_steps"] == 5


def test_a_held_out_record_that_cannot_be_written_is_left_out(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rows, "refused", lambda _, record: "the record is odd" if record.id == "a" else "")
    done = export(tuned, tmp_path / "out", "trl")
    assert (done.records, done.held_out, done.left_out) == (6, 2, {"the record is odd": 1})
    assert [row["id"] for row in lines(done.folder / "talks" / "test.jsonl")] == ["b", "r0"]


def test_another_student_of_a_tuning_may_be_named_but_not_other_records(tuned: Path, tmp_path: Path) -> None:
    done = export(tuned, tmp_path / "out", "trl", ["student.name=acme/there", "tuner.epochs=1.0"])
    assert (settings(done)["model_name_or_path"], settings(done)["num_train_epochs"]) == ("acme/there", 1.0)
    with pytest.raises(RecipeError, match="which records the run held out"):
        export(tuned, tmp_path / "other", "trl", ["tuner.held_out=0.5"])


ALPACA = ("Below is an instruction that describes a task, paired with an input that provides further context. "
          "Write a response that appropriately completes the request.\n\n### Instruction:\n{i}\n\n### Input:\n{x}\n\n"
          "### Response:")  # fmt: skip


def test_a_fixed_template_is_written_as_texts_that_the_trainer_adds_nothing_to(
    tmp_path: Path, make_tiny: MakeTiny
) -> None:
    """LLaMA-Factory's `empty` and axolotl's `input_output` add no token; TRL adds BOS and EOS to a text itself."""
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "x", "instruction": "Add {up}.", "input": "1 2", "output": "3"}) + "\n")
    run, words = selected(path), [f"student.name={make_tiny()}", "tuner.template=alpaca"]
    text = fill(ALPACA, i="Add {up}.", x="1 2")
    done = export(run, tmp_path / "lf", "llama-factory", words)
    (entry,) = json.loads((done.folder / "dataset_info.json").read_text()).values()
    (row,) = json.loads((done.folder / entry["file_name"]).read_text())
    assert entry["formatting"] == "alpaca"
    assert settings(done)["template"] == "empty"
    told = [row[entry["columns"][name]] for name in ("prompt", "response")]
    assert told == [f"<s>{text}", "3</s>"]
    (row,) = lines(export(run, tmp_path / "ax", "axolotl", words).folder / "a-kept.jsonl")
    assert row["segments"] == [{"label": False, "text": f"<s>{text}"}, {"label": True, "text": "3</s>"}]
    (row,) = lines(export(run, tmp_path / "trl", "trl", words).folder / "a-kept" / "train.jsonl")
    assert (row["prompt"], row["completion"]) == (text, "3")
    written = settings(export(run, tmp_path / "ax2", "axolotl", words))["datasets"]
    assert written == [{"path": "a-kept.jsonl", "ds_type": "json", "split": "train", "type": "input_output"}]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("template", ["alpaca", "vicuna", "bare"])
def test_the_tokens_of_written_texts_are_those_that_tune_trains_on(
    run: Path, tmp_path: Path, make_tiny: MakeTiny, template: Template, kind: str
) -> None:
    """axolotl and LLaMA-Factory read each text by itself, and add no token."""
    folder = str(make_tiny(kind))
    words = [f"student.name={folder}", f"tuner.template={template}"]
    read, encode = tokenizer(folder), Encoder(tokenizer(folder), template)
    texts = {}
    for row in lines(export(run, tmp_path / "ax", "axolotl", words).folder / "talks-kept.jsonl"):
        texts[row["id"]] = [segment["text"] for segment in row["segments"]]
    for row in json.loads(
        (export(run, tmp_path / "lf", "llama-factory", words).folder / "talks-kept.json").read_text()
    ):
        assert texts[row["id"]] == [row["instruction"], row["output"]]
    for record in read_dataset(run.with_suffix("")):
        prompt, response = (read(text, add_special_tokens=False)["input_ids"] for text in texts[record.id])
        assert encode(record) == Encoded((*prompt, *response), len(prompt))


def test_a_bos_that_the_tokenizer_does_not_add_is_not_written(tmp_path: Path, make_tiny: MakeTiny) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "x", "instruction": "Hi", "output": "Ho"}) + "\n")
    words = [f"student.name={make_tiny('gpt2')}", "tuner.template=bare"]
    (row,) = lines(export(selected(path), tmp_path / "ax", "axolotl", words).folder / "a-kept.jsonl")
    assert [segment["text"] for segment in row["segments"]] == ["Hi\n", "Ho</s>"]


def test_what_cannot_be_written_is_counted_and_named_by_its_id(tmp_path: Path, tunesift: Command) -> None:
    path = tmp_path / "mixed.jsonl"
    called = [{"from": "human", "value": "Sum?"}, {"from": "function_call", "value": "add"},
              {"from": "observation", "value": "3"}, {"from": "gpt", "value": "3"}]  # fmt: skip
    twice = [{"from": "human", "value": "Hm."}, {"from": "human", "value": "Well?"}, {"from": "gpt", "value": "Yes."}]
    rows = [{"id": "ok", "conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
            {"id": "tools", "conversations": called}, {"id": "twice", "conversations": twice}]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = selected(path, "turns=accept")
    done = export(run, tmp_path / "lf", "llama-factory", STUDENT)
    assert done.records == 1
    assert [(row["id"], row["reason"][:20]) for row in lines(done.folder / "left_out.jsonl")] == [
        ("tools", "the record uses tool"), ("twice", "the turns are not us")]  # fmt: skip
    assert "1 record to train on, 2 left out" in (done.folder / "README.txt").read_text()
    told = tunesift("export", str(run), "-o", str(tmp_path / "trl"), "--to", "trl", *STUDENT)
    assert "2 records to train on, 1 left out\n  1 left out: the record uses tools" in told.out


PAIRS = [
    {"id": f"p{n}", "prompt": f"Question {n}?", "chosen": f"A good answer {n}.", "rejected": "No."} for n in range(3)
]


@pytest.mark.parametrize("to", ["llama-factory", "axolotl", "trl"])
def test_of_preference_pairs_it_is_told_that_the_chosen_answer_alone_is_written(tmp_path: Path, to: str) -> None:
    """Where they come as records, nothing is said."""
    told = "the records are preference pairs: the chosen answer is trained on, the rejected one is not written"
    for name, rows in (("pairs", PAIRS), ("rows", [{"instruction": "Q?", "output": "A."}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = export(selected(tmp_path / f"{name}.jsonl"), tmp_path / f"{name}-out", to, STUDENT)
        assert (told in done.differences) == (name == "pairs")
        assert (told in (done.folder / "README.txt").read_text()) == (name == "pairs")


def test_the_command_tells_what_it_wrote_and_what_has_no_counterpart(
    run: Path, tmp_path: Path, tunesift: Command
) -> None:
    words = ("export", str(run), "-o", str(tmp_path / "out"), "--to", "axolotl", *STUDENT)
    told = tunesift(*words)
    assert "student.dtype=float32: has no counterpart" in told.out
    assert told.out.endswith("start it there: axolotl train config.yaml\n")
    readme = (tmp_path / "out" / "README.txt").read_text()
    for sentence in told.out.splitlines()[1:-1]:
        assert sentence.strip() in readme
    said = tunesift("export", str(run), "-o", str(tmp_path / "two"), "--to", "trl", *STUDENT, "--json").json
    assert (said["folder"], said["records"]) == (str(tmp_path / "two"), 10)
    assert sorted(said["files"]) == sorted(everything(tmp_path / "two"))


def test_a_local_student_is_named_by_its_absolute_folder(
    run: Path, tmp_path: Path, make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_tiny(length=128)
    monkeypatch.chdir(folder.parent)
    found = settings(export(run, tmp_path / "out", "axolotl", [f"student.name={folder.name}"]))
    assert (found["base_model"], found["sequence_len"]) == (str(folder), 128)


def test_a_folder_can_be_moved(run: Path, tmp_path: Path) -> None:
    """No file names the folder, or the machine's own paths."""
    for to in TARGETS:
        done = export(run, tmp_path / to, to, [*STUDENT, "tuner.held_out=0.3"])
        assert not [name for name, content in everything(done.folder).items() if str(tmp_path).encode() in content]


def test_what_is_wrong_is_a_sentence(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cases: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (RecipeError, '"unsloth" is no trainer', lambda: export(run, out, "unsloth", STUDENT)),
        (RecipeError, "student.name: is not given", lambda: export(run, out, "trl")),
        (RecipeError, "tuner.max_length: is not given", lambda: export(run, out, "axolotl", STUDENT[:1])),
        (RecipeError, '"keep=5%" is no setting of a training', lambda: export(run, out, "trl", ["keep=5%"])),
        (RecipeError, "epochs", lambda: export(run, out, "trl", [*STUDENT, "tuner.epochs=0"])),
        (RecipeError, "tuner.ranks", lambda: export(run, out, "trl", [*STUDENT, "tuner.ranks=1"])),
        (CannotCreate, "exists already", lambda: export(run, run, "trl", STUDENT)),
        (DataError, "there is no such folder", lambda: export(tmp_path / "nowhere", out, "trl", STUDENT)),
        (DataError, "is not a run's folder", lambda: export(tmp_path, out, "trl", STUDENT)),
        (ModelError, "is not there", lambda: export(run, out, "trl", ["student.name=/nowhere/llama"])),
    ]
    for kind, words, call in cases:
        with pytest.raises(kind, match=words):
            call()
        assert not out.exists()
    (run / "result.json").unlink()
    with pytest.raises(RunError, match="is not complete"):
        export(run, out, "trl", STUDENT)


def test_adapters_are_no_student(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapters"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "acme/llama"}))
    with pytest.raises(RecipeError, match="holds adapters"):
        export(run, tmp_path / "out", "trl", [f"student.name={folder}", *STUDENT[1:]])


def test_a_run_that_kept_nothing_is_not_exported(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "x", "instruction": "Hi", "output": "Ho"}) + "\n")
    with pytest.raises(DataError, match="it kept none"):
        export(selected(path, "keep.below=0.0001"), tmp_path / "out", "trl", STUDENT)


def test_nothing_is_left_where_writing_fails(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tunesift.export.sync", full)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(RunError, match="make room"):
        export(run, tmp_path / "out", "trl", STUDENT)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("to", TARGETS)
@pytest.mark.parametrize("name", ["alpaca/alpaca_sample.json", "multi_turn/sharegpt_zh.jsonl", "lima/lima.json"])
def test_real_records_are_exported_message_for_message(shared: Path, tmp_path: Path, name: str, to: str) -> None:
    input = tmp_path / Path(name).name
    input.symlink_to(shared / name)
    run = selected(input, "limit=400")
    kept = read_dataset(input.with_name(f"{input.stem}-kept.jsonl"))
    done = export(run, tmp_path / "out", to, [*STUDENT, "tuner.held_out=0.1"])
    left = {row["id"] for row in lines(done.folder / "left_out.jsonl")} if done.left_out else set()
    expected = {r.id: [{"role": m.role, "content": m.text} for m in r.messages] for r in kept if r.id not in left}
    assert conversations(done) == expected
    assert len(expected) == done.records + done.held_out > 0.9 * len(kept)
    assert CALLED[to] in (done.folder / "README.txt").read_text()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("template", ["chat", "alpaca"])
def test_trl_reads_its_settings_and_trains_a_step(
    run: Path, tmp_path: Path, make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    """TRL's own parser and types, its own check of what a conversation is, and one update of a tiny Llama."""
    pytest.importorskip("trl", reason='needs the "train" extra')
    from datasets import load_dataset
    from trl import SFTTrainer, get_peft_config
    from trl.data_utils import is_conversational
    from trl.scripts.sft import make_parser

    words = [f"student.name={make_tiny()}", f"tuner.template={template}", "tuner.steps=1", "tuner.batch=4",
             "tuner.held_out=0.3", "tuner.lora.rank=2", "tuner.precision=float32"]  # fmt: skip
    done = export(run, tmp_path / "out", "trl", words)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(done.folder)
    script, args, model, _ = make_parser().parse_args_and_config(["--config", "sft.yaml"], fail_with_unknown_args=True)
    data = load_dataset(script.dataset_name, cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in data.items()} == {"train": 7, "test": 3}
    assert is_conversational(data["train"][0]) is (template == "chat")
    args.use_cpu = True
    trainer = SFTTrainer(
        model=model.model_name_or_path,
        args=args,
        train_dataset=data[script.dataset_train_split],
        eval_dataset=data[script.dataset_test_split],
        peft_config=get_peft_config(model),
    )
    encode = Encoder(tokenizer(model.model_name_or_path), template)  # type: ignore[arg-type]
    records = {record.id: record for record in read_dataset(run.with_suffix(""))}
    for row, said in zip(data["train"], trainer.train_dataset, strict=True):
        ours = encode(records[row["id"]])
        assert isinstance(ours, Encoded)
        assert tuple(said["input_ids"]) == ours.ids
        assert said["labels"] == [-100] * ours.start + list(ours.ids[ours.start :])
    trainer.train()
    assert trainer.state.global_step == 1
