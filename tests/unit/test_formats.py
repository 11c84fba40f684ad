"""What the fields of a row mean, in each of the formats; and which rows are none of them."""

from __future__ import annotations

import base64
import json
from typing import Any, get_args

import pytest

from tunesift.formats import (
    MAX_TURNS,
    USES_TOOLS,
    Format,
    own_id,
    parse_row,
    preference_of,
    recognise,
    record_of,
)
from tunesift.records import Message, Record, RowFault
from tunesift.rewriting import write_row

Turn = tuple[str, str]

SYSTEM, ASK, SAY = ("system", "Be brief."), ("user", "What is 2 + 2?"), ("assistant", "4")
AGAIN, MORE = ("user", "And 3 + 3?"), ("assistant", "6")


def said(fields: dict[str, Any], format: Format | None = None) -> list[Turn]:
    """Roles and texts of a row, in the format that it is recognised as."""
    found = format or recognise(fields)
    assert found is not None
    return [(m.role, m.text) for m in parse_row(fields, found).messages]


def chat(*turns: Turn) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in turns]


def shared_gpt(*turns: Turn) -> list[dict[str, Any]]:
    words = {"user": "human", "assistant": "gpt"}
    return [{"from": words.get(role, role), "value": text} for role, text in turns]


SAME: dict[str, tuple[Format, dict[str, Any]]] = {
    "alpaca": ("alpaca", {"instruction": ASK[1], "input": "", "output": "4"}),
    "alpaca without input": ("alpaca", {"instruction": ASK[1], "output": "4"}),
    "alpaca with null": ("alpaca", {"instruction": ASK[1], "input": None, "output": "4", "history": None}),
    "alpaca with blank input": ("alpaca", {"instruction": ASK[1], "input": " \n", "output": "4"}),
    "alpaca with response": ("alpaca", {"instruction": ASK[1], "input": "", "response": "4"}),
    "sharegpt": ("sharegpt", {"conversations": shared_gpt(ASK, SAY)}),
    "sharegpt, one": ("sharegpt", {"conversation": shared_gpt(ASK, SAY)}),
    "sharegpt in chat words": ("sharegpt", {"conversations": chat(ASK, SAY)}),
    "messages": ("messages", {"messages": chat(ASK, SAY)}),
    "messages in parts": ("messages", {"messages": [
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "2 + 2?"}]},
        {"role": "assistant", "content": [{"type": "text", "value": "4"}]},
    ]}),
    "prompt and completion": ("prompt-completion", {"prompt": ASK[1], "completion": "4"}),
    "prompt and response": ("prompt-completion", {"prompt": ASK[1], "response": "4"}),
    "question and answer": ("prompt-completion", {"question": ASK[1], "answer": "4"}),
    "instruction and response": ("prompt-completion", {"instruction": ASK[1], "response": "4"}),
    "prompt of messages": ("prompt-completion", {"prompt": chat(ASK), "completion": chat(SAY)}),
    "prompt of messages, text": ("prompt-completion", {"prompt": chat(ASK), "completion": "4"}),
    "preference": ("preference", {"prompt": ASK[1], "chosen": "4", "rejected": "5"}),
    "preference of messages": ("preference", {"prompt": chat(ASK), "chosen": chat(SAY), "rejected": chat(MORE)}),
    "preference with its prompt inside": ("preference", {"chosen": chat(ASK, SAY), "rejected": chat(ASK, MORE)}),
    "preference of a conversation": ("preference", {
        "conversations": shared_gpt(ASK), "chosen": shared_gpt(SAY)[0], "rejected": shared_gpt(MORE)[0],
    }),
    "preference of an instruction": ("preference", {
        "instruction": ASK[1], "input": "", "chosen": "4", "rejected": "5",
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_every_format_is_recognised_and_says_the_same(name: str) -> None:
    format, fields = SAME[name]
    assert recognise(fields) == format
    assert said(fields) == [ASK, SAY]


@pytest.mark.parametrize("format", get_args(Format))
def test_a_format_can_be_forced(format: Format) -> None:
    everything = {key: value for _, fields in SAME.values() for key, value in fields.items()}
    everything |= {"chosen": "4", "rejected": "5", "conversations": shared_gpt(ASK)}
    everything |= {} if format == "preference" else {"conversations": shared_gpt(ASK, SAY)}
    assert said(everything, format) == [ASK, SAY]


@pytest.mark.parametrize("fields", [{}, {"text": "x"}, {"prompt": "x"}, {"output": "x"}, {"chosen": "x"}])
def test_other_fields_are_no_format_of_ours(fields: dict[str, Any]) -> None:
    assert recognise(fields) is None


def test_an_input_stands_below_its_instruction_and_stays_at_hand_for_templates() -> None:
    fields = {"instruction": "Add.", "input": "2 + 2", "output": "4"}
    assert said(fields) == [("user", "Add.\n\n2 + 2"), SAY]
    assert parse_row(fields, "alpaca").extra == {"input": "2 + 2"}
    pair = {"instruction": "Add.", "input": "2 + 2", "chosen": "4", "rejected": "5"}
    assert said(pair) == [("user", "Add.\n\n2 + 2"), SAY]
    assert parse_row(pair, "preference").extra == {"input": "2 + 2"}


def test_alpaca_may_have_a_system_message_and_a_history() -> None:
    fields = {"instruction": AGAIN[1], "output": "6", "system": SYSTEM[1], "history": [[ASK[1], "4"]]}
    assert said(fields) == [SYSTEM, ASK, SAY, AGAIN, MORE]


def test_conversations_may_have_a_system_message_in_a_field_or_as_their_first_turn() -> None:
    assert said({"conversations": shared_gpt(ASK, SAY), "system": SYSTEM[1]}) == [SYSTEM, ASK, SAY]
    assert said({"conversations": shared_gpt(SYSTEM, ASK, SAY), "system": "  "}) == [SYSTEM, ASK, SAY]
    assert said({"messages": [{"role": "developer", "content": "Be brief."}, *chat(ASK, SAY)]}) == [SYSTEM, ASK, SAY]
    assert said({"prompt": ASK[1], "completion": "4", "system": SYSTEM[1]}) == [SYSTEM, ASK, SAY]


def test_tool_calls_are_said_by_the_assistant_and_their_results_by_the_user() -> None:
    call, result = '{"name": "add", "arguments": [2, 2]}', "4.0"
    turns = shared_gpt(ASK, ("function_call", call), ("observation", result), SAY)
    fields = {"conversations": turns, "tools": "[...]"}
    assert said(fields) == [ASK, ("assistant", call), ("user", result), SAY]
    assert parse_row(fields, "sharegpt").extra == {"tools": "[...]", USES_TOOLS: True}


@pytest.mark.parametrize("content", [None, ""])
def test_a_message_of_tool_calls_alone_says_them(content: str | None) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "add", "arguments": "[2, 2]"}}]
    two_at_once = [{"role": "tool", "content": "4"}, {"role": "tool", "content": "4.0"}]
    turns = [*chat(ASK), {"role": "assistant", "content": content, "tool_calls": calls}, *two_at_once, *chat(SAY)]
    roles = said({"messages": turns, "tools": []})
    assert [role for role, _ in roles] == ["user", "assistant", "user", "user", "assistant"]
    assert json.loads(roles[1][1]) == calls


def test_reasoning_and_tool_calls_may_be_parts_of_a_message() -> None:
    parts = [{"type": "reasoning", "value": "Two and two."}, {"type": "tool_call", "value": "add(2, 2)"}]
    assert said({"messages": [*chat(ASK), {"role": "assistant", "content": parts}]})[1] == (
        "assistant", "Two and two.add(2, 2)",
    )  # fmt: skip


def test_marks_take_images_from_the_column_in_order() -> None:
    turns = chat(
        ("user", "<image>Who?<image>"), ("assistant", "Two."), ("user", "And <image>?"), ("assistant", "Three.")
    )
    messages = parse_row({"messages": turns, "images": ["1.jpg", "2.jpg", "3.jpg"]}, "messages").messages
    assert [m.images for m in messages] == [("1.jpg", "2.jpg"), (), ("3.jpg",), ()]


@pytest.mark.parametrize("given", ["1.jpg", ["1.jpg"], {"path": "1.jpg", "bytes": None}, [{"path": "1.jpg"}]])
@pytest.mark.parametrize(
    ("format", "fields"),
    [
        ("alpaca", {"instruction": "Who is <image>?", "output": "Two."}),
        ("prompt-completion", {"question": "Who is <image>?", "answer": "Two."}),
        ("sharegpt", {"conversations": [{"from": "human", "value": "Who is <image>?"}, {"from": "gpt", "value": "Two."}]}),
        ("messages", {"messages": chat(("user", "Who is <image>?"), ("assistant", "Two."))}),
        ("preference", {"prompt": "Who is <image>?", "chosen": "Two.", "rejected": "One."}),
    ],
)  # fmt: skip
def test_an_image_column_of_one_is_read_as_one_of_several(format: Format, fields: dict[str, Any], given: Any) -> None:
    parsed = parse_row({**fields, "image": given}, format)
    assert [m.images for m in parsed.messages] == [("1.jpg",), ()]
    assert "image" not in parsed.extra
    for nothing in (None, "", []):
        assert [m.images for m in parse_row({**fields, "image": nothing}, format).messages] == [(), ()]


PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==")
"""A PNG file of one point."""
AS_URI = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"


@pytest.mark.parametrize("content", [PIXEL, base64.b64encode(PIXEL).decode()], ids=["bytes", "base64"])
def test_an_image_that_the_row_itself_holds_becomes_a_data_uri(content: bytes | str) -> None:
    held = {"bytes": content, "path": "only-a-name.png"}
    row = {"instruction": "<image>?", "output": "A point."}
    for column in ({"image": held}, {"images": [held]}):
        assert parse_row({**row, **column}, "alpaca").messages[0].images == (AS_URI,)
    for part in ({"type": "image", **held}, {"type": "image", "image": held}):
        turns = [{"role": "user", "content": [part, {"type": "text", "text": "?"}]}, *chat(SAY)]
        assert parse_row({"messages": turns}, "messages").messages[0].images == (AS_URI,)


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF89a", "gif"), (b"BM", "bmp"), (b"II*\0", "tiff"), (b"MM\0*", "tiff"),
     (b"RIFF....WEBP", "webp")],
)  # fmt: skip
def test_the_kind_of_an_image_is_read_off_its_bytes(content: bytes, kind: str) -> None:
    row = {"instruction": "<image>?", "output": "y", "image": {"bytes": content, "path": "x.png"}}
    assert parse_row(row, "alpaca").messages[0].images[0].startswith(f"data:image/{kind};base64,")


def test_image_parts_keep_their_paths_and_leave_a_mark() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "1.png"}},
        {"type": "text", "text": "Who?"},
        {"type": "image", "path": "2.png"},
    ]
    messages = parse_row({"messages": [{"role": "user", "content": parts}, *chat(SAY)]}, "messages").messages
    assert messages[0] == Message("user", "<image>Who?<image>", ("1.png", "2.png"))


def test_fields_that_are_not_read_are_kept_aside() -> None:
    for format, fields in SAME.values():
        more = {**fields, "source": "x", "score": [1, {"a": None}], "id": "r1"}
        parsed = parse_row(more, format)
        assert parsed.own_id == "r1"
        assert {k: v for k, v in parsed.extra.items() if k != "input"} == {"source": "x", "score": [1, {"a": None}]}


def test_a_preference_has_both_answers_and_as_a_record_the_chosen_one() -> None:
    parsed = parse_row({"prompt": ASK[1], "chosen": "4", "rejected": "5", "margin": 2}, "preference")
    pair, record = preference_of(parsed), record_of(parsed)
    assert (pair.prompt, pair.chosen.text, pair.rejected.text) == (record.prompt, "4", "5")
    assert record.response == "4"
    assert pair.id == record.id
    assert (pair.margin, pair.extra, record.extra) == (2.0, {}, {"margin": 2})
    other = record_of(parse_row({"prompt": ASK[1], "chosen": "4", "rejected": "6"}, "preference"))
    assert other.id != record.id, "two pairs differ though their chosen answers are the same"
    with pytest.raises(RowFault, match="rejected"):
        preference_of(parse_row({"prompt": "x", "completion": "y"}, "prompt-completion"))


def test_an_id_is_the_files_own_or_a_digest_of_the_messages() -> None:
    row = {"instruction": "a", "output": "b"}
    made = record_of(parse_row(row, "alpaca")).id
    assert len(made) == 16
    assert made == record_of(parse_row({**row, "more": 1, "input": ""}, "alpaca")).id
    assert made == record_of(parse_row({"messages": chat(("user", "a"), ("assistant", "b"))}, "messages")).id
    assert made != record_of(parse_row({**row, "output": "c"}, "alpaca")).id
    assert [own_id({"id": value}) for value in ("x", 7, None)] == ["x", "7", None]


@pytest.mark.parametrize("value", ["", "x" * 1025, "ü" * 513, True, 1.0, [1], {}])
def test_an_odd_id_is_refused(value: object) -> None:
    with pytest.raises(RowFault, match="id") as caught:
        own_id({"id": value})
    assert caught.value.code == "E210"


FAULTS: list[tuple[Format, dict[str, Any], str, str]] = [
    ("alpaca", {"output": "x"}, "E201", 'no "instruction"; its fields are output'),
    ("alpaca", {"instruction": "x", "text": "y"}, "E201", 'neither "output" nor "response"; its fields are instruction'),
    ("alpaca", {"instruction": None, "output": "x"}, "E202", "null"),
    ("alpaca", {"instruction": "x", "output": 7}, "E202", "a number"),
    ("alpaca", {"instruction": ["x"], "output": "y"}, "E202", "a list"),
    ("alpaca", {"instruction": {"x": 1}, "output": "y"}, "E202", "an object"),
    ("alpaca", {"instruction": True, "output": "y"}, "E202", "true or false"),
    ("alpaca", {"instruction": " \n", "output": "y"}, "E203", "instruction is empty"),
    ("alpaca", {"instruction": "x", "output": "y", "history": 5}, "E202", "history"),
    ("alpaca", {"instruction": "x", "output": "y", "history": [["a"]]}, "E202", "history"),
    ("alpaca", {"instruction": "x", "output": "y", "history": {"a": "b"}}, "E202", "history"),
    ("alpaca", {"instruction": "x", "output": "y", "images": "a.png"}, "E205", "images"),
    ("alpaca", {"instruction": "<image>x", "output": "y", "images": ["a.png", "b.png"]}, "E205", "1 more"),
    ("alpaca", {"instruction": "x <image>", "output": "y", "image": ["a.png", "b.png"]}, "E205", '"image" has 1 more'),
    ("alpaca", {"instruction": "<image>", "output": "y", "image": "a", "images": ["b"]}, "E205", "keep one of the two"),
    ("alpaca", {"instruction": "<image>", "output": "y", "image": 7}, "E205", "without a path"),
    ("alpaca", {"instruction": "<image>", "output": "y", "image": {"path": None}}, "E205", "without a path"),
    ("alpaca", {"instruction": "<image>", "output": "y", "image": {"bytes": "no!"}}, "E205", "nor base64"),
    ("alpaca", {"instruction": "<image>", "output": "y", "image": {"bytes": [1]}}, "E205", "neither bytes"),
    ("alpaca", {"instruction": "<image>", "output": "y", "image": {"bytes": b"<svg>"}}, "E407", "no kind that is read"),
    ("messages", {"messages": []}, "E203", "no messages"),
    ("messages", {"messages": "x"}, "E202", "a text"),
    ("messages", {"messages": ["x"]}, "E202", "messages[0]"),
    ("messages", {"messages": [{"role": "narrator", "content": "x"}]}, "E204", "narrator"),
    ("messages", {"messages": [{"role": ["user"], "content": "x"}]}, "E204", "role"),
    ("messages", {"messages": [{"content": "x"}]}, "E204", "None"),
    ("messages", {"messages": [{"role": "user", "content": None}]}, "E202", "null"),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "E202", "part"),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "image"}]}, *chat(SAY)]}, "E205", "image"),
    ("messages", {"messages": chat(SAY)}, "E203", "empty"),
    ("messages", {"messages": chat(SAY, ASK, MORE)}, "E204", "begins with the assistant"),
    ("messages", {"messages": chat(ASK, AGAIN, SAY)}, "E204", "two user messages"),
    ("messages", {"messages": chat(ASK, SAY, MORE)}, "E204", "two assistant messages"),
    ("messages", {"messages": chat(ASK)}, "E201", "does not end with a response"),
    ("messages", {"messages": chat(*[ASK, SAY] * (MAX_TURNS // 2 + 1))}, "E403", "1002"),
    ("sharegpt", {"messages": chat(ASK, SAY)}, "E201", 'no "conversation"'),
    ("prompt-completion", {"prompt": "x"}, "E201", "completion"),
    ("prompt-completion", {"prompt": 5, "completion": "x"}, "E202", "a number"),
    ("preference", {"prompt": "x", "chosen": "y", "rejected": None}, "E202", "rejected"),
    ("preference", {"chosen": "y", "rejected": "z"}, "E201", "prompt"),
    ("preference", {"prompt": "x", "chosen": chat(SAY, AGAIN, MORE), "rejected": chat(SAY)}, "E204", "one answer"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "fields", "code", "said"), FAULTS)
def test_a_row_that_makes_no_record_says_why(format: Format, fields: dict[str, Any], code: str, said: str) -> None:
    with pytest.raises(RowFault) as caught:
        parse_row(fields, format)
    assert caught.value.code == code
    assert said in caught.value.message


def test_what_a_message_quotes_is_short_and_escaped() -> None:
    evil = "\x1b[31m\u202e\n" + "x" * 500
    for fields in ({evil: 1}, {"messages": [{"role": evil, "content": "x"}]}):
        with pytest.raises(RowFault) as caught:
            parse_row(fields, "messages")
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 200


def test_dollys_context_is_what_its_instruction_is_about() -> None:
    row = {"instruction": "When?", "context": "In 1999.", "response": "1999.", "category": "closed_qa"}
    assert recognise(row) == "alpaca"
    assert [m.text for m in parse_row(row, "alpaca").messages] == ["When?\n\nIn 1999.", "1999."]
    empty = {**row, "context": ""}
    assert [m.text for m in parse_row(empty, "alpaca").messages] == ["When?", "1999."]
    changed = Record("x", (Message("user", "Which year?\n\nIn 1999."), Message("assistant", "1999.")))
    assert write_row(changed, row, "alpaca") == {**row, "instruction": "Which year?"}
    other = Record("x", (Message("user", "Why?"), Message("assistant", "So.")))
    assert write_row(other, row, "alpaca") == {**row, "instruction": "Why?", "context": "", "response": "So."}
