"""How does each score that needs no network relate to what people and large models said of the same records?

    python benchmarks/judgements.py --data FOLDER [--alpaca 4000] [--smoke] [--page docs/scores.md]

Three published judgements: 498 records rated by a model on seven axes (Spearman), 1,150 records before and after an
expert's revision (share of pairs whose revision has the larger score), and what three published selections kept of
Alpaca (AUC; and the share of right pairs at equal response length). Every score stands beside length and chance;
intervals are 95 % bootstrap intervals over records or pairs. Whatever comes out is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesift import IFD, Failure, Message, Record, ReversedIFD, Score, TransformersModel

Values = npt.NDArray[np.float64]
RESULTS = Path(__file__).parent / "results" / "judgements.json"
DRAWS = 1000
"""Bootstrap draws."""
MARKS = ("<!-- judgements: begin -->", "<!-- judgements: end -->")
"""What stands around the table in the page."""


@dataclass(frozen=True)
class Found:
    """A statistic, its 95 % bootstrap interval, and over how many records or pairs."""

    value: float
    low: float
    high: float
    over: int

    def told(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f})"


def as_record(id: str, instruction: str, given: str, output: str) -> Record:
    """A record as the Alpaca reader makes it."""
    ask = f"{instruction}\n\n{given}" if given.strip() else instruction
    return Record(id, (Message("user", ask), Message("assistant", output)), {"input": given} if given.strip() else {})


def scores_of(records: Sequence[Record], student: TransformersModel) -> dict[str, Values]:
    """Every score by name, larger first in the records' order; not a number where there is none."""
    ifd = scored(IFD(student=student), records)
    reversed_ifd = scored(ReversedIFD(student=student), records)
    chance = np.random.default_rng(0)
    return {
        "IFD, ratio of perplexities": part(ifd, "ifd_ppl"),
        "IFD, ratio of losses": part(ifd, "ifd_loss"),
        "r-IFD (reversed)": part(reversed_ifd, "ifd_ppl"),
        "perplexity of the response, given its instruction": part(ifd, "conditioned"),
        "perplexity of the response alone": part(ifd, "direct"),
        "length of the response": np.array([float(len(r.response)) for r in records]),
        "random": chance.random(len(records)),
    }


def scored(scorer: IFD | ReversedIFD, records: Sequence[Record]) -> list[Score | Failure]:
    """Scores in order, a note of the time on the terminal."""
    began, found = time.monotonic(), []
    for start in range(0, len(records), 128):
        found += scorer(records[start : start + 128])
    print(f"{scorer.kind}: {len(records)} records, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def part(scores: Sequence[Score | Failure], name: str) -> Values:
    return np.array([s.parts.get(name, math.nan) if isinstance(s, Score) else math.nan for s in scores])


def midranks(values: Values) -> Values:
    """Ranks from 1, equal values sharing the middle one."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[where]


def spearman(a: Values, b: Values) -> float:
    x, y = midranks(a) - (len(a) + 1) / 2, midranks(b) - (len(b) + 1) / 2
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan


def auc(values: Values, chosen: Values) -> float:
    """Chance that a chosen record has the larger value than one that was not; a tie counts half."""
    inside = int(chosen.sum())
    outside = len(chosen) - inside
    if not inside or not outside:
        return math.nan
    return float((midranks(values)[chosen > 0].sum() - inside * (inside + 1) / 2) / (inside * outside))


def share(better: Values, worse: Values) -> float:
    """Share of pairs whose first value is the larger; a tie counts half."""
    return float(np.where(better > worse, 1.0, np.where(better == worse, 0.5, 0.0)).mean())


def bootstrapped(statistic: Callable[[Values, Values], float], a: Values, b: Values) -> Found:
    """The statistic of what is sound on both sides, with its interval."""
    sound = np.isfinite(a) & np.isfinite(b)
    a, b = a[sound], b[sound]
    rng = np.random.default_rng(0)
    drawn = [statistic(a[n], b[n]) for n in (rng.integers(0, len(a), len(a)) for _ in range(DRAWS))]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Found(statistic(a, b), float(low), float(high), len(a))


def judged_quality(data: Path, student: TransformersModel, most: int) -> dict[str, dict[str, Found]]:
    """Spearman with the mean of a judge's seven ratings, and with three of them."""
    folder = data / "judged_quality"
    rows = lines(folder / "oda_judged.jsonl")[:most]
    ratings = {row["id"]: row["scores"]["QA"]["All"] for row in lines(folder / "oda_judged.scores.jsonl")}
    found = scores_of([as_record(str(r["id"]), r["instruction"], "", r["output"]) for r in rows], student)
    axes = {"mean of 7": sorted(ratings[rows[0]["id"]])} | {
        n: [n] for n in ("Correctness", "Completeness", "Complexity")
    }
    told = {
        f"judge: {axis}": np.array([np.mean([ratings[r["id"]][name] for name in names]) for r in rows], np.float64)
        for axis, names in axes.items()
    }
    return {name: {axis: bootstrapped(spearman, v, t) for axis, t in told.items()} for name, v in found.items()}


def expert_revisions(data: Path, student: TransformersModel, most: int) -> dict[str, dict[str, Found]]:
    """Share of pairs in which the revised record has the larger score."""
    rows = json.loads((data / "expert_revisions" / "coachlm_expert_revisions.json").read_text("utf-8"))[:most]
    sides = [
        [as_record(str(n), *(str(r.get(f"{side} {k}") or "") for k in ("Instruction", "Input", "Response")))
         for n, r in enumerate(rows)]
        for side in ("Revised", "Raw")
    ]  # fmt: skip
    both = scores_of([*sides[0], *sides[1]], student)
    half = len(rows)
    return {name: {"revised above raw": bootstrapped(share, v[:half], v[half:])} for name, v in both.items()}


def alpaca_selected(data: Path, student: TransformersModel, most: int) -> dict[str, dict[str, Found]]:
    """AUC of being kept by AlpaGasus' two ratings and by Cherry; and pairs of equal length for Cherry."""
    rows = json.loads((data / "alpaca" / "alpaca_sample.json").read_text("utf-8"))
    numbers = sorted(random.Random(0).sample(range(len(rows)), min(most, len(rows))))
    records = [as_record(str(n), rows[n]["instruction"], rows[n]["input"], rows[n]["output"]) for n in numbers]
    found = scores_of(records, student)
    folder = data / "alpaca_selected"
    files = {"Claude rating": "alpagasus_claude_t45.json", "helpfulness rating": "alpagasus_helpfulness_t45.json"}
    told = {f"kept by {name}": kept_by(folder / file, [rows[n] for n in numbers]) for name, file in files.items()}
    cherry = {e["row"]: float(e["selected"]) for e in json.loads((folder / "cherry_in_alpaca_sample.json").read_text())}
    told["kept by Cherry"] = np.array([cherry.get(n, math.nan) for n in numbers])
    first, second = equal_length(records, told["kept by Cherry"])
    table = {name: {axis: bootstrapped(auc, v, t) for axis, t in told.items()} for name, v in found.items()}
    for name, values in found.items():
        table[name]["kept by Cherry, equal length"] = bootstrapped(share, values[first], values[second])
    return table


def kept_by(file: Path, rows: Sequence[Mapping[str, str]]) -> Values:
    def key(row: Mapping[str, str]) -> tuple[str, ...]:
        return tuple(row[name].strip() for name in ("instruction", "input", "output"))

    there = {key(row) for row in json.loads(file.read_text("utf-8"))}
    return np.array([float(key(row) in there) for row in rows])


def equal_length(records: Sequence[Record], chosen: Values) -> tuple[list[int], list[int]]:
    """Pairs of a chosen and a passed-over record whose responses differ by at most 3 % in length; none twice."""
    rng = random.Random(0)
    free = sorted((n for n in range(len(records)) if chosen[n] == 0 and records[n].response.strip()),
                  key=lambda n: len(records[n].response))  # fmt: skip
    pairs: list[tuple[int, int]] = []
    inside = [n for n in range(len(records)) if chosen[n] == 1]
    for one in rng.sample(inside, len(inside)):
        size = len(records[one].response)
        near = [n for n in free if abs(len(records[n].response) - size) <= 0.03 * size]
        if near:
            other = rng.choice(near)
            free.remove(other)
            pairs.append((one, other))
    return [a for a, _ in pairs], [b for _, b in pairs]


def lines(file: Path) -> list[dict[str, Any]]:  # Any: JSON
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def as_table(table: Mapping[str, Mapping[str, Found]]) -> str:
    """Markdown: a row per score, a column per judgement."""
    axes = list(next(iter(table.values())))
    over = {axis: max(row[axis].over for row in table.values()) for axis in axes}
    head = f"| score | {' | '.join(f'{axis} (n = {over[axis]:,})' for axis in axes)} |"
    rule = f"| --- |{' --- |' * len(axes)}"
    rows = [f"| {name} | {' | '.join(found[axis].told() for axis in axes)} |" for name, found in table.items()]
    return "\n".join([head, rule, *rows])


HEADS = {
    "judged_quality": "Spearman correlation with a model's ratings of instruction and response",
    "expert_revisions": "Share of pairs in which the record an expert revised has the larger score than the raw one",
    "alpaca_selected": "AUC of being kept by a published selection of Alpaca; last column: share of right pairs",
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, required=True, help="folder of the published data sets")
    words.add_argument("--model", default="embedded", help="a folder, or the scorer of the package")
    words.add_argument("--alpaca", type=int, default=4000, help="records drawn from Alpaca")
    words.add_argument("--page", type=Path, help="the page whose table is written anew")
    words.add_argument("--smoke", action="store_true", help="30 records of each, and nothing is written down")
    said = words.parse_args()
    student = TransformersModel(name=said.model)
    most = 30 if said.smoke else sys.maxsize
    tables = {
        "judged_quality": judged_quality(said.data, student, most),
        "expert_revisions": expert_revisions(said.data, student, most),
        "alpaca_selected": alpaca_selected(said.data, student, 300 if said.smoke else said.alpaca),
    }
    text = "\n\n".join(f"{HEADS[name]}:\n\n{as_table(table)}" for name, table in tables.items())
    print(text)
    if said.smoke:
        return
    plain = {n: {s: {a: vars(f) for a, f in row.items()} for s, row in t.items()} for n, t in tables.items()}
    RESULTS.write_text(json.dumps({"model": student.identity(), "draws": DRAWS, "tables": plain}, indent=1) + "\n")
    if said.page:
        begin, end = (re.escape(mark) for mark in MARKS)
        page = re.sub(f"(?s){begin}.*{end}", lambda _: f"{MARKS[0]}\n{text}\n{MARKS[1]}", said.page.read_text("utf-8"))
        said.page.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
