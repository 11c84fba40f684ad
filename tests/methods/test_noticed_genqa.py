"""What a user would miss of GenQA's pages: each test here failed on a change of a page that no other noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesift import Completion, DataError, Failure, GenQA, Labels, Lists, Message, RecipeError, Run, Sampling
from tunesift import ScriptedModel as Scripted
from tunesift.methods.genqa_asking import Asking, Picked, answer_or_reason, lists_to_expect, longest_prompt
from tunesift.methods.genqa_checks import Rejected, Wanted, Written
from tunesift.methods.genqa_draws import Ask, Draw, check_place
from tunesift.methods.genqa_likeness import instruction, parts_of, posed, without_numbers
from tunesift.methods.genqa_prompts import SplitName, Variant, Wording
from tunesift.methods.genqa_reading import read_answer, read_row
from tunesift.methods.genqa_rounds import Limits, Rounds
from tunesift.methods.genqa_sifting import grams, grams_of


def said(text: str, stop: str = "stop") -> Completion:
    return Completion(text, stop, 7)  # type: ignore[arg-type]


def asked(n: int | None = None, lists: int = 0, split: SplitName = "academic") -> Wanted:
    return Wanted(split, "generator-conditional", Labels(), "", "", "Nature", "", n, None, lists)


REFUSED = "I'm sorry, but I can't help with that."
GERMAN = (
    "Warum bleibt die Flut hinter dem Mond zurück, und wie lange dauert das an dieser Küste? Das ist nicht einfach."
)
ANSWERS: dict[str, str | Rejected] = {
    " \n": Rejected("empty", "the completion is empty"),
    "x" * 131_073: Rejected("too_long", "the completion has 131073 characters, more than 131072"),
    REFUSED: Rejected("refusal"), GERMAN: Rejected("language", "de"), " The tide is late. ": "The tide is late.",
}  # fmt: skip


@pytest.mark.parametrize("text", ANSWERS, ids=lambda text: text[:20].strip() or "nothing")
def test_an_answer_to_nothing_is_its_text_or_says_why_it_is_none(text: str) -> None:
    assert read_answer(said(text), "en") == ANSWERS[text]
    assert answer_or_reason(said(text), "en") == ANSWERS[text]


def test_an_answer_that_was_cut_or_never_came_says_so() -> None:
    assert read_answer(said("It is", "length"), "en") == Rejected("truncated", "after 7 tokens")
    gone = Failure("unanswered", "nobody is there")
    assert answer_or_reason(gone, "en") == Rejected("failed (unanswered)", "nobody is there")


PAIR = "Question: Why do leaves fall?\nAnswer: They close."
TWO = "1. Optics\n2. Botany\n"
MESSAGES = (Message("user", "Why do leaves fall?"), Message("assistant", "They close."))
BOTANY = Written(MESSAGES, "Nature", "Botany", 2)
OF_TWO, FREE = asked(2, 1), asked(None, 1)
ROWS: dict[str, tuple[str, Wanted, Written | Rejected]] = {
    "no list": (f"Subtopic 2: Botany\n{PAIR}", OF_TWO, Rejected("no_list", "Subtopic")),
    "a list and no choice": (f"{TWO}{PAIR}", OF_TWO, Rejected("not_stated", "Subtopic")),
    "a list after the choice": (f"{TWO}Subtopic 2: Botany\n2. Roots\n{PAIR}", OF_TWO, BOTANY),
    "its number with it": (f"{TWO}Subtopic 2: 2. Botany\n{PAIR}", OF_TWO, BOTANY),
    "as code": (f"{TWO}Subtopic 2: `2. Botany`\n{PAIR}", OF_TWO, BOTANY),
    "in bold": (f"{TWO}Subtopic 2: 2. **Botany**\n{PAIR}", OF_TWO, BOTANY),
    "another item": (f"{TWO}Subtopic 2: Optics\n{PAIR}", OF_TWO, Rejected("index_mismatch", "Optics: is not number 2")),
    "no item": (f"{TWO}Subtopic: Law\n{PAIR}", FREE, Rejected("index_mismatch", "Law: is not in the list")),
    "a number twice": (f"{TWO}2. Law\nSubtopic 2: Law\n{PAIR}", OF_TWO, Rejected("renumbered", "number 2 stands 2 times")),
    "a number too large": (f"{TWO}Subtopic 5: Law\n{PAIR}", asked(5, 1), Rejected("index_missing", "number 5 of 2")),
    "two users": ("User: a\nUser: b", asked(split="dialog"), Rejected("turns", "user user")),
    "two messages of four": ("User: a\nAssistant: b", asked(split="math"), Rejected("turns", "2 messages")),
    "no words": ("User: a\nAssistant: ...", asked(split="dialog"), Rejected("empty")),
    "no options": (PAIR, asked(split="mmlu"), Rejected("options", "none")),
    "an option too many": (
        "Question: Which?\nA) a\nB) b\nC) c\nD) d\nE) e\nAnswer: A", asked(split="mmlu"), Rejected("options", "ABCDE")),
    "no letter": (
        f"Question: Which?\nA) a\nB) b\nC) c\nD) d\nAnswer: {'So it is. ' * 5}", asked(split="mmlu"),
        Rejected("letter", "So it is. " * 4)),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_a_reply_is_a_row_or_says_why_it_is_none(case: str) -> None:
    text, wanted, expected = ROWS[case]
    assert read_row(said(text), wanted) == expected


KINDS: dict[SplitName, list[str]] = {
    "academic": ["row", "question"], "task": ["task"], "code": ["code"], "mmlu": ["row", "options"],
    "multiple-choice": ["row", "options"], "writing": ["row", "question"], "math": ["row", "problem"],
    "dialog": ["row", "turns"], "general": ["row", "question", "answer"],
}  # fmt: skip


@pytest.mark.parametrize("split", KINDS)
def test_what_near_duplicates_share_is_said_by_its_name(split: SplitName) -> None:
    assert [part.kind for part in parts_of(Written(MESSAGES), split)] == KINDS[split]


@pytest.mark.parametrize(
    ("text", "stem", "options", "alone"),
    [
        ("Two lakes are near.\nWhich of these lakes freezes?", "Two lakes are near.\nWhich of these lakes freezes?", (),
         ["Two lakes are near.\nWhich of these lakes freezes?"]),
        ("Lakes are cold.\nSome of them freeze.\nWhich of these lakes freezes?\nA) one\nB) two",
         "Lakes are cold.\nSome of them freeze.\nWhich of these lakes freezes?", ("one", "two"),
         ["Lakes are cold.\nSome of them freeze.\nWhich of these lakes freezes?", "Which of these lakes freezes?"]),
        ("Which deep lake freezes? Options:**\na) **one**\nb) _two_", "Which deep lake freezes?", ("one", "two"),
         ["Which deep lake freezes?"]),
        ("**Which lakes freeze?**", "Which lakes freeze?", (), []),
    ],
)  # fmt: skip
def test_a_question_is_told_apart_from_its_options(
    text: str, stem: str, options: tuple[str, ...], alone: list[str]
) -> None:
    found = posed(text)
    assert (found.stem, found.options, list(found.alone())) == (stem, options, alone)


@pytest.mark.parametrize(
    ("task", "asks"),
    [
        ("Sort these.\nb\na", "sort these."), ("b, a and c, as they came\n\nmore of them, all by name\n\nSort them.", "sort them."),
        ("Sort them.\n\nb\na\nand some more", "sort them."),
    ],
)  # fmt: skip
def test_what_a_task_asks_for_stands_before_its_material_or_after_it(task: str, asks: str) -> None:
    assert instruction(task) == asks


def test_numbers_do_not_make_another_problem_of_thirteen_words() -> None:
    twelve = "He buys 3 pens and 4 cups of tea, and has some left over"
    assert without_numbers(twelve) == twelve
    assert without_numbers(f"{twelve} now") == "He buys 0 pens and 0 cups of tea, and has some left over now"


THIRTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen"


def test_a_run_of_words_in_an_option_tells_a_row_too() -> None:
    assert grams(THIRTEEN) <= grams(f"Which of these lines did he write?\nA) {THIRTEEN}\nB) none")


def test_a_text_of_marks_alone_tells_nothing() -> None:
    assert grams("?!") == set()


def evaluation(folder: Path, *rows: object) -> list[Path]:
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [path]


TEN = [f"lake number {n}" for n in range(10)]
FILES: dict[str, tuple[dict[str, object], list[str]]] = {
    "a text of four words": ({"q": "Name the Baltic ports"}, []),
    "one word, and two options beside it": ({"q": "Freezes", "choices": ["Onega", "Como"]}, ["Onega", "Como"]),
    "and ten": ({"q": "Freezes", "choices": TEN}, TEN),
    "in a field of their own": ({"q": "Freezes", "choices": {"text": ["Onega", "Como"]}}, ["Onega", "Como"]),
    "by their letters": ({"q": "Freezes", "A": "Onega", "B": "Como"}, ["Onega", "Como"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_text_of_an_evaluation_set_is_known_with_its_options_in_another_order(case: str, tmp_path: Path) -> None:
    row, options = FILES[case]
    text = "\n".join([str(row["q"]), *(f"{'ABCDEFGHIJ'[n]}) {o}" for n, o in enumerate(reversed(options)))])
    assert not grams_of(evaluation(tmp_path, row)).isdisjoint(grams(text))


@pytest.mark.parametrize(
    "row", [{"q": "Freezes"}, {"q": "", "choices": ["Onega", "Como"]}, {"q": "Freezes", "choices": ["Onega"]}]
)
def test_a_set_without_a_text_that_tells_anything_is_refused(row: object, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"set\.jsonl: has no text of 4 words or more, so that against=set\.jsonl leaves "
    ):
        grams_of(evaluation(tmp_path, row))


def test_a_set_that_cannot_be_read_whole_is_refused_with_the_place(tmp_path: Path) -> None:
    (path,) = evaluation(tmp_path, {"q": "Name the Baltic ports"})
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(DataError, match=r"set\.jsonl:2 .*; an evaluation set must be read whole\.$"):
        grams_of([path])


def test_the_model_is_asked_nothing_and_what_it_said_before_counts_once(run: Run) -> None:
    model = Scripted(replies={"": "The tide is late on this coast."})
    ask = Ask(model=model, sampling=Sampling())
    asking = Asking(Wording(Labels(), "English"), Lists(), "externalised", {}, 1, 1, ask, ask)
    draws = [Draw("general", n, 0, "static", "", "", 0.0, 0.0, n, f"d{n}") for n in range(2)]
    first, second = asking(run, draws)
    assert isinstance(first, Picked)
    assert first.wanted.given == "The tide is late on this coast."
    assert second == Rejected("duplicate", "an earlier answer said the same")


def test_an_answer_in_another_language_is_asked_no_question(run: Run) -> None:
    ask = Ask(model=Scripted(otherwise=GERMAN), sampling=Sampling())
    asking = Asking(Wording(Labels(), "English"), Lists(), "externalised", {}, 1, 1, ask, ask)
    assert asking(run, [Draw("general", 0, 0, "static", "", "", 0.0, 0.0, 0, "d")]) == [Rejected("language", "de")]


def test_a_list_of_one_has_a_first_item_and_no_second() -> None:
    check_place(1, 1)
    with pytest.raises(
        RecipeError, match=r"^lists: number 2 of a list of 1 does not exist; write a size of 1 or more\.$"
    ):
        check_place(2, 1)


def test_an_empty_generator_is_refused() -> None:
    with pytest.raises(RecipeError) as refusal:
        GenQA(model=Scripted(), prompt=" \n", variants=("generator-conditional",), mode="single-shot")
    assert str(refusal.value) == "prompt: is empty; write the generator, or leave prompt out."


def test_reasons_are_counted_over_all_splits() -> None:
    rounds = Rounds({"math": 5, "code": 5}, Limits(tries=0, draws=20, round=10, duplicates=0.5))
    rounds.lost.update({("math", "refusal"): 2, ("code", "refusal"): 3, ("code", "no_code"): 1})
    assert rounds.reasons() == {"refusal": 5, "no_code": 1}


def test_a_draw_that_came_to_nothing_is_tried_again_so_often_and_one_that_was_taken_out_never() -> None:
    rounds = Rounds({"math": 2}, Limits(tries=1, draws=20, round=1, duplicates=1.0))
    turns = []
    for reason in ("no_answer", "no_answer", "duplicate", "no_answer"):
        ((split, idx, attempt),) = rounds.next()
        turns.append((idx, attempt))
        rounds.lose(Draw(split, idx, attempt, "static", "", "", 0.0, 0.0, 0, ""), Rejected(reason))
        rounds.close()
    assert [*turns, *((idx, attempt) for _, idx, attempt in rounds.next())] == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]


@pytest.mark.parametrize("label", ["", " ", "a:b", "a\nb"])
def test_a_label_that_could_not_be_found_is_refused(label: str) -> None:
    with pytest.raises(RecipeError, match=r"^labels: "):
        Labels(question=label)


def test_a_plan_of_questions_to_answers_counts_the_answers_and_their_length() -> None:
    """Of 10 rows and 30 draws at most; an answer of 7 tokens stands in the prompt that asks for its question."""
    seven, eight = (
        [p for p in GenQA(model=Scripted(), splits=("general",), count=10, draws_per_row=3.0, max_tokens=n).plan(0)
         if p.stage != "embed"] for n in (7, 8)
    )  # fmt: skip
    assert [(p.stage, p.items, p.answer, p.spare) for p in seven] == [
        ("answer", 10, 7, False), ("ask", 10, 7, False), ("answer", 20, 7, True), ("ask", 20, 7, True),
    ]  # fmt: skip
    assert [after.around - before.around for before, after in zip(seven, eight, strict=True)] == [0, 1, 0, 1]
    assert [p.around for p in seven if p.stage == "answer"] == [0, 0]


def test_a_plan_of_one_row_asks_once() -> None:
    one = GenQA(model=Scripted(), splits=("general",), count=1, draws_per_row=1.0)
    assert [(p.stage, p.items) for p in one.plan(0)] == [("answer", 1), ("ask", 1), ("embed", 1)]


def test_another_text_in_an_evaluation_set_makes_another_run(tmp_path: Path) -> None:
    paths = evaluation(tmp_path, {"q": "Name the Baltic ports"})
    method = GenQA(model=Scripted(), against=tuple(paths))
    before = method.identity()
    assert method.identity() == before
    evaluation(tmp_path, {"q": "Name the Polish ports"})
    assert method.identity() != before


def test_the_longest_prompt_has_room_for_the_longest_name_and_topic() -> None:
    """A name of a list has 120 characters at most, of four bytes each; a topic of the user's may have more."""
    wording = Wording(Labels(), "English")
    least = longest_prompt(wording, {}, (), ())
    assert least == len(wording.subtopics("", 9).encode()) + 480 + 2 * len("00000")  # the size stands in it twice
    found = [
        longest_prompt(wording, {"math": (topic,)}, ("static-conditional",), ()) for topic in ("a" * 480, "a" * 600)
    ]
    assert found[1] - found[0] == 120


def test_the_longest_prompt_is_that_of_any_split_and_of_a_generator_of_the_users_with_its_numbers() -> None:
    variants: tuple[Variant, ...] = ("static-conditional",)
    wording = Wording(Labels(), "English")
    alone = [longest_prompt(wording, {split: (topic,)}, variants, ()) for split, topic in LONG_AND_SHORT.items()]
    assert longest_prompt(wording, {split: (topic,) for split, topic in LONG_AND_SHORT.items()}, variants, ()) == max(
        alone
    )
    own = Wording(Labels(), "English", "number {N} of {L}. " * 100)
    assert longest_prompt(own, {"math": ()}, ("generator-conditional",), ()) == len("number 99999 of 99999. " * 100) - 1


LONG_AND_SHORT: dict[SplitName, str] = {"math": "a" * 600, "code": "b"}


def test_no_rows_need_no_lists() -> None:
    assert [lists_to_expect(Lists(), rows, 3, nested=True) for rows in (0, 1)] == [0, 2]
