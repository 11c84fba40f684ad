"""From a record to what is trained on: its tokens, and where the response begins that the loss is of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesift.errors import ModelRefused
from tunesift.formats import untrainable
from tunesift.models.base import Span
from tunesift.models.folders import segment_of
from tunesift.models.likelihood import SpanEncoder, render
from tunesift.models.templates import TemplateFault
from tunesift.prompts import Template, context, input_of
from tunesift.records import Failure, Message, Preference, Record

_MARK = "\ue000"
"""Stands for a response, to see what a chat template puts behind one."""
_UNLIMITED = 2**31


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens of prompt and response; those from `start` on are the response's, with what ends it."""

    ids: tuple[int, ...]
    start: int


class Encoder:
    """Turns records into tokens: the prompt just as the model sees it when it is asked, and the response.

    Behind the response stands what ends a turn in the chat template, or the EOS token. Raises `ModelRefused` for a
    tokenizer without a chat template where one is asked for.
    """

    def __init__(self, tokenizer: Any, template: Template) -> None:  # Any: transformers' own class
        self._encode = SpanEncoder(tokenizer, _UNLIMITED)
        self._template = template
        self._end = _end_of_turn(tokenizer) if template == "chat" else _eos(tokenizer)

    def __call__(self, record: Record) -> Encoded | Failure:
        """The tokens of a record, however many; a `Failure` where there is nothing to train on."""
        if (refused := untrainable(record)) is not None:
            return refused
        asked = context(record.prompt, self._template, input_of(record))
        segment = segment_of(self._encode, Span(asked, record.response, bos="tokenizer"))
        if isinstance(segment, Failure):
            return segment
        return Encoded((*segment.ids, *self._end), segment.start)


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Tokens of a prompt, and of two answers with what ends them."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """All that are read: the prompt once with each answer."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def longest(self) -> int:
        """Those of the prompt with the longer answer."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


class PairEncoder:
    """Turns preference pairs into tokens; each answer as `Encoder` has a response, behind the same prompt."""

    def __init__(self, tokenizer: Any, template: Template) -> None:  # Any: transformers' own class
        self._encode = Encoder(tokenizer, template)

    def __call__(self, pair: Preference) -> EncodedPair | Failure:
        """The tokens of a pair, however many; a `Failure` where there is nothing to train on."""
        sides = []
        for answer in (pair.chosen, pair.rejected):
            found = self._encode(Record(pair.id, (*pair.prompt, answer), pair.extra))
            if isinstance(found, Failure):
                return found
            sides.append(found)
        chosen, rejected = sides
        return EncodedPair(chosen.ids[: chosen.start], chosen.ids[chosen.start :], rejected.ids[rejected.start :])


def _end_of_turn(tokenizer: Any) -> tuple[int, ...]:  # Any: transformers' own class
    turns = [Message("user", "Hello"), Message("assistant", _MARK)]
    try:
        rendered = render(turns, tokenizer, open=False)
    except TemplateFault as error:
        said = f"the chat template renders no conversation ({error})"
        raise ModelRefused(f"{said}; set the tuner's template to alpaca.") from error
    if _MARK not in rendered:
        raise ModelRefused("the chat template does not show the response; set the tuner's template to alpaca.")
    end = rendered.rpartition(_MARK)[2]
    if not end.strip():
        return _eos(tokenizer)
    return tuple(tokenizer(end, add_special_tokens=False)["input_ids"])


def _eos(tokenizer: Any) -> tuple[int, ...]:  # Any: transformers' own class
    if tokenizer.eos_token_id is None:
        raise ModelRefused("the tokenizer has no EOS token, so that a response would never end; use another student.")
    return (int(tokenizer.eos_token_id),)
