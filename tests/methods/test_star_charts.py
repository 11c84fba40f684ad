"""What a run of Star-Agents hands its report: trajectories, difficulty, doubts, shares; from a file to the page's data."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from faultserver.client import FaultServer
from tunesift import (
    Agent,
    Budget,
    DataError,
    HttpModel,
    Recipe,
    ResumeError,
    ScriptedModel,
    Span,
    StarAgents,
    TargetLoss,
    run_recipe,
)
from tunesift.console import told as last_words
from tunesift.perform import Summary
from tunesift.planning import plan
from tunesift.report.collect import collect
from tunesift.report.data import ReportData
from tunesift.telling import told_record

SEEDS = 12
SMALL = {"clear": 0.8, "plain": 0.5, "odd": 0.625}
LARGE = {"clear": 0.5, "plain": 0.5, "odd": 0.8}
"""IFD of each agent's one word by either scorer."""


def scorer(ifd: dict[str, float]) -> ScriptedModel:
    """Alone, a word costs what a scripted model makes of it; after an instruction, what gives this ratio."""
    alone = ScriptedModel().loss([Span("", word) for word in ifd])
    chances = {
        word: math.exp(-loss.nats[0]) / ratio
        for (word, ratio), loss in zip(ifd.items(), alone, strict=True)
        if isinstance(loss, TargetLoss)
    }
    assert max(chances.values()) < 1
    return ScriptedModel(chances={"Say": chances})


def told(folder: Path, judge: str, *pairs: str) -> tuple[Summary, ReportData]:
    """Three agents write the same for every seed: one is hard and learnable, one has no gap, one a gap below 0."""
    rows = [{"instruction": f"Say {n}.", "output": "old"} for n in range(SEEDS)]
    (folder / "seeds.json").write_text(json.dumps(rows))
    agents = tuple(Agent(name=name, model=ScriptedModel(otherwise=name)) for name in ("plain", "clear", "odd"))
    page = StarAgents(
        agents=agents, judge=ScriptedModel(otherwise=judge), small=scorer(SMALL), large=scorer(LARGE), draws=2, rate=0.1,
        round_size=4, pairs=pairs,
    )  # fmt: skip
    summary = run_recipe(Recipe(method=page, input=folder / "seeds.json", output=folder / "out.json", max_failures=1.0))
    return summary, collect(summary.folder, summary.counts)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return told(tmp_path_factory.mktemp("charts"), "[[A]]", "clear", "odd")[1]


def test_probabilities_go_from_all_alike_to_where_the_last_round_left_them(page: ReportData) -> None:
    """Every seed draws both pairs; `clear` ties, and is worth half: 0.05 is added 12 times, and all divided."""
    lines = next(figure for figure in page.figures if figure.name == "pair-probabilities")
    clear, odd = lines.groups
    assert (clear.name, odd.name) == ("clear", "odd")
    assert clear.x == odd.x == (0, 1, 2, 3)
    for after, share in zip((0, 4, 8, 12), odd.y, strict=True):
        assert share == pytest.approx(0.5 / 1.05**after, rel=1e-5)
    pairs = next(table for table in page.tables if table.name == "pairs")
    assert [row[1] for row in pairs.rows] == pytest.approx([clear.y[-1], odd.y[-1]], abs=1e-5)
    assert lines.shown == ""


def test_difficulty_shows_every_candidate_the_diagonal_and_the_window_that_won(page: ReportData) -> None:
    (scatter,) = (figure for figure in page.figures if figure.name == "difficulty")
    where = {group.name: set(zip(group.x, group.y, strict=True)) for group in scatter.groups}
    assert [len(group.x) for group in scatter.groups] == [2 * SEEDS, SEEDS]
    assert where == {"did not win": {(0.5, 0.5), (0.8, 0.625)}, "won against the base": {(0.5, 0.8)}}
    even, window = scatter.chart.bands
    assert (even.low, even.high, even.slope, window.slope) == (0, None, 1, 1)
    assert (window.low, window.high) == pytest.approx((0.3, 0.3))
    assert "middle nine tenths of the 12 candidates that won" in scatter.chart.caption


def test_what_to_doubt_are_sentences_of_their_own_and_no_table(page: ReportData) -> None:
    assert page.doubts == ("12 of 12 matches are ties: wins rest on difficulty alone",)
    assert "doubts" not in {table.name for table in page.tables}


def test_a_run_with_nothing_to_doubt_and_nothing_lost_shows_neither(tmp_path: Path) -> None:
    _, page = told(tmp_path, "[[B]]", "plain", "odd")
    assert page.doubts == ()
    assert "came-to-nothing" not in {table.name for table in page.tables}
    (scatter,) = (figure for figure in page.figures if figure.name == "difficulty")
    assert [band.name for band in scatter.chart.bands] == ["the same for both, gap 0"]
    assert "No candidate won against its base." in scatter.chart.caption
    pairs = next(table for table in page.tables if table.name == "pairs")
    assert [row[2] for row in pairs.rows] == [0, 0]  # `plain` won as the base, not as a pair


def test_counts_have_their_share_of_what_they_are_counted_among(page: ReportData) -> None:
    judging = next(table for table in page.tables if table.name == "judging")
    assert judging.columns == ("what", "count", "of", "fraction")
    shares = {str(what): (count, of, share) for what, count, of, share in judging.rows}
    assert shares["gap below 0"] == (12, "measured", 0.3333)
    assert shares["ties"] == shares["orders disagree"] == (12, "matches", 1.0)
    assert shares["no verdict"] == (0, "matches", 0.0)
    assert shares["seeds"] == (12, None, None)
    agents = next(table for table in page.tables if table.name == "agents")
    assert agents.columns == ("agent", "model", "calls", "came_to_nothing", "share_lost", "tokens_written")
    assert agents.rows[0] == ("plain", "scripted", 12, 0, 0.0, 12)


def test_what_agents_cost_stands_beside_them_and_what_roles_share_is_said_to_be_shared(
    server: FaultServer, tmp_path: Path
) -> None:
    rows = [{"instruction": f"Say {n}.", "output": "old"} for n in range(4)]
    (tmp_path / "seeds.json").write_text(json.dumps(rows))
    (tmp_path / "prices.yaml").write_text("dear:\n  input: 1000\n  output: 2000\ncheap:\n  input: 10\n  output: 20\n")
    dear, cheap = (HttpModel(url=server.url, model=name) for name in ("dear", "cheap"))
    agents = (Agent(name="first", model=dear), Agent(name="second", model=cheap))
    page = StarAgents(agents=agents, judge=dear, small=scorer(SMALL), large=scorer(LARGE), pairs=("second",))
    recipe = Recipe(
        method=page, input=tmp_path / "seeds.json", output=tmp_path / "out.json", max_failures=1.0,
        budget=Budget(prices=tmp_path / "prices.yaml"),
    )  # fmt: skip
    summary = run_recipe(recipe)
    spent = {one.model: one for one in summary.spent}
    assert set(spent) == {"dear", "cheap"}
    tables = {table.name: table for table in collect(summary.folder, summary.counts).tables}
    told = dict(zip(("first", "second"), (row[-1] for row in tables["agents"].rows), strict=True))
    assert tables["agents"].columns[-1] == "cost"
    assert told["first"] == f"{spent['dear'].exact_micros / 1e6:.4f} for agents.first, judge"
    assert told["second"] == pytest.approx(spent["cheap"].exact_micros / 1e6)
    assert spent["cheap"].exact_micros > 0
    assert [row[:3] for row in tables["endpoints"].rows] == [
        ("cheap", "agents.second", spent["cheap"].calls), ("dear", "agents.first, judge", spent["dear"].calls)
    ]  # fmt: skip


def test_what_speaks_against_a_run_is_a_note_in_its_last_words_and_in_its_result(tmp_path: Path) -> None:
    summary, _ = told(tmp_path, "[[A]]", "clear", "odd")
    assert summary.notes == {"of 12 matches are ties: wins rest on difficulty alone": 12}
    assert "  note: 12 of 12 matches are ties: wins rest on difficulty alone" in last_words(summary).splitlines()


def test_a_plan_says_how_long_it_takes_to_wait_for_one_round_after_another(tmp_path: Path) -> None:
    rows = [{"instruction": f"Say {n}.", "output": "old"} for n in range(64)]
    (tmp_path / "seeds.json").write_text(json.dumps(rows))
    first, second = (HttpModel(url="http://127.0.0.1:9/v1", model=name, concurrency=8) for name in ("a", "b"))
    agents = (Agent(name="first", model=first), Agent(name="second", model=second))

    def waits(**settings: bool) -> int:
        page = StarAgents(agents=agents, judge=first, small=scorer(SMALL), large=scorer(LARGE), **settings)  # type: ignore[arg-type]
        return plan(Recipe(method=page, input=tmp_path / "seeds.json", output=tmp_path / "out.json")).waits

    # Four rounds of 16: the first agent writes 32 each, the judge judges 64 each and as many again; a probe for each.
    assert waits() == (4 * 32 // 8 + 1) + 2 * (4 * 64 // 8 + 1)
    # 64 rounds of one: all that is written is written together, and so is all that is judged.
    assert waits(faithful=True) == 3 * (64 + 1)


def test_a_row_of_the_output_is_found_by_the_id_that_stands_in_it(tmp_path: Path) -> None:
    summary, _ = told(tmp_path, "[[A]]", "clear", "odd")
    row = json.loads((tmp_path / "out.json").read_text())[0]
    assert row["id"].endswith("~clear")
    seed = row["id"].partition("~")[0]
    assert told_record(summary.folder, row["id"], False) == told_record(summary.folder, seed, False)
    with pytest.raises(DataError, match="no record has the id"):
        told_record(summary.folder, f"{seed}clear", False)


def test_another_list_of_agents_in_the_same_folder_is_told_by_how_many_there_were(tmp_path: Path) -> None:
    told(tmp_path, "[[A]]", "clear", "odd")
    agents = tuple(Agent(name=name, model=ScriptedModel(otherwise=name)) for name in ("plain", "clear"))
    page = StarAgents(agents=agents, judge=ScriptedModel(), small=scorer(SMALL), large=scorer(LARGE))
    with pytest.raises(ResumeError, match=r"method\.agents had 3 entries and now has 2"):
        run_recipe(Recipe(method=page, input=tmp_path / "seeds.json", output=tmp_path / "out.json"))
