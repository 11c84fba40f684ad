"""SelectIT: trust a model's rating of a record as far as the model is sure of it.

Paper    Liu et al., arXiv:2402.16705
Needs    one or more base models that give losses, with their parameter counts; no judge, no generation. The embedded
         scorer only shows how the method runs: it is too small to rate
Changes  drops records, edits none

Stages   rate-1, ...   per model: probability of every rating as the next token after every rating prompt
         score         Token-R: rating times certainty; Sentence-R: mean over prompts, less where they disagree;
                       Model-R: mean over models, weighted by their parameters
         keep          the largest fraction

The paper is silent on
    The wording of rating prompts; the five here are ours.
    Texts longer than the context: the middle of the response is left out, never the rating prompt or the cue.
    Empty responses, and instructions that alone fill the context: no score, dropped with that reason.
    Probability on no rating at all: it is reported as rating_mass, and flagged below `min_mass`.
    Ties of two ratings: the lower one, as in the authors' code. Ties of two records: the earlier one; theirs the later.
    Conversations: the last response is rated, after all that was said before; theirs reads the first turn.
We differ from the authors' code
    It puts probabilities through a second softmax, which leaves scores below 1.28; we follow the paper's equation.
    It weights 7B and 13B by 7/20 and 13/20 beside 70/90; ours are shares of one sum, as in the paper.
    It skips what fails, which shifts all later scores to other records; ours belong to a record, and a failure is none.
    It knows the digits' numbers in one vocabulary; we find them in the tokenizer, and refuse one that has none.
Text of a record is not fenced, as it is not in the paper: nothing is read from an answer, so no record can forge one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import ClassVar, Literal

from tunesift.datasets import Dataset
from tunesift.errors import ModelRefused, RecipeError
from tunesift.methods.lengths import tell_selection
from tunesift.methods.select import AnySelector, check_keep, chosen, planned_choice
from tunesift.models import LikelihoodModel, name_of
from tunesift.models.base import Span, TargetLoss
from tunesift.models.transformers import TransformersModel
from tunesift.prompts import fill
from tunesift.records import Failure, Record, Score
from tunesift.running.result import Planned, Result, kept
from tunesift.running.run import Run
from tunesift.scoring.selectors import Largest, Pool, Scored
from tunesift.settings import Settings

PROMPTS = (
    "Rate how faithfully the response carries out its task and how accurate it is, on a scale of the whole numbers "
    "from 1 to {ratings}, where {ratings} is best. Write the number alone.",
    "On a scale of whole numbers from 1 to {ratings}, say how well the response does what the task asks and how "
    "correct its content is. {ratings} is the best score. Answer with that number and nothing else.",
    "Does the response follow its task, and is what it says right? Judge both together with one whole number from 1, "
    "the worst, to {ratings}, the best, without an explanation.",
    "You see a task and a response to it. Give a single whole number from 1 to {ratings} for how closely the response "
    "keeps to the task and how accurate it is; a higher number is better. No words, only the number.",
    "Score the response in whole numbers from 1 to {ratings} for its faithfulness to the task and its accuracy; 1 is "
    "the lowest score and {ratings} the highest. Give no reasons, just the score.",
)
"""Our own rating prompts: one criterion and one scale in five wordings."""
CUE = "Rating:\n"
"""The last line, after which the rating is the next token."""
PROMPT_FIRST = ("{question}\n\nTask: {instruction}\nResponse: ", "\n{cue}")
"""What stands before and after the response, as in the authors' code."""
RECORD_FIRST = ("Task: {instruction}\nResponse: ", "\n\n{question}\n\n{cue}")

Layout = Literal["prompt-first", "record-first"]


@dataclass(frozen=True, kw_only=True)
class Rater(Settings):
    """A model that rates, and how much it counts."""

    model: LikelihoodModel = TransformersModel()
    """A base model, not tuned on instructions."""
    parameters: float = 1.0
    """Its number of parameters, in the same unit for all raters: its weight at the model level."""

    def __post_init__(self) -> None:
        if not self.parameters > 0:
            raise RecipeError(f"raters.parameters: {self.parameters:g} is no size of a model; write 7 for 7 billion.")


@dataclass(frozen=True, kw_only=True)
class SelectIT(Settings):
    """Keep what models rate highly and surely, whatever the wording of the question."""

    kind: Literal["selectit"] = "selectit"
    raters: tuple[Rater, ...] = (Rater(),)
    """The models; the paper has LLaMA-2 of 7, 13 and 70 billion parameters."""
    level: Literal["token", "sentence", "model"] = "sentence"
    """token: one prompt, one model; sentence: all prompts, one model; model: all prompts, all models."""
    prompts: tuple[str, ...] = PROMPTS
    """Rating prompts with a place {ratings} for the best rating; the paper has as many as there are ratings."""
    ratings: int = 5
    """Rating levels K, from 1; the paper has 5."""
    cue: str = CUE
    """The last words before the rating. After one that ends in white space, as ours does, the bare digit counts; after
    any other, the digit with a space before it counts, too."""
    layout: Layout = "prompt-first"
    """prompt-first: as published; record-first: the prompt after the record, so that each record is read once for all
    prompts. Scores of the two are not comparable."""
    alpha: float = 0.2
    """How much disagreement between prompts lowers a score; the paper tried 0.2 to 0.8, its code has 0.2."""
    min_mass: float = 0.01
    """Probability of all ratings together below which a score is flagged `low_rating_mass`; our choice."""
    keep: AnySelector = Largest(fraction=0.2)
    """Which records stay; the paper keeps a fifth."""

    def __post_init__(self) -> None:
        if not 2 <= self.ratings <= 9:
            raise RecipeError(f"ratings: {self.ratings} levels cannot be told apart by one digit; write 2 to 9.")
        if not self.prompts or len({p.strip() for p in self.prompts}) < len(self.prompts):
            raise RecipeError("prompts: give at least one rating prompt, and each only once.")
        if odd := [p for p in self.prompts if "{ratings}" not in p]:
            raise RecipeError(f"prompts: {odd[0][:40]!r} names no scale; write {{ratings}} where the best rating is.")
        if not self.cue.strip():
            raise RecipeError('cue: is empty; write what announces the rating, such as "Rating:".')
        if self.alpha < 0 or not 0 <= self.min_mass <= 1:
            raise RecipeError("alpha is a number of 0 or more, and min_mass a probability.")
        if not self.raters or (self.level != "model" and len(self.raters) > 1):
            raise RecipeError(f"raters: the level {self.level} has one model; write level=model for several.")

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Rate with every model, settle, keep."""
        check_keep(self.keep, data, ["selectit"])
        rated = [run.map(f"rate-{n}", step, data) for n, step in enumerate(self._steps(), start=1)]
        good, failures = [r.good() for r in rated], {id: f for r in rated for id, f in r.failures().items()}
        items = (Rated(id, tuple(g[id] for g in good)) for id in data.ids() if id not in failures)
        sizes = tuple(rater.parameters for rater in self.raters)
        scores = run.map("score", Settle(alpha=self.alpha, parameters=sizes, min_mass=self.min_mass), items).good()
        named = {"selectit": Scored(scores, failures)}
        decisions = chosen(Pool(data, scores, failures, "SelectIT", run.random("keep"), named), self.keep, run)
        tell_selection(run, data, scores, decisions)
        return Result(kept(data, decisions), decisions)

    def plan(self, records: int) -> list[Planned]:
        """One pass per prompt and model, and to an endpoint one per rating; the rest is arithmetic."""
        around, stages = max(len(prompt.encode()) for prompt in self.prompts), []
        for n, step in enumerate(self._steps(), start=1):
            passes = len(step.prompts) * (self.ratings if step.model.kind == "http" else 1)
            name = name_of(step.model)
            stages.append(Planned(f"rate-{n}", records, passes, name, around))
        return [*stages, Planned("score", records, 0, ""), *planned_choice(self.keep, records)]

    def _steps(self) -> list[Rate]:
        prompts = self.prompts[:1] if self.level == "token" else self.prompts
        return [
            Rate(model=r.model, prompts=prompts, ratings=self.ratings, cue=self.cue, layout=self.layout)
            for r in self.raters
        ]


@dataclass(frozen=True, slots=True)
class Ratings:
    """What one model says of one record."""

    chances: tuple[tuple[float, ...], ...]
    """By prompt, then by rating: probability as the next token, over the whole vocabulary."""
    truncated: bool = False
    note: str = ""
    """Why there are none."""


@dataclass(frozen=True, slots=True)
class Rated:
    """A record's ratings by all models."""

    id: str
    by: tuple[Ratings, ...]


@dataclass(frozen=True, kw_only=True)
class Rate(Settings):
    """Probability of every rating after every rating prompt."""

    model: LikelihoodModel
    prompts: tuple[str, ...]
    ratings: int
    cue: str
    layout: Layout

    returns: ClassVar[type[Ratings]] = Ratings

    def __call__(self, chunk: Sequence[Record], /) -> list[Ratings | Failure]:
        """One set of ratings per record; all spans of a chunk go to the model together."""
        written = self._written()
        answers = [text for texts in written for text in texts]
        losses = iter(self.model.loss([s for r in chunk if r.response.strip() for s in self._spans(r, answers)]))
        empty = Ratings((), note="empty_response")
        return [_read(losses, len(self.prompts), written) if r.response.strip() else empty for r in chunk]

    def _spans(self, record: Record, answers: Sequence[str]) -> Iterator[Span]:
        instruction = "\n\n".join(m.text for m in record.prompt)
        for prompt in self.prompts:
            question = fill(prompt.strip(), ratings=str(self.ratings))
            if self.layout == "prompt-first":
                before = fill(PROMPT_FIRST[0], question=question, instruction=instruction)
                after = fill(PROMPT_FIRST[1], cue=self.cue)
            else:
                before = fill(RECORD_FIRST[0], instruction=instruction)
                after = fill(RECORD_FIRST[1], question=question, cue=self.cue)
            text, spare = before + record.response + after, (len(before), len(before) + len(record.response))
            yield from (Span(text, answer, bos="tokenizer", spare=spare) for answer in answers)

    def _written(self) -> list[list[str]]:
        """How each rating may be written as one token, each token once; raises `ModelRefused` where one has none."""
        forms = ("{rating}",) if self.cue[-1].isspace() else ("{rating}", " {rating}")
        texts = [[fill(f, rating=str(r)) for f in forms] for r in range(1, self.ratings + 1)]
        tokens = iter(self.model.single_tokens([t for several in texts for t in several]))
        found = [{token: t for t in several if (token := next(tokens)) is not None} for several in texts]
        for rating, own in enumerate(found, start=1):
            if not own:
                raise ModelRefused(f"the tokenizer has no token for the digit {rating} alone; use a model that has.")
        if len({token for own in found for token in own}) < sum(map(len, found)):
            raise ModelRefused("the tokenizer has one token for several digits; use a model that tells them apart.")
        return [list(own.values()) for own in found]


def _read(losses: Iterator[TargetLoss | Failure], prompts: int, written: list[list[str]]) -> Ratings | Failure:
    """The ratings of one record from the losses of its spans."""
    found = [[[next(losses) for _ in texts] for texts in written] for _ in range(prompts)]
    flat = [loss for prompt in found for rating in prompt for loss in rating]
    if failed := [loss for loss in flat if isinstance(loss, Failure)]:
        return failed[0]
    if any(isinstance(loss, TargetLoss) and not loss.nats for loss in flat):
        return Ratings((), note="prompt_too_long")
    chances = tuple(tuple(sum(map(_chance, rating)) for rating in prompt) for prompt in found)
    for number, prompt in enumerate(chances, start=1):
        if not 0 < sum(prompt) < math.inf:
            return Failure("not-finite", f"probabilities {prompt} of the ratings after prompt {number}")
    return Ratings(chances, any(isinstance(loss, TargetLoss) and loss.truncated for loss in flat))


def _chance(loss: TargetLoss | Failure) -> float:
    assert isinstance(loss, TargetLoss)  # failures were returned before
    return math.exp(-loss.nats[0])


@dataclass(frozen=True, kw_only=True)
class Settle(Settings):
    """A record's score from its ratings; parts tell every level of it."""

    kind: Literal["selectit"] = "selectit"
    alpha: float
    parameters: tuple[float, ...]
    min_mass: float

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Rated], /) -> list[Score | Failure]:
        """Arithmetic only."""
        return [self._score(item.by) for item in chunk]

    def _score(self, by: Sequence[Ratings]) -> Score:
        if note := next((ratings.note for ratings in by if ratings.note), ""):
            return Score(None, note=note)
        parts: dict[str, float] = {"rating_mass": min(sum(prompt) for ratings in by for prompt in ratings.chances)}
        for number, ratings in enumerate(by, start=1):
            own = _parts(ratings, self.alpha)
            parts |= own if len(by) == 1 else {f"model_{number}_{name}": value for name, value in own.items()}
        sentences = [sentence_score([token_score(p) for p in ratings.chances], self.alpha) for ratings in by]
        cut = any(ratings.truncated for ratings in by)
        notes = ["truncated"] * cut + ["low_rating_mass"] * (parts["rating_mass"] < self.min_mass)
        return Score(model_score(sentences, self.parameters), parts | {"truncated": float(cut)}, ", ".join(notes))


def _parts(ratings: Ratings, alpha: float) -> Mapping[str, float]:
    tokens = [token_score(p) for p in ratings.chances]
    parts = {"sentence": sentence_score(tokens, alpha), "mean": fmean(tokens), "std": pstdev(tokens)}
    for number, (chances, token) in enumerate(zip(ratings.chances, tokens, strict=True), start=1):
        parts |= {f"rating_{number}": float(base(chances)), f"token_{number}": token}
    return parts


def base(chances: Sequence[float]) -> int:
    """S_base: the likeliest rating; of equals the lowest."""
    return 1 + max(range(len(chances)), key=lambda n: chances[n])


def token_score(chances: Sequence[float]) -> float:
    """Token-R: S_base * 1/(K-1) * sum of |P'_i - P'_base|, in its closed form S_base * (K * P'_base - 1) / (K-1)."""
    count = len(chances)
    certainty = (count * max(chances) / sum(chances) - 1) / (count - 1)
    return base(chances) * max(0.0, certainty)  # rounding makes a uniform distribution uncertain by -1e-17


def sentence_score(tokens: Sequence[float], alpha: float) -> float:
    """Sentence-R: mean over the prompts, divided by 1 + alpha times their population standard deviation."""
    return fmean(tokens) / (1 + alpha * pstdev(tokens))


def model_score(sentences: Sequence[float], parameters: Sequence[float]) -> float:
    """Model-R: mean over the models, weighted by their parameters."""
    return sum(p * s for p, s in zip(parameters, sentences, strict=True)) / sum(parameters)
