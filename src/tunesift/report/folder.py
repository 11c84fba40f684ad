"""What does a run's folder hold? Decisions and scores as arrays in one order, texts when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tunesift.arrays import Bools, Numbers
from tunesift.datasets import Dataset, Source, open_dataset
from tunesift.errors import DataError, RunError
from tunesift.records import IN_OUTPUT, Action, Preference, Record, origins
from tunesift.running.charts import Described, described
from tunesift.running.fsio import read_json
from tunesift.running.run import MADE, OUTPUT

ACTIONS = get_args(Action)
REJECTED = "rejected"
"""In place of a role, what the answer that was not chosen has."""
MOST_ROWS = 100
"""Rows of a small table that a page shows."""
AT_A_TIME = 8192
"""Rows of a run's files that become objects at a time."""
MAIN = "score"
"""The stage whose score decides, where a run has several."""


@dataclass(frozen=True)
class RunFolder:
    """A finished run, read as far as it is asked for; everything is in the order of its decisions."""

    path: Path
    run: Mapping[str, Any]  # Any: JSON
    note: Mapping[str, Any]  # Any: JSON
    data: Dataset[Record]

    @cached_property
    def actions(self) -> npt.NDArray[np.int8]:
        """What became of every record, as places in ACTIONS."""
        found = [np.array([ACTIONS.index(a) for a in batch["action"]], np.int8) for batch in self._batches("action")]
        return np.concatenate(found) if found else np.zeros(0, np.int8)

    @cached_property
    def kept(self) -> Bools:
        """Whether a record is in the output, or something in its place."""
        return np.isin(self.actions, [ACTIONS.index(action) for action in IN_OUTPUT])

    @cached_property
    def _elsewhere(self) -> Mapping[str, int] | None:
        """Where each id was decided on, if not in the order of the data."""
        decided = (id for id, _, _ in self.decisions())
        if all(id == other for id, other in zip_longest(self.data.ids(), decided)):
            return None
        return {id: place for place, (id, _, _) in enumerate(self.decisions())}

    def place(self, id: str) -> int | None:
        """Where a record was decided on, from 0; None for an id that was not."""
        return self.data.place(id) if self._elsewhere is None else self._elsewhere.get(id)

    def decisions(self) -> Iterator[tuple[str, str, str]]:
        """Id, action and reason of every record, a few at a time in memory."""
        for batch in self._batches("record_id", "action", "reason"):
            yield from zip(batch["record_id"], batch["action"], batch["reason"], strict=True)

    def _batches(self, *columns: str) -> Iterator[Mapping[str, list[str]]]:
        for batch in pq.ParquetFile(self.path / "decisions.parquet").iter_batches(
            batch_size=AT_A_TIME, columns=list(columns), use_threads=False
        ):
            yield batch.to_pydict()

    @cached_property
    def made(self) -> Dataset[Record] | None:
        """The output's records, of a method that made some."""
        folder = self.path / MADE / OUTPUT
        return open_dataset(folder, Record, self.data.source, ()) if folder.is_dir() and self.data.source else None

    def read_of(self, id: str) -> Record | Preference:
        """What was read under this id; raises `KeyError` where there is none."""
        found: Record | Preference = _whole(self.data).by_id(id)
        return found

    def made_of(self, ids: Collection[str]) -> dict[str, Record | Preference]:
        """What stands in the output for these records, where something else does; by the id that was decided on."""
        if self.made is None:
            return {}
        made = _whole(self.made)
        found = {}
        for new in self.made.ids():
            id = next((id for id in origins(new) if id in ids), None)
            if id is not None and (id != new or self.data.place(id) is None or self._is_paired):
                found[id] = made.by_id(new)
        return found

    @property
    def _is_paired(self) -> bool:
        """Whether pairs were made of records, under their ids."""
        return self.made is not None and self.made.as_pairs() is not None and self.data.as_pairs() is None

    def tables(self) -> Iterator[tuple[str, list[dict[str, object]]]]:
        """Name and rows of every small table."""
        for name, chart, table in self._tables():
            if chart is None:
                yield name, table.slice(0, min(MOST_ROWS, table.num_rows)).to_pylist()  # of no columns, too

    def charts(self) -> Iterator[tuple[str, Described, list[dict[str, object]]]]:
        """Name, description and rows of what a method wants drawn."""
        for name, chart, table in self._tables():
            if chart is not None:
                yield name, chart, table.to_pylist()

    def _tables(self) -> Iterator[tuple[str, Described | None, pa.Table]]:
        for path in sorted((self.path / "tables").glob("*.parquet")):
            table = pq.ParquetFile(path).read(use_threads=False)
            yield path.stem, described(str(path), table.schema), table

    @cached_property
    def scores(self) -> Mapping[str, Numbers]:
        """By the kind of its step, every score that a stage made; not a number where there is none. The main one last.

        A stage of scores is one whose outcomes have a value and parts.
        """
        found: dict[str, Numbers] = {}
        for stage, kind in self._stages:
            values = self._values(stage)
            if values is not None:
                found[kind] = values
        return found

    @property
    def main(self) -> tuple[str, Numbers]:
        """The score that decides, and its kind; no numbers where nothing was scored."""
        nothing = np.full(len(self.actions), np.nan)
        return next(reversed(list(self.scores.items())), ("score", nothing))

    def parts(self, ids: Collection[str]) -> dict[str, dict[str, float]]:
        """What the scores of a few records were made of; the main score's win where two have a name."""
        found: dict[str, dict[str, float]] = {}
        for stage, _ in self._stages:
            for id, outcome in self._outcomes(stage):
                if id in ids:
                    made = orjson.loads(outcome)
                    parts = made.get("parts") if isinstance(made, dict) and "value" in made else None
                    found.setdefault(id, {}).update(parts or {})
        return found

    @cached_property
    def _stages(self) -> list[tuple[Path, str]]:
        """Folder and kind of every finished stage."""
        folders = sorted(
            (p.parent for p in self.path.glob("stages/*/_SUCCESS.json")), key=lambda p: (p.name == MAIN, p)
        )
        settings = {folder: read_json(folder / "_SUCCESS.json")["settings"] for folder in folders}
        return [(folder, str(settings[folder].get("kind", folder.name))) for folder in folders]

    def _outcomes(self, stage: Path) -> Iterator[tuple[str, str]]:
        parts = (pq.ParquetFile(part) for part in sorted(stage.glob("part-*.parquet")))
        batches = (
            batch
            for part in parts
            for batch in part.iter_batches(AT_A_TIME, columns=["id", "failure", "outcome"], use_threads=False)
        )
        for batch in batches:
            rows = batch.to_pydict()
            yield from (
                (id, outcome)
                for id, failure, outcome in zip(rows["id"], rows["failure"], rows["outcome"], strict=True)
                if failure is None
            )

    def _values(self, stage: Path) -> Numbers | None:
        values = np.full(len(self.actions), np.nan)
        scored = False
        for id, outcome in self._outcomes(stage):
            made = orjson.loads(outcome)
            if not (isinstance(made, dict) and "value" in made and "parts" in made):
                return None
            scored = scored or bool(made["parts"])
            place = self.place(id)
            if place is not None and made["value"] is not None and math.isfinite(made["value"]):
                values[place] = made["value"]
        return values if scored else None


def _whole(data: Dataset[Record]) -> Dataset[Any]:  # Any: records or preference pairs
    """The rows as they are kept: pairs with both their answers."""
    return data.as_pairs() or data


def turns_of(row: Record | Preference) -> list[tuple[str, str]]:
    """Role and text of all that is said; of a preference pair both answers, the rejected one last."""
    said: list[tuple[str, str]] = [(m.role, m.text) for m in row.messages]
    return said if isinstance(row, Record) else [*said[:-1], (REJECTED, row.rejected.text)]


def check_run(path: Path) -> None:
    """Raise `DataError` for what is no run's folder."""
    if (path / "run.json").exists():
        return
    beside = path.with_name(f"{path.name}.run")
    if (beside / "run.json").exists():
        raise DataError(f"{path}: is not a run's folder; the run that wrote it is in {beside}.")
    why = "is not a run's folder; it has no run.json" if path.exists() else "there is no such folder"
    raise DataError(f"{path}: {why}.")


def check_decided(path: Path) -> None:
    """Raise `DataError` for what is no run's folder, and `RunError` for that of a run that is not finished."""
    check_run(path)
    if not (path / "decisions.parquet").exists():
        raise RunError(f"{path}: has no decisions yet; start the run again to finish it.")


def run_folder(path: Path) -> RunFolder:
    """A finished run's folder; raises as `check_decided` does."""
    check_decided(path)
    note = read_json(path / "inputs" / "source.json")
    source = Source(note["path"], note["format"], note["sha256"], note["bytes"], note["rows"])
    data = open_dataset(path / "inputs", Record, source, note["left_out"])
    return RunFolder(path, read_json(path / "run.json"), note, data)
