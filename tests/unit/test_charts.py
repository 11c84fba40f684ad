"""Charts of a page: which rows of many are stored, what is said of it, and how they come back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness import door as shared
from harness.door import Life
from tunesift import DataError, Dataset, RunError
from tunesift.running.charts import MOST_PLACES, MOST_POINTS, Band, Chart, Drawing, _ordinal, described

fresh, life = shared.fresh, shared.life
LINES = Chart("lines", "round", "weight", "pair", noun="rounds")
POINTS = Chart("points", "small", "large", "what")


def rounds(count: int) -> Iterator[dict[str, object]]:
    return ({"round": n, "weight": n / count, "pair": pair} for n in range(count) for pair in "ab")


def told(drawing: Drawing) -> tuple[str, int]:
    found = described("x.parquet", drawing.table().schema)
    assert found is not None
    return found.shown, found.left_out


@pytest.mark.parametrize(("count", "step", "said"), [
    (1, 1, ""), (200, 1, ""), (201, 2, "every 2nd of 201 rounds"), (400, 2, "every 2nd of 400 rounds"),
    (1_000, 8, "every 8th of 1,000 rounds"), (6_400, 32, "every 32nd of 6,400 rounds"),
    (70_000, 512, "every 512th of 70,000 rounds"),
])  # fmt: skip
def test_of_many_rounds_every_so_many_are_stored_with_all_their_lines_and_always_the_last(
    count: int, step: int, said: str
) -> None:
    drawing = Drawing(LINES)
    drawing.add(rounds(count))
    kept = sorted({*range(0, count, step), count - 1})
    assert [(row["round"], row["pair"]) for row in drawing.rows] == [(n, pair) for n in kept for pair in "ab"]
    assert len(kept) <= MOST_PLACES + 1
    assert told(drawing) == (said, 0)


def test_every_number_has_its_ending() -> None:
    for ending, numbers in (("st", (1, 21, 101)), ("nd", (2, 22, 1_002)), ("rd", (3, 33, 103)),
                            ("th", (4, 10, 11, 12, 13, 100, 111, 112, 113, 1_000, 1_024))):  # fmt: skip
        assert [_ordinal(number) for number in numbers] == [f"{number:,}{ending}" for number in numbers]


def test_lines_that_come_one_after_another_are_thinned_at_the_same_places() -> None:
    drawing = Drawing(replace(LINES, noun=""))
    for pair in "ab":
        drawing.add({"round": n, "weight": 0.0, "pair": pair} for n in range(1_000))
    places = {pair: [row["round"] for row in drawing.rows if row["pair"] == pair] for pair in "ab"}
    assert places["a"] == list(range(0, 1_000, 8))
    assert places["b"] == [*places["a"], 999]
    assert told(drawing) == ("every 8th of 1,000 rounds", 0)


@pytest.mark.parametrize("count", [2_000, 2_001, 60_000])
@pytest.mark.parametrize("period", [2, 6, 16])
def test_of_many_points_an_even_part_is_stored_whatever_pattern_they_come_in(count: int, period: int) -> None:
    """Six candidates of every seed, the base first: with a step of 2, 8 or 32, half of what is shown would be bases."""
    drawing = Drawing(POINTS)
    drawing.add({"small": n, "large": 1.0, "what": n % period} for n in range(count))
    rows = drawing.rows
    assert len(rows) + 5 >= MOST_POINTS / 2
    assert len(rows) <= MOST_POINTS
    assert told(drawing)[0] == ("" if count == 2_000 else f"{len(rows):,} of {count:,} points, spread evenly over all")
    for name, share in Counter(row["what"] for row in rows).items():
        assert share / len(rows) == pytest.approx(1 / period, rel=0.15), name
    tenths = Counter(10 * int(str(row["small"])) // count for row in rows)
    assert all(n == pytest.approx(len(rows) / 10, rel=0.05) for n in tenths.values())


def test_a_drawing_holds_no_more_however_much_comes() -> None:
    points, lines = Drawing(POINTS), Drawing(LINES)
    for start in range(0, 50_000, 100):
        points.add({"small": n, "large": 1.0, "what": "x"} for n in range(start, start + 100))
        lines.add({"round": n, "weight": 1.0, "pair": "x"} for n in range(start, start + 100))
        assert len(points._rows) <= MOST_POINTS
        assert len(lines._rows) <= MOST_PLACES


def test_rows_without_two_numbers_are_counted_and_rows_without_a_column_are_a_fault_of_the_method() -> None:
    drawing = Drawing(POINTS)
    drawing.add({"small": value, "large": 1.0, "what": "x"} for value in (0.5, None, float("nan"), float("inf"), "0.5"))
    drawing.add([{"small": 0.5, "large": None, "what": "x"}])
    assert [row["small"] for row in drawing.rows] == [0.5]
    assert told(drawing) == ("", 5)
    with pytest.raises(RunError) as refusal:
        drawing.add([{"small": 0.5, "what": "x"}])
    assert str(refusal.value) == 'a row of a chart has no column "large"; this is a fault of the method.'


def test_a_chart_lies_beside_the_tables_grows_with_the_page_and_starts_empty_whenever_it_runs(life: Life) -> None:
    last = replace(POINTS, caption="What is seen.", bands=(Band("even", 0.0, slope=1.0), Band("window", 0.1, 0.3, 1.0)))
    for _ in range(2):
        with life() as run:
            run.chart("difficulty", [{"small": 0.5, "large": 1, "what": "won"}], POINTS)
            run.chart("difficulty", ({"small": n, "large": 0.5, "what": "lost"} for n in (1, 2)), POINTS)
            run.chart("difficulty", (), last)
            run.chart("nothing", (), LINES)
            run.finish(Dataset.of([]), [])
        file = run.folder / "tables" / "difficulty.parquet"
        table = pq.read_table(file)
        assert table.to_pylist() == [
            {"small": 0.5, "large": 1.0, "what": "won"},
            {"small": 1.0, "large": 0.5, "what": "lost"},
            {"small": 2.0, "large": 0.5, "what": "lost"},
        ]
        found = described(str(file), table.schema)
        assert found is not None
        assert found.chart == last
        assert pq.read_table(run.folder / "tables" / "nothing.parquet").num_rows == 0


def test_a_table_and_a_chart_of_one_name_are_a_fault_of_the_method(life: Life) -> None:
    with life() as run:
        run.table("pairs", [{"a": 1}])
        run.chart("pairs", rounds(1), LINES)
        with pytest.raises(RunError, match='a table and a chart of the name "pairs"; this is a fault of it'):
            run.finish(Dataset.of([]), [])
        assert not (run.folder / "tables").exists()


def test_a_table_is_no_chart_and_a_description_of_another_release_is_refused() -> None:
    assert described("x.parquet", pa.table({"a": [1]}).schema) is None
    for said in ('{"chart":{"kind":"pie","x":"a","y":"b","of":"c"},"shown":"","left_out":0}', "{", "\x00"):
        table = pa.table({"a": [1]}).replace_schema_metadata({"tunesift.chart": said})
        with pytest.raises(DataError, match=r"^x\.parquet: says how it is drawn in words of another release; "):
            described("x.parquet", table.schema)
