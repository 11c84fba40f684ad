"""How do several scores decide together? Rank sum, weighted z, product; conditions; a share of every group."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tunesift.arrays import Bools, Numbers, Places, bands_of, middle_ranks
from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.records import Decision, Record
from tunesift.scoring.deciding import (
    Decisions,
    Groups,
    budget,
    budgets,
    finite_values,
    groups_of,
    lengths,
    ranked,
)
from tunesift.scoring.selectors import Pool, check_budget, without_score
from tunesift.settings import Settings

LENGTH = "length"
"""A score that every run has: characters of the response."""
_NAME = r"[a-z0-9][\w-]*(?:/\w+)?"
_CONDITION = re.compile(rf"\s*({_NAME})\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*")
_HOLDS: Mapping[str, Callable[[Numbers, float], Bools]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Condition:
    """What a record's score must be for it to stay: `ifd < 1`."""

    name: str
    sign: str
    bound: float

    def holds(self, values: Numbers) -> Bools:
        """For each value, whether it is so."""
        return _HOLDS[self.sign](values, self.bound)

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.bound:g}"


def condition(text: str) -> Condition:
    """A condition as it is written; raises `RecipeError` for what is none."""
    found = _CONDITION.fullmatch(text)
    if not found:
        raise RecipeError(f'keep.where: "{text}" is no condition; write a score, a sign and a number, as in "ifd < 1".')
    return Condition(found[1], found[2], float(found[3]))


@dataclass(frozen=True, kw_only=True)
class Combined(Settings):
    """Keep the records that are best by several scores at once."""

    kind: Literal["combined"] = "combined"
    weights: Mapping[str, float]
    """Weight of each score by its scorer's kind, negative where the smaller is better: {ifd: 1, reversed-ifd: -1};
    `ifd/direct` is a part of a score, and `length` the characters of the response."""
    rule: Literal["rank-sum", "z-sum", "product"] = "rank-sum"
    """rank-sum: weighted sum of ranks from 0 to 1, equal values sharing the middle one; z-sum: weighted sum of
    distances to the mean in standard deviations; product: values to the power of their weights, multiplied."""
    where: tuple[str, ...] = ()
    """Conditions that all must hold: "ifd < 1", "length >= 20"; ranks, means and groups are of those that are left."""
    fraction: float | None = 0.1
    """Fraction of all records to keep, above 0 and up to 1; of groups or bands, of each of them, and at least one."""
    count: int | None = None
    """Number of records to keep, instead of a fraction."""
    group: str | None = None
    """Field of the source file by which the fraction is kept of every group."""
    length_bands: int | None = None
    """Bands of response length, of about as many records each, of each of which the fraction is kept."""

    def __post_init__(self) -> None:
        check_budget(self.fraction, self.count)
        for text in self.where:
            condition(text)
        if not any(self.weights.values()):
            raise RecipeError("keep.weights: no score has a weight; write one, as in keep.weights.ifd=1.")
        if self.group is not None and self.length_bands is not None:
            raise RecipeError("keep: give either a group or length_bands, and set the other to null.")
        if self.count is not None and (self.group is not None or self.length_bands is not None):
            raise RecipeError("keep.count: is for all records together; with groups or bands, give a fraction.")
        if self.length_bands is not None and self.length_bands < 2:
            raise RecipeError(f"keep.length_bands: {self.length_bands} divides nothing; write 2 or more.")

    @property
    def names(self) -> list[str]:
        """The scores that are named, each once."""
        return list(dict.fromkeys([*self.weights, *(condition(text).name for text in self.where)]))

    @property
    def kinds(self) -> list[str]:
        """The scorers that have to be asked."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self.names if name != LENGTH))

    def check(self, data: Dataset[Record], scorers: Collection[str]) -> None:
        """Raise `RecipeError` for a score that no scorer of the run makes, or a group that no record has."""
        for kind in self.kinds:
            if kind not in scorers:
                there = ", ".join([*scorers, LENGTH])
                raise RecipeError(f"keep: no scorer of this run is of the kind {kind!r}; there are {there}.")
        if self.group is not None:
            groups_of(data, self.group)

    def __call__(self, pool: Pool) -> Sequence[Decision]:
        """The best of those that meet the conditions; raises `RecipeError` for a score that no record has."""
        self.check(pool.data, pool.named)
        columns = {name: self._column(name, pool) for name in self.names}
        sound = ~np.any([np.isnan(values) for values in columns.values()], axis=0)
        met = [(c, c.holds(columns[c.name])) for c in map(condition, self.where)]
        left = sound & np.all([holds for _, holds in met], axis=0) if met else sound
        worth = self._worth(columns, left)
        groups = self._groups(pool.data)
        ranks = ranked(worth, groups.codes)
        of = np.bincount(groups.codes, ~np.isnan(worth), len(groups.names)).astype(np.int64)
        kept = self._kept(groups, worth)
        share = self._share(kept)

        def decide(place: int, id: str) -> Decision:
            if not sound[place]:
                return self._unsound(pool, columns, place, id)
            for c, holds in met:
                if not holds[place]:
                    return Decision(id, "drop", f"{c} does not hold: {_said(c.name, columns[c.name][place])}")
            values = ", ".join(_said(name, columns[name][place]) for name in self.weights)
            if math.isnan(worth[place]):
                return Decision(id, "drop", f"no product: a score is not above 0; {values}")
            code = groups.codes[place]
            within = f" in {groups.names[code]}" if len(groups.names) > 1 else ""
            place_ = f"{worth[place]:.4f} from {values}; rank {ranks[place]} of {of[code]}{within}"
            if ranks[place] <= kept[code]:
                return Decision(id, "keep", f"{share}: {place_}")
            return Decision(id, "drop", f"not among the {share}: {place_}")

        return Decisions(pool.data, decide)

    def _column(self, name: str, pool: Pool) -> Numbers:
        if name == LENGTH:
            return lengths(pool.data)
        kind, _, part = name.partition("/")
        values = finite_values(pool.data, pool.named[kind].scores, part)
        if part and len(values) and np.isnan(values).all():
            raise RecipeError(f"keep: no record has the score {name!r}; parts are named in the output of `score`.")
        return values

    def _unsound(self, pool: Pool, columns: Mapping[str, Numbers], place: int, id: str) -> Decision:
        """A failure of any of the scores first; else the first score that is missing."""
        failed = (pool.named[kind].failures.get(id) for kind in self.kinds)
        failure = next((f for f in failed if f is not None), None)
        missing = next(name for name, values in columns.items() if math.isnan(values[place]))
        said = without_score(id, pool.named[missing.partition("/")[0]].scores.get(id), failure)
        if failure is not None:
            return said
        return Decision(id, "drop", said.reason.replace("no score: ", f"no score: {missing} "))

    def _worth(self, columns: Mapping[str, Numbers], left: Bools) -> Numbers:
        """One number per record that is left, larger is better; not a number for the others."""
        worth = np.full(len(left), np.nan)
        terms = [w * _TERMS[self.rule](columns[name][left]) for name, w in self.weights.items()]
        total = np.sum(terms, axis=0)
        worth[left] = np.exp(total) if self.rule == "product" else total
        return worth

    def _groups(self, data: Dataset[Record]) -> Groups:
        if self.group is not None:
            return groups_of(data, self.group)
        if self.length_bands is not None:
            return banded(lengths(data), self.length_bands)
        return Groups(np.zeros(len(data), np.int64), ["all"])

    def _kept(self, groups: Groups, worth: Numbers) -> Places:
        if (self.group is not None or self.length_bands is not None) and self.fraction is not None:
            return budgets(self.fraction, groups, worth)
        return np.array([budget(self.fraction, self.count, len(worth))])

    def _share(self, kept: Places) -> str:
        each = f" of each {self.group}" if self.group else " of each length band" if self.length_bands else ""
        return f"largest {f'{self.fraction * 100:g}%' if self.fraction else kept[0]}{each} by {self.rule}"


def _said(name: str, value: float) -> str:
    return f"{name} {value:.{0 if name == LENGTH else 4}f}"


def banded(values: Numbers, bands: int) -> Groups:
    """Records by length, in bands of about equal number."""
    codes = bands_of(values, bands)
    inside = [values[codes == code] for code in range(codes.max(initial=-1) + 1)]
    return Groups(codes, [f"{part.min():g} to {part.max():g} characters" for part in inside] or ["all"])


def _shares_below(values: Numbers) -> Numbers:
    """Ranks between 0 and 1, equal values sharing the middle one."""
    return middle_ranks(values) / max(1, len(values))


def _deviations(values: Numbers) -> Numbers:
    """Distances to the mean in standard deviations; 0 where all are equal."""
    spread = values.std() if len(values) else 0.0
    return (values - values.mean()) / spread if spread else np.zeros(len(values))


def _logarithms(values: Numbers) -> Numbers:
    return np.log(values, out=np.full(len(values), np.nan), where=values > 0)


_TERMS: Mapping[str, Callable[[Numbers], Numbers]] = {
    "rank-sum": _shares_below, "z-sum": _deviations, "product": _logarithms,
}  # fmt: skip
