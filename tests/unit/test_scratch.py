"""Data that was read from Python without a run lies in a temporary folder: for as long as it is used, and no longer."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tunesift import read_dataset
from tunesift.scratch import Scratch

CHILD = """
import os, signal, sys
from tunesift import read_dataset
data = read_dataset(sys.argv[1])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "in.jsonl").write_text('{"instruction": "Say a.", "output": "a"}\n' * 3)
    return tmp_path / "tmp"


def test_what_a_killed_process_left_is_removed_by_the_next(place: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path / "in.jsonl")]
    assert subprocess.run(command, timeout=60, check=False).returncode == -signal.SIGKILL
    (left,) = place.iterdir()
    assert (left / "records.arrow").exists(), "the fault did not happen"
    data = read_dataset(tmp_path / "in.jsonl")
    (mine,) = place.iterdir()
    assert mine != left
    assert [record.response for record in data] == ["a", "a", "a"]
    del data
    gc.collect()
    assert list(place.iterdir()) == []


def test_what_is_in_use_and_what_is_not_ours_stays(place: Path, tmp_path: Path) -> None:
    first = read_dataset(tmp_path / "in.jsonl")
    (place / "tunesift-data-unlike").mkdir()
    (place / "tunesift-data-link").symlink_to(tmp_path)
    (place / "precious").mkdir()
    other = Scratch()
    child = [sys.executable, "-c", CHILD.replace("os.kill", "print"), str(tmp_path / "in.jsonl")]
    assert subprocess.run(child, env=dict(os.environ), timeout=60, capture_output=True, check=False).returncode == 0
    assert [record.id for record in first] == ["1", "2", "3"] or len(first) == 3
    assert other.path.exists()
    assert {p.name for p in place.iterdir()} >= {"tunesift-data-unlike", "tunesift-data-link", "precious"}
    other.remove()
    assert not other.path.exists()
