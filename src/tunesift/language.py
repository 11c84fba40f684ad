"""Which languages may a text be in? Told only where few come into question: a guess would refuse good rewritings."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from typing import Any

LEAST_LETTERS = 20
"""Letters of a text below which nothing is told."""
LEAST_OF_A_SCRIPT = 4
"""Letters of a text below which its script is not told."""
MASS = 0.9
"""Probability that the languages told must have together. With it, of 1,000 questions in ten languages the language was
told of 951, and was always among those told; no revision by a human of 1,150 records was taken for a translation
(benchmarks/languages.py)."""
MOST = 4
"""Languages that may come into question; Chinese alone has three that look alike in writing."""
_LOOKED_AT = 4000
"""Characters of a text that are looked at."""
_CODE = re.compile(r"```.*?(?:```|\Z)", re.S)


def languages(text: str) -> frozenset[str]:
    """ISO 639 codes of the few languages that the text may be in; empty where it is short, code, or anything."""
    said = _CODE.sub(" ", text[:_LOOKED_AT])
    if sum(map(str.isalpha, said)) < LEAST_LETTERS:
        return frozenset()
    found, mass = set(), 0.0
    for name, probability in _identifier().rank(said)[:MOST]:
        found.add(str(name))
        mass += probability
        if mass >= MASS:
            return frozenset(found)
    return frozenset()


def switch(old: str, new: str) -> str:
    """What became of what, where two texts have no script, or no language that they may be in, in common; else empty.

    "de became en", "han became latin". A script is told from few letters, so that short answers count, too.
    """
    first, second = scripts(old), scripts(new)
    if not first or not second or first & second:
        first, second = languages(old), languages(new)
    if not first or not second or first & second:
        return ""
    return f"{'/'.join(sorted(first))} became {'/'.join(sorted(second))}"


def scripts(text: str) -> frozenset[str]:
    """The scripts that a text is written in, of those that have a third of its letters; empty for few letters.

    Chinese and Japanese count as one.
    """
    letters = Counter(_script(c) for c in _CODE.sub(" ", text[:_LOOKED_AT]) if c.isalpha())
    count = letters.total()
    if count < LEAST_OF_A_SCRIPT:
        return frozenset()
    return frozenset(name for name, n in letters.items() if 3 * n >= count)


@cache
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "OTHER").partition(" ")[0]
    return "han" if name in ("CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC") else name.lower()


@cache
def _identifier() -> Any:  # Any: py3langid has no types
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
