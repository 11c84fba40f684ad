"""Acceptance oracles 6 and 8 of the card ifd.md: the published selection rules, and facility location."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from tunesift import Dataset, Largest, Message, Pool, Record, Score
from tunesift.scoring import diversity
from tunesift.scoring.diversity import k_centre, spread_out

IFDS = [0.91, 1.0, 1.02, math.nan, 0.55, 0.91, 0.3]
ROWS = [[1, 0], [0.98, 0.199], [0.96, 0.28], [0, 1], [0.1, 0.995], [-1, 0]]


def kept(selector: Largest) -> list[int]:
    records = [Record(str(n), (Message("user", "a"), Message("assistant", "b"))) for n in range(len(IFDS))]
    scores = {str(n): Score(None if math.isnan(v) else v) for n, v in enumerate(IFDS)}
    pool = Pool(Dataset.of(records), scores, {}, "IFD", random.Random(0))
    return [int(d.record_id) for d in selector(pool) if d.action == "keep"]


def test_oracle_6_cherry_rule_keeps_rows_1_and_5() -> None:
    assert kept(Largest(fraction=0.5, at_most=1.0, rule="cherry")) == [1, 5]


def test_oracle_6_superfiltering_rule_with_seven_rows_keeps_0_5_and_4() -> None:
    assert sorted(kept(Largest(fraction=None, count=3, below=1.0))) == sorted([0, 5, 4])


def test_oracle_6_ours_keeps_0_4_and_5() -> None:
    assert kept(Largest(fraction=0.5, below=1.0)) == [0, 4, 5]


def unit_rows() -> np.ndarray:
    rows = np.array(ROWS, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def naive(similar: list[list[float]], count: int) -> list[tuple[int, float]]:
    """Try every row at every step."""
    chosen: list[int] = []
    gains = []

    def value(rows: list[int]) -> float:
        return sum(max((line[j] for j in rows), default=0.0) for line in similar)

    for _ in range(count):
        best = max((j for j in range(len(similar)) if j not in chosen), key=lambda j: value([*chosen, j]))
        gains.append((best, value([*chosen, best]) - value(chosen)))
        chosen.append(best)
    return gains


def test_oracle_8_facility_location_picks_2_3_5_with_the_printed_gains() -> None:
    found = spread_out(unit_rows(), 3)
    assert [row for row, _ in found] == [2, 3, 5]
    assert [gain for _, gain in found] == pytest.approx([4.319340, 0.952165, 0.506931], abs=1e-6)
    assert sum(gain for _, gain in found) == pytest.approx(5.778436, abs=1e-6)


def test_oracle_8_a_swapped_metric_picks_4_1_5() -> None:
    rows = unit_rows()
    lack = diversity._columns_of(-(1 + rows @ rows.T))
    assert [row for row, _ in diversity._greedy(lack, np.zeros(len(rows)), 3)] == [4, 1, 5]


@pytest.mark.parametrize("seed", range(5))
def test_oracle_8_lazy_and_naive_greedy_agree_and_gains_never_increase(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(30, 4))
    found, expected = spread_out(rows, 12), naive(slow_similarity(rows), 12)
    # Two rows that only cover each other add exactly the same, so it is the gains that must agree.
    assert [gain for _, gain in found] == pytest.approx([gain for _, gain in expected])
    assert len({row for row, _ in found}) == 12
    assert all(a >= b - 1e-12 for (_, a), (_, b) in itertools.pairwise(found))


@pytest.mark.parametrize("count", [0, 6, 7])
def test_oracle_8_a_budget_that_is_not_below_the_pool_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="is not a number of rows"):
        spread_out(unit_rows(), count)


@pytest.mark.parametrize("way", ["held", "float64", "float32"])
def test_item_11_facility_location_by_blocks_chooses_as_the_naive_greedy(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diversity, "HELD", 10**6 if way == "held" else 0)
    monkeypatch.setattr(diversity, "EXACT", 0 if way == "float32" else 10**6)
    monkeypatch.setattr(diversity, "TILE", 64)
    monkeypatch.setattr(diversity, "TOGETHER", 8)
    for seed in range(4):
        rows = np.random.default_rng(seed).normal(size=(60, 6))
        found, expected = spread_out(rows, 15), naive(slow_similarity(rows), 15)
        assert [gain for _, gain in found] == pytest.approx([gain for _, gain in expected], rel=1e-5, abs=1e-4)
        # Rows whose gains differ by less than float32 can tell may change places; these do not.
        assert [row for row, _ in found[:6]] == [row for row, _ in expected[:6]]


def slow_similarity(rows: np.ndarray) -> list[list[float]]:
    return [[math.exp(-math.dist(a, b) / len(a)) for b in rows] for a in rows]


def test_item_11_similarity_is_that_of_the_referenced_library() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 384))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert similarity(rows) == pytest.approx(np.array(slow_similarity(rows)), abs=1e-9)
    assert similarity(np.array([rows[0], -rows[0]])).min() == pytest.approx(0.99481, abs=5e-6)


def similarity(rows: np.ndarray) -> np.ndarray:
    return 1 - diversity._shortfall(rows)(slice(None), np.arange(len(rows)))


def test_item_11_a_twentieth_of_the_vectors_in_any_order_are_the_same_ones() -> None:
    rows = np.random.default_rng(3).normal(size=(80, 5))
    order = np.random.default_rng(4).permutation(80)
    assert {row for row, _ in spread_out(rows, 8)} == {int(order[row]) for row, _ in spread_out(rows[order], 8)}
    assert {row for row, _ in k_centre(rows, 8)} == {int(order[row]) for row, _ in k_centre(rows[order], 8)}


def test_k_centre_takes_the_most_central_row_then_always_the_farthest() -> None:
    line = np.array([[0.0], [1.0], [2.0], [3.0], [10.0]])
    assert k_centre(line, 4) == [(3, 0.0), (4, 7.0), (0, 3.0), (1, 1.0)]
    assert k_centre(np.zeros((3, 2)), 2) == [(0, 0.0), (1, 0.0)]


def test_zero_vectors_have_a_place_like_any_other() -> None:
    rows = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = spread_out(rows, 3)
    assert {row for row, _ in found} in ({0, 2, 3}, {1, 2, 3})
    assert all(math.isfinite(gain) for _, gain in found)
