"""From a record to the text that a model sees before its response, and from a template to that text."""

from __future__ import annotations

import re
from typing import Literal

from tunesift.records import Message

Template = Literal["chat", "alpaca", "bare"]
"""chat: the model's own chat template; alpaca: the public Alpaca training template; bare: the text and a line feed."""

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
BARE = "{instruction}\n"
BARE_INPUT = "{instruction}\n{input}\n"

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


def context(messages: tuple[Message, ...], template: Template, given: str = "") -> str | tuple[Message, ...]:
    """What stands before a response: text in a fixed template, or the conversation for the model's own template.

    `given` is the input that the last message ends with, as in Alpaca's files; the fixed templates set it apart. In
    them, earlier turns stand before the last instruction, one paragraph each.
    """
    if template == "chat":
        return messages
    said = "\n\n".join(m.text for m in messages)
    if given.strip() and said.endswith(f"\n\n{given}"):
        instruction = said.removesuffix(f"\n\n{given}")
        return fill(ALPACA_INPUT if template == "alpaca" else BARE_INPUT, instruction=instruction, input=given)
    return fill(ALPACA if template == "alpaca" else BARE, instruction=said)
