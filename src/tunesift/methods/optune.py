"""OPTune: tune on preferences that the student draws itself, and draw again only where its answers are worst.

Paper    Chen et al., arXiv:2406.07657; no code of the authors was found
Needs    a student that chats and whose weights are here, a reward model or a judge; TRL (extra "train")
Changes  nothing; the output is the last student's folder, and beside it the pairs of every round

Stages   measure    tokens of every prompt in the student's template; one beyond the limit is left out, never cut
  each round, from 0
         answer-0   the student of this round answers, several times each: in round 0 every prompt, then those that rank
                    lowest; the others keep the answers they have
         reward-0   every answer that is not empty is scored
         measure-0  tokens of every pair; one that is too long is not trained on, never cut
         train-0    DPO on the best and the worst answer of every prompt, the loss of each pair multiplied by a weight
                    that grows with the gap of its rewards; the next round's student
         now-1, first-1   from round 1 on: how likely the drawn answers are to the student of this round, and to the
                    first one; says how far it has gone, and changes nothing

The body of the paper could not be read. Its abstract and its reviews say that prompts of low reward are answered again,
and that a scaled gap of rewards is multiplied with the loss. Ours are
    the ranking (mean of both rewards), two answers each, the sigmoid as weight, weights of mean 1, the scale of gaps
    (standard deviation of all rewards of round 0), round 0 over all prompts, the student as it was before round 0 as
    reference of all rounds, an optimiser that begins anew in each round, and half of the prompts.
What cannot be scored
    An empty answer, and one of which the reward model says no number, have no reward: they are in no pair and in no
    figure, and their prompt ranks before all others.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal, cast

from tunesift.datasets import Dataset
from tunesift.errors import DataError, RecipeError
from tunesift.methods.optune_pool import (
    Answer,
    Centre,
    Held,
    RankBy,
    Ranking,
    again,
    first_held,
    held_anew,
    pair_of,
    rested,
)
from tunesift.methods.optune_pool import share as share_of
from tunesift.methods.optune_steps import (
    RATE,
    AnswerPrompt,
    AnyReward,
    ByReward,
    Draw,
    MeasurePrompt,
    ReadAnswer,
    Said,
    answer_of,
    check_distinct,
    reward_of,
    said_of,
    tokens_of,
)
from tunesift.methods.optune_telling import Course, Round, likelier, nothing_to_learn, outcome, planned_speed
from tunesift.methods.optune_weights import Spread, Weighting, spread, weights
from tunesift.methods.trainable import MeasureTokens, noted
from tunesift.models import name_of
from tunesift.models.base import Completion, Sampling
from tunesift.models.http import NOT_GIVEN
from tunesift.models.loading import put_away
from tunesift.models.reward import RewardClassifier
from tunesift.models.transformers import TransformersModel
from tunesift.records import Failure, Preference, Record, Score
from tunesift.running.result import Planned, Reads, Result
from tunesift.running.run import Run
from tunesift.running.step import Checkpoint
from tunesift.settings import Settings
from tunesift.tuning.dpo import DPO, WEIGHT
from tunesift.tuning.process import Tuning, student_from, told
from tunesift.tuning.student import limit_of

SEEDS = 2**32
"""How many seeds a draw may have."""
BYTES = 4
"""Bytes of a token of an answer, for the plan."""


@dataclass(frozen=True, kw_only=True)
class OPTune(Settings):
    """Tune on pairs of the student's own answers, in rounds, and draw new ones only for the worst prompts."""

    reads: ClassVar[Reads] = "prompts"
    makes: ClassVar[Literal["model"]] = "model"
    chats: ClassVar[tuple[str, ...]] = ("student", "reward.model")
    """Models that must be able to chat."""

    kind: Literal["optune"] = "optune"
    student: TransformersModel = TransformersModel(name=NOT_GIVEN)
    """The model that answers and is tuned; one that was tuned on responses."""
    reward: AnyReward = ByReward(model=RewardClassifier(name=NOT_GIVEN))
    """Who says how good an answer is: a reward model, such as odin leaves, or a judge that rates."""
    rounds: int = 3
    """Times that is answered and trained; the paper's 3."""
    answers: int = 2
    """Answers drawn of each prompt, of which the best and the worst are a pair; 2 or more."""
    ratio: float = 0.5
    """Share of the prompts that is answered again in every round but the first, 0 to 1."""
    rank_by: RankBy = "mean"
    """By which reward of a pair prompts are ranked, the lowest first; gap: by the difference; random: by chance."""
    rank_centre: Centre = "none"
    """baseline: rewards less what the prompt's answers of round 0 had in the mean, so that what is merely hard to score
    does not rank lowest."""
    keep_old: bool = False
    """Whether the two answers that were held stand beside the new ones when the best and the worst are taken."""
    max_age: int | None = None
    """Rounds after which a pair is made anew, whatever its rank; None for never."""
    patience: int | None = 2
    """Times that a prompt is answered again in vain before it is passed over for a round; None for any number."""
    weight: Weighting = "sigmoid"
    """What a gap is turned into before the loss is multiplied by it; none: DPO as it is."""
    beta2: float = 1.0
    """What a gap, in standard deviations of the rewards of round 0, is multiplied by in a weight; 0 or more."""
    normalise: bool = True
    """Whether the weights of a round are divided by their mean, so that the learning rate keeps its meaning."""
    min_gap: float = 0.0
    """Difference of rewards below which a pair is not trained on, in the reward's own unit; equal ones never are."""
    reference: Literal["initial", "previous"] = "initial"
    """What the student is kept near to: itself before round 0, or before the round."""
    temperature: float = 1.0
    """Of the draws; each has a seed of its own."""
    top_p: float = 0.9
    """Share of the probability that the likeliest tokens must hold among which one is drawn, above 0 to 1."""
    answer_tokens: int = 512
    """Most tokens of an answer; one that is cut there is kept, and marked."""
    prompt_tokens: int = 512
    """Most tokens of a prompt; a longer one is left out."""
    tuner: DPO = DPO(optimiser="rmsprop")
    """How the student is tuned in every round. Weights and reference are set by the settings above."""

    def __post_init__(self) -> None:
        for name, number, least, usual in (("rounds", self.rounds, 1, 3), ("answers", self.answers, 2, 2),
                                           ("answer_tokens", self.answer_tokens, 1, 512),
                                           ("prompt_tokens", self.prompt_tokens, 1, 512)):  # fmt: skip
            if number < least:
                raise RecipeError(f"{name}: {number} is not {least} or more; write {usual}.")
        if not 0 <= self.ratio <= 1:
            raise RecipeError(f"ratio: {self.ratio:g} is no share of the prompts; write a number from 0 to 1.")
        if not self.beta2 >= 0 or (self.weight == "linear" and self.beta2 == 0):
            raise RecipeError(f"beta2: {self.beta2:g} makes no weight that grows with the gap; write 1.")
        if not self.min_gap >= 0:
            raise RecipeError(f"min_gap: {self.min_gap:g} is no number from 0 on; write 0.")
        for name, most in (("max_age", self.max_age), ("patience", self.patience)):
            if most is not None and most < 1:
                raise RecipeError(f"{name}: {most} is not 1 or more; write 2, or null.")
        if not self.temperature >= 1e-3:
            raise RecipeError(f"temperature: {self.temperature:g} draws the same answer every time; write 1.")
        if not 0 < self.top_p <= 1:
            raise RecipeError(f"top_p: {self.top_p:g} is no share; write a number above 0 to 1.")
        self._check_tuner()

    def _check_tuner(self) -> None:
        if self.tuner.weighted or self.tuner.reference is not None:
            raise RecipeError("tuner: weights and reference of its pairs are the method's own; write weight and "
                              "reference instead.")  # fmt: skip
        if self.tuner.held_out:
            raise RecipeError("tuner.held_out: every pair of a round is trained on; leave it at 0.")
        if self.tuner.template != "chat":
            raise RecipeError("tuner.template: answers are drawn in the student's chat template; leave it at chat.")
        if self.tuner.lora is not None and not self.tuner.lora.merged and self.rounds > 1:
            raise RecipeError("tuner.lora: the adapters of a round would be lost to the next; write "
                              "tuner.lora.merged=true, or rounds=1.")  # fmt: skip

    @property
    def writes_also(self) -> tuple[str, ...]:
        """The pairs of every round, as TRL reads them."""
        return tuple(f"round-{round}" for round in range(self.rounds))

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Answer, score, train, and again; what is held is folded from what was answered."""
        measured = self._measured(data, run)
        fit = data.only({id for id, score in measured.items() if not score.note})
        asked: set[str] = set(fit.ids())
        pool: dict[str, Held] = {}
        scale, student, rounds = Spread(0.0, 0.0, 0), self.student, list[Round]()
        made: Checkpoint | None = None
        for round in range(self.rounds):
            new = self._answered(run, round, student, fit.only(asked))
            if round == 0:
                scale = spread(a.reward for answers in new.values() for a in answers)
                pool = {id: first_held(id, answers) for id, answers in new.items()}
            pool |= held_anew(pool, new, round, self.max_age if self.keep_old else 0) if round else {}
            found, left_out = self._pairs(run, round, fit, pool)
            if not found:
                why = nothing_to_learn(round, new, left_out, made)
                return outcome(run, Course(measured, rounds, scale, self.ratio), refused=why)
            weighed = weights([scale.of_gap(p.margin or 0.0) for p in found], self.weight, self.beta2, self.normalise)
            pairs = run.dataset(f"pairs-{round}", _weighted(found, weighed, new))
            drift = self._drift(run, round, student, said_of(fit, new)) if round else 0.0
            made = run.once(f"train-{round}", Tuning(student=student, tuner=self._tuner(round)), pairs)
            read = tokens_of(measured, new)
            rounds.append(Round(round, new, dict(pool), pairs, weighed, told(made), drift, read, left_out))
            student = student_from(made, self.student)
            picked = again(pool.values(), self._ranking, round + 1, partial(_chance, run, round + 1))
            pool |= {id: rested(pool[id]) for id in picked.resting}
            asked = set(picked.chosen)
        return outcome(run, Course(measured, rounds, scale, self.ratio), made)

    @property
    def _most(self) -> int:
        """Tokens of a prompt that leave room for an answer of one."""
        limit = limit_of(self.student, self.tuner)
        return self.prompt_tokens if limit is None else min(self.prompt_tokens, limit - 1)

    @property
    def _sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=self.top_p, max_tokens=self.answer_tokens)

    @property
    def _ranking(self) -> Ranking:
        return Ranking(self.ratio, self.rank_by, self.rank_centre, self.patience, self.max_age)

    def _measured(self, data: Dataset[Record], run: Run) -> dict[str, Score]:
        """Tokens of the prompts, by id, with a note why one is not answered. Raises `DataError` where none is."""
        check_distinct(data)
        found = run.map("measure", MeasurePrompt(student=self.student, most=self._most), data)
        scores = {id: noted(found[id]) for id in data.ids()}
        if all(score.note for score in scores.values()):
            why = next((score.note for score in scores.values()), "there is none")
            raise DataError(f"no prompt can be answered ({why}); raise prompt_tokens, or give other prompts.")
        return scores

    def _answered(
        self, run: Run, round: int, student: TransformersModel, prompts: Dataset[Record]
    ) -> dict[str, list[Answer]]:
        """The answers of a round's prompts, by their ids, with rewards."""
        if not len(prompts):
            return {}
        draws = [Draw(f"{record.id}~{k}", record.prompt, run.random("draw", round, record.id, k).randrange(SEEDS))
                 for record in prompts for k in range(self.answers)]  # fmt: skip
        said = run.map(f"answer-{round}", AnswerPrompt(student=student, sampling=self._sampling), draws)
        texts = {draw.id: one for draw in draws if not isinstance(one := said[draw.id], Failure)}
        found = run.map(
            f"reward-{round}", self.reward,
            [Said(d.id, d.prompt, texts[d.id].text) for d in draws if d.id in texts and texts[d.id].text.strip()],
        )  # fmt: skip
        rewards = {id: reward_of(self.reward, cast("float | Completion | Failure", found[id])) for id in found}
        return {
            record.id: [answer_of(texts.get(id), rewards.get(id), round)
                        for id in (f"{record.id}~{k}" for k in range(self.answers))]
            for record in prompts
        }  # fmt: skip

    def _pairs(
        self, run: Run, round: int, prompts: Dataset[Record], pool: Mapping[str, Held]
    ) -> tuple[list[Preference], dict[str, str]]:
        """The pairs that are trained on, in order, and why others are not, by id."""
        made = [pair_of(pool[r.id], r.prompt) for r in prompts if pool[r.id].is_pair(self.min_gap)]
        step = MeasureTokens(student=self.student, template="chat", most=limit_of(self.student, self.tuner))
        measured = run.map(f"measure-{round}", step, made)
        left_out = {pair.id: why for pair in made if (why := noted(measured[pair.id]).note)}
        return [pair for pair in made if pair.id not in left_out], left_out

    def _drift(self, run: Run, round: int, student: TransformersModel, said: Sequence[Said]) -> float | None:
        """How much likelier the answers are to this round's student than to the first, in the mean, in nats."""
        put_away()  # two students are to be read with, one after the other, and neither is asked for answers again
        now = run.map(f"now-{round}", ReadAnswer(student=student), said).good()
        first = run.map(f"first-{round}", ReadAnswer(student=self.student), said).good()
        return likelier(now, first)

    def _tuner(self, round: int) -> DPO:
        """Beside new adapters, and in round 0, the student as it is before is the reference without being named."""
        kept = self.student if self.reference == "initial" and round > 0 else None
        return replace(self.tuner, weighted=self.weight != "none", reference=kept)

    def plan(self, records: int) -> list[Planned]:
        """Answers, rewards and updates of every round, the share that is answered again taken of all prompts."""
        name, judge = self.student.name, name_of(self.reward.model)
        updates, passes = self.tuner.updates(records), self.tuner.passes(records)
        most, replies = self.answer_tokens, getattr(self.reward, "max_tokens", 0)
        found = [Planned("measure", records, 0, "")]
        for round in range(self.rounds):
            draws = self.answers * (share_of(self.ratio, records) if round else records)
            told_ = f"at most {updates:,} updates"
            found += [Planned(f"answer-{round}", draws, 1, name, answer=most),
                      Planned(f"reward-{round}", draws, 1, judge, BYTES * most + len(RATE), replies),
                      Planned(f"measure-{round}", records, 0, ""),
                      *(Planned(f"{of}-{round}", draws, 1, name) for of in ("now", "first") if round),
                      Planned(f"train-{round}", records, passes, name, told=told_)]  # fmt: skip
        return [*found[:-1], replace(found[-1], told=f"{found[-1].told}; {planned_speed(self.ratio, self.rounds)}")]


def _chance(run: Run, round: int, id: str) -> float:
    return run.random("rank", round, id).random()


def _weighted(pairs: Sequence[Preference], found: Sequence[float], new: Container[str]) -> Iterator[Preference]:
    for pair, weight in zip(pairs, found, strict=True):
        yield replace(pair, extra={**pair.extra, WEIGHT: weight, "regenerated": pair.id in new})
