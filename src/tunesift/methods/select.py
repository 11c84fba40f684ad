"""Select: score every record, keep the ones a selector chooses.

Paper    Superfiltering, Li et al., arXiv:2402.00530, with its profile and GPT-2; any other scorer and selector
Needs    a student that gives losses
Changes  drops records, edits none

Stages   score         one score per record
         keep          one decision per record, a pure function of the scores

The paper is silent on
    Empty responses, and instructions longer than the student's context: no score, dropped with that reason.
    Ties: the earlier record wins.
We differ from the authors' code
    The budget is a fraction of the records at hand; theirs is a fraction of 52,002 whatever the file.
    A record whose scoring failed is quarantined; theirs scores 0 and reads as easiest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from tunesift.datasets import Dataset
from tunesift.records import Record
from tunesift.running.result import Planned, Result, kept
from tunesift.running.run import Run
from tunesift.scoring.ifd import IFD, ReversedIFD
from tunesift.scoring.selectors import NEEDS_NO_SCORES, Above, Largest, Longest, Pool, Quota, Random, Smallest
from tunesift.settings import Settings

AnyScorer = Annotated[IFD | ReversedIFD, Field(discriminator="kind")]
AnySelector = Annotated[Largest | Smallest | Above | Quota | Random | Longest, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class Select(Settings):
    """Score every record and keep the ones a selector chooses."""

    kind: Literal["select"] = "select"
    scorer: AnyScorer = IFD()
    """What is measured."""
    keep: AnySelector = Largest(fraction=0.1, below=1.0)
    """Which records stay; `keep=10%` on the command line sets the fraction."""

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Keep records by their score."""
        stream = run.random("keep")
        if isinstance(self.keep, Quota):
            self.keep.groups(data)  # refused before anything is scored
        if isinstance(self.keep, NEEDS_NO_SCORES):
            pool = Pool(data, {}, {}, "", stream)
        else:
            scores = run.map("score", self.scorer, data)
            pool = Pool(data, scores.good(), scores.failures(), self.scorer.label, stream)
        decisions = self.keep(pool)
        return Result(kept(data, decisions), decisions)

    def plan(self, records: int) -> list[Planned]:
        """One stage of two forward passes per record; none for a selector that needs no scores."""
        if isinstance(self.keep, NEEDS_NO_SCORES):
            return []
        return [Planned("score", records, 2, getattr(self.scorer.student, "name", self.scorer.student.kind))]
