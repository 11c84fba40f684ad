"""Cherry: keep what the student itself finds instructive.

Paper    Li et al., arXiv:2308.12032
Needs    a student that gives losses and embeddings, and can be tuned; scikit-learn and TRL (extras "cluster", "train")
Changes  drops records, edits none

Stages   embed         mean of the last hidden layer over every instruction in its template
         prompt-loss   loss of the instruction itself
         sample        k-means, and the middle of each cluster by perplexity: the table "pre-experience"
         warm-up       one epoch of tuning on the sample (section 2.1); this student scores, and is not the output
         ifd           conditioned loss / direct loss (eq. 5)
         keep          drop IFD > 1, keep the largest fraction

The paper is silent on
    Restarts of k-means: ten, with a fixed seed.
We differ from the authors' code
    They skip records silently; we write a decision with a reason.
    They skip a record whose response does not fit the context; we score the part that fits, marked as truncated.
    Instructions are embedded up to the student's own limit; theirs up to 512 tokens, as ours are for their loss.
    A record of the sample that is longer than the tuner's limit is not trained on; theirs is cut off.
    The second version of their repository has no pre-experience: pre_experience=null.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from tunesift.datasets import Dataset
from tunesift.errors import MissingExtra, RecipeError
from tunesift.methods.select import AnySelector, check_keep, chosen, planned_choice
from tunesift.models import EmbedModel, LikelihoodModel, name_of
from tunesift.models.base import Span
from tunesift.models.transformers import TransformersModel
from tunesift.prompts import Template, context, input_of
from tunesift.records import Failure, Record, Score
from tunesift.running.result import Planned, Result, kept
from tunesift.running.run import Run
from tunesift.scoring.ifd import IFD, Ratio
from tunesift.scoring.selectors import Largest, Pool, Scored
from tunesift.settings import Settings
from tunesift.tuning.forecast import forecast_on
from tunesift.tuning.process import Tuning, student_from
from tunesift.tuning.sft import SFT

PROMPT_TOKENS = 512
"""Tokens of an instruction whose loss is measured, as in the authors' script."""


WARM_UP = SFT(epochs=1.0, template="alpaca", max_length=512)
"""One epoch at 2e-5 in batches of 128, as in the authors' repository."""


@dataclass(frozen=True, kw_only=True)
class PreExperience(Settings):
    """Which few records the student is tuned on before it scores, and how (section 2.1 of the paper)."""

    clusters: int = 100
    """Clusters of the instructions' embeddings."""
    per_cluster: int = 10
    """Most records taken from one cluster, so that 1,000 is an upper bound."""
    low: float = 25.0
    """Percentile of the cluster's perplexities below which a record is too easy; the authors' script has 25."""
    high: float = 75.0
    """Percentile above which a record is too odd; the authors' script has 75."""
    tuner: SFT | None = WARM_UP
    """How the student is tuned on them; null to draw the sample, and score with the student as it is."""

    def __post_init__(self) -> None:
        if min(self.clusters, self.per_cluster) < 1:
            raise RecipeError("pre_experience: clusters and per_cluster are numbers of 1 or more.")
        if not 0 <= self.low <= self.high <= 100:
            raise RecipeError(
                f"pre_experience: {self.low:g} to {self.high:g} are no percentiles; write 0 <= low <= high <= 100."
            )


@dataclass(frozen=True, kw_only=True)
class Cherry(Settings):
    """Keep what the student itself finds instructive."""

    kind: Literal["cherry"] = "cherry"
    student: LikelihoodModel = TransformersModel()
    """The model whose losses are compared, and which embeds the instructions."""
    pre_experience: PreExperience | None = PreExperience()
    """null to draw no sample, and score with the student as it is."""
    profile: Literal["cherry", "canonical"] = "cherry"
    """cherry: as the authors' script measures; canonical: see the scorer `ifd`."""
    template: Template | None = None
    """What stands around an instruction; None for the profile's own."""
    ratio: Ratio = "loss"
    """The paper's ratio of mean losses (eq. 5), or of perplexities."""
    keep: AnySelector = Largest(fraction=0.1, at_most=1.0, rule="cherry")
    """Which records stay; the paper recommends the largest tenth of those up to 1."""

    def __post_init__(self) -> None:
        tuner = self.pre_experience.tuner if self.pre_experience else None
        if tuner is not None and not isinstance(self.student, TransformersModel):
            raise RecipeError(f"student: a model of the kind {self.student.kind} has no weights to tune here; write "
                              "pre_experience.tuner=null to score with it as it is.")  # fmt: skip

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Draw the pre-experience sample, tune on it, score, keep."""
        check_keep(self.keep, data, ["ifd"])
        student = self.student if self.pre_experience is None else self._experienced(data, run, self.pre_experience)
        scorer = IFD(student=student, profile=self.profile, ratio=self.ratio, template=self.template)
        scores = run.map("ifd", scorer, data)
        measured = Scored(scores.good(), scores.failures())
        pool = Pool(data, measured.scores, measured.failures, scorer.label, run.random("keep"), {scorer.kind: measured})
        decisions = chosen(pool, self.keep, run)
        return Result(kept(data, decisions), decisions)

    def _experienced(self, data: Dataset[Record], run: Run, settings: PreExperience) -> LikelihoodModel:
        """The student after a short tuning on a sample of the records; as it is where there is no tuner."""
        embedded = run.map("embed", EmbedPrompt(student=self.student), data).good()
        difficult = run.map("prompt-loss", PromptLoss(student=self.student), data).good()
        picked = list(sample(data, embedded, difficult, settings))
        run.table("pre-experience", picked)
        if settings.tuner is None:
            return self.student
        assert isinstance(self.student, TransformersModel)  # checked when the recipe was read
        tuning = Tuning(student=self.student, tuner=settings.tuner)
        return student_from(run.once("warm-up", tuning, data.only({str(row["id"]) for row in picked})), self.student)

    def plan(self, records: int) -> list[Planned]:
        """Two passes over the instructions for the sample, a short tuning on it, two over the responses."""
        name = name_of(self.student)
        return [*self._planned_before(name, records), Planned("ifd", records, 2, name),
                *planned_choice(self.keep, records)]  # fmt: skip

    def plan_for(self, data: Dataset[Record]) -> list[Planned]:
        """The same, with updates, tokens and memory of the tuning, which depend on how long the records are."""
        found, settings = self.plan(len(data)), self.pre_experience
        if settings is None or settings.tuner is None:
            return found
        assert isinstance(self.student, TransformersModel)  # checked when the recipe was read
        told = forecast_on(self.student, settings.tuner, data, settings.clusters * settings.per_cluster)
        return [replace(stage, told=str(told)) if stage.stage == "warm-up" else stage for stage in found]

    def _planned_before(self, name: str, records: int) -> list[Planned]:
        if self.pre_experience is None:
            return []
        found = [Planned("embed", records, 1, name), Planned("prompt-loss", records, 1, name)]
        if (tuner := self.pre_experience.tuner) is None:
            return found
        most = min(records, self.pre_experience.clusters * self.pre_experience.per_cluster)
        return [*found, Planned("warm-up", most, tuner.passes(most), name)]


@dataclass(frozen=True, kw_only=True)
class EmbedPrompt(Settings):
    """Embedding of a record's instruction in the Alpaca template, [hidden size]."""

    student: EmbedModel
    returns: ClassVar[type[tuple[float, ...]]] = tuple[float, ...]

    def __call__(self, chunk: Sequence[Record], /) -> list[tuple[float, ...] | Failure]:
        return list(self.student.embed([_prompt(record) for record in chunk]))


@dataclass(frozen=True, kw_only=True)
class PromptLoss(Settings):
    """Mean loss of a record's instruction in the Alpaca template, in nats per token."""

    student: LikelihoodModel
    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        texts = [_prompt(record) for record in chunk]  # as one text, with no token before it but the tokenizer's own
        losses = self.student.loss([Span("", text, "joint", "tokenizer", PROMPT_TOKENS) for text in texts])
        return [loss if isinstance(loss, Failure) else Score(loss.mean) for loss in losses]


def _prompt(record: Record) -> str:
    return str(context(record.prompt, "alpaca", input_of(record)))


def sample(
    data: Dataset[Record],
    embedded: Mapping[str, tuple[float, ...]],
    losses: Mapping[str, Score],
    settings: PreExperience,
) -> Iterator[Mapping[str, object]]:
    """The records of the pre-experience sample, with their cluster and perplexity, in the order of the data."""
    ids = [id for id in data.ids() if id in embedded and id in losses]
    perplexities = {id: float(np.exp(losses[id].value or 0.0)) for id in ids}
    members: dict[int, list[str]] = {}
    for id, cluster in zip(ids, _clusters([embedded[id] for id in ids], settings.clusters), strict=True):
        members.setdefault(cluster, []).append(id)
    picked = {
        inside[n]: cluster
        for cluster, inside in members.items()
        for n in pick([perplexities[id] for id in inside], settings.per_cluster, settings.low, settings.high)
    }
    return ({"id": id, "cluster": picked[id], "perplexity": perplexities[id]} for id in ids if id in picked)


def pick(perplexities: Sequence[float], count: int, low: float, high: float) -> list[int]:
    """Indices of at most `count` members of a cluster from the middle of its perplexities, as in the authors' code."""
    if len(perplexities) < count:
        return list(range(len(perplexities)))
    least, most = np.percentile(perplexities, [low, high])  # linear interpolation
    inside = [n for n, value in enumerate(perplexities) if least <= value <= most]
    if len(inside) < count:
        return inside
    return inside[:: len(inside) // count][:count]


def _clusters(vectors: Sequence[Sequence[float]], clusters: int) -> list[int]:
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingExtra(
            'the pre-experience sample needs the "cluster" extra: pip install "tunesift[cluster]".'
        ) from error
    if not vectors:
        return []
    means = KMeans(min(clusters, len(set(map(tuple, vectors)))), random_state=0, n_init=10)
    return [int(label) for label in means.fit_predict(np.asarray(vectors, np.float64))]
