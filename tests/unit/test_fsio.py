"""What the disk says, in a sentence: is it full, or is it broken?"""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

import pytest

from tunesift import StorageError
from tunesift.errors import DiskFull
from tunesift.running import fsio
from tunesift.running.fsio import storage_errors


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    return error


def told(error: Exception, place: Path) -> StorageError:
    with pytest.raises(StorageError) as refusal, storage_errors(place):
        raise error
    assert str(refusal.value).startswith(f"{place}: ")
    return refusal.value


IOERR_SHMSIZE = sqlite3.SQLITE_IOERR | 19 << 8


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (sqlite_error(sqlite3.SQLITE_FULL), True), (sqlite_error(sqlite3.SQLITE_CORRUPT), False),
        (OSError(errno.ENOSPC, "no"), True), (OSError(errno.EDQUOT, "no"), True), (OSError(errno.EFBIG, "no"), True),
        (OSError(errno.EIO, "no"), False), (sqlite3.OperationalError("without a code"), False),
        (sqlite_error(IOERR_SHMSIZE), False),
    ],
    ids=repr,
)  # fmt: skip
def test_a_full_disk_is_told_from_a_broken_one(tmp_path: Path, error: Exception, full: bool) -> None:
    assert isinstance(told(error, tmp_path), DiskFull) == full


def test_a_disk_that_fails_with_no_room_left_is_a_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsio, "NO_ROOM_BYTES", 2**62)  # more than any disk has free
    assert isinstance(told(sqlite_error(IOERR_SHMSIZE), tmp_path / "not" / "there" / "yet"), DiskFull)
    assert not isinstance(told(sqlite_error(sqlite3.SQLITE_CORRUPT), tmp_path), DiskFull)
