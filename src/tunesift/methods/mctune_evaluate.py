"""MCTune's evaluation: does a model answer with the measurements that it is asked for?

Paper    Li et al., arXiv:2406.16229
Needs    a model that chats, tuned on what `mctune` wrote, or rows that already have its answers
Changes  writes the answer into its row, with what it measures beside it

Stages   answer  the model answers every prompt, as likely as it can
         score   what the answer measures, by the same rules as its row was, beside what was asked for; asks nobody

The paper is silent on
    Missing answers. They have nothing of what was asked for, and are in no error and no rank, since no words are no
    measurement; prompts that the model refused or that failed are in no figure, and are counted.
    Ranks, tolerances, errors in deviations, and what the length alone would explain are our additions.
We differ from the authors' code
    An answer is measured whole, as its row was; theirs measures only what was asked for, on another scale.
    Both numbers are compared as they are written, so that 0.333 is 0.33; theirs are never equal.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from tunesift.datasets import Dataset
from tunesift.errors import DataError, RecipeError, shown
from tunesift.methods.mctune import FIELD
from tunesift.methods.mctune_controls import as_written
from tunesift.methods.mctune_features import BY_KEY, Analyser
from tunesift.methods.mctune_figures import ASKED, Prompt, by_feature, controls_of, points, rates, sigmas
from tunesift.models import ChatModel, name_of
from tunesift.models.base import Completion, Sampling
from tunesift.records import Decision, Failure, Message, Record, Score
from tunesift.running.result import Planned, Reads, Result
from tunesift.running.run import OUTPUT, Run
from tunesift.running.step import Outcomes
from tunesift.settings import Settings

EMPTY = "empty answer"


@dataclass(frozen=True, kw_only=True)
class MCTuneEvaluate(Settings):
    """Ask a model for answers with controls, and tell how far they have what was asked for."""

    reads: ClassVar[Reads] = "prompts"
    chats: ClassVar[tuple[str, ...]] = ("model",)
    """Models that must be able to chat."""

    kind: Literal["mctune-evaluate"] = "mctune-evaluate"
    model: ChatModel | None = None
    """Who answers: the tuned model. None to measure the responses that the rows have, from wherever they come."""
    analyser: Analyser = Analyser()
    """What measures answers; that of `mctune`, which is checked."""
    max_tokens: int = 1024
    """Most tokens of an answer; the authors' 1,024."""

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise RecipeError(f"max_tokens: {self.max_tokens} lets nobody answer; write 1,024.")

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Ask, measure, compare; the figures are in the report's tables."""
        wanted, faults = _wanted(data)
        self._check_measured(wanted)
        of = data.only(wanted)
        said = None
        if self.model is not None:
            sampling = Sampling(max_tokens=self.max_tokens)
            said = run.map("answer", AnswerPrompt(model=self.model, sampling=sampling), of)
        texts = {record.id: _text_of(record, said) for record in of}
        answered = [
            Answered(id, wanted[id].values, wanted[id].sd, text) for id, text in texts.items() if isinstance(text, str)
        ]
        scores = run.map("score", MeasureAnswer(analyser=self.analyser), answered)
        prompts = [_prompt(wanted[id], scores[id]) for id in texts if id in scores]
        self._tell(run, prompts, said, texts)
        fates = [_fate(id, scores, texts, faults) for id in data.ids()]
        kind: str = self.kind
        beside: dict[str, dict[str, Score | Failure]] = {
            id: {kind: fate} for id, fate in zip(data.ids(), fates, strict=True)
        }
        if said is None:
            return Result(data, [Decision(id, "keep", _reason(beside[id][self.kind])) for id in data.ids()], beside)
        output = run.dataset(OUTPUT, (_with_answer(record, texts.get(record.id)) for record in data))
        pairs = list(zip(data.ids(), output.ids(), strict=True))
        decisions = [
            Decision(id, "keep" if id == new else "replace", _reason(beside[id][self.kind]), () if id == new else (id,))
            for id, new in pairs
        ]
        return Result(output, decisions, {new: beside[id] for id, new in pairs})

    def plan(self, records: int) -> list[Planned]:
        """One answer a row."""
        asked = [] if self.model is None else [
            Planned("answer", records, 1, name_of(self.model), answer=self.max_tokens)
        ]  # fmt: skip
        return [*asked, Planned("score", records, 0, "")]

    def _check_measured(self, wanted: Mapping[str, Wanted]) -> None:
        """Raise `DataError`, before anybody is asked, for rows that were measured otherwise."""
        theirs = sorted({one.analyzer_id for one in wanted.values()})
        if len(theirs) > 1:
            raise DataError(f'rows were measured by "{shown(theirs[0])}" and by "{shown(theirs[1])}", and what two '
                            "analysers measure is never compared; evaluate them apart.")  # fmt: skip
        if theirs[0] != (ours := self.analyser.analyzer_id):
            lacks = "/pos" in theirs[0] and self.analyser.profile == "core"
            said = ", which has no parts of speech (upos)" if lacks else ""
            raise DataError(f'the rows were measured by "{shown(theirs[0])}", and the answers would be by "{ours}"'
                            f"{said}; give the analyser that mctune was given.")  # fmt: skip

    def _tell(
        self,
        run: Run,
        prompts: Sequence[Prompt],
        said: Outcomes[Completion] | None,
        texts: Mapping[str, str | Failure],
    ) -> None:
        counts = Counter(_told(text) for text in texts.values())
        if said is not None:
            counts["cut at max_tokens"] = sum(one.stop == "length" for one in said.good().values())
        run.table("answers", [{"what": what, "prompts": count} for what, count in counts.items()])
        run.table("rates", rates(prompts))
        run.table("controls", by_feature(prompts, run.random))
        for sigma in sigmas(prompts):
            some = [prompt for prompt in prompts if prompt.sigma == sigma]
            run.table(f"controls-at-sigma-{sigma:g}", by_feature(some, run.random))
        if drawn := [*points(prompts)]:
            run.chart("asked-and-measured", drawn, ASKED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a row asks for."""

    values: Mapping[str, float]
    sd: Mapping[str, float]
    sigma: float | None
    row: str
    """The row that the prompt was made of."""
    analyzer_id: str


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, and what was asked of it."""

    id: str
    values: Mapping[str, float]
    sd: Mapping[str, float]
    text: str


@dataclass(frozen=True, kw_only=True)
class AnswerPrompt(Settings):
    """Have a model answer a record's prompt."""

    model: ChatModel
    sampling: Sampling

    returns: ClassVar[type[Completion]] = Completion

    def __call__(self, chunk: Sequence[Record], /) -> Sequence[Completion | Failure]:
        """One answer for each."""
        return self.model.chat([record.prompt for record in chunk], self.sampling)


@dataclass(frozen=True, kw_only=True)
class MeasureAnswer(Settings):
    """The fraction of an answer's controls that are within tolerance, and all that it measures."""

    kind: Literal["within-tolerance"] = "within-tolerance"
    analyser: Analyser

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Answered], /) -> Sequence[Score | Failure]:
        """One score for each; without a value where the answer has no word."""
        return [self._score(answered) for answered in chunk]

    def _score(self, answered: Answered) -> Score:
        found = self.analyser(answered.text)
        if not found["t_word"]:
            return Score(None, note=EMPTY)
        return Score(Prompt(controls_of(answered.values, found, answered.sd), None, "").near, found)


def _wanted(data: Dataset[Record]) -> tuple[dict[str, Wanted], dict[str, str]]:
    """What every row asks for, and why others ask for nothing; raises `DataError` where none does."""
    wanted: dict[str, Wanted] = {}
    faults: dict[str, str] = {}
    for record in data:
        found = _read(record.extra.get(FIELD), record.id)
        if isinstance(found, Wanted):
            wanted[record.id] = found
        else:
            faults[record.id] = found
    if not wanted:
        first = next(iter(faults.values()), "there is no row")
        raise DataError(f"no row has controls (the first: {first}); give the file that mctune wrote beside its output, "
                        "such as train.test.jsonl.")  # fmt: skip
    return wanted, faults


def _read(field: object, id: str) -> Wanted | str:
    if not isinstance(field, Mapping):
        return f'no field "{FIELD}"'
    values, sd = (_numbers(field.get(name)) for name in ("values", "sd"))
    if not values or not isinstance(whose := field.get("analyzer_id"), str):
        return f'no values, or no analyzer_id, in its field "{FIELD}"'
    sigma, row = field.get("sigma"), field.get("row")
    far = float(sigma) if isinstance(sigma, int | float) else None
    return Wanted(values, sd, far, row if isinstance(row, str) else id, whose)


def _numbers(field: object) -> dict[str, float]:
    """The numbers of features; of Parquet files, where every row has every name, those that are there."""
    given = field if isinstance(field, Mapping) else {}
    return {
        key: float(value) for key in BY_KEY
        if isinstance(value := given.get(key), int | float) and not isinstance(value, bool) and math.isfinite(value)
    }  # fmt: skip


def _text_of(record: Record, said: Outcomes[Completion] | None) -> str | Failure:
    if said is None:
        return record.response
    found = said[record.id]
    return found if isinstance(found, Failure) else found.text


def _prompt(wanted: Wanted, score: Score | Failure) -> Prompt:
    found = score.parts if isinstance(score, Score) and score.value is not None else None
    values = {key: as_written(value) for key, value in wanted.values.items()}
    return Prompt(controls_of(values, found, wanted.sd), wanted.sigma, wanted.row)


def _fate(
    id: str, scores: Outcomes[Score], texts: Mapping[str, str | Failure], faults: Mapping[str, str]
) -> Score | Failure:
    """What is written beside a row."""
    if id in faults:
        return Score(None, note=f"no controls: {faults[id]}")
    text = texts[id]
    return text if isinstance(text, Failure) else scores[id]


def _reason(score: Score | Failure) -> str:
    if isinstance(score, Failure):
        return f"no answer: {score.kind}, {score.message}"
    if score.value is None:
        return score.note
    whole = "all" if score.value == 1 else "some" if score.value else "none"
    return f"{whole} within tolerance: {score.value * 100:.0f}% of its controls"


def _told(text: str | Failure) -> str:
    if isinstance(text, Failure):
        return f"failed: {text.kind}"
    return "answered" if any(map(str.isalnum, text)) else EMPTY


def _with_answer(record: Record, text: str | Failure | None) -> Record:
    if not isinstance(text, str):
        return record
    return replace(record, id=f"{record.id}~answer", messages=(*record.prompt, Message("assistant", text)))
