"""CSV and TSV: which rows they have, where each stands, and a way back that starts no formula."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesift import DataError, read_dataset, recipe_for, run_recipe
from tunesift.files import RawRow, read_rows
from tunesift.notes import BLANK
from tunesift.tables import inert, plain, table_lines

EVERYTHING = ["keep.kind=random", "keep=100%"]


def table(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_columns_are_named_by_the_first_row_and_cells_are_texts(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "id,instruction,input,output,score\n7,x,,y,0.5\n8,x,z,y,\n")
    data = read_dataset(path)
    assert [(r.id, r.prompt[0].text, r.response, r.extra["score"]) for r in data] == [
        ("7", "x", "y", "0.5"), ("8", "x\n\nz", "y", "")
    ]  # fmt: skip
    assert data.source
    assert data.source.format == "alpaca"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_row_stands_where_its_first_line_begins(tmp_path: Path, end: str, mark: str) -> None:
    lines = [f"{mark}prompt,completion", "x,y", '"a', ' ""b"", c",y', "", "last,y"]
    path = table(tmp_path / "a.csv", end.join(lines))
    content = path.read_bytes()
    found = list(read_rows(path))
    assert all(isinstance(row, RawRow) for row in found)
    assert [row.place.line for row in found] == [2, 3, 6]
    assert [content[row.place.byte :][:2] for row in found] == [b"x,", b'"a', b"la"]
    assert isinstance(found[1], RawRow)
    assert found[1].fields == {"prompt": f'a{end} "b", c', "completion": "y"}


def test_blank_lines_are_noted_and_odd_rows_are_set_aside_with_their_bytes(tmp_path: Path) -> None:
    content = b"prompt,completion\n\nx,y\n  \nx,y,z\nonly\n\xe9,y\nlast,y\n"
    data = read_dataset(table(tmp_path / "a.csv", content))
    assert data.source
    assert data.source.notes == {BLANK: 2}
    assert [(b.code, b.place.line, b.raw) for b in data.source.broken] == [
        ("E201", 5, b"x,y,z\n"), ("E201", 6, b"only\n"), ("E301", 7, b"\xe9,y\n")
    ]  # fmt: skip
    assert data.source.broken[2].message.startswith(f"byte {content.index(0xE9)} is not valid UTF-8")
    assert [r.prompt[0].text for r in data] == ["x", "last"]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.tsv"])
def test_packed_tables_and_tables_with_tabs_are_read_and_written(tmp_path: Path, name: str) -> None:
    apart = "\t" if "tsv" in name else ","
    content = f"instruction{apart}output\r\nx, z{apart}y\r\n".replace("x, z", "x z").encode()
    path = table(tmp_path / name, gzip.compress(content) if name.endswith("gz") else content)
    run_recipe(recipe_for("select", path, tmp_path / f"b{path.suffixes[0]}", EVERYTHING))
    assert (tmp_path / f"b{path.suffixes[0]}").read_bytes() == content


@pytest.mark.parametrize("head", ["prompt,Prompt,completion", "prompt,é,e\u0301,completion"])
def test_columns_of_almost_one_name_are_refused(tmp_path: Path, head: str) -> None:
    with pytest.raises(DataError, match=r"^E207 a.csv:1 \(byte 0\): two columns have the names"):
        read_dataset(table(tmp_path / "a.csv", f"{head}\nx,y,z,w\n"))


def test_a_line_of_more_than_16_mib_is_refused_without_being_held(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^E401 a.csv:2 \(byte 18\): a line is longer than"):
        read_dataset(table(tmp_path / "a.csv", "prompt,completion\nx," + "y" * (17 * 2**20)))


def test_a_changed_record_goes_back_into_its_cells(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "id,instruction,output\n1,x,y\n2,x,-y\n")
    run_recipe(recipe_for("score", path, tmp_path / "b.csv", ["scorers.0.student.kind=scripted"]))
    back = list(csv.DictReader(io.StringIO((tmp_path / "b.csv").read_text(), newline="")))
    assert [(r["id"], r["output"]) for r in back] == [("1", "y"), ("2", "'-y")]
    assert json.loads(back[0]["scores"]).keys() == {"ifd"}


def test_what_is_no_text_is_written_as_json(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": -1, "b": None, "c": [1, "=x"]}, {"a": True, "c": {"x": "é"}, "d": 0.5}]
    lines = b"".join(table_lines(rows, ["a", "b", "c", "d"], ",")).decode()
    assert lines == 'a,b,c,d\r\n-1,,"[1,""=x""]",\r\ntrue,,"{""x"":""é""}",0.5\r\n'


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.from_regex(
    r"['=+@\t\r\0-]{0,4}x?", fullmatch=True
)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=5))
def test_any_text_comes_back_and_none_starts_a_formula(rows: list[tuple[str, str]]) -> None:
    lines = b"".join(table_lines([{"a": a, "b": b} for a, b in rows], ["a", "b"], ",")).decode()
    head, *back = csv.reader(io.StringIO(lines, newline=""), strict=True)
    assert head == ["a", "b"]
    assert [tuple(map(plain, row)) for row in back] == rows
    for row in back:
        assert not any(cell.startswith(tuple("=+-@\t\r\n\0＝＋－＠")) for cell in row)


@given(cells)
def test_a_text_is_given_back_whatever_it_begins_with(text: str) -> None:
    assert plain(inert(text)) == text
