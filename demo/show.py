"""Compare what a run decided with what was planted: `python demo/show.py demo/out/kept.jsonl.run`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent


def shares(ids: Sequence[str], decisions: dict[str, dict[str, str]]) -> tuple[float, float]:
    """Fractions of these records that were dropped, and dropped because their IFD is not below 1."""
    dropped = [decisions[id] for id in ids if decisions[id]["action"] == "drop"]
    unhelped = [d for d in dropped if "not below" in d["reason"]]
    return len(dropped) / len(ids), len(unhelped) / len(ids)


def examples(decisions: dict[str, dict[str, str]], action: str, count: int = 3) -> list[str]:
    """A few records with this decision, and their reasons."""
    chosen = sorted((d for d in decisions.values() if d["action"] == action), key=lambda d: d["reason"])
    return [f"  {d['record_id']}  {action}  {d['reason']}" for d in chosen[:: max(1, len(chosen) // count)][:count]]


def main() -> None:
    run = Path(sys.argv[1])
    key = json.loads((HERE / "key.json").read_text("utf-8"))
    decisions = {d["record_id"]: d for d in pq.read_table(run / "decisions.parquet").to_pylist()}
    planted = key["planted"]
    groups = {"sound": key["sound"], "mismatched": [m["id"] for m in planted["mismatched"]]}
    groups["sound, as long as those"] = [m["control"] for m in planted["mismatched"]]
    groups |= {kind: planted[kind] for kind in ("empty", "copied", "refusal")}
    groups["near-duplicate"] = [d["id"] for d in planted["near-duplicate"]]
    print("\n".join(["\nfor example", *examples(decisions, "keep"), *examples(decisions, "drop")]))
    print(f"\n{'planted':<26}{'records':>8}{'dropped':>10}{'IFD not below 1':>18}")
    for name, ids in groups.items():
        dropped, unhelped = shares(ids, decisions)
        print(f"{name:<26}{len(ids):>8}{dropped:>10.0%}{unhelped:>18.0%}")
    quarantined = pq.read_metadata(run / "quarantine.parquet").num_rows
    print(f"{'broken lines':<26}{len(planted['broken']):>8}{quarantined:>13} quarantined")


if __name__ == "__main__":
    main()
