"""Kill a command once it has come so far."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path


def finished_items(run: Path) -> int:
    """Outcomes that the journal of a run holds; 0 before it is there."""
    try:
        with closing(sqlite3.connect(f"file:{run / 'state.db'}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT (SELECT count(*) FROM result) + (SELECT coalesce(sum(rows), 0) FROM part)")
                       .fetchone()[0])  # fmt: skip
    except sqlite3.OperationalError:
        return 0


def killed(words: Sequence[str], run: Path, after: int) -> bool:
    """Start a life and kill it once it has finished so many more items; False where it ended before."""
    before = finished_items(run)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as life:
        while life.poll() is None and finished_items(run) < before + after:
            time.sleep(0.005)
        if life.poll() is None:
            os.killpg(life.pid, signal.SIGKILL)
        life.communicate(timeout=60)
    return life.returncode == -signal.SIGKILL
