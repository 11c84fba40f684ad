"""Tune: train a student on records or preference pairs, and leave a model that transformers, vLLM and tunesift load.

Needs    a student whose weights are here; TRL (extra "train")
Changes  nothing; the output is the model's folder

Stages   measure   tokens of every record in the student's template; what is too long is left out, never cut
         tune      the training, in a process of its own, resumed where it was left off
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunesift.datasets import Dataset
from tunesift.errors import DataError
from tunesift.formats import PREFERENCE
from tunesift.methods.trainable import MeasureTokens, first_reason, noted
from tunesift.methods.training_told import CURVE, LOSS_OF_PAIRS, PREFERRED, curve, told_row
from tunesift.models.transformers import TransformersModel
from tunesift.records import Decision, Preference, Record, Score, noun
from tunesift.running.result import Planned, Reads, Result
from tunesift.running.run import Run
from tunesift.settings import Settings
from tunesift.tuning.dpo import DPO
from tunesift.tuning.forecast import forecast_on, with_forecast
from tunesift.tuning.process import Tuning, told
from tunesift.tuning.sft import SFT
from tunesift.tuning.student import limit_of

CHOSEN_ALONE = "preference pairs, of which the chosen answer is trained on and the rejected one is not read"
NONE_HELD_OUT = "of which the share tuner.held_out is none: no loss of held-out ones is measured"


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
            said = f"no {noun(self.tuner.reads)} can be trained on ({first_reason(measured)})"
            raise DataError(f"{said}; give others, or raise tuner.max_length.")
        made = run.once("tune", Tuning(student=self.student, tuner=self.tuner), fit)
        trained = told(made)
        of_pairs = self.reads == "preferences"
        run.chart("loss", curve(trained, "loss"), LOSS_OF_PAIRS if of_pairs else CURVE)
        if of_pairs:
            run.chart("preferred", curve(trained, "rewards/accuracies", "share"), PREFERRED)
        run.table("training", [told_row(trained)])
        aside = self.tuner.held_out_of(list(fit.ids()))
        decisions = [_decided(id, noted(measured[id]), id in aside) for id in data.ids()]
        notes = {f"{noun(self.tuner.reads)}s, {NONE_HELD_OUT}": len(fit)} if self.tuner.held_out and not aside else {}
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
        return with_forecast(self.plan(len(data)), forecast_on(self.student, self.tuner, data))


def _decided(id: str, score: Score, aside: bool) -> Decision:
    if score.value is None:
        return Decision(id, "drop", score.note)
    return Decision(id, "keep", "held out: its loss is measured" if aside else "trained on")
