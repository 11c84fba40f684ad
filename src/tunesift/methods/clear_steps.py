"""The steps of the page `clear`: reflect on a response, sample answers, compare them, weigh what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar, Literal

from tunesift.methods.clear_evidence import (
    AnySimilarity,
    bounds,
    certainty_of,
    confidence,
    consistency,
    final_answer,
    same,
)
from tunesift.models import ChatModel
from tunesift.models.base import Completion, Sampling
from tunesift.prompts import fenced, fill, task_of
from tunesift.records import Failure, Message, Record, Score
from tunesift.settings import Settings

AGAIN = 1_000_003
"""Added to the seed of a sample that was empty."""


@dataclass(frozen=True, slots=True)
class Reflection:
    """What the model says of a response."""

    certainty: float | None
    """correct 1, incorrect 0, not sure 0.5; None where that cannot be read."""
    said: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt, and which of its samples is wanted."""

    id: str
    prompt: tuple[Message, ...]
    draw: int


@dataclass(frozen=True, slots=True)
class Sampled:
    """One answer of the model's own."""

    answer: str
    """Its final part; empty where there is none."""
    said: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A response and one sample."""

    id: str
    response: str
    sample: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """How alike a response and a sample are."""

    similarity: float
    same: bool


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a record; replaced, never changed."""

    id: str
    certainties: tuple[float, ...] = ()
    unread: int = 0
    """Reflections that count 0.5 because they cannot be read."""
    agreements: tuple[tuple[float, bool], ...] = ()
    tried: int = 0
    """Samples asked for, also those that failed or were empty."""

    def reflected(self, reflection: Reflection) -> Evidence:
        """With one more reflection."""
        unread = reflection.certainty is None
        more = (*self.certainties, 0.5 if reflection.certainty is None else reflection.certainty)
        return Evidence(self.id, more, self.unread + unread, self.agreements, self.tried)

    def compared(self, found: Sequence[Agreement], tried: int) -> Evidence:
        """With the samples of one more round."""
        more = (*self.agreements, *((a.similarity, a.same) for a in found))
        return Evidence(self.id, self.certainties, self.unread, more, self.tried + tried)

    @property
    def certainty(self) -> float | None:
        """S."""
        return fmean(self.certainties) if self.certainties else None

    def bounds(self, samples: int, w_similarity: float, w_consistency: float) -> tuple[float, float]:
        """Where the confidence can end up."""
        drawn = consistency(self.agreements, w_similarity)
        return bounds(drawn, samples - self.tried, self.certainty, w_consistency)


@dataclass(frozen=True, kw_only=True)
class Reflect(Settings):
    """Ask whether a response is correct; each question is a conversation of its own."""

    student: ChatModel
    template: str
    max_tokens: int

    returns: ClassVar[type[Reflection]] = Reflection

    def __call__(self, chunk: Sequence[Record], /) -> list[Reflection | Failure]:
        """One reflection per record."""
        said = self.student.chat([self._question(r) for r in chunk], Sampling(max_tokens=self.max_tokens))
        return [s if isinstance(s, Failure) else Reflection(certainty_of(s.text), s.text) for s in said]

    def _question(self, record: Record) -> tuple[Message, ...]:
        values = {"task": fenced("task", task_of(record.prompt)), "answer": fenced("answer", record.response)}
        return (Message("user", fill(self.template, **values)),)


@dataclass(frozen=True, kw_only=True)
class Sample(Settings):
    """Have the model answer for itself, after some reasoning."""

    student: ChatModel
    template: str
    temperature: float
    max_tokens: int

    returns: ClassVar[type[Sampled]] = Sampled

    def __call__(self, chunk: Sequence[Ask], /) -> list[Sampled | Failure]:
        """One sample per item; the number of the draw is part of its seed, so that no two draws are one."""
        made = self._draw(chunk, 0)
        empty = [n for n, m in enumerate(made) if isinstance(m, Sampled) and not m.answer]
        again = iter(self._draw([chunk[n] for n in empty], AGAIN))
        return [next(again) if n in empty else m for n, m in enumerate(made)]

    def _draw(self, asks: Sequence[Ask], more: int) -> list[Sampled | Failure]:
        asked = [(Sampling(temperature=self.temperature, max_tokens=self.max_tokens, seed=ask.draw + more),
                  self._question(ask.prompt)) for ask in asks]  # fmt: skip
        return [_sampled(said) for said in drawn(self.student, asked)]

    def _question(self, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
        *before, last = prompt
        return (*before, replace(last, text=fill(self.template, task=last.text)))


def drawn(model: ChatModel, asked: Sequence[tuple[Sampling, tuple[Message, ...]]]) -> Iterator[Completion | Failure]:
    """Answers to conversations that are sampled each in its own way, in order; one call of the model for each way."""
    found: dict[int, Completion | Failure] = {}
    for sampling in dict.fromkeys(sampling for sampling, _ in asked):
        own = [n for n, (way, _) in enumerate(asked) if way == sampling]
        found |= zip(own, model.chat([asked[n][1] for n in own], sampling), strict=True)
    return (found[n] for n in range(len(asked)))


def _sampled(said: Completion | Failure) -> Sampled | Failure:
    return said if isinstance(said, Failure) else Sampled(final_answer(said.text), said.text)


@dataclass(frozen=True, kw_only=True)
class Compare(Settings):
    """How alike responses and samples are."""

    similarity: AnySimilarity

    returns: ClassVar[type[Agreement]] = Agreement

    def __call__(self, chunk: Sequence[Pair], /) -> list[Agreement | Failure]:
        """One agreement per pair."""
        alike = self.similarity.similar([(pair.response, pair.sample) for pair in chunk])
        return [
            s if isinstance(s, Failure) else Agreement(s, same(pair.response, pair.sample))
            for pair, s in zip(chunk, alike, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class Weigh(Settings):
    """The confidence of a record, from all that is known of it; its parts tell O and S."""

    kind: Literal["clear"] = "clear"
    samples: int
    w_similarity: float
    w_consistency: float
    gamma: float | None

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Evidence], /) -> list[Score | Failure]:
        """Arithmetic only."""
        return [self._score(evidence) for evidence in chunk]

    def _score(self, evidence: Evidence) -> Score:
        drawn = consistency(evidence.agreements, self.w_similarity)
        observed = fmean(drawn) if drawn else None
        value = confidence(observed, evidence.certainty, self.w_consistency)
        if value is None:
            return Score(None, note="unscored")
        note = ""
        if evidence.tried < self.samples and self.gamma is not None:  # the rest could not change the decision
            low, high = bounds(drawn, self.samples - evidence.tried, evidence.certainty, self.w_consistency)
            value, note = (low, "at_least") if low > self.gamma else (high, "at_most")
        known = {"consistency": observed, "certainty": evidence.certainty}
        parts = {name: v for name, v in known.items() if v is not None}
        if evidence.agreements:
            parts |= {"similarity": fmean(s for s, _ in evidence.agreements),
                      "same": fmean(r for _, r in evidence.agreements)}  # fmt: skip
        counts = {"samples": len(drawn), "reflections": len(evidence.certainties), "unread": evidence.unread}
        return Score(value, parts | {name: float(count) for name, count in counts.items()}, note)
