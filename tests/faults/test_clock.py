"""A wall clock that jumps changes labels and nothing else."""

from __future__ import annotations

import ast
import json
import time
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import tunesift
from harness.interrupting import Asks
from harness.kill import result
from harness.runs import make_records
from tunesift import Stopped, recipe_for, run_recipe
from tunesift.running import fsio, journal

SOURCE = Path(tunesift.__file__).parent
DAY_S = 86_400.0
FORBIDDEN = {"time.time", "time.time_ns", "time.localtime", "time.ctime", "time.asctime", "datetime.now", "datetime.utcnow",
             "datetime.today", "date.today", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.date.today"}  # fmt: skip
LABELS = {"time.strftime", "time.gmtime"}
"""What may read the wall clock: they make text, or what text is made of."""


class Jumps:
    """A wall clock that is a day early or late, another way at each look."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.looks = 0
        strftime, real, ways = time.strftime, time.time, count()

        def now() -> float:
            self.looks += 1
            return real() + (DAY_S, -DAY_S, 3600.0, -0.5)[next(ways) % 4]

        patch.setattr(time, "time", now)
        patch.setattr(time, "time_ns", lambda: int(now() * 1e9))
        patch.setattr(time, "gmtime", lambda given=None, plain=time.gmtime: plain(now() if given is None else given))
        patch.setattr(time, "strftime", lambda form, t=None: strftime(form, time.gmtime() if t is None else t))


def live(home: Path, chunks: int = 10**9) -> None:
    said = ["scorer.student.kind=scripted", "execution.chunk=6", f"folder={home / 'run'}", "keep=40%"]
    asks = Asks(chunks)
    run_recipe(recipe_for("select", home / "input.jsonl", home / "output.jsonl", said), progress=asks, stop=asks.stop)


def test_a_clock_that_jumps_within_and_between_lives_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "PART_ROWS", 8)
    monkeypatch.setattr(fsio, "RESERVE_BYTES", 4096)
    make_records(tmp_path / "calm", 50)
    make_records(tmp_path / "jumping", 50)
    live(tmp_path / "calm")
    with monkeypatch.context() as patch:
        jumps = Jumps(patch)
        for _ in range(3):
            with pytest.raises(Stopped):
                live(tmp_path / "jumping", chunks=2)
        live(tmp_path / "jumping")
    assert jumps.looks >= 5, "nobody looked at the clock; this test says nothing"
    assert result(tmp_path / "jumping") == result(tmp_path / "calm")
    seconds = json.loads((tmp_path / "jumping" / "run" / "result.json").read_text())["seconds"]
    assert 0 <= seconds < 60, "a duration was taken from the wall clock"


def test_the_wall_clock_is_read_for_labels_only() -> None:
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                found.setdefault(dotted(node), []).append(f"{path.relative_to(SOURCE)}:{node.lineno}")
            if (
                isinstance(node, ast.ImportFrom)
                and node.module in ("time", "datetime")
                and {a.name for a in node.names} - {"UTC"}
            ):
                found.setdefault("datetime.now", []).append(f"{path.relative_to(SOURCE)}:{node.lineno} hides its name")
    assert {name: places for name, places in found.items() if name in FORBIDDEN} == {}
    labels = {place.partition(":")[0] for name, places in found.items() if name in LABELS for place in places}
    assert labels, "nothing says when a run was made"
    assert labels <= {"manifest.py", "running/locking.py"}, "a new place reads the wall clock; is it a label?"


def dotted(node: Any) -> str:  # Any: a syntax node
    """`time.time` of such an expression; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}" if dotted(node.value) else ""
    return node.id if isinstance(node, ast.Name) else ""
