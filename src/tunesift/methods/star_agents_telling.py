"""What is told of Star-Agents: why a winner won, what agents cost and lost, how probabilities moved, what to doubt."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from tunesift.methods.star_agents_crowning import Standing, parts_of
from tunesift.methods.star_agents_drafts import Drafts
from tunesift.methods.star_agents_judging import TWINS
from tunesift.methods.star_agents_pool import Pair, PairPool
from tunesift.methods.star_agents_writing import Agent
from tunesift.records import Decision, Failure, Record, Score
from tunesift.running.run import Run
from tunesift.settings import Settings

_LOG = logging.getLogger(__name__)
MANY = 0.5
"""Share of gaps below 0, of ties, or of vectors of zeros, from which on it is told as a doubt."""
DOUBTS = (
    ("gap below 0", "measured", "{n:,} of {of:,} gaps are below 0: the large scorer does not understand instructions "
     "better than the small one, and this pair of scorers is not suited"),
    ("ties", "matches", "{n:,} of {of:,} matches are ties: wins rest on difficulty alone"),
    ("seeds without a vector", "seeds", "{n:,} of {of:,} instructions have no vector, or one of zeros: the memory bank "
     "knows nothing of them"),
)  # fmt: skip
"""What of what, where it is many, makes one doubt, and in which words."""


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
    gaps: list[float] = field(default_factory=list)
    """Positive gaps of all rounds so far."""
    _calls: Counter[str] = field(default_factory=Counter)
    _tokens: Counter[str] = field(default_factory=Counter)
    _lost: Counter[tuple[str, str]] = field(default_factory=Counter)
    _counts: Counter[str] = field(default_factory=Counter)
    _won: Counter[str] = field(default_factory=Counter)
    _pools: list[PairPool] = field(default_factory=list)
    _points: list[dict[str, object]] = field(default_factory=list)

    def begin(self, pool: PairPool, vectors: Sequence[Sequence[float] | None]) -> None:
        """With which probabilities a round begins, and where its seeds lie."""
        self._pools.append(pool)
        self._counts["seeds"] += len(vectors)
        self._counts["seeds without a vector"] += sum(vector is None or not any(vector) for vector in vectors)

    def end(self, pool: PairPool) -> None:
        """With which probabilities the last round ended."""
        self._pools.append(pool)

    def add(self, drafts: Drafts, standings: Mapping[str, Sequence[Standing]], crowned: Sequence[Crowned]) -> None:
        """What a round came to."""
        for agent, tokens in drafts.replies:
            self._calls[agent] += 1
            self._tokens[agent] += tokens
        for lost in drafts.lost:
            what = "instruction kept" if lost.instruction else "no response"
            self._lost[lost.agent, f"{what}: {lost.failure.kind}, {lost.failure.message.partition(' (')[0]}"] += 1
        winners = {one.standing.id for one in crowned if one.standing is not None}
        for standing in (standing for found in standings.values() for standing in found):
            self._measure(standing, standing.id in winners)
        for one in crowned:
            if one.standing is not None and not one.standing.candidate.base:
                self._won[one.standing.candidate.pair.name] += 1

    def _measure(self, standing: Standing, won: bool) -> None:
        gap = standing.gap
        self._counts["candidates"] += 1
        if isinstance(gap, Failure) or gap.value is None:
            why = gap.kind if isinstance(gap, Failure) else gap.note
            self._counts[f"not measured: {why.replace('_', ' ')}"] += 1
        else:
            self._counts["measured"] += 1
            self._counts["gap below 0"] += gap.value < 0
            self.gaps += [gap.value] if gap.value > 0 else []
            small, large = gap.parts["ifd_small"], gap.parts["ifd_large"]
            self._points.append({"ifd_small": small, "ifd_large": large, "what": "won" if won else "did not win"})
        if standing.match is TWINS:
            self._counts["same as the base"] += 1
        elif standing.match is not None:
            self._counts["matches"] += 1
            self._counts["ties"] += standing.match.worth == 0.5
            self._counts["orders disagree"] += standing.match.is_split
            self._counts["no verdict"] += standing.match.is_unread

    def tables(self, run: Run) -> None:
        """Everything the report shows besides decisions and scores."""
        lost = Counter[str]()
        for (agent, _), count in self._lost.items():
            lost[agent] += count
        run.table("agents", (
            {"agent": a.name, "calls": self._calls[a.name], "came_to_nothing": lost[a.name],
             "share_lost": round(lost[a.name] / self._calls[a.name], 4) if self._calls[a.name] else None,
             "tokens_written": self._tokens[a.name]}
            for a in self.agents
        ))  # fmt: skip
        run.table("came-to-nothing", [{"agent": a, "why": why, "calls": n} for (a, why), n in self._lost.most_common()])
        last = self._pools[-1].weights
        run.table(
            "pairs", [{"pair": p.name, "probability": round(w, 6), "won": self._won[p.name]} for p, w in last.items()]
        )
        run.table("judging", [{"what": what, "count": n} for what, n in self._counts.items()])
        self._doubts(run)

    def _doubts(self, run: Run) -> None:
        """What speaks against trusting the outcome, in a table and in the log."""
        counts = self._counts
        doubts = [
            words.format(n=counts[what], of=counts[of])
            for what, of, words in DOUBTS
            if counts[what] > MANY * counts[of]
        ]
        run.table("doubts", ({"doubt": doubt} for doubt in doubts))
        for doubt in doubts:
            _LOG.warning("%s", doubt)
