"""What GenQA takes for the same: rows of each split, texts of evaluation sets, names; in scripts with spaces and without."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tunesift import Completion, DataError, Dataset, GenQA, Labels, Local, Message, Run, ScriptedModel
from tunesift.methods.genqa_checks import Rejected, Wanted, Written, listed, name_leak, options_fault
from tunesift.methods.genqa_likeness import dedup_key
from tunesift.methods.genqa_prompts import ABOUT, SplitName
from tunesift.methods.genqa_reading import distinct_items, read_row
from tunesift.methods.genqa_sifting import Sieve, grams, grams_of


def row(*texts: str) -> Written:
    return Written(tuple(Message("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)))


def held_back(split: SplitName, *rows: Written, near: float | None = 0.8) -> list[str]:
    """Why each row is not taken, in order; empty for one that is."""
    sieve = Sieve(near, frozenset())
    found = (sieve.holds_back(one, split) for one in rows)
    return [f"{why.reason}: {why.detail}" if why else "" for why in found]


# --- near-duplicates of each split -----------------------------------------------------------------------------------

QUESTION = (
    "A harbour lies at the end of a long and narrow bay. Why does high water come there later than at the open coast, and "
    "by what would you tell the delay from a map?"
)
LONG_ANSWER = (
    "The tide travels up the bay as a wave whose speed depends on the depth alone, so that shallow water holds it up; divide "
    "the length by the root of depth times gravity."
)
OTHER_ANSWER = (
    "Friction and depth slow it down. Measure the bay, look up soundings, add up the time over every stretch."
)
REPORT = (
    "Sales rose in March by four percent, fell in April by two, and stood still in May, when the new shop in the harbour "
    "opened its doors; costs rose all the while, mostly rent and wages, and the board has asked for a plan."
)
MATERIAL = f"{REPORT} {LONG_ANSWER} {QUESTION} {OTHER_ANSWER}"
LOOP = "```python\nfor n in range(10):\n    print(n)\n```"
MEADOW = (
    "A farmer has a meadow of 120 metres by 80 metres and wants a fence around it with a gate of 4 metres. How long is the "
    "fence?"
)
HARDER = "And if the meadow is cut in two halves by another fence of 80 metres?"
OPTIONS = ("at the coast", "in the open sea", "at the head of the bay", "at the mouth of the river")


def choice(stem: str, options: tuple[str, ...], mark: str = "{}) {}") -> str:
    return "\n".join([stem, *(mark.format(letter, o) for letter, o in zip("ABCDE", options, strict=False))])


STEM = "At which of these places is the spring tide highest?"
LONG_OPTIONS = (
    "It rises twice a day because the earth turns below two bulges", "It needs the moon alone and never the sun",
    "It stands still at the equator in every month of the year", "It is the wind that makes it and nothing else",
)  # fmt: skip
OTHER_OPTIONS = (
    "Neap tides come when sun and moon pull at right angles", "Rivers have none whatever their mouths look like",
    "Their height was first written down by the Romans in Gaul", "Only oceans with ice on them have strong ones",
)  # fmt: skip
STATEMENT = "Which of the following is true of tides?"
HOTEL = "Hello! Can you help me? I have to find a quiet room in Lisbon for three nights in May, near a station and not too dear."
DOG = "Hello! Can you help me? My old dog will not eat since Monday, and the vet is away until the end of the week."

SAME: dict[str, tuple[SplitName, Written, Written]] = {
    "academic: a word of the question is another one, and the answer is new": (
        "academic", row(QUESTION, LONG_ANSWER), row(QUESTION.replace("narrow", "winding"), OTHER_ANSWER)),
    "writing: the same task, and another piece": (
        "writing", row(QUESTION, "A tale."), row(QUESTION.replace("narrow", "winding"), "Quite another tale.")),
    "general: the same answer, and a question in other words": (
        "general", row("Why is the tide late?", LONG_ANSWER), row("What holds a tide up?", LONG_ANSWER)),
    "mmlu: options in another order": (
        "mmlu", row(choice(STEM, OPTIONS), "A."), row(choice(STEM, OPTIONS[::-1]), "D.")),
    "multiple-choice: other letters and brackets": (
        "multiple-choice", row(choice(STEM, OPTIONS), "A."), row(choice(STEM, OPTIONS, "({}) {}"), "A. Indeed.")),
    "mmlu: one wrong option is another one": (
        "mmlu", row(choice(QUESTION, OPTIONS), "A."), row(choice(QUESTION, (*OPTIONS[:3], "on a lake")), "A.")),
    "multiple-choice: in Chinese, options in another order": (
        "multiple-choice", row(choice("大潮在哪里最高？", ("海岸", "外海", "湾顶", "河口"), "{}、{}"), "A"),
        row(choice("大潮在哪里最高？", ("外海", "海岸", "湾顶", "河口"), "{}、{}"), "B")),
    "math: other numbers": (
        "math", row(MEADOW, "It is 396.", HARDER, "476."), row(
            MEADOW.replace("120", "350").replace("80", "65.5").replace("4", "3"), "It is 828.",
            HARDER.replace("80", "65.5"), "893.5.")),
    "dialog: the same person, and other replies": (
        "dialog", row(HOTEL, "Of course. By the river?"), row(HOTEL.replace("too dear", "far out"), "Try the old town.")),
    "task: a word of the instruction is another one": (
        "task", row(f"Summarise the report in two sentences.\n\n{REPORT}", "Up and down."),
        row(f"Summarise this report in two sentences.\n\n{REPORT}", "It went so.")),
    "code: other words around the same code": (
        "code", row(f"{QUESTION} Say what this prints.\n{LOOP}", "```\n0\n```"),
        row(f"{QUESTION} Tell what this prints.\n{LOOP.replace('    ', '  ')}", "```\n9\n```")),
}  # fmt: skip
APART: dict[str, tuple[SplitName, Written, Written]] = {
    "academic: another question, and an answer that begins alike": (
        "academic", row("What is osmosis?", LONG_ANSWER[:60]), row("What is diffusion?", LONG_ANSWER[:60])),
    "writing: another occasion": (
        "writing", row("Write a letter to a landlord about a leaking tap.", "Dear Sir"),
        row("Write a letter to a neighbour about a barking dog.", "Dear Sir")),
    "general: another question and another answer": (
        "general", row("Why is the sea salt?", LONG_ANSWER), row("Why is the sea salty in places?", OTHER_ANSWER)),
    "mmlu: a question that says nothing, with other options": (
        "mmlu", row(choice(STATEMENT, LONG_OPTIONS), "A."), row(choice(STATEMENT, OTHER_OPTIONS), "A.")),
    "multiple-choice: half of the options are others": (
        "multiple-choice", row(choice(STEM, OPTIONS), "A."), row(choice(STEM, (*OPTIONS[:2], "x y", "z w")), "A.")),
    "math: formulas with other numbers": (
        "math", row("Solve 3x + 5 = 20.", "5", "Now 3x = 9.", "3"), row("Solve 7x + 1 = 50.", "7", "Now 7x = 28.", "4")),
    "math: the same numbers in another problem": (
        "math", row(MEADOW, "396", HARDER, "476"), row(
            "Of 120 guests 80 want tea and 4 want nothing at all, while everybody else has asked for coffee. How many cups "
            "of it are drunk?", "36", "And if half of them drink 2?", "54")),
    "dialog: the same greeting": ("dialog", row(HOTEL, "Of course."), row(DOG, "Of course.")),
    "task: the same material, and another task": (
        "task", row(f"Summarise the report in two sentences.\n\n{MATERIAL}", "Up and down."),
        row(f"Translate what the board wants into plain Italian.\n\n{MATERIAL}", "Un piano.")),
    "task: the same material before another task": (
        "task", row(f"{MATERIAL}\n\nSummarise the report above in two sentences.", "Up and down."),
        row(f"{MATERIAL}\n\nTranslate what the board wants into Italian.", "Un piano.")),
    "task: the same task, and other material": (
        "task", row(f"Summarise the report in two sentences.\n\n{REPORT}", "Up and down."),
        row(f"Summarise the report in two sentences.\n\n{QUESTION}", "Late.")),
    "code: other code in the same words": (
        "code", row(f"{QUESTION} What does this print?\n{LOOP}", "```\n0\n```"),
        row(f"{QUESTION} What does this print?\n{LOOP.replace('10', '11')}", "```\n0\n```")),
    "code: other words around the same code": (
        "code", row(f"Say what this prints and why.\n{LOOP}", "```\n0\n```"),
        row(f"Write this without a loop, as one line.\n{LOOP}", "```\nprint\n```")),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_a_row_of_a_split_that_says_the_same_is_held_back(name: str) -> None:
    split, first, second = SAME[name]
    taken, why = held_back(split, first, second)
    assert taken == ""
    assert why.startswith(("near_duplicate: ", "duplicate: asks the same"))


@pytest.mark.parametrize("name", APART)
def test_a_row_of_a_split_that_only_looks_the_same_is_taken(name: str) -> None:
    split, first, second = APART[name]
    assert held_back(split, first, second) == ["", ""]


def test_options_in_another_order_are_a_duplicate_without_near_and_are_called_so() -> None:
    first, second = row(choice(STEM, OPTIONS), "A."), row(choice(STEM, OPTIONS[::-1]), "D.")
    why = "duplicate: asks the same as row 1 of the output, its options in another order"
    assert held_back("mmlu", first, second, near=None) == ["", why]
    assert held_back("academic", first, second, near=None) == ["", ""]


def test_a_greeting_alone_makes_no_duplicate_of_a_conversation_and_two_sentences_do_elsewhere() -> None:
    rows = [row(HOTEL, "Of course."), row(DOG, "Of course."), row(HOTEL.replace("near", "by"), "Yes.")]
    assert held_back("dialog", *rows, near=None) == ["", "", ""]
    assert held_back("academic", *rows, near=None)[1:] == ["duplicate: begins as row 1 of the output does"] * 2
    short = [row("Hello! Can you help me?", "Yes.", "I lost my key.", "Where?"),
             row("Hello! Can you help me?", "Yes.", "I lost my cat.", "Where?"),
             row("Hello! Can you help me?", "Sure.", "I lost my key.", "Here?")]  # fmt: skip
    assert held_back("dialog", *short, near=None)[1] == ""
    assert held_back("dialog", *short, near=None)[2].startswith("duplicate: ")


def test_a_reason_says_whether_rows_are_equal_begin_alike_or_are_only_near() -> None:
    same, alike = row(QUESTION, "Other."), row(f"{QUESTION} Draw it.", "Other.")
    near = row(QUESTION.replace("narrow", "winding"), "Other.")
    assert held_back("academic", row(QUESTION, LONG_ANSWER), same, alike, near) == [
        "", "duplicate: asks the same as row 1 of the output", "duplicate: begins as row 1 of the output does",
        "near_duplicate: 0.8333 like row 1 of the output, by its question",
    ]  # fmt: skip


def test_the_row_that_a_reason_names_is_a_row_of_the_output_whatever_split_it_is_of() -> None:
    sieve = Sieve(0.8, frozenset())
    taken: list[tuple[SplitName, Written]] = [
        ("mmlu", row(choice(STEM, OPTIONS), "A.")), ("code", row("Print it.", LOOP)),
        ("academic", row(QUESTION, LONG_ANSWER)),
    ]  # fmt: skip
    assert [sieve.holds_back(one, split) for split, one in taken] == [None] * 3
    why = sieve.holds_back(row(QUESTION.replace("narrow", "winding"), "Other."), "writing")
    assert why is not None
    assert "like row 3 of the output" in why.detail


# --- scripts without spaces ------------------------------------------------------------------------------------------

SCRIPTS = {
    "Chinese": ("港口位于一个狭长海湾的尽头，为什么那里的高潮比外海岸来得晚，如何从地图上估计这个延迟时间？",
                "请写一首关于秋天森林里小动物准备过冬的短诗，并说明它用了哪些修辞手法和意象来表达感情。"),
    "Japanese": ("細長い湾の奥にある港では、満潮が外海の海岸よりも遅れてやってきますが、その理由を詳しく説明してください。",
                 "秋の森で冬支度をする小さな動物たちについて短い物語を書き、その中で使った表現の工夫を説明してください。"),
    "Thai": ("ท่าเรืออยู่ปลายอ่าวแคบยาวเหตุใดน้ำขึ้นสูงสุดที่นั่นจึงมาช้ากว่าชายฝั่งด้านนอกและจะประมาณความล่าช้าจากแผนที่ได้อย่างไร",
             "จงเขียนบทกวีสั้นเกี่ยวกับสัตว์เล็กในป่าฤดูใบไม้ร่วงที่เตรียมตัวรับฤดูหนาวพร้อมอธิบายภาพพจน์ที่ใช้ในบทกวีนั้นด้วย"),
    "Khmer": ("កំពង់ផែស្ថិតនៅចុងឈូងសមុទ្រតូចចង្អៀតហេតុអ្វីបានជាទឹកជោរខ្ពស់បំផុតនៅទីនោះមកយឺតជាងឆ្នេរសមុទ្រខាងក្រៅ",
              "ចូរសរសេរកំណាព្យខ្លីមួយអំពីសត្វតូចៗនៅក្នុងព្រៃរដូវស្លឹកឈើជ្រុះដែលកំពុងត្រៀមខ្លួនសម្រាប់រដូវរងា"),
    "Hindi": ("बंदरगाह एक लंबी और संकरी खाड़ी के अंत में है और वहाँ ज्वार खुले तट की तुलना में देर से क्यों आता है",
              "शरद ऋतु के जंगल में सर्दी की तैयारी करते छोटे जानवरों पर एक छोटी कविता लिखिए और उसके अलंकार बताइए"),
}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_text_of_an_evaluation_set_is_found_inside_a_row_in_any_script(tmp_path: Path, script: str) -> None:
    known_text, other = SCRIPTS[script]
    (tmp_path / "eval.jsonl").write_text(json.dumps({"question": known_text}, ensure_ascii=False) + "\n", "utf-8")
    sieve = Sieve(None, grams_of((tmp_path / "eval.jsonl",)))
    inside = sieve.holds_back(row(f"{other[:9]}{known_text}{other[-9:]}", "1"), "academic")
    assert inside is not None
    assert inside.reason == "contaminated"
    assert sieve.holds_back(row(other, "2"), "academic") is None
    assert sieve.holds_back(row(f"{other[:20]}{known_text[:14]}{other[20:]}", "3"), "academic") is None


@pytest.mark.parametrize("script", SCRIPTS)
def test_nearly_equal_rows_are_found_in_any_script_and_others_are_not(script: str) -> None:
    text, other = SCRIPTS[script]
    changed = f"{text[:-4]}{other[-3:]}"
    why = held_back("academic", row(text, "1"), row(changed, "2"), row(other, "3"))
    assert [w.partition(":")[0] for w in why] == ["", "near_duplicate", ""]


def test_a_hindi_word_is_one_and_not_the_letters_between_its_signs() -> None:
    text = "ज्वार खुले तट की तुलना में देर"
    assert len(text.split()) == 7
    assert len(grams(f"{text} {text}")) == 2  # fourteen words: two runs of thirteen


def test_chinese_questions_and_exclamations_end_sentences_too() -> None:
    assert dedup_key("为什么？请解释！甲") == dedup_key("为什么？请解释！乙")
    assert dedup_key("Is 3!5 one? Is it? A") != dedup_key("Is 3!5 two? Is it? A")


def test_the_same_questions_are_found_inside_a_row_in_languages_with_spaces_and_without(shared: Path) -> None:
    for language, least in (("en", 60), ("zh", 50), ("ja", 80), ("ko", 40)):
        path = shared / "multilingual" / f"questions_{language}100.jsonl"
        known = grams_of((path,))
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        texts = [max((v for v in r.values() if isinstance(v, str)), key=len) for r in rows]
        assert sum(not grams(t).isdisjoint(known) for t in texts) == 100
        assert sum(not grams(f"1 {t} 2").isdisjoint(known) for t in texts) >= least


@pytest.mark.parametrize(("asked", "name", "found"), [
    ("请解释光学中的折射现象。", "光学", "光学"), ("请解释水里的筷子为什么弯。", "光学", ""),
    ("細胞生物学とは何ですか。", "細胞生物学", "細胞生物学"), ("อธิบายทัศนศาสตร์ให้เข้าใจ", "ทัศนศาสตร์", "ทัศนศาสตร์"),
    ("광학을 설명하시오.", "광학", "광학"), ("ＤＮＡ的结构是什么？", "DNA", "dna"),
])  # fmt: skip
def test_a_name_is_banned_in_scripts_without_spaces(asked: str, name: str, found: str) -> None:
    assert name_leak(asked, name, "generator-conditional") == found


@pytest.mark.parametrize(("asked", "name", "found"), [
    ("鲸鱼这种生物怎样呼吸？", "海洋生物学", "生物"), ("鲸鱼怎样呼吸？", "海洋生物学", ""),
    ("このデータは何を示しますか。", "データ分析の歴史", "データ"), ("この表は何を示しますか。", "データ分析の歴史", ""),
    ("ควอนตัมคืออะไร", "ฟิสิกส์ ควอนตัม", "ควอนตัม"), ("การเรียนคืออะไร", "การเกษตรอินทรีย์", ""),
])  # fmt: skip
def test_nested_generators_ban_words_of_a_name_in_scripts_without_spaces(asked: str, name: str, found: str) -> None:
    assert name_leak(asked, name, "generator-nested") == found
    assert name_leak(asked, name, "generator-conditional") == ""


# --- evaluation sets -------------------------------------------------------------------------------------------------

PLANET = "Which planet is the largest?"
PLANETS = ("Mars", "Jupiter", "Venus", "Saturn")
FORMS: dict[str, Callable[[], str]] = {
    "without options": lambda: PLANET,
    "with options": lambda: choice(PLANET, PLANETS),
    "in another order": lambda: choice(PLANET, PLANETS[::-1], "({}) {}"),
    "in bold": lambda: choice(PLANET, PLANETS, "**{}.** {}"),
    "in one line": lambda: f"{PLANET} (A) Mars (B) Jupiter (C) Venus (D) Saturn",
    "with labels": lambda: "Question: " + choice(f"{PLANET}\nOptions:", PLANETS, "{}. {}") + "\nAnswer:",
    "after a line for all": lambda: (
        "Answer the following question about the sky.\n\n" + choice(f"Q1. {PLANET}", PLANETS)
    ),
}


@pytest.mark.parametrize("made", FORMS)
@pytest.mark.parametrize("known", FORMS)
def test_a_short_question_is_found_with_its_options_without_them_and_in_any_order(known: str, made: str) -> None:
    assert not grams(FORMS[known]()).isdisjoint(grams(FORMS[made]()))


@pytest.mark.parametrize(
    ("label", "before"), [("问题：", "选项："), ("質問：", "選択肢："), ("1. ", ""), ("題目 3：", "")]
)
def test_labels_of_chinese_and_japanese_questions_are_no_part_of_them(label: str, before: str) -> None:
    stem, options = "太阳系中最大的行星是哪一个？", ("火星", "木星", "金星", "土星")
    known = grams(f"{label}{choice(f'{stem} {before}'.strip(), options, '{}、{}')}")
    assert not known.isdisjoint(grams(stem))
    assert known.isdisjoint(grams("太阳系中最小的行星是哪一个？"))


def test_another_short_question_is_not_found_whatever_its_options_are() -> None:
    known = grams(choice(PLANET, PLANETS))
    assert known.isdisjoint(grams(choice("Which planet is the hottest?", PLANETS)))
    assert known.isdisjoint(grams("Compare two planets.\nModel A: Mars\nModel B: Jupiter"))


@pytest.mark.parametrize(
    "stem", ["Which of the following is true?", "下列哪项是正确的？", "次のうち正しいものはどれですか。"]
)
def test_a_question_that_says_nothing_is_known_by_its_options(stem: str) -> None:
    known = grams(choice(stem, LONG_OPTIONS))
    assert not known.isdisjoint(grams(choice(stem, LONG_OPTIONS[::-1])))
    assert known.isdisjoint(grams(choice(stem, PLANETS)))
    assert known.isdisjoint(grams(stem))


FIELDS: dict[str, dict[str, object]] = {
    "a list": {"question": "2 + 3 =", "choices": [*PLANETS], "answer": 1},
    "a list inside a field": {"question": "2 + 3 =", "choices": {"text": [*PLANETS], "label": [*"ABCD"]}},
    "fields with letters": {"question": "2 + 3 =", **dict(zip("ABCD", PLANETS, strict=True))},
    "letters inside a field": {"question": "2 + 3 =", "options": dict(zip("ABCD", PLANETS, strict=True))},
}


@pytest.mark.parametrize("form", FIELDS)
def test_options_beside_a_short_question_belong_to_it_whatever_their_fields_are(tmp_path: Path, form: str) -> None:
    (tmp_path / "eval.jsonl").write_text(json.dumps(FIELDS[form]) + "\n")
    known = grams_of((tmp_path / "eval.jsonl",))
    assert not known.isdisjoint(grams(choice("2 + 3 =", PLANETS[::-1])))
    assert known.isdisjoint(grams(choice("2 + 4 =", PLANETS)))


@pytest.mark.parametrize("text", ['{"id": 7, "name": "tides"}\n', '{"question": "潮汐？"}\n', '{"question": ""}\n'])
def test_an_evaluation_set_without_a_text_that_tells_anything_is_refused_before_any_call(
    tmp_path: Path, text: str
) -> None:
    (tmp_path / "good.jsonl").write_text(json.dumps({"question": QUESTION}) + "\n")
    (tmp_path / "short.jsonl").write_text(text, "utf-8")
    model = ScriptedModel(replies={"": "never"})
    method = GenQA(model=model, count=1, against=(tmp_path / "good.jsonl", tmp_path / "short.jsonl"))
    with Run(tmp_path / "run", Local()) as run, pytest.raises(DataError) as caught:
        method(Dataset.of([]), run)
    assert str(caught.value) == (
        f"{tmp_path / 'short.jsonl'}: has no text of 4 words or more, so that against=short.jsonl leaves nothing out; name a "
        "file with the questions of an evaluation set."
    )
    assert not (tmp_path / "run" / "stages").exists()


# --- how models write lists, options and letters ---------------------------------------------------------------------


@pytest.mark.parametrize("line", [
    "1. Tides", "1) Tides", "(1) Tides", "1: Tides", "### 1. Tides", "**1.** Tides", "**1. Tides**", "Q1: Tides", "**Q1:** Tides",
    "Q 1. Tides", "No. 1: Tides", "#1: Tides", "- 1. Tides", "> 1. Tides", "1\\. Tides", "  (1)  Tides;",
])  # fmt: skip
def test_a_numbered_line_is_an_item_however_its_number_is_written(line: str) -> None:
    assert listed(line) == [(1, "Tides")]
    assert distinct_items(Completion(f"Here:\n{line}\n", "stop", 1)) == ("Tides",)


@pytest.mark.parametrize("line", ["1、潮汐", "1.潮汐", "１．潮汐", "（1）潮汐", "(1)潮汐", "1）潮汐", "1：潮汐"])
def test_a_numbered_line_of_chinese_is_an_item_without_a_space(line: str) -> None:
    assert listed(line) == [(1, "潮汐")]


@pytest.mark.parametrize("line", ["1.5 metres", "1:30 pm", "2.x is old", "In 1. Tides", "Quiz: Tides", "2024 Tides"])
def test_a_line_that_begins_with_another_number_is_no_item(line: str) -> None:
    assert listed(line) == []


@pytest.mark.parametrize("mark", ["{}、{}", "{}．{}", "（{}）{}", "{}.{}", "{}：{}", "({}) {}"])
@pytest.mark.parametrize("letter", ["B。因为月亮", "（B）因为", "B、因为", "B：因为", "B"])
def test_options_and_letters_are_read_as_chinese_has_them(mark: str, letter: str) -> None:
    asked = choice("大潮在哪里最高？", ("海岸", "外海", "湾顶", "河口"), mark)
    assert options_fault(row(asked, letter), "mmlu") is None
    wrong = options_fault(row(asked, letter.replace("B", "E")), "mmlu")
    assert wrong is not None
    assert wrong.reason == "letter"


# --- bad replies, as the issue names them ----------------------------------------------------------------------------

WANTED = Wanted("academic", "generator-conditional", Labels(), ABOUT, "en", "Sea", n1=2, lists=1)
PAIR = "Question: Why do they lag behind the moon?\nAnswer: The sea floor turns."
GERMAN = "Warum bleibt die Flut hinter dem Mond zurück, und wie lange dauert das an dieser Küste?"
LEAK = "Write a question about the sea. Start the line of the question with `Question:` and nothing else at all."
OWN = "请写一个关于海洋的问题，不要提到它的名字。然后写出完整的答案，并解释每一个步骤的理由。"
REPLIES: dict[str, tuple[str, Wanted, str]] = {
    "without a list": (f"Subtopic 2: Tides\n{PAIR}", WANTED, "no_list"),
    "with fewer items than asked": (f"1. Waves\nSubtopic 2: Tides\n{PAIR}", WANTED, "index_missing"),
    "numbered wrongly: every number is one": (f"1. Waves\n1. Tides\nSubtopic 2: Tides\n{PAIR}", WANTED, "index_missing"),
    "numbered wrongly: a number twice": (f"2. Waves\n2. Tides\nSubtopic 2: Tides\n{PAIR}", WANTED, "renumbered"),
    "numbered wrongly: another number is stated": (
        f"1. Waves\n2. Tides\nSubtopic 2: Waves\n{PAIR}", WANTED, "index_mismatch"),
    "with an answer missing": ("1. Waves\n2. Tides\nSubtopic 2: Tides\nQuestion: Why?", WANTED, "no_answer"),
    "with an empty answer": ("1. Waves\n2. Tides\nSubtopic 2: Tides\nQuestion: Why?\nAnswer:\n", WANTED, "empty"),
    "in another language": (f"Question: {GERMAN}\nAnswer: Lange.", replace(WANTED, lists=0), "language"),
    "in another script": (
        "Question: 为什么那里的高潮比外海岸来得晚，如何从地图上估计这个时间？\nAnswer: 浅。", replace(WANTED, lists=0), "language"),
    "with the prompt leaked": (
        f"Question: {LEAK} Why?\nAnswer: So.", replace(WANTED, lists=0, prompt=LEAK, language=""), "prompt_leak"),
    "with a Chinese prompt leaked": (
        f"Question: 好的。{OWN[:21]}为什么？\nAnswer: 是。", replace(WANTED, lists=0, prompt=OWN, language=""), "prompt_leak"),
}  # fmt: skip


@pytest.mark.parametrize("name", REPLIES)
def test_a_bad_reply_is_rejected_by_its_name(name: str) -> None:
    text, wanted, reason = REPLIES[name]
    found = read_row(Completion(text, "stop", 1), wanted)
    assert isinstance(found, Rejected), found
    assert found.reason == reason
