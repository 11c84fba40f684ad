"""What did a debater say? From a completion to arguments, a turn, or a statement; or to the reason why it is none.

Arguments come as a numbered list, which models write in many ways: in bold, over several lines, with a remark before
and after, each with the number 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunesift.errors import shown
from tunesift.language import switch
from tunesift.methods.debatune_prompts import mention, prompt_leak
from tunesift.methods.reflection_reading import refuses
from tunesift.models.base import Completion
from tunesift.numbered import item_of
from tunesift.parsing import answer_of
from tunesift.records import Failure

NO_LIST = Failure("unreadable", "no numbered list")
MOST_NUMBER = 20
"""Largest number, other than the next one, at which a line is taken for an item: larger ones are years and amounts."""
MARGIN = 3
"""Blanks before an item of a list inside another item, at least."""
BEGINNING = 400
"""Characters in which a refusal stands that is one."""
SHORT = 40
"""Words below which a turn that disclaims an opinion says nothing else."""

_QUOTES = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“"}
_LABEL = re.compile(r"[*_\s]{0,4}(?:AI|Opponent|Affirmative|Negative)[*_]{0,2}:[*_]{0,2}\s{0,4}", re.I)
_AS_MODEL = re.compile(
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b[^.!?\n]{0,40}?,? (?:i\b|it is not)"
    r"|\bi (?:do not|don't|cannot|can't) (?:have|hold|take|express|choose) (?:any |a )?(?:personal |political )?"
    r"(?:opinions?|views?|beliefs?|sides?|stances?|positions?|feelings?)\b",
    re.I,
)
_REGRET = re.compile(r"\W{0,8}unfortunately\b,? (?!(?:i|we)\b)", re.I)
_WH = re.compile(
    r"\W{0,4}(?:(?:in|to|at|on|under|for|with|by|from|of|about) )?"
    r"(?:(?:what|how|which|who|whom|whose|why|when|where)\b(?:[^?]*\?\W*\Z| to\b)"
    r"|why\b|how (?:do|does|did|can|could|should|will|would|is|are)\b"
    r"|who(?:m|se \w+)? should\b(?!.*\b(?:should|must|shall)\b)[^,]*\Z"
    r"|(?:what|how|whom|which \w+) (?:(?:the|a|an|our) )?\w+ should "
    r"(?!be\b|not\b|never\b|always\b|have\b|matter|count)[^,]*\Z)",
    re.I,
)


def is_wh_question(topic: str) -> bool:
    """Whether a topic asks what, how, which, who or the like, so that nobody can be for or against it."""
    return _WH.match(topic.strip()) is not None


def read_arguments(said: Completion, first: int = 1) -> list[str] | Failure:
    """The items of a numbered list that begins with a number; without the last one where the reply was cut in it,
    and without what is our own request again."""
    text = answer_of(said.text)
    if isinstance(text, Failure):
        return text
    found = _items(text.splitlines(), first) or (_items(text.splitlines(), 1) if first > 1 else [])
    items = [item for lines in found if (item := _bare(" ".join(lines)))]
    if not items:
        return Failure("refused", "refusal") if refused(text) or hedges(text) else NO_LIST
    own = [item for item in items if not prompt_leak(item)]
    if not own:
        return Failure("unreadable", f'prompt_leak ("{shown(prompt_leak(items[0]))}")')
    whole = own[:-1] if said.stop == "length" and own[-1] == items[-1] else own
    return whole or Failure("too-long", "cut before its first argument ended")


def distinct(arguments: Sequence[str]) -> list[str]:
    """Arguments without those that differ from an earlier one in case, spaces and punctuation only."""
    return list({plain(argument): argument for argument in reversed(arguments)}.values())[::-1]


def plain(text: str) -> str:
    """A text in lower case without punctuation, for comparing."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def read_turn(said: Completion | Failure) -> str | Failure:
    """What a debater said in its turn, without its own label; a turn that was cut, or that begins with a disclaimer and
    goes on, is one."""
    if isinstance(said, Failure):
        return said
    text = answer_of(said.text)
    if isinstance(text, Failure):
        return text
    text = _LABEL.sub("", text.strip(), count=1) if _LABEL.match(text.strip()) else text.strip()
    if not text:
        return Failure("empty", "the completion is empty")
    return Failure("refused", "refusal") if refused(text) else text


def read_statement(said: Completion | Failure, about: str) -> str | Failure:
    """The concluding statement, whole and on its own; `about` is its topic and argument, whose language it keeps."""
    if not isinstance(said, Failure) and said.stop == "length":
        return Failure("too-long", "truncated")
    text = read_turn(said)
    if isinstance(text, Failure):
        return text
    if hedges(text):
        return Failure("refused", "disclaimer")
    if "<given-" in text.lower():
        return Failure("unreadable", "marker_inside")
    if leaked := prompt_leak(text):
        return Failure("unreadable", f'prompt_leak ("{shown(leaked)}")')
    if found := mention(text, about):
        return Failure("unreadable", f'mentions the debate ("{shown(found)}")')
    if changed := switch(about, text):
        return Failure("unreadable", f"language ({changed})")
    return text


def refused(text: str) -> bool:
    """Whether a text begins with a refusal, in English; a regret about the world is none."""
    begin = text[:BEGINNING].replace("’", "'")
    return (refuses(begin) and not _REGRET.match(begin)) or (hedges(text) and len(text.split()) < SHORT)


def hedges(text: str) -> bool:
    """Whether a text begins with a model's word that it is one, or that it has no opinion, in English."""
    return _AS_MODEL.search(text[:BEGINNING].replace("’", "'")) is not None


def _items(lines: Sequence[str], first: int) -> list[list[str]]:
    """The lines of each item.

    An item begins with the next number, or with another small one at the margin, written like the first item's; it goes
    on over lines, and ends at a blank one. What stands before the first item is passed over.
    """
    items: list[list[str]] = []
    expected, is_open, opening = first, False, ""
    for line in lines:
        found = item_of(line)
        begins = found is not None and (not items or found.opening == opening) and (
            found.number == expected or (bool(items) and found.indent < MARGIN and 0 < found.number <= MOST_NUMBER)
        )  # fmt: skip
        if found is not None and begins:
            items.append([found.text])
            expected, is_open, opening = found.number + 1, True, found.opening
        elif not line.strip():
            is_open = False
        elif is_open:
            items[-1].append(line.strip())
    return items


def _bare(item: str) -> str:
    """An item without the marks of bold around its words, and without quotes around all of it."""
    text = re.sub(r"\*\*|__", "", item).strip()
    if len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and text.count(text[0]) <= 2:
        text = text[1:-1]
    return text.strip()
