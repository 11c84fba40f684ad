"""What a method is, and what it hands back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, Protocol, cast

import numpy as np

from tunesift.datasets import Dataset
from tunesift.errors import RunError, TunesiftError
from tunesift.formats import Format
from tunesift.records import Decision, Failure, Preference, Record, Score
from tunesift.running.run import Run
from tunesift.running.step import Checkpoint

Reads = Literal["records", "prompts", "preferences", "nothing"]
"""records: a prompt and its response; prompts: a response may be missing, and a bare text is a prompt; preferences: a
prompt with two answers, the better one named."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a method made of its data."""

    data: Dataset[Any] | None  # Any: records or preference pairs
    """The records of the output, or the pairs, in the order of the input."""
    decisions: Sequence[Decision]
    """What became of every record."""
    scores: Mapping[str, Mapping[str, Score | Failure]] | None = None
    """By record id, then by scorer, where the output is to show them."""
    format: Format | None = None
    """In which format records are written that no row of the input was made into; None where there are none."""
    short: str = ""
    """Why fewer records were made than asked for; empty where they were not."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """What was measured and is worth a word to the user: how many of each."""
    checkpoint: Checkpoint | None = None
    """The model that was trained, where that is the output."""
    also: Mapping[str, Dataset[Any]] = field(default_factory=dict)  # Any: records or preference pairs
    """What is written besides the output, in the same format, by the names that the method's `writes_also` has."""
    refused: TunesiftError | None = None
    """Why the model is not made, or the records are not written: what the run ends with, once decisions, tables and
    report are there to be looked at."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What one stage of a method will ask for."""

    stage: str
    items: int
    forwards: int
    """Forward passes per item."""
    model: str
    """The model that does them; empty where none does."""
    around: int = 0
    """Bytes of a prompt that are not the record's own."""
    answer: int = 0
    """Most tokens of an answer, for a pass that writes one."""
    spare: bool = False
    """Asked only where something before came out so; the items are the most there can be."""
    told: str = ""
    """What else is to be said of it before it begins, such as the memory that it needs."""
    rounds: int = 1
    """Turns in which the items are done, one after the other; in a turn, all models of a stage are asked together."""


class Method(Protocol):
    """A published method over records. Plain Python between calls of `run.map`."""

    def __call__(self, data: Dataset[Any], run: Run) -> Result:  # Any: of what it reads
        """What it makes of its data."""
        ...

    def plan(self, records: int) -> list[Planned]:
        """The stages to expect for so many records."""
        ...


def reads(method: object) -> Reads:
    """What a method's page reads: records, unless it says otherwise in a class variable `reads`."""
    return cast(Reads, getattr(method, "reads", "records"))


def kind_read(method: object) -> type[Record] | type[Preference]:
    """What the rows of a method's input become."""
    return Preference if reads(method) == "preferences" else Record


def further(method: Method) -> tuple[str, ...]:
    """Names of what a method writes besides its output: `test` is `train.test.jsonl` beside `train.jsonl`. None, unless
    it says otherwise in `writes_also`."""
    return cast("tuple[str, ...]", getattr(method, "writes_also", ()))


def planned(method: Method, data: Dataset[Any]) -> list[Planned]:  # Any: of what it reads
    """The stages to expect for these records; a page that asks nobody about some of them has its own `plan_for`."""
    of_data = getattr(method, "plan_for", None)
    return method.plan(len(data)) if of_data is None else cast(list[Planned], of_data(data))


def kept(data: Dataset[Record], decisions: Sequence[Decision]) -> Dataset[Record]:
    """The records that a selection keeps, in order; one decision for each, in the order of the data."""
    return data.where(np.fromiter(_keeps(data, decisions), bool))  # to its end, where one too many is found


def _keeps(data: Dataset[Record], decisions: Sequence[Decision]) -> Iterator[bool]:
    for id, decision in zip_longest(data.ids(), decisions):
        if id is None or decision is None or decision.record_id != id:
            raise RunError("a selector must decide on every record in the order of the data; this is a fault of it.")
        yield decision.action == "keep"
