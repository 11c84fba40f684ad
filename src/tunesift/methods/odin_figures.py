"""How far do a reward model's rewards go with the choices of people, and how far with the length of answers?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tunesift.evaluation.stats import kendall, pearson, spearman
from tunesift.records import Failure
from tunesift.running.charts import Chart

BINS = 10
"""Parts of a curve, each of as many answers."""
DIGITS = 4

CURVE = Chart(
    "lines", "tokens", "reward", "of", "length of an answer in tokens, mean of a tenth of the answers",
    "reward, in standard deviations of the model's",
    "The mean reward of ten equally large groups of held-out answers, from the shortest to the longest. A level line "
    "says that longer answers are not rewarded for their length; a straight rise is what a correlation sees, a bend "
    "is what it does not.",
    noun="groups of answers",
)  # fmt: skip
TRAINING = Chart(
    "lines", "step", "value", "of", "updates of the weights", "share of pairs, or correlation",
    "On the pairs that were held out: in how many the quality head prefers the chosen answer, and Pearson's "
    "correlation of each head with the length, mean over the parts of the batch. Which weights are left is told below.",
    names=("accuracy", "quality and length", "length head and length"),
)  # fmt: skip
_LINES = {"eval_accuracy": "accuracy", "eval_quality_corr": "quality and length",
          "eval_length_corr": "length head and length"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer's reward and its length in tokens."""

    reward: float
    length: int


@dataclass(frozen=True, slots=True)
class Rewarded:
    """What a model gives for pairs."""

    pairs: tuple[tuple[Answered, Answered], ...]
    """Chosen and rejected."""
    failed: Mapping[str, Failure]
    """Pairs without rewards, by their ids."""

    @property
    def answers(self) -> list[Answered]:
        """All of them."""
        return [answer for pair in self.pairs for answer in pair]


def figures(name: str, found: Rewarded) -> dict[str, object]:
    """One model's row: accuracy overall and where the longer or the shorter answer was chosen, and how reward and
    length go together. Equal rewards count as wrong."""
    longer = [pair for pair in found.pairs if pair[0].length > pair[1].length]
    shorter = [pair for pair in found.pairs if pair[0].length < pair[1].length]
    rewards = np.array([answer.reward for answer in found.answers])
    lengths = np.array([answer.length for answer in found.answers], np.float64)
    correlations = {
        "Pearson": pearson(rewards, lengths), "Spearman": spearman(rewards, lengths),
        "Kendall": kendall(rewards, lengths),
    }  # fmt: skip
    return {
        "model": name, "pairs": len(found.pairs), "accuracy": _accuracy(found.pairs),
        "longer chosen": len(longer), "accuracy there": _accuracy(longer),
        "shorter chosen": len(shorter), "accuracy in those": _accuracy(shorter),
        **{kind: None if value is None else round(value, DIGITS) for kind, value in correlations.items()},
        "mean reward": round(float(rewards.mean()), DIGITS) if len(rewards) else None,
        "deviation": round(float(rewards.std()), DIGITS) if len(rewards) else None,
        "without a reward": len(found.failed),
    }  # fmt: skip


def _accuracy(pairs: Sequence[tuple[Answered, Answered]]) -> float | None:
    if not pairs:
        return None
    return round(sum(chosen.reward > rejected.reward for chosen, rejected in pairs) / len(pairs), DIGITS)


def curve(name: str, found: Rewarded) -> Iterator[dict[str, object]]:
    """Mean length and mean standardised reward of ten groups; none where all rewards are equal."""
    ordered = sorted(found.answers, key=lambda answer: answer.length)
    rewards = np.array([answer.reward for answer in ordered])
    if not len(rewards) or not np.ptp(rewards):
        return
    standard = (rewards - rewards.mean()) / rewards.std()
    for group in np.array_split(np.arange(len(ordered)), min(BINS, len(ordered))):
        tokens = float(np.mean([ordered[n].length for n in group]))
        yield {"tokens": tokens, "reward": float(standard[group].mean()), "of": name, "answers": len(group)}


def left_out(found: Iterable[tuple[str, tuple[int, int] | None]]) -> list[dict[str, object]]:
    """How many pairs each rule left out, and in what share of them the longer answer was chosen: what is left out for
    its length is not left out at random. Beside them the pairs that stay."""
    groups: dict[str, list[tuple[int, int] | None]] = {}
    for rule, lengths in found:
        groups.setdefault(rule or "none: they stay", []).append(lengths)
    return [
        {"left out for": rule, "pairs": len(every), "longer chosen": _share([both for both in every if both])}
        for rule, every in sorted(groups.items())
    ]


def _share(lengths: Sequence[tuple[int, int]]) -> float | None:
    """Share in which the first is longer, of those that are not equal."""
    unequal = [(chosen, rejected) for chosen, rejected in lengths if chosen != rejected]
    if not unequal:
        return None
    return round(sum(chosen > rejected for chosen, rejected in unequal) / len(unequal), DIGITS)


def training(history: Sequence[Mapping[str, float]]) -> Iterator[dict[str, object]]:
    """What was seen of the held-out pairs, update by update."""
    for look in history:
        yield from ({"step": look["step"], "value": look[key], "of": of} for key, of in _LINES.items() if key in look)
