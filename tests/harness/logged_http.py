"""The command line on a real model behind an endpoint, with a log of each call that it begins: HOME LIFE WORD...

A call is known by what is asked and how often; it is logged before it is sent.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tunesift import HttpModel, Message, Sampling
from tunesift.cli import main
from tunesift.running import fsio, journal

home, name = Path(sys.argv[1]), sys.argv[2]
log = os.open(home.parent / "work.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
plain = HttpModel.draws


@cache
def up() -> None:
    """Say once that work has begun."""
    print("up", flush=True)


def logged(self: HttpModel, conversations: Sequence[Sequence[Message]], sampling: Sampling, count: int) -> Any:
    """What the model draws, with a line in the log for each call."""
    up()
    asked = [hashlib.sha256(repr((list(c), sampling, count)).encode()).hexdigest()[:16] for c in conversations]
    os.write(log, "".join(f"{name} {call}\n" for call in asked).encode())
    return plain(self, conversations, sampling, count)


HttpModel.draws = logged  # type: ignore[method-assign]
fsio.RESERVE_BYTES = 2**20
journal.PART_ROWS = 32
os.chdir(home)
sys.argv = ["tunesift", *sys.argv[3:]]
main()
