"""Rank correlation and bootstrap intervals, held against figures worked out by hand and against scipy."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest

from tunesift.evaluation.stats import RESAMPLES, bootstrap, kendall, pearson, spearman


def test_four_pairs_worked_out_by_hand_are_0_8() -> None:
    """Ranks 1 2 3 4 and 1 2 4 3: 1 - 6 * (0 + 0 + 1 + 1) / (4 * 15) = 0.8."""
    assert spearman([50, 100, 150, 200], [60, 90, 170, 160]) == pytest.approx(0.8)


def test_ties_share_the_mean_of_their_ranks() -> None:
    """Ranks 1.5 1.5 3 and 1 2 3: products of deviations 0.5 + 0 + 1 over the root of 1.5 * 2."""
    assert spearman([7, 7, 9], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3))


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_scipy_says_with_and_without_ties(seed: int) -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    draw = random.Random(seed)
    size, most = draw.randint(3, 40), draw.choice((3, 10, 10**6))
    one, other = ([draw.randint(0, most) for _ in range(size)] for _ in range(2))
    if len({*one}) > 1 and len({*other}) > 1:
        assert spearman(one, other) == pytest.approx(scipy_stats.spearmanr(one, other).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other"), [([], []), ([1], [2]), ([1, 2], [1, 2]), ([3, 3, 3], [1, 2, 3]), ([1, 2, 3], [3, 3, 3])]
)
def test_two_pairs_and_a_constant_side_have_no_correlation(one: list[float], other: list[float]) -> None:
    assert spearman(one, other) is None
    assert bootstrap(one, other, spearman, random.Random(0)) is None


def test_what_makes_no_pairs_is_refused() -> None:
    with pytest.raises(ValueError, match="3 and 4 values"):
        spearman([1, 2, 3], [1, 2, 3, 4])
    with pytest.raises(ValueError, match="not a number"):
        spearman([1, 2, math.nan], [1, 2, 3])


def test_whole_agreement_is_1_and_its_interval_ends_there() -> None:
    same = [0.1 * n for n in range(50)]
    assert spearman(same, same) == 1.0
    found = bootstrap(same, same, spearman, random.Random(1))
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(1.0), pytest.approx(1.0))


def test_the_interval_comes_near_that_of_every_sample_there_is() -> None:
    """All 4 ** 4 samples of four pairs, by the sum of their differences."""
    one, other = [1.0, 2.0, 3.0, 4.0], [1.5, 1.0, 5.0, 9.0]
    gaps = [b - a for a, b in zip(one, other, strict=True)]
    every = [sum(sample) for sample in itertools.product(gaps, repeat=4)]
    found = bootstrap(one, other, lambda a, b: float((b - a).sum()), random.Random(5))
    assert found is not None
    assert found.low == pytest.approx(float(np.quantile(every, 0.025)), abs=1.01)  # the sums lie half a step apart
    assert found.high == pytest.approx(float(np.quantile(every, 0.975)), abs=1.01)


def test_one_stream_gives_one_interval_and_another_another() -> None:
    draw = random.Random(3)
    one = [draw.random() for _ in range(40)]
    other = [a + draw.random() for a in one]
    first, again, else_ = (bootstrap(one, other, spearman, random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != else_


def test_half_of_the_samples_undefined_is_no_interval() -> None:
    calls = itertools.count()
    assert bootstrap([1, 2, 3], [1, 2, 3], lambda a, b: None if next(calls) % 3 else 1.0, random.Random(0)) is None
    assert next(calls) == RESAMPLES + 1


def test_what_says_the_same_four_times_over_is_no_surer_than_once() -> None:
    """Each pair four times: as pairs of their own they have half the interval; drawn together, the same."""
    draw = random.Random(7)
    one = [draw.gauss(0, 1) for _ in range(60)]
    other = [a + draw.gauss(0, 1) for a in one]
    once, fourfold, together = (
        bootstrap(one * n, other * n, spearman, random.Random(7), names)
        for n, names in ((1, None), (4, None), (4, [str(place) for place in range(60)] * 4))
    )
    assert once is not None
    assert fourfold is not None
    assert together is not None
    assert fourfold.high - fourfold.low == pytest.approx((once.high - once.low) / 2, rel=0.25)
    assert (together.low, together.high) == (pytest.approx(once.low, abs=1e-9), pytest.approx(once.high, abs=1e-9))


def test_groups_of_unequal_sizes_come_whole() -> None:
    seen: set[tuple[float, ...]] = set()

    def noted(one: np.ndarray, _: np.ndarray) -> float:
        seen.add(tuple(one))
        return float(one.mean())

    bootstrap([1, 2, 3, 4], [0, 0, 0, 0], noted, random.Random(0), ["a", "b", "a", "a"])
    assert seen == {(1, 2, 3, 4), (1, 3, 4, 1, 3, 4), (1, 3, 4, 2), (2, 1, 3, 4), (2, 2)}


@pytest.mark.parametrize("values", [2, 5, 1000])
def test_pearson_and_kendall_are_those_of_scipy(values: int) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is for tests")
    stream = random.Random(values)
    for _ in range(20):
        one, other = ([float(stream.randrange(values)) for _ in range(37)] for _ in range(2))
        assert kendall(one, other) == pytest.approx(stats.kendalltau(one, other).statistic, abs=1e-12)
        assert pearson(one, other) == pytest.approx(stats.pearsonr(one, other).statistic, abs=1e-12)


def test_pearson_and_kendall_of_a_constant_are_none() -> None:
    for statistic in (pearson, kendall):
        assert statistic([0.1] * 9, [float(n) for n in range(9)]) is None
        assert statistic([float(n) for n in range(9)], [0.1] * 9) is None
        assert statistic([1.0, 2.0], [1.0, 2.0]) is None
        assert statistic([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == pytest.approx(1.0)
        assert statistic([1.0, 2.0, 3.0], [6.0, 4.0, 2.0]) == pytest.approx(-1.0)


def test_kendall_counts_pairs_as_its_definition_does() -> None:
    one, other = [1, 2, 2, 3, 5, 4], [3, 1, 4, 4, 2, 2]
    signs = [(a - b > 0) - (a - b < 0) for a, b in itertools.combinations(one, 2)]
    others = [(a - b > 0) - (a - b < 0) for a, b in itertools.combinations(other, 2)]
    top = sum(a * b for a, b in zip(signs, others, strict=True))
    bottom = sum(map(abs, signs)) * sum(map(abs, others))
    assert kendall(one, other) == pytest.approx(top / bottom**0.5, abs=1e-12)
