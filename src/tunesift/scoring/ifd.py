"""How much does an instruction help to predict its response? IFD, its reverse, and the readings of the formula.

Papers   Cherry LLM, Li et al., arXiv:2308.12032, eq. 3-5; Superfiltering, Li et al., arXiv:2402.00530, eq. 2
Reverse  r-IFD of the same group's Selective Reflection-Tuning: instruction and response change places
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from tunesift.models import LikelihoodModel
from tunesift.models.base import Likelihood, Span, TargetLoss
from tunesift.models.transformers import TransformersModel
from tunesift.prompts import ALPACA_ANCHOR, REVERSED, Template, context, fill, input_of
from tunesift.records import Failure, Message, Record, Score
from tunesift.scoring.base import Scorer
from tunesift.scoring.perplexity import perplexity_of

Profile = Literal["canonical", "cherry", "superfilter"]
Ratio = Literal["perplexity", "loss"]

ONE = 1e-6
"""A ratio this close to 1 is 1: the instruction neither helps nor hurts."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one published way of measuring IFD chose."""

    template: Template
    ratio: Ratio
    limit: int | None
    """Most tokens of one text; None for the model's own."""
    anchor: str
    """Text before the response when it stands alone."""
    seam: Literal["separate", "joint"]
    bos: Literal["always", "tokenizer"]


READINGS: dict[Profile, _Reading] = {
    "canonical": _Reading("chat", "perplexity", None, "", "separate", "always"),
    "cherry": _Reading("alpaca", "loss", 512, ALPACA_ANCHOR, "joint", "tokenizer"),
    "superfilter": _Reading("bare", "perplexity", 1024, "", "joint", "tokenizer"),
}


@dataclass(frozen=True, slots=True)
class Ratios:
    """What two losses of one response say; sums and counts stand beside the ratios, so that either can be remade."""

    conditioned: float
    """Sum over the response's tokens given the instruction, in nats."""
    direct: float
    """Sum over the response's tokens alone, in nats."""
    tokens: int
    """Tokens scored given the instruction."""
    direct_tokens: int
    """Tokens scored alone; one fewer where the first has no prediction."""

    @property
    def loss(self) -> float:
        """Ratio of mean losses (Cherry, eq. 5)."""
        direct = self.direct / self.direct_tokens
        if direct == 0:
            return 1.0 if self.conditioned == 0 else math.inf
        return _snapped((self.conditioned / self.tokens) / direct)

    @property
    def perplexity(self) -> float:
        """Ratio of perplexities (Superfiltering, eq. 2)."""
        return perplexity_ratio(self.conditioned / self.tokens, self.direct / self.direct_tokens)


def perplexity_ratio(conditioned: float, direct: float) -> float:
    """Ratio of the perplexities that two mean losses stand for, in nats."""
    return _snapped(perplexity_of(conditioned - direct))


def _snapped(ratio: float) -> float:
    return 1.0 if abs(ratio - 1) <= ONE else ratio


def ratios(conditioned: TargetLoss, direct: TargetLoss) -> Ratios | None:
    """Sums over the same number of tokens on both sides; None where a side has none.

    Of a response that was cut, the part that was seen after the instruction is what counts on both sides.
    """
    alone = direct.nats[: len(conditioned.nats)]
    if not conditioned.nats or not alone:
        return None
    return Ratios(sum(conditioned.nats), sum(alone), len(conditioned.nats), len(alone))


@dataclass(frozen=True, kw_only=True)
class IFD(Scorer):
    """Loss of the response given its instruction, over its loss alone; the closer to 1, the less it helps."""

    kind: Literal["ifd"] = "ifd"
    student: LikelihoodModel = TransformersModel()
    """The model whose losses are compared."""
    profile: Profile = "canonical"
    """canonical: chat template, response tokenised by itself, BOS before it (our choice); cherry and superfilter: as
    the authors' scripts do, with the Alpaca and the bare template."""
    ratio: Ratio | None = None
    """Ratio of perplexities or of mean losses; they order records differently. None for the profile's own."""
    template: Template | None = None
    """What stands around an instruction; None for the profile's own."""
    turns: Literal["last", "each"] = "last"
    """Score the last response of a conversation, or all of them together, weighted by their tokens."""

    label: ClassVar[str] = "IFD"

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        """One score per record; value None, with the reason in the note, where there is nothing to compare."""
        pairs = [self._pairs(record) for record in chunk]
        return _scores(self.student, pairs, self.ratio or READINGS[self.profile].ratio)

    def _pairs(self, record: Record) -> list[tuple[Span, Span]]:
        said = [n for n, m in enumerate(record.messages) if m.role == "assistant"]
        return [
            self._pair(record, n)
            for n in (said if self.turns == "each" else said[-1:])
            if record.messages[n].text.strip()
        ]

    def _pair(self, record: Record, turn: int) -> tuple[Span, Span]:
        reading = READINGS[self.profile]
        before = context(record.messages[:turn], self.template or reading.template, input_of(record))
        response = record.messages[turn].text
        return (
            Span(before, response, reading.seam, reading.bos, reading.limit),
            Span(reading.anchor, response, reading.seam, reading.bos, reading.limit),
        )


@dataclass(frozen=True, kw_only=True)
class ReversedIFD(Scorer):
    """How much the response helps to predict its instruction: r-IFD; the smaller, the more clearly it points back."""

    kind: Literal["reversed-ifd"] = "reversed-ifd"
    student: LikelihoodModel = TransformersModel()
    """The model whose losses are compared."""
    ratio: Ratio = "perplexity"
    """Ratio of perplexities, as the authors have it, or of mean losses."""
    template: Template = "chat"
    """What stands around the question for the instruction."""

    label: ClassVar[str] = "r-IFD"

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        """One score per record; value None, with the reason in the note, where there is nothing to compare."""
        return _scores(self.student, [self._pairs(record) for record in chunk], self.ratio)

    def _pairs(self, record: Record) -> list[tuple[Span, Span]]:
        instruction = record.prompt[-1].text if record.prompt else ""
        if not record.response.strip() or not instruction.strip():
            return []
        question = Message("user", fill(REVERSED, response=record.response))
        return [(Span(context((question,), self.template), instruction), Span("", instruction))]


def _scores(student: Likelihood, records: Sequence[Sequence[tuple[Span, Span]]], ratio: Ratio) -> list[Score | Failure]:
    """Score many records with one call of the model; each record is its pairs of spans."""
    spans = [span for pairs in records for pair in pairs for span in pair]
    found = iter(student.loss(spans))
    return [_score([(next(found), next(found)) for _ in pairs], ratio) for pairs in records]


def _score(pairs: Sequence[tuple[TargetLoss | Failure, TargetLoss | Failure]], ratio: Ratio) -> Score | Failure:
    if not pairs:
        return Score(None, note="empty_response")
    measured = []
    truncated = False
    for conditioned, direct in pairs:
        if isinstance(conditioned, Failure):
            return conditioned
        if isinstance(direct, Failure):
            return direct
        if not conditioned.nats and conditioned.truncated:
            return Score(None, note="prompt_too_long")
        found = ratios(conditioned, direct)
        if found is None:
            return Score(None, note="no_scored_tokens")
        measured.append(found)
        truncated = truncated or conditioned.truncated
    return _settled(_joined(measured), ratio, truncated)


def _joined(measured: Sequence[Ratios]) -> Ratios:
    return Ratios(
        sum(m.conditioned for m in measured),
        sum(m.direct for m in measured),
        sum(m.tokens for m in measured),
        sum(m.direct_tokens for m in measured),
    )


def _settled(found: Ratios, ratio: Ratio, truncated: bool) -> Score | Failure:
    value = found.perplexity if ratio == "perplexity" else found.loss
    if not all(map(math.isfinite, (found.conditioned, found.direct, value))):
        return Failure("not-finite", f"losses {found.conditioned} and {found.direct} over {found.tokens} tokens")
    parts = {
        "ifd_ppl": found.perplexity, "ifd_loss": found.loss, "conditioned": found.conditioned / found.tokens,
        "direct": found.direct / found.direct_tokens, "conditioned_sum": found.conditioned, "direct_sum": found.direct,
        "tokens": found.tokens, "direct_tokens": found.direct_tokens, "truncated": float(truncated),
    }  # fmt: skip
    return Score(value, parts, "truncated" if truncated else "")
