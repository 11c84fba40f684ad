"""Words of scripts with spaces and without: what a run of them is, how long it is, and where a name stands in a text."""

from __future__ import annotations

import unicodedata

import pytest

from tunesift.words import holds_name, length, runs_of, spelled, units, words_of_name


def test_a_text_with_spaces_is_split_at_them_and_nowhere_else() -> None:
    text = "Don't  split 3.14, C++ or naïve\tfolk: 한국어도 그렇다, и русский."
    assert units(text) == text.split()
    assert length(units(text)) == len(text.split())


@pytest.mark.parametrize(("text", "expected"), [
    ("今天，天气", ["今", "天，", "天", "气"]), ("DNAの複製 3.14", ["DNA", "の", "複", "製", "3.14"]),
    ("น้ำทะเล", ["น้", "ำ", "ท", "ะ", "เ", "ล"]), ("ทะเล123 sea", ["ท", "ะ", "เ", "ล", "123", "sea"]),
    ("“你好”!", ["“你", "好”!"]), ("မြန်မာ", ["မြ", "န်", "မာ"]), ("ខ្មែរ", ["ខ្", "មែ", "រ"]),
])  # fmt: skip
def test_a_text_without_spaces_is_split_at_its_letters_and_nothing_of_it_is_lost(
    text: str, expected: list[str]
) -> None:
    assert units(text) == expected
    assert "".join(expected) == "".join(text.split())


@pytest.mark.parametrize(("text", "words"), [
    ("潮汐为什么", 2.5), ("ひらがな", 2), ("ทะเล", 4 / 3), ("DNA 复制", 2), ("조석은 왜", 2), ("", 0),
])  # fmt: skip
def test_two_characters_and_three_thai_letters_make_a_word(text: str, words: float) -> None:
    assert length(units(text)) == pytest.approx(words)


def test_a_run_is_as_long_as_so_many_words_in_any_script() -> None:
    assert list(runs_of(["a", "b", "c", "d"], 3)) == ["a b c", "b c d"]
    assert list(runs_of(list("潮汐为什么落后"), 3)) == ["潮 汐 为 什 么 落", "汐 为 什 么 落 后"]
    assert list(runs_of(["sea", "潮", "汐", "sky", "海"], 2)) == ["sea 潮 汐", "潮 汐 sky", "汐 sky 海"]
    assert list(runs_of(["a", "b"], 3)) == ["a b"]
    assert list(runs_of([], 3)) == [""]


def test_a_spelling_keeps_the_signs_of_letters_and_drops_what_nobody_sees() -> None:
    assert spelled("हिन्दी, व्याकरण!").split() == ["हिन्दी", "व्याकरण"]
    assert units(spelled("น้ำ")) == units(spelled(unicodedata.normalize("NFD", "น้ำ"))) != units(spelled("นำ"))
    assert spelled("so\u00adft ＡＢＣ zero\u200bwidth") == "soft abc zerowidth"
    assert spelled("Don't—stop").split() == ["don", "t", "stop"]


@pytest.mark.parametrize(("text", "name", "stands"), [
    ("How does soil  PH change?", "Soil pH", True), ("How do soil phases change?", "Soil ph", False),
    ("Is C++ fast?", "C++", True), ("Is C fast?", "C++", False),
    ("什么是光学？", "光学", True), ("什么是光 学？", "光学", True), ("光的学问", "光学", False),
    ("什么是DNA复制？", "DNA", True), ("什么是ＤＮＡ？", "DNA", True), ("什么是DNAs？", "DNA", False),
    ("이 광학은 무엇인가?", "광학", True), ("양자광학은 무엇인가?", "광학", False), ("DNA는 무엇인가?", "DNA", True),
    ("เรียนฟิสิกส์ที่บ้าน", "ฟิสิกส์", True), ("ปู่", "ป", False), ("เป็ด", "ป", False), ("anything", "", False),
])  # fmt: skip
def test_a_name_stands_in_a_text_where_its_script_would_have_it(text: str, name: str, stands: bool) -> None:
    assert holds_name(text, name) is stands


@pytest.mark.parametrize(("name", "words"), [
    ("Deltas of the north", ["deltas", "of", "the", "north"]), ("量子力学", ["量子", "子力", "力学"]),
    ("データ分析の歴史", ["分析", "歴史", "データ"]), ("DNA修復", ["修復", "dna"]), ("水", []),
    ("ฟิสิกส์ ควอนตัม", ["ฟิสิกส์", "ควอนตัม"]), ("ฟิสิกส์ควอนตัม", ["ฟิสิกส์คว", "สิกส์ควอ", "กส์ควอน", "ส์ควอนตั", "ควอนตัม"]),
    ("광학 기초", ["광학", "기초"]),
])  # fmt: skip
def test_words_of_a_name_are_what_its_script_has_for_words(name: str, words: list[str]) -> None:
    assert words_of_name(name) == words
