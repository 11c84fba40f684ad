"""GenQA, told whole: from nothing to a file, by a model that misbehaves, repeats itself, is killed and goes on."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from faultserver.client import FaultServer
from harness.generator import LIST_ONLY, generated, numbered, word
from harness.halfway import killed
from harness.kill import result as every_byte
from tunesift import (
    Completion,
    Dataset,
    GenQA,
    HttpModel,
    Lists,
    Local,
    Message,
    Recipe,
    RecipeError,
    ResumeError,
    Run,
    Sampling,
    ScriptedModel,
    Summary,
    read_dataset,
    run_recipe,
)
from tunesift.methods.genqa_prompts import SPLITS, SplitName
from tunesift.methods.genqa_rounds import Limits, Rounds
from tunesift.methods.genqa_sifting import grams, grams_of
from tunesift.methods.genqa_topics import topics_from
from tunesift.planning import plan
from tunesift.recipe import check
from tunesift.report.collect import collect
from tunesift.running.result import Result

CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _counted_from_zero() -> None:
    CALLS.clear()


@dataclass(frozen=True, kw_only=True)
class Author(ScriptedModel):
    """Writes what it is asked for, by the prompt and the seed alone; to nothing it says something about water."""

    concurrency: int = 1

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        CALLS.extend(c[-1].text for c in conversations)
        return [Completion(self.says(c[-1].text, sampling.seed), "stop", 1) for c in conversations]

    def says(self, text: str, seed: int) -> str:
        return generated(text, seed) if text else f"Water number {seed} flows down to the sea, and the sea is salt."


def made(method: GenQA, folder: Path, seed: int = 0) -> Result:
    with Run(folder, Local(), seed, max_failures=1.0) as run:
        result = method(Dataset.of([]), run)
        run.finish(None, result.decisions)
    return result


def table(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / "tables" / f"{name}.parquet"
    return list(pq.read_table(path).to_pylist()) if path.exists() else []


def lost(folder: Path) -> Counter[str]:
    return Counter(row["reason"] for row in table(folder, "nothing-came-of"))


# --- from nothing ----------------------------------------------------------------------------------------------------


def test_every_split_is_made_of_nothing_with_its_turns_and_its_form(tmp_path: Path) -> None:
    splits: tuple[SplitName, ...] = tuple(SPLITS)
    result = made(GenQA(model=Author(), count=180, splits=splits), tmp_path)
    assert result.data is not None
    assert result.short == ""
    assert len(result.data) == 180
    found = Counter(str(r.extra["split"]) for r in result.data)
    assert found == {row["split"]: row["asked_for"] for row in table(tmp_path, "splits")}
    for record in result.data:
        split = SPLITS[record.extra["split"]]  # type: ignore[index]
        turns = len(record.messages)
        assert (split.least <= turns <= split.most) if split.reads == "turns" else turns == 2
        assert [m.role for m in record.messages] == ["user", "assistant"] * (turns // 2)
        assert record.extra["booster"]
        if split.reads == "options":
            assert "\nD) " in record.messages[0].text
        if record.extra["split"] == "general":
            assert record.response.startswith("Water number ")
        elif record.extra["variant"] == "generator-nested":
            assert 1 <= int(str(record.extra["n1"])) <= 60 >= int(str(record.extra["n2"])) >= 1
        else:
            assert record.extra["topic"]
            assert 1 <= int(str(record.extra["n1"])) <= 40
    assert [d.record_id for d in result.decisions] == list(result.data.ids())
    assert {d.action for d in result.decisions} == {"create"}


def test_the_same_row_is_written_under_any_number_of_threads(tmp_path: Path) -> None:
    made(GenQA(model=Author(), count=60), tmp_path / "1")
    made(GenQA(model=Author(concurrency=32), count=60), tmp_path / "32")
    files = ["made/output/records.arrow", "made/output/ids.arrow", "decisions.parquet", "tables/rounds.parquet"]
    assert [(tmp_path / "1" / f).read_bytes() for f in files] == [(tmp_path / "32" / f).read_bytes() for f in files]
    assert not [p for p in CALLS if "{" in p], "every place of every prompt is filled"


def test_data_are_never_a_template(tmp_path: Path) -> None:
    topics = ("Braces {N} and {topic} in {{C}}", "{booster}")
    made(
        GenQA(model=Author(), count=8, topics=topics, boosters=("Use {L}.",), variants=("static-conditional",)),
        tmp_path,
    )
    assert {re.findall(r"The field is: (.+)", c)[0] for c in CALLS} <= set(topics)
    assert all(c.endswith("Use {L}.") for c in CALLS)


def test_a_prompt_of_ones_own_is_filled_like_ours(tmp_path: Path) -> None:
    own = "List {L} things: a numbered list of {L}. State `Subtopic {N}:` of {topic}. The field is: {topic}\n`x`\n{form} {booster}"
    method = GenQA(model=Author(), count=5, prompt=own, mode="single-shot", variants=("generator-conditional",),
                   lists=Lists(subtopics=7), topics=("Tides",))  # fmt: skip
    result = made(method, tmp_path)
    assert result.data is not None
    assert len(result.data) == 5
    assert all(c.startswith("List 7 things") for c in CALLS)
    assert {int(str(r.extra["n1"])) <= 7 for r in result.data} == {True}


def test_a_list_is_asked_for_once_and_again_after_so_many_uses(tmp_path: Path) -> None:
    lists = Lists(subtopics=10, reuse=50)
    method = GenQA(model=Author(), count=150, variants=("generator-conditional",), topics=("Tides",), lists=lists)
    result = made(method, tmp_path)
    assert sum(LIST_ONLY in c for c in CALLS) == 3
    assert len(CALLS) == 153  # 1 + 1/M calls a row
    assert result.data is not None
    assert 20 < len({r.extra["subtopic"] for r in result.data}) <= 30


@pytest.mark.parametrize("count", [200, 400])
def test_with_several_variants_a_list_is_used_as_often_as_with_one(tmp_path: Path, count: int) -> None:
    lists = Lists(subtopics=10, topics=2, nested=10, reuse=50)
    method = GenQA(model=Author(), count=count, topics=("Tides",), lists=lists)
    made(method, tmp_path)
    planned = sum(stage.items for stage in method.plan(0) if stage.stage == "list" and not stage.spare)
    asked = sum(LIST_ONLY in c for c in CALLS)
    conditional, nested = count // 2 // 50, count // 2 // 100
    assert asked == planned == conditional + nested * (1 + 2)  # of the nested ones two are chosen from one of topics


def test_rows_go_to_a_file_and_are_read_back_as_they_were_made(tmp_path: Path) -> None:
    summary = ran(tmp_path, count=1)
    (row,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert set(row) == {
        "id",
        "messages",
        "split",
        "idx",
        "attempt",
        "variant",
        "topic",
        "subtopic",
        "n1",
        "n2",
        "booster",
        "flags",
    }
    (read,) = read_dataset(tmp_path / "out.jsonl")
    assert (read.id, [m.text for m in read.messages]) == ("genqa-0-academic-0", [m["content"] for m in row["messages"]])
    page = collect(summary.folder, summary.counts)
    assert page.title == "out.jsonl: 1 record created"
    assert [(bar.label, bar.count) for bar in page.funnel] == [("created", 1)]
    assert [bar.label for bar in page.reasons] == [f"academic, {row['variant']}"]
    assert summary.balance == "1 created"


REPLIES = {LIST_ONLY: numbered([f"Subject {n}" for n in range(60)]),
           "Start the line": "Question: Why do leaves fall in autumn? Explain it.\nAnswer: Abscission."}  # fmt: skip


def ran(place: Path, replies: dict[str, str] | None = None, **settings: Any) -> Summary:
    """A run of a recipe whose model says the same to everything."""
    method = {"kind": "genqa", "model": {"kind": "scripted", "replies": replies or REPLIES}, **settings}
    return run_recipe(check({"output": str(place / "out.jsonl"), "max_failures": 1.0, "method": method}))


# --- a model that repeats itself -------------------------------------------------------------------------------------


def test_a_model_that_repeats_itself_stops_the_run_with_the_reason_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    summary = ran(tmp_path, count=100)
    assert summary.counts["created"] == 1
    assert summary.short == (
        "1 of 100; the model repeats itself: 63 of 64 rows were duplicates, more than max_duplicates=0.5"
    )
    (row,) = table(summary.folder, "splits")
    assert (row["made"], row["draws"]) == (1, 64)
    assert [row["missing"] for row in table(summary.folder, "stopped-early")] == [99]
    assert lost(summary.folder) == {"duplicate": 63}
    page = collect(summary.folder, summary.counts, summary.short)
    assert page.title == f"out.jsonl: 1 record created; {summary.short}"
    assert page.title in summary.report.read_text()
    assert [page.tables[0].name, page.tables[-1].name] == ["stopped-early", "nothing-came-of"]
    rows = table(summary.folder, "nothing-came-of")
    assert len({r["id"] for r in rows} | {"genqa-0-academic-0"}) == 64
    assert {r["detail"] for r in rows} == {"asks the same as row 1 of the output"}


def test_a_run_that_stopped_goes_on_when_its_limit_is_raised_and_asks_nothing_twice(tmp_path: Path) -> None:
    first = ran(tmp_path, count=30)
    again = ran(tmp_path, count=30)
    assert (again.worked, again.short) == (0, first.short)
    more = ran(tmp_path, count=30, max_duplicates=1.0)
    assert more.run_id == first.run_id
    assert more.short.startswith("1 of 30; 90 draws are made, the most that draws_per_row allows; of those that came to "
                                 "nothing: 89 duplicate")  # fmt: skip
    asked = pq.read_table(more.folder / "stages" / "ask", columns=["id"]).to_pylist()
    assert len(asked) == len({row["id"] for row in asked}) == 90
    assert 60 <= more.worked <= 60 + 60 + 29 * 2  # sixty more rows, and their lists
    with pytest.raises(ResumeError, match=r"method\.count was 30 and is now 31"):
        ran(tmp_path, count=31)


def test_a_larger_run_takes_over_what_a_smaller_one_asked(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    few = ran(tmp_path, count=10, draws_per_row=1.0)
    model = {"kind": "scripted", "replies": REPLIES}
    recipe = {"output": str(tmp_path / "more" / "out.jsonl"), "max_failures": 1.0, "reuse": str(few.folder),
              "method": {"kind": "genqa", "model": model, "count": 25, "draws_per_row": 1.0}}  # fmt: skip
    more = run_recipe(check(recipe))
    asked = pq.read_table(more.folder / "stages" / "ask", columns=["id"]).num_rows
    lists = pq.read_table(more.folder / "stages" / "list", columns=["id"]).num_rows
    assert asked == 25
    assert more.worked == asked + lists - few.worked


def test_nearly_equal_rows_are_duplicates_where_that_is_asked_for(tmp_path: Path) -> None:
    body = "It is because of the cold that comes in autumn and of the light that goes and of nothing else at all in the world."

    @dataclass(frozen=True, kw_only=True)
    class Paraphrases(Author):
        def says(self, text: str, seed: int) -> str:
            asked = f"Say {seed} why leaves fall in autumn. Explain what happens."
            return generated(text, seed) if LIST_ONLY in text else f"Question: {asked}\nAnswer: {body} {body}"

    plain = made(GenQA(model=Paraphrases(), count=40), tmp_path / "plain")
    near = made(GenQA(model=Paraphrases(), count=40, near=0.7), tmp_path / "near")
    assert plain.data is not None
    assert near.data is not None
    assert (len(plain.data), len(near.data)) == (40, 1)
    assert lost(tmp_path / "near") == {"near_duplicate": 39}


def test_a_run_that_was_begun_with_other_rounds_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(tmp_path, count=1)
    monkeypatch.setattr("tunesift.methods.genqa.GROWTH", 2)
    with pytest.raises(ResumeError, match=r"method\.identity was"):
        ran(tmp_path, count=1)


def test_the_general_split_drops_answers_that_come_again_before_their_question_is_asked_for(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Few(Author):
        def says(self, text: str, seed: int) -> str:
            return generated(text, seed) if text else f"Water number {seed % 5} flows down to the sea, which is salt."

    method = GenQA(model=Few(), count=10, splits=("general",), max_duplicates=1.0, draws_per_row=20.0)
    result = made(method, tmp_path)
    assert result.data is not None
    assert len(result.data) == 5
    assert len(CALLS) == 200 + 5
    assert lost(tmp_path) == {"duplicate": 195}
    assert all("<given-answer>" in c for c in CALLS if c)


def test_of_a_million_rows_no_more_than_a_round_is_thought_of_at_a_time() -> None:
    rounds = Rounds({"academic": 600_000, "math": 400_000}, Limits(3_000_000, 2, 100, 0.5))
    first = rounds.next()
    assert Counter(split for split, _, _ in first) == {"academic": 39, "math": 25}
    assert first[:3] == [("academic", 0, 0), ("math", 0, 0), ("academic", 1, 0)]
    rounds.close()
    second = rounds.next()
    assert len(second) == 100
    assert second[0] == ("academic", 39, 0)


@pytest.mark.parametrize(
    ("most", "sizes"), [(4096, [64, 256, 1024, 4096, 4096]), (300, [64, 256, 300, 300]), (40, [40, 40])]
)
def test_rounds_grow_from_small_ones_to_the_setting_and_no_further(most: int, sizes: list[int]) -> None:
    rounds = Rounds({"academic": 1_000_000}, Limits(3_000_000, 2, most, 0.5))
    found = []
    for _ in sizes:
        found.append(len(rounds.next()))
        rounds.close()
    assert found == sizes


def test_a_model_that_repeats_itself_is_found_in_the_first_small_round_of_a_large_run(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Repeats(Author):
        def says(self, text: str, seed: int) -> str:
            return generated(text, seed) if LIST_ONLY in text else PAIR.format("tide")

    method = GenQA(model=Repeats(), count=20_000)
    result = made(method, tmp_path)
    assert result.data is not None
    assert len(result.data) == 1
    assert result.short == (
        "1 of 20,000; the model repeats itself: 63 of 64 rows were duplicates, more than max_duplicates=0.5"
    )
    lists = sum(LIST_ONLY in c for c in CALLS)
    assert len(CALLS) - lists == 64
    assert lists <= 1 + 64  # one of topics, and at most one of subtopics for each draw


# --- a model that misbehaves -----------------------------------------------------------------------------------------

PAIR = "Question: Why does the {0} lag behind? Explain it.\nAnswer: The {0} turns with the sea floor."
BAD = {
    "refusal": "I'm sorry, but I can't help with that.",
    "no_question": "Here is something about the sea.",
    "no_answer": "Question: Why does the sea lag behind?",
    "empty": "Question: Why?\nAnswer:   ",
    "name_leak": "Question: What is subject of it all, Subject {1}?\nAnswer: It is.",
    "prompt_leak": "Question: {2}\nAnswer: It is.",
    "language": "Question: Warum bleibt die Flut hinter dem Mond zurück, und wie lange dauert das an dieser Küste?\nAnswer: Lange.",
    "label_leak": "Question: Question: Why?\nAnswer: So.",
}


@dataclass(frozen=True, kw_only=True)
class Clumsy(Author):
    """Breaks one rule after the other at a row's first try, and keeps all of them at its second."""

    def says(self, text: str, seed: int) -> str:
        if LIST_ONLY in text:
            return numbered([f"Subject {n}" for n in range(40)])
        known = seed in FIRST
        number = FIRST.setdefault(seed, len(FIRST))
        assert not known
        kinds = list(BAD)
        if number >= len(kinds):
            return PAIR.format(word("x", seed))
        leak = next(line for line in re.split(r"(?<=[.!?])\s|\n", text) if len(line) > 40)
        subtopic = re.findall(r"The subtopic is: Subject (\d+)", text)[0]
        return BAD[kinds[number]].format("", subtopic, leak)


FIRST: dict[int, int] = {}


def test_a_reply_that_breaks_a_rule_costs_a_further_draw_and_never_a_row(tmp_path: Path) -> None:
    FIRST.clear()
    method = GenQA(model=Clumsy(), count=20, variants=("generator-conditional",), topics=("Tides",))
    result = made(method, tmp_path)
    assert result.data is not None
    assert len(result.data) == 20
    assert result.short == ""
    assert lost(tmp_path) == dict.fromkeys(BAD, 1)
    (row,) = table(tmp_path, "splits")
    assert row["draws"] == 20 + len(BAD)
    assert [r["further_tries"] for r in table(tmp_path, "rounds")] == [0, len(BAD)]
    retried = {r.extra["idx"] for r in result.data if r.extra["attempt"] == 1}
    assert retried == set(range(len(BAD)))
    assert len(CALLS) == 1 + 20 + len(BAD)
    raw = pq.read_table(tmp_path / "stages" / "ask").to_pylist()
    texts = {r["id"]: json.loads(r["outcome"])["text"] for r in raw}
    assert texts["genqa-0-academic-0"] == BAD["refusal"]
    assert texts["genqa-0-academic-0~again-1"].startswith("Question: Why does the ")


LISTS = {
    "no list": "I would rather not.",
    "an empty reply": "",
    "fewer than half": numbered([f"Subject {n}" for n in range(19)]),
    "bullets": "\n".join(f"- Subject {n}" for n in range(40)),
    "one item again and again": numbered(["Subject"] * 40),
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_that_cannot_be_used_is_asked_for_three_times_and_no_row_is_asked_about_it(
    tmp_path: Path, name: str
) -> None:
    summary = ran(tmp_path, {"nothing before or after the list": LISTS[name]}, count=10, topics=["Tides"],
                  variants=["generator-conditional"])  # fmt: skip
    assert summary.worked == 3
    assert lost(summary.folder) == {"no_list": 30}
    assert summary.short.startswith("0 of 10; 30 draws are made")
    assert (tmp_path / "out.jsonl").read_text() == ""
    assert "0 created" in summary.balance


@pytest.mark.parametrize("wrong", ["numbers from seven on", "fewer than asked for, but enough"])
def test_a_list_that_is_numbered_oddly_or_short_is_used_by_its_order(tmp_path: Path, wrong: str) -> None:
    names = [f"Subject {n}" for n in range(40)] if "seven" in wrong else [f"Subject {n}" for n in range(25)]
    said = "\n".join(f"{7 + 3 * n}. {name}" for n, name in enumerate(names))

    @dataclass(frozen=True, kw_only=True)
    class Odd(Author):
        def says(self, text: str, seed: int) -> str:
            return said if LIST_ONLY in text else PAIR.format(word("x", seed))

    result = made(GenQA(model=Odd(), count=100, variants=("generator-conditional",), topics=("Tides",)), tmp_path)
    assert result.data is not None
    assert {str(r.extra["subtopic"]) for r in result.data} <= set(names)
    assert all(names[int(str(r.extra["n1"])) - 1] == r.extra["subtopic"] for r in result.data)


# --- evaluation sets -------------------------------------------------------------------------------------------------

ITEM = (
    "A farmer has seventeen sheep and all but nine of them run away over the hill before sunset, so how many are left"
)


def test_rows_that_share_thirteen_words_with_an_evaluation_set_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "eval.jsonl").write_text(json.dumps({"id": 1, "turns": ["Short one.", f"{ITEM}?"]}) + "\n")
    (tmp_path / "more.jsonl").write_text(json.dumps("Why do leaves fall in autumn?") + "\n")

    @dataclass(frozen=True, kw_only=True)
    class Remembers(Author):
        def says(self, text: str, seed: int) -> str:
            if LIST_ONLY in text:
                return generated(text, seed)
            if seed % 4 == 0:
                return f"Question: Consider this, {word(seed)}: {ITEM.upper()}?\nAnswer: Nine."
            return generated(text, seed)

    paths = (tmp_path / "eval.jsonl", tmp_path / "more.jsonl")
    plain = made(GenQA(model=Remembers(), count=60), tmp_path / "plain")
    clean = made(GenQA(model=Remembers(), count=60, against=paths), tmp_path / "clean")
    assert plain.data is not None
    assert clean.data is not None
    assert len(clean.data) == len(plain.data) == 60
    known = grams_of(paths)
    dirty = [r.id for r in plain.data if not grams(r.messages[0].text).isdisjoint(known)]
    assert len(dirty) > 5
    assert lost(tmp_path / "clean")["contaminated"] >= len(dirty)
    assert not [r.id for r in clean.data if not grams(r.messages[0].text).isdisjoint(known)]


def test_real_evaluation_sets_are_read_whatever_their_fields_are(shared: Path) -> None:
    known = grams_of(tuple(sorted((shared / "eval_sets").glob("*.jsonl"))))
    assert len(known) > 10_000
    turns = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences and more."
    assert not grams(turns).isdisjoint(known)
    assert not grams("How can I improve my time management skills?").isdisjoint(known)
    assert grams("How would you measure the tide in a harbour with nothing but a rope and a clock?").isdisjoint(known)


# --- topics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "text"), [
    ("t.txt", "Tides\n\n  Sand  dunes \nTides\n"), ("t.json", '["Tides", "Sand dunes", "Tides"]'),
    ("t.csv", "topic\nTides\nSand dunes\n"), ("t.jsonl", '{"topic": "Tides"}\n{"topic": "Sand dunes"}\n'),
])  # fmt: skip
def test_topics_come_from_a_file_and_a_run_knows_them_by_what_they_say(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    first = ran(tmp_path, count=1, topics=str(path), variants=["static-conditional"])
    (row,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert row["topic"] in ("Tides", "Sand dunes")
    path.rename(tmp_path / f"moved-{name}")
    again = ran(tmp_path, count=1, topics=str(tmp_path / f"moved-{name}"), variants=["static-conditional"])
    assert (again.run_id, again.worked) == (first.run_id, 0)
    (tmp_path / f"moved-{name}").write_text(text.replace("Tides", "Waves"))
    with pytest.raises(ResumeError, match=r"method\.identity was"):
        ran(tmp_path, count=1, topics=str(tmp_path / f"moved-{name}"), variants=["static-conditional"])


@pytest.mark.parametrize(("name", "text", "sentence"), [
    ("t.txt", "\n \n", "t.txt: the file has no records; give a file with at least one."),
    ("t.txt", "", "t.txt: the file is empty; give a file with at least one record."),
    ("t.json", "[]", "t.json: the file has no records; give a file with at least one."),
    ("t.json", '[" "]', "t.json: none of its rows is a record; the first, t.json:1 (byte 1): "),
    ("none.txt", None, "none.txt: there is no such file; check the path."),
    ("none.jsonl", None, "none.jsonl: there is no such file; check the path."),
])  # fmt: skip
def test_a_file_without_topics_is_refused_before_any_call_and_leaves_no_folder(
    tmp_path: Path, name: str, text: str | None, sentence: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(Exception, match=re.escape(sentence)):
        ran(tmp_path, count=1, topics=str(tmp_path / name))
    assert not (tmp_path / "out.jsonl.run").exists()


@pytest.mark.parametrize(("name", "content", "note"), [
    ("t.txt", b"Tides\nSand \xe9\nDunes\n", "of the topics set aside, first at t.txt:2 (byte 6): byte 11 is not valid UTF-8; "
     "save the file as UTF-8"),
    ("t.json", b'["Tides", 3, "Dunes"]', "of the topics set aside, first at t.json:1 (byte 10): a record is a JSON object, not "
     "a number"),
])  # fmt: skip
def test_a_topic_that_cannot_be_read_is_set_aside_and_told(
    tmp_path: Path, name: str, content: bytes, note: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert topics_from(path) == ("Tides", "Dunes")
    summary = ran(tmp_path, count=2, topics=str(path), variants=["static-conditional"])
    assert summary.notes == {note: 1}
    (aside,) = pq.read_table(summary.folder / "tables" / "topics-set-aside.parquet").to_pylist()
    assert f"of the topics set aside, first at {aside['row']}: {aside['why']}" == note


def test_a_topic_that_is_named_twice_is_refused_and_in_a_file_counts_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match='topics: "tides x" is named twice'):
        GenQA(model=Author(), topics=("Tides x", "Dunes", "tides  x"))
    (tmp_path / "t.txt").write_text("Tides\nDunes\ntides\n")
    assert topics_from(tmp_path / "t.txt") == ("Tides", "Dunes")


# --- seeds -----------------------------------------------------------------------------------------------------------


def test_every_call_has_a_seed_of_its_own_and_one_for_all_is_refused() -> None:
    model = {"url": "http://localhost:1/v1", "model": "m"}
    with pytest.raises(RecipeError, match="one seed for all makes the model repeat itself"):
        GenQA(model=HttpModel(**model, parameters={"seed": 7}))
    with pytest.raises(RecipeError, match=r"add model\.parameters\.seed=null"):
        check({"output": "o.jsonl", "method": {"kind": "genqa", "model": {"kind": "http", **model, "batch": {}}}})
    check({"output": "o.jsonl", "method": {"kind": "genqa", "model": {
        "kind": "http", **model, "batch": {}, "parameters": {"seed": None}}}})  # fmt: skip


# --- over HTTP -------------------------------------------------------------------------------------------------------


def command(place: Path, server: FaultServer, *more: str) -> list[str]:
    return [sys.executable, "-m", "tunesift", "genqa", "-o", str(place / "output.jsonl"), f"folder={place / 'run'}",
            f"model.url={server.url}", "model.model=tiny", "model.concurrency=4", "-q", *more]  # fmt: skip


def test_calls_are_what_the_server_billed_what_the_card_says_and_never_more_than_planned(
    server: FaultServer, tmp_path: Path
) -> None:
    recipe = {"output": str(tmp_path / "out.jsonl"), "method": {
        "kind": "genqa", "model": {"kind": "http", "url": server.url, "model": "tiny"}, "count": 60, "topics": ["Tides"],
        "variants": ["generator-conditional"], "lists": {"reuse": 20}}}  # fmt: skip
    summary = run_recipe(check(recipe))
    (spent,) = summary.spent
    bill = server.bill()
    assert summary.counts["created"] == 60
    assert spent.calls == bill["calls"] == 60 + 60 / 20 + 1  # 1 + 1/M a row, and one small call before the first
    assert (spent.exact_prompt, spent.exact_completion) == (bill["prompt_tokens"], bill["completion_tokens"])
    bound = plan(check(recipe))
    assert bound.expected == 60 + 60 / 20
    assert spent.calls <= bound.calls
    assert spent.exact_prompt + spent.exact_completion <= bound.billed


@pytest.mark.parametrize("calls", [25, 130], ids=["in the first round", "in the second, which is larger"])
def test_a_budget_that_is_spent_stops_the_run_and_a_larger_one_lets_it_go_on(
    server: FaultServer, tmp_path: Path, calls: int
) -> None:
    whole, capped = tmp_path / "whole", tmp_path / "capped"
    for place in (whole, capped):
        place.mkdir()
    more = ("count=120", "topics=[Tides]")
    subprocess.run(command(whole, server, *more), check=True, capture_output=True, timeout=120)
    stopped = subprocess.run(
        command(capped, server, *more, f"budget.max_calls={calls}"), capture_output=True, text=True, timeout=120
    )
    assert stopped.returncode == 4
    assert f"{calls} of {calls} calls are made; raise max_calls and start again to go on" in stopped.stderr
    assert pq.read_table(whole / "run" / "tables" / "rounds.parquet")["draws"].to_pylist() == [64, 56]
    assert not (capped / "output.jsonl").exists()
    subprocess.run(command(capped, server, *more, "budget.max_calls=500"), check=True, capture_output=True, timeout=120)
    assert (capped / "output.jsonl").read_bytes() == (whole / "output.jsonl").read_bytes()


def test_a_call_that_failed_in_the_first_round_and_is_tried_again_changes_the_rounds_after_it(
    server: FaultServer, tmp_path: Path
) -> None:
    def recipe(name: str) -> Recipe:
        model = {"kind": "http", "url": server.url, "model": "tiny"}
        method = {"kind": "genqa", "model": model, "count": 100, "boosters": [f"Be row={n}." for n in range(16)]}
        return check({"output": str(tmp_path / name), "max_failures": 1.0, "method": method})

    whole = run_recipe(recipe("whole.jsonl"))
    server.script({"match": {"row": 7}, "do": [{"status": 400, "body": "text:no"}]})
    first = run_recipe(recipe("out.jsonl"))
    (tables, others) = (s.folder / "tables" / "rounds.parquet" for s in (first, whole))
    assert not pq.read_table(tables).equals(pq.read_table(others))
    server.script()
    again = run_recipe(recipe("out.jsonl"), retry_failed=("refused",))
    assert again.run_id == first.run_id
    assert 0 < again.worked < whole.worked
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert pq.read_table(tables).equals(pq.read_table(others))


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_leaves_the_files_of_one_that_was_not(
    server: FaultServer, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    server.script({"do": [{"delay": 0.01}]})
    more = ("count=150", "splits=[academic,math,general]", "lists.reuse=5")
    for place in (whole, broken):
        place.mkdir()
    subprocess.run(command(whole, server, *more), check=True, capture_output=True, timeout=300)
    draw = random.Random(4)
    words = command(broken, server, *more)
    kills = sum(killed(words, broken / "run", draw.randint(10, 60)) for _ in range(5))
    assert kills == 5
    subprocess.run(command(broken, server, *more), check=True, capture_output=True, timeout=300)
    ours, theirs = every_byte(broken), every_byte(whole)
    for name in (
        "output",
        "decisions.parquet",
        "tables/splits.parquet",
        "tables/rounds.parquet",
        "tables/diversity.parquet",
    ):
        assert ours[name] == theirs[name], name
    outcomes = [pq.read_table(place / "run" / "stages" / "ask").to_pylist() for place in (broken, whole)]
    assert outcomes[0] == outcomes[1]


# --- at the terminal -------------------------------------------------------------------------------------------------


def typed(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunesift", *words], capture_output=True, text=True, timeout=120, cwd=place
    )


MODEL = f"model={json.dumps({'kind': 'scripted', 'replies': REPLIES})}"


def test_from_nothing_at_the_terminal_with_a_plan_before_and_a_look_after(tmp_path: Path) -> None:
    said = typed(tmp_path, "plan", "genqa", "count=100", "model.url=http://localhost:8000/v1",
                 "model.model=generator", "topics=[Tides]", "variants=[generator-conditional]")  # fmt: skip
    assert said.stdout.splitlines()[:3] == [
        "genqa: reads no data", "  stage list: 1 item, 1 call each, by generator",
        "  stage ask: 100 items, 1 call each, by generator",
    ]  # fmt: skip
    assert "101 calls where every reply can be used, at most 310 calls" in said.stdout
    done = typed(tmp_path, "genqa", "-o", "out.jsonl", "count=1", MODEL)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "out.jsonl: 1 created")
    look = typed(tmp_path, "inspect", "out.jsonl.run").stdout
    assert "input: none" in look
    assert "  1 created\n" in look
    assert "ask: {" in typed(tmp_path, "inspect", "out.jsonl.run", "genqa-0-academic-0").stdout
    assert "as it was written" in typed(tmp_path, "verify", "out.jsonl.run").stdout


def test_too_few_rows_are_written_and_the_command_says_so_with_its_exit_code(tmp_path: Path) -> None:
    done = typed(tmp_path, "genqa", "-o", "out.jsonl", "count=40", MODEL)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1] == (
        "out.jsonl: is written, with fewer records than asked for: 1 of 40; the model repeats itself: 39 of 40 rows were "
        "duplicates, more than max_duplicates=0.5."
    )
    look = typed(tmp_path, "inspect", "out.jsonl.run", "genqa-0-academic-7").stdout
    assert look.startswith("genqa-0-academic-7: nothing\n  no record was made of it; duplicate, asks the same as row 1")
    assert "Abscission" in look


@pytest.mark.parametrize(("word_", "sentence"), [
    ("count=0", "count: 0 is too few; write 1 or more."),
    ("near=1.2", "near: 1.2 is not from 0.7 to 1; write 0.8, or null to compare nothing."),
    ("max_duplicates=-1", "max_duplicates: -1 is not a fraction; write 0.5 for one half."),
    ("in.jsonl", '"in.jsonl": genqa makes records from nothing; leave it out, or write a setting as NAME=VALUE.'),
    ("input=in.jsonl", "input: genqa makes records from nothing; leave in.jsonl out."),
])  # fmt: skip
def test_what_cannot_be_is_one_sentence_and_nothing_is_left_behind(tmp_path: Path, word_: str, sentence: str) -> None:
    done = typed(tmp_path, "genqa", "-o", "out.jsonl", word_, MODEL)
    assert (done.returncode, done.stderr) == (64, sentence + "\n")
    assert list(tmp_path.iterdir()) == []
