"""CLEAR's filter: one story. Eight records, a model that answers by rule, and what becomes of each record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tunesift import (
    Above,
    Clear,
    Completion,
    Confident,
    Dataset,
    Embeddings,
    Failure,
    Local,
    Message,
    Quota,
    RecipeError,
    Record,
    Run,
    Sampling,
    ScriptedModel,
    recipe_for,
    run_recipe,
)
from tunesift.methods.clear_steps import Ask, Sample, Sampled
from tunesift.running.result import Result


def record(id: str, instruction: str, response: str) -> Record:
    return Record(id, (Message("user", instruction), Message("assistant", response)), {"kind": id[0]})


EIGHT = [
    record("sea", "Name the sea.", "The Baltic Sea."),
    record("lake", "Name the lake.", "Lake Geneva"),
    record("sum", "Add 2 and 2.", "5"),
    record("colour", "Mix blue and yellow.", "Green."),
    record("empty", "Translate it.", "  "),
    record("poem", "Write a line.", "Grey threads stitch the street to the sky."),
    record("twin", "Name the sea.", "The North Sea."),
    record("odd", "Say hello.", "Quarterly figures are attached."),
]

REPLIES = {
    "answer>\nThe Baltic Sea.": "Explanation: it is.\nAnswer: A",
    "answer>\nThe North Sea.": "Explanation: another one.\nAnswer: (B)",
    "answer>\nLake Geneva": "Explanation: there are many.\nAnswer: C",
    "answer>\n5": "It is incorrect.",
    "answer>\nGreen.": "Answer: A",
    "answer>\nGrey": "Beautiful!",
    "answer>\nQuarterly": "Answer: B",
    "Name the sea.\n\nBefore": "Explanation: it lies in the north.\nAnswer: the Baltic sea",
    "Name the lake.\n\nBefore": "Answer: Lake Constance",
    "Add 2 and 2.\n\nBefore": "Explanation: counting.\nAnswer: 4",
    "Mix blue and yellow.\n\nBefore": "green",
    "Write a line.\n\nBefore": "Answer: Rain on the street.",
    "Say hello.\n\nBefore": "Answer:",
}
STORY = Clear(student=ScriptedModel(replies=REPLIES), samples=2)


def decided(result: Result) -> dict[str, str]:
    return {d.record_id: f"{d.action}: {d.reason}" for d in result.decisions}


def done(method: Clear, folder: Path, records: Sequence[Record] = EIGHT) -> tuple[Result, dict[str, int]]:
    """What a method decides, and how many items it worked on in each stage."""
    data = Dataset.of(records)
    with Run(folder, Local(), max_failures=1.0) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
        worked: dict[str, int] = {}
        for stage in run.stages:
            worked[stage.stage] = worked.get(stage.stage, 0) + stage.worked
        return result, worked


def scores(folder: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(folder / "stages" / "confidence").to_pylist()
    return {row["id"]: json.loads(row["outcome"]) for row in rows}


DECISIONS = {
    "sea": "keep: among the 50% most confident: confidence 1.0000",
    "lake": "keep: among the 50% most confident: confidence 0.3367",
    "sum": "drop: not among the 50% most confident: confidence 0.0000",
    "colour": "keep: among the 50% most confident: confidence 1.0000",
    "empty": "drop: no score: empty_response",
    "poem": "drop: not among the 50% most confident: confidence 0.2744",
    "twin": "keep: among the 50% most confident: confidence 0.2800",
    "odd": "drop: not among the 50% most confident: confidence 0.0000",
}


def test_of_eight_records_the_half_that_the_model_is_confident_of_is_kept(tmp_path: Path) -> None:
    result, worked = done(STORY, tmp_path)
    assert decided(result) == DECISIONS
    # six different prompts, two samples each; those for hello are empty, and drawn once more
    assert worked == {"reflect-1": 7, "reflect-2": 7, "sample": 12, "similarity": 12, "confidence": 7}
    assert result.data is not None
    assert [r.id for r in result.data] == ["sea", "lake", "colour", "twin"]


def test_what_a_confidence_is_made_of_is_told(tmp_path: Path) -> None:
    done(STORY, tmp_path)
    found = scores(tmp_path)
    assert found["twin"]["parts"] == {
        "consistency": pytest.approx(0.8 * 0.5), "certainty": 0.0, "similarity": 0.5, "same": 0.0, "samples": 2.0,
        "reflections": 2.0, "unread": 0.0,
    }  # fmt: skip
    assert found["poem"]["parts"]["unread"] == 2
    assert found["odd"]["parts"] == {"certainty": 0.0, "samples": 0.0, "reflections": 2.0, "unread": 0.0}
    (row,) = pq.read_table(tmp_path / "tables" / "selection.parquet").to_pylist()
    assert (row["records"], row["kept"], row["cut"]) == (8, 4, pytest.approx(0.28))


def test_the_strict_median_keeps_what_is_above_it(tmp_path: Path) -> None:
    result, _ = done(replace(STORY, keep=Confident(rule="median")), tmp_path)
    found = {id: said.partition(":")[0] for id, said in decided(result).items()}
    assert [id for id, action in found.items() if action == "keep"] == ["sea", "lake", "colour"]


def test_the_same_story_told_again_asks_nobody(tmp_path: Path) -> None:
    first, _ = done(STORY, tmp_path)
    again, worked = done(STORY, tmp_path)
    assert decided(again) == decided(first)
    assert set(worked.values()) == {0}


def test_other_selectors_choose_by_confidence_too(tmp_path: Path) -> None:
    above, _ = done(replace(STORY, keep=Above(threshold=0.3)), tmp_path / "above")
    assert [d.record_id for d in above.decisions if d.action == "keep"] == ["sea", "lake", "colour"]
    groups, _ = done(replace(STORY, keep=Quota(group="kind", fraction=0.4)), tmp_path / "quota")
    assert [d.record_id for d in groups.decisions if d.action == "keep"] == [
        "sea", "lake", "colour", "poem", "twin", "odd",
    ]  # fmt: skip


class Refuses(ScriptedModel):
    """Answers nothing about lakes, and no reflection on sums."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion | Failure]:  # type: ignore[override]
        said = super().chat(conversations, sampling)
        return [self._or_not(c[-1].text, s) for c, s in zip(conversations, said, strict=True)]

    def _or_not(self, text: str, said: Completion) -> Completion | Failure:
        lost = "lake" in text or ("Add" in text and "given-answer" in text)
        return Failure("refused", "the endpoint refuses") if lost else said


def test_a_failed_call_is_left_out_and_no_score(tmp_path: Path) -> None:
    result, worked = done(replace(STORY, student=Refuses(replies=REPLIES)), tmp_path)
    found = decided(result)
    assert found["lake"] == "keep: no confidence: nothing is known against it"
    parts = scores(tmp_path)
    assert parts["lake"] == {"value": None, "parts": {}, "note": "unscored"}
    assert "certainty" not in parts["sum"]["parts"]
    assert parts["sum"]["value"] == 0.0 == parts["sum"]["parts"]["consistency"]
    assert worked["confidence"] == 7
    assert found["sea"] == DECISIONS["sea"]


class Changeable(ScriptedModel):
    """Says nothing, unless its seed is large."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        text = "Answer: 7" if sampling.seed > 1000 else "Answer: "
        return [Completion(text, "stop", 2) for _ in conversations]


def test_an_empty_sample_is_drawn_once_more_with_another_seed() -> None:
    step = Sample(student=Changeable(), template="{task}", temperature=1.0, max_tokens=9)
    asks = [Ask(f"x~{n}", (Message("user", "How many?"),), n) for n in range(3)]
    assert step(asks) == [Sampled("7", "Answer: 7")] * 3


def test_a_sample_stands_after_the_whole_conversation_and_braces_stay() -> None:
    heard: list[tuple[Message, ...]] = []

    class Hears(ScriptedModel):
        def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
            heard.extend(tuple(c) for c in conversations)
            return super().chat(conversations, sampling)

    turns = (Message("system", "Be brief."), Message("user", "One?"), Message("assistant", "1"))
    step = Sample(student=Hears(), template="[{task}]", temperature=1.0, max_tokens=9)
    step([Ask("x", (*turns, Message("user", "{task} {}")), 0)])
    assert heard == [(*turns, Message("user", "[{task} {}]"))]


def test_samples_that_are_all_the_same_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    done(STORY, tmp_path)
    assert "all samples are the same for 7 of 7 records; does the model heed temperature?" in caplog.text


def test_similarity_by_embeddings(tmp_path: Path) -> None:
    similarity = Embeddings(model=ScriptedModel())
    same, other = similarity.similar([("a", "a"), ("a", "b")])
    assert same == pytest.approx(1.0)
    assert isinstance(other, float)
    assert 0 <= other < 1
    result, worked = done(replace(STORY, similarity=similarity), tmp_path)
    assert worked["similarity"] == 12
    assert decided(result)["sea"].startswith("keep")


class Nowhere(ScriptedModel):
    """Gives every text a vector without direction."""

    def embed(self, texts: Sequence[str]) -> list[tuple[float, ...]]:
        return [(0.0, 0.0) for _ in texts]


def test_a_vector_without_direction_is_a_failure_and_leaves_reflection_alone(tmp_path: Path) -> None:
    result, _ = done(replace(STORY, similarity=Embeddings(model=Nowhere())), tmp_path)
    found = scores(tmp_path)
    assert found["sea"]["value"] == 1.0 == found["sea"]["parts"]["certainty"]
    assert found["sea"]["parts"]["samples"] == 0
    assert decided(result)["odd"].startswith("drop")


def test_a_group_column_that_is_missing_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^keep\.group: no record has the field 'topic'; name a field of the input"):
        done(replace(STORY, keep=Quota(group="topic")), tmp_path)


@pytest.mark.parametrize(("records", "kept"), [(EIGHT[:1], ["sea"]), (EIGHT[4:5], [])])
def test_one_record_is_enough(tmp_path: Path, records: Sequence[Record], kept: list[str]) -> None:
    result, _ = done(STORY, tmp_path, records)
    assert [d.record_id for d in result.decisions if d.action == "keep"] == kept


def test_the_plan_is_two_reflections_and_k_samples() -> None:
    assert [(p.stage, p.items, p.forwards, p.model) for p in STORY.plan(8)] == [
        ("reflect-1", 8, 1, "scripted"), ("reflect-2", 8, 1, "scripted"),
        ("sample", 16, 1, "scripted"), ("similarity", 16, 0, ""), ("confidence", 8, 0, ""),
    ]  # fmt: skip
    assert [p.answer for p in STORY.plan(8)] == [STORY.max_tokens] * 3 + [0, 0]
    assert [p.stage for p in replace(STORY, samples=0).plan(8)] == ["reflect-1", "reflect-2", "confidence"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"samples": -1}, "samples and temperature are 0 or more, max_tokens 1 or more."),
        ({"w_similarity": 1.5}, "w_similarity: 1.5 is no weight; write a number from 0 to 1."),
        ({"w_consistency": -0.5}, "w_consistency: -0.5 is no weight; write a number from 0 to 1."),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        Clear(**settings)
    assert str(refusal.value) == sentence


def test_a_threshold_that_is_no_confidence_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^keep\.gamma: 1\.2 is no confidence; write a number from 0 to 1\.$"):
        Confident(gamma=1.2)
    with pytest.raises(RecipeError, match=r"^keep\.fraction: 50 is not a fraction"):
        Confident(fraction=50.0)


def test_a_misspelt_setting_of_the_filter_is_named(tmp_path: Path) -> None:
    for said, hint in (("keep.gama=0.5", "did you mean gamma?"), ("keep.kind=largets", "use one of")):
        with pytest.raises(RecipeError, match=hint):
            recipe_for("clear", tmp_path / "a", tmp_path / "b", [said])
    found = recipe_for("clear", tmp_path / "a", tmp_path / "b", ["keep=30%"]).method
    assert isinstance(found, Clear)
    assert found.keep == Confident(fraction=0.3)


def test_the_report_shows_the_confidences_and_their_parts(tmp_path: Path) -> None:
    rows = [{"id": r.id, "instruction": r.messages[0].text, "output": r.messages[1].text} for r in EIGHT]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["student.kind=scripted", f"student.replies={json.dumps(REPLIES)}", "samples=2"]
    done_ = run_recipe(recipe_for("clear", tmp_path / "in.jsonl", tmp_path / "out.jsonl", settings))
    assert done_.counts == {"in": 8, "kept": 4, "dropped": 4, "quarantined": 0}
    page = done_.report.read_text("utf-8")
    for word in ("confidence 0.2800", "certainty", "consistency", "clear"):
        assert word in page, word
