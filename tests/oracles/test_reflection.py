"""Reflection-Tuning held against its card: the table of replies, the invariants, the number of calls."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from tunesift import (
    Asking,
    Completion,
    Dataset,
    Failure,
    Local,
    Message,
    Record,
    Reflection,
    Run,
    Sampling,
    ScriptedModel,
    run_recipe,
)
from tunesift.methods.reflection_reading import Rewritten, checked, read_answer, read_pair, refuses
from tunesift.recipe import check
from tunesift.running.result import Result

PAIRS = "[New Instruction] Which rivers meet at {0}? [End]\n3. [New Answer] At {0} two rivers meet. [End]"


def said(text: str, stop: Literal["stop", "length"] = "stop") -> Completion:
    return Completion(text, stop, 1)


def record(id: str, instruction: str = "Name a river.", response: str = "The Rhine.", **extra: object) -> Record:
    return Record(id, (Message("user", instruction), Message("assistant", response)), extra)


# --- the card's table: completion, and what ours must give -----------------------------------------------------------

ANSWERS = {
    "a whole sentence with the word Endangered":
        (said("[Better Answer] Pandas are Endangered no longer. [End]"), Rewritten("Pandas are Endangered no longer.")),
    "cut at the token limit":
        (said("[Better Answer] Pandas live in Chi", "length"), Failure("too-long", "truncated")),
    "a mark that is talked about first":
        (said("I will use [Better Answer] x [End].\n[Better Answer] Real text. [End]"), Rewritten("Real text.")),
    "a mark in lower case":
        (said("[better answer] ok [End]"), Rewritten("ok")),
    "words that are placeholders elsewhere":
        (said("[Better Answer] Put your answer in a table; use N/A for gaps. [End]"),
         Rewritten("Put your answer in a table; use N/A for gaps.")),
    "a plain refusal":
        (said("I'm sorry, but I cannot help with that."), Failure("unreadable", "no_marker")),
    "no end, but the model ended by itself":
        (said("**Better Answer:** It is 4."), Rewritten("It is 4.", closed=False)),
    "nothing between the marks":
        (said("[Better Answer] [End]"), Failure("empty", "empty")),
    "the placeholder itself":
        (said("[Better Answer] your answer [End]"), Failure("empty", "placeholder")),
    "thought aloud before":
        (said("<think>[Better Answer] no [End]</think>[Better Answer] yes [End]"), Rewritten("yes")),
    "another mark inside the body":
        (said("[Better Answer] First.\n[New Instruction] Second. [End]"), Failure("unreadable", "marker_inside")),
    "cut in an answer that holds an end of its own":
        (said("[Better Answer] In ABNF, [End] closes a rule. Then mo", "length"), Failure("too-long", "truncated")),
    "cut just after its end":
        (said("[Better Answer] Whole. [End]\n", "length"), Rewritten("Whole.")),
    "a line that looks like a mark, under a mark in brackets":
        (said("[Better Answer] Here is a list.\n\nBetter answer: a dog [End]"), Failure("unreadable", "marker_inside")),
}  # fmt: skip

PAIRED = {
    "marks with colons, and a dangling number":
        (said("1. Weak.\n2. New Instruction: Compare A and B.\n3. New Answer: A is N/A here. [End]"),
         Rewritten("A is N/A here.", "Compare A and B.")),
    "the same after an ellipsis, as the card prints it":
        (said("…New Instruction: Compare A and B.\n3. New Answer: A is N/A here. [End]"),
         Rewritten("A is N/A here.", "Compare A and B.")),
    "marks in bold, and no end":
        (said("2. **New Instruction** Compare A and B.\n**New Answer** text"),
         Rewritten("text", "Compare A and B.", closed=False)),
    "an instruction without an answer":
        (said("[New Instruction] Compare A and B. [End]\n(cut off)"), Failure("unreadable", "no_marker")),
    "an end inside the answer":
        (said("[New Instruction] Explain the tag. [End] 3. [New Answer] In ABNF, [End] closes a rule. Then more. [End]"),
         Rewritten("In ABNF, [End] closes a rule. Then more.", "Explain the tag.")),
    "an answer without an instruction":
        (said("[New Answer] A. [End]"), Failure("unreadable", "no_marker")),
    "the prompt repeated":
        (said("[New Instruction] your instruction [End]\n[New Answer] your answer [End]"),
         Failure("empty", "placeholder")),
    "both, cut in the answer":
        (said("[New Instruction] Why? [End]\n[New Answer] Because of", "length"), Failure("too-long", "truncated")),
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_replies_with_an_answer_are_read_as_the_card_has_it(name: str) -> None:
    completion, expected = ANSWERS[name]
    assert read_answer(completion) == expected


@pytest.mark.parametrize("name", PAIRED)
def test_replies_with_a_pair_are_read_as_the_card_has_it(name: str) -> None:
    completion, expected = PAIRED[name]
    assert read_pair(completion) == expected


def test_what_the_published_code_reads_differs_where_the_card_says_so() -> None:
    """Its rules in few lines: the first mark, up to the first "End"; a text that these would pass proves nothing."""

    def published(text: str) -> str:
        return re.split(r"\[End\]|End", text.split("[Better Answer]")[1])[0].strip()

    cut = ANSWERS["a whole sentence with the word Endangered"][0].text
    assert published(cut) == "Pandas are"
    assert published(ANSWERS["cut at the token limit"][0].text) == "Pandas live in Chi"
    assert published(ANSWERS["a mark that is talked about first"][0].text) == "x"


@pytest.mark.parametrize("dots", ["*" * 200_000, "\n" * 200_000, "[" * 200_000, "[New Answer" * 15_000, "1. " * 40_000])
def test_a_reply_of_any_kind_is_read_in_time_that_grows_with_its_length(dots: str) -> None:
    import time

    began = time.perf_counter()
    assert isinstance(read_pair(said(dots[: 2**17])), Failure)
    assert time.perf_counter() - began < 2


# --- checks on what was read -----------------------------------------------------------------------------------------

GERMAN = "Der Rhein entspringt in den Schweizer Alpen und fließt nach vielen Windungen in die Nordsee."
ENGLISH = "The Rhine rises in the Swiss Alps and flows after many bends into the North Sea, through six countries."
CHINESE = "莱茵河发源于瑞士阿尔卑斯山，流经六个国家，最后注入北海。它是欧洲最重要的河流之一，也是重要的水路。"


@pytest.mark.parametrize(("old", "new"), [(GERMAN, ENGLISH), (ENGLISH, CHINESE), (CHINESE, ENGLISH)])
def test_a_change_of_language_is_refused(old: str, new: str) -> None:
    found = checked(Rewritten(new), record("r", "Name it.", old))
    assert isinstance(found, Failure)
    assert found.message.startswith("language: ")


SHORT = [
    ("今天天气很好。", "The weather is fine today."),
    ("水的化学式是 H2O。", "It is H2O."),
    ("東京です。", "It is Tokyo."),
    ("Paris is the capital of France.", "巴黎是法国的首都。"),
    ("Paris.", "Париж, столица Франции."),
    ("서울입니다.", "It is Seoul."),
]


@pytest.mark.parametrize(("old", "new"), SHORT)
def test_a_change_of_script_is_seen_in_short_answers_too(old: str, new: str) -> None:
    assert isinstance(checked(Rewritten(new), record("r", "?", old)), Failure)


@pytest.mark.parametrize(
    ("old", "new"), [("水", "水是液体。"), ("H2O", "水"), ("东京", "東京です。"), ("α + β", "Add them.")]
)
def test_a_few_letters_tell_no_script(old: str, new: str) -> None:
    assert checked(Rewritten(new), record("r", "?", old)) == Rewritten(new)


def test_the_same_language_code_and_short_texts_pass() -> None:
    for old, new in ((GERMAN, GERMAN + " Er ist lang."), ("4", ENGLISH), (ENGLISH, "```python\nprint(1)\n```")):
        assert checked(Rewritten(new), record("r", "Name it.", old)) == Rewritten(new)


@pytest.mark.parametrize(
    "text",
    ["I'm sorry, but I can't help with that.", "I’m sorry, but as an AI language model, I’m unable to do this.",
     "As an AI language model, I cannot browse the web.", "Unfortunately, I cannot assist with this request.",
     "I cannot provide that."],
)  # fmt: skip
def test_a_refusal_inside_the_marks_is_refused(text: str) -> None:
    assert checked(Rewritten(text), record("r")) == Failure("refused", "refusal")


@pytest.mark.parametrize(
    "text",
    ["I'm sorry to hear of your trouble. Reset your password first.", "I can't get enough of this film!",
     "As an AI assistant, I can help you plan it: first, list the rooms.", "Sorry is a word that mends little."],
)  # fmt: skip
def test_answers_that_sound_like_refusals_are_none(text: str) -> None:
    assert not refuses(text)


def test_a_rewriting_that_changes_nothing_is_none() -> None:
    same = checked(Rewritten("The Rhine.", "Name a river."), record("r"))
    assert same == Failure("unreadable", "unchanged")


# --- the page --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Teacher(ScriptedModel):
    """Writes a sound pair and a sound answer for every record, but for those of which its rules say otherwise.

    Texts are its own, so that an answer under the wrong question is seen. `heard` keeps what it was asked.
    """

    bad_first: tuple[str, ...] = ()
    """Words of records about which the first try is no use."""
    bad_always: tuple[str, ...] = ()
    never: bool = False

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion | Failure]:  # type: ignore[override]
        return [self._said(c, sampling) for c in conversations]

    def _said(self, conversation: Sequence[Message], sampling: Sampling) -> Completion | Failure:
        asked = conversation[-1].text
        HEARD.append((asked, sampling))
        if self.never:
            return Failure("unanswered", "nobody there")
        if any(w in asked for w in self.bad_always) or (sampling.seed == 0 and any(w in asked for w in self.bad_first)):
            return said("What a poor pair!")
        river = re.findall(r"river (\w+)", asked)[-1]
        if "[Better Answer]" in asked:
            return said(f"Poor.\n[Better Answer] The river {river} is long, and it has many bends. [End]")
        return said(f"1. Poor.\n2. [New Instruction] Describe the river {river} in full. [End]\n"
                    f"3. [New Answer] The river {river} is long. [End]")  # fmt: skip


HEARD: list[tuple[str, Sampling]] = []
RIVERS = [
    record(f"r{n}", f"Name river r{n}x.", f"That is river r{n}x.", input="") if n % 3 else
    Record(f"r{n}", (Message("user", f"Name river r{n}x.\n\nriver r{n}x"), Message("assistant", f"river r{n}x")),
           {"input": f"river r{n}x"})
    for n in range(12)
]  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_heard() -> None:
    HEARD.clear()


def done(method: Reflection, folder: Path, records: Sequence[Record] = RIVERS) -> Result:
    data = Dataset.of(records)
    with Run(folder, Local(), max_failures=1.0) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
    return result


def test_clean_replies_cost_two_calls_a_record_and_a_reply_of_no_use_one_more(tmp_path: Path) -> None:
    done(Reflection(teacher=Teacher()), tmp_path / "both")
    assert len(HEARD) == 2 * len(RIVERS)
    for half in ("instruction", "response"):
        HEARD.clear()
        done(Reflection(teacher=Teacher(), halves=half), tmp_path / half)  # type: ignore[arg-type]
        assert len(HEARD) == len(RIVERS)
    HEARD.clear()
    done(Reflection(teacher=Teacher(bad_first=("Name river r4x",)), halves="instruction"), tmp_path / "once")
    assert len(HEARD) == len(RIVERS) + 1
    assert [s for _, s in HEARD if s.seed] == [Sampling(temperature=0.7, max_tokens=2048, seed=1)]


def test_rows_in_are_rows_out_in_order_and_no_answer_stands_under_another_question(tmp_path: Path) -> None:
    result = done(Reflection(teacher=Teacher(bad_always=("Name river r5x",))), tmp_path)
    assert result.data is not None
    found = list(result.data)
    assert [r.id.partition("~")[0] for r in found] == [r.id for r in RIVERS]
    for old, new, decision in zip(RIVERS, found, result.decisions, strict=True):
        river = old.id + "x"
        assert river in new.prompt[-1].text
        assert river in new.response
        if old.id == "r5":  # neither half can be read: the old pair, untouched
            assert new == old
            assert decision.action == "keep"
            assert decision.reason == "nothing rewritten: instruction no_marker, response no_marker; 6 calls"
        else:
            assert new.id == f"{old.id}~instruction~response"
            assert (decision.action, decision.parents) == ("replace", (old.id,))
            assert decision.reason == "rewritten (instruction and response): instruction ok, response ok; 2 calls"


def test_where_the_instruction_stays_its_answer_stays_until_the_second_half(tmp_path: Path) -> None:
    kept = done(Reflection(teacher=Teacher(bad_always=("Name river r5x.\n</given-instruction>",)), halves="instruction"),
                tmp_path)  # fmt: skip
    assert kept.data is not None
    assert kept.data.by_id("r5") == RIVERS[5]


def test_a_row_with_an_input_never_loses_it(tmp_path: Path) -> None:
    stays = done(Reflection(teacher=Teacher(bad_always=("Name river r3x",))), tmp_path / "stays")
    assert stays.data is not None
    assert stays.data.by_id("r3") == RIVERS[3]
    assert "river r3x\n</given-instruction>" in next(asked for asked, _ in HEARD if "r3x" in asked)
    half = done(Reflection(teacher=Teacher(), halves="response"), tmp_path / "half")
    assert half.data is not None
    assert half.data.by_id("r3~response").prompt == RIVERS[3].prompt


def test_a_teacher_that_never_answers_leaves_the_file_as_it_was_byte_for_byte(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Name river {n}.", "input": "", "output": f"River {n}.", "more": {"n": n}} for n in range(9)
    ]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(r, indent=None) + "\n" for r in rows))
    result = done(Reflection(teacher=Teacher(never=True)), tmp_path / "page")
    assert {d.action for d in result.decisions} == {"keep"}
    assert {d.reason for d in result.decisions} == {
        "nothing rewritten: instruction failed (unanswered): nobody there, response failed (unanswered): nobody there; "
        "2 calls"
    }
    recipe = {"input": str(source), "output": str(tmp_path / "out.jsonl"), "max_failures": 1.0,
              "method": {"kind": "reflection", "teacher": {"kind": "scripted"}}}  # fmt: skip
    summary = run_recipe(check(recipe))  # says nothing of use about any record
    assert summary.counts["kept"] == 9
    assert (tmp_path / "out.jsonl").read_bytes() == source.read_bytes()


def test_two_runs_are_the_same_and_a_second_look_asks_nobody(tmp_path: Path) -> None:
    page = Reflection(teacher=Teacher(bad_first=("river r2x", "river r7x")))
    first, second = done(page, tmp_path / "one"), done(page, tmp_path / "two")
    assert first.data is not None
    assert second.data is not None
    assert list(first.data) == list(second.data)
    assert first.decisions == second.decisions
    HEARD.clear()
    again = done(page, tmp_path / "one")
    assert HEARD == []
    assert again.decisions == first.decisions


def test_an_answer_that_is_longer_than_is_shown_is_shown_in_part(tmp_path: Path) -> None:
    long = record("r1", "Name river r1x.", "river r1x " * 400)
    done(Reflection(teacher=Teacher(), asking=Asking(longest=100)), tmp_path, [long])
    assert "[…]" in HEARD[0][0]
    assert HEARD[0][0].count("river r1x") < 13


def test_conversations_images_and_prompts_without_a_response_are_left_alone(tmp_path: Path) -> None:
    turns = Record("turns", (*RIVERS[1].messages, Message("user", "And river r9x?"), Message("assistant", "river r9x")))
    image = Record("image", (Message("user", "What is it?", ("a.png",)), Message("assistant", "A river.")))
    ask = Record("ask", (Message("user", "Name river r8x."),))
    result = done(Reflection(teacher=Teacher()), tmp_path / "leave", [turns, image, ask])
    assert [d.reason for d in result.decisions] == [
        "left alone (several turns)", "left alone (an image)", "left alone (no response)",
    ]  # fmt: skip
    assert HEARD == []
    last = done(Reflection(teacher=Teacher(), asking=Asking(multi_turn="last")), tmp_path / "last", [turns])
    assert last.data is not None
    new = last.data.by_id("turns~instruction~response")
    assert new.messages[:2] == turns.messages[:2]
    assert "r9x" in new.response
    assert "user: Name river r1x." in HEARD[0][0]
