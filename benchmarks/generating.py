"""GenQA through an endpoint: rows a second, calls a row beside the card's cost, memory; beside a plain loop.

    python benchmarks/generating.py [--rows 10000] [--delay 0.02] [--smoke]

The scripted server answers each prompt by a rule after a delay; of a tenth of the rows it forgets the labels, so that
they are drawn anew. Ours is the recipe `genqa` as a user runs it, in a process of its own, with the journal and the
ledger on; the plain loop sends as many prompts of the same kind one after the other over one httpx connection, and
writes a line of JSON for each. The card's cost of a row is 1 / acceptance calls and the lists' share; ours is what the
server billed. Memory is the peak of the process's own (RssAnon, looked at twenty times a second) less what it has after
its imports, with half of the rows and with all. Writes `benchmarks/results/generating.json`.
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
from tempfile import TemporaryDirectory

from refining import HERE, Peak, own_mb

sys.path.insert(0, str(HERE.parent / "tests"))

from faultserver.client import FaultServer, serving
from harness.generator import CLUMSY

RESULTS = HERE / "results" / "generating.json"


def child_ours(output: Path, url: str, rows: int) -> dict[str, float]:
    """The recipe, in this process."""
    import pyarrow.parquet as pq

    from tunesift import recipe_for, run_recipe

    settings = [f"model.url={url}", "model.model=tiny", f"count={rows}", f'boosters=["{CLUMSY}"]']
    before, peak = own_mb(), Peak()
    peak.start()
    began = time.perf_counter()
    summary = run_recipe(recipe_for("genqa", None, output, settings))
    seconds = time.perf_counter() - began
    peak.over.set()
    assert summary.counts["created"] == rows
    (split,) = pq.read_table(summary.folder / "tables" / "splits.parquet").to_pylist()
    lists = sum(pq.read_metadata(part).num_rows for part in (summary.folder / "stages" / "list").glob("part-*.parquet"))
    return {
        "seconds": seconds, "memory_mb": round(peak.most - before, 1), "rows": rows, "draws": split["draws"],
        "lists": lists, "acceptance": round(rows / split["draws"], 4), "calls_by_the_card": split["draws"] + lists,
    }  # fmt: skip


def child_loop(output: Path, url: str, rows: int) -> dict[str, float]:
    """As many prompts, one after the other."""
    import httpx

    from tunesift import Labels
    from tunesift.methods.genqa_prompts import Wording
    from tunesift.methods.genqa_reading import read_pair

    wording, made, sent = Wording(Labels(), "English"), 0, 0
    began = time.perf_counter()
    with httpx.Client(trust_env=False) as client, output.open("w") as out:
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


def measured(kind: str, rows: int, server: FaultServer, place: Path) -> dict[str, float]:
    """What a child process says of itself, and what the server saw of it."""
    before = server.bill()["calls"]
    words = [sys.executable, __file__, "--child", kind, "--rows", str(rows), "--url", server.url]
    words += ["--output", str(place / f"{kind}-{rows}.jsonl")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    calls = server.bill()["calls"] - before
    rate = round(rows / found["seconds"], 1)
    return found | {"rows_a_second": rate, "calls": calls, "calls_a_row": round(calls / rows, 4)}


def main() -> None:
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--loop-rows", type=int, default=300)
    parser.add_argument("--delay", type=float, default=0.02)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--child", choices=("ours", "loop"))
    parser.add_argument("--output", type=Path)
    parser.add_argument("--url")
    said = parser.parse_args()
    if said.child:
        print(json.dumps((child_ours if said.child == "ours" else child_loop)(said.output, said.url, said.rows)))
        return
    count, few = (40, 10) if said.smoke else (said.rows, said.loop_rows)
    with TemporaryDirectory() as name, serving(Path(name)) as server:
        server.script({"do": [{"delay": said.delay}]})
        place = Path(name)
        found = {
            "loop": measured("loop", few, server, place),
            "half": measured("ours", count // 2, server, place),
            "all": measured("ours", count, server, place),
        }
    ratio = found["all"]["rows_a_second"] / found["loop"]["rows_a_second"]
    result = {
        "command": " ".join(["python benchmarks/generating.py", *sys.argv[1:]]), "delay_s": said.delay,
        "machine": f"{platform.machine()}, {os.cpu_count()} processors", "python": platform.python_version(),
        "times_the_loop": round(ratio, 1), **found,
        "memory_bytes_a_row": round((found["all"]["memory_mb"] - found["half"]["memory_mb"]) * 2**20
                                    / (count - count // 2)),
    }  # fmt: skip
    print(json.dumps(result, indent=1))
    if not said.smoke:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
