"""What benchmarks of whole runs share: a recipe in a process of its own, its time and memory, and where results go."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesift import Recipe, Summary

HERE = Path(__file__).resolve().parent


def own_mb() -> float:
    """Memory of this process that is not a file's, in megabytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


class Peak(threading.Thread):
    """Looks at the memory of this process until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = 0.0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.most = max(self.most, own_mb())


def ran(recipe: Recipe) -> tuple[Summary, dict[str, float]]:
    """What a recipe came to in this process, its seconds, and the peak of its memory beyond what it had before."""
    from tunesift import run_recipe

    before, peak = own_mb(), Peak()
    peak.start()
    began = time.perf_counter()
    summary = run_recipe(recipe)
    seconds = time.perf_counter() - began
    peak.over.set()
    return summary, {"seconds": seconds, "memory_mb": round(peak.most - before, 1)}


def child(script: str, *words: str) -> dict[str, Any]:
    """What a benchmark says of itself when it is started with these words, in a process of its own."""
    done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout))


def here() -> dict[str, Any]:
    """The command, whose data lie elsewhere on every machine, and what it was run on."""
    words = ["DATA" if before == "--data" else word for before, word in zip(["", *sys.argv], sys.argv, strict=False)]
    return {"command": " ".join(["python", *words]), "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} processors"}  # fmt: skip


def bytes_a_row(fewer: dict[str, Any], more: dict[str, Any]) -> int:
    """How much more memory a run took for each row that it had more, in bytes."""
    return round((more["memory_mb"] - fewer["memory_mb"]) * 2**20 / (more["rows"] - fewer["rows"]))


def told(result: dict[str, Any], name: str, smoke: bool) -> None:
    """Print a result, and write it down where it is no mere trial."""
    print(json.dumps(result, indent=1))
    if not smoke:
        (HERE / "results" / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
