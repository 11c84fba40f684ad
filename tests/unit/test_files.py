"""From bytes to rows: containers, places, and what a broken row costs its neighbours (nothing)."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesift import DataError
from tunesift.files import BrokenRow, RawRow, container_of, read_rows
from tunesift.json_text import JsonFault, element_end, parse_json
from tunesift.parquet import bounded

ROWS = [{"instruction": f"Question {n}?", "output": f"Answer {n} – ünïcode."} for n in range(5)]


def rows_of(path: Path, content: str | bytes) -> list[RawRow | BrokenRow]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_rows(path))


def sound(rows: list[RawRow | BrokenRow]) -> list[dict[str, Any]]:
    return [row.fields for row in rows if isinstance(row, RawRow)]


def broken(rows: list[RawRow | BrokenRow]) -> list[BrokenRow]:
    return [row for row in rows if isinstance(row, BrokenRow)]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".GZ": gzip.compress,
    ".zst": lambda content: bytes(pa.compress(content, "zstd", asbytes=True)),
}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("ending", ["json", "jsonl", "ndjson"])
def test_rows_come_in_order_from_every_container(tmp_path: Path, ending: str, packed: str) -> None:
    text = json.dumps(ROWS, ensure_ascii=False) if ending == "json" else lines(ROWS)
    rows = rows_of(tmp_path / f"a.{ending}{packed}", PACKERS[packed](text.encode()))
    assert sound(rows) == ROWS


def test_a_json_file_may_hold_one_record_a_line(tmp_path: Path) -> None:
    assert sound(rows_of(tmp_path / "a.json", lines(ROWS))) == ROWS


@pytest.mark.parametrize("indent", [None, 0, 1, 2, 4, "\t"])
def test_an_array_reads_the_same_however_it_is_laid_out(tmp_path: Path, indent: int | str | None) -> None:
    rows = rows_of(tmp_path / "a.json", "\n \n" + json.dumps(ROWS, indent=indent) + "\n\n")
    assert sound(rows) == ROWS
    assert all(json.loads(row.raw) == fields for row, fields in zip(rows, ROWS, strict=True))


def test_nested_objects_that_look_like_records_do_not_cut_a_record(tmp_path: Path) -> None:
    text = '[\n {"children": [\n {"children": []},\n {"children": [{}]}\n ]},\n {"children": ["\\n {"]}\n]'
    assert sound(rows_of(tmp_path / "a.json", text)) == json.loads(text)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_a_place_names_file_line_and_byte(tmp_path: Path, bom: bytes) -> None:
    for name, text in (("a.jsonl", f"\n{lines(ROWS)}"), ("a.json", json.dumps(ROWS, indent=2, ensure_ascii=False))):
        content = bom + text.encode()
        for row in rows_of(tmp_path / name, content):
            assert content[row.place.byte :].startswith(row.raw)
            assert content[: row.place.byte].count(b"\n") + 1 == row.place.line
            assert str(row.place) == f"{name}:{row.place.line} (byte {row.place.byte})"


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_only_a_line_feed_ends_a_line(tmp_path: Path, mark: str) -> None:
    text = f"one{mark}two"
    wanted = [{"output": text}, {"output": "after"}]
    plain = f'{{"output": "{text}"}}\n' if mark in "\u2028\u2029\x85" else lines(wanted[:1])
    assert sound(rows_of(tmp_path / "a.jsonl", plain + lines(wanted[1:]))) == wanted


def test_line_feeds_may_follow_carriage_returns(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "a.jsonl", lines(ROWS).replace("\n", "\r\n"))
    assert sound(rows) == ROWS
    assert not any(row.raw.endswith(b"\r") for row in rows)


BREAKS: dict[str, tuple[Callable[[str], str], str]] = {
    "trailing comma": (lambda text: text.replace("Answer 2 – ünïcode.\"", "Answer 2\","), "E103"),
    "missing opening quote": (lambda text: text.replace('"Answer 2', "Answer 2"), "E103"),
    "missing closing quote": (lambda text: text.replace('Answer 2 – ünïcode."', "Answer 2"), "E10"),
    "missing bracket": (lambda text: text.replace('Answer 2 – ünïcode."\n  }', 'Answer 2"').replace('Answer 2 – ünïcode."}', 'Answer 2"'), "E10"),
    "bracket too many": (lambda text: text.replace('"Answer 2 – ünïcode."', '["Answer 2"]]'), "E103"),
    "single quotes": (lambda text: text.replace('"Answer 2 – ünïcode."', "'Answer 2'"), "E103"),
    "no value": (lambda text: text.replace('"Answer 2 – ünïcode."', ""), "E103"),
    "a comment": (lambda text: text.replace('"Answer 2 – ünïcode."', '"Answer 2" // so'), "E10"),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["pretty", "one line", "lines"])
@pytest.mark.parametrize("how", BREAKS)
def test_a_broken_record_does_not_cost_its_neighbours(tmp_path: Path, how: str, layout: str) -> None:
    spoil, code = BREAKS[how]
    text = {
        "pretty": json.dumps(ROWS, indent=2, ensure_ascii=False),
        "one line": json.dumps(ROWS, ensure_ascii=False),
        "lines": lines(ROWS),
    }[layout]
    spoilt = spoil(text)
    assert spoilt != text
    rows = rows_of(tmp_path / ("a.jsonl" if layout == "lines" else "a.json"), spoilt)
    assert sound(rows) == [row for n, row in enumerate(ROWS) if n != 2]
    (bad,) = broken(rows)
    assert bad.code.startswith(code)
    assert spoilt.encode()[bad.place.byte :].startswith(bad.raw)
    assert b"Question 2" in bad.raw
    assert b"Question 3" not in bad.raw


@pytest.mark.parametrize(("indent", "cut"), [(2, 1), (2, 3), (2, 20), (None, 1), (None, 15)])
def test_of_an_array_that_is_cut_off_the_whole_records_are_read(tmp_path: Path, indent: int | None, cut: int) -> None:
    rows = rows_of(tmp_path / "a.json", json.dumps(ROWS, indent=indent)[:-cut])
    assert sound(rows) == ROWS[: 5 if cut == 1 else 4]
    assert [b.code for b in broken(rows)] == ["E102"]


def test_broken_records_of_an_array_take_time_in_proportion_to_their_own_length(tmp_path: Path) -> None:
    rows = [json.dumps({"instruction": f"{n} " + "x" * 300, "output": "y" * 300}) for n in range(6000)]
    rows[1::10] = [row[:-1] for row in rows[1::10]]  # the bracket that ends them is missing
    (tmp_path / "a.json").write_text("[\n  " + ",\n  ".join(rows) + "\n]\n")
    began = time.process_time()
    broken = sum(isinstance(row, BrokenRow) for row in read_rows(tmp_path / "a.json"))
    assert (broken, time.process_time() - began < 8) == (600, True)


def test_brackets_that_close_nothing_take_time_in_proportion_to_the_text() -> None:
    began = time.process_time()
    assert element_end("{" * 60_000 + "]" * 60_000, 0, None) is None
    assert time.process_time() - began < 5


def test_what_stands_behind_an_array_is_not_passed_over(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "a.json", json.dumps(ROWS) + json.dumps(ROWS))
    assert sound(rows) == ROWS
    assert [b.code for b in broken(rows)] == ["E103"]


def test_elements_that_are_no_objects_are_named(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "a.json", '[1, "two", null, true, [{"a": 1}], {"output": "x"}, nul]')
    assert sound(rows) == [{"output": "x"}]
    assert [b.code for b in broken(rows)] == ["E201"] * 5 + ["E103"]
    assert [b.message.rpartition(" not ")[2] for b in broken(rows)[:5]] == [
        "a number", "a text", "null", "true or false", "a list",
    ]  # fmt: skip


def test_a_byte_that_is_not_utf_8_breaks_its_row_alone(tmp_path: Path) -> None:
    for name, text in (("a.jsonl", lines(ROWS)), ("a.json", json.dumps(ROWS, indent=2, ensure_ascii=False))):
        content = text.encode().replace("2 – ünïcode".encode(), "2 ü".encode("latin-1"))
        rows = rows_of(tmp_path / name, content)
        assert len(sound(rows)) == 4
        (bad,) = broken(rows)
        assert (bad.code, bad.place.line > 1) == ("E301", True)
        assert f"byte {content.index(0xFC)} " in bad.message


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('{"a": 1', "E102"), ('{"a": "x', "E102"), ('{"a": 1} x', "E103"), ("{'a': 1}", "E103"), ('{"a": NaN}', "E303"),
        ('{"a": -Infinity}', "E303"), ('{"a": 1e999}', "E303"), ('{"a": 18446744073709551616}', "E304"),
        (f'{{"a": {"9" * 5000}}}', "E304"), ('{"a": 1, "a": 2}', "E305"), ('{"a": "\\ud800"}', "E302"),
        ('{"\\udfff": 1}', "E302"), ('{"a": [["\\ud800"]]}', "E302"), ('{"a": "\t"}', "E103"),
        (f'{{"a": {"[" * 100}{"]" * 100}}}', "E402"), (f'{{"a": {"[" * 100_000}{"]" * 100_000}}}', "E402"),
    ],
)  # fmt: skip
def test_json_that_parsers_disagree_about_is_refused_by_its_code(tmp_path: Path, text: str, code: str) -> None:
    for name, content in (("a.jsonl", f'{{"b": 0}}\n{text}\n'), ("a.json", f'[{{"b": 0}},\n{text}\n]')):
        rows = rows_of(tmp_path / name, content)
        assert sound(rows)[0] == {"b": 0}
        assert [b.code for b in broken(rows)] == [code]


def test_something_behind_a_record_breaks_its_line(tmp_path: Path) -> None:
    rows = rows_of(tmp_path / "a.jsonl", '{"b": 0}\n{"a": 1} x\n{"a": 1}{"a": 2}\n{"b": 1}\n')
    assert sound(rows) == [{"b": 0}, {"b": 1}]
    assert [b.code for b in broken(rows)] == ["E103", "E103"]


@pytest.mark.parametrize("value", ["\u0000", "\U0001f600", "é", "e\u0301", "\u202e", 2**63 - 1, -(2**63), 1e308, -0.0])
def test_json_that_is_odd_but_sound_is_read(value: object) -> None:
    assert parse_json(json.dumps({"a": value}))[0] == {"a": value}
    assert parse_json(json.dumps({"a": value}, ensure_ascii=False))[0] == {"a": value}


def test_a_nesting_of_64_is_read_and_brackets_in_texts_do_not_count() -> None:
    deep = "[" * 63 + json.dumps("[{" * 500) + "]" * 63
    assert parse_json(f'{{"a": {deep}}}')
    with pytest.raises(JsonFault, match="64"):
        parse_json(f'{{"a": [{deep}]}}')


def test_a_line_that_is_too_long_is_passed_over(tmp_path: Path) -> None:
    long = '{"output": "' + "x" * 40 * 2**20 + '"}'
    rows = rows_of(tmp_path / "a.jsonl", lines(ROWS[:1]) + long + "\n" + lines(ROWS[1:]))
    assert sound(rows) == ROWS
    (bad,) = broken(rows)
    assert (bad.code, bad.place.line, len(bad.raw)) == ("E401", 2, 64 * 2**10)


def test_an_ending_says_what_a_file_holds() -> None:
    assert [container_of(Path(n)) for n in ("a.JSONL.gz", "a.ndjson", "a.Json.ZST", "a.b.parquet")] == [
        "jsonl", "jsonl", "json", "parquet",
    ]  # fmt: skip
    for name in ("a.txt", "a", "json", "a.gz", "a.parquet.gz", "a.json.xz"):
        with pytest.raises(DataError, match="E116"):
            container_of(Path(name))


def test_parquet_rows_have_their_number_for_a_line(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS * 500), tmp_path / "a.parquet", row_group_size=700)
    rows = list(read_rows(tmp_path / "a.parquet"))
    assert sound(rows) == ROWS * 500
    assert [row.place.line for row in rows] == list(range(1, 2501))


def test_parquet_columns_of_every_kind_are_read(tmp_path: Path) -> None:
    columns = {
        "dictionary": pa.array(["a", "b"]).dictionary_encode(), "large": pa.array(["a", "b"], pa.large_string()),
        "view": pa.array(["a", "b"], pa.string_view()), "list": pa.array([["a"], None]),
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())), "struct": pa.array([{"k": 1}, None]),
        "bytes": pa.array([b"\xff", None]), "nanoseconds": pa.array([1, 10**9 + 1], pa.timestamp("ns")),
        "far": pa.array([2**40, None], pa.timestamp("s")), "zone": pa.array([datetime(2024, 1, 1), None], pa.timestamp("us", "UTC")),  # noqa: DTZ001
        "day": pa.array([1, 2], pa.date32()), "hour": pa.array([1, 2], pa.time64("ns")), "half": pa.array([1.5, 2], pa.float16()),
    }  # fmt: skip
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    first, second = sound(list(read_rows(tmp_path / "a.parquet")))
    assert list(first) == list(columns)
    assert (first["dictionary"], first["view"], first["list"], first["map"]) == ("a", "a", ["a"], [("k", 1)])
    assert (first["nanoseconds"], second["nanoseconds"]) == (
        "1970-01-01 00:00:00.000000001", "1970-01-01 00:00:01.000000001",
    )  # fmt: skip


def test_a_parquet_text_that_is_not_utf_8_breaks_its_row_alone(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"\xff\xfe", b"good too"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"output": texts}), tmp_path / "a.parquet")
    rows = list(read_rows(tmp_path / "a.parquet"))
    assert [r["output"] for r in sound(rows)] == ["good", "good too"]
    assert [(b.code, b.place.line) for b in broken(rows)] == [("E301", 2)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers(-5, 5), max_size=3), max_size=8)
)
def test_any_objects_are_read_back_from_an_array_and_from_lines(rows: list[dict[str, Any]]) -> None:
    with TemporaryDirectory() as folder:
        for ascii_only in (True, False):
            clean = [row for row in rows if not _has_surrogate(row)]
            array = json.dumps(clean, ensure_ascii=ascii_only, indent=1)
            assert sound(rows_of(Path(folder) / "a.json", array)) == clean
            text = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in clean)
            if text:
                assert sound(rows_of(Path(folder) / "a.jsonl", text)) == clean


def _has_surrogate(row: dict[str, Any]) -> bool:
    return any("\ud800" <= c <= "\udfff" for text in (*row, *row.values()) for c in str(text))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_whatever_the_bytes_only_rows_or_a_data_error_come_out(noise: bytes) -> None:
    with TemporaryDirectory() as folder:
        for name in ("a.json", "a.jsonl", "a.jsonl.gz", "a.parquet"):
            for content in (noise, b"[" + noise, b'[{"a": "' + noise + b'"}]'):
                try:
                    rows_of(Path(folder) / name, content)
                except DataError:
                    continue


def test_a_parquet_column_that_names_texts_which_are_not_there_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "damaged.parquet"
    pq.write_table(pa.table({"a": ["x"]}), path)
    column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([], pa.string()), safe=False)
    with pytest.raises(DataError, match=r"E110 .* is not a sound Parquet file"):
        list(bounded(path, iter([pa.record_batch([column], ["a"])])))
