"""Where is the input once it is read? Beside the run, as memory-mapped records, found again when the run is resumed."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesift.datasets import Dataset, DatasetWriter, Row, Source, open_dataset, refuse_twins
from tunesift.disk import sync
from tunesift.files import BrokenRow, Place
from tunesift.inputs import path_as_text
from tunesift.reading import read
from tunesift.recipe import Recipe
from tunesift.records import Record
from tunesift.running.fsio import make_folder, read_json, refuse_link, storage_errors, write_json, write_table
from tunesift.running.result import kind_read


def read_input(recipe: Recipe, folder: Path) -> Dataset[Any]:  # Any: of what the method reads
    """The input as memory-mapped rows; read once, and found again when the run is resumed. None are no records."""
    note, kind = folder / "source.json", kind_read(recipe.method)
    if note.exists():
        return _opened(folder, kind, read_json(note) | {"path": str(recipe.input or "")})
    with storage_errors(folder):
        refuse_link(folder)
        make_folder(folder)
    with storage_errors(folder):
        data = read(recipe.input, kind, recipe.reading, folder) if recipe.input else _nothing(folder)
        for path in folder.glob("*.arrow"):
            sync(path)
    assert data.source is not None  # read() always says what it read
    broken = [{**dataclasses.asdict(b), "raw": base64.b64encode(b.raw).decode()} for b in data.source.broken]
    fields: dict[str, Any] = {
        **dataclasses.asdict(data.source),
        "path": path_as_text(recipe.input) if recipe.input else "",
        "broken": broken,
        "left_out": data.left_out(),
    }  # Any: JSON
    write_table(folder.parent / "quarantine.parquet", _quarantine(data.source.broken))
    write_json(note, fields)  # last: its presence means that the input is read
    return data


def _nothing(folder: Path) -> Dataset[Record]:
    source = Source("", "messages", "", 0, 0)
    return DatasetWriter(folder).finish(Record, refuse_twins, source)


def _quarantine(broken: Sequence[BrokenRow]) -> pa.Table:
    rows = [
        {**dataclasses.asdict(b.place), "id": b.id, "code": b.code, "message": b.message, "raw": b.raw} for b in broken
    ]
    texts = [(name, pa.string()) for name in ("id", "code", "message")]
    place = [("file", pa.string()), ("line", pa.int64()), ("byte", pa.int64())]
    return pa.Table.from_pylist(rows, schema=pa.schema([*place, *texts, ("raw", pa.binary())]))


def _opened(folder: Path, kind: type[Row], note: dict[str, Any]) -> Dataset[Row]:  # Any: source.json
    broken = tuple(
        BrokenRow(Place(**b["place"]), b["code"], b["message"], base64.b64decode(b["raw"]), b.get("id", ""))
        for b in note["broken"]
    )
    names = [f.name for f in dataclasses.fields(Source) if f.name != "broken"]
    source = Source(**{name: note[name] for name in names}, broken=broken)
    with storage_errors(folder):
        return open_dataset(folder, kind, source, note["left_out"])
