"""What do the outcomes of many comparisons of two sides come to?"""

from __future__ import annotations

from dataclasses import dataclass

from tunesift.errors import DataError


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many comparisons one side has won, tied and lost, each judged in both orders."""

    won: int
    tied: int
    lost: int

    @property
    def count(self) -> int:
        """Comparisons that could be judged."""
        return self.won + self.tied + self.lost

    @property
    def winning_score(self) -> float:
        """1 + (won - lost) / count, from 0 to 2; 1 is as good as the other side (Cherry LLM; DEBATunE's quality score).

        Raises `DataError` for no comparison.
        """
        return 1 + (self.won - self.lost) / self._some

    @property
    def adjusted_win_rate(self) -> float:
        """(won + tied / 2) / count, from 0 to 1, half the winning score (MT-Bench, FastChat).

        Raises `DataError` for no comparison.
        """
        return (self.won + self.tied / 2) / self._some

    @property
    def _some(self) -> int:
        if not self.count:
            raise DataError("there is no comparison that could be judged; a win rate needs one or more.")
        return self.count
