"""Selective Reflection-Tuning: the teacher proposes, the student that will be tuned accepts or refuses.

Paper    Li et al., arXiv:2402.10110
Needs    a teacher that chats; a student that gives losses, the model that will be tuned, as it is before
Changes  replaces records, and drops those whose response the student would not have replaced

Stages   reflect-instruction  the teacher's new instruction and answer, as in Reflection-Tuning
         ifd                  of both pairs; the new one wins if its IFD is larger (eq. 6)
         reflect-response     the teacher's better answer to the winner's instruction
         guess                loss of the instruction given either response; the new one wins if it is smaller, which is
                              r-IFD without the denominator that both share (eq. 9)
         ifd-chosen, instruction  IFD of what was chosen, loss of its instruction alone; both ratios must be below 1
         score                the numbers that decided

The paper is silent on
    Both ratios below 1: in the authors' code only; `valid_only` turns it off.
    A new instruction with IFD of 1 or more wins, and is dropped later: `cap_first` lets the old one stay instead.
    Ties, and numbers that are missing or not finite: what is there stays; in the last filter, it is dropped.
    Records of several turns, or with an image, are left alone, unless set otherwise. Empty responses are dropped.
    How much a fraction of the survivors is: rounded down; the paper's own counts are rounded both ways.
We differ from the authors' code
    Context and target are tokenised apart; theirs finds the target by searching the text, and may find another place.
    A pair that cannot be scored never wins; theirs scores 0, which wins every comparison.
    Where a response is too long, its middle is left out; theirs cuts the instruction that is to be predicted.
    Two calls of the teacher and at most nine passes of the student per record; theirs has three and sixteen.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from tunesift.datasets import Dataset
from tunesift.errors import RecipeError
from tunesift.methods.refining import check_refinable, tell_refined
from tunesift.methods.reflection import BETTER_ANSWER, CRITIC, EDITOR, NEW_INSTRUCTION
from tunesift.methods.reflection_reading import read_answer, read_pair
from tunesift.methods.reflection_steps import (
    Asking,
    Reflect,
    Taught,
    counted,
    planned_teaching,
    taught,
)
from tunesift.methods.selective_steps import (
    InstructionLoss,
    Seen,
    Trial,
    Weighed,
    WriteDown,
    alone_of,
    guess_of,
    told,
    trials,
    value_of,
)
from tunesift.models import ChatModel, LikelihoodModel, name_of
from tunesift.models.transformers import TransformersModel
from tunesift.prompts import REVERSED, Template
from tunesift.records import Decision, Record, Score
from tunesift.running.result import Planned, Result
from tunesift.running.run import OUTPUT, Run
from tunesift.scoring.deciding import told_value
from tunesift.scoring.ifd import IFD
from tunesift.scoring.selectors import check_fraction
from tunesift.settings import Settings

HALVES = ("instruction", "response")
NO_RESPONSE = "no response"


@dataclass(frozen=True, slots=True)
class _Measured:
    """What the student was asked, by the id of the pair."""

    ifd: Mapping[str, Score]
    """Of the old pairs and of those with a new instruction."""
    guess: Mapping[str, Seen]
    final: Mapping[str, Score]
    """IFD of the pairs that were chosen."""
    alone: Mapping[str, Seen]


@dataclass(frozen=True, kw_only=True)
class SelectiveReflection(Settings):
    """Selective Reflection-Tuning: a teacher rewrites, the student that will be tuned accepts or refuses."""

    kind: Literal["selective-reflection"] = "selective-reflection"
    teacher: ChatModel
    """Who rewrites; the paper has gpt-3.5-turbo."""
    student: LikelihoodModel = TransformersModel()
    """Who decides: the model that will be tuned, as it is before."""
    template: Template = "chat"
    """What stands around an instruction: best the template of the tuning; the authors have vicuna."""
    question: str = REVERSED
    """Asks the student for the instruction of `{response}`; to be worded in the data's language."""
    flow: Literal["lazy", "full"] = "lazy"
    """full: every variant is written and measured, at three calls and fourteen passes; decisions are the same."""
    valid_only: bool = True
    """Drop what has an IFD or r-IFD of 1 or more, as the authors' code does."""
    cap_first: bool = False
    """Do not let a new instruction win whose IFD is 1 or more; our choice."""
    fraction: float = 1.0
    """Fraction of the survivors that are kept, those of largest IFD; 0.02 is the paper's 926 rows."""
    otherwise: Literal["drop", "original"] = "drop"
    """What becomes of a record whose new response is not accepted: it is dropped, as published, or stays as it was."""
    asking: Asking = Asking()
    """How the teacher is asked."""

    chats: ClassVar[tuple[str, ...]] = ("teacher",)
    """Models that must be able to chat."""

    def __post_init__(self) -> None:
        check_fraction("fraction", self.fraction)
        if re.findall(r"\{\w+\}", self.question) != ["{response}"]:
            raise RecipeError("question: must have the place {response} once, and no other in braces.")
        if self.fraction < 1 and self.otherwise == "original":
            raise RecipeError("fraction: keeps a part, and otherwise=original all; leave one of them out.")

    def __call__(self, data: Dataset[Record], run: Run) -> Result:
        """Propose, compare, propose again, compare again, filter."""
        check_refinable(data, instructions=True)
        left = {r.id: reason for r in data if (reason := self._left_alone(r))}
        asked = data.only({id for id in data.ids() if id not in left})

        # Instruction: the teacher proposes; the student keeps what it finds harder.
        first = taught(run, "reflect-instruction", self._steps(EDITOR, NEW_INSTRUCTION), asked, read_pair)
        ifd = run.map("ifd", self._scorer, run.dataset("instructions", _rivals(asked, first))).good()
        harder = {r.id for r in asked if self._harder(_ifds(r.id, ifd))}
        winners = run.dataset("winners", (first.after(r) if r.id in harder else r for r in asked))

        # Response: the teacher proposes; the student keeps what points back more clearly.
        open_ = winners if self.flow == "lazy" else run.dataset("variants", _variants(asked, first))
        second = taught(run, "reflect-response", self._steps(CRITIC, BETTER_ANSWER), open_, read_answer)
        guess = run.map("guess", self._guesser, run.dataset("responses", _rivals(open_, second))).good()
        better = {r.id for r in winners if guess_of(guess, r.id).won(larger=False)}

        # What was chosen must be worth learning, and point back.
        last = open_ if self.flow == "full" else winners.only(better)
        chosen = run.dataset("chosen", (new for r in last if (new := second.after(r)) is not r))
        measured = _Measured(ifd, guess, *self._last(chosen, run))
        weighed = {
            r.id: _weighed(r.id, winner.id, winner.id in better, measured)
            for r, winner in zip(asked, winners, strict=True)
        }
        run.map("score", WriteDown(), weighed.values())
        replies = {r.id: (first.status(r), second.status(w)) for r, w in zip(asked, winners, strict=True)}
        decisions = self._decisions(data, left, weighed, replies)
        output = run.dataset(OUTPUT, (out for d in decisions if (out := _output(d, data, chosen, weighed))))
        statuses = Counter(pair for said in replies.values() for pair in zip(HALVES, said, strict=True))
        run.table("halves", counted(statuses))
        run.table("trials", trials(weighed.values()))
        tell_refined(run, data, output)
        return Result(output, decisions)

    def plan(self, records: int) -> list[Planned]:
        """Two calls and nine passes per record at most; three and fourteen in the full flow; further tries at most."""
        whose = name_of(self.student)
        every = 2 * records if self.flow == "full" else records
        first, second = (self._steps(*words) for words in ((EDITOR, NEW_INSTRUCTION), (CRITIC, BETTER_ANSWER)))
        return [
            *planned_teaching("reflect-instruction", first, records),
            Planned("ifd", 2 * records, 2, whose),
            *planned_teaching("reflect-response", second, every, self.asking.max_tokens),
            Planned("guess", 2 * every, 1, whose),
            *([Planned("ifd-chosen", every, 2, whose)] if self.valid_only or self.fraction < 1 else []),
            *([Planned("instruction", every, 1, whose)] if self.valid_only else []),
            Planned("score", records, 0, ""),
        ]

    @property
    def _scorer(self) -> IFD:
        return IFD(student=self.student, template=self.template)

    @property
    def _guesser(self) -> InstructionLoss:
        return InstructionLoss(student=self.student, template=self.template, question=self.question)

    def _steps(self, persona: str, template: str) -> list[Reflect]:
        return self.asking.steps(self.teacher, persona, template)

    def _left_alone(self, record: Record) -> str:
        return self.asking.left_alone(record) or ("" if record.response.strip() else NO_RESPONSE)

    def _harder(self, trial: Trial) -> bool:
        """Whether the student finds the new pair strictly harder (eq. 6)."""
        return trial.won(larger=True) and not (self.cap_first and trial.new is not None and trial.new >= 1)

    def _last(self, chosen: Dataset[Record], run: Run) -> tuple[Mapping[str, Score], Mapping[str, Seen]]:
        """IFD of the chosen pairs, and the losses of their instructions alone, as far as anything depends on them."""
        ifd: Mapping[str, Score] = {}
        if self.valid_only or self.fraction < 1:
            ifd = run.map("ifd-chosen", self._scorer, chosen).good()
        if not self.valid_only:
            return ifd, {}
        return ifd, run.map("instruction", replace(self._guesser, question=""), chosen).good()

    def _decisions(
        self,
        data: Dataset[Record],
        left: Mapping[str, str],
        weighed: Mapping[str, Weighed],
        replies: Mapping[str, tuple[str, str]],
    ) -> list[Decision]:
        refused = {id: reason for id, w in weighed.items() if (reason := self._refused(w, replies[id][1]))}
        survivors = [w for id, w in weighed.items() if id not in refused]
        if self.fraction < 1:
            best = sorted(survivors, key=lambda w: -(w.final_ifd or 0.0))[: math.floor(self.fraction * len(survivors))]
            best_ids = {w.id for w in best}
            refused |= {
                w.id: f"not among the {self.fraction * 100:g}% of largest IFD: {w.final_ifd:.4f}"
                for w in survivors
                if w.id not in best_ids
            }
        drop: Literal["drop", "keep"] = "drop" if self.otherwise == "drop" else "keep"
        decisions = []
        for id in data.ids():
            if id in left:
                dropped = left[id] == NO_RESPONSE or self.fraction < 1  # it has no IFD to be among the largest with
                decisions.append(Decision(id, drop if dropped else "keep", f"left alone ({left[id]})"))
            elif id in refused:
                decisions.append(Decision(id, drop, refused[id]))
            else:
                decisions.append(Decision(id, "replace", told(weighed[id], replies[id][0]), (id,)))
        return decisions

    def _refused(self, weighed: Weighed, second: str) -> str:
        """Why what became of a record is not in the output; empty where it is."""
        if "A" not in weighed.branch:
            if not second.startswith("ok"):
                what, _, why = second.partition(": ")
                return f"response not replaced ({what}){': ' * bool(why)}{why}"
            if weighed.guess.margin is None:
                return "response not replaced (no score): the student could not be asked for the instruction"
            return (f"response not replaced (not preferred): the instruction's loss is {weighed.guess.old:.4f} given "
                    f"the old one, {weighed.guess.new:.4f} given the new one")  # fmt: skip
        ratios = {}
        if self.valid_only or self.fraction < 1:
            ratios["IFD"] = weighed.final_ifd
        if self.valid_only:
            ratios["r-IFD"] = weighed.reversed_ifd(weighed.guess.new)
        for name, ratio in ratios.items():
            if ratio is None:
                return f"not valid ({name}): has no score"
            if ratio >= 1 and self.valid_only:
                return f"not valid ({name}): {told_value(ratio)} is not below 1"
        return ""


def _rivals(data: Dataset[Record], teaching: Taught) -> Iterator[Record]:
    """Every record for which the teacher proposes something, and what it proposes."""
    for record in data:
        if (new := teaching.after(record)) is not record:
            yield record
            yield new


def _variants(data: Dataset[Record], teaching: Taught) -> Iterator[Record]:
    """Every record, and what the teacher proposes for it."""
    for record in data:
        yield record
        if (new := teaching.after(record)) is not record:
            yield new


def _ifds(id: str, scores: Mapping[str, Score]) -> Trial:
    return Trial(value_of(scores, id), value_of(scores, f"{id}~instruction"))


def _weighed(id: str, winner: str, better: bool, measured: _Measured) -> Weighed:
    branch = "Q" * (winner != id) + "A" * better or "O"
    new = f"{winner}~response"
    final = value_of(measured.final, new) if better else None
    alone = alone_of(measured.guess, measured.alone, new) if better else None
    return Weighed(id, branch, winner, _ifds(id, measured.ifd), guess_of(measured.guess, winner), final, alone)


def _output(
    decision: Decision, data: Dataset[Record], chosen: Dataset[Record], weighed: Mapping[str, Weighed]
) -> Record | None:
    if decision.action == "drop":
        return None
    if decision.action == "keep":
        return data.by_id(decision.record_id)
    return chosen.by_id(f"{weighed[decision.record_id].winner}~response")
