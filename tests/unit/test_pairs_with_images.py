"""Preference pairs with images: written to every kind of file and read back equal, an answer's `<image>` is text, and no
further field is read as a part of the prompt."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tunesift import Dataset, Message, Preference, Record, read_dataset, read_preferences
from tunesift.records import RowFault
from tunesift.rewriting import pair_row
from tunesift.writing import write_new

ASK = Message("user", "Which is it,\n\"a\" or 'b'?", ("a.png", "b/ü.png"))
SYSTEM = Message("system", "Be brief.")
YES, NO = Message("assistant", "=It is a."), Message("assistant", "No,\tb.")
EXTRA: dict[str, object] = {
    "order": ["sampled-first", "greedy-first"], "verdict_raw": ["[[1]]", "[[2]]"], "note": "+7", "tags": {"deep": [1, None]},
    "instruction": "Answer.", "question": "What?", "input": "This.", "conversation": "c", "messages": "m", "history": "h",
}  # fmt: skip
PAIRS = [
    Preference("a", (SYSTEM, ASK), YES, NO, 1.5, EXTRA),
    Preference("b", (ASK, YES, Message("user", "And now?")), NO, YES, -2.0, EXTRA),
    Preference("c", (ASK,), Message("assistant", "<image> is it."), Message("assistant", "It is <image>."), 0.0, EXTRA),
    Preference("d", (replace(ASK, text="<image>Or<image>?"),), Message("assistant", "<image>"), NO, 1.0, EXTRA),
]
ENDINGS = ("jsonl", "json", "jsonl.gz", "json.zst", "csv", "tsv", "csv.gz", "parquet")


def as_cells(pair: Preference) -> Preference:
    """A pair as a table's cells have it: what is no text is its JSON, and before what a spreadsheet runs stands a `'`."""
    cells = {name: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for name, v in pair.extra.items()}
    return replace(pair, extra={**cells, "note": "'+7"})


@pytest.mark.parametrize("ending", ENDINGS)
def test_pairs_come_back_equal_from_every_kind_of_file(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"pairs.{ending}"
    write_new(PAIRS, path, "preference")
    expected = [as_cells(pair) for pair in PAIRS] if ending[1:3] == "sv" else PAIRS
    assert list(read_preferences(path)) == expected


@pytest.mark.parametrize("ending", ENDINGS)
def test_of_pairs_some_may_have_a_margin_or_images_and_others_none(tmp_path: Path, ending: str) -> None:
    text = Preference("t", (Message("user", "Is it?"),), YES, NO)
    pairs = [replace(PAIRS[0], extra={}), text, replace(text, id="u", margin=0.25)]
    path = tmp_path / f"pairs.{ending}"
    write_new(pairs, path, "preference")
    assert list(read_preferences(path)) == pairs


@pytest.mark.parametrize("name", ["conversations", "system", "image", "images"])
def test_a_further_field_that_would_be_read_as_the_prompt_is_not_written(name: str) -> None:
    given = Preference(
        "p", (ASK,), YES, NO, extra={name: "x" if name == "system" else [{"from": "human"}], "note": "n"}
    )
    row = pair_row(given)
    assert row.get(name) == (["a.png", "b/ü.png"] if name == "images" else None)
    assert row["note"] == "n"


def read_one(tmp_path: Path, row: dict[str, Any]) -> Record:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"id": "r", **row}) + "\n", "utf-8")
    (record,) = read_dataset(path)
    return record


def turns(asked: str, said: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]


@pytest.mark.parametrize("asked", ["What is it?", "<image>What is it?"])
def test_an_answer_that_says_image_leaves_the_image_with_the_question(tmp_path: Path, asked: str) -> None:
    record = read_one(tmp_path, {"messages": turns(asked, "An <image> it is."), "images": ["a.png"]})
    assert [message.images for message in record.messages] == [("a.png",), ()]


def test_an_answer_has_the_images_that_the_questions_marks_leave_over(tmp_path: Path) -> None:
    record = read_one(tmp_path, {"messages": turns("<image>Draw it.", "<image>"), "images": ["a.png", "b.png"]})
    assert [message.images for message in record.messages] == [("a.png",), ("b.png",)]


def test_more_images_than_marks_are_refused_as_before(tmp_path: Path) -> None:
    from tunesift.formats import parse_row

    with pytest.raises(RowFault, match='"images" has 1 more than the conversation has <image> marks'):
        parse_row({"messages": turns("<image>?", "A."), "images": ["a.png", "b.png"]}, "messages")
    pair = {"prompt": "<image>?", "chosen": "<image>", "rejected": "B.", "images": ["a.png", "b.png"]}
    with pytest.raises(RowFault, match='"images" has 1 more than the conversation has <image> marks'):
        parse_row(pair, "preference")


def test_pairs_on_a_disk_and_in_memory_are_the_same() -> None:
    assert list(Dataset.of(PAIRS)) == PAIRS
