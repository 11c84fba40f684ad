"""Templates: each ends exactly where the response begins, and data goes into it to the letter."""

from __future__ import annotations

from typing import Any

import pytest

from tunesift import Message
from tunesift.prompts import context, fill

USER = (Message("user", "Translate."),)
WITH_INPUT = (Message("user", "Translate.\n\nGuten Tag"),)


def test_the_alpaca_template_is_the_public_one() -> None:
    assert context(USER, "alpaca") == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nTranslate.\n\n### Response:"
    )
    assert context(WITH_INPUT, "alpaca", "Guten Tag") == (
        "Below is an instruction that describes a task, paired with an input that provides further context. "
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nTranslate.\n\n### Input:\nGuten Tag\n\n### Response:"
    )


def test_the_bare_template_is_the_text_and_a_line_feed() -> None:
    assert context(USER, "bare") == "Translate.\n"
    assert context(WITH_INPUT, "bare", "Guten Tag") == "Translate.\nGuten Tag\n"


def test_the_chat_template_is_left_to_the_model() -> None:
    assert context(WITH_INPUT, "chat", "Guten Tag") == WITH_INPUT


@pytest.mark.parametrize("given", ["", "  \n"])
@pytest.mark.parametrize("template", ["alpaca", "bare"])
def test_an_input_of_white_space_is_no_input(template: Any, given: str) -> None:
    messages = (Message("user", f"Translate.\n\n{given}"),)
    assert "### Input:" not in str(context(messages, template, given))
    assert context(USER, template, given) == context(USER, template)


def test_an_input_that_the_instruction_does_not_end_with_is_no_part_of_the_text() -> None:
    assert context(USER, "bare", "elsewhere") == "Translate.\n"


def test_earlier_turns_stand_before_the_last_instruction() -> None:
    talk = (Message("system", "Be brief."), *USER, Message("assistant", "What?"), Message("user", "This."))
    assert context(talk, "bare") == "Be brief.\n\nTranslate.\n\nWhat?\n\nThis.\n"


@pytest.mark.parametrize("text", ["{instruction} {input} {0}", "{{braces}}", r"\1 \g<0> \n", "%s %(x)s"])
def test_signs_in_the_data_are_not_interpreted(text: str) -> None:
    assert context((Message("user", text),), "bare") == f"{text}\n"
    assert context((Message("user", f"{text}\n\n{text}"),), "bare", text) == f"{text}\n{text}\n"
    assert fill("<{a}|{b}>", a=text, b="{a}") == f"<{text}|{{a}}>"


def test_a_place_without_a_value_and_a_value_without_a_place_are_refused() -> None:
    with pytest.raises(KeyError, match="b"):
        fill("{a} {b}", a="x")
    with pytest.raises(ValueError, match="the template has no place for c, d"):
        fill("{a}", a="x", d="y", c="z")
