"""A process that dies at any named point of the write path, or twice, loses, doubles and changes nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunesift.running.fsio import FAILPOINTS

SOURCE = Path(__file__).parents[2] / "src" / "tunesift"
CHILD = """
import sys
from tunesift.cli import main
from tunesift.running import journal
journal.PART_ROWS = 16
sys.argv = ["tunesift", *sys.argv[1:]]
main()
"""
RECORDS = 70


def start(home: Path, failpoint: str = "", *settings: str) -> subprocess.CompletedProcess[str]:
    """One life of a selection with a scripted student."""
    command = ["select", str(home / "input.jsonl"), "-o", str(home / "kept.jsonl"), "keep=40%", "--quiet"]
    extra = ["scorer.student.kind=scripted", "execution.chunk=8", *settings]
    environment = {**os.environ, "TUNESIFT_FAILPOINT": failpoint}
    return subprocess.run(
        [sys.executable, "-c", CHILD, *command, *extra], env=environment, capture_output=True, text=True, timeout=60
    )


def make_input(home: Path) -> None:
    home.mkdir()
    rows = [
        {"id": f"r{n}", "instruction": f"Name the river {n}.", "output": f"River {n % 7} of {n}"}
        for n in range(RECORDS)
    ]
    (home / "input.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")


def result(home: Path) -> dict[str, bytes]:
    """The bytes that must not depend on what happened on the way."""
    files = [home / "kept.jsonl", home / "kept.jsonl.run" / "decisions.parquet"]
    return {
        p.name: p.read_bytes() for p in [*files, *sorted((home / "kept.jsonl.run").glob("stages/*/part-*.parquet"))]
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    make_input(home)
    done = start(home)
    assert done.returncode == 0, done.stderr
    found = result(home)
    assert len(found) == 2 + RECORDS // 16 + 1
    return found


def test_every_point_of_the_code_is_in_the_list_and_the_other_way_round() -> None:
    placed = {name for path in SOURCE.rglob("*.py") for name in re.findall(r'failpoint\("([^"]+)"\)', path.read_text())}
    assert placed == set(FAILPOINTS)


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_death_at_this_point_changes_nothing(point: str, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    home = tmp_path / "home"
    make_input(home)
    died = start(home, f"{point}:1")
    assert died.returncode == -signal.SIGKILL, f"{point} did not fire: {died.stderr}"
    again = start(home)
    assert again.returncode == 0, again.stderr
    assert result(home) == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_second_death_while_going_on_changes_nothing(
    point: str, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    home = tmp_path / "home"
    make_input(home)
    assert start(home, f"{point}:1").returncode == -signal.SIGKILL
    for second in ("result.committed:2", "file.renamed:1", "seal.mid_txn:1"):
        assert start(home, second).returncode in (-signal.SIGKILL, 0), second
    assert start(home).returncode == 0
    assert result(home) == undisturbed
