"""What do a row's fields mean? Alpaca, ShareGPT, chat messages, prompt/completion and preference pairs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

import orjson

from tunesift.errors import shown
from tunesift.image_fields import COLUMNS, IMAGE_PARTS, MEDIA_MARK, image_of, with_images
from tunesift.json_text import kind_of
from tunesift.records import WORDS, Failure, Fields, Message, Preference, Record, Role, RowFault, content_id

Format = Literal["alpaca", "sharegpt", "messages", "prompt-completion", "preference"]

MAX_TURNS = 1000
MAX_ID = 1024
"""Bytes of an id."""

ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "human": "user", "user": "user", "prompter": "user",
    "gpt": "assistant", "assistant": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "function_call": "assistant",
    "tool": "user", "observation": "user", "function": "user", "function_response": "user",
}  # fmt: skip
_TOOL_ROLES = frozenset({"tool", "observation", "function", "function_response", "function_call"})
PROMPTS, ANSWERS = ("prompt", "instruction", "question"), ("completion", "response", "answer")
TOPIC = "topic"
PREFERENCE: Format = "preference"
"""The format of which a record has the chosen answer alone."""
USES_TOOLS = "tunesift.tools"
"""In a record's `extra`: its turns are not all a person's and an assistant's words."""
_CALLS = ("tool_calls", "function_call")
"""Fields of a turn that calls a tool."""
TEXT_PARTS = ("text", "reasoning", "tool_call")


@dataclass(frozen=True, slots=True)
class Parsed:
    """A row's meaning before it has an id: prompt, answer, and for preferences the rejected answer."""

    messages: tuple[Message, ...]
    rejected: Message | None
    extra: dict[str, object]
    own_id: str | None


@dataclass(frozen=True, slots=True)
class Allowed:
    """What else may stand for an exchange of user and assistant."""

    empty: bool = False
    """An empty instruction."""
    turns: bool = False
    """Turns in any order: the assistant first, two of one role in a row, no response at the end."""
    prompts: bool = False
    """No response yet: a model is to write it."""


STRICT = Allowed()
ANYTHING = Allowed(empty=True, turns=True, prompts=True)


def recognise(fields: Fields, prompts: bool = False) -> Format | None:
    """The format whose fields a row has, with `prompts` also a topic or prompt alone; None when it has none."""
    if "chosen" in fields and "rejected" in fields:
        return "preference"
    if prompts and isinstance(fields.get("prompt"), str) and "messages" in fields:
        return "prompt-completion"  # of a conversation and what began it, the latter is asked
    if "messages" in fields:
        return "messages"
    if "conversations" in fields or "conversation" in fields:
        return "sharegpt"
    if "instruction" in fields and ("output" in fields or "input" in fields or given_name(fields) == "context"):
        return "alpaca"
    if any(p in fields for p in PROMPTS) and any(a in fields for a in ANSWERS):
        return "prompt-completion"
    if prompts and "instruction" not in fields and any(p in fields for p in (*PROMPTS, TOPIC)):
        return "prompt-completion"
    return "alpaca" if "instruction" in fields else None


def parse_row(fields: Fields, format: Format, allowed: Allowed = STRICT) -> Parsed:
    """What a row says in the given format; raises `RowFault` naming the field and what it should hold."""
    blank = _no_answer(fields, format) if allowed.prompts else {}
    parsed = _READERS[format]({**fields, **blank} if blank else fields)
    said = () if parsed.rejected is None else parsed.messages[-1:]  # of a pair, images belong to its prompt
    messages = (*with_images(parsed.messages[:-1] if blank or said else parsed.messages, fields), *said)
    check_turns(messages, fields, allowed)
    extra = {**parsed.extra, USES_TOOLS: True} if _uses_tools(fields) else parsed.extra
    return Parsed(messages, parsed.rejected, extra, own_id(fields))


def _no_answer(fields: Fields, format: Format) -> dict[str, str]:
    """An answer to read a row with that has none, where its format keeps answers in a field of their own."""
    name = {"alpaca": "output", "prompt-completion": ANSWERS[0]}.get(format)
    if name is None or any(fields.get(a) is not None for a in ("output", *ANSWERS)):
        return {}
    return {name: ""}


def given_name(fields: Fields) -> str:
    """The field of what an instruction is about: `input`, or Dolly's `context` beside a `response`."""
    return "context" if "input" not in fields and "context" in fields and "response" in fields else "input"


def own_id(fields: Fields) -> str | None:
    """The id that the file gives the row, if any; whole numbers are spelt as text."""
    value = fields.get("id")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise RowFault("E210", f'"id" must be a text or a whole number, not {kind_of(value)}')
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
        raise _no_pair(parsed.extra)
    prompt, chosen = parsed.messages[:-1], parsed.messages[-1]
    more = {name: value for name, value in parsed.extra.items() if name != "margin"}
    given = parsed.extra.get("margin")
    margin = _number(given)
    if margin is None and given not in (None, ""):
        more = parsed.extra
    return Preference(record_of(parsed).id, prompt, chosen, parsed.rejected, margin, more)


def _number(value: object) -> float | None:
    """A number, or a text that is one, as cells of tables hold them; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _no_pair(fields: Fields) -> RowFault:
    """What a row lacks that is no pair, such as TRL's unpaired one, which KTO learns from."""
    needs = 'a preference pair needs "chosen" and "rejected"'
    if isinstance(fields.get("label"), bool):
        return RowFault("E201", f'the row is one answer with a "label", which is no pair; {needs}')
    return RowFault("E201", needs)


def _alpaca(fields: Fields) -> Parsed:
    output = "output" if "output" in fields else "response"
    about = given_name(fields)
    instruction, given = _text(fields, "instruction"), _text(fields, about, optional=True)
    history = _history(fields.get("history") or [])
    messages = (
        *_system(fields),
        *history,
        _asked(instruction, given),
        Message("assistant", _text(fields, output)),
    )
    read = {"id", "instruction", output, "system", "history", *COLUMNS, *(() if given.strip() else (about,))}
    return Parsed(messages, None, _rest(fields, read), None)


def _history(turns: object) -> list[Message]:
    pairs: list[Any] = turns if isinstance(turns, list) else [turns]  # Any: whatever JSON holds
    if not all(isinstance(p, list) and len(p) == 2 and all(isinstance(t, str) for t in p) for p in pairs):
        raise RowFault("E202", '"history" must be a list of pairs of texts')
    return [m for asked, said in pairs for m in (Message("user", asked), Message("assistant", said))]


def _pair(fields: Fields) -> Parsed:
    ask, answer = first_of(fields, PROMPTS), first_of(fields, ANSWERS)
    prompt = fields[ask]
    start = _turns(prompt, ask) if isinstance(prompt, list) else (Message("user", _text(fields, ask)),)
    messages = (*_system(fields), *start, *_answer(fields, answer))
    return Parsed(messages, None, _rest(fields, {"id", ask, answer, "system", *COLUMNS}), None)


def _messages(fields: Fields) -> Parsed:
    messages = _turns(fields["messages"], "messages") if "messages" in fields else _missing(fields, "messages")
    return Parsed(messages, None, _rest(fields, {"id", "messages", *COLUMNS}), None)


def _sharegpt(fields: Fields) -> Parsed:
    name = "conversations" if "conversations" in fields else "conversation"
    turns = _turns(fields[name], name) if name in fields else _missing(fields, name)
    return Parsed((*_system(fields), *turns), None, _rest(fields, {"id", name, "system", *COLUMNS}), None)


def _preference(fields: Fields) -> Parsed:
    if "chosen" not in fields and "rejected" not in fields:
        raise _no_pair(fields)
    chosen, rejected = (_answer(fields, name) for name in ("chosen", "rejected"))
    if "conversations" in fields:
        prompt: tuple[Message, ...] = _turns(fields["conversations"], "conversations")
        read = {"conversations"}
    elif any(p in fields for p in PROMPTS):
        ask = first_of(fields, PROMPTS)
        given = _text(fields, "input", optional=True) if ask == "instruction" else ""
        prompt = _turns(fields[ask], ask) if isinstance(fields[ask], list) else (_asked(_text(fields, ask), given),)
        read = {ask, "input"} if ask == "instruction" and not given.strip() else {ask}
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
    return Parsed(messages, rejected[0], _rest(fields, {"id", "chosen", "rejected", "system", *COLUMNS, *read}), None)


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
        raise RowFault("E202", f'"{name}" must be a list of messages, not {kind_of(value)}')
    if not value:
        raise RowFault("E203", f'"{name}" has no messages')
    if len(value) > MAX_TURNS:
        raise RowFault("E403", f'"{name}" has {len(value)} messages, more than {MAX_TURNS}')
    return tuple(parse_turn(turn, f"{name}[{number}]") for number, turn in enumerate(value))


def parse_turn(turn: object, name: str) -> Message:
    """One turn of a conversation; `name` is what messages call it."""
    if not isinstance(turn, Mapping):
        raise RowFault("E202", f'"{name}" must be a message, not {kind_of(turn)}')
    said = turn.get("role", turn.get("from"))
    role = ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise RowFault("E204", f'"{name}" has the role "{shown(str(said))}"; use system, user, assistant or tool')
    content = turn.get("content", turn.get("value"))
    if not content and turn.get("tool_calls"):
        return Message(role, orjson.dumps(turn["tool_calls"], default=str).decode())
    if isinstance(content, list):
        return _parts(role, content, name)
    if not isinstance(content, str):
        raise RowFault("E202", f'"{name}" must have a text, not {kind_of(content)}')
    return Message(role, content)


def _parts(role: Role, parts: Sequence[object], name: str) -> Message:
    texts: list[str] = []
    images: list[str] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = cast(Fields, part).get("text", cast(Fields, part).get("value")) if kind in TEXT_PARTS else None
        if isinstance(text, str):
            texts.append(text)
        elif kind in IMAGE_PARTS:
            images.append(image_of(cast(Fields, part), name))
            texts.append(MEDIA_MARK)
        else:
            raise RowFault("E202", f'"{name}" has a part that is neither text nor image')
    return Message(role, "".join(texts), tuple(images))


def check_turns(messages: tuple[Message, ...], fields: Fields, allowed: Allowed) -> None:
    """Refuse what no chat template renders: no user, no answer at the end, two of one role in a row."""
    spoken = [m for m in messages if m.role != "system"]
    if not spoken or not (allowed.empty or not is_empty(spoken)):
        raise RowFault("E203", "the instruction is empty")
    if allowed.turns:
        return
    if spoken[0].role == "assistant":
        raise RowFault("E204", "the conversation begins with the assistant; it must begin with the user")
    if spoken[-1].role != "assistant" and not allowed.prompts:
        raise RowFault("E201", "the conversation does not end with a response of the assistant")
    twice = next((a.role for a, b in itertools.pairwise(spoken) if a.role == b.role), None)
    if twice and not _uses_tools(fields):
        raise RowFault("E204", f"two {twice} messages stand in a row; user and assistant must take turns")


def is_empty(messages: Sequence[Message]) -> bool:
    """Whether the user says nothing."""
    return not any(m.text.strip() or m.images for m in messages if m.role == "user")


def untrainable(record: Record, empty: bool = False) -> Failure | None:
    """Why no model of texts is trained on a record: it has no response, unless it may be empty, or images, or tools;
    None where one is."""
    if not empty and not record.response.strip():
        return Failure("empty", WORDS["empty_response"])
    if any(message.images for message in record.messages):
        return Failure("refused", "the record has images, which a text model does not read")
    if record.extra.get("tools") or record.extra.get(USES_TOOLS):
        return Failure("refused", "the record uses tools, which templates here do not show")
    return None


def _uses_tools(fields: Fields) -> bool:
    """Whether a turn is a tool's, or calls one."""
    turns = [turn for value in fields.values() if isinstance(value, list) for turn in value]
    return any(
        isinstance(t, Mapping)
        and (str(t.get("role", t.get("from"))) in _TOOL_ROLES or any(t.get(name) for name in _CALLS))
        for t in turns
    )


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
    raise RowFault("E202", f'"{name}" must be a text, not {kind_of(value)}')


def _missing(fields: Fields, name: str) -> NoReturn:
    wanted = 'neither "output" nor "response"' if name == "response" else f'no "{name}"'
    raise RowFault("E201", f"record has {wanted}; its fields are {shown(', '.join(fields)) or 'none'}")


def first_of(fields: Fields, names: Sequence[str]) -> str:
    """The first of these names that the row has a field for; raises `RowFault` where it has none."""
    found = next((n for n in names if n in fields), None)
    return found if found is not None else _missing(fields, names[0])


def _rest(fields: Fields, read: set[str]) -> dict[str, object]:
    return {k: v for k, v in fields.items() if k not in read}
