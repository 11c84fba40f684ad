"""When do two rows of GenQA ask the same? What of a row tells it from others, split by split; options in any order.

Splits fail in different ways, so a row is compared in more than one: as a whole, and by what its split repeats. Why
each is so stands in `docs/generating.md`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesift.methods.genqa_checks import Written
from tunesift.methods.genqa_prompts import SPLITS, SplitName
from tunesift.words import length, spelled, units

LEAST_WORDS = 4
"""Words of a text below which it tells nothing: a name, a category."""
LEAST_OPENING = 13
"""Words of a conversation's key at least, where it has so many: a greeting tells nothing."""
LEAST_PROSE = 13
"""Words without digits of a problem from which on its numbers do not make it another one."""
SHARED_OPENING = 0.5
"""Fraction of the words of two tasks' instructions that must be shared: what else they share may be material."""

_SENTENCE = re.compile(r"(?<=[.!?])\s|(?<=[!?])(?=[\u3041-\u30ff\u3400-\u9fff])|(?<=[。！？؟।])\s?")
_MARK = re.compile(
    r"(?:^[ \t>*_(\[]{0,8}([A-J])[*_]{0,3}[.):\]、]|(?<=[\s(\[*_])([A-J])[*_]{0,3}[.)\]、]|(?:^|(?<=[\s(]))([a-j])\))"
    r"[*_]{0,3}[ \t]{0,4}",
    re.M,
)
_BEFORE_OPTIONS = re.compile(
    r"\s(?:(?:answer )?(?:options|choices|alternatives)|answers|选项|選項|選択肢)\s?:\s{0,9}\Z", re.I
)
_LEAD = re.compile(
    r"\s{0,8}[*_#]{0,4}\s?(?:(?:question|q|问题|問題|题目|題目|質問|질문)\s?\d{0,4}[*_]{0,3}\s?[:.)]|\d{1,4}[.)](?!\d))[*_]{0,3}\s{0,4}",
    re.I,
)
_OF_ANY = frozenset(
    re.findall(
        r"\w+",
        "a above all an and answer answers are been being below best choice choices choose correct does except false "
        "following from here holds in incorrect is it least likely most nor not of one option options or pick right "
        "select sentence sentences statement statements that the them there these this those to true was were what "
        "which would wrong",
    )
).union(
    "下列以哪些项項个個一种種说說法叙述选選中是为為的属屬于於正确確错錯误誤不对對有无符合答案最的",
    "次のうち正しいもはどれですか誤っているてらばんさ",
)
"""Words of questions that say nothing without their options, and characters of such in Chinese and Japanese."""
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`", re.S)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_PROSE = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class Posed:
    """A question and what may be chosen from."""

    stem: str
    """Without its own label or number, and without options."""
    options: tuple[str, ...] = ()
    """In their order; none where there are fewer than two."""

    def alone(self) -> Iterator[str]:
        """The question without options, and without what stands in lines before it; none that is about nothing."""
        last = _bare(self.stem.rpartition("\n")[2]) if self.options else self.stem
        for text in dict.fromkeys((self.stem, last)):
            if length(units(text)) >= LEAST_WORDS and any(word not in _OF_ANY for word in units(spelled(text))):
                yield text


def posed(text: str) -> Posed:
    """What a text asks, apart from the options after it, which begin with A, B and so on, each after a space."""
    said = unicodedata.normalize("NFKC", text)
    marks = _options(list(_MARK.finditer(said)))
    stem = _BEFORE_OPTIONS.sub("", said[: marks[0].start()].rstrip(" \t\n()[]*_>")) if marks else said
    ends = [m.start() for m in marks[1:]] + [len(said)] * bool(marks)
    options = [said[m.end() : end].strip(" \t\n()[]*_") for m, end in zip(marks, ends, strict=True)]
    if options:
        options[-1] = options[-1].partition("\n")[0].strip()
    return Posed(_bare(stem), tuple(options))


def _bare(question: str) -> str:
    """A question without its label or number."""
    lead = _LEAD.match(question)
    return question[lead.end() if lead else 0 :].strip(" \t\n()[]*_>")


def _options(marks: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    """Of all marks those that count up from A: from the last A before the first B on."""
    letters = [m[1] or m[2] or m[3] for m in marks]
    for first, second in ("AB", "ab"):
        if second not in letters or first not in letters[: letters.index(second)]:
            continue
        begin = letters.index(second)
        found = [marks[max(n for n in range(begin) if letters[n] == first)]]
        for mark, letter in zip(marks[begin:], letters[begin:], strict=True):
            if ord(letter) == ord(first) + len(found):
                found.append(mark)
        return found
    return []


def dedup_key(text: str, whole: bool = False, least: float = 0) -> str:
    """What duplicates share: the first two sentences, or the whole text, in one spelling (NFKC, spaces, case).

    `least` words at least, where the text has so many.
    """
    said = " ".join(unicodedata.normalize("NFKC", text).split())
    if not whole:
        parts = [part for part in _SENTENCE.split(said) if part]
        count = 2
        while count < len(parts) and least and length(units(" ".join(parts[:count]))) < least:
            count += 1
        said = " ".join(parts[:count])
    return said.casefold()


def key_of(row: Written, split: SplitName) -> str:
    """What exact duplicates of a split share."""
    asked, chosen = row.messages[0].text, SPLITS[split]
    if chosen.reads == "options":
        question = posed(asked)
        return "\n".join([dedup_key(question.stem, whole=True), *sorted(dedup_key(o, True) for o in question.options)])
    if split == "dialog":
        return dedup_key("\n".join(_said_by_user(row)), least=LEAST_OPENING)
    return dedup_key(asked, chosen.whole)


@dataclass(frozen=True, slots=True)
class Part:
    """Something of a row that is compared with the same of other rows."""

    kind: str
    """Parts of one kind are compared with each other only."""
    pieces: tuple[list[str], ...]
    """Units of texts whose runs are counted together, in no order."""
    same: str = ""
    """What must be equal besides."""
    opening: frozenset[str] = frozenset()
    """Words half of which must be shared besides."""

    def may_be(self, other: tuple[str, frozenset[str]]) -> bool:
        """Whether a part with this `same` and `opening` can be its like, whatever runs they share."""
        same, opening = other
        return same == self.same and len(opening & self.opening) >= SHARED_OPENING * len(opening | self.opening)


def parts_of(row: Written, split: SplitName) -> tuple[Part, ...]:
    """What near-duplicates are told by: any of these."""
    asked = row.messages[0].text
    if split == "task":
        opening = frozenset(units(spelled(instruction(asked))))
        return (Part("task", (_units(asked),), opening=opening),)
    if split == "code":
        code = "\n".join(" ".join(found.split()) for found in _CODE.findall(asked))
        return (Part("code", (_units(_CODE.sub(" ", asked)),), same=code),)
    whole = Part("row", (_units(" ".join(m.text for m in row.messages)),))
    if SPLITS[split].reads == "options":
        question = posed(asked)
        return whole, Part("options", (_units(question.stem), *map(_units, question.options)))
    if split == "math":
        return whole, Part("problem", (_units(without_numbers(" ".join(_said_by_user(row)))),))
    if split == "dialog":
        return whole, Part("turns", (_units(" ".join(_said_by_user(row))),))
    parts = whole, Part("question", (_units(asked),))
    return (*parts, Part("answer", (_units(row.messages[-1].text),))) if split == "general" else parts


def instruction(task: str) -> str:
    """What a task asks for, as far as that can be told from its material: the first two sentences of its first line, or
    of its last paragraph where that is shorter, since the material stands on the other side of it."""
    first, paragraphs = task.strip().partition("\n")[0], re.split(r"\n[ \t]*\n", task.strip())
    return dedup_key(min(first, paragraphs[-1], key=len))


def without_numbers(problem: str) -> str:
    """A problem with 0 for every number, where words tell what to do with them; a mere formula stays as it is."""
    words = _PROSE.findall(problem)
    return _NUMBER.sub("0", problem) if length(units(" ".join(words))) >= LEAST_PROSE else problem


def _said_by_user(row: Written) -> list[str]:
    return [m.text for m in row.messages if m.role == "user"]


def _units(text: str) -> list[str]:
    return units(text.casefold())
