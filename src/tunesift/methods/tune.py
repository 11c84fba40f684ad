"""Tune: train a student on the records, and leave a model that transformers, vLLM and tunesift load.

Needs    a student whose weights are here; TRL (extra "train")
Changes  nothing; the output is the model's folder

Stages   measure   tokens of every record in the student's template; what is too long is left out, never cut
         tune      the training, in a process of its own, resumed where it was left off
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from tunesift.datasets import Dataset
from tunesift.errors import DataError, told_bytes
from tunesift.models.folders import tokenizer
from tunesift.models.transformers import TransformersModel
from tunesift.models.turns import Encoder
from tunesift.prompts import Template, context, input_of
from tunesift.records import Decision, Failure, Record, Score
from tunesift.running.charts import Chart
from tunesift.running.result import Planned, Result
from tunesift.running.run import Run
from tunesift.running.step import Outcomes
from tunesift.settings import Settings
from tunesift.tuning.forecast import BYTES_PER_TOKEN, forecast
from tunesift.tuning.process import Trained, Tuning, told
from tunesift.tuning.sft import SFT
from tunesift.tuning.student import limit_of

CURVE = Chart(
    "lines", "step", "loss", "of", "updates of the weights", "loss in nats per token",
    "The mean loss of the responses in each batch as it was trained on, and of the records that were held out. A "
    "held-out loss that rises again says that the student learns the records by heart.",
    names=("trained on", "held out"),
)  # fmt: skip

NONE_HELD_OUT = "records, of which the share tuner.held_out is none: no loss of held-out ones is measured"


@dataclass(frozen=True, kw_only=True)
class Tune(Settings):
    """Train a student on the records."""

    kind: Literal["tune"] = "tune"
    student: TransformersModel = TransformersModel()
    """The model that is tuned; its weights stay as they are, the tuned ones are the output."""
    tuner: SFT = SFT()
    """How it is tuned."""

    makes: ClassVar[Literal["model"]] = "model"
    """The output is a model's folder, not a file of records."""

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Measure, train on what fits, and tell how it went."""
        step = MeasureTokens(student=self.student, template=self.tuner.template, most=self.limit)
        measured = run.map("measure", step, data)
        fit = data.only({id for id, score in measured.good().items() if score.value is not None})
        if not len(fit):
            raise DataError(
                f"no record can be trained on ({_first(measured)}); give others, or raise tuner.max_length."
            )
        made = run.once("tune", Tuning(student=self.student, tuner=self.tuner), fit)
        trained = told(made)
        run.chart("loss", _curve(trained), CURVE)
        run.table("training", [_row(trained)])
        aside = self.tuner.held_out_of(list(fit.ids()))
        decisions = [_decided(id, measured[id], id in aside) for id in data.ids()]
        notes = {NONE_HELD_OUT: len(fit)} if self.tuner.held_out and not aside else {}
        return Result(None, decisions, notes=notes, checkpoint=made)

    @property
    def limit(self) -> int | None:
        """Most tokens of a record: those of the settings, or of the student."""
        return limit_of(self.student, self.tuner)

    def plan(self, records: int) -> list[Planned]:
        """Tokens are counted once; then every record is read in every epoch."""
        passes = self.tuner.passes(records)
        return [Planned("measure", records, 0, ""), Planned("tune", records, passes, self.student.name)]

    def plan_for(self, data: Dataset[Record]) -> list[Planned]:
        """The same, with updates, tokens and memory, which depend on how long the records are."""
        sizes = [self._size(record) for record in data]
        told = forecast(self.student, self.tuner, len(data), round(sum(sizes)), round(max(sizes, default=0)))
        measure, tune = self.plan(len(data))
        return [measure, replace(tune, told=str(told))]

    def _size(self, record: Record) -> float:
        """Tokens of a record, by its bytes; without those of a chat template, which only the student knows."""
        asked = context(record.prompt, self.tuner.template, input_of(record))
        text = asked if isinstance(asked, str) else "".join(message.text for message in asked)
        return len(f"{text}{record.response}".encode()) / BYTES_PER_TOKEN


@dataclass(frozen=True, kw_only=True)
class MeasureTokens(Settings):
    """How many tokens a record has in the student's template; none is cut."""

    kind: Literal["tokens"] = "tokens"
    student: TransformersModel
    template: Template
    most: int | None
    """Most tokens that are trained on."""

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        """Tokens of prompt and response; without a value where they are too many."""
        encode = Encoder(tokenizer(self.student.location, self.student.revision), self.template)
        return [self._score(encode, record) for record in chunk]

    def _score(self, encode: Encoder, record: Record) -> Score | Failure:
        found = encode(record)
        if isinstance(found, Failure):
            return Score(None, note=f"{found.kind}: {found.message}")
        parts = {"prompt": float(found.start), "response": float(len(found.ids) - found.start)}
        if self.most is not None and len(found.ids) > self.most:
            return Score(None, parts, f"too long: {len(found.ids):,} tokens, the limit is {self.most:,}")
        return Score(float(len(found.ids)), parts)


def _first(measured: Outcomes[Score]) -> str:
    score = measured[next(iter(measured))]
    return score.message if isinstance(score, Failure) else score.note


def _decided(id: str, score: Score | Failure, aside: bool) -> Decision:
    if isinstance(score, Failure):
        return Decision(id, "drop", f"{score.kind}: {score.message}")
    if score.value is None:
        return Decision(id, "drop", score.note)
    return Decision(id, "keep", "held out: its loss is measured" if aside else "trained on")


def _curve(trained: Trained) -> Iterator[Mapping[str, object]]:
    for name, of in (("loss", "trained on"), ("eval_loss", "held out")):
        yield from ({"step": h["step"], "loss": h[name], "of": of} for h in trained.history if name in h)


def _row(trained: Trained) -> dict[str, Any]:  # Any: numbers and texts
    losses = {of: [h[name] for h in trained.history if name in h] for of, name in _LOSSES.items()}
    return {
        "records": trained.records, "tokens": trained.tokens, "updates": trained.steps,
        **{f"{of}, {when}": round(found[place], 4)
           for of, found in losses.items() if found for when, place in (("first", 0), ("last", -1))},
        "device": trained.device, "precision": trained.precision, "memory": told_bytes(trained.peak_bytes),
    }  # fmt: skip


_LOSSES = {"loss": "loss", "held-out loss": "eval_loss"}
