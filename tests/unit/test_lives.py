"""A run in several lives: rounds are folded again, what a kill interrupted is tried anew, and progress is told."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from harness import door as shared
from harness.door import Life, Measure, all_kept, record, records, worked
from tunesift import (
    Dataset,
    Failure,
    ModelUnavailable,
    Record,
    ResumeError,
    Run,
    Score,
    Settings,
    Stopped,
)
from tunesift.books import SHELF
from tunesift.running import journal as storage
from tunesift.running.fsio import LEFT
from tunesift.running.progress import Progress

fresh, life = shared.fresh, shared.life
running: list[Run] = []


@dataclass(frozen=True, kw_only=True)
class End(Measure):
    """Measures, and asks the run to end."""

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        running[-1].stop.ask()
        return Measure.__call__(self, chunk)


def test_nothing_more_is_begun_once_a_run_is_to_end(life: Life) -> None:
    with life() as run:
        running.append(run)
        with pytest.raises(Stopped) as end:
            run.map("end", End(), records(20))
        assert str(end.value).startswith(f"{run.folder}: stopped when asked to;")
        assert run._journal.db.execute("SELECT row FROM intent").fetchall() == []
    assert worked == ["r0", "r1", "r2", "r3"]


@pytest.mark.parametrize("lives", [1, 2, 3])
def test_an_item_at_which_the_process_died_is_tried_again_alone_and_given_up_after_three_lives(
    life: Life, lives: int
) -> None:
    with life() as run:
        run.map("measure", Measure(), [])
        settings = run._journal.db.execute("SELECT settings FROM stage").fetchone()[0]
    for _ in range(lives):
        journal = storage.Journal(run.folder)
        journal.stage("measure", json.loads(settings)).begin([1])
        journal.db.close()  # as a kill leaves it: a row is begun, nothing came of it, and nobody closed the journal
    with life() as run:
        found = run.map("measure", Measure(), records(6))
    given_up = {"r1": Failure("crashed", "the process died 3 times while it was worked on")}
    assert found.failures() == (given_up if lives == 3 else {})
    assert worked == {1: ["r0", "r1", "r2", "r3", "r4", "r5"], 2: ["r0", "r2", "r3", "r4", "r5", "r1"],
                      3: ["r0", "r2", "r3", "r4", "r5"]}[lives]  # fmt: skip
    worked.clear()
    with life() as run:
        again = run.map("measure", Measure(), records(6))
        assert again["r1"] == (given_up["r1"] if lives == 3 else Score(2.0, {"characters": 2}))
    assert worked == []


@dataclass(frozen=True, kw_only=True)
class Provider(Settings):
    """Takes items as one file, and works on them elsewhere."""

    chunk: int = 4


@dataclass(frozen=True, kw_only=True)
class Sent(Measure):
    """Measures at a provider's."""

    provider: Provider = Provider()


def test_an_item_that_a_provider_works_on_is_not_what_the_process_died_of(life: Life) -> None:
    with life() as run:
        run.map("sent", Sent(), [])
        settings = run._journal.db.execute("SELECT settings FROM stage").fetchone()[0]
    for _ in range(3):
        journal = storage.Journal(run.folder)
        journal.stage("sent", json.loads(settings)).begin([1])
        journal.db.close()  # as a kill leaves it, hours before the provider's answers come
    with life() as run:
        assert run.map("sent", Sent(), records(6)).failures() == {}
    assert worked == ["r0", "r1", "r2", "r3", "r4", "r5"]


# Two lives


def test_a_second_life_that_asks_for_more_less_or_other_is_refused(life: Life) -> None:
    """The page must be the same in every life; a change that no single item shows is found at the end."""
    data = Dataset.of(records(10))
    with life() as run:
        run.map("measure", Measure(), data)
        run.map("again", Measure(), data)
    with life() as run:
        run.map("measure", Measure(), data[:7])
        run.map("again", Measure(), data)
        with pytest.raises(ResumeError, match=r'^stage "measure" holds 10 rows and was now asked for 7;'):
            run.finish(data, all_kept(list(data)))
    with life() as run:
        run.map("measure", Measure(), data)
        with pytest.raises(
            ResumeError, match='holds the stage "again", which was not asked for now; use another folder'
        ):
            run.finish(data, all_kept(list(data)))
    with life() as run:
        run.map("measure", Measure(), data)
        run.map("again", Measure(), data)
        run.finish(data, all_kept(list(data)))
    with (
        life() as run,
        pytest.raises(ResumeError, match=r'^stage "measure" was finished with 10 rows and is now asked'),
    ):
        run.map("measure", Measure(), records(11))
    assert len(worked) == 20


def page(run: Run, data: Sequence[Record], *, stray: bool = False) -> list[str]:
    """A page in rounds, each of which draws on what the round before it found."""
    weight, drawn = 1.0, []
    for number in range(3):
        stream = random.Random(os.urandom(4)) if stray else run.random("round", number)
        picked = stream.sample([r.id for r in data], 5)
        items = [record(f"{id}~{number}", f"{id} {weight:.6f}") for id in picked]
        found = run.map("write", Measure(), items).good()
        weight = sum(s.value or 0.0 for s in found.values()) / len(found) + stream.random()
        drawn += picked
    return drawn


def test_rounds_are_folded_again_from_the_journal(life: Life) -> None:
    with life() as run:
        first = page(run, records(20))
    assert len(worked) == 15
    with life() as run:
        assert page(run, records(20)) == first
        assert [s.worked for s in run.stages] == [0, 0, 0]
    assert len(worked) == 15


def test_a_page_that_draws_outside_the_run_is_caught_in_its_second_life(life: Life) -> None:
    with life() as run:
        page(run, records(20), stray=True)
    with life() as run, pytest.raises(ResumeError, match='stage "write"'):
        page(run, records(20), stray=True)


class Heard(Progress):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[object, ...]] = []

    def begin(self, stage: str, total: int, done: int) -> None:
        self.said.append(("begin", stage, total, done))
        self.at_a_time = self.chunk

    def advance(self, stage: str, items: int, failed: int) -> None:
        self.said.append(("advance", stage, items, failed))

    def end(self, stage: str) -> None:
        self.said.append(("end", stage))

    def turn(self, done: int, of: int) -> None:
        self.said.append(("turn", done, of))


def test_progress_says_how_many_of_a_round_are_done_already(life: Life) -> None:
    first, second = Heard(), Heard()
    with life(progress=first) as run:
        page(run, records(20))
    with life(progress=second) as run:
        page(run, records(20))
    assert [s for s in first.said if s[0] == "begin"] == [("begin", "write", 5, 0)] * 3
    assert second.said == [("begin", "write", 5, 5), ("end", "write")] * 3
    assert sum(int(str(s[2])) for s in first.said if s[0] == "advance") == 15


def test_progress_says_how_many_of_those_that_are_done_failed(life: Life) -> None:
    heard = Heard()
    items = [record("a", "refuse it"), record("b"), record("c"), record("d"), record("e", "refuse it too"), record("f")]
    with life(progress=heard, max_failures=1.0) as run:
        run.map("measure", Measure(), items)
    assert [s for s in heard.said if s[0] == "advance"] == [("advance", "measure", 4, 1), ("advance", "measure", 2, 1)]
    assert heard.at_a_time == 4, "how many the first word will be of is known when the stage begins"


def test_a_stage_is_reported_and_logged_with_what_was_asked_done_and_failed(
    life: Life, caplog: pytest.LogCaptureFixture
) -> None:
    items = [record("a", "refuse it"), *records(5)]
    with life(max_failures=1.0) as run:
        run.map("measure", Measure(), items[:2])
    with life(max_failures=1.0) as run, caplog.at_level(logging.INFO):
        run.map("measure", Measure(), items)
    (told,) = run.stages
    assert (told.stage, told.items, told.worked, told.failed) == ("measure", 6, 4, 1)
    assert 0 <= told.seconds < 60
    assert "stage measure: 6 items, 4 done now, 1 failed" in caplog.messages


def test_a_page_that_works_on_some_records_at_a_time_says_how_many_had_their_turn(life: Life) -> None:
    heard = Heard()
    with life(progress=heard) as run:
        run.turn(3, 7)
    assert heard.said == [("turn", 3, 7)]


def test_a_run_that_is_left_at_once_says_so_in_its_folder_and_goes_by_its_journal_s_name(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "_exit", lambda code: None)
    with life() as run:
        assert SHELF.run == run.journal, "what it sent to a provider would be taken for another run's"
        run.stop._leave(signal.SIGINT, signal.SIGTERM)
        assert (run.folder / LEFT).exists(), "what was in flight would be taken for what killed it"


def test_progress_ends_whatever_happens(life: Life) -> None:
    heard = Heard()
    with life(progress=heard) as run, pytest.raises(ModelUnavailable):
        run.map("measure", Measure(), [record("a", "raise")])
    assert heard.said == [("begin", "measure", 1, 0), ("end", "measure")]
