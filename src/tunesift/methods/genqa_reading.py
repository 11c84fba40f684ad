"""What did the model write? From a completion to the turns of a row, or to the reason why it is none.

The first line-start `Question:` counts, then the first line-start `Answer:` after it, up to the next `Question:`; in
conversations, line-start `User:` and `Assistant:` in turn. Whatever breaks a rule is rejected with a reason of one
word, and nothing is mended.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache

from tunesift.methods.genqa_checks import (
    Rejected,
    Wanted,
    Written,
    foreign,
    holds_words,
    listed,
    same,
    unsound,
)
from tunesift.methods.genqa_prompts import SPLITS, Labels
from tunesift.methods.reflection_reading import refuses
from tunesift.models.base import Completion
from tunesift.numbered import item_of
from tunesift.parsing import answer_of
from tunesift.records import Failure, Message

LONGEST_NAME = 120
"""Characters of an item of a list; what is longer is no name."""


def read_row(said: Completion, wanted: Wanted) -> Written | Rejected:
    """The row that a reply holds."""
    text = answer_of(said.text)
    if isinstance(text, Failure):
        return Rejected("empty" if text.kind == "empty" else "too_long", text.message)
    if said.stop == "length":
        return Rejected("truncated", f"after {said.tokens} tokens")
    labels = wanted.labels
    turns = SPLITS[wanted.split].reads == "turns"
    start = _label(labels.user if turns else labels.question).search(text)
    if start is None:
        return Rejected("refusal" if refuses(text) else "no_user" if turns else "no_question")
    chosen = _chosen(text[: start.start()], wanted)
    if isinstance(chosen, Rejected):
        return chosen
    found = _body(text[start.start() :], wanted)
    if isinstance(found, Rejected):
        return found
    row = Written(found.messages, *chosen, found.flags)
    return unsound(row, wanted, text[: start.start()]) or row


def read_answer(said: Completion, language: str) -> str | Rejected:
    """The text of an answer to nothing."""
    text = answer_of(said.text)
    if isinstance(text, Failure):
        return Rejected("empty" if text.kind == "empty" else "too_long", text.message)
    if said.stop == "length":
        return Rejected("truncated", f"after {said.tokens} tokens")
    if refuses(text):
        return Rejected("refusal")
    return foreign(text, language) or text.strip()


def _body(text: str, wanted: Wanted) -> Written | Rejected:
    """The turns of a text that begins with the first label."""
    if SPLITS[wanted.split].reads == "turns":
        return _conversation(text, wanted)
    if not wanted.given:
        return read_pair(text, wanted.labels)
    label = _label(wanted.labels.question)
    asked, *more = label.split(text)[1:]
    messages = (Message("user", asked.strip()), Message("assistant", wanted.given))
    return Written(messages, flags=("extra",) if more else ()) if holds_words(asked) else Rejected("empty")


def read_pair(text: str, labels: Labels) -> Written | Rejected:
    """The first question and its answer."""
    question, answer = _label(labels.question), _label(labels.answer)
    if (begin := question.search(text)) is None:
        return Rejected("no_question")
    if (middle := answer.search(text, begin.end())) is None:
        return Rejected("no_answer")
    if again := question.search(text, begin.end(), middle.start()):
        return Rejected("label_leak", text[again.start() : again.end()].strip())
    after = question.search(text, middle.end())
    asked = text[begin.end() : middle.start()].strip()
    said = text[middle.end() : after.start() if after else len(text)].strip()
    if not holds_words(asked) or not holds_words(said):
        return Rejected("empty")
    if question.match(asked) or answer.match(said) or question.match(said):
        return Rejected("label_leak")
    return Written((Message("user", asked), Message("assistant", said)), flags=("extra",) if after else ())


def distinct_items(said: Completion) -> tuple[str, ...]:
    """The different items of a list that was asked for alone, in its order; of one that was cut, all but the last."""
    text = answer_of(said.text)
    if isinstance(text, Failure):
        return ()
    names = [name for _, name in listed(text) if holds_words(name) and len(name) <= LONGEST_NAME]
    if said.stop == "length":
        names = names[:-1]
    return tuple({" ".join(name.casefold().split()): name for name in reversed(names)}.values())[::-1]


Chosen = tuple[str, str, int | None, int | None]
"""Topic, subtopic, and their places in their lists."""


def _chosen(before: str, wanted: Wanted) -> Chosen | Rejected:
    """What the lists before a row, and the lines that state a choice, say about its subject."""
    if not wanted.lists:
        return wanted.topic, wanted.subtopic, wanted.n1, wanted.n2
    labels, (n1, n2) = wanted.labels, (wanted.n1, wanted.n2)
    if wanted.lists == 1:
        found = _stated(before, labels.subtopic, n1)
        return found if isinstance(found, Rejected) else (wanted.topic, found[1], found[0], None)
    stated = _label(labels.topic, numbered=True).search(before)
    if stated is None:
        return Rejected("not_stated" if listed(before) else "no_list", labels.topic)
    end = before.find("\n", stated.end())
    end = len(before) if end < 0 else end
    first = _stated(before[:end], labels.topic, n1)
    second = _stated(before[end:], labels.subtopic, n2)
    if isinstance(first, Rejected):
        return first
    return second if isinstance(second, Rejected) else (first[1], second[1], first[0], second[0])


def _stated(text: str, label: str, number: int | None) -> tuple[int, str] | Rejected:
    """The item that a line states, if it is the one of its number in the list before it."""
    line = _label(label, numbered=True).search(text)
    items = listed(text[: line.start()] if line else text)
    if not items:
        return Rejected("no_list", label)
    if number is not None and (wrong := _misnumbered(items, number)):
        return wrong
    if line is None:
        return Rejected("not_stated", label)
    said = text[line.end() :].partition("\n")[0].strip(" \t*_`.;,")
    said = (item.text if (item := item_of(said)) else said).strip(" \t*_`.;,")
    places = [n for n, name in items if same(name, said)]
    if number is None:
        return (places[0], said) if places else Rejected("index_mismatch", f"{said}: is not in the list")
    return (number, said) if number in places else Rejected("index_mismatch", f"{said}: is not number {number}")


def _misnumbered(items: Sequence[tuple[int, str]], number: int) -> Rejected | None:
    times = Counter(n for n, _ in items)[number]
    if times > 1:
        return Rejected("renumbered", f"number {number} stands {times} times")
    return None if times else Rejected("index_missing", f"number {number} of {len(items)}")


def _conversation(text: str, wanted: Wanted) -> Written | Rejected:
    """Turns that alternate, from the user's first to the assistant's last, as many as the split has."""
    labels, split = wanted.labels, SPLITS[wanted.split]
    either = re.compile(f"({_label(labels.user).pattern})|{_label(labels.assistant).pattern}", re.I | re.M)
    marks = list(either.finditer(text))
    ends = [*(m.start() for m in marks[1:]), len(text)]
    messages = tuple(
        Message("user" if m[1] else "assistant", text[m.end() : end].strip())
        for m, end in zip(marks, ends, strict=True)
    )
    roles = [m.role for m in messages]
    if any(a == b for a, b in itertools.pairwise(roles)) or roles[-1] != "assistant":
        return Rejected("turns", " ".join(roles))
    if not split.least <= len(messages) <= split.most:
        return Rejected("turns", f"{len(messages)} messages")
    return Rejected("empty") if not all(holds_words(m.text) for m in messages) else Written(messages)


@cache
def _label(name: str, numbered: bool = False) -> re.Pattern[str]:
    """A label at the beginning of a line, of any case, with or without Markdown around it."""
    number = r"(?:[ \t]{0,3}#?\d{1,5})?" if numbered else ""
    said = re.escape(name).replace(r"\ ", r"[ \t]+")
    return re.compile(
        rf"^[ \t>#*_`]{{0,8}}{said}{number}[ \t]{{0,3}}[*_`]{{0,3}}[ \t]{{0,3}}[:：][*_`]{{0,3}}[ \t]*",
        re.I | re.M,
    )
