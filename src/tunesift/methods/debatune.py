"""DEBATunE: two agents debate every argument on a topic; its owner then writes the statement that came through it.

Paper    arXiv:2402.10614
Needs    a teacher that chats, for all roles; an opponent of its own, if wanted
Changes  creates records from topics; the topics themselves are not in the output

Stages   arguments            each side names its arguments; arguments-again the missing ones, once
         open-1, rebut-1      the owner explains its argument, the opponent attacks it
         reply-N, counter-N   rounds from 2 on: each answers the other's questions, then contradicts
         conclude             a fresh observer of the owner's side writes the statement; conclude-again-N where it
                              cannot be used
         What was said stands in stages/*/; `tunesift inspect RUN ID` shows it, of a topic or of a statement.

The paper is silent on
    Refusals. An owner that refuses loses its argument, with the reason; a debate goes on without an opponent's turn.
    A statement that was cut, refuses, repeats its argument, mentions the debate or changes the language is no row,
    and neither is one that holds our own words to the model, as a list of arguments may not.
    Topics that ask what or how have no affirmative side and are refused; a topic that comes twice is debated once.
    Repeating. An argument that both sides name is debated once, and a statement that says, exactly or nearly, what one
    before it says is no row. Topics are begun in rounds; when duplicates take over (`max_duplicates`), no more are.
We differ from the authors' code
    The observer's system message names topic and side; theirs is sent with its places unfilled.
    A completion has its full length; theirs is what 4,040 tokens leave beside the prompt.
    Arguments are known by id, theirs by text; `1)`, decimals, years and wrapped lines are read, and a repeated number.
    The prompts are in our words, and what a model said stands between marks; the wording of tests is none of training.
    Figures that debaters invent are neither marked nor removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tunesift.datasets import Dataset
from tunesift.errors import DataError, RecipeError, shown
from tunesift.methods.controllability_figures import words
from tunesift.methods.debatune_prompts import (
    CONCLUDE,
    DEBATER,
    NAME,
    NAME_MORE,
    OBSERVER,
    REPLY,
)
from tunesift.methods.debatune_proposing import Position, Proposed, denied, left_out, positions, proposed
from tunesift.methods.debatune_reading import distinct, plain, read_statement, read_turn
from tunesift.methods.debatune_sifting import RUN, Made
from tunesift.methods.debatune_steps import (
    SIDES,
    Argument,
    Debating,
    Floor,
    Side,
    conclusion,
    role,
    speech,
    stage_of,
)
from tunesift.methods.debatune_telling import Told
from tunesift.methods.debatune_templates import TEMPLATES, TEST_TEMPLATE
from tunesift.methods.refining import check_refinable
from tunesift.methods.repeating import LEAST_JUDGED
from tunesift.methods.speaking import Asked, Speak, planned_calls
from tunesift.models import ChatModel
from tunesift.models.base import Sampling
from tunesift.prompts import fenced, fill
from tunesift.reading import read_texts
from tunesift.records import Decision, Failure, Message, Record
from tunesift.running.result import Planned, Reads, Result
from tunesift.running.run import OUTPUT, Run
from tunesift.scoring.duplicates import NearTexts
from tunesift.settings import INCIDENTAL, Settings, digest

AT_ONCE = 256
"""Most topics of a round, which are debated together: what is said of them is in memory."""
GROWTH = 4
"""How many times as many topics the next round has; the first has what can tell whether a model repeats itself."""


@dataclass(frozen=True, kw_only=True)
class Debatune(Settings):
    """DEBATunE: from topics to statements that argue one side in full, sharpened in a debate."""

    kind: Literal["debatune"] = "debatune"
    teacher: ChatModel
    """Who proposes, owns, and concludes; the paper has gpt-3.5-turbo-1106 for all roles."""
    opponent: ChatModel | None = None
    """Who attacks; the teacher, where it is not given."""
    arguments: int = 3
    """Arguments for each side of a topic, A; the paper's 3, and 5 for its largest data set."""
    rounds: int = 2
    """Rounds of a debate, R; one is a turn of each agent. The paper's 2."""
    sides: Literal["both", "affirmative", "negative"] = "both"
    """Whose arguments are debated."""
    target: int | None = None
    """Statements to make: no further topic is begun once there are so many. None for all topics."""
    make: Literal["statements", "prompts"] = "statements"
    """prompts: no debate and no statement, but prompts for an evaluation, in the wording that is none of training."""
    deny: tuple[str, ...] = ()
    """Words or phrases that neither a topic nor a statement may hold, in whatever case."""
    held_out: tuple[str, ...] | Path = ()
    """Topics kept for an evaluation, and not debated, or a file of them (.txt, a line each; .json, .jsonl, .csv):
    compared without case and punctuation."""
    max_duplicates: Annotated[float, INCIDENTAL] = 0.5
    """Fraction of the statements of a round that may be duplicates; above it the run ends with what there is."""
    near: float | None = 0.8
    """Jaccard similarity of the runs of three words, from 0.7 to 1, from which on a statement is a duplicate too; None
    for equal ones only. Our choice: of 480 published answers, no two share more than 0.19."""
    debating: Debating = Debating()
    """How the models are asked."""

    reads: ClassVar[Reads] = "prompts"
    chats: ClassVar[tuple[str, ...]] = ("teacher", "opponent")
    """Models that must be able to chat."""

    def __post_init__(self) -> None:
        for name, count, least in (("arguments", self.arguments, 1), ("rounds", self.rounds, 1),
                                   ("target", 1 if self.target is None else self.target, 1)):  # fmt: skip
            if count < least:
                raise RecipeError(f"{name}: {count} makes nothing; write 1 or more.")
        if (empty := next((word for word in self.deny if not words(word)), None)) is not None:
            raise RecipeError(f'deny: "{shown(empty)}" holds no word; write the words that are not wanted.')
        if not 0 <= self.max_duplicates <= 1:
            raise RecipeError(f"max_duplicates: {self.max_duplicates:g} is not a fraction; write 0.5 for one half.")
        self._like()

    def identity(self) -> str:
        """Digest of the topics that are held out: those of a file are known by what they say."""
        return digest(list(self._held_out))

    @property
    def _held_out(self) -> Sequence[str]:
        if not isinstance(self.held_out, Path):
            return self.held_out
        found = read_texts(self.held_out)
        if found.broken:
            raise DataError(
                f"{found.broken[0].place}: {found.broken[0].message}; topics that are held out must be read whole."
            )
        return found.said

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Propose and debate, some topics at a time, until there are enough statements."""
        check_refinable(data, instructions=False)
        refused = left_out(data, self.deny, self._held_out)
        topics = [record for record in data if record.id not in refused]
        most = self._most(len(topics)) if self.target is None else self.target
        made = Made(self.make, self._like(), self.max_duplicates, most)
        sides: dict[str, Proposed] = {}
        waiting: list[Argument] = []
        while (topics or waiting) and (need := made.missing) > 0 and not made.repeats:
            begun = topics[: self._begun(need - len(waiting), len(made.rounds))]
            found = self._proposed(run, positions(begun, self._sides))
            topics, sides = topics[len(begun) :], sides | found
            waiting += made.begin([argument for side in found.values() for argument in side.arguments])
            made.take(waiting[:need], self._debated(run, waiting[:need]))
            waiting = waiting[need:]
            made.close(len(begun), last=not topics and not waiting)
        arguments = [argument for side in sides.values() for argument in side.arguments]
        records = [self._record(run, a, said) for a in arguments if isinstance(said := made.of.get(a.id), str)]
        told = Told(self.arguments, sides, made, len(topics))
        decisions = [Decision(id, "drop", refused.get(id) or told.of_topic(id)) for id in data.ids()]
        decisions += [Decision(r.id, "create", self._how(r), (r.id.rpartition("~")[0],)) for r in records]
        told.tables(run)
        return Result(run.dataset(OUTPUT, records), decisions, format="alpaca", short=told.short(self.target))

    def plan(self, records: int) -> list[Planned]:
        """2·(1 + A·(2R + 1)) calls a topic where every reply can be used; further tries at most."""
        return self._planned([0] * len(self._sides) * records)

    def plan_for(self, data: Dataset[Record]) -> list[Planned]:
        """None for topics that are left out, and no list for a side whose row brings its arguments along."""
        refused = left_out(data, self.deny, self._held_out)
        sides = positions((record for record in data if record.id not in refused), self._sides)
        return self._planned([min(self.arguments, len(distinct(side.given))) for side in sides])

    def _planned(self, given: Sequence[int]) -> list[Planned]:
        """The calls for sides of topics, of which each brings so many arguments along."""
        before = [0, *accumulate(count or self.arguments for count in given)]
        most, each = before.pop(), len(self._sides)
        usual = min(most, self.target or most)
        sides = given.count(0)
        lists = sum(not count and before[n - n % each] < usual for n, count in enumerate(given))
        told = self.debating
        around = len((DEBATER + REPLY).encode()) + told.argument_tokens
        name = self._speak(self.teacher, told.argument_tokens)
        planned = planned_calls("arguments", name, around, lists, sides)
        planned += planned_calls("arguments-again", name, around + len(NAME_MORE), 0, sides)
        if self.make == "prompts":
            return planned
        for turn in range(2 * self.rounds):
            planned += planned_calls(stage_of(turn), self._turn(turn), around + turn * told.turn_tokens, usual, most)
        around = len((OBSERVER + CONCLUDE).encode()) + told.argument_tokens + 2 * self.rounds * told.turn_tokens
        for attempt in range(told.retries + 1):
            step = self._speak(self.teacher, told.statement_tokens, attempt)
            planned += planned_calls(_conclude(attempt), step, around, 0 if attempt else usual, most)
        return planned

    @property
    def _sides(self) -> Sequence[Side]:
        return SIDES if self.sides == "both" else (self.sides,)

    def _most(self, topics: int) -> int:
        """Statements that so many topics can come to."""
        return len(self._sides) * self.arguments * topics

    def _begun(self, statements: int, rounds: int) -> int:
        """Topics of the next round: no more than so many statements need."""
        together = int(ceil(LEAST_JUDGED / self._most(1)) * GROWTH**rounds)
        return min(max(0, ceil(statements / self._most(1))), together, AT_ONCE)

    def _like(self) -> NearTexts | None:
        return None if self.near is None else NearTexts(RUN, self.near)

    def _proposed(self, run: Run, sides: Sequence[Position]) -> dict[str, Proposed]:
        tries = [self._speak(self.teacher, self.debating.argument_tokens, seed) for seed in range(2)]
        return proposed(run, tries, sides, self._ask, self.arguments)

    def _ask(self, side: Position, named: Sequence[str]) -> Asked:
        """For arguments, or for those that are missing."""
        request = fill(NAME, side=side.side, topic=side.topic)
        if named:
            listed = fenced("arguments", "\n".join(f"{n}. {text}" for n, text in enumerate(named, start=1)))
            missing, first = str(self.arguments - len(named)), str(len(named) + 1)
            request = fill(NAME_MORE, request=request, named=listed, missing=missing, first=first)
        return Asked(side.id, role(DEBATER, side.topic, side.side), request)

    def _debated(self, run: Run, arguments: Sequence[Argument]) -> dict[str, str | Failure]:
        """Of every argument its statement, or why there is none."""
        if self.make == "prompts":
            return {argument.id: "" for argument in arguments}
        floor, lost = Floor([]), dict[str, str | Failure]()
        for turn in range(2 * self.rounds):
            open_ = [argument for argument in arguments if argument.id not in lost]
            if not open_:
                return lost
            told = run.map(stage_of(turn), self._turn(turn), [speech(argument, turn, floor) for argument in open_])
            floor.said.append(told)
            for argument in open_ if turn % 2 == 0 else ():
                said = read_turn(told[argument.id])
                if isinstance(said, Failure):
                    lost[argument.id] = Failure(said.kind, f"{stage_of(turn)}: {said.message}")
        return lost | self._concluded(run, [a for a in arguments if a.id not in lost], floor)

    def _concluded(self, run: Run, arguments: Sequence[Argument], floor: Floor) -> dict[str, str | Failure]:
        made: dict[str, str | Failure] = {}
        for attempt in range(self.debating.retries + 1):
            if not arguments:
                break
            step = self._speak(self.teacher, self.debating.statement_tokens, attempt)
            told = run.map(_conclude(attempt), step, [conclusion(argument, floor) for argument in arguments])
            made |= {a.id: self._statement(read_statement(told[a.id], a.about), a) for a in arguments}
            good = told.good()
            arguments = [a for a in arguments if isinstance(made[a.id], Failure) and a.id in good]
        return made

    def _statement(self, said: str | Failure, argument: Argument) -> str | Failure:
        if isinstance(said, Failure):
            return Failure(said.kind, f"conclude: {said.message}")
        if word := denied(said, self.deny):
            return Failure("unreadable", f'conclude: denied (holds "{shown(word)}")')
        if plain(said) == plain(argument.text):
            return Failure("unreadable", "conclude: repeats its argument and nothing else")
        return said

    def _turn(self, turn: int) -> Speak:
        return self._speak((self.opponent or self.teacher) if turn % 2 else self.teacher, self.debating.turn_tokens)

    def _speak(self, speaker: ChatModel, max_tokens: int, seed: int = 0) -> Speak:
        return Speak(
            speaker=speaker, sampling=Sampling(temperature=self.debating.temperature, max_tokens=max_tokens, seed=seed)
        )

    def _record(self, run: Run, argument: Argument, said: str) -> Record:
        """A row to train with, its wording drawn; or a prompt of an evaluation, in the wording that is kept for it."""
        number = run.random("template", argument.id).randrange(len(TEMPLATES)) if self.make == "statements" else -1
        template = TEMPLATES[number] if number >= 0 else TEST_TEMPLATE
        asked = fill(template, side=argument.side, topic=argument.topic, argument=argument.text)
        extra = {"topic": argument.topic, "side": argument.side, "argument": argument.text, "template_id": number + 1}
        rounds = {"rounds": self.rounds} if self.make == "statements" else {}
        return Record(argument.id, (Message("user", asked), Message("assistant", said)), {**extra, **rounds})

    def _how(self, record: Record) -> str:
        wording = f"template {record.extra['template_id']}"
        return f"prompt: {wording}" if self.make == "prompts" else f"concluded: {self.rounds} rounds, {wording}"


def _conclude(attempt: int) -> str:
    return f"conclude-again-{attempt}" if attempt else "conclude"
