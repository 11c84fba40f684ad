"""GenQA held against its card: draws, coverage, the parser's table, duplicates, diversity, ordering, bad input."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pytest

from harness.generator import numbered, word
from tunesift import (
    Completion,
    Dataset,
    GenQA,
    Labels,
    Lists,
    Local,
    Message,
    RecipeError,
    Run,
    Sampling,
    ScriptedModel,
)
from tunesift.methods.genqa_checks import Rejected, Wanted, Written, options_fault
from tunesift.methods.genqa_draws import Chance, Draw, check_place, place, shares
from tunesift.methods.genqa_likeness import dedup_key
from tunesift.methods.genqa_prompts import SPLITS, SplitName, Variant, check_generator
from tunesift.methods.genqa_reading import distinct_items, read_row
from tunesift.methods.genqa_sifting import first_of_each, nearest
from tunesift.methods.genqa_topics import AREAS, topics_of
from tunesift.running.result import Result

ALL: tuple[Variant, ...] = (
    "static", "static-conditional", "generator-conditional", "generator-nested", "generator-uniform",
)  # fmt: skip


def said(text: str, stop: Literal["stop", "length"] = "stop") -> Completion:
    return Completion(text, stop, 1)


def made(method: GenQA, folder: Path, seed: int = 0) -> Result:
    with Run(folder, Local(), seed, max_failures=1.0) as run:
        result = method(Dataset.of([]), run)
        run.finish(None, result.decisions)
    return result


# --- 1: chance -------------------------------------------------------------------------------------------------------


def draws(count: int, folder: Path, order: Sequence[int] | None = None) -> list[Draw]:
    chance = Chance(variants=ALL, topics={"academic": ("Optics", "Botany")}, boosters=("Be odd.", "Be new."), seed=5)
    with Run(folder, Local(), seed=5) as run:
        return [chance.draw(run.random, "academic", idx) for idx in (order or range(count))]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> list[Draw]:
    return draws(40_000, tmp_path_factory.mktemp("draws"))


def chi_square(counts: Counter[int], size: int) -> float:
    expected = counts.total() / size
    return sum((counts[n] - expected) ** 2 / expected for n in range(1, size + 1))


@pytest.mark.parametrize(("size", "bound"), [(40, 72.05), (60, 98.32)])
def test_oracle_1_forty_thousand_draws_of_a_place_are_uniform(many: list[Draw], size: int, bound: float) -> None:
    for drawn in ([d.first for d in many], [d.second for d in many]):
        places = Counter(place(x, size) for x in drawn)
        assert set(places) == set(range(1, size + 1))
        assert chi_square(places, size) < bound
    assert place(math.nextafter(1.0, 0.0), size) == size


def test_oracle_1_a_row_draws_the_same_in_any_order_and_company(tmp_path: Path) -> None:
    order = list(range(500))
    random.Random(3).shuffle(order)
    again = {d.idx: d for d in draws(0, tmp_path / "b", order)}
    assert [again[n] for n in range(500)] == draws(500, tmp_path / "a")
    assert len({d.seed for d in again.values()}) == 500


def test_oracle_1_a_further_try_of_a_row_draws_anew(tmp_path: Path) -> None:
    chance = Chance(variants=ALL, topics={"academic": topics_of(*AREAS)}, boosters=(), seed=0)
    with Run(tmp_path, Local()) as run:
        tries = [chance.draw(run.random, "academic", 7, attempt) for attempt in range(3)]
    assert len({(d.first, d.second, d.seed) for d in tries}) == 3
    assert [d.id for d in tries] == [
        "genqa-0-academic-7", "genqa-0-academic-7~again-1", "genqa-0-academic-7~again-2",
    ]  # fmt: skip


# --- 2: coverage -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Frozen(ScriptedModel):
    """Has one list for everything that it is asked a list of, and a question of its own for every prompt and seed."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [said(self._said(c[-1].text, sampling.seed)) for c in conversations]

    def _said(self, asked: str, seed: int) -> str:
        if size := re.search(r"numbered list of (\d+)", asked):
            field = found[1] if (found := re.search(r"The field is: (.+)", asked)) else ""
            return numbered([word("item", field, n) for n in range(int(size[1]))])
        return f"Question: Why {word('q', asked, seed)}? Explain.\nAnswer: Because {word('a', asked, seed)}."


COVERAGE: list[tuple[Variant, Lists, int, float, float]] = [
    ("generator-conditional", Lists(subtopics=40), 100, 36.82, 5),
    ("generator-conditional", Lists(subtopics=100, reuse=2000), 1000, 100, 1),
    ("generator-nested", Lists(), 1000, 873.23, 30),
    ("generator-nested", Lists(topics=100, nested=100), 1000, 951.67, 25),
]


@pytest.mark.parametrize(("variant", "lists", "count", "expected", "band"), COVERAGE)
def test_oracle_2_distinct_picks_are_as_many_as_chance_says(
    tmp_path: Path, variant: Variant, lists: Lists, count: int, expected: float, band: float
) -> None:
    model = GenQA(model=Frozen(), count=count, variants=(variant,), lists=lists, topics=("Optics",), measured=2)
    result = made(model, tmp_path)
    assert result.data is not None
    assert len(result.data) == count
    size = lists.subtopics if variant == "generator-conditional" else lists.topics * lists.nested
    assert size * (1 - (1 - 1 / size) ** count) == pytest.approx(expected, abs=0.01)  # the card's own formula
    picks = {(r.extra["n1"], r.extra["n2"]) for r in result.data}
    assert abs(len(picks) - expected) <= band
    assert len({(r.extra["topic"], r.extra["subtopic"]) for r in result.data}) == len(picks)


# --- 3: the parser's table -------------------------------------------------------------------------------------------


def asked(n: int | None = None, lists: int = 0, subtopic: str = "", split: SplitName = "academic") -> Wanted:
    return Wanted(split, "generator-conditional", Labels(), "", "", "Nature", subtopic, n, None, lists)


LONG = "\n".join(f"{n}. Item {n}" for n in range(1, 13))
TABLE: dict[str, tuple[str, Wanted, tuple[str, str, str] | str]] = {
    "a list, a stated item, a pair": (
        "1. Optics\n2. Botany\nSubtopic 2: Botany\nQuestion: Why do leaves fall?\nAnswer: Abscission.", asked(2, 1),
        ("Why do leaves fall?", "Abscission.", ""),
    ),
    "labels in bold, and a label inside the answer": (
        "**Question:** Why?\n**Answer:** Because the Answer: field says so.", asked(),
        ("Why?", "Because the Answer: field says so.", ""),
    ),
    "labels in backticks, as our prompt has them": (
        "`Question:` Why?\n`Answer:` So.", asked(), ("Why?", "So.", ""),
    ),
    "labels of a heading, of any case": ("### QUESTION: Why?\n> answer : So.", asked(), ("Why?", "So.", "")),
    "two pairs": ("Question: Q1?\nAnswer: A1\n\nQuestion: Q2?\nAnswer: A2", asked(), ("Q1?", "A1", "extra")),
    "no labels": ("Why? Because.", asked(), "no_question"),
    "nothing after the answer's label": ("Question: Why?\nAnswer:", asked(), "empty"),
    "a list of twelve, the seventeenth asked for": (
        f"{LONG}\nSubtopic 17: Item 17\nQuestion: Why?\nAnswer: So.", asked(17, 1), "index_missing",
    ),
    "the name in the question": (
        "Question: How does soil pH change the roots?\nAnswer: Slowly.", asked(subtopic="Soil pH"), "name_leak",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_oracle_3_a_completion_is_read_as_the_card_says(name: str) -> None:
    text, wanted, expected = TABLE[name]
    found = read_row(said(text), wanted)
    if isinstance(expected, str):
        assert isinstance(found, Rejected)
        assert found.reason == expected
    else:
        assert isinstance(found, Written)
        assert (found.messages[0].text, found.messages[1].text, ", ".join(found.flags)) == expected


PAIR = "Question: Why do tides lag behind?\nAnswer: The sea floor turns."
MORE: dict[str, tuple[Completion, Wanted, str]] = {
    "cut at the token limit": (said(PAIR, "length"), asked(), "truncated"),
    "a refusal instead of a row": (said("I'm sorry, but I can't help with that."), asked(), "refusal"),
    "a refusal as the answer": (said("Question: Why?\nAnswer: I'm sorry, but I cannot answer that."), asked(), "refusal"),
    "nothing at all": (said("  "), asked(), "empty"),
    "only marks": (said("Question: **\nAnswer: --"), asked(), "empty"),
    "no answer": (said("Question: Why do tides lag?"), asked(), "no_answer"),
    "a label said twice": (said("Question: Question: Why?\nAnswer: So."), asked(), "label_leak"),
    "no list": (said(f"Subtopic 2: Botany\n{PAIR}"), asked(2, 1), "no_list"),
    "the wrong item is stated": (said(f"1. Optics\n2. Botany\nSubtopic 2: Optics\n{PAIR}"), asked(2, 1), "index_mismatch"),
    "no item is stated": (said(f"1. Optics\n2. Botany\n{PAIR}"), asked(2, 1), "not_stated"),
    "every number is one": (said(f"1. Optics\n1. Botany\nSubtopic 1: Botany\n{PAIR}"), asked(1, 1), "renumbered"),
    "numbers are skipped": (said(f"1. Optics\n3. Botany\nSubtopic 2: Botany\n{PAIR}"), asked(2, 1), "index_missing"),
    "the list comes back in the question": (
        said("1. Tides\n2. Waves\n3. Wind\nSubtopic 1: Tides\nQuestion: Of\n1. Tides\n2. Waves\n3. Wind\nwhich?\nAnswer: 2."),
        asked(1, 1), "name_leak",
    ),
    "three options": (said("Question: Which?\nA) x\nB) y\nC) z\nAnswer: B. So."), asked(split="mmlu"), "options"),
    "two options that are one": (
        said("Question: Which?\nA) x\nB) X\nC) y\nD) z\nAnswer: B. So."), asked(split="mmlu"), "options"),
    "no letter": (
        said("Question: Which?\nA) x\nB) y\nC) z\nD) w\nAnswer: A reason is that it is so."), asked(split="mmlu"), "letter"),
    "a letter that is not there": (
        said("Question: Which?\nA) x\nB) y\nC) z\nD) w\nAnswer: E. So."), asked(split="multiple-choice"), "letter"),
    "code without code": (said("Question: Write it.\nAnswer: I would use a loop."), asked(split="code"), "no_code"),
    "two users in a row": (said("User: a\nUser: b\nAssistant: c"), asked(split="dialog"), "turns"),
    "the assistant does not end it": (said("User: a\nAssistant: b\nUser: c"), asked(split="dialog"), "turns"),
    "two messages where four are due": (said("User: a\nAssistant: b"), asked(split="math"), "turns"),
    "ten messages where eight are the most": (said("User: a\nAssistant: b\n" * 5), asked(split="dialog"), "turns"),
    "no user": (said("Once upon a time."), asked(split="math"), "no_user"),
}  # fmt: skip


@pytest.mark.parametrize("name", MORE)
def test_oracle_3_what_breaks_a_rule_is_rejected_by_its_name(name: str) -> None:
    completion, wanted, reason = MORE[name]
    found = read_row(completion, wanted)
    assert isinstance(found, Rejected), found
    assert found.reason == reason


@pytest.mark.parametrize(("split", "count"), [("math", 4), ("dialog", 2), ("dialog", 8)])
def test_turns_of_a_conversation_become_messages(split: SplitName, count: int) -> None:
    text = "".join(f"{'**User**' if n % 2 == 0 else 'assistant'}: turn {n}\n" for n in range(count))
    found = read_row(said(text), asked(split=split))
    assert isinstance(found, Written)
    assert [(m.role, m.text) for m in found.messages] == [
        ("user" if n % 2 == 0 else "assistant", f"turn {n}") for n in range(count)
    ]


@pytest.mark.parametrize(
    "letter", ["B.", "B", "(B) since", "**B)** as", "Option B: as", "The answer is B.", "B - as it is"]
)
def test_the_letter_of_an_answer_is_found_as_models_write_it(letter: str) -> None:
    row = Written((Message("user", "Which?\nA) x\n**B)** y\n(C) z\nD. w"), Message("assistant", letter)))
    assert options_fault(row, "mmlu") is None


def test_a_list_asked_for_alone_is_read_without_repeats_marks_and_its_cut_end() -> None:
    text = "Here you are:\n1. **Optics**\n2) botany\n 3. Botany\n- no number\n4\\. Soil pH;\n5. Wa"
    assert distinct_items(said(text, "length")) == ("Optics", "botany", "Soil pH")
    assert distinct_items(said("Sorry, no list today.")) == ()


def test_both_lists_of_a_nested_generator_must_say_what_was_stated() -> None:
    text = ("1. Physics\n2. Law\nTopic 2: Law\n1. Torts\n2. Wills\n3. Trusts\nSubtopic 3: **Trusts**\n"
            "Question: Who owns it while she lives?\nAnswer: Nobody wholly.")  # fmt: skip
    wanted = Wanted("academic", "generator-nested", Labels(), "", n1=2, n2=3, lists=2)
    assert read_row(said(text), wanted) == Written(
        (Message("user", "Who owns it while she lives?"), Message("assistant", "Nobody wholly.")), "Law", "Trusts", 2, 3
    )
    free = Wanted("academic", "generator-uniform", Labels(), "", lists=2)
    unnumbered = text.replace("Topic 2:", "Topic:").replace("Subtopic 3:", "Subtopic:")
    assert read_row(said(unnumbered), free) == read_row(said(text), wanted)
    elsewhere = read_row(said(unnumbered.replace("Topic: Law", "Topic: Art")), free)
    assert isinstance(elsewhere, Rejected)
    assert elsewhere.reason == "index_mismatch"


def test_nested_generators_ban_every_word_of_the_name() -> None:
    text = "Question: How do river deltas grow?\nAnswer: By silt."
    nested = Wanted("academic", "generator-nested", Labels(), "", subtopic="Deltas of the north")
    assert read_row(said(text), nested) == Rejected("name_leak", "deltas")
    assert isinstance(read_row(said(text), asked(subtopic="Deltas of the north")), Written)


GERMAN = (
    "Warum bleibt die Flut hinter dem Mond zurück, und wie lange dauert das an dieser Küste? Das ist nicht einfach."
)


@pytest.mark.parametrize("text", [
    f"Question: Why?\nAnswer: {GERMAN}", f"Question: {GERMAN}\nAnswer: So it is.",
    "Question: Why?\nAnswer: 因为月亮的引力使海水上涨，而且地球在自转，所以潮汐会延迟到来。",
])  # fmt: skip
def test_a_message_in_another_language_is_no_row_whichever_it_is(text: str) -> None:
    wanted = replace(asked(), language="en")
    row = read_row(said(text), wanted)
    assert isinstance(row, Rejected)
    assert row.reason == "language"
    assert isinstance(read_row(said(text), asked()), Written)


@pytest.mark.parametrize("answer", [
    "Lange.", "Berlin, München und Köln.", "It is called Schadenfreude, and the English have no word of their own for it.",
    "```python\nfuer_alle = [zahl for zahl in zahlen if zahl.ist_gerade() and nicht_leer(zahlen)]\n```",
    "$\\alpha + \\beta = \\gamma$, so $\\sin^2 x + \\cos^2 x = 1$.", "42", "C) Rhine. Danube. Vistula. Elbe.",
])  # fmt: skip
def test_short_answers_code_and_formulas_are_in_no_language(answer: str) -> None:
    wanted = replace(asked(), language="en")
    assert isinstance(read_row(said(f"Question: Why?\nAnswer: {answer}"), wanted), Written)


# --- 4: duplicates ---------------------------------------------------------------------------------------------------

SIX = [
    "Why is X? Explain. Give A.", "Why is X?  Explain. Give B.", "why is x? Explain. Give C.", "Why is X? Discuss. Give A.",
    "Compute 3.14 times 2. Show steps. Then stop.", "Dr. Lee asks why. Explain. End.",
]  # fmt: skip


def test_oracle_4_six_questions_have_four_keys_and_the_lowest_number_survives_in_any_order() -> None:
    texts = list(enumerate(SIX))
    expected = first_of_each(texts)
    assert len(expected) == 4
    assert sorted(expected.values()) == [0, 3, 4, 5]
    assert dedup_key(SIX[5]) == "dr. lee asks why."
    assert dedup_key(SIX[4]) == "compute 3.14 times 2. show steps."
    for seed in range(20):
        random.Random(seed).shuffle(texts)
        assert first_of_each(texts) == expected


def test_oracle_4_code_tasks_and_options_are_told_apart_by_all_of_their_text() -> None:
    same = "Consider the following code. What does it print? "
    assert len(first_of_each(enumerate([same + "print(1)", same + "print(2)"]))) == 1
    assert len(first_of_each(enumerate([same + "print(1)", same + "print(2)"]), whole=True)) == 2
    assert {name for name, split in SPLITS.items() if split.whole} == {
        "code",
        "task",
        "mmlu",
        "multiple-choice",
        "general",
    }


@pytest.mark.parametrize(("a", "b", "one"), [
    ("ＡＢＣ is ﬁne. Yes. No.", "abc is fine.  YES. Maybe.", True), ("なぜですか。説明して。甲", "なぜですか。説明して。乙", True),
    ("One sentence only", "one sentence only", True), ("What? Why? A", "What! Why? A", False),
])  # fmt: skip
def test_oracle_4_the_key_has_one_spelling(a: str, b: str, one: bool) -> None:
    assert (dedup_key(a) == dedup_key(b)) is one


# --- 5: diversity ----------------------------------------------------------------------------------------------------

THREE = [(1.0, 0.0), (0.8, 0.6), (0.0, 1.0)]


def test_oracle_5_the_nearest_of_three_unit_vectors() -> None:
    found = nearest(THREE)
    assert found == pytest.approx([0.8, 0.8, 0.6])
    assert sum(found) / 3 == pytest.approx(0.73333, abs=1e-5)
    assert nearest([(3.0, 0.0), (1.6, 1.2), (0.0, 9.0)]) == pytest.approx(found), "lengths do not count"


@pytest.mark.parametrize("twice", range(3))
def test_oracle_5_a_repeated_item_is_its_own_neighbour(twice: int) -> None:
    found = nearest([*THREE, THREE[twice]])
    assert found[twice] == found[3] == pytest.approx(1.0)


@pytest.mark.parametrize("vectors", [[], [(1.0, 0.0)]])
def test_oracle_5_one_text_has_no_neighbour_and_no_number(vectors: list[tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="among two texts or more"):
        nearest(vectors)


def test_oracle_5_tiles_give_what_pairs_give() -> None:
    draw = random.Random(1)
    vectors = [tuple(draw.gauss(0, 1) for _ in range(8)) for _ in range(1100)]
    found = nearest(vectors)
    lengths = [math.sqrt(sum(x * x for x in v)) for v in vectors]
    for i in (0, 1023, 1024, 1099):
        others = (
            sum(x * y for x, y in zip(vectors[i], vectors[j], strict=True)) / lengths[i] / lengths[j]
            for j in range(len(vectors)) if j != i
        )  # fmt: skip
        assert found[i] == pytest.approx(max(others))


def test_a_single_row_gets_no_measure_and_no_nan(tmp_path: Path) -> None:
    result = made(GenQA(model=Frozen(), count=1), tmp_path)
    assert result.data is not None
    assert len(result.data) == 1
    assert not (tmp_path / "tables" / "diversity.parquet").exists()


# --- 6: ordering -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Echo(ScriptedModel):
    """What it writes depends on the topic and the places in the lists, and on nothing else: no sampling at all."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [said(self._said(c[-1].text)) for c in conversations]

    def _said(self, text: str) -> str:
        field = found[1] if (found := re.search(r"The field is: (.+)", text)) else ""
        before, picks = [], [field]
        sizes = re.findall(r"numbered list of (\d+)", text)
        for size, (label, number) in zip(sizes, re.findall(r"`(Topic|Subtopic) (\d+):`", text), strict=True):
            names = [word(field, label, n) for n in range(int(size))]
            before += [numbered(names), f"{label} {number}: {names[int(number) - 1]}"]
            picks.append(number)
        return "\n".join([*before, f"Question: Why {word('q', *picks)}? Explain.\nAnswer: So."])


def test_oracle_6_distinct_questions_static_conditional_generator(tmp_path: Path) -> None:
    found = []
    for variant in ("static", "static-conditional", "generator-conditional", "generator-nested"):
        method = GenQA(model=Echo(), count=600, variants=(variant,), mode="single-shot", max_duplicates=1.0)  # type: ignore[arg-type]
        result = made(method, tmp_path / variant)
        assert result.data is not None
        found.append(len(result.data))
    assert found == sorted(found)
    assert found[0] == 1
    assert found[0] < found[1] < found[2]
    assert found[1] == 7 * 24  # all topics of the split, and no more


# --- 7: bad input ----------------------------------------------------------------------------------------------------


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(RecipeError) as caught:
        call()
    (sentence,) = caught.value.args
    return str(sentence)


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "nothing to make": ({"count": 0}, "count: 0 is too few; write 1 or more."),
    "less than nothing": ({"count": -3}, "count: -3 is too few; write 1 or more."),
    "a similarity above one": ({"near": 1.5}, "near: 1.5 is not from 0.7 to 1; write 0.8, or null to compare nothing."),
    "a similarity below zero": ({"near": -0.1}, "near: -0.1 is not from 0.7 to 1; write 0.8, or null to compare nothing."),
    "duplicates above one": ({"max_duplicates": 1.5}, "max_duplicates: 1.5 is not a fraction; write 0.5 for one half."),
    "no topics": ({"topics": ()}, "topics: the list is empty; name topics, or leave it out for our own."),
    "blank topics": ({"topics": (" ", "")}, "topics: the list is empty; name topics, or leave it out for our own."),
    "no splits": ({"splits": ()}, "splits: must name at least one, and none twice; it has none."),
    "a split twice": ({"splits": ("code", "code")}, "splits: must name at least one, and none twice; it has code, code."),
    "too cold": ({"temperature": 0.2}, "temperature: at 0.2 the model repeats itself; write 0.5 or more, or cold=true."),
    "no draws": ({"draws_per_row": 0.5}, "draws_per_row: 0.5 makes too few rows; write 1 or more."),
    "a language that nobody asks for": ({"language": "xx"}, "language: xx is none of en, de, fr"),
    "labels that are one": ({"labels": {"question": "Answer"}}, "labels: must be six different words without a colon"),
    "an empty list": ({"lists": {"subtopics": 0}}, "lists.subtopics: 0 is no number of items; write 1 or more."),
    "a prompt for lists asked apart": (
        {"prompt": "Write {what}."}, "prompt: is for one variant, written in one go; add mode=single-shot and one variant."),
    "an unknown place": (
        {"prompt": "Write {what} on {subject}.", "mode": "single-shot", "variants": ("static",)},
        "prompt: has a place {subject}, which static fills with nothing; it may have what, form,"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_oracle_7_bad_settings_are_one_sentence_before_any_call(name: str) -> None:
    settings, sentence = WRONG[name]
    inner = {"labels": Labels, "lists": Lists}

    def build() -> GenQA:
        given = {k: inner[k](**v) if k in inner else v for k, v in settings.items()}  # type: ignore[operator]
        return GenQA(model=ScriptedModel(), **given)  # type: ignore[arg-type]

    assert refused(build).startswith(sentence)


def test_oracle_7_a_place_beyond_the_list_is_refused() -> None:
    for number, size in ((41, 40), (0, 40), (1, 0)):
        assert refused(lambda n=number, s=size: check_place(n, s)).startswith(
            f"lists: number {number} of a list of {size}"
        )  # type: ignore[misc]
    assert refused(lambda: place(0.5, 0)) == "lists: 0 is no number of items; write 1 or more."
    assert refused(lambda: check_generator("On {N1}.", "generator-conditional")).startswith("prompt: has a place {N1}")


CALLS: list[str] = []


@dataclass(frozen=True, kw_only=True)
class Refuses(ScriptedModel):
    """Says no to everything."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        CALLS.extend(c[-1].text for c in conversations)
        return [said("I'm sorry, but I can't help with that.") for _ in conversations]


@pytest.mark.parametrize("mode", ["single-shot", "externalised"])
@pytest.mark.parametrize("variant", ALL)
def test_oracle_7_an_endpoint_that_refuses_everything_is_asked_three_times_a_row_at_most(
    tmp_path: Path, variant: Variant, mode: Literal["single-shot", "externalised"]
) -> None:
    CALLS.clear()
    result = made(GenQA(model=Refuses(), count=20, variants=(variant,), mode=mode), tmp_path)
    assert result.data is not None
    assert len(result.data) == 0
    assert 0 < len(CALLS) <= 3 * 20
    assert result.short.startswith("0 of 20; 60 draws are made, the most that draws_per_row allows")


# --- shares of splits ------------------------------------------------------------------------------------------------


def test_shares_are_the_root_of_the_public_sizes_and_add_up() -> None:
    splits: tuple[SplitName, ...] = ("academic", "math", "code")
    found = shares(1000, splits, 0.5)
    assert sum(found.values()) == 1000
    roots = [math.sqrt(n) for n in (4_210_076, 515_509, 513_483)]
    for split, root in zip(splits, roots, strict=True):
        assert abs(found[split] - 1000 * root / sum(roots)) < 1
    assert shares(10, splits, 0) == {"academic": 4, "math": 3, "code": 3}
    assert sum(shares(7, tuple(SPLITS), 0.5).values()) == 7
    assert sum(split.rows for split in SPLITS.values()) == 11_082_134  # the card's total


def test_our_topics_are_many_and_each_of_them_once() -> None:
    assert len(AREAS) == 8
    assert all(len(topics_of(area)) >= 20 for area in AREAS)
    everything = topics_of(*AREAS)
    assert len({t.casefold() for t in everything}) == len(everything)
