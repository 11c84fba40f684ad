"""What a person at the terminal sees while a run goes on, and when it is done."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tunesift import Summary, console
from tunesift.console import BarProgress, LineProgress, as_fields, progress_for, told
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
        "first: 1", "first: 64 of 1", "first: 128 of 1", "first: done", "second: 1", "second: 68 of 1", "second: 132 of 1", "second: done",
    ]  # fmt: skip
    assert lines[4] == "second: 1,000 items, 4 of them done before"
    assert lines[2].endswith(", 2 failed")


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
