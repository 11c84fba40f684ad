"""Are our perplexities and IFD those that another project published for the same records and GPT-2?

    python benchmarks/published.py --data FOLDER [--gpt2 FOLDER] [--records 2570]

Holds the profile `superfilter` with GPT-2's weights against the published values per record: relative difference, rank
correlation, overlap of the top tenth among values below 1. Without weights that line says so. The scorer that comes in
the package, with the same profile and with its own, and the length of the response make the other lines; their
perplexities are not GPT-2's, so only the order is held against it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from judgements import Found, Values, as_record, bootstrapped, lines, part, scored, spearman

from tunesift import IFD, Record, TransformersModel

RESULTS = Path(__file__).parent / "results" / "published.json"


def relative(ours: Values, theirs: Values) -> dict[str, float]:
    """How far our values are from the published ones, as fractions of these."""
    sound = np.isfinite(ours) & np.isfinite(theirs)
    away = np.abs(ours[sound] / theirs[sound] - 1)
    return {"median": float(np.median(away)), "p99": float(np.quantile(away, 0.99)), "largest": float(away.max())}


def top_tenth(ours: Values, theirs: Values, below: bool = True) -> float:
    """Share of their best tenth below 1 that is also in ours."""
    sound = np.isfinite(ours) & np.isfinite(theirs)
    count = int(0.1 * sound.sum())
    theirs_best = set(np.argsort(np.where(sound & (theirs < 1), -theirs, np.inf), kind="stable")[:count])
    inside = sound & (ours < 1) if below else sound
    return len(theirs_best & set(np.argsort(np.where(inside, -ours, np.inf), kind="stable")[:count])) / count


def line(name: str, values: Values, theirs: Values, below: bool = True) -> dict[str, object]:
    found: Found = bootstrapped(spearman, values, theirs)
    tenth = top_tenth(values, theirs, below)
    print(f"| {name} | {found.told()} | {tenth:.2f} | {found.over:,} |", flush=True)
    return {"score": name, "spearman": vars(found), "top_tenth": tenth}


def with_gpt2(folder: Path, records: Sequence[Record], rows: Sequence[dict[str, float]]) -> dict[str, object]:
    """The published way with the published weights."""
    made = scored(IFD(student=TransformersModel(name=str(folder), max_length=1024), profile="superfilter"), records)
    names = {"conditioned": "ppl_A_condition", "direct": "ppl_A_direct", "ifd_ppl": "ifd_ppl"}
    differences = {}
    for ours, theirs in names.items():
        values = part(made, ours)
        values = values if ours == "ifd_ppl" else np.exp(values)
        differences[theirs] = relative(values, np.array([row[theirs] for row in rows]))
        print(f"relative difference of {theirs}: {differences[theirs]}", flush=True)
    return {"relative": differences, **line("GPT-2, superfilter", part(made, "ifd_ppl"), published(rows))}


def published(rows: Sequence[dict[str, float]]) -> Values:
    return np.array([row["ifd_ppl"] for row in rows], np.float64)


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, required=True, help="folder of the published data sets")
    words.add_argument("--gpt2", type=Path, help="folder with GPT-2's weights (124M), in safetensors")
    words.add_argument("--records", type=int, default=10**9)
    words.add_argument("--smoke", action="store_true", help="60 records, and nothing is written down")
    said = words.parse_args()
    rows = lines(said.data / "gpt2_ifd" / "alpaca_gpt2_ifd.jsonl")[: 60 if said.smoke else said.records]
    rows = [row for row in rows if math.isfinite(row["ifd_ppl"])]
    records = [as_record(str(n), r["instruction"], r["input"], r["output"]) for n, r in enumerate(rows)]
    theirs = published(rows)
    print("| score | Spearman with the published IFD | overlap of the top tenth | records |\n| --- | --- | --- | --- |")
    found: list[dict[str, object]] = []
    if said.gpt2 is None:
        print("| GPT-2, superfilter | not measured: no folder with GPT-2's weights was given (--gpt2) | | |")
    else:
        found.append(with_gpt2(said.gpt2, records, rows))
    student = TransformersModel()
    for profile in ("superfilter", "canonical"):
        values = part(scored(IFD(student=student, profile=profile), records), "ifd_ppl")
        found.append(line(f"embedded scorer, {profile}", values, theirs))
    lengths = np.array([float(len(record.response)) for record in records])
    found.append(line("length of the response", lengths, theirs, below=False))
    found.append(line("random", np.random.default_rng(0).random(len(rows)), theirs, below=False))
    if not said.smoke:
        RESULTS.write_text(json.dumps({"gpt2": said.gpt2 is not None, "lines": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
