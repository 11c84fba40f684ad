"""What is read from a completion, and what is not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesift import Failure
from tunesift.parsing import MOST_TEXT, Scale, Verdict, json_value, rating, section, two_ratings, verdict

TEN = Scale(0, 10)
MARKS: dict[str, Verdict] = {"[[A]]": "first", "[[B]]": "second", "[[C]]": "tie"}


@pytest.mark.parametrize(("text", "value"), [
    ("7", 7), (" 7.5\n", 7.5), ("7/10", 7), ("7 out of 10", 7), ("Rating: 8", 8), ("**Score**: 8.5/10", 8.5),
    ("I saw 3 errors in 12 lines. Rating: [[6]]", 6), ("Rating: 6. To repeat, rating: 6", 6), ('{"score": 4}', 4),
    ("The grade is 10.", 10), ("<think>2? no, 3?</think>9", 9), ("0", 0), ("+3", 3), ("My rating = 5", 5),
])  # fmt: skip
def test_a_rating_is_read(text: str, value: float) -> None:
    assert rating(text, TEN) == value


@pytest.mark.parametrize(("text", "why"), [
    ("good", "no number"), ("between 6 and 8", "several numbers"), ("Rating: 6, no, rating: 8", "several numbers"),
    ("11", "11 is not on the scale from 0 to 10"), ("-1", "-1 is not on the scale"), ("v1.2.3", "no number"),
    ("Rating: 99999999999", "no number"), ("7a", "no number"), ("seven", "no number"), ("NaN", "no number"),
])  # fmt: skip
def test_what_is_no_rating_is_a_failure_and_not_a_guess(text: str, why: str) -> None:
    made = rating(text, TEN)
    assert isinstance(made, Failure)
    assert made.kind == "unreadable"
    assert why in made.message


def test_half_a_point_is_off_a_scale_of_whole_numbers() -> None:
    assert rating("4", Scale(1, 5, whole=True)) == 4
    assert isinstance(rating("4.5", Scale(1, 5, whole=True)), Failure)


@pytest.mark.parametrize("text", ["", "  \n", "<think>hm</think>"])
def test_nothing_is_empty_to_every_reader(text: str) -> None:
    for made in (
        rating(text, TEN),
        section(text, "[A]"),
        verdict(text, MARKS),
        json_value(text),
        two_ratings(text, TEN),
    ):
        assert made == Failure("empty", "the completion is empty")


@pytest.mark.parametrize("mark", ["</think>", "</thinking>"])
def test_the_last_of_several_thoughts_ends_them(mark: str) -> None:
    assert rating(f"3? {mark} or 4? {mark} 9", TEN) == 9


def test_a_text_is_read_up_to_a_length_and_refused_beyond() -> None:
    assert rating("7".rjust(MOST_TEXT), TEN) == 7
    made = rating("7".rjust(MOST_TEXT + 1), TEN)
    assert made == Failure("unreadable", f"the completion has {MOST_TEXT + 1} characters, more than {MOST_TEXT}")


def test_a_failure_quotes_how_the_completion_begins() -> None:
    made = rating(f"good {'so ' * 90}", TEN)
    assert isinstance(made, Failure)
    quoted = made.message.split(': "')[1]
    assert quoted.startswith("good so so")
    assert len(quoted) <= 81


def test_two_ratings_stand_on_the_first_line_with_numbers() -> None:
    assert two_ratings("Scores:\n8 6\nBecause of 3 things", TEN) == (8, 6)
    assert two_ratings("8, 6.5", TEN) == (8, 6.5)
    assert two_ratings("0 10", TEN) == (0, 10)
    for text in ("8", "8 6 4", "8 60", "-1 8", "8\n6"):
        made = two_ratings(text, TEN)
        assert isinstance(made, Failure)
        assert "its first line with numbers is not two on the scale" in made.message
    assert two_ratings("none", TEN) == Failure("unreadable", 'the completion holds no number: "none"')


def test_a_section_stands_between_its_marks(caplog: pytest.LogCaptureFixture) -> None:
    assert section("x [New] a\nb [End] y", "[New]", "[End]") == "a\nb"
    assert section("[New] to the end", "[New]") == "to the end"
    assert section("[End] first [New] a [End] b [End]", "[New]", "[End]") == "a"
    with caplog.at_level(logging.INFO):
        assert section("[New] cut off", "[New]", "[End]") == "cut off"
    assert [r.message for r in caplog.records] == ['repaired a completion: the mark "[End]" is missing; took the rest']
    for text, why in (("none", "lacks"), ("[New] a [New] b", "twice")):
        made = section(text, "[New]", "[End]")
        assert isinstance(made, Failure)
        assert made.kind == "unreadable"
        assert why in made.message
    assert section("[New] [End]", "[New]", "[End]") == Failure("empty", 'the section "[New]" is empty')


def test_the_last_mark_is_the_verdict() -> None:
    assert verdict("I say [[A]].", MARKS) == "first"
    assert verdict("[[C]] yes, [[C]]", MARKS) == "tie"
    assert verdict("[[A]] is tempting but [[B]]", MARKS) == "second"
    assert verdict("A", MARKS) == Failure("unreadable", 'the completion gives no verdict: "A"')


@pytest.mark.parametrize("text", [
    '{"a": 1}', 'Sure:\n```json\n{"a": 1}\n```\nDone.', 'In {braces}: {"a": 1}', '<think>{"a": 2}</think>{"a": 1}',
    'I looked at {x} first.\n```\n{"a": 1}\n```', '{"a": 2} was wrong:\n```json\n{"a": 1}\n```', '{{"a": 1}',
    '{x} {"a": 1} {y}', '{"a": 1} {x}\n```\nno object here', 'first ```\n[]\n``` then {"a": 1} and {what}',
])  # fmt: skip
def test_a_json_object_is_found_whatever_stands_around_it(text: str) -> None:
    assert json_value(text, ["a"]) == {"a": 1}


def test_a_comma_before_a_bracket_is_taken_away_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert json_value('{"a": [1, 2, ], "b": ",}",}') == {"a": [1, 2], "b": ",}"}
    assert [r.message for r in caplog.records] == ["repaired a completion: took a comma away before a closing bracket"]


@pytest.mark.parametrize(("text", "why"), [
    ("[1]", "no JSON object"), ('{"a": 1} {"a": 2}', "2 JSON objects"), ('{"a": 1, "a": 2}', "no JSON object"),
    ('{"a": NaN}', "no JSON object"), ('{"b": 1}', 'lacks "a"'), ('{"a": "cut', "no JSON object"),
])  # fmt: skip
def test_what_is_not_one_object_is_a_failure(text: str, why: str) -> None:
    made = json_value(text, ["a"])
    assert isinstance(made, Failure)
    assert why in made.message


READERS: dict[str, Callable[[str], object]] = {
    "rating": lambda t: rating(t, TEN),
    "two": lambda t: two_ratings(t, TEN),
    "section": lambda t: section(t, "[New]", "[End]"),
    "verdict": lambda t: verdict(t, MARKS),
    "json": lambda t: json_value(t, ["a"]),
}
BRICKS = ["{", "[", '{"a":', '"', '\\"', '"\\', "1 ", "1", "1/", "rating", "rating: ", "rating:'\"", ", ", ",}", "```\n{",
          "</think>", "[New]", "[[A]]", "{}", "7 out of ", "\n", " ", "1.", "+-", '{"a":1,}']  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
def test_S17_reading_takes_time_in_proportion_to_the_text(reader: str) -> None:
    read, slow = READERS[reader], []
    for brick in BRICKS:
        for size in (MOST_TEXT, 2**20):
            text = brick * (size // len(brick))
            times = []
            for _ in range(3):
                began = time.process_time()
                read(text)
                times.append(time.process_time() - began)
            if min(times) > 0.25:  # 10 ms on a quiet machine; in proportion to the square it would be minutes
                slow.append((brick, size, min(times)))
    assert not slow


@given(st.text(max_size=200))
def test_no_text_breaks_a_reader(text: str) -> None:
    for read in READERS.values():
        read(text)
