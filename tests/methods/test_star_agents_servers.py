"""Star-Agents whose agents are behind two real servers, one of which fails: for some calls, for a while, for good."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from faultserver.client import FaultServer, serving
from faultserver.fixtures import FastClock
from harness import kill, stars
from harness.planting import BASE, QUALITY
from tunesift import Agent, HttpModel, ModelUnavailable, Run, StarAgents, read_dataset
from tunesift.models import endpoint
from tunesift.running.local import Local
from tunesift.running.progress import Progress

SECOND = ("weak", "poor")
"""Agents that the second server answers for."""
DOWN = {"do": [{"status": 500}]}
EVEN: dict[str, Any] = {"near": 0, "rate": 0.001}
"""Settings with which every agent goes on being drawn about as often as any other."""


@pytest.fixture
def second(tmp_path: Path) -> Iterator[FaultServer]:
    with serving(tmp_path) as running:
        yield running


def behind(first: FaultServer, second: FaultServer, at_second: Sequence[str] = SECOND, **settings: Any) -> StarAgents:
    """The method with its agents behind two servers; judge and scorers go by rule."""
    agents = tuple(
        Agent(name=name, model=HttpModel(url=(second if name in at_second else first).url, model=name, concurrency=4))
        for name in QUALITY
    )
    return stars.cast(agents=agents, **settings)


def seeds(shared: Path, home: Path, count: int = 60) -> Path:
    """A home with real seeds, each with a mark by which the servers know it."""
    rows = json.loads((shared / "alpaca" / "alpaca_sample.json").read_text("utf-8"))
    short = [row for row in rows if row["output"].strip() and len(row["instruction"] + row["input"]) <= 120]
    marked = [row | {"instruction": f"{row['instruction']} row={n}"} for n, row in enumerate(short[:count])]
    home.mkdir(parents=True)
    (home / "input.jsonl").write_text("".join(json.dumps(row) + "\n" for row in marked), "utf-8")
    return home


def told_of(home: Path) -> dict[str, tuple[int, int, float | None]]:
    """Of each agent, by the table: calls, those that came to nothing, and their share."""
    rows = pq.read_table(home / "run" / "tables" / "agents.parquet").to_pylist()
    return {row["agent"]: (row["calls"], row["came_to_nothing"], row["share_lost"]) for row in rows}


def counted(home: Path) -> dict[str, tuple[int, int]]:
    """The same by what the journal holds of every call."""
    calls, lost = Counter[str](), Counter[str]()
    for part in (home / "run" / "stages" / "respond").glob("part-*.parquet"):
        for row in pq.read_table(part).to_pylist():
            calls[row["id"].rpartition("~")[2]] += 1
            lost[row["id"].rpartition("~")[2]] += row["failure"] is not None
    return {name: (calls[name], lost[name]) for name in QUALITY}


def check_none_is_lost(home: Path, count: int = 60) -> None:
    """Every seed has something better than nothing in the output, and the table tells what the journal holds."""
    decisions = pq.read_table(home / "run" / "decisions.parquet").to_pylist()
    assert Counter(row["action"] for row in decisions) == {"replace": count}
    written = [json.loads(line) for line in (home / "output.jsonl").read_text().splitlines()]
    assert len(written) == count
    assert all(row["output"].startswith("level=") for row in written)
    told = told_of(home)
    assert {name: told[name][:2] for name in QUALITY} == counted(home)
    for calls, lost, share in told.values():
        assert share == (round(lost / calls, 4) if calls else None)


def test_agents_behind_two_servers_write_what_those_in_this_process_write(
    server: FaultServer, second: FaultServer, shared: Path, tmp_path: Path
) -> None:
    here, there = (seeds(shared, tmp_path / name) for name in ("here", "there"))
    stars.live(stars.cast(), here)
    stars.live(behind(server, second), there)
    assert (there / "output.jsonl").read_bytes() == (here / "output.jsonl").read_bytes()
    tables = [pq.read_table(home / "run" / "tables" / "pairs.parquet").to_pylist() for home in (here, there)]
    assert tables[0] == tables[1]
    bills = [it.bill()["calls"] for it in (server, second)]
    assert sum(bills) == 3 * 60 + len(QUALITY)  # and one small call before the first of each agent
    assert all(bills)


def test_a_server_that_fails_each_call_at_first_costs_nothing_and_one_that_refuses_some_costs_these(
    server: FaultServer, second: FaultServer, shared: Path, tmp_path: Path, fast: FastClock
) -> None:
    whole, home = (seeds(shared, tmp_path / name) for name in ("whole", "home"))
    stars.live(behind(server, second), whole)
    second.script(
        {"match": {"nth_attempt": 1}, "do": [{"status": 500}]},
        {"match": {"nth_attempt": 2}, "do": [{"rst": True}]},
        {"match": {"nth_attempt": 3}, "do": [{"status": 429, "headers": {"Retry-After": "2"}}]},
    )
    stars.live(behind(server, second), home)
    assert kill.result(home) == kill.result(whole)
    check_none_is_lost(home)
    refusing = seeds(shared, tmp_path / "refusing")
    second.script({"match": {"row": list(range(0, 60, 2))}, "do": [{"status": 400, "body": "text:no"}]})
    stars.live(behind(server, second), refusing)
    check_none_is_lost(refusing)
    told = told_of(refusing)
    assert all(0 < told[name][1] < told[name][0] for name in SECOND)
    assert all(told[name][1] == 0 for name in QUALITY if name not in SECOND)


class At(Progress):
    """Does something once so many items of a stage are done, as if it came from outside."""

    def __init__(self, stage: str, plan: Mapping[int, Any]) -> None:  # Any: a call without arguments
        self._stage, self._plan, self._done = stage, dict(plan), 0

    def advance(self, stage: str, items: int, failed: int) -> None:
        for _ in range(items if stage == self._stage else 0):
            self._done += 1
            if self._done in self._plan:
                self._plan[self._done]()


def lived(method: StarAgents, home: Path, progress: Progress) -> None:
    """A life whose course somebody from outside disturbs."""
    data = read_dataset(home / "input.jsonl")
    with Run(home / "run", Local(), seed=3, max_failures=1.0, progress=progress) as run:
        method(data, run)


def test_a_server_that_is_away_for_longer_than_anybody_waits_loses_that_while_and_is_found_again(
    server: FaultServer, second: FaultServer, shared: Path, tmp_path: Path, fast: FastClock
) -> None:
    home = seeds(shared, tmp_path / "home")
    method = behind(server, second, round_size=4, **EVEN)
    away = {30: lambda: second.post("/__script", [DOWN]), 110: lambda: second.post("/__script", [])}
    lived(method, home, At("respond", away))
    stars.live(method, home)  # nothing is left to do but to write it down
    check_none_is_lost(home)
    told = told_of(home)
    assert all(0 < told[name][1] < told[name][0] for name in SECOND)
    failures = [row["failure"] is not None for row in _in_order(home) if row["id"].endswith(SECOND)]
    assert not failures[0]
    assert not failures[-1], "it was found again"
    assert all(told[name][1] == 0 for name in QUALITY if name not in SECOND)


def _in_order(home: Path) -> list[dict[str, Any]]:
    parts = sorted((home / "run" / "stages" / "respond").glob("part-*.parquet"))
    return sorted((row for part in parts for row in pq.read_table(part).to_pylist()), key=lambda row: int(row["row"]))


@pytest.mark.parametrize("answered", [0, 30])
def test_without_a_server_that_is_gone_for_good_the_run_goes_on_and_ends(
    server: FaultServer, second: FaultServer, shared: Path, tmp_path: Path, fast: FastClock, answered: int
) -> None:
    home = seeds(shared, tmp_path / "home")
    second.script(*([] if answered else [{"do": [{"rst": True}]}]))
    method = behind(server, second, **EVEN)
    lived(method, home, At("respond", {answered: lambda: second.post("/__script", [{"do": [{"rst": True}]}])}))
    stars.live(method, home)
    check_none_is_lost(home)
    told = told_of(home)
    for name in SECOND:
        assert told[name][1] > 0
        assert (told[name][2] == 1.0) == (answered == 0)
    found = {row["pair"]: row["probability"] for row in
             pq.read_table(home / "run" / "tables" / "pairs.parquet").to_pylist()}  # fmt: skip
    assert max(found["weak"], found["poor"]) < 0.2 < found["good"]


def test_a_base_that_is_gone_ends_the_run_and_the_same_run_goes_on_when_it_is_back(
    server: FaultServer, second: FaultServer, shared: Path, tmp_path: Path, fast: FastClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    whole, home = (seeds(shared, tmp_path / name) for name in ("whole", "home"))
    method = behind(server, second, at_second=(BASE,))
    stars.live(method, whole)
    with pytest.raises(ModelUnavailable, match="no answer for 10 minutes"):
        lived(method, home, At("respond", {50: lambda: second.post("/__script", [DOWN])}))
    assert not (home / "run" / "decisions.parquet").exists()
    second.script()
    monkeypatch.setattr(endpoint, "CLOCK", FastClock())  # as another process, which knows of no outage
    stars.live(method, home)
    assert kill.result(home) == kill.result(whole)
    check_none_is_lost(home)
