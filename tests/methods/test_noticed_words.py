"""What a user would miss of what is read and tagged: each test here failed on a change of a page that no other noticed."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from tunesift import Completion, Failure, RecipeError, ScriptedTagger, SpacyTagger
from tunesift.methods import mctune_taggers
from tunesift.methods.mctune_controls import is_valid, parse_block
from tunesift.methods.mctune_taggers import annotated
from tunesift.methods.mctune_words import Token, syllables
from tunesift.methods.reflection_reading import _mark
from tunesift.methods.selective_steps import told
from tunesift.methods.star_agents_writing import read_instruction


@pytest.mark.parametrize(
    "said",
    [
        "[New Answer] 42",
        "**[ new  answer ]** 42",
        "Well.\n2. New Answer: 42",
        "**New answer**: 42",
        "# NEW\tANSWER : 42",
    ],
)
def test_a_mark_counts_in_brackets_or_where_a_line_begins(said: str) -> None:
    """Made anew, since what a page makes when it is imported was made before."""
    found = _mark("New Answer").search(said)
    assert found is not None
    assert said[found.end() :] == " 42"


@pytest.mark.parametrize("said", ["My New Answer: 42", "New Answers: 42", "A new answer 42", "New: Answer", "[New] 42"])
def test_words_of_a_mark_within_a_line_are_none(said: str) -> None:
    assert _mark("New Answer").search(said) is None


def test_the_rule_tells_lemma_part_of_speech_and_sentence_of_every_word_and_mark() -> None:
    words = {"foxes": "fox NOUN", "run": "run up VERB", "!": "! NOUN"}
    assert ScriptedTagger(words=words)("Two Foxes run! Who? They. So") == [
        ("Two", "two", "X", 0), ("Foxes", "fox", "NOUN", 0), ("run", "run", "up VERB", 0), ("!", "!", "PUNCT", 0),
        ("Who", "who", "X", 1), ("?", "?", "PUNCT", 1), ("They", "they", "X", 2), (".", ".", "PUNCT", 2),
        ("So", "so", "X", 3),
    ]  # fmt: skip


class Said:
    """A token as spaCy has it."""

    def __init__(self, text: str, begins: bool | None) -> None:
        self.text, self.lemma_, self.pos_, self.is_sent_start = text, text.lower(), "X", begins


class Doc(list[Said]):
    """A text as spaCy has it; of one token it never tells where sentences begin."""

    def has_annotation(self, name: str) -> bool:
        assert name == "SENT_START"
        return len(self) > 1 and any(said.is_sent_start is not None for said in self)


def spacy_tells(patch: pytest.MonkeyPatch, *begins: bool | None) -> list[int]:
    """Numbers of the sentences of tokens of which spaCy says that they begin one, or do not, or nothing."""
    doc = Doc(Said(text, begin) for text, begin in zip("abcde", begins, strict=False))
    patch.setattr(mctune_taggers, "_loaded", lambda name: lambda text: doc)
    return [token.sentence for token in SpacyTagger(name="pipe")("any")]


@pytest.mark.parametrize(
    ("begins", "sentences"),
    [
        ((), []), ((None,), [0]), ((True,), [0]), ((True, False, True, False, True), [0, 0, 1, 1, 2]),
        ((False, None, True), [0, 0, 1]),
    ],
)  # fmt: skip
def test_sentences_of_a_pipeline_are_numbered_from_0_whatever_it_says_of_the_first_word(
    begins: tuple[bool | None, ...], sentences: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spacy_tells(monkeypatch, *begins) == sentences


def test_a_pipeline_that_finds_no_sentences_is_refused_from_two_tokens_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError) as refusal:
        spacy_tells(monkeypatch, None, None)
    assert str(refusal.value) == (
        "analyser.tagger: the pipeline pipe finds no sentences (sent_start); use one with a parser or a sentencizer."
    )


def nothing(text: str, /) -> list[Token]:
    """A tagger of somebody's own that knows nothing."""
    return [Token("word", "", "", 0)]


class OfAKind:
    """The same, of a kind."""

    kind = "own"
    __call__ = staticmethod(nothing)


class Named(OfAKind):
    """The same with a name."""

    name = "mine"


@pytest.mark.parametrize(("tagger", "whose"), [(Named(), "mine"), (OfAKind(), "own"), (nothing, "function")])
def test_whose_annotation_is_missing_is_said(tagger: Any, whose: str) -> None:  # Any: taggers
    with pytest.raises(RecipeError) as refusal:
        annotated(tagger, "word", "upos")
    assert str(refusal.value) == (
        f"analyser.tagger: {whose} gives no parts of speech (upos); use one that does, or leave it out, with "
        "analyser.profile=core."
    )


CONTROLS: Mapping[str, dict[str, float] | str] = {
    "[t_word: 120] [fkre: 65.2]": {"t_word": 120.0, "fkre": 65.2},
    "[t_word 120]": "is not a list of controls such as [t_word: 120] [fkre: 65.2]",
    "[t_word: 120] [mood: 3]": "has the control mood, which is none",
    "[fkre: 65.2] [t_word: 120]": "has its controls twice or in another order",
    "[fkre: -0.0]": "has a zero with a sign",
}


@pytest.mark.parametrize("text", CONTROLS)
def test_controls_that_cannot_be_read_say_why(text: str) -> None:
    expected = CONTROLS[text]
    assert parse_block(text) == (Failure("unreadable", expected) if isinstance(expected, str) else expected)


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (Completion("Go there", "length", 2), Failure("too-long", "truncated")),
        (Completion("x" * 8, "stop", 1), "x" * 8),
        (Completion("x" * 9, "stop", 1), Failure("too-long", "more than 4 times its seed's length")),
        (Completion(f"[Instruction]{'x' * 8}[End]", "stop", 1), "x" * 8),
        (Failure("unanswered", "nobody is there"), Failure("unanswered", "nobody is there")),
    ],
)
def test_a_rewritten_instruction_may_be_four_times_as_long_as_its_seed(said: Any, found: Any) -> None:  # Any: either
    assert read_instruction(said, "ab") == found


def test_a_mark_counts_as_one_syllable_where_it_counts_at_all() -> None:
    assert [syllables(form) for form in ("…", "sea", "river")] == [1, 1, 2]


def test_counts_without_a_readability_may_be_those_of_a_text() -> None:
    assert is_valid({"t_word": 3, "t_uword": 2})
    assert not is_valid({"t_word": 2, "t_uword": 3})


def test_where_only_one_of_two_responses_has_a_ratio_their_losses_are_told() -> None:
    weighed: Any = SimpleNamespace(  # Any: stands in for what was weighed
        ifd=SimpleNamespace(margin=None), final_ifd=None, guess=SimpleNamespace(old=2.0, new=1.5), branch="A",
        reversed_ifd={2.0: 0.9, 1.5: None}.get,
    )  # fmt: skip
    assert told(weighed, "kept") == ("rewritten (response): instruction kept; loss of the instruction 2.0000 to 1.5000")
