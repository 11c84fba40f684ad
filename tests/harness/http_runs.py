"""A run that kills are tried on: a recipe whose model is behind an endpoint, with the bill that the endpoint writes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faultserver.client import FaultServer, serving
from harness.runs import SCRIPTS, make_records
from tunesift.running.ledger import read_spent


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
