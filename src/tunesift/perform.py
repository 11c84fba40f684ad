"""From a recipe to its result: open the folder, read, run the page, write the output, draw the report."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import platform
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import rmtree
from typing import Any

import pyarrow as pa

from tunesift.datasets import Dataset, Source, open_dataset
from tunesift.errors import (
    CannotCreate,
    DataError,
    RecipeError,
    ResumeError,
    RunError,
    RunLocked,
    Stopped,
    StorageError,
    TunesiftError,
    shown,
)
from tunesift.files import BrokenRow, Place, check_file, container_of
from tunesift.methods.score import ScoreRecords
from tunesift.models.turnstile import INTERRUPTIONS
from tunesift.reading import Reading, file_digest, read
from tunesift.recipe import Recipe, as_json, check, command
from tunesift.records import Record, Score
from tunesift.report.collect import collect
from tunesift.report.html import render
from tunesift.running.fsio import failpoint, make_folder, storage_errors, write_bytes, write_json, write_table
from tunesift.running.progress import Progress
from tunesift.running.result import Result
from tunesift.running.run import Run
from tunesift.running.stopping import Stop
from tunesift.settings import Json, differences, semantic
from tunesift.writing import check_place, write_records

FORMAT = 1
"""Version of the run folder."""
_LIBRARIES = ("tunesift", "numpy", "pyarrow", "pydantic", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did."""

    run_id: str
    folder: Path
    output: Path
    report: Path
    counts: Mapping[str, int]
    """in, kept, dropped, quarantined; and replaced, created where there are any."""
    reasons: Mapping[str, int]
    """Decisions by the rule that made them, the commonest first."""
    worked: int
    """Items of all stages that were done now; the others were in the journal."""
    seconds: float

    @property
    def balance(self) -> str:
        """`in = kept + dropped + quarantined`, in words."""
        parts = [f"{self.counts[name]:,} {name}" for name in self.counts if name not in ("in", "created")]
        created = f"; {self.counts['created']:,} created" if "created" in self.counts else ""
        return f"{self.counts['in']:,} in = {' + '.join(parts)}{created}"


def run_recipe(recipe: Recipe, *, progress: Progress | None = None, stop: Stop | None = None) -> Summary:
    """Do what a recipe says; what its folder already holds is not done again.

    Raises `RecipeError`, `DataError`, `ModelError` or `RunError`; each says what would be right. A run that ends so
    before it has done anything leaves no folder behind, so that it can be started again with what was wrong put right.
    """
    recipe = check(as_json(recipe))
    _check_paths(recipe)
    new = not recipe.run_folder.exists()
    try:
        return _run(recipe, progress or Progress(), stop or Stop())
    except RunLocked:
        raise
    except TunesiftError:
        if new and not _has_work(recipe.run_folder):
            rmtree(recipe.run_folder, ignore_errors=True)
        raise


def _run(recipe: Recipe, progress: Progress, stop: Stop) -> Summary:
    with Run(recipe.run_folder, recipe.execution, recipe.seed, recipe.max_failures, progress, stop) as run:
        began = time.monotonic()
        digest = file_digest(recipe.input) if recipe.input else None
        manifest = _open_folder(recipe, digest)
        if (done := _finished(recipe, manifest["run_id"])) is not None:
            return done
        data = _read_input(recipe, run.folder / "inputs")
        _check_fields(recipe, data[0])
        result = _walked(recipe, data, run)
        balance = _balance(run.finish(data, result.decisions), data)
        _write_output(recipe, result, data)
        failpoint("output.written")
        worked, seconds = sum(s.worked for s in run.stages), time.monotonic() - began
        summary = Summary(manifest["run_id"], run.folder, recipe.output, run.folder / "report.html", balance,
                          _reasons(result, data), worked, seconds)  # fmt: skip
        _write_report(summary)
        failpoint("report.written")
        write_json(run.folder / "result.json", _as_result(summary, run))
        return summary


def _walked(recipe: Recipe, data: Dataset[Record], run: Run) -> Result:
    """What the page makes; who waits for an endpoint meanwhile hears that the run is to stop."""
    with INTERRUPTIONS.heeding(lambda: run.stop.asked):
        try:
            return recipe.method(data, run)
        except Stopped:
            run.stop.check(run.folder)
            raise


def _check_paths(recipe: Recipe) -> None:
    container_of(recipe.output)
    if recipe.input is None:
        raise RecipeError("input: is not given; name the file to read.")
    check_file(recipe.input)
    if os.path.realpath(recipe.input) == os.path.realpath(recipe.output):
        raise RecipeError(f"E701 output: {recipe.output} is the input itself; write to another file.")
    if os.path.lexists(recipe.output) and not _is_ours(recipe):
        raise CannotCreate(f"{recipe.output}: exists already; choose another output, or remove it.")
    check_place(recipe.output)


def _has_work(folder: Path) -> bool:
    """Whether anything was done in this folder that a new start would do again."""
    try:
        with closing(open_state(folder)) as db:
            (found,) = db.execute("SELECT EXISTS (SELECT 1 FROM part) OR EXISTS (SELECT 1 FROM result)").fetchone()
            return bool(found)
    except sqlite3.Error:
        return (folder / "state.db").exists()


def open_state(folder: Path) -> sqlite3.Connection:
    """The database of a run's folder, for reading only."""
    return sqlite3.connect(f"{(folder / 'state.db').absolute().as_uri()}?mode=ro", uri=True)


def read_json(path: Path) -> dict[str, Any]:  # Any: JSON
    """A small file that a run wrote; raises `StorageError` where it is not as it was written."""
    try:
        with storage_errors(path):
            return dict(json.loads(path.read_text("utf-8")))
    except ValueError as error:
        raise StorageError(f"{path}: is damaged ({error}); delete the run folder to begin anew.") from error


def _is_ours(recipe: Recipe) -> bool:
    """Whether the run in the recipe's folder is the one that wrote, or will write, the output that stands there."""
    path = recipe.run_folder / "run.json"
    if not path.exists():
        return False
    return os.path.realpath(str(read_json(path)["recipe"]["output"])) == os.path.realpath(recipe.output)


def _open_folder(recipe: Recipe, digest: str | None) -> dict[str, Any]:  # Any: run.json
    """The folder's run.json, written if it is new; raises `ResumeError` where it holds another run."""
    path = recipe.run_folder / "run.json"
    new: dict[str, Json] = {"settings": semantic(recipe), "input": {"path": str(recipe.input), "sha256": digest}}
    if not path.exists():
        id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
        run = {"format": FORMAT, "run_id": id, "created": time.strftime("%Y-%m-%d %H:%M:%S"), "versions": _versions(),
               "command": command(recipe), "recipe": as_json(recipe), **new}  # fmt: skip
        write_json(path, run)
        failpoint("run.created")
        return run
    old = read_json(path)
    if old.get("format") != FORMAT:
        raise ResumeError(f"{path.parent}: is a run of format {old.get('format')}, not {FORMAT}; use another folder.")
    changed = differences(old["settings"], new["settings"])
    if changed:
        said = ", ".join(f"{p} was {_told(a)} and is now {_told(b)}" for p, a, b in changed[:3])
        raise ResumeError(f"{path.parent}: holds another run: {said}; use another output or folder, or go back.")
    if old["input"]["sha256"] != digest:
        raise ResumeError(
            f"{path.parent}: the input {recipe.input} has changed since the run began; use another folder."
        )
    return old


def _told(value: Json) -> str:
    return shown(json.dumps(value, ensure_ascii=False))


def _finished(recipe: Recipe, run_id: str) -> Summary | None:
    """The summary of a run that is complete and whose output stands as it was written."""
    path = recipe.run_folder / "result.json"
    if not path.exists():
        return None
    old = read_json(path)
    if not recipe.output.exists():
        path.unlink()
        return None
    if file_digest(recipe.output) != old["output"]["sha256"]:
        raise CannotCreate(f"{recipe.output}: was changed after the run wrote it; choose another output, or remove it.")
    report = recipe.run_folder / "report.html"
    return Summary(run_id, recipe.run_folder, recipe.output, report, old["counts"], old["reasons"], 0, 0.0)


def _read_input(recipe: Recipe, folder: Path) -> Dataset[Record]:
    """The input as memory-mapped records; read once, and found again when the run is resumed."""
    note = folder / "source.json"
    assert recipe.input is not None  # _check_paths refuses a recipe without one
    if note.exists():
        return _opened(folder, read_json(note) | {"path": str(recipe.input)})
    with storage_errors(folder):
        make_folder(folder)
    reading = Reading(recipe.format, recipe.duplicate_ids, recipe.max_bad, recipe.limit)
    data = read(recipe.input, Record, reading, folder)
    assert data.source is not None  # read() always says what it read
    broken = [{**dataclasses.asdict(b), "raw": base64.b64encode(b.raw).decode()} for b in data.source.broken]
    fields: dict[str, Any] = {
        **dataclasses.asdict(data.source),
        "broken": broken,
        "left_out": data.left_out(),
    }  # Any: JSON
    write_table(folder.parent / "quarantine.parquet", _quarantine(data.source.broken))
    write_json(note, fields)  # last: its presence means that the input is read
    return data


def _quarantine(broken: Sequence[BrokenRow]) -> pa.Table:
    rows = [{**dataclasses.asdict(b.place), "code": b.code, "message": b.message, "raw": b.raw} for b in broken]
    texts = [(name, pa.string()) for name in ("code", "message")]
    place = [("file", pa.string()), ("line", pa.int64()), ("byte", pa.int64())]
    return pa.Table.from_pylist(rows, schema=pa.schema([*place, *texts, ("raw", pa.binary())]))


def _opened(folder: Path, note: dict[str, Any]) -> Dataset[Record]:  # Any: source.json
    broken = tuple(
        BrokenRow(Place(**b["place"]), b["code"], b["message"], base64.b64decode(b["raw"])) for b in note["broken"]
    )
    names = [f.name for f in dataclasses.fields(Source) if f.name != "broken"]
    source = Source(**{name: note[name] for name in names}, broken=broken)
    with storage_errors(folder):
        return open_dataset(folder, Record, source, note["left_out"])


def _write_output(recipe: Recipe, result: Result, data: Dataset[Record]) -> None:
    if result.data is None:
        raise RunError("the method made no data; use it as a step of another.")
    beside = None
    if result.scores is not None:
        beside = partial(_beside, result.scores)
    write_records(result.data, recipe.output, data, beside)


def _beside(scores: Mapping[str, Mapping[str, object]], record: Record) -> dict[str, Any]:  # Any: JSON
    """A record's id and its scores, those that it came with included."""
    earlier = record.extra.get("scores")
    found = {scorer: _shown(score) for scorer, score in scores[record.id].items()}
    return {"id": record.id, "scores": {**(earlier if isinstance(earlier, Mapping) else {}), **found}}


def _shown(score: object) -> dict[str, Any]:  # Any: JSON
    if isinstance(score, Score):
        return {"value": score.value, "parts": dict(score.parts), "note": score.note}
    return {"value": None, "parts": {}, "note": f"{getattr(score, 'kind', '')}: {getattr(score, 'message', '')}"}


_DONE = {"keep": "kept", "drop": "dropped", "replace": "replaced", "create": "created", "quarantine": "quarantined"}


def _check_fields(recipe: Recipe, first: Record) -> None:
    """Refuse input whose own field stands where scores are to be written, before any work is done for it."""
    own = first.extra.get("scores")
    if isinstance(recipe.method, ScoreRecords) and own is not None and not isinstance(own, Mapping):
        raise DataError(f'E206 {recipe.input}: has a field "scores" of its own, where scores are written; rename it.')


def _balance(counts: Counter[str], data: Dataset[Record]) -> dict[str, int]:
    assert data.source is not None  # data come from a file
    balance = {"in": data.source.rows, "kept": counts["keep"], "dropped": counts["drop"],
               "quarantined": counts["quarantine"] + len(data.source.broken)}  # fmt: skip
    return balance | {_DONE[action]: counts[action] for action in ("replace", "create") if counts[action]}


def _reasons(result: Result, data: Dataset[Record]) -> dict[str, int]:
    assert data.source is not None  # data come from a file
    reasons = Counter(f"{_DONE[d.action]}: {d.reason.partition(':')[0]}" for d in result.decisions)
    told = dict(reasons.most_common())
    for code, count in Counter(b.code for b in data.source.broken).most_common():
        first = next(b for b in data.source.broken if b.code == code)
        told[f"quarantined: {code}, first at {first.place}: {first.message}"] = count
    return told


def _write_report(summary: Summary) -> None:
    write_bytes(summary.report, render(collect(summary.folder, summary.counts)).encode())


def _as_result(summary: Summary, run: Run) -> Json:
    stages: list[Json] = [
        {"stage": s.stage, "items": s.items, "worked": s.worked, "failed": s.failed, "seconds": round(s.seconds, 3)}
        for s in run.stages
    ]
    output: Json = {"path": str(summary.output), "sha256": file_digest(summary.output)}
    return {"run_id": summary.run_id, "counts": dict(summary.counts), "reasons": dict(summary.reasons),
            "stages": stages, "seconds": round(summary.seconds, 3), "output": output}  # fmt: skip


def _versions() -> dict[str, Json]:
    found: dict[str, Json] = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
