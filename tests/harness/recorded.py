"""A model that writes down whatever it is asked, and answers by rule or as another model does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from harness.debater import debated
from harness.generator import generated
from harness.teacher import taught
from tunesift import Completion, Failure, Message, Sampling, ScriptedModel, Span, TargetLoss

USUAL = asdict(Sampling())


def compared(text: str, seed: int) -> str:
    """Prefers the better answer where two are compared; else is sure of the first sea, and unsure of the rest."""
    if "Verdict: one word" in text:
        others = [place for other in ("The Baltic", "It is 4") if (place := text.find(other)) >= 0]
        return f"Verdict: {'second' if text.rfind('A better') > max(others, default=0) else 'first'}"
    if "answer>\nThe Baltic" in text or "A better" in text:
        return "Answer: A"
    return "Answer: C" if "answer>" in text else "Answer: the Baltic sea"


RULES: dict[str, Callable[[str, int], str]] = {
    "taught": lambda text, seed: taught(text), "generated": generated, "debated": lambda text, seed: debated(text),
    "compared": compared, "rated": lambda text, seed: "80 10\nSo it is.",
}  # fmt: skip
"""What is said to a text, with a seed."""


@dataclass(frozen=True, kw_only=True)
class Recorded(ScriptedModel):
    """Answers by a rule, or as `of` does; else as a scripted model does."""

    who: str = "model"
    says: str = ""
    """Name of the rule by which it answers."""
    of: Any = None  # Any: a model of another kind that is asked in its place

    heard: ClassVar[list[dict[str, Any]]] = []  # Any: JSON
    """All that any of them was asked, in order."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        """Note roles, texts and what differs from the usual sampling."""
        unusual = {name: value for name, value in asdict(sampling).items() if value != USUAL[name]}
        for conversation in conversations:
            said = [{"role": m.role, "text": m.text} for m in conversation]
            self.heard.append({"who": self.who, "chat": said, "sampling": unusual})
        if self.of is not None:
            return list(self.of.chat(conversations, sampling))
        if not self.says:
            return super().chat(conversations, sampling)
        rule = RULES[self.says]
        texts = [rule(conversation[-1].text, sampling.seed) for conversation in conversations]
        return [Completion(text, "stop", len(text.split())) for text in texts]

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        """Note the spans."""
        self.heard.extend({"who": self.who, "span": _plain(span)} for span in spans)
        return super().loss(spans) if self.of is None else list(self.of.loss(spans))

    def single_tokens(self, targets: Sequence[str]) -> list[int | None]:
        """Note the texts."""
        self.heard.append({"who": self.who, "single": list(targets)})
        return super().single_tokens(targets)

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """Note the texts."""
        self.heard.extend({"who": self.who, "embed": text} for text in texts)
        return super().embed(texts)


def _plain(span: Span) -> dict[str, Any]:  # Any: JSON
    context = (
        span.context if isinstance(span.context, str) else [{"role": m.role, "text": m.text} for m in span.context]
    )
    return {"context": context, "target": span.target, "seam": span.seam, "bos": span.bos, "limit": span.limit,
            "spare": None if span.spare is None else list(span.spare)}  # fmt: skip
