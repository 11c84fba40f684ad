"""What can be trained of a student: how long a record may be, by settings and files, and which settings are none."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.preferring import pairs
from harness.tiny import MakeTiny
from harness.training import here, letters
from tunesift import DPO, SFT, Dataset, LoRA, Message, Record, RewardTuner, TransformersModel
from tunesift.errors import ModelUnavailable, RecipeError
from tunesift.methods.tune import MeasureTokens
from tunesift.models.folders import context_of, local_folder, tokenizer
from tunesift.tuning.base import Training
from tunesift.tuning.student import limit_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model that reads 8,192 tokens, by its config.json."""
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"max_position_embeddings": 8192}))
    return place


@pytest.mark.parametrize(("asked", "of_student", "limit"), [
    (None, None, 2048),
    (None, 4096, 4096),
    (4096, None, 4096),  # what is asked for is read, beyond the 2,048 of a student of which nothing is said
    (4096, 1024, 1024),
    (512, 4096, 512),
    (10_000, None, 8192),
])  # fmt: skip
def test_a_record_may_be_as_long_as_is_asked_for_where_the_model_reads_it(
    folder: Path, asked: int | None, of_student: int | None, limit: int
) -> None:
    student = TransformersModel(name=str(folder), max_length=of_student)
    assert limit_of(student, SFT(max_length=asked)) == limit


def test_a_hubs_copy_on_this_machine_says_how_much_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason='needs the "local" extra')
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for revision, tokens in (("one", 1024), ("two", 512)):
        copy = tmp_path / "models--me--tiny/snapshots" / revision
        copy.mkdir(parents=True)
        (copy / "config.json").write_text(json.dumps({"max_position_embeddings": tokens}))
    student = TransformersModel(name="me/tiny", revision="one")
    assert limit_of(student, SFT()) == 1024
    assert limit_of(replace(student, revision="two"), SFT(max_length=600)) == 512
    assert context_of("me/tiny") is None  # of its main branch there is nothing
    assert limit_of(TransformersModel(name="me/other"), SFT()) is None
    assert limit_of(TransformersModel(name="me/other"), SFT(max_length=600)) == 600


def test_a_model_that_names_no_length_is_trained_on_what_it_is_asked_with(folder: Path) -> None:
    """Bloom's config.json has none."""
    (folder / "config.json").write_text(json.dumps({"model_type": "bloom"}))
    student = TransformersModel(name=str(folder))
    assert limit_of(student, SFT()) == 2048
    assert limit_of(replace(student, max_length=4096), SFT()) == 4096
    assert limit_of(student, SFT(max_length=4096)) == 4096


@pytest.mark.parametrize("tuner", [
    SFT(template="alpaca", steps=1, batch=3),
    DPO(template="alpaca", steps=1, batch=3),
    DPO(template="alpaca", steps=1, batch=3, weighted=True),
    RewardTuner(template="alpaca", steps=1, batch=4, device_batch=4, held_out=0.0),
], ids=["sft", "dpo", "weighted", "reward"])  # fmt: skip
def test_nothing_is_padded_with_a_token_that_the_model_does_not_have(
    tuner: Training, make_tiny: MakeTiny, tmp_path: Path
) -> None:
    """One that was added to the tokenizer, and to no weights."""
    transformers = pytest.importorskip("transformers", reason='needs the "local" extra')
    pytest.importorskip("trl", reason='needs the "train" extra')
    place = make_tiny(length=1024)
    words = transformers.AutoTokenizer.from_pretrained(place)
    words.add_special_tokens({"pad_token": "[PAD]", "unk_token": "[UNK]"})
    words.save_pretrained(place)
    data: Dataset[Any] = (
        letters(6) if isinstance(tuner, SFT) else Dataset.of(replace(pair, extra={"weight": 1.0}) for pair in pairs(6))
    )
    told = here(tmp_path, place, replace(tuner, gradient_checkpointing=False), data)
    assert told.steps == 1
    left = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert left.pad_token_id < 264  # who loads the model pads with it, too


def test_a_tokenizer_is_read_from_the_commit_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the main branch there is nothing on this machine, and nobody is asked for it."""
    constants = pytest.importorskip("huggingface_hub.constants", reason='needs the "local" extra')
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = local_folder("embedded")
    assert folder is not None
    copy = tmp_path / "models--me--tiny/snapshots/one"
    copy.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, copy)
    record = Record("a", (Message("user", "Say it"), Message("assistant", "It is said.")))
    scores = [
        MeasureTokens(student=student, template="alpaca", most=None)([record])[0]
        for student in (TransformersModel(name="me/tiny", revision="one"), TransformersModel())
    ]
    assert scores[0] == scores[1]
    with pytest.raises(ModelUnavailable, match="me/tiny"):
        tokenizer("me/tiny")


@pytest.mark.parametrize(("settings", "said"), [
    ({"batch": -1}, "tuner.batch: -1 is not 1 or more; write 128."),
    ({"device_batch": 0}, "tuner.device_batch: 0 is not 1 or more; write 8."),
    ({"save_every": 0}, "tuner.save_every: 0 is not 1 or more; write 200."),
    ({"steps": 0}, "tuner.steps: 0 is not 1 or more; write 200, or null for epochs."),
    ({"max_length": 0}, "tuner.max_length: 0 is not 1 or more; write 1024, or null."),
    ({"epochs": 0.0}, "tuner.epochs: 0 is not above 0; write 3."),
    ({"learning_rate": -1e-5}, "tuner.learning_rate: -1e-05 is not above 0; write 2e-5."),
    ({"weight_decay": -0.1}, "tuner.weight_decay: -0.1 is below 0; write 0."),
    ({"warm_up": 100.0}, "tuner.warm_up: 100 is no share of all updates; write 0.03."),
    ({"held_out": 1.0}, "tuner.held_out: 1 is no share; write a number from 0 to below 1."),
    ({"seed": -1}, "tuner.seed: -1 is not from 0 to 4,294,967,295; write 0."),
    ({"seed": 2**32}, "tuner.seed: 4294967296 is not from 0 to 4,294,967,295; write 0."),
])  # fmt: skip
def test_a_setting_that_is_none_says_its_name_its_value_and_one_that_is(settings: dict[str, float], said: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        SFT(**settings)  # type: ignore[arg-type]  # of each field's own type
    assert str(refusal.value) == said


@pytest.mark.parametrize(("settings", "said"), [
    ({"rank": 0}, "tuner.lora.rank: 0 is not 1 or more; write 16."),
    ({"alpha": 0}, "tuner.lora.alpha: 0 is not 1 or more; write 32."),
    ({"dropout": 1.0}, "tuner.lora.dropout: 1 is no share; write a number from 0 to below 1."),
])  # fmt: skip
def test_so_does_one_of_adapters(settings: dict[str, float], said: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        LoRA(**settings)  # type: ignore[arg-type]  # the same
    assert str(refusal.value) == said
