"""How fast is the journal, how long does it take to reopen a long run, and what does the driver hold?

    python benchmarks/journal.py [--rows 1000000] [--smoke]

Makes a data set of records of about 1 KB, walks it through a step that does next to nothing, kills the process when
nine tenths are done, and starts again: rows per second written, seconds from the start to the first new row, memory
that is each life's own: pages of the mapped data set, which the kernel may take back, are not counted. One process per
life, each in a control group of 2 GB where this machine lets us make one. Then the whole folder is verified.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from tunesift import Local, Message, Record, Run, Score, Settings
from tunesift.datasets import DatasetWriter, Source, open_dataset, refuse_twins
from tunesift.running.database import FORMAT
from tunesift.running.fsio import write_json
from tunesift.running.mending import verify

RESULTS = Path(__file__).parent / "results" / "journal.json"
CHUNK = 4096
"""Rows of one commit; a step on local weights has 64, and takes seconds for them."""
LIMIT = 2_000_000_000
"""Bytes of memory that a life may have."""
BODY = "word " * 200


@dataclass(frozen=True, kw_only=True)
class Length(Settings):
    """Length of the response, in characters."""

    returns: ClassVar[type[Score]] = Score
    began: ClassVar[float] = 0.0
    die_at: ClassVar[str] = ""

    def __call__(self, chunk: Sequence[Record], /) -> list[Score]:
        if not Length.began:
            Length.began = time.monotonic()
        if any(record.id == Length.die_at for record in chunk):
            say(began=Length.began, work_s=time.monotonic() - Length.began)
            os.kill(os.getpid(), signal.SIGKILL)
        return [Score(float(len(record.response))) for record in chunk]


class Memory(threading.Thread):
    """Watches the memory that is the process's own, which the kernel could not take back."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = 0

    def run(self) -> None:
        status = Path("/proc/self/status")
        while True:
            line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
            self.own = max(self.own, int(line.split()[1]) * 1024)
            time.sleep(0.1)


memory = Memory()


def say(**fields: float) -> None:
    print(json.dumps({**fields, "own_gb": memory.own / 1e9}), flush=True)


@contextmanager
def two_gigabytes() -> Iterator[Callable[[], None] | None]:
    """What puts a new process into a control group of 2 GB; None where none can be made."""
    line = next((g for g in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in g), "")
    group = Path("/sys/fs/cgroup/memory") / line.rpartition(":")[2].lstrip("/") / f"journal-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT))
    except OSError:
        yield None
        return
    try:
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None
    finally:
        group.rmdir()


def life(folder: Path, rows: int, die_at: int) -> None:
    """One life of the run: until it kills itself, or to its end."""
    source = Source("made", "alpaca", "", 0, rows)
    data = open_dataset(folder / "data", Record, source)
    Length.die_at = f"r{die_at}" if die_at < rows else ""
    with Run(folder / "run", Local(chunk=CHUNK)) as run:
        found = run.map("length", Length(), data)
        done = time.monotonic()
        assert len(found) == rows
        assert found[f"r{rows - 1}"] == Score(float(len(BODY) + len(str(rows - 1))))
    say(began=Length.began, work_s=done - Length.began)


def made(folder: Path, rows: int) -> None:
    """A data set on disk, as reading a file makes it."""
    folder.mkdir()
    writer = DatasetWriter(folder)
    for number, record in enumerate(records(rows), start=1):
        writer.add(record, number)
    writer.finish(Record, refuse_twins)


def records(rows: int) -> Iterator[Record]:
    for n in range(rows):
        yield Record(f"r{n}", (Message("user", f"Say it {n} times."), Message("assistant", f"{BODY}{n}")))


def child(folder: Path, rows: int, die_at: int) -> dict[str, float]:
    words = [sys.executable, __file__, "--life", str(folder), "--rows", str(rows), "--die-at", str(die_at)]
    spawned = time.monotonic()  # a clock that all processes of a machine share
    with two_gigabytes() as enter:
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, preexec_fn=enter)
    assert done.returncode == (-signal.SIGKILL if die_at < rows else 0), done.returncode
    told: dict[str, float] = json.loads(done.stdout)
    return {**told, "first_row_s": told["began"] - spawned, "limited": float(enter is not None)}


def measure(rows: int) -> dict[str, object]:
    """Both lives of a run over so many rows."""
    with tempfile.TemporaryDirectory() as home:
        began = time.monotonic()
        made(Path(home) / "data", rows)
        made_s = time.monotonic() - began
        killed = child(Path(home), rows, die_at=rows * 9 // 10)
        resumed = child(Path(home), rows, die_at=rows)
        size = sum(p.stat().st_size for p in (Path(home) / "run").rglob("*") if p.is_file())
        write_json(Path(home) / "run" / "run.json", {"format": FORMAT})
        began = time.monotonic()
        assert verify(Path(home) / "run") == []
        verify_s = time.monotonic() - began
        done = rows * 9 // 10 // CHUNK * CHUNK
        return {
            "rows": rows, "made_s": round(made_s, 1), "rows_per_s": round(done / killed["work_s"]),
            "reopened_s": round(resumed["first_row_s"], 2), "own_memory_gb": round(killed["own_gb"], 3),
            "resumed_own_memory_gb": round(resumed["own_gb"], 3),
            "limit_gb": LIMIT / 1e9 if killed["limited"] else None, "run_folder_bytes_per_row": round(size / rows),
            "verify_s": round(verify_s, 1),
        }  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rows", type=int, nargs="*", default=[1_000_000, 10_000_000], help="other sizes' figures stay")
    words.add_argument("--smoke", action="store_true", help="20,000 rows, and nothing is written down")
    words.add_argument("--life", type=Path, help=argparse.SUPPRESS)
    words.add_argument("--die-at", type=int, default=0, help=argparse.SUPPRESS)
    said = words.parse_args()
    if said.life:
        memory.start()
        life(said.life, said.rows[0], said.die_at)
        return
    found = [measure(rows) for rows in ([20_000] if said.smoke else said.rows)]
    machine = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version()}
    earlier = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    others = [run for run in earlier if run["rows"] not in {measured["rows"] for measured in found}]
    runs = sorted([*([] if said.smoke else others), *found], key=lambda run: run["rows"])
    result = {**machine, "chunk": CHUNK, "runs": runs}
    print(json.dumps(result, indent=1))
    if not said.smoke:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
