"""How surprising is a response to a model? The baseline beside which IFD was introduced (arXiv:2402.00530)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from tunesift.models import LikelihoodModel
from tunesift.models.base import Span, TargetLoss
from tunesift.models.transformers import TransformersModel
from tunesift.prompts import Template, context, input_of
from tunesift.records import Failure, Record, Score
from tunesift.scoring.base import Scorer

MOST_NATS = 700.0
"""Mean loss whose exponential is still a number."""


@dataclass(frozen=True, kw_only=True)
class Perplexity(Scorer):
    """Perplexity of the last response, given its conversation or alone; one forward pass."""

    kind: Literal["perplexity"] = "perplexity"
    student: LikelihoodModel = TransformersModel()
    """The model that is surprised or not."""
    given: Literal["instruction", "nothing"] = "instruction"
    """What the model has read before the response."""
    template: Template = "chat"
    """What stands around an instruction."""

    label: ClassVar[str] = "perplexity"
    forwards: ClassVar[int] = 1

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        """One score per record; value None, with the reason in the note, for an empty response."""
        asked = {n: self._span(record) for n, record in enumerate(chunk) if record.response.strip()}
        losses = dict(zip(asked, self.student.loss(list(asked.values())), strict=True))
        return [_score(losses[n]) if n in losses else Score(None, note="empty_response") for n in range(len(chunk))]

    def _span(self, record: Record) -> Span:
        if self.given == "nothing":
            return Span("", record.response)
        return Span(context(record.prompt, self.template, input_of(record)), record.response)


def perplexity_of(loss: float) -> float:
    """e to a mean loss in nats, or to the difference of two; a number whatever the loss."""
    return math.exp(min(MOST_NATS, loss))


def _score(loss: TargetLoss | Failure) -> Score | Failure:
    if isinstance(loss, Failure):
        return loss
    if not loss.nats:
        return Score(None, note="prompt_too_long" if loss.truncated else "no_scored_tokens")
    if not math.isfinite(loss.mean):
        return Failure("not-finite", f"loss {loss.total} over {len(loss.nats)} tokens")
    parts = {"loss": loss.mean, "tokens": float(len(loss.nats)), "truncated": float(loss.truncated)}
    return Score(perplexity_of(loss.mean), parts, "truncated" if loss.truncated else "")
