"""IFD: the acceptance oracles of the card papers/ifd.md, one test or a few for each, named after its line.

Oracle 8, facility location, and oracle 6 with the rules of the authors' scripts are in test_published_rules.py.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='needs the "local" extra')
import slow  # noqa: E402
import transformers  # noqa: E402

from harness.tiny import MakeTiny  # noqa: E402
from tunesift import (  # noqa: E402
    IFD,
    Dataset,
    Failure,
    Largest,
    Local,
    Message,
    Pool,
    Record,
    ReversedIFD,
    Run,
    Score,
    Span,
    TargetLoss,
    TransformersModel,
)
from tunesift.methods.cherry import pick  # noqa: E402
from tunesift.models import lse  # noqa: E402
from tunesift.models.likelihood import Segment, SpanEncoder, losses  # noqa: E402
from tunesift.prompts import ALPACA_ANCHOR, context  # noqa: E402
from tunesift.scoring.deciding import budget, ranked  # noqa: E402
from tunesift.scoring.ifd import Ratios, ratios  # noqa: E402

PROFILES = ("canonical", "cherry", "superfilter")


def top(values: Mapping[str, float], count: int) -> list[str]:
    """Ids of the largest values, best first, as selectors rank them."""
    ranks = dict(zip(values, ranked(np.array(list(values.values()))), strict=True))
    return sorted((id for id in values if ranks[id] <= count), key=ranks.__getitem__)


def record(id: str, instruction: str, response: str) -> Record:
    return Record(id, (Message("user", instruction), Message("assistant", response)))


def worked(conditioned: Sequence[float], direct: Sequence[float]) -> Ratios:
    found = ratios(TargetLoss(tuple(conditioned), False), TargetLoss(tuple(direct), False))
    assert found is not None
    return found


def scored(outcome: Score | Failure) -> Score:
    assert isinstance(outcome, Score), outcome
    return outcome


def one(scorer: IFD | ReversedIFD, given: Record) -> Score | Failure:
    (outcome,) = scorer([given])
    return outcome


def ifd(folder: Path, profile: Any, **settings: Any) -> IFD:
    """The profile over a tiny model; GPT-2 has no chat template, so the canonical one uses the bare text."""
    template = "bare" if profile == "canonical" else None
    student = TransformersModel(name=str(folder), **settings)
    return IFD(student=student, profile=profile, template=template)  # type: ignore[arg-type]


def kept(selector: Largest, values: Mapping[str, float]) -> list[str]:
    data = Dataset.of([record(id, "a", "b") for id in values])
    scores = {id: Score(value) for id, value in values.items()}
    decisions = selector(Pool(data, scores, {}, "IFD", random.Random(0)))
    return [d.record_id for d in decisions if d.action == "keep"]


CONDITIONED, DIRECT = [0.2, 1.0, 0.6, 0.2], [2.0, 1.2, 0.8, 0.4]


def test_oracle_1_ratios_of_worked_losses() -> None:
    found = worked(CONDITIONED, DIRECT)
    assert found.conditioned / found.tokens == pytest.approx(0.5)
    assert found.direct / found.direct_tokens == pytest.approx(1.1)
    assert found.loss == pytest.approx(0.454545, abs=5e-7)
    assert found.perplexity == pytest.approx(0.548812, abs=5e-7)


def test_oracle_1_superfilters_alignment_leaves_out_the_first_direct_loss() -> None:
    found = worked(CONDITIONED, DIRECT[1:])
    assert found.direct / found.direct_tokens == pytest.approx(0.8)
    assert found.loss == pytest.approx(0.625, abs=5e-7)
    assert found.perplexity == pytest.approx(0.740818, abs=5e-7)


def test_oracle_1_a_mean_of_ratios_per_token_appears_nowhere() -> None:
    wrong = sum(c / d for c, d in zip(CONDITIONED, DIRECT, strict=True)) / 4
    assert wrong == pytest.approx(0.545833, abs=5e-7)
    for found in (worked(CONDITIONED, DIRECT), worked(CONDITIONED, DIRECT[1:])):
        assert abs(found.loss - wrong) > 1e-3
        assert abs(found.perplexity - wrong) > 1e-3


def test_oracle_2_loss_and_perplexity_order_records_differently() -> None:
    given = {"X": (0.696, 0.761), "Y": (3.337, 3.970), "Z": (0.05, 0.10)}
    by_loss = {name: worked([c], [d]).loss for name, (c, d) in given.items()}
    by_perplexity = {name: worked([c], [d]).perplexity for name, (c, d) in given.items()}
    assert by_loss == pytest.approx({"X": 0.914586, "Y": 0.840554, "Z": 0.5}, abs=5e-7)
    assert by_perplexity == pytest.approx({"X": 0.937067, "Y": 0.530996, "Z": 0.951229}, abs=5e-7)
    assert top(by_loss, 3) == ["X", "Y", "Z"]
    assert top(by_perplexity, 3) == ["Z", "X", "Y"]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_oracle_3_an_empty_prompt_gives_ratios_of_exactly_one(make_tiny: MakeTiny, kind: str) -> None:
    student = TransformersModel(name=str(make_tiny(kind)))
    conditioned, direct = student.loss([Span("", "the end"), Span("", "the end")])
    assert isinstance(conditioned, TargetLoss)
    assert isinstance(direct, TargetLoss)
    found = ratios(conditioned, direct)
    assert found is not None
    assert (found.loss, found.perplexity) == (1.0, 1.0)


def test_oracle_3_weights_of_zero_give_the_logarithm_of_the_vocabulary() -> None:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2))
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    segment = Segment((1, 2, 3, 4, 5), 2, truncated=False)
    with torch.no_grad():
        (loss,) = losses([segment], lambda _: model.transformer(torch.tensor([segment.ids]))[0], model.lm_head)
    assert loss.nats == pytest.approx([3.912023] * 3, abs=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_oracle_3_weights_of_zero_give_an_ifd_of_one_which_cherry_keeps_and_superfilter_drops(
    make_tiny: MakeTiny, kind: str
) -> None:
    folder = make_tiny(kind, zero=True)
    vocabulary = len(transformers.AutoTokenizer.from_pretrained(folder))
    for profile in PROFILES:
        score = scored(one(ifd(folder, profile), record("a", "Say it.", "the end")))
        assert score.value == 1.0
        assert score.parts["conditioned"] == pytest.approx(math.log(vocabulary), abs=1e-6)
        assert score.parts["direct"] == pytest.approx(math.log(vocabulary), abs=1e-6)
        assert kept(Largest(fraction=1.0, at_most=1.0), {"a": 1.0}) == ["a"]
        assert kept(Largest(fraction=1.0, below=1.0), {"a": 1.0}) == []


@pytest.mark.parametrize("difference", [1e-6, -1e-6])
def test_oracle_3_a_ratio_within_a_millionth_of_one_is_one_before_either_rule(difference: float) -> None:
    found = worked([1.0 + 0.99 * difference], [1.0])
    assert (found.loss, found.perplexity) == (1.0, 1.0)
    assert worked([1.0 + 2 * difference], [1.0]).loss != 1.0


RECORDS = [
    record("a", "Name the sea.", "It is the Baltic."),
    record("b", "Add in a line.", "The line is in there now, and the end of it is here."),
    record("c", "What?", "Eh"),
    record("d", "Say so in German, and then in the other language that you have heard of.", "So, und nicht anders."),
    record("e", "你好", "世界 \U0001f642"),
    record("f", "Name the sea.", "It is the Baltic."),
]


def values(outcomes: Sequence[Score | Failure]) -> list[float | None]:
    return [scored(outcome).value for outcome in outcomes]


def test_oracle_4_the_conditioned_loss_is_the_frameworks_label_masked_loss(make_tiny: MakeTiny) -> None:
    """To 1e-6 and not to the bit: the framework takes the mean in float32, we in Python's float64."""
    folder = make_tiny("gpt2")
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    for given in RECORDS:
        before = context(given.prompt, "bare")
        assert isinstance(before, str)
        ids = torch.tensor([slow.encode(folder, before + given.response)])
        labels = ids.clone()
        labels[:, : len(slow.encode(folder, before))] = -100
        with torch.no_grad():
            framework = float(model(ids, labels=labels).loss)
        score = scored(one(ifd(folder, "superfilter"), given))
        assert score.parts["conditioned"] == pytest.approx(framework, rel=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("profile", PROFILES)
def test_oracle_4_batched_equals_one_by_one(make_tiny: MakeTiny, kind: str, profile: str) -> None:
    scorer = ifd(make_tiny(kind), profile)
    alone = [one(scorer, given) for given in RECORDS]
    assert values(scorer(RECORDS)) == pytest.approx(values(alone), abs=1e-5)


@pytest.mark.parametrize("profile", PROFILES)
def test_oracle_4_softmax_in_chunks_equals_softmax_at_once(
    make_tiny: MakeTiny, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = ifd(make_tiny("gpt2"), profile)
    at_once = values(scorer(RECORDS))
    monkeypatch.setattr(lse, "ROWS", 2)
    monkeypatch.setattr(lse, "COLUMNS", 3)
    assert values(scorer(RECORDS)) == pytest.approx(at_once, abs=1e-6)


def test_oracle_4_the_order_of_the_records_does_not_matter(make_tiny: MakeTiny) -> None:
    scorer = ifd(make_tiny("gpt2"), "canonical", batch_tokens=60)
    ordered = dict(zip("abcdef", values(scorer(RECORDS)), strict=True))
    shuffled = random.Random(4).sample(RECORDS, len(RECORDS))
    again = dict(zip((r.id for r in shuffled), values(scorer(shuffled)), strict=True))
    assert again == pytest.approx(ordered, abs=1e-6)
    assert ordered["a"] == pytest.approx(ordered["f"], abs=1e-6)


def test_oracle_4_scoring_twice_reads_the_journal_and_does_no_work(
    make_tiny: MakeTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, data = ifd(make_tiny("gpt2"), "canonical"), Dataset.of(RECORDS)
    with Run(tmp_path, Local()) as run:
        first = dict(run.map("score", scorer, data).good())
        assert run.stages[-1].worked == len(RECORDS)

    def forward(*_: object, **__: object) -> None:
        raise AssertionError("the model was asked again")

    monkeypatch.setattr(transformers.GPT2Model, "forward", forward)
    with Run(tmp_path, Local()) as run:
        assert dict(run.map("score", scorer, data).good()) == first
        assert run.stages[-1].worked == 0


def long_instruction(folder: Path, template: Any, begins: int, tokens: int) -> str:
    """An instruction with which the prompt has so many tokens."""
    empty = context((Message("user", ""),), template)
    assert isinstance(empty, str)
    return "a" * (tokens - begins - len(slow.encode(folder, empty)))


TRUNCATION = [("cherry", "llama", "alpaca", 1), ("superfilter", "gpt2", "bare", 0), ("canonical", "gpt2", "bare", 1)]
"""Profile, model, template, and how many tokens the model begins a text with."""


@pytest.mark.parametrize(("profile", "kind", "template", "begins"), TRUNCATION)
def test_oracle_5_a_prompt_of_500_leaves_12_answer_tokens_in_both_branches(
    make_tiny: MakeTiny, profile: str, kind: str, template: str, begins: int
) -> None:
    folder = make_tiny(kind, length=600)
    scorer = ifd(folder, profile, max_length=512)
    answer = "".join(chr(ord("b") + n % 7) for n in range(40))
    score = scored(one(scorer, record("a", long_instruction(folder, template, begins, 500), answer)))
    assert (score.parts["tokens"], score.parts["direct_tokens"]) == (12, 12)
    assert score.note == "truncated"
    short = record("a", long_instruction(folder, template, begins, 500), answer[:12])
    alone = scored(one(scorer, short))
    assert alone.parts["conditioned_sum"] == pytest.approx(score.parts["conditioned_sum"], abs=1e-4)
    if profile != "superfilter":  # there the direct branch is shifted by one token, as in the authors' script
        assert alone.parts["direct_sum"] == pytest.approx(score.parts["direct_sum"], abs=1e-4)


@pytest.mark.parametrize(("profile", "kind", "template", "begins"), TRUNCATION)
def test_oracle_5_a_prompt_of_512_is_too_long(
    make_tiny: MakeTiny, profile: str, kind: str, template: str, begins: int
) -> None:
    folder = make_tiny(kind, length=600)
    given = record("a", long_instruction(folder, template, begins, 512), "b" * 40)
    assert one(ifd(folder, profile, max_length=512), given) == Score(None, note="prompt_too_long")


def test_oracle_5_cherry_reads_no_more_than_512_tokens_of_a_larger_model(make_tiny: MakeTiny) -> None:
    folder = make_tiny("llama", length=600)
    given = record("a", long_instruction(folder, "alpaca", 1, 512), "b" * 40)
    assert one(ifd(folder, "cherry"), given) == Score(None, note="prompt_too_long")
    assert scored(one(ifd(folder, "canonical"), given)).value is not None


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("answer", ["", "   ", "\n\t"])
def test_oracle_5_an_empty_answer_has_no_score(make_tiny: MakeTiny, profile: str, answer: str) -> None:
    assert one(ifd(make_tiny("gpt2"), profile), record("a", "Say.", answer)) == Score(None, note="empty_response")


def test_oracle_5_an_answer_of_one_token_is_scored_unless_nothing_stands_before_it(make_tiny: MakeTiny) -> None:
    given = record("a", "Yes or no?", "y")
    for kind in ("llama", "gpt2"):
        for profile in ("cherry", "canonical"):
            score = scored(one(ifd(make_tiny(kind), profile), given))
            assert (score.parts["tokens"], score.parts["direct_tokens"], score.note) == (1, 1, "")
            assert score.value is not None
    assert one(ifd(make_tiny("gpt2"), "superfilter"), given) == Score(None, note="no_scored_tokens")


def test_oracle_5_logits_that_are_no_numbers_are_a_failure_and_never_zero(make_tiny: MakeTiny) -> None:
    folder = make_tiny("gpt2")
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    torch.nn.init.constant_(model.transformer.ln_f.weight, float("nan"))
    model.save_pretrained(folder)
    for profile in PROFILES:
        outcome = one(ifd(folder, profile), record("a", "Say it.", "the end"))
        assert isinstance(outcome, Failure)
        assert outcome.kind == "not-finite"


IFDS = [0.91, 1.0, 1.02, math.nan, 0.55, 0.91, 0.3]


def test_oracle_6_our_rule_keeps_rows_0_4_and_5_in_the_order_of_the_data() -> None:
    assert kept(Largest(fraction=0.5, below=1.0), {str(n): value for n, value in enumerate(IFDS)}) == ["0", "4", "5"]
    valid = {str(n): value for n, value in enumerate(IFDS) if value < 1}
    assert top(valid, budget(0.5, None, 7)) == ["0", "5", "4"]


def test_oracle_6_a_value_that_is_no_number_takes_no_ones_place() -> None:
    named = {str(n): value for n, value in enumerate([math.nan, math.inf, *IFDS])}
    assert kept(Largest(fraction=None, count=3, at_most=1.0), named) == ["2", "3", "7"]
    assert kept(Largest(fraction=None, count=2), named) == ["3", "4"]


def test_oracle_6_a_rate_of_zero_keeps_nothing() -> None:
    assert budget(0.0, None, 7) == 0
    assert top({"a": 0.9, "b": 0.5}, 0) == []
    assert kept(Largest(fraction=0.1, below=1.0), {str(n): value for n, value in enumerate(IFDS)}) == []


def test_oracle_7_the_middle_of_a_cluster_by_percentiles() -> None:
    perplexities = [5, 9, 1, 7, 3, 8, 2, 6, 4, 10, 11, 12]
    assert pick(perplexities, 10, 25, 75) == [0, 1, 3, 5, 7, 8]
    assert pick(perplexities, 3, 25, 75) == [0, 3, 7]


def test_oracle_7_a_cluster_of_fewer_than_the_count_is_taken_whole() -> None:
    assert pick([3.0, 900.0, 1.0], 10, 25, 75) == [0, 1, 2]
    assert pick([], 10, 25, 75) == []


def test_oracle_7_both_ends_of_the_band_are_inside() -> None:
    assert pick([3.75, 9.25, 1, 7, 3, 8, 2, 6, 4, 10, 11, 12], 3, 0, 100) == [0, 4, 8]
    assert pick([1, 2, 3, 4, 5], 5, 25, 75) == [1, 2, 3]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("seam", ["\n", " ", "### Response:", "def f():\n"])
def test_oracle_9_answers_have_the_same_tokens_in_both_branches_and_decode_back(
    make_tiny: MakeTiny, kind: str, seam: str
) -> None:
    folder = make_tiny(kind)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encode = SpanEncoder(tokenizer, 256)
    for answer in ("\n\nthe", "    return the", "\U0001f642 in", "世界", " x", "he"):
        conditioned, direct = encode(Span(f"Say it.{seam}", answer)), encode(Span("", answer))
        ids = conditioned.ids[conditioned.start :]
        assert ids == direct.ids[direct.start :] == tuple(slow.encode(folder, answer))
        assert tokenizer.decode(ids) == answer


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_measures_what_the_slow_oracle_measures(make_tiny: MakeTiny, kind: str, profile: str) -> None:
    folder = make_tiny(kind, length=300)
    seam, bos = ("separate", "always") if profile == "canonical" else ("joint", "tokenizer")
    anchor = ALPACA_ANCHOR if profile == "cherry" else ""
    for given in (RECORDS[0], RECORDS[4]):
        before = context(given.prompt, "alpaca" if profile == "cherry" else "bare")
        assert isinstance(before, str)
        conditioned, direct = (
            slow.token_losses(folder, Span(text, given.response, seam, bos), 300)  # type: ignore[arg-type]
            for text in (before, anchor)
        )
        mean, alone = sum(conditioned) / len(conditioned), sum(direct) / len(direct)
        score = scored(one(ifd(folder, profile), given))
        assert score.parts["ifd_loss"] == pytest.approx(mean / alone, abs=1e-5)
        assert score.parts["ifd_ppl"] == pytest.approx(math.exp(mean - alone), rel=1e-4)
        assert score.value == score.parts["ifd_loss" if profile == "cherry" else "ifd_ppl"]


def test_reversed_ifd_has_nothing_to_say_about_a_record_without_an_instruction(make_tiny: MakeTiny) -> None:
    scorer = ReversedIFD(student=TransformersModel(name=str(make_tiny("llama"))))
    without = Record("a", (Message("assistant", "I speak first."),))
    assert one(scorer, without) == Score(None, note="empty_response")
    assert scored(one(scorer, RECORDS[0])).value is not None
