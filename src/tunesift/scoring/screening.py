"""Whom does a cheap score settle, and who lies so near a cut that the scorer must say? Pure functions of scores.

A small model scores every record; what lies near either end of the part that is kept is scored by the scorer itself,
and so is a sample of all, by which the report says how far the two agree. Our own: no paper of those that are built
here has it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tunesift.arrays import Bools, Numbers, Places
from tunesift.errors import RecipeError
from tunesift.models import LikelihoodModel
from tunesift.models.transformers import TransformersModel
from tunesift.records import Decision
from tunesift.scoring.deciding import Decisions, budget, ranked, told_value
from tunesift.scoring.selectors import Largest, Pool, Smallest
from tunesift.settings import Settings

Ranking = Largest | Smallest
"""Selectors of which a screen knows where their cuts are."""


@dataclass(frozen=True, kw_only=True)
class Screen(Settings):
    """A small model that scores every record, so that the scorer need only score those near the cut."""

    student: LikelihoodModel = TransformersModel()
    """The small model, in place of the scorer's student."""
    margin: float = 0.05
    """Share of all records on either side of a cut that the scorer scores itself, above 0 and up to 1."""
    sample: int = 500
    """Records, drawn from all, that the scorer scores besides: by them the report says how far both agree."""

    def __post_init__(self) -> None:
        if not 0 < self.margin <= 1:
            raise RecipeError(f"screen.margin: {self.margin:g} is not a share above 0 and up to 1; write 0.05.")
        if self.sample < 1:
            raise RecipeError(f"screen.sample: {self.sample} records say nothing of how far both agree; write 500.")

    def asked(self, keep: Ranking, records: int) -> int:
        """Records that the scorer is asked about, at most."""
        cuts = 2 if isinstance(keep, Largest) and (keep.below is not None or keep.at_most is not None) else 1
        return min(records, cuts * 2 * math.ceil(self.margin * records) + self.sample)


@dataclass(frozen=True, slots=True)
class Screened:
    """What a small model's scores say of every record."""

    pool: Pool
    """All records with these scores."""
    values: Numbers
    """The scores in order; not a number where there is none."""
    kept: Bools
    """Which would be kept by them."""
    near: Bools
    """Which lie near a cut, or have no such score."""
    count: int
    """How many are to be kept."""

    @classmethod
    def of(cls, pool: Pool, keep: Ranking, margin: float) -> Screened:
        """By the scores of the pool; near is within so large a share of all records, by rank."""
        values, reach = pool.values(), math.ceil(margin * len(pool.data))
        order = ranked(values if isinstance(keep, Largest) else -values)  # from 1; 0 without a score
        within = _within(values, keep)
        count = budget(keep.fraction, keep.count, len(pool.data))
        kept = within & (ranked(np.where(within, -order, np.nan)) <= count)
        near = order == 0
        for cut in _cuts(order, kept, keep):
            near |= (order > max(0, cut - reach)) & (order <= cut + reach)
        return cls(pool, values, kept, near, count)

    def asked(self, sample: Sequence[int]) -> Bools:
        """Which records the scorer scores: those near a cut, and those of a sample, by their places."""
        found = self.near.copy()
        found[list(sample)] = True
        return found

    def decide(self, rescored: Pool, keep: Ranking) -> Sequence[Decision]:
        """By the scorer's own score for the records of `rescored`, which fill the places that are left; for all others
        by the small model's."""
        own = set(rescored.data.ids())
        settled = sum(bool(kept) and id not in own for kept, id in zip(self.kept, self.pool.data.ids(), strict=True))
        left = self.count - settled
        found = replace(keep, fraction=None, count=left)(rescored) if own and left > 0 else ()
        decided = {decision.record_id: decision for decision in found}

        def verdict(place: int, id: str) -> Decision:
            if id in own:
                return decided.get(id) or Decision(id, "drop", f"no place is left: the screen settled all {settled:,}")
            said = f"{rescored.label} {told_value(self.values[place])} by the screen, far from the cut"
            if self.kept[place]:
                return Decision(id, "keep", f"screened in: {said}")
            return Decision(id, "drop", f"screened out: {said}")

        return Decisions(self.pool.data, verdict)

    def settled_otherwise(self, sample: Collection[int], decisions: Sequence[Decision]) -> dict[str, tuple[int, int]]:
        """Of a sample's records that are far from the cut, by what the screen would do: how many there are, and how
        many the scorer decided otherwise."""
        found = {True: [0, 0], False: [0, 0]}
        for place in sample:
            if not self.near[place]:
                of = found[bool(self.kept[place])]
                of[0] += 1
                of[1] += (decisions[place].action == "keep") != self.kept[place]
        return {name: (of[0], of[1]) for name, of in (("kept", found[True]), ("dropped", found[False]))}


def _within(values: Numbers, keep: Ranking) -> Bools:
    inside = np.isfinite(values)
    if keep.below is not None:
        inside &= values < keep.below
    if isinstance(keep, Largest) and keep.at_most is not None:
        inside &= values <= keep.at_most
    return inside


def _cuts(order: Places, kept: Bools, keep: Ranking) -> list[int]:
    """Ranks behind which records begin, or cease, to be kept; where none is kept, the end that is nearest to it."""
    last = int(order.max(initial=0))
    if not kept.any():
        return [last if isinstance(keep, Largest) else 0]
    ends = (int(order[kept].min()) - 1, int(order[kept].max()))
    return [cut for cut in ends if 0 < cut < last]
