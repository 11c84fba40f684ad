"""Direct preference optimisation with given weights: TRL's own loss, each pair's times its weight, and nothing lost."""

from __future__ import annotations

import math
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.tiny import MakeTiny
from harness.training import Heard, here, student
from tunesift import LoRA, Message, Preference, Run, Span, TransformersModel, Tuning
from tunesift.datasets import Dataset
from tunesift.errors import RecipeError, TuningError
from tunesift.models.folders import tokenizer
from tunesift.models.loading import load
from tunesift.running.local import Local
from tunesift.running.sealing import sealed
from tunesift.tuning import process
from tunesift.tuning.dpo import DPO
from tunesift.tuning.dpo_trainer import DPOLearner, weighted_mean
from tunesift.tuning.encoding import EncodedPair, PairEncoder
from tunesift.tuning.process import Trained, student_from, told
from tunesift.tuning.trainer import Job, Rows, _trainer

pytest.importorskip("trl", reason='needs the "train" extra')

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("FutureWarning", "DeprecationWarning", "UserWarning")
]

SMALL = DPO(batch=4, steps=4, learning_rate=3e-3, save_every=2, device_batch=4, gradient_checkpointing=False,
            optimiser="rmsprop")  # fmt: skip
WEIGHTS = (0.731059, 0.5, 0.982014, 0.549834)
"""Of the method's own worked example."""


@pytest.fixture(scope="module")
def folder(make_tiny: MakeTiny) -> Path:
    return student(make_tiny)


@pytest.fixture(scope="module")
def other(make_tiny: MakeTiny) -> Path:
    """Another model with the same tokens."""
    return student(make_tiny, seed=7)


def pairs(count: int = 4, weights: Sequence[object] = ()) -> Dataset[Preference]:
    """Pairs of answers of several lengths, with these weights where they are given."""
    return Dataset.of(
        Preference(f"p{n}", (Message("user", f"Count to {n}."),), Message("assistant", "one two " * (n % 3 + 1)),
                   Message("assistant", f"I count {n} " * (n % 2 + 1)),
                   extra={"weight": weights[n]} if weights else {})
        for n in range(count)
    )  # fmt: skip


def losses(found: Trained) -> list[float]:
    return [h["loss"] for h in found.history if "loss" in h]


def by_trl(
    place: Path, folder: Path, tuner: DPO, data: Dataset[Preference], reference: Path | None = None
) -> list[float]:
    """The losses of TRL's own trainer, which is given texts and nothing of ours."""
    import torch
    from datasets import Dataset as Columns
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    rows = [{"prompt": [{"role": m.role, "content": m.text} for m in pair.prompt],
             "chosen": [{"role": "assistant", "content": pair.chosen.text}],
             "rejected": [{"role": "assistant", "content": pair.rejected.text}]} for pair in data]  # fmt: skip
    size, parts = tuner.parts
    model, like = (AutoModelForCausalLM.from_pretrained(f, dtype=torch.float32) for f in (folder, reference or folder))
    trainer = DPOTrainer(
        model=model, ref_model=like, train_dataset=Columns.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(folder),
        args=DPOConfig(
            output_dir=str(place), max_steps=tuner.steps or -1, per_device_train_batch_size=size,
            gradient_accumulation_steps=parts, learning_rate=tuner.learning_rate, lr_scheduler_type="cosine",
            warmup_steps=tuner.warm_up, optim="rmsprop", beta=tuner.beta, seed=0, data_seed=0, use_cpu=True, bf16=False,
            gradient_checkpointing=False, logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True,
            max_length=None,
        ),
    )  # fmt: skip
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def naive(model: Any, reference: Any, pair: EncodedPair, beta: float) -> float:  # Any: transformers' own classes
    """The loss of one pair as the paper has it: a sum over tokens, one sequence at a time."""
    import torch

    def said(of: Any, answer: Sequence[int]) -> float:
        ids = [*pair.prompt, *answer]
        with torch.no_grad():
            logits = of(torch.tensor([ids])).logits[0].double()
        return sum(float(torch.log_softmax(logits[place - 1], 0)[ids[place]])
                   for place in range(len(pair.prompt), len(ids)))  # fmt: skip

    margin = said(model, pair.chosen) - said(reference, pair.chosen) - said(model, pair.rejected)
    return math.log1p(math.exp(-beta * (margin + said(reference, pair.rejected))))


def expected(folder: Path, like: Path, data: Dataset[Preference], weights: Sequence[float]) -> float:
    """Mean of weight times loss before the first update."""
    from transformers import AutoModelForCausalLM

    encode = PairEncoder(tokenizer(str(folder)), "chat")
    model, reference = (AutoModelForCausalLM.from_pretrained(place).eval() for place in (folder, like))
    each = []
    for pair, weight in zip(data, weights, strict=True):
        found = encode(pair)
        assert isinstance(found, EncodedPair)
        each.append(weight * naive(model, reference, found, SMALL.beta))
    return sum(each) / len(each)


def first_losses(place: Path, folder: Path, tuner: DPO, data: Dataset[Preference]) -> list[float]:
    """Exact losses of the batches as our trainer computes them, before any update; logs round them."""
    import torch

    place.mkdir(exist_ok=True)
    job = Job(TransformersModel(name=str(folder), device="cpu"), tuner, data, place)
    learner = DPOLearner()
    loaded = load("AutoModelForCausalLM", str(folder), "cpu", None, "float32")
    rows = Rows(job, learner.encoder(job, loaded[1]), learner.columns, Heard())  # type: ignore[arg-type]
    trainer = _trainer(job, learner, loaded, rows, Heard())  # type: ignore[arg-type]
    with torch.no_grad():
        return [float(trainer.compute_loss(trainer.model, dict(batch))) for batch in trainer.get_train_dataloader()]


def test_beside_adapters_the_model_itself_drops_nothing(make_tiny: MakeTiny, tmp_path: Path) -> None:
    """It is its own reference, asked as it is trained: with dropout the loss before any update would not be log 2."""
    place = make_tiny("gpt2")  # drops a tenth
    tuner = replace(SMALL, template="alpaca", steps=1, lora=LoRA(dropout=0.0))
    assert losses(here(tmp_path, place, tuner, pairs())) == pytest.approx([math.log(2)], abs=1e-6)


def test_weights_of_one_are_trls_own_training_update_for_update(tmp_path: Path, folder: Path) -> None:
    """Acceptance 4 and 5: without weights, and with weights of 1, whatever goes through one pair at a time."""
    data = pairs(8)
    stock = by_trl(tmp_path / "trl", folder, SMALL, data)
    plain = here(tmp_path / "plain", folder, SMALL, data)
    ones = here(tmp_path / "ones", folder, replace(SMALL, weighted=True), pairs(8, [1.0] * 8))
    assert losses(plain) == stock
    assert losses(plain)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses(ones) == pytest.approx(stock, abs=1e-6)
    assert losses(ones)[-1] < losses(ones)[0]


@pytest.mark.parametrize("weights", [WEIGHTS, (1.0, 0.0, 4.0, 0.2)], ids=["sigmoid", "linear"])
def test_a_batch_is_the_mean_of_weight_times_loss_to_a_millionth(
    tmp_path: Path, folder: Path, other: Path, weights: Sequence[float]
) -> None:
    """Acceptance 5: TRL's own losses of each pair by itself, times the weights, with a reference that is another model;
    and by a loop over tokens in float64, which differs in the last digits of float32."""
    data = pairs(4, weights)
    stock = replace(SMALL, reference=TransformersModel(name=str(other)))
    alone = [first_losses(tmp_path / pair.id, folder, stock, Dataset.of([pair]))[0] for pair in data]
    found = first_losses(tmp_path / "all", folder, replace(stock, weighted=True), data)
    assert found == pytest.approx([sum(w * each for w, each in zip(weights, alone, strict=True)) / 4], abs=1e-6)
    assert found == pytest.approx([expected(folder, other, data, weights)], abs=3e-6)
    assert found[0] != pytest.approx(expected(folder, other, data, [1.0] * 4), abs=1e-3)


def test_one_pair_at_a_time_and_all_at_once_come_to_the_same_update(tmp_path: Path, folder: Path) -> None:
    data = pairs(8, [*WEIGHTS, *WEIGHTS])
    tuner = replace(SMALL, weighted=True)
    found = [here(tmp_path / str(size), folder, replace(tuner, device_batch=size), data) for size in (1, 2, 4)]
    assert losses(found[0]) == pytest.approx(losses(found[1]), abs=1e-5)
    assert losses(found[0]) == pytest.approx(losses(found[2]), abs=1e-5)


def test_a_weight_scales_the_loss_of_its_pair_alone_and_nobody_reads_it_unasked(tmp_path: Path, folder: Path) -> None:
    """TRL's own trainer drops such a column, or the model swallows it: then the run looks like one with weights."""
    one = replace(SMALL, batch=1, device_batch=1, weighted=True)
    doubled = [2.0 * w for w in WEIGHTS]
    assert sorted(first_losses(tmp_path / "twice", folder, one, pairs(4, doubled))) == pytest.approx(
        sorted(w * 2 * math.log(2) for w in WEIGHTS), abs=1e-6
    )
    unread = here(tmp_path / "unread", folder, SMALL, pairs(4, [5.0] * 4))
    read = here(tmp_path / "read", folder, replace(SMALL, weighted=True), pairs(4, [5.0] * 4))
    assert losses(unread)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses(read)[0] == pytest.approx(5 * math.log(2), abs=1e-5)
    with pytest.raises(KeyError, match="pair_weight"):
        weighted_mean(lambda pair: 0.0, {"input_ids": [[1], [2]]})


@pytest.mark.parametrize(("weight", "said"), [
    (None, "has no weight"), (math.nan, "has no weight"), (-0.5, "has the weight -0.5"),
    (math.inf, "has no weight"), (True, "has the weight True"), ("1", "has the weight 1"),
])  # fmt: skip
def test_a_weight_that_is_none_is_a_sentence(tmp_path: Path, folder: Path, weight: object, said: str) -> None:
    data = list(pairs(4, [1.0] * 4))
    data[2] = replace(data[2], extra={} if weight is None else {"weight": weight})
    tuner = replace(SMALL, weighted=True)
    with pytest.raises(TuningError, match=rf'the pair "p2" {said}; give every pair a number from 0 on\.'):
        here(tmp_path / "run", folder, tuner, Dataset.of(data))
    assert not (tmp_path / "run/model").exists()


@pytest.mark.parametrize(("changed", "sentence"), [
    ({"beta": 0.0}, "tuner.beta: 0 is not above 0; write 0.1."),
    ({"beta": -1.0}, "tuner.beta: -1 is not above 0; write 0.1."),
    ({"warm_up": 2.0}, "tuner.warm_up: 2 is no share of all updates; write 0.03."),
])  # fmt: skip
def test_settings_that_are_none_are_sentences(changed: dict[str, float], sentence: str) -> None:
    with pytest.raises(RecipeError) as raised:
        replace(SMALL, **changed)  # type: ignore[arg-type]
    assert str(raised.value) == sentence


def trained(place: Path, folder: Path, tuner: DPO, data: Dataset[Preference]) -> Path:
    with Run(place, Local()) as run:
        return run.once("tune", Tuning(student=TransformersModel(name=str(folder)), tuner=tuner), data).path


@pytest.mark.slow
def test_killed_and_gone_on_with_leaves_the_same_weights(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As R40 has it of supervised tuning: the state of RMSProp, the order and the weights of pairs are where they were."""
    tuner = replace(SMALL, steps=14, weighted=True)
    data = pairs(10, [*WEIGHTS, *WEIGHTS, 0.5, 2.0])
    whole = trained(tmp_path / "whole", folder, tuner, data)
    original = process._lines
    killed: list[int] = []

    def heard(child: Any, watch: Any) -> Any:  # Any: the training's process, and who watches it
        for line in original(child, watch):
            yield line
            if not killed and b'"step": 5,' in line:
                killed.append(child.pid)
                child.send_signal(signal.SIGKILL)

    monkeypatch.setattr(process, "_lines", heard)
    with pytest.raises(TuningError, match=r"signal 9 ended the training after step \d+"):
        trained(tmp_path / "broken", folder, tuner, data)
    assert [path for path in (tmp_path / "broken/checkpoints/tune").glob("checkpoint-*") if sealed(path) is not None]
    broken = trained(tmp_path / "broken", folder, tuner, data)
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_adapters_are_tuned_beside_the_student_which_is_the_reference(tmp_path: Path, folder: Path) -> None:
    tuner = replace(SMALL, weighted=True, learning_rate=3e-2, lora=LoRA(rank=2, dropout=0.0))
    found = here(tmp_path, folder, tuner, pairs(4, [1.0] * 4))
    assert losses(found)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses(found)[-1] < losses(found)[0]
    assert (tmp_path / "model/adapter_model.safetensors").exists()
    assert not (tmp_path / "model/model.safetensors").exists()


def test_adapters_that_are_merged_leave_a_whole_model_beside_which_new_ones_may_stand(
    tmp_path: Path, folder: Path
) -> None:
    """So that rounds of adapters can follow one another: those of the first would else be lost to the second."""
    lora = LoRA(rank=2, dropout=0.0)
    tuner = replace(SMALL, learning_rate=3e-1, lora=lora)
    here(tmp_path / "beside", folder, tuner, pairs(4))
    here(tmp_path / "whole", folder, replace(tuner, lora=replace(lora, merged=True)), pairs(4))
    assert (tmp_path / "whole/model/model.safetensors").exists()
    assert not (tmp_path / "whole/model/adapter_config.json").exists()
    span = [Span((Message("user", "Count."),), "one two")]
    said = [TransformersModel(name=str(place)).loss(span)[0].nats  # type: ignore[union-attr]
            for place in (folder, tmp_path / "beside/model", tmp_path / "whole/model")]  # fmt: skip
    assert said[2] == pytest.approx(said[1], abs=1e-4)
    assert said[2] != pytest.approx(said[0], abs=1e-2)
    found = here(tmp_path / "second", tmp_path / "whole/model", tuner, pairs(4))
    assert losses(found)[0] == pytest.approx(math.log(2), abs=1e-6)


def test_adapters_beside_a_reference_that_is_another_model(tmp_path: Path, folder: Path, other: Path) -> None:
    data = pairs(4, WEIGHTS)
    tuner = replace(SMALL, weighted=True, lora=LoRA(rank=2, dropout=0.0), reference=TransformersModel(name=str(other)))
    assert first_losses(tmp_path, folder, tuner, data) == pytest.approx(
        [expected(folder, other, data, WEIGHTS)], abs=1e-6
    )


def test_a_student_of_adapters_is_its_own_reference_with_them(tmp_path: Path, folder: Path) -> None:
    """By the name in its config.json, TRL would take the model without them, and the first loss would not be log 2."""
    here(tmp_path / "first", folder, replace(SMALL, learning_rate=3e-1, lora=LoRA(rank=2, dropout=0.0)), pairs(4))
    found = here(tmp_path / "second", tmp_path / "first/model", SMALL, pairs(4))
    assert losses(found)[0] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.slow
def test_a_reference_that_this_run_has_tuned_is_found_by_the_training(tmp_path: Path, folder: Path) -> None:
    """It is known by what it was made of, and loaded from its folder, wherever the run was moved to."""
    data = pairs(4, WEIGHTS)
    own = TransformersModel(name=str(folder))
    with Run(tmp_path / "run", Local()) as run:
        first = student_from(run.once("one", Tuning(student=own, tuner=SMALL), data), own)
        tuner = replace(SMALL, weighted=True, reference=first)
        made = run.once("two", Tuning(student=own, tuner=tuner), data)
    assert losses(told(made))[0] == pytest.approx(
        expected(folder, tmp_path / "run/checkpoints/one/model", data, WEIGHTS), abs=1e-4
    )
    moved = shutil.move(tmp_path / "run", tmp_path / "moved")
    with Run(Path(moved), Local()) as run:
        first = student_from(run.once("one", Tuning(student=own, tuner=SMALL), data), own)
        run.once("two", Tuning(student=own, tuner=replace(tuner, reference=first)), data)
        assert [stage.worked for stage in run.stages] == [0, 0]
