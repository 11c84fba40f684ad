"""`kill -9` at random moments: what a kill costs, on the command line, on a page that asks an endpoint, and on a recipe
whose model is behind one.

    python benchmarks/kills.py [--kills 200] [--only select|ask|http] [--smoke]

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
from harness.http_runs import answering, check_books, http_command, make_asked  # noqa: E402
from harness.kill import LOG, NOTHING, Lives, survive  # noqa: E402
from harness.runs import ask_command, make_records, select_command  # noqa: E402


def told(lives: Lives, allowed: int) -> dict[str, object]:
    """The figures of many lives; fails where a kill cost more than is allowed."""
    if max(lives.repeats) > allowed:
        raise SystemExit(f"{max(lives.repeats)} repeats after one kill; {allowed} are allowed: {lives.repeats}")
    return {**lives.told(), **NOTHING, "repeats_allowed_per_kill": allowed, "repeats": lives.repeats}


def select(place: Path, kills: int) -> dict[str, object]:
    """`tunesift select`, with a scripted student."""
    return told(survive(place, select_command(8), lambda home: make_records(home, 600), kills), 8)


def ask(place: Path, kills: int) -> dict[str, object]:
    """A step of one's own that asks an endpoint."""
    with serving(place / LOG) as port:
        return told(survive(place, ask_command(port), lambda home: make_records(home, 300), kills), 8)


def http(place: Path, kills: int) -> dict[str, object]:
    """`tunesift run`, with our own client of endpoints and its ledger."""
    with answering(place) as server:
        lives = survive(place, http_command, lambda home: make_asked(home, 60, server.url), kills)
        exact, billed, most = check_books(place, server)
    money = {"tokens_by_our_books": exact, "tokens_billed": billed, "tokens_by_our_books_at_most": most}
    return {**told(lives, 8), **money}


RUNS = {"tunesift select, 600 records in chunks of 8": select, "300 records asked of an endpoint, 8 at once": ask,
        "tunesift run, 60 records, 420 chat calls over http, 8 at once": http}  # fmt: skip


def main() -> None:
    """Kill, compare, and write the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", choices=[run.__name__ for run in RUNS.values()], help="one; the others' figures stay")
    parser.add_argument("--smoke", action="store_true", help="two kills each, into no file")
    options = parser.parse_args()
    kills = 2 if options.smoke else options.kills
    place = HERE / "results" / "kills.json"
    found: dict[str, object] = json.loads(place.read_text()) if options.only else {}
    found |= {"processors": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    with tempfile.TemporaryDirectory() as name:
        for title, run in RUNS.items():
            if options.only in (None, run.__name__):
                home = Path(name) / run.__name__
                home.mkdir()
                found[title] = run(home, kills)
    found["command"] = f"python benchmarks/kills.py --kills {kills}"
    print(json.dumps(found))
    if not options.smoke:
        place.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
