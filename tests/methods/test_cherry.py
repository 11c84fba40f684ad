"""Cherry: one story. Eight records, a student that predicts by rule, the sample and what becomes of each record."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.tiny import MakeTiny
from tunesift import (
    IFD,
    SFT,
    Cherry,
    Dataset,
    Largest,
    Local,
    Message,
    MissingExtra,
    PreExperience,
    RecipeError,
    Record,
    Run,
    Score,
    ScriptedModel,
    TransformersModel,
    Tuning,
)
from tunesift.recipe import check
from tunesift.running.result import Planned, Result, planned
from tunesift.tuning.forecast import forecast_on


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

HALF = Largest(fraction=0.5, at_most=1.0)
STORY = Cherry(
    student=ScriptedModel(), pre_experience=PreExperience(clusters=2, per_cluster=2, tuner=None),
    keep=HALF,
)  # fmt: skip
PLAIN = Cherry(student=ScriptedModel(), pre_experience=None, keep=HALF)


def decided(result: Result) -> dict[str, str]:
    return {d.record_id: f"{d.action}: {d.reason}" for d in result.decisions}


def done(method: Cherry, folder: Path, records: Sequence[Record] = EIGHT) -> tuple[Result, dict[str, int]]:
    """What a method decides, and how many items it worked on in each stage."""
    data = Dataset.of(records)
    with Run(folder, Local()) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
        return result, {stage.stage: stage.worked for stage in run.stages}


def table(folder: Path) -> list[Mapping[str, Any]]:
    return list(pq.read_table(folder / "tables" / "pre-experience.parquet").to_pylist())


DECISIONS = {
    "sea": "keep: largest 50%: IFD 0.6396, rank 4 of 7",
    "echo": "drop: not among the largest 50%: IFD 0.2500, rank 7 of 7; the last one kept has 0.6396",
    "poem": "keep: largest 50%: IFD 0.7646, rank 2 of 7",
    "sum": "drop: not among the largest 50%: IFD 0.4882, rank 6 of 7; the last one kept has 0.6396",
    "empty": "drop: no score: empty_response",
    "tides": "keep: largest 50%: IFD 0.6898, rank 3 of 7",
    "twin": "drop: not among the largest 50%: IFD 0.6396, rank 5 of 7; the last one kept has 0.6396",
    "odd": "keep: largest 50%: IFD 1.0000, rank 1 of 7",
}


def test_of_eight_records_the_four_with_the_largest_ratio_up_to_one_are_kept(tmp_path: Path) -> None:
    result, worked = done(PLAIN, tmp_path)
    assert decided(result) == DECISIONS
    assert result.data is not None
    assert [r.id for r in result.data] == ["sea", "poem", "tides", "odd"]
    assert worked == {"ifd": 8}


def test_the_sample_is_written_down_and_changes_no_decision(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    result, worked = done(STORY, tmp_path)
    assert decided(result) == DECISIONS
    assert worked == {"embed": 8, "prompt-loss": 8, "ifd": 8}
    rows = table(tmp_path)
    assert [row["id"] for row in rows] == ["sea", "poem", "twin", "odd"]
    assert [row["perplexity"] for row in rows] == pytest.approx([9.190509, 9.013739, 9.190509, 9.320761], abs=1e-6)


def spread(vectors: Sequence[Sequence[float]]) -> float:
    """Squared distances to the mean, summed."""
    mean = [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]
    return float(sum((x - m) ** 2 for vector in vectors for x, m in zip(vector, mean, strict=True)))


def test_the_clusters_are_the_best_of_all_divisions_in_two(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    every = Cherry(
        student=ScriptedModel(), pre_experience=PreExperience(clusters=2, per_cluster=9, tuner=None), keep=HALF
    )
    done(every, tmp_path)
    with Run(tmp_path / "again", Local()) as run:
        from tunesift.methods.cherry import EmbedPrompt

        vectors = list(run.map("embed", EmbedPrompt(student=ScriptedModel()), Dataset.of(EIGHT)).good().values())

    def cost(sides: Sequence[int]) -> float:
        return sum(spread([v for v, s in zip(vectors, sides, strict=True) if s == side]) for side in set(sides))

    best = min(((0, *sides) for sides in product((0, 1), repeat=7)), key=cost)
    clusters = [row["cluster"] for row in table(tmp_path)]
    assert [cluster == clusters[0] for cluster in clusters] == [side == 0 for side in best]


def test_more_clusters_than_different_instructions_are_no_trouble(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    done(Cherry(student=ScriptedModel(), pre_experience=PreExperience(tuner=None), keep=HALF), tmp_path)
    rows = {row["id"]: row["cluster"] for row in table(tmp_path)}
    assert list(rows) == [r.id for r in EIGHT]
    assert rows["sea"] == rows["twin"]
    assert len(set(rows.values())) == 7


def test_the_same_story_told_again_asks_the_student_nothing(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    first, _ = done(STORY, tmp_path)
    rows = table(tmp_path)
    again, worked = done(STORY, tmp_path)
    assert decided(again) == decided(first)
    assert table(tmp_path) == rows
    assert set(worked.values()) == {0}


def test_a_real_student_is_read_as_the_scorer_reads_it(make_tiny: MakeTiny, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    student = TransformersModel(name=str(make_tiny("llama", length=512)))
    method = Cherry(student=student, pre_experience=PreExperience(clusters=3, per_cluster=2, tuner=None), keep=HALF)
    result, worked = done(method, tmp_path)
    assert worked == {"embed": 8, "prompt-loss": 8, "ifd": 8}
    assert 1 <= len(table(tmp_path)) <= 6
    scores = IFD(student=student, profile="cherry")(EIGHT)
    for found, decision in zip(scores, result.decisions, strict=True):
        value = getattr(found, "value", None)
        assert decision.reason == "no score: empty_response" if value is None else f"{value:.4f}" in decision.reason


@pytest.mark.slow
def test_the_student_that_scores_is_the_one_tuned_on_the_sample_and_a_second_start_tunes_nothing(
    make_tiny: MakeTiny, tmp_path: Path
) -> None:
    for library, extra in (("sklearn", "cluster"), ("trl", "train")):
        pytest.importorskip(library, reason=f'needs the "{extra}" extra')
    student = TransformersModel(name=str(make_tiny("llama", length=512)))
    tuner = SFT(template="alpaca", max_length=400, epochs=2.0, batch=2, learning_rate=5e-3)
    method = Cherry(student=student, pre_experience=PreExperience(clusters=2, per_cluster=2, tuner=tuner), keep=HALF)
    result, worked = done(method, tmp_path / "run")
    assert worked == {"embed": 8, "prompt-loss": 8, "warm-up": 4, "ifd": 8}
    picked = {row["id"] for row in table(tmp_path / "run")}
    with Run(tmp_path / "apart", Local()) as run:  # the same by hand: tuned on those of the sample, and asked
        made = run.once("tune", Tuning(student=student, tuner=tuner), Dataset.of([r for r in EIGHT if r.id in picked]))
    tuned, plain = (IFD(student=s, profile="cherry")(EIGHT) for s in (TransformersModel(name=str(made.path)), student))
    reasons = {d.record_id: d.reason for d in result.decisions}
    for row, after, before in zip(EIGHT, tuned, plain, strict=True):
        if isinstance(after, Score) and after.value is not None:
            assert f"{after.value:.4f}" in reasons[row.id]
            assert isinstance(before, Score)
            assert after.value != pytest.approx(before.value, abs=1e-4)
    assert set(done(method, tmp_path / "run")[1].values()) == {0}
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert set(done(method, tmp_path / "moved")[1].values()) == {0}


def test_a_student_without_weights_here_is_not_to_be_tuned(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"kind scripted has no weights to tune here; write pre_experience.tuner=null"
    ):
        Cherry(student=ScriptedModel())


def test_without_scikit_learn_the_sample_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(MissingExtra) as refusal:
        done(STORY, tmp_path)
    assert str(refusal.value) == (
        'the pre-experience sample needs the "cluster" extra: pip install "tunesift[cluster]".'
    )


def test_the_plan_is_two_passes_for_the_sample_and_two_for_the_score() -> None:
    stages = [Planned("embed", 8, 1, "scripted"), Planned("prompt-loss", 8, 1, "scripted")]
    assert STORY.plan(8) == [*stages, Planned("ifd", 8, 2, "scripted")]
    assert PLAIN.plan(8) == [Planned("ifd", 8, 2, "scripted")]
    assert (planned(STORY, Dataset.of(EIGHT)), planned(PLAIN, Dataset.of(EIGHT))) == (STORY.plan(8), PLAIN.plan(8))


def test_the_plan_tells_what_the_tuning_takes_as_that_of_tune_does(make_tiny: MakeTiny) -> None:
    """Of four of the eight, in one epoch and batches of two."""
    student, tuner = TransformersModel(name=str(make_tiny())), SFT(template="alpaca", epochs=1.0, batch=2)
    method = Cherry(student=student, pre_experience=PreExperience(clusters=2, per_cluster=2, tuner=tuner), keep=HALF)
    data = Dataset.of(EIGHT)
    told = {stage.stage: stage.told for stage in planned(method, data)}
    assert told == {"embed": "", "prompt-loss": "", "ifd": "", "warm-up": str(forecast_on(student, tuner, data, 4))}
    assert told["warm-up"].startswith("at most 2 updates, about ")
    assert "gradients and AdamW" in told["warm-up"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"clusters": 0}, "pre_experience: clusters and per_cluster are numbers of 1 or more."),
        ({"per_cluster": 0}, "pre_experience: clusters and per_cluster are numbers of 1 or more."),
        ({"low": 80.0}, "pre_experience: 80 to 75 are no percentiles; write 0 <= low <= high <= 100."),
        ({"high": 175.0}, "pre_experience: 25 to 175 are no percentiles; write 0 <= low <= high <= 100."),
    ],
)
def test_a_sample_that_means_nothing_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        PreExperience(**settings)
    assert str(refusal.value) == sentence
    with pytest.raises(RecipeError, match="pre_experience"):
        check({"method": {"kind": "cherry", "pre_experience": settings}, "input": "a.json", "output": "b.json"})
