"""A plan of a training, by hand for a tiny Llama, and its numbers of parameters by the libraries that train it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.tiny import MakeTiny
from tunesift import SFT, Dataset, LoRA, Message, Record, TransformersModel
from tunesift.tuning import forecast as plans
from tunesift.tuning.forecast import Forecast, forecast

WHOLE = 35_488
"""Parameters: 264 tokens in and out at a width of 32; twice four projections (32, 16, 16, 32 wide), three of an MLP of 64
and two norms; a norm."""
assert WHOLE == 2 * 264 * 32 + 2 * (32 * (32 + 16 + 16 + 32) + 3 * 32 * 64 + 2 * 32) + 32
RANK_4 = 4_096
"""Numbers of adapters of rank 4 at all fourteen of them: 4 for each of their inputs and outputs."""
assert RANK_4 == 4 * 2 * (64 + 48 + 48 + 64 + 3 * 96)
PLAIN = SFT(batch=4, gradient_checkpointing=False)


@pytest.fixture(scope="module")
def student(make_tiny: MakeTiny) -> TransformersModel:
    return TransformersModel(name=str(make_tiny()), device="cpu")


def told(student: TransformersModel, tuner: SFT, longest: int = 100) -> Forecast:
    """Of ten records, of 40 tokens each in the mean."""
    return forecast(student, tuner, 10, 400, longest)


@pytest.mark.parametrize(("tuner", "updates", "tokens"), [
    (PLAIN, 9, 1200),  # 4 + 4 + 2 records, three times
    (replace(PLAIN, epochs=0.5), 2, 200),  # half of three updates, rounded up; five records
    (replace(PLAIN, held_out=0.2), 6, 960),  # eight records, three times
    (replace(PLAIN, held_out=0.29), 6, 960),  # 2.9 records are two
    (replace(PLAIN, steps=2), 2, 320),
    (replace(PLAIN, steps=20), 20, 3200),  # the ten come again
    (replace(PLAIN, batch=128), 3, 1200),
])  # fmt: skip
def test_updates_and_tokens_are_those_of_a_hand(
    student: TransformersModel, tuner: SFT, updates: int, tokens: int
) -> None:
    found = told(student, tuner)
    assert (found.updates, found.tokens) == (updates, tokens)


def test_memory_of_all_weights_is_that_of_a_hand(student: TransformersModel) -> None:
    found = told(student, PLAIN)
    assert found.weights == 4 * WHOLE
    assert found.training == 3 * 4 * WHOLE  # a gradient and two of AdamW's numbers for each
    assert found.activations == 4 * (4 * 100) * 2 * (18 * 32 + 4 * 64)
    assert found.logits == 400 * (33 * 264 + 4 * 2 * 32)  # 8.25 copies of 264 numbers of 4 bytes; what they are made of
    assert found.memory == 141_952 + 425_856 + 2_662_400 + 3_587_200
    assert str(found).endswith(
        "about 7 MB of memory (142 kB weights, 426 kB gradients and AdamW, 3 MB activations, 4 MB logits)"
    )


def test_half_the_bits_are_half_the_weights(student: TransformersModel) -> None:
    found = told(replace(student, dtype="bfloat16"), PLAIN)
    assert (found.weights, found.training) == (2 * WHOLE, 3 * 2 * WHOLE)


def test_adapters_are_few_and_the_weights_stay(student: TransformersModel) -> None:
    found = told(student, replace(PLAIN, lora=LoRA(rank=4)))
    assert (found.weights, found.training) == (4 * (WHOLE + RANK_4), 3 * 4 * RANK_4)


@pytest.mark.parametrize(("tuner", "longest", "tokens"), [
    (PLAIN, 100, 400), (PLAIN, 9999, 4 * 256),  # what the student reads at most
    (replace(PLAIN, max_length=50), 100, 200),
    (replace(PLAIN, device_batch=3), 100, 200),  # four records in parts of two
    (replace(PLAIN, batch=128, device_batch=8), 100, 800),
])  # fmt: skip
def test_activations_are_those_of_the_longest_records_that_are_on_the_device_at_a_time(
    student: TransformersModel, tuner: SFT, longest: int, tokens: int
) -> None:
    assert told(student, tuner, longest).activations == 4 * tokens * 2 * 832
    recomputed = told(student, replace(tuner, gradient_checkpointing=True), longest)
    assert recomputed.activations == 4 * tokens * (832 + 2 * 32)  # one layer, and what stands between the layers


def with_words(student: TransformersModel, words: int, folder: Path) -> TransformersModel:
    """The same with so many words in its vocabulary, by its config alone."""
    folder.mkdir()
    config = json.loads((Path(student.name) / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": words}))
    (folder / "model.safetensors").write_bytes((Path(student.name) / "model.safetensors").read_bytes())
    return replace(student, name=str(folder))


@pytest.mark.parametrize(("words", "tokens", "tile"), [
    (32_768, 400, 400 * 32_768), (152_064, 400, 400 * 32_768),  # so many words of the vocabulary at a time
    (32_768, 4096, 4096 * 32_768), (32_768, 8192, 4096 * 32_768),  # so many tokens
])  # fmt: skip
def test_logits_are_those_of_a_tile_that_trl_works_on_at_a_time(
    student: TransformersModel, tmp_path: Path, words: int, tokens: int, tile: int
) -> None:
    large = with_words(student, words, tmp_path / "large")
    tuner = replace(PLAIN, batch=tokens // 100, device_batch=tokens // 100)
    read = 100 * tuner.parts[0]
    assert told(large, tuner).logits == 33 * tile * min(read, 4096) // min(tokens, 4096) + 4 * read * 2 * 32


@pytest.mark.parametrize(("precision", "one"), [("auto", 2), ("bfloat16", 2), ("float32", 4)])
def test_on_a_gpu_there_is_one_tile_as_wide_as_the_kernel_has_it(
    student: TransformersModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, one: int
) -> None:
    tuner = SFT(batch=4, precision=precision)  # type: ignore[arg-type]  # one of the literal's own values
    own = 4 * 400 * 2 * 32
    assert told(replace(student, device="cuda:1"), tuner).logits == own + one * 400 * 32_768
    monkeypatch.setattr(plans, "_DRIVER", tmp_path)
    assert told(replace(student, device="auto"), tuner).logits == own + one * 400 * 32_768
    monkeypatch.setattr(plans, "_DRIVER", tmp_path / "none")
    assert told(replace(student, device="auto"), tuner).logits == own + 33 * 400 * 264


def test_the_sizes_of_a_tile_are_those_of_the_trl_that_trains() -> None:
    pytest.importorskip("trl", reason='needs the "train" extra')
    from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE
    from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE

    assert (plans.TILE_TOKENS, plans.TILE_WORDS) == (TOKEN_CHUNK_SIZE, _CHUNKED_LOGPROB_CHUNK_SIZE)


def test_the_copies_of_a_tile_are_those_that_trl_makes_of_it() -> None:
    """The most bytes that its step back holds at a time, counted allocation by allocation."""
    pytest.importorskip("trl", reason='needs the "train" extra')
    import torch
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction

    tokens, words, width = 64, 4096, 4
    hidden = torch.randn(tokens, width, requires_grad=True)
    head, targets = torch.randn(words, width), torch.zeros(tokens, dtype=torch.int64)
    loss = ChunkedLogProbFunction.apply(hidden, head, None, targets, 1.0, words, None, 1.0, ("entropy", "is_top1"))[0]
    with torch.profiler.profile(profile_memory=True) as seen:
        loss.sum().backward()
    held = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    assert most / (4 * tokens * words) == pytest.approx(plans.TILE_COPIES, abs=0.05)


@pytest.mark.parametrize("most", [None, 3, 99])
def test_of_records_nobody_knows_yet_it_takes_the_mean_and_the_longest(
    student: TransformersModel, most: int | None
) -> None:
    data = Dataset.of(
        Record(f"r{n}", (Message("user", "x" * 40), Message("assistant", "y" * 40 * n))) for n in range(1, 6)
    )
    count = min(most or 5, 5)
    assert plans.forecast_on(student, PLAIN, data, most) == forecast(student, PLAIN, count, 40 * count, 60)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's and transformers' to one another
def test_the_numbers_of_parameters_are_those_of_the_libraries_that_train(student: TransformersModel) -> None:
    pytest.importorskip("trl", reason='needs the "train" extra')
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(student.name)
    assert sum(p.numel() for p in model.parameters()) == WHOLE
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == RANK_4


def test_what_a_config_leaves_open_is_what_the_architecture_takes_for_it(
    student: TransformersModel, tmp_path: Path
) -> None:
    """As many keys as heads, each a share of the width: 64 adapter numbers of a rank for keys and values, not 48."""
    config = json.loads((Path(student.name) / "config.json").read_text())
    for nothing in ({}, {"num_key_value_heads": None, "head_dim": None}):
        rest = {name: value for name, value in config.items() if name not in ("num_key_value_heads", "head_dim")}
        folder = tmp_path / str(len(nothing))
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({**rest, **nothing}))
        (folder / "model.safetensors").write_bytes((Path(student.name) / "model.safetensors").read_bytes())
        found = told(replace(student, name=str(folder)), replace(PLAIN, lora=LoRA(rank=1)))
        assert found.training == 3 * 4 * 2 * (4 * 64 + 3 * 96)


@pytest.mark.parametrize(
    "config", [None, "no JSON", {}, {"hidden_size": 32}, {"hidden_size": 32, "num_hidden_layers": 2}]
)
def test_a_student_whose_shape_is_not_known_has_updates_and_tokens_and_no_memory(
    student: TransformersModel, tmp_path: Path, config: object
) -> None:
    (tmp_path / "model.safetensors").write_bytes((Path(student.name) / "model.safetensors").read_bytes())
    if config is not None:
        (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    found = told(TransformersModel(name=str(tmp_path), max_length=99), PLAIN)
    assert (found.updates, found.tokens, found.memory) == (9, 1200, None)
    assert str(found) == (
        "at most 9 updates, about 1,200 tokens, memory not known without the student's weights and config.json here"
    )
