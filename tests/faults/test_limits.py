"""Few open files and little address space: success, or one sentence; never a traceback."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "demo" / "demo.jsonl"
SCRIPTED = ["scorer.student.kind=scripted"]
GIB = 2**30


def select(home: Path, kind: int, most: int, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """`tunesift select` on the demo data under a limit."""
    command = [sys.executable, "-m", "tunesift.cli", "select", str(DEMO), "-o", "kept.jsonl", "-q", *words]
    limit = partial(resource.setrlimit, kind, (most, most))
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, preexec_fn=limit, timeout=300, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("words", [SCRIPTED, pytest.param(["limit=60"], marks=pytest.mark.slow)])
def test_256_open_files_are_enough(tmp_path: Path, words: list[str]) -> None:
    done = select(tmp_path, resource.RLIMIT_NOFILE, 256, words)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "kept.jsonl").stat().st_size > 0


def test_two_gigabytes_of_address_space_are_enough_without_local_weights(tmp_path: Path) -> None:
    done = select(tmp_path, resource.RLIMIT_AS, 2 * GIB, SCRIPTED)
    assert (done.returncode, done.stderr) == (0, "")


def test_two_gigabytes_of_address_space_are_refused_in_a_sentence_with_local_weights(tmp_path: Path) -> None:
    done = select(tmp_path, resource.RLIMIT_AS, 2 * GIB, ["limit=60"])
    assert (done.returncode, done.stderr) == (
        69, "local models need 3.0 GiB of address space and may use 2.0 GiB; raise ulimit -v.\n",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == [], "a run that did nothing left something"


@pytest.mark.slow
def test_what_is_said_to_be_enough_address_space_is_enough(tmp_path: Path) -> None:
    done = select(tmp_path, resource.RLIMIT_AS, 3 * GIB, ["limit=60"])
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "kept.jsonl").stat().st_size > 0
