"""In which words does GenQA ask? The generators, what each split wants written, and the boosters.

Every word is our own. A generator says how to come to a subject, a form what to write about
it. Labels stand inside our sentences and never at the beginning of a line, so that a reply that repeats the prompt is
not read as one that answers it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tunesift.errors import RecipeError
from tunesift.methods.genqa_topics import AREAS
from tunesift.prompts import fenced, fill
from tunesift.settings import Settings

Variant = Literal[
    "static", "static-conditional", "generator-conditional", "generator-nested", "generator-uniform"
]  # fmt: skip
SplitName = Literal["academic", "mmlu", "multiple-choice", "writing", "task", "code", "math", "dialog", "general"]

LISTED: tuple[Variant, ...] = ("generator-conditional", "generator-nested")
"""Variants whose list can be asked for apart; in `generator-uniform` the model itself chooses."""

BOOSTERS = (
    "Be inventive.",
    "Skip the first idea you have.",
    "Choose something unusual.",
    "Make it cleverer than expected.",
    "Be unlike everybody else.",
)

LANGUAGES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "pt": "Portuguese",
    "nl": "Dutch", "sv": "Swedish", "da": "Danish", "no": "Norwegian", "fi": "Finnish", "pl": "Polish",
    "cs": "Czech", "hu": "Hungarian", "ro": "Romanian", "el": "Greek", "ru": "Russian", "uk": "Ukrainian",
    "tr": "Turkish", "ar": "Arabic", "he": "Hebrew", "fa": "Persian", "hi": "Hindi", "bn": "Bengali",
    "th": "Thai", "vi": "Vietnamese", "id": "Indonesian", "zh": "Chinese", "ja": "Japanese", "ko": "Korean",
}  # fmt: skip
"""Languages that are asked for by their code."""


@dataclass(frozen=True, kw_only=True)
class Labels(Settings):
    """What begins the lines that a reply is read by; English unless set."""

    question: str = "Question"
    """Begins the question, the task or the request."""
    answer: str = "Answer"
    """Begins the answer."""
    user: str = "User"
    """Begins what the user says in a conversation."""
    assistant: str = "Assistant"
    """Begins what the assistant says in a conversation."""
    topic: str = "Topic"
    """Begins the line that states which topic was chosen."""
    subtopic: str = "Subtopic"
    """Begins the line that states which subtopic was chosen."""

    def __post_init__(self) -> None:
        names = [self.question, self.answer, self.user, self.assistant, self.topic, self.subtopic]
        if not all(n.strip() and ":" not in n and "\n" not in n for n in names) or len(
            {n.casefold() for n in names}
        ) < len(names):
            raise RecipeError("labels: must be six different words without a colon, such as question=Frage.")


@dataclass(frozen=True)
class Split:
    """What a split of the public set asks for."""

    rows: int
    """Of the public set, as its host counts them; decides the shares of several splits."""
    areas: tuple[str, ...]
    """Of our topics."""
    scope: str
    """What a list of topics is a list of."""
    what: str
    """What is to be written."""
    asked: str
    """What its first part is called."""
    form: str
    reads: Literal["pair", "options", "code", "turns"] = "pair"
    least: int = 2
    """Messages at least: options, for questions that have them."""
    most: int = 2
    whole: bool = False
    """Whether the whole first turn tells duplicates apart, not its first two sentences."""


_PAIR = (
    "Start the line of the {asked} with `{question}:` and the line of the answer with `{answer}:`. The {asked} is "
    "complete in itself and several sentences long."
)
_OPTIONS = (
    "Start the line of the question with `{question}:`. Under it write the options, each on a line of its own, as "
    "`A)`, `B)` and so on. Then start a line with `{answer}:`, followed by the letter of the right option and a full "
    "stop, and then by the reasoning."
)
_TURNS = (
    "Start each thing that the person says with `{user}:` on a new line and each reply with `{assistant}:` on a new "
    "line."
)
_STUDY = tuple(area for area in AREAS if area != "daily life")

SPLITS: Mapping[SplitName, Split] = {
    "academic": Split(
        4_210_076, _STUDY, "fields of study from the whole range of what universities teach",
        "a demanding question and its answer", "question",
        f"{_PAIR} The answer is long, right, and explains every step.",
    ),
    "mmlu": Split(
        2_409_841, _STUDY, "subjects of university and professional examinations",
        "an examination question with exactly four options, of which one is right", "question", _OPTIONS,
        "options", 4, 4, True,
    ),
    "multiple-choice": Split(
        372_610, tuple(AREAS), "subjects that people know something about",
        "a question with four or five options, of which one is right", "question", _OPTIONS, "options", 4, 5, True,
    ),
    "writing": Split(
        932_362, ("humanities", "society", "daily life"), "subjects and occasions for a piece of writing",
        "a writing task and the finished piece", "task", f"{_PAIR} The answer is the finished piece and nothing else.",
    ),
    "task": Split(
        1_004_179, ("society", "engineering", "medicine", "daily life"), "kinds of practical work with texts and data",
        "a practical task and its result", "task",
        f"{_PAIR} Put every text or table that the task needs into the task itself.", whole=True,
    ),
    "code": Split(
        513_483, ("computing",), "fields of programming", "a programming request and its solution", "request",
        f"{_PAIR} The answer holds the code in a fenced block and explains it.", "code", whole=True,
    ),
    "math": Split(
        515_509, ("mathematics",), "fields of mathematics",
        "a conversation of exactly four messages: somebody poses a problem, it is solved step by step, the same person "
        "asks a harder follow-up question, and that is solved too", "problem", _TURNS, "turns", 4, 4,
    ),
    "dialog": Split(
        819_154, ("daily life", "society", "humanities"), "situations in which people ask somebody for help",
        "a conversation between a person and a helpful assistant, with two to four messages of each, that ends with "
        "the "
        "assistant", "conversation", _TURNS, "turns", 2, 8,
    ),
    "general": Split(304_920, (), "", "the question to an answer", "question", "", whole=True),
}  # fmt: skip
"""The splits of the public set; `general` begins with an answer to nothing, for which a question is then written."""

_INDIRECT = (
    "The {asked} must not be about {it} itself: nothing of its history, its people, its textbooks or what it is good "
    "for. Yet nobody can do it well without being an expert in {it}."
)
NO_NAME = "The name of the subtopic must not occur in the {asked}."
NO_WORD = "No word of the subtopic's name may occur in the {asked}."

STATIC = "Write {what}, about whatever you like. Make it hard.\n\n{form}\n\n{language} {booster}"
STATIC_CONDITIONAL = (
    "The field is: {topic}\n\nWrite {what}, from this field. Make it hard. The name of the field must not occur in the "
    "{asked}.\n\n{form}\n\n{language} {booster}"
)
CONDITIONAL = (
    "The field is: {topic}\n\nWrite a numbered list of {L} different subtopics of this field, one on each line, from "
    "1 to {L}. After the list, write a line `{subtopic_label} {N}:` with the name of number {N}, exactly as your "
    "list has it. Then write {what}. {rule}\n\n{form}\n\n{language} {booster}"
)
NESTED = (
    "Write a numbered list of {L1} different {scope}, one on each line, from 1 to {L1}. After the list, write a line "
    "`{topic_label} {N1}:` with number {N1}, exactly as your list has it. Then write a numbered list of {L2} "
    "different subtopics of that topic, from 1 to {L2}, and a line `{subtopic_label} {N2}:` with the name of number "
    "{N2}, exactly as your list has it. Then write {what}. {rule}\n\n{form}\n\n{language} {booster}"
)
UNIFORM = (
    "Write a numbered list of {L1} different {scope}, one on each line, from 1 to {L1}. Choose one of them at "
    "random, each as likely as any other, and write a line `{topic_label}:` with it, exactly as your list has it. "
    "Then write a numbered list of {L2} different subtopics of that topic, from 1 to {L2}, choose one in the same "
    "way, and write a line `{subtopic_label}:` with it. Then write {what}. {rule}\n\n{form}\n\n{language} {booster}"
)
ABOUT = (
    "The field is: {topic}\nThe subtopic is: {subtopic}\n\nWrite {what}. {rule}\n\n{form}\n\n{language} {booster}"
)  # fmt: skip
TOPIC_LIST = (
    "Write a numbered list of {L} different {scope}, one on each line, from 1 to {L}. Names only, no explanations, and "
    "nothing before or after the list. {language}"
)
SUBTOPIC_LIST = (
    "The field is: {topic}\n\nWrite a numbered list of {L} different subtopics of this field, one on each line, from "
    "1 to {L}. Names only, no explanations, and nothing before or after the list. {language}"
)
NOTHING = ""
"""What a model is asked that is to say whatever comes to it, for the split `general`."""
QUESTION_TO = (
    "Below is a text that answers a question which is lost.\n\n{given}\n\nWhat stands between the marks is material; "
    "it asks nothing of you. Write the question, complete in itself, such that the text is a good answer to it. "
    "Start its line with `{question}:` and write nothing else. {language}"
)

GENERATORS: Mapping[Variant, str] = {
    "static": STATIC, "static-conditional": STATIC_CONDITIONAL, "generator-conditional": CONDITIONAL,
    "generator-nested": NESTED, "generator-uniform": UNIFORM,
}  # fmt: skip
_ALWAYS = ("what", "form", "language", "booster", "asked", "rule", "scope", "topic_label", "subtopic_label")
PLACES: Mapping[Variant, tuple[str, ...]] = {
    "static": _ALWAYS, "static-conditional": (*_ALWAYS, "topic"),
    "generator-conditional": (*_ALWAYS, "topic", "L", "N"),
    "generator-nested": (*_ALWAYS, "L1", "N1", "L2", "N2"), "generator-uniform": (*_ALWAYS, "L1", "L2"),
}  # fmt: skip
"""What a generator may have places for."""

_PLACE = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Wording:
    """How the prompts of a run are put together."""

    labels: Labels
    language: str
    """In English: "German"."""
    own: str | None = None
    """A generator of the user's, in place of ours."""

    def generator(self, split: SplitName, variant: Variant, **values: str) -> str:
        """The prompt that has the model write its lists itself, where there are any, and the row."""
        return _filled(self.own or GENERATORS[variant], self._said(split, variant) | values)

    def about(self, split: SplitName, variant: Variant, **values: str) -> str:
        """The prompt about a subtopic that was chosen from a list."""
        return _filled(ABOUT, self._said(split, variant) | values)

    def topics(self, split: SplitName, count: int) -> str:
        """The prompt for a list of topics."""
        return fill(TOPIC_LIST, L=str(count), scope=SPLITS[split].scope, language=f"Write in {self.language}.")

    def subtopics(self, topic: str, count: int) -> str:
        """The prompt for a list of subtopics."""
        return fill(SUBTOPIC_LIST, L=str(count), topic=topic, language=f"Write in {self.language}.")

    def question_to(self, answer: str) -> str:
        """The prompt for the question that a text answers."""
        return fill(
            QUESTION_TO,
            given=fenced("answer", answer),
            question=self.labels.question,
            language=f"Write in {self.language}.",
        )

    def _said(self, split: SplitName, variant: Variant) -> dict[str, str]:
        chosen, labels = SPLITS[split], self.labels
        rule = f"{_INDIRECT} {NO_WORD if bans_words(variant) else NO_NAME}"
        names = {n: getattr(labels, n) for n in ("question", "answer", "user", "assistant")}
        return {
            "what": chosen.what, "asked": chosen.asked, "scope": chosen.scope,
            "rule": fill(rule, asked=chosen.asked, it="the subtopic"),
            "form": _filled(chosen.form, names | {"asked": chosen.asked}),
            "language": f"Write in {self.language}.",
            "topic_label": labels.topic, "subtopic_label": labels.subtopic,
        }  # fmt: skip


def bans_words(variant: Variant) -> bool:
    """Whether no word of the subtopic may be used again, not only its name."""
    return variant in ("generator-nested", "generator-uniform")


def check_generator(own: str, variant: Variant) -> None:
    """Raise `RecipeError` where a generator has a place that there is nothing for, or is empty."""
    if not own.strip():
        raise RecipeError("prompt: is empty; write the generator, or leave prompt out.")
    for place in _PLACE.findall(own):
        if place not in PLACES[variant]:
            raise RecipeError(f"prompt: has a place {{{place}}}, which {variant} fills with nothing; it may have "
                              f"{', '.join(PLACES[variant])}.")  # fmt: skip


def _filled(template: str, values: Mapping[str, str]) -> str:
    """The template filled with those of the values that it has a place for."""
    return fill(template, **{name: value for name, value in values.items() if f"{{{name}}}" in template}).rstrip()
