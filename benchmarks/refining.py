"""Reflection-Tuning through an endpoint: rows a second, calls a row, memory; beside the same prompts in a plain loop.

    python benchmarks/refining.py [--rows 20000] [--delay 0.02] [--smoke]

The scripted server answers each prompt by a rule after a delay. Ours is the recipe `reflection` as a user runs it, in a
process of its own, with the journal and the ledger on; the plain loop sends the same two prompts for each record, one
after the other, over one httpx2 connection, and writes a line of JSON: what the authors' scripts do, without their
retries. Both run in turn. Memory is the peak of the process's own (RssAnon, looked at twenty times a second) less what
it has after its imports, with half of the rows and with all. Writes `benchmarks/results/refining.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from measuring import HERE, bytes_a_row, child, here, ran, told

sys.path.insert(0, str(HERE.parent / "tests"))

from faultserver.client import FaultServer, serving


def make_rows(path: Path, count: int) -> None:
    """Alpaca's kind of records, each of its own."""
    with path.open("w") as file:
        for n in range(count):
            row = {"instruction": f"Describe river row={n}.", "input": f"It is {n} km long." if n % 3 == 0 else "",
                   "output": f"River {n} flows to the sea in {n % 97} bends. " * (1 + n % 6)}  # fmt: skip
            file.write(json.dumps(row) + "\n")


def child_ours(rows: Path, url: str) -> dict[str, float]:
    """The recipe, in this process."""
    from tunesift import recipe_for

    settings = [f"teacher.url={url}", "teacher.model=tiny"]
    summary, found = ran(recipe_for("reflection", rows, rows.with_name(f"out-{rows.stem}.jsonl"), settings))
    assert summary.counts["replaced"] == summary.counts["in"]
    return found | {"replaced": summary.counts["replaced"]}


def child_loop(rows: Path, url: str) -> dict[str, float]:
    """The same prompts, one after the other."""
    import httpx2

    from tunesift.methods.reflection import BETTER_ANSWER, CRITIC, EDITOR, NEW_INSTRUCTION
    from tunesift.methods.reflection_reading import read_answer, read_pair
    from tunesift.models.base import Completion
    from tunesift.prompts import fenced, fill

    def ask(client: httpx2.Client, persona: str, template: str, instruction: str, answer: str) -> str:
        pair = f"{fenced('instruction', instruction)}\n\n{fenced('answer', answer)}"
        messages = [{"role": "system", "content": persona}, {"role": "user", "content": fill(template, pair=pair)}]
        body = {"model": "tiny", "messages": messages, "temperature": 0.0, "max_tokens": 2048}
        return str(client.post(f"{url}/chat/completions", json=body).json()["choices"][0]["message"]["content"])

    began = time.perf_counter()
    with httpx2.Client(trust_env=False) as client, rows.with_name(f"loop-{rows.stem}.jsonl").open("w") as out:
        for row in map(json.loads, rows.read_text().splitlines()):
            instruction = f"{row['instruction']}\n\n{row['input']}".strip()
            said = ask(client, EDITOR, NEW_INSTRUCTION, instruction, row["output"])
            new: Any = read_pair(Completion(said, "stop", 1))
            said = ask(client, CRITIC, BETTER_ANSWER, new.instruction, new.answer)
            better: Any = read_answer(Completion(said, "stop", 1))
            out.write(json.dumps({"instruction": new.instruction, "output": better.answer}) + "\n")
    return {"seconds": time.perf_counter() - began}


def measured(kind: str, rows: Path, server: FaultServer) -> dict[str, float]:
    """What a child process says of itself, and what the server saw of it."""
    before = server.bill()["calls"]
    found = child(__file__, "--child", kind, "--input", str(rows), "--url", server.url)
    count = sum(1 for _ in rows.open())
    calls = server.bill()["calls"] - before
    return found | {"rows": count, "rows_a_second": round(count / found["seconds"], 1), "calls_a_row": calls / count}


def main() -> None:
    """Measure and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--loop-rows", type=int, default=500)
    parser.add_argument("--delay", type=float, default=0.02)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--child", choices=("ours", "loop"))
    parser.add_argument("--input", type=Path)
    parser.add_argument("--url")
    said = parser.parse_args()
    if said.child:
        print(json.dumps((child_ours if said.child == "ours" else child_loop)(said.input, said.url)))
        return
    count, few = (40, 10) if said.smoke else (said.rows, said.loop_rows)
    with TemporaryDirectory() as place, serving(Path(place)) as server:
        server.script({"do": [{"delay": said.delay}]})
        files = {n: Path(place) / f"rows-{n}.jsonl" for n in {count // 2, count, few}}
        for n, path in files.items():
            make_rows(path, n)
        found = {
            "loop": measured("loop", files[few], server),
            "half": measured("ours", files[count // 2], server),
            "all": measured("ours", files[count], server),
        }
    ratio = found["all"]["rows_a_second"] / found["loop"]["rows_a_second"]
    result = here() | {
        "delay_s": said.delay, "times_the_loop": round(ratio, 1), **found,
        "memory_bytes_a_row": bytes_a_row(found["half"], found["all"]),
    }  # fmt: skip
    told(result, "refining", said.smoke)


if __name__ == "__main__":
    main()
