"""`kill -9` at random moments: what a kill costs, on the command line and on a page that asks an endpoint.

    python benchmarks/kills.py [--kills 200] [--smoke]

Stops with an error where a kill lost, doubled or changed an outcome or a byte of the output. Writes
`benchmarks/results/kills.json` with the figures, the repeats after every kill and the seeds.
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

from harness.endpoint import serving  # noqa: E402  the harness belongs to the tests
from harness.kill import LOG, NOTHING, Lives, survive  # noqa: E402
from harness.runs import ask_command, make_records, select_command  # noqa: E402


def told(lives: Lives, allowed: int) -> dict[str, object]:
    """The figures of many lives; fails where a kill cost more than is allowed."""
    if max(lives.repeats) > allowed:
        raise SystemExit(f"{max(lives.repeats)} repeats after one kill; {allowed} are allowed: {lives.repeats}")
    return {**lives.told(), **NOTHING, "repeats_allowed_per_kill": allowed, "repeats": lives.repeats}


def main() -> None:
    """Kill, compare, and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--smoke", action="store_true", help="two kills each, into no file")
    options = parser.parse_args()
    kills = 2 if options.smoke else options.kills
    with tempfile.TemporaryDirectory() as name:
        places = [Path(name) / "select", Path(name) / "ask"]
        for place in places:
            place.mkdir()
        select = survive(places[0], select_command(8), lambda home: make_records(home, 600), kills)
        with serving(places[1] / LOG) as port:
            asked = survive(places[1], ask_command(port), lambda home: make_records(home, 300), kills)
    found = {
        "command": f"python benchmarks/kills.py --kills {kills}",
        "tunesift select, 600 records in chunks of 8": told(select, 8),
        "300 records asked of an endpoint, 8 at once": told(asked, 8),
        "processors": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version(),
    }  # fmt: skip
    print(json.dumps(found))
    if not options.smoke:
        (HERE / "results" / "kills.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
