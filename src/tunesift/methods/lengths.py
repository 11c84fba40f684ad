"""Where did a selection cut, and what did it do to the length of the data? One row for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesift.datasets import Dataset
from tunesift.records import Decision, Record, Score
from tunesift.running.run import Run


def tell_selection(run: Run, data: Dataset[Record], scores: Mapping[str, Score], decisions: Sequence[Decision]) -> None:
    """Tell the smallest score that was kept, how many records have just that score, and mean characters of all and of
    kept, in a table."""
    kept = {d.record_id for d in decisions if d.action == "keep"}
    values = {id: s.value for id, s in scores.items() if s.value is not None}
    cut = min((values[id] for id in kept if id in values), default=None)
    sizes = {record.id: sum(len(m.text) for m in record.messages) for record in data}
    kept_sizes = [size for id, size in sizes.items() if id in kept]
    run.table("selection", [{
        "records": len(sizes), "kept": len(kept), "cut": cut, "tied": sum(value == cut for value in values.values()),
        "mean_characters": _mean([*sizes.values()]), "mean_characters_kept": _mean(kept_sizes),
    }])  # fmt: skip


def _mean(numbers: Sequence[int]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0
