"""Which records say what an earlier one has said? Equal texts, and nearly equal ones by MinHash (Broder, 1997)."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from tunesift.arrays import Bools, Numbers, Places
from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.records import Decision, Record
from tunesift.scoring.deciding import Decisions
from tunesift.scoring.selectors import Pool
from tunesift.settings import Settings
from tunesift.words import runs_of, units

BANDS, ROWS = 25, 5
"""A pair of Jaccard similarity s is looked at with probability 1 - (1 - s^5)^25: 0.9999 at 0.8, 0.99 at 0.7."""
_LEAST = 0.7

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Distinct(Settings):
    """Keep the first of records that say the same, or nearly."""

    kind: Literal["distinct"] = "distinct"
    rule: Literal["minhash", "exact"] = "minhash"
    """exact: equal texts, whatever their case and spaces; minhash: also texts that share most of their runs of words;
    whoever is dropped was compared with the one that stays, and its similarity counted, not estimated."""
    similarity: float = 0.8
    """Jaccard similarity of the runs of words, from 0.7 to 1, from which on two texts are nearly equal."""
    words: int = 3
    """Words of one run; in scripts without spaces a word is two characters, in Thai and its like three."""
    of: Literal["whole", "instruction", "response"] = "whole"
    """What is compared: the whole conversation, what stands before the last response, or that response."""

    def __post_init__(self) -> None:
        if not _LEAST <= self.similarity <= 1:
            raise RecipeError(f"keep.similarity: {self.similarity:g} is not from {_LEAST} to 1; write 0.8.")
        if self.words < 1:
            raise RecipeError(f"keep.words: {self.words} is no number of words; write 1 or more.")

    def __call__(self, pool: Pool) -> Sequence[Decision]:
        """A record stays unless an earlier one that stays is its like."""
        of, shared = equal_to(pool.data, self._words)
        equal = of.copy()
        if self.rule == "minhash":
            near_to(pool.data, self._words, (self.words, self.similarity), (of, shared))

        def decide(place: int, id: str) -> Decision:
            if of[place] < 0:
                return Decision(id, "keep", f"no earlier record is like it: {self.rule}, {self.of}")
            first = next(pool.data[int(of[place]) : int(of[place]) + 1].ids())
            if of[place] == equal[place]:
                return Decision(id, "drop", f"duplicate: says what {first} says")
            return Decision(id, "drop", f"near-duplicate: Jaccard {shared[place]:.4f} with {first}")

        return Decisions(pool.data, decide)

    def _words(self, record: Record) -> list[str]:
        messages = {"whole": record.messages, "instruction": record.prompt, "response": record.messages[-1:]}[self.of]
        return units(" ".join(m.text for m in messages).casefold())


def equal_to(data: Dataset[Record], words: Callable[[Record], list[str]]) -> tuple[Places, Numbers]:
    """The earlier record with the same words, -1 for none, and how much is shared: 1."""
    seen: dict[bytes, int] = {}
    of = np.full(len(data), -1, np.int64)
    for place, record in enumerate(data):
        key = hashlib.sha256(" ".join(words(record)).encode(errors="replace")).digest()[:16]
        first = seen.setdefault(key, place)
        of[place] = first if first < place else -1
    return of, (of >= 0).astype(np.float64)


def near_to(
    data: Dataset[Record],
    words: Callable[[Record], list[str]],
    by: tuple[int, float],
    found: tuple[Places, Numbers],
) -> None:
    """Fill in, for records without an equal, an earlier one that stays and shares enough of their runs of words."""
    (size, least), (of, shared) = by, found
    keys = np.zeros((len(data), BANDS), np.uint64)
    for place, record in enumerate(data):
        keys[place] = _bands(runs(words(record), size))
    common = _common(keys)
    kept: dict[tuple[int, int], list[int]] = {}
    for place in map(int, np.flatnonzero(common.any(axis=1) & (of < 0))):
        buckets = [(int(band), int(keys[place, band])) for band in np.flatnonzero(common[place])]
        mine = runs(words(data[place]), size)
        for other in sorted({row for bucket in buckets for row in kept.get(bucket, ())}):
            value = jaccard(mine, runs(words(data[other]), size))
            if value >= least:
                of[place], shared[place] = other, value
                break
        else:
            for bucket in buckets:
                kept.setdefault(bucket, []).append(place)
    for place in map(int, np.flatnonzero(of >= 0)):
        if (first := of[of[place]]) >= 0:  # an equal of a record that went since: it is as near to the same one
            of[place], shared[place] = first, shared[of[place]]


class NearTexts:
    """Texts that come one after the other, to ask of each whether an earlier one is nearly its equal."""

    def __init__(self, size: int, least: float) -> None:
        if not _LEAST <= least <= 1:
            raise RecipeError(f"near: {least:g} is not from {_LEAST} to 1; write 0.8, or null to compare nothing.")
        self._size, self._least = size, least
        self._runs: list[Hashes] = []
        self._buckets: dict[tuple[int, int], list[int]] = {}

    def likes(self, pieces: Sequence[Sequence[str]]) -> Iterator[tuple[int, float]]:
        """Numbers of the texts, from 0, that share enough of the runs of words of all pieces, and how much they do."""
        mine = self._hashes(pieces)
        near = {n for bucket in enumerate(map(int, _bands(mine))) for n in self._buckets.get(bucket, ())}
        found = ((n, jaccard(mine, self._runs[n])) for n in sorted(near))
        return ((n, shared) for n, shared in found if shared >= self._least)

    def add(self, pieces: Sequence[Sequence[str]]) -> None:
        """Remember a text, in pieces whose order does not count."""
        mine = self._hashes(pieces)
        for bucket in enumerate(map(int, _bands(mine))):
            self._buckets.setdefault(bucket, []).append(len(self._runs))
        self._runs.append(mine)

    def _hashes(self, pieces: Sequence[Sequence[str]]) -> Hashes:
        return np.unique(np.concatenate([runs(words, self._size) for words in pieces]))


def runs(words: Sequence[str], size: int) -> Hashes:
    """Hashes of the different runs of so many words, in order; a shorter text is one run."""
    texts = (run.encode(errors="replace") for run in runs_of(words, size))
    return np.unique(np.fromiter(map(zlib.crc32, texts), np.uint64))


def jaccard(a: Hashes, b: Hashes) -> float:
    """Shared runs over all runs of two texts."""
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


def _constants() -> tuple[Hashes, Hashes]:
    drawn = hashlib.shake_256(b"tunesift minhash").digest(BANDS * ROWS * 16)
    numbers = np.frombuffer(drawn, "<u8").astype(np.uint64)
    return numbers[: BANDS * ROWS] | np.uint64(1), numbers[BANDS * ROWS :]


_FACTORS, _SHIFTS = _constants()


def _bands(hashes: Hashes) -> Hashes:
    """One number per band of the smallest hashes; wraps at 2^64, as multiply-shift hashing does."""
    mixed = hashes[:, None] * _FACTORS[None, :] + _SHIFTS[None, :]  # [runs, BANDS * ROWS]
    least = (mixed >> np.uint64(32)).min(axis=0).reshape(BANDS, ROWS)
    return np.asarray((least * _FACTORS[:ROWS]).sum(axis=1, dtype=np.uint64))


def _common(keys: Hashes) -> Bools:
    """Whether another record has the same number in a band, [N, BANDS]: all others can have no like."""
    found = np.zeros(keys.shape, bool)
    for band in range(keys.shape[1]):
        _, where, counts = np.unique(keys[:, band], return_inverse=True, return_counts=True)
        found[:, band] = counts[where] > 1
    return found
