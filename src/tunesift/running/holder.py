"""Who writes a run folder? What a start that comes second is told."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

PATIENCE_S = 1.8
"""Longest wait for a name: the first has the lock before it has written who it is, perhaps over a dead one's name."""


def told_holder(folder: Path) -> str:
    """One sentence on who writes this locked folder; a process that is dead is not taken for the one that does."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            who = json.loads((folder / "holder.json").read_text("utf-8"))
            if who["host"] != socket.gethostname() or _is_alive(who["pid"]):
                return f"{folder} is being written by process {who['pid']} on {who['host']} since {who['since']}."
        except (OSError, ValueError, KeyError):
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
