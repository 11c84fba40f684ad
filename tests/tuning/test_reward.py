"""Reward models with a head for quality and one for length: what is learned, what is left, and what is not lost."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.preferring import pair, pairs, preferences
from harness.tiny import MakeTiny
from harness.training import CHATML, THINKING, here, student
from tunesift import Dataset, LoRA, Message, RecipeError, RewardClassifier, RewardTuner, TransformersModel, TuningError

pytest.importorskip("trl", reason='needs the "train" extra')

import torch

from tunesift.records import Failure
from tunesift.running.sealing import sealed
from tunesift.tuning import reward_trainer
from tunesift.tuning.reward_best import Best, judged
from tunesift.tuning.reward_losses import normalised
from tunesift.tuning.reward_trainer import RewardLearner, classifier_of, export, new_head
from tunesift.tuning.trainer import Job

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("FutureWarning", "DeprecationWarning", "UserWarning")
]
QUICK = RewardTuner(template="alpaca", steps=4, epochs=1.0, batch=8, device_batch=8, learning_rate=1e-3, schedule="constant",
                    held_out=0.0, gradient_checkpointing=False)  # fmt: skip


def weights(folder: Path) -> dict[str, Any]:  # Any: tensors
    from safetensors.torch import load_file

    return dict(load_file(str(folder / "model.safetensors")))


def loaded(folder: Path) -> Any:  # Any: transformers' own class
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()


def untrained(make_tiny: MakeTiny, tuner: RewardTuner = QUICK) -> tuple[Any, Any]:  # Any: transformers' own classes
    """A model with heads as a training begins with it, and its tokenizer."""
    job = Job(TransformersModel(name=str(make_tiny(length=1024)), device="cpu"), tuner, Dataset.of([]), Path())
    return RewardLearner().load(job, "cpu")


# --- oracle 4: it learns ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_oracle_4_a_tiny_model_learns_quality_apart_from_length(make_tiny: MakeTiny, tmp_path: Path) -> None:
    tuner = replace(QUICK, steps=60)
    told = here(tmp_path, make_tiny(length=1024), tuner, preferences(8))
    last = [entry for entry in told.history if "loss" in entry][-20:]
    means = {
        name: sum(entry[name] for entry in last) / 20
        for name in ("quality_corr", "length_corr", "orthogonality", "loss")
    }
    assert abs(means["quality_corr"]) < 0.1
    assert means["length_corr"] > 0.9
    assert means["orthogonality"] < 0.05
    assert means["loss"] < 0.5
    assert {entry["skipped"] for entry in last} == {0.0}


# --- oracle 7: what is left ------------------------------------------------------------------------------------------


def test_oracle_7_the_exported_model_is_column_0_of_the_trained_one(make_tiny: MakeTiny, tmp_path: Path) -> None:
    model, tokenizer = untrained(make_tiny)
    texts = ["one", "two words", "a longer text of some words", "?", "the last of five"]
    batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    with torch.no_grad():
        before = model(**batch).logits
    assert before.shape == (5, 2)
    raw = model.score.weight.detach().clone()
    export(model, QUICK, tmp_path)
    found = loaded(tmp_path)
    assert found.config.num_labels == 1
    with torch.no_grad():
        after = found(**batch).logits
    assert after.shape == (5, 1)
    assert torch.allclose(after[:, 0], before[:, 0], atol=1e-6)
    assert not torch.allclose(after[:, 0], before[:, 1], atol=1e-3)  # the order of the heads
    assert torch.equal(weights(tmp_path)["score.weight"], normalised(raw)[:1])
    assert not torch.allclose(weights(tmp_path)["score.weight"], raw[:1], atol=1e-3)  # not the raw row


def test_what_is_left_is_an_ordinary_classifier_without_heads_of_ours(make_tiny: MakeTiny, tmp_path: Path) -> None:
    here(tmp_path, make_tiny(length=1024), QUICK, preferences(16))
    names = weights(tmp_path / "model").keys()
    assert [name for name in names if "score" in name] == ["score.weight"]
    assert not [name for name in names if "parametriz" in name or "lm_head" in name]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_one_head_is_the_ordinary_reward_model(make_tiny: MakeTiny, tmp_path: Path) -> None:
    folder = make_tiny(length=1024)
    told = here(tmp_path, folder, replace(QUICK, heads=1, steps=1), preferences(8))
    job = Job(TransformersModel(name=str(folder), device="cpu"), replace(QUICK, heads=1), Dataset.of([]), Path())
    model, tokenizer = RewardLearner().load(job, "cpu")
    encode = RewardLearner().encoder(job, tokenizer)
    losses = []
    for one in pairs(8):
        row = encode(one)
        assert not isinstance(row, type(None))
        sides = [model(torch.tensor([row.columns[f"{side}_ids"]])).logits[0, 0] for side in ("chosen", "rejected")]  # type: ignore[union-attr]
        losses.append(math.log(1 + math.exp(float(sides[1] - sides[0]))))
    assert told.history[0]["loss"] == pytest.approx(sum(losses) / 8, abs=1e-4)
    assert "quality_corr" not in told.history[0]


def test_adapters_are_merged_and_the_head_is_trained(make_tiny: MakeTiny, tmp_path: Path) -> None:
    folder = make_tiny(length=1024)
    here(tmp_path, folder, replace(QUICK, lora=LoRA(rank=4, merged=True), learning_rate=1e-2), preferences(16))
    found = weights(tmp_path / "model")
    assert loaded(tmp_path / "model").config.num_labels == 1
    job = Job(TransformersModel(name=str(folder), device="cpu"), QUICK, Dataset.of([]), Path())
    begun, _ = RewardLearner().load(job, "cpu")
    assert not torch.allclose(found["score.weight"], begun.score.rows()[:1], atol=1e-4)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(found[name], begun.state_dict()[name])
    assert torch.equal(found["model.embed_tokens.weight"], begun.state_dict()["model.embed_tokens.weight"])


# --- silent failures -------------------------------------------------------------------------------------------------


def test_the_lengths_reach_the_loss(make_tiny: MakeTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that nobody reads, or that the model swallows, would train an ordinary reward model."""
    seen: list[list[int]] = []
    plain = reward_trainer.odin_loss

    def noted(rewards: Any, lengths: Any, *more: Any) -> Any:  # Any: tensors
        seen.append(lengths.tolist())
        return plain(rewards, lengths, *more)

    monkeypatch.setattr(reward_trainer, "odin_loss", noted)
    data = Dataset.of([pair(f"p{n}", "Ask.", "x" * (n + 1), "y" * (20 - n)) for n in range(8)])
    here(tmp_path, make_tiny(length=1024), replace(QUICK, steps=1), data)
    (lengths,) = seen
    assert sorted(lengths[:8]) == list(range(1, 9))  # chosen first: one token a letter, without what ends it
    assert [a + b for a, b in zip(lengths[:8], lengths[8:], strict=True)] == [21] * 8


@pytest.mark.parametrize(("field", "value"), [("lambda_length", 0.0), ("lambda_orthogonal", 0.0), ("total_corr_coef", 1.0),
                                              ("length_mode", "sequence")])  # fmt: skip
def test_every_part_of_the_loss_reaches_the_weights(
    field: str, value: object, make_tiny: MakeTiny, tmp_path: Path
) -> None:
    """Of prompts of different lengths."""
    data = Dataset.of([pair(p.id, p.prompt[0].text + " more" * (n % 3), p.chosen.text, p.rejected.text)
                       for n, p in enumerate(pairs(12))])  # fmt: skip
    tuner = replace(QUICK, steps=2, batch=6, device_batch=6)
    plain = here(tmp_path / "one", make_tiny(length=1024), tuner, data)
    other = here(tmp_path / "two", make_tiny(length=1024), replace(tuner, **{field: value}), data)  # type: ignore[arg-type]
    assert other.history[0]["loss"] != pytest.approx(plain.history[0]["loss"], abs=1e-4)


def test_batches_without_a_correlation_are_trained_on_and_counted(make_tiny: MakeTiny, tmp_path: Path) -> None:
    """Eight pairs of equal lengths, and one pair that is left of nine: NaN of either would be in all weights."""
    level = [pair(f"p{n}", "Ask.", f"{n}yes", f"{n}noo") for n in range(8)]
    tuner = replace(QUICK, steps=2)
    equal = here(tmp_path / "equal", make_tiny(length=1024), tuner, Dataset.of(level))
    alone = here(tmp_path / "alone", make_tiny(length=1024), tuner, preferences(9))
    first, second = (entry for entry in alone.history if "loss" in entry)
    for entry in (*(entry for entry in equal.history if "loss" in entry), second):
        assert entry["skipped"] == 2
        assert math.isfinite(entry["loss"])
        assert not {"quality_corr", "length_corr"} & entry.keys()
    assert first["skipped"] == 0
    for place in ("equal", "alone"):
        assert all(torch.isfinite(found).all() for found in weights(tmp_path / place / "model").values())


def test_padding_is_no_token_that_ends_a_text(make_tiny: MakeTiny) -> None:
    """Where it is, the reward is read one token too early."""
    model, tokenizer = untrained(make_tiny)
    assert tokenizer.pad_token_id == model.config.pad_token_id != tokenizer.eos_token_id
    short, long = [5, 6, 7, tokenizer.eos_token_id], [8, 9, 10, 11, 12, tokenizer.eos_token_id]
    padded = [*short, *[tokenizer.pad_token_id] * 2]
    with torch.no_grad():
        alone = model(torch.tensor([short])).logits[0]
        beside = model(torch.tensor([padded, long]), attention_mask=torch.tensor([[1] * 4 + [0] * 2, [1] * 6])).logits[
            0
        ]
        cut = model(torch.tensor([short[:-1]])).logits[0]
    assert torch.allclose(alone, beside, atol=1e-5)
    assert not torch.allclose(alone, cut, atol=1e-3)


@pytest.mark.parametrize("aside", [False, True], ids=["trained on", "held out"])
def test_a_reward_that_is_no_number_ends_the_training_and_names_its_pair(
    aside: bool, make_tiny: MakeTiny, tmp_path: Path
) -> None:
    """One pair of sixteen has a word of which the student makes NaN: in a mean it would be the loss of all."""
    from safetensors.torch import save_file

    folder = make_tiny(length=1024)
    tokenizer = untrained(make_tiny)[1]
    found = weights(folder)
    name = next(name for name in found if "embed_tokens" in name)
    found[name][tokenizer("~", add_special_tokens=False)["input_ids"][-1]] = float("nan")
    save_file(found, str(folder / "model.safetensors"), metadata={"format": "pt"})
    tuner = replace(QUICK, held_out=0.25)
    plain = list(pairs(16))
    held_out = tuner.held_out_of([one.id for one in plain])
    odd = next(one for one in plain if (one.id in held_out) == aside)
    spoilt = replace(odd, rejected=Message("assistant", f"{odd.rejected.text} ~"))
    said = f'the reward is no number for the pairs "{odd.id}"; lower tuner.learning_rate, or leave them out.'
    with pytest.raises(TuningError, match=re.escape(said)):
        here(tmp_path / "run", folder, tuner, Dataset.of([spoilt if one is odd else one for one in plain]))
    assert not (tmp_path / "run" / "model").exists()


def test_of_many_pairs_without_a_reward_some_are_named(tmp_path: Path) -> None:
    """Chosen answers stand first, then the rejected ones; either head counts."""
    rewards = torch.zeros(10, 2)
    rewards[1, 0], rewards[2:4, 1], rewards[9, 0] = float("nan"), float("-inf"), float("inf")
    with pytest.raises(TuningError, match=r'the reward is no number for the pairs "b", "c", "d" and 1 more; lower'):
        reward_trainer._check_finite(rewards, list("abcde"), tmp_path)


def test_an_empty_answer_has_the_length_0(make_tiny: MakeTiny) -> None:
    job = Job(TransformersModel(name=str(make_tiny(length=1024)), device="cpu"), QUICK, Dataset.of([]), Path())
    _, tokenizer = RewardLearner().load(job, "cpu")
    row = RewardLearner().encoder(job, tokenizer)(pair("a", "Ask.", "Yes.", ""))
    assert row.columns["rejected_len"] == 0  # type: ignore[union-attr]
    assert row.columns["rejected_ids"][-1] == tokenizer.eos_token_id  # type: ignore[union-attr]


# --- the best weights ------------------------------------------------------------------------------------------------

WATCHED = replace(QUICK, steps=10, held_out=0.25, batch=6, device_batch=6, learning_rate=3e-3)


def test_the_best_weights_are_left_and_not_the_last(
    make_tiny: MakeTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_as = iter([0.5, 0.9, 0.9, 0.7, 0.2])  # by the five looks
    offer = Best.offer
    kept: dict[int, Any] = {}

    def judged(self: Best, model: Any, step: int, accuracy: float) -> None:  # Any: transformers' own class
        kept[step] = model.score.rows()[:1].detach().clone()
        offer(self, model, step, next(told_as))

    monkeypatch.setattr(Best, "offer", judged)
    here(tmp_path, make_tiny(length=1024), WATCHED, preferences(24))
    assert sorted(kept) == [2, 4, 6, 8, 10]
    found = weights(tmp_path / "model")["score.weight"]
    assert torch.equal(found, kept[4])  # of equal ones the first
    assert not torch.equal(found, kept[10])
    said = sealed(tmp_path / "model")
    assert said is not None
    assert (said["best_step"], said["best_accuracy"]) == (4, 0.9)
    assert not list(tmp_path.glob("best-*"))


def test_weights_that_know_of_length_alone_do_not_win_where_both_kinds_count_alike() -> None:
    by_length = {"eval_accuracy": 0.75, "eval_longer_accuracy": 1.0, "eval_shorter_accuracy": 0.0}
    by_quality = {"eval_accuracy": 0.7, "eval_longer_accuracy": 0.7, "eval_shorter_accuracy": 0.7}
    assert judged(by_length, "accuracy") > judged(by_quality, "accuracy")
    assert judged(by_length, "balanced") == 0.5 < judged(by_quality, "balanced") == pytest.approx(0.7)
    assert judged({"eval_accuracy": 0.6}, "balanced") == 0.6  # all answers are equally long


def test_the_last_weights_are_left_where_that_is_asked_for(make_tiny: MakeTiny, tmp_path: Path) -> None:
    told = here(tmp_path, make_tiny(length=1024), replace(WATCHED, best_by="last"), preferences(24))
    said = sealed(tmp_path / "model")
    assert said is not None
    assert "best_step" not in said
    assert told.steps == 10


def test_accuracy_is_that_of_the_quality_head_over_all_pairs(
    make_tiny: MakeTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of heads that are opposite: the length head prefers the other answer of each pair, and both together none."""
    drawn = reward_trainer.new_head

    def opposite(causal: Any, width: int, tuner: RewardTuner) -> Any:  # Any: transformers' and torch's own classes
        head = drawn(causal, width, tuner)
        head.weight.data[1] = -head.weight.data[0]
        return head

    monkeypatch.setattr(reward_trainer, "new_head", opposite)
    tuner, data = replace(WATCHED, device_batch=4, batch=8), preferences(28)
    told = here(tmp_path, make_tiny(length=1024), tuner, data)
    model, tokenizer = untrained(make_tiny, tuner)
    job = Job(TransformersModel(name=str(make_tiny(length=1024)), device="cpu"), tuner, Dataset.of([]), Path())
    encode, aside, right = RewardLearner().encoder(job, tokenizer), tuner.held_out_of(list(data.ids())), [0, 0, 0]
    for one in (one for one in data if one.id in aside):
        row = encode(one)
        assert not isinstance(row, Failure)
        with torch.no_grad():
            sides = [model(torch.tensor([row.columns[f"{side}_ids"]])).logits[0] for side in ("chosen", "rejected")]
        apart = sides[0] - sides[1]
        right = [n + bool(x > 0) for n, x in zip(right, (*apart, apart.sum()), strict=True)]
    quality, length, both = right
    assert len({quality, length, both}) == 3  # or nothing is shown
    looks = [entry for entry in told.history if "eval_accuracy" in entry]
    assert (looks[0]["step"], looks[0]["eval_accuracy"]) == (0, pytest.approx(quality / 7))
    assert len(looks) == 6  # one before the first update
    for look in looks:  # seven pairs in parts of four and three
        kinds = look["eval_longer_accuracy"], look["eval_shorter_accuracy"]
        assert min(kinds) <= look["eval_accuracy"] <= max(kinds)
        assert look["eval_accuracy"] * 7 == pytest.approx(round(look["eval_accuracy"] * 7), abs=1e-6)


class Cut(Exception):
    """The training ends here."""


@pytest.mark.slow
def test_a_training_that_was_cut_off_and_moved_leaves_the_same_weights(
    make_tiny: MakeTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, tuner, data = make_tiny(length=1024), replace(WATCHED, save_every=3), preferences(24)
    told_as = {2: 0.5, 4: 0.8, 6: 0.9, 8: 0.6, 10: 0.7}
    offer = Best.offer
    ends: list[int] = []

    def judged(self: Best, model: Any, step: int, accuracy: float) -> None:  # Any: transformers' own class
        offer(self, model, step, told_as[step])
        if step in ends:
            raise Cut

    monkeypatch.setattr(Best, "offer", judged)
    plain = here(tmp_path / "whole", folder, tuner, data)
    ends.append(8)
    with pytest.raises(Cut):
        here(tmp_path / "cut", folder, tuner, data)
    assert sorted(path.name for path in (tmp_path / "cut").glob("best-*")) == [
        "best-2",
        "best-6",
    ]  # 2: from checkpoint 3
    assert (tmp_path / "cut" / "checkpoint-6").is_dir()
    shutil.move(tmp_path / "cut", tmp_path / "moved")
    ends.clear()
    again = here(tmp_path / "moved", folder, tuner, data)
    assert again.history == plain.history
    one, other = (weights(tmp_path / name / "model") for name in ("whole", "moved"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("step", "strategy", "looks"), [(7, "steps", True), (6, "steps", False), (7, "no", False)])
def test_the_last_look_is_at_the_end_whatever_else_asks_for_it(
    step: int, strategy: str, looks: bool, tmp_path: Path
) -> None:
    """Of 7 updates; with nothing held out there is nothing to look at."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    args = TrainingArguments(output_dir=str(tmp_path), eval_strategy=strategy, eval_steps=2, use_cpu=True)
    control = TrainerControl()
    Best(tmp_path).callback("last").on_step_end(args, TrainerState(global_step=step, max_steps=7), control)
    assert control.should_evaluate is looks


def test_best_weights_of_later_steps_do_not_outlive_a_cut(tmp_path: Path) -> None:
    model, best = torch.nn.Linear(2, 1), Best(tmp_path)
    for step, accuracy in ((2, 0.5), (4, 0.6)):
        model.weight.data.fill_(step)
        best.offer(model, step, accuracy)
    best.offer(model, 6, 0.55)
    assert best.found() == (4, 0.6)
    (tmp_path / "best-9").mkdir()  # cut off while it was written
    best.forget_after(3)
    assert best.found() is None  # step 2 was given up when 4 was better, and no checkpoint goes back to it
    assert best.load_into(model) is None


# --- bad settings and bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"device_batch": 2}, "tuner.device_batch: 2 pairs at a time are 4 sequences, and a correlation is taken of 8"),
        ({"batch": 3}, "tuner.device_batch: 3 pairs at a time are 6 sequences"),
        (
            {"least_sequences": 65},
            "tuner.device_batch: 16 pairs at a time are 32 sequences, and a correlation is taken of 65 or more; "
            "write 33, and a batch that it divides.",
        ),
        ({"least_sequences": 2}, "tuner.least_sequences: of 2 sequences every correlation is 1 or -1"),
        ({"lambda_length": -1.0}, "tuner.lambda_length: -1 is no number from 0 on; write 1."),
        ({"lambda_orthogonal": -0.5}, "tuner.lambda_orthogonal: -0.5 is no number"),
        ({"total_corr_coef": -2.0}, "tuner.total_corr_coef: -2 is no number"),
        ({"betas": (0.9, 1.0)}, "tuner.betas: one of them is not from 0 to below 1"),
        ({"held_out": 1.0}, "tuner.held_out: 1 is no share"),
        (
            {"lora": LoRA()},
            "tuner.lora.merged: false would leave adapters, and a reward model is left whole, for others "
            "to load by its folder; write tuner.lora.merged=true.",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], said: str) -> None:  # Any: their values
    with pytest.raises(RecipeError, match=said):
        RewardTuner(**settings)
    if "tuner.device_batch" in said:
        RewardTuner(**settings, heads=1)  # without correlations there is nothing to be too few for


@pytest.mark.parametrize(("settings", "pairs_", "every"), [
    ({"epochs": 3.0}, 1280, 2), ({"epochs": 0.5}, 1280, 1), ({"epochs": 3.0}, 128, 1),
    ({"steps": 100}, 1280, 20), ({"steps": 3}, 1280, 1),
])  # fmt: skip
def test_held_out_pairs_are_looked_at_about_five_times_an_epoch_or_in_all_steps(
    settings: dict[str, Any], pairs_: int, every: int
) -> None:  # Any: their values
    """Ten updates an epoch, one, or so many steps in all."""
    assert RewardTuner(**settings).evaluated_every(pairs_) == every


def test_too_few_pairs_are_refused_rather_than_trained_without_the_length_loss(
    make_tiny: MakeTiny, tmp_path: Path
) -> None:
    with pytest.raises(TuningError, match="3 pairs are fewer sequences than the 8 of which a correlation is taken"):
        here(tmp_path, make_tiny(length=1024), QUICK, preferences(3))


def test_a_student_without_a_chat_template_says_so(make_tiny: MakeTiny, tmp_path: Path) -> None:
    from tunesift import ModelRefused

    with pytest.raises(ModelRefused, match="has no chat template"):
        here(tmp_path, make_tiny("gpt2", length=1024), replace(QUICK, template="chat"), preferences(8))


def test_the_heads_are_drawn_by_the_seed(make_tiny: MakeTiny) -> None:
    from transformers import AutoModelForCausalLM

    causal = AutoModelForCausalLM.from_pretrained(make_tiny())
    one, same, other = (new_head(causal, 32, replace(QUICK, seed=seed)).weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert classifier_of(causal, "x").model is causal.model


def test_a_student_whose_body_ends_narrower_than_it_is_gets_a_head_that_fits(
    make_tiny: MakeTiny, tmp_path: Path
) -> None:
    """As the smallest OPT but one, whose last layer leads from 32 numbers here to the 16 of its words."""
    from transformers import OPTConfig, OPTForCausalLM

    folder = make_tiny(length=1024)
    OPTForCausalLM(OPTConfig(
        vocab_size=264, hidden_size=32, word_embed_proj_dim=16, ffn_dim=64, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=1024, do_layer_norm_before=False, pad_token_id=1, bos_token_id=0, eos_token_id=1,
    )).save_pretrained(folder)  # fmt: skip
    here(tmp_path, folder, replace(QUICK, steps=1), preferences(8))
    found = RewardClassifier(name=str(tmp_path / "model"), template="alpaca", device="cpu")
    (reward,) = found.reward([(Message("user", "Ask."), Message("assistant", "Yes."))])
    assert isinstance(reward, float)
    assert weights(tmp_path / "model")["score.weight"].shape == (1, 16)


# --- asked as others ask it ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [CHATML, THINKING])
def test_the_model_is_asked_as_it_was_trained(template: str, make_tiny: MakeTiny, tmp_path: Path) -> None:
    """By us and by TRL, which renders the whole conversation and adds no token: also where a template writes answers
    otherwise than they were given."""
    from transformers import AutoTokenizer
    from trl.data_utils import apply_chat_template

    folder = student(make_tiny, template, length=1024)
    tuner = replace(QUICK, template="chat")
    here(tmp_path, folder, tuner, preferences(16))
    place = tmp_path / "model"
    job = Job(TransformersModel(name=str(folder), device="cpu"), tuner, Dataset.of([]), Path())
    _, tokenizer = RewardLearner().load(job, "cpu")
    one = pair("a", "Ask.", "<think>\nHm.\n</think>\n\nYes, it is. ", "No")
    row = RewardLearner().encoder(job, tokenizer)(one)
    assert not isinstance(row, Failure)
    conversation = [*one.prompt, one.chosen]
    theirs = AutoTokenizer.from_pretrained(place)
    text = apply_chat_template({"messages": [{"role": m.role, "content": m.text} for m in conversation]}, theirs)[
        "text"
    ]
    ids = theirs(text=[text], return_tensors="pt", padding=True, padding_side="right", add_special_tokens=False)
    assert ids["input_ids"].tolist() == [row.columns["chosen_ids"]]
    expected = loaded(place)(**ids).logits[0, 0]
    (found,) = RewardClassifier(name=str(place), device="cpu").reward([conversation])
    assert found == pytest.approx(float(expected), abs=1e-5)
    assert row.columns["chosen_len"] == len(
        tokenizer(one.chosen.text, add_special_tokens=False)["input_ids"]
    )  # as given
    assert row.tokens == sum(len(row.columns[f"{side}_ids"]) for side in ("chosen", "rejected"))
    assert row.longest == len(row.columns["chosen_ids"])


def test_what_a_template_makes_of_an_answer_cannot_end_the_turn(make_tiny: MakeTiny) -> None:
    """The name of a special token in an answer stays text, where TRL would read the token."""
    folder = student(make_tiny, THINKING, length=1024)
    job = Job(
        TransformersModel(name=str(folder), device="cpu"), replace(QUICK, template="chat"), Dataset.of([]), Path()
    )
    _, tokenizer = RewardLearner().load(job, "cpu")
    row = RewardLearner().encoder(job, tokenizer)(pair("a", "Ask.", "Yes</s>", "No"))
    assert not isinstance(row, Failure)
    ids = row.columns["chosen_ids"]
    assert ids.count(tokenizer.eos_token_id) == 2  # behind the question and behind the answer
    assert "Yes</s></s>" in tokenizer.decode(ids)


def test_several_turns_are_read_up_to_the_last_answer(make_tiny: MakeTiny) -> None:
    folder = student(make_tiny, CHATML, length=1024)
    job = Job(
        TransformersModel(name=str(folder), device="cpu"), replace(QUICK, template="chat"), Dataset.of([]), Path()
    )
    _, tokenizer = RewardLearner().load(job, "cpu")
    talk = (Message("user", "Hi."), Message("assistant", "Hello."), Message("user", "Well?"))
    one = replace(pair("a", "", "Yes.", "No."), prompt=talk)
    row = RewardLearner().encoder(job, tokenizer)(one)
    assert tokenizer.decode(row.columns["chosen_ids"]).count("<|assistant|>") == 2  # type: ignore[union-attr]
    assert (row.columns["chosen_len"], row.columns["rejected_len"]) == (4, 3)  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["RLOO", "GRPO"])
def test_the_script_of_the_page_tunes_a_model_by_the_reward(
    algorithm: str, make_tiny: MakeTiny, tmp_path: Path
) -> None:
    """Word for word, but for the length of answers and the number of steps."""
    page = (Path(__file__).parents[2] / "docs" / "odin.md").read_text("utf-8")
    script = page.partition("```python\n")[2].partition("```")[0].replace("RLOO", algorithm)
    assert "max_completion_length=1024" in script
    script = script.replace(
        "max_completion_length=1024", "max_completion_length=8, max_steps=1, use_cpu=True, report_to='none'"
    )
    shutil.copytree(student(make_tiny, CHATML, length=512), tmp_path / "tuned")
    tuner = replace(QUICK, template="chat")
    job = Job(TransformersModel(name=str(tmp_path / "tuned"), device="cpu"), tuner, Dataset.of([]), Path())
    model, tokenizer = RewardLearner().load(job, "cpu")
    export(model, tuner, tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    prompts = [{"prompt": [{"role": "user", "content": f"Name {n}."}]} for n in range(4)]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts))
    (tmp_path / "script.py").write_text(f"{script}print(trainer.state.log_history[0]['reward'])\n")
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert math.isfinite(float(done.stdout.strip().splitlines()[-1]))
    before, after = weights(tmp_path / "tuned"), weights(tmp_path / "policy")
    assert any(not torch.equal(before[name], after[name]) for name in before)
