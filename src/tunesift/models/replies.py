"""What does an endpoint's answer say? Read strictly: what is not exactly right is a fault, never a guess."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from tunesift.json_text import JsonFault, parse_json
from tunesift.models.base import Completion
from tunesift.models.faults import Fault, refusal

Reply = dict[str, Any]  # Any: JSON of an endpoint, checked place by place below

_STOPS = {"stop": "stop", "eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop",
          "length": "length", "max_tokens": "length"}  # fmt: skip
_ROUNDING = 1e-4
"""A log-probability so little above zero is zero."""


def protocol(code: str, message: str) -> Fault:
    """An answer that does not keep to the protocol."""
    return Fault("protocol", code, message)


def parsed(body: bytes) -> Reply:
    """The JSON object that an answer is; raises `Fault`."""
    if not body.strip():
        raise protocol("E622", "the answer is empty")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise protocol("E621", f"the answer is not UTF-8 at byte {error.start}") from None
    try:
        value, end = parse_json(text, len(text) - len(text.lstrip()))
    except JsonFault as fault:
        raise _not_json(text, fault) from None
    if text[end:].strip():
        raise protocol("E625", "something follows the answer's JSON")
    if not isinstance(value, dict):
        raise protocol("E623", f"the answer is no JSON object but {json.dumps(value)[:20]}")
    if value.get("error"):
        raise refusal(200, {}, value)
    return value


def _not_json(text: str, fault: JsonFault) -> Fault:
    if text.lstrip()[:1] == "<":
        return protocol("E623", "the answer is a web page; url may be wrong, or a login page stands in between")
    if fault.code == "E302":
        return Fault("row", "E637", "the answer has half of a surrogate pair in it, which no file can hold")
    if fault.code == "E303" and _only_probabilities_are_not_finite(text):
        return Fault("row", "E641", "a log-probability in the answer is not a number", failure="not-finite")
    codes = {"E102": "E620", "E103": "E623"}
    return protocol(codes.get(fault.code, "E625"), f"the answer cannot be read: {fault.message}")


def _only_probabilities_are_not_finite(text: str) -> bool:
    """Whether every NaN and Infinity of a text stands among log-probabilities."""

    def finite(value: object) -> bool:
        if isinstance(value, dict):
            return all(finite(v) for k, v in value.items() if k not in ("logprobs", "prompt_logprobs"))
        if isinstance(value, list):
            return all(map(finite, value))
        return not isinstance(value, float) or math.isfinite(value)

    try:
        return finite(json.loads(text))
    except (ValueError, RecursionError):
        return False  # something else is wrong with it, behind the first number that is none


def streamed(body: bytes) -> Reply:
    """The chat completion that server-sent events spell out, as if it had come at once; raises `Fault`."""
    if not body.strip():
        raise protocol("E622", "the answer is empty")
    whole: Reply = {"choices": []}
    choices: dict[object, dict[str, Any]] = {}  # Any: JSON
    done = False
    for event in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
        if data == b"[DONE]":
            done = True
        elif data:
            part = parsed(data)
            whole |= {k: v for k, v in part.items() if k != "choices" and v is not None}
            _add(choices, part.get("choices"))
        elif event.strip() and not event.lstrip().startswith((b":", b"event:", b"id:", b"retry:")):
            raise protocol("E623", "the answer is no stream of events")
    whole["choices"] = list(choices.values())
    if not done and not (choices and all(c["finish_reason"] for c in choices.values())):
        raise protocol("E620", "the stream ends before the answer does")
    return whole


def _add(choices: dict[object, dict[str, Any]], deltas: object) -> None:  # Any: JSON
    for delta in deltas if isinstance(deltas, list) else []:
        if not isinstance(delta, dict) or not isinstance(delta.get("index"), int):
            raise protocol("E626", "a part of the stream does not say which choice it belongs to")
        said = delta.get("delta")
        said = said if isinstance(said, dict) else {}
        choice = choices.setdefault(delta["index"], {"index": delta["index"], "message": {"content": None},
                                                     "finish_reason": None})  # fmt: skip
        message = choice["message"]
        if isinstance(said.get("content"), str):
            message["content"] = (message["content"] or "") + said["content"]
        message |= {"tool_calls": said["tool_calls"]} if said.get("tool_calls") else {}
        choice["finish_reason"] = delta.get("finish_reason") or choice["finish_reason"]


def choices(reply: Reply, count: int) -> list[Reply]:
    """The choices of a reply in their order; raises `Fault` unless there are exactly so many."""
    found = reply.get("choices")
    if not isinstance(found, list) or not found or not all(isinstance(c, dict) for c in found):
        raise protocol("E624", "the answer has no choices")
    return ordered(found, count)


def ordered(found: list[Reply], count: int) -> list[Reply]:
    """Numbered parts of a reply in their order; raises `Fault` where one is missing, or there twice."""
    if len(found) != count:
        raise protocol("E626", f"{count} were asked for and {len(found)} came")
    if count == 1 and "index" not in found[0]:
        return found
    by_index = {c.get("index"): c for c in found if type(c.get("index")) is int}
    if set(by_index) != set(range(count)):
        raise protocol("E626", "the parts of the answer are not numbered from 0 on, each once")
    return [by_index[n] for n in range(count)]


def completions(reply: Reply, count: int, tokens: int) -> tuple[Completion, ...]:
    """What was said, so many times; `tokens` are those of all of them."""
    return tuple(_completion(choice, tokens // count) for choice in choices(reply, count))


def served(reply: Reply) -> tuple[str, ...]:
    """Names of the models that a list of them holds, each once; raises `Fault`."""
    found = reply.get("data", "")
    listed = found if isinstance(found, list) else [] if found is None else [found]  # null is a list of none
    names = [model.get("id") if isinstance(model, dict) else None for model in listed]
    if not all(isinstance(name, str) and name for name in names):
        raise protocol("E624", "the answer is no list of models")
    return tuple(dict.fromkeys(map(str, names)))


def _completion(choice: Reply, tokens: int) -> Completion:
    message, ended = choice.get("message"), choice.get("finish_reason")
    if not isinstance(message, dict):
        raise protocol("E624", "a choice has no message")
    if ended == "content_filter":
        raise Fault("row", "E632", "the endpoint's content filter held the answer back", failure="refused")
    if message.get("tool_calls") or ended in ("tool_calls", "function_call"):
        raise Fault("row", "E635", "the model called a tool that it was not given", failure="refused")
    if ended not in _STOPS:
        raise protocol("E624", f"a choice ended for an unknown reason ({json.dumps(ended)[:40]})")
    text = message.get("content")
    if text is None and isinstance(message.get("refusal"), str):
        raise Fault("row", "E632", "the model refused to answer", failure="refused")
    if text is None and _STOPS[ended] == "length":
        text = ""  # every token went into thinking that is not shown
    if not isinstance(text, str):
        raise protocol("E624", "a choice has no text")
    return Completion(text, "stop" if _STOPS[ended] == "stop" else "length", tokens)


def echoed(choice: Reply, ids: Sequence[int]) -> list[float | None]:
    """Log-probability of each token of a prompt that the endpoint repeated; None for the first."""
    found = choice.get("logprobs")
    numbers = found.get("token_logprobs") if isinstance(found, dict) else None
    if not isinstance(numbers, list) or not len(ids) <= len(numbers) <= len(ids) + 1:
        raise _wrong_probabilities("they are not one for each token")
    return _probabilities(numbers[: len(ids)])


def of_prompt(choice: Reply, ids: Sequence[int]) -> list[float | None]:
    """The same as vLLM gives it, each under the token's number."""
    found = choice.get("prompt_logprobs")
    if not isinstance(found, list) or len(found) != len(ids):
        raise _wrong_probabilities("they are not one for each token")
    numbers: list[object] = []
    for id, entry in zip(ids, found, strict=True):
        named = entry.get(str(id)) if isinstance(entry, dict) else None
        numbers.append(named.get("logprob") if isinstance(named, dict) else named)
    return _probabilities(numbers)


def _probabilities(numbers: list[Any]) -> list[float | None]:  # Any: JSON, checked here
    checked: list[float | None] = [None]
    for number in numbers[1:]:
        if type(number) not in (int, float):
            raise _wrong_probabilities(f"one is {json.dumps(number)[:20]}")
        if number > _ROUNDING:
            raise _wrong_probabilities(f"one is {number:g}, which is above 0")
        checked.append(min(0.0, float(number)))
    return checked


def _wrong_probabilities(why: str) -> Fault:
    return Fault("row", "E640", f"the answer's log-probabilities are not what was asked for: {why}")


def vectors(reply: Reply, count: int) -> list[tuple[float, ...]]:
    """One vector for each text, all of one size, none of them zero; raises `Fault`."""
    found = reply.get("data")
    if not isinstance(found, list) or not all(isinstance(d, dict) for d in found) or len(found) != count:
        raise protocol("E628", f"{count} vectors were asked for and the answer has another number of them")
    rows = [d.get("embedding") for d in ordered(found, count)]
    for row in rows:
        if not isinstance(row, list) or not row or not all(type(x) in (int, float) for x in row):
            raise protocol("E628", "a vector is no list of numbers")
        if not any(row):
            raise protocol("E628", "a vector is all zeros")
    made = [tuple(map(float, row)) for row in rows if isinstance(row, list)]
    if len({len(row) for row in made}) > 1:
        raise protocol("E628", "the vectors have different sizes")
    return made
