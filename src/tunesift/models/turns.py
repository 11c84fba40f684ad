"""From a record to the tokens that a model reads of it: the prompt, the response, and what ends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesift.errors import ModelRefused
from tunesift.formats import untrainable
from tunesift.models.base import Span
from tunesift.models.folders import not_taken, segment_of
from tunesift.models.likelihood import SpanEncoder, render
from tunesift.models.templates import TemplateFault
from tunesift.prompts import Template, context, input_of
from tunesift.records import Failure, Message, Record

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

    def __init__(self, tokenizer: Any, template: Template, empty: bool = False) -> None:  # Any: transformers' own class
        """With `empty` an empty response is read, too, as one that ends at once."""
        self._empty = empty
        self._encode = SpanEncoder(tokenizer, _UNLIMITED)
        self._template = template
        self._end = _end_of_turn(tokenizer) if template == "chat" else _eos(tokenizer)

    @property
    def last(self) -> int:
        """The token that ends every response."""
        return self._end[-1]

    @property
    def ending(self) -> int:
        """Tokens that stand behind every response."""
        return len(self._end)

    def __call__(self, record: Record) -> Encoded | Failure:
        """The tokens of a record, however many; a `Failure` where there is nothing to read."""
        if (refused := untrainable(record, self._empty)) is not None:
            return refused
        asked = context(record.prompt, self._template, input_of(record))
        segment = segment_of(self._encode, Span(asked, record.response, bos="tokenizer"))
        if isinstance(segment, Failure):
            return segment
        return Encoded((*segment.ids, *self._end), segment.start)


class WholeEncoder:
    """Turns conversations into the tokens that a reward model reads: in the chat template the whole as that renders it,
    as TRL trains and asks such models; in a fixed one as `Encoder` has them.

    The two differ where a chat template writes an answer otherwise than it was given, such as behind an empty thought.
    """

    def __init__(self, tokenizer: Any, template: Template) -> None:  # Any: transformers' own class
        self._fixed = Encoder(tokenizer, template, empty=True)
        self._spans = SpanEncoder(tokenizer, _UNLIMITED)
        self._template = template

    def __call__(self, record: Record) -> tuple[int, ...] | Failure:
        """The tokens of a record, however many; a `Failure` where there is nothing to read."""
        if self._template != "chat":
            found = self._fixed(record)
            return found if isinstance(found, Failure) else found.ids
        if (refused := untrainable(record, empty=True)) is not None:
            return refused
        try:
            return tuple(self._spans.whole(record.messages))
        except TemplateFault as error:
            return not_taken(error)


def _end_of_turn(tokenizer: Any) -> tuple[int, ...]:  # Any: transformers' own class
    turns = [Message("user", "Hello"), Message("assistant", _MARK)]
    try:
        rendered = render(turns, tokenizer, open=False)
    except TemplateFault as error:
        said = f"the chat template renders no conversation ({error})"
        raise ModelRefused(f"{said}; set the template to alpaca.") from error
    if _MARK not in rendered:
        raise ModelRefused("the chat template does not show the response; set the template to alpaca.")
    end = rendered.rpartition(_MARK)[2]
    if not end.strip():
        return _eos(tokenizer)
    return tuple(tokenizer(end, add_special_tokens=False)["input_ids"])


def _eos(tokenizer: Any) -> tuple[int, ...]:  # Any: transformers' own class
    if tokenizer.eos_token_id is None:
        raise ModelRefused("the tokenizer has no EOS token, so that a response would never end; use another student.")
    return (int(tokenizer.eos_token_id),)
