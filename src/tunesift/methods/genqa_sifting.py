"""Which rows of GenQA are new? Duplicates, near-duplicates, texts of evaluation sets; and how diverse the others are.

Legend: m texts, D numbers of a vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from tunesift.errors import DataError
from tunesift.files import BrokenRow, read_rows
from tunesift.inputs import input_files
from tunesift.methods.genqa_checks import Rejected, Written
from tunesift.methods.genqa_likeness import LEAST_WORDS, Part, dedup_key, key_of, parts_of, posed
from tunesift.methods.genqa_prompts import SPLITS, Split, SplitName
from tunesift.models import EmbedModel
from tunesift.records import Failure, Record
from tunesift.scoring.duplicates import NearTexts
from tunesift.settings import Settings
from tunesift.words import length, runs_of, spelled, units

SPLITTER = 2
"""Number of the rules by which sentences end and words begin; other rules are another number, and another run."""
GRAM = 13
"""Words of a run that tells a text of an evaluation set."""
LETTERS = "ABCDEFGHIJ"
"""Of options; a longer list beside a text of an evaluation set has none."""
TILE = 1024
"""Texts whose similarities are computed together."""


def text_number(text: str) -> int:
    """A number that stands for a text, whatever its spaces and case."""
    return _hashed(dedup_key(text, whole=True))


def first_of_each(texts: Iterable[tuple[int, str]], whole: bool = False) -> dict[str, int]:
    """By key, the lowest number of those that share it, in whatever order they come."""
    found: dict[str, int] = {}
    for number, text in texts:
        key = dedup_key(text, whole)
        found[key] = min(number, found.get(key, number))
    return found


class Near:
    """Parts of one kind of the rows so far, to tell which of them a further one is like."""

    def __init__(self, least: float) -> None:
        self._texts = NearTexts(3, least)
        self._besides: list[tuple[str, frozenset[str]]] = []
        self._rows: list[int] = []

    def like(self, part: Part) -> tuple[int, float] | None:
        """Number of the first row that has its like, and how much they share."""
        found = self._texts.likes(part.pieces)
        return next(((self._rows[n], shared) for n, shared in found if part.may_be(self._besides[n])), None)

    def add(self, part: Part, row: int) -> None:
        """Remember a part of a row."""
        self._texts.add(part.pieces)
        self._besides.append((part.same, part.opening))
        self._rows.append(row)


class Sieve:
    """What was made so far, to tell what a further row repeats."""

    def __init__(self, near: float | None, against: frozenset[int]) -> None:
        self._first: dict[int, tuple[int, int]] = {}
        self._least = near
        self._near: dict[str, Near] = {}
        self._against = against
        self.kept = 0

    def holds_back(self, row: Written, split: SplitName) -> Rejected | None:
        """Why a row is not taken; None for one that is, which is remembered."""
        key, whole = _hashed(key_of(row, split)), text_number(row.messages[0].text)
        if (first := self._first.get(key)) is not None:
            return Rejected("duplicate", _repeats(*first, whole, SPLITS[split]))
        if self._against and any(not grams(m.text).isdisjoint(self._against) for m in row.messages):
            return Rejected("contaminated", f"shares {GRAM} words in a row, or a question, with an evaluation set")
        parts = parts_of(row, split) if self._least is not None else ()
        for part in parts:
            if part.kind in self._near and (like := self._near[part.kind].like(part)):
                return Rejected("near_duplicate", f"{like[1]:.4f} like row {like[0]} of the output, by its {part.kind}")
        self.kept += 1
        self._first[key] = self.kept, whole
        for part in parts:
            self._near.setdefault(part.kind, Near(self._least or 0)).add(part, self.kept)
        return None


def _repeats(first: int, first_asked: int, asked: int, split: Split) -> str:
    """How a row repeats another one that has its key."""
    if asked == first_asked:
        return f"asks the same as row {first} of the output"
    if split.reads == "options":
        return f"asks the same as row {first} of the output, its options in another order"
    return f"begins as row {first} of the output does"


def grams(text: str) -> set[int]:
    """Hashes of all runs of thirteen words, of a shorter text of all of it; and the same of a question without options,
    and with them in any order."""
    question = posed(text)
    found = _runs(text)
    for alone in question.alone():
        found |= _runs(alone)
    if question.options:
        found.add(_hashed("\n".join([spelled(question.stem), *sorted(map(spelled, question.options))])))
    return found


def _runs(text: str) -> set[int]:
    words = units(spelled(text))
    return {_hashed(run) for run in runs_of(words, GRAM)} if words else set()


def grams_of(paths: Sequence[Path]) -> frozenset[int]:
    """Those of every text in some files, whatever field it stands in.

    Raises `DataError` for a path that has none: rows would be compared with nothing.
    """
    found: set[int] = set()
    for path in paths:
        own: set[int] = set()
        for file in input_files(path):
            for text in _texts(file):
                own |= grams(text)
        if not own:
            raise DataError(f"{path}: has no text of {LEAST_WORDS} words or more, so that against={path.name} leaves "
                            "nothing out; name a file with the questions of an evaluation set.")  # fmt: skip
        found |= own
    return frozenset(found)


def _texts(path: Path) -> Iterator[str]:
    with closing(read_rows(path, bare=True)) as rows:
        for row in rows:
            if isinstance(row, BrokenRow):
                raise DataError(f"{row.place}: {row.message}; an evaluation set must be read whole.")
            yield from _inside(row.fields)


def _inside(value: object) -> Iterator[str]:
    """Every text inside a JSON value that has words enough to tell anything, short ones with their options too."""
    if isinstance(value, str):
        if length(units(value)) >= LEAST_WORDS:
            yield value
    elif isinstance(value, Mapping):
        yield from _with_options(value)
        for inner in value.values():
            yield from _inside(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _inside(inner)


def _with_options(fields: Mapping[str, object]) -> Iterator[str]:
    """The short texts of some fields, each with the options beside it: in a list, in one inside a field, or in fields
    that are called A, B and so on."""
    inside = [v for v in fields.values() if isinstance(v, Mapping)]
    beside = [*fields.values(), *(inner for v in inside for inner in v.values())]
    lists: list[list[object]] = [v for v in beside if isinstance(v, list)]
    lists += [[v[letter] for letter in LETTERS if letter in v] for v in (fields, *inside)]
    lists = [v for v in lists if 2 <= len(v) <= len(LETTERS) and all(isinstance(o, str) for o in v)]
    for text in (v for v in fields.values() if isinstance(v, str) and 0 < length(units(v)) < GRAM):
        for options in lists:
            if text not in options:
                yield "\n".join([text, *(f"{LETTERS[n]}) {option}" for n, option in enumerate(options))])


def _hashed(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "big")


@dataclass(frozen=True, kw_only=True)
class EmbedQuestion(Settings):
    """Embedding of what a row first asks: its first two sentences."""

    model: EmbedModel

    returns: ClassVar[type[tuple[float, ...]]] = tuple[float, ...]

    def __call__(self, chunk: Sequence[Record], /) -> list[tuple[float, ...] | Failure]:
        """One vector per record, in order."""
        return list(self.model.embed([dedup_key(record.messages[0].text) for record in chunk]))


def nearest(vectors: Sequence[Sequence[float]]) -> list[float]:
    """Cosine of every vector with the one that is nearest to it; lower is more diverse.

    Raises `ValueError` for fewer than two, which have no neighbour.
    """
    if len(vectors) < 2:
        raise ValueError("the nearest neighbour is measured among two texts or more.")
    points = np.asarray(vectors, np.float64)  # [m, D]
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    points /= np.where(lengths == 0, 1, lengths)
    found: list[float] = []
    for start in range(0, len(points), TILE):
        tile = points[start : start + TILE] @ points.T  # [TILE, m]
        tile[np.arange(len(tile)), np.arange(start, start + len(tile))] = -np.inf
        found += map(float, tile.max(axis=1))
    return found
