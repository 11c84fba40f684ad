"""The runs that faults are tried on: their input, and the command line of one life of each."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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


def wordy_command(home: Path, name: str) -> list[str]:
    """A page whose answers take room."""
    return [sys.executable, str(SCRIPTS / "wordy.py"), str(home), name]


RUNS_THAT_FILL = {"wordy": wordy_command, "select": select_command(16)}
