"""A scripted model that understands instructions better, or worse, than the scripted model does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesift import Failure, ScriptedModel, Span, TargetLoss


@dataclass(frozen=True, kw_only=True)
class Larger(ScriptedModel):
    """Reads the same tokens; each costs so much of what it costs the scripted model, where something stands before."""

    share: float = 0.5

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        return [self._of(span, found) for span, found in zip(spans, super().loss(spans), strict=True)]

    def _of(self, span: Span, found: TargetLoss | Failure) -> TargetLoss | Failure:
        if isinstance(found, Failure) or not span.context:
            return found
        return TargetLoss(tuple(self.share * n for n in found.nats), found.truncated)
