"""BSDetector's arithmetic (arXiv:2308.16175): how alike are two answers, what does a reflection say, how sure is that?

The formulas of the page `clear`, from texts to numbers; every function here is pure but for the model it is given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tunesift.models import EmbedModel
from tunesift.models.nli import NliModel
from tunesift.records import Failure
from tunesift.settings import Settings

_LABEL = re.compile(r"\banswer\W{0,4}?:", re.IGNORECASE)
_WRAPPING = " \t\r\n\"'`*[]()"
_LETTER = re.compile(r"\b([ABC])\b|[(\[]\s*([abc])\s*[)\]]|\A\W*([abc])\W*\Z")
_BRACKETED = re.compile(r"[(\[]\s*([ABCabc])\s*[)\]]|\A\W*([ABCabc])\W*\Z")
_CERTAINTY = {"a": 1.0, "b": 0.0, "c": 0.5}
_WORDS = ((r"\bincorrect|\bnot\s+correct", 0.0), (r"\bnot\s+sure|\bunsure", 0.5), (r"\bcorrect", 1.0))
"""In this order: "incorrect" holds "correct"."""


@dataclass(frozen=True, kw_only=True)
class WordOverlap(Settings):
    """Words that both texts have, over all their words: needs no model, and knows no synonym."""

    kind: Literal["words"] = "words"

    def similar(self, pairs: Sequence[tuple[str, str]]) -> list[float | Failure]:
        """Jaccard's measure of each pair's sets of words."""
        return [_overlap(a, b) for a, b in pairs]


@dataclass(frozen=True, kw_only=True)
class Embeddings(Settings):
    """Cosine of the two texts' embeddings; 0 for those that point apart."""

    kind: Literal["embeddings"] = "embeddings"
    model: EmbedModel
    """What embeds responses and samples."""

    def similar(self, pairs: Sequence[tuple[str, str]]) -> list[float | Failure]:
        """One number between 0 and 1 for each pair; every text is embedded once."""
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        vectors = dict(zip(texts, self.model.embed(texts), strict=True))
        return [_cosine(vectors[a], vectors[b]) for a, b in pairs]


@dataclass(frozen=True, kw_only=True)
class NoContradiction(Settings):
    """Neither text contradicts the other, says a classifier: what the paper has."""

    kind: Literal["nli"] = "nli"
    model: NliModel
    """The classifier; the paper has DeBERTa-large."""

    def similar(self, pairs: Sequence[tuple[str, str]]) -> list[float | Failure]:
        """Mean over both orders of 1 - p(contradiction); an unordered pair is asked about once, equal texts never."""
        asked = list(dict.fromkeys((min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]))
        chances = iter(self.model.contradiction([order for a, b in asked for order in ((a, b), (b, a))]))
        known = {pair: similarity_of(next(chances), next(chances)) for pair in asked}
        return [1.0 if a == b else known[min(a, b), max(a, b)] for a, b in pairs]


AnySimilarity = Annotated[WordOverlap | Embeddings | NoContradiction, Field(discriminator="kind")]


def _overlap(a: str, b: str) -> float:
    first, second = (set(re.findall(r"\w+", text.casefold())) for text in (a, b))
    return len(first & second) / len(first | second) if first | second else float(a == b)


def _cosine(a: tuple[float, ...] | Failure, b: tuple[float, ...] | Failure) -> float | Failure:
    if isinstance(a, Failure):
        return a
    if isinstance(b, Failure):
        return b
    lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
    if not (lengths > 0 and math.isfinite(lengths)):
        return Failure("not-finite", "an embedding has no direction")
    return min(1.0, max(0.0, sum(x * y for x, y in zip(a, b, strict=True)) / lengths))


def similarity_of(forward: float, backward: float) -> float:
    """s_i: mean of 1 - p(contradiction) in both orders, so that neither place is favoured."""
    return ((1 - forward) + (1 - backward)) / 2


def same(a: str, b: str) -> bool:
    """r_i: equal but for case, white space and a final full stop."""
    return _plain(a) == _plain(b)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").strip()


def final_answer(text: str) -> str:
    """What stands after the last answer label, without what wraps it; the whole text where there is no label."""
    found = list(_LABEL.finditer(text))
    return text[found[-1].end() :].strip(_WRAPPING) if found else text.strip()


def certainty_of(text: str) -> float | None:
    """What a reflection says: correct 1, incorrect 0, not sure 0.5; None where it cannot be read.

    The last letter that stands alone in the answer field; without one, its words. A small "a" is a letter only in
    brackets or alone, since it is also a word; without an answer field, so is every letter.
    """
    found = list(_LABEL.finditer(text))
    said = text[found[-1].end() :] if found else text
    letters = list((_LETTER if found else _BRACKETED).finditer(said))
    if letters:
        return _CERTAINTY[next(group for group in letters[-1].groups() if group).lower()]
    return next((value for words, value in _WORDS if re.search(words, said, re.IGNORECASE)), None)


def consistency(agreements: Sequence[tuple[float, bool]], w_similarity: float) -> list[float]:
    """o_i of every sample: alpha * s_i + (1 - alpha) * r_i."""
    return [w_similarity * s + (1 - w_similarity) * r for s, r in agreements]


def confidence(observed: float | None, certainty: float | None, w_consistency: float) -> float | None:
    """C = beta * O + (1 - beta) * S (eq. 1); over what there is where one of the two is missing, None without both."""
    if observed is None or certainty is None:
        return certainty if observed is None else observed
    return w_consistency * observed + (1 - w_consistency) * certainty


def bounds(drawn: Sequence[float], left: int, certainty: float | None, w_consistency: float) -> tuple[float, float]:
    """Smallest and largest confidence that so many samples that are still to be drawn can lead to."""
    count = len(drawn) + left
    if not count:
        known = confidence(None, certainty, w_consistency)
        return (0.0, 1.0) if known is None else (known, known)
    ends = ((sum(drawn) + more) / count for more in (0, left))
    low, high = (confidence(end, certainty, w_consistency) for end in ends)
    assert low is not None  # an observed consistency always gives a confidence
    assert high is not None
    return low, high
