"""What is written is what was read: bytes, order, columns, and a change where it belongs."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import json
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesift import (
    CannotCreate,
    DataError,
    Dataset,
    DiskFull,
    Message,
    Record,
    StorageError,
    read_dataset,
    write_records,
)
from tunesift.writing import check_place, whole_or_nothing, write_json_rows

ODD = (
    '{"output":"A1", "instruction" : "Q\\u0031 \\/ \\ud83d\\ude00","n":1.0e5, "m":-0.0,"deep":[{"a":null}]}',
    '{"instruction": "Q2", "input": "", "output": "A2 \u2028 \x85 é", "id2": 9007199254740993}',
    '{"instruction":"Q3","output":"A3"}',
)
"""Rows that no two programs would write alike."""


def changed(record: Record, text: str) -> Record:
    """The record with another response, under a derived id."""
    messages = (*record.messages[:-1], dataclasses.replace(record.messages[-1], text=text))
    return dataclasses.replace(record, id=f"{record.id}~response", messages=messages)


def unpacked(path: Path) -> bytes:
    if path.suffix == ".zst":
        return bytes(pa.CompressedInputStream(path, "zstd").read())
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_unchanged_rows_keep_their_bytes_in_lines(tmp_path: Path, packed: str) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f"{row}\n" for row in ODD))
    data = read_dataset(tmp_path / "a.jsonl")
    write_records(data, tmp_path / f"b.jsonl{packed}", data)
    assert unpacked(tmp_path / f"b.jsonl{packed}") == (tmp_path / "a.jsonl").read_bytes()
    write_records(data.only([data[0].id, data[2].id]), tmp_path / f"c.jsonl{packed}", data)
    assert unpacked(tmp_path / f"c.jsonl{packed}").decode() == f"{ODD[0]}\n{ODD[2]}\n"


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_unchanged_rows_keep_their_bytes_in_an_array(tmp_path: Path, packed: str) -> None:
    rows = [row.replace(",", ",\n    ") for row in ODD]
    (tmp_path / "a.json").write_text("[\n  " + ",\n  ".join(rows) + "\n]\n")
    data = read_dataset(tmp_path / "a.json")
    write_records(data, tmp_path / f"b.json{packed}", data)
    assert unpacked(tmp_path / f"b.json{packed}") == (tmp_path / "a.json").read_bytes()


def test_an_array_becomes_lines_and_lines_an_array(tmp_path: Path) -> None:
    values = [json.loads(row) for row in ODD]
    (tmp_path / "a.json").write_text(json.dumps(values, indent=4))
    data = read_dataset(tmp_path / "a.json")
    write_records(data, tmp_path / "b.jsonl", data)
    text = (tmp_path / "b.jsonl").read_text("utf-8")
    assert [json.loads(line) for line in text.split("\n")[:-1]] == values
    assert text.startswith('{ "output": "A1", "instruction": "Q1 / ')
    again = read_dataset(tmp_path / "b.jsonl")
    write_records(again, tmp_path / "c.json", again)
    assert json.loads((tmp_path / "c.json").read_text("utf-8")) == values


def test_no_record_makes_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(ODD[2])
    data = read_dataset(tmp_path / "a.jsonl")
    for name, text in (("b.jsonl", ""), ("b.json", "[\n]\n")):
        write_records([], tmp_path / name, data)
        assert (tmp_path / name).read_text() == text
    write_records([], tmp_path / "b.parquet", data)
    assert pq.read_table(tmp_path / "b.parquet").num_rows == 0


def test_a_changed_record_is_written_into_the_row_that_its_id_begins_with(tmp_path: Path) -> None:
    rows = [{"id": id, "instruction": "Q", "output": "old", "more": {"x": 1}} for id in ("a", "a~b", "c")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = read_dataset(tmp_path / "a.jsonl")
    new = dataclasses.replace(changed(data.by_id("a~b"), "new"), id="a~b~response~again")
    write_records([data.by_id("a"), new, data.by_id("c")], tmp_path / "b.jsonl", data)
    lines = (tmp_path / "b.jsonl").read_text().splitlines()
    assert [lines[0], lines[2]] == [json.dumps(rows[0]), json.dumps(rows[2])]
    assert json.loads(lines[1]) == rows[1] | {"output": "new"}


def test_a_record_of_nowhere_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(ODD[2])
    data = read_dataset(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match='no record of the input has the id "zzz~response"'):
        write_records([dataclasses.replace(data[0], id="zzz~response")], tmp_path / "b.jsonl", data)
    with pytest.raises(DataError, match="made in Python"):
        write_records([], tmp_path / "b.jsonl", Dataset.of([data[0]]))
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_record_that_does_not_fit_its_fields_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "Q", "completion": "A"}')
    data = read_dataset(tmp_path / "a.jsonl")
    more = dataclasses.replace(data[0], messages=(*data[0].messages, Message("user", "?"), Message("assistant", "!")))
    with pytest.raises(
        DataError, match=f'the record "{data[0].id}" cannot be written as prompt-completion: its fields'
    ):
        write_records([more], tmp_path / "b.jsonl", data)


def test_fields_beside_a_row_are_written_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f"{row}\n" for row in ODD))
    data = read_dataset(tmp_path / "a.jsonl")
    write_records(data, tmp_path / "b.json", data, lambda r: {"id": r.id, "scores": {"x": float("nan")}})
    assert json.loads((tmp_path / "b.json").read_text("utf-8")) == [
        json.loads(row) | {"id": r.id, "scores": {"x": None}} for row, r in zip(ODD, data, strict=True)
    ]


def big_table() -> pa.Table:
    """5,000 rows of every type that Parquet keeps, in five row groups."""
    count = 5_000
    numbers = range(count)
    columns = {
        "instruction": pa.array([f"Question {n}?" for n in numbers], pa.large_string()),
        "output": pa.array([f"Answer {n}." for n in numbers]).dictionary_encode(),
        "bytes": pa.array([b"\xff\x00" if n % 3 else None for n in numbers]),
        "time": pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * count, pa.timestamp("us", "UTC")),
        "nanoseconds": pa.array(numbers, pa.timestamp("ns")), "day": pa.array([date(2024, 2, 29)] * count),
        "duration": pa.array(numbers, pa.duration("us")),
        "tags": pa.array([["a", None], []] * (count // 2)), "map": pa.array([[("k", 1)]] * count, pa.map_(pa.string(), pa.int8())),
        "struct": pa.array([{"x": 1, "y": None}] * count, pa.struct([("x", pa.int16()), ("y", pa.string())])),
        "money": pa.array([Decimal("1.10")] * count), "huge": pa.array([2**64 - 1] * count, pa.uint64()),
        "half": pa.array([0.5] * count, pa.float16()), "none": pa.nulls(count), "not a number": pa.array([float("nan")] * count),
        "view": pa.array(["v"] * count, pa.string_view()),
    }  # fmt: skip
    return pa.table(columns).replace_schema_metadata({"huggingface": "{}"})


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    pq.write_table(big_table(), path, row_group_size=1_000)
    return path


def test_parquet_keeps_its_schema_and_every_cell(tmp_path: Path, parquet: Path) -> None:
    data = read_dataset(parquet)
    write_records(data, tmp_path / "b.parquet", data)
    old, new = pq.read_table(parquet), pq.read_table(tmp_path / "b.parquet")
    assert new.schema.equals(old.schema, check_metadata=True)
    assert new.drop_columns("not a number").equals(old.drop_columns("not a number"))
    some = [r.id for n, r in enumerate(data) if n % 7 == 3]
    write_records(data.only(some), tmp_path / "c.parquet", data)
    kept = pq.read_table(tmp_path / "c.parquet")
    assert kept.schema == old.schema
    plain = [name for name in old.column_names if name not in ("view", "not a number")]
    assert kept.select(plain).equals(old.select(plain).take(list(range(3, 5_000, 7))))


def test_in_parquet_only_the_cell_of_a_changed_response_changes(tmp_path: Path, parquet: Path) -> None:
    data = read_dataset(parquet)
    records = [changed(r, "New.") if n in (5, 1_200, 1_201) else r for n, r in enumerate(data)]
    write_records(records, tmp_path / "b.parquet", data)
    old, new = pq.read_table(parquet), pq.read_table(tmp_path / "b.parquet")
    assert new.schema == old.schema
    rest = [name for name in old.column_names if name not in ("output", "not a number")]
    assert new.select(rest).equals(old.select(rest))
    answers = new.column("output").to_pylist()
    assert [n for n in range(5_000) if answers[n] != f"Answer {n}."] == [5, 1_200, 1_201]


def test_parquet_becomes_json_without_a_number_that_is_none(tmp_path: Path, parquet: Path) -> None:
    data = read_dataset(parquet)
    write_records(data[1:3], tmp_path / "b.jsonl", data)
    first = json.loads((tmp_path / "b.jsonl").read_text().splitlines()[0])
    assert first | {"time": "", "duration": ""} == {
        "instruction": "Question 1?", "output": "Answer 1.", "bytes": "/wA=", "time": "", "duration": "",
        "nanoseconds": "1970-01-01 00:00:00.000000001", "day": "2024-02-29", "tags": [], "map": [["k", 1]],
        "struct": {"x": 1, "y": None}, "money": "1.10", "huge": 2**64 - 1, "half": 0.5, "none": None,
        "not a number": None, "view": "v",
    }  # fmt: skip


def test_fields_beside_a_parquet_row_are_new_columns(tmp_path: Path, parquet: Path) -> None:
    data = read_dataset(parquet)
    write_records(data, tmp_path / "b.parquet", data, lambda r: {"id": r.id, "tags": 1.5 if r.id > "8" else None})
    old, new = pq.read_table(parquet), pq.read_table(tmp_path / "b.parquet")
    assert new.column_names == [*old.column_names, "id"]
    assert new.column("id").to_pylist() == list(data.ids())
    assert new.schema.field("tags").type == pa.float64()
    rest = [name for name in old.column_names if name not in ("tags", "not a number")]
    assert new.select(rest).equals(old.select(rest))


def test_json_becomes_parquet_with_the_columns_of_all_rows(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"instruction": f"Q{n}", "output": "A", "n": None} for n in range(5_000)]
    rows[4_500] |= {"n": 1, "late": [{"x": 1}]}
    rows[4_999] |= {"n": 2.5, "late": [{"y": "z"}]}
    (tmp_path / "a.json").write_text(json.dumps(rows))
    data = read_dataset(tmp_path / "a.json")
    write_records(data, tmp_path / "b.parquet", data)
    found = pq.read_table(tmp_path / "b.parquet")
    assert found.column_names == ["instruction", "output", "n", "late"]
    assert found.column("n").to_pylist()[4_500:] == [1.0, *[None] * 498, 2.5]
    assert found.column("late").to_pylist()[4_999] == [{"x": None, "y": "z"}]
    again = read_dataset(tmp_path / "b.parquet")
    assert [(r.id, r.messages) for r in again] == [(r.id, r.messages) for r in data]


def test_a_change_that_needs_a_column_which_is_not_there_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"instruction": ["Q"], "output": ["A"]}), tmp_path / "a.parquet")
    data = read_dataset(tmp_path / "a.parquet")
    told = dataclasses.replace(data[0], messages=(Message("system", "Be brief."), *data[0].messages))
    with pytest.raises(DataError, match=r'has no column "system", which a changed record needs; write \.jsonl instead'):
        write_records([told], tmp_path / "b.parquet", data)
    write_records([told], tmp_path / "b.jsonl", data)
    assert read_dataset(tmp_path / "b.jsonl")[0].messages == told.messages


def test_records_in_another_order_than_their_parquet_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, numbers in (("a", range(2_000)), ("b", range(2_000, 2_003))):
        rows = {"id": [str(n) for n in numbers], "prompt": ["Q"] * len(numbers), "completion": ["A"] * len(numbers)}
        pq.write_table(pa.table(rows), tmp_path / "in" / f"{name}.parquet")
    data = read_dataset(tmp_path / "in")
    for order in ((1_500, 3), (1_500, 3, 1_501), (2_001, 7)):
        with pytest.raises(DataError, match=f'the record "{order[1]}" comes after one that stands behind it'):
            write_records([data[n] for n in order], tmp_path / "b.parquet", data)
    write_records([data[n] for n in (3, 3, 1_500, 2_001)], tmp_path / "b.parquet", data)
    assert pq.read_table(tmp_path / "b.parquet").column("id").to_pylist() == ["3", "3", "1500", "2001"]


def test_values_that_fit_no_column_are_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{n}", "completion": "A", "x": value} for n, value in enumerate((1, "text"))]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    data = read_dataset(tmp_path / "a.json")
    with pytest.raises(DataError, match=r"do not fit into columns .* write .jsonl instead"):
        write_records(data, tmp_path / "b.parquet", data)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_parquet_file_that_changed_since_is_refused(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["a", "b"], "completion": ["c", "d"]})
    pq.write_table(table, tmp_path / "a.parquet")
    data = read_dataset(tmp_path / "a.parquet")
    pq.write_table(table.take([1, 0]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="E118"):
        write_records(data, tmp_path / "b.parquet", data)


def test_rows_that_were_left_out_do_not_shift_the_others(tmp_path: Path) -> None:
    rows = [{"id": id, "prompt": "Q", "completion": f"A{n}"} for n, id in enumerate("aabac")]
    pq.write_table(
        pa.Table.from_pylist(
            [*rows, {"id": "d", "prompt": None, "completion": "bad"}, {"id": "e", "prompt": "Q", "completion": "A6"}]
        ),
        tmp_path / "a.parquet",
    )
    data = read_dataset(tmp_path / "a.parquet", duplicate_ids="first")
    write_records(data, tmp_path / "b.parquet", data)
    assert pq.read_table(tmp_path / "b.parquet").column("completion").to_pylist() == ["A0", "A2", "A4", "A6"]


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    def rows() -> Iterator[bytes]:
        yield b"{}"
        raise ZeroDivisionError

    path = tmp_path / "new" / "a.jsonl"
    with pytest.raises(ZeroDivisionError), whole_or_nothing(path) as part:
        write_json_rows(rows(), part, path)
    assert list(path.parent.iterdir()) == []
    path.write_text("old")
    with whole_or_nothing(path) as part:
        write_json_rows([b'{"new": 1}'], part, path)
        assert path.read_text() == "old"
    assert path.read_text() == '{"new": 1}\n'


def test_a_compressed_output_is_the_same_every_time(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f"{row}\n" for row in ODD))
    data = read_dataset(tmp_path / "a.jsonl")
    for ending in ("jsonl.gz", "jsonl.zst", "parquet"):
        write_records(data, tmp_path / f"b.{ending}", data)
        write_records(data, tmp_path / f"c.{ending}", data)
        assert (tmp_path / f"b.{ending}").read_bytes() == (tmp_path / f"c.{ending}").read_bytes()


@pytest.mark.parametrize("place", ["file/x/a.jsonl", "/proc/nowhere/a.jsonl", f"{'x' * 250}.jsonl"])
def test_a_place_where_nothing_can_be_written_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CannotCreate, match=r"cannot be written \(.+\); choose a folder you may write to"):
        check_place(tmp_path / place)
    with pytest.raises(CannotCreate), whole_or_nothing(tmp_path / place) as part:
        part.touch()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_trouble_with_the_disk_is_not_taken_for_a_wrong_place(tmp_path: Path, number: int) -> None:
    kind = StorageError if number == errno.EIO else DiskFull
    with pytest.raises(kind, match="disk and start again"), whole_or_nothing(tmp_path / "a.jsonl"):
        raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
ROW = st.fixed_dictionaries(
    {"instruction": TEXT.map("Q{}".format), "output": TEXT},
    optional={"input": TEXT, "note": TEXT | st.none() | st.lists(TEXT, max_size=2)},
)


@settings(max_examples=100, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=5), st.booleans())
def test_any_text_survives_reading_and_writing_byte_for_byte(rows: list[dict[str, Any]], ascii_only: bool) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
        (folder / "a.jsonl").write_bytes(text.encode())
        data = read_dataset(folder / "a.jsonl")
        write_records(data, folder / "b.jsonl", data)
        assert (folder / "b.jsonl").read_bytes() == text.encode()
        assert [r.response for r in data] == [row["output"] for row in rows]


@settings(max_examples=30, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=5))
def test_any_text_survives_the_way_through_parquet(rows: list[dict[str, Any]]) -> None:
    rows = [{"id": str(n), "input": "", **{k: v for k, v in row.items() if k != "note"}} for n, row in enumerate(rows)]
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.jsonl").write_bytes("".join(json.dumps(row) + "\n" for row in rows).encode())
        lines = read_dataset(folder / "a.jsonl")
        write_records(lines, folder / "b.parquet", lines)
        columns = read_dataset(folder / "b.parquet")
        write_records(columns, folder / "c.jsonl", columns)
        assert [json.loads(line) for line in (folder / "c.jsonl").read_bytes().split(b"\n")[:-1]] == rows
        assert list(columns) == list(lines)
