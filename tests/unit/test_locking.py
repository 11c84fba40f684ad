"""Who is said to write a folder: the process that its note names, unless that one is dead."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tunesift import RunLocked
from tunesift.running import locking
from tunesift.running.fsio import jot
from tunesift.running.locking import is_written, lock, looked_at

HERE = socket.gethostname()


@pytest.fixture(scope="module")
def dead() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def say(folder: Path, pid: int, host: str) -> None:
    jot(folder / "holder.json", {"pid": pid, "host": host, "since": "2026-01-01 00:00:00"})


def test_a_folder_is_written_while_the_process_that_its_note_names_lives(tmp_path: Path, dead: int) -> None:
    assert not is_written(tmp_path)  # nobody ever wrote it
    say(tmp_path, dead, HERE)
    assert not is_written(tmp_path)
    say(tmp_path, dead, "elsewhere")  # whether it is dead cannot be told from here
    assert is_written(tmp_path)
    (tmp_path / "holder.json").write_text("{}")
    assert not is_written(tmp_path)


def test_a_process_that_may_not_be_asked_is_another_user_s_and_alive(
    tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    say(tmp_path, dead, HERE)
    assert is_written(tmp_path)


def test_folders_above_a_run_s_are_the_user_s_and_only_its_own_is_kept_from_others(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    usual = (tmp_path / "mine").stat().st_mode
    with lock(tmp_path / "year" / "month" / "run"):
        assert {(tmp_path / place).stat().st_mode for place in ("year", "year/month")} == {usual}
        assert (tmp_path / "year" / "month" / "run").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "year" / "month" / "run" / "LOCK").stat().st_mode & 0o777 == 0o600


def test_to_ask_whether_a_process_lives_does_nothing_to_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    say(tmp_path, process.pid, HERE)
    assert is_written(tmp_path)
    process.communicate(b"\n")
    assert process.returncode == 0


def test_a_dead_process_is_not_named_and_one_of_another_machine_is(
    tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "PATIENCE_S", 0.1)
    for host, said in ((HERE, "another process; wait, or stop it."),
                       ("elsewhere", f"process {dead} on elsewhere since 2026-01-01 00:00:00.")):  # fmt: skip
        say(tmp_path, dead, host)
        with lock(tmp_path), pytest.raises(RunLocked) as refusal, looked_at(tmp_path):
            raise AssertionError("two look at a folder that one writes")
        assert str(refusal.value) == f"{tmp_path} is being written by {said}"
