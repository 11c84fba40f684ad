"""Which records stay? Pure functions of scores: one decision per record, with its reason.

A reason begins with its rule and a colon; reports count by what stands before the colon.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Protocol

from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.records import Decision, Failure, Record, Score
from tunesift.settings import Settings


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


class Selector(Protocol):
    """Pure: a pool in, one decision per record out, in the order of the data."""

    def __call__(self, pool: Pool) -> list[Decision]: ...


def budget(fraction: float | None, count: int | None, records: int) -> int:
    """How many records a fraction or a count means: `floor(fraction * records)`, exact in decimals."""
    return count if count is not None else int(Decimal(str(fraction)) * records)


def top(values: Mapping[str, float], count: int) -> list[str]:
    """Ids of the `count` largest values, best first; among equals the earlier record first (card ifd.md, item 8)."""
    order = sorted(values, key=lambda id: -values[id])  # sorted is stable, and values come in the order of the data
    return order[:count]


def check_fraction(name: str, fraction: float | None, *, or_count: bool = False) -> None:
    """Raise `RecipeError` for what is not a fraction above 0 and up to 1; perhaps a count was meant."""
    if fraction is not None and not 0 < fraction <= 1:
        right = "write 0.1 to keep 10 percent"
        if or_count and fraction >= 2 and fraction.is_integer():
            right = f"write {name}.count={int(fraction)} to keep so many records"
        raise RecipeError(f"{name}.fraction: {fraction:g} is not a fraction above 0 and up to 1; {right}.")


def check_budget(fraction: float | None, count: int | None) -> None:
    """Raise `RecipeError` unless exactly one of the two is given and means something."""
    check_fraction("keep", fraction, or_count=True)
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

    def __call__(self, pool: Pool) -> list[Decision]:
        """The best of those within the bounds."""
        order = _Order("largest", 1, self.below, self.at_most, cherry=self.rule == "cherry")
        return _ranked(pool, self.fraction, self.count, order)


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

    def __call__(self, pool: Pool) -> list[Decision]:
        """The smallest of those within the bound; ties go to the earlier record."""
        return _ranked(pool, self.fraction, self.count, _Order("smallest", -1, self.below))


@dataclass(frozen=True, kw_only=True)
class Above(Settings):
    """Keep every record whose score is above a threshold."""

    kind: Literal["above"] = "above"
    threshold: float
    """Scores above this are kept."""
    below: float | None = None
    """Keep only scores below this; 1 for IFD as Superfiltering has it."""

    def __call__(self, pool: Pool) -> list[Decision]:
        """A decision by each score alone."""
        return _decide(pool, lambda id, value: self._verdict(id, value, pool.label))

    def _verdict(self, id: str, value: float, label: str) -> Decision:
        if outside := _bound(value, self.below, None):
            return Decision(id, "drop", f"{label} {outside}: {value:.4f}")
        keep = value > self.threshold
        side = "above" if keep else "not above"
        return Decision(id, "keep" if keep else "drop", f"{label} {side} {self.threshold:g}: {value:.4f}")


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
        check_fraction("keep", self.fraction)

    def groups(self, data: Dataset[Record]) -> dict[str, str]:
        """The group of every record that has one; raises `RecipeError` where none has."""
        found = {r.id: str(r.extra[self.group]) for r in data if self.group in r.extra}
        if not found:
            raise RecipeError(f"keep.group: no record has the field {self.group!r}; name a field of the input.")
        return found

    def __call__(self, pool: Pool) -> list[Decision]:
        """The largest of each group; raises `RecipeError` where no record has the field."""
        groups = self.groups(pool.data)
        valid: dict[str, dict[str, float]] = defaultdict(dict)
        sizes: dict[str, int] = defaultdict(int)
        for id in pool.data.ids():
            group = groups.get(id, "none")
            sizes[group] += 1
            score = pool.scores.get(id)
            if (value := _finite(score)) is not None and not _bound(value, self.below, None):
                valid[group][id] = value
        chosen = {g: top(values, max(1, budget(self.fraction, None, sizes[g]))) for g, values in valid.items()}
        kept = {id: f"{place} of {sizes[g]} in {g}" for g, ids in chosen.items() for place, id in enumerate(ids, 1)}

        def verdict(id: str, value: float) -> Decision:
            if outside := _bound(value, self.below, None):
                return Decision(id, "drop", f"{pool.label} {outside}: {value:.4f}")
            share = f"{self.fraction:.3g} of each {self.group}"
            if id in kept:
                return Decision(id, "keep", f"largest {share}: {pool.label} {value:.4f}, rank {kept[id]}")
            return Decision(
                id, "drop", f"below the cut of its {self.group}: {pool.label} {value:.4f} in {groups.get(id, 'none')}"
            )

        return _decide(pool, verdict)


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

    def __call__(self, pool: Pool) -> list[Decision]:
        """A draw without replacement."""
        ids = list(pool.data.ids())
        count = min(len(ids), budget(self.fraction, self.count, len(ids)))
        kept = set(pool.stream.sample(ids, count))
        return [
            Decision(id, "keep", f"drawn at random: one of {count}") if id in kept
            else Decision(id, "drop", f"not drawn: {count} of {len(ids)} were") for id in ids
        ]  # fmt: skip


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

    def __call__(self, pool: Pool) -> list[Decision]:
        """The responses with the most characters; ties go to the earlier record."""
        lengths = {r.id: Score(float(len(r.response))) for r in pool.data}
        by_length = Pool(pool.data, lengths, {}, "characters", pool.stream)
        return _ranked(by_length, self.fraction, self.count, _Order("longest", 1))


NEEDS_NO_SCORES = (Random, Longest)
"""Selectors for which nothing is scored."""


def _finite(score: Score | None) -> float | None:
    value = None if score is None else score.value
    return value if value is not None and math.isfinite(value) else None


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

    def outside(self, value: float) -> str:
        return _bound(value, self.below, self.at_most)


def _ranked(pool: Pool, fraction: float | None, count: int | None, order: _Order) -> list[Decision]:
    found = {id: value for id in pool.data.ids() if (value := _finite(pool.scores.get(id))) is not None}
    valid = {id: order.sign * v for id, v in found.items() if not order.outside(v)}
    ranking = top(dict(reversed(valid.items())) if order.cherry else valid, len(valid))
    ranks = {id: place for place, id in enumerate(ranking, start=1)}
    kept = min(len(ranking), budget(fraction, count, len(valid if order.cherry else pool.data)))
    share = f"{order.word} {fraction * 100:g}%" if count is None and fraction is not None else f"{order.word} {kept}"
    last = f"; the last one kept has {found[ranking[kept - 1]]:.4f}" if kept else ""

    def verdict(id: str, value: float) -> Decision:
        if bound := order.outside(value):
            return Decision(id, "drop", f"{pool.label} {bound}: {value:.4f}")
        place = f"{pool.label} {value:.4f}, rank {ranks[id]} of {len(ranking)}"
        if ranks[id] <= kept:
            return Decision(id, "keep", f"{share}: {place}")
        return Decision(id, "drop", f"not among the {share}: {place}{last}")

    return _decide(pool, verdict)


def _decide(pool: Pool, verdict: Callable[[str, float], Decision]) -> list[Decision]:
    decisions = []
    for id in pool.data.ids():
        score, failure = pool.scores.get(id), pool.failures.get(id)
        value = _finite(score)
        if failure is not None:
            decisions.append(Decision(id, "quarantine", f"{failure.kind}: {failure.message}"))
        elif value is None:
            note = score.note or "not a finite number" if score else "not scored"
            decisions.append(Decision(id, "drop", f"no score: {note}"))
        else:
            decisions.append(verdict(id, value))
    return decisions
