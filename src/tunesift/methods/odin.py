"""ODIN: a reward model whose reward does not grow with the length of an answer.

Paper    Chen, Zhu et al., ICML 2024, arXiv:2402.07319
Needs    preference pairs; a student whose weights are here; TRL (extra "train")
Changes  nothing; the output is the folder of a classifier with one label

Stages   measure   tokens of every pair in the student's template; what is too long is left out, never cut
         baseline  rewards of the held-out pairs by another reward model, where one is given
         tune      two heads, for quality and for length, on what fits; the best quality head is left (sec. 3)
         reward    rewards of the held-out pairs by the quality head

The paper is silent on
    Where a length begins. We count the tokens of the answer (tuner.length_mode).
    Batches too small for a correlation. Below 8 sequences none is taken, and that is counted.
    Pairs with two equal answers. They teach nothing, and are left out.
We differ from the authors' code
    It reads the raw row of the head where the reward is used; we leave the normalised row that was trained with.
    It adds the correlation of both heads' sum with length, of which the paper has nothing (tuner.total_corr_coef).
    It trains on 8 processes of one pair each; we take correlations of 16 pairs on one device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from tunesift.datasets import Dataset
from tunesift.errors import DataError, RecipeError, told_bytes
from tunesift.methods.odin_figures import CURVE, TRAINING, Answered, Rewarded, curve, figures, left_out, training
from tunesift.methods.trainable import first_reason
from tunesift.models import RewardModel, name_of
from tunesift.models.folders import tokenizer
from tunesift.models.reward import TunedReward
from tunesift.models.transformers import TransformersModel
from tunesift.prompts import Template
from tunesift.records import Decision, Failure, Preference, Score
from tunesift.running.result import Planned, Result
from tunesift.running.run import Run
from tunesift.running.step import Checkpoint, Outcomes
from tunesift.settings import Settings
from tunesift.tuning.encoding import JudgedEncoder
from tunesift.tuning.forecast import forecast_on, with_forecast
from tunesift.tuning.process import Trained, Tuning, told
from tunesift.tuning.reward import RewardTuner
from tunesift.tuning.reward_best import judged
from tunesift.tuning.student import limit_of

MUCH = 0.2
"""Correlation of reward and length, over all answers that were held out, beyond which it is told. Our choice."""
ADVICE = {
    "accuracy": "Try tuner.best_by=balanced or last.",
    "balanced": "Try tuner.best_by=last.",
    "last": "Try more updates, or a larger tuner.device_batch or tuner.lambda_length.",
}
"""What is told where the weights that are left go with length, by how they were chosen."""
LEFT = {1: "one head", 2: "quality head"}
"""What tables and charts call the model that is left, by its heads."""
NONE_HELD_OUT = "pairs, of which the share tuner.held_out is none: no reward of held-out ones is measured"


@dataclass(frozen=True, kw_only=True)
class Odin(Settings):
    """Train a reward model on preference pairs, whose reward does not grow with the length of an answer."""

    kind: Literal["odin"] = "odin"
    student: TransformersModel = TransformersModel()
    """The model whose body the reward model gets; its own weights stay as they are."""
    tuner: RewardTuner = RewardTuner()
    """How it is trained; tuner.heads=1 trains an ordinary reward model."""
    baseline: RewardModel | None = None
    """A reward model that is asked for the same held-out pairs, and told of beside it, such as one of
    tuner.heads=1."""

    makes: ClassVar[Literal["model"]] = "model"
    """The output is a model's folder, not a file of records."""
    reads: ClassVar[Literal["preferences"]] = "preferences"

    def __post_init__(self) -> None:
        if self.baseline is not None and not self.tuner.held_out:
            raise RecipeError("baseline: is asked for held-out pairs, and tuner.held_out=0 holds none out; write "
                              "tuner.held_out=0.1, or leave the baseline out.")  # fmt: skip

    def __call__(self, data: Dataset[Preference], run: Run) -> Result:
        """Measure, train on what fits, and ask the model for the pairs that were held out."""
        measure = MeasurePairs(student=self.student, template=self.tuner.template, most=self.limit)
        measured = run.map("measure", measure, data)
        fit = data.only({id for id, score in measured.good().items() if score.value is not None})
        if not len(fit):
            raise DataError(
                f"no pair can be trained on ({first_reason(measured)}); give others, or raise tuner.max_length."
            )
        aside = self.tuner.held_out_of(list(fit.ids()))
        asked, lengths, rewards = fit.only(aside), measured.good(), dict[str, Rewarded]()
        if aside and self.baseline is not None:
            step = RewardPairs(model=self.baseline)
            rewards[name_of(self.baseline)] = _rewarded(run.map("baseline", step, asked), lengths, self.tuner)
        made = run.once("tune", Tuning(student=self.student, tuner=self.tuner), fit)
        if aside:
            rewards[LEFT[self.tuner.heads]] = _rewarded(
                run.map("reward", self._asking(made), asked), lengths, self.tuner
            )
        self._tell(data, measured, rewards, told(made), run)
        failed = rewards[LEFT[self.tuner.heads]].failed if aside else {}
        decisions = [_decided(id, failed.get(id, measured[id]), id in aside) for id in data.ids()]
        notes = {NONE_HELD_OUT: len(fit)} if self.tuner.held_out and not aside else {}
        return Result(None, decisions, notes=notes, checkpoint=made)

    @property
    def limit(self) -> int | None:
        """Most tokens of a prompt with one answer: those of the settings, or of the student."""
        return limit_of(self.student, self.tuner)

    def plan(self, records: int) -> list[Planned]:
        """Tokens are counted once; then every pair is read in every epoch, and the held-out ones once more."""
        aside = int(self.tuner.held_out * records)
        stages = [Planned("measure", records, 0, "")]
        if aside and self.baseline is not None:
            stages.append(Planned("baseline", aside, 1, name_of(self.baseline)))
        stages.append(Planned("tune", records, self.tuner.passes(records), self.student.name))
        return [*stages, Planned("reward", aside, 1, self.student.name)] if aside else stages

    def plan_for(self, data: Dataset[Preference]) -> list[Planned]:
        """The same, with updates, tokens and memory, which depend on how long the pairs are."""
        return with_forecast(self.plan(len(data)), forecast_on(self.student, self.tuner, data))

    def _asking(self, made: Checkpoint) -> RewardPairs:
        """The model that was trained is asked as it was."""
        model = TunedReward(
            name=f"tuned:{made.digest}", place=str(made.path), dtype=self.student.dtype, template=self.tuner.template,
            max_length=self.limit, device=self.student.device, batch_tokens=self.student.batch_tokens,
        )  # fmt: skip
        return RewardPairs(model=model)

    def _tell(
        self, data: Dataset[Preference], measured: Outcomes[Score], rewards: Mapping[str, Rewarded], trained: Trained,
        run: Run,
    ) -> None:  # fmt: skip
        rows = {name: figures(name, found) for name, found in rewards.items()}
        left = rows.get(LEFT[self.tuner.heads], {})
        run.table("rewards", list(rows.values()))
        run.table("left-out", left_out((_rule(measured[id]), _lengths(measured[id], self.tuner)) for id in data.ids()))
        run.table("training", [_row(trained, self.tuner.best_by)])
        run.table("doubts", [{"doubt": said} for said in _doubts(rewards, left, trained, self.tuner)])
        run.chart("reward-by-length", (row for name, found in rewards.items() for row in curve(name, found)), CURVE)
        run.chart("training-by-update", training(trained.history), TRAINING)


@dataclass(frozen=True, kw_only=True)
class MeasurePairs(Settings):
    """How many tokens a prompt has with each of its answers, in the student's template; none is cut."""

    kind: Literal["pair-tokens"] = "pair-tokens"
    student: TransformersModel
    template: Template
    most: int | None
    """Most tokens of a prompt with one answer."""

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Preference], /) -> list[Score | Failure]:
        """Tokens of the prompt with the longer answer; without a value where nothing is to be trained on."""
        encode = JudgedEncoder(tokenizer(self.student.location, self.student.revision), self.template)
        return [self._score(encode, pair) for pair in chunk]

    def _score(self, encode: JudgedEncoder, pair: Preference) -> Score:
        found = encode(pair)
        if isinstance(found, Failure):
            return Score(None, note=f"{found.kind}: {found.message}")
        chosen, rejected = map(float, found.answers)
        parts = {"prompt": float(found.prompt), "chosen": chosen, "rejected": rejected}
        if found.chosen == found.rejected:
            return Score(None, parts, "identical: both answers are the same")
        if self.most is not None and found.longest > self.most:
            return Score(None, parts, f"too long: {found.longest:,} tokens, the limit is {self.most:,}")
        return Score(float(found.longest), parts)


@dataclass(frozen=True, kw_only=True)
class RewardPairs(Settings):
    """By how much a reward model prefers the chosen answer."""

    kind: Literal["reward-margin"] = "reward-margin"
    model: RewardModel | TunedReward

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Preference], /) -> list[Score | Failure]:
        """Reward of chosen minus reward of rejected, and both; a failure where one of them has none."""
        asked = [(*pair.prompt, answer) for pair in chunk for answer in (pair.chosen, pair.rejected)]
        found = self.model.reward(asked)
        return [_margin(*both) for both in zip(found[::2], found[1::2], strict=True)]


def _margin(chosen: float | Failure, rejected: float | Failure) -> Score | Failure:
    if isinstance(chosen, Failure):
        return chosen
    if isinstance(rejected, Failure):
        return rejected
    return Score(chosen - rejected, {"chosen": chosen, "rejected": rejected})


def _rewarded(found: Outcomes[Score], measured: Mapping[str, Score], tuner: RewardTuner) -> Rewarded:
    pairs = []
    for id, score in found.good().items():
        lengths = _lengths(measured[id], tuner)
        assert lengths is not None  # it was fit to be trained on
        pairs.append((Answered(score.parts["chosen"], lengths[0]), Answered(score.parts["rejected"], lengths[1])))
    return Rewarded(tuple(pairs), dict(found.failures()))


def _lengths(score: Score | Failure, tuner: RewardTuner) -> tuple[int, int] | None:
    """How long the chosen and the rejected answer count as; None where they could not be read."""
    if isinstance(score, Failure) or not score.parts:
        return None
    prompt = int(score.parts["prompt"])
    return tuner.counted(prompt, int(score.parts["chosen"])), tuner.counted(prompt, int(score.parts["rejected"]))


def _rule(score: Score | Failure) -> str:
    """Why a pair is left out; empty where it is not."""
    if isinstance(score, Failure):
        return score.kind
    return "" if score.value is not None else score.note.partition(":")[0]


def _decided(id: str, score: Score | Failure, aside: bool) -> Decision:
    if isinstance(score, Failure):
        return Decision(id, "drop", f"{score.kind}: {score.message}")
    if score.value is None:
        return Decision(id, "drop", score.note)
    return Decision(id, "keep", "held out: its reward is measured" if aside else "trained on")


def _best(trained: Trained, by: str) -> Mapping[str, float] | None:
    """What was seen of the held-out pairs by the weights that are left; None where they were not looked at."""
    looks = [h for h in trained.history if "eval_accuracy" in h and h["step"]]
    if by == "last":
        return looks[-1] if looks and looks[-1]["step"] == trained.steps else None
    return max(looks, key=lambda h: (judged(h, by), -h["step"]), default=None)


def _update(trained: Trained, by: str) -> int:
    """Of which update the weights are that are left."""
    best = _best(trained, by)
    return trained.steps if best is None else int(best["step"])


def _row(trained: Trained, by: str) -> dict[str, Any]:  # Any: numbers and texts
    return {"pairs": trained.records, "tokens": trained.tokens, "updates": trained.steps,
            "weights of update": _update(trained, by),
            "device": trained.device, "precision": trained.precision,
            "memory": told_bytes(trained.peak_bytes)}  # fmt: skip


def _doubts(
    rewards: Mapping[str, Rewarded], left: Mapping[str, Any], trained: Trained, tuner: RewardTuner
) -> Iterator[str]:  # Any: numbers and texts, of the model that is left
    for name, found in rewards.items():
        if found.pairs and len({answer.reward for pair in found.pairs for answer in pair}) == 1:
            yield f"The {name} gives every answer the same reward: it says nothing of them."
    pearson = left.get("Pearson")
    if (
        tuner.heads == 2 and pearson is not None and left["pairs"] > 1 and abs(pearson) > MUCH
    ):  # of one pair it is 1 or -1
        of = f"of update {_update(trained, tuner.best_by):,}"
        said = f"go with length: over the {2 * left['pairs']:,} answers held out the correlation is {pearson:.2f}"
        yield f"The weights that are left, {of}, {said}. {ADVICE[tuner.best_by]}"
    skipped = [h["skipped"] for h in trained.history if h.get("skipped")]
    if skipped:
        yield (f"In {len(skipped):,} of the updates that are told of, correlations with the length were not taken of "
               "the whole batch, for too few pairs on the device or equal lengths.")  # fmt: skip
