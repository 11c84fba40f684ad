"""What the tests of the door share: a step that measures, records for it, and a run's folder opened once more."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import pytest

from tunesift import (
    INCIDENTAL,
    Decision,
    Failure,
    Local,
    Message,
    ModelUnavailable,
    Record,
    Run,
    Score,
    ScriptedModel,
    Settings,
)
from tunesift.records import content_digest
from tunesift.running import journal as storage

worked: list[str] = []
"""Ids that steps of these tests worked on, in this test, in the order in which they began."""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PART_ROWS", 8)
    worked.clear()


@dataclass(frozen=True, kw_only=True)
class Measure(Settings):
    """Length of the response, times a factor; what the response says may go wrong goes wrong."""

    student: ScriptedModel = ScriptedModel()
    factor: float = 1.0
    patience_s: Annotated[float, INCIDENTAL] = 1.0
    """A setting that changes no result."""
    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        worked.extend(r.id for r in chunk)
        return [self._one(r.response) for r in chunk]

    def _one(self, response: str) -> Score | Failure:
        if response.startswith("refuse"):
            return Failure("refused", response)
        if response == "raise":
            raise ModelUnavailable("the model is gone; start it again.")
        numbers = {"nan": math.nan, "inf": -math.inf}
        value = numbers.get(response, len(response) * self.factor)
        return Score(value, {"characters": len(response)})


def record(id: str, response: str = "Hello there.") -> Record:
    return Record(id, (Message("user", "Say hello."), Message("assistant", response)))


def records(count: int, response: str = "") -> list[Record]:
    return [record(f"r{n}", response or "x" * (n + 1)) for n in range(count)]


class Life(Protocol):
    """Opens the run of a folder once more."""

    def __call__(self, **fields: Any) -> Run: ...  # Any: fields of Run


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return lambda **fields: Run(tmp_path / "run", fields.pop("executor", Local(chunk=4)), **fields)


def all_kept(items: Sequence[Record]) -> list[Decision]:
    return [Decision(r.id, "keep", "kept: all are") for r in items]


@dataclass(frozen=True, kw_only=True)
class Slow(Settings):
    """Takes a moment that depends on the id."""

    student: ScriptedModel = ScriptedModel()
    fail_all: bool = False
    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        worked.extend(r.id for r in chunk)
        time.sleep(content_digest(chunk[0].id)[0] / 255 * 0.004)
        return [self._one(r.id) for r in chunk]

    def _one(self, id: str) -> Score | Failure:
        if self.fail_all or content_digest(id)[1] % 7 == 0:
            return Failure("refused", f"{id}: no")
        return Score(content_digest(id)[2] / 255)
