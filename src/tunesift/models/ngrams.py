"""How are texts placed in a space where there is no model at hand? By the letters they share, and by nothing else."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tunesift.errors import RecipeError
from tunesift.settings import Settings


@dataclass(frozen=True, kw_only=True)
class HashedNgrams(Settings):
    """Counts of runs of letters, hashed into a vector of length 1: needs no weights and knows no meaning.

    Texts are near where they share spelling, not where they say the same in other words. It stands in for a sentence
    encoder, and every reason that rests on it names it.
    """

    kind: Literal["hashed-ngrams"] = "hashed-ngrams"
    letters: int = 4
    """Letters of one run."""
    width: int = 256
    """Numbers of one vector."""

    def __post_init__(self) -> None:
        if min(self.letters, self.width) < 1:
            raise RecipeError("embedder: letters and width are numbers of 1 or more.")

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        """One vector of length 1 per text; zeros for a text without letters."""
        return [self._embed(" ".join(text.lower().split())) for text in texts]

    def _embed(self, text: str) -> tuple[float, ...]:
        letters, runs = self.letters, max(1, len(text) - self.letters + 1)
        counts = Counter(text[n : n + letters] for n in range(runs)) if text else Counter[str]()
        sums = [0.0] * self.width
        for run, count in counts.items():
            place = zlib.crc32(run.encode(errors="replace"))
            sums[place % self.width] += math.sqrt(count) if place >> 31 else -math.sqrt(count)
        length = math.sqrt(sum(x * x for x in sums))
        return tuple(round(x / length, 6) for x in sums) if length else tuple(sums)
