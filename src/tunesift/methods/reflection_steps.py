"""How Reflection-Tuning asks its teacher: which records, in which words, how often, and what comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.formats import USES_TOOLS
from tunesift.methods.reflection_reading import UNCHANGED, Rewritten, checked, holds_mark
from tunesift.models import ChatModel, name_of
from tunesift.models.base import Completion, Sampling
from tunesift.prompts import fenced, fill, transcript
from tunesift.records import Failure, Message, Record
from tunesift.running.result import Planned
from tunesift.running.run import Run
from tunesift.running.step import Outcomes
from tunesift.settings import Settings

Reader = Callable[[Completion], Rewritten | Failure]
CUT = "\n[…]"
"""Stands for the rest of an answer that the teacher was not shown."""


@dataclass(frozen=True, kw_only=True)
class Asking(Settings):
    """How the teacher is asked."""

    temperature: float = 0.0
    """Of the first try; the authors' 0."""
    max_tokens: int = 2048
    """Most tokens of what the teacher writes, its criticism included; the authors' 2048."""
    retries: int = 2
    """Further tries where the reply cannot be used; the authors have 1, with the same words at temperature 0."""
    retry_temperature: float = 0.7
    """Of further tries, each with a seed of its own; our choice."""
    longest: int = 8192
    """Characters of an old answer that the teacher is shown; the authors cut at 2,048 tokens of all texts together."""
    multi_turn: Literal["leave", "last"] = "leave"
    """A conversation of several turns is left alone, or its last turn refined with the others in sight; our choice."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.longest < 1:
            raise RecipeError("asking: max_tokens and longest are 1 or more.")
        if self.retries < 0 or self.temperature < 0 or self.retry_temperature < 0:
            raise RecipeError("asking: retries and temperatures are 0 or more.")

    def left_alone(self, record: Record) -> str:
        """Why a record is not refined; empty where it is."""
        if any(m.images for m in record.messages):
            return "an image"
        if USES_TOOLS in record.extra:
            return "uses tools"
        if record.messages[-1].role != "assistant" or len(record.messages) < 2 or record.prompt[-1].role != "user":
            return "no response"
        if any(map(holds_mark, (record.prompt[-1].text, record.response))):
            return "holds our marks"
        turns = sum(m.role != "system" for m in record.messages)
        return "several turns" if turns > 2 and self.multi_turn == "leave" else ""

    def steps(self, teacher: ChatModel, persona: str, template: str) -> list[Reflect]:
        """The first try and the further ones."""
        tries = [(self.temperature, 0), *((self.retry_temperature, seed) for seed in range(1, self.retries + 1))]
        return [
            Reflect(
                teacher=teacher, persona=persona, template=template, longest=self.longest,
                sampling=Sampling(temperature=temperature, max_tokens=self.max_tokens, seed=seed),
            )
            for temperature, seed in tries
        ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reflect(Settings):
    """Have the teacher criticise a record and write something better."""

    teacher: ChatModel
    persona: str
    template: str
    sampling: Sampling
    longest: int

    returns: ClassVar[type[Completion]] = Completion

    def __call__(self, chunk: Sequence[Record], /) -> Sequence[Completion | Failure]:
        """What the teacher wrote, one completion per record."""
        return self.teacher.chat([self._asked(record) for record in chunk], self.sampling)

    def _asked(self, record: Record) -> tuple[Message, ...]:
        *before, asked = record.prompt
        said = record.response
        shown = said if len(said) <= self.longest else said[: self.longest] + CUT
        pair = [fenced("instruction", asked.text), fenced("answer", shown)]
        if before:
            pair.insert(0, fenced("conversation", transcript(before)))
        return (Message("system", self.persona), Message("user", fill(self.template, pair="\n\n".join(pair))))


@dataclass(frozen=True)
class Taught:
    """What came of asking about records: of each, its last try."""

    tries: Sequence[Outcomes[Completion]]
    read: Reader
    refused: Mapping[str, Failure]
    """Why the last reply about a record cannot be used."""
    longest: int
    """Characters of an answer that the teacher was shown."""

    def __call__(self, record: Record) -> Rewritten | Failure:
        """What the teacher proposes for a record that it was asked about."""
        said = self._said(record)
        return said if isinstance(said, Failure) else self.refused.get(record.id) or self.read(said)

    def calls(self, record: Record) -> int:
        """How often the teacher was asked about a record."""
        return sum(record.id in told for told in self.tries)

    def status(self, record: Record) -> str:
        """What came of it in a word: ok, ok_no_end, no_marker, truncated, failed (unanswered); more after a colon."""
        said = self._said(record)
        if isinstance(said, Failure):
            return f"failed ({said.kind}): {said.message}"
        found = self(record)
        shown_in_part = ", shown in part" if len(record.response) > self.longest else ""
        if isinstance(found, Rewritten):
            return f"{'ok' if found.closed else 'ok_no_end'}{shown_in_part}"
        return found.message

    def after(self, record: Record) -> Record:
        """The rewritten record, or the same where the teacher's reply cannot be used."""
        found = self(record)
        return record if isinstance(found, Failure) else rewritten(record, found)

    def _said(self, record: Record) -> Completion | Failure:
        return next(told[record.id] for told in reversed(self.tries) if record.id in told)


def taught(run: Run, stage: str, steps: Sequence[Reflect], data: Dataset[Record], read: Reader) -> Taught:
    """Ask about every record, and again about those whose reply cannot be used, as often as there are steps.

    A first call that failed is not repeated: the model itself tried as often as it makes sense. Nor is one whose reply
    leaves the record as it is.
    """
    tries: list[Outcomes[Completion]] = []
    refused: dict[str, Failure] = {}
    for number, step in enumerate(steps):
        if number and not data:
            break
        told = run.map(_stage(stage, number), step, data)
        tries.append(told)
        good = told.good()
        for record in data:
            if record.id not in good:
                continue
            refused.pop(record.id, None)
            found = _usable(read(good[record.id]), record)
            if isinstance(found, Failure):
                refused[record.id] = found
        data = data.only({id for id, reason in refused.items() if reason != UNCHANGED})
    return Taught(tries, read, refused, steps[0].longest)


def planned_teaching(stage: str, steps: Sequence[Reflect], records: int, longer: int = 0) -> list[Planned]:
    """The calls of one half, all further tries included; `longer` bytes of a prompt may be what the teacher wrote."""
    return [
        Planned(
            _stage(stage, number), records, 1, name_of(step.teacher), answer=step.sampling.max_tokens, spare=number > 0,
            around=len(step.persona.encode()) + len(step.template.encode()) + longer,
        )
        for number, step in enumerate(steps)
    ]  # fmt: skip


def _stage(half: str, number: int) -> str:
    return f"{half}-again-{number}" if number else half


def rewritten(record: Record, new: Rewritten) -> Record:
    """The record with its last turn rewritten; its id tells what was: `a1b2~instruction`, `a1b2~response`."""
    *before, asked, said = record.messages
    half = "response" if new.instruction is None else "instruction"
    ask = asked if new.instruction is None else replace(asked, text=new.instruction)
    return replace(record, id=f"{record.id}~{half}", messages=(*before, ask, replace(said, text=new.answer)))


def counted(statuses: Counter[tuple[str, str]]) -> list[dict[str, object]]:
    """How often each status came of each half; of a status, what stands before its colon."""
    whole: Counter[tuple[str, str]] = Counter()
    for (half, status), count in statuses.items():
        whole[half, status.partition(":")[0]] += count
    return [{"half": half, "status": status, "records": count} for (half, status), count in whole.most_common()]


def _usable(found: Rewritten | Failure, record: Record) -> Rewritten | Failure:
    return found if isinstance(found, Failure) else checked(found, record)
