"""Is a response hard for a small model and yet learnable? The gap between two models' IFD: dual-model difficulty.

Paper    Star-Agents, Zhou et al., arXiv:2411.14497, eq. 4 (IFD by both models) and eq. 5 (their gap, and its share of
         the largest of a batch)
Silent   on gaps below 0, on a largest gap of 0, on an IFD of 1 or more, and on which tokenizers go together; what is
         done about them here is our choice and stands at each function
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from tunesift.records import Failure, Score
from tunesift.scoring.ifd import perplexity_ratio

DualRatio = Literal["perplexity", "loss", "byte"]
"""What of a model's two losses is set in relation: perplexities per token, mean losses, or perplexities per byte."""

LEAST_GAP = 1e-9
"""Largest gap of a batch up to which nothing in it is difficult: two models that say the same differ by rounding."""

_KEPT = ("conditioned", "direct", "conditioned_sum", "direct_sum", "tokens", "direct_tokens", "truncated")
"""What IFD measured, by the names of its parts; with the bytes, either ratio can be made anew from it."""


def gap_of(
    small: Score | Failure, large: Score | Failure, ratio: DualRatio = "perplexity", size: int | None = None
) -> Score | Failure:
    """IFD of the small model minus that of the large one: eq. 5 before it is divided, of eq. 4 by each model.

    Both are scores of `IFD`, whose parts they are read from; `size` is the response's length in UTF-8 bytes, which the
    ratio `byte` needs. Larger is harder for the small model and yet learnable; below 0, the small one understands the
    instruction better. A failure stays one, the small model's first. No score, with the reason in the note, where a
    model has none, where the small one's ratio is 1 or more (a response that does not belong to its instruction has
    the widest gap of all), and where the two models did not see the same tokens of the response.
    """
    if (early := without_large(small, ratio, size)) is not None:
        return early
    if isinstance(large, Failure):
        return large
    if large.value is None:
        return Score(None, note=f"large: {large.note}")
    assert isinstance(small, Score)  # the failure is handed back above
    hard, easy = (ratio_of(score, ratio, size) for score in (small, large))
    if not math.isfinite(easy):
        return _not_finite("large", easy)
    if reason := _unlike(small.parts, large.parts, ratio):
        return Score(None, note=reason)
    parts = {"ifd_small": hard, "ifd_large": easy}
    parts |= {f"{name}_small": small.parts[name] for name in _KEPT}
    parts |= {f"{name}_large": large.parts[name] for name in _KEPT}
    return Score(hard - easy, parts | ({} if size is None else {"bytes": float(size)}), small.note)


def without_large(
    small: Score | Failure, ratio: DualRatio = "perplexity", size: int | None = None
) -> Score | Failure | None:
    """What stands for the gap whatever the large model says, so that it need not be asked; None where it must be."""
    if isinstance(small, Failure):
        return small
    if small.value is None:
        return small if small.note == "empty_response" else Score(None, note=f"small: {small.note}")
    hard = ratio_of(small, ratio, size)
    if not math.isfinite(hard):
        return _not_finite("small", hard)
    return Score(None, {"ifd_small": hard}, "above_one") if hard >= 1 else None


def ratio_of(score: Score, ratio: DualRatio, size: int | None = None) -> float:
    """A model's IFD from the parts of a score of `IFD`: its perplexities' ratio (eq. 4), its mean losses', or
    `exp((conditioned - direct) / size)` of the sums, which two tokenizers have in common."""
    if ratio != "byte":
        return score.parts["ifd_ppl" if ratio == "perplexity" else "ifd_loss"]
    assert size, "the ratio per byte needs the bytes of the response, and a response that is scored has some"
    return perplexity_ratio(score.parts["conditioned_sum"] / size, score.parts["direct_sum"] / size)


def difficulties(gaps: Sequence[float | None]) -> list[float]:
    """Share of the largest gap among those of one batch, from 0 to 1: eq. 5, guarded.

    A gap below 0, none, and one that is not finite are worth 0; so is every gap where the largest is not above 1e-9.
    Without these guards, gaps that are all below 0 turn their signs, and the worst comes first.
    """
    positive = [gap if gap is not None and math.isfinite(gap) and gap > 0 else 0.0 for gap in gaps]
    largest = max(positive, default=0.0)
    return [gap / largest if largest > LEAST_GAP else 0.0 for gap in positive]


def _unlike(small: Mapping[str, float], large: Mapping[str, float], ratio: DualRatio) -> str:
    """Why two models' losses are not of the same part of a response; empty where they are."""
    cut = bool(small["truncated"]) or bool(large["truncated"])
    if ratio == "perplexity":
        if small["tokens"] == large["tokens"] and small["direct_tokens"] == large["direct_tokens"]:
            return ""
        return "truncated_differently" if cut else "tokens_differ"
    if cut:  # of tokens that may be cut otherwise, the same number need not be the same text
        return "truncated_differently"
    uneven = any(side["tokens"] != side["direct_tokens"] for side in (small, large))
    return "tokens_differ" if ratio == "byte" and uneven else ""


def _not_finite(side: str, value: float) -> Failure:
    return Failure("not-finite", f"the {side} model's IFD is {value}")
