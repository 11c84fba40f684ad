"""A page in rounds, each of which draws on what the one before it found; every item it works on is logged."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from tunesift import (
    Dataset,
    Decision,
    Failure,
    Local,
    Message,
    Record,
    Run,
    Score,
    ScriptedModel,
    Settings,
    read_dataset,
    write_records,
)
from tunesift.records import content_digest
from tunesift.running import journal

journal.PART_ROWS = 16
home, name, slots, chunk = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
log = os.open(home.parent / "work.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


@cache
def up() -> None:
    """Say once that work has begun."""
    print("up", flush=True)


@dataclass(frozen=True, kw_only=True)
class Measure(Settings):
    """A number from each item's content; a few are refused."""

    student: ScriptedModel
    returns: ClassVar[type] = Score

    def __call__(self, items: Sequence[Record], /) -> list[Score | Failure]:
        up()
        os.write(log, "".join(f"{name} {item.id}\n" for item in items).encode())
        time.sleep(sum(content_digest(item.id)[0] for item in items) / 255 * 0.004)
        return [self.one(content_digest(item)) for item in items]

    def one(self, digest: bytes) -> Score | Failure:
        return Failure("refused", digest.hex()) if digest[1] < 12 else Score(digest[2] / 255, {"first": digest[3] / 7})


def page(data: Dataset[Record], run: Run) -> list[Decision]:
    """Measure, draft, judge, three times over."""
    step, weight, decisions = Measure(student=ScriptedModel(concurrency=slots)), 0.0, []
    for number, part in enumerate(data.batches(100)):
        found = run.map("measure", step, part)
        picked = run.random("draft", number).sample(list(found.good()), 20)
        drafts = [Record(f"{id}~draft", (Message("user", f"{id} {weight!r}"),)) for id in picked]
        judged = run.map("judge", step, drafts).good()
        weight += sum(score.value or 0.0 for score in judged.values()) + run.random("noise", number).random()
        run.table("weights", [{"round": number, "weight": weight}])
        for id in found:
            score = found[id]
            won = isinstance(score, Score) and (score.value or 0.0) > 0.5
            decisions.append(Decision(id, "keep" if won else "drop", f"measured: {score}, weight {weight!r}"))
    return decisions


data = read_dataset(home / "input.jsonl")
with Run(home / "run", Local(chunk=chunk), seed=3, max_failures=1.0) as run:
    decisions = page(data, run)
    up()
    run.finish(data, decisions)
    write_records(data.only({d.record_id for d in decisions if d.action == "keep"}), home / "output.jsonl", data)
