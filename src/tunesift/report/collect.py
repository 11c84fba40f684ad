"""From a run folder to what its report shows; knows the folder, not the method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tunesift.arrays import Bools, Numbers
from tunesift.errors import told_count
from tunesift.files import Place
from tunesift.notes import told_note
from tunesift.records import Preference, Record, rule_of
from tunesift.report.data import Bar, Broken, Figure, Group, Histogram, ReportData, Row, Table
from tunesift.report.folder import RunFolder, run_folder, turns_of
from tunesift.report.spending import priced, spent_on
from tunesift.running.charts import Described

SHOWN = 4000
"""Records on the page; of more, those at both ends and around the cut, and evenly spaced others."""
MAX_FACT = 300
"""Characters of one setting in the head of the page."""
MAX_TEXT = 4000
"""Characters of one message on the page."""
BINS = 40
_FIRST, _LAST = "stopped-early", "nothing-came-of"
"""Tables that say why a run ended short, and, row by row, what of it came to nothing."""
_DOUBTS = "doubts"
"""The table of one column whose rows are sentences that speak against trusting the outcome."""


def collect(folder: Path, counts: Mapping[str, int], short: str = "") -> ReportData:
    """Read a run folder; `counts` is the balance of the run: in, kept, dropped, quarantined; `short` why it has less
    than was asked for."""
    found = run_folder(folder)
    run, note = found.run, found.note
    scorer, values = found.main
    tables = {name: rows for name, rows in found.tables() if rows}
    doubts = tuple(str(said) for row in tables.pop(_DOUBTS, []) for said in row.values())
    return ReportData(
        title=f"{Path(note['path'] or run['recipe']['output']).name}: {_title(counts)}{f'; {short}' if short else ''}",
        method=str(run["recipe"]["method"]["kind"]),
        run_id=run["run_id"],
        created=run["created"],
        command=run["command"],
        facts=_facts(run, note),
        funnel=tuple(Bar(name, count) for name, count in counts.items() if count or counts["in"])
        or (Bar("created", 0),),
        reasons=_reasons(found, ("drop", "quarantine") if counts["in"] else ("create",)),
        histogram=_histogram(values, found.kept, scorer),
        rows=_rows(found, values),
        total=max(counts["in"], len(found.actions)),
        broken=_broken(folder),
        tables=tuple(_table(*each) for each in sorted(_with_money(tables, folder, run).items(), key=_rank)),
        figures=tuple(_figure(*each) for each in found.charts()),
        doubts=doubts,
    )


def _title(counts: Mapping[str, int]) -> str:
    done = next((name for name in ("replaced", "created") if counts.get(name)), "kept")
    if counts["in"] and done != "created":
        return f"{counts.get(done, 0):,} of {told_count(counts['in'], 'record')} {done}"
    return f"{told_count(counts.get(done, 0), 'record')} {done}"


def _rank(table: tuple[str, object]) -> int:
    return (table[0] == _LAST) - (table[0] == _FIRST)


def _table(name: str, rows: Sequence[Mapping[str, object]]) -> Table:
    return Table(name, tuple(rows[0]), tuple(tuple(map(_cell, row.values())) for row in rows))


def _with_money(
    tables: Mapping[str, list[dict[str, object]]],
    folder: Path,
    run: Mapping[str, Any],  # Any: JSON
) -> Mapping[str, list[dict[str, object]]]:
    """The tables with what their models cost, and one of what each endpoint's model was asked and paid."""
    paid = spent_on(folder, run["recipe"]["method"])
    found = {name: priced(rows, paid) for name, rows in tables.items()}
    return {**found, "endpoints": [one.row(any(p.cost for p in paid)) for one in paid]} if paid else found


def _figure(name: str, described: Described, rows: Sequence[Mapping[str, Any]]) -> Figure:  # Any: what a row holds
    chart, groups = described.chart, {of: list[tuple[float, float]]() for of in described.chart.names}
    for row in rows:
        groups.setdefault(str(row[chart.of]), []).append((_short(row[chart.x]), _short(row[chart.y])))
    drawn = tuple(Group(of, *map(tuple, zip(*points, strict=True))) for of, points in groups.items() if points)
    return Figure(name, chart, described.shown, described.left_out, drawn)


def _short(number: float) -> float:
    """No more digits than a picture and its table show."""
    return number if isinstance(number, int) else float(f"{number:.6g}")


def _cell(value: object) -> str | float | None:
    return value if value is None or isinstance(value, int | float) else str(value)


def facts_of(found: RunFolder) -> tuple[tuple[str, str], ...]:
    """A run's settings in a few words."""
    return (("method", str(found.run["recipe"]["method"]["kind"])), *_facts(found.run, found.note))


def _facts(run: Mapping[str, Any], note: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:  # Any: JSON
    method = run["recipe"]["method"]
    read = f"{note['path']} ({note['format']}, {told_count(note['rows'], 'row')})" if note["path"] else "none"
    facts = [("input", read), ("output", run["recipe"]["output"])]
    facts += [("noted in the input", told_note(kind, count)) for kind, count in note["notes"].items()]
    facts += [(name, _shortened(said)) for name, value in method.items()
              if name != "kind" and value not in (None, []) and (said := _told(value))]  # fmt: skip
    return (*facts, ("seed", str(run["recipe"]["seed"])), ("version", str(run["versions"].get("tunesift", ""))))


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_FACT else f"{text[:MAX_FACT]}…"


def _told(value: object) -> str:
    """A setting in a few words: `ifd (student embedded, profile canonical)`."""
    if isinstance(value, dict):
        head = value.get("kind") or ""
        if head == "http":
            return f"{value['model']} at {value['url']}"
        named = value.get("name")
        if named is not None and "kind" in value:
            return str(named)
        inner = ", ".join(
            f"{k} {said}" for k, v in value.items() if v is not None and k != "kind" and (said := _told(v))
        )
        return f"{head} ({inner})" if head and inner else str(head or inner)
    if isinstance(value, list):
        return "; ".join(map(_told, value))
    return "none" if value is None else str(value)


def _reasons(found: RunFolder, actions: Sequence[str]) -> tuple[Bar, ...]:
    rules = Counter(rule_of(reason) for _, action, reason in found.decisions() if action in actions)
    return tuple(Bar(rule, count) for rule, count in rules.most_common())


def _histogram(values: Numbers, kept: Bools, scorer: str) -> Histogram | None:
    """Bins between the 0.5th and the 99.5th percentile; what lies outside counts in the outermost ones."""
    scored = ~np.isnan(values)
    order = values[scored]
    order.sort()
    if not len(order) or order[0] == order[-1]:
        return None
    low, high = order[int(0.005 * (len(order) - 1))], order[int(np.ceil(0.995 * (len(order) - 1)))]
    if low == high:
        low, high = order[0], order[-1]
    del order  # a million numbers take 8 MB, and there are more to come
    chosen, others = values[scored & kept], values[scored & ~kept]
    bins = [tuple(map(int, np.histogram(side.clip(low, high), BINS, (low, high))[0])) for side in (chosen, others)]
    least = float(chosen.min()) if len(chosen) and (others < chosen.min()).any() else None
    return Histogram(scorer, float(low), float(high), bins[0], bins[1], least, int((~scored).sum()))


def _rows(found: RunFolder, values: Numbers) -> tuple[Row, ...]:
    picked = _picked(found.kept, values)
    decided = {n: d for n, d in enumerate(found.decisions()) if n in picked}
    ids = {id for id, _, _ in decided.values()}
    parts, made = found.parts(ids), found.made_of(ids)
    return tuple(_row(found, d, values[n], parts.get(d[0], {}), made.get(d[0])) for n, d in decided.items())


def _picked(kept: Bools, values: Numbers) -> set[int]:
    """At most SHOWN places among the decisions."""
    if len(kept) <= SHOWN:
        return set(range(len(kept)))
    by_score = np.argsort(np.where(np.isnan(values), -np.inf, values), kind="stable")
    cut, quarter = int((~kept).sum()), SHOWN // 4
    near = by_score[max(0, cut - quarter // 2) : cut + quarter // 2]
    spaced = np.arange(0, len(kept), max(1, len(kept) // quarter))
    every = np.unique(np.concatenate([by_score[:quarter], by_score[-quarter:], near, spaced]))
    return set(map(int, every[:SHOWN]))


def _row(
    found: RunFolder,
    decided: tuple[str, str, str],
    score: float,
    parts: Mapping[str, float],
    made: Record | Preference | None,
) -> Row:
    id, action, reason = decided
    value = None if np.isnan(score) else float(score)
    old = None if action == "create" else found.read_of(id)
    now = made or old
    assert now is not None  # what is created was made
    before = shown_messages(old) if made is not None and old is not None else ()
    return Row(id, found.data.line(id), action, reason, value, parts, shown_messages(now), before)


def shown_messages(row: Record | Preference) -> tuple[tuple[str, str], ...]:
    """A conversation as pages show it: role and text, long texts cut; of a pair the rejected answer comes last."""
    return tuple((role, text[:MAX_TEXT] + ("…" if len(text) > MAX_TEXT else "")) for role, text in turns_of(row))


def _broken(folder: Path) -> tuple[Broken, ...]:
    rows = pq.ParquetFile(folder / "quarantine.parquet").read(use_threads=False).slice(0, SHOWN).to_pylist()
    return tuple(
        Broken(
            str(Place(r["file"], r["line"], r["byte"])),
            r["code"],
            r["message"],
            r["raw"][:MAX_TEXT].decode("utf-8", "replace"),
            r.get("id") or "",
        )
        for r in rows
    )
