"""Which rows of GenQA are new? Duplicates, near-duplicates, texts of evaluation sets; and how diverse the others are.

Legend: m texts, D numbers of a vector.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from tunesift.errors import DataError, RecipeError, shown
from tunesift.files import BrokenRow, read_rows
from tunesift.inputs import input_files
from tunesift.methods.genqa_checks import Rejected, Written
from tunesift.methods.genqa_prompts import SPLITS, SplitName
from tunesift.models import EmbedModel
from tunesift.reading import read_texts
from tunesift.records import Failure, Record
from tunesift.scoring.duplicates import NearTexts
from tunesift.settings import Settings

SPLITTER = 1
"""Number of the rule by which sentences end; another rule is another number, and another run."""
GRAM = 13
"""Words of a run that tells a text of an evaluation set."""
LEAST_WORDS = 4
"""Words of a text of an evaluation set below which it tells nothing: a name, a category."""
TILE = 1024
"""Texts whose similarities are computed together."""

_SENTENCE = re.compile(r"(?<=[.!?])\s|(?<=[。！？؟।])\s?")
_WORD = re.compile(r"\w+")


def dedup_key(text: str, whole: bool = False) -> str:
    """What duplicates share: the first two sentences, or the whole text, in one spelling (NFKC, spaces, case)."""
    said = " ".join(unicodedata.normalize("NFKC", text).split())
    if not whole:
        said = " ".join([part for part in _SENTENCE.split(said, maxsplit=2) if part][:2])
    return said.casefold()


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


class Sieve:
    """What was made so far, to tell what a further row repeats."""

    def __init__(self, near: float | None, against: frozenset[int]) -> None:
        self._first: dict[int, int] = {}
        self._near = NearTexts(3, near) if near is not None else None
        self._against = against
        self.kept = 0

    def holds_back(self, row: Written, split: SplitName) -> Rejected | None:
        """Why a row is not taken; None for one that is, which is remembered."""
        asked = row.messages[0].text
        key = _hashed(dedup_key(asked, SPLITS[split].whole))
        if (first := self._first.get(key)) is not None:
            return Rejected("duplicate", f"begins as row {first} of the output does")
        if self._against and any(not grams(m.text).isdisjoint(self._against) for m in row.messages):
            return Rejected("contaminated", f"shares {GRAM} words in a row, or all of them, with an evaluation set")
        if self._near is not None:
            words = " ".join(m.text for m in row.messages).casefold().split()
            if (like := self._near.like(words)) is not None:
                return Rejected("near_duplicate", f"Jaccard {like[1]:.4f} with row {like[0] + 1} of the output")
            self._near.add(words)
        self.kept += 1
        self._first[key] = self.kept
        return None


def grams(text: str) -> set[int]:
    """Hashes of all runs of thirteen words; of a shorter text, of all of it."""
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    runs = (" ".join(words[n : n + GRAM]) for n in range(max(1, len(words) - GRAM + 1)))
    return {_hashed(run) for run in runs} if words else set()


def grams_of(paths: Sequence[Path]) -> frozenset[int]:
    """Those of every text in some files, whatever field it stands in."""
    found: set[int] = set()
    for path in paths:
        for file in input_files(path):
            for text in _texts(file):
                found |= grams(text)
    return frozenset(found)


def _texts(path: Path) -> Iterator[str]:
    with closing(read_rows(path, bare=True)) as rows:
        for row in rows:
            if isinstance(row, BrokenRow):
                raise DataError(f"{row.place}: {row.message}; an evaluation set must be read whole.")
            yield from _inside(row.fields)


def _inside(value: object) -> Iterator[str]:
    """Every text inside a JSON value that has words enough to tell anything."""
    if isinstance(value, str):
        if len(value.split()) >= LEAST_WORDS:
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _inside(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _inside(inner)


def topics_from(given: tuple[str, ...] | Path) -> tuple[str, ...]:
    """The topics of a setting, none named twice; or those of a file, a line or a record each, repeated ones once."""
    found: dict[str, str] = {}
    for said in (" ".join(name.split()) for name in (read_texts(given) if isinstance(given, Path) else given)):
        if said and said.casefold() in found and not isinstance(given, Path):
            raise RecipeError(f'topics: "{shown(said)}" is named twice; name each topic once, whatever its case.')
        found.setdefault(said.casefold(), said)
    found.pop("", None)
    if not found:
        raise RecipeError("topics: the list is empty; name topics, or leave it out for our own.")
    return tuple(found.values())


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
