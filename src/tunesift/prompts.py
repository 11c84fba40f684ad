"""From a record to the text that a model sees before its response, and from a template to that text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from tunesift.records import Message, Record

Template = Literal["chat", "alpaca", "vicuna", "bare"]
"""chat: the model's own chat template; alpaca and vicuna: the public training templates of those models, for one that
has none of its own; bare: the text and a line feed."""

ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:"
)
"""Template of the Stanford Alpaca repository, without input; a public format that scorers must match to the letter."""
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)
"""The same with input."""
ALPACA_ANCHOR = "### Response:"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
    "USER: {instruction} ASSISTANT:"
)
"""Template of FastChat's Vicuna, first turn; a public format, the one that Selective Reflection-Tuning scores with."""
BARE = "{instruction}\n"
BARE_INPUT = "{instruction}\n{input}\n"

_FIXED = {"alpaca": (ALPACA, ALPACA_INPUT), "vicuna": (VICUNA, ""), "bare": (BARE, BARE_INPUT)}
"""What each fixed template is without an input, and with one that it sets apart."""

REVERSED = (
    "A reader is shown only an assistant's response and is asked which request it answers.\n\n"
    "Response:\n{response}\n\nWrite the request that this response answers, and nothing else."
)
"""Our own wording of the instruction-guessing prompt of r-IFD."""

_FENCE = re.compile(r"<(?=\s*/?\s*given-)", re.IGNORECASE)
_PLACE = re.compile(r"\{(\w+)\}")


def fill(template: str, **values: str) -> str:
    """The template with its places filled; braces inside a value stay as they are.

    Raises `KeyError` for a place without a value and `ValueError` for a value without a place.
    """
    places = set(_PLACE.findall(template))
    if unknown := set(values) - places:
        raise ValueError(f"the template has no place for {', '.join(sorted(unknown))}")
    return _PLACE.sub(lambda place: values[place[1]], template)


def fenced(name: str, text: str) -> str:
    """Text that a judge reads, between marks that it cannot forge: a mark inside it loses its bracket."""
    return f"<given-{name}>\n{_FENCE.sub('‹', text)}\n</given-{name}>"


def transcript(messages: Sequence[Message]) -> str:
    """A conversation for a reader: a paragraph for each message, with its role."""
    return "\n\n".join(f"{m.role}: {m.text}" for m in messages)


def task_of(prompt: Sequence[Message]) -> str:
    """What a model was asked, for a reader: the text of a single message, the transcript of several."""
    return prompt[0].text if len(prompt) == 1 else transcript(prompt)


def input_of(record: Record) -> str:
    """The input that a record's file sets apart from its instruction, as Alpaca's do; empty for none."""
    given = record.extra.get("input")
    return given if isinstance(given, str) else ""


def context(messages: tuple[Message, ...], template: Template, given: str = "") -> str | tuple[Message, ...]:
    """What stands before a response: text in a fixed template, or the conversation for the model's own template.

    `given` is the input that the last message ends with, as in Alpaca's files; alpaca and bare set it apart. In fixed
    templates, earlier turns stand before the last instruction, one paragraph each.
    """
    if template == "chat":
        return messages
    said = "\n\n".join(m.text for m in messages)
    whole, with_input = _FIXED[template]
    if with_input and given.strip() and said.endswith(f"\n\n{given}"):
        return fill(with_input, instruction=said.removesuffix(f"\n\n{given}"), input=given)
    return fill(whole, instruction=said)
