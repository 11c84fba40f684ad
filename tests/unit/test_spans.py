"""What the likelihood scorers ask of their student: which text stands before which, and what they make of its answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tunesift import IFD, Failure, Message, Perplexity, Record, Score, ScriptedModel, Span, TargetLoss

ASKED = (Message("user", "Say it in German.\n\nThe end"),)
ALPACA = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a response "
    "that appropriately completes the request.\n\n### Instruction:\nSay it in German.\n\n### Input:\nThe end\n\n"
    "### Response:"
)
LONG = Failure("too-long", "9 tokens")


@dataclass(frozen=True)
class Heard(ScriptedModel):
    """Answers with the loss that a context is given here, and remembers what it was asked."""

    answers: Mapping[Any, TargetLoss | Failure] = field(default_factory=dict)
    asked: list[Span] = field(default_factory=list)

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        self.asked.extend(spans)
        return [self.answers.get(span.context, TargetLoss((1.0, 1.0), False)) for span in spans]


def record(**extra: object) -> Record:
    return Record("a", (*ASKED, Message("assistant", "Das Ende.")), extra)


@pytest.mark.parametrize(
    ("profile", "spans"),
    [
        ("canonical", [Span(ASKED, "Das Ende."), Span("", "Das Ende.")]),
        ("cherry", [Span(ALPACA, "Das Ende.", "joint", "tokenizer", 512),
                    Span("### Response:", "Das Ende.", "joint", "tokenizer", 512)]),
        ("superfilter", [Span("Say it in German.\nThe end\n", "Das Ende.", "joint", "tokenizer", 1024),
                         Span("", "Das Ende.", "joint", "tokenizer", 1024)]),
    ],
)  # fmt: skip
def test_every_profile_reads_both_texts_with_its_own_template_seam_and_limit(profile: Any, spans: list[Span]) -> None:
    student = Heard()
    IFD(student=student, profile=profile)([record(input="The end")])
    assert student.asked == spans


def test_an_input_is_set_apart_where_the_record_says_which_text_it_is() -> None:
    student = Heard()
    for scorer in (Perplexity(student=student, template="bare"), IFD(student=student, template="bare")):
        student.asked.clear()
        scorer([record(input="The end"), record(), record(input=7)])
        conditioned = [span.context for span in student.asked if span.context]
        assert conditioned == ["Say it in German.\nThe end\n", *["Say it in German.\n\nThe end\n"] * 2]


@pytest.mark.parametrize("fails", [ASKED, ""])
def test_a_text_that_fails_on_either_side_fails_its_record(fails: Any) -> None:
    assert IFD(student=Heard(answers={fails: LONG}))([record()]) == [LONG]


def test_a_perplexity_that_is_no_number_is_a_failure_and_one_of_a_cut_response_says_so() -> None:
    def scored(*losses: float, cut: bool) -> Score | Failure:
        (outcome,) = Perplexity(student=Heard(answers={ASKED: TargetLoss(losses, cut)}))([record()])
        return outcome

    assert scored(math.nan, 1.0, cut=False) == Failure("not-finite", "loss nan over 2 tokens")
    for cut, note in ((True, "truncated"), (False, "")):
        assert scored(math.log(3), cut=cut) == Score(
            pytest.approx(3), {"loss": pytest.approx(math.log(3)), "tokens": 1.0, "truncated": float(cut)}, note
        )
