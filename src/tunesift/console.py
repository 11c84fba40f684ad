"""What does a person at the terminal see while a run goes on, and when it is done?"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from tunesift.errors import printable
from tunesift.perform import Summary
from tunesift.running.ledger import Spent
from tunesift.running.progress import Progress

EVERY_S = 5.0
"""Seconds between two lines where no bar can be drawn."""


def progress_for(quiet: bool) -> Progress:
    """A bar on a terminal, lines elsewhere, nothing when quiet."""
    if quiet:
        return Progress()
    return BarProgress() if sys.stderr.isatty() else LineProgress()


class LineProgress(Progress):
    """A line when a stage begins and ends, and every few seconds between."""

    def begin(self, stage: str, total: int, done: int) -> None:
        self._total, self._done, self._now, self._failed = total, done, 0, 0
        self._began = self._said = time.monotonic()
        found = f", {done:,} of them done before" if done else ""
        self._say(f"{stage}: {total:,} items{found}")

    def advance(self, stage: str, items: int, failed: int) -> None:
        self._now += items
        self._failed += failed
        if time.monotonic() - self._said >= EVERY_S:
            self._said = time.monotonic()
            left = (self._total - self._done - self._now) / max(self._rate(), 1e-9)
            self._say(f"{stage}: {self._done + self._now:,} of {self._total:,}, {self._rate():.1f} a second, "
                      f"{left:.0f} s left, {self._failed} failed")  # fmt: skip

    def end(self, stage: str) -> None:
        if self._now:
            self._say(f"{stage}: done, {self._now:,} items in {time.monotonic() - self._began:.1f} s "
                      f"({self._rate():.1f} a second), {self._failed} failed")  # fmt: skip

    def _rate(self) -> float:
        return self._now / max(time.monotonic() - self._began, 1e-9)

    def _say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class BarProgress(Progress):
    """One bar per stage, with rate, time left and counts."""

    def begin(self, stage: str, total: int, done: int) -> None:
        self._failed, self._now, self._began = 0, 0, time.monotonic()
        self._bar = Bar(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(), console=Console(stderr=True),
        )  # fmt: skip
        self._task: TaskID = self._bar.add_task(stage, total=total, completed=done, said="")
        self._bar.start()

    def advance(self, stage: str, items: int, failed: int) -> None:
        self._failed += failed
        self._now += items
        rate = self._now / max(time.monotonic() - self._began, 1e-9)
        said = f"{rate:.1f}/s" + (f", {self._failed} failed" if self._failed else "")
        self._bar.update(self._task, advance=items, said=said)

    def end(self, stage: str) -> None:
        self._bar.stop()


def told(summary: Summary) -> str:
    """What a run did, in a few lines: the balance, the reasons, the speed, where to look."""
    lines = [f"{printable(str(summary.output))}: {summary.balance}"]
    width = max((len(f"{n:,}") for n in summary.reasons.values()), default=0)
    lines += [f"  {count:>{width},}  {printable(reason)}" for reason, count in list(summary.reasons.items())[:12]]
    lines += [f"  note: {count:,} {kind}" for kind, count in summary.notes.items()]
    if summary.short:
        lines.append(f"  {printable(summary.short)}")
    elif not sum(summary.counts.get(name, 0) for name in ("kept", "replaced", "created")):
        lines.append("  nothing was kept, for the reasons above; with other settings, write to another output")
    if summary.seconds:
        rate = max(summary.counts["in"], summary.counts.get("created", 0)) / summary.seconds
        lines.append(f"  {summary.seconds:.1f} s, {rate:.1f} records a second; {summary.worked:,} items were worked on")
    else:
        lines.append("  nothing was left to do; the run was complete")
    lines += [f"  {told_spent(spent)}" for spent in summary.spent]
    lines.append(f"  report: {printable(str(summary.report))}")
    return "\n".join(lines)


def told_spent(spent: Spent) -> str:
    """What one model was asked and paid, in words."""
    tokens = spent.exact_prompt + spent.exact_completion
    more = f", and at most {spent.unknown_tokens:,} more" if spent.unknown_tokens else ""
    said = f"{printable(spent.model)}: {spent.calls:,} calls, {tokens:,} tokens{more}"
    if not spent.exact_micros + spent.unknown_micros:
        return said
    most = f" to {(spent.exact_micros + spent.unknown_micros) / 1e6:.4f}" if spent.unknown_micros else ""
    return f"{said}; cost {spent.exact_micros / 1e6:.4f}{most}"


def as_fields(summary: Summary) -> dict[str, object]:
    """The same as JSON values."""
    return {
        "run_id": summary.run_id, "output": str(summary.output), "folder": str(summary.folder),
        "report": str(summary.report), "counts": dict(summary.counts), "reasons": dict(summary.reasons),
        "notes": dict(summary.notes), "short": summary.short, "spent": [asdict(s) for s in summary.spent],
        "worked": summary.worked, "seconds": round(summary.seconds, 3),
    }  # fmt: skip
