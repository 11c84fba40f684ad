"""Star-Agents by rule: agents of planted quality, scorers that read a gap off a response, a judge that reads a level.

    python -m harness.stars HOME LIFE SMALL LARGE

is one life of a run over the seeds in HOME: five agents, the judge, and as scorers two folders of weights, or two dots
for those that read. Every call of an agent and of the judge is a line of `calls.log` beside HOME.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from harness.planting import BASE, GAP, OF_BASE, planted, verdict
from harness.planting import QUALITY as ALL
from tunesift import (
    Agent,
    Completion,
    Failure,
    Local,
    Message,
    Run,
    Sampling,
    ScriptedModel,
    Span,
    StarAgents,
    TargetLoss,
    TransformersModel,
    read_dataset,
    write_records,
)
from tunesift.running.result import Result

QUALITY = {name: quality for name, quality in ALL.items() if quality is not None}
"""Of the five agents that are drawn."""
_GIVEN = re.compile(r"<given-instruction>\n(.*?)\n</given-instruction>", re.S)


@dataclass(frozen=True, kw_only=True)
class Planted(ScriptedModel):
    """Writes as well as was planted; what it writes is a function of what it is asked and of the seed."""

    name: str = BASE
    quality: float | None = None
    """Chance of the level 2, else 0; None for the level 1, which the base has."""
    gap: float = OF_BASE

    asked: ClassVar[list[tuple[str, str]]] = []
    """Every call of any of them: by whom, and what was asked."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [self.said(conversation, sampling) for conversation in conversations]

    def said(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        text = conversation[-1].text
        self.asked.append((self.name, text))
        if given := _GIVEN.search(text):
            return Completion(f"Gladly. [Instruction] {self.name}: {given[1]} [End]", "stop", 9)
        return Completion(planted(self.name, self.quality, self.gap, text, sampling.seed), "stop", 9)


@dataclass(frozen=True, kw_only=True)
class Weigher(ScriptedModel):
    """The IFD that a response's `gap` asks for: the large one has 0.5, the small one 0.5 and the gap."""

    large: bool = False

    spans: ClassVar[list[bool]] = []
    """A line for each forward pass: whether it was the large one's."""

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        self.spans.extend([self.large] * len(spans))
        return [self._lost(span) for span in spans]

    def _lost(self, span: Span) -> TargetLoss:
        if not span.context:
            return TargetLoss((2.0,), False)
        gap = 0.0 if self.large else float(span.target.partition("gap=")[2].split()[0])
        return TargetLoss((2.0 + math.log(0.5 + gap),), False)


@dataclass(frozen=True, kw_only=True)
class Umpire(ScriptedModel):
    """Names the answer of the higher level, in whatever order."""

    asked: ClassVar[list[str]] = []

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        self.asked.extend(c[-1].text for c in conversations)
        return [Completion(f"In {sampling.max_tokens}. {verdict(c[-1].text)}", "stop", 2) for c in conversations]


def cast(**settings: object) -> StarAgents:
    """The method with a base and five agents of planted quality; two are drawn for each seed."""
    others = tuple(Agent(name=n, model=Planted(name=n, quality=q, gap=GAP)) for n, q in QUALITY.items())
    given: dict[str, object] = {
        "agents": (Agent(name=BASE, model=Planted()), *others), "pairs": tuple(QUALITY), "draws": 2, "from_near": 1,
        "judge": Umpire(), "small": Weigher(), "large": Weigher(large=True), **settings,
    }  # fmt: skip
    return StarAgents(**given)  # type: ignore[arg-type]


def live(method: StarAgents, home: Path, executor: Local | None = None) -> Result:
    """One life of a run over the seeds in a home, to its end: decisions, tables, and the output."""
    data = read_dataset(home / "input.jsonl")
    with Run(home / "run", executor or Local(), seed=3, max_failures=1.0) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
    assert result.data is not None
    write_records(result.data, home / "output.jsonl", data)
    return result


def main(home: Path, life: str, small: str, large: str) -> None:
    """A life of its own, with its calls in the log."""
    log = os.open(home.parent / "calls.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(who: str, text: str) -> None:
        os.write(log, f"{home.name} {life} {who} {hashlib.sha256(text.encode()).hexdigest()[:12]}\n".encode())

    class Noted(list[tuple[str, str]]):
        def append(self, call: tuple[str, str], /) -> None:
            note(*call)

    Planted.asked = Noted()
    print("up", flush=True)
    scorers: dict[str, object] = {}
    if small != ".":
        scorers = {"small": TransformersModel(name=small), "large": TransformersModel(name=large)}
    live(cast(**scorers), home)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
