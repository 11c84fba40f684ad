"""What does a browser make of the page, opened from disk?

A second script, let in by its own hash so that the policy of the page still holds, presses the buttons as a
reader would and writes what it saw into the page; Chromium then prints the page.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.browser import look_at, needs_browser
from tunesift.report.data import Bar, ReportData, Row, Table

pytestmark = needs_browser


@pytest.fixture(scope="module")
def seen(ordinary: ReportData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return look_at(ordinary, "ordinary.js", tmp_path_factory.mktemp("ordinary"))


@pytest.fixture(scope="module")
def endured(hostile: ReportData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return look_at(hostile, "hostile.js", tmp_path_factory.mktemp("hostile"))


def test_the_page_opens_without_trouble_or_requests(seen: dict[str, Any]) -> None:
    assert (seen["trouble"], seen["requests"]) == ([], 0)


def test_headings_follow_the_order_of_the_sections(seen: dict[str, Any]) -> None:
    assert seen["title"] == "Numbers – tunesift report"
    assert seen["headings"][:7] == [
        "Numbers",
        "What became of the records",
        "Distribution of the score",
        "Why records were dropped",
        "Counted along the way",
        "Kept against dropped",
        "Records",
    ]


def test_the_funnel_shows_counts_and_percent(seen: dict[str, Any]) -> None:
    assert [[label, value] for label, _, value in seen["funnel"]] == [
        ["Records read", "52,002 100%"],
        ["Kept", "17,334 33.3%"],
        ["Dropped", "34,668 66.7%"],
    ]


def test_a_long_list_of_reasons_grows_by_its_button(seen: dict[str, Any]) -> None:
    assert (seen["reasons"], seen["reasonsAfter"]) == (12, 24)


def test_the_histogram_stands_in_proportion_and_names_its_threshold(seen: dict[str, Any]) -> None:
    assert seen["scores"] == [
        "ifd: 100 scored records, drawn from 0.0000 to 1.0000. The threshold is 0.6600.",
        "12 records not scored; not in the picture.",
        "threshold 0.6600",
    ]
    assert [fate for fate, _ in seen["bars"]] == ["dropped", "kept", "dropped", "kept"]
    heights = [height for _, height in seen["bars"]]
    assert [height / heights[1] for height in heights] == pytest.approx([3, 1, 4, 2])


def test_the_pair_begins_with_the_best_kept_and_the_worst_dropped(seen: dict[str, Any], ordinary: ReportData) -> None:
    kept = sorted((row.score for row in ordinary.rows if row.action == "keep" and row.score is not None), reverse=True)
    dropped = [row for row in ordinary.rows if row.action == "drop" and row.score is not None]
    assert seen["kept"] == [f"{kept[0]:.4f}", f"{kept[1]:.4f}", "2 of 334"]
    assert seen["dropped"] == [min(dropped, key=lambda row: row.score or 0.0).id]


def test_records_come_fifty_a_page_in_the_order_of_the_file(seen: dict[str, Any]) -> None:
    assert seen["first"] == [f"r{place}" for place in range(50)]
    assert seen["last"] == ["r999", "Page 20 of 20", True]
    assert seen["sample"] == "Showing 1,000 of 52,002 records; all of them are in decisions.parquet."


def test_headers_sort_with_unscored_records_last_either_way(seen: dict[str, Any], ordinary: ReportData) -> None:
    scored = sorted((row for row in ordinary.rows if row.score is not None), key=lambda row: row.score or 0.0)
    assert seen["highest"] == [*(row.id for row in reversed(scored[-3:])), "descending", "Page 1 of 20"]
    assert seen["lowest"] == [*(row.id for row in scored[:3]), "ascending"]
    assert seen["byId"] == ["r0", "r1", "r2"]


def test_the_search_ignores_case_and_says_when_nothing_matches(seen: dict[str, Any]) -> None:
    assert seen["none"] == ["0 of 1,000 records", 1]
    assert seen["found"] == [["r77"], "1 of 1,000 records"]


def test_a_record_opens_to_its_text_and_its_parts(seen: dict[str, Any]) -> None:
    said = ["Say the number 77.", "It is  77,\nNO less."]
    assert seen["opened"] == ["true", said, ["1.2346", "2"], False]


def test_the_filter_leaves_one_action(seen: dict[str, Any]) -> None:
    assert seen["keptOnly"] == ["334 of 1,000 records", 1]


def test_the_theme_button_changes_the_page(seen: dict[str, Any]) -> None:
    assert seen["theme"] == [True, "Light theme"]


def test_hostile_texts_run_nothing_and_ask_for_nothing(endured: dict[str, Any]) -> None:
    assert (endured["trouble"], endured["requests"]) == ([], 0)


def test_hostile_texts_make_no_element_and_no_attribute(endured: dict[str, Any], seen: dict[str, Any]) -> None:
    assert endured["foreign"] == seen["foreign"]
    expected = {"script": 3, "style": 1, "svg": 1, "meta": 3, "form": 1, "input": 1, "a": 1, "[href]": 1}
    assert {query: n for query, n in seen["foreign"].items() if n} == expected


def test_hostile_texts_are_shown_as_they_are(endured: dict[str, Any], hostile: ReportData) -> None:
    texts = [bar.label for bar in hostile.funnel]
    assert endured["head"] == [hostile.title] * 5
    assert endured["facts"] == endured["funnel"] == endured["reasons"] == texts
    assert endured["broken"] == [texts] * 4
    assert endured["pair"] == [hostile.title] * 2


def test_every_hostile_record_opens_to_its_own_text(endured: dict[str, Any], hostile: ReportData) -> None:
    for shown, row in zip(endured["rows"][2:], hostile.rows[2:], strict=True):
        text = row.reason
        about = [text, row.id, str(row.line), f"{row.score:.0f}"]
        assert shown == [*about, text, "Instructionuser", f"{text} before", text, text, "before", text]


def test_ten_thousand_characters_without_a_space_do_not_widen_the_page(endured: dict[str, Any]) -> None:
    assert endured["wide"] is False


def test_a_run_over_nothing_says_so_in_words(bare: ReportData, tmp_path: Path) -> None:
    seen = look_at(bare, "bare.js", tmp_path)
    assert seen["trouble"] == []
    assert seen["hidden"] == [True, True]
    assert seen["sections"] == ["What became of the records", "Records"]
    assert seen["empty"] == ["No records were counted.", "There are no records to show."]


REFINED = ReportData(
    title="Refined", method="reflection", run_id="1", created="now", command="tunesift reflection", facts=(),
    funnel=(Bar("in", 2), Bar("replaced", 1), Bar("kept", 1), Bar("dropped", 0)), reasons=(), histogram=None, total=2, broken=(),
    rows=(
        Row("a1", 1, "replace", "rewritten", None, {}, (("user", "Name a long river."), ("assistant", "The Nile, 6,650 km.")),
            (("user", "Name a river."), ("assistant", "The Rhine."))),
        Row("a2", 2, "keep", "nothing rewritten", None, {}, (("user", "Say it."), ("assistant", "It."))),
    ),
    tables=(
        Table("halves", ("half", "status", "records"), (("instruction", "ok", 2), ("response", None, 0.5))),
        Table("sides", ("side", "fraction", "good_fraction"), (("for", 407 / 480, 1), ("against", 0.99996, None))),
    ),
)  # fmt: skip


def test_before_and_after_stand_side_by_side_with_the_changed_words_marked(tmp_path: Path) -> None:
    seen = look_at(REFINED, "refined.js", tmp_path)
    assert seen["trouble"] == []
    assert seen["sides"] == ["Before", "After", "Before", "After"]
    assert seen["words"] == ["Name a river.", "Name a long river.", "The Rhine.", "The Nile, 6,650 km."]
    assert seen["gone"] == ["Rhine"]
    assert seen["new"] == ["long ", "Nile, 6,650 km"]
    assert seen["unmarked"] == 0
    assert seen["found"] == ["a1"]  # by a word that is gone


def test_a_pair_shows_its_rejected_answer_beside_the_chosen_one(tmp_path: Path) -> None:
    pair = Row("p1", 1, "keep", "x", None, {}, (("system", "Be brief."), ("user", "Name a river."),
               ("assistant", "The Rhine."), ("rejected", "The Elbe, I think.")))  # fmt: skip
    seen = look_at(replace(REFINED, rows=(pair, REFINED.rows[1])), "paired.js", tmp_path)
    assert seen["trouble"] == []
    assert seen["roles"] == ["System", "Instructionuser", "Responseassistant"]
    assert seen["sides"] == ["Chosen", "Rejected"]
    assert seen["words"] == ["Be brief.", "Name a river.", "The Rhine.", "The Elbe, I think."]
    assert (seen["alone"], seen["split"]) == (["Say it.", "It."], 0)
    assert seen["found"] == ["p1"]  # by a word of the rejected answer


def test_a_message_is_held_against_what_the_same_role_said_before(tmp_path: Path) -> None:
    """A system message that came in front is new; it is not what became of the instruction."""
    first = REFINED.rows[0]
    row = replace(first, messages=(("system", "Mind the tags."), *first.messages))
    seen = look_at(replace(REFINED, rows=(row, *REFINED.rows[1:])), "refined.js", tmp_path)
    assert seen["words"] == ["Name a river.", "Name a long river.", "The Rhine.", "The Nile, 6,650 km."]


def test_a_report_on_refined_records_shows_them_before_and_after_and_no_empty_card(tmp_path: Path) -> None:
    seen = look_at(REFINED, "refined.js", tmp_path)
    assert seen["sections"] == ["What became of the records", "Counted along the way", "Before and after", "Records"]
    assert seen["columns"] == ["Replaced"]
    assert seen["shown"] == ["a1"]
    assert seen["bars"] == [True, True, True, False]  # a count of 0 draws nothing


def test_what_is_just_below_a_whole_number_is_not_shown_as_one(tmp_path: Path) -> None:
    said = (("user", "a"), ("assistant", "b"))
    rows = tuple(
        Row(f"r{n}", n, "keep", "x", score, {}, said)
        for n, score in enumerate((0.99996, 1.0, 0.99999996, 0.5, 3e-4, 1.00004))
    )
    seen = look_at(replace(REFINED, rows=rows, total=6), "refined.js", tmp_path)
    assert seen["scores"] == ["0.999960", "1.0000", "0.99999996", "0.5000", "3.000e-4", "1.000040"]
    assert seen["head"] == "Line in the file"


def test_small_tables_are_shown_as_tables(tmp_path: Path) -> None:
    seen = look_at(REFINED, "refined.js", tmp_path)
    assert seen["tables"] == [
        ["halves", "half", "status", "records", "instruction", "ok", "2", "response", "–", "0.5000"],
        ["sides", "side", "fraction", "good fraction", "for", "84.8%", "100%", "against", "> 99.9%", "–"],
    ]
