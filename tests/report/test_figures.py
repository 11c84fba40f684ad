"""What a reader sees of a chart that a method declared, and what a method hands the report."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.browser import look_at, needs_browser
from tunesift.report.data import Figure, Group, ReportData, Table
from tunesift.running.charts import Band, Chart

LINES = Figure(
    "pair-weights",
    Chart("lines", "round", "weight", "pair", x_name="rounds done", caption="How pairs fare."), "every 2nd of 9 rounds", 0,
    (Group("up", (0, 2, 4, 6, 8), (0.1, 0.2, 0.3, 0.35, 0.37)), Group("down", (0, 2, 8), (0.1, 0.05, 0.01)),
     Group("none", (0, 2, 4, 6, 8), (0.1, 0.05, 0.03, 0.02, 0.0))),
)  # fmt: skip
POINTS = Figure(
    "difficulty",
    Chart("points", "ifd_large", "ifd_small", "what", caption="A point is a candidate.",
          bands=(Band("gap 0", 0.0, slope=1.0), Band("window", 0.1, 0.2, 1.0), Band("limit", 0.9))), "", 3,
    (Group("lost", (0.25, 0.5, 0.75), (0.25, 0.5, 0.5)), Group("won", (0.5, 0.25), (1.0, 0.5))),
)  # fmt: skip


def report(
    bare: ReportData, *figures: Figure, doubts: tuple[str, ...] = (), tables: tuple[Table, ...] = ()
) -> ReportData:
    return replace(bare, figures=figures, doubts=doubts, tables=tables)


@pytest.fixture(scope="module")
def seen(bare: ReportData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    shares = Table(
        "counts", ("what", "fraction", "share_lost", "size"), (("a", 0.125, 0.0, 0.125), ("b", None, 1.0, 2))
    )
    shown = report(bare, LINES, POINTS, doubts=("One thing.", "Another."), tables=(shares,))
    return look_at(shown, "figures.js", tmp_path_factory.mktemp("figures"), "--window-size=1200,900")


@needs_browser
def test_doubts_come_first_then_charts_then_tables(seen: dict[str, Any]) -> None:
    assert (seen["trouble"], seen["requests"], seen["wide"]) == ([], 0, False)
    titles = ["What speaks against this run", "Pair weights", "Difficulty", "counts"]
    assert seen["doubts"] == [False, ["One thing.", "Another."], titles]


@needs_browser
def test_shares_are_shown_as_percent_and_other_numbers_as_they_are(seen: dict[str, Any]) -> None:
    assert seen["shares"] == ["12.5%", "0%", "0.1250", "–", "100%", "2"]


@needs_browser
def test_lines_go_where_their_numbers_are_between_round_marks(seen: dict[str, Any]) -> None:
    lines = seen["figures"][0]
    assert lines["axes"] == ["weight", "rounds done"]
    assert lines["marks"] == ["0.0", "0.1", "0.2", "0.3", "0.4", "0", "1", "2", "3", "4", "5", "6", "7", "8"]
    traces = {name: points for name, _, _, points in lines["traces"]}
    for name, group in {group.name: group for group in LINES.groups}.items():
        assert len(traces[name]) == len(group.x)
    (left, top), (right, bottom) = traces["up"][0], traces["up"][-1]
    assert traces["down"][1][0] == pytest.approx(left + (right - left) * 2 / 8, abs=0.1)
    assert traces["down"][2][1] == pytest.approx(bottom + (top - bottom) * (0.37 - 0.01) / (0.37 - 0.1), abs=0.2)
    assert lines["legend"] == ["up", "down", "none"]
    assert lines["note"] == ["Shown: every 2nd of 9 rounds."]
    assert lines["drawn"] == 0


@needs_browser
def test_each_line_has_its_name_at_its_end_and_no_two_names_touch(seen: dict[str, Any]) -> None:
    lines = seen["figures"][0]
    ends = {name: points[-1][1] for name, _, _, points in lines["traces"]}
    assert [name for name, _ in lines["labels"]] == ["up", "down", "none"]
    assert all(abs(y - 4 - ends[name]) <= 24 for name, y in lines["labels"])
    assert all(abs(a - b) >= 14 for (_, a), (_, b) in combinations(lines["labels"], 2))
    assert lines["within"] == 0


@needs_browser
def test_points_have_signs_of_their_kind_and_bands_stand_behind_on_axes_of_the_same_numbers(
    seen: dict[str, Any],
) -> None:
    points = seen["figures"][1]
    assert points["axes"] == ["ifd small", "ifd large"]
    assert points["marks"] == [*(marks := ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]), *marks]
    assert points["legend"] == ["lost 3", "won 2", "gap 0", "window", "limit"]
    assert points["signs"] == [
        ["lost: 0.25, 0.25", "sign tone-0 dot", "circle"], ["lost: 0.5, 0.5", "sign tone-0 dot", "circle"],
        ["lost: 0.75, 0.5", "sign tone-0 dot", "circle"], ["won: 0.5, 1", "sign tone-1 ring", "circle"],
        ["won: 0.25, 0.5", "sign tone-1 ring", "circle"],
    ]  # fmt: skip
    assert [tag for tag, _ in points["bands"]] == ["polygon", "line", "line"]
    corners = [tuple(map(float, corner.split())) for corner in points["bands"][0][1].split(", ")]
    width, height = corners[1][0], corners[0][1] / 0.9  # the window begins at 0.1 of the height
    assert corners == pytest.approx(
        [
            pytest.approx(c, abs=1e-6)
            for c in ((0, 0.9 * height), (width, -0.1 * height), (width, -0.2 * height), (0, 0.8 * height))
        ]
    )
    assert points["note"] == ["3 rows without a number, not in the picture."]


@needs_browser
def test_who_cannot_see_a_chart_has_its_caption_and_the_same_in_numbers(seen: dict[str, Any]) -> None:
    lines, points = seen["figures"]
    assert lines["named"] == "img Pair weights: How pairs fare."
    assert lines["head"] == ["rounds done", "up", "down", "none"]
    assert lines["rows"][:3] == [["0", "0.1", "0.1", "0.1"], ["2", "0.2", "0.05", "0.05"], ["4", "0.3", "–", "0.03"]]
    assert points["head"] == ["what", "ifd large", "ifd small"]
    assert points["rows"] == [["lost", "0.25", "0.25"], ["lost", "0.5", "0.5"], ["lost", "0.75", "0.5"], ["won", "0.5", "1"],
                              ["won", "0.25", "0.5"]]  # fmt: skip
    assert points["reach"] == [[0, "region", "Difficulty, in numbers"]]


@needs_browser
def test_in_a_narrow_window_a_chart_is_as_wide_as_there_is_room(bare: ReportData, tmp_path: Path) -> None:
    seen = look_at(report(bare, LINES, POINTS), "figures.js", tmp_path, "--window-size=500,900")
    lines, points = seen["figures"]
    assert max(lines["size"][0], points["size"][0]) < 500
    assert (lines["labels"], lines["legend"], seen["wide"]) == ([], ["up", "down", "none"], False)
    assert [lines["within"], points["within"], lines["drawn"]] == [0, 0, 0]


@needs_browser
def test_of_more_lines_than_can_be_told_apart_those_that_end_highest_are(bare: ReportData, tmp_path: Path) -> None:
    groups = tuple(Group(f"p{n}", (0, 1), (0.1, n / 100)) for n in range(40))
    seen = look_at(report(bare, replace(LINES, groups=groups)), "figures.js", tmp_path, "--window-size=1200,900")
    (lines,) = seen["figures"]
    assert lines["legend"] == [*(f"p{n}" for n in range(39, 24, -1)), "25 further ones"]
    looks = {(kind, dashes) for name, kind, dashes, _ in lines["traces"] if name in lines["legend"]}
    assert len(looks) == 15
    assert {kind for name, kind, _, _ in lines["traces"] if name not in lines["legend"]} == {"trace tone-other"}
    assert lines["labels"][0][0] == "p39"


@needs_browser
def test_a_few_points_far_away_do_not_press_all_others_into_a_corner(bare: ReportData, tmp_path: Path) -> None:
    spread = tuple(n / 1_000 for n in range(1_000))
    far = replace(POINTS, left_out=0, groups=(Group("near", spread, spread), Group("far", (900.0,), (0.5,))))
    (points,) = look_at(report(bare, far), "figures.js", tmp_path)["figures"]
    assert max(float(mark) for mark in points["marks"]) == 1
    assert points["note"] == ["1 point far from the others, outside the picture."]
    assert len(points["signs"]) == 1_000
    assert ["far", "900", "0.5"] in points["rows"]


@needs_browser
@pytest.mark.parametrize("groups", [
    (Group("one", (3,), (0.5,)),), (Group("flat", (0, 1), (0.0, 0.0)),), (Group("big", (0, 1), (1e300, -1e300)),),
    (Group("small", (1e-300, 2e-300), (1e-12, 2e-12)),), (Group("below", (-5, -1), (-0.5, -0.25)),), (),
])  # fmt: skip
@pytest.mark.parametrize("figure", [LINES, POINTS], ids=["lines", "points"])
def test_every_range_of_numbers_is_drawn_or_said_to_be_nothing(
    figure: Figure, groups: tuple[Group, ...], bare: ReportData, tmp_path: Path
) -> None:
    seen = look_at(report(bare, replace(figure, groups=groups)), "figures.js", tmp_path)
    assert seen["trouble"] == []
    (shown,) = seen["figures"]
    assert shown == {"empty": ["There is nothing to draw."]} if not groups else shown["rows"]
    assert "NaN" not in str(shown)


@needs_browser
def test_hostile_names_draw_the_same_elements_and_are_shown_as_they_are(
    hostile: ReportData, bare: ReportData, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names = [bar.label for bar in hostile.funnel]

    def shown(said: list[str]) -> dict[str, Any]:
        groups = tuple(Group(name, (0, 1), (0.1 * n, 0.2 * n)) for n, name in enumerate(said))
        chart = replace(LINES.chart, x_name=said[1], y_name=said[2], caption=said[3], bands=(Band(said[4], 0.1, 0.2),))
        both = [Figure(said[5], replace(chart, kind=kind), said[6], 1, groups) for kind in ("lines", "points")]
        data = report(bare, *both, doubts=tuple(said))
        return look_at(data, "figures.js", tmp_path_factory.mktemp("hostile"), "--window-size=1200,900")

    plain, endured = shown([f"name {n}" for n in range(len(names))]), shown(names)
    assert (endured["trouble"], endured["requests"], endured["wide"]) == ([], 0, False)
    assert endured["foreign"] == plain["foreign"]
    assert endured["doubts"][1] == names
    lines, points = endured["figures"]
    assert sorted(name for name, *_ in lines["traces"]) == sorted(names)
    assert points["legend"][: len(names)] == names[:15] + points["legend"][15:]
    assert [lines["caption"], *lines["axes"]] == [names[3], names[2], names[1]]
    assert lines["within"] == points["within"] == 0


# --- can everybody tell them apart? ---------------------------------------------------------------------------------

SEEN_BY = {
    "most": np.eye(3),
    "no red": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "no green": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "no blue": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
"""How linear light is seen without one kind of cone: Machado, Oliveira and Fernandes 2009, severity 1."""


def themes() -> dict[str, list[str]]:
    style = files("tunesift.report").joinpath("page.css").read_text("utf-8")
    pairs = re.findall(r"--tone-\d: light-dark\((#\w{6}), (#\w{6})\)", style)
    (paper,) = re.findall(r"--paper: light-dark\((#\w{6}), (#\w{6})\)", style)
    return {theme: [paper[n], *(pair[n] for pair in pairs)] for n, theme in enumerate(("light", "dark"))}


def light(colour: str) -> npt.NDArray[np.float64]:
    part = np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    high, low = sorted((float(light(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(seen: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(seen, 0, 1)
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_stand_out_from_the_page_and_from_each_other_for_colour_blind_eyes(theme: str) -> None:
    """A contrast of 4.5 with the page, as WCAG 2.1 asks of text; 13 units of CIELAB between any two tones."""
    paper, *tones = themes()[theme]
    assert len(tones) == 5
    assert min(contrast(tone, paper) for tone in tones) >= 4.5  # names at lines' ends are text
    for eyes, cones in SEEN_BY.items():
        for one, two in combinations(tones, 2):
            far = float(np.linalg.norm(lab(cones @ light(one)) - lab(cones @ light(two))))
            assert far >= 13, (eyes, one, two)


@needs_browser
def test_the_last_mark_of_an_axis_is_there_and_is_not_cut_off(bare: ReportData, tmp_path: Path) -> None:
    """Numbers of seven digits, and ends that are round numbers but for the last bit of a float."""
    diagonal = Chart(
        "points", "asked", "measured", "what", caption="A point.", bands=(Band("as asked", 0.0, slope=1.0),)
    )
    many = Figure("many", diagonal, "", 0, (Group("a", (0.0, 4e6), (1e6, 4e6)),))
    few = Figure("few", diagonal, "", 0, (Group("a", (-3.0, -2.4), (-3.0, -2.4)),))
    found = look_at(report(bare, many, few), "figures.js", tmp_path, "--window-size=1200,900")["figures"]
    assert [figure["cut"] for figure in found] == [[], []]
    assert [figure["marks"][-1] for figure in found] == ["4,000,000", "−2.4"]
