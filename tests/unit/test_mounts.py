"""A run's folder on a file system that other machines share: told, and kept from memory that they could not share."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from tunesift import Local, Message, Record, Run, RunLocked, Score, Settings
from tunesift.running import mounts
from tunesift.running.mounts import shared_kind


@dataclass(frozen=True, kw_only=True)
class Length(Settings):
    """A number for each record."""

    returns: ClassVar[type] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score]:
        return [Score(float(len(r.response))) for r in chunk]


RECORDS = [Record(f"r{n}", (Message("user", "say"), Message("assistant", "a" * n))) for n in range(9)]


@pytest.fixture
def share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the table of mounts calls a network file system."""
    said = tmp_path / "mounts"
    place = str(tmp_path / "a share").replace(" ", "\\040")
    said.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/data {place} nfs4 rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", said)
    return tmp_path / "a share"


def test_the_innermost_mount_decides(share: Path, tmp_path: Path) -> None:
    assert shared_kind(share / "deep" / "run") == "nfs4"
    assert shared_kind(tmp_path / "a share elsewhere") == ""
    with (tmp_path / "mounts").open("a") as file:
        file.write(f"tmpfs {tmp_path}/a\\040share/local tmpfs rw 0 0\nx {tmp_path}/s fuse.sshfs rw 0 0\n")
    assert shared_kind(share / "local" / "run") == ""
    assert shared_kind(tmp_path / "s") == "fuse.sshfs"
    with (tmp_path / "mounts").open("a") as file:
        file.write(f"tmpfs {tmp_path}/s tmpfs rw 0 0\n")
    assert shared_kind(tmp_path / "s") == "", "of two on one place the later one is what is seen there"


@pytest.mark.parametrize("name", [b"\xe4", "a\u2028b".encode(), b"a\rb"], ids=["no text", "two lines", "a return"])
def test_a_mount_of_any_name_is_found_and_hides_no_other(share: Path, tmp_path: Path, name: bytes) -> None:
    with (tmp_path / "mounts").open("ab") as file:
        file.write(b"x %b/%b cifs rw 0 0\n" % (os.fsencode(tmp_path), name))
    assert shared_kind(tmp_path / os.fsdecode(name) / "run") == "cifs"
    assert shared_kind(share) == "nfs4"


def test_where_no_mounts_can_be_read_nothing_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "missing")
    assert shared_kind(tmp_path) == ""


def test_a_run_on_a_share_warns_and_maps_no_memory_and_keeps_others_out(
    share: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Run(share / "run", Local()) as run:
        assert "lies on nfs4" in caplog.text
        assert len(run.map("length", Length(), RECORDS).good()) == 9
        assert (share / "run" / "state.db-wal").exists()
        assert not (share / "run" / "state.db-shm").exists()
        with (
            closing(sqlite3.connect(share / "run" / "state.db", timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("SELECT * FROM result")
        run.finish(None, [])
    with Run(share / "run", Local()) as run:
        assert len(run.map("length", Length(), RECORDS).good()) == 9


def test_a_run_on_a_local_disk_shares_its_memory_with_those_who_look(tmp_path: Path) -> None:
    with Run(tmp_path / "run", Local()) as run:
        run.map("length", Length(), RECORDS)
        assert (tmp_path / "run" / "state.db-shm").exists()


SECOND = """
import sys
from pathlib import Path
from tunesift import Local, Run
with Run(Path(sys.argv[1]), Local()):
    print("in")
"""


def test_a_run_whose_lock_is_taken_away_stops_before_it_writes_beside_another(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    second: list[subprocess.CompletedProcess[str]] = []

    @dataclass(frozen=True, kw_only=True)
    class Remove(Settings):
        """Takes the lock away, and lets a second process in, while the third record is worked on."""

        returns: ClassVar[type] = Score

        def __call__(self, chunk: Sequence[Record], /) -> list[Score]:
            if chunk[0].id == "r3":
                (folder / "LOCK").unlink()
                command = [sys.executable, "-c", SECOND, str(folder)]
                second.append(subprocess.run(command, capture_output=True, text=True, timeout=60, check=False))
            return [Score(1.0) for _ in chunk]

    removed = pytest.raises(RunLocked, match=r"LOCK: was removed or replaced while this run went on")
    with removed, Run(folder, Local(chunk=1)) as run:
        run.map("remove", Remove(), RECORDS)
    assert second[0].stdout == "in\n", "the fault did not happen"
    with Run(folder, Local(chunk=1)) as run:
        assert len(run.map("remove", Remove(), RECORDS[:3]).good()) == 3
        assert len(run._journal.opened("remove")) == 3
