"""The runs that faults are tried on: their input, and the command line of one life of each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from faultserver.client import FaultServer, serving
from tunesift.running.ledger import read_spent

if TYPE_CHECKING:
    from harness.kill import Command

SCRIPTS = Path(__file__).parent

SELECT = (
    "select",
    "input.jsonl",
    "-o",
    "output.jsonl",
    "scorer.student.kind=scripted",
    "folder=run",
    "keep=40%",
    "-q",
    "--yes",
)
"""What a user would type, and type again after each fault."""


def make_records(home: Path, count: int) -> None:
    """A folder with a file of records; the first word of each response names the record."""
    home.mkdir(exist_ok=True)
    rows = [
        {"id": f"k{n}", "instruction": f"Name river {n}, and say it {n % 9} times.", "input": "",
         "output": f"k{n} {f'River {n % 7}. ' * (1 + n % 9)}", "note": n}
        for n in range(count)
    ]  # fmt: skip
    (home / "input.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def page_command(slots: int, chunk: int) -> Command:
    """A page in rounds, on threads or in chunks."""
    return lambda home, name: [sys.executable, str(SCRIPTS / "page.py"), str(home), name, str(slots), str(chunk)]


def select_command(chunk: int, part_rows: int = 64, call_s: float = 0.004) -> Command:
    """`tunesift select`."""
    words = [*SELECT, f"execution.chunk={chunk}"]
    script = str(SCRIPTS / "logged_select.py")
    return lambda home, name: [sys.executable, script, str(home), name, str(part_rows), str(call_s), *words]


def ask_command(port: int) -> Command:
    """A page that asks an endpoint."""
    return lambda home, name: [sys.executable, str(SCRIPTS / "asker.py"), str(home), name, str(port)]


def make_asked(home: Path, count: int, url: str) -> None:
    """Records, and a recipe whose model answers at this address; it chats about each record, and twice about most."""
    make_records(home, count)
    student = {"kind": "http", "url": url, "model": "student", "concurrency": 8, "timeout_s": 30.0}
    recipe = {"input": "input.jsonl", "output": "output.jsonl", "folder": "run", "max_failures": 1.0,
              "method": {"kind": "clear", "student": student, "max_tokens": 40}}  # fmt: skip
    (home / "recipe.yaml").write_text(json.dumps(recipe))


@contextmanager
def answering(place: Path) -> Iterator[FaultServer]:
    """An endpoint that takes twenty milliseconds for each answer, so that calls are in flight when a kill comes."""
    with serving(place, {"do": [{"delay": 0.02}]}) as server:
        yield server


def check_books(place: Path, server: FaultServer) -> tuple[int, int, int]:
    """Tokens by our books, by the server's bill, and most by our books, over all runs below a place.

    Raises `AssertionError` where the bill is not between ours.
    """
    spent = [s for folder in sorted(place.glob("*/run")) for s in read_spent(folder)]
    exact = sum(s.exact_prompt + s.exact_completion for s in spent)
    most = exact + sum(s.unknown_tokens for s in spent)
    bill = server.bill()
    billed = int(bill["prompt_tokens"] + bill["completion_tokens"])
    assert exact <= billed <= most, (exact, billed, most)
    return exact, billed, most


def http_command(home: Path, name: str) -> list[str]:
    """`tunesift run` on that recipe."""
    script = str(SCRIPTS / "logged_http.py")
    return [sys.executable, script, str(home), name, "run", "recipe.yaml", "-q", "--yes"]


def wordy_command(home: Path, name: str) -> list[str]:
    """A page whose answers take room."""
    return [sys.executable, str(SCRIPTS / "wordy.py"), str(home), name]


RUNS_THAT_FILL = {"wordy": wordy_command, "select": select_command(16)}
