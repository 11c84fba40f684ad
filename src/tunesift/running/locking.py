"""Who writes this folder? One process, held to it by a lock that the kernel frees when the process is gone."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import filelock

from tunesift.errors import CannotCreate, RunLocked, StorageError
from tunesift.running.fsio import jot, make_folder, read_json, refuse_link, storage_errors

PATIENCE_S = 1.8
"""Longest wait for a name: the first has the lock before it has written who it is, perhaps over a dead one's name."""


class Hold:
    """A folder that is ours, as long as its lock lies where we took it."""

    def __init__(self, folder: Path, held: filelock.BaseFileLock) -> None:
        self._folder, self._held = folder, held
        self._taken = self._file()

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let others have it."""
        self._held.release()

    def check(self) -> None:
        """Raise `RunLocked` where somebody took the lock away, so that another may be writing the folder by now."""
        if self._file() != self._taken:
            path = self._folder / "LOCK"
            raise RunLocked(f"{path}: was removed or replaced while this run went on, so that another may write the "
                            "folder; see that none does, and start the same command again.")  # fmt: skip

    def _file(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self._folder / "LOCK")
        except OSError:
            return None
        return found.st_dev, found.st_ino


def lock(folder: Path) -> Hold:
    """Take a run's folder, made where it is missing; raises `RunLocked`, naming who holds it, or `CannotCreate`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        make_folder(folder)
        refuse_link(folder / "LOCK")
        held = filelock.FileLock(folder / "LOCK", timeout=0, mode=0o600)
        held.acquire()
    except filelock.Timeout:
        raise RunLocked(_held(folder)) from None
    except OSError as error:
        raise CannotCreate(f"{folder}: cannot be written ({error.strerror}); use another folder.") from error
    return Hold(folder, held)


@contextmanager
def looked_at(folder: Path) -> Iterator[None]:
    """Keep others from writing a folder, without writing to it; raises `RunLocked` where somebody does."""
    path = folder / "LOCK"
    refuse_link(path)
    if not path.exists():  # nobody has ever written the folder, or it is a copy without its lock
        yield
        return
    with storage_errors(path), ExitStack() as opening:
        file = opening.enter_context(path.open("rb"))
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunLocked(_held(folder)) from None
        looking = opening.pop_all()
    with looking:
        yield


def is_written(folder: Path) -> bool:
    """Whether somebody may be writing a folder, as far as it says who did last."""
    return _holder(folder) is not None


def sign(folder: Path) -> None:
    """Say who holds the lock, for the message to whoever comes second."""
    jot(folder / "holder.json", {"pid": os.getpid(), "host": socket.gethostname(), "since": now()})


def now() -> str:
    """The time of day, for people; nothing is decided by it."""
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _held(folder: Path) -> str:
    """One sentence on who writes this folder; a process that is dead is not taken for the one that does."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if who := _holder(folder):
            return f"{folder} is being written by process {who['pid']} on {who['host']} since {who['since']}."
        time.sleep(0.05)
    return f"{folder} is being written by another process; wait, or stop it."


def _holder(folder: Path) -> Mapping[str, Any] | None:  # Any: holder.json
    """Who signed a folder last; None where nobody has yet, or a process that is dead by now."""
    try:
        who = read_json(folder / "holder.json")
        return who if who["host"] != socket.gethostname() or _is_alive(who["pid"]) else None
    except (StorageError, KeyError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    return True
