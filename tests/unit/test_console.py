"""What a person at the terminal sees while a run goes on, and when it is done."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tunesift import Summary, console, heartbeat
from tunesift.console import BarProgress, LineProgress, as_fields, progress_for, told, told_time
from tunesift.errors import MOST_SHOWN, printable, shown
from tunesift.running.progress import Progress


def summary(seconds: float, **counts: int) -> Summary:
    counts = {"in": 1_200, "kept": 100, "dropped": 1_000, "quarantined": 100} | counts
    reasons = {
        "dropped: not among the largest 10%": 1_000,
        "kept: largest 10%": 100,
        "quarantined: E301 \x1b[31m\u202e": 100,
    }
    return Summary("id", Path("o.run"), Path("o\n.json"), Path("o.run/report.html"), counts, reasons, 1_100, seconds)


def test_the_end_of_a_run_is_told_in_a_few_lines() -> None:
    assert told(summary(2.0, created=3)).split("\n") == [
        "o\\n.json: 1,200 in = 100 kept + 1,000 dropped + 100 quarantined; 3 created",
        "  1,000  dropped: not among the largest 10%",
        "    100  kept: largest 10%",
        "    100  quarantined: E301 \\x1b[31m\\u202e",
        "  2.0 s, 600.0 records a second; 1,100 items were worked on",
        "  report: o.run/report.html",
    ]
    assert "nothing was left to do; the run was complete" in told(summary(0.0))
    assert as_fields(summary(2.0))["counts"] == summary(2.0).counts


def test_who_listens_depends_on_where_the_words_go(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(progress_for(True)) is Progress
    assert isinstance(progress_for(False), LineProgress)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(progress_for(False), BarProgress)


def drive(progress: Progress) -> None:
    for stage, done in (("first", 0), ("second", 4)):
        progress.begin(stage, 1_000, done)
        for items, failed in ((64, 0), (64, 2)):
            progress.advance(stage, items, failed)
        progress.end(stage)


def test_lines_come_at_the_ends_and_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "EVERY_S", 0.0)
    drive(LineProgress())
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "first: 1", "first: 64 of 1", "first: 128 of 1", "first: stopped at 128 of 1",
        "second: 1", "second: 68 of 1", "second: 132 of 1", "second: stopped at 132 of 1",
    ]  # fmt: skip
    assert lines[4] == "second: 1,000 items, 4 of them done before"
    assert lines[2].endswith(", 2 failed")


def drive_rounds(progress: Progress) -> None:
    """Three rounds of two stages."""
    for number in range(3):
        progress.turn(10 * number, 30)
        for stage in ("write", "judge"):
            progress.begin(stage, 10, 0)
            progress.advance(stage, 10, 0)
            progress.end(stage)
    progress.turn(30, 30)


def test_of_a_method_that_works_in_rounds_the_whole_is_told_and_not_every_stage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    drive_rounds(LineProgress())
    first, last = capsys.readouterr().err.splitlines()
    assert first == "records: 30, some at a time"
    assert last.startswith("records: 30 of 30, ")
    drive_rounds(BarProgress())
    assert "records: 30 of 30, " in capsys.readouterr().err


def test_rounds_of_another_life_have_no_part_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    turns = console._Turns(100)
    turns.done(0)
    clock[0] += 1
    turns.done(90)  # answered from the journal
    clock[0] += 5
    turns.is_new = True
    turns.done(95)
    assert str(turns) == "95 of 100, 1.0 a second, 5 s left"


def of_one_stage(progress: Progress, chunks: int, items: int = 64) -> None:
    """A stage of 128 items, in chunks."""
    progress.chunk = 64
    progress.begin("score", 128, 0)
    for _ in range(chunks):
        progress.advance("score", items, 0)
    progress.end("score")


def test_a_stage_that_was_stopped_is_not_called_done(capsys: pytest.CaptureFixture[str]) -> None:
    of_one_stage(LineProgress(), 1)
    assert capsys.readouterr().err.splitlines()[-1] == "score: stopped at 64 of 128"
    of_one_stage(LineProgress(), 2)
    assert capsys.readouterr().err.splitlines()[-1].startswith("score: done, 128 items in 0.")


def test_progress_moves_within_a_chunk_by_what_its_model_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "EVERY_S", 0.0)
    monkeypatch.setattr(console, "LOOK_S", 0.01)
    progress = LineProgress()
    progress.chunk = 64
    heartbeat.written()
    with heartbeat.loading("a/model"):
        progress.begin("score", 128, 0)
        time.sleep(0.1)
    heartbeat.beat(0.5)
    with heartbeat.stretch(0.5):
        heartbeat.beat(0.5)
    time.sleep(0.1)
    heartbeat.written()
    progress.end("score")
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == ["score: 128 items", "score: loading the model a/model"]
    assert said[2].startswith("score: 48 of 128, ")
    assert said[3:] == ["score: stopped at 0 of 128"]


def test_no_time_is_told_from_the_first_moment_after_a_model_was_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 10,400 records the first five took two seconds, and an hour was told to be left."""
    monkeypatch.setattr(console, "LOOK_S", 3600.0)
    progress = LineProgress()
    progress.chunk = 64
    heartbeat.written()
    progress.begin("score", 128, 0)
    with heartbeat.loading("a/model"):
        progress._said -= 60
        progress._look()
    heartbeat.beat(0.02)
    progress._look()
    assert capsys.readouterr().err.splitlines() == ["score: 128 items", "score: loading the model a/model"]
    heartbeat.written()
    progress.end("score")


def test_what_is_slow_or_not_known_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat.written()
    count = console._Count(3_000, 0, 1)
    assert str(count) == "0 of 3,000, time left not known, 0 failed"
    count.add(10, 1)
    later = time.monotonic() + 260
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert str(count) == "10 of 3,000, 26 s each, 21.6 h left, 1 failed"
    count.add(1_600, 0)
    assert str(count) == "1,610 of 3,000, 6.2 a second, 4 min left, 1 failed"
    assert [told_time(s) for s in (9.4, 120.0, 121.0, 7_300.0)] == ["9 s", "120 s", "2 min", "2.0 h"]
    slow = replace(summary(4_000.0), counts={"in": 40, "kept": 40, "dropped": 0, "quarantined": 0})
    assert "  67 min, 100 s a record; 1,100 items were worked on" in told(slow).split("\n")


def test_bars_are_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    drive(BarProgress())
    said = capsys.readouterr().err
    assert "second" in said
    assert "132/1000" in said
    assert "2 failed" in said


def test_what_is_printed_cannot_drive_a_terminal() -> None:
    assert printable("a\x1b[31m\x9b\u202e\u2066\r\n\x00é😀") == "a\\x1b[31m\\x9b\\u202e\\u2066\\r\\n\\x00é😀"
    assert printable("\udcff") == "\\udcff"
    assert shown("x" * 200) == "x" * (MOST_SHOWN - 3) + "..."
    assert len(shown("\x00" * 200)) == MOST_SHOWN
    assert shown("short") == "short"
