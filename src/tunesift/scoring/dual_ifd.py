"""Is a response hard for a small model and yet learnable? The gap between two models' IFD: dual-model difficulty.

Paper    Star-Agents, Zhou et al., arXiv:2411.14497, eq. 4 (IFD by both models) and eq. 5 (their gap, and its share of
         the largest of a batch)
Silent   on gaps below 0, on a largest gap of 0, on an IFD of 1 or more, and on which tokenizers go together; what is
         done about them here is our choice and stands at each function
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from tunesift.errors import ModelRefused, RecipeError, shown
from tunesift.models import LikelihoodModel
from tunesift.models.alike import evened
from tunesift.models.http import NOT_GIVEN
from tunesift.models.transformers import TransformersModel
from tunesift.prompts import Template
from tunesift.records import Failure, Record, Score
from tunesift.scoring.base import Scorer
from tunesift.scoring.ifd import IFD, Profile, perplexity_ratio

DualRatio = Literal["perplexity", "loss", "byte"]
"""What of a model's two losses is set in relation: perplexities per token, mean losses, or perplexities per byte."""

LEAST_GAP = 1e-9
"""Largest gap of a batch up to which nothing in it is difficult: two models that say the same differ by rounding."""

NO_GAP = 1e-6
"""A gap this close to 0 is 0: so far apart may one model's own ratios be, of batches that are not the same."""

_KEPT = ("conditioned", "direct", "conditioned_sum", "direct_sum", "tokens", "direct_tokens", "truncated")
"""What IFD measured, by the names of its parts; with the bytes, either ratio can be made anew from it."""


@dataclass(frozen=True, kw_only=True)
class DualIFD(Scorer):
    """IFD by a small model minus IFD by a large one: the larger, the harder for the small one and yet learnable."""

    kind: Literal["dual-ifd"] = "dual-ifd"
    small: LikelihoodModel = TransformersModel()
    """The model that is to be tuned, or one like it."""
    large: LikelihoodModel = TransformersModel(name=NOT_GIVEN)
    """A larger model of the same family, which must be named; it is asked only where the small one's IFD is below 1."""
    ratio: DualRatio = "perplexity"
    """perplexity: per token, as the paper has it, for two models with one tokenizer; loss: of mean losses; byte: of
    perplexities per UTF-8 byte of the response. The last two also compare models that read other tokens."""
    profile: Profile = "canonical"
    """How either IFD is measured; see there."""
    template: Template | None = None
    """What stands around an instruction; None for the profile's own."""

    label: ClassVar[str] = "dual IFD"

    def __post_init__(self) -> None:
        if self.ratio == "byte" and self.profile == "superfilter":
            raise RecipeError('ratio: "byte" needs every token of a response on both sides, and superfilter may leave '
                              "out the first; use the profile canonical.")  # fmt: skip

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        """One gap per record; value None, with the reason in the note, where there is none.

        Both models read with the shorter of their limits. Raises `ModelRefused` where they turn out to read a response
        as different tokens and the ratio is of perplexities.
        """
        small, large = (
            IFD(student=model, profile=self.profile, template=self.template) for model in evened(self.small, self.large)
        )
        sizes = [size_of(record) for record in chunk]
        hard = small(chunk)
        found = {n: without_large(score, self.ratio, sizes[n]) for n, score in enumerate(hard)}
        asked = [n for n, early in found.items() if early is None]
        for n, easy in zip(asked, large([chunk[n] for n in asked]) if asked else (), strict=True):
            if self.ratio == "perplexity":
                check_tokens(chunk[n].id, hard[n], easy)
            found[n] = gap_of(hard[n], easy, self.ratio, sizes[n])
        return [score for score in found.values() if score is not None]


def size_of(record: Record) -> int:
    """Bytes of a record's last response in UTF-8, which IFD is of."""
    return next((len(m.text.encode()) for m in reversed(record.messages) if m.role == "assistant"), 0)


def check_tokens(id: str, small: Score | Failure, large: Score | Failure) -> None:
    """Raise `ModelRefused` where two models read one whole response as different numbers of tokens.

    That is no fault of the record: their tokenizers differ, which of an endpoint is seen only from what it answers.
    """
    if isinstance(small, Failure) or isinstance(large, Failure) or small.value is None or large.value is None:
        return
    one, other = small.parts, large.parts
    if one["tokens"] == other["tokens"] or one["truncated"] or other["truncated"]:
        return
    raise ModelRefused(f'record "{shown(id)}": the small model reads its response as {one["tokens"]:.0f} tokens and '
                       f"the large one as {other['tokens']:.0f}, so that perplexities per token cannot be compared; "
                       "choose ratio=loss or ratio=byte.")  # fmt: skip


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
    gap = hard - easy if abs(hard - easy) > NO_GAP else 0.0
    return Score(gap, parts | ({} if size is None else {"bytes": float(size)}), small.note)


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
