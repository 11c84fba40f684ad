"""SIMA against its paper: every acceptance oracle, counted or computed here by other means."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pyarrow.parquet as pq
import pytest

from harness.seeing import asked, job, llava, pair, pictured, trained
from tunesift import (
    Completion,
    Dataset,
    Failure,
    LoRA,
    Message,
    Preference,
    Record,
    Result,
    Run,
    Sampling,
    ScriptedModel,
    Sima,
    VisionDPO,
    VisionModel,
)
from tunesift.evaluation.chair import Caption, chair
from tunesift.methods.sima_judging import Order, Settled, verdict_of
from tunesift.running.local import Local

PARSED: Mapping[str, tuple[int | None, int | None]] = {
    "Response 1 names no dog [[1]].": (1, 1),
    "[[2]]": (2, 2),
    "[[ 1 ]]": (1, None),
    "[1]": (None, None),
    "first [[1]] but finally [[2]]": (2, 2),
    "[[Tie]]": (None, None),
    "": (None, None),
    "1": (None, 1),
    "[[AI generated response 2]]": (2, None),
    "[[1 or 2]]": (None, None),
    "[[neither 1 nor 2]]": (None, None),
    "[[0.1]]": (None, None),
}
"""What a reply says, to our parser and to the authors' code."""
OBJECTS = ("apple", "bridge", "clock", "dog")


@dataclass(frozen=True, kw_only=True)
class Looker(ScriptedModel):
    """Answers by rule: greedily with one word more of the reference than when it draws, or fewer, by the question; and
    compares by `rule`."""

    rule: Literal["first", "words"] = "first"

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [self._looked(conversation[-1], sampling) for conversation in conversations]

    def _looked(self, said: Message, sampling: Sampling) -> Completion:
        assert said.images, "whoever answers or compares sees the image"
        if "<given-response-1>" not in said.text:
            good = (sampling.temperature == 0) == ("even" in said.text)
            return Completion("a red apple on a table" if good else "a green dog", "stop", 5)
        if self.rule == "first":
            return Completion("Response 1 it is.\n[[1]]", "stop", 5)
        item = said.text.rpartition("Now compare these:")[2]
        reference, *answers = (
            set(item.partition(f"<given-{name}>\n")[2].partition(f"\n</given-{name}>")[0].split())
            for name in ("reference", "response-1", "response-2")
        )
        better = 1 if len(answers[0] & reference) > len(answers[1] & reference) else 2
        return Completion(f"It shares more words.\n[[{better}]]", "stop", 5)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four images, which paths begin at."""
    monkeypatch.chdir(tmp_path)
    pictured(tmp_path, 4)
    return tmp_path


def questions(count: int = 4) -> list[Record]:
    said = "a red apple lies on a table"
    return [
        asked(f"r{n}", f"{n % 4}.png", f"What is it, {'odd' if n % 2 else 'even'} {n}?", said) for n in range(count)
    ]


def pairs_of(home: Path, name: str, records: list[Record], method: Sima) -> tuple[list[Preference], Result]:
    with Run(home / name, Local()) as run:
        data = Dataset.of(records)
        result = method(data, run)
        run.finish(data, result.decisions)
        assert result.data is not None
        return list(result.data), result


def test_parser_table() -> None:
    assert {said: (verdict_of(said, "ours"), verdict_of(said, "official")) for said in PARSED} == PARSED


@pytest.mark.parametrize(("first", "second", "chosen", "reason"), [
    (1, 2, "sampled", "sampled answer chosen"), (2, 1, "greedy", "greedy answer chosen"),
    (1, 1, None, "inconsistent"), (2, 2, None, "inconsistent"), (1, None, None, "unparsed"), (None, 2, None, "unparsed"),
])  # fmt: skip
def test_pair_builder_keeps_what_both_orders_name(
    first: int | None, second: int | None, chosen: str | None, reason: str
) -> None:
    settled = Settled({"sampled-first": first, "greedy-first": second})
    assert (settled.chosen, settled.reason) == (chosen, reason)


@pytest.mark.parametrize(("verdict", "chosen"), [(1, "sampled"), (2, "greedy"), (None, None)])
def test_one_verdict_alone_names_the_sampled_answer_as_1(verdict: int | None, chosen: str | None) -> None:
    order: Order = "sampled-first"
    assert Settled({order: verdict}).chosen == chosen


def test_a_critic_that_always_says_1_keeps_no_pair_in_both_orders_and_every_sampled_one_in_one(home: Path) -> None:
    both, result = pairs_of(home, "both", questions(), Sima(student=Looker(), tuner=None))
    assert both == []
    assert {d.reason for d in result.decisions} == {"inconsistent"}
    single, _ = pairs_of(home, "single", questions(), Sima(student=Looker(), tuner=None, critic_orders="single"))
    assert [p.extra["source_of_chosen"] for p in single] == ["sampled"] * 4
    (row,) = pq.read_table(home / "single" / "tables" / "verdicts.parquet").to_pylist()
    assert row == {"order": "sampled-first", "replies": 4, "response 1": 4, "response 2": 0, "unparsed": 0}


def test_a_critic_that_counts_words_makes_the_same_pairs_in_one_order_and_both_and_of_permuted_rows(home: Path) -> None:
    rows = questions(6)
    judge = Looker(rule="words")
    made = {
        name: {p.id: (p.chosen.text, p.rejected.text) for p in pairs_of(home, name, given, method)[0]}
        for name, given, method in (
            ("both", rows, Sima(student=judge, tuner=None)),
            ("single", rows, Sima(student=judge, tuner=None, critic_orders="single")),
            ("permuted", rows[3:] + rows[:3], Sima(student=judge, tuner=None)),
            ("another", rows, Sima(student=Looker(), judge=judge, tuner=None)),
        )
    }
    assert made["both"] == {r.id: ("a red apple on a table", "a green dog") for r in rows}
    assert made["single"] == made["permuted"] == made["another"] == made["both"]
    (figures,) = pq.read_table(home / "both" / "tables" / "pairs.parquet").to_pylist()
    assert figures == {
        "pairs": 6, "consistent in both orders": 1.0, "greedy answer wins": 0.5,
        "words of chosen minus rejected, mean": 3.0,
    }  # fmt: skip


def dpo(policy: tuple[float, float], reference: tuple[float, float], beta: float) -> float:
    """As the paper prints it, of log-probabilities of the chosen and the rejected answer."""
    h = (policy[0] - reference[0]) - (policy[1] - reference[1])
    return -math.log(1 / (1 + math.exp(-beta * h)))


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that reads images, and four of them."""
    pytest.importorskip("trl", reason='needs the "train" extra')
    home = tmp_path_factory.mktemp("seeing")
    pictured(home / "data", 4)
    llava(home / "llava")
    return home


def student(home: Path) -> VisionModel:
    return VisionModel(name=str(home / "llava"), device="cpu", images=home / "data")


@pytest.fixture
def quiet() -> Iterator[None]:
    """What TRL, PEFT and transformers say to one another is theirs."""
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        yield


class Says:
    """In place of a model: the log-probability of one token of each of two answers, chosen then rejected."""

    def __init__(self, chosen: float, rejected: float) -> None:
        import torch

        self.said = torch.tensor([[chosen], [rejected]], dtype=torch.float64, requires_grad=True)

    def __call__(self, **_: object) -> Any:
        import torch

        nothing = torch.zeros_like(self.said)
        return SimpleNamespace(log_probs=self.said, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())


def trained_on(seeing: Path, tmp_path: Path, beta: float) -> Any:
    """The trainer that a training begins with, on one pair."""
    import datasets

    from tunesift.tuning.trainer import Given
    from tunesift.tuning.vision_dpo_trainer import VisionDPOLearner

    pairs = [pair("a", "0.png")]
    given = job(tmp_path / "out", student(seeing), VisionDPO(beta=beta, lora=None), Dataset.of(pairs))
    learner = VisionDPOLearner()
    model, processor = learner.load(given, "cpu")
    rows = datasets.Dataset.from_list([dict(learner.encoder(given, processor)(one).columns) for one in pairs])
    told = {"output_dir": str(tmp_path / "out"), "report_to": "none", "use_cpu": True, "bf16": False}
    return learner.trainer(
        given, model, processor, Given(told, SimpleNamespace(train=rows, held_out=None), lambda c: c)
    )


@pytest.mark.parametrize(("policy", "reference", "beta", "loss"), [
    ((-3.0, -7.0), (-3.0, -7.0), 0.1, 0.693147), ((-10.0, -15.0), (-12.0, -14.0), 0.1, 0.554355),
    ((-10.0, -15.0), (-12.0, -14.0), 0.5, 0.201413), ((-15.0, -10.0), (-14.0, -12.0), 0.1, 0.854355),
])  # fmt: skip
def test_dpo_numbers_and_gradients_are_those_of_the_trainer(
    seeing: Path, tmp_path: Path, quiet: None, policy: tuple[float, float], reference: tuple[float, float], beta: float,
    loss: float,
) -> None:  # fmt: skip
    import torch

    trainer = trained_on(seeing, tmp_path, beta)
    says = Says(*policy)
    trainer.ref_model = Says(*reference)
    read = {"input_ids": [[0, 1], [0, 1]], "attention_mask": [[1, 1], [1, 1]], "completion_mask": [[0, 1], [0, 1]]}
    found = trainer._compute_loss(says, {name: torch.tensor(rows) for name, rows in read.items()}, False)
    found.backward()
    h = (policy[0] - reference[0]) - (policy[1] - reference[1])
    slope = -beta / (1 + math.exp(beta * h))
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert found.item() == pytest.approx(dpo(policy, reference, beta), abs=1e-6)
    assert says.said.grad.flatten().tolist() == pytest.approx([slope, -slope], abs=1e-6)


def log_probability(folder: Path, image: Path, prompt: str, answer: str) -> float:
    """Of an answer behind an image and a question: the whole read at once, each token's probability looked up."""
    import torch
    from PIL import Image
    from transformers import AutoProcessor, LlavaForConditionalGeneration

    processor, model = AutoProcessor.from_pretrained(folder), LlavaForConditionalGeneration.from_pretrained(folder)
    read = processor(images=Image.open(image), text=prompt + answer, return_tensors="pt", add_special_tokens=False)
    behind = len(processor.tokenizer(answer, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        said = model(**read).logits[0].double().log_softmax(-1)
    ids = read["input_ids"][0]
    return sum(float(said[place - 1, ids[place]]) for place in range(len(ids) - behind, len(ids)))


def test_the_loss_of_a_second_update_is_that_of_the_paper(seeing: Path, tmp_path: Path, quiet: None) -> None:
    data = Dataset.of([pair("a", "1.png")])
    for steps in (1, 2):
        tuner = VisionDPO(steps=steps, learning_rate=1e-3, warm_up=0.0, schedule="constant", beta=0.3, lora=None)
        found = trained(job(tmp_path / f"{steps}", student(seeing), tuner, data))
    prompt = "<s><|user|><image>What is it?<|assistant|>"
    policy, reference = (
        tuple(log_probability(folder, seeing / "data" / "1.png", prompt, said) for said in ("A red thing.</s>", "A dog and a cat.</s>"))
        for folder in (tmp_path / "1" / "model", seeing / "llava")
    )  # fmt: skip
    expected = dpo((policy[0], policy[1]), (reference[0], reference[1]), 0.3)
    assert found.history[1]["loss"] == pytest.approx(expected, abs=1e-4)
    assert expected < 0.6


@pytest.mark.parametrize("lora", [None, LoRA(rank=4, alpha=8, dropout=0.0)], ids=["full", "lora"])
def test_a_tiny_llava_trains_two_steps_and_begins_at_ln_2(seeing: Path, tmp_path: Path, lora: LoRA | None) -> None:
    data = Dataset.of([pair(f"p{n}", f"{n}.png", rejected="A dog. " * (n + 1)) for n in range(4)])
    tuner = VisionDPO(steps=2, batch=2, device_batch=2, learning_rate=1e-3, warm_up=0.0, lora=lora)
    found = trained(job(tmp_path / "out", student(seeing), tuner, data))
    assert (found.steps, found.records, found.left_out) == (2, 4, {})
    assert found.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert found.history[1]["loss"] != pytest.approx(math.log(2), abs=1e-6)


def read_by(seeing: Path, tmp_path: Path, pairs: Sequence[Preference]) -> tuple[Any, Any, list[Any]]:
    """A processor, what the collator makes of pairs, and their rows."""
    from tunesift.tuning.vision_dpo_trainer import VisionDPOLearner, _collator

    given = job(tmp_path / "out", student(seeing), VisionDPO(), Dataset.of(pairs))
    _, processor = VisionDPOLearner().load(given, "cpu")
    rows = [VisionDPOLearner().encoder(given, processor)(one) for one in pairs]
    return processor, _collator(processor, seeing / "data")([dict(row.columns) for row in rows]), rows


def test_image_and_prompt_are_not_learned_and_two_rows_are_four_images(
    seeing: Path, tmp_path: Path, quiet: None
) -> None:
    pairs = [pair("a", "0.png"), pair("b", "1.png", chosen="<image>Blue.", rejected="<image> </s> No.")]
    processor, read, rows = read_by(seeing, tmp_path, pairs)
    ids, mask = read["input_ids"], read["completion_mask"]
    assert tuple(read["pixel_values"].shape) == (4, 3, 28, 28)
    assert read["pixel_values"][0].equal(read["pixel_values"][2])  # chosen first, then rejected, of the same images
    assert (ids == processor.image_token_id).sum(1).tolist() == [4, 4, 4, 4]
    assert not mask[ids == processor.image_token_id].any()
    learned = [processor.tokenizer.decode(ids[n][mask[n].bool()]) for n in range(4)]
    assert learned == [
        "A red thing.</s>", "<\u2060image>Blue.</s>", "A dog and a cat.</s>", "<\u2060image> <\u2060/s> No.</s>",
    ]  # fmt: skip
    assert [row.tokens for row in rows] == [int(read["attention_mask"][[n, n + 2]].sum()) for n in range(2)]


def test_one_corrupt_image_of_four_costs_one_row_and_no_training(seeing: Path, home: Path) -> None:
    (home / "2.png").write_bytes((home / "2.png").read_bytes()[:60])
    pairs, result = pairs_of(home, "run", questions(), Sima(student=Looker(rule="words"), tuner=None))
    assert [p.id for p in pairs] == ["r0", "r1", "r3"]
    (lost,) = [d for d in result.decisions if d.action == "quarantine"]
    assert lost.record_id == "r2"
    assert lost.reason.startswith("unreadable: E407")
    assert lost.reason.endswith("Error)")
    own = VisionModel(name=str(seeing / "llava"), device="cpu", images=home)
    tuner = VisionDPO(steps=2, batch=2, learning_rate=1e-3)
    found = trained(job(home / "out", own, tuner, Dataset.of([pair(f"p{n}", f"{n}.png") for n in range(4)])))
    assert (found.records, found.left_out) == (3, {"unreadable": 1})


def test_chair_arithmetic() -> None:
    captions = [Caption("A dog and a cat.", ("dog", "cat"), {"dog"}), Caption("One car.", ("car",), {"car"}),
                Caption("A tree, a bench and a bird.", ("tree", "bench", "bird"), {"tree"})]  # fmt: skip
    found = chair(captions)
    assert (found.of_captions, found.of_mentions) == (pytest.approx(2 / 3), pytest.approx(0.5))
    more = chair([*captions, Caption("It is nice.", (), {"dog"}), Caption(" ", (), {"dog"})])
    assert (more.of_captions, more.of_mentions, more.captions, more.empty) == (0.5, 0.5, 4, 1)
    assert Caption("It is nice.", (), {"dog"}).hallucinated_share == 0.0
    assert found.words == pytest.approx((5 + 2 + 7) / 3)


def test_the_same_seed_gives_the_same_answers(seeing: Path) -> None:
    model, prompt = student(seeing), asked("a", "0.png").prompt
    greedy, drawn = Sampling(max_tokens=8), Sampling(max_tokens=8, temperature=0.8, top_p=0.9)
    said = [[model.chat([prompt], how)[0] for how in (greedy, drawn)] for _ in range(2)]
    assert said[0] == said[1]
    assert not isinstance(said[0][0], Failure)
    assert said[0][0] != said[0][1]
    assert model.chat([prompt], Sampling(max_tokens=8, temperature=0.8, top_p=0.9, seed=1))[0] != said[0][1]


@pytest.mark.slow
def test_the_same_pairs_and_seed_give_the_same_weights(seeing: Path, tmp_path: Path) -> None:
    data = Dataset.of([pair(f"p{n}", f"{n}.png") for n in range(4)])
    tuner = VisionDPO(steps=2, batch=2, learning_rate=1e-3, warm_up=0.0, lora=None)
    for name in ("one", "two"):
        trained(job(tmp_path / name, student(seeing), tuner, data))
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] == weights[1] != (seeing / "llava" / "model.safetensors").read_bytes()
