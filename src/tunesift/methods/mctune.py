"""MCTune: write what a response measures into its input, so that a model learns to answer as it is asked to.

Paper    Li et al., arXiv:2406.16229
Needs    nothing for profile core; a tagger for profile pos
Changes  replaces every row by the same with controls in its input; test rows go to a file of their own, as prompts

Stages   measure  all features of every response, together and in one order; asks nobody
         Then, by chance that depends on the seed and the row's id: which rows are held out, which features each row
         names, and by how much the held-out ones ask for something else than their response.
         Next are `tunesift tune` over the output, and `tunesift mctune-evaluate` over the held-out rows.

The paper is silent on
    What a word is: here marks and spaces are none; `analyser.counting=compat` counts as the authors' labels do.
    Rows that are no prose: a response with a fence of code is dropped, and one whose readability is below -100.
    Text that already holds a control: the row is dropped, since a reader could not tell it from ours.
    Rows that come twice: none that says word for word what a held-out one does is trained on.
    Images, tools, several turns: dropped. A system message of the row's own stands behind the preamble.
We differ from the authors' code
    Targets are valid as they are written, and what is derived follows from the written counts; theirs are checked and
    derived before rounding. Where no valid ones are drawn, the written measurements stand, and it is told how often.
    All features are always measured together; theirs evaluates on another scale than it trains on, six times of ten.
    Rows are drawn by their ids, so that the same data are split alike wherever and whenever they are measured.
    layout=chat has the preamble as system message and the controls as the last line; theirs is layout=alpaca.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from tunesift.arrays import Numbers
from tunesift.datasets import Dataset
from tunesift.errors import DataError, RecipeError
from tunesift.evaluation.stats import spearman
from tunesift.formats import PREFERENCE, Format, untrainable
from tunesift.methods.mctune_controls import PREAMBLE, Targets, as_written, block, draw_subset, holds_control, perturbed
from tunesift.methods.mctune_features import BY_KEY, Analyser, MeasureResponse, is_measured
from tunesift.methods.refining import check_refinable
from tunesift.prompts import input_of
from tunesift.records import WORDS, Decision, Failure, Message, Record, Score, content_id
from tunesift.running.result import Planned, Result
from tunesift.running.run import OUTPUT, Run
from tunesift.running.step import Outcomes
from tunesift.scoring.deciding import Decisions
from tunesift.settings import Settings

FIELD = "mctune"
"""Field of an output row with what its controls are and what its response measures."""
FELL_BACK = "prompts for which no valid targets were drawn; they ask for what their response measures"
_HELD_OUT = "held out for testing"


@dataclass(frozen=True, kw_only=True)
class MCTune(Settings):
    """MCTune: write measurements of responses into inputs, and hold out rows that ask for others."""

    kind: Literal["mctune"] = "mctune"
    analyser: Analyser = Analyser()
    """What measures responses."""
    most_controls: int = 5
    """Most features that a row names; how many is drawn evenly from 1 on; the authors' 5."""
    held_out: int = 2000
    """Rows that are kept for testing; the authors' 2,000. 0 writes no second file."""
    draws: int = 5
    """Prompts of a held-out row, with the same controls and other numbers; the authors' 5."""
    sigma: float = 0.1
    """How far those numbers lie from the response's, in standard deviations of the data; 0 asks for the same; the
    authors' 0.1."""
    layout: Literal["chat", "alpaca"] = "chat"
    """chat: messages, the preamble as system message, controls as the last line; alpaca: instruction, input, output,
    the controls behind the input, the preamble in the field system."""
    code: Literal["drop", "measure"] = "drop"
    """What becomes of a response with a fence of code, whose words are none; our choice."""

    def __post_init__(self) -> None:
        most = len(self.analyser.features)
        if not 1 <= self.most_controls <= most:
            raise RecipeError(f"most_controls: {self.most_controls} is not from 1 to {most}, the features there are; "
                              f"write {min(5, most)}.")  # fmt: skip
        if self.held_out < 0 or self.draws < 1:
            raise RecipeError("held_out, draws: hold out 0 rows or more, with 1 prompt or more for each.")
        if not 0 <= self.sigma <= 10:
            raise RecipeError(f"sigma: {self.sigma:g} is not from 0 to 10; write 0.1 for a tenth of a deviation.")

    @property
    def writes_also(self) -> tuple[str, ...]:
        """What is written besides the output."""
        return ("test",) if self.held_out else ()

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Measure, leave out, hold out, draw controls, write."""
        check_refinable(data, instructions=False)
        if data.source is not None and data.source.format == PREFERENCE:
            raise RecipeError("the input holds preference pairs, and controls say what one response is like; give rows "
                              "of instructions and responses.")  # fmt: skip
        dropped = {r.id: reason for r in data if (reason := self._left_out(r))}
        self._check_enough(len(data) - len(dropped), dropped)
        told = run.map("measure", MeasureResponse(analyser=self.analyser), data.only(_others(data, dropped)))
        dropped |= {id: reason for id in told if (reason := _unusable(told[id]))}
        usable = sorted(id for id in told if id not in dropped)
        self._check_enough(len(usable), dropped)
        measured = _Measured.of(told, usable)
        testing = frozenset(run.random("held-out").sample(usable, self.held_out))
        dropped |= _repeated(data.only(frozenset(usable) - testing), data.only(testing))
        training = data.only(frozenset(usable) - testing - dropped.keys())
        output = run.dataset(OUTPUT, (self._row(record, measured[record.id], run) for record in training))
        fallen: list[str] = []
        also = {}
        if self.held_out:
            also["test"] = run.dataset("test", self._prompts(data.only(testing), measured, run, fallen))
        self._tell(run, measured, len(testing), len(fallen))

        def decide(place: int, id: str) -> Decision:
            if id in dropped:
                failed = id in told and isinstance(told[id], Failure)
                return Decision(id, "quarantine" if failed else "drop", dropped[id])
            if id in testing:
                return Decision(id, "drop", _HELD_OUT)
            return Decision(id, "replace", f"given controls: {', '.join(self._chosen(id, run))}", (id,))

        format: Format = "messages" if self.layout == "chat" else "alpaca"
        notes = {FELL_BACK: len(fallen)} if fallen else {}
        return Result(output, Decisions(data, decide), format=format, notes=notes, also=also)

    def plan(self, records: int) -> list[Planned]:
        """Every response is measured once."""
        return [Planned("measure", records, 0, "")]

    def _left_out(self, record: Record) -> str:
        """Why a row is not measured; empty where it is."""
        if (refused := untrainable(record)) is not None:
            return refused.message
        if [m.role for m in record.messages if m.role != "system"] != ["user", "assistant"]:
            return "has several turns"
        if any(holds_control(message.text) for message in record.messages):
            return "holds what could be taken for a control"
        return "holds code: its response has a fence" if self.code == "drop" and "```" in record.response else ""

    def _check_enough(self, count: int, dropped: Mapping[str, str]) -> None:
        """Raise `DataError` where no row would be left to train on."""
        if count > self.held_out:
            return
        if not count:
            first = next(iter(dropped.values()), "there are none")
            raise DataError(f"no row can be used ({first}); give rows of one instruction and a response in prose.")
        raise DataError(f"held_out: {self.held_out:,} rows are to be held out, and {count:,} can be used; write "
                        f"held_out={count // 10}, or give more rows.")  # fmt: skip

    def _chosen(self, id: str, run: Run) -> tuple[str, ...]:
        keys = [feature.key for feature in self.analyser.features]
        return draw_subset(keys, self.most_controls, run.random("controls", id))

    def _row(self, record: Record, found: Mapping[str, float], run: Run) -> Record:
        """A row to train on: its response measures what its controls say."""
        chosen = self._chosen(record.id, run)
        values = {key: as_written(found[key]) for key in chosen}
        return self._laid_out(replace(record, id=f"{record.id}~controls"), values, found, {})

    def _prompts(self, data: Dataset[Record], measured: _Measured, run: Run, fallen: list[str]) -> Iterator[Record]:
        """The prompts of held-out rows; ids of those whose targets fell back are added to `fallen`."""
        deviations = measured.deviations
        for record in data:
            chosen, found = self._chosen(record.id, run), measured[record.id]
            for number in range(1, self.draws + 1):
                stream = run.random("targets", record.id, number)
                targets: Targets = perturbed(found, deviations, self.sigma, stream)
                asking = replace(record, id=f"{record.id}~test-{number}", messages=record.prompt)
                if targets.fell_back:
                    fallen.append(asking.id)
                more = {"row": record.id, "sigma": self.sigma, "sd": {key: round(deviations[key], 4) for key in chosen}}
                yield self._laid_out(asking, {key: targets.values[key] for key in chosen}, found, more)

    def _laid_out(
        self, record: Record, values: Mapping[str, float], found: Mapping[str, float], more: Mapping[str, object]
    ) -> Record:
        """The record with its controls, in the layout of the output."""
        *before, asked = record.prompt
        given = input_of(record)
        given = given if given.strip() and asked.text.endswith(f"\n\n{given}") else ""
        system = "\n\n".join([PREAMBLE, *(message.text for message in before)])
        controls = block(values)
        extra = {name: value for name, value in record.extra.items() if name != "input"}
        answer = record.messages[len(record.prompt) :]
        if self.layout == "alpaca":
            extra["input"] = f"{given} {controls}" if given else controls
            instruction = asked.text[: -len(given) - 2] if given else asked.text
            text = f"{instruction}\n\n{extra['input']}"
            answer = answer or (Message("assistant", ""),)  # its rows have the field, whatever is in it
        else:
            text = f"{asked.text}\n{controls}"
        extra[FIELD] = {"selected": list(values), "values": _plain(values), "all_measured": _plain(found),
                        "analyzer_id": self.analyser.analyzer_id, **more}  # fmt: skip
        return Record(record.id, (Message("system", system), Message("user", text), *answer), extra)

    def _tell(self, run: Run, measured: _Measured, testing: int, fallen: int) -> None:
        """What the responses that are used measure, and how the test prompts came about."""
        run.table("features", measured.told())
        if testing:
            run.table("test-prompts", [{"rows_held_out": testing, "prompts": testing * self.draws, "sigma": self.sigma,
                                        "fell_back": fallen}])  # fmt: skip


@dataclass(frozen=True)
class _Measured:
    """What the responses that are used measure: as columns, and of one row when it is asked for."""

    outcomes: Outcomes[Score]
    columns: Mapping[str, Numbers]

    @classmethod
    def of(cls, outcomes: Outcomes[Score], ids: Sequence[str]) -> _Measured:
        keys = [key for key in BY_KEY if key in _parts(outcomes, ids[0])]
        values = (_parts(outcomes, id)[key] for id in ids for key in keys)
        table = np.fromiter(values, np.float64, len(ids) * len(keys)).reshape(len(ids), len(keys))
        return cls(outcomes, dict(zip(keys, table.T, strict=True)))

    def __getitem__(self, id: str) -> Mapping[str, float]:
        return _parts(self.outcomes, id)

    @cached_property
    def deviations(self) -> Mapping[str, float]:
        """Standard deviation of every feature over all rows that are used, with n - 1; of one row it is 0."""
        return {key: float(v.std(ddof=1)) if len(v) > 1 else 0.0 for key, v in self.columns.items()}

    def told(self) -> Iterator[dict[str, object]]:
        """Of every feature its mean, deviation and range, and how it goes with the number of words."""
        for key, values in self.columns.items():
            agreement = spearman(values, self.columns["t_word"])
            yield {"feature": key, "rows": len(values), "mean": round(float(values.mean()), 4),
                   "sd": round(self.deviations[key], 4), "least": float(values.min()), "most": float(values.max()),
                   "spearman_t_word": None if agreement is None else round(agreement, 4)}  # fmt: skip


def _parts(outcomes: Outcomes[Score], id: str) -> Mapping[str, float]:
    score = outcomes[id]
    assert isinstance(score, Score)  # of a row that is used
    return score.parts


def _plain(values: Mapping[str, float]) -> dict[str, float]:
    """Counts as whole numbers, as a reader expects them."""
    return {key: int(value) if BY_KEY[key].kind == "count" else value for key, value in values.items()}


def _repeated(data: Dataset[Record], testing: Dataset[Record]) -> dict[str, str]:
    """Rows that say word for word what a held-out one does: who trains on them has seen the test."""
    shown = {content_id(record.messages) for record in testing}
    return {r.id: "repeats a row that is held out" for r in data if shown and content_id(r.messages) in shown}


def _others(data: Dataset[Record], dropped: Collection[str]) -> frozenset[str]:
    return frozenset(id for id in data.ids() if id not in dropped)


def _unusable(score: Score | Failure) -> str:
    """Why a row that was measured is not used; empty where it is."""
    if isinstance(score, Failure):
        return f"{score.kind}: {score.message}"
    if score.value is None:
        return WORDS.get(score.note, score.note)
    if is_measured(score.parts):
        return ""
    if not score.value:
        return "has no word: its response is marks alone"
    return f"not readable as prose: its readability is {score.parts['fkre']:g}, not from -100 to 121.22"
