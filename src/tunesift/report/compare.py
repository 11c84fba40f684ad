"""From several run folders to how their scores and selections differ; knows the folders, not the methods."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path

import numpy as np

from tunesift.arrays import Bools, Numbers, Places, bands_of, middle_ranks
from tunesift.errors import DataError, RecipeError, told_count
from tunesift.report.collect import facts_of, shown_messages
from tunesift.report.data import CompareData, Correlation, Difference, Different, Overlap, Side
from tunesift.report.folder import RunFolder, run_folder

SHOWN = 20
"""Records shown of what one run keeps and another does not."""
BANDS = 10
"""Bands of response length."""

_ENDING = re.compile(r"(\.(jsonl?|csv|tsv|parquet))?(\.(gz|zst))?\.run$")
"""What a run's folder adds to the name of its output, and the output's own ending."""


@dataclass(frozen=True)
class _Run:
    """A run, seen over the records that all runs decided on."""

    name: str
    folder: RunFolder
    kept: Bools
    scores: dict[str, Numbers]

    @property
    def main(self) -> Numbers | None:
        return next(reversed(list(self.scores.values())), None)


def compare(paths: Sequence[Path]) -> CompareData:
    """Read finished runs over the same records, matched by id.

    Raises `RecipeError` for fewer than two folders or one that is given twice, `RunError` for a run that is not
    finished, and `DataError` for what is no run's folder, or where no record was decided on by all.
    """
    if len({path.resolve() for path in paths}) < max(2, len(paths)):
        raise RecipeError("compare takes two or more different run folders.")
    folders = [run_folder(path) for path in paths]
    places = _shared(folders)
    if not len(places[0]):
        raise DataError(f"{paths[0]}: shares no record with the others; compare runs over the same input.")
    names = _names(paths)
    runs = [
        _Run(name, f, f.kept[where], {kind: values[where] for kind, values in f.scores.items()})
        for name, f, where in zip(names, folders, places, strict=True)
    ]
    ids = [id for id, _, _ in folders[0].decisions()]
    ids = [ids[place] for place in places[0]]
    lengths = np.array([len(folders[0].data.by_id(id).response) for id in ids], np.float64)
    codes, bands = _bands(lengths)
    return CompareData(
        title=f"{len(runs)} runs over {told_count(len(ids), 'record')}",
        records=len(ids),
        median_length=float(np.median(lengths)),
        notes=_notes(folders, len(ids)),
        sides=tuple(_side(run, lengths, codes, len(bands)) for run in runs),
        bands=bands,
        correlations=_correlations(runs, lengths),
        overlaps=tuple(_overlap(a, b) for a, b in combinations(runs, 2)),
        differences=_differences(runs, ids),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The outputs' names without their endings; with them, or with their paths, where two would have one name."""
    short = [_ENDING.sub("", path.name) or path.name for path in paths]
    whole, placed = ([text.removesuffix(".run") or text for text in texts]
                     for texts in ([path.name for path in paths], list(map(str, paths))))  # fmt: skip
    ways = (short, whole, placed)
    return next((names for names in ways if len(set(names)) == len(names)), [str(path) for path in paths])


def _shared(folders: Sequence[RunFolder]) -> list[Places]:
    """For each run, where it decided on the records that all of them did, in the order of the first."""
    ids = (id for id, _, _ in folders[0].decisions())
    rows = [(n, *(f.place(id) for f in folders[1:])) for n, id in enumerate(ids)]
    found = np.array([row for row in rows if None not in row], np.int64).reshape(-1, len(folders))
    return list(found.T)


def _notes(folders: Sequence[RunFolder], shared: int) -> tuple[str, ...]:
    notes = []
    if len({f.note["sha256"] for f in folders}) > 1:
        notes.append("The runs read different files; records are matched by their ids, and texts are the first run's.")
    most = max(len(f.actions) for f in folders)
    if shared < most:
        notes.append(f"Only the {shared:,} records that all runs decided on are compared; one run has {most:,}.")
    return tuple(notes)


def _bands(lengths: Numbers) -> tuple[Places, tuple[str, ...]]:
    codes = bands_of(lengths, BANDS)
    parts = [lengths[codes == code] for code in range(codes.max() + 1)]
    return codes, tuple(f"{part.min():.0f} to {part.max():.0f}" for part in parts)


def _side(run: _Run, lengths: Numbers, codes: Places, bands: int) -> Side:
    shares = np.bincount(codes, run.kept, bands) / np.bincount(codes, minlength=bands)
    kept = lengths[run.kept]
    score, main = next(reversed(list(run.scores)), None), run.main
    rho = None if main is None else rank_correlation(main, lengths)[0]
    medians = () if main is None else tuple(_median(main[codes == band]) for band in range(bands))
    return Side(
        name=run.name, facts=facts_of(run.folder), kept=int(run.kept.sum()), score=score, length=rho,
        kept_length=_median(kept), shares=tuple(map(float, shares)), medians=medians,
    )  # fmt: skip


def _median(values: Numbers) -> float | None:
    """The median of those that are numbers; None where none is."""
    sound = values[np.isfinite(values)]
    return float(np.median(sound)) if len(sound) else None


def rank_correlation(a: Numbers, b: Numbers) -> tuple[float | None, int]:
    """Spearman's correlation over what both have, and how many that are; None where a side is the same for all."""
    sound = np.isfinite(a) & np.isfinite(b)
    x, y = (middle_ranks(values[sound]) for values in (a, b))
    x, y = x - x.mean() if len(x) else x, y - y.mean() if len(y) else y
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return (float(x @ y) / scale if scale else None), int(sound.sum())


def _correlations(runs: Sequence[_Run], lengths: Numbers) -> tuple[Correlation, ...]:
    scores = {f"{run.name}: {kind}": values for run in runs for kind, values in run.scores.items()}
    scores["length of the response"] = lengths
    pairs = combinations(scores, 2)
    return tuple(Correlation(a, b, *rank_correlation(scores[a], scores[b])) for a, b in pairs)


def _overlap(a: _Run, b: _Run) -> Overlap:
    both, sizes = int((a.kept & b.kept).sum()), (int(a.kept.sum()), int(b.kept.sum()))
    budget, records = min(sizes), len(a.kept)
    small, large = (a, b) if sizes[0] <= sizes[1] else (b, a)
    shared = float((small.kept & best).sum()) if (best := _cut(large, budget)) is not None else (
        both * budget / max(sizes) if max(sizes) else 0.0
    )  # fmt: skip
    return Overlap(
        a.name, b.name, both, _jaccard(both, *sizes), budget, _jaccard(shared, budget, budget),
        _jaccard(budget * budget / records, budget, budget),
    )  # fmt: skip


def _jaccard(both: float, first: int, second: int) -> float | None:
    return both / (first + second - both) if first + second else None


def _cut(run: _Run, budget: int) -> Bools | None:
    """The best of what a run keeps by its main score; None where it has none.

    Whether larger is better is read off its own decisions: the side of the score on which it keeps more.
    """
    if run.kept.sum() == budget:
        return run.kept
    if run.main is None or np.isnan(run.main[run.kept]).any():
        return None
    dropped = run.main[~run.kept & ~np.isnan(run.main)]
    sign = -1.0 if not len(dropped) or run.main[run.kept].mean() >= dropped.mean() else 1.0
    places = np.flatnonzero(run.kept)
    best = np.zeros(len(run.kept), bool)
    best[places[np.argsort(sign * run.main[places], kind="stable")[:budget]]] = True
    return best


def _differences(runs: Sequence[_Run], ids: Sequence[str]) -> tuple[Difference, ...]:
    picked = {
        (a.name, b.name): np.flatnonzero(a.kept & ~b.kept) for a, b in permutations(runs, 2)
    }  # fmt: skip
    shown = {pair: [ids[n] for n in places[:: max(1, -(-len(places) // SHOWN))]] for pair, places in picked.items()}
    wanted = {id for some in shown.values() for id in some}
    why = {run.name: {id: reason for id, _, reason in run.folder.decisions() if id in wanted} for run in runs}
    texts = {id: shown_messages(runs[0].folder.read_of(id)) for id in wanted}
    return tuple(
        Difference(a, b, len(picked[a, b]), tuple(Different(id, why[a][id], why[b][id], texts[id]) for id in some))
        for (a, b), some in shown.items()
    )


def told_compare(found: CompareData) -> str:
    """The comparison in words, for a terminal."""
    lines = [found.title, *found.notes]
    for side in found.sides:
        said = f"  {side.name}: keeps {side.kept:,}"
        said += "" if side.kept_length is None else f", median length {side.kept_length:,.0f}"
        lines.append(said + f" (all: {found.median_length:,.0f})")
    lines += ["rank correlations (Spearman):"]
    lines += [f"  {_number(c.value)}  {c.first} / {c.second}, over {c.over:,}" for c in found.correlations]
    heads = ("in both", "Jaccard", "budget", "Jaccard at that budget", "by chance")
    lines += ["overlap of what is kept:", f"  {'  '.join(heads)}"]
    for o in found.overlaps:
        cells = (f"{o.both:,}", _number(o.jaccard), f"{o.budget:,}", _number(o.equal), _number(o.chance))
        aligned = "  ".join(cell.rjust(len(head)) for cell, head in zip(cells, heads, strict=True))
        lines.append(f"  {aligned}  {o.first} / {o.second}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "    –" if value is None else f"{value:5.2f}"
