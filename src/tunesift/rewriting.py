"""How does a record that was changed go back into the fields of its row?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunesift.formats import (
    ANSWERS,
    ANYTHING,
    PROMPTS,
    ROLES,
    TEXT_PARTS,
    Format,
    first_of,
    given_name,
    parse_row,
    parse_turn,
)
from tunesift.image_fields import COLUMNS, IMAGE_PARTS, MEDIA_MARK
from tunesift.prompts import input_of
from tunesift.records import Fields, Message, Preference, Record, RowFault

OF_PROMPTS = ("conversations", "system", *COLUMNS)
"""Fields that are read as a part of a pair's prompt."""
Row = dict[str, Any]  # Any: whatever JSON holds


def write_row(record: Record, source: Fields, format: Format) -> Row:
    """The source row with the record's messages put back into its fields; all other fields stay as they were.

    Raises `RowFault` where the fields have no place for what the record says now.
    """
    row = {**source, **_WRITERS[format](record, source)}
    if parse_row(row, format, ANYTHING).messages != record.messages:
        raise RowFault("E201", "its fields have no place for what the record says now")
    return row


def new_row(record: Record, format: Format) -> Row:
    """A row of a record that no row was before: its id, the fields of the format, and the further ones it has.

    An `input` among these that the prompt ends with is Alpaca's. Raises `RowFault` where the format has no place for
    what the record says.
    """
    given = {"input": input_of(record)} if format == "alpaca" else {}
    fields = write_row(record, {**_BLANK[format], **given}, format)
    return {"id": record.id, **fields, **{name: value for name, value in record.extra.items() if name not in fields}}


def pair_row(pair: Preference) -> Row:
    """A preference pair as TRL reads it: its id, prompt, chosen and rejected as lists of messages, their images beside
    them, the margin where it has one, and the further fields but for those that would be read as part of the prompt."""
    prompt = [{"role": m.role, "content": m.text} for m in pair.prompt]
    answers = {name: [{"role": m.role, "content": m.text}]
               for name, m in (("chosen", pair.chosen), ("rejected", pair.rejected))}  # fmt: skip
    images = [image for message in pair.prompt for image in message.images]
    own: Row = {"id": pair.id, "prompt": prompt, **answers, **({"images": images} if images else {}),
                **({} if pair.margin is None else {"margin": pair.margin})}  # fmt: skip
    return {**own, **{name: value for name, value in pair.extra.items() if name not in (*own, *OF_PROMPTS)}}


def _alpaca(record: Record, source: Fields) -> Row:
    answer = "output" if "output" in source or "response" not in source else "response"
    system, messages = _system(record.messages, source)
    spoken = [m.text for m in messages if m.role != "system"]
    earlier, asked = spoken[:-2], "".join(spoken[-2:-1])
    if messages[0].role == "system":
        system = {"system": messages[0].text}
    pairs = [earlier[n : n + 2] for n in range(0, len(earlier), 2)]
    history = {"history": pairs} if pairs != (source.get("history") or []) else {}
    return {**system, **history, **_instruction("instruction", asked, source), answer: record.response}


def _instruction(name: str, asked: str, source: Fields) -> Row:
    about = given_name(source)
    given = source.get(about) or ""
    if given.strip() and asked.endswith(f"\n\n{given}"):
        return {name: asked.removesuffix(f"\n\n{given}")}
    return {name: asked, **({about: ""} if given.strip() else {})}


def _pair(record: Record, source: Fields) -> Row:
    ask, answer = first_of(source, PROMPTS), first_of(source, ANSWERS)
    system, messages = _system(record.messages, source)
    cut = len(messages) - (len(source[answer]) if isinstance(source[answer], list) else 1)
    return {**system, ask: _side(messages[:cut], source[ask]), answer: _side(messages[cut:], source[answer])}


def _messages(record: Record, source: Fields) -> Row:
    return {"messages": _turns(record.messages, source["messages"])}


def _sharegpt(record: Record, source: Fields) -> Row:
    name = "conversations" if "conversations" in source else "conversation"
    system, messages = _system(record.messages, source)
    return {**system, name: _turns(messages, source[name])}


def _preference(record: Record, source: Fields) -> Row:
    system, messages = _system(record.messages, source)
    prompt, chosen, rejected = messages[:-1], source["chosen"], source["rejected"]
    asked = next((name for name in ("conversations", *PROMPTS) if name in source), None)
    if asked is None:
        return {**system, "chosen": _turns(messages, chosen), "rejected": [*_turns(prompt, rejected), rejected[-1]]}
    said = "".join(m.text for m in prompt)
    row = _instruction(asked, said, source) if asked == "instruction" else {asked: _side(prompt, source[asked])}
    return {**system, **row, "chosen": _side(messages[-1:], chosen)}


_WRITERS: dict[Format, Callable[[Record, Fields], Row]] = {
    "alpaca": _alpaca, "sharegpt": _sharegpt, "messages": _messages, "prompt-completion": _pair,
    "preference": _preference,
}  # fmt: skip


_BLANK: dict[Format, Fields] = {
    "alpaca": {"instruction": "", "input": "", "output": ""},
    "sharegpt": {"conversations": [{"from": "human", "value": ""}]},
    "messages": {"messages": [{"role": "user", "content": ""}]},
    "prompt-completion": {"prompt": "", "completion": ""},
}
"""Rows that say nothing yet."""


def _system(messages: tuple[Message, ...], source: Fields) -> tuple[Row, tuple[Message, ...]]:
    """What goes into the `system` field where the source has one, and the messages that go elsewhere."""
    old = source.get("system")
    if not isinstance(old, str) or not old.strip():
        return {}, messages
    if messages[0].role != "system":
        return {"system": ""}, messages
    return {"system": messages[0].text}, messages[1:]


def _side(messages: Sequence[Message], source: object) -> object:
    """Messages as the source has them: a list, one object, or one text."""
    if isinstance(source, list):
        return _turns(messages, source)
    return _turns(messages, [source])[0] if isinstance(source, Mapping) else "".join(m.text for m in messages)


def _turns(messages: Sequence[Message], source: Sequence[Any]) -> list[Row]:  # Any: whatever JSON holds
    """The messages in the words of the source: its key names, its role names, its further fields."""
    role = "role" if "role" in source[0] else "from"
    text = "content" if "content" in source[0] or "value" not in source[0] else "value"
    words = {ROLES[turn[role]]: turn[role] for turn in reversed(source) if turn.get(role) in ROLES}
    spelt = {"user": "human", "assistant": "gpt"} if role == "from" else {}
    out = []
    for number, message in enumerate(messages):
        same = source[number] if number < len(source) and ROLES.get(source[number].get(role)) == message.role else {}
        if same and parse_turn(same, "").text == message.text:
            out.append(dict(same))
        else:
            said = same.get(role) or words.get(message.role) or spelt.get(message.role, message.role)
            out.append({**same, role: said, text: _content(message.text, same.get(text) or source[0].get(text))})
    return out


def _content(text: str, source: object) -> object:
    """A text, or its parts where the source has parts: its images stand where the text marks them."""
    if not isinstance(source, list):
        return text
    images = [part for part in source if part.get("type") in IMAGE_PARTS]
    key = next((k for part in source if part.get("type") in TEXT_PARTS for k in ("text", "value") if k in part), "text")
    pieces = text.split(MEDIA_MARK, len(images))
    parts: list[object] = []
    for number, piece in enumerate(pieces):
        parts += [{"type": "text", key: piece}] if piece else []
        parts += images[number : number + 1]
    return parts
