"""Star-Agents, told whole: agents of planted quality over real seeds, held against a simulation, bills and kills."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import pyarrow.parquet as pq
import pytest

from harness import kill, stars
from harness.halfway import killed
from harness.interrupting import Interrupts
from harness.stars import QUALITY, Planted, Umpire, Weigher, cast
from harness.tiny import MakeTiny
from tunesift import Failure, Local, Run, Span, TargetLoss, TransformersModel, read_dataset

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _counted_from_zero() -> None:
    for counted in (Planted.asked, Weigher.spans, Umpire.asked):
        counted.clear()


def seeds(shared: Path, home: Path, count: int) -> Path:
    """A home with so many real seeds, short enough for tiny models."""
    rows = json.loads((shared / "alpaca" / "alpaca_sample.json").read_text("utf-8"))
    short = [row for row in rows if row["output"].strip() and len(row["instruction"] + row["input"]) <= 120]
    home.mkdir(parents=True, exist_ok=True)
    (home / "input.jsonl").write_text("".join(json.dumps(row) + "\n" for row in short[:count]), "utf-8")
    return home


def rows_of(home: Path, name: str) -> list[dict[str, object]]:
    return list(pq.read_table(home / "run" / "tables" / f"{name}.parquet").to_pylist())


def probabilities(home: Path) -> dict[str, float]:
    return {str(row["pair"]): float(str(row["probability"])) for row in rows_of(home, "pairs")}


# --- what a run must come to, in other words ----------------------------------------------------------------------


def simulated(start: int, count: int, faithful: bool) -> dict[str, float]:
    """The urn alone, seed by seed: two different agents drawn by p, each worth 1 with its quality, then p anew.

    All agents' gaps are the same and larger than the base's, so that difficulty is 1 and worth is the judge's alone.
    Where not all are judged, the second is not once the first has won, and is worth 0.
    """
    together = 1 if faithful else 16
    chance, p = random.Random(start), dict.fromkeys(QUALITY, 1 / len(QUALITY))
    for _ in range(count // together):
        frozen, rewards = dict(p), []
        for _ in range(together):
            first = chance.choices(list(frozen), list(frozen.values()))[0]
            others = {name: share for name, share in frozen.items() if name != first}
            second = chance.choices(list(others), list(others.values()))[0]
            won = [name for name in (first, second) if chance.random() < QUALITY[name]]
            rewards.append(won if faithful else won[:1])
        for won in rewards:
            p = {name: share + 5 / count * (name in won) for name, share in p.items()}
            p = {name: share / sum(p.values()) for name, share in p.items()}
    return p


@dataclass(frozen=True)
class Ledger:
    """What the parts of a run say was measured, by candidate."""

    small: Mapping[str, float | None]
    large: Mapping[str, float | None]
    level: Mapping[str, int]

    @classmethod
    def of(cls, home: Path) -> Ledger:
        levels = {
            id: int(str(told["text"]).partition("level=")[2][0]) for id, told in outcomes(home, "respond*").items()
        }
        ifds = [{id: ifd_of(told) for id, told in outcomes(home, f"ifd-{size}").items()} for size in ("small", "large")]
        return cls(ifds[0], ifds[1], levels)

    def by_seed(self) -> dict[str, list[str]]:
        """Candidates of each seed, those of the base first, in the order they were written."""
        found = defaultdict(list)
        for id in self.small:
            found[id.partition("~")[0]].append(id)
        return found

    def gap(self, id: str) -> float:
        """What the pair of scorers says; 0 for what may not count."""
        small, large = self.small[id], self.large.get(id)
        return 0.0 if small is None or large is None or small >= 1 else max(0.0, small - large)


def ifd_of(told: Mapping[str, object]) -> float | None:
    """exp of the mean loss after the instruction, over exp of that alone."""
    parts = told["parts"]
    if told["value"] is None:
        return None if not isinstance(parts, Mapping) or "ifd_ppl" not in parts else float(parts["ifd_ppl"])
    assert isinstance(parts, Mapping)
    return math.exp(parts["conditioned"]) / math.exp(parts["direct"])


def outcomes(home: Path, stage: str) -> dict[str, Mapping[str, object]]:
    """What came of every item of the stages of this name, in the order in which it was asked for."""
    rows = [row for part in sorted((home / "run" / "stages").glob(f"{stage}/part-*.parquet"))
            for row in pq.read_table(part).to_pylist()]  # fmt: skip
    return {row["id"]: json.loads(row["outcome"]) for row in sorted(rows, key=lambda row: row["row"])}


def replayed(ledger: Ledger, count: int) -> dict[str, float]:
    """Probabilities made anew from what was measured, where everybody was judged: eq. 5 to 8, naively."""
    p = dict.fromkeys(QUALITY, 1 / len(QUALITY))
    for own in ledger.by_seed().values():
        gaps = {id: ledger.gap(id) for id in own}
        most = max(gaps.values())
        for id in own:
            if "~base~" not in id:
                win = 0.5 * (1 + (ledger.level[id] > 1) - (ledger.level[id] < 1))
                p[id.rpartition("~")[2]] += 5 / count * win * (gaps[id] / most if most > 1e-9 else 0)
        p = {name: share / sum(p.values()) for name, share in p.items()}
    return p


def judged_by_hand(ledger: Ledger) -> int:
    """Candidates that a judge is asked about where none is asked about in vain: hardest first, while it can win."""
    count = 0
    for own in ledger.by_seed().values():
        gaps = {id: ledger.gap(id) for id in own}
        most = max(gaps.values())
        if most <= 1e-9:
            continue
        base = next(id for id in own if "~base~" in id)
        best = (0.5 * gaps[base] / most, 0.5)
        place = {id: list(QUALITY).index(id.rpartition("~")[2]) for id in own if id != base}
        for id in sorted(place, key=lambda id: (-gaps[id], place[id])):  # of equal ones the lower pair
            if gaps[id] > 0 and (gaps[id] / most, 1.0) > best:
                count += 1
                worth = 0.5 * (1 + (ledger.level[id] > 1) - (ledger.level[id] < 1))
                best = max(best, (worth * gaps[id] / most, worth))
    return count


# --- scripted scorers: what is planted grows, and costs what it may -----------------------------------------------


def check_costs(home: Path, count: int, faithful: bool) -> None:
    """Calls and passes are those of the cost formula where all are judged, else what a naive count comes to."""
    ledger = Ledger.of(home)
    assert Counter(who for who, _ in Planted.asked) == Counter(id.rpartition("~")[2] for id in ledger.level)
    assert len(Planted.asked) == 3 * count
    assert Weigher.spans.count(False) == 2 * 3 * count
    usable = sum(small is not None and small < 1 for small in ledger.small.values())
    assert Weigher.spans.count(True) == 2 * (3 * count if faithful else usable)
    assert len(Umpire.asked) == 2 * (2 * count if faithful else judged_by_hand(ledger))


@pytest.mark.parametrize("faithful", [True, False])
def test_over_some_real_seeds_costs_and_probabilities_are_those_worked_out_by_hand(
    shared: Path, tmp_path: Path, faithful: bool
) -> None:
    home = seeds(shared, tmp_path, 40)
    stars.live(cast(faithful=faithful), home)
    check_costs(home, 40, faithful)
    if faithful:
        assert probabilities(home) == pytest.approx(replayed(Ledger.of(home), 40), abs=1e-6)
    assert len((home / "output.jsonl").read_text().splitlines()) == 40


def test_a_run_that_is_interrupted_again_and_again_comes_to_the_same_bytes(shared: Path, tmp_path: Path) -> None:
    whole, broken = (seeds(shared, tmp_path / name, 48) for name in ("whole", "broken"))
    stars.live(cast(), whole)
    calls = len(Planted.asked)
    data = read_dataset(broken / "input.jsonl")
    for chunks in (1, 4, 6, 3, 7):
        with pytest.raises(KeyboardInterrupt), Run(broken / "run", Local(chunk=7), seed=3, max_failures=1.0,
                                                   progress=Interrupts(chunks)) as run:  # fmt: skip
            cast()(data, run)
    stars.live(cast(), broken)
    assert len(Planted.asked) <= 2 * calls + 5 * 7
    assert kill.result(broken) == kill.result(whole)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"near": 0}, {}, {"faithful": True, "near": 0}])
def test_over_a_thousand_real_seeds_the_good_agents_probability_rises_as_simulated(
    shared: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    home = seeds(shared, tmp_path, 1_000)
    stars.live(cast(**settings), home)
    found = probabilities(home)
    check_costs(home, 1_000, "faithful" in settings)
    many = [simulated(start, 1_000, "faithful" in settings) for start in range(40)]
    if "near" in settings:  # the simulation knows no memory bank
        for name in QUALITY:
            finals = [p[name] for p in many]
            assert found[name] == pytest.approx(mean(finals), abs=4 * stdev(finals)), name
    assert found["good"] > 1.5 / len(QUALITY)
    assert found["poor"] < 0.5 / len(QUALITY)
    assert max(found, key=found.__getitem__) == "good"


# --- tiny scorers, and twenty kills ---------------------------------------------------------------------------------


def expected(worth: Mapping[str, float], count: int) -> dict[str, float]:
    """Mean-field: each seed adds beta times the chance of being drawn times the mean worth, then all sum to 1."""
    p = dict.fromkeys(worth, 1 / len(worth))
    for _ in range(count):
        drawn = {a: p[a] + sum(p[b] * p[a] / (1 - p[b]) for b in p if b != a) for a in p}
        p = {name: p[name] + 5 / count * drawn[name] * worth[name] for name in p}
        p = {name: share / sum(p.values()) for name, share in p.items()}
    return p


def mean_worth(ledger: Ledger) -> dict[str, float]:
    """What each agent's candidates were worth on average, everybody being judged."""
    found = defaultdict[str, list[float]](list)
    for own in ledger.by_seed().values():
        most = max(ledger.gap(id) for id in own)
        for id in own:
            win = 0.5 * (1 + (ledger.level[id] > 1) - (ledger.level[id] < 1))
            found[id.rpartition("~")[2]].append(win * ledger.gap(id) / most if most > 1e-9 else 0.0)
    return {name: mean(found[name]) for name in QUALITY}


@dataclass(frozen=True, kw_only=True)
class Counted(TransformersModel):
    """Real weights, and how many spans they were given."""

    large: bool = False

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        Weigher.spans.extend([self.large] * len(spans))
        return super().loss(spans)


@pytest.mark.slow
def test_two_tiny_scorers_over_a_thousand_real_seeds_give_what_their_losses_and_the_judge_come_to(
    shared: Path, tmp_path: Path, make_tiny: MakeTiny
) -> None:
    home = seeds(shared, tmp_path, 1_000)
    small, large = Counted(name=str(make_tiny())), Counted(name=str(make_tiny(seed=1, layers=4)), large=True)
    stars.live(cast(faithful=True, round_size=1, near=0, small=small, large=large), home)
    check_costs(home, 1_000, True)
    found, ledger = probabilities(home), Ledger.of(home)
    assert found == pytest.approx(replayed(ledger, 1_000), abs=1e-6)
    assert found == pytest.approx(expected(mean_worth(ledger), 1_000), abs=0.06)
    assert max(found, key=found.__getitem__) == "good"


@pytest.mark.slow
def test_twenty_kills_of_a_run_over_a_thousand_real_seeds_change_no_byte(
    shared: Path, tmp_path: Path, make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), os.environ["PYTHONPATH"]]))
    scorers = str(make_tiny()), str(make_tiny(seed=1, layers=4))
    whole, broken = (seeds(shared, tmp_path / name, 1_000) for name in ("whole", "broken"))

    def command(home: Path, life: int) -> list[str]:
        return [sys.executable, "-m", "harness.stars", str(home), str(life), *scorers]

    subprocess.run(command(whole, 0), check=True, capture_output=True, timeout=1_200)
    draw = random.Random(20)
    kills = sum(killed(command(broken, life), broken / "run", draw.randint(1, 400)) for life in range(20))
    assert kills == 20
    subprocess.run(command(broken, 20), check=True, capture_output=True, timeout=1_200)
    assert kill.result(broken) == kill.result(whole)
    assert kill.sealed(broken) == kill.sealed(whole)
    calls = Counter(line.split()[0] for line in (tmp_path / "calls.log").read_text().splitlines())
    assert calls["whole"] == 3_000
    assert 3_000 <= calls["broken"] <= 3_000 + 20 * 64  # at most a chunk was asked for again after each
    assert len(rows_of(broken, "pairs")) == len(QUALITY)
