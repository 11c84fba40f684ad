"""Several scores deciding together: hand-worked sums, conditions, groups, and the sentence each record gets."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesift import Combined, Dataset, Failure, Message, Pool, RecipeError, Record, Score
from tunesift.scoring.combined import banded
from tunesift.scoring.deciding import lengths
from tunesift.scoring.selectors import Scored

IFD = {"a": 0.9, "b": 0.5, "c": 0.7, "d": 1.2, "e": 0.3}
BACK = {"a": 0.8, "b": 0.2, "c": 0.6, "d": 0.1, "e": 0.9}


def record(id: str, response: str = "Hello.", **extra: object) -> Record:
    return Record(id, (Message("user", "Say hello."), Message("assistant", response)), extra)


def pool(columns: Mapping[str, Mapping[str, float | Failure | None]], records: list[Record] | None = None) -> Pool:
    """Records with several scores; a Failure is one that could not be scored."""
    ids = list(next(iter(columns.values())))
    named = {
        kind: Scored(
            {id: Score(v, {"direct": 2 * (v or 0.0)}, "" if v is not None else "empty_response")
             for id, v in values.items() if not isinstance(v, Failure)},
            {id: v for id, v in values.items() if isinstance(v, Failure)},
        )
        for kind, values in columns.items()
    }  # fmt: skip
    data = Dataset.of(records or [record(id) for id in ids])
    return Pool(data, {}, {}, "IFD", random.Random(0), named)


BOTH = {"ifd": IFD, "reversed-ifd": BACK}


def told(selector: Combined, chosen_from: Pool) -> dict[str, str]:
    return {d.record_id: f"{d.action}: {d.reason}" for d in selector(chosen_from)}


def kept(selector: Combined, chosen_from: Pool) -> list[str]:
    return [d.record_id for d in selector(chosen_from) if d.action == "keep"]


def test_rank_sum_adds_weighted_ranks_and_every_reason_holds_all_of_it() -> None:
    selector = Combined(weights={"ifd": 1.0, "reversed-ifd": -1.0}, where=("ifd < 1",), fraction=None, count=1)
    # Of the four below 1: ranks of IFD a .875, b .375, c .625, e .125; of r-IFD a .625, b .125, c .375, e .875.
    assert told(selector, pool(BOTH)) == {
        "a": "keep: largest 1 by rank-sum: 0.2500 from ifd 0.9000, reversed-ifd 0.8000; rank 1 of 4",
        "b": "drop: not among the largest 1 by rank-sum: 0.2500 from ifd 0.5000, reversed-ifd 0.2000; rank 2 of 4",
        "c": "drop: not among the largest 1 by rank-sum: 0.2500 from ifd 0.7000, reversed-ifd 0.6000; rank 3 of 4",
        "d": "drop: ifd < 1 does not hold: ifd 1.2000",
        "e": "drop: not among the largest 1 by rank-sum: -0.7500 from ifd 0.3000, reversed-ifd 0.9000; rank 4 of 4",
    }


def test_equal_values_share_the_middle_rank() -> None:
    found = told(Combined(weights={"ifd": 1.0}, fraction=1.0), pool({"ifd": {"a": 0.5, "b": 0.5, "c": 0.9, "d": 0.1}}))
    assert [found[id].split(": ")[2].split(" ")[0] for id in "abcd"] == ["0.5000", "0.5000", "0.8750", "0.1250"]


def test_z_sum_adds_standard_deviations() -> None:
    found = told(Combined(weights={"ifd": 2.0}, rule="z-sum", fraction=1.0), pool({"ifd": {"a": 1.0, "b": 3.0}}))
    assert found["a"] == "keep: largest 100% by z-sum: -2.0000 from ifd 1.0000; rank 2 of 2"


def test_product_raises_to_the_weights_and_says_where_there_is_none() -> None:
    selector = Combined(weights={"ifd": 1.0, "reversed-ifd": -2.0}, rule="product", fraction=0.5)
    found = told(selector, pool({"ifd": {"a": 0.5, "b": 0.0}, "reversed-ifd": {"a": 0.5, "b": 0.5}}))
    assert found["a"] == "keep: largest 50% by product: 2.0000 from ifd 0.5000, reversed-ifd 0.5000; rank 1 of 1"
    assert found["b"] == "drop: no product: a score is not above 0; ifd 0.0000, reversed-ifd 0.5000"


def test_a_part_of_a_score_and_the_length_count_as_scores() -> None:
    records = [record("a", "x" * 50), record("b", "x" * 9), record("c", "x" * 30)]
    selector = Combined(weights={"ifd/direct": 1.0}, where=("length >= 20",), fraction=None, count=1)
    found = told(selector, pool({"ifd": {"a": 0.1, "b": 0.9, "c": 0.3}}, records))
    assert found == {
        "a": "drop: not among the largest 1 by rank-sum: 0.2500 from ifd/direct 0.2000; rank 2 of 2",
        "b": "drop: length >= 20 does not hold: length 9",
        "c": "keep: largest 1 by rank-sum: 0.7500 from ifd/direct 0.6000; rank 1 of 2",
    }


def test_a_failure_of_any_score_is_quarantined_and_a_missing_one_is_named() -> None:
    second = {**BACK, "b": Failure("too-long", "9 tokens"), "c": None}
    found = told(
        Combined(weights={"ifd": 1.0, "reversed-ifd": 1.0}),
        pool({"ifd": {**IFD, "a": math.nan}, "reversed-ifd": second}),
    )
    assert found["a"] == "drop: no score: ifd not a finite number"
    assert found["b"] == "quarantine: too-long: 9 tokens"
    assert found["c"] == "drop: no score: reversed-ifd empty_response"


def test_a_quota_keeps_the_fraction_of_every_group() -> None:
    records = [
        record(id, task=task) for id, task in zip("abcde", ("code", "code", "code", "poem", "poem"), strict=True)
    ]
    selector = Combined(weights={"ifd": 1.0}, fraction=0.34, group="task")
    assert kept(selector, pool({"ifd": IFD}, records)) == ["a", "d"]
    assert told(selector, pool({"ifd": IFD}, records))["d"].endswith("ifd 1.2000; rank 1 of 2 in poem")


def test_length_bands_keep_the_fraction_of_short_and_long_alike() -> None:
    records = [record(f"r{n}", "x" * (n + 1)) for n in range(100)]
    scores = {f"r{n}": float(n) for n in range(100)}
    found = kept(Combined(weights={"ifd": 1.0}, fraction=0.1, length_bands=10), pool({"ifd": scores}, records))
    assert found == [f"r{n}" for n in range(9, 100, 10)]
    assert banded(lengths(Dataset.of(records)), 10).names[0] == "1 to 10 characters"


def test_all_equal_scores_keep_the_earlier_records() -> None:
    same = {f"r{n}": 0.5 for n in range(10)}
    for rule in ("rank-sum", "z-sum", "product"):
        assert kept(Combined(weights={"ifd": 1.0}, rule=rule, fraction=0.3), pool({"ifd": same})) == ["r0", "r1", "r2"]


def test_a_budget_above_the_pool_keeps_the_pool_and_one_record_is_a_pool() -> None:
    assert kept(Combined(weights={"ifd": 1.0}, fraction=None, count=9), pool({"ifd": IFD})) == list(IFD)
    assert kept(Combined(weights={"ifd": 1.0}, fraction=1.0, length_bands=5), pool({"ifd": {"a": 0.4}})) == ["a"]


def test_no_records_give_no_decisions() -> None:
    empty = Pool(Dataset.of([]), {}, {}, "IFD", random.Random(0), {"ifd": Scored({}, {})})
    assert Combined(weights={"ifd": 1.0}, length_bands=3)(empty)[:] == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"weights": {}}, "keep.weights: no score has a weight; write one, as in keep.weights.ifd=1."),
        ({"weights": {"ifd": 0.0}}, "keep.weights: no score has a weight; write one, as in keep.weights.ifd=1."),
        ({"where": ("ifd = 1",)},
         'keep.where: "ifd = 1" is no condition; write a score, a sign and a number, as in "ifd < 1".'),
        ({"group": "task", "length_bands": 3}, "keep: give either a group or length_bands, and set the other to null."),
        ({"group": "task", "fraction": None, "count": 3},
         "keep.count: is for all records together; with groups or bands, give a fraction."),
        ({"length_bands": 1}, "keep.length_bands: 1 divides nothing; write 2 or more."),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        Combined(**{"weights": {"ifd": 1.0}, **settings})
    assert str(refusal.value) == sentence


def test_a_score_or_a_group_that_is_not_there_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"no scorer of this run is of the kind 'reward'; there are ifd, length"):
        Combined(weights={"reward": 1.0})(pool({"ifd": IFD}))
    with pytest.raises(RecipeError, match=r"no record has the score 'ifd/nothing'"):
        Combined(weights={"ifd/nothing": 1.0})(pool({"ifd": IFD}))
    with pytest.raises(RecipeError, match=r"keep.group: no record has the field 'task'"):
        Combined(weights={"ifd": 1.0}, group="task")(pool({"ifd": IFD}))


@given(
    st.lists(st.integers(-500, 500), min_size=1, max_size=30, unique=True),
    st.randoms(),
    st.sampled_from(["rank-sum", "z-sum"]),
)
def test_what_is_kept_does_not_depend_on_the_order_of_the_records(
    values: list[int], shuffle: random.Random, rule: Any
) -> None:
    scores = {f"r{n}": value / 100 for n, value in enumerate(values)}
    selector = Combined(weights={"ifd": 1.0}, rule=rule, fraction=0.4, where=("ifd < 3",))
    items = list(scores.items())
    shuffle.shuffle(items)
    assert set(kept(selector, pool({"ifd": scores}))) == set(kept(selector, pool({"ifd": dict(items)})))
