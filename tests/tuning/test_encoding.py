"""Is what is trained on just what the model sees when it is asked, as TRL would have it, with the loss on the response?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.tiny import MakeTiny
from harness.training import record, student
from tunesift import Message, Record
from tunesift.errors import ModelRefused
from tunesift.formats import USES_TOOLS
from tunesift.models.folders import tokenizer
from tunesift.models.turns import Encoded, Encoder
from tunesift.records import Failure

ROWS = [
    record("a", "What is the tin?", "The inner the."),
    record("b", "Say {{ nothing }}\n\nin two lines", "one\ntwo"),
    Record("c", (Message("system", "Be short."), Message("user", "Hi"), Message("assistant", "Hello the tin")), {}),
    Record("d", (Message("user", "One"), Message("assistant", "Two"), Message("user", "Three"),
                 Message("assistant", "Four")), {}),
    record("e", "Naïve – 東京?", "はい、東京です。"),
]  # fmt: skip


def encoded(folder: Path, row: Record, template: Any = "chat") -> Encoded:
    found = Encoder(tokenizer(str(folder)), template)(row)
    assert isinstance(found, Encoded)
    return found


@pytest.mark.parametrize("row", ROWS, ids=[r.id for r in ROWS])
def test_a_conversation_has_the_tokens_and_labels_that_trl_gives_it(make_tiny: MakeTiny, row: Record) -> None:
    utils = pytest.importorskip("trl.trainer.sft_trainer", reason='needs the "train" extra')
    folder = student(make_tiny)
    turns = [{"role": m.role, "content": m.text} for m in row.messages]
    reader = tokenizer(str(folder))
    prompt = utils._tokenize(reader, turns[:-1], add_generation_prompt=True)["input_ids"]
    whole = utils._tokenize(reader, turns)["input_ids"]
    ours = encoded(folder, row)
    assert list(ours.ids) == list(whole)
    assert ours.start == utils.common_prefix_length(prompt, whole) == len(prompt)


def test_the_alpaca_template_ends_with_eos_and_the_response_begins_right_behind_it(make_tiny: MakeTiny) -> None:
    folder = student(make_tiny)
    row = record("a", "Add.\n\n2 and 3", "5 in the tin")
    found = encoded(folder, Record(row.id, row.messages, {"input": "2 and 3"}), "alpaca")
    reader = tokenizer(str(folder))
    assert reader.decode(found.ids[: found.start]).endswith("### Input:\n2 and 3\n\n### Response:")
    assert reader.decode(found.ids[found.start :]) == "5 in the tin</s>"
    assert found.ids[0] == reader.bos_token_id


def test_a_template_that_puts_nothing_behind_a_response_gets_eos_so_that_it_ends(make_tiny: MakeTiny) -> None:
    folder = student(make_tiny, "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}{% endfor %}"
                                "{% if add_generation_prompt %}[assistant]{% endif %}")  # fmt: skip
    found = encoded(folder, ROWS[0])
    assert tokenizer(str(folder)).decode(found.ids[found.start :]) == "The inner the.</s>"


def test_a_response_that_names_a_special_token_stays_text(make_tiny: MakeTiny) -> None:
    folder = student(make_tiny)
    found = encoded(folder, record("a", "Say it.", "It is </s> here"))
    reader = tokenizer(str(folder))
    assert list(found.ids[found.start :]).count(reader.eos_token_id) == 1
    assert reader.decode(found.ids[found.start :]) == "It is </s> here</s>\n"


@pytest.mark.parametrize(("row", "kind"), [
    (record("a", "Hi", "  \n"), "empty"),
    (Record("b", (Message("user", "Look", ("x.png",)), Message("assistant", "Yes"))), "refused"),
    (Record("c", (Message("user", "Hi"), Message("assistant", "Yes")), {"tools": "[{}]"}), "refused"),
    (Record("d", (Message("user", "Hi"), Message("assistant", "Yes")), {USES_TOOLS: True}), "refused"),
])  # fmt: skip
def test_what_cannot_be_trained_on_is_a_failure(make_tiny: MakeTiny, row: Record, kind: str) -> None:
    found = Encoder(tokenizer(str(student(make_tiny))), "chat")(row)
    assert isinstance(found, Failure)
    assert found.kind == kind


def test_a_missing_chat_template_is_a_sentence_with_the_way_out(make_tiny: MakeTiny) -> None:
    folder = student(make_tiny, None)
    with pytest.raises(
        ModelRefused, match="has no chat template; give one that has, or set template to alpaca or bare"
    ):
        Encoder(tokenizer(str(folder)), "chat")
    assert encoded(folder, ROWS[0], "alpaca").start > 0


def test_a_template_that_hides_the_response_or_renders_nothing_is_refused(make_tiny: MakeTiny) -> None:
    hides = student(
        make_tiny, "{% for m in messages %}{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    with pytest.raises(ModelRefused, match="does not show the response"):
        Encoder(tokenizer(str(hides)), "chat")
    fails = student(make_tiny, "{{ raise_exception('no') }}")
    with pytest.raises(ModelRefused, match="renders no conversation"):
        Encoder(tokenizer(str(fails)), "chat")


def test_without_an_eos_token_a_response_would_never_end(make_tiny: MakeTiny) -> None:
    folder = student(make_tiny)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "eos_token"}))
    with pytest.raises(ModelRefused, match="has no EOS token"):
        Encoder(tokenizer(str(folder)), "alpaca")
