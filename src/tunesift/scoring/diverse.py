"""Which records stay, so that those that stay differ? Superfiltering.D (arXiv:2402.00530) and its relatives.

The best by score are the candidates; of these, a few that stand for all of them are kept (card ifd.md, item 11).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from tunesift.arrays import Numbers
from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.models import EmbedModel
from tunesift.models.ngrams import HashedNgrams
from tunesift.prompts import input_of
from tunesift.records import Action, Decision, Failure, Record
from tunesift.scoring.deciding import Decisions, Groups, budget, ranked
from tunesift.scoring.diversity import clusters_of, k_centre, spread_out
from tunesift.scoring.selectors import Largest, Pool, check_budget, check_fraction
from tunesift.settings import Settings


@dataclass(frozen=True, kw_only=True)
class EmbedText(Settings):
    """Embedding of a record's instruction, input and response, a line each (Superfiltering.D)."""

    model: EmbedModel
    returns: ClassVar[type[tuple[float, ...]]] = tuple[float, ...]

    def __call__(self, chunk: Sequence[Record], /) -> list[tuple[float, ...] | Failure]:
        """One vector per record, in order."""
        return list(self.model.embed([_text(record) for record in chunk]))


def _text(record: Record) -> str:
    """The authors' `instruction\\ninput\\noutput`; the turns of a longer conversation, a line each."""
    given = input_of(record)
    asked = "\n".join(m.text for m in record.prompt)
    if given.strip() and asked.endswith(f"\n\n{given}"):
        asked = f"{asked.removesuffix(given).rstrip()}\n{given}"
    elif len(record.prompt) == 1:
        asked += "\n"
    return f"{asked}\n{record.response}"


@dataclass(frozen=True, kw_only=True)
class Diverse(Settings):
    """Keep few records that stand for all of the best, by the distances of their embeddings."""

    kind: Literal["diverse"] = "diverse"
    rule: Literal["facility-location", "k-centre", "clusters"] = "facility-location"
    """facility-location: every candidate has a similar one among the kept; k-centre: no candidate is far from all of
    them; clusters: the same fraction of every cluster, its best by score, or its most central where nothing is
    scored."""
    fraction: float | None = 0.02
    """Fraction of all records to keep, above 0 and up to 1; the authors' recipe keeps 0.02."""
    count: int | None = None
    """Number of records to keep, instead of a fraction."""
    candidates: float | None = 0.2
    """Fraction of all records, those with the largest scores, to choose from; the authors' recipe has 0.2. None to
    choose from all, for which nothing is scored."""
    below: float | None = None
    """Candidates have scores below this; 1 for IFD as Superfiltering has it."""
    embedder: EmbedModel = HashedNgrams()
    """What places records in a space; the authors' is a MiniLM sentence encoder of 384 numbers."""
    clusters: int = 100
    """Clusters of the candidates, for that rule."""

    def __post_init__(self) -> None:
        check_budget(self.fraction, self.count)
        check_fraction("keep.candidates", self.candidates)
        if self.clusters < 1:
            raise RecipeError(f"keep.clusters: {self.clusters} is no number of clusters; write 1 or more.")
        if self.candidates is None and self.below is not None:
            raise RecipeError("keep.below: nothing is scored where keep.candidates is null; give it a fraction.")

    @property
    def scores(self) -> bool:
        """Whether records have to be scored."""
        return self.candidates is not None

    def shortlist(self, pool: Pool) -> Dataset[Record]:
        """The candidates; only these have to be embedded."""
        if self.candidates is None:
            return pool.data
        return pool.data.only({d.record_id for d in self._first(pool) if d.action == "keep"})

    def __call__(self, pool: Pool) -> Sequence[Decision]:
        """The few of the candidates, in the order of the data."""
        short = self.shortlist(pool)
        values, first = (pool.values(), self._first(pool)) if self.scores else (None, None)
        names = [id for id in short.ids() if id not in pool.unplaced]
        told = self._told(names, pool, budget(self.fraction, self.count, len(pool.data)))
        inside = np.full(len(pool.data), -1, np.int64)
        inside[[pool.data.place(id) or 0 for id in names]] = np.arange(len(names))

        def decide(place: int, id: str) -> Decision:
            if (failure := pool.unplaced.get(id)) is not None:
                return Decision(id, "quarantine", f"{failure.kind}: {failure.message}")
            if inside[place] < 0:
                assert first is not None  # where nothing is scored, every record is a candidate
                return first[place]
            score = "" if values is None else f"; {pool.label} {values[place]:.4f}"
            action, said = told[int(inside[place])]
            return Decision(id, action, f"{said}{score}")

        return Decisions(pool.data, decide)

    def _first(self, pool: Pool) -> Sequence[Decision]:
        return Largest(fraction=self.candidates, below=self.below)(pool)

    def _told(self, names: Sequence[str], pool: Pool, most: int) -> list[tuple[Action, str]]:
        by, of = embedder_name(self.embedder), len(names)
        if most >= of:
            return [("keep", f"all candidates: the budget of {most} is not below their number, {of}")] * of
        if most == 0:
            return [("drop", f"not chosen for diversity: the budget is 0 of {of} candidates")] * of
        vectors = np.array([pool.vectors[id] for id in names], np.float64)
        if self.rule == "clusters":
            return self._of_clusters(vectors, self._values(names, pool), most, by)
        choose, gained = {"facility-location": (spread_out, "adds"), "k-centre": (k_centre, "distance")}[self.rule]
        chosen = {row: (place, gain) for place, (row, gain) in enumerate(choose(vectors, most), start=1)}
        name = self.rule.replace("-location", " location")
        told: list[tuple[Action, str]] = [
            ("drop", f"not chosen for diversity: {name} by {by} chose {most} of {of} candidates")
        ] * of
        for row, (place, gain) in chosen.items():
            told[row] = ("keep", f"{name} by {by}: place {place} of {most}, {gained} {gain:.4f}")
        return told

    def _values(self, names: Sequence[str], pool: Pool) -> Numbers | None:
        if not self.scores:
            return None
        return np.array([pool.scores[id].value for id in names], np.float64)

    def _of_clusters(self, vectors: Numbers, values: Numbers | None, most: int, by: str) -> list[tuple[Action, str]]:
        labels, distances = clusters_of(vectors, self.clusters)
        groups = Groups(labels, [f"cluster {n}" for n in range(int(labels.max()) + 1)])
        worth = -distances if values is None else values
        ranks, sizes = ranked(worth, labels), groups.sizes
        kept = np.maximum(1, sizes * most // len(worth))  # the same share of each, and at least one
        end = "most central" if values is None else "largest"
        return [
            ("keep" if rank <= kept[code] else "drop",
             f"{end if rank <= kept[code] else 'not among the ' + end} of each cluster by {by}: "
             f"rank {rank} of {sizes[code]} in {groups.names[code]}")
            for rank, code in zip(ranks, labels, strict=True)
        ]  # fmt: skip


def embedder_name(model: EmbedModel) -> str:
    """What an embedder is called in reasons: its kind, and its model's name where it has one."""
    name = getattr(model, "name", "")
    return f"{model.kind} {Path(name).name}" if name else model.kind
