"""What did the teacher write? From a completion to a new pair, or to the reason why it is none.

The teacher is asked for sections, `[New Answer] … [End]`, and does not always write them so. A mark counts in brackets
anywhere, or at the start of a line with a colon or in bold. The last one counts: a teacher may talk about its marks
before it uses them, and a body may hold an `[End]` of its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tunesift.language import switch
from tunesift.models.base import Completion
from tunesift.parsing import answer_of
from tunesift.records import Failure, Record

UNCHANGED = Failure("unreadable", "unchanged")
"""The teacher left everything as it was."""
INSTRUCTION, ANSWER, BETTER = "New Instruction", "New Answer", "Better Answer"

_END = re.compile(r"\*{0,3}\[\s{0,3}End\s{0,3}\]\*{0,3}", re.I)
_NUMBER = re.compile(r"(?:\A|\n)[^\w\n]{0,4}\d{1,3}[.)][ \t*]{0,4}\Z")
_PLACEHOLDERS = frozenset({"", "your answer", "your instruction", "n/a", "none"})
_NOT = (
    r"(?:can(?:no|')t|can not|unable|not able|not capable|won't|will not|must decline|have to decline"
    r"|not possible for me to|(?:do not|don't) have (?:access|the ability))"
)
_REFUSAL = re.compile(
    r"\W{0,8}(?:(?:(?:i'm|i am|we're|we are) (?:very |so |truly |really )?(?:sorry|afraid|unable|not able)"
    r"|sorry|unfortunately|i apologi[sz]e)\b[^.!?\n]{0,60}\b" + _NOT +
    r"|i (?:can(?:no|')t|can not|won't|will not|am unable to|'m unable to|must decline to) "
    r"(?:help|assist|comply|answer|provide|fulfil|fulfill|do that|continue|create|generate|write|complete|engage)\b"
    r"|(?:i'm|i am) (?:unable|not able) to\b|(?:i|we) must decline\b|it(?:'s| is) not possible for me to\b"
    r"|as an? (?:ai|artificial intelligence|(?:large )?language model)\b[^.!?\n]{0,80}\b" + _NOT + r")",
    re.I,
)  # fmt: skip


def _mark(name: str) -> re.Pattern[str]:
    said = name.replace(" ", r"\s{1,3}")
    line = r"^[^\w\n\[]{0,8}?(?:\d{1,3}[^\w\n\[]{1,4}?)?"
    return re.compile(
        rf"\*{{0,3}}\[[\s*]{{0,3}}{said}[\s*]{{0,3}}\]\*{{0,3}}:?"
        rf"|{line}\*\*\s?{said}\s?:?\s?\*\*:?|{line}{said}\s{{0,2}}:",
        re.I | re.M,
    )


_MARKS = {name: _mark(name) for name in (INSTRUCTION, ANSWER, BETTER)}


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What the teacher proposes."""

    answer: str
    instruction: str | None = None
    """None where only the answer was asked for."""
    closed: bool = True
    """Whether the teacher marked the end of its answer."""


def read_pair(said: Completion) -> Rewritten | Failure:
    """A new instruction and its answer, both or none."""
    text = answer_of(said.text)
    if isinstance(text, Failure):
        return text
    answers = _found(ANSWER, text)
    before = text[: answers[-1].start()] if answers else ""
    instructions = _found(INSTRUCTION, before)
    if not instructions:
        return Failure("unreadable", "no_marker")
    found = _closed(text[answers[-1].end() :], said)
    if isinstance(found, Failure):
        return found
    instruction = _NUMBER.sub("", _cut(before[instructions[-1].end() :])[0]).strip()
    return _sound(replace(found, instruction=instruction))


def read_answer(said: Completion) -> Rewritten | Failure:
    """A better answer."""
    text = answer_of(said.text)
    if isinstance(text, Failure):
        return text
    marks = _found(BETTER, text)
    if not marks:
        return Failure("unreadable", "no_marker")
    found = _closed(text[marks[-1].end() :], said)
    return found if isinstance(found, Failure) else _sound(found)


def checked(new: Rewritten, old: Record) -> Rewritten | Failure:
    """What was read, unless it refuses, changes the language, or changes nothing."""
    bodies = [new.answer] if new.instruction is None else [new.instruction, new.answer]
    if any(map(refuses, bodies)):
        return Failure("refused", "refusal")
    said, asked = old.response, old.prompt[-1].text
    changed = switch(asked, new.instruction or "") or switch(said, new.answer)
    if changed:
        return Failure("unreadable", f"language: {changed}")
    if new.answer == said.strip() and new.instruction in (None, asked.strip()):
        return UNCHANGED
    return new


def holds_mark(text: str) -> bool:
    """Whether a text has one of the marks itself, so that a reply that repeats it could not be read rightly."""
    return any(mark.search(text) for mark in _MARKS.values())


def refuses(text: str) -> bool:
    """Whether a text begins by saying, in English, that the model will not or cannot do what it was asked."""
    return _REFUSAL.match(text[:400].replace("’", "'")) is not None


def _found(name: str, text: str) -> list[re.Match[str]]:
    """Where a mark stands; where it stands in brackets, only those."""
    found = list(_MARKS[name].finditer(text))
    return [m for m in found if "[" in m[0]] or found


def _closed(body: str, said: Completion) -> Rewritten | Failure:
    body = body.strip()
    ends = list(_END.finditer(body))
    if said.stop == "length" and not (ends and body.endswith(ends[-1][0])):
        return Failure("too-long", "truncated")
    answer, closed = _cut(body)
    return Rewritten(answer, closed=closed)


def _cut(body: str) -> tuple[str, bool]:
    """The body up to its last `[End]`, and whether it has one."""
    ends = list(_END.finditer(body))
    return (body[: ends[-1].start()].strip(), True) if ends else (body.strip(), False)


def _sound(new: Rewritten) -> Rewritten | Failure:
    for body in (new.instruction, new.answer):
        if body is None:
            continue
        if not body:
            return Failure("empty", "empty")
        if body.strip(" .…'\"<>[]*").lower() in _PLACEHOLDERS:
            return Failure("empty", "placeholder")
        if holds_mark(body) or "<given-" in body.lower():
            return Failure("unreadable", "marker_inside")
    return new
