"""How far do two rankings agree, and how sure is a figure that was taken from a sample?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from tunesift.arrays import Numbers, middle_ranks

LEAST = 3
"""Pairs below which no rank correlation is told: two pairs always agree or disagree wholly."""
RESAMPLES = 1000
"""Samples of a bootstrap; our choice."""

Statistic = Callable[[Numbers, Numbers], float | None]
"""A figure of pairs, given as two columns; None where it is not defined."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a figure lies, to so much of the resamples."""

    low: float
    high: float


def spearman(first: Sequence[float] | Numbers, second: Sequence[float] | Numbers) -> float | None:
    """Spearman's rank correlation, from -1 to 1: Pearson's correlation of the ranks, equal values sharing the mean of
    theirs (Spearman 1904; Kendall 1945 for ties).

    None for fewer than three pairs, and where one side is constant. Raises `ValueError` for sides of unequal length,
    or a value that is not a number.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape:
        raise ValueError(f"{len(one)} and {len(other)} values make no pairs")
    if np.isnan(one).any() or np.isnan(other).any():
        raise ValueError("a value is not a number; leave its pair out")
    if len(one) < LEAST:
        return None
    one, other = middle_ranks(one), middle_ranks(other)
    one, other = one - one.mean(), other - other.mean()
    spread = float(np.sqrt((one @ one) * (other @ other)))
    return min(1.0, max(-1.0, float(one @ other) / spread)) if spread else None


def bootstrap(
    first: Sequence[float] | Numbers,
    second: Sequence[float] | Numbers,
    statistic: Statistic,
    stream: Random,
    level: float = 0.95,
) -> Interval | None:
    """Percentile bootstrap of a statistic of pairs (Efron 1979): its quantiles over a thousand samples of as many
    pairs, drawn with replacement; `level` from 0 to 1 is how much of them lies between.

    All draws come from `stream`. A sample of which the statistic is not defined is left out; None where that is so of
    the pairs themselves, or of half of the samples. An interval of few pairs is too narrow: below twenty, take it for
    a hint.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if statistic(one, other) is None:
        return None
    draws = np.random.default_rng(stream.getrandbits(64))
    found: list[float] = []
    for _ in range(RESAMPLES):
        rows = draws.integers(0, len(one), len(one))
        value = statistic(one[rows], other[rows])
        found += [] if value is None else [value]
    if 2 * len(found) < RESAMPLES:
        return None
    low, high = np.quantile(found, ((1 - level) / 2, (1 + level) / 2))
    return Interval(float(low), float(high))
