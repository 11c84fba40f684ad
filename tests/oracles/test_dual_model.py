"""Dual-model difficulty against a calculator's loop: both IFDs token by token, without batches, and the gap as the card
star_agents.md prints it (eq. 4 and 5), with its oracles 1, 5 and 8 and its pitfalls on two real models."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason='needs the "local" extra')
import slow  # noqa: E402
import transformers  # noqa: E402

from tunesift import (  # noqa: E402
    IFD,
    Dataset,
    DualIFD,
    Failure,
    Local,
    Message,
    ModelRefused,
    Record,
    Run,
    Score,
    Span,
    TransformersModel,
)
from tunesift.models.alike import evened  # noqa: E402
from tunesift.prompts import context  # noqa: E402
from tunesift.scoring.dual_ifd import difficulties, gap_of, size_of  # noqa: E402

MakeTiny = Callable[..., Path]

LONG = 300


def record(id: str, instruction: str, response: str) -> Record:
    return Record(id, (Message("user", instruction), Message("assistant", response)))


RECORDS = [
    record("sea", "Name the sea.", "It is the Baltic."),
    record("line", "Add in a line.", "The line is in there now, and the end of it is here."),
    record("short", "What?", "Eh"),
    record("wide", "你好", "世界 \U0001f642"),
    record("long", "Say so in German, and then in the other language that you have heard of.", "So, und nicht anders."),
    record("echo", "the the the the", "the the the the"),
]


@pytest.fixture(scope="module")
def pair(make_tiny: MakeTiny) -> tuple[Path, Path]:
    """Two tiny models with one tokenizer."""
    return make_tiny("llama", length=LONG), make_tiny("gpt2", seed=3, length=LONG)


def scorer(pair: tuple[Path, Path], **settings: Any) -> DualIFD:
    """Over a pair of folders; GPT-2 has no chat template, so both read the bare text."""
    small, large = (TransformersModel(name=str(folder)) for folder in pair)
    return DualIFD(**{"small": small, "large": large, "template": "bare"} | settings)


def by_hand(folder: Path, given: Record) -> tuple[list[float], list[float]]:
    """Nats of each token of the response after its instruction, and alone after the token that begins a text."""
    before = context(given.prompt, "bare")
    assert isinstance(before, str)
    conditioned, direct = (slow.token_losses(folder, Span(text, given.messages[1].text), LONG) for text in (before, ""))
    assert len(conditioned) == len(direct) == len(slow.encode(folder, given.messages[1].text))
    return conditioned, direct


def ratio_by_hand(folder: Path, given: Record, ratio: str) -> float:
    conditioned, direct = by_hand(folder, given)
    if ratio == "perplexity":  # eq. 4 as it is printed
        above = math.exp(-(1 / len(conditioned)) * sum(-n for n in conditioned))
        return above / math.exp(-(1 / len(direct)) * sum(-n for n in direct))
    if ratio == "loss":
        return (sum(conditioned) / len(conditioned)) / (sum(direct) / len(direct))
    size = len(given.messages[1].text.encode())
    return math.exp(sum(conditioned) / size) / math.exp(sum(direct) / size)


@pytest.mark.parametrize("ratio", ["perplexity", "loss", "byte"])
def test_the_gap_is_what_a_loop_over_tokens_makes_it(pair: tuple[Path, Path], ratio: str) -> None:
    found = scorer(pair, ratio=ratio)(RECORDS)
    gaps = 0
    for given, score in zip(RECORDS, found, strict=True):
        hard, easy = (ratio_by_hand(folder, given, ratio) for folder in pair)
        assert isinstance(score, Score)
        assert score.parts["ifd_small"] == pytest.approx(hard, rel=1e-4)
        if hard >= 1:
            assert (score.value, score.note) == (None, "above_one")
            continue
        gaps += 1
        assert score.parts["ifd_large"] == pytest.approx(easy, rel=1e-4)
        assert score.value == pytest.approx(hard - easy, abs=1e-4)
        assert score.parts["bytes"] == len(given.messages[1].text.encode())
        for folder, side in zip(pair, ("small", "large"), strict=True):
            conditioned, direct = by_hand(folder, given)
            assert score.parts[f"conditioned_sum_{side}"] == pytest.approx(sum(conditioned), rel=1e-4)
            assert score.parts[f"direct_{side}"] == pytest.approx(sum(direct) / len(direct), rel=1e-4)
            assert score.parts[f"tokens_{side}"] == score.parts[f"direct_tokens_{side}"] == len(direct)
    assert 0 < gaps < len(RECORDS), "the records show both"


def test_eq_5_over_the_records_of_a_batch(pair: tuple[Path, Path]) -> None:
    found = scorer(pair)(RECORDS)
    gaps = [score.value if isinstance(score, Score) else None for score in found]
    largest = max(gap for gap in gaps if gap is not None)
    assert largest > 0
    expected = [0.0 if gap is None or gap < 0 else gap / largest for gap in gaps]
    assert difficulties(gaps) == pytest.approx(expected, abs=1e-12)
    assert max(difficulties(gaps)) == 1


def test_oracle_5_the_same_model_twice_has_gaps_of_exactly_0(pair: tuple[Path, Path]) -> None:
    found = scorer((pair[0], pair[0]))(RECORDS)
    gaps = [score.value for score in found if isinstance(score, Score)]
    assert {gap for gap in gaps if gap is not None} == {0.0}
    assert set(difficulties(gaps)) == {0.0}


def plain(scores: list[Score | Failure]) -> list[tuple[float | None, str]]:
    assert all(isinstance(score, Score) for score in scores)
    return [(score.value, score.note) for score in scores if isinstance(score, Score)]


def test_together_is_one_by_one_and_in_any_order(pair: tuple[Path, Path]) -> None:
    dual = scorer(pair)
    at_once = plain(dual(RECORDS))
    alone = plain([dual([given])[0] for given in RECORDS])
    turned = plain(dual(RECORDS[::-1]))[::-1]
    for other in (alone, turned):
        assert [note for _, note in other] == [note for _, note in at_once]
        assert [value for value, _ in other] == pytest.approx([value for value, _ in at_once], abs=1e-5)


def test_two_stages_of_ifd_come_to_the_same_gaps(pair: tuple[Path, Path], tmp_path: Path) -> None:
    """As a method does it that asks the small model first and the large one later."""
    models = evened(*(TransformersModel(name=str(folder)) for folder in pair))
    data, small, large = Dataset.of(RECORDS), *(IFD(student=model, template="bare") for model in models)
    with Run(tmp_path, Local()) as run:
        hard, easy = run.map("ifd-small", small, data), run.map("ifd-large", large, data)
        gaps = [gap_of(hard[r.id], easy[r.id], size=size_of(r)) for r in RECORDS]
    for gap, dual in zip(gaps, scorer(pair)(RECORDS), strict=True):
        assert isinstance(gap, Score)
        assert isinstance(dual, Score)
        assert gap.note == dual.note
        assert gap.value == pytest.approx(dual.value, abs=1e-5)
        assert gap.parts == pytest.approx(dual.parts, abs=1e-3)


def test_pitfall_14_a_long_response_is_cut_alike_by_models_of_different_limits(make_tiny: MakeTiny) -> None:
    pair = make_tiny("gpt2", length=64), make_tiny("gpt2", seed=3, length=256)
    long = record("long", "the", "in the " * 100)
    empty = record("empty", "Say it.", " ")
    too_long = record("asks", "a" * 300, "the end")
    for folders in (pair, pair[::-1]):
        cut, none, without = scorer(folders)([long, empty, too_long])
        assert isinstance(cut, Score)
        assert cut.parts.get("tokens_small", 0) == cut.parts.get("tokens_large", 0)
        assert cut.note in ("truncated", "above_one")
        assert (none, without) == (Score(None, note="empty_response"), Score(None, note="small: prompt_too_long"))
    assert any(scorer(folders)([long])[0].note == "truncated" for folders in (pair, pair[::-1]))  # type: ignore[union-attr]


def spoilt(folder: Path) -> Path:
    model = transformers.GPT2LMHeadModel.from_pretrained(folder)
    torch.nn.init.constant_(model.transformer.ln_f.weight, float("nan"))
    model.save_pretrained(folder)
    return folder


def test_oracle_8_losses_that_are_no_numbers_are_failures_of_either_model(make_tiny: MakeTiny) -> None:
    sound, broken = make_tiny("gpt2", seed=3), spoilt(make_tiny("gpt2"))
    helped = [r for r in RECORDS if ratio_by_hand(sound, r, "perplexity") < 1]
    assert helped
    for folders in ((sound, broken), (broken, sound)):
        for outcome in scorer(folders)(helped):
            assert isinstance(outcome, Failure)
            assert outcome.kind == "not-finite"


def test_a_large_model_is_asked_only_for_what_the_small_one_s_instruction_helps(pair: tuple[Path, Path]) -> None:
    asked: list[str] = []

    class Watching(TransformersModel):
        def loss(self, spans: Any) -> Any:  # Any: as the model has it
            asked.extend(span.target for span in spans)
            return super().loss(spans)

    found = scorer(pair, large=Watching(name=str(pair[1])))(RECORDS)
    with_gap = [r.response for r, s in zip(RECORDS, found, strict=True) if isinstance(s, Score) and s.value is not None]
    assert asked == [response for response in with_gap for _ in (1, 2)]
    assert 0 < len(with_gap) < len(RECORDS)


def coarser(make_tiny: MakeTiny) -> Path:
    """A model whose tokenizer joins more."""
    import json

    folder = make_tiny("gpt2", seed=3)
    found = json.loads((folder / "tokenizer.json").read_text())
    found["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(found))
    return folder


def test_pitfall_4_tokens_that_differ_stop_a_ratio_per_token_and_no_other(make_tiny: MakeTiny) -> None:
    """What no folder tells: the page that scores sees it from the first response of which the counts differ."""
    helped = make_tiny("gpt2")
    given = [r for r in RECORDS if ratio_by_hand(helped, r, "perplexity") < 1 and "the" in r.response]
    assert given
    pair = helped, coarser(make_tiny)
    with pytest.raises(ModelRefused) as refusal:
        scorer(pair)(given)
    assert f'record "{given[0].id}": the small model reads its response as ' in str(refusal.value)
    assert str(refusal.value).endswith("choose ratio=loss or ratio=byte.")
    for ratio in ("loss", "byte"):
        for score in scorer(pair, ratio=ratio)(given):
            assert isinstance(score, Score)
            assert score.value is not None
            assert score.parts["tokens_small"] < score.parts["tokens_large"]
