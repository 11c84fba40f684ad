"""How well does the scorer rank data? Its IFD beside output length and chance, with bootstrap intervals.

    python evaluate.py --data ../../../shared/data [--model FOLDER] --out evaluation.json

Four checks, none of which is trained on: rank correlation with published GPT-2 IFD, and the share of pairs put in the
right order for a published Cherry selection at equal output length, for expert revisions, and for matched against
mismatched answers of equal length.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from tunesift import IFD, Failure, Message, Record, TransformersModel

DRAWS = 1000
"""Bootstrap draws."""


def record(id: str, instruction: str, given: str, output: str) -> Record:
    """A record as the Alpaca reader makes it."""
    ask = f"{instruction}\n\n{given}" if given.strip() else instruction
    extra = {"input": given} if given.strip() else {}
    return Record(id, (Message("user", ask), Message("assistant", output)), extra)


def score(records: Sequence[Record], scorer: IFD) -> list[float]:
    """IFD per record; not a number where there is none."""
    found: list[float] = []
    for start in range(0, len(records), 128):
        for made in scorer(records[start : start + 128]):
            value = None if isinstance(made, Failure) else made.value
            found.append(math.nan if value is None else value)
    return found


def interval(statistic: Callable[[np.ndarray], float], size: int, seed: int = 0) -> list[float]:
    """95 % bootstrap interval of a statistic of drawn indices."""
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, size, size)) for _ in range(DRAWS)]
    return [round(float(v), 4) for v in np.nanpercentile(values, [2.5, 97.5])]


def correlation(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, object]:
    a, b = np.asarray(ours), np.asarray(theirs)
    sound = np.isfinite(a) & np.isfinite(b)
    a, b = a[sound], b[sound]
    value = float(spearmanr(a, b).statistic)
    spread = interval(lambda n: float(spearmanr(a[n], b[n]).statistic), len(a))
    return {"spearman": round(value, 4), "interval": spread, "records": len(a)}


def order(better: Sequence[float], worse: Sequence[float]) -> dict[str, object]:
    """Share of pairs whose first has the larger value; a tie counts half."""
    a, b = np.asarray(better), np.asarray(worse)
    sound = np.isfinite(a) & np.isfinite(b)
    right = np.where(a > b, 1.0, np.where(a == b, 0.5, 0.0))[sound]
    spread = interval(lambda n: float(right[n].mean()), len(right))
    return {"share": round(float(right.mean()), 4), "interval": spread, "pairs": len(right)}


def gpt2_rows(data: Path) -> list[dict[str, object]]:
    lines = (data / "gpt2_ifd" / "alpaca_gpt2_ifd.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [r for r in rows if math.isfinite(r["ifd_ppl"])]


def check_gpt2(data: Path, scorer: IFD) -> dict[str, object]:
    rows = gpt2_rows(data)
    records = [record(str(n), str(r["instruction"]), str(r["input"]), str(r["output"])) for n, r in enumerate(rows)]
    ours, theirs = score(records, scorer), [float(str(r["ifd_ppl"])) for r in rows]
    lengths = [float(len(r.response)) for r in records]
    long = [n for n, r in enumerate(records) if theirs[n] < 1 and len(r.response.split()) >= 20]
    return {
        "all": {"ours": correlation(ours, theirs), "length": correlation(lengths, theirs)},
        "below 1, at least 20 words": {
            "ours": correlation([ours[n] for n in long], [theirs[n] for n in long]),
            "length": correlation([lengths[n] for n in long], [theirs[n] for n in long]),
        },
    }


def check_cherry(data: Path, scorer: IFD, pairs: int, rng: random.Random) -> dict[str, object]:
    """Pairs of a selected and a passed-over record whose outputs differ by at most 3 % in length."""
    rows = json.loads((data / "alpaca" / "alpaca_sample.json").read_text("utf-8"))
    covered = json.loads((data / "alpaca_selected" / "cherry_in_alpaca_sample.json").read_text("utf-8"))
    groups: dict[bool, list[Record]] = {True: [], False: []}
    for entry in covered:
        row = rows[entry["row"]]
        if entry["covered"] and row["output"].strip():
            made = record(str(entry["row"]), row["instruction"], row["input"], row["output"])
            groups[bool(entry["selected"])].append(made)
    chosen = equal_pairs(groups[True], groups[False], pairs, 0.03, rng)
    return compare([p[0] for p in chosen], [p[1] for p in chosen], scorer)


def equal_pairs(
    first: list[Record], second: list[Record], pairs: int, within: float, rng: random.Random
) -> list[tuple[Record, Record]]:
    """Pairs of nearest response length, at most `within` apart, no record twice."""
    free = sorted(second, key=lambda r: len(r.response))
    lengths = [len(r.response) for r in free]
    used: set[int] = set()
    found = []
    for one in rng.sample(first, len(first)):
        size = len(one.response)
        low, high = np.searchsorted(lengths, [size * (1 - within), size * (1 + within) + 1e-9])
        near = [n for n in range(int(low), int(high)) if n not in used]
        if near:
            used.add(pick := min(near, key=lambda n: (abs(lengths[n] - size), rng.random())))
            found.append((one, free[pick]))
        if len(found) == pairs:
            break
    return found


def compare(better: list[Record], worse: list[Record], scorer: IFD) -> dict[str, object]:
    def prompt(records: list[Record]) -> list[float]:
        return [-float(len(r.messages[0].text)) for r in records]

    lengths = [[float(len(r.response)) for r in side] for side in (better, worse)]
    return {
        "ours": order(score(better, scorer), score(worse, scorer)),
        "length": order(*lengths),
        "shorter prompt": order(prompt(better), prompt(worse)),
    }


def check_revisions(data: Path, scorer: IFD, pairs: int, rng: random.Random) -> dict[str, object]:
    """Expert revision against the raw response."""
    rows = json.loads((data / "expert_revisions" / "coachlm_expert_revisions.json").read_text("utf-8"))
    names = [
        ("Revised Instruction", "Revised Input", "Revised Response"),
        ("Raw Instruction", "Raw Input", "Raw Response"),
    ]
    rows = rng.sample(rows, min(pairs, len(rows)))
    sides = [[record(str(n), *(str(r.get(k) or "") for k in keys)) for n, r in enumerate(rows)] for keys in names]
    return compare(sides[0], sides[1], scorer)


def check_mismatched(data: Path, scorer: IFD, pairs: int, rng: random.Random) -> dict[str, object]:
    """The same response behind an instruction that is not its own must have the larger IFD."""
    rows = json.loads((data / "alpaca" / "alpaca_sample.json").read_text("utf-8"))
    sound = [r for r in rows if len(r["output"].split()) >= 15]
    chosen = rng.sample(sound, min(pairs, len(sound) // 2) * 2)
    half = len(chosen) // 2
    matched = [record(str(n), r["instruction"], r["input"], r["output"]) for n, r in enumerate(chosen[:half])]
    others = [record(str(n), o["instruction"], o["input"], r["output"])
              for n, (r, o) in enumerate(zip(chosen[:half], chosen[half:], strict=True))]  # fmt: skip
    return compare(others, matched, scorer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="embedded", help="a folder, or the scorer of the package")
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    scorer = IFD(student=TransformersModel(name=options.model))
    rng = random.Random(0)
    found = {
        "model": scorer.student.identity(),
        "published GPT-2 IFD": check_gpt2(options.data, scorer),
        "published Cherry selection, equal length": check_cherry(options.data, scorer, options.pairs, rng),
        "expert revision above raw": check_revisions(options.data, scorer, options.pairs, rng),
        "mismatched above matched": check_mismatched(options.data, scorer, options.pairs, rng),
    }
    text = json.dumps(found, indent=1)
    if options.out:
        options.out.write_text(text + "\n", "utf-8")
    print(text)


if __name__ == "__main__":
    main()
