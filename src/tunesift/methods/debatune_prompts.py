"""What is a debater told? The prompts of a debate, in our words; and whether a reply holds them or tells of the debate.

A model that copies what it was told, or gives an account of the debate, has written nothing to train with. What is
looked for is narrow: the debate over a question goes on in the world, and a statement may speak of that.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import product

DEBATER = (
    'This is a debate on the topic "{topic}". You stand on the {side} side; your opponent stands on the {other} side. '
    "Speak for your side only, and seek no agreement. Use the language of the topic."
)
OBSERVER = (
    'You have listened to a debate on the topic "{topic}". You are no party to it, but you hold the {side} side, and '
    "speak for that side only. Use the language of the topic."
)
NAME = (
    'Name the strongest arguments for the {side} side of the topic "{topic}". Do not elaborate on them yet. Write one '
    "argument in each line, each line beginning with its serial number, and nothing else."
)
NAME_MORE = (
    "{request}\n\nThese are named already; do not repeat them:\n{named}\n\nName {missing} more, and give the first of "
    "them the number {first}."
)
OPEN = (
    "This is your argument, and the debate is about it:\n{argument}\n\nExplain it in detail, and support it with "
    "evidence, with examples from real life and, where you can, with statistics.\n\nAI:"
)
REBUT = (
    "Your opponent proposes this argument, and the debate is about it:\n{argument}\n\nWhat was said so far:\n{debate}"
    "\n\nContradict it: put critical questions to your opponent, explain what is wrong, and give evidence.\n\nAI:"
)
REPLY = (
    "The debate is about this argument, which is {owner}:\n{argument}\n\nWhat was said so far:\n{debate}\n\nFirst "
    "answer your opponent's questions, if there are any. Then contradict what your opponent said, with questions, "
    "explanations and evidence of your own.\n\nAI:"
)
CONCLUDE = (
    'The topic is "{topic}", and you are on the {side} side. The debate was about this argument of your side:\n'
    "{argument}\n\nWhat was said:\n{debate}\n\nNow write your own statement that makes this argument, with your "
    "explanations and your evidence, in as much detail as you can. Let it profit from the debate, but do not mention "
    "the debate or anybody in it, and do not reply to anybody: it must stand on its own."
)

LEAKED_RUN = 8
"""Words of a prompt in a row from which on their coming back is no accident."""
LEAST_ALONE = 4
"""Words of a reply that is shorter than that, and stands in a prompt as a whole."""

_SAID = r"(?:ask|argu|claim|rais|question|repl|answer|mention|object|conced|point(?:s|ed) out)\w{0,5}|sa(?:id|ys)"
_ABOUT = r"(?! (?:about|on|over|around|surrounding|between|among|regarding|concerning|whether|as to|is|has|in)\b)"
_LABEL = re.compile(r"^[ \t>*_#]{0,6}(AI|Opponent|Affirmative|Negative|Observer)(?: side)?[*_]{0,2}:", re.I | re.M)
_TELLS = re.compile(
    rf"\b(?:in|during|throughout|from|after|of|to|heard|followed) (?:this|the|our|that) (?:whole )?debate\b{_ABOUT}"
    r"|\bas an? (?:\w+ ){0,2}(?:observer|listener|spectator)(?:,| i\b| who\b| (?:of|to) (?:this|the|our) debate\b)"
    r"|\bi(?: have|'ve)? (?:\w+ )?(?:heard|listened to|followed) (?:both|the two|all) (?:of the )?sides\b"
    rf"|\b(?:the|my|our) (?:opposing|other|opposite|affirmative|negative) side (?:has |have |also )?(?:{_SAID})\b"
    r"|\b(?:my|our) (?:worthy |esteemed |honou?rable )?opponents?\b"
    rf"|\bthe opponent (?:has |also )?(?:{_SAID})\b",
    re.I,
)


def prompt_leak(text: str) -> str:
    """A run of our own words that stands in a reply; empty for none."""
    said = _words(text)
    length = min(LEAKED_RUN, len(said))
    if length < LEAST_ALONE:
        return ""
    ours = _runs(length)
    return next((run for n in range(len(said) - length + 1) if (run := " ".join(said[n : n + length])) in ours), "")


def mention(text: str, about: str) -> str:
    """Where a statement tells of the debate, or labels its speakers; empty for nowhere.

    `about` is its topic and argument: whoever is asked about debates, observers or AI may speak of them.
    """
    given = set(_words(about))
    spoken = text.replace("’", "'")
    if found := _TELLS.search(spoken):
        own = {"debate", "observer", "listener", "spectator", "opponent", "opponents", "side", "sides"}
        if not own & set(_words(found[0])) & given:
            return found[0]
    return next((m[0].strip() for m in _LABEL.finditer(spoken) if m[1].casefold() not in given), "")


@cache
def _runs(length: int) -> frozenset[str]:
    """All runs of so many words in the prompts, whichever side is spoken to; none goes over a topic or an argument."""
    prompts = (DEBATER, OBSERVER, NAME, NAME_MORE, OPEN, REBUT, REPLY, CONCLUDE)
    sides = ("affirmative", "negative")
    pieces = [
        _words(piece)
        for prompt, side in product(prompts, sides)
        for piece in re.split(r"\{\w+\}", prompt.replace("{side}", side).replace("{other}", sides[side == sides[0]]))
    ]
    return frozenset(" ".join(p[n : n + length]) for p in pieces for n in range(len(p) - length + 1))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
