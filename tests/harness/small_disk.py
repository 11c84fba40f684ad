"""A run on a disk that fills up, then on the same disk with more room: PLACE RUN RECORDS KILOBYTES...

To be started in a mount namespace of its own (`unshare -m`), so that whatever happens no disk is left mounted. Prints a
JSON list with what happened at each size.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kill import begun_by_life, result
from runs import RUNS_THAT_FILL, make_records

place, run, records = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
command = RUNS_THAT_FILL[run]
home, log = place / "home", place / "work.log"
home.mkdir()


def sh(*words: str) -> None:
    """A command that must succeed."""
    subprocess.run(words, check=True, capture_output=True)


def life(name: str) -> dict[str, object]:
    """One life: its exit code, what it said, and how long it went on after its last answer."""
    done = subprocess.run(command(home, name), capture_output=True, text=True, timeout=60)
    late = time.time() - log.stat().st_mtime if log.exists() else 0.0
    return {"code": done.returncode, "said": done.stderr, "late_s": late}


@contextmanager
def disk(kilobytes: int) -> Iterator[None]:
    """A disk of this size in the place of the home, with the input on it."""
    sh("mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(home))
    try:
        make_records(home, records)
        yield
    finally:
        sh("umount", str(home))


def lives(kilobytes: int) -> dict[str, object]:
    """A life on a disk of this size, then one with room, and what each of them asked for."""
    with disk(kilobytes):
        first = life(f"{kilobytes}.first")
        sh("mount", "-o", "remount,size=256m", str(home))
        second = life(f"{kilobytes}.second")
        same = second["code"] == 0 and result(home) == expected
    begun = begun_by_life(log)
    ours = [set(begun[f"{kilobytes}.{name}"]) for name in ("first", "second")]
    return {
        "kb": kilobytes,
        **first,
        "then": second,
        "answered": len(ours[0]),
        "again": len(ours[0] & ours[1]),
        "same": same,
    }


with disk(2**18):
    subprocess.run(command(home, "undisturbed"), capture_output=True, text=True, check=True)
    expected = result(home)
print(json.dumps([lives(int(kilobytes)) for kilobytes in sys.argv[4:]]))
