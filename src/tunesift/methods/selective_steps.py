"""Selective Reflection-Tuning's measuring: how likely is an instruction, what are a pair's numbers, who wins?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from tunesift.models import LikelihoodModel
from tunesift.models.base import Span, TargetLoss
from tunesift.prompts import Template, context, fill
from tunesift.records import Failure, Message, Record, Score
from tunesift.scoring.ifd import perplexity_ratio
from tunesift.settings import Settings

_PLACE = "{response}"
FRAGILE = 1e-3
"""Margin below which another batch, number type or machine might decide otherwise (card, Defaults)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How well a student predicts an instruction."""

    nats: float
    """Mean loss over the tokens that it could see."""
    tokens: int
    """How many these are; fewer than the instruction has where even its context's middle left too little room."""


@dataclass(frozen=True, kw_only=True)
class InstructionLoss(Settings):
    """Mean loss of a record's instruction in nats, after a question that shows its response, or alone."""

    student: LikelihoodModel
    template: Template
    question: str
    """Asks for the instruction of `{response}`; empty for the instruction alone."""

    returns: ClassVar[type[Seen]] = Seen

    def __call__(self, chunk: Sequence[Record], /) -> list[Seen | Failure]:
        """One loss per record; a Failure where none of the instruction's tokens can be seen."""
        return [_mean(lost) for lost in self.student.loss([self._span(record) for record in chunk])]

    def _span(self, record: Record) -> Span:
        instruction = record.prompt[-1].text
        if not self.question:
            return Span("", instruction)
        asked = fill(self.question, response=record.response)
        whole = context((Message("user", asked),), self.template)
        text = whole if isinstance(whole, str) else asked
        first = text.index(asked) + self.question.index(_PLACE)
        return Span(whole, instruction, spare=(first, first + len(record.response)))


def _mean(lost: TargetLoss | Failure) -> Seen | Failure:
    if isinstance(lost, Failure):
        return lost
    if not lost.nats:
        return Failure("too-long", "no token of the instruction can be seen")
    if not math.isfinite(lost.mean):
        return Failure("not-finite", f"a loss of {lost.mean} over {len(lost.nats)} tokens")
    return Seen(lost.mean, len(lost.nats))


@dataclass(frozen=True, slots=True)
class Trial:
    """The numbers of an old pair and a new one, None where they are not known; which wins is a function of these."""

    old: float | None
    new: float | None

    def won(self, larger: bool) -> bool:
        """Whether the new one is strictly better; a number that is not known never wins, nor is it beaten."""
        if self.old is None or self.new is None:
            return False
        return self.new > self.old if larger else self.new < self.old

    @property
    def margin(self) -> float | None:
        """How far apart they are."""
        return None if self.old is None or self.new is None else abs(self.new - self.old)


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the student measured of one record and of what the teacher made of it."""

    id: str
    branch: str
    """O, Q, A or QA: whose instruction, and whose response, the student prefers."""
    winner: str
    """Id of the pair whose instruction the student prefers."""
    ifd: Trial
    """IFD of the old pair and of the one with the new instruction (eq. 6)."""
    guess: Trial
    """Loss of the instruction given the old response and the new one, over the same tokens (eq. 9)."""
    final_ifd: float | None = None
    """IFD of the pair that was chosen."""
    alone: float | None = None
    """Loss of the chosen instruction alone, over the same tokens."""

    def reversed_ifd(self, guess: float | None) -> float | None:
        """Ratio of perplexities from a loss given a response."""
        if guess is None or self.alone is None:
            return None
        return perplexity_ratio(guess, self.alone)


@dataclass(frozen=True, kw_only=True)
class WriteDown(Settings):
    """Writes down, for every record, the numbers that decided; the score is the chosen pair's IFD."""

    kind: Literal["ifd-chosen"] = "ifd-chosen"

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Weighed], /) -> list[Score | Failure]:
        """Arithmetic only."""
        return [Score(w.final_ifd, _parts(w), f"branch {w.branch}") for w in chunk]


def _parts(weighed: Weighed) -> Mapping[str, float]:
    named = {
        "ifd_old": weighed.ifd.old, "ifd_new_instruction": weighed.ifd.new, "guess_old": weighed.guess.old,
        "guess_new": weighed.guess.new, "instruction_alone": weighed.alone,
        "rifd_old": weighed.reversed_ifd(weighed.guess.old), "rifd_new": weighed.reversed_ifd(weighed.guess.new),
    }  # fmt: skip
    return {name: value for name, value in named.items() if value is not None}


def value_of(scores: Mapping[str, Score], id: str) -> float | None:
    """A score's number; None where it was not measured, failed, or is none."""
    found = scores.get(id)
    return None if found is None or found.value is None or not math.isfinite(found.value) else found.value


def guess_of(seen: Mapping[str, Seen], id: str) -> Trial:
    """Losses of one instruction given the old response and the new one; unknown where different tokens were seen."""
    old, new = seen.get(id), seen.get(f"{id}~response")
    if old is None or new is None or old.tokens != new.tokens:
        return Trial(None, None)
    return Trial(old.nats, new.nats)


def alone_of(seen: Mapping[str, Seen], alone: Mapping[str, Seen], id: str) -> float | None:
    """Loss of an instruction alone; None where other tokens were seen than after the response."""
    given, found = seen.get(id), alone.get(id)
    return found.nats if given is not None and found is not None and given.tokens == found.tokens else None


def told(weighed: Weighed, first: str) -> str:
    """The numbers that decided, in a sentence."""
    instruction = f"instruction {first}"
    if weighed.ifd.margin is not None:
        instruction = f"IFD {weighed.ifd.old:.4f}, with the new instruction {weighed.ifd.new:.4f}"
    chosen = f", chosen {weighed.final_ifd:.4f}" if weighed.final_ifd is not None else ""
    old, new = (weighed.reversed_ifd(n) for n in (weighed.guess.old, weighed.guess.new))
    reverse = f"r-IFD {old:.4f} to {new:.4f}" if old is not None and new is not None else (
        f"loss of the instruction {weighed.guess.old:.4f} to {weighed.guess.new:.4f}")  # fmt: skip
    which = "instruction and response" if weighed.branch == "QA" else "response"
    return f"rewritten ({which}): {instruction}{chosen}; {reverse}"


def trials(weighed: Iterable[Weighed]) -> list[dict[str, object]]:
    """How often the new one won, and how often so narrowly that another machine might decide otherwise."""
    rows: list[dict[str, object]] = []
    for name, larger, held in (
        ("instruction, by IFD", True, [w.ifd for w in weighed]),
        ("response, by r-IFD", False, [w.guess for w in weighed]),
    ):
        margins = [t.margin for t in held if t.margin is not None]
        rows.append({"trial": name, "compared": len(margins), "new_won": sum(t.won(larger) for t in held),
                     "fragile": sum(m < FRAGILE for m in margins)})  # fmt: skip
    return rows
