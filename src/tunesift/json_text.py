"""Which JSON do we accept, and where does a value end that is none?"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tunesift.errors import shown

MAX_LINE = 16 * 2**20
"""Bytes of one row; a longer one is quarantined."""
MAX_DEPTH = 64
"""Levels of nesting of one row."""

_DEPTH_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.S)
_PLAIN_ELEMENT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^,\]\s]+', re.S)
_FIRST_INDENT = re.compile(r"[ \t\r]*\n([ \t]+)\{")
_FIRST_KEY = re.compile(r'\s*\{\s*("[^"\\]*(?:\\.[^"\\]*)*")\s*:', re.S)
_SURROGATE = re.compile("[\ud800-\udfff]")


class JsonFault(ValueError):
    """A JSON text that we do not accept: its code, what is wrong, and at which character."""

    def __init__(self, code: str, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.code, self.message, self.position = code, message, position


def folded(name: str) -> str:
    """A name without what differs between two spellings of it: case, and the form of its accents."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """The first two of these names that are one but for case or accents' form; None where all differ."""
    seen: dict[str, str] = {}
    for name in names:
        if (first := seen.get(folded(name))) is not None:
            return first, name
        seen[folded(name)] = name
    return None


def kind_of(value: object) -> str:
    """What kind of thing a value is, as messages name it."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(k for k, _ in pairs).items() if count > 1)
        raise JsonFault("E305", f'the key "{shown(twice)}" stands twice')
    return found


def _constant(name: str) -> float:
    raise JsonFault("E303", f"{name} is not a JSON number")


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise JsonFault("E303", f"{text[:20]} is too large for a number")
    return value


def _int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise JsonFault("E304", f"the whole number {text[:24]} has more than 64 bits")
    return int(text)


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int)
_ANY_JSON = json.JSONDecoder(parse_int=float)
"""Finds where a value ends, whatever it holds."""


def parse_json(text: str, start: int = 0) -> tuple[Any, int]:  # Any: JSON
    """The JSON value that begins at `start` and where it ends; raises `JsonFault` for what we do not accept."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError:
        raise JsonFault("E402", f"nested deeper than {MAX_DEPTH} levels", start) from None
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        said = error.msg[0].lower() + error.msg[1:].removesuffix(" at")
        code, hint = ("E102", "the text ends too early") if cut else ("E103", said)
        raise JsonFault(code, f"not valid JSON: {hint}", error.pos) from None
    if text.count("{", start, end) + text.count("[", start, end) > MAX_DEPTH and _depth(text, start, end) > MAX_DEPTH:
        raise JsonFault("E402", f"nested deeper than {MAX_DEPTH} levels", start)
    if text.find("\\u", start, end) >= 0 and _has_surrogate(value):
        raise JsonFault("E302", "half of a surrogate pair stands alone in a text", start)
    return value, end


def _depth(text: str, start: int, end: int) -> int:
    depth = deepest = 0
    for token in _DEPTH_TOKEN.finditer(text, start, end):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        deepest = max(deepest, depth)
    return deepest


def _has_surrogate(value: object) -> bool:
    if isinstance(value, str):
        return bool(_SURROGATE.search(value))
    if isinstance(value, dict):
        return any(_has_surrogate(k) or _has_surrogate(v) for k, v in value.items())
    return isinstance(value, list) and any(map(_has_surrogate, value))


def sibling_start(text: str, start: int) -> re.Pattern[str] | None:
    """How an array's elements begin, judging by the first: on a line, as deep; or with a key, where all is one line."""
    if indent := _FIRST_INDENT.match(text, start):
        return re.compile(rf"\n{indent[1]}(?=\{{)")
    key = _FIRST_KEY.match(text, start)
    return re.compile(rf",\s*(?=\{{\s*{re.escape(key[1])}\s*:)") if key else None


def element_end(text: str, start: int, sibling: re.Pattern[str] | None) -> int | None:
    """Where an array's element ends; a broken one ends where its brackets balance or the next one seems to begin."""
    try:
        return _ANY_JSON.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        pass
    if text[start] not in "{[":
        plain = _PLAIN_ELEMENT.match(text, start)
        return plain.end() if plain and plain.end() < len(text) else None
    near = start + MAX_LINE
    following = sibling.search(text, start + 1, near) if sibling else None
    end = _balance(text, start, following.start() if following else near)
    if end is None and sibling and not following:
        following = sibling.search(text, start + 1)
    return end if end is not None or following is None else following.start()


def _balance(text: str, start: int, stop: int) -> int | None:
    """Where the bracket that begins at `start` is closed before `stop`; one that closes nothing is passed over."""
    opened: list[str] = []
    still = {"{": 0, "[": 0}
    for token in _DEPTH_TOKEN.finditer(text, start, start + MAX_LINE):
        if token.end() > stop:
            return None
        if token[0] in still:
            opened.append(token[0])
            still[token[0]] += 1
        elif still.get(opener := {"}": "{", "]": "["}.get(token[0], "")):
            while (last := opened.pop()) != opener:
                still[last] -= 1
            still[opener] -= 1
            if not opened:
                return token.end()
    return None
