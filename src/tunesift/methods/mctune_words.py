"""Which words has an English text, in which sentences, and how many syllables has a word? Without any library.

Our own rules for English prose, without a dictionary: to them "naked" has one syllable, and "idea" two.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

VERSION = "1"
"""Of these rules: counts of two versions are not compared."""

_WORD = re.compile(r"(?:(?<![^\W_])[A-Za-z]\.){2,}|[^\W_]+(?:(?:['’‐‑-]|(?<=\d)[.,:](?=\d))[^\W_]+)*")
"""Letters and figures, with apostrophes, hyphens and decimal points inside: don't, well-known, 3.14, 1,000, U.S."""
_ITEM = re.compile(r"^[ \t]*(?:[-*+•–]|#{1,6}|\(?\d{1,3}[.)]|\(?[A-Za-z]\))[ \t]+(.*)$", re.M)
"""A line of a list, or a heading: what it begins with is no word."""
_BLOCK = re.compile(r"\n[ \t]*\n|\f")
_END = re.compile(r"[.!?…]+[\"'”’)\]*]*(?=\s+[\"'“‘(\[*]*[^\Wa-z_])")
"""Marks that end a sentence where white space and no small letter of the Latin alphabet follow."""
_SHORT = re.compile(
    r"(?:^|[\s(\[\"'“‘])(?:[A-Za-z]|(?:[A-Za-z]\.)+[A-Za-z]|mrs?|ms|dr|prof|rev|gen|sen|gov|capt|lt|col|sgt|st|vs|cf|fig|eq)\.$",
    re.IGNORECASE,
)
"""A full stop that ends an abbreviation or an initial, and no sentence."""
_PARTS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_VOWELS = re.compile(r"[aeiouyàáâãäåæèéêëìíîïòóôõöøùúûüýÿœ]+")
_SILENT = re.compile(
    r"(?<=[^aeiouyl])(?<![^aeiouyl]l)e$|(?<=[^aeiouy]l)(?<=ll)e$|(?<=[aeiouy]l)e$"
    r"|(?<=[^aeiouysxzcghl])es$|(?<=[^cs]h)es$|(?<=[aeiouyl]l)es$|(?<=[^aeiouytd])ed$"
)
"""The e of make, whole and belle, of makes, bathes and rules, of loved; not of apple, foxes, churches and needed."""
_APART = re.compile(r"[aeiouy]ing$|(?<![cglnstx])i(?=[aou])|cre(?=at[eio])|[ds]n't$")
"""Vowels that stand together and are two syllables: being, media, create; and the second one of didn't."""
_OF_COMPAT = frozenset("aeiouy")


class Token(NamedTuple):
    """A token of a text: what an analyser or a tagger tells of it."""

    form: str
    lemma: str
    upos: str
    """Universal part of speech (NOUN, PROPN, VERB, AUX, ADJ, PUNCT, ...); empty where nobody tagged it."""
    sentence: int
    """Number of its sentence in the text, from 0."""


def read_words(text: str) -> list[Token]:
    """The words of a text with the numbers of their sentences; the lemma is the form, without its capitals.

    Marks are no words, nor is what numbers the lines of a list. A line of a list, a heading and a paragraph end a
    sentence; a sentence without words has no number.
    """
    found: list[Token] = []
    number = 0
    for sentence in _sentences(unicodedata.normalize("NFC", text)):
        forms = _WORD.findall(sentence)
        found += [Token(form, form.casefold(), "", number) for form in forms]
        number += bool(forms)
    return found


def is_word(token: Token) -> bool:
    """Whether a token is a word: it holds a letter or a figure, and is tagged as neither mark nor space."""
    return token.upos not in ("PUNCT", "SPACE") and any(map(str.isalnum, token.form))


def syllables(form: str) -> int:
    """Syllables of an English word, by its letters; at least one, of each part of a compound."""
    parts = _PARTS.findall(form.casefold().replace("’", "'"))
    return sum(map(_of_part, parts)) if parts else 1


def compat_syllables(forms: Iterable[str]) -> int:
    """Syllables of a text as the labels of the authors' data have them: what makes a word have at least one looks at
    the total, so that an e that is silent counts as none in any but the first word ("the the the" has 1)."""
    total = 0
    for form in (form.casefold() for form in forms):
        total += sum(
            letter in _OF_COMPAT and (not place or form[place - 1] not in _OF_COMPAT)
            for place, letter in enumerate(form)
        )
        total -= form.endswith("e")
        total += not total and any(map(str.isalnum, form))
    return total


def _sentences(text: str) -> list[str]:
    blocks = _BLOCK.split(_ITEM.sub("\n\n\\1\n\n", text))
    return [sentence for block in blocks for sentence in _split(block)]


def _split(block: str) -> list[str]:
    parts, begin = [], 0
    for end in _END.finditer(block):
        if not _SHORT.search(block[begin : end.start() + 1]):
            parts.append(block[begin : end.end()])
            begin = end.end()
    return [*parts, block[begin:]]


def _of_part(part: str) -> int:
    count = len(_VOWELS.findall(part)) + len(_APART.findall(part)) - bool(_SILENT.search(part))
    return max(1, count)
