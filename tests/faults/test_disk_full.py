"""A disk that is full at many levels: exit 74, every answer kept, and with more room the same bytes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runs import SCRIPTS

WORDY = (700, 1000, 1200, 1500, 1900, 2400, 3000, 3700, 4500, 5400)
"""Kilobytes of the disk of a page whose answers take room: from one without room for the reserve to one almost enough."""
SELECT = (700, 1100, 1150, 1200, 1300, 1450, 1600, 1800, 2000, 2200)
"""Kilobytes of the disk of a selection: full while the input is read, while rows are scored, or at the report."""


@pytest.fixture(scope="module", autouse=True)
def own_mounts() -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("a disk of a few kilobytes needs root and unshare")
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this machine mounts no disk of its own: {tried.stderr.strip()}")


def fill(place: Path, run: str, records: int, sizes: tuple[int, ...]) -> None:
    command = [sys.executable, str(SCRIPTS / "small_disk.py"), str(place), run, str(records), *map(str, sizes)]
    done = subprocess.run(["unshare", "-m", *command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    levels = json.loads(done.stdout)
    print([(level["kb"], level["answered"], round(level["late_s"], 2)) for level in levels])
    for level in levels:
        assert (level["code"], level["said"].count("\n")) == (74, 1), f"the disk was not full, or not told: {level}"
        much = ", of which the run may need \\d+ [kM]B," if run == "select" else ""
        assert re.search(f"make room on the disk{much} and start again\\.\n$", level["said"]), level
        assert level["late_s"] <= 10, level
        assert (level["then"]["code"], level["again"], level["same"]) == (0, 0, True), f"an answer was lost: {level}"
    assert max(level["answered"] for level in levels) > 0, "no answer was in danger"


def test_a_disk_that_is_full_at_three_levels_keeps_every_answer(tmp_path: Path) -> None:
    (tmp_path / "wordy").mkdir()
    fill(tmp_path / "wordy", "wordy", 120, (1500, 3700))
    (tmp_path / "select").mkdir()
    fill(tmp_path / "select", "select", 300, (1800,))


@pytest.mark.slow
@pytest.mark.parametrize(("run", "records", "sizes"), [("wordy", 120, WORDY), ("select", 300, SELECT)])
def test_a_disk_that_is_full_at_ten_levels_keeps_every_answer(
    tmp_path: Path, run: str, records: int, sizes: tuple[int, ...]
) -> None:
    fill(tmp_path, run, records, sizes)
