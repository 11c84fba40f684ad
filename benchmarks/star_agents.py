"""Star-Agents through endpoints: seeds a second by seeds of a round, and calls a seed, by default and faithful.

    python benchmarks/star_agents.py [--seeds 192] [--repeat 2] [--delay 0.05] [--smoke]

Six agents, one of them the base, and the judge are behind the scripted server, which answers each call by a rule after
the delay; four agents are drawn for a seed. Scorers and embedder are arithmetic, so that time is what calls and the
journal take; no ledger is kept. Each run is a process of its own with its own folder, and those of one turn follow each
other; the ratios are of the medians. By default who cannot win is not judged; `faithful` judges all, in rounds of one
seed. How much that spares depends on who wins: here all gaps but the base's are alike, and an agent beats the base in
10 to 90 percent of seeds. Calls are the server's count, without one small call before the first of each model. The
machine's load is noted at both ends. Writes `benchmarks/results/star_agents.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from faultserver.client import FaultServer, serving  # noqa: E402
from harness.planting import JUDGE, QUALITY  # noqa: E402

RESULTS = HERE / "results" / "star_agents.json"
ROUNDS = (1, 4, 16, 64)
DRAWS = 4
FAITHFUL = "faithful"


def make_seeds(path: Path, count: int) -> None:
    """Alpaca's kind of records, each of its own."""
    path.mkdir()
    rows = ({"instruction": f"Describe river row={n}.", "input": "", "output": "It is long."} for n in range(count))
    (path / "input.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def child(home: Path, url: str, course: str) -> dict[str, float]:
    """A run in this process, to its output."""
    from harness import stars
    from tunesift import Agent, HttpModel

    agents = tuple(Agent(name=name, model=HttpModel(url=url, model=name)) for name in QUALITY)
    settings: dict[str, Any] = {"faithful": True} if course == FAITHFUL else {"round_size": int(course)}
    method = stars.cast(agents=agents, judge=HttpModel(url=url, model=JUDGE), draws=DRAWS, **settings)
    began = time.perf_counter()
    stars.live(method, home)
    return {"seconds": time.perf_counter() - began}


def measured(course: str, seeds: int, server: FaultServer, place: Path) -> dict[str, float]:
    """What a child process says of itself, and what the server saw of it."""
    make_seeds(place, seeds)
    before = server.bill()["calls"]
    words = [sys.executable, __file__, "--child", course, "--input", str(place), "--url", server.url]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    calls = server.bill()["calls"] - before - len(QUALITY) - 1
    seconds = float(json.loads(done.stdout)["seconds"])
    return {"seconds": round(seconds, 2), "seeds_a_second": seeds / seconds, "calls_a_seed": calls / seeds}


def told(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over the turns, and what they are to those of rounds of one."""
    middle = {course: median(run["seeds_a_second"] for run in runs) for course, runs in found.items()}
    calls = {course: round(median(run["calls_a_seed"] for run in runs), 3) for course, runs in found.items()}
    return {
        "seeds_a_second": {course: round(rate, 2) for course, rate in middle.items()},
        "times_rounds_of_1": {course: round(rate / middle["1"], 2) for course, rate in middle.items()},
        "calls_a_seed": calls,
        "calls_default_to_faithful": round(calls["16"] / calls[FAITHFUL], 3),
        "seconds": {course: [run["seconds"] for run in runs] for course, runs in found.items()},
    }


def main() -> None:
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=192)
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--child")
    parser.add_argument("--input", type=Path)
    parser.add_argument("--url")
    said = parser.parse_args()
    if said.child:
        print(json.dumps(child(said.input, said.url, said.child)))
        return
    seeds, repeat = (16, 1) if said.smoke else (said.seeds, said.repeat)
    courses = [*map(str, ROUNDS), FAITHFUL]
    found: dict[str, list[dict[str, float]]] = {course: [] for course in courses}
    load = [round(os.getloadavg()[0], 2)]
    with TemporaryDirectory() as name, serving(Path(name)) as server:
        server.script({"do": [{"delay": said.delay}]})
        for turn in range(repeat):
            for course in courses:
                found[course].append(measured(course, seeds, server, Path(name) / f"{course}-{turn}"))
    result = {
        "command": " ".join(["python benchmarks/star_agents.py", *sys.argv[1:]]), "delay_s": said.delay, "seeds": seeds,
        "draws": DRAWS, "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "load": [*load, round(os.getloadavg()[0], 2)], "python": platform.python_version(), **told(found),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if not said.smoke:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
