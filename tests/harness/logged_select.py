"""The command line as a user types it, with a scripted model that logs each record it begins: HOME LIFE ROWS SECONDS WORD...

Each call of the model takes so many seconds, so that a life has something to be killed in.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tunesift import Failure, ScriptedModel, Span, TargetLoss
from tunesift.cli import main
from tunesift.running import fsio, journal

home, name, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[4])
log = os.open(home.parent / "work.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
plain = ScriptedModel.loss


@cache
def up() -> None:
    """Say once that work has begun."""
    print("up", flush=True)


def logged(self: ScriptedModel, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
    """The model's losses, with a line in the log for each record; its two spans have one target."""
    up()
    os.write(log, "".join(f"{name} {id}\n" for id in dict.fromkeys(s.target.split()[0] for s in spans)).encode())
    time.sleep(seconds)
    return plain(self, spans)


ScriptedModel.loss = logged  # type: ignore[method-assign]
fsio.RESERVE_BYTES = 2**20
journal.PART_ROWS = int(sys.argv[3])
os.chdir(home)
sys.argv = ["tunesift", *sys.argv[5:]]
main()
