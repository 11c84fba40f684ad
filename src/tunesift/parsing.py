"""From a completion to a rating, a section, a verdict or a JSON value; or to a Failure, never to a guess.

A completion is kept by whoever asked for it, apart from what is read from it here, so that a better reader needs no new
call. Every reader takes time in proportion to the text: a model may write a million brackets.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tunesift.errors import shown
from tunesift.json_text import JsonFault, parse_json
from tunesift.records import Failure

MOST_TEXT = 2**17
"""Characters of a completion that are read."""
MOST_STARTS = 16
"""Brackets of a completion at which a JSON value is looked for."""

Verdict = Literal["first", "second", "tie"]

_LOG = logging.getLogger(__name__)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d{1,9}(?:\.\d{1,9})?(?![\w]|\.\d)")
_SCALE = re.compile(r"\s{0,3}(?:/|out\s+of|of)\s{0,3}\d{1,9}", re.I)
_NAMED = re.compile(r"(?:rating|score|grade)\b[\"'*\s]{0,8}(?:[:=]|is)[\"'*\s\[(]{0,8}", re.I)
_THOUGHTS = ("</think>", "</thinking>")
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|,\s*+(?=[}\]])', re.S)
"""A string, also one that never ends, or a comma before a closing bracket."""
_FENCE = re.compile(r"```[a-zA-Z]{0,10}[ \t]*\n")


@dataclass(frozen=True, slots=True)
class Scale:
    """The numbers that a rating may be."""

    least: float
    most: float
    whole: bool = False


def rating(text: str, scale: Scale) -> float | Failure:
    """The number that a completion rates something with: `7`, `Rating: 7/10`, `**Score**: 7.5`.

    A number after the word rating, score or grade counts before others; two different ones are no rating, and so is a
    number off the scale.
    """
    said = answer_of(text)
    if isinstance(said, Failure):
        return said
    named = [number for match in _NAMED.finditer(said) if (number := _NUMBER.match(said, match.end()))]
    values = {float(match[0]) for match in named or _without_scales(said)}
    if len(values) != 1:
        return _unreadable("holds several numbers that may be the rating" if values else "holds no number", said)
    value = values.pop()
    if not scale.least <= value <= scale.most or (scale.whole and value != int(value)):
        return _unreadable(f"{value:g} is not on the scale from {scale.least:g} to {scale.most:g}", said)
    return value


def two_ratings(text: str, scale: Scale) -> tuple[float, float] | Failure:
    """Two numbers on the first line that has any, as pairwise judges are asked to begin with: `8 6`."""
    said = answer_of(text)
    if isinstance(said, Failure):
        return said
    for line in said.splitlines():
        values = [float(match[0]) for match in _NUMBER.finditer(line)]
        if values:
            if len(values) == 2 and all(scale.least <= v <= scale.most for v in values):
                return values[0], values[1]
            return _unreadable("its first line with numbers is not two on the scale", said)
    return _unreadable("holds no number", said)


def section(text: str, begin: str, end: str = "") -> str | Failure:
    """What stands between two marks, such as `[New Instruction]` and `[End]`; to the end of the text without a second.

    Where the second mark is missing, the rest of the text is taken, which is logged: models forget to close.
    """
    said = answer_of(text)
    if isinstance(said, Failure):
        return said
    at = said.find(begin)
    if at < 0:
        return _unreadable(f'lacks the mark "{shown(begin)}"', said)
    start = at + len(begin)
    if said.find(begin, start) >= 0:
        return _unreadable(f'has the mark "{shown(begin)}" twice', said)
    stop = said.find(end, start) if end else len(said)
    if stop < 0:
        _repaired(f'the mark "{shown(end)}" is missing; took the rest')
        stop = len(said)
    inside = said[start:stop].strip()
    return inside or Failure("empty", f'the section "{shown(begin)}" is empty')


def verdict(text: str, marks: Mapping[str, Verdict]) -> Verdict | Failure:
    """Which of the marks a completion gives last: `{"[[A]]": "first", "[[B]]": "second", "[[C]]": "tie"}`.

    Judges weigh aloud, "[[A]] is tempting", before they decide.
    """
    said = answer_of(text)
    if isinstance(said, Failure):
        return said
    last = max(marks, key=said.rfind)
    return marks[last] if last in said else _unreadable("gives no verdict", said)


def json_value(text: str, fields: Sequence[str] = ()) -> dict[str, Any] | Failure:  # Any: JSON
    """The one JSON object of a completion, strictly read, with at least these fields.

    Whatever stands around it, a fence or a remark, is passed over, and so is a comma before a closing bracket, once and
    logged; two objects are no answer.
    """
    said = answer_of(text)
    if isinstance(said, Failure):
        return said
    found = list(_objects(said))
    if not found:
        mended = _without_last_commas(said)
        found = list(_objects(mended)) if mended != said else []
        if found:
            _repaired("took a comma away before a closing bracket")
    if len(found) != 1:
        return _unreadable("holds no JSON object" if not found else f"holds {len(found)} JSON objects", said)
    missing = [name for name in fields if name not in found[0]]
    if missing:
        return _unreadable(f'its JSON object lacks "{shown(missing[0])}"', said)
    return found[0]


def answer_of(text: str) -> str | Failure:
    """The completion without what a model thought aloud before it."""
    if len(text) > MOST_TEXT:
        return Failure("unreadable", f"the completion has {len(text)} characters, more than {MOST_TEXT}")
    said = text[max((text.rfind(mark) + len(mark) for mark in _THOUGHTS if mark in text), default=0) :]
    return said if said.strip() else Failure("empty", "the completion is empty")


def _without_scales(said: str) -> Iterator[re.Match[str]]:
    """The numbers that are not the end of a scale: of `7/10` and `7 out of 10` the first only."""
    passed = 0
    for match in _NUMBER.finditer(said):
        if match.start() >= passed:
            yield match
        if scale := _SCALE.match(said, match.end()):
            passed = scale.end()


def _objects(said: str) -> Iterator[dict[str, Any]]:  # Any: JSON
    """Every JSON object that is not inside another, of the first places where one may begin."""
    fences = [match.end() for match in _FENCE.finditer(said)]
    at = said.find("{", fences[0] if fences else 0)
    if fences and at < 0:
        at = said.find("{")
    for _ in range(MOST_STARTS):
        if at < 0:
            return
        try:
            value, end = parse_json(said, at)
        except JsonFault:
            end = at + 1
        else:
            yield value
        at = said.find("{", end)


def _without_last_commas(said: str) -> str:
    """The text without commas that stand before a closing bracket, outside of strings."""
    return _TOKEN.sub(lambda token: "" if token[0][0] == "," else token[0], said)


def _unreadable(why: str, said: str) -> Failure:
    return Failure("unreadable", f'the completion {why}: "{shown(" ".join(said[:200].split()))}"')


def _repaired(what: str) -> None:
    _LOG.info("repaired a completion: %s", what)
