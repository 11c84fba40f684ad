"""From a run folder to what its report shows; knows the folder, not the method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from tunesift.datasets import Dataset, Source, open_dataset
from tunesift.errors import RunError
from tunesift.files import Place
from tunesift.records import Record
from tunesift.report.data import Bar, Broken, Histogram, ReportData, Row
from tunesift.running.fsio import read_json

SHOWN = 4000
"""Records on the page; of more, those at both ends and around the cut, and evenly spaced others."""
MAX_TEXT = 4000
"""Characters of one message on the page."""
BINS = 40

_NAMES = {"keep": "kept", "drop": "dropped", "quarantine": "quarantined", "replace": "replaced", "create": "created"}


@dataclass(frozen=True, slots=True)
class _Scored:
    scorer: str
    value: float | None
    parts: Mapping[str, float]


def collect(folder: Path, counts: Mapping[str, int]) -> ReportData:
    """Read a run folder; `counts` is the balance of the run: in, kept, dropped, quarantined."""
    if not (folder / "decisions.parquet").exists():
        raise RunError(f"{folder}: has no decisions yet; start the run again to finish it.")
    run = read_json(folder / "run.json")
    note = read_json(folder / "inputs" / "source.json")
    source = Source(note["path"], note["format"], note["sha256"], note["bytes"], note["rows"])
    data = open_dataset(folder / "inputs", Record, source, note["left_out"])
    decisions = pq.read_table(folder / "decisions.parquet", columns=["record_id", "action", "reason"]).to_pylist()
    scores = _scores(folder)
    values = {id: s.value for id, s in scores.items()}
    kept = {d["record_id"] for d in decisions if d["action"] == "keep"}
    return ReportData(
        title=f"{Path(note['path']).name}: {counts.get('kept', 0):,} of {counts['in']:,} records kept",
        method=str(run["recipe"]["method"]["kind"]),
        run_id=run["run_id"],
        created=run["created"],
        command=run["command"],
        facts=_facts(run, note),
        funnel=tuple(Bar(name, count) for name, count in counts.items()),
        reasons=_reasons(decisions),
        histogram=_histogram(values, kept, next((s.scorer for s in scores.values()), "score"), len(decisions)),
        rows=tuple(_row(d, data, scores.get(d["record_id"])) for d in _picked(decisions, values)),
        total=counts["in"],
        broken=_broken(folder),
    )


def _scores(folder: Path) -> dict[str, _Scored]:
    """Scores by record id, of the last stage in the folder that made some."""
    found: dict[str, _Scored] = {}
    for scorer, id, outcome in _outcomes(folder):
        made = orjson.loads(outcome)
        if isinstance(made, dict) and made.get("parts") and "value" in made:
            found[id] = _Scored(scorer, made["value"], made["parts"])
    return found


def _outcomes(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Every good outcome of every stage: the kind of its step, the item's id, its JSON."""
    for part in sorted(folder.glob("stages/*/part-*.parquet")):
        settings = read_json(part.parent / "_SUCCESS.json")["settings"]
        for row in pq.read_table(part, columns=["id", "failure", "outcome"]).to_pylist():
            if row["failure"] is None:
                yield settings.get("kind", part.parent.name), row["id"], row["outcome"]


def _facts(run: Mapping[str, Any], note: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:  # Any: JSON
    method = run["recipe"]["method"]
    facts = [
        ("input", f"{note['path']} ({note['format']}, {note['rows']:,} rows)"),
        ("output", run["recipe"]["output"]),
    ]
    facts += [("noted in the input", f"{count:,} {kind}") for kind, count in note["notes"].items()]
    facts += [(name, _told(value)) for name, value in method.items() if name != "kind"]
    return (*facts, ("seed", str(run["recipe"]["seed"])), ("version", str(run["versions"].get("tunesift", ""))))


def _told(value: object) -> str:
    """A setting in a few words: `ifd (student embedded, profile canonical)`."""
    if isinstance(value, dict):
        head = value.get("kind") or ""
        named = value.get("name")
        if named is not None and "kind" in value:
            return str(named)
        inner = ", ".join(f"{k} {_told(v)}" for k, v in value.items() if v is not None and k != "kind")
        return f"{head} ({inner})" if head and inner else str(head or inner)
    if isinstance(value, list):
        return "; ".join(map(_told, value))
    return str(value)


def _reasons(decisions: list[dict[str, Any]]) -> tuple[Bar, ...]:  # Any: Parquet rows
    counts: dict[str, int] = {}
    for decision in decisions:
        if decision["action"] in ("drop", "quarantine"):
            rule = str(decision["reason"]).partition(":")[0]
            rule = f"{rule}: {_after(decision)}" if rule == "no score" else rule
            counts[rule] = counts.get(rule, 0) + 1
    return tuple(Bar(rule, count) for rule, count in sorted(counts.items(), key=lambda pair: -pair[1]))


def _after(decision: Mapping[str, Any]) -> str:  # Any: a Parquet row
    return str(decision["reason"]).partition(": ")[2].replace("_", " ")


def _histogram(values: Mapping[str, float | None], kept: set[str], scorer: str, records: int) -> Histogram | None:
    """Bins between the 0.5th and the 99.5th percentile; what lies outside counts in the outermost ones."""
    found = {id: v for id, v in values.items() if v is not None}
    if len(set(found.values())) < 2:
        return None
    order = sorted(found.values())
    low, high = order[int(0.005 * (len(order) - 1))], order[math.ceil(0.995 * (len(order) - 1))]
    if low == high:
        low, high = order[0], order[-1]
    bins = {True: [0] * BINS, False: [0] * BINS}
    for id, value in found.items():
        place = min(BINS - 1, max(0, int((value - low) / (high - low) * BINS)))
        bins[id in kept][place] += 1
    chosen = [found[id] for id in kept if id in found]
    return Histogram(scorer, low, high, tuple(bins[True]), tuple(bins[False]),
                     min(chosen, default=None), records - len(found))  # fmt: skip


def _picked(decisions: list[dict[str, Any]], values: Mapping[str, float | None]) -> list[dict[str, Any]]:  # Any: rows
    """At most SHOWN decisions, in the order of the data."""
    if len(decisions) <= SHOWN:
        return decisions
    by_score = sorted(range(len(decisions)), key=lambda n: values.get(decisions[n]["record_id"]) or -math.inf)
    cut = sum(decisions[n]["action"] != "keep" for n in by_score)
    quarter = SHOWN // 4
    near = by_score[max(0, cut - quarter // 2) : cut + quarter // 2]
    spaced = range(0, len(decisions), max(1, len(decisions) // quarter))
    return [decisions[n] for n in sorted({*by_score[:quarter], *by_score[-quarter:], *near, *spaced})[:SHOWN]]


def _row(decision: Mapping[str, Any], data: Dataset[Record], scored: _Scored | None) -> Row:  # Any: a Parquet row
    id = decision["record_id"]
    record = data.by_id(id)
    messages = tuple((m.role, m.text[:MAX_TEXT] + ("…" if len(m.text) > MAX_TEXT else "")) for m in record.messages)
    score, parts = (scored.value, scored.parts) if scored else (None, {})
    return Row(id, data.line(id), decision["action"], decision["reason"], score, parts, messages)


def _broken(folder: Path) -> tuple[Broken, ...]:
    rows = pq.read_table(folder / "quarantine.parquet").slice(0, SHOWN).to_pylist()
    return tuple(
        Broken(
            str(Place(r["file"], r["line"], r["byte"])),
            r["code"],
            r["message"],
            r["raw"][:MAX_TEXT].decode("utf-8", "replace"),
        )
        for r in rows
    )
