"""Many processes start on one folder at once: one of them writes, the others say who does."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.kill import LOG, begun_by_life
from harness.runs import SCRIPTS, make_records, select_command

SAYS_WHO = (
    rf"being written by process (\d+) on {re.escape(socket.gethostname())} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\.$"
)


@pytest.mark.parametrize("was_there", [False, True])
def test_of_a_hundred_starts_one_writes_and_99_say_who_does(tmp_path: Path, was_there: bool) -> None:
    """Also in a folder in which an earlier life has left its name."""
    command = [sys.executable, str(SCRIPTS / "starts.py"), str(tmp_path / "run")]
    if was_there:
        subprocess.run([*command, "1"], check=True, timeout=60, capture_output=True)
    done = subprocess.run([*command, "100"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    starts = json.loads(done.stdout)
    winners = [start["pid"] for start in starts if start["exit"] == 0]
    assert len(winners) == 1
    losers = [start for start in starts if start["exit"] == 75]
    assert len(losers) == 99
    named = [re.search(SAYS_WHO, start["said"]) for start in losers]
    assert all(named), next(start["said"] for start, found in zip(losers, named, strict=True) if not found)
    assert {int(found[1]) for found in named if found} == {winners[0]}
    assert max(start["s"] for start in losers) <= 2.0


def test_of_four_commands_one_works_and_three_exit_with_75(tmp_path: Path) -> None:
    make_records(tmp_path / "home", 60)
    command = select_command(8, call_s=0.5)
    children = [
        subprocess.Popen(
            command(tmp_path / "home", f"home.{n}"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for n in range(4)
    ]
    said = [child.communicate(timeout=60)[1] for child in children]
    assert sorted(child.returncode for child in children) == [0, 75, 75, 75], said
    winner = next(n for n, child in enumerate(children) if child.returncode == 0)
    assert list(begun_by_life(tmp_path / LOG)) == [f"home.{winner}"]
    for n in set(range(4)) - {winner}:
        found = re.search(SAYS_WHO, said[n].strip())
        assert found, said[n]
        assert int(found[1]) == children[winner].pid
