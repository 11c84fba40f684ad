"""Dual-model difficulty as arithmetic: the gap of two scores, why there is none, and its share of the largest."""

from __future__ import annotations

import math

import pytest

from tunesift import Failure, Score
from tunesift.scoring.dual_ifd import difficulties, gap_of, without_large
from tunesift.scoring.ifd import Ratios


def scored(conditioned: float, direct: float, tokens: int = 10, *, cut: bool = False, alone: int = 0) -> Score:
    """What IFD says of sums of losses in nats over so many tokens."""
    alone = alone or tokens
    found = Ratios(conditioned, direct, tokens, alone)
    parts = {
        "ifd_ppl": found.perplexity, "ifd_loss": found.loss, "conditioned": conditioned / tokens,
        "direct": direct / alone, "conditioned_sum": conditioned, "direct_sum": direct, "tokens": tokens,
        "direct_tokens": alone, "truncated": float(cut),
    }  # fmt: skip
    return Score(found.perplexity, parts, "truncated" if cut else "")


def of_ifd(value: float) -> Score:
    """A score whose ratio of perplexities is this, over ten tokens."""
    return scored(10 * (5 + math.log(value)), 50.0)


def gap(small: Score, large: Score, *settings: object) -> float:
    found = gap_of(small, large, *settings)  # type: ignore[arg-type]
    assert isinstance(found, Score)
    assert found.value is not None, found.note
    return found.value


def note(small: Score, large: Score, *settings: object) -> str:
    found = gap_of(small, large, *settings)  # type: ignore[arg-type]
    assert isinstance(found, Score)
    assert found.value is None
    return found.note


def test_oracle_1_gaps_and_their_shares_of_the_largest() -> None:
    small, large = [0.80, 0.90, 0.70, 0.60], [0.60, 0.85, 0.75, 0.60]
    gaps = [gap(of_ifd(s), of_ifd(g)) for s, g in zip(small, large, strict=True)]
    assert gaps == pytest.approx([0.20, 0.05, -0.05, 0.0], abs=1e-12)
    assert difficulties(gaps) == pytest.approx([1, 0.25, 0, 0], abs=1e-12)
    judged = [difficulty * won for difficulty, won in zip(difficulties(gaps), (0, 1, 1, 0.5), strict=True)]
    assert judged == pytest.approx([0, 0.25, 0, 0], abs=1e-12)


def test_oracle_1_where_all_gaps_are_below_0_nothing_is_difficult() -> None:
    assert difficulties([-0.1, -0.3, -0.2]) == [0, 0, 0]


def test_oracle_5_the_same_model_twice_has_gaps_of_0_and_nothing_difficult() -> None:
    gaps = [gap(of_ifd(value), of_ifd(value)) for value in (0.3, 0.9, 0.6)]
    assert gaps == [0, 0, 0]
    assert difficulties(gaps) == [0, 0, 0]


def test_what_rounding_makes_of_one_model_s_ratios_is_no_gap() -> None:
    """Losses of one text in two batches differ in the last digits of float32, far above the bound of the largest gap."""
    for near in (5e-8, -5e-8):
        assert gap(of_ifd(0.5), of_ifd(0.5 + near)) == 0
    assert gap(of_ifd(0.5), of_ifd(0.5 - 2e-6)) == pytest.approx(2e-6)
    assert gap(of_ifd(0.5), of_ifd(0.5 + 2e-6)) == pytest.approx(-2e-6)


def test_oracle_8_what_is_no_number_is_worth_0_and_lowers_nobody_else() -> None:
    assert difficulties([math.nan, 0.2, math.inf, None, 0.1, -math.inf]) == [0, 1, 0, 0, 0.5, 0]
    assert difficulties([None, math.nan]) == [0, 0]
    assert difficulties([]) == []


def test_a_gap_of_a_billionth_is_rounding_and_one_above_it_is_a_gap() -> None:
    assert difficulties([1e-9, 0]) == [0, 0]
    assert difficulties([1.1e-9, 0]) == [1, 0]


def test_pitfall_4_the_same_losses_differ_by_token_and_agree_by_byte_and_by_loss() -> None:
    few, many = scored(30, 40, tokens=10), scored(30, 40, tokens=20)
    assert few.parts["ifd_ppl"] == pytest.approx(0.368, abs=5e-4)
    assert many.parts["ifd_ppl"] == pytest.approx(0.607, abs=5e-4)
    assert note(few, many) == "tokens_differ"
    assert gap(few, many, "byte", 50) == 0
    assert gap(few, many, "loss") == 0
    found = gap_of(few, scored(20, 40, tokens=20), "byte", 50)
    assert isinstance(found, Score)
    assert found.parts["ifd_small"] == pytest.approx(math.exp(-10 / 50))
    assert found.parts["ifd_large"] == pytest.approx(math.exp(-20 / 50))
    assert found.value == pytest.approx(math.exp(-0.2) - math.exp(-0.4))


def test_pitfall_6_a_response_that_the_instruction_does_not_help_has_no_gap_however_wide_it_were() -> None:
    found = gap_of(of_ifd(1.4), of_ifd(0.3))
    assert found == Score(None, {"ifd_small": pytest.approx(1.4)}, "above_one")
    assert note(of_ifd(1.0), of_ifd(0.3)) == "above_one"
    assert gap(of_ifd(0.9), of_ifd(1.4)) == pytest.approx(-0.5), "the large model's ratio is not bounded"


@pytest.mark.parametrize(("ratio", "size"), [("perplexity", None), ("loss", None), ("byte", 40)])
def test_what_the_large_model_need_not_be_asked_for_is_what_the_gap_is_in_the_end(ratio: str, size: int | None) -> None:
    early = [scored(41, 40), scored(40, 40), Score(None, note="prompt_too_long"), Failure("too-long", "no room")]
    for small in early:
        known = without_large(small, ratio, size)  # type: ignore[arg-type]
        assert known is not None
        assert known == gap_of(small, of_ifd(0.5), ratio, size)  # type: ignore[arg-type]
    assert without_large(scored(39, 40), ratio, size) is None  # type: ignore[arg-type]


def test_pitfall_14_a_response_that_is_cut_otherwise_by_one_model_has_no_gap() -> None:
    assert note(scored(30, 40, 9, cut=True), scored(30, 40, 10)) == "truncated_differently"
    assert note(scored(30, 40, 9, cut=True), scored(30, 40, 8, cut=True)) == "truncated_differently"
    same = gap_of(scored(30, 40, 9, cut=True), scored(20, 40, 9, cut=True))
    assert isinstance(same, Score)
    assert same.value is not None
    assert same.note == "truncated"


@pytest.mark.parametrize(("ratio", "size"), [("loss", None), ("byte", 40)])
def test_pitfall_14_of_tokens_that_may_differ_nothing_that_is_cut_is_compared(ratio: str, size: int | None) -> None:
    cut = scored(30, 40, 9, cut=True)
    assert note(cut, scored(20, 40, 9, cut=True), ratio, size) == "truncated_differently"
    assert note(scored(30, 40, 9), scored(20, 40, 9, cut=True), ratio, size) == "truncated_differently"


def test_by_byte_both_sums_must_be_over_the_whole_response() -> None:
    short = scored(30, 40, 10, alone=9)  # the first token alone has no prediction
    assert note(short, short, "byte", 40) == "tokens_differ"
    assert gap(short, short) == 0


def test_a_failure_stays_one_and_a_missing_score_says_of_which_model() -> None:
    failed = Failure("too-long", "9 tokens need more memory than cpu has")
    assert gap_of(failed, Score(None, note="prompt_too_long")) is failed
    assert gap_of(of_ifd(0.5), failed) is failed
    assert note(Score(None, note="prompt_too_long"), of_ifd(0.5)) == "small: prompt_too_long"
    assert note(of_ifd(0.5), Score(None, note="prompt_too_long")) == "large: prompt_too_long"
    assert note(Score(None, note="empty_response"), Score(None, note="empty_response")) == "empty_response"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_ratio_that_is_no_number_is_a_failure_and_no_gap(value: float) -> None:
    odd = scored(30, 40)
    broken = Score(0.5, {**odd.parts, "ifd_ppl": value})
    for found in (gap_of(broken, odd), gap_of(odd, broken)):
        assert isinstance(found, Failure)
        assert found.kind == "not-finite"


def test_either_ratio_can_be_made_anew_from_the_parts_of_a_gap() -> None:
    small, large = scored(30, 40, 10), scored(24, 40, 10)
    found = gap_of(small, large, "byte", 37)
    assert isinstance(found, Score)
    for side, score in (("small", small), ("large", large)):
        sums, counts = (
            [found.parts[f"{name}_{side}"] for name in names]
            for names in (("conditioned_sum", "direct_sum"), ("tokens", "direct_tokens"))
        )
        means = [total / count for total, count in zip(sums, counts, strict=True)]
        assert math.exp(means[0] - means[1]) == pytest.approx(score.parts["ifd_ppl"])
        assert means[0] / means[1] == pytest.approx(score.parts["ifd_loss"])
        assert math.exp((sums[0] - sums[1]) / found.parts["bytes"]) == pytest.approx(found.parts[f"ifd_{side}"])
