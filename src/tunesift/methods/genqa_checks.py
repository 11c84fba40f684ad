"""What makes a reply of GenQA no row? The types of what was asked for and read, and the rules that a row must keep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tunesift.language import languages, scripts
from tunesift.methods.genqa_prompts import SPLITS, Labels, SplitName, Variant, bans_words
from tunesift.methods.reflection_reading import refuses
from tunesift.numbered import item_of
from tunesift.records import Message
from tunesift.words import holds_name, length, units, words_of_name

LONG_LINE = 40
"""Characters of a line of the prompt from which its coming back is no accident."""
LONG_WORDS = 7
"""The same in words, for scripts without spaces."""
LEAKEDITEMS = 3
"""Lines of a list that stand in a question again from which on the list has leaked into it."""
LEAST_PROSE = 60
"""Letters of a message after the first, where it is in Latin script, below which its language is not told."""

_OPTION = re.compile(
    r"^[ \t>*_-]{0,8}[(\[（]?([A-Z])[*_]{0,3}"
    r"(?:[.):\]][*_]{0,3}[ \t]+|[.)](?=[\u3041-\uffdc])|[）：．、][*_]{0,3}[ \t]*)(.+)$",
    re.M,
)
_LETTER = re.compile(
    r"\W{0,6}(?:(?:the )?(?:right |correct )?(?:option|answer)(?: is)?:?[ *(\[]{1,4})?([A-Z])"
    r"(?:[*_]{0,3}[.):\],。）：．、，]|\W{0,4}$|[ \t]*[-–—])",
    re.I | re.M,
)
_SIGNS = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|\$[^$\n]*\$|\\\w+|https?://\S+", re.S)
"""Code, formulas and addresses, which are in no language."""
_FILLERS = frozenset(
    re.findall(
        r"\w+", "a an and as at by for from in into of on or the to with der die das und von im le la les et de du des"
    )
)


@dataclass(frozen=True, slots=True)
class Rejected:
    """Why a reply is no row."""

    reason: str
    """One word, or two with an underscore: what rejections are counted by."""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Written:
    """What a reply holds."""

    messages: tuple[Message, ...]
    topic: str = ""
    subtopic: str = ""
    n1: int | None = None
    n2: int | None = None
    flags: tuple[str, ...] = ()
    """`extra`: more rows followed, which are left alone."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for."""

    split: SplitName
    variant: Variant
    labels: Labels
    prompt: str
    language: str = ""
    """Code of the language that it must be in; empty for any."""
    topic: str = ""
    subtopic: str = ""
    """Empty where the reply itself has to say which."""
    n1: int | None = None
    n2: int | None = None
    """Places in the lists; None where there is no list, or the model chose."""
    lists: int = 0
    """How many lists the reply has to begin with."""
    given: str = ""
    """The answer that a question is written for."""


def listed(text: str) -> list[tuple[int, str]]:
    """The numbered lines of a text: number and name, without marks around it."""
    return [(i.number, i.text.strip(" \t*_`.;,")) for line in text.splitlines() if (i := item_of(line)) and i.text]


def same(a: str, b: str) -> bool:
    """Whether two names are one, whatever their case and spaces."""
    return " ".join(a.casefold().split()) == " ".join(b.casefold().split())


def unsound(row: Written, wanted: Wanted, before: str) -> Rejected | None:
    """What is wrong with a row that could be read."""
    asked = "\n".join(m.text for m in row.messages if m.role == "user")
    if any(refuses(m.text) for m in row.messages):
        return Rejected("refusal")
    if leaked := _leaked(row.messages, wanted.prompt):
        return Rejected("prompt_leak", leaked)
    if banned := name_leak(asked, row.subtopic or row.topic, wanted.variant):
        return Rejected("name_leak", banned)
    names = {" ".join(name.casefold().split()) for _, name in listed(before)}
    if sum(" ".join(name.casefold().split()) in names for _, name in listed(asked)) >= LEAKEDITEMS:
        return Rejected("list_leak")
    return _foreign_row(row.messages, wanted.language) or _misshapen(row, wanted)


def foreign(text: str, language: str) -> Rejected | None:
    """Another language than the one that was asked for, where that is certain."""
    found = languages(text) if language else frozenset[str]()
    return Rejected("language", "/".join(sorted(found))) if found and language not in found else None


def _foreign_row(messages: Sequence[Message], language: str) -> Rejected | None:
    """A message in another language; of those after the first, which may be short or full of signs, only long prose."""
    if wrong := foreign(messages[0].text, language):
        return wrong
    said = (_SIGNS.sub(" ", m.text) for m in messages[1:])
    long = (text for text in said if "latin" not in scripts(text) or sum(map(str.isalpha, text)) >= LEAST_PROSE)
    return next((wrong for text in long if (wrong := foreign(text, language))), None)


def _misshapen(row: Written, wanted: Wanted) -> Rejected | None:
    reads = SPLITS[wanted.split].reads
    if reads == "code" and "```" not in row.messages[1].text:
        return Rejected("no_code")
    return options_fault(row, wanted.split) if reads == "options" else None


def options_fault(row: Written, split: SplitName) -> Rejected | None:
    """What is wrong with the options of a question, or with the letter of its answer."""
    asked, said = (m.text for m in row.messages)
    options = _OPTION.findall(asked)
    letters = "".join(letter for letter, _ in options)
    least, most = SPLITS[split].least, SPLITS[split].most
    names = {" ".join(text.casefold().split()) for _, text in options}
    if letters not in ["ABCDEFGHIJ"[:n] for n in range(least, most + 1)] or len(names) < len(options):
        return Rejected("options", letters or "none")
    found = _LETTER.match(said)
    return None if found and found[1].upper() in letters else Rejected("letter", said[:40])


def name_leak(asked: str, name: str, variant: Variant) -> str:
    """What of a subject's name stands in a question and must not: the name, or any word of it; empty for nothing."""
    whole = " ".join(name.casefold().split())
    words = [w for w in words_of_name(name) if w not in _FILLERS and len(w) > 1] if bans_words(variant) else []
    return next((w for w in (whole, *words) if holds_name(asked, w)), "")


def _leaked(messages: Sequence[Message], prompt: str) -> str:
    """A sentence of our prompt that stands in a row."""
    said = " ".join(" ".join(m.text for m in messages).split())
    lines = (" ".join(part.split()) for part in re.split(r"(?<=[.!?])\s|(?<=[。！？])|\n", prompt))
    return next((line[:80] for line in lines if line in said and _is_long(line)), "")


def _is_long(line: str) -> bool:
    found = units(line)
    return len(line) >= LONG_LINE or (len(found) > len(line.split()) and length(found) >= LONG_WORDS)


def holds_words(text: str) -> bool:
    """Whether there is anything in a text but marks."""
    return any(c.isalnum() for c in text)
