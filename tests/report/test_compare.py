"""Runs side by side: hand-worked overlaps and correlations, and a page that carries them and nothing else."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr
from typer.testing import CliRunner

from tunesift import DataError, RecipeError, recipe_for, run_recipe
from tunesift.cli import app
from tunesift.report.compare import _names as names_of
from tunesift.report.compare import compare, rank_correlation, told_compare
from tunesift.report.data import CompareData
from tunesift.report.html import render

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs over forty records whose responses are one to forty words long."""
    folder = tmp_path_factory.mktemp("runs")
    draw = random.Random(0)
    rows = [{"id": f"r{n}", "instruction": f"Ask {n} {HOSTILE}", "output": " ".join(draw.choices("abcdefgh", k=n + 1))}
            for n in range(40)]  # fmt: skip
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, settings in {
        "ifd": ["keep=25%", "keep.below=null"], "longest": ["keep.kind=longest", "keep.fraction=0.5"],
        "random": ["keep.kind=random", "keep.fraction=0.25"],
    }.items():  # fmt: skip
        settings = ["scorer.student.kind=scripted", *settings]
        run_recipe(recipe_for("select", folder / "in.jsonl", folder / f"{name}.jsonl", settings))
    return folder


def folders(home: Path, *names: str) -> list[Path]:
    return [home / f"{name}.jsonl.run" for name in names]


def kept(home: Path, name: str) -> set[str]:
    return {json.loads(line)["id"] for line in (home / f"{name}.jsonl").read_text().splitlines()}


@pytest.fixture(scope="module")
def found(home: Path) -> CompareData:
    return compare(folders(home, "ifd", "longest", "random"))


def test_the_sides_are_what_the_runs_kept(found: CompareData, home: Path) -> None:
    assert [(side.name, side.kept, side.score) for side in found.sides] == [
        ("ifd", 10, "ifd"), ("longest", 20, None), ("random", 10, None),
    ]  # fmt: skip
    assert (found.records, found.median_length) == (40, 40.0)
    assert found.sides[1].kept_length == 60.0
    assert found.sides[1].shares == (0.0,) * 5 + (1.0,) * 5
    assert found.bands[0] == "1 to 7"
    assert found.notes == ()


def test_a_score_stands_against_length_by_its_median_in_every_band(found: CompareData, home: Path) -> None:
    scores = {d["id"]: json.loads(d["outcome"])["value"] for d in stage(home / "ifd.jsonl.run" / "stages" / "score")}
    assert found.sides[0].medians == tuple(
        pytest.approx(float(np.median([scores[f"r{n}"] for n in range(start, start + 4)]))) for start in range(0, 40, 4)
    )
    assert [side.medians for side in found.sides[1:]] == [(), ()]


def stage(folder: Path) -> list[dict[str, str]]:
    return [row for part in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]


def test_runs_are_called_as_their_outputs_unless_two_would_be_called_the_same() -> None:
    def called(*names: str) -> list[str]:
        return names_of([Path(name) for name in names])

    assert called("a/x.jsonl.run", "a/v1.2.parquet.run", "b/z.jsonl.gz.run", "c/own") == ["x", "v1.2", "z", "own"]
    assert called("a/x.jsonl.run", "a/x.json.run") == ["x.jsonl.run", "x.json.run"]
    assert called("a/x.jsonl.run", "b/x.jsonl.run") == ["a/x.jsonl.run", "b/x.jsonl.run"]


def test_overlap_is_jaccard_as_it_is_at_equal_budget_and_by_chance(found: CompareData, home: Path) -> None:
    for overlap, (a, b) in zip(
        found.overlaps, [("ifd", "longest"), ("ifd", "random"), ("longest", "random")], strict=True
    ):
        one, other = kept(home, a), kept(home, b)
        assert overlap.both == len(one & other)
        assert overlap.jaccard == pytest.approx(len(one & other) / len(one | other))
        shared = len(one & other) * 10 / max(len(one), len(other))  # the longer one has no score and is thinned evenly
        assert overlap.equal == pytest.approx(shared / (20 - shared))
        assert overlap.chance == pytest.approx(2.5 / 17.5)


def test_a_larger_selection_with_a_score_is_cut_to_its_best(home: Path, tmp_path: Path) -> None:
    for name, fraction in (("few", 0.1), ("many", 0.5)):
        settings = ["scorer.student.kind=scripted", f"keep.fraction={fraction}", "keep.below=null"]
        run_recipe(recipe_for("select", home / "in.jsonl", tmp_path / f"{name}.jsonl", settings))
    overlap = compare([tmp_path / "few.jsonl.run", tmp_path / "many.jsonl.run"]).overlaps[0]
    assert (overlap.both, overlap.jaccard, overlap.equal) == (4, 0.2, 1.0)


def test_differences_hold_both_reasons(found: CompareData, home: Path) -> None:
    first = next(d for d in found.differences if (d.keeps, d.drops) == ("ifd", "random"))
    assert first.count == len(kept(home, "ifd") - kept(home, "random"))
    assert {row.id for row in first.rows} == kept(home, "ifd") - kept(home, "random")
    assert all(row.kept.startswith("largest 25%: IFD") and row.dropped.startswith("not drawn") for row in first.rows)
    assert HOSTILE in first.rows[0].messages[0][1]


def test_rank_correlation_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = rng.integers(0, 9, 50).astype(float), rng.integers(0, 9, 50).astype(float)
        assert rank_correlation(a, b)[0] == pytest.approx(spearmanr(a, b).statistic)
    assert rank_correlation(np.array([1.0, np.nan, 3.0]), np.array([2.0, 5.0, 9.0])) == (pytest.approx(1.0), 2)
    assert rank_correlation(np.ones(4), np.arange(4.0)) == (None, 4)
    assert rank_correlation(np.full(3, np.nan), np.arange(3.0)) == (None, 0)


def test_the_page_carries_the_comparison_and_nothing_else(found: CompareData) -> None:
    page = render(found)
    block = page.split('id="report-data">', 1)[1].split("</script", 1)[0]
    assert json.loads(block)["records"] == 40
    assert not re.search("[<>&]", block)
    assert not re.search(r"https?:|url\(|@import|\bsrc=|<link|<iframe|innerHTML|\beval\b", page.replace(block, ""))
    assert "default-src 'none'" in page


def test_the_command_writes_a_page_and_tells_it_in_words_or_json(home: Path, tmp_path: Path) -> None:
    runs = [str(folder) for folder in folders(home, "ifd", "longest")]
    words = CliRunner().invoke(app, ["compare", *runs, "-o", str(tmp_path / "c.html")])
    assert words.exit_code == 0
    assert "overlap of what is kept" in words.output
    assert (tmp_path / "c.html").read_text().startswith("<!doctype html>")
    told = CliRunner().invoke(app, ["compare", *runs, "-o", str(tmp_path / "c.html"), "--json"])
    assert json.loads(told.output)["overlaps"][0]["budget"] == 10


def test_what_cannot_be_compared_is_refused(home: Path, tmp_path: Path) -> None:
    one = folders(home, "ifd")
    for given in ([], one, one * 2):
        with pytest.raises(RecipeError, match="compare takes two or more different run folders"):
            compare(given)
    with pytest.raises(DataError, match="is not a run's folder"):
        compare([*one, tmp_path])
    (tmp_path / "in.jsonl").write_text('{"id": "other", "instruction": "a", "output": "b"}\n' * 1)
    run_recipe(
        recipe_for("select", tmp_path / "in.jsonl", tmp_path / "o.jsonl", ["keep.kind=random", "keep.fraction=1.0"])
    )
    with pytest.raises(DataError, match="shares no record with the others"):
        compare([*one, tmp_path / "o.jsonl.run"])
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    refused = CliRunner().invoke(
        app, ["compare", *map(str, folders(home, "ifd", "random")), "-o", str(tmp_path / "mine.html")]
    )
    assert "is no comparison" in str(refused.exception)


def test_runs_over_different_files_say_so(home: Path, tmp_path: Path) -> None:
    some = (home / "in.jsonl").read_text().splitlines(keepends=True)[5:30]
    (tmp_path / "some.jsonl").write_text("".join(some))
    run_recipe(
        recipe_for("select", tmp_path / "some.jsonl", tmp_path / "s.jsonl", ["keep.kind=longest", "keep.fraction=0.2"])
    )
    found = compare([*folders(home, "ifd"), tmp_path / "s.jsonl.run"])
    assert found.records == 25
    assert found.notes[0].startswith("The runs read different files")
    assert found.notes[1] == "Only the 25 records that all runs decided on are compared; one run has 40."
    assert "different files" in told_compare(found)
