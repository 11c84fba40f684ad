"""What a step raises says where: the stage, the step and the items that it was at work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from tunesift import (
    Dataset,
    Decision,
    Local,
    Message,
    Record,
    Run,
    RunError,
    Score,
    ScriptedModel,
    Settings,
    recipe_for,
    run_recipe,
)
from tunesift.methods.select import Select
from tunesift.running.result import Result

RECORDS = [Record(f"r{n}", (Message("user", "Say it."), Message("assistant", str(n)))) for n in range(12)]


@dataclass(frozen=True, kw_only=True)
class Divide(Settings):
    """Cannot do the seventh item."""

    student: ScriptedModel
    returns: ClassVar[type] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score]:
        return [Score(1 / (int(record.response) - 7)) for record in chunk]


@pytest.mark.parametrize(("slots", "named"), [(1, "r4, r5, r6, r7"), (3, "r7")])
def test_a_step_that_raises_names_the_stage_and_the_items(tmp_path: Path, slots: int, named: str) -> None:
    step = Divide(student=ScriptedModel(concurrency=slots))
    with Run(tmp_path / "run", Local(chunk=4)) as run, pytest.raises(ZeroDivisionError) as raised:
        run.map("divide", step, RECORDS)
    count = named.count(",") + 1
    assert raised.value.__notes__ == [f"Divide was at work on {count} items: {named}", 'in the stage "divide"']


@pytest.mark.parametrize(("loses", "said"), [
    (True, 'the method decided to keep "r0" and did not hand it back; this is a fault of it.'),
    (False, "the method handed 3 records back and decided on 1; this is a fault of it."),
])  # fmt: skip
def test_a_method_that_hands_back_other_records_than_it_decided_on_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loses: bool, said: str
) -> None:
    """The conservation law: the output is exactly what was kept, replaced and created."""

    def stray(self: Select, data: Dataset[Record], run: Run) -> Result:
        decisions = [Decision(id, "keep" if id == "r0" else "drop", "kept: first") for id in data.ids()]
        return Result(data.only({"r1"}) if loses else data, decisions)

    monkeypatch.setattr(Select, "__call__", stray)
    rows = "".join(f'{{"id": "r{n}", "instruction": "Say {n}.", "output": "{n}"}}\n' for n in range(3))
    (tmp_path / "in.jsonl").write_text(rows)
    with pytest.raises(RunError) as refusal:
        run_recipe(
            recipe_for("select", tmp_path / "in.jsonl", tmp_path / "out.jsonl", ["scorer.student.kind=scripted"])
        )
    assert str(refusal.value) == said
    assert not (tmp_path / "out.jsonl").exists()
