"""Killed in the middle of comparisons, `sima` goes on and asks nobody twice but for what was in flight."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from harness import seer
from harness.kill import NOTHING, balance, begun_by_life, live, result
from harness.seeing import asked, pictured, rows

pytest.importorskip("PIL", reason='needs the "vision" extra')
ROWS = 12


def command(home: Path, name: str) -> list[str]:
    return [sys.executable, seer.__file__, str(home), name]


def prepared(home: Path) -> Path:
    names = pictured(home, ROWS)
    (home / "in.jsonl").write_text(rows([asked(f"q{n:02}", name, f"{n:02}?") for n, name in enumerate(names)]), "utf-8")
    return home


def killed_behind(home: Path, name: str, comparisons: int) -> None:
    """A life that ends by SIGKILL once it has begun so many comparisons."""
    life = subprocess.Popen(command(home, name), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert life.stdout is not None
    for _ in range(comparisons):
        assert life.stdout.readline() == "compare\n"
    os.killpg(life.pid, signal.SIGKILL)
    life.communicate(timeout=60)
    assert life.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_comparisons_that_were_killed_are_asked_once_each_in_both_orders(tmp_path: Path) -> None:
    whole, disturbed = prepared(tmp_path / "whole"), prepared(tmp_path / "disturbed")
    live(command(whole, "whole"))
    for number, comparisons in enumerate((1, 7, 3, 9)):
        killed_behind(disturbed, f"life{number}", comparisons)
    live(command(disturbed, "last"))
    begun = begun_by_life(tmp_path / seer.LOG)
    questions = {f"{n:02}?" for n in range(ROWS)}
    every = {f"compare {q} {order}-first" for q in questions for order in ("greedy", "sampled")}
    every |= {f"{kind} {q}" for q in questions for kind in ("greedy", "sampled")}
    assert Counter(begun["whole"]) == Counter(every)
    again = Counter(what for name, life in begun.items() if name != "whole" for what in life)
    assert again.keys() == every
    twice = {what: count for what, count in again.items() if count > 1}
    assert sum(twice.values()) - len(twice) <= 4  # one was in flight at each kill, and nothing else is asked again
    assert all(what.startswith("compare") for what in twice)
    assert balance(disturbed, whole) == NOTHING
    ours, theirs = result(disturbed), result(whole)
    assert [name for name in theirs if ours.get(name) != theirs[name]] == []
    assert ours.keys() == theirs.keys()
    assert (disturbed / "output.jsonl").read_text().count('"source_of_chosen":"greedy"') == ROWS
