"""What is a record, what can become of it, and how does it get its id?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

Role = Literal["system", "user", "assistant"]
Action = Literal["keep", "drop", "replace", "create", "quarantine"]
IN_OUTPUT: tuple[Action, ...] = ("keep", "replace", "create")
"""Actions whose record is in the output, or something in its place."""
FailureKind = Literal["refused", "unanswered", "unreadable", "empty", "too-long", "not-finite", "crashed"]
Fields = Mapping[str, Any]  # Any: whatever JSON holds
"""What a row of a file has, by name."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    text: str
    images: tuple[str, ...] = ()
    """Image files, relative to the dataset's folder. Empty for text."""


@dataclass(frozen=True, slots=True)
class Record:
    """One instruction-tuning example: a conversation and an id that never changes."""

    id: str
    messages: tuple[Message, ...]
    extra: Mapping[str, object] = field(default_factory=dict)
    """Fields of the source file we do not read; written back untouched."""

    @property
    def response(self) -> str:
        """Text of the last assistant message; empty when the conversation does not end with one."""
        last = self.messages[-1]
        return last.text if last.role == "assistant" else ""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The conversation before its last assistant message."""
        return self.messages[:-1] if self.messages[-1].role == "assistant" else self.messages


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers to one prompt, the better one named."""

    id: str
    prompt: tuple[Message, ...]
    chosen: Message
    rejected: Message
    margin: float | None = None
    """Reward of chosen minus reward of rejected, where a reward model was asked."""
    extra: Mapping[str, object] = field(default_factory=dict)
    """Fields of the source file we do not read; written back untouched."""

    @property
    def messages(self) -> tuple[Message, ...]:
        """All that is said: the prompt, the chosen answer, the rejected one."""
        return (*self.prompt, self.chosen, self.rejected)

    @property
    def response(self) -> str:
        """Text of the chosen answer."""
        return self.chosen.text


@dataclass(frozen=True, slots=True)
class Score:
    """A number for a record."""

    value: float | None
    """None when the scorer has nothing to say about this record; note says why."""
    parts: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that could not be done: not a zero, not a gap, not a guess."""

    kind: FailureKind
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one record, and why."""

    record_id: str
    action: Action
    reason: str
    parents: tuple[str, ...] = ()


WORDS: Mapping[str, str] = {
    "empty_response": "the response is empty",
    "prompt_too_long": "longer than the scorer's {context}",
    "no_scored_tokens": "no token of the response can be predicted from what stands before it",
    "above_one": "to the small model the instruction makes its response no likelier",
    "truncated_differently": "the two models did not read the same part of the response",
    "tokens_differ": "the two models read the response as different tokens",
}
"""What a note on a score that is none means, for people."""


def noun(kind: type[Record] | type[Preference]) -> str:
    """What one row of data is called in a sentence."""
    return "preference pair" if kind is Preference else "record"


def rule_of(reason: str, most_tokens: int | None = None) -> str:
    """What a decision's reason is counted by: what stands before its colon; without a score, why there is none."""
    rule, _, note = reason.partition(": ")
    if rule != "no score":
        return reason.partition(":")[0]
    for kind, words in WORDS.items():
        note = note.replace(kind, words)
    context = "context" if most_tokens is None else f"{most_tokens:,} tokens"
    return f"{rule}: {note.replace('{context}', context).replace('_', ' ')}"


def origins(id: str) -> Iterator[str]:
    """An id, and those of what it may have been made of, the nearest first: `a1b2~x~y`, `a1b2~x`, `a1b2`."""
    yield id
    while "~" in id:
        id = id.rpartition("~")[0]
        yield id


class RowFault(ValueError):
    """A row whose fields do not make a record: the code of the trouble and what is wrong."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def content_digest(value: object) -> bytes:
    """128 bits of SHA-256 over a dataclass's content, the same in every process."""
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()[:16]


def content_id(messages: object) -> str:
    """Id of a record whose file gives it none: 64 bits of its messages' digest, in hexadecimal."""
    return content_digest(messages).hex()[:16]
