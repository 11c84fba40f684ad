"""From a file to a dataset: formats, ids, copies, and the balance of what could not be read."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesift import DataError, Preference, Record, read_dataset, read_preferences, write_records
from tunesift.formats import Format
from tunesift.inputs import file_digest
from tunesift.reading import Reading, read


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"instruction": f"Question {number}?", "input": "", "output": f"Answer {number}.", **more}


def write(path: Path, rows: list[Any]) -> Path:
    """A file of JSON values, a line each; a text is a line as it stands."""
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows))
    return path


def refused(path: Path, **how: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_dataset(path, **how)
    return str(caught.value)


def test_one_set_reads_the_same_from_every_container(tmp_path: Path) -> None:
    rows = [row(n, id=f"r{n}", tags=["ü", None]) for n in range(20)]
    array, lines = json.dumps(rows).encode(), "".join(json.dumps(r) + "\n" for r in rows).encode()
    files = {
        "a.json": array, "a.jsonl": lines, "a.json.gz": gzip.compress(array), "a.jsonl.gz": gzip.compress(lines),
        "a.json.zst": pa.compress(array, "zstd", asbytes=True), "a.jsonl.zst": pa.compress(lines, "zstd", asbytes=True),
    }  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    sets = {name: list(read_dataset(tmp_path / name)) for name in (*files, "a.parquet")}
    assert all(found == sets["a.json"] for found in sets.values())
    assert [r.id for r in sets["a.json"]] == [f"r{n}" for n in range(20)]
    assert sets["a.json"][3].extra == {"tags": ["ü", None]}


def test_a_dataset_knows_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(1), "", "{broken", row(2)])
    source = read_dataset(path).source
    assert source is not None
    assert (source.path, source.format, source.sha256) == (str(path), "alpaca", file_digest(path))
    assert (source.bytes, source.rows, len(source.broken)) == (path.stat().st_size, 3, 1)


def test_the_format_is_that_of_the_first_sound_row_and_holds_for_all(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ["{broken", {"note": "none"}, row(1), {"prompt": "x", "completion": "y"}])
    data = read_dataset(path)
    assert [r.response for r in data] == ["Answer 1."]
    assert data.source
    assert [(b.place.line, b.code) for b in data.source.broken] == [(1, "E103"), (2, "E201"), (4, "E201")]


def test_a_format_can_be_forced(tmp_path: Path) -> None:
    both = row(1, prompt="Which?", completion="That.")
    path = write(tmp_path / "a.jsonl", [both])
    formats: dict[Format | None, str] = {None: "Answer 1.", "alpaca": "Answer 1.", "prompt-completion": "That."}
    assert {format: read_dataset(path, format=format)[0].response for format in formats} == formats
    assert 'no "conversation"' in refused(path, format="sharegpt")


def test_fields_of_no_format_are_named(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "a.jsonl", [{"text": "x", "\x1b[31m": "y"}]))
    assert message.startswith(
        "E201 a.jsonl:1 (byte 0): fields are text, \\x1b[31m, of no format we know; rename them, such as instruction"
    )


def test_names_in_capital_letters_are_told_from_unknown_ones(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Question,Answer\nWhy?,Because.\n")
    message = refused(tmp_path / "a.csv")
    assert message.endswith("fields are Question, Answer, whose names must be in small letters; rename them.")


def test_a_table_of_conversations_is_read_back(tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": 'a, "b"\n[c]'}, {"role": "assistant", "content": "=d"}], "n": "[x"}
    ]
    data = read_dataset(write(tmp_path / "a.jsonl", rows))
    write_records(data, tmp_path / "b.csv", data)
    again = read_dataset(tmp_path / "b.csv")
    assert [r.messages for r in again] == [r.messages for r in data]
    write_records(again, tmp_path / "c.jsonl", again)
    assert json.loads((tmp_path / "c.jsonl").read_text()) == rows[0]


def test_a_broken_row_is_set_aside_with_all_that_is_known_of_it(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", [row(1), '{"instruction": "x", "output": }', row(2), {"instruction": 7, "output": "x"}]
    )
    data = read_dataset(path)
    assert [r.response for r in data] == ["Answer 1.", "Answer 2."]
    assert data.source
    first, second = data.source.broken
    content = path.read_bytes()
    assert (first.place.file, first.place.line, first.code) == ("a.jsonl", 2, "E103")
    assert (second.place.line, second.code, second.message) == (4, "E202", '"instruction" must be a text, not a number')
    for broken in (first, second):
        assert content[broken.place.byte :].startswith(broken.raw + b"\n")
    assert data.line(data[1].id) == 3


def test_a_broken_parquet_row_keeps_its_fields(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([row(1), {**row(2), "output": None}]), tmp_path / "a.parquet")
    source = read_dataset(tmp_path / "a.parquet").source
    assert source
    assert [(b.place.line, b.code) for b in source.broken] == [(2, "E202")]
    assert json.loads(source.broken[0].raw)["instruction"] == "Question 2?"


@pytest.mark.parametrize(
    ("sound", "bad", "stops"), [(1, 9, False), (170, 9, False), (170, 10, True), (190, 10, False), (10, 20, True)]
)
def test_more_than_a_few_broken_rows_stop_the_reading(tmp_path: Path, sound: int, bad: int, stops: bool) -> None:
    path = write(tmp_path / "a.jsonl", [row(n) for n in range(sound)] + ["{broken"] * bad)
    if stops:
        message = refused(path)
        assert message.startswith(
            f"E199 {path}: {bad} of the first {sound + bad} rows are broken; first, a.jsonl:{sound + 1} (byte "
        )
        assert "max_bad" in message
        assert len(read(path, Record, Reading(max_bad=1.0))) == sound
    else:
        assert len(read_dataset(path)) == sound


def test_broken_rows_behind_the_first_thousand_do_not_stop_the_reading(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(n) for n in range(1000)] + ["{broken"] * 200)
    data = read_dataset(path)
    assert data.source
    assert (len(data), len(data.source.broken), data.source.rows) == (1000, 200, 1200)


def test_many_broken_rows_at_the_start_stop_the_reading_early(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(0)] + ["{broken"] * 500 + [row(n) for n in range(500)])
    assert "E199" in refused(path)
    assert " 51 of the first 52 rows " in refused(path), "1,000 rows may have 50"


def test_a_file_without_a_record_says_what_is_wrong_with_its_first_row(tmp_path: Path) -> None:
    message = refused(write(tmp_path / "a.jsonl", ["{'instruction': 'x'}"] * 300))
    assert message == (
        f"E105 {tmp_path}/a.jsonl: none of its rows is a record; the first, a.jsonl:1 (byte 0): not valid JSON: expecting property "
        "name enclosed in double quotes; give one record a line, or one JSON array."
    )
    assert "E101" in refused(write(tmp_path / "b.jsonl", ["", "  "]))


def test_only_so_many_rows_are_read_as_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(n) for n in range(300)])
    for limit in (1, 100, 101, 250):
        assert len(read_dataset(path, limit=limit)) == limit
    assert len(read_dataset(path, limit=1000)) == 300


IDS = ["a", "b", "a", "a#2", "c", "b", "a"]


def test_two_records_with_one_id_are_refused_with_the_ids(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [row(n, id=id) for n, id in enumerate(IDS)])
    message = refused(path)
    assert message.startswith("E208 a.jsonl:3: 2 ids stand more than once, a, b; ")
    many = write(tmp_path / "b.jsonl", [row(n, id=f"{'x' * 40}{n % 60}") for n in range(120)])
    assert "60 ids" in refused(many)
    assert len(refused(many)) < 300


@pytest.mark.parametrize(
    ("choice", "ids", "left_out"),
    [("first", ["a", "b", "a#2", "c"], [3, 6, 7]), ("suffix", ["a", "b", "a#3", "a#2", "c", "b#2", "a#4"], [])],
)
def test_records_with_one_id_can_be_told_apart_or_left_out(
    tmp_path: Path, choice: Literal["first", "suffix"], ids: list[str], left_out: list[int]
) -> None:
    path = write(tmp_path / "a.jsonl", [row(n, id=id) for n, id in enumerate(IDS)])
    data = read_dataset(path, duplicate_ids=choice)
    assert [r.id for r in data] == list(data.ids()) == ids
    assert [data.by_id(id).response for id in ids] == [r.response for r in data]
    assert data.source
    assert [(b.place.line, b.code) for b in data.source.broken] == [(line, "E208") for line in left_out]
    assert all(json.loads(b.raw)["id"] in ("a", "b") for b in data.source.broken)
    assert len(data) + len(left_out) == data.source.rows == len(IDS)


def test_exact_copies_without_an_id_get_an_ordinal_even_beside_records_with_one(tmp_path: Path) -> None:
    for more in ([], [row(7, id="mine")]):
        data = read_dataset(write(tmp_path / "a.json", [json.dumps([row(1), row(2), row(1), *more, row(1)])]))
        first = data[0].id
        assert [r.id for r in data if r.response == "Answer 1."] == [first, f"{first}#2", f"{first}#3"]


def test_twenty_thousand_copies_of_one_record_are_told_apart_quickly(tmp_path: Path) -> None:
    data = read_dataset(write(tmp_path / "a.jsonl", [row(1)] * 20_000))
    assert len(set(data.ids())) == len(data) == 20_000
    assert data[-1].id.endswith("#20000")


def test_ids_are_texts_or_numbers_but_not_both(tmp_path: Path) -> None:
    assert [r.id for r in read_dataset(write(tmp_path / "a.jsonl", [row(1, id=7), row(2, id=8)]))] == ["7", "8"]
    assert "E209 b.jsonl:2" in refused(write(tmp_path / "b.jsonl", [row(1, id=7), row(2, id="7")]))


def test_ids_that_differ_in_case_form_or_spaces_are_different(tmp_path: Path) -> None:
    ids = ["é", "e\u0301", "É", "é ", "../../etc/passwd", "CON", "a\nb", "x" * 1024]
    data = read_dataset(write(tmp_path / "a.jsonl", [row(n, id=id) for n, id in enumerate(ids)]))
    assert [r.id for r in data] == ids
    assert [data.by_id(id).response for id in ids] == [f"Answer {n}." for n in range(len(ids))]


def test_preferences_are_read_as_pairs(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": f"Q{n}", "chosen": "A", "rejected": f"B{n}"} for n in range(3)])
    pairs = read_preferences(path)
    assert all(isinstance(pair, Preference) for pair in pairs)
    assert [(p.prompt[0].text, p.chosen.text, p.rejected.text) for p in pairs] == [
        (f"Q{n}", "A", f"B{n}") for n in range(3)
    ]
    assert [r.response for r in read_dataset(path)] == ["A"] * 3
    with pytest.raises(DataError, match="chosen"):
        read_preferences(write(tmp_path / "b.jsonl", [row(1)]))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesift import reading

    def slow(*how: Any) -> Any:
        state = os.stat(path)
        path.write_text(path.read_text().replace("Answer 1", "Answer 7"))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # neither its time nor its size gives it away
        return read_rows(*how)

    path = write(tmp_path / "a.jsonl", [row(1)])
    read_rows = reading.read_rows
    monkeypatch.setattr(reading, "read_rows", slow)
    assert refused(path).startswith(f"E118 {path}: the file changed while it was read")


def test_real_sets_are_read_whole(shared: Path) -> None:
    wanted = {
        "wizardlm/evol_instruct_1k.json": ("sharegpt", 485, 0), "multi_turn/sharegpt_zh.jsonl": ("sharegpt", 518, 4),
        "tool_use/glaive_toolcall_en_demo.json": ("sharegpt", 300, 0), "tool_use/reason_tool_use_demo_50.jsonl": ("messages", 50, 0),
        "preference/dpo_en_demo.json": ("preference", 300, 0), "preference/kto_en_demo.json": ("messages", 300, 0),
        "oasst/oasst_en_dialogue_pairs.json": ("preference", 511, 0), "math/gsm8k_train.jsonl": ("prompt-completion", 3736, 0),
        "vision/llamafactory/mllm_demo.json": ("messages", 6, 0), "vision/qwen_vl/single_images.json": ("sharegpt", 3, 0),
        "lima/lima.json": ("alpaca", 523, 0),
    }  # fmt: skip
    found = {}
    for name in wanted:
        source = read_dataset(shared / name).source
        assert source
        found[name] = (source.format, source.rows, len(source.broken))
    assert found == wanted
    (asked, _) = read_dataset(shared / "vision/qwen_vl/single_images.json")[0].messages
    assert asked.images == ("demo/images/10095.png",)
