"""What a user would miss of CLEAR, its correction, `select` and SelectIT: each test here failed on a change that no
other test noticed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest

from tunesift import (
    IFD,
    Clear,
    Combined,
    Completion,
    Confident,
    Correct,
    Dataset,
    Decision,
    Diverse,
    Failure,
    Largest,
    Local,
    Message,
    Perplexity,
    Random,
    Rater,
    RecipeError,
    Record,
    Run,
    Sampling,
    ScriptedModel,
    Select,
    SelectIT,
    Span,
    TargetLoss,
)
from tunesift.datasets import Source
from tunesift.methods.clear_correct import Duel, Judge
from tunesift.methods.clear_evidence import certainty_of
from tunesift.methods.selectit import Rate

ROWS = [Record(f"r{n}", (Message("user", f"Name river {n}."), Message("assistant", "Old."))) for n in range(2)]
GONE = Failure("unanswered", "nobody is there")


@dataclass(frozen=True, kw_only=True)
class Student(ScriptedModel):
    """Compares, reflects on its verdicts, and draws them again; empty where it does not answer."""

    of: tuple[str, ...] = ("r0", "r1")
    """Records whose new answer it prefers."""
    first: str = "first"
    """Its verdict where the new answer stands first."""
    again: str = "second"
    """Its verdict where it is drawn again."""
    sure: str = "A"
    """What it says of its verdicts."""

    drawn: ClassVar[list[Sampling]] = []

    def chat(  # type: ignore[override]
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling
    ) -> list[Completion | Failure]:
        return [
            Completion(said, "stop", 1) if (said := self._said(c[-1].text, sampling)) else GONE for c in conversations
        ]

    def _said(self, text: str, sampling: Sampling) -> str:
        if "answer>\nVerdict: second" in text:
            return self.sure and f"Answer: {self.sure}"
        if "Verdict: one word" not in text:
            return "Answer: C"
        if sampling.seed:
            self.drawn.append(sampling)
            return self.again and f"Verdict: {self.again}"
        if not any(f"river {id[1:]}." in text for id in self.of):
            return "Verdict: equal"
        return "Verdict: second" if text.find("Old.") < text.find("New.") else self.first and f"Verdict: {self.first}"


def corrected(
    folder: Path, student: Student, source: Source | None = None, **given: Any
) -> tuple[list[Decision], list[str]]:  # Any: settings
    """What becomes of two records with the same response, and which reflections on verdicts were asked for."""
    Student.drawn.clear()
    given = {"tuned": (ScriptedModel(otherwise="New."),), "scope": "all", **given}
    method = Clear(student=student, samples=2, temperature=0.4, max_tokens=9, keep=Confident(fraction=1.0),
                   correct=Correct(**given))  # fmt: skip
    data = Dataset.of(ROWS)
    data.source = source
    with Run(folder, Local(), max_failures=1.0) as run:
        decisions = list(method(data, run).decisions)
        run.finish(data, decisions)
        return decisions, [s.stage for s in run.stages if s.stage.startswith("verdict") and "reflect" in s.stage]


def after(decision: Decision) -> str:
    """Its reason without what the filter said."""
    before, _, said = decision.reason.partition("; ")
    return said if decision.action == "keep" else before


SURE = "corrected: round 1, the verdict's confidence is at least"
CASES = {
    "sure by every draw": (Student(), f"{SURE} 1.0000"),
    "no draw can be read, so reflection decides": (Student(again="neither"), f"{SURE} 1.0000"),
    "no draw is answered, so reflection decides": (Student(again=""), f"{SURE} 1.0000"),
    "no reflection is answered, so draws decide": (Student(sure=""), f"{SURE} 1.0000"),
    "draws that disagree": (Student(again="first"), "not sure: the verdict's confidence is at most 0.6500"),
    "only reflection, and that is against": (
        Student(sure="B", again=""), "not sure: the verdict's confidence is at most 0.7000"),
    "nobody answers": (
        Student(sure="", again=""), "not sure: the verdict has no confidence, since nobody answered"),
    "not preferred first": (Student(first="equal"), "not preferred: second, and equal the other way round"),
    "not compared first": (Student(first=""), "not compared"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_response_is_replaced_where_the_verdict_is_sure_by_all_that_is_known(case: str, tmp_path: Path) -> None:
    student, expected = CASES[case]
    found, asked = corrected(tmp_path, student)
    assert asked == ["verdict-1-reflect-1", "verdict-1-reflect-2"]
    assert [after(d) for d in found] == [expected, expected]
    assert [d.parents for d in found] == ([("r0",), ("r1",)] if expected.startswith("corrected") else [(), ()])
    rows = pq.read_table(tmp_path / "tables" / "corrections.parquet").to_pylist()
    assert rows == [{"round": 1, "outcome": expected.partition(":")[0], "records": 2}]


def test_verdicts_are_drawn_again_as_samples_are(tmp_path: Path) -> None:
    corrected(tmp_path, Student())
    assert {(s.temperature, s.max_tokens) for s in Student.drawn} == {(0.4, 9)}


def test_a_verdict_is_drawn_at_0_and_its_samples_at_the_temperature_that_is_set() -> None:
    judge = Judge(student=Student(), max_tokens=5, temperature=0.4)
    assert [judge._sampling(draw) for draw in (0, 2)] == [
        Sampling(temperature=0.0, max_tokens=5, seed=0), Sampling(temperature=0.4, max_tokens=5, seed=2),
    ]  # fmt: skip
    assert len(judge([Duel("a", ROWS[0].prompt, "Old.", "New.", draw) for draw in (0, 2)])) == 2


def test_what_cannot_be_sure_enough_is_not_drawn_again(tmp_path: Path) -> None:
    """No confidence is above 1."""
    found, _ = corrected(tmp_path, Student(), threshold=1.0)
    assert [after(d) for d in found] == ["not sure: the verdict's confidence is at most 1.0000"] * 2
    assert Student.drawn == []


@pytest.mark.parametrize(("least_changed", "rounds"), [(0.5, 2), (0.51, 1)])
def test_a_round_follows_one_that_changed_as_many_as_asked_for(
    least_changed: float, rounds: int, tmp_path: Path
) -> None:
    """One of two is changed in the first round, and none in the second."""
    tuned = tuple(ScriptedModel(otherwise=said) for said in ("New.", "Newer."))
    _, asked = corrected(tmp_path, Student(of=("r0",)), tuned=tuned, least_changed=least_changed)
    assert len(asked) == 2 * rounds


def test_the_better_answers_of_preference_pairs_are_corrected_too(tmp_path: Path) -> None:
    pairs = Source("pairs.jsonl", "preference", "", 0, 2)
    assert [d.action for d in corrected(tmp_path, Student(), pairs)[0]] == ["replace", "replace"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"scorer": IFD(), "also": (IFD(),), "keep": Combined(weights={"ifd": 1.0})},
         "also: there are two scorers of the kind 'ifd'; name each kind once."),
        ({"also": (Perplexity(),)}, "also: only keep.kind=combined looks at several scores; leave it empty."),
        ({"scorer": Perplexity(), "keep": Largest(below=1.0)},
         "keep.below: 1 is IFD's bound, and every perplexity is above it; write keep.below=null."),
    ],
)  # fmt: skip
def test_scorers_and_selectors_that_do_not_go_together_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as refusal:
        Select(**settings)
    assert str(refusal.value) == sentence


@pytest.mark.parametrize("keep", [Random(), Largest(below=2.0), Largest(below=None)])
def test_a_perplexity_goes_with_every_selector_that_does_not_ask_for_less_than_1(keep: Any) -> None:  # Any: selectors
    assert Select(scorer=Perplexity(), keep=keep).keep == keep


def test_candidates_that_need_no_scores_are_all_embedded_and_nothing_is_scored(tmp_path: Path) -> None:
    method = Select(keep=Diverse(candidates=None, fraction=0.5, embedder=ScriptedModel()))
    assert [(p.stage, p.items) for p in method.plan(10)] == [("embed-candidates", 10)]
    data = Dataset.of(ROWS)
    with Run(tmp_path, Local()) as run:
        assert sorted(d.action for d in method(data, run).decisions) == ["drop", "keep"]
        assert [s.stage for s in run.stages] == ["embed-candidates"]


@dataclass(frozen=True, kw_only=True)
class Odd(ScriptedModel):
    """Has these losses, in nats, or none, one for each span."""

    nats: tuple[float | None, ...]

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        return [Failure("too-long", "no room") if n is None else TargetLoss((n,), False) for n in self.nats]


@pytest.mark.parametrize(
    ("nats", "found"),
    [
        ((1.0, None, 1.0, 1.0), Failure("too-long", "no room")),
        ((0.0, 0.0, 0.0, math.nan), Failure("not-finite", "probabilities (1.0, nan) of the ratings after prompt 2")),
        ((0.0, -math.inf, 0.0, 0.0), Failure("not-finite", "probabilities (1.0, inf) of the ratings after prompt 1")),
    ],
)
def test_a_rating_that_cannot_be_had_is_a_failure_that_names_its_prompt(
    nats: tuple[float | None, ...], found: Failure
) -> None:
    rate = Rate(model=Odd(nats=nats), prompts=("a {ratings}", "b {ratings}"), ratings=2, cue="Rating:\n",
                layout="prompt-first")  # fmt: skip
    assert rate(ROWS[:1]) == [found]


def test_a_long_prompt_without_a_scale_is_quoted_by_its_beginning() -> None:
    with pytest.raises(RecipeError) as refusal:
        SelectIT(raters=(Rater(model=ScriptedModel()),), prompts=("0123456789" * 5,))
    assert str(refusal.value) == (
        "prompts: '0123456789012345678901234567890123456789' names no scale; write {ratings} where the best rating is."
    )


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        (Largest(fraction=0.1), "keep: 10% of 2 records is none; write keep.count=1."),
        (Diverse(fraction=0.5, candidates=0.1), "keep.candidates: 10% of 2 records is none; write a larger fraction."),
        (Combined(weights={"ifd": 1.0}, group="topic"), "keep.group: no record has the field 'topic'; name a field of the "
         "input."),
    ],
)  # fmt: skip
def test_a_selector_that_would_keep_nothing_is_refused_before_anything_is_scored(
    keep: Any, sentence: str, tmp_path: Path
) -> None:  # Any: selectors
    with Run(tmp_path, Local()) as run:
        with pytest.raises(RecipeError) as refusal:
            Select(keep=keep)(Dataset.of(ROWS), run)
        assert str(refusal.value) == sentence
        assert run.stages == []


def test_a_fraction_of_every_group_keeps_one_however_small_it_is(tmp_path: Path) -> None:
    rows = [Record(r.id, r.messages, {"topic": "rivers"}) for r in ROWS]
    keep = Combined(weights={"length": 1.0}, group="topic", fraction=0.1)
    with Run(tmp_path, Local()) as run:
        found = list(Select(keep=keep)(Dataset.of(rows), run).decisions)
    assert [d.action for d in found] == ["keep", "drop"]


@dataclass(frozen=True, kw_only=True)
class Forgetful(ScriptedModel):
    """Has no room for the first river."""

    def embed(self, texts: Sequence[str]) -> list[Any]:  # Any: vectors and failures
        return [Failure("too-long", "no room") if "river 0" in text else (1.0, 0.0) for text in texts]


def test_a_candidate_that_cannot_be_embedded_is_set_aside_with_the_reason(tmp_path: Path) -> None:
    keep = Diverse(candidates=None, fraction=0.5, embedder=Forgetful())
    with Run(tmp_path, Local(), max_failures=1.0) as run:
        found = list(Select(keep=keep)(Dataset.of(ROWS), run).decisions)
    assert found[0] == Decision("r0", "quarantine", "too-long: no room")
    assert found[1].action == "keep"


@dataclass(frozen=True, kw_only=True)
class Drawing(ScriptedModel):
    """Sure of every answer, and answers otherwise at every draw, or always the same."""

    same: bool = False

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        drawn = "again" if self.same else f"draw {sampling.seed}"
        return [
            Completion("Answer: A" if "answer>" in c[-1].text else f"Answer: {drawn}", "stop", 2) for c in conversations
        ]


SAME = "all samples are the same for 2 of 2 records; does the model heed temperature?"


@pytest.mark.parametrize(
    ("same", "keep", "said"),
    [(True, Confident(), [SAME]), (False, Confident(), []), (False, Confident(gamma=0.6), [])],
)
def test_samples_that_are_all_the_same_are_worth_a_word_and_no_others(
    same: bool, keep: Confident, said: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Run(tmp_path, Local()) as run:
        Clear(student=Drawing(same=same), samples=2, keep=keep)(Dataset.of(ROWS), run)
    assert [r.getMessage() for r in caplog.records if "samples" in r.getMessage()] == said


def test_a_confidence_that_may_still_be_just_gamma_is_sampled_to_the_end(tmp_path: Path) -> None:
    """Reflection gives 1 and no sample agrees: 0.5 * 0 + 0.5 * 1, which is not above 0.5."""
    method = Clear(student=Drawing(), samples=2, w_consistency=0.5, keep=Confident(gamma=0.5))
    with Run(tmp_path, Local()) as run:
        found = list(method(Dataset.of(ROWS), run).decisions)
    assert [(d.action, d.reason) for d in found] == [("drop", "not among those above 0.5000: confidence 0.5000")] * 2


@pytest.mark.parametrize(
    ("said", "certainty"),
    [("Answer: I take B then", 0.0), ("I take B then", None), ("Incorrect.", 0.0), ("CORRECT", 1.0)],
)
def test_a_letter_counts_within_an_answer_and_a_word_in_any_case(said: str, certainty: float | None) -> None:
    assert certainty_of(said) == certainty
