"""A model that answers by rule, at once and always the same: for tests, documentation and dry runs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from tunesift.models.base import Completion, Sampling, Span, TargetLoss
from tunesift.records import Failure, Message
from tunesift.settings import INCIDENTAL, Settings


@dataclass(frozen=True, kw_only=True)
class ScriptedModel(Settings):
    """Knows no language: answers by looking for words, predicts by arithmetic on the text."""

    kind: Literal["scripted"] = "scripted"
    replies: Mapping[str, str] = field(default_factory=dict)
    """What to say when the last message contains the key; the first key that fits."""
    otherwise: str = "I have nothing to add."
    """What to say when no key fits."""
    chances: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Probabilities of targets after a context that contains the key; the first key that fits."""
    favours: int = 50
    """Words of the answer that is rewarded most."""
    concurrency: Annotated[int, INCIDENTAL] = 1
    """Calls at once."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        """The reply whose key the last message contains."""
        return [self._reply(conversation[-1].text, sampling.max_tokens) for conversation in conversations]

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        """One number per word between 0 and 4 nats; a word that the context contains costs a quarter."""
        return [self._loss(span) for span in spans]

    def single_tokens(self, targets: Sequence[str]) -> list[int | None]:
        """A number for every text that is one word."""
        return [_number(words[0]) if len(words := t.split()) == 1 else None for t in targets]

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Eight numbers between 0 and 1 from each text's digest."""
        return [tuple(b / 255 for b in hashlib.sha256(t.encode()).digest()[:8]) for t in texts]

    def reward(self, conversations: Sequence[Sequence[Message]]) -> list[float | Failure]:
        """0 for an answer of as many words as are favoured, and 1 less for each word that it is off; none is empty."""
        words = [len(conversation[-1].text.split()) for conversation in conversations]
        return [-float(abs(n - self.favours)) if n else Failure("empty", "the answer is empty") for n in words]

    def _reply(self, text: str, most: int) -> Completion:
        words = next((r for key, r in self.replies.items() if key in text), self.otherwise).split(" ")
        return Completion(" ".join(words[:most]), "stop" if len(words) <= most else "length", min(len(words), most))

    def _loss(self, span: Span) -> TargetLoss:
        context = span.context if isinstance(span.context, str) else " ".join(m.text for m in span.context)
        chances = next((c for key, c in self.chances.items() if key in context), {})
        if span.target in chances:
            chance = chances[span.target]
            return TargetLoss((-math.log(chance) if chance > 0 else math.inf,), False)
        known = set(context.lower().split())
        words = span.target.lower().split()
        nats = [hashlib.sha256(w.encode()).digest()[0] / 64 * (0.25 if w in known else 1.0) for w in words]
        most = len(nats) if span.limit is None else max(0, span.limit - len(context.split()))
        return TargetLoss(tuple(nats[:most]), len(nats) > most)


def _number(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
