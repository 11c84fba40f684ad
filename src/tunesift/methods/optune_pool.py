"""Which answers does OPTune hold of every prompt, and which prompts are answered again? Pure functions of rewards."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from tunesift.records import Message, Preference

RankBy = Literal["mean", "max", "min", "gap", "random"]
"""By what prompts are ranked, the lowest first: the mean of the rewards of the two answers held, the larger, the
smaller, the difference, or chance."""
Centre = Literal["none", "baseline"]
"""none: rewards as they are; baseline: less the mean reward of the prompt's answers of round 0."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a policy said."""

    text: str
    reward: float
    """Minus infinity for an answer without one: an empty one, or one of which the reward model says no number."""
    born_round: int
    """The round whose policy said it, from 0."""
    tokens: int
    truncated: bool = False
    """Whether it was cut at the limit on its tokens."""
    unread: bool = False
    """Whether it has no reward because the judge's reply is empty, or holds no rating."""


@dataclass(frozen=True, slots=True)
class Held:
    """What the pool holds of one prompt."""

    id: str
    best: Answer
    worst: Answer
    spoiled: bool
    """Whether an answer that was drawn with them has no reward: then the prompt ranks before all others."""
    baseline: float | None
    """Mean reward of its answers of round 0, or of the first round in which one has a reward; None until then."""
    fruitless: int = 0
    """Times, one after the other, that answering it again did not raise the mean of both rewards; where old answers
    are kept, which a worse one only joins, the better of the two."""

    @property
    def gap(self) -> float:
        """How much better the best answer is than the worst, 0 or more; not a number where there is no reward."""
        return self.best.reward - self.worst.reward if math.isfinite(self.best.reward) else math.nan

    @property
    def mean(self) -> float:
        """Mean reward of both answers."""
        return (self.best.reward + self.worst.reward) / 2

    @property
    def born_round(self) -> int:
        """Round of the older answer."""
        return min(self.best.born_round, self.worst.born_round)

    def is_pair(self, min_gap: float) -> bool:
        """Whether there is something to learn of the two: another text, and a gap above 0 and not below the least."""
        apart = self.best.text.strip() != self.worst.text.strip() != ""
        return apart and self.gap > 0 and self.gap >= min_gap


@dataclass(frozen=True, slots=True)
class Ranking:
    """Which share of the prompts is answered again."""

    ratio: float
    by: RankBy = "mean"
    centre: Centre = "none"
    patience: int | None = None
    max_age: int | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """Who is answered again, and who is passed over for this round."""

    chosen: frozenset[str]
    resting: frozenset[str] = frozenset()


def first_held(id: str, answers: Sequence[Answer]) -> Held:
    """What is held of a prompt's answers of round 0."""
    best, worst, spoiled = _ends(answers)
    return Held(id, best, worst, spoiled, _mean(answers))


def held_again(old: Held, answers: Sequence[Answer], kept: Sequence[Answer] = ()) -> Held:
    """What is held once a prompt is answered again: the best and the worst of the new answers, and of old ones that are
    `kept`."""
    best, worst, _ = _ends([*answers, *kept])
    spoiled = any(not math.isfinite(a.reward) for a in answers)
    baseline = _mean(answers) if old.baseline is None else old.baseline
    new = replace(old, best=best, worst=worst, spoiled=spoiled, baseline=baseline)
    gained = new.best.reward > old.best.reward if kept else new.mean > old.mean
    return replace(new, fruitless=0 if gained else old.fruitless + 1)


def held_anew(
    pool: Mapping[str, Held], answers: Mapping[str, Sequence[Answer]], round: int, oldest: int | None
) -> dict[str, Held]:
    """What is held of the prompts that are answered again, old answers beside new ones up to so many rounds."""
    return {id: held_again(pool[id], answers[id], young(pool[id], round, oldest)) for id in answers}


def young(held: Held, round: int, max_age: int | None) -> list[Answer]:
    """The answers held that have a reward and are at most so many rounds old."""
    of = (held.best, held.worst)
    return [a for a in of if math.isfinite(a.reward) and (max_age is None or round - a.born_round <= max_age)]


def _mean(answers: Sequence[Answer]) -> float | None:
    known = [a.reward for a in answers if math.isfinite(a.reward)]
    return sum(known) / len(known) if known else None


def rested(held: Held) -> Held:
    """What is held of a prompt that was passed over for a round: it may be tried again."""
    return replace(held, fruitless=0)


def pair_of(held: Held, prompt: tuple[Message, ...]) -> Preference:
    """The better of both answers against the worse, with what is known of them."""
    sides = {"chosen": held.best, "rejected": held.worst}
    extra: dict[str, object] = {f"{name}_reward": a.reward for name, a in sides.items()}
    extra |= {f"{name}_round": a.born_round for name, a in sides.items()}
    extra |= {f"{name}_truncated": a.truncated for name, a in sides.items()}
    chosen, rejected = (Message("assistant", a.text) for a in sides.values())
    return Preference(held.id, prompt, chosen, rejected, held.gap, extra)


def _ends(answers: Sequence[Answer]) -> tuple[Answer, Answer, bool]:
    """The best and the worst of those that have a reward, the first of equal ones; and whether any has none."""
    known = [a for a in answers if math.isfinite(a.reward)]
    of = known or answers
    return max(of, key=lambda a: a.reward), min(of, key=lambda a: a.reward), len(known) < len(answers)


def share(ratio: float, count: int) -> int:
    """How many of so many prompts a ratio is: rounded, a half upwards, and one at least where it is above 0."""
    exact = Fraction(repr(ratio)) * count  # 0.145 of 100 is 14.5, which in floating point is less
    return min(count, max(1, math.floor(exact + Fraction(1, 2)))) if ratio > 0 else 0


def again(pool: Iterable[Held], ranking: Ranking, round: int, drawn: Callable[[str], float]) -> Again:
    """The prompts that are answered in a round: the share that ranks lowest, ties by id.

    A pair that would be more than `max_age` rounds old comes first, and counts among the share; where these are more
    than the share, all of them are answered. A prompt that was answered `patience` times in vain is passed over once.
    `drawn` gives a prompt's number where prompts are ranked by chance.
    """
    held = sorted(pool, key=lambda h: (key_of(h, ranking.by, ranking.centre, drawn), h.id))
    old = {h.id for h in held if ranking.max_age is not None and round - h.born_round > ranking.max_age}
    tired = {h.id for h in held if ranking.patience is not None and h.fruitless >= ranking.patience} - old
    most = share(ranking.ratio, len(held))
    others = [h.id for h in held if h.id not in old and h.id not in tired]
    return Again(frozenset(old).union(others[: max(0, most - len(old))]), frozenset(tired))


def key_of(held: Held, by: RankBy, centre: Centre, drawn: Callable[[str], float]) -> float:
    """By what a prompt is ranked, the lowest first."""
    if held.spoiled or not math.isfinite(held.best.reward):
        return -math.inf
    if by == "random":
        return drawn(held.id)
    if by == "gap":
        return held.gap
    rewards = {"mean": held.mean, "max": held.best.reward, "min": held.worst.reward}
    return rewards[by] - (held.baseline or 0.0 if centre == "baseline" else 0.0)
