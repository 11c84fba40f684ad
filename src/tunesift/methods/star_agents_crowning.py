"""Which candidate of a seed wins? Difficulty times quality, judged no further than it takes to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tunesift.methods.star_agents_drafts import Candidate
from tunesift.methods.star_agents_judging import Settled
from tunesift.methods.star_agents_pool import Pair
from tunesift.records import Failure, Score


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate with what is known of it."""

    candidate: Candidate
    gap: Score | Failure
    """IFD of the small scorer minus that of the large one; no value where either has none that counts."""
    difficulty: float
    """pi_dual (eq. 5), guarded: from 0 to 1."""
    match: Settled | None = None
    """Against the base; None where it was not needed, and for the base itself."""

    @property
    def id(self) -> str:
        """The candidate's."""
        return self.candidate.record.id

    @property
    def quality(self) -> float | None:
        """pi_llm (eq. 6); a base is as good as itself. None where nobody has judged."""
        if self.candidate.base:
            return 0.5
        return None if self.match is None else self.match.worth

    @property
    def worth(self) -> float:
        """pi (eq. 7): quality times difficulty; 0 where nobody has judged."""
        return (self.quality or 0.0) * self.difficulty


def next_to_judge(standings: Sequence[Standing]) -> Standing | None:
    """The candidate to be judged next: the hardest that would win if it were better than the base; None where the
    winner is known. Whoever is left out could not have won."""
    best = max((_rank(n, s.worth, s.quality or 0.0, s.candidate.base) for n, s in enumerate(standings)
                if s.quality is not None), default=())  # fmt: skip
    open_ = [
        (standing.difficulty, -number)
        for number, standing in enumerate(standings)
        if standing.quality is None
        and standing.difficulty > 0
        and _rank(number, standing.difficulty, 1.0, False) > best
    ]
    return standings[-max(open_)[1]] if open_ else None


def winner(standings: Sequence[Standing]) -> Standing | None:
    """The candidate with the largest worth (eq. 1): of equal ones the better judged, then a base, then the first.
    Bases come first in `standings`, then the others in the order of the pairs.

    Where nothing is worth anything, the first base; None where no base was written.
    """
    bases = [standing for standing in standings if standing.candidate.base]
    if not bases:
        return None
    if all(standing.worth == 0 for standing in standings):
        return bases[0]
    ranks = [_rank(n, s.worth, s.quality or 0.0, s.candidate.base) for n, s in enumerate(standings)]
    return standings[ranks.index(max(ranks))]


def rewards(standings: Iterable[Standing]) -> dict[Pair, float]:
    """What the drawn pairs of a seed were worth; a base's own calls move no probability."""
    return {standing.candidate.pair: standing.worth for standing in standings if not standing.candidate.base}


def above_0(standings: Mapping[str, Sequence[Standing]]) -> list[float]:
    """The positive gaps among a round's candidates."""
    found = (s.gap.value for own in standings.values() for s in own if isinstance(s.gap, Score))
    return [gap for gap in found if gap is not None and gap > 0]


def scaled(gaps: Sequence[float | None], largest: float) -> list[float]:
    """Share of a largest gap that is known from other seeds, from 0 to 1."""
    return [min(1.0, max(0.0, gap or 0.0) / largest) for gap in gaps]


def parts_of(standing: Standing) -> Mapping[str, float]:
    """The numbers that a worth was made of."""
    gap = standing.gap
    measured = gap.parts if isinstance(gap, Score) else {}
    ifds = {name: measured[name] for name in ("ifd_small", "ifd_large") if name in measured}
    judged = {} if standing.quality is None else {"pi_llm": standing.quality}
    return {"pi": standing.worth, "pi_dual": standing.difficulty, **judged, **ifds,
            "base": float(standing.candidate.base)}  # fmt: skip


def _rank(number: int, worth: float, quality: float, base: bool) -> tuple[float, float, bool, int]:
    return worth, quality, base, -number
