"""Select: one story. Eight records, a student that predicts by rule, and what becomes of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tunesift import (
    IFD,
    Combined,
    Dataset,
    Diverse,
    Largest,
    Local,
    Message,
    Random,
    Record,
    ReversedIFD,
    Run,
    ScriptedModel,
    Select,
    Smallest,
)
from tunesift.models.base import Span, TargetLoss
from tunesift.records import Failure
from tunesift.running.result import Planned, Result
from tunesift.scoring.screening import Screen


def record(id: str, instruction: str, response: str) -> Record:
    return Record(id, (Message("user", instruction), Message("assistant", response)))


EIGHT = [
    record("sea", "Name the sea between Sweden and Poland.", "The Baltic Sea."),
    record("echo", "Repeat: one two three four.", "one two three four."),
    record("poem", "Write a line about rain.", "Grey threads fall and stitch the street to the sky."),
    record("sum", "Add 2 and 2.", "2 and 2 make 4."),
    record("empty", "Translate the word.", "  "),
    record("tides", "Explain tides.", "The moon pulls the water, and the turning earth carries us through the bulge."),
    record("twin", "Name the sea between Sweden and Poland.", "The Baltic Sea."),
    record("odd", "Say hello.", "Quarterly figures are attached."),
]

STORY = Select(scorer=IFD(student=ScriptedModel(), template="bare"), keep=Largest(fraction=0.375, below=1.0))


def decided(result: Result) -> dict[str, str]:
    return {d.record_id: f"{d.action}: {d.reason}" for d in result.decisions}


def done(method: Select, records: Sequence[Record], folder: Path) -> tuple[Result, dict[str, int]]:
    """What a method decides, and how many items it worked on in each stage."""
    data = Dataset.of(records)
    with Run(folder, Local()) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
        return result, {stage.stage: stage.worked for stage in run.stages}


def test_of_eight_records_the_three_whose_instruction_helps_least_yet_helps_are_kept(tmp_path: Path) -> None:
    result, worked = done(STORY, EIGHT, tmp_path)
    assert decided(result) == {
        "sea": "keep: largest 37.5%: IFD 0.4855, rank 1 of 4",
        "echo": "drop: not among the largest 37.5%: IFD 0.2668, rank 4 of 4; the last one kept has 0.2942",
        "poem": "drop: IFD not below 1: 1.0000",
        "sum": "keep: largest 37.5%: IFD 0.2942, rank 3 of 4",
        "empty": "drop: no score: empty_response",
        "tides": "drop: IFD not below 1: 1.0000",
        "twin": "keep: largest 37.5%: IFD 0.4855, rank 2 of 4",
        "odd": "drop: IFD not below 1: 1.0000",
    }
    assert result.data is not None
    assert [r.id for r in result.data] == ["sea", "sum", "twin"]
    assert worked == {"score": 8}


def test_the_same_story_told_again_asks_the_student_nothing(tmp_path: Path) -> None:
    first, _ = done(STORY, EIGHT, tmp_path)
    again, worked = done(STORY, EIGHT, tmp_path)
    assert decided(again) == decided(first)
    assert worked == {"score": 0}


def test_the_order_of_the_records_decides_between_twins_only(tmp_path: Path) -> None:
    two = Select(scorer=STORY.scorer, keep=Largest(fraction=None, count=1, below=1.0))
    for number, records in enumerate((EIGHT, EIGHT[::-1])):
        result, _ = done(two, records, tmp_path / str(number))
        assert result.data is not None
        assert [r.id for r in result.data] == [["sea"], ["twin"]][number]


def test_reversed_ifd_keeps_the_records_whose_response_points_back_most_clearly(tmp_path: Path) -> None:
    scorer = ReversedIFD(student=ScriptedModel(), template="bare")
    result, _ = done(Select(scorer=scorer, keep=Smallest(fraction=0.25)), EIGHT, tmp_path)
    found = decided(result)
    assert [id for id in found if found[id].startswith("keep")] == ["echo", "sum"]
    assert found["empty"] == "drop: no score: empty_response"
    assert found["echo"].startswith("keep: smallest 25%: r-IFD ")


def test_superfiltering_d_keeps_two_that_stand_for_the_six_best(tmp_path: Path) -> None:
    result, worked = done(Select(scorer=STORY.scorer, keep=Diverse(fraction=0.25, candidates=0.75)), EIGHT, tmp_path)
    passed = "drop: not chosen for diversity: facility location by hashed-ngrams chose 2 of 6 candidates; IFD"
    assert decided(result) == {
        "sea": "keep: facility location by hashed-ngrams: place 1 of 2, adds 5.9788; IFD 0.4855",
        "echo": "drop: not among the largest 75%: IFD 0.2668, rank 7 of 7; the last one kept has 0.2942",
        "poem": f"{passed} 1.0000",
        "sum": f"{passed} 0.2942",
        "empty": "drop: no score: empty_response",
        "tides": f"{passed} 1.0000",
        "twin": f"{passed} 0.4855",
        "odd": "keep: facility location by hashed-ngrams: place 2 of 2, adds 0.0054; IFD 1.0000",
    }
    assert worked == {"score": 8, "embed-candidates": 6}


def test_two_scores_and_two_conditions_decide_together_and_all_of_it_is_in_the_reason(tmp_path: Path) -> None:
    method = Select(
        scorer=STORY.scorer, also=(ReversedIFD(student=ScriptedModel(), template="bare"),),
        keep=Combined(weights={"ifd": 1, "reversed-ifd": -1}, where=("ifd <= 1", "length >= 16"), fraction=0.375),
    )  # fmt: skip
    result, worked = done(method, EIGHT, tmp_path)
    said = "largest 37.5% by rank-sum"
    assert decided(result) == {
        "sea": "drop: length >= 16 does not hold: length 15",
        "echo": f"keep: {said}: 0.0000 from ifd 0.2668, reversed-ifd 0.3475; rank 2 of 4",
        "poem": f"keep: {said}: 0.2500 from ifd 1.0000, reversed-ifd 0.5999; rank 1 of 4",
        "sum": "drop: length >= 16 does not hold: length 15",
        "empty": "drop: no score: ifd empty_response",
        "tides": f"keep: {said}: -0.1250 from ifd 1.0000, reversed-ifd 1.0000; rank 3 of 4",
        "twin": "drop: length >= 16 does not hold: length 15",
        "odd": f"drop: not among the {said}: -0.1250 from ifd 1.0000, reversed-ifd 1.0000; rank 4 of 4",
    }
    assert worked == {"score": 8, "score-reversed-ifd": 8}


def test_a_baseline_that_needs_no_scores_asks_no_model(tmp_path: Path) -> None:
    method = Select(keep=Random(fraction=0.5))
    result, worked = done(method, EIGHT, tmp_path)
    assert result.data is not None
    assert len(result.data) == 4
    assert worked == {}
    assert method.plan(8) == []


@dataclass(frozen=True, kw_only=True)
class Terse(ScriptedModel):
    """A small model, whose losses are those of another with less weight on what stands in the instruction."""

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        return [lost if isinstance(lost, Failure) else TargetLoss(tuple(n**0.5 for n in lost.nats), lost.truncated)
                for lost in super().loss(spans)]  # fmt: skip


def test_a_small_model_settles_what_is_far_from_the_cut(tmp_path: Path) -> None:
    screened = replace(STORY, screen=Screen(student=Terse(), margin=0.125, sample=1))
    assert screened.plan(8) == [Planned("screen", 8, 2, "scripted"), Planned("score", 5, 2, "scripted")]
    result, worked = done(screened, EIGHT, tmp_path)
    told = decided(result)
    assert {id for id, said in told.items() if said.startswith("keep")} == {"sea", "twin", "sum"}
    assert worked["screen"] == 8
    assert worked["score"] < 8
    assert any(said.startswith("keep: screened in: IFD 0.") for said in told.values())
    assert any("by the screen, far from the cut" not in said for said in told.values())
    assert told["empty"] == "drop: no score: empty_response"
    (row,) = pq.read_table(tmp_path / "tables/screening.parquet").to_pylist()
    assert (row["records"], row["scored again"], row["sample"]) == (8, worked["score"], 1)


def test_a_conversation_is_scored_by_its_last_response_or_by_all_of_them(tmp_path: Path) -> None:
    talk = Record("talk", (
        Message("user", "Add 2 and 2."), Message("assistant", "2 and 2 make 4."),
        Message("user", "Say hello."), Message("assistant", "Quarterly figures are attached."),
    ))  # fmt: skip
    for turns, found in (("last", 1.0), ("each", None)):
        scorer = IFD(student=ScriptedModel(), template="bare", turns=turns)  # type: ignore[arg-type]
        with Run(tmp_path / turns, Local()) as run:
            score = run.map("score", scorer, [talk]).good()["talk"]
        assert score.value is not None
        assert (score.value == found) is (turns == "last")
        assert score.parts["tokens"] == (4 if turns == "last" else 9)


def test_the_plan_is_two_forward_passes_for_every_record() -> None:
    assert STORY.plan(8) == [Planned("score", 8, 2, "scripted")]


@pytest.mark.parametrize("profile", ["canonical", "cherry", "superfilter"])
def test_every_profile_tells_the_story_of_a_response_that_repeats_its_instruction(tmp_path: Path, profile: str) -> None:
    scorer = IFD(student=ScriptedModel(), profile=profile)  # type: ignore[arg-type]
    with Run(tmp_path, Local()) as run:
        scores = run.map("score", scorer, Dataset.of(EIGHT)).good()
        assert min(scores, key=lambda id: scores[id].value or 9) == "echo"
        assert scores["odd"].value == 1.0
        assert scores["empty"].value is None
