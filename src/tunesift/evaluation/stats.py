"""How far do two rankings agree, and how sure is a figure that was taken from a sample?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from tunesift.arrays import Numbers, Places, middle_ranks

LEAST = 3
"""Pairs below which no rank correlation is told: two pairs always agree or disagree wholly."""
RESAMPLES = 1000
"""Samples of a bootstrap; our choice."""
LEVEL = 0.95
"""How much of them an interval holds."""

Statistic = Callable[[Numbers, Numbers], float | None]
"""A figure of pairs, given as two columns; None where it is not defined."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a figure lies in 95 of 100 samples."""

    low: float
    high: float


def pearson(first: Sequence[float] | Numbers, second: Sequence[float] | Numbers) -> float | None:
    """Pearson's correlation, from -1 to 1; None and errors as `spearman` has them."""
    found = _sides(first, second)
    return None if found is None else _correlation(*found)


def spearman(first: Sequence[float] | Numbers, second: Sequence[float] | Numbers) -> float | None:
    """Spearman's rank correlation, from -1 to 1: Pearson's correlation of the ranks, equal values sharing the mean of
    theirs (Spearman 1904; Kendall 1945 for ties).

    None for fewer than three pairs, and where one side is constant. Raises `ValueError` for sides of unequal length,
    or a value that is not a number.
    """
    found = _sides(first, second)
    return None if found is None else _correlation(*map(middle_ranks, found))


def kendall(first: Sequence[float] | Numbers, second: Sequence[float] | Numbers) -> float | None:
    """Kendall's tau-b, from -1 to 1: pairs that both sides order alike, less those that they order otherwise, over what
    ties leave of all pairs (Kendall 1945). None and errors as `spearman` has them."""
    found = _sides(first, second)
    if found is None:
        return None
    one, other = (np.unique(side, return_inverse=True)[1] for side in found)
    pairs = len(one) * (len(one) - 1) // 2
    both_codes = one * (int(other.max()) + 1) + other
    tied, also_tied, both = (_tied(np.unique(c, return_counts=True)[1]) for c in (one, other, both_codes))
    if tied == pairs or also_tied == pairs:
        return None
    apart = _otherwise(other[np.lexsort((other, one))])
    alike = pairs - tied - also_tied + both - apart
    return float((alike - apart) / np.sqrt(float(pairs - tied) * float(pairs - also_tied)))


def _tied(counts: Places) -> int:
    """Pairs of one value, of how often each value is there."""
    return int((counts * (counts - 1) // 2).sum())


def _otherwise(codes: Places) -> int:
    """Pairs of which the later one is smaller, counted as two sorted halves are merged."""
    if len(codes) < 2:
        return 0
    half = len(codes) // 2
    left, right = codes[:half], codes[half:]
    across = half * len(right) - int(np.searchsorted(np.sort(left), right, "right").sum())
    return across + _otherwise(left) + _otherwise(right)


def _sides(first: Sequence[float] | Numbers, second: Sequence[float] | Numbers) -> tuple[Numbers, Numbers] | None:
    """Both sides as columns; None for fewer than three pairs."""
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if one.shape != other.shape:
        raise ValueError(f"{len(one)} and {len(other)} values make no pairs")
    if np.isnan(one).any() or np.isnan(other).any():
        raise ValueError("a value is not a number; leave its pair out")
    return (one, other) if len(one) >= LEAST else None


def _correlation(one: Numbers, other: Numbers) -> float | None:
    """None where one side is constant."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:  # without its mean it need not be 0 to the last digit
        return None
    one, other = one - one.mean(), other - other.mean()
    spread = float(np.sqrt((one @ one) * (other @ other)))
    return min(1.0, max(-1.0, float(one @ other) / spread)) if spread else None


def bootstrap(
    first: Sequence[float] | Numbers,
    second: Sequence[float] | Numbers,
    statistic: Statistic,
    stream: Random,
    groups: Sequence[str] | None = None,
) -> Interval | None:
    """Percentile bootstrap of a statistic of pairs (Efron 1979): where 95 in 100 of its values lie over a thousand
    samples, drawn with replacement.

    `groups` names for each pair what it belongs to, such as the row that several prompts were made of; pairs of one
    group are drawn together, since they say less than as many of their own, and without it an interval is too narrow.
    All draws come from `stream`. A sample of which the statistic is not defined is left out; None where that is so of
    the pairs themselves, or of more than half of the samples. Below twenty groups, take an interval for a hint.
    """
    one, other = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if statistic(one, other) is None:
        return None
    together = _Groups.of(range(len(one)) if groups is None else groups)
    draws = np.random.default_rng(stream.getrandbits(64))
    found: list[float] = []
    for _ in range(RESAMPLES):
        rows = together.rows(draws.integers(0, len(together.sizes), len(together.sizes)))
        value = statistic(one[rows], other[rows])
        found += [] if value is None else [value]
    if 2 * len(found) < RESAMPLES:
        return None
    low, high = np.quantile(found, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(low), float(high))


@dataclass(frozen=True, slots=True)
class _Groups:
    """Rows in the order of their groups: where each group begins, and how many rows it has."""

    order: Places
    starts: Places
    sizes: Places

    @classmethod
    def of(cls, names: Iterable[object]) -> _Groups:
        codes: dict[object, int] = {}
        places = np.array([codes.setdefault(name, len(codes)) for name in names], np.int64)
        sizes = np.bincount(places, minlength=len(codes))
        return cls(np.argsort(places, kind="stable"), np.cumsum(sizes) - sizes, sizes)

    def rows(self, drawn: Places) -> Places:
        """All rows of these groups, one group after the other."""
        sizes = self.sizes[drawn]
        begins = np.cumsum(sizes) - sizes
        rows: Places = self.order[np.repeat(self.starts[drawn] - begins, sizes) + np.arange(sizes.sum())]
        return rows
