"""How much of a selection by a large model is left where a small one settles what is far from the cut?

    python benchmarks/screening.py --data DATA [--smoke]

DATA holds `gpt2_ifd/alpaca_gpt2_ifd.jsonl`: Alpaca records with the ratio of perplexities that GPT-2 (124 million
parameters) gave them by Superfiltering's own script. The scorer that comes with the package (4.6 million) screens them
in the same reading; GPT-2's numbers are taken for the scorer's. For each margin: the share of the records that GPT-2
would be asked about, a sample of 100 among them, and of the tenth that it would choose alone, how much is chosen.
Beside it, what the small model chooses by itself. Writes `benchmarks/results/screening.json`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from pathlib import Path
from typing import Any

from measuring import here, told

from tunesift import IFD, Dataset, Decision, Largest, Message, Record, Score
from tunesift.evaluation.stats import spearman
from tunesift.records import Failure
from tunesift.scoring.screening import Screened
from tunesift.scoring.selectors import Pool

MARGINS = (0.02, 0.05, 0.1, 0.2, 0.3)
SEEDS = 20
KEEP = Largest(fraction=0.1, below=1.0)


def rows_of(path: Path, count: int | None) -> tuple[Dataset[Record], dict[str, Score]]:
    """The records whose number is one, and GPT-2's scores."""
    records, scores = [], {}
    for number, line in enumerate(path.read_text().splitlines()[:count]):
        row = json.loads(line)  # bare NaN where there is no number
        if math.isfinite(row["ifd_ppl"]) and row["output"].strip():
            asked = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
            record = Record(f"r{number:04}", (Message("user", asked), Message("assistant", row["output"])))
            records.append(record)
            scores[record.id] = Score(row["ifd_ppl"])
    return Dataset.of(records), scores


def cheap_scores(data: Dataset[Record]) -> dict[str, Score]:
    """IFD by the scorer that comes with the package."""
    found = IFD(profile="superfilter")(list(data))
    return {r.id: score for r, score in zip(data, found, strict=True) if not isinstance(score, Failure)}


def kept(decisions: Any) -> set[str]:  # Any: a sequence of decisions, of one kind or another
    """Ids of what stays."""
    return {d.record_id for d in decisions if isinstance(d, Decision) and d.action == "keep"}


def screened(
    data: Dataset[Record], cheap: Pool, exact: dict[str, Score], margin: float, seed: int
) -> tuple[set[str], int]:
    """What is kept, and how many records GPT-2 is asked about."""
    first = Screened.of(cheap, KEEP, margin)
    asked = first.asked(random.Random(seed).sample(range(len(data)), min(100, len(data))))
    again = data.where(asked)
    rescored = Pool(again, {id: exact[id] for id in again.ids()}, {}, "IFD", random.Random(0))
    return kept(first.decide(rescored, KEEP)), len(again)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds gpt2_ifd")
    parser.add_argument("--smoke", action="store_true", help="a few records, into no file")
    options = parser.parse_args()
    data, exact = rows_of(options.data / "gpt2_ifd" / "alpaca_gpt2_ifd.jsonl", 120 if options.smoke else None)
    cheap = Pool(data, cheap_scores(data), {}, "IFD", random.Random(0))
    wanted = kept(KEEP(Pool(data, exact, {}, "IFD", random.Random(0))))
    both = [(cheap.scores[id].value, exact[id].value) for id in data.ids() if cheap.scores[id].value is not None]
    alone = kept(KEEP(cheap))
    rows = []
    for margin in MARGINS:
        found = [screened(data, cheap, exact, margin, seed) for seed in range(SEEDS)]
        shared = [len(chosen & wanted) / len(wanted) for chosen, _ in found]
        rows.append({"margin": margin, "asked": round(sum(n for _, n in found) / SEEDS / len(data), 3),
                     "of the tenth": round(sum(shared) / SEEDS, 3)})  # fmt: skip
    result = here() | {
        "records": len(data), "kept": len(wanted), "seeds": SEEDS,
        "rank_correlation": round(spearman([a or 0.0 for a, _ in both], [b or 0.0 for _, b in both]) or 0.0, 3),
        "of the tenth, by the small model alone": round(len(alone & wanted) / len(wanted), 3), "margins": rows,
    }  # fmt: skip
    told(result, "screening", options.smoke)


if __name__ == "__main__":
    main()
