"""A run that meets one fault of the matrix after another, and says all it can: `canary.py FOLDER URL ROUTE ROWS`.

Its clock runs fast, so that hours of pauses pass in a moment. Everything it logs goes to standard error, its outcomes
and its own listening sockets to standard output, its journal and its books into the folder.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from faultserver.fixtures import FastClock
from tunesift import Completion, Failure, HttpModel, Local, Message, Run, Sampling, Settings, Span, TargetLoss
from tunesift.books import SHELF
from tunesift.budget import Caps
from tunesift.errors import TunesiftError
from tunesift.models import endpoint
from tunesift.running.ledger import Ledger


@dataclass(frozen=True)
class Question:
    """An item: the number of its row."""

    id: str


@dataclass(frozen=True, kw_only=True)
class Ask(Settings):
    """Chats about each item, or draws four times, or takes the loss of it."""

    model: HttpModel
    route: str
    returns: ClassVar[type[str]] = str

    def __call__(self, chunk: Sequence[Question], /) -> list[str | Failure]:
        return [self._said(item.id) for item in chunk]

    def _said(self, row: str) -> str | Failure:
        made: object
        if self.route == "completion":
            (made,) = self.model.loss([Span(f"row={row} é ", "target")])
        elif self.route == "draws":
            (made,) = self.model.draws([[Message("user", f"row={row} é")]], Sampling(temperature=1.0), 4)
        else:
            (made,) = self.model.chat([[Message("user", f"row={row} é")]], Sampling())
        assert isinstance(made, Failure | TargetLoss | Completion | tuple)
        return made if isinstance(made, Failure) else repr(made)


def listening() -> list[str]:
    """Sockets of this process that wait for connections."""
    own = {link.readlink().name for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    found = []
    for name in ("tcp", "tcp6"):
        table = Path(f"/proc/self/net/{name}")
        for line in table.read_text("ascii").splitlines()[1:] if table.exists() else []:
            parts = line.split()
            found += [parts[1]] if parts[3] == "0A" and f"socket:[{parts[9]}]" in own else []
    return found


def main(folder: Path, url: str, route: str, rows: list[int], tokenizer: str) -> None:
    logging.basicConfig(stream=sys.stderr)
    logging.getLogger("tunesift").setLevel(logging.DEBUG)
    endpoint.CLOCK = FastClock()
    model = HttpModel(url=url, model="canary", key_env="CANARY_KEY", timeout_s=1.0, concurrency=4, tokenizer=tokenizer,
                      stream=route == "stream")  # fmt: skip
    with (
        Run(folder, Local(), max_failures=1.0) as run,
        closing(Ledger(folder, Caps(), {})) as ledger,
        SHELF.keeping(ledger),
    ):
        made = run.map("ask", Ask(model=model, route=route), [Question(str(row)) for row in rows])
        print(json.dumps({id: str(made[id]) for id in made}))
        print(f"listening: {listening()}")
        run.finish(None, [])


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4]), sys.argv[5])
    except TunesiftError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
