"""How much memory does the driver of a whole `select` run need per row, from the input to the report?

    python benchmarks/selecting.py [--rows 10000 1000000] [--smoke]

Rows of about 60 bytes are scored by a scripted student, so that what is measured is the driver: one process per size,
the largest of its own memory (what the kernel could not take back), and the slope between the smallest and the largest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "selecting.json"


class Memory(threading.Thread):
    """Watches the memory that is the process's own."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.own = 0

    def run(self) -> None:
        status = Path("/proc/self/status")
        while True:
            line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
            self.own = max(self.own, int(line.split()[1]) * 1024)
            time.sleep(0.05)


def child(folder: Path, rows: int) -> dict[str, object]:
    """One run, in this process."""
    from tunesift import load_recipe, run_recipe

    memory = Memory()
    memory.start()
    with (folder / "in.jsonl").open("w") as file:
        file.writelines(f'{{"instruction": "Say {n}.", "output": "{n * 7919 % 9973} it is"}}\n' for n in range(rows))
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"input: {folder}/in.jsonl\noutput: {folder}/out.jsonl\nexecution: {{kind: local, chunk: 4096}}\n"
        "method: {kind: select, scorer: {kind: ifd, student: {kind: scripted}, template: bare},\n"
        "         keep: {kind: largest, fraction: 0.1}}\n"
    )
    began = time.monotonic()
    summary = run_recipe(load_recipe(recipe))
    return {"rows": rows, "kept": summary.counts["kept"], "seconds": round(time.monotonic() - began, 1),
            "own_memory_mb": round(memory.own / 1e6, 1)}  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rows", type=int, nargs="*", default=[10_000, 1_000_000])
    words.add_argument("--smoke", action="store_true", help="2,000 and 4,000 rows, and nothing is written down")
    words.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    said = words.parse_args()
    if said.child:
        print(json.dumps(child(said.child, said.rows[0])))
        return
    found = []
    for rows in [2000, 4000] if said.smoke else said.rows:
        with tempfile.TemporaryDirectory() as home:
            command = [sys.executable, __file__, "--child", home, "--rows", str(rows)]
            found.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
    slope = 1e6 * (found[-1]["own_memory_mb"] - found[0]["own_memory_mb"]) / (found[-1]["rows"] - found[0]["rows"])
    machine = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version()}
    result = {**machine, "runs": found, "bytes_per_row": round(slope)}
    print(json.dumps(result, indent=1))
    if not said.smoke:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
