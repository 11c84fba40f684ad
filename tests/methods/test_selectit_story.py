"""SelectIT: one story. Eight records, two models that rate by rule, and what becomes of each record."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tunesift import (
    Dataset,
    Failure,
    Largest,
    Local,
    Message,
    Quota,
    Random,
    Rater,
    RecipeError,
    Record,
    Run,
    Score,
    ScriptedModel,
    SelectIT,
    Span,
    TargetLoss,
    recipe_for,
    run_recipe,
)
from tunesift.methods.selectit import PROMPTS, Rate, Rated, Ratings, Settle
from tunesift.running.result import Result


def record(id: str, instruction: str, response: str) -> Record:
    return Record(id, (Message("user", instruction), Message("assistant", response)))


EIGHT = [
    record("sea", "Name the sea.", "The Baltic Sea."),
    record("echo", "Repeat it.", "it it it"),
    record("poem", "Write a line.", "Grey threads stitch the street to the sky."),
    record("sum", "Add 2 and 2.", "2 and 2 make 4."),
    record("empty", "Translate it.", "  "),
    record("tides", "Explain tides.", "The moon pulls the water."),
    record("twin", "Name the sea.", "The Baltic Sea."),
    record("odd", "Say hello.", "Quarterly figures are attached."),
]


def chances(*values: float) -> dict[str, float]:
    return {str(n): value for n, value in enumerate(values, start=1)}


SURE, FAIR, TORN, FLAT = (
    chances(0.0, 0.0, 0.0, 0.0, 0.9), chances(0.05, 0.10, 0.50, 0.25, 0.10), chances(0.4, 0.0, 0.0, 0.0, 0.5),
    chances(0.001, 0.001, 0.001, 0.001, 0.001),
)  # fmt: skip
SMALL = ScriptedModel(chances={"sea": SURE, "Repeat": TORN, "line": FAIR, "calm.\n\nTask: Add": SURE, "Add": FAIR,
                               "tides": FAIR, "hello": FLAT})  # fmt: skip
"""Rates by what is asked; a sum after one of the prompts more highly than after the other."""
LARGE = ScriptedModel(chances={"sea": FAIR, "Repeat": TORN, "line": SURE, "Add": FAIR, "tides": TORN, "hello": FLAT})
PROMPTS_OF_TWO = ("Rate up to {ratings}, calm.", "Rate up to {ratings}, hasty.")
STORY = SelectIT(raters=(Rater(model=SMALL),), prompts=PROMPTS_OF_TWO, keep=Largest(fraction=0.5))
BOTH = replace(STORY, level="model", raters=(Rater(model=SMALL, parameters=7), Rater(model=LARGE, parameters=13)))


def decided(result: Result) -> dict[str, str]:
    return {d.record_id: f"{d.action}: {d.reason}" for d in result.decisions}


def done(method: SelectIT, folder: Path, records: Sequence[Record] = EIGHT) -> tuple[Result, dict[str, int]]:
    """What a method decides, and how many items it worked on in each stage."""
    data = Dataset.of(records)
    with Run(folder, Local()) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
        return result, {stage.stage: stage.worked for stage in run.stages}


def scores(folder: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(folder / "stages" / "score").to_pylist()
    return {row["id"]: json.loads(row["outcome"]) for row in rows}


def test_of_eight_records_the_half_that_is_rated_highly_and_surely_is_kept(tmp_path: Path) -> None:
    result, worked = done(STORY, tmp_path)
    assert decided(result) == {
        "sea": "keep: largest 50%: SelectIT 5.0000, rank 1 of 7",
        "echo": "keep: largest 50%: SelectIT 2.2222, rank 3 of 7",
        "poem": "drop: not among the largest 50%: SelectIT 1.1250, rank 5 of 7; the last one kept has 2.2072",
        "sum": "keep: largest 50%: SelectIT 2.2072, rank 4 of 7",
        "empty": "drop: no score: empty_response",
        "tides": "drop: not among the largest 50%: SelectIT 1.1250, rank 6 of 7; the last one kept has 2.2072",
        "twin": "keep: largest 50%: SelectIT 5.0000, rank 2 of 7",
        "odd": "drop: not among the largest 50%: SelectIT 0.0000, rank 7 of 7; the last one kept has 2.2072",
    }
    assert worked == {"rate-1": 8, "score": 8}
    assert result.data is not None
    assert [r.id for r in result.data] == ["sea", "echo", "sum", "twin"]


def test_every_level_of_a_score_is_told(tmp_path: Path) -> None:
    done(STORY, tmp_path)
    found = scores(tmp_path)
    told = found["sum"]["parts"]
    assert {name: round(value, 4) for name, value in told.items()} == {
        "rating_mass": 0.9, "sentence": 2.2072, "mean": 3.0625, "std": 1.9375, "rating_1": 5.0, "token_1": 5.0,
        "rating_2": 3.0, "token_2": 1.125, "truncated": 0.0,
    }  # fmt: skip
    assert found["sum"]["value"] == pytest.approx(3.0625 / (1 + 0.2 * 1.9375))
    assert found["odd"]["note"] == "low_rating_mass"
    assert found["odd"]["parts"]["rating_mass"] == pytest.approx(0.005)
    assert found["empty"] == {"value": None, "parts": {}, "note": "empty_response"}


def test_two_models_count_by_their_size(tmp_path: Path) -> None:
    _, worked = done(BOTH, tmp_path)
    assert worked == {"rate-1": 8, "rate-2": 8, "score": 8}
    found = scores(tmp_path)
    assert found["sea"]["value"] == pytest.approx((7 * 5.0 + 13 * 1.125) / 20)
    assert found["poem"]["value"] == pytest.approx((7 * 1.125 + 13 * 5.0) / 20)
    assert found["poem"]["parts"]["model_1_sentence"] == pytest.approx(1.125)
    assert found["poem"]["parts"]["model_2_token_1"] == pytest.approx(5.0)


def test_the_token_level_asks_the_first_prompt_only(tmp_path: Path) -> None:
    done(replace(STORY, level="token"), tmp_path)
    found = scores(tmp_path)
    assert found["sum"]["value"] == 5.0
    assert "token_2" not in found["sum"]["parts"]


def test_the_cut_and_its_ties_and_lengths_stand_in_a_table(tmp_path: Path) -> None:
    done(replace(STORY, keep=Largest(fraction=0.125)), tmp_path)
    (row,) = pq.read_table(tmp_path / "tables" / "selection.parquet").to_pylist()
    assert (row["records"], row["kept"], row["cut"], row["tied"]) == (8, 1, 5.0, 2)
    assert row["mean_characters_kept"] == len("Name the sea.") + len("The Baltic Sea.")


def test_the_same_story_told_again_asks_nobody(tmp_path: Path) -> None:
    first, _ = done(BOTH, tmp_path)
    again, worked = done(BOTH, tmp_path)
    assert decided(again) == decided(first)
    assert set(worked.values()) == {0}


class Odd(ScriptedModel):
    """Has no number for a sum, and no memory for tides."""

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        return [self._odd(span, loss) for span, loss in zip(spans, super().loss(spans), strict=True)]

    def _odd(self, span: Span, loss: TargetLoss | Failure) -> TargetLoss | Failure:
        if "Add" in span.context:
            return TargetLoss((math.nan,), False)
        return Failure("too-long", "999 tokens need more memory than there is") if "tides" in span.context else loss


def test_a_failure_is_never_a_score_and_moves_no_other(tmp_path: Path) -> None:
    plain, _ = done(STORY, tmp_path / "plain")
    odd = replace(STORY, raters=(Rater(model=Odd(chances=SMALL.chances)),))
    result, worked = done(odd, tmp_path / "odd")
    found = decided(result)
    assert found["tides"] == "quarantine: too-long: 999 tokens need more memory than there is"
    assert found["sum"].startswith("quarantine: not-finite: probabilities (nan, nan, nan, nan, nan) of the ratings")
    assert worked == {"rate-1": 8, "score": 6}
    there, before = scores(tmp_path / "odd"), scores(tmp_path / "plain")
    assert there == {id: before[id] for id in there}
    assert decided(plain)["sea"] == "keep: largest 50%: SelectIT 5.0000, rank 1 of 7"


def test_ratings_that_all_have_no_chance_are_a_failure() -> None:
    nobody = ScriptedModel(chances={"": chances(0, 0, 0, 0, 0)})
    (found,) = Rate(model=nobody, prompts=PROMPTS, ratings=5, cue="Rating:\n", layout="prompt-first")(EIGHT[:1])
    assert isinstance(found, Failure)
    assert found.kind == "not-finite"


def test_records_that_all_score_the_same_are_kept_in_order(tmp_path: Path) -> None:
    flat = replace(STORY, raters=(Rater(model=ScriptedModel(chances={"": FLAT})),), keep=Largest(fraction=0.25))
    result, _ = done(flat, tmp_path)
    assert [d.record_id for d in result.decisions if d.action == "keep"] == ["sea", "echo"]


@pytest.mark.parametrize(("keep", "count"), [(Largest(fraction=None, count=99), 7), (Random(fraction=0.5), 4)])
def test_a_budget_above_the_pool_keeps_what_is_scored_and_other_selectors_do(
    tmp_path: Path, keep: Any, count: int
) -> None:
    result, _ = done(replace(STORY, keep=keep), tmp_path)
    assert result.data is not None
    assert len(result.data) == count


def test_a_group_column_that_is_missing_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^keep\.group: no record has the field 'topic'; name a field of the input"):
        done(replace(STORY, keep=Quota(group="topic")), tmp_path)


def test_one_record_is_enough(tmp_path: Path) -> None:
    result, _ = done(replace(STORY, keep=Largest(fraction=1.0)), tmp_path, EIGHT[:1])
    assert decided(result) == {"sea": "keep: largest 100%: SelectIT 5.0000, rank 1 of 1"}


def test_a_prompt_with_fewer_ratings_says_so_and_reads_as_many(tmp_path: Path) -> None:
    three = replace(STORY, ratings=3, raters=(Rater(model=ScriptedModel(chances={"up to 3": chances(0, 0, 1)})),))
    done(three, tmp_path)
    assert scores(tmp_path)["sea"]["value"] == 3.0


def test_braces_in_a_record_stay_as_they_are() -> None:
    step = Rate(model=SMALL, prompts=PROMPTS, ratings=5, cue="Rating:\n", layout="prompt-first")
    (span, *_) = step._spans(record("x", "{ratings} {cue}", "{question}"), ["1"])
    assert isinstance(span.context, str)
    assert span.context.endswith("\n\nTask: {ratings} {cue}\nResponse: {question}\nRating:\n")


def test_our_prompts_differ_in_wording_and_name_one_scale() -> None:
    assert len(set(PROMPTS)) == 5
    for prompt in PROMPTS:
        assert "{ratings}" in prompt
        assert "whole number" in prompt
        assert "accura" in prompt or "correct" in prompt or "right" in prompt


def test_a_change_of_arithmetic_needs_no_model() -> None:
    rated = Rated("x", (Ratings(((0.05, 0.1, 0.5, 0.25, 0.1), (0, 0, 0, 0, 0.9))),))
    by_alpha = [Settle(alpha=a, parameters=(1.0,), min_mass=0.01)([rated])[0] for a in (0.0, 0.8)]
    assert [s.value for s in by_alpha if isinstance(s, Score)] == [
        pytest.approx(3.0625), pytest.approx(3.0625 / (1 + 0.8 * 1.9375)),
    ]  # fmt: skip


def test_the_plan_is_a_pass_per_prompt_and_model() -> None:
    assert [(p.stage, p.items, p.forwards, p.model) for p in BOTH.plan(8)] == [
        ("rate-1", 8, 2, "scripted"), ("rate-2", 8, 2, "scripted"), ("score", 8, 0, ""),
    ]  # fmt: skip
    assert BOTH.plan(8)[0].around == max(len(prompt) for prompt in BOTH.prompts)
    assert replace(STORY, level="token").plan(8)[0].forwards == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ratings": 1}, "ratings: 1 levels cannot be told apart by one digit; write 2 to 9."),
        ({"prompts": ()}, "prompts: give at least one rating prompt, and each only once."),
        (
            {"prompts": ("a {ratings}", "a {ratings}\n")},
            "prompts: give at least one rating prompt, and each only once.",
        ),
        ({"prompts": ("rate it",)}, "prompts: 'rate it' names no scale; write {ratings} where the best rating is."),
        ({"cue": " \n"}, 'cue: is empty; write what announces the rating, such as "Rating:".'),
        ({"alpha": -0.1}, "alpha is a number of 0 or more, and min_mass a probability."),
        ({"raters": ()}, "raters: the level sentence has one model; write level=model for several."),
        ({"raters": (Rater(), Rater())}, "raters: the level sentence has one model; write level=model for several."),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        SelectIT(**settings)
    assert str(refusal.value) == sentence


def test_a_model_without_size_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^raters\.parameters: 0 is no size of a model; write 7 for 7 billion\.$"):
        Rater(parameters=0)


def test_the_report_shows_the_scores_and_their_parts(tmp_path: Path) -> None:
    rows = [{"id": r.id, "instruction": r.messages[0].text, "output": r.messages[1].text} for r in EIGHT]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rules = json.dumps({key: dict(value) for key, value in SMALL.chances.items()})
    settings = ["raters.0.model.kind=scripted", f"raters.0.model.chances={rules}", "keep=50%"]
    done_ = run_recipe(recipe_for("selectit", tmp_path / "in.jsonl", tmp_path / "out.jsonl", settings))
    assert done_.counts == {"in": 8, "kept": 4, "dropped": 4, "quarantined": 0}
    page = done_.report.read_text("utf-8")
    for word in ("SelectIT 5.0000", "rating_mass", "token_5", "selectit"):
        assert word in page, word
