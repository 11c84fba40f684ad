"""Which pairs of agents write for a seed? Probabilities that follow their worth, and a memory of instructions."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MOST_ENTRIES = 50_000
"""Instructions that the memory bank holds; a further one takes the place of the oldest."""
_DIGITS = 5
"""Decimals of a similarity that decide: below them, two machines need not agree."""


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """An agent that rewrites the instruction, and one that responds to it."""

    instructs: str
    """Its name; empty where the seed's own instruction is kept."""
    responds: str

    @property
    def name(self) -> str:
        """`phi+gpt`; `gpt` alone where the instruction is kept."""
        return f"{self.instructs}+{self.responds}" if self.instructs else self.responds


@dataclass(frozen=True)
class PairPool:
    """How likely each pair is; replaced, never changed. Probabilities sum to 1."""

    weights: Mapping[Pair, float]

    @classmethod
    def uniform(cls, pairs: Sequence[Pair]) -> PairPool:
        """All as likely as each other."""
        return cls(dict.fromkeys(pairs, 1 / len(pairs)))

    def draw(self, count: int, near: Sequence[Pair], from_near: int, stream: random.Random) -> list[Pair]:
        """So many distinct pairs, `from_near` of them of those near the seed; where there are too few of either, more
        of the other. Without replacement inside each part, by probabilities that are made to sum to 1 there."""
        inside = [pair for pair in self.weights if pair in near]
        outside = [pair for pair in self.weights if pair not in near]
        first = self._drawn(inside, min(from_near, count), stream)
        rest = self._drawn(outside, count - len(first), stream)
        left = [pair for pair in inside if pair not in first]
        return [*first, *rest, *self._drawn(left, count - len(first) - len(rest), stream)]

    def evolved(self, rewards: Iterable[Mapping[Pair, float]], rate: float, floor: float = 0.0) -> PairPool:
        """Eq. 8, seed by seed: `rate` times what a pair was worth is added to it, then all are divided by their sum.

        All pairs of one seed are added before the division, so that their order does not matter. No pair falls below
        `floor`; 0, as published, lets one vanish.
        """
        weights = dict(self.weights)
        for worth in rewards:
            if not any(worth.values()):
                continue
            raised = {pair: weight + rate * worth.get(pair, 0.0) for pair, weight in weights.items()}
            total = math.fsum(raised.values())
            weights = _held_up({pair: weight / total for pair, weight in raised.items()}, floor)
        return PairPool(weights)

    def rows(self, round: int) -> list[dict[str, object]]:
        """How likely each pair is from a round on, for the report."""
        return [{"round": round, "pair": pair.name, "probability": weight} for pair, weight in self.weights.items()]

    def _drawn(self, pairs: Sequence[Pair], count: int, stream: random.Random) -> list[Pair]:
        left, drawn = list(pairs), list[Pair]()
        while left and len(drawn) < count:
            weights = [self.weights[pair] for pair in left]
            number = stream.choices(range(len(left)), weights if any(weights) else None)[0]
            drawn.append(left.pop(number))
        return drawn


def _held_up(weights: dict[Pair, float], floor: float) -> dict[Pair, float]:
    """The same with nothing below the floor; what that takes is taken from the others, in proportion."""
    low: set[Pair] = set()
    while more := {pair for pair, weight in weights.items() if pair not in low and weight < floor}:
        low |= more
        share = (1 - floor * len(low)) / math.fsum(w for pair, w in weights.items() if pair not in low)
        weights = {pair: floor if pair in low else weight * share for pair, weight in weights.items()}
    return weights


@dataclass
class MemoryBank:
    """Instructions whose winner was generated, as vectors, and the pairs that wrote for them. The oldest go first."""

    most: int = MOST_ENTRIES
    _pairs: list[Pair] = field(default_factory=list)
    _vectors: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """[entries or more, numbers of a vector], each of length 1."""
    _added: int = 0

    def near(self, vector: Sequence[float] | None, count: int) -> list[Pair]:
        """The distinct pairs of the `count` entries that are most like a vector; none for a vector of zeros."""
        point = _unit(vector)
        if point is None or not self._pairs:
            return []
        likeness = np.round(self._vectors[: len(self._pairs)] @ point, _DIGITS)
        nearest = np.argsort(-likeness, kind="stable")[:count]
        return sorted({self._pairs[place] for place in nearest})

    def add(self, vector: Sequence[float] | None, pair: Pair | None) -> None:
        """Remember who did well; nobody, and a vector of zeros, which is like nothing, are left out."""
        point = _unit(vector)
        if point is None or pair is None:
            return
        place = self._added % self.most
        if place >= len(self._vectors):
            room = np.zeros((min(self.most, max(1024, 2 * place)), len(point)), np.float32)
            room[: len(self._vectors)] = self._vectors[:, : len(point)] if len(self._vectors) else 0
            self._vectors = room
        self._vectors[place] = point
        self._pairs[place : place + 1] = [pair]
        self._added += 1


def _unit(vector: Sequence[float] | None) -> npt.NDArray[np.float32] | None:
    """The vector with length 1; None for none, and for one without direction."""
    if vector is None:
        return None
    point = np.asarray(vector, np.float64)
    length = float(np.linalg.norm(point))
    return (point / length).astype(np.float32) if length > 0 and math.isfinite(length) else None
