"""Who says what to whom in a debate: how models are asked, sides, arguments, turns, and what each debater is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from tunesift.errors import RecipeError
from tunesift.methods.debatune_prompts import CONCLUDE, DEBATER, OBSERVER, OPEN, REBUT, REPLY
from tunesift.methods.debatune_reading import read_turn
from tunesift.models import ChatModel
from tunesift.models.base import Completion, Sampling
from tunesift.prompts import fenced, fill
from tunesift.records import Failure, Message
from tunesift.running.result import Planned
from tunesift.running.step import Outcomes
from tunesift.settings import Settings

Side = Literal["affirmative", "negative"]
SIDES: tuple[Side, ...] = ("affirmative", "negative")
OTHER: dict[Side, Side] = {"affirmative": "negative", "negative": "affirmative"}

_LABELS = re.compile(r"(?im)^([ \t>*_]{0,4})(AI|Opponent|Affirmative|Negative)(?=[*_]{0,2}:)")


@dataclass(frozen=True, kw_only=True)
class Debating(Settings):
    """How the models are asked."""

    temperature: float = 0.7
    """Of every call; the authors' 0.7."""
    argument_tokens: int = 512
    """Most tokens of a list of arguments; the authors' 512."""
    turn_tokens: int = 800
    """Most tokens of a turn; the authors' 800."""
    statement_tokens: int = 2048
    """Most tokens of a statement; the authors' 2048. One that is cut is no row."""
    retries: int = 1
    """Further tries of a statement that cannot be used, each with a seed of its own; our choice, the authors have
    none."""

    def __post_init__(self) -> None:
        if min(self.argument_tokens, self.turn_tokens, self.statement_tokens) < 1:
            raise RecipeError("debating: argument_tokens, turn_tokens and statement_tokens are 1 or more.")
        if self.temperature < 0 or self.retries < 0:
            raise RecipeError("debating: temperature and retries are 0 or more.")


@dataclass(frozen=True, slots=True)
class Asked:
    """One call: a system message and a user message, and nothing of any call before."""

    id: str
    system: str
    user: str


@dataclass(frozen=True, kw_only=True)
class Speak(Settings):
    """Have a debater say something."""

    speaker: ChatModel
    sampling: Sampling

    returns: ClassVar[type[Completion]] = Completion

    def __call__(self, chunk: Sequence[Asked], /) -> Sequence[Completion | Failure]:
        """What the model said, one completion per call."""
        asked = [(Message("system", item.system), Message("user", item.user)) for item in chunk]
        return self.speaker.chat(asked, self.sampling)


@dataclass(frozen=True, slots=True)
class Argument:
    """What is debated: an argument on one side of a topic."""

    id: str
    """Its topic's, its side and its number: `a1b2~affirmative-1`."""
    topic: str
    side: Side
    text: str

    @property
    def about(self) -> str:
        """Topic and argument, as a text whose language is told."""
        return f"{self.topic}\n{self.text}"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said."""

    side: Side
    text: str


@dataclass
class Floor:
    """The turns of many debates, as they stand in the journal: owner and opponent in turn."""

    said: list[Outcomes[Completion]]
    """Of each turn, what was said in every debate that came so far."""

    def turns(self, argument: Argument) -> list[Turn]:
        """The turns of one debate, without those in which a debater refused, said nothing or was not answered."""
        read = [
            (OTHER[argument.side] if number % 2 else argument.side, read_turn(said[argument.id]))
            for number, said in enumerate(self.said)
            if argument.id in said
        ]
        return [Turn(side, text) for side, text in read if isinstance(text, str)]

    def told(self, argument: Argument, reader: Side | None = None) -> str:
        """The debate as a reader is shown it: its own turns are labelled AI; without a reader, turns name their side.

        A label inside a turn loses its colon's meaning, and marks lose theirs.
        """
        turns = (f"{_label(turn.side, reader)}: {_without_labels(turn.text)}" for turn in self.turns(argument))
        return fenced("debate", "\n\n".join(turns))


def role(template: str, topic: str, side: Side) -> str:
    """The system message of a debater or an observer on a side."""
    other = {"other": OTHER[side]} if template == DEBATER else {}
    return fill(template, topic=topic, side=side, **other)


def speech(argument: Argument, turn: int, floor: Floor) -> Asked:
    """What the agent whose turn it is gets to read: its role and, from its own side, the debate so far."""
    side = OTHER[argument.side] if turn % 2 else argument.side
    given = {"argument": fenced("argument", argument.text)}
    if turn:
        given["debate"] = floor.told(argument, side)
    if turn > 1:
        given["owner"] = "your opponent's" if turn % 2 else "your own"
    template = (OPEN, REBUT, REPLY)[min(turn, 2)]
    return Asked(argument.id, role(DEBATER, argument.topic, side), fill(template, **given))


def conclusion(argument: Argument, floor: Floor) -> Asked:
    """What the observer gets to read: all turns, under the names of the sides."""
    given = {"argument": fenced("argument", argument.text), "debate": floor.told(argument)}
    asked = fill(CONCLUDE, topic=argument.topic, side=argument.side, **given)
    return Asked(argument.id, role(OBSERVER, argument.topic, argument.side), asked)


def stage_of(turn: int) -> str:
    """The name of a turn: open-1, rebut-1, reply-2, counter-2 and so on."""
    first, later = ("rebut", "counter") if turn % 2 else ("open", "reply")
    return f"{later if turn > 1 else first}-{turn // 2 + 1}"


def planned_calls(stage: str, speak: Speak, around: int, usual: int, most: int) -> list[Planned]:
    """So many calls where every reply can be used, and the further ones at most."""
    name = getattr(speak.speaker, "name", speak.speaker.kind)
    counts = ((usual, False), (most - usual, True))
    return [
        Planned(stage, count, 1, name, around=around, answer=speak.sampling.max_tokens, spare=spare)
        for count, spare in counts
        if count > 0
    ]


def _label(side: Side, reader: Side | None) -> str:
    if reader is None:
        return side.capitalize()
    return "AI" if side == reader else "Opponent"


def _without_labels(text: str) -> str:
    return _LABELS.sub(r"\1(\2)", text)
