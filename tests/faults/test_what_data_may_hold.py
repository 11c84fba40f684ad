"""Whatever texts, numbers, ids and column names data hold: they come back as they were, and never name a file."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesift import read_dataset, recipe_for, run_recipe
from tunesift.json_text import folded
from tunesift.writing import write_records

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
nasty = st.sampled_from(
    [
        "\0",
        "\u2028\u2029\x85",
        "\u202e\u2066x\u2069",
        "é",
        "e\u0301",
        "\ufb01",
        "\ufeff",
        "\r\n",
        "👨\u200d👩",
        "\U0010ffff",
        "\\u0000",
    ]
)
strings = st.tuples(texts, nasty, texts).map("".join) | texts


def comes_back(strings: list[str]) -> None:
    """Write rows with these texts as JSON Lines, then Parquet, then JSON Lines; the bytes must be the same."""
    rows = [{"id": str(n), "instruction": f"Q{text}", "output": text, "more": text} for n, text in enumerate(strings)]
    lines = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    with tempfile.TemporaryDirectory() as folder:
        first, second, third = (Path(folder) / name for name in ("a.jsonl", "b.parquet", "c.jsonl"))
        first.write_bytes(lines)
        for source, path in ((first, second), (second, third)):
            data = read_dataset(source)
            assert [r.response for r in data] == strings
            write_records(data, path, data)
        assert third.read_bytes() == lines


@settings(max_examples=20, deadline=None)
@given(st.lists(strings, min_size=10, max_size=10))
def test_two_hundred_texts_survive_jsonl_parquet_jsonl(strings: list[str]) -> None:
    comes_back(strings)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.lists(strings, min_size=50, max_size=50))
def test_ten_thousand_texts_survive_jsonl_parquet_jsonl(strings: list[str]) -> None:
    comes_back(strings)


def test_no_number_that_is_none_is_written_to_json(tmp_path: Path) -> None:
    odd = [math.nan, math.inf, -math.inf, 0.5, None]
    rows = [
        {
            "instruction": f"Question {n}?",
            "output": f"Answer {n}.",
            "x": odd[n % 5],
            "xs": [odd[n % 3], 1.0],
            "o": {"y": odd[n % 4]},
        }
        for n in range(10_000)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("b.jsonl", "c.json"):
        run_recipe(recipe_for("select", tmp_path / "a.parquet", tmp_path / name, ["keep.kind=random", "keep=100%"]))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    lines = (tmp_path / "b.jsonl").read_text().splitlines()
    found = [json.loads(line, parse_constant=refuse) for line in lines]
    assert [row["x"] for row in found[:5]] == [None, None, None, 0.5, None]
    assert json.loads((tmp_path / "c.json").read_text(), parse_constant=refuse) == found
    for path in tmp_path.rglob("*.json"):
        json.loads(path.read_text("utf-8"), parse_constant=refuse)


def files_of(folder: Path, ids: list[str], names: list[str]) -> list[str]:
    """Every path that a run leaves behind whose records have these ids and further columns."""
    rows: list[dict[str, Any]] = [
        {"id": id, "instruction": f"Question {n}?", "output": "An answer.", **dict.fromkeys(names, id)}
        for n, id in enumerate(ids)
    ]
    (folder / "inside" / "in").mkdir(parents=True)
    (folder / "inside" / "in" / "a.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    output = folder / "inside" / "out" / "b.jsonl"
    recipe = recipe_for(
        "select", folder / "inside" / "in" / "a.jsonl", output, ["scorer.student.kind=scripted", "keep=50%"]
    )
    assert run_recipe(recipe).counts["in"] == len(ids)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


pathlike = st.sampled_from(
    ["../../x", "/etc/passwd", "CON", "a/b", "..", ".", "~", "x\0y", "a\nb", "C:\\x", "x" * 300, "*.json"]
)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20) | pathlike


@settings(max_examples=25, deadline=None)
@given(
    st.lists(names, min_size=2, max_size=6, unique=True),
    st.lists(names.map(lambda n: f"_{n}"), max_size=3, unique_by=folded),
)
def test_no_id_and_no_column_ever_names_a_file(ids: list[str], columns: list[str]) -> None:
    with tempfile.TemporaryDirectory() as odd, tempfile.TemporaryDirectory() as plain:
        found = files_of(Path(odd), ids, columns)
        assert found == files_of(Path(plain), [str(n) for n in range(len(ids))], [])
