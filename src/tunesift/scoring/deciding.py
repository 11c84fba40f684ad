"""What does a selector hand back? One decision per record, made when it is asked for, out of arrays of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import overload

import numpy as np

from tunesift.arrays import Numbers, Places
from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.records import Decision, Record, Score


class Decisions(Sequence[Decision]):
    """In the order of the data; ten million of them cost their selector's numbers, and no sentence is held."""

    def __init__(self, data: Dataset[Record], decide: Callable[[int, str], Decision]) -> None:
        self._data, self._decide = data, decide

    def __len__(self) -> int:
        return len(self._data)

    @overload
    def __getitem__(self, index: int) -> Decision: ...
    @overload
    def __getitem__(self, index: slice) -> list[Decision]: ...
    def __getitem__(self, index: int | slice) -> Decision | list[Decision]:
        if isinstance(index, int):
            place = range(len(self))[index]
            return self._decide(place, next(self._data[place : place + 1].ids()))
        places = range(len(self))[index]
        return [self._decide(place, id) for place, id in zip(places, self._data[index].ids(), strict=True)]

    def __iter__(self) -> Iterator[Decision]:
        return (self._decide(place, id) for place, id in enumerate(self._data.ids()))


def ranked(values: Numbers, groups: Places | None = None) -> Places:
    """Ranks from 1 for the largest of each group, among equals the earlier first; 0 for what is not a number."""
    ranks = np.zeros(len(values), np.int64)
    places = np.flatnonzero(~np.isnan(values))
    if groups is None:
        order = np.argsort(-values[places], kind="stable")  # the earlier of equals stays the earlier
        ranks[places[order]] = np.arange(1, len(order) + 1)
        return ranks
    inside = groups[places]
    order = np.lexsort((-values[places], inside))
    first = np.searchsorted(inside[order], inside[order])  # where each one's group begins
    ranks[places[order]] = np.arange(len(order)) - first + 1
    return ranks


def finite_values(data: Dataset[Record], scores: Mapping[str, Score], part: str = "") -> Numbers:
    """The value, or a part, of every record's score in order; not a number where there is none that is finite."""
    found = (scores.get(id) for id in data.ids())
    return np.fromiter((_finite(score, part) for score in found), np.float64, len(data))


def lengths(data: Dataset[Record]) -> Numbers:
    """Characters of every record's response, in order."""
    return np.fromiter((len(record.response) for record in data), np.float64, len(data))


def told_value(value: float) -> str:
    """A score as reasons show it: four decimals, and more where one that is not whole would look as if it were."""
    for digits in (4, 6, 8, 12):
        said = f"{value:.{digits}f}"
        if not float(said).is_integer() or float(said) == value:
            break
    return said


def _finite(score: Score | None, part: str = "") -> float:
    value = None if score is None else score.parts.get(part) if part else score.value
    return value if value is not None and math.isfinite(value) else math.nan


@dataclass(frozen=True, slots=True)
class Groups:
    """Which group each record belongs to."""

    codes: Places
    """A group's number for every record, in order."""
    names: Sequence[str]

    @property
    def sizes(self) -> Places:
        """Records of each group."""
        return np.bincount(self.codes, minlength=len(self.names))


def groups_of(data: Dataset[Record], name: str) -> Groups:
    """Records by a field of their source; "none" for those without it. Raises `RecipeError` where none has it."""
    numbers: dict[str, int] = {}
    some = False

    def code(record: Record) -> int:
        nonlocal some
        some = some or name in record.extra
        return numbers.setdefault(str(record.extra.get(name, "none")), len(numbers))

    codes = np.fromiter((code(record) for record in data), np.int64, len(data))
    if not some:
        raise RecipeError(f"keep.group: no record has the field {name!r}; name a field of the input.")
    return Groups(codes, list(numbers))


def budget(fraction: float | None, count: int | None, records: int) -> int:
    """How many records a fraction or a count means: `floor(fraction * records)`, exact in decimals."""
    return count if count is not None else int(Decimal(str(fraction)) * records)


def check_some(place: str, fraction: float | None, records: int, instead: str) -> None:
    """Raise `RecipeError` where a fraction of the records is none of them; before anything is scored for it."""
    if fraction is not None and records and not budget(fraction, None, records):
        raise RecipeError(f"{place}: {fraction * 100:g}% of {records:,} records is none; {instead}.")


def budgets(fraction: float, groups: Groups, valid: Numbers) -> Places:
    """How many of each group a fraction means: at least one of a group that has a valid value."""
    some = np.bincount(groups.codes[~np.isnan(valid)], minlength=len(groups.names)) > 0
    least = np.array([max(1, budget(fraction, None, int(size))) for size in groups.sizes], np.int64)
    return np.where(some, least, 0)
