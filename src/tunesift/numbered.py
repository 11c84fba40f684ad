"""Which lines of a completion are items of a numbered list, however a model writes the numbers?"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ITEM = re.compile(
    r"(?P<indent>[ \t]{0,8})[ \t>*_#•+-]{0,8}(?:(?P<opening>[(（]|[Qq](?=[\d ])|[Nn]o\. ?)[ \t]?)?"
    r"(?P<number>\d{1,5})[ \t]{0,2}\\?"
    r"(?:[.):\]][*_]{0,3}(?:[ \t]+|$|(?=[\"'“‘«„]?(?:[^\W\da-z_]|[a-z]{2})))|[）：．、][*_]{0,3}[ \t]*)"
    r"(?P<text>.*)"
)


@dataclass(frozen=True, slots=True)
class Item:
    """A numbered line: `1.`, `1)`, `(1)`, `1:`, `### 1.`, `**1.**`, `Q1:`, `1、`; `1.5`, `1:30` and `2.x` are none."""

    number: int
    text: str
    """What stands behind the number; empty where the item begins on the next line."""
    indent: int
    """Blanks before it."""
    opening: str
    """What stands before the number and belongs to it, in lower case: `(`, `q`, `no.`; mostly nothing."""


def item_of(line: str) -> Item | None:
    """The item that a line is; None for any other line."""
    found = _ITEM.fullmatch(line.rstrip())
    if found is None:
        return None
    opening = (found["opening"] or "").strip().lower().replace("（", "(")
    return Item(int(found["number"]), found["text"], len(found["indent"]), opening)
