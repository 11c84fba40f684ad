"""Select: score every record, keep the ones a selector chooses.

Paper    Superfiltering, Li et al., arXiv:2402.00530, with its profile and GPT-2; Superfiltering.D, the same with the
         selector `diverse`; any other scorer and selector
Needs    a student that gives losses; for `diverse`, a model that embeds
Changes  drops records, edits none

Stages   screen        one score per record by a small model, where there is a screen
         score         one score per record; with a screen, of those near the cut and of a sample
         score-KIND    the same by each further scorer
         embed-candidates  their embeddings, where the selector asks for them
         keep          one decision per record, a pure function of what was measured

The paper is silent on
    Empty responses, and instructions longer than the student's context: no score, dropped with that reason.
    Ties: the earlier record wins.
We differ from the authors' code
    The budget is a fraction of the records at hand; theirs is a fraction of 52,002 whatever the file.
    A record whose scoring failed is quarantined; theirs scores 0 and reads as easiest.
    Where the budget of `diverse` is not below the candidates, all of them stay; theirs stops with an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.methods.gaps import tell_gaps
from tunesift.methods.screened import tell_screen
from tunesift.models import name_of
from tunesift.records import Decision, Record
from tunesift.running.result import Planned, Result, kept
from tunesift.running.run import Run
from tunesift.scoring.combined import Combined
from tunesift.scoring.deciding import budget, check_some
from tunesift.scoring.diverse import Diverse, EmbedText
from tunesift.scoring.dual_ifd import DualIFD
from tunesift.scoring.duplicates import Distinct
from tunesift.scoring.ifd import IFD, ReversedIFD
from tunesift.scoring.perplexity import Perplexity
from tunesift.scoring.screening import Ranking, Screen, Screened
from tunesift.scoring.selectors import (
    NEEDS_NO_SCORES,
    Above,
    Largest,
    Longest,
    Pool,
    Quota,
    Random,
    Scored,
    Shortest,
    Smallest,
)
from tunesift.settings import Settings

AnyScorer = Annotated[IFD | ReversedIFD | DualIFD | Perplexity, Field(discriminator="kind")]
AnySelector = Annotated[
    Largest | Smallest | Above | Quota | Combined | Diverse | Distinct | Random | Longest | Shortest,
    Field(discriminator="kind"),
]


@dataclass(frozen=True, kw_only=True)
class Select(Settings):
    """Score every record and keep the ones a selector chooses."""

    kind: Literal["select"] = "select"
    scorer: AnyScorer = IFD()
    """What is measured."""
    also: tuple[AnyScorer, ...] = ()
    """What is measured besides, for the selector `combined`; each kind at most once."""
    keep: AnySelector = Largest(fraction=0.1, below=1.0)
    """Which records stay; `keep=10%` on the command line sets the fraction."""
    screen: Screen | None = None
    """A small model that scores all records first, so that the scorer scores only those near the cut; None for all."""

    def __post_init__(self) -> None:
        check_kinds("also", self._scorers())
        if self.also and not isinstance(self.keep, Combined):
            raise RecipeError("also: only keep.kind=combined looks at several scores; leave it empty.")
        if isinstance(self.scorer, Perplexity) and getattr(self.keep, "below", None) == 1.0:
            raise RecipeError("keep.below: 1 is IFD's bound, and every perplexity is above it; write keep.below=null.")

        if self.screen is not None and (not isinstance(self.keep, Ranking) or isinstance(self.scorer, DualIFD)):
            raise RecipeError("screen: only keep.kind=largest and smallest, by the losses of one model, say where "
                              "their cut is; leave it out.")  # fmt: skip
        if self.screen is not None and getattr(self.keep, "rule", "ours") != "ours":
            raise RecipeError("screen: keep.rule=cherry takes its share of what is within the bounds, which nobody "
                              "knows before all is scored; write keep.rule=ours.")  # fmt: skip

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Keep records by their scores."""
        check_keep(self.keep, data, [scorer.kind for scorer in self._scorers()])
        if self.screen is not None:
            return self._screened(data, run, self.screen)
        pool = self._measured(data, run)
        decisions = chosen(pool, self.keep, run)
        dual = pool.named.get(DualIFD.kind)
        notes = {} if dual is None else tell_gaps(run, dual.scores, decisions)
        return Result(kept(data, decisions), decisions, notes=notes)

    def _screened(self, data: Dataset[Record], run: Run, screen: Screen) -> Result:
        """Score all by the small model, and what it does not settle by the scorer's own."""
        assert isinstance(self.keep, Ranking)
        assert not isinstance(self.scorer, DualIFD)
        found = run.map("screen", replace(self.scorer, student=screen.student), data)
        pool = Pool(data, found.good(), found.failures(), self.scorer.label, run.random("keep"))
        screened = Screened.of(pool, self.keep, screen.margin)
        sample = run.random("sample").sample(range(len(data)), min(screen.sample, len(data)))
        again = data.where(screened.asked(sample))
        exact = run.map("score", self.scorer, again)
        rescored = replace(pool, data=again, scores=exact.good(), failures=exact.failures())
        decisions = screened.decide(rescored, self.keep)
        notes = tell_screen(run, screened, rescored.scores, sample, decisions)
        return Result(kept(data, decisions), decisions, notes=notes)

    def _measured(self, data: Dataset[Record], run: Run) -> Pool:
        found = {scorer.kind: run.map(stage, scorer, data) for stage, scorer in self._stages()}
        named: dict[str, Scored] = {kind: Scored(scores.good(), scores.failures()) for kind, scores in found.items()}
        first = named.get(self.scorer.kind, Scored({}, {}))
        return Pool(data, first.scores, first.failures, self.scorer.label, run.random("keep"), named)

    def _scorers(self) -> tuple[AnyScorer, ...]:
        return (self.scorer, *self.also)

    def _stages(self) -> list[tuple[str, AnyScorer]]:
        """Stage and scorer of what the selector looks at."""
        every = [("score", self.scorer), *((f"score-{scorer.kind}", scorer) for scorer in self.also)]
        if isinstance(self.keep, Combined):
            return [(stage, scorer) for stage, scorer in every if scorer.kind in self.keep.kinds]
        if isinstance(self.keep, Diverse):
            return every if self.keep.scores else []
        return [] if isinstance(self.keep, (*NEEDS_NO_SCORES, Distinct)) else every

    def plan(self, records: int) -> list[Planned]:
        """A stage per scorer, and the embeddings; none for a selector that needs neither."""
        if self.screen is not None:
            assert isinstance(self.keep, Ranking)
            again, forwards = self.screen.asked(self.keep, records), self.scorer.forwards
            return [Planned("screen", records, forwards, name_of(self.screen.student)),
                    *planned_for("score", self.scorer, again)]  # fmt: skip
        return [
            *(asked for stage, scorer in self._stages() for asked in planned_for(stage, scorer, records)),
            *planned_choice(self.keep, records),
        ]


def check_kinds(name: str, scorers: Sequence[AnyScorer]) -> None:
    """Refuse two scorers of one kind, by which their scores are known."""
    kinds = [scorer.kind for scorer in scorers]
    if twice := [kind for kind in kinds if kinds.count(kind) > 1]:
        raise RecipeError(f"{name}: there are two scorers of the kind {twice[0]!r}; name each kind once.")


def check_keep(keep: AnySelector, data: Dataset[Record], scores: Sequence[str]) -> None:
    """Refuse, before anything is scored, a selector that would keep nothing, or names a field or a score that is not
    there."""
    if isinstance(keep, Quota):
        keep.check(data)
    if isinstance(keep, Combined):
        keep.check(data, scores)
    if not isinstance(keep, Quota | Above | Distinct) and not (isinstance(keep, Combined) and keep.in_groups):
        check_some("keep", keep.fraction, len(data), "write keep.count=1")
    if isinstance(keep, Diverse):
        check_some("keep.candidates", keep.candidates, len(data), "write a larger fraction")


def chosen(pool: Pool, keep: AnySelector, run: Run) -> Sequence[Decision]:
    """The selector's decisions, the candidates embedded where it asks for that."""
    if isinstance(keep, Diverse):
        vectors = run.map("embed-candidates", EmbedText(model=keep.embedder), keep.shortlist(pool))
        pool = replace(pool, vectors=vectors.good(), unplaced=vectors.failures())
    return keep(pool)


def planned_for(stage: str, scorer: AnyScorer, records: int) -> list[Planned]:
    """What a scorer's stage will ask of its student, or of either of its models."""
    models = (scorer.small, scorer.large) if isinstance(scorer, DualIFD) else (scorer.student,)
    return [Planned(stage, records, scorer.forwards, name_of(model)) for model in models]


def planned_choice(keep: AnySelector, records: int) -> list[Planned]:
    """What a selector will ask of a model; of most, nothing."""
    if not isinstance(keep, Diverse):
        return []
    most = budget(keep.candidates, None, records) if keep.candidates is not None else records
    name = str(getattr(keep.embedder, "name", ""))
    return [Planned("embed-candidates", most, 1 if name else 0, name)]
