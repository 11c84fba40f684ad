"""How much does a pair count, and how much time does answering a share of the prompts save? OPTune's arithmetic."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tunesift.errors import RecipeError

Weighting = Literal["sigmoid", "linear", "exp", "none"]
"""What a gap is turned into: 1 / (1 + exp(-beta2 gap)); beta2 times the gap; exp(beta2 gap); 1."""
MOST_LINEAR, MOST_EXP = 10.0, 5.0
"""Gap beyond which a linear, and an exponential weight grows no more."""
MOST = 3.4e38
"""Largest sum of weights: a loss is a number of 32 bits."""
UNEVEN = 10.0
"""Times the mean weight that the largest may be before it is told: then few pairs decide."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and standard deviation of the rewards of all answers of round 0, by which gaps are measured ever after."""

    mean: float
    sd: float
    count: int

    def of_gap(self, gap: float) -> float:
        """A gap in standard deviations; as it is where there is none."""
        return gap / self.sd if self.sd > 0 else gap


def spread(rewards: Iterable[float]) -> Spread:
    """Of those that are numbers."""
    known = [r for r in rewards if math.isfinite(r)]
    if not known:
        return Spread(0.0, 0.0, 0)
    mean = math.fsum(known) / len(known)
    return Spread(mean, math.sqrt(math.fsum((r - mean) ** 2 for r in known) / len(known)), len(known))


def weight_of(gap: float, kind: Weighting, beta2: float) -> float:
    """What the loss of a pair is multiplied by. The reviews of the paper say that a scale on the difference of the
    rewards is multiplied with the loss; the function is ours."""
    if kind == "none":
        return 1.0
    if kind == "sigmoid":
        return 1.0 / (1.0 + math.exp(-beta2 * gap))
    if kind == "linear":
        return beta2 * min(max(gap, 0.0), MOST_LINEAR)
    try:
        return math.exp(beta2 * min(max(gap, 0.0), MOST_EXP))
    except OverflowError:
        return math.inf


def weights(gaps: Sequence[float], kind: Weighting, beta2: float, normalise: bool) -> list[float]:
    """The weights of a round's pairs; normalised, their mean is 1, so that the learning rate keeps its meaning.

    Raises `RecipeError` where one is infinite, or all are 0.
    """
    found = [weight_of(gap, kind, beta2) for gap in gaps]
    if not any(found) or not sum(found) <= MOST:
        raise RecipeError(f"beta2: {beta2:g} makes weights up to {max(found, default=0):g}; write 1.")
    mean = math.fsum(found) / len(found) if normalise else 1.0
    return [w / mean for w in found]


def speed_up(generating: float, training: float, ratio: float, rounds: int | None = None) -> float:
    """How many times faster than answering all prompts each time: one round that answers a share of them, or so many
    rounds whose first one answers all. `generating` are the seconds of answering and scoring all prompts once."""
    whole, part = generating + training, ratio * generating + training
    return whole / part if rounds is None else rounds * whole / (whole + (rounds - 1) * part)


def ratio_for(generating: float, training: float, faster: float) -> float:
    """The share of the prompts to answer for a round that is so many times faster; below 0 where none is so fast."""
    return ((generating + training) / faster - training) / generating
