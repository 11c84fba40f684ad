"""How long do the selectors of few take, and how much memory, by the number of candidates?

    python benchmarks/diversity.py [--rows 10400 20000 100000] [--smoke]

Vectors of 384 numbers, of length 1, around 200 centres; a fiftieth of them is chosen by facility location and by
k-centre, each in a process of its own whose peak memory is told: all of it, and beyond what it held before it began.
The last line is near-duplicates by MinHash among as many texts of 60 words, a fifth of them changed copies of others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tunesift import Dataset, Distinct, Message, Pool, Record
from tunesift.scoring.diversity import k_centre, spread_out

RESULTS = Path(__file__).parent / "results" / "diversity.json"
WIDTH = 384


def vectors(rows: int) -> np.ndarray:
    """Points of length 1 around 200 centres, in float32 as embeddings are."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, WIDTH)).astype(np.float32)
    found = centres[rng.integers(0, 200, rows)] + rng.normal(size=(rows, WIDTH)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def texts(rows: int) -> Dataset[Record]:
    rng = random.Random(0)
    words = [f"w{n}" for n in range(5000)]
    said: list[list[str]] = []
    for n in range(rows):
        text = list(rng.choice(said)) if n % 5 == 4 else rng.choices(words, k=60)
        if n % 5 == 4:
            text[rng.randrange(60)] = "changed"
        said.append(text)
    return Dataset.of(
        Record(f"r{n}", (Message("user", "Say."), Message("assistant", " ".join(t)))) for n, t in enumerate(said)
    )


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(what: str, rows: int) -> dict[str, object]:
    """One measurement, in this process."""
    if what == "minhash":
        data = texts(rows)
        before, began = peak(), time.monotonic()
        chosen = sum(d.action == "keep" for d in Distinct()(Pool(data, {}, {}, "", random.Random(0))))
    else:
        points = vectors(rows)
        before, began = peak(), time.monotonic()
        chosen = len((spread_out if what == "facility-location" else k_centre)(points, rows // 50))
    seconds = time.monotonic() - began
    return {
        "what": what, "rows": rows, "chosen": chosen, "seconds": round(seconds, 1),
        "peak_gb": round(peak() / 1e9, 3), "beyond_start_gb": round((peak() - before) / 1e9, 3),
    }  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rows", type=int, nargs="*", default=[10_400, 20_000, 100_000])
    words.add_argument("--smoke", action="store_true", help="500 rows, and nothing is written down")
    words.add_argument("--child", help=argparse.SUPPRESS)
    said = words.parse_args()
    if said.child:
        print(json.dumps(child(said.child, said.rows[0])))
        return
    found = []
    for rows in [500] if said.smoke else said.rows:
        for what in ("minhash", "k-centre", "facility-location"):
            command = [sys.executable, __file__, "--child", what, "--rows", str(rows)]
            found.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
            print(json.dumps(found[-1]), flush=True)
    if not said.smoke:
        machine = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "numpy": np.__version__, "width": WIDTH}
        RESULTS.write_text(json.dumps({**machine, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
