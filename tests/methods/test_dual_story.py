"""Dual-model difficulty: one story. Eight records, two students that predict by rule, and what becomes of each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.larger import Larger
from tunesift import (
    Combined,
    Dataset,
    DualIFD,
    Largest,
    Local,
    Message,
    ModelRefused,
    Random,
    RecipeError,
    Record,
    Run,
    Score,
    ScoreRecords,
    ScriptedModel,
    Select,
    TransformersModel,
    TunesiftError,
    recipe_for,
    run_recipe,
)
from tunesift.console import told
from tunesift.planning import plan
from tunesift.records import rule_of
from tunesift.report.collect import collect
from tunesift.running.result import Planned, Result

MakeTiny = Callable[..., Path]


def record(id: str, instruction: str, response: str) -> Record:
    return Record(id, (Message("user", instruction), Message("assistant", response)))


EIGHT = [
    record("sea", "Name the sea between Sweden and Poland.", "The Baltic Sea."),
    record("echo", "Repeat: one two three four.", "one two three four."),
    record("poem", "Write a line about rain.", "Grey threads fall and stitch the street to the sky."),
    record("sum", "Add 2 and 2.", "2 and 2 make 4."),
    record("empty", "Translate the word.", "  "),
    record(
        "tides", "Explain the tides.", "The moon pulls the water, and the turning earth carries us through the bulge."
    ),
    record("twin", "Name the sea between Sweden and Poland.", "The Baltic Sea."),
    record("odd", "Say hello.", "Quarterly figures are attached."),
]
BETTER = DualIFD(small=ScriptedModel(), large=Larger(share=0.5), template="bare")
WORSE = DualIFD(small=ScriptedModel(), large=Larger(share=1.2), template="bare")
STORY = Select(scorer=BETTER, keep=Largest(fraction=0.375, below=1.0))
UNSUITED = (
    "gaps are below 0: the large model's IFD is the larger one of most responses, so that the gap does not tell what is "
    "hard and learnable; take another large model"
)


def done(method: Select | ScoreRecords, folder: Path) -> tuple[Result, list[dict[str, object]]]:
    """What a method decides, and its table of gaps."""
    data = Dataset.of(EIGHT)
    with Run(folder, Local()) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
    table = folder / "tables" / "gaps.parquet"
    return result, pq.read_table(table).to_pylist() if table.exists() else []


def test_of_eight_records_the_three_of_the_widest_gap_are_kept(tmp_path: Path) -> None:
    result, (row,) = done(STORY, tmp_path)
    last = "not among the largest 37.5%"
    assert {d.record_id: f"{d.action}: {d.reason}" for d in result.decisions} == {
        "sea": "keep: largest 37.5%: dual IFD 0.2298, rank 2 of 5",
        "echo": f"drop: {last}: dual IFD 0.0527, rank 5 of 5; the last one kept has 0.2298",
        "poem": "drop: no score: above_one",
        "sum": f"drop: {last}: dual IFD 0.1301, rank 4 of 5; the last one kept has 0.2298",
        "empty": "drop: no score: empty_response",
        "tides": "keep: largest 37.5%: dual IFD 0.2679, rank 1 of 5",
        "twin": "keep: largest 37.5%: dual IFD 0.2298, rank 3 of 5",
        "odd": "drop: no score: above_one",
    }
    assert row["remark"] is None
    assert (row["gaps"], row["below_0"], row["share_below_0"]) == (5, 0, 0.0)
    assert result.notes == {}


def test_the_reasons_are_counted_in_words(tmp_path: Path) -> None:
    result, _ = done(STORY, tmp_path)
    rules = {d.record_id: rule_of(d.reason) for d in result.decisions}
    assert rules["odd"] == "no score: to the small model the instruction makes its response no likelier"
    assert rules["empty"] == "no score: the response is empty"


@pytest.mark.parametrize("method", [Select(scorer=WORSE, keep=Largest(fraction=0.5)), ScoreRecords(scorers=(WORSE,))])
def test_a_pair_of_which_most_gaps_are_below_0_is_told_to_be_unsuited(
    tmp_path: Path, method: Select | ScoreRecords
) -> None:
    result, (row,) = done(method, tmp_path)
    assert (row["gaps"], row["below_0"], row["share_below_0"]) == (5, 5, 1.0)
    assert row["remark"] == f"5 of 5 {UNSUITED}"
    assert result.notes == {f"of 5 {UNSUITED}": 5}


def test_a_selector_that_needs_no_gaps_has_none_to_tell_of(tmp_path: Path) -> None:
    result, rows = done(Select(scorer=WORSE, keep=Random(fraction=0.5)), tmp_path)
    assert (result.notes, rows) == ({}, [])


def test_the_gap_may_be_one_of_several_scores_and_its_parts_may_be_conditions(tmp_path: Path) -> None:
    keep = Combined(weights={"dual-ifd": 1}, where=("dual-ifd > 0", "dual-ifd/ifd_small < 0.5"), fraction=0.5)
    result, _ = done(Select(scorer=BETTER, keep=keep), tmp_path)
    found = {d.record_id: f"{d.action}: {d.reason}" for d in result.decisions}
    assert [id for id in found if found[id].startswith("keep")] == ["sea", "echo", "sum", "twin"]
    assert found["sea"] == "keep: largest 50% by rank-sum: 0.7500 from dual-ifd 0.2298; rank 1 of 4"
    assert found["tides"] == "drop: dual-ifd/ifd_small < 0.5 does not hold: dual-ifd/ifd_small 0.5383"
    assert found["odd"] == "drop: no score: dual-ifd above_one"


def test_the_plan_is_four_forward_passes_for_every_record() -> None:
    expected = [Planned("score", 8, 2, "scripted"), Planned("score", 8, 2, "scripted")]
    assert STORY.plan(8) == expected
    assert [(p.stage, p.items * p.forwards) for p in ScoreRecords(scorers=(BETTER,)).plan(8)] == [("dual-ifd", 16)] * 2
    assert Select(scorer=BETTER, keep=Random()).plan(8) == []


# --- two tiny models, from a file to the page ------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "in.json"
    path.write_text(json.dumps([{"id": r.id, "instruction": r.messages[0].text, "output": r.response} for r in EIGHT]))
    return path


def words(small: Path, large: Path) -> list[str]:
    return ["scorer.kind=dual-ifd", f"scorer.small.name={small}", f"scorer.large.name={large}", "keep=25%"]


@pytest.mark.parametrize(("seed", "below"), [(3, 2), (1, 5)])
def test_two_models_select_from_a_file_and_the_page_shows_their_gaps(
    make_tiny: MakeTiny, rows: Path, seed: int, below: int
) -> None:
    pair = make_tiny("llama", seed=4), make_tiny("llama", seed=seed)
    recipe = recipe_for("select", rows, rows.with_name("kept.json"), words(*pair))
    assert [(p.items, p.forwards, p.model) for p in plan(recipe).stages] == [(8, 2, str(name)) for name in pair]
    summary = run_recipe(recipe)
    assert summary.counts == {"in": 8, "kept": 2, "dropped": 6, "quarantined": 0}
    assert len(json.loads(recipe.output.read_text())) == 2
    page = summary.report.read_text()
    assert '"histogram":{"score":"dual-ifd"' in page
    assert '"figures":[{"name":"difficulty","chart":{"kind":"points","x":"ifd_large","y":"ifd_small"' in page
    (row,) = pq.read_table(summary.folder / "tables" / "gaps.parquet").to_pylist()
    assert (row["gaps"], row["below_0"]) == (5, below)
    said = f"{below} of 5 {UNSUITED}"
    assert (f"  note: {said}" in told(summary).splitlines()) is (below == 5)
    assert (said in page) is (below == 5)
    again = run_recipe(recipe)
    assert (again.worked, again.notes) == (0, summary.notes)


def test_the_page_has_both_models_numbers_of_kept_and_dropped_records_or_of_some_of_them(
    make_tiny: MakeTiny, rows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_tiny("llama", seed=4), make_tiny("llama", seed=3)
    summary = run_recipe(recipe_for("select", rows, rows.with_name("kept.json"), words(*pair)))
    small, large = (TransformersModel(name=str(folder)) for folder in pair)
    shown = {
        r.id: (round(s.parts["ifd_large"], 4), round(s.parts["ifd_small"], 4))
        for r, s in zip(EIGHT, DualIFD(small=small, large=large)(EIGHT), strict=True)
        if isinstance(s, Score) and s.value is not None
    }
    kept = [r["id"] for r in json.loads((rows.parent / "kept.json").read_text())]
    (found,) = collect(summary.folder, summary.counts).figures
    points = {group.name: list(zip(group.x, group.y, strict=True)) for group in found.groups}
    near = pytest.approx
    assert [near(p, abs=2e-4) for p in points["kept"]] == [shown[id] for id in shown if id in kept]
    assert [near(p, abs=2e-4) for p in points["dropped"]] == [shown[id] for id in shown if id not in kept]
    assert found.shown == ""
    even, window = found.chart.bands
    assert (even.low, even.high, even.slope, window.slope) == (0, None, 1, 1)
    gaps = [shown[id][1] - shown[id][0] for id in shown if id in kept]
    assert (window.low, window.high) == near((min(gaps), max(gaps)), abs=4e-4)
    monkeypatch.setattr("tunesift.running.charts.MOST_POINTS", 3)
    fewer = run_recipe(recipe_for("select", rows, rows.with_name("again.json"), words(*pair)))
    (some,) = collect(fewer.folder, fewer.counts).figures
    drawn = [p for group in some.groups for p in zip(group.x, group.y, strict=True)]
    assert some.shown == f"{len(drawn)} of 5 records, spread evenly over all"
    assert 1 <= len(drawn) <= 3
    assert all(any(p == near(q, abs=2e-4) for q in shown.values()) for p in drawn)
    assert some.chart.bands == found.chart.bands  # of all records, not of those that are shown


def test_other_scores_have_no_such_picture(rows: Path) -> None:
    named = ["scorer.student.kind=scripted", "keep=25%"]
    summary = run_recipe(recipe_for("select", rows, rows.with_name("kept.json"), named))
    assert collect(summary.folder, summary.counts).figures == ()


def test_scores_of_two_models_stand_beside_every_record(make_tiny: MakeTiny, rows: Path) -> None:
    pair = make_tiny("llama"), make_tiny("llama", seed=1)
    named = ["scorers.0.kind=dual-ifd", f"scorers.0.small.name={pair[0]}", f"scorers.0.large.name={pair[1]}"]
    recipe = recipe_for("score", rows, rows.with_name("scored.json"), named)
    run_recipe(recipe)
    for row in json.loads(recipe.output.read_text()):
        found = row["scores"]["dual-ifd"]
        if found["value"] is not None:
            assert found["value"] == pytest.approx(found["parts"]["ifd_small"] - found["parts"]["ifd_large"], abs=2e-6)
        assert (found["note"] == "empty_response") is (row["id"] == "empty")


def refused(recipe_words: list[str], rows: Path) -> str:
    """The sentence with which a run and its plan are refused before anything is read."""
    recipe = recipe_for("select", rows, rows.with_name("out.json"), recipe_words)
    said = []
    for ask in (run_recipe, plan):
        with pytest.raises(TunesiftError) as refusal:
            ask(recipe)  # type: ignore[operator]
        assert isinstance(refusal.value, RecipeError)
        said.append(str(refusal.value))
    assert said[0] == said[1]
    assert not recipe.run_folder.exists()
    return said[0]


def test_models_that_do_not_fit_together_are_refused_before_the_file_is_read(make_tiny: MakeTiny, rows: Path) -> None:
    small = make_tiny("llama")
    large = shutil.copytree(make_tiny("llama", seed=1), rows.with_name("large"))
    found = json.loads((large / "tokenizer.json").read_text())
    found["model"]["merges"] = found["model"]["merges"][1:]
    (large / "tokenizer.json").write_text(json.dumps(found))
    rows.write_text("this is no data at all")
    assert refused(words(small, large), rows).endswith(
        "differ in their merges, and so would perplexities per token; choose scorer.ratio=loss or scorer.ratio=byte."
    )
    assert "is the same model as scorer.small, so that every gap would be 0" in refused(words(small, small), rows)
    assert refused(words(small, large)[:2], rows) == "scorer.large: is not given; write scorer.large.name=FOLDER."
    both = ["also=[{kind: dual-ifd}]", "keep.kind=combined", "keep.weights.ifd=1"]
    assert refused(both, rows) == "also.0.large: is not given; write also.0.large.name=FOLDER."


def test_models_of_whose_tokens_nothing_is_known_are_refused_by_the_first_response_that_differs(
    make_tiny: MakeTiny, rows: Path
) -> None:
    named = [
        "scorer.kind=dual-ifd",
        "scorer.small.kind=scripted",
        f"scorer.large.name={make_tiny('llama')}",
        "keep=25%",
    ]
    with pytest.raises(ModelRefused) as refusal:
        run_recipe(recipe_for("select", rows, rows.with_name("out.json"), named))
    assert str(refusal.value) == (
        'record "sea": the small model reads its response as 3 tokens and the large one as 14, so that perplexities per '
        "token cannot be compared; choose ratio=loss or ratio=byte."
    )
    assert (
        run_recipe(recipe_for("select", rows, rows.with_name("b.json"), [*named, "scorer.ratio=byte"])).counts["in"]
        == 8
    )


@pytest.mark.parametrize("ratio", ["loss", "byte"])
def test_models_with_other_tokenizers_are_compared_where_the_ratio_is_not_per_token(
    make_tiny: MakeTiny, rows: Path, ratio: str
) -> None:
    small = make_tiny("llama")
    large = shutil.copytree(make_tiny("llama", seed=1), rows.with_name("large"))
    found = json.loads((large / "tokenizer.json").read_text())
    found["model"]["merges"] = []
    (large / "tokenizer.json").write_text(json.dumps(found))
    recipe = recipe_for("select", rows, rows.with_name("out.json"), [*words(small, large), f"scorer.ratio={ratio}"])
    assert run_recipe(recipe).counts["kept"] == 2
