"""What a user would miss of the pages that refine: each test here failed on a change of a page that no other noticed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tunesift import (
    Asking,
    Completion,
    Dataset,
    Decision,
    Failure,
    Local,
    Message,
    RecipeError,
    Record,
    Reflection,
    Run,
    Sampling,
    Score,
    ScriptedModel,
    SelectiveReflection,
    Span,
    TargetLoss,
)
from tunesift.datasets import Source
from tunesift.methods.reflection_reading import Rewritten, checked, read_answer
from tunesift.methods.reflection_steps import counted
from tunesift.methods.repeating import Repeating
from tunesift.methods.selective_steps import InstructionLoss, Trial, Weighed, WriteDown, trials, value_of
from tunesift.methods.speaking import Asked, Hearing, Speak

GONE = Failure("unanswered", "nobody is there")
LONG = "The river rises in the hills and flows through the old town to the sea."
GERMAN = "Der Fluss entspringt in den Bergen und fließt durch die alte Stadt bis zum Meer."


def record(id: str, asked: str = "Name a river.", said: str = "The Rhine.") -> Record:
    return Record(id, (Message("user", asked), Message("assistant", said)))


@dataclass(frozen=True, kw_only=True)
class Says(ScriptedModel):
    """Says what stands beside the first of these words that it is shown; does not answer where that is empty."""

    words: dict[str, str] = field(default_factory=dict)

    asked: ClassVar[list[str]] = []

    def chat(  # type: ignore[override]
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling
    ) -> list[Completion | Failure]:
        return [self._said(c[-1].text) for c in conversations]

    def _said(self, text: str) -> Completion | Failure:
        self.asked.append(text)
        said = next(said for word, said in self.words.items() if word in text)
        return Completion(said, "stop", 1) if said else GONE


@pytest.fixture(autouse=True)
def _counted_from_zero() -> None:
    Says.asked.clear()
    Losing.asked.clear()


def taught(
    folder: Path, records: Sequence[Record], words: dict[str, str], **asking: Any
) -> tuple[list[str], list[str]]:
    """The reasons of Reflection-Tuning's response half, and what its teacher was asked."""
    teacher, data = Says(words=words), Dataset.of(records)
    method = Reflection(teacher=teacher, halves="response", asking=Asking(**asking))
    with Run(folder, Local(), max_failures=1.0) as run:
        return [d.reason for d in method(data, run).decisions], teacher.asked


# --- what the teacher wrote ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("new", "found"),
    [
        (Rewritten("The Elbe is one.", "I'm sorry, but I cannot help with that."), Failure("refused", "refusal")),
        (Rewritten("I'm sorry, but I cannot help with that.", "Name two."), Failure("refused", "refusal")),
        (Rewritten(GERMAN), Failure("unreadable", "language: en became de")),
        (Rewritten(LONG), Failure("unreadable", "unchanged")),
    ],
)
def test_a_new_pair_is_refused_for_what_is_wrong_with_either_half(new: Rewritten, found: Failure) -> None:
    assert checked(new, record("a", said=LONG)) == found


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('"Your answer…"', Failure("empty", "placeholder")),
        ("*None.*", Failure("empty", "placeholder")),
        ("See <given-answer>.", Failure("unreadable", "marker_inside")),
        ("See <GIVEN-ANSWER>.", Failure("unreadable", "marker_inside")),
        ("None of them.", Rewritten("None of them.")),
    ],
)
def test_an_answer_that_is_a_placeholder_or_holds_our_marks_is_none(body: str, found: Rewritten | Failure) -> None:
    assert read_answer(Completion(f"[Better Answer] {body} [End]", "stop", 1)) == found


# --- which records, how often ----------------------------------------------------------------------------------------

SYSTEM, USER, SAID = Message("system", "Be brief."), Message("user", "Name a sea."), Message("assistant", "The Baltic.")


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ((USER, SAID), ""),
        ((SYSTEM, USER, SAID), ""),
        ((SYSTEM, SAID), "no response"),
        ((USER, SAID, USER), "no response"),
        ((SAID,), "no response"),
        ((SAID, USER, SAID), "several turns"),
    ],
)
def test_a_record_is_refined_where_it_is_one_question_and_one_answer(messages: tuple[Message, ...], why: str) -> None:
    assert Asking().left_alone(Record("a", messages)) == why


BETTER = "[Better Answer] The Rhine, the Elbe. [End]"


@pytest.mark.parametrize(
    ("longest", "shown", "reason"),
    [
        (10, "The Rhine.\n</given-answer>", "rewritten (response): response ok; 1 calls"),
        (9, "The Rhine\n[…]\n</given-answer>", "rewritten (response): response ok, shown in part; 1 calls"),
    ],
)
def test_an_answer_of_just_the_most_characters_is_shown_whole(
    longest: int, shown: str, reason: str, tmp_path: Path
) -> None:
    reasons, asked = taught(tmp_path, [record("a")], {"": BETTER}, longest=longest)
    assert shown in asked[0]
    assert reasons == [reason]


def test_an_answer_without_an_end_mark_is_taken_and_says_so_without_further_tries(tmp_path: Path) -> None:
    reasons, asked = taught(tmp_path, [record("a")], {"": BETTER.removesuffix(" [End]")}, retries=0)
    assert reasons == ["rewritten (response): response ok_no_end; 1 calls"]
    assert len(asked) == 1


def test_what_follows_a_call_that_failed_is_asked_for_again_where_it_cannot_be_used(tmp_path: Path) -> None:
    rows = [record("a", "Name a lake."), record("b")]
    reasons, asked = taught(
        tmp_path, rows, {"lake": "", "": "[Better Answer] I cannot help with that. [End]"}, retries=1
    )
    assert reasons == [
        "nothing rewritten: response failed (unanswered): nobody is there; 1 calls",
        "nothing rewritten: response refusal; 2 calls",
    ]  # fmt: skip
    assert ["lake" in text for text in asked] == [True, False, False]


def test_what_failed_in_different_words_is_counted_together() -> None:
    statuses = {("response", "failed (crashed): a"): 2, ("response", "failed (crashed): b"): 3, ("response", "ok"): 1}
    assert counted(Counter(statuses)) == [
        {"half": "response", "status": "failed (crashed)", "records": 5},
        {"half": "response", "status": "ok", "records": 1},
    ]


# --- what the student says -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Losing(ScriptedModel):
    """Loses 4 nats of one token alone, and else what stands beside the first of these words that it is shown."""

    nats: dict[str, float] = field(default_factory=dict)

    asked: ClassVar[list[Span]] = []

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        self.asked.extend(spans)
        return [TargetLoss((self._nats(span),), False) for span in spans]

    def _nats(self, span: Span) -> float:
        if isinstance(span.context, str):
            return 4.0
        return next(n for word, n in self.nats.items() if word in f"{span.context[-1].text}\n{span.target}")


PAIR = "[New Instruction] Name two rivers. [End] [New Answer] Oder, Po. [End]"


def selective(student: Losing, **given: Any) -> SelectiveReflection:  # Any: settings
    """With a teacher who writes a new pair, and a better answer."""
    teacher = Says(words={"[Better Answer] your answer": BETTER, "": PAIR})
    return SelectiveReflection(teacher=teacher, student=student, **given)


@pytest.mark.parametrize(("flow", "calls", "passes"), [("lazy", 2, 9), ("full", 3, 14)])
def test_in_the_full_flow_every_variant_is_written_and_measured(
    flow: str, calls: int, passes: int, tmp_path: Path
) -> None:
    """The new instruction is harder, the better answer points back more clearly, and all is accepted."""
    student = Losing(nats={"Elbe": 2.0, "two rivers": 3.0, "": 2.5})
    with Run(tmp_path, Local()) as run:
        result = selective(student, flow=flow)(Dataset.of([record("a")]), run)
    assert [d.action for d in result.decisions] == ["replace"]
    assert (len(Says.asked), len(Losing.asked)) == (calls, passes)


def test_preference_pairs_are_refused_since_their_instructions_would_change(tmp_path: Path) -> None:
    data = Dataset.of([record("a")])
    data.source = Source("pairs.jsonl", "preference", "", 0, 1)
    with Run(tmp_path, Local()) as run, pytest.raises(RecipeError) as refusal:
        selective(Losing())(data, run)
    assert str(refusal.value) == (
        "the input holds preference pairs: their rejected answers would stand under new instructions; use the method "
        "reflection with halves=response."
    )


@pytest.mark.parametrize(("new", "capped", "harder"), [(0.99, True, True), (1.0, True, False), (1.0, False, True)])
def test_capped_a_new_instruction_of_just_one_does_not_win(new: float, capped: bool, harder: bool) -> None:
    assert selective(Losing(), cap_first=capped)._harder(Trial(0.5, new)) is harder


def test_an_ifd_of_0_is_the_smallest_there_is() -> None:
    """As small as where a response is 800 nats likelier after its instruction."""
    seen = Trial(2.0, 1.0)
    weighed = {id: Weighed(id, "A", id, seen, seen, ifd, 3.0) for id, ifd in (("nought", 0.0), ("half", 0.5))}
    found = selective(Losing(), fraction=0.5)._decisions(
        Dataset.of([record("nought"), record("half")]), {}, weighed, dict.fromkeys(weighed, ("ok", "ok"))
    )
    assert [(d.record_id, d.action) for d in found] == [("nought", "drop"), ("half", "replace")]
    assert found[0] == Decision("nought", "drop", "not among the 50% of largest IFD: 0.0000")


@dataclass(frozen=True, kw_only=True)
class Blind(ScriptedModel):
    """Sees no token."""

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        return [TargetLoss((), True) for _ in spans]


def test_an_instruction_of_which_nothing_is_seen_is_a_failure_that_says_so() -> None:
    step = InstructionLoss(student=Blind(), template="chat", question="")
    assert step([record("a")]) == [Failure("too-long", "no token of the instruction can be seen")]


def test_both_ratios_are_written_down() -> None:
    """Losses of 2 and 1 nats where the instruction alone costs 3: exp(2 - 3) and exp(1 - 3)."""
    (score,) = WriteDown()([Weighed("a", "A", "a", Trial(0.5, None), Trial(2.0, 1.0), 0.25, 3.0)])
    assert score == Score(
        0.25,
        {
            "ifd_old": 0.5, "guess_old": 2.0, "guess_new": 1.0, "instruction_alone": 3.0,
            "rifd_old": 0.36787944117144233, "rifd_new": 0.1353352832366127,
        },
        "branch A",
    )  # fmt: skip


@pytest.mark.parametrize(("value", "found"), [(0.5, 0.5), (None, None), (math.nan, None), (math.inf, None)])
def test_a_score_that_is_no_number_has_no_value(value: float | None, found: float | None) -> None:
    assert value_of({"a": Score(value)}, "a") == found


def test_a_trial_by_losses_is_won_by_the_smaller_one_and_fragile_below_a_thousandth() -> None:
    """Margins of 0.001, which is not below it, and of 0.0005."""
    ifds = [Trial(0.0, 0.001), Trial(0.0, 0.0005)]
    losses = [Trial(0.001, 0.0), Trial(0.75, 0.5)]
    weighed = [Weighed(str(n), "O", str(n), *pair) for n, pair in enumerate(zip(ifds, losses, strict=True))]
    assert trials(weighed) == [
        {"trial": "instruction, by IFD", "compared": 2, "new_won": 2, "fragile": 1},
        {"trial": "response, by r-IFD", "compared": 2, "new_won": 2, "fragile": 0},
    ]


# --- one question and its repetition ---------------------------------------------------------------------------------


def test_a_call_that_failed_is_that_failure_and_one_that_cannot_be_read_is_asked_once_more(tmp_path: Path) -> None:
    model = Says(words={"gone": "", "again, in digits": "7", "": "seven"})
    hearing = Hearing(
        "count", Speak(speaker=model, sampling=Sampling()), " again, in digits",
        lambda text: int(text) if text.isdigit() else Failure("unreadable", text),
    )  # fmt: skip
    with Run(tmp_path, Local(), max_failures=1.0) as run:
        found = hearing.heard(run, [Asked("a", "Count.", "gone"), Asked("b", "Count.", "days")])
    assert found == {"a": GONE, "b": 7}
    assert Says.asked == ["gone", "days", "days again, in digits"]


Round = tuple[int, int, bool]


@pytest.mark.parametrize(
    ("rounds", "said"),
    [
        ([(20, 11, False)], ["11 of 20"]),
        ([(20, 10, False)], [""]),
        ([(19, 19, False)], [""]),
        ([(19, 19, False), (1, 0, False)], ["", "19 of 20"]),
        ([(20, 2, False), (3, 3, True)], ["", ""]),
        ([(3, 3, True)], ["3 of 3"]),
        ([(20, 2, False), (20, 20, False), (2, 2, True)], ["", "20 of 20", "24 of 42"]),
    ],
)
def test_a_model_repeats_itself_by_rounds_of_twenty_and_by_all_of_them_in_the_end(
    rounds: list[Round], said: list[str]
) -> None:
    repeating = Repeating("questions", 0.5)
    found = [repeating.close(read, duplicates, last) if last else repeating.close(read, duplicates)
             for read, duplicates, last in rounds]  # fmt: skip
    end = "questions were duplicates, more than max_duplicates=0.5"
    assert found == [share and f"the model repeats itself: {share} {end}" for share in said]
