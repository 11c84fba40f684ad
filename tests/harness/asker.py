"""A page that asks an endpoint about each record, several at a time: HOME LIFE PORT."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar

import httpx2

from tunesift import (
    INCIDENTAL,
    Decision,
    Local,
    Record,
    Run,
    Score,
    Settings,
    TunesiftError,
    read_dataset,
    write_records,
)
from tunesift.running import journal
from tunesift.running.stopping import Stop

journal.PART_ROWS = 32
home, name, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
client = httpx2.Client(headers={"x-life": name}, timeout=30, trust_env=False)


@cache
def up() -> None:
    """Say once that work has begun."""
    print("up", flush=True)


@dataclass(frozen=True, kw_only=True)
class Ask(Settings):
    """One request per record, each of them paid."""

    port: Annotated[int, INCIDENTAL]
    concurrency: Annotated[int, INCIDENTAL] = 8
    """Requests at once."""
    returns: ClassVar[type] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score]:
        up()
        return [self.one(record) for record in chunk]

    def one(self, record: Record) -> Score:
        said = client.post(f"http://127.0.0.1:{self.port}/", json={"id": record.id, "text": record.response}).json()
        return Score(said["score"], {"first": said["first"]})


def live(stop: Stop) -> None:
    """One life, from its input to its output."""
    data = read_dataset(home / "input.jsonl")
    with Run(home / "run", Local(), seed=3, stop=stop) as run:
        found = run.map("ask", Ask(port=port), data).good()
        up()
        decisions = [
            Decision(id, "keep" if (score.value or 0.0) > 0.5 else "drop", f"asked: {score.value!r}")
            for id, score in found.items()
        ]
        run.finish(data, decisions)
        write_records(data.only({d.record_id for d in decisions if d.action == "keep"}), home / "output.jsonl", data)


asked_to_stop = Stop()
asked_to_stop.listen()
try:
    live(asked_to_stop)
except TunesiftError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
finally:
    asked_to_stop.deafen()
