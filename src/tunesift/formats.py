"""What do a row's fields mean? Alpaca, ShareGPT, chat messages, prompt/completion and preference pairs, read and
written back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import orjson

from tunesift.records import Message, Preference, Record, Role, content_id

Format = Literal["alpaca", "sharegpt", "messages", "prompt-completion", "preference"]
FORMATS: tuple[Format, ...] = get_args(Format)

Fields = Mapping[str, Any]  # Any: whatever JSON holds

MAX_TURNS = 1000
MAX_ID = 1024
"""Bytes of an id."""

_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "function_call": "assistant",
    "tool": "user", "observation": "user", "function": "user", "function_response": "user",
}  # fmt: skip
_TOOL_ROLES = frozenset({"tool", "observation", "function", "function_response", "function_call"})
_PROMPTS, _ANSWERS = ("prompt", "instruction", "question"), ("completion", "response", "answer")
_MEDIA_MARK = "<image>"


class RowFault(ValueError):
    """A row whose fields do not make a record: the code of the trouble and what is wrong."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True, slots=True)
class Parsed:
    """A row's meaning before it has an id: prompt, answer, and for preferences the rejected answer."""

    messages: tuple[Message, ...]
    rejected: Message | None
    extra: dict[str, object]
    own_id: str | None


def recognise(fields: Fields) -> Format | None:
    """The format whose fields a row has; None when it has none of theirs."""
    if "chosen" in fields and "rejected" in fields:
        return "preference"
    if "messages" in fields:
        return "messages"
    if "conversations" in fields or "conversation" in fields:
        return "sharegpt"
    if "instruction" in fields and "output" in fields:
        return "alpaca"
    if any(p in fields for p in _PROMPTS) and any(a in fields for a in _ANSWERS):
        return "prompt-completion"
    return "alpaca" if "instruction" in fields else None


def parse_row(fields: Fields, format: Format) -> Parsed:
    """What a row says in the given format; raises `RowFault` naming the field and what it should hold."""
    parsed = _READERS[format](fields)
    messages = _with_images(parsed.messages, fields.get("images"))
    _check_turns(messages, fields)
    return Parsed(messages, parsed.rejected, parsed.extra, own_id(fields))


def own_id(fields: Fields) -> str | None:
    """The id that the file gives the row, if any; whole numbers are spelt as text."""
    value = fields.get("id")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowFault("E210", f'"id" must be a text or a whole number, not {_kind(value)}')
    if len(str(value).encode()) > MAX_ID or not str(value):
        raise RowFault("E210", f'"id" must have between 1 and {MAX_ID} bytes')
    return str(value)


def record_of(parsed: Parsed) -> Record:
    """The record of a parsed row; in a preference pair its response is the chosen answer."""
    id = parsed.own_id or content_id((parsed.messages, parsed.rejected) if parsed.rejected else parsed.messages)
    return Record(id, parsed.messages, parsed.extra)


def preference_of(parsed: Parsed) -> Preference:
    """The preference pair of a parsed row; raises `RowFault` where it has no rejected answer."""
    if parsed.rejected is None:
        raise RowFault("E201", 'a preference pair needs "chosen" and "rejected"')
    prompt, chosen = parsed.messages[:-1], parsed.messages[-1]
    return Preference(record_of(parsed).id, prompt, chosen, parsed.rejected, extra=parsed.extra)


def write_row(record: Record, source: Fields, format: Format) -> dict[str, Any]:
    """The source row with the record's text put back into its fields; all other fields stay as they were."""
    return {**source, **_WRITERS[format](record, source)}


def _alpaca(fields: Fields) -> Parsed:
    output = "output" if "output" in fields else "response"
    instruction, given = _text(fields, "instruction"), _text(fields, "input", optional=True)
    history = [m for turn in fields.get("history") or [] for m in _history_turn(turn)]
    messages = (
        *_system(fields),
        *history,
        Message("user", f"{instruction}\n\n{given}" if given.strip() else instruction),
        Message("assistant", _text(fields, output)),
    )
    read = {"id", "instruction", output, "system", "history", "images", *(() if given.strip() else ("input",))}
    return Parsed(messages, None, _rest(fields, read), None)


def _history_turn(turn: object) -> tuple[Message, Message]:
    if not (isinstance(turn, list) and len(turn) == 2 and all(isinstance(t, str) for t in turn)):
        raise RowFault("E202", '"history" must be a list of pairs of texts')
    return Message("user", turn[0]), Message("assistant", turn[1])


def _pair(fields: Fields) -> Parsed:
    ask, answer = _first(fields, _PROMPTS), _first(fields, _ANSWERS)
    prompt = fields[ask]
    start = _turns(prompt, ask) if isinstance(prompt, list) else (Message("user", _text(fields, ask)),)
    messages = (*_system(fields), *start, *_answer(fields, answer))
    return Parsed(messages, None, _rest(fields, {"id", ask, answer, "system", "images"}), None)


def _messages(fields: Fields) -> Parsed:
    messages = _turns(fields["messages"], "messages") if "messages" in fields else _missing(fields, "messages")
    return Parsed(messages, None, _rest(fields, {"id", "messages", "images"}), None)


def _sharegpt(fields: Fields) -> Parsed:
    name = "conversations" if "conversations" in fields else "conversation"
    turns = _turns(fields[name], name) if name in fields else _missing(fields, name)
    return Parsed((*_system(fields), *turns), None, _rest(fields, {"id", name, "system", "images"}), None)


def _preference(fields: Fields) -> Parsed:
    chosen, rejected = (_answer(fields, name) for name in ("chosen", "rejected"))
    if "conversations" in fields:
        prompt: tuple[Message, ...] = _turns(fields["conversations"], "conversations")
        read = {"conversations"}
    elif any(p in fields for p in _PROMPTS):
        ask = _first(fields, _PROMPTS)
        given = _text(fields, "input", optional=True) if ask == "instruction" else ""
        prompt = _turns(fields[ask], ask) if isinstance(fields[ask], list) else (_asked(_text(fields, ask), given),)
        read = {ask, "input"} if ask == "instruction" else {ask}
    else:
        shared = 0
        while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
            shared += 1
        prompt, read = chosen[:shared], set()
        chosen, rejected = chosen[shared:], rejected[shared:]
    if not prompt:
        raise RowFault("E201", "a preference pair needs a prompt before its answers")
    if len(chosen) != 1 or len(rejected) != 1:
        raise RowFault("E204", '"chosen" and "rejected" must each be one answer to the same prompt')
    messages = (*_system(fields), *prompt, chosen[0])
    return Parsed(messages, rejected[0], _rest(fields, {"id", "chosen", "rejected", "system", "images", *read}), None)


def _asked(instruction: str, given: str) -> Message:
    return Message("user", f"{instruction}\n\n{given}" if given.strip() else instruction)


def _answer(fields: Fields, name: str) -> tuple[Message, ...]:
    value = fields.get(name)
    if isinstance(value, str):
        return (Message("assistant", value),)
    return _turns([value] if isinstance(value, dict) else value, name)


_READERS: dict[Format, Callable[[Fields], Parsed]] = {
    "alpaca": _alpaca, "sharegpt": _sharegpt, "messages": _messages, "prompt-completion": _pair,
    "preference": _preference,
}  # fmt: skip


def _turns(value: object, name: str) -> tuple[Message, ...]:
    if not isinstance(value, list):
        raise RowFault("E202", f'"{name}" must be a list of messages, not {_kind(value)}')
    if not value:
        raise RowFault("E203", f'"{name}" has no messages')
    if len(value) > MAX_TURNS:
        raise RowFault("E403", f'"{name}" has {len(value)} messages, more than {MAX_TURNS}')
    return tuple(_turn(turn, f"{name}[{number}]") for number, turn in enumerate(value))


def _turn(turn: object, name: str) -> Message:
    if not isinstance(turn, Mapping):
        raise RowFault("E202", f'"{name}" must be a message, not {_kind(turn)}')
    said = turn.get("role", turn.get("from"))
    role = _ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise RowFault("E204", f'"{name}" has the role {str(said)[:40]!r}; use system, user, assistant or tool')
    content = turn.get("content", turn.get("value"))
    if content is None and turn.get("tool_calls"):
        return Message(role, orjson.dumps(turn["tool_calls"], default=str).decode())
    if isinstance(content, list):
        return _parts(role, content, name)
    if not isinstance(content, str):
        raise RowFault("E202", f'"{name}" must have a text, not {_kind(content)}')
    return Message(role, content)


def _parts(role: Role, parts: Sequence[object], name: str) -> Message:
    texts: list[str] = []
    images: list[str] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(cast(Fields, part).get("text"), str):
            texts.append(cast(Fields, part)["text"])
        elif kind in ("image", "image_url"):
            images.append(_image_path(cast(Fields, part), name))
            texts.append(_MEDIA_MARK)
        else:
            raise RowFault("E202", f'"{name}" has a part that is neither text nor image')
    return Message(role, "".join(texts), tuple(images))


def _image_path(part: Fields, name: str) -> str:
    for key in ("path", "image", "url", "image_url"):
        value = part.get(key)
        value = value.get("url") if isinstance(value, Mapping) else value
        if isinstance(value, str) and value:
            return value
    raise RowFault("E205", f'"{name}" has an image without a path')


def _with_images(messages: tuple[Message, ...], images: object) -> tuple[Message, ...]:
    """Give the files of an `images` column to the messages that mark a place for them."""
    if images is None or images == []:
        return messages
    if not isinstance(images, list) or not all(isinstance(i, str) and i for i in images):
        raise RowFault("E205", '"images" must be a list of paths')
    left = list(images)
    placed = []
    for message in messages:
        count = min(len(left), message.text.count(_MEDIA_MARK))
        placed.append(Message(message.role, message.text, (*message.images, *left[:count])))
        left = left[count:]
    if left:
        raise RowFault("E205", f'"images" has {len(left)} more than the conversation has {_MEDIA_MARK} marks')
    return tuple(placed)


def _check_turns(messages: tuple[Message, ...], fields: Fields) -> None:
    """Refuse what no chat template renders: no user, no answer at the end, two of one role in a row."""
    spoken = [m for m in messages if m.role != "system"]
    if not spoken or not any(m.text.strip() or m.images for m in spoken if m.role == "user"):
        raise RowFault("E203", "the instruction is empty")
    if spoken[0].role == "assistant":
        raise RowFault("E204", "the conversation begins with the assistant; it must begin with the user")
    if spoken[-1].role != "assistant":
        raise RowFault("E201", "the conversation does not end with a response of the assistant")
    tools = any(isinstance(t, Mapping) and t.get("role", t.get("from")) in _TOOL_ROLES for t in _listed(fields))
    twice = next((a.role for a, b in itertools.pairwise(spoken) if a.role == b.role), None)
    if twice and not tools:
        raise RowFault("E204", f"two {twice} messages stand in a row; user and assistant must take turns")


def _listed(fields: Fields) -> list[object]:
    found = fields.get("messages") or fields.get("conversations") or fields.get("conversation")
    return found if isinstance(found, list) else []


def _system(fields: Fields) -> tuple[Message, ...]:
    text = _text(fields, "system", optional=True)
    return (Message("system", text),) if text.strip() else ()


def _text(fields: Fields, name: str, optional: bool = False) -> str:
    value = fields.get(name)
    if isinstance(value, str):
        return value
    if value is None and optional:
        return ""
    if name not in fields:
        _missing(fields, name)
    raise RowFault("E202", f'"{name}" must be a text, not {_kind(value)}')


def _missing(fields: Fields, name: str) -> Any:  # Any: never returns
    wanted = 'neither "output" nor "response"' if name == "response" else f'no "{name}"'
    raise RowFault("E201", f"record has {wanted}; its fields are {', '.join(map(str, fields))[:120] or 'none'}")


def _first(fields: Fields, names: Sequence[str]) -> str:
    found = next((n for n in names if n in fields), None)
    return found if found is not None else cast(str, _missing(fields, names[0]))


def _rest(fields: Fields, read: set[str]) -> dict[str, object]:
    return {k: v for k, v in fields.items() if k not in read}


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _write_alpaca(record: Record, source: Fields) -> dict[str, Any]:
    answer = "output" if "output" in source or "response" not in source else "response"
    asked = record.prompt[-1].text
    given = source.get("input") or ""
    unchanged = given.strip() and asked.endswith(f"\n\n{given}")
    if unchanged:
        return {"instruction": asked.removesuffix(f"\n\n{given}"), answer: record.response}
    return {"instruction": asked, **({"input": ""} if "input" in source else {}), answer: record.response}


def _write_pair(record: Record, source: Fields) -> dict[str, Any]:
    ask, answer = _first(source, _PROMPTS), _first(source, _ANSWERS)
    if isinstance(source[ask], list):
        return {ask: _turns_out(record.prompt, source[ask]), answer: _turns_out(record.messages[-1:], source[answer])}
    return {ask: record.prompt[-1].text, answer: record.response}


def _write_list(record: Record, source: Fields) -> dict[str, Any]:
    name = next(n for n in ("messages", "conversations", "conversation") if n in source)
    system = isinstance(source.get("system"), str) and source["system"].strip() and name != "messages"
    return {name: _turns_out(record.messages[1:] if system else record.messages, source[name])}


def _write_preference(record: Record, source: Fields) -> dict[str, Any]:
    chosen = source["chosen"]
    if isinstance(chosen, str):
        return {"chosen": record.response}
    turns = _turns_out(record.messages[-1:], chosen[-1:] if isinstance(chosen, list) else [chosen])
    return {"chosen": [*chosen[:-1], *turns] if isinstance(chosen, list) else turns[0]}


def _turns_out(messages: Sequence[Message], source: object) -> list[dict[str, Any]]:
    """The messages in the words of the source: its key names, its role names, its further fields."""
    old = [t for t in source if isinstance(t, Mapping)] if isinstance(source, list) else []
    role, text = ("from", "value") if old and "from" in old[0] else ("role", "content")
    words = {_ROLES[t[role]]: t[role] for t in reversed(old) if t.get(role) in _ROLES}
    spelt = {"user": "human", "assistant": "gpt"} if role == "from" else {}
    out = []
    for number, message in enumerate(messages):
        same = old[number] if number < len(old) and _ROLES.get(str(old[number].get(role))) == message.role else {}
        if same and _turn(same, "").text == message.text:
            out.append(dict(same))
        else:
            said = same.get(role) or words.get(message.role) or spelt.get(message.role, message.role)
            out.append({**same, role: said, text: message.text})
    return out


_WRITERS: dict[Format, Callable[[Record, Fields], dict[str, Any]]] = {
    "alpaca": _write_alpaca, "sharegpt": _write_list, "messages": _write_list, "prompt-completion": _write_pair,
    "preference": _write_preference,
}  # fmt: skip
