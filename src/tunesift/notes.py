"""What was read without complaint and is still worth a word to the user: counts of rows by what they have."""

from __future__ import annotations

import re
from array import array
from collections import Counter

import numpy as np

from tunesift.files import CUT, MARKS
from tunesift.formats import Parsed
from tunesift.json_text import folded
from tunesift.tables import BLANK

NUL = "rows with a NUL character, which some servers reject"
EMPTY = "rows with an empty instruction"
TURNS = "rows whose turns are out of order"
ORDERS = "rows that seem to give orders to a judge or a model; flagged, not changed"
COPIES = "rows that repeat an earlier one word for word"
TWINS = "ids that differ from another one in case, accents' form or spaces only"
NO_IMAGE = "images that are not where their path says"
UNSEEN = 'images whose content was not looked at; install the "images" extra'
KINDS = (BLANK, MARKS, CUT, NUL, EMPTY, TURNS, ORDERS, COPIES, TWINS, NO_IMAGE, UNSEEN)
"""Everything that a note can be about, in the order in which notes are told."""

_ONE = {
    BLANK: "blank line",
    MARKS: "byte order mark inside a file",
    CUT: "file that is cut off; its rows before the cut were read",
    NUL: "row with a NUL character, which some servers reject",
    EMPTY: "row with an empty instruction",
    TURNS: "row whose turns are out of order",
    ORDERS: "row that seems to give orders to a judge or a model; flagged, not changed",
    COPIES: "row that repeats an earlier one word for word",
    TWINS: "id that differs from another one in case, accents' form or spaces only",
    NO_IMAGE: "image that is not where its path says",
    UNSEEN: 'image whose content was not looked at; install the "images" extra',
}
"""The same of one."""

_ORDERS = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b[^\n]{0,60}"
    r"\b(?:instructions?|rubrics?|prompts?|rules|guidelines|criteria|scor(?:e|ing)|grading)\b"
)


class Notes:
    """Counts what rows have as they are read; of texts and ids it keeps hashes only."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._said, self._ids, self._folded = array("q"), array("q"), array("q")

    def take(self, parsed: Parsed) -> None:
        """Look at one row that was read."""
        said = "\n".join([message.text for message in parsed.messages])
        if "\0" in said:
            self.counts[NUL] += 1
        if gives_orders(said):
            self.counts[ORDERS] += 1
        self._said.append(hash((parsed.messages, parsed.rejected)))
        if parsed.own_id is not None:
            self._ids.append(hash(parsed.own_id))
            self._folded.append(hash(folded(parsed.own_id.strip())))

    def told(self) -> dict[str, int]:
        """How many rows, lines, ids or images each note is about; notes about none are left out."""
        self.counts[COPIES] = len(self._said) - _distinct(self._said)
        self.counts[TWINS] = _distinct(self._ids) - _distinct(self._folded)
        return {kind: self.counts[kind] for kind in KINDS if self.counts[kind]}


def told_note(kind: str, count: int) -> str:
    """A note with its number: 2 blank lines, 1 blank line."""
    return f"{count:,} {_ONE.get(kind, kind) if count == 1 else kind}"


def gives_orders(text: str) -> bool:
    """Whether a text seems to tell its reader to leave instructions aside; a flag, wrong in both directions."""
    low = text.lower()
    told = "ignore" in low or "disregard" in low or "forget" in low or "override" in low  # quick, and mostly false
    return told and _ORDERS.search(low) is not None


def _distinct(hashes: array[int]) -> int:
    return len(np.unique(np.asarray(hashes, np.int64)))
