"""Who judges, of which rows, and from which share of silent judgements on nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.seeing import asked, picture_file, pictured
from tunesift import (
    Completion,
    Dataset,
    HttpModel,
    Message,
    ModelRefused,
    Record,
    Run,
    Sampling,
    ScriptedModel,
    Sima,
    VisionModel,
)
from tunesift.images import picture
from tunesift.methods.sima_judging import left_out
from tunesift.running.local import Local

pytest.importorskip("PIL", reason='needs the "vision" extra')


def said_of(message: Message, sampling: Sampling, silent: Sequence[str] = ()) -> Completion:
    """An answer by temperature; of a comparison the first, and none of one that names what is in `silent`."""
    if "Now compare these" not in message.text:
        return Completion(f"At {sampling.temperature:g}.", "stop", 3)
    item = message.text.rpartition("Now compare these")[2]
    return Completion("Both." if any(word in item for word in silent) else "[[1]]", "stop", 3)


@dataclass(frozen=True, kw_only=True)
class Looks(HttpModel):
    """Answers without an endpoint, and opens the images of its folder."""

    url: str = "http://127.0.0.1:9/v1"
    model: str = "looks"

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Any]:
        for name in (name for c in conversations for m in c for name in m.images):
            picture(name, self.images)
        return [said_of(conversation[-1], sampling) for conversation in conversations]


def test_a_judge_looks_where_the_student_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images lie neither beside the rows nor where the run is started; the judge has no folder of its own."""
    monkeypatch.chdir(tmp_path)
    picture_file(tmp_path / "photos" / "0.png")
    method = Sima(student=Looks(images=tmp_path / "photos"), judge=Looks(), tuner=None, critic_orders="single")
    with Run(tmp_path / "run", Local()) as run:
        result = method(Dataset.of([asked("a", "0.png")]), run)
        assert [decision.reason for decision in result.decisions] == ["sampled answer chosen"]
        run.finish(Dataset.of([asked("a", "0.png")]), result.decisions)


@pytest.mark.parametrize(("question", "images", "reference", "why"), [
    ("What differs between <image> and <image>?", ("0.png", "1.png"), "The colour.", "has several images"),
    ("What is it?", ("0.png",), " <image> ", "has no reference answer"),
    ("What is it?", ("0.png",), "<image> A dog.", ""),
])  # fmt: skip
def test_rows_that_lose_their_meaning_without_their_marks_are_left_out(
    question: str, images: tuple[str, ...], reference: str, why: str
) -> None:
    record = Record("a", (Message("user", question, images), Message("assistant", reference)))
    assert left_out(record) == why


@dataclass(frozen=True, kw_only=True)
class Answers(VisionModel):
    """Answers without weights."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Any]:
        return [said_of(conversation[-1], sampling) for conversation in conversations]

    def identity(self) -> str:
        return "answers"


@dataclass(frozen=True, kw_only=True)
class Silent(ScriptedModel):
    """A judge that says nothing of some rows."""

    of: tuple[str, ...] = ()

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [said_of(conversation[-1], sampling, self.of) for conversation in conversations]


class TrainedNow(Exception):
    """A training was begun."""


@pytest.mark.parametrize(("silent", "trains"), [(1, True), (2, False)])
def test_a_fifth_of_silent_replies_is_trained_on_and_more_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: int, trains: bool
) -> None:
    pictured(tmp_path, 5)
    begun: list[list[str]] = []

    def once(run: Run, stage: str, tuner: object, data: Dataset[Any]) -> object:
        begun.append([pair.id for pair in data])
        raise TrainedNow

    monkeypatch.setattr(Run, "once", once)
    data = Dataset.of([asked(f"r{n}", f"{n}.png", f"What is number {n}?") for n in range(5)])
    judge = Silent(of=tuple(f"number {n}?" for n in range(silent)))
    method = Sima(student=Answers(name="none", images=tmp_path), judge=judge, critic_orders="single")
    with Run(tmp_path / "run", Local()) as run:
        if trains:
            with pytest.raises(TrainedNow):
                method(data, run)
        else:
            result = method(data, run)
            assert isinstance(result.refused, ModelRefused)
            assert "2 of 5 comparisons have no [[1]] or [[2]], more than a fifth" in str(result.refused)
            run.finish(data, result.decisions)
    assert begun == ([["r1", "r2", "r3", "r4"]] if trains else [])
