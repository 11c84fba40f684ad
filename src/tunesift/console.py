"""What does a person at the terminal see while a run goes on, and when it is done?"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tunesift.budget import told_money
from tunesift.errors import printable, told_count
from tunesift.heartbeat import being_loaded, share_done
from tunesift.notes import told_note
from tunesift.perform import Summary
from tunesift.running.ledger import Spent
from tunesift.running.progress import Progress

EVERY_S, STILL_S = 5.0, 30.0
"""Seconds between two lines where no bar can be drawn; the second where nothing has moved meanwhile."""
LOOK_S = 0.5
"""Seconds between two looks at what moves within a chunk."""
SLOW = 0.1
"""Items a second below which it is said how long one takes."""


def progress_for(quiet: bool) -> Progress:
    """A bar on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        return Progress()
    return BarProgress() if sys.stderr.isatty() else LineProgress()


class _Count:
    """How far a stage is, what is done of the chunk at work included."""

    def __init__(self, total: int, done: int, chunk: int) -> None:
        self.total, self.before, self.now, self.failed = total, done, 0, 0
        self._chunk, self._most = chunk, 0.0
        self.began = self._clock = time.monotonic()

    def add(self, items: int, failed: int) -> None:
        """Items were written down."""
        self.now += items
        self.failed += failed

    def restart(self) -> None:
        """Nothing could be done until now: a model was loaded."""
        if not self.now:
            self._clock = time.monotonic()

    @property
    def worked(self) -> float:
        """Items that were done now; never fewer than were said before."""
        left = self.total - self.before - self.now
        self._most = max(self._most, self.now + min(self._chunk, left) * share_done())
        return self._most

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.worked / max(time.monotonic() - self._clock, 1e-9)

    @property
    def is_done(self) -> bool:
        """Whether every item of the stage is written down."""
        return self.before + self.now >= self.total

    def __str__(self) -> str:
        worked = self.worked
        left = "time left not known"
        if worked:
            seconds = (self.total - self.before - worked) / self.rate
            left = f"{told_rate(self.rate)}, {told_time(seconds)} left"
        return f"{self.before + int(worked):,} of {self.total:,}, {left}, {self.failed} failed"


class _Ticker:
    """Looks again and again until the stage ends, since a chunk may take minutes."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._over, self._look = threading.Event(), look
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(LOOK_S):
            self._look()


class _Turns:
    """How far a method is that works on some records at a time; what was done in another life has no rate."""

    def __init__(self, of: int) -> None:
        self.count = _Count(of, 0, 0)
        self.is_new = False
        """Whether anything was worked on since the last turn."""

    def done(self, records: int) -> None:
        """So many records have had their turn."""
        more = records - self.count.before - self.count.now
        if self.is_new or not more:
            self.count.add(more, 0)
        else:
            self.count.before += more
            self.count.restart()
        self.is_new = False

    def __str__(self) -> str:
        return str(self.count).rpartition(", ")[0]


class LineProgress(Progress):
    """A line when a stage begins and ends, and every few seconds between; of many rounds, only the latter."""

    _turns: _Turns | None = None
    _turned = 0.0

    def turn(self, done: int, of: int) -> None:
        self._turns = self._turns or _Turns(of)
        self._turns.done(done)
        if time.monotonic() - self._turned >= EVERY_S or done == of:
            self._turned = time.monotonic()
            _say(f"records: {self._turns if done else f'{of:,}, some at a time'}")

    def begin(self, stage: str, total: int, done: int) -> None:
        self._stage, self._count = stage, _Count(total, done, self.chunk)
        self._saying, self._said, self._worked, self._loaded = threading.Lock(), time.monotonic(), 0.0, ""
        found = f", {done:,} of them done before" if done else ""
        if self._turns is None:
            _say(f"{stage}: {told_count(total, self.unit)}{found}")
        self._ticker = _Ticker(self._look)

    def advance(self, stage: str, items: int, failed: int) -> None:
        self._count.add(items, failed)
        if self._turns is not None:
            self._turns.is_new = True
        self._tell()

    def take_over(self, stage: str, items: int) -> None:
        self._count.before += items
        _say(f"{stage}: {told_count(items, 'item')} taken over")

    def end(self, stage: str) -> None:
        self._ticker.stop()
        count = self._count
        if not count.is_done:
            _say(f"{stage}: stopped at {count.before + count.now:,} of {count.total:,}")
        elif count.now and self._turns is None:
            seconds = time.monotonic() - count.began
            _say(f"{stage}: done, {told_count(count.now, self.unit)} in {told_time(seconds, 1)} "
                 f"({told_rate(count.now / max(seconds, 1e-9))}), {count.failed} failed")  # fmt: skip

    def _look(self) -> None:
        """Say what is being loaded at once, and how far the stage is when it is time to."""
        name = being_loaded()
        if not name:
            self._tell()
            return
        self._count.restart()
        self._said = time.monotonic()
        if name != self._loaded:
            self._loaded = name
            _say(f"{self._stage}: loading the model {printable(name)}")

    def _tell(self) -> None:
        with self._saying:
            worked = self._count.worked
            if time.monotonic() - self._said >= (EVERY_S if worked > self._worked else STILL_S):
                self._said, self._worked = time.monotonic(), worked
                _say(f"{self._stage}: {self._count}")


def _say(text: str) -> None:
    with suppress(OSError):  # a run goes on when nobody reads of it any more
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


class BarProgress(Progress):
    """One bar per stage, with rate, time left and counts; of many rounds, none stays."""

    _turns: _Turns | None = None

    def turn(self, done: int, of: int) -> None:
        self._turns = self._turns or _Turns(of)
        self._turns.done(done)
        if done == of:
            _say(f"records: {self._turns}")

    def begin(self, stage: str, total: int, done: int) -> None:
        self._stage, self._count = stage, _Count(total, done, self.chunk)
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(), console=Console(stderr=True), transient=self._turns is not None,
        )  # fmt: skip
        whole = "" if self._turns is None else f"{self._turns}: "
        self._task: TaskID = self._bar.add_task(f"{whole}{stage}", total=total, completed=done, said="")
        self._bar.start()
        self._ticker = _Ticker(self._look)

    def advance(self, stage: str, items: int, failed: int) -> None:
        self._count.add(items, failed)
        if self._turns is not None:
            self._turns.is_new = True
        self._look()

    def end(self, stage: str) -> None:
        self._ticker.stop()
        self._bar.stop()

    def _look(self) -> None:
        count, said = self._count, ""
        if name := being_loaded():
            count.restart()
            said = f"loading the model {printable(name)}"
        elif count.worked:
            said = told_rate(count.rate) + (f", {count.failed} failed" if count.failed else "")
        self._bar.update(self._task, completed=count.before + int(count.worked), said=said)


def told_rate(rate: float) -> str:
    """How fast something goes: `3.1 a second`; of what takes longer, `26 s each`."""
    return f"{rate:.1f} a second" if rate >= SLOW or not rate else f"{told_time(1 / rate)} each"


def told_time(seconds: float, digits: int = 0) -> str:
    """A time in words: seconds up to two minutes, minutes up to two hours."""
    if seconds <= 120:
        return f"{seconds:.{digits}f} s"
    return f"{seconds / 60:.0f} min" if seconds <= 7200 else f"{seconds / 3600:.1f} h"


def told(summary: Summary) -> str:
    """What a run did, in a few lines: the balance, the reasons, the speed, where to look."""
    lines = [f"{printable(str(summary.output))}: {summary.balance}"]
    lines += [f"{printable(str(path))}: {told_count(records, 'record')}" for path, records in summary.also.items()]
    width = max((len(f"{n:,}") for n in summary.reasons.values()), default=0)
    lines += [f"  {count:>{width},}  {printable(reason)}" for reason, count in list(summary.reasons.items())[:12]]
    lines += [f"  note: {told_note(kind, count)}" for kind, count in summary.notes.items()]
    if summary.short:
        lines.append(f"  {printable(summary.short)}")
    elif not sum(summary.counts.get(name, 0) for name in ("kept", "replaced", "created")):
        lines.append("  nothing was kept, for the reasons above; with other settings, write to another output")
    if summary.seconds:
        rate = max(summary.counts["in"], summary.counts.get("created", 0)) / summary.seconds
        worked = f"{told_count(summary.worked, 'item')} {'was' if summary.worked == 1 else 'were'} worked on"
        speed = f"{rate:.1f} records a second" if rate >= SLOW or not rate else f"{told_time(1 / rate)} a record"
        lines.append(f"  {told_time(summary.seconds, 1)}, {speed}; {worked}")
    else:
        lines.append("  nothing was left to do; the run was complete")
    lines += [f"  {told_spent(spent)}" for spent in summary.spent]
    lines.append(f"  report: {printable(str(summary.report))}")
    return "\n".join(lines)


def told_spent(spent: Spent) -> str:
    """What one model was asked and paid, in words."""
    tokens = spent.exact_prompt + spent.exact_completion
    more = f", and at most {spent.unknown_tokens:,} more" if spent.unknown_tokens else ""
    said = f"{printable(spent.model)}: {told_count(spent.calls, 'call')}, {told_count(tokens, 'token')}{more}"
    if not spent.exact_micros + spent.unknown_micros:
        return said
    most = f" to {told_money((spent.exact_micros + spent.unknown_micros) / 1e6)}" if spent.unknown_micros else ""
    return f"{said}; cost {told_money(spent.exact_micros / 1e6)}{most}"


def as_fields(summary: Summary) -> dict[str, object]:
    """The same as JSON values."""
    return {
        "run_id": summary.run_id, "output": str(summary.output), "folder": str(summary.folder),
        "also": {str(path): records for path, records in summary.also.items()},
        "report": str(summary.report), "counts": dict(summary.counts), "reasons": dict(summary.reasons),
        "notes": dict(summary.notes), "short": summary.short, "spent": [asdict(s) for s in summary.spent],
        "worked": summary.worked, "seconds": round(summary.seconds, 3),
    }  # fmt: skip
