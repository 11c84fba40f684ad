"""Does a model repeat itself so much that asking on is a waste? The share of duplicates, by rounds."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

LEAST_JUDGED = 20
"""What could be read, of one round or of several together, below which its share of duplicates says nothing."""


@dataclass
class Repeating:
    """Whether the share of duplicates is too large."""

    what: str
    """What is made, as the reason calls it."""
    most: float
    """Fraction of what could be read that may be duplicates."""
    _open: Counter[str] = field(default_factory=Counter)
    """Of the rounds since the last that had enough to be judged."""
    _all: Counter[str] = field(default_factory=Counter)

    def close(self, read: int, duplicates: int, last: bool = False) -> str:
        """A round is over: that the model repeats itself, in words; empty while it does not.

        After the last one, what little was read counts as well, together with all before.
        """
        for counts in (self._open, self._all):
            counts.update(read=read, duplicates=duplicates)
        judged = Counter(self._all if last else self._open)
        enough = self._open["read"] >= LEAST_JUDGED
        if enough:
            self._open.clear()
        read, repeated = judged["read"], judged["duplicates"]
        if not (enough or last) or repeated <= self.most * read:
            return ""
        return (f"the model repeats itself: {repeated:,} of {read:,} {self.what} were duplicates, more than "
                f"max_duplicates={self.most:g}")  # fmt: skip
