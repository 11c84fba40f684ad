"""A page whose answers take room, four at a time: HOME LIFE. Every answer is logged beside the home."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tunesift import (
    Decision,
    Local,
    Record,
    Run,
    ScriptedModel,
    Settings,
    TunesiftError,
    read_dataset,
    write_records,
)
from tunesift.running import fsio, journal

journal.PART_ROWS = 32
fsio.RESERVE_BYTES = 2**20
home, name = Path(sys.argv[1]), sys.argv[2]
log = os.open(home.parent / "work.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


@dataclass(frozen=True, kw_only=True)
class Tell(Settings):
    """Twelve thousand letters that no packing makes much smaller."""

    student: ScriptedModel = ScriptedModel(concurrency=4)
    returns: ClassVar[type] = str

    def __call__(self, chunk: Sequence[Record], /) -> list[str]:
        os.write(log, "".join(f"{name} {record.id}\n" for record in chunk).encode())
        return [hashlib.shake_256(record.id.encode()).hexdigest(6000) for record in chunk]


try:
    data = read_dataset(home / "input.jsonl")
    with Run(home / "run", Local()) as run:
        found = run.map("tell", Tell(), data)
        run.finish(data, [Decision(id, "keep", f"told: {str(found[id])[:9]}") for id in found])
        write_records(data, home / "output.jsonl", data)
except TunesiftError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
