"""What can a model do, and what does it take and give? Four abilities and the small types they exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from tunesift.records import Failure, Message
from tunesift.settings import Settings


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model said."""

    text: str
    stop: Literal["stop", "length"]
    """stop: the model ended its answer; length: it was cut at `max_tokens`."""
    tokens: int
    """Tokens of the text; where an endpoint counts several draws together, an equal share."""


@dataclass(frozen=True, kw_only=True)
class Sampling(Settings):
    """How a model picks its words."""

    temperature: float = 0.0
    """0 for the likeliest token each time."""
    top_p: float = 1.0
    """Share of the probability that the likeliest tokens must hold among which one is drawn, above 0 to 1."""
    max_tokens: int = 1024
    """Most tokens of one completion."""
    stop: tuple[str, ...] = ()
    """Texts that end a completion; they are not part of it."""
    seed: int = 0
    """Where sampling starts, together with the conversation; without effect at temperature 0."""
    schema: Mapping[str, Any] | None = None  # Any: JSON schema
    """JSON schema that a completion must fit; None for free text. Only endpoints can be held to one."""


@dataclass(frozen=True, slots=True)
class Span:
    """Text to be predicted (target) after text that is given (context)."""

    context: str | tuple[Message, ...]
    """A text, or a conversation which the model renders with its own chat template."""
    target: str
    seam: Literal["separate", "joint"] = "separate"
    """separate: both sides are tokenised apart, so that the target's tokens never depend on the context; joint: as one
    text, the target beginning after as many tokens as the context alone has, as the published scripts do; a text that
    names a special token is always tokenised apart."""
    bos: Literal["always", "tokenizer"] = "always"
    """always: a text starts with BOS (EOS where there is none); tokenizer: with what the tokenizer itself adds."""
    limit: int | None = None
    """Most tokens of context and target together, cut on the right; the model's own limit holds besides."""
    spare: tuple[int, int] | None = None
    """Characters of a context's text, or of its last message's, from one up to the other: what is left out of, in the
    middle, where the whole is too long. Only for sides that are tokenised apart; further cuts are on the right."""


@dataclass(frozen=True, slots=True)
class TargetLoss:
    """Negative log-likelihood of a target under a model, token by token."""

    nats: tuple[float, ...]
    """One number per target token, natural logarithm, in reading order. A first token with nothing before it has no
    prediction and no number; the tuple is empty when the context alone fills the limit."""
    truncated: bool
    """True when the limit was too short for the whole span."""

    @property
    def total(self) -> float:
        """Sum over the tokens, in nats."""
        return sum(self.nats)

    @property
    def mean(self) -> float:
        """Nats per target token; not a number for none."""
        return self.total / len(self.nats) if self.nats else float("nan")


class Chat(Protocol):
    """Answers conversations, one completion for each, in order, or a Failure for what is not answered."""

    def chat(
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling
    ) -> Sequence[Completion | Failure]: ...


class Likelihood(Protocol):
    """Predicts targets; one loss per span, in order, or a Failure for what fits no device or no chat template."""

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]: ...

    def single_tokens(self, targets: Sequence[str]) -> list[int | None]:
        """The one token that each text is as a target; None for a text of several, or of one that reads otherwise."""
        ...


class Embed(Protocol):
    """Places texts in a space; one vector per text, in order, or a Failure for what is not answered."""

    def embed(self, texts: Sequence[str]) -> Sequence[tuple[float, ...] | Failure]: ...


class Reward(Protocol):
    """Says how good the last answer of a conversation is; one number for each, in order, or a Failure. Only numbers of
    one model can be compared, and strictly only those of one prompt."""

    def reward(self, conversations: Sequence[Sequence[Message]]) -> Sequence[float | Failure]: ...
