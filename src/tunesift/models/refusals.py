"""Is "too many requests" about how many there are? Where far fewer at a time are refused as often, it is not."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

LOW = 0.7
"""Of the limit at which requests were refused: so far below it, none would be if it were about their number."""
ENOUGH = 100
"""Answers from so far below that tell the share of refusals that comes whatever is in flight."""
LEAST_NOISE, MOST_NOISE = 0.005, 0.1
"""Below, a share is nothing; above, an endpoint that refuses everybody alike has too much to do, and is spared."""
OVERLOAD = 2 * MOST_NOISE
"""A share of refusals that is taken for the work of a limit without asking further."""
RECENT = 200
"""Answers among which refusals are counted, to see whether they are more than those."""


@dataclass(slots=True)
class _Share:
    """A share that forgets: the older half of what it has seen counts half."""

    most: int
    refused: float = 0.0
    seen: float = 0.0

    def add(self, refused: bool) -> None:
        self.refused += refused
        self.seen += 1
        if self.seen >= self.most:
            self.refused, self.seen = self.refused / 2, self.seen / 2

    @property
    def value(self) -> float:
        return self.refused / self.seen if self.seen >= ENOUGH else 0.0


@dataclass(slots=True)
class Refusals:
    """How often one endpoint refuses, at which limits."""

    _ceiling: float = 0.0
    """The limit at which requests were refused because there were too many, or for all that is known."""
    _low: _Share = field(default_factory=lambda: _Share(4 * ENOUGH))
    """Of the answers that came while the limit was far below that."""
    _all: _Share = field(default_factory=lambda: _Share(1000))
    _recent: deque[bool] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, refused: bool, limit: float) -> None:
        """An answer to a request that was sent under this limit."""
        self._recent.append(refused)
        self._all.add(refused)
        if self._is_low(limit):
            self._low.add(refused)

    def _is_low(self, limit: float) -> bool:
        return limit <= max(1.0, LOW * self._ceiling)

    @property
    def _overloaded(self) -> bool:
        return sum(self._recent) > OVERLOAD * max(len(self._recent), ENOUGH)

    def cut(self, limit: float) -> None:
        """The limit is about to be cut: where many were refused under it, it was about their number."""
        if self._overloaded:
            self._low, self._ceiling = _Share(4 * ENOUGH), limit
        else:
            self._ceiling = max(self._ceiling, limit)

    @property
    def teaches_below(self) -> float:
        """The limit at which answers tell whether refusals are about their number; infinity once enough have told."""
        return math.inf if self._low.seen >= ENOUGH or not self._ceiling else max(1.0, LOW * self._ceiling)

    def calls_for_cut(self, limit: float) -> bool:
        """Whether a refusal under this limit is a reason for a lower one."""
        learning = self._low.seen < ENOUGH and self._is_low(limit) and not self._overloaded
        return not (self.stray or learning)

    @property
    def noise(self) -> float:
        """Share of refusals that comes whatever is in flight; 0 where none is known to."""
        found = min(self._low.value, self._all.value)
        return found if found >= LEAST_NOISE else 0.0

    @property
    def stray(self) -> bool:
        """Whether the refusals of late are no more than those: then fewer at a time would be refused as often."""
        if not 0 < self.noise <= MOST_NOISE:
            return False
        usual = self.noise * len(self._recent)
        return sum(self._recent) <= usual + 3 * math.sqrt(usual) + 1
