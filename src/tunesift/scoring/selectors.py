"""Which records stay? Pure functions of scores: one decision per record, with its reason.

A reason begins with its rule and a colon; reports count by what stands before the colon.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from tunesift.arrays import Numbers
from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.records import Decision, Failure, Record, Score
from tunesift.scoring.deciding import Decisions, budget, budgets, finite_values, groups_of, lengths, ranked
from tunesift.settings import Settings


@dataclass(frozen=True, slots=True)
class Scored:
    """What one scorer said of the records."""

    scores: Mapping[str, Score]
    failures: Mapping[str, Failure]


@dataclass(frozen=True, slots=True)
class Pool:
    """What a selector chooses from."""

    data: Dataset[Record]
    scores: Mapping[str, Score]
    failures: Mapping[str, Failure]
    label: str
    """What the score is called in reasons."""
    stream: random.Random
    """For selectors that draw."""
    named: Mapping[str, Scored] = field(default_factory=dict)
    """Every scorer's scores by its kind, for selectors that name several."""
    vectors: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Embeddings by id, for selectors that ask for them."""
    unplaced: Mapping[str, Failure] = field(default_factory=dict)
    """Records whose embedding failed; they are set aside."""

    def values(self) -> Numbers:
        """The score of every record in order; not a number where there is none, or none that is finite."""
        return finite_values(self.data, self.scores)

    def unscored(self, id: str) -> Decision:
        """What becomes of a record that has no value."""
        return without_score(id, self.scores.get(id), self.failures.get(id))


class Selector(Protocol):
    """Pure: a pool in, one decision per record out, in the order of the data."""

    def __call__(self, pool: Pool) -> Sequence[Decision]: ...


def without_score(id: str, score: Score | None, failure: Failure | None) -> Decision:
    """The decision on a record that a selector cannot compare: a failure is not a bad score."""
    if failure is not None:
        return Decision(id, "quarantine", f"{failure.kind}: {failure.message}")
    note = score.note or "not a finite number" if score else "not scored"
    return Decision(id, "drop", f"no score: {note}")


def check_fraction(name: str, fraction: float | None, *, or_count: bool = False) -> None:
    """Raise `RecipeError` for a setting that is no fraction above 0 and up to 1; perhaps a count was meant."""
    if fraction is not None and not 0 < fraction <= 1:
        right = "write 0.1 to keep 10 percent"
        if or_count and fraction >= 2 and fraction.is_integer():
            right = f"write {name.removesuffix('fraction')}count={int(fraction)} to keep so many records"
        raise RecipeError(f"{name}: {fraction:g} is not a fraction above 0 and up to 1; {right}.")


def check_budget(fraction: float | None, count: int | None) -> None:
    """Raise `RecipeError` unless exactly one of the two is given and means something."""
    check_fraction("keep.fraction", fraction, or_count=True)
    if count is not None and count < 1:
        raise RecipeError(f"keep.count: {count} keeps nothing; write the number of records to keep.")
    if (fraction is None) == (count is None):
        raise RecipeError("keep: give either a fraction or a count, and set the other to null.")


@dataclass(frozen=True, kw_only=True)
class Largest(Settings):
    """Keep the records with the largest scores."""

    kind: Literal["largest"] = "largest"
    fraction: float | None = 0.1
    """Fraction of all records to keep, above 0 and up to 1; the paper recommends 0.1."""
    count: int | None = None
    """Number of records to keep, instead of a fraction."""
    below: float | None = None
    """Keep only scores below this; 1 for IFD as Superfiltering has it."""
    at_most: float | None = None
    """Keep only scores up to this; 1 for IFD as Cherry has it."""
    rule: Literal["ours", "cherry"] = "ours"
    """ours: a fraction of all records, ties to the earlier one; cherry: a fraction of the records within the bounds,
    ties to the later one, as the authors' script has it (card ifd.md, item 8)."""

    def __post_init__(self) -> None:
        check_budget(self.fraction, self.count)

    def __call__(self, pool: Pool) -> Sequence[Decision]:
        """The best of those within the bounds."""
        order = _Order("largest", 1, self.below, self.at_most, cherry=self.rule == "cherry")
        return _ranked(pool, pool.values(), (self.fraction, self.count), order)


@dataclass(frozen=True, kw_only=True)
class Smallest(Settings):
    """Keep the records with the smallest scores, as r-IFD wants it."""

    kind: Literal["smallest"] = "smallest"
    fraction: float | None = 0.1
    """Fraction of all records to keep, above 0 and up to 1."""
    count: int | None = None
    """Number of records to keep, instead of a fraction."""
    below: float | None = None
    """Keep only scores below this."""

    def __post_init__(self) -> None:
        check_budget(self.fraction, self.count)

    def __call__(self, pool: Pool) -> Sequence[Decision]:
        """The smallest of those within the bound; ties go to the earlier record."""
        return _ranked(pool, pool.values(), (self.fraction, self.count), _Order("smallest", -1, self.below))


@dataclass(frozen=True, kw_only=True)
class Above(Settings):
    """Keep every record whose score is above a threshold."""

    kind: Literal["above"] = "above"
    threshold: float
    """Scores above this are kept."""
    below: float | None = None
    """Keep only scores below this; 1 for IFD as Superfiltering has it."""

    def __call__(self, pool: Pool) -> Sequence[Decision]:
        """A decision by each score alone."""
        values = pool.values()

        def verdict(place: int, id: str) -> Decision:
            keep = values[place] > self.threshold
            said = f"{pool.label} {'above' if keep else 'not above'} {self.threshold:g}: {values[place]:.4f}"
            return Decision(id, "keep" if keep else "drop", said)

        return _decide(pool, values, (self.below, None), verdict)


@dataclass(frozen=True, kw_only=True)
class Quota(Settings):
    """Keep the same fraction of every group, so that no kind of task disappears."""

    kind: Literal["quota"] = "quota"
    group: str
    """Name of the source file's field that holds the group."""
    fraction: float = 0.1
    """Fraction of each group to keep, above 0 and up to 1; at least one record of a group that has a valid score."""
    below: float | None = None
    """Keep only scores below this; 1 for IFD as Superfiltering has it."""

    def __post_init__(self) -> None:
        check_fraction("keep.fraction", self.fraction)

    def check(self, data: Dataset[Record]) -> None:
        """Raise `RecipeError` where no record has the field."""
        groups_of(data, self.group)

    def __call__(self, pool: Pool) -> Sequence[Decision]:
        """The largest of each group; raises `RecipeError` where no record has the field."""
        groups, values = groups_of(pool.data, self.group), pool.values()
        valid = values if self.below is None else np.where(values < self.below, values, np.nan)
        ranks = ranked(valid, groups.codes)
        kept, sizes = budgets(self.fraction, groups, valid), groups.sizes
        share = f"{self.fraction:.3g} of each {self.group}"

        def verdict(place: int, id: str) -> Decision:
            value, code = f"{pool.label} {values[place]:.4f}", groups.codes[place]
            if ranks[place] <= kept[code]:
                rank = f"rank {ranks[place]} of {sizes[code]} in {groups.names[code]}"
                return Decision(id, "keep", f"largest {share}: {value}, {rank}")
            return Decision(id, "drop", f"below the cut of its {self.group}: {value} in {groups.names[code]}")

        return _decide(pool, values, (self.below, None), verdict)


@dataclass(frozen=True, kw_only=True)
class Random(Settings):
    """Keep records drawn by the run's seed: the baseline that every score must beat."""

    kind: Literal["random"] = "random"
    fraction: float | None = 0.1
    """Fraction of all records to keep, above 0 and up to 1."""
    count: int | None = None
    """Number of records to keep, instead of a fraction."""

    def __post_init__(self) -> None:
        check_budget(self.fraction, self.count)

    def __call__(self, pool: Pool) -> Sequence[Decision]:
        """A draw without replacement."""
        records = len(pool.data)
        count = min(records, budget(self.fraction, self.count, records))
        drawn = np.zeros(records, bool)
        drawn[pool.stream.sample(range(records), count)] = True

        def verdict(place: int, id: str) -> Decision:
            if drawn[place]:
                return Decision(id, "keep", f"drawn at random: one of {count}")
            return Decision(id, "drop", f"not drawn: {count} of {records} were")

        return Decisions(pool.data, verdict)


@dataclass(frozen=True, kw_only=True)
class Longest(Settings):
    """Keep the longest responses: the baseline that many scores turn out to be."""

    kind: Literal["longest"] = "longest"
    fraction: float | None = 0.1
    """Fraction of all records to keep, above 0 and up to 1."""
    count: int | None = None
    """Number of records to keep, instead of a fraction."""

    def __post_init__(self) -> None:
        check_budget(self.fraction, self.count)

    def __call__(self, pool: Pool) -> Sequence[Decision]:
        """The responses with the most characters; ties go to the earlier record."""
        return _by_length(pool, self.fraction, self.count, _Order("longest", 1, digits=0))


@dataclass(frozen=True, kw_only=True)
class Shortest(Settings):
    """Keep the shortest responses that are not empty: what is left when a selection is the opposite of length."""

    kind: Literal["shortest"] = "shortest"
    fraction: float | None = 0.1
    """Fraction of all records to keep, above 0 and up to 1."""
    count: int | None = None
    """Number of records to keep, instead of a fraction."""

    def __post_init__(self) -> None:
        check_budget(self.fraction, self.count)

    def __call__(self, pool: Pool) -> Sequence[Decision]:
        """The responses with the fewest characters, at least one; ties go to the earlier record."""
        return _by_length(pool, self.fraction, self.count, _Order("shortest", -1, digits=0))


NEEDS_NO_SCORES = (Random, Longest, Shortest)
"""Selectors for which nothing is scored."""


def _bound(value: float, below: float | None, at_most: float | None) -> str:
    if below is not None and not value < below:
        return f"not below {below:g}"
    return f"above {at_most:g}" if at_most is not None and value > at_most else ""


@dataclass(frozen=True, slots=True)
class _Order:
    """Which end of the scores is kept, and between which bounds."""

    word: str
    sign: int
    below: float | None = None
    at_most: float | None = None
    cherry: bool = False
    """Whether the budget and the ties are those of the authors of Cherry."""
    digits: int = 4
    """Digits after the point that reasons show of a value."""

    def within(self, values: Numbers) -> Numbers:
        """The values from the end that is kept upwards; not a number outside the bounds."""
        inside = (values < (math.inf if self.below is None else self.below)) & (
            values <= (math.inf if self.at_most is None else self.at_most)
        )
        return np.where(inside, self.sign * values, np.nan)


def _by_length(pool: Pool, fraction: float | None, count: int | None, order: _Order) -> Sequence[Decision]:
    values = lengths(pool.data)
    sound = np.where(values > 0, values, np.nan) if order.sign < 0 else values
    empty = {id: Score(None, note="empty_response") for id, n in zip(pool.data.ids(), sound, strict=True) if n != n}
    return _ranked(Pool(pool.data, empty, {}, "characters", pool.stream), sound, (fraction, count), order)


def _ranked(pool: Pool, values: Numbers, share: tuple[float | None, int | None], order: _Order) -> Sequence[Decision]:
    fraction, count = share
    valid = order.within(values)
    ranks = ranked(valid[::-1])[::-1] if order.cherry else ranked(valid)
    most = int(ranks.max(initial=0))
    kept = min(most, budget(fraction, count, most if order.cherry else len(pool.data)))
    said = f"{order.word} {fraction * 100:g}%" if count is None and fraction is not None else f"{order.word} {kept}"
    last = f"; the last one kept has {values[ranks == kept][0]:.{order.digits}f}" if kept else ""

    def verdict(place: int, id: str) -> Decision:
        rank = f"{pool.label} {values[place]:.{order.digits}f}, rank {ranks[place]} of {most}"
        if ranks[place] <= kept:
            return Decision(id, "keep", f"{said}: {rank}")
        return Decision(id, "drop", f"not among the {said}: {rank}{last}")

    return _decide(pool, values, (order.below, order.at_most), verdict)


def _decide(
    pool: Pool,
    values: Numbers,
    bounds: tuple[float | None, float | None],
    verdict: Callable[[int, str], Decision],
) -> Sequence[Decision]:
    """Decisions in which what has no value, and what is outside the bounds, is dropped with that reason."""

    def decide(place: int, id: str) -> Decision:
        value = float(values[place])
        if math.isnan(value):
            return pool.unscored(id)
        if outside := _bound(value, *bounds):
            return Decision(id, "drop", f"{pool.label} {outside}: {value:.4f}")
        return verdict(place, id)

    return Decisions(pool.data, decide)
