"""A page that asks an endpoint about many rows, with its money written down: `python soaked.py FOLDER URL ROWS [TOKENS]`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tunesift import Completion, Failure, HttpModel, Local, Message, Run, Sampling, Settings
from tunesift.books import SHELF
from tunesift.budget import Caps
from tunesift.errors import BudgetSpent
from tunesift.running.ledger import Ledger


@dataclass(frozen=True)
class Question:
    """An item of the run."""

    id: str


@dataclass(frozen=True, kw_only=True)
class Ask(Settings):
    """A step that asks a model about each item."""

    model: HttpModel
    returns: ClassVar[type[Completion]] = Completion

    def __call__(self, chunk: Sequence[Question], /) -> list[Completion | Failure]:
        return self.model.chat([[Message("user", f"row={item.id} what?")] for item in chunk], Sampling(max_tokens=32))


def main(folder: Path, url: str, count: int, cap: int | None) -> None:
    """One life; says what it found when it was done."""
    began = time.monotonic()
    model = HttpModel(url=url, model="soaked", concurrency=64, timeout_s=30.0)
    with (
        Run(folder, Local(), max_failures=1.0) as run,
        closing(Ledger(folder, Caps(tokens=cap), {})) as ledger,
        SHELF.keeping(ledger),
    ):
        made = run.map("ask", Ask(model=model), [Question(str(n)) for n in range(count)])
        good = made.good()
        wrong = [id for id, answer in good.items() if not answer.text.startswith(f"reply to row={id} is ")]
        run.finish(None, [])
    said = {"rows": len(made), "good": len(good), "wrong": len(wrong), "failed": len(made.failures()),
            "seconds": round(time.monotonic() - began, 2)}  # fmt: skip
    print(json.dumps(said))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]) if len(sys.argv) > 4 else None)
    except BudgetSpent:
        sys.exit(BudgetSpent.exit_code)
