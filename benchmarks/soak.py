"""Thirty percent of an endpoint's answers are faults: what does a run of 5,000 prompts cost, also where it is killed?

    python benchmarks/soak.py [--rows 5000] [--delay 0.25] [--seeds 1] [--first 0] [--kills 5] [--smoke]

Stops with an error where a row is lost or answered wrongly, or the server's own bill is outside the ledger's bracket.
Writes `benchmarks/results/soak.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from faultserver.client import serving  # noqa: E402  the harness belongs to the tests
from harness.soak import script, soaked  # noqa: E402


def main() -> None:
    """Without faults, with them, and killed as well."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--delay", type=float, default=0.25, help="seconds of one answer")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="100 rows, one seed, into no file")
    options = parser.parse_args()
    rows, seeds = (100, 1) if options.smoke else (options.rows, options.seeds)
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as server:
        home = Path(name)
        script(server, options.delay, None)
        calm = soaked(home / "calm", server, rows).check()
        found = {"without faults": calm.told()}
        for seed in range(options.first, options.first + seeds):
            script(server, options.delay, seed)
            under = soaked(home / f"seed{seed}", server, rows).check()
            found[f"with faults, seed {seed}"] = under.told() | {
                "times as long": round(under.seconds / calm.seconds, 2),
                "paid again per fault": round((under.paid - calm.paid) / under.faults, 3),
            }
            print(seed, json.dumps(found[f"with faults, seed {seed}"]), file=sys.stderr, flush=True)
        script(server, options.delay, 99)
        found["with faults, killed"] = soaked(home / "killed", server, rows, options.kills).check().told()
    said = {"command": " ".join(["python benchmarks/soak.py", *sys.argv[1:]]), "found": found,
            "processors": os.cpu_count(), "machine": platform.machine()}  # fmt: skip
    print(json.dumps(said, indent=1))
    if not options.smoke:
        (HERE / "results").mkdir(exist_ok=True)
        (HERE / "results" / "soak.json").write_text(json.dumps(said, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
