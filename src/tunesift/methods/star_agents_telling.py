"""What is told of Star-Agents: why a winner won, what agents cost and lost, how probabilities moved, what to doubt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np

from tunesift.evaluation.pairwise import Outcomes
from tunesift.methods.gaps import MANY, UNSUITED
from tunesift.methods.star_agents_crowning import Standing, parts_of
from tunesift.methods.star_agents_drafts import Drafts
from tunesift.methods.star_agents_judging import TWINS
from tunesift.methods.star_agents_pool import Pair, PairPool
from tunesift.methods.star_agents_writing import Agent
from tunesift.models import name_of
from tunesift.records import Decision, Failure, Record, Score
from tunesift.running.charts import Band, Chart
from tunesift.running.run import Run
from tunesift.settings import Settings

DOUBTS = (
    ("gap below 0", "measured", f"of {{of:,}} {UNSUITED}"),
    ("ties", "matches", "of {of:,} matches are ties: wins rest on difficulty alone"),
    ("seeds without a vector", "seeds", "of {of:,} instructions have no vector, or one of zeros: the memory bank "
     "knows nothing of them"),
)  # fmt: skip
"""What of what, where it is many, makes one doubt, and in which words."""
OF = {
    "seeds without a vector": "seeds", "measured": "candidates", "gap below 0": "measured",
    "same as the base": "candidates", "matches": "candidates", "ties": "matches", "orders disagree": "matches",
    "no verdict": "matches",
}  # fmt: skip
"""What each count is a share of; what was not measured is one of the candidates."""
TRAJECTORY = Chart(
    "lines", "round", "probability", "pair", x_name="rounds done", y_name="probability of being drawn",
    noun="rounds, the start among them",
    caption="How likely each pair is to be drawn (eq. 8), from the start, where all are alike, to the end.",
)  # fmt: skip
WON, STAYED, LOST = "won against the base", "base that stayed", "did not win"
DIFFICULTY = Chart(
    "points", "ifd_large", "ifd_small", "what", x_name="IFD by the large scorer", y_name="IFD by the small scorer",
    noun="candidates", names=(LOST, WON, STAYED),
)  # fmt: skip
WINDOW = (5, 95)
"""Percentiles of the winners' gaps between which the chosen window lies."""


@dataclass(frozen=True, slots=True)
class Crowned:
    """What became of a seed."""

    seed: Record
    standing: Standing | None
    """The winner; None where no base was written."""
    why: str
    """Why none was; empty where one was."""

    @property
    def id(self) -> str:
        """The seed's."""
        return self.seed.id

    @property
    def chosen(self) -> Record | None:
        """What stands in the output for the seed: the winner, else the seed itself; None where that has no response."""
        if self.standing is not None:
            return self.standing.candidate.record
        return self.seed if self.seed.response.strip() else None

    @property
    def earner(self) -> Pair | None:
        """The pair that the memory bank remembers: a drawn one that won and is worth something."""
        if self.standing is None or self.standing.candidate.base or self.standing.worth == 0:
            return None
        return self.standing.candidate.pair

    def decision(self) -> Decision:
        """What became of the seed, and why."""
        if self.standing is None:
            return Decision(self.id, "drop" if self.chosen is None else "keep", f"no base response: {self.why}")
        name, parts = self.standing.candidate.pair.name, parts_of(self.standing)
        if self.standing.candidate.base:
            return Decision(self.id, "replace", f"base {name} stays: nothing was both harder and as good", (self.id,))
        why = (f"pi {parts['pi']:.4f} = quality {parts['pi_llm']:g} x difficulty {parts['pi_dual']:.4f}, IFD "
               f"{parts['ifd_small']:.4f} by the small scorer and {parts['ifd_large']:.4f} by the large")  # fmt: skip
        return Decision(self.id, "replace", f"{name} won: {why}", (self.id,))

    def score(self) -> Score:
        """The winner's worth, what it is made of, and the pair it comes from."""
        if self.standing is None:
            return Score(None, note="the seed itself")
        return Score(self.standing.worth, parts_of(self.standing), self.standing.candidate.pair.name)


@dataclass(frozen=True, kw_only=True)
class WriteDown(Settings):
    """Writes down, for every seed, the numbers that decided; the score is the winner's difficulty times quality."""

    kind: Literal["star-agents"] = "star-agents"

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Crowned], /) -> list[Score | Failure]:
        """One score per seed, by its id."""
        return [one.score() for one in chunk]


class Provenance(Mapping[str, Mapping[str, Score | Failure]]):
    """Beside every row of the output: which pair wrote it, and the numbers that made it win."""

    def __init__(self, crowned: Sequence[Crowned], left: Mapping[str, str]) -> None:
        self._of = {one.chosen.id: one for one in crowned if one.chosen is not None}
        self._left = left

    def __getitem__(self, id: str) -> Mapping[str, Score | Failure]:
        if id in self._left:
            return {"star-agents": Score(None, note=f"left alone ({self._left[id]})")}
        return {"star-agents": self._of[id].score()}

    def __iter__(self) -> Iterator[str]:
        return iter([*self._of, *self._left])

    def __len__(self) -> int:
        return len(self._of) + len(self._left)


@dataclass
class Told:
    """Counts over all rounds, made anew whenever the page runs."""

    agents: Sequence[Agent]
    run: Run
    pool: PairPool
    """The probabilities now."""
    _calls: Counter[str] = field(default_factory=Counter)
    _tokens: Counter[str] = field(default_factory=Counter)
    _lost: Counter[tuple[str, str]] = field(default_factory=Counter)
    _counts: Counter[str] = field(default_factory=Counter)
    _won: Counter[str] = field(default_factory=Counter)
    _against: dict[str, Counter[float]] = field(default_factory=dict)
    """By the pair, how often it was worth 1, 0.5 and 0 to the judge."""
    _chosen: list[float] = field(default_factory=list)
    """Gaps of drawn candidates that won."""
    _rounds: int = 0

    def __post_init__(self) -> None:
        self.run.chart("pair-probabilities", self.pool.rows(0), TRAJECTORY)

    def add(
        self,
        drafts: Drafts,
        standings: Mapping[str, Sequence[Standing]],
        crowned: Sequence[Crowned],
        pool: PairPool,
        vectors: Sequence[Sequence[float] | None],
    ) -> None:
        """What a round came to, with which probabilities the next one begins, and where its seeds lay."""
        self._counts["seeds"] += len(vectors)
        self._counts["seeds without a vector"] += sum(vector is None or not any(vector) for vector in vectors)
        for agent, tokens in drafts.replies:
            self._calls[agent] += 1
            self._tokens[agent] += tokens
        for lost in drafts.lost:
            what = "instruction kept" if lost.instruction else "no response"
            self._lost[lost.agent, f"{what}: {lost.failure.kind}, {lost.failure.message.partition(' (')[0]}"] += 1
        winners = {one.standing.id for one in crowned if one.standing is not None}
        for standing in (standing for found in standings.values() for standing in found):
            self._count(standing)
            self._measure(standing, standing.id in winners)
        for one in crowned:
            if one.standing is not None and not one.standing.candidate.base:
                self._won[one.standing.candidate.pair.name] += 1
        self.pool, self._rounds = pool, self._rounds + 1
        self.run.chart("pair-probabilities", pool.rows(self._rounds), TRAJECTORY)

    def _measure(self, standing: Standing, won: bool) -> None:
        """How difficult a candidate is, and where it stands in the picture of that."""
        gap = standing.gap
        self._counts["candidates"] += 1
        if isinstance(gap, Failure) or gap.value is None:
            why = gap.kind if isinstance(gap, Failure) else gap.note
            self._counts[f"not measured: {why.replace('_', ' ')}"] += 1
            return
        self._counts["measured"] += 1
        self._counts["gap below 0"] += gap.value < 0
        chosen = won and not standing.candidate.base
        self._chosen += [gap.value] if chosen else []
        what = WON if chosen else STAYED if won else LOST
        point = {"ifd_small": gap.parts["ifd_small"], "ifd_large": gap.parts["ifd_large"], "what": what}
        self.run.chart("difficulty", [point], DIFFICULTY)

    def _count(self, standing: Standing) -> None:
        """What the judge said of a candidate."""
        if standing.match is TWINS:
            self._counts["same as the base"] += 1
        elif standing.match is not None:
            self._counts["matches"] += 1
            self._against.setdefault(standing.candidate.pair.name, Counter())[standing.match.worth] += 1
            self._counts["ties"] += standing.match.worth == 0.5
            self._counts["orders disagree"] += standing.match.is_split
            self._counts["no verdict"] += standing.match.is_unread

    def tables(self) -> dict[str, int]:
        """Everything the report shows besides decisions and scores; hands back what speaks against the outcome, as
        notes to the user."""
        lost = Counter[str]()
        for (agent, _), count in self._lost.items():
            lost[agent] += count
        self.run.table("agents", (
            {"agent": a.name, "model": name_of(a.model), "calls": self._calls[a.name], "came_to_nothing": lost[a.name],
             "share_lost": _share(lost[a.name], self._calls[a.name]), "tokens_written": self._tokens[a.name]}
            for a in self.agents
        ))  # fmt: skip
        nothing = ({"agent": a, "why": why, "calls": n} for (a, why), n in self._lost.most_common())
        self.run.table("came-to-nothing", nothing)
        self.run.table("pairs", (
            {"pair": p.name, "probability": round(weight, 6), "won": self._won[p.name], **self._record_of(p.name)}
            for p, weight in self.pool.weights.items()
        ))  # fmt: skip
        wholes = ((what, n, OF.get(what, "candidates" if ":" in what else None)) for what, n in self._counts.items())
        self.run.table("judging", (
            {"what": what, "count": n, "of": of, "fraction": _share(n, self._counts[of] if of else 0)}
            for what, n, of in wholes
        ))  # fmt: skip
        self.run.chart("difficulty", (), replace(DIFFICULTY, caption=self._caption(), bands=self._bands()))
        told = ((words, self._counts[what], self._counts[of]) for what, of, words in DOUBTS)
        doubts = {words.format(of=whole): count for words, count, whole in told if count > MANY * whole}
        self.run.table("doubts", ({"doubt": f"{count:,} {words}"} for words, count in doubts.items()))
        return doubts

    def _record_of(self, pair: str) -> dict[str, object]:
        """How often a pair was compared with the base, and how it fared."""
        judged = self._against.get(pair, Counter[float]())
        found = Outcomes(won=judged[1.0], tied=judged[0.5], lost=judged[0.0])
        rate = round(found.adjusted_win_rate, 4) if found.count else None
        return {"judged": found.count, "adjusted_win_fraction": rate}

    def _bands(self) -> tuple[Band, ...]:
        """The line on which both scorers find a response as difficult, and the window of gaps that won."""
        even = Band("the same for both, gap 0", 0.0, slope=1.0)
        if not self._chosen:
            return (even,)
        low, high = (float(gap) for gap in np.percentile(self._chosen, WINDOW))
        return (even, Band(f"chosen window, gap {low:.3f} to {high:.3f}", low, high, slope=1.0))

    def _caption(self) -> str:
        """What the picture of difficulty shows, in words and numbers."""
        measured, every = self._counts["measured"], self._counts["candidates"]
        said = ("A point is a candidate. Above the diagonal, the large scorer gains more from the instruction than the "
                "small one, and the gap is how far above (eq. 5). ")  # fmt: skip
        if self._chosen:
            said += (f"The window holds the middle nine tenths of the {len(self._chosen):,} candidates that won "
                     "against their base. ")  # fmt: skip
        else:
            said += "No candidate won against its base. "
        return said + (f"{every - measured:,} of {every:,} candidates have no gap." if every > measured else "")


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
