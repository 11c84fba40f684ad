"""Selectors: hand-worked scores, and what each rule says about every record."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from tunesift import (
    Above,
    Dataset,
    Decision,
    Failure,
    Largest,
    Longest,
    Message,
    Pool,
    Quota,
    Random,
    RecipeError,
    Record,
    Score,
    Shortest,
    Smallest,
)
from tunesift.recipe import check
from tunesift.scoring.deciding import budget, ranked
from tunesift.scoring.selectors import Selector
from tunesift.settings import Json

SCORES = {"a": 0.91, "b": 1.0, "c": 1.02, "d": 0.55, "e": 0.91, "f": 0.3}


def record(id: str, response: str = "Hello.", **extra: object) -> Record:
    return Record(id, (Message("user", "Say hello."), Message("assistant", response)), extra)


def pool(values: Mapping[str, float | Failure | None], *, seed: int = 0) -> Pool:
    """Records with these scores; a Failure is one that could not be scored."""
    scores = {
        id: Score(v, note="" if v else "empty_response") for id, v in values.items() if not isinstance(v, Failure)
    }
    failures = {id: v for id, v in values.items() if isinstance(v, Failure)}
    return Pool(Dataset.of([record(id) for id in values]), scores, failures, "IFD", random.Random(seed))


def kept(selector: Selector, chosen_from: Pool) -> list[str]:
    return [d.record_id for d in selector(chosen_from) if d.action == "keep"]


def reasons(selector: Selector, chosen_from: Pool) -> dict[str, str]:
    return {d.record_id: f"{d.action}: {d.reason}" for d in selector(chosen_from)}


def test_largest_keeps_the_largest_scores_and_says_why_for_each() -> None:
    assert reasons(Largest(fraction=0.5, below=1.0), pool(SCORES)) == {
        "a": "keep: largest 50%: IFD 0.9100, rank 1 of 4",
        "b": "drop: IFD not below 1: 1.0000",
        "c": "drop: IFD not below 1: 1.0200",
        "d": "keep: largest 50%: IFD 0.5500, rank 3 of 4",
        "e": "keep: largest 50%: IFD 0.9100, rank 2 of 4",
        "f": "drop: not among the largest 50%: IFD 0.3000, rank 4 of 4; the last one kept has 0.5500",
    }


def test_a_score_just_below_a_bound_is_not_told_as_the_bound() -> None:
    told = reasons(Largest(fraction=1.0, below=1.0), pool({"a": 0.99996, "b": 1.0, "c": 1.00000002, "d": 0.5}))
    assert told["a"] == "keep: largest 100%: IFD 0.999960, rank 1 of 2"
    assert told["b"] == "drop: IFD not below 1: 1.0000"
    assert told["c"] == "drop: IFD not below 1: 1.00000002"
    assert told["d"] == "keep: largest 100%: IFD 0.5000, rank 2 of 2"


def test_largest_by_count_says_how_many_there_were() -> None:
    found = reasons(Largest(fraction=None, count=2), pool(SCORES))
    assert found["c"] == "keep: largest 2: IFD 1.0200, rank 1 of 6"
    assert found["b"] == "keep: largest 2: IFD 1.0000, rank 2 of 6"
    assert found["a"] == "drop: not among the largest 2: IFD 0.9100, rank 3 of 6; the last one kept has 1.0000"


def test_a_bound_below_leaves_equality_out_and_a_bound_at_most_lets_it_in() -> None:
    assert kept(Largest(fraction=1.0, below=1.0), pool(SCORES)) == ["a", "d", "e", "f"]
    assert kept(Largest(fraction=1.0, at_most=1.0), pool(SCORES)) == ["a", "b", "d", "e", "f"]
    assert reasons(Largest(fraction=1.0, at_most=1.0), pool(SCORES))["c"] == "drop: IFD above 1: 1.0200"


def test_among_equal_scores_the_earlier_record_stays() -> None:
    assert kept(Largest(fraction=None, count=1, below=1.0), pool(SCORES)) == ["a"]
    assert kept(Smallest(fraction=None, count=1), pool({"x": 0.2, "y": 0.1, "z": 0.1})) == ["y"]
    assert ranked(np.array([1.0, 2.0, math.nan, 2.0, 2.0])).tolist() == [4, 1, 0, 2, 3]


def test_smallest_keeps_the_smallest_scores() -> None:
    found = reasons(Smallest(fraction=0.5), pool(SCORES))
    assert [id for id in found if found[id].startswith("keep")] == ["a", "d", "f"]
    assert found["f"] == "keep: smallest 50%: IFD 0.3000, rank 1 of 6"
    assert found["e"] == "drop: not among the smallest 50%: IFD 0.9100, rank 4 of 6; the last one kept has 0.9100"
    assert kept(Smallest(fraction=0.5, below=0.5), pool(SCORES)) == ["f"]


def test_above_decides_by_each_score_alone() -> None:
    assert reasons(Above(threshold=0.55, below=1.0), pool(SCORES)) == {
        "a": "keep: IFD above 0.55: 0.9100",
        "b": "drop: IFD not below 1: 1.0000",
        "c": "drop: IFD not below 1: 1.0200",
        "d": "drop: IFD not above 0.55: 0.5500",
        "e": "keep: IFD above 0.55: 0.9100",
        "f": "drop: IFD not above 0.55: 0.3000",
    }


def grouped(values: Mapping[str, tuple[str | None, float]]) -> Pool:
    """Records of a field `task`, and their scores."""
    data = Dataset.of([record(id, **({} if task is None else {"task": task})) for id, (task, _) in values.items()])
    return Pool(data, {id: Score(value) for id, (_, value) in values.items()}, {}, "IFD", random.Random(0))


TASKS: Mapping[str, tuple[str | None, float]] = {
    "a": ("code", 0.9), "b": ("code", 0.8), "c": ("code", 0.7), "d": ("code", 0.95), "e": ("code", 1.2),
    "f": ("poem", 0.2), "g": ("poem", 0.3), "h": (None, 0.1), "i": ("joke", 1.5),
}  # fmt: skip


def test_quota_keeps_the_same_fraction_of_every_group() -> None:
    assert reasons(Quota(group="task", fraction=0.5, below=1.0), grouped(TASKS)) == {
        "a": "keep: largest 0.5 of each task: IFD 0.9000, rank 2 of 5 in code",
        "b": "drop: below the cut of its task: IFD 0.8000 in code",
        "c": "drop: below the cut of its task: IFD 0.7000 in code",
        "d": "keep: largest 0.5 of each task: IFD 0.9500, rank 1 of 5 in code",
        "e": "drop: IFD not below 1: 1.2000",
        "f": "drop: below the cut of its task: IFD 0.2000 in poem",
        "g": "keep: largest 0.5 of each task: IFD 0.3000, rank 1 of 2 in poem",
        "h": "keep: largest 0.5 of each task: IFD 0.1000, rank 1 of 1 in none",
        "i": "drop: IFD not below 1: 1.5000",
    }


def test_quota_keeps_one_record_of_a_group_too_small_for_its_fraction() -> None:
    assert kept(Quota(group="task", fraction=0.1), grouped(TASKS)) == ["e", "g", "h", "i"]


def test_a_score_on_quota_s_bound_takes_no_place_from_those_below_it() -> None:
    on_it = grouped({"a": ("code", 1.0), "b": ("code", 0.9), "c": ("code", 0.8), "d": ("code", 0.7)})
    assert kept(Quota(group="task", fraction=0.5, below=1.0), on_it) == ["b", "c"]


def test_quota_by_a_field_that_no_record_has_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"keep\.group: no record has the field 'kind'; name a field of the input\."):
        Quota(group="kind")(grouped(TASKS))


def test_random_keeps_what_its_seed_draws() -> None:
    many = {f"r{n}": 0.5 for n in range(100)}
    first, again, other = (kept(Random(fraction=0.29), pool(many, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) == 29
    assert first == sorted(random.Random(1).sample(list(many), 29), key=list(many).index)


def test_random_says_how_many_were_drawn() -> None:
    found = reasons(Random(fraction=None, count=1), pool({"a": 0.1, "b": 0.2}))
    assert sorted(found.values()) == ["drop: not drawn: 1 of 2 were", "keep: drawn at random: one of 1"]


def test_random_draws_all_of_too_few() -> None:
    assert kept(Random(fraction=None, count=9), pool(SCORES)) == list(SCORES)


def test_longest_keeps_the_most_characters() -> None:
    data = Dataset.of([record("a", "four"), record("b", "sixsix"), record("c", "世界世界世界"), record("d", "")])
    found = reasons(Longest(fraction=0.5), Pool(data, {}, {}, "", random.Random(0)))
    assert found == {
        "a": "drop: not among the longest 50%: characters 4, rank 3 of 4; the last one kept has 6",
        "b": "keep: longest 50%: characters 6, rank 1 of 4",
        "c": "keep: longest 50%: characters 6, rank 2 of 4",
        "d": "drop: not among the longest 50%: characters 0, rank 4 of 4; the last one kept has 6",
    }


def test_shortest_counts_a_single_character_as_a_response() -> None:
    data = Dataset.of([record("a", "four"), record("b", ""), record("c", "x"), record("d", "no")])
    found = Pool(data, {}, {}, "", random.Random(0))
    assert kept(Shortest(fraction=None, count=1), found) == ["c"]
    assert kept(Shortest(fraction=None, count=2), found) == ["c", "d"]


RANKING: list[Selector] = [
    Largest(fraction=1.0, at_most=2.0), Smallest(fraction=1.0), Above(threshold=0.0), Quota(group="task", fraction=1.0),
]  # fmt: skip


def troubled() -> Pool:
    """One sound score among a failure, an empty one, one that is missing and two that are no finite numbers."""
    data = Dataset.of([record(id, task="code") for id in "abcdef"])
    scores = {"a": Score(0.5), "c": Score(None, note="prompt_too_long"), "e": Score(math.nan), "f": Score(math.inf)}
    return Pool(data, scores, {"b": Failure("too-long", "9 tokens")}, "IFD", random.Random(0))


@pytest.mark.parametrize("selector", RANKING, ids=lambda s: type(s).__name__)
def test_a_failure_is_quarantined_and_what_has_no_score_is_dropped_with_its_reason(selector: Selector) -> None:
    found = selector(troubled())
    assert [d.record_id for d in found] == list("abcdef")
    assert found[0].action == "keep"
    assert found[1:] == [
        Decision("b", "quarantine", "too-long: 9 tokens"),
        Decision("c", "drop", "no score: prompt_too_long"),
        Decision("d", "drop", "no score: not scored"),
        Decision("e", "drop", "no score: not a finite number"),
        Decision("f", "drop", "no score: not a finite number"),
    ]


@pytest.mark.parametrize(
    "selector",
    [Largest(fraction=None, count=1), Smallest(fraction=None, count=1), Quota(group="task", fraction=0.1)],
    ids=lambda s: type(s).__name__,
)
def test_a_failed_item_never_wins_a_comparison(selector: Selector) -> None:
    assert kept(selector, troubled()) == ["a"]


def test_a_fraction_counts_all_records_and_is_capped_by_the_valid_ones() -> None:
    half: dict[str, float | None] = {"a": 0.9, "b": None, "c": None, "d": 0.1, "e": None, "f": 1.3}
    assert kept(Largest(fraction=0.5, below=1.0), pool(half)) == ["a", "d"]
    assert kept(Largest(fraction=0.2, below=1.0), pool(half)) == ["a"]


def test_a_fraction_is_exact_in_decimals() -> None:
    assert int(0.29 * 100) == 28  # what a floating-point product would keep
    assert [budget(f, None, 100) for f in (0.29, 0.57, 0.58, 1.0, 1e-3)] == [29, 57, 58, 100, 0]
    assert budget(None, 7, 100) == 7
    assert len(kept(Largest(fraction=0.29), pool({f"r{n}": n / 100 + 0.001 for n in range(100)}))) == 29


def test_a_fraction_too_small_for_one_record_keeps_nothing_and_says_so() -> None:
    assert reasons(Largest(fraction=0.1), pool({"a": 0.5, "b": 0.6})) == {
        "a": "drop: not among the largest 10%: IFD 0.5000, rank 2 of 2",
        "b": "drop: not among the largest 10%: IFD 0.6000, rank 1 of 2",
    }


def test_no_records_give_no_decisions() -> None:
    for selector in (*RANKING[:3], Random(fraction=0.5), Longest(fraction=0.5)):
        assert selector(Pool(Dataset.of([]), {}, {}, "IFD", random.Random(0)))[:] == []


FRACTION_SENTENCES = [
    (0.0, "keep.fraction: 0 is not a fraction above 0 and up to 1; write 0.1 to keep 10 percent."),
    (-0.1, "keep.fraction: -0.1 is not a fraction above 0 and up to 1; write 0.1 to keep 10 percent."),
    (1.5, "keep.fraction: 1.5 is not a fraction above 0 and up to 1; write 0.1 to keep 10 percent."),
    (2.0, "keep.fraction: 2 is not a fraction above 0 and up to 1; write keep.count=2 to keep so many records."),
    (10.0, "keep.fraction: 10 is not a fraction above 0 and up to 1; write keep.count=10 to keep so many records."),
    (math.nan, "keep.fraction: nan is not a fraction above 0 and up to 1; write 0.1 to keep 10 percent."),
    (math.inf, "keep.fraction: inf is not a fraction above 0 and up to 1; write 0.1 to keep 10 percent."),
]
BUDGETED: list[Callable[..., object]] = [Largest, Smallest, Random, Longest, Shortest]


@pytest.mark.parametrize(("fraction", "sentence"), FRACTION_SENTENCES)
def test_a_fraction_that_is_none_is_refused(fraction: float, sentence: str) -> None:
    for selector in BUDGETED:
        with pytest.raises(RecipeError) as refusal:
            selector(fraction=fraction)
        assert str(refusal.value) == sentence
    with pytest.raises(RecipeError) as refusal:
        Quota(group="task", fraction=fraction)
    assert str(refusal.value).startswith(f"keep.fraction: {fraction:g} is not a fraction above 0 and up to 1; ")


def test_quota_is_not_told_of_a_count_that_it_has_not() -> None:
    with pytest.raises(RecipeError) as refusal:
        Quota(group="task", fraction=10.0)
    assert "count" not in str(refusal.value)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"fraction": None, "count": 0}, "keep.count: 0 keeps nothing; write the number of records to keep."),
        ({"fraction": None, "count": -3}, "keep.count: -3 keeps nothing; write the number of records to keep."),
        ({"fraction": 0.1, "count": 5}, "keep: give either a fraction or a count, and set the other to null."),
        ({"fraction": None, "count": None}, "keep: give either a fraction or a count, and set the other to null."),
    ],
)
def test_a_budget_that_means_nothing_is_refused(settings: dict[str, float | None], sentence: str) -> None:
    for selector in BUDGETED:
        with pytest.raises(RecipeError) as refusal:
            selector(**settings)
        assert str(refusal.value) == sentence


def test_a_recipe_with_a_wrong_fraction_is_refused_with_the_same_sentence() -> None:
    method: Json = {"kind": "select", "keep": {"kind": "largest", "fraction": 0.0}}
    with pytest.raises(RecipeError, match=r"0 is not a fraction above 0 and up to 1; write 0.1 to keep 10 percent"):
        check({"method": method, "input": "a.json", "output": "b.json"})
