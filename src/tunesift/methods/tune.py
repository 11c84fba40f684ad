"""Tune: train a student on records or preference pairs, and leave a model that transformers, vLLM and tunesift load.

Needs    a student whose weights are here; TRL (extra "train")
Changes  nothing; the output is the model's folder

Stages   measure   tokens of every record in the student's template; what is too long is left out, never cut
         tune      the training, in a process of its own, resumed where it was left off
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesift.datasets import Dataset
from tunesift.errors import DataError, told_bytes
from tunesift.formats import PREFERENCE
from tunesift.models.folders import tokenizer
from tunesift.models.transformers import TransformersModel
from tunesift.models.turns import Encoder
from tunesift.prompts import Template
from tunesift.records import Decision, Failure, Preference, Record, Score
from tunesift.running.charts import Chart
from tunesift.running.result import Planned, Reads, Result
from tunesift.running.run import Run
from tunesift.running.step import Outcomes
from tunesift.settings import Settings
from tunesift.tuning.dpo import DPO
from tunesift.tuning.encoding import PairEncoder
from tunesift.tuning.forecast import forecast_on
from tunesift.tuning.process import Trained, Tuning, told
from tunesift.tuning.sft import SFT
from tunesift.tuning.student import limit_of

CURVE = Chart(
    "lines", "step", "loss", "of", "updates of the weights", "loss in nats per token",
    "The mean loss of the responses in each batch as it was trained on, and of the records that were held out. A "
    "held-out loss that rises again says that the student learns the records by heart.",
    names=("trained on", "held out"),
)  # fmt: skip
LOSS_OF_PAIRS = replace(
    CURVE, y_name="loss in nats per pair",
    caption="The mean loss of the pairs in each batch as it was trained on, and of those that were held out: 0.693 "
    "where the student tells the two answers apart no better than the reference does.",
)  # fmt: skip
PREFERRED = Chart(
    "lines", "step", "share", "of", "updates of the weights", "share of the pairs",
    "In how many pairs the chosen answer has gained more over the reference than the rejected one, in each batch and "
    "of those that were held out; half of them by chance.",
    names=("trained on", "held out"),
)  # fmt: skip

CHOSEN_ALONE = "preference pairs, of which the chosen answer is trained on and the rejected one is not read"
NONE_HELD_OUT = "records, of which the share tuner.held_out is none: no loss of held-out ones is measured"


@dataclass(frozen=True, kw_only=True)
class Tune(Settings):
    """Train a student on the records."""

    kind: Literal["tune"] = "tune"
    student: TransformersModel = TransformersModel()
    """The model that is tuned; its weights stay as they are, the tuned ones are the output."""
    tuner: Annotated[SFT | DPO, Field(discriminator="kind")] = SFT()
    """How it is tuned: on responses, or by dpo on preference pairs."""

    makes: ClassVar[Literal["model"]] = "model"
    """The output is a model's folder, not a file of records."""

    @property
    def reads(self) -> Reads:
        """Records, or preference pairs."""
        return "preferences" if self.tuner.reads is Preference else "records"

    def __call__(self, data: Dataset[Record] | Dataset[Preference], run: Run) -> Result:
        """Measure, train on what fits, and tell how it went."""
        step = MeasureTokens(student=self.student, template=self.tuner.template, most=self.limit)
        rows: Iterable[Record | Preference] = data
        measured = run.map("measure", step, rows)
        fit = data.only({id for id, score in measured.good().items() if score.value is not None})
        if not len(fit):
            raise DataError(
                f"no record can be trained on ({_first(measured)}); give others, or raise tuner.max_length."
            )
        made = run.once("tune", Tuning(student=self.student, tuner=self.tuner), fit)
        trained = told(made)
        of_pairs = self.reads == "preferences"
        run.chart("loss", _curve(trained, "loss"), LOSS_OF_PAIRS if of_pairs else CURVE)
        if of_pairs:
            run.chart("preferred", _curve(trained, "rewards/accuracies", "share"), PREFERRED)
        run.table("training", [_row(trained)])
        aside = self.tuner.held_out_of(list(fit.ids()))
        decisions = [_decided(id, measured[id], id in aside) for id in data.ids()]
        notes = {NONE_HELD_OUT: len(fit)} if self.tuner.held_out and not aside else {}
        if not of_pairs and data.source is not None and data.source.format == PREFERENCE:
            notes[CHOSEN_ALONE] = len(fit)
        return Result(None, decisions, notes=notes, checkpoint=made)

    @property
    def limit(self) -> int | None:
        """Most tokens of a record: those of the settings, or of the student."""
        return limit_of(self.student, self.tuner)

    def plan(self, records: int) -> list[Planned]:
        """Tokens are counted once; then every record is read in every epoch."""
        passes = self.tuner.passes(records)
        return [Planned("measure", records, 0, ""), Planned("tune", records, passes, self.student.name)]

    def plan_for(self, data: Dataset[Record] | Dataset[Preference]) -> list[Planned]:
        """The same, with updates, tokens and memory, which depend on how long the records are."""
        measure, tune = self.plan(len(data))
        return [measure, replace(tune, told=str(forecast_on(self.student, self.tuner, data)))]


@dataclass(frozen=True, kw_only=True)
class MeasureTokens(Settings):
    """How many tokens a record, or a preference pair, has in the student's template; none is cut."""

    kind: Literal["tokens"] = "tokens"
    student: TransformersModel
    template: Template
    most: int | None
    """Most tokens that are trained on."""

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record | Preference], /) -> list[Score | Failure]:
        """Tokens of prompt and response, or of prompt and longer answer; without a value where they are too many."""
        reader = tokenizer(self.student.location, self.student.revision)
        of_record, of_pair = Encoder(reader, self.template), PairEncoder(reader, self.template)
        return [self._of_pair(of_pair, row) if isinstance(row, Preference) else self._of_record(of_record, row)
                for row in chunk]  # fmt: skip

    def _of_record(self, encode: Encoder, record: Record) -> Score:
        found = encode(record)
        if isinstance(found, Failure):
            return Score(None, note=f"{found.kind}: {found.message}")
        parts = {"prompt": float(found.start), "response": float(len(found.ids) - found.start)}
        return self._score(len(found.ids), parts)

    def _of_pair(self, encode: PairEncoder, pair: Preference) -> Score:
        if pair.chosen.text.strip() == pair.rejected.text.strip():
            return Score(None, note="both answers are the same")
        found = encode(pair)
        if isinstance(found, Failure):
            return Score(None, note=f"{found.kind}: {found.message}")
        sides = {"prompt": found.prompt, "chosen": found.chosen, "rejected": found.rejected}
        return self._score(found.longest, {name: float(len(ids)) for name, ids in sides.items()})

    def _score(self, tokens: int, parts: Mapping[str, float]) -> Score:
        if self.most is not None and tokens > self.most:
            return Score(None, parts, f"too long: {tokens:,} tokens, the limit is {self.most:,}")
        return Score(float(tokens), parts)


def _first(measured: Outcomes[Score]) -> str:
    score = measured[next(iter(measured))]
    return score.message if isinstance(score, Failure) else score.note


def _decided(id: str, score: Score | Failure, aside: bool) -> Decision:
    if isinstance(score, Failure):
        return Decision(id, "drop", f"{score.kind}: {score.message}")
    if score.value is None:
        return Decision(id, "drop", score.note)
    return Decision(id, "keep", "held out: its loss is measured" if aside else "trained on")


def _curve(trained: Trained, name: str, column: str = "loss") -> Iterator[Mapping[str, object]]:
    for said, of in ((name, "trained on"), (f"eval_{name}", "held out")):
        yield from ({"step": h["step"], column: h[said], "of": of} for h in trained.history if said in h)


def _row(trained: Trained) -> dict[str, Any]:  # Any: numbers and texts
    losses = {of: [h[name] for h in trained.history if name in h] for of, name in _LOSSES.items()}
    return {
        "records": trained.records, "tokens": trained.tokens, "updates": trained.steps,
        **{f"{of}, {when}": round(found[place], 4)
           for of, found in losses.items() if found for when, place in (("first", 0), ("last", -1))},
        "device": trained.device, "precision": trained.precision, "memory": told_bytes(trained.peak_bytes),
    }  # fmt: skip


_LOSSES = {"loss": "loss", "held-out loss": "eval_loss"}
