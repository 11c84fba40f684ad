"""Score: write scores beside every record, and decide nothing.

Needs    what the scorers need
Changes  nothing; the output holds every record with its `id` and a `scores` object

Stages   one per scorer, named after it
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.methods.gaps import tell_gaps
from tunesift.methods.select import AnyScorer, check_kinds, planned_for
from tunesift.records import Decision, Failure, Record, Score
from tunesift.running.result import Planned, Result
from tunesift.running.run import Run
from tunesift.running.step import Outcomes
from tunesift.scoring.dual_ifd import DualIFD
from tunesift.scoring.ifd import IFD
from tunesift.settings import Settings


@dataclass(frozen=True, kw_only=True)
class ScoreRecords(Settings):
    """Write scores beside every record, and decide nothing."""

    kind: Literal["score"] = "score"
    scorers: tuple[AnyScorer, ...] = (IFD(),)
    """What is measured; each kind at most once."""

    def __post_init__(self) -> None:
        check_kinds("scorers", self.scorers)
        if not self.scorers:
            raise RecipeError("scorers: there is none; name at least one.")

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Keep every record, with its scores."""
        found: dict[str, Outcomes[Score]] = {scorer.kind: run.map(scorer.kind, scorer, data) for scorer in self.scorers}
        failed = {
            id: f"{kind} {f.kind}: {f.message}" for kind, scores in found.items() for id, f in scores.failures().items()
        }
        decisions = [Decision(id, "keep", f"scored: {failed.get(id, 'all scorers')}") for id in data.ids()]
        dual = found.get(DualIFD.kind)
        notes = {} if dual is None else tell_gaps(run, dual.good(), decisions)
        return Result(data, decisions, _Table(found), notes=notes)

    def plan(self, records: int) -> list[Planned]:
        """One stage per scorer."""
        return [asked for scorer in self.scorers for asked in planned_for(scorer.kind, scorer, records)]


class _Table(Mapping[str, Mapping[str, Score | Failure]]):
    """By record id, then by scorer; read from the journal when asked for."""

    def __init__(self, found: Mapping[str, Outcomes[Score]]) -> None:
        self._found = found

    def __getitem__(self, id: str) -> Mapping[str, Score | Failure]:
        return {kind: outcomes[id] for kind, outcomes in self._found.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(next(iter(self._found.values())))

    def __len__(self) -> int:
        return len(next(iter(self._found.values())))
