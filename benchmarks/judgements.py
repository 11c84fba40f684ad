"""How does each score that needs no network relate to what people and large models said of the same records?

    python benchmarks/judgements.py --data FOLDER [--alpaca 4000] [--rated 1000] [--pairs 500] [--memory FOLDER]
                                    [--smoke] [--page docs/scores.md]

Three published judgements: 498 records rated by a model on seven axes (Spearman), 1,150 records before and after an
expert's revision (share of pairs whose revision has the larger score), and what three published selections kept of
Alpaca (AUC; and the share of right pairs at equal response length). Every score stands beside length and chance;
intervals are 95 % bootstrap intervals over records or pairs. SelectIT costs more than twice as much as IFD: of the
revisions and of Alpaca it rates a random part, and of Alpaca all pairs of equal length besides; n stands in its cells.
Whatever comes out is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tunesift import IFD, Combined, Failure, Message, Record, ReversedIFD, Score, Scorer, SelectIT, TransformersModel
from tunesift.arrays import bands_of, middle_ranks
from tunesift.methods.selectit import Rate, Rated, Settle
from tunesift.scoring.combined import condition
from tunesift.scoring.deciding import ranked

Values = npt.NDArray[np.float64]
Parts = Sequence[Mapping[str, float]]
"""What a scorer says of each record; nothing where there is no score."""
RESULTS = Path(__file__).parent / "results" / "judgements.json"
DRAWS = 1000
"""Bootstrap draws."""
MARKS = ("<!-- judgements: begin -->", "<!-- judgements: end -->")
"""What stands around the table in the page."""
WEIGHTS = {"ifd": 1.0, "reversed-ifd": -1.0}
"""As in `recipes/combined.yaml`: a smaller r-IFD is better."""
RULES = {
    "IFD and r-IFD, rank sum": Combined(weights=WEIGHTS),
    "IFD and r-IFD, z sum": Combined(weights=WEIGHTS, rule="z-sum"),
    "IFD and r-IFD, product": Combined(weights=WEIGHTS, rule="product"),
    "IFD, place in its band of length": Combined(weights={"ifd": 1.0}, length_bands=10),
    "recipe `combined`": Combined(weights=WEIGHTS, where=("ifd < 1",), length_bands=10),
}
SELECTIT = "SelectIT, sentence level"


@dataclass(frozen=True)
class Found:
    """A statistic, its 95 % bootstrap interval, and over how many records or pairs."""

    value: float
    low: float
    high: float
    over: int

    def told(self, usual: int | None = None) -> str:
        """With the number where another is usual."""
        number = "" if usual in (None, self.over) else f", n = {self.over:,}"
        return f"{self.value:.2f} ({self.low:.2f} to {self.high:.2f}){number}"


def as_record(id: str, instruction: str, given: str, output: str) -> Record:
    """A record as the Alpaca reader makes it."""
    ask = f"{instruction}\n\n{given}" if given.strip() else instruction
    return Record(id, (Message("user", ask), Message("assistant", output)), {"input": given} if given.strip() else {})


@dataclass(frozen=True, kw_only=True)
class Rating(Scorer):
    """SelectIT at the sentence level, as its recipe has it, with one model."""

    kind: Literal["selectit"] = "selectit"
    student: TransformersModel

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        own = SelectIT()
        rate = Rate(model=self.student, prompts=own.prompts, ratings=own.ratings, cue=own.cue, layout=own.layout)
        settle = Settle(alpha=own.alpha, parameters=(1.0,), min_mass=own.min_mass)
        rated = zip(chunk, rate(chunk), strict=True)
        return [r if isinstance(r, Failure) else settle([Rated(record.id, (r,))])[0] for record, r in rated]


@dataclass(frozen=True)
class Bench:
    """What scores, of how many records and pairs SelectIT is asked, and what it answered."""

    student: TransformersModel
    rated: int
    pairs: int
    memory: Path | None = None
    answers: dict[str, dict[str, float]] = field(default_factory=dict)

    def scores_of(self, name: str, records: Sequence[Record], asked: Sequence[int]) -> dict[str, Values]:
        """Every score by name in the records' order; not a number where there is none, or SelectIT was not asked."""
        ifd = scored(IFD(student=self.student), records, self.memory)
        reversed_ifd = scored(ReversedIFD(student=self.student), records, self.memory)
        ratings = scored(Rating(student=self.student), [records[n] for n in asked], self.memory)
        self.answers[name] = answers(ratings)
        selectit = np.full(len(records), math.nan)
        selectit[list(asked)] = part(ratings, "sentence")
        alone = {"ifd": part(ifd, "ifd_ppl"), "reversed-ifd": part(reversed_ifd, "ifd_ppl")}
        size = np.array([float(len(r.response)) for r in records])
        return {
            "IFD, ratio of perplexities": alone["ifd"],
            "IFD, ratio of losses": part(ifd, "ifd_loss"),
            "r-IFD (reversed)": alone["reversed-ifd"],
            "perplexity of the response, given its instruction": part(ifd, "conditioned"),
            "perplexity of the response alone": part(ifd, "direct"),
            SELECTIT: selectit,
            **{said: by_rule(rule, alone, size) for said, rule in RULES.items()},
            "length of the response": size,
            "random": np.random.default_rng(0).random(len(records)),
        }


def answers(ratings: Parts) -> dict[str, float]:
    """What the rater was like: its probability on all ratings together, and how often it says 1 to all prompts."""
    mass = part(ratings, "rating_mass")
    mass = mass[np.isfinite(mass)]
    said = [{row[f"rating_{n}"] for n in range(1, 6)} for row in ratings if row]
    low, middle, high = np.percentile(mass, [5, 50, 95])
    flagged = float((mass < SelectIT().min_mass).mean())
    ones = sum(one == {1.0} for one in said) / len(said)
    return {"records": len(said), "low": low, "median": middle, "high": high, "flagged": flagged, "all ones": ones}


def by_rule(rule: Combined, columns: Mapping[str, Values], size: Values) -> Values:
    """What a combined selector orders by; in bands, the share of the band that comes after; -1 if a condition fails."""
    used = {name: columns[name] for name in rule.names}
    sound = np.all([np.isfinite(values) for values in used.values()], axis=0)
    left = sound & np.all([sound, *(c.holds(used[c.name]) for c in map(condition, rule.where))], axis=0)
    worth = rule._worth(used, left)
    if rule.length_bands is not None:
        codes = bands_of(size, rule.length_bands)
        of = np.bincount(codes, ~np.isnan(worth))
        worth = np.where(np.isnan(worth), np.nan, 1 - ranked(worth, codes) / np.maximum(1, of[codes]))
    return np.where(sound & ~left, -1.0 if rule.where else np.nan, worth)


def scored(scorer: IFD | ReversedIFD | Rating, records: Sequence[Record], memory: Path | None = None) -> Parts:
    """Parts of the scores in order, a note of the time on the terminal; from the folder what is there already."""
    asked = repr((scorer, scorer.student.identity(), list(records))).encode()
    file = memory / f"{scorer.kind}-{hashlib.sha256(asked).hexdigest()[:16]}.json" if memory else None
    if file and file.exists():
        return json.loads(file.read_text())
    began, found = time.monotonic(), []
    for start in range(0, len(records), 128):
        found += [dict(s.parts) if isinstance(s, Score) else {} for s in scorer(records[start : start + 128])]
    print(f"{scorer.kind}: {len(records)} records, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found))
    return found


def part(scores: Parts, name: str) -> Values:
    return np.array([s.get(name, math.nan) for s in scores])


def drawn(most: int, count: int) -> list[int]:
    """Numbers below `count`, `most` of them or all, by chance, in order."""
    return sorted(random.Random(0).sample(range(count), min(most, count)))


def spearman(a: Values, b: Values) -> float:
    x, y = middle_ranks(a) - len(a) / 2, middle_ranks(b) - len(b) / 2
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan


def auc(values: Values, chosen: Values) -> float:
    """Chance that a chosen record has the larger value than one that was not; a tie counts half."""
    inside = int(chosen.sum())
    outside = len(chosen) - inside
    if not inside or not outside:
        return math.nan
    return float((middle_ranks(values)[chosen > 0].sum() - inside * inside / 2) / (inside * outside))


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


def judged_quality(data: Path, bench: Bench, most: int) -> dict[str, dict[str, Found]]:
    """Spearman with the mean of a judge's seven ratings, and with three of them."""
    folder = data / "judged_quality"
    rows = lines(folder / "oda_judged.jsonl")[:most]
    ratings = {row["id"]: row["scores"]["QA"]["All"] for row in lines(folder / "oda_judged.scores.jsonl")}
    records = [as_record(str(r["id"]), r["instruction"], "", r["output"]) for r in rows]
    found = bench.scores_of("judged_quality", records, range(len(records)))
    axes = {"mean of 7": sorted(ratings[rows[0]["id"]])} | {
        n: [n] for n in ("Correctness", "Completeness", "Complexity")
    }
    told = {
        f"judge: {axis}": np.array([np.mean([ratings[r["id"]][name] for name in names]) for r in rows], np.float64)
        for axis, names in axes.items()
    }
    return {name: {axis: bootstrapped(spearman, v, t) for axis, t in told.items()} for name, v in found.items()}


def expert_revisions(data: Path, bench: Bench, most: int) -> dict[str, dict[str, Found]]:
    """Share of pairs in which the revised record has the larger score."""
    rows = json.loads((data / "expert_revisions" / "coachlm_expert_revisions.json").read_text("utf-8"))[:most]
    sides = [
        [as_record(str(n), *(str(r.get(f"{side} {k}") or "") for k in ("Instruction", "Input", "Response")))
         for n, r in enumerate(rows)]
        for side in ("Revised", "Raw")
    ]  # fmt: skip
    half = len(rows)
    asked = drawn(bench.pairs, half)
    both = bench.scores_of("expert_revisions", [*sides[0], *sides[1]], [*asked, *(half + n for n in asked)])
    return {name: {"revised above raw": bootstrapped(share, v[:half], v[half:])} for name, v in both.items()}


def alpaca_selected(data: Path, bench: Bench, most: int) -> dict[str, dict[str, Found]]:
    """AUC of being kept by AlpaGasus' two ratings and by Cherry; and pairs of equal length for Cherry."""
    rows = json.loads((data / "alpaca" / "alpaca_sample.json").read_text("utf-8"))
    numbers = drawn(most, len(rows))
    records = [as_record(str(n), rows[n]["instruction"], rows[n]["input"], rows[n]["output"]) for n in numbers]
    folder = data / "alpaca_selected"
    files = {"Claude rating": "alpagasus_claude_t45.json", "helpfulness rating": "alpagasus_helpfulness_t45.json"}
    told = {f"kept by {name}": kept_by(folder / file, [rows[n] for n in numbers]) for name, file in files.items()}
    cherry = {e["row"]: float(e["selected"]) for e in json.loads((folder / "cherry_in_alpaca_sample.json").read_text())}
    told["kept by Cherry"] = np.array([cherry.get(n, math.nan) for n in numbers])
    first, second = equal_length(records, told["kept by Cherry"])
    asked = drawn(bench.rated, len(records))
    found = bench.scores_of("alpaca_selected", records, sorted({*asked, *first, *second}))
    by_chance = found | {SELECTIT: np.where(np.isin(np.arange(len(records)), asked), found[SELECTIT], math.nan)}
    table = {name: {axis: bootstrapped(auc, v, t) for axis, t in told.items()} for name, v in by_chance.items()}
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
    rows = [f"| {n} | {' | '.join(f[axis].told(over[axis]) for axis in axes)} |" for n, f in table.items()]
    return "\n".join([head, rule, *rows])


def as_answers(found: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: what SelectIT's rater was like, a row per data set."""
    head = "| data set | records | rating mass, median (5 % to 95 %) | mass below 0.01 | rated 1 after all prompts |"
    rows = [
        f"| {name.replace('_', ' ')} | {f['records']:,} | {f['median']:.4f} ({f['low']:.4f} to {f['high']:.4f}) | "
        f"{f['flagged']:.0%} | {f['all ones']:.0%} |"
        for name, f in found.items()
    ]
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *rows])


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
    words.add_argument("--rated", type=int, default=1000, help="of these, records that SelectIT rates")
    words.add_argument("--pairs", type=int, default=500, help="pairs of revisions that SelectIT rates")
    words.add_argument("--memory", type=Path, help="folder that keeps every record's scores from run to run")
    words.add_argument("--page", type=Path, help="the page whose table is written anew")
    words.add_argument("--smoke", action="store_true", help="30 records of each, and nothing is written down")
    said = words.parse_args()
    bench = Bench(TransformersModel(name=said.model), said.rated, said.pairs, said.memory)
    most = 30 if said.smoke else sys.maxsize
    tables = {
        "judged_quality": judged_quality(said.data, bench, most),
        "expert_revisions": expert_revisions(said.data, bench, most),
        "alpaca_selected": alpaca_selected(said.data, bench, 300 if said.smoke else said.alpaca),
    }
    text = "\n\n".join(f"{HEADS[name]}:\n\n{as_table(table)}" for name, table in tables.items())
    text += f"\n\nWhat the scorer answers as SelectIT's rater:\n\n{as_answers(bench.answers)}"
    print(text)
    if said.smoke:
        return
    plain = {n: {s: {a: vars(f) for a, f in row.items()} for s, row in t.items()} for n, t in tables.items()}
    identity = bench.student.identity()
    told = {"model": identity, "draws": DRAWS, "tables": plain, "selectit": bench.answers}
    RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    if said.page:
        begin, end = (re.escape(mark) for mark in MARKS)
        page = re.sub(f"(?s){begin}.*{end}", lambda _: f"{MARKS[0]}\n{text}\n{MARKS[1]}", said.page.read_text("utf-8"))
        said.page.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
