"""What a user would miss of CLEAR's choice, of a selection's lengths and of a table of scores: each test here failed on
a change of a page that no other noticed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow.parquet as pq
import pytest

from tunesift import (
    IFD,
    Clear,
    Completion,
    Confident,
    Correct,
    Dataset,
    Decision,
    Failure,
    Largest,
    Local,
    Message,
    Record,
    Run,
    Sampling,
    Score,
    ScoreRecords,
    ScriptedModel,
)
from tunesift.heartbeat import beat, share_done, written
from tunesift.methods.clear_steps import Ask, Evidence, Sample, Weigh
from tunesift.methods.lengths import tell_selection
from tunesift.scoring.selectors import Pool

ROWS = [Record(f"r{n}", (Message("user", f"Name river {n}."), Message("assistant", "Old."))) for n in range(2)]


@dataclass(frozen=True, kw_only=True)
class HalfAsleep(ScriptedModel):
    """Is sure of every answer; of the first river it says the same at every draw, of others something else."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [Completion(f"Answer: {self._said(c[-1].text, sampling)}", "stop", 2) for c in conversations]

    def _said(self, text: str, sampling: Sampling) -> str:
        if "answer>" in text:
            return "A"
        return "the same" if "river 0" in text else f"draw {sampling.seed}"


def test_samples_that_are_the_same_for_just_a_half_are_worth_no_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Run(tmp_path, Local()) as run:
        Clear(student=HalfAsleep(), samples=2)(Dataset.of(ROWS), run)
    assert [r.getMessage() for r in caplog.records if "samples" in r.getMessage()] == []


def test_a_selector_by_rank_calls_the_score_confidence(tmp_path: Path) -> None:
    """Reflection alone, which is sure of both."""
    method = Clear(student=HalfAsleep(), samples=0, keep=Largest(fraction=0.5))
    with Run(tmp_path, Local()) as run:
        found = list(method(Dataset.of(ROWS), run).decisions)
    assert found[0] == Decision("r0", "keep", "largest 50%: confidence 1.0000, rank 1 of 2")


def test_a_record_without_any_confidence_stays_and_nothing_is_known_against_it() -> None:
    pool = Pool(Dataset.of(ROWS), {"r1": Score(0.25)}, {}, "confidence", random.Random(0), {})
    assert Confident(gamma=0.5)(pool) == [
        Decision("r0", "keep", "no confidence: nothing is known against it"),
        Decision("r1", "drop", "not among those above 0.5000: confidence 0.2500"),
    ]


@pytest.mark.parametrize(("certainty", "value", "note"), [(1.0, 0.5, "at_least"), (0.0, 0.25, "at_most")])
def test_samples_that_were_left_out_leave_a_bound_on_the_side_where_gamma_is_not(
    certainty: float, value: float, note: str
) -> None:
    """One sample of two agrees in nothing: at most 1/2 of 1/2 of the confidence, and 1/2 of what reflection says."""
    weigh = Weigh(samples=2, w_similarity=1.0, w_consistency=0.5, gamma=0.4)
    (score,) = weigh([Evidence("a", (certainty,), 0, ((0.0, False),), 1)])
    assert isinstance(score, Score)
    assert (score.value, score.note) == (value, note)


@dataclass(frozen=True, kw_only=True)
class Telling(ScriptedModel):
    """Says how far it is once a call is done."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        beat(1.0)
        return [Completion(f"Answer: {share_done()}", "stop", 1) for _ in conversations]


def test_how_far_a_chunk_of_samples_is_counts_each_draw_by_its_share() -> None:
    """Three of four at the first draw, one at the second."""
    asks = [Ask(f"{n}", ROWS[0].prompt, int(n == 3)) for n in range(4)]
    written()
    told = Sample(student=Telling(), template="{task}", temperature=1.0, max_tokens=5)(asks)
    written()
    assert [t.answer for t in told if not isinstance(t, Failure)] == ["0.75", "0.75", "0.75", "1.0"]


@dataclass(frozen=True, kw_only=True)
class Silent(ScriptedModel):
    """Prefers the new answer, and says nothing when it is asked again."""

    drawn: ClassVar[list[int | None]] = []

    def chat(  # type: ignore[override]
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling
    ) -> list[Completion | Failure]:
        return [self._said(c[-1].text, sampling) for c in conversations]

    def _said(self, text: str, sampling: Sampling) -> Completion | Failure:
        if "Verdict: one word" not in text or "answer>\nVerdict: second" in text:
            return Failure("unanswered", "nobody is there")
        if sampling.seed:
            self.drawn.append(sampling.seed)
            return Failure("unanswered", "nobody is there")
        return Completion("Verdict: second" if text.find("Old.") < text.find("New.") else "Verdict: first", "stop", 2)


def test_a_verdict_is_drawn_no_more_often_than_is_set_where_nobody_answers(tmp_path: Path) -> None:
    Silent.drawn.clear()
    tuned = ScriptedModel(otherwise="New.")
    method = Clear(student=Silent(), samples=2, correct=Correct(tuned=(tuned,), scope="all"))
    with Run(tmp_path, Local(), max_failures=1.0) as run:
        found = list(method(Dataset.of(ROWS[:1]), run).decisions)
    assert found[0].reason.endswith("not sure: the verdict has no confidence, since nobody answered")
    assert Silent.drawn == [1, 2]


def test_of_nothing_that_is_kept_the_mean_length_is_0(tmp_path: Path) -> None:
    """Instructions of 13 characters and responses of 4, and a score by which nothing is kept."""
    dropped = [Decision(r.id, "drop", "none") for r in ROWS]
    with Run(tmp_path, Local()) as run:
        tell_selection(run, Dataset.of(ROWS), {"r0": Score(0.5)}, dropped)
        run.finish(Dataset.of(ROWS), dropped)
    assert pq.read_table(tmp_path / "tables" / "selection.parquet").to_pylist() == [
        {"records": 2, "kept": 0, "cut": None, "tied": 0, "mean_characters": 17.0, "mean_characters_kept": 0.0},
    ]


def test_the_scores_of_every_record_can_be_gone_through_in_the_order_of_the_data(tmp_path: Path) -> None:
    with Run(tmp_path, Local()) as run:
        table = ScoreRecords(scorers=(IFD(student=ScriptedModel()),))(Dataset.of(ROWS), run).scores
        assert table is not None
        assert [(id, list(by)) for id, by in table.items()] == [("r0", ["ifd"]), ("r1", ["ifd"])]
