"""A changed record goes back into the fields it came from, and nowhere else."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesift.formats import Format, parse_row, record_of
from tunesift.records import Message, Record, RowFault
from tunesift.rewriting import write_row

TOLD = [{"role": "user", "content": "Add 2 and 2.", "weight": 0}, {"role": "assistant", "content": "4", "weight": 1}]
PARTS = [
    {"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "Who?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "Nobody."}]},
]
VALUES = [
    {"role": "user", "content": [{"type": "text", "value": "Add 2 and 2."}]},
    {"role": "assistant", "content": [{"type": "reasoning", "value": "Hm."}, {"type": "text", "value": "4"}]},
]
SPOKEN = [{"from": "human", "value": "Add 2 and 2."}, {"from": "chatgpt", "value": "4", "model": "x"}]

SOURCES: dict[str, tuple[Format, dict[str, Any]]] = {
    "alpaca": ("alpaca", {"instruction": "Add.", "input": "2 and 2", "output": "4"}),
    "alpaca without input": ("alpaca", {"instruction": "Add 2 and 2.", "output": "4"}),
    "alpaca with empty input": ("alpaca", {"instruction": "Add 2 and 2.", "input": "", "output": "4"}),
    "alpaca with response": ("alpaca", {"instruction": "Add 2 and 2.", "input": None, "response": "4"}),
    "alpaca with history": ("alpaca", {
        "instruction": "And 3?", "input": "", "output": "6", "system": "Be brief.", "history": [["And 2?", "4"]],
    }),
    "sharegpt": ("sharegpt", {"conversations": SPOKEN, "lang": "en"}),
    "sharegpt with system": ("sharegpt", {"conversations": SPOKEN, "system": "Be brief."}),
    "sharegpt with system turn": ("sharegpt", {"conversations": [{"from": "system", "value": "Be brief."}, *SPOKEN]}),
    "messages": ("messages", {"messages": TOLD, "tools": []}),
    "messages in parts": ("messages", {"messages": PARTS}),
    "messages in other parts": ("messages", {"messages": VALUES}),
    "prompt": ("prompt-completion", {"prompt": "Add 2 and 2.", "completion": "4"}),
    "question": ("prompt-completion", {"question": "Add 2 and 2.", "answer": "4", "system": "Be brief."}),
    "prompt of messages": ("prompt-completion", {"prompt": TOLD[:1], "completion": TOLD[1:], "system": "Be brief."}),
    "prompt of messages, text": ("prompt-completion", {"prompt": TOLD[:1], "completion": "4"}),
    "preference": ("preference", {"prompt": "Add 2 and 2.", "chosen": "4", "rejected": "5", "margin": 1.5}),
    "preference of an instruction": ("preference", {"instruction": "Add.", "input": "2 and 2", "chosen": "4", "rejected": "5"}),
    "preference of messages": ("preference", {"prompt": TOLD[:1], "chosen": TOLD[1:], "rejected": TOLD[1:]}),
    "preference with its prompt inside": ("preference", {"chosen": TOLD, "rejected": [TOLD[0], {"role": "assistant", "content": "5"}]}),
    "preference of a conversation": ("preference", {
        "conversations": SPOKEN[:1], "chosen": SPOKEN[1], "rejected": {"from": "gpt", "value": "5"},
    }),
}  # fmt: skip
MORE = {"id": "r7", "note": {"kept": [1, None, "ü"]}}


def read(name: str) -> tuple[Record, dict[str, Any], Format]:
    format, fields = SOURCES[name]
    source = copy.deepcopy({**fields, **MORE})
    return record_of(parse_row(source, format)), source, format


def with_response(record: Record, text: str) -> Record:
    last = dataclasses.replace(record.messages[-1], text=text)
    return dataclasses.replace(record, id=f"{record.id}~response", messages=(*record.messages[:-1], last))


def with_instruction(record: Record, text: str) -> Record:
    asked = dataclasses.replace(record.messages[-2], text=text)
    return dataclasses.replace(record, messages=(*record.messages[:-2], asked, record.messages[-1]))


def changes(old: object, new: object, path: str = "") -> list[str]:
    """Where two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict) and old.keys() == new.keys():
        return [c for key in old for c in changes(old[key], new[key], f"{path}.{key}")]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [c for n in range(len(old)) for c in changes(old[n], new[n], f"{path}[{n}]")]
    return [] if old == new else [path]


@pytest.mark.parametrize("name", SOURCES)
def test_a_record_that_says_the_same_changes_nothing(name: str) -> None:
    record, source, format = read(name)
    assert write_row(record, source, format) == source


@pytest.mark.parametrize("name", SOURCES)
def test_a_new_response_changes_the_field_of_the_response_alone(name: str) -> None:
    record, source, format = read(name)
    row = write_row(with_response(record, "Four."), source, format)
    assert parse_row(row, format).messages[-1].text == "Four."
    changed = changes(source, row)
    wanted = {
        "alpaca": [".output"], "sharegpt": [".conversations[1].value"], "messages": [".messages[1].content"],
        "prompt": [".completion"], "question": [".answer"], "preference": [".chosen"],
        "alpaca with response": [".response"], "prompt of messages": [".completion[0].content"],
        "preference with its prompt inside": [".chosen[1].content"],
        "preference of a conversation": [".chosen.value"], "messages in parts": [".messages[1].content[0].text"],
    }  # fmt: skip
    assert len(changed) == 1
    assert changed == wanted.get(name, changed)


@pytest.mark.parametrize("name", SOURCES)
def test_a_new_instruction_changes_the_fields_of_the_instruction_alone(name: str) -> None:
    record, source, format = read(name)
    asked = with_instruction(record, "<image>What now?" if record.messages[-2].images else "What now?")
    row = write_row(asked, source, format)
    again = parse_row(row, format)
    assert again.messages == asked.messages
    old = parse_row(source, format)
    assert (again.rejected, again.own_id) == (old.rejected, old.own_id)
    assert row["note"] == MORE["note"]
    assert list(row) == list(source)


def test_an_input_stays_where_the_instruction_still_ends_with_it() -> None:
    record, source, format = read("alpaca")
    assert write_row(with_instruction(record, "Sum up.\n\n2 and 2"), source, format)["input"] == "2 and 2"
    row = write_row(with_instruction(record, "Add 2 and 2."), source, format)
    assert (row["instruction"], row["input"]) == ("Add 2 and 2.", "")


@pytest.mark.parametrize(
    "name", ["sharegpt", "sharegpt with system", "messages", "prompt of messages", "alpaca with history"]
)
def test_turns_can_be_added_and_taken_away(name: str) -> None:
    record, source, format = read(name)
    more = dataclasses.replace(
        record, messages=(*record.messages, Message("user", "Sure?"), Message("assistant", "Yes."))
    )
    row = write_row(more, source, format)
    assert parse_row(row, format).messages == more.messages
    fewer = dataclasses.replace(record, messages=tuple(m for m in record.messages if m.role != "system"))
    assert parse_row(write_row(fewer, source, format), format).messages == fewer.messages


def test_a_system_message_can_be_added() -> None:
    for name in ("alpaca", "sharegpt", "messages"):
        record, source, format = read(name)
        told = dataclasses.replace(record, messages=(Message("system", "Be brief."), *record.messages))
        assert parse_row(write_row(told, source, format), format).messages == told.messages


def test_new_turns_speak_the_words_of_the_old_ones() -> None:
    record, source, format = read("sharegpt")
    more = dataclasses.replace(
        record, messages=(*record.messages, Message("user", "Sure?"), Message("assistant", "Yes."))
    )
    assert write_row(more, source, format)["conversations"][2:] == [
        {"from": "human", "value": "Sure?"}, {"from": "chatgpt", "value": "Yes."},
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["prompt", "preference", "question"])
def test_what_has_no_place_in_the_fields_is_refused_and_not_lost(name: str) -> None:
    record, source, format = read(name)
    more = dataclasses.replace(
        record, messages=(*record.messages, Message("user", "Sure?"), Message("assistant", "Yes."))
    )
    with pytest.raises(RowFault, match="no place"):
        write_row(more, source, format)


def test_a_mark_that_loses_its_image_is_refused() -> None:
    record, source, format = read("messages in parts")
    with pytest.raises(RowFault, match="no place"):
        write_row(with_instruction(record, "Who?"), source, format)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SOURCES)), st.text(min_size=1), st.text())
def test_any_texts_come_back_as_they_were_written(name: str, asked: str, response: str) -> None:
    record, source, format = read(name)
    images = "<image>" * len(record.messages[-2].images)
    asked = images + (asked.replace("<image>", "") if asked.strip() else "x")
    new = with_response(with_instruction(record, asked), response)
    assert parse_row(write_row(new, source, format), format).messages == new.messages
