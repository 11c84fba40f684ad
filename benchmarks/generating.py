"""GenQA through an endpoint: rows a second, calls beside the method's cost, memory; with faults, beside a plain loop.

    python benchmarks/generating.py [--rows 2500 5000 10000] [--most 20000] [--runs 5] [--delay 0.02] [--smoke]

The scripted server answers each prompt by a rule after a delay; of a tenth of the rows it forgets the labels, so that
they are drawn anew. Ours is the recipe `genqa` as a user runs it, in a process of its own, with the journal and the
ledger on; each number of rows has several runs, in turn, of which the middle one, the least and the most are told.
Memory is the peak of the process's own (RssAnon, looked at twenty times a second) less what it has after its imports.

By the method's cost a row takes 1 / acceptance calls, and a list is one call for every `reuse` rows. Lists are whole,
and each topic has its own, so that fewer rows pay for more of them: `genqa_asking.lists_to_expect` counts that, and one
small call goes before the first. `exact` is a run in which all divides: there the cost is n + n / 200 calls. Calls of
a run are counted in the server's own log: prompts, answers that it gave well, and those that it spoiled.

`faults` is the largest of the runs where a tenth of the answers is refused (429, 500), cut or reset. `repeating` asks a
model that writes one row again and again. The plain loop sends as many prompts of the same kind one after the other
over one connection, and writes a line of JSON for each. Writes `benchmarks/results/generating.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measuring import HERE, bytes_a_row, child, here, ran, told

sys.path.insert(0, str(HERE.parent / "tests"))

from faultserver.client import FaultServer, serving
from harness.generator import CLUMSY, STUCK

FAULTS: list[tuple[float, list[dict[str, Any]]]] = [
    (0.002, [{"status": 429, "headers": {"retry-after-ms": "100"}}]),
    (0.025, [{"status": 429}]),
    (0.05, [{"status": 500}]),
    (0.075, [{"cut_at": 40}]),
    (0.10, [{"rst": True}]),
]
"""Shares of the calls up to which a fault is played, one after the other; a tenth together."""
EXACT = ["topics=[Tides]", "variants=[generator-conditional]"]
CLUMSILY = [f'boosters=["{CLUMSY}"]']


def child_ours(output: Path, url: str, rows: int, settings: list[str]) -> dict[str, Any]:
    """The recipe, in this process."""
    import pyarrow.parquet as pq

    from tunesift import recipe_for

    recipe = recipe_for("genqa", None, output, [f"model.url={url}", "model.model=tiny", f"count={rows}", *settings])
    summary, found = ran(recipe)
    made = summary.counts.get("created", 0)
    (split,) = pq.read_table(summary.folder / "tables" / "splits.parquet").to_pylist()
    lists = sum(pq.read_metadata(part).num_rows for part in (summary.folder / "stages" / "list").glob("part-*.parquet"))
    planned = sum(stage.items for stage in recipe.method.plan(0) if stage.stage == "list" and not stage.spare)
    return found | {
        "rows": made, "draws": split["draws"], "acceptance": round(made / split["draws"], 4), "lists": lists,
        "lists_planned": planned, "lists_if_all_divides": round(split["draws"] / 200, 2),
        "calls_by_the_cost": split["draws"] + planned + 1,
    }  # fmt: skip


def child_loop(output: Path, url: str, rows: int) -> dict[str, Any]:
    """As many prompts, one after the other."""
    import httpx2

    from tunesift import Labels
    from tunesift.methods.genqa_prompts import Wording
    from tunesift.methods.genqa_reading import read_pair

    wording, made, sent = Wording(Labels(), "English"), 0, 0
    began = time.perf_counter()
    with httpx2.Client(trust_env=False) as client, output.open("w") as out:
        while made < rows:
            about = {"topic": "Tides", "subtopic": f"Harbour {sent}", "booster": CLUMSY}
            prompt = wording.about("academic", "generator-conditional", **about)
            body = {
                "model": "tiny",
                "messages": [{"role": "user", "content": prompt}],
                "seed": sent,
                "max_tokens": 1024,
            }
            said = client.post(f"{url}/chat/completions", json=body).json()["choices"][0]["message"]["content"]
            row = read_pair(said, Labels())
            sent += 1
            if hasattr(row, "messages"):
                made += 1
                out.write(json.dumps([m.text for m in row.messages]) + "\n")
    return {"seconds": time.perf_counter() - began, "rows": rows}


def measured(kind: str, rows: int, server: FaultServer, output: Path, *settings: str) -> dict[str, Any]:
    """What a child process says of itself, and what the server saw of it since it was last told what to play."""
    words = ["--child", kind, "--rows", str(rows), "--url", server.url, "--output", str(output)]
    found = child(__file__, *words, *(f"--set={setting}" for setting in settings))
    lines = server.lines()
    spoiled = Counter(_spoiled(line) for line in lines)
    well = spoiled.pop("", 0)
    rate = round(found["rows"] / found["seconds"], 1)
    return found | {"rows_a_second": rate, "calls": len(lines), "prompts": len({line["sha256"] for line in lines}),
                    "answered_well": well, "billed": server.bill()["calls"], "spoiled": dict(spoiled)}  # fmt: skip


def _spoiled(line: dict[str, Any]) -> str:
    """What was wrong with an answer; empty for a good one, of which every one is longer than 200 bytes."""
    if line["status"] == 200:
        return "cut" if line["sent"] < 200 else ""
    return str(line["status"]) if line["status"] else "reset"


def in_turn(sizes: list[int], runs: int, server: FaultServer, place: Path, delay: float) -> dict[str, Any]:
    """Several runs of every size, one size after the other, so that a busy minute spoils one run of each."""
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in sizes}
    for turn in range(runs):
        for size in sizes:
            server.script({"do": [{"delay": delay}]})
            found[size].append(measured("ours", size, server, place / f"{size}-{turn}.jsonl", *CLUMSILY))
    return {f"{size}": _middle(found[size]) for size in sizes}


def _middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run of the middle speed, and how far the others are from it; their counts are all the same."""
    by_rate = sorted(runs, key=lambda run: run["rows_a_second"])
    rates = [run["rows_a_second"] for run in by_rate]
    middle = by_rate[len(by_rate) // 2]
    assert all(run["calls"] == middle["calls"] and run["lists"] == middle["lists"] for run in runs)
    memory = [run["memory_mb"] for run in runs]
    return middle | {"rows_a_second": statistics.median(rates), "rows_a_second_of_all": rates,
                     "memory_mb": statistics.median(memory), "memory_mb_of_all": sorted(memory)}  # fmt: skip


def with_faults(rows: int, server: FaultServer, place: Path, delay: float) -> dict[str, Any]:
    """A run where a tenth of the answers is spoiled: calls, and how many rows are those of a run where none is."""
    rules = [{"match": {"route": "/chat/completions", "rate": rate, "seed": 1}, "do": [*do, {"delay": delay}]}
             for rate, do in FAULTS]  # fmt: skip
    server.script(*rules, {"do": [{"delay": delay}]})
    found = measured("ours", rows, server, place / "faults.jsonl", *CLUMSILY)
    ours, calm = ((place / name).read_text().splitlines() for name in ("faults.jsonl", f"{rows}-0.jsonl"))
    return found | {"rows_as_without_faults": len(set(ours) & set(calm))}


def everything(said: argparse.Namespace) -> dict[str, Any]:
    """All of it, in one process after the other."""
    load = os.getloadavg()
    sizes, few, most, runs = (
        ([20, 40], 10, 0, 1) if said.smoke else (sorted(said.rows), said.loop_rows, said.most, said.runs)
    )
    with TemporaryDirectory() as name, serving(Path(name)) as server:
        place, calm = Path(name), {"do": [{"delay": said.delay}]}
        server.script(calm)
        loop = measured("loop", few, server, place / "loop.jsonl")
        ours = in_turn(sizes, runs, server, place, said.delay)
        largest = ours[str(sizes[-1])]
        more = {}
        if most:
            server.script(calm)
            more = {"most": measured("ours", most, server, place / "most.jsonl", *CLUMSILY)}
        faults = with_faults(sizes[-1], server, place, said.delay)
        server.script(calm)
        exact = measured("ours", 200 if said.smoke else 2000, server, place / "exact.jsonl", *EXACT)
        server.script(calm)
        repeating = measured("ours", sizes[-1], server, place / "repeating.jsonl", f'boosters=["{STUCK}"]')
    result = here() | {
        "delay_s": said.delay, "runs": runs, "load_before_and_after": [round(load[0], 2), round(os.getloadavg()[0], 2)],
        "times_the_loop": round(largest["rows_a_second"] / loop["rows_a_second"], 1), "loop": loop, **ours, **more,
        "memory_bytes_a_row": bytes_a_row(ours[str(sizes[0])], largest),
        "exact": exact, "faults": faults, "repeating": repeating,
    }  # fmt: skip
    return result | ({"memory_bytes_a_row_of_most": bytes_a_row(largest, more["most"])} if more else {})


def check(found: dict[str, Any]) -> None:
    """Calls are the method's cost, what faults add is the answers that were spoiled, and nothing is paid twice."""
    for run in (run for run in found.values() if isinstance(run, dict) and "draws" in run):
        assert run["prompts"] == run["draws"] + run["lists"] + 1, run
        assert run["calls"] == run["answered_well"] + sum(run["spoiled"].values()), run
        assert run["billed"] == run["answered_well"] + run["spoiled"].get("cut", 0), run


def main() -> None:
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2500, 5000, 10_000])
    parser.add_argument("--most", type=int, default=20_000, help="rows of one more run, for its memory; 0 for none")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--loop-rows", type=int, default=300)
    parser.add_argument("--delay", type=float, default=0.02)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--child", choices=("ours", "loop"))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--url")
    parser.add_argument("--set", action="append", default=[])
    said = parser.parse_args()
    if said.child == "loop":
        print(json.dumps(child_loop(said.output, said.url, said.rows[0])))
    elif said.child:
        print(json.dumps(child_ours(said.output, said.url, said.rows[0], said.set)))
    else:
        found = everything(said)
        told(found, "generating", said.smoke)
        check(found)


if __name__ == "__main__":
    main()
