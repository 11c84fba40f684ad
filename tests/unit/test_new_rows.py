"""Records that were never a row: written in a format, read back as they are; and prompts that are a text alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesift import CannotCreate, DataError, Message, Record, read_dataset
from tunesift.formats import Format
from tunesift.writing import write_new

SINGLE = Record(
    "n1", (Message("user", "Why do leaves fall?"), Message("assistant", "Abscission.")), {"topic": "Botany"}
)
TURNS = Record("n2", (Message("user", "One?"), Message("assistant", "=1"), Message("user", "Two?"),
                      Message("assistant", "2\n\n3")))  # fmt: skip
SYSTEM = Record("n3", (Message("system", "Be short."), Message("user", "Q"), Message("assistant", "A")))


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
@pytest.mark.parametrize("format", ["alpaca", "sharegpt", "messages"])
def test_new_rows_are_read_back_as_the_records_they_were_written_from(
    tmp_path: Path, format: Format, ending: str
) -> None:
    path = tmp_path / f"new{ending}"
    write_new([SINGLE, TURNS], path, format)
    read = read_dataset(path)
    assert read.source is not None
    assert read.source.format == format
    assert [(r.id, r.messages) for r in read] == [(r.id, r.messages) for r in (SINGLE, TURNS)]
    assert read[0].extra["topic"] == "Botany"


def test_new_rows_of_a_table_are_read_back(tmp_path: Path) -> None:
    write_new([SINGLE], tmp_path / "new.csv", "prompt-completion")
    (read,) = read_dataset(tmp_path / "new.csv")
    assert (read.id, read.messages) == (SINGLE.id, SINGLE.messages)


def test_a_system_message_goes_into_the_field_of_its_format(tmp_path: Path) -> None:
    write_new([SYSTEM], tmp_path / "new.json", "alpaca")
    (row,) = json.loads((tmp_path / "new.json").read_text())
    assert row == {"id": "n3", "instruction": "Q", "input": "", "output": "A", "system": "Be short."}


def test_a_further_field_never_takes_the_place_of_the_format_s_own(tmp_path: Path) -> None:
    odd = Record("n4", SINGLE.messages, {"output": "not the answer", "instruction": 7, "more": [1]})
    write_new([odd], tmp_path / "new.json", "alpaca")
    (row,) = json.loads((tmp_path / "new.json").read_text())
    assert row == {"id": "n4", "instruction": "Why do leaves fall?", "input": "", "output": "Abscission.", "more": [1]}


def test_what_a_format_has_no_place_for_is_refused_and_no_file_is_left(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='"n2" cannot be written as prompt-completion'):
        write_new([SINGLE, TURNS], tmp_path / "new.jsonl", "prompt-completion")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CannotCreate):
        write_new([SINGLE], Path("/proc/new.jsonl"), "alpaca")


TOPICS = ["We should ban the use of child actors", "Are the Olympics worth it?"]


@pytest.mark.parametrize(("name", "text"), [
    ("t.json", json.dumps(TOPICS)), ("t.json", json.dumps(TOPICS, indent=4)),
    ("t.jsonl", "\n".join(map(json.dumps, TOPICS))), ("t.jsonl", "\n".join(json.dumps({"topic": t}) for t in TOPICS)),
    ("t.csv", "topic\n" + "\n".join(TOPICS)), ("t.jsonl", "\n".join(json.dumps({"prompt": t}) for t in TOPICS)),
])  # fmt: skip
def test_a_text_alone_is_a_prompt_where_prompts_are_read(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert [r.messages for r in read_dataset(tmp_path / name, prompts=True)] == [(Message("user", t),) for t in TOPICS]


def test_a_topic_beside_a_prompt_is_a_further_field_and_a_text_is_no_record_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"prompt": "Why?", "topic": "causes"}\n')
    (read,) = read_dataset(tmp_path / "t.jsonl", prompts=True)
    assert read.messages == (Message("user", "Why?"),)
    assert read.extra == {"topic": "causes"}
    (tmp_path / "t.json").write_text('["Why?"]')
    with pytest.raises(DataError, match="a record is a JSON object, not a text"):
        read_dataset(tmp_path / "t.json")


def test_an_empty_topic_is_set_aside_and_one_that_comes_twice_gets_an_ordinal(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps([TOPICS[0], "", 7, None, *TOPICS]))
    read = read_dataset(tmp_path / "t.json", prompts=True)
    assert [r.messages[0].text for r in read] == [TOPICS[0], *TOPICS]
    assert read[1].id == f"{read[0].id}#2"
    assert read.source is not None
    assert [b.message for b in read.source.broken] == [
        "the instruction is empty", "a record is a JSON object, not a number", "a record is a JSON object, not null",
    ]  # fmt: skip
