"""Who writes this folder? One process, held to it by a lock that the kernel frees when the process is gone."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import filelock

from tunesift.errors import CannotCreate, RunLocked, StorageError
from tunesift.running.fsio import jot, make_folder, read_json, refuse_link

PATIENCE_S = 1.8
"""Longest wait for a name: the first has the lock before it has written who it is, perhaps over a dead one's name."""


def lock(folder: Path) -> filelock.BaseFileLock:
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
    return held


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
        try:
            who = read_json(folder / "holder.json")
            if who["host"] != socket.gethostname() or _is_alive(who["pid"]):
                return f"{folder} is being written by process {who['pid']} on {who['host']} since {who['since']}."
        except (StorageError, KeyError):
            pass  # it is not written yet
        time.sleep(0.05)
    return f"{folder} is being written by another process; wait, or stop it."


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    return True
