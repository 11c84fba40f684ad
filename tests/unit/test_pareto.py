"""Which runs are beaten by none, and what a file of runs may not hold."""

from __future__ import annotations

import json
import sys
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesift import DataError, cli
from tunesift.evaluation.pareto import Point, front, read_points, standings

SIX = [
    Point("a", 200, 55),
    Point("b", 230, 60),
    Point("c", 260, 58),
    Point("d", 300, 66),
    Point("e", 300, 61),
    Point("f", 180, 52),
]


def test_oracle_8_the_front_of_six_runs() -> None:
    for order in permutations(SIX):
        assert {point.run for point in front(order)} == {"a", "b", "d", "f"}
    assert [point.run for point in front(SIX)] == ["f", "a", "b", "d"]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_the_front_is_what_the_definition_says(pairs: list[tuple[int, int]]) -> None:
    points = [Point(str(n), *pair) for n, pair in enumerate(pairs)]
    naive = {
        one.run for one in points
        if not any(
            k.length <= one.length and k.score >= one.score and (k.length < one.length or k.score > one.score) for k in points
        )
    }  # fmt: skip
    assert {point.run for point in front(points)} == naive


def test_fronts_of_groups_are_compared_and_not_single_runs() -> None:
    runs = [Point("v1", 200, 50, "vanilla"), Point("v2", 300, 55, "vanilla"), Point("v3", 310, 54, "vanilla"),
            Point("o1", 190, 52, "odin"), Point("o2", 320, 60, "odin")]  # fmt: skip
    odin, vanilla = standings(runs)
    assert (odin.front, odin.unbeaten) == (("o1", "o2"), ("o1", "o2"))
    assert (vanilla.runs, vanilla.front, vanilla.unbeaten) == (3, ("v1", "v2"), ("v2",))


def written(place: Path, *rows: object) -> Path:
    path = place / "runs.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


GOOD = {"run": "a", "length": 200, "score": 55}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "runs.jsonl:2: .*; write one JSON object on each line."),
        ("[1]", "runs.jsonl:2: is no JSON object"),
        ({"run": "b", "length": 200}, 'runs.jsonl:2: "score" is missing; write a number.'),
        ({"run": "b", "length": "long", "score": 1}, 'runs.jsonl:2: "length" is long; write a number.'),
        ({"run": "b", "length": True, "score": 1}, 'runs.jsonl:2: "length" is True; write a number.'),
        ('{"run": "b", "length": 3, "score": NaN}', "runs.jsonl:2: NaN is not a JSON number"),
        ({"run": "b", "length": -3, "score": 1}, "runs.jsonl:2: a length of -3 is below 0"),
        ({"length": 3, "score": 1}, 'runs.jsonl:2: has no "run"'),
        (
            {"run": "b", "lenght": 3, "score": 1},
            'runs.jsonl:2: has the field "lenght"; a run has run, group, length, score.',
        ),
        ({"run": "a", "length": 3, "score": 1}, 'names the run "a" twice'),
    ],
)
def test_a_line_that_is_no_run_is_named(row: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_points(written(tmp_path, GOOD, row))


def test_a_file_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no runs; write a line for each"):
        read_points(written(tmp_path))
    with pytest.raises(DataError, match=r"cannot be read; give a file of JSON Lines"):
        read_points(tmp_path / "nowhere.jsonl")


def test_the_command_tells_the_fronts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(
        tmp_path,
        *({"run": p.run, "length": p.length, "score": p.score, "group": "x" if p.run < "c" else "y"} for p in SIX),
    )

    def said(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tunesift", "pareto", str(path), *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    assert said().splitlines() == [
        "x: 2 runs, front: a, b; 2 of 2 unbeaten by all runs", "  unbeaten: a, b",
        "y: 4 runs, front: f, c, d; 2 of 3 unbeaten by all runs", "  unbeaten: f, d",
    ]  # fmt: skip
    assert json.loads(said("--json"))[0] == {"group": "x", "runs": 2, "front": ["a", "b"], "unbeaten": ["a", "b"]}
