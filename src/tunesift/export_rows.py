"""How does a record become a row that another trainer reads? As messages, or as texts that are rendered here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesift.errors import ModelRefused, shown
from tunesift.formats import untrainable
from tunesift.models.folders import tokenizer
from tunesift.models.transformers import TransformersModel
from tunesift.prompts import Template, context, input_of
from tunesift.records import Message, Preference, Record

Target = Literal["llama-factory", "axolotl", "trl"]
"""The trainers that a run is exported for."""
TRAIN = "train"
"""The field of axolotl's messages that says whether a message is trained on."""


@dataclass(frozen=True, slots=True)
class Rows:
    """How records are written for a trainer: as messages in the student's chat template, as texts in a fixed one."""

    to: Target
    template: Template
    begin: str = ""
    """What stands before a rendered prompt, for a trainer that adds nothing of its own: the BOS token's text."""
    end: str = ""
    """What stands behind a response there: the EOS token's text."""

    def refused(self, record: Record) -> str:
        """Why a record is left out; empty where it is written."""
        if (refused := untrainable(record)) is not None:
            return refused.message
        return _skipped(self.to, self.template, record.messages)

    def row(self, record: Record) -> dict[str, Any]:  # Any: JSON
        """A record as a row, with its id."""
        if self.template == "chat":
            return {"id": record.id, **self._conversation(record)}
        prompt = context(record.prompt, self.template, input_of(record))
        assert isinstance(prompt, str)  # of a fixed template
        return {"id": record.id, **self._texts(f"{self.begin}{prompt}", f"{record.response}{self.end}")}

    def _conversation(self, record: Record) -> dict[str, Any]:  # Any: JSON
        messages = [{"role": m.role, "content": m.text} for m in record.messages]
        if self.to == "trl":
            return {"prompt": messages[:-1], "completion": messages[-1:]}
        if self.to == "axolotl":
            last = len(messages) - 1
            return {"messages": [{**m, TRAIN: place == last} for place, m in enumerate(messages)]}
        return {"messages": messages}

    def _texts(self, prompt: str, response: str) -> dict[str, Any]:  # Any: JSON
        if self.to == "trl":
            return {"prompt": prompt, "completion": response}
        if self.to == "axolotl":
            return {"segments": [{"label": False, "text": prompt}, {"label": True, "text": response}]}
        return {"instruction": prompt, "output": response}


@dataclass(frozen=True, slots=True)
class PairRows:
    """How preference pairs are written for a trainer: as `Rows` writes records; axolotl hands its rows to TRL."""

    to: Target
    template: Template
    begin: str = ""
    """What stands before a rendered prompt, for a trainer that adds nothing of its own: the BOS token's text."""
    end: str = ""
    """What stands behind both answers there: the EOS token's text."""

    def refused(self, pair: Preference) -> str:
        """Why a pair is left out; empty where it is written."""
        if pair.chosen.text.strip() == pair.rejected.text.strip():
            return "both answers are the same"
        for answer in (pair.chosen, pair.rejected):
            if (refused := untrainable(Record(pair.id, (*pair.prompt, answer), pair.extra))) is not None:
                return refused.message
        return _skipped(self.to, self.template, (*pair.prompt, pair.chosen))

    def row(self, pair: Preference) -> dict[str, Any]:  # Any: JSON
        """A pair as a row, with its id."""
        answers = {"chosen": pair.chosen.text, "rejected": pair.rejected.text}
        if self.template == "chat":
            turns = [{"role": m.role, "content": m.text} for m in pair.prompt]
            said = {name: {"role": "assistant", "content": text} for name, text in answers.items()}
            if self.to == "llama-factory":
                return {"id": pair.id, "messages": turns, **said}
            return {"id": pair.id, "prompt": turns, **{name: [turn] for name, turn in said.items()}}
        about = input_of(Record(pair.id, (*pair.prompt, pair.chosen), pair.extra))
        prompt = context(pair.prompt, self.template, about)
        assert isinstance(prompt, str)  # of a fixed template
        asked = "instruction" if self.to == "llama-factory" else "prompt"
        return {"id": pair.id, asked: f"{self.begin}{prompt}",
                **{name: f"{text}{self.end}" for name, text in answers.items()}}  # fmt: skip


def rows_for(to: Target, template: Template, student: TransformersModel, pairs: bool) -> Rows | PairRows:
    """How records, or preference pairs, are written for a trainer that tunes this student.

    Raises `ModelRefused` or `ModelUnavailable` where a fixed template needs the student's tokens, which are not here.
    """
    kind = PairRows if pairs else Rows
    if template == "chat" or to == "trl" or (pairs and to == "axolotl"):  # TRL adds both tokens to a text itself
        return kind(to, template)
    found = tokenizer(student.location, student.revision)
    if found.eos_token is None:
        raise ModelRefused(f'tokenizer "{shown(student.name)}" has no EOS token, so that a response would never end.')
    added = found("")["input_ids"]
    begins = found.bos_token_id is not None and found.bos_token_id in added
    return kind(to, template, found.bos_token if begins else "", found.eos_token)


def _skipped(to: Target, template: Template, messages: Sequence[Message]) -> str:
    if to == "llama-factory" and template == "chat" and not _alternate(messages):
        return "the turns are not user and assistant in turn, which LLaMA-Factory skips"
    return ""


def _alternate(messages: Sequence[Message]) -> bool:
    """Whether what ends with a response is user and assistant in turn, behind a system message or none."""
    turns = messages[1:] if messages[0].role == "system" else messages
    wanted = [("user", "assistant")[place % 2] for place in range(len(turns))]
    return [m.role for m in turns] == wanted
