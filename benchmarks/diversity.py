"""How long do the selectors of few take, and how much memory, by the number of candidates?

    python benchmarks/diversity.py [--rows 10400 20000 100000] [--what LINE ...] [--smoke]

Vectors of 384 numbers, of length 1, around 200 centres; a fiftieth of them is chosen by facility location and by
k-centre, each in a process of its own whose peak memory is told: all of it, and beyond what it held before it began.
`minhash` is near-duplicates among as many texts of 60 words, a fifth of them changed copies of others. `naive` chooses
20 rows by trying every row at every step over all similarities at once, and tells whether facility location chooses the
same (20,000 rows need 4 GB for that). A line that is measured anew takes the place of the old one in the results.
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

LINES = ("minhash", "k-centre", "facility-location")
FEW = 20
"""Rows that the naive greedy chooses."""
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


def naive(points: np.ndarray) -> dict[str, object]:
    """The definition, step by step, in float64; and what facility location chooses."""
    from scipy.spatial.distance import cdist

    similar = cdist(points.astype(np.float64), points.astype(np.float64))
    np.divide(similar, -WIDTH, out=similar)
    np.exp(similar, out=similar)
    best, chosen, gains = np.zeros(len(points)), [], []
    for _ in range(FEW):
        added = np.array([np.maximum(line - best, 0).sum() for line in similar])  # symmetric: a line is a column
        added[chosen] = -1
        chosen.append(int(added.argmax()))
        gains.append(float(added.max()))
        np.maximum(best, similar[chosen[-1]], out=best)
    found = spread_out(points, FEW)
    apart = max(abs(gain - other) / other for (_, gain), other in zip(found, gains, strict=True))
    return {"same_rows": [row for row, _ in found] == chosen, "gains_apart": float(f"{apart:.1e}")}


def child(what: str, rows: int) -> dict[str, object]:
    """One measurement, in this process."""
    if what == "naive":
        return {"what": what, "rows": rows, "chosen": FEW, **naive(vectors(rows))}
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
        "threads": os.environ.get("OPENBLAS_NUM_THREADS", "all"),
    }  # fmt: skip


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rows", type=int, nargs="*", default=[10_400, 20_000, 100_000])
    words.add_argument("--what", nargs="*", default=LINES, choices=[*LINES, "naive"])
    words.add_argument("--smoke", action="store_true", help="500 rows, and nothing is written down")
    words.add_argument("--child", help=argparse.SUPPRESS)
    said = words.parse_args()
    if said.child:
        print(json.dumps(child(said.child, said.rows[0])))
        return
    found = []
    for rows in [500] if said.smoke else said.rows:
        for what in [*LINES, "naive"] if said.smoke else said.what:
            command = [sys.executable, __file__, "--child", what, "--rows", str(rows)]
            found.append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))
            print(json.dumps(found[-1]), flush=True)
    if not said.smoke:
        write(found)


def write(found: list[dict[str, object]]) -> None:
    """Put what was measured now beside what was before, on the same machine."""
    machine = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "numpy": np.__version__, "width": WIDTH}
    old = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    same = all(old.get(name) == value for name, value in machine.items())
    runs = {(run["what"], run["rows"]): run for run in [*(old["runs"] if same else []), *found]}
    in_order = [runs[key] for key in sorted(runs, key=lambda key: (key[0], key[1]))]
    RESULTS.write_text(json.dumps({**machine, "runs": in_order}, indent=1) + "\n")


if __name__ == "__main__":
    main()
