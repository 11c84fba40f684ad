"""From a recipe to its result: open the folder, read, run the page, write the output, draw the report."""

from __future__ import annotations

import base64
import dataclasses
import json
import platform
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from tunesift.datasets import Dataset, Source, open_dataset
from tunesift.errors import CannotCreate, DataError, RecipeError, ResumeError, RunError
from tunesift.files import BrokenRow, Place, container_of
from tunesift.reading import Reading, file_digest, read
from tunesift.recipe import Recipe, as_json, check, command
from tunesift.records import Record, Score
from tunesift.report.collect import collect
from tunesift.report.html import render
from tunesift.running.journal import storage_errors, write_json
from tunesift.running.progress import Progress
from tunesift.running.result import Result
from tunesift.running.run import Run, write_table
from tunesift.settings import Json, differences, semantic
from tunesift.writing import write_records

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


def run_recipe(recipe: Recipe, *, progress: Progress | None = None) -> Summary:
    """Do what a recipe says; what its folder already holds is not done again.

    Raises `RecipeError`, `DataError`, `ModelError` or `RunError`; each says what would be right.
    """
    recipe = check(as_json(recipe))
    _check_paths(recipe)
    with Run(recipe.run_folder, recipe.execution, recipe.seed, recipe.max_failures, progress or Progress()) as run:
        began = time.monotonic()
        digest = file_digest(recipe.input) if recipe.input else None
        manifest = _open_folder(recipe, digest)
        if (done := _finished(recipe, manifest["run_id"])) is not None:
            return done
        data = _read_input(recipe, run.folder / "inputs")
        result = recipe.method(data, run)
        counts = run.finish(data, result.decisions)
        _write_output(recipe, result, data)
        summary = _summarise(recipe, manifest["run_id"], counts, data, result, run, time.monotonic() - began)
        _write_report(summary)
        write_json(run.folder / "result.json", _as_result(summary, run))
        return summary


def _check_paths(recipe: Recipe) -> None:
    container_of(recipe.output)
    if recipe.input is None:
        raise RecipeError("input: is not given; name the file to read.")
    if not recipe.input.exists():
        raise DataError(f"E101 {recipe.input}: there is no such file; check the path.")
    if recipe.input.resolve() == recipe.output.resolve():
        raise RecipeError(f"output: {recipe.output} is the input itself; write to another file.")
    if recipe.output.exists() and not _is_ours(recipe):
        raise CannotCreate(f"{recipe.output}: exists already; choose another output, or remove it.")


def _is_ours(recipe: Recipe) -> bool:
    """Whether the run in the recipe's folder is the one that wrote, or will write, the output that stands there."""
    path = recipe.run_folder / "run.json"
    if not path.exists():
        return False
    with storage_errors(path):
        written = Path(json.loads(path.read_text("utf-8"))["recipe"]["output"])
    return written.resolve() == recipe.output.resolve()


def _open_folder(recipe: Recipe, digest: str | None) -> dict[str, Any]:  # Any: run.json
    """The folder's run.json, written if it is new; raises `ResumeError` where it holds another run."""
    path = recipe.run_folder / "run.json"
    new: dict[str, Json] = {"settings": semantic(recipe), "input": {"path": str(recipe.input), "sha256": digest}}
    if not path.exists():
        id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
        run = {"format": FORMAT, "run_id": id, "created": time.strftime("%Y-%m-%d %H:%M:%S"), "versions": _versions(),
               "command": command(recipe), "recipe": as_json(recipe), **new}  # fmt: skip
        write_json(path, run)
        return run
    with storage_errors(path):
        old = json.loads(path.read_text("utf-8"))
    if old.get("format") != FORMAT:
        raise ResumeError(f"{path.parent}: is a run of format {old.get('format')}, not {FORMAT}; use another folder.")
    changed = differences(old["settings"], new["settings"])
    if changed:
        said = ", ".join(f"{p} was {json.dumps(a)} and is now {json.dumps(b)}" for p, a, b in changed[:3])
        raise ResumeError(f"{path.parent}: holds another run: {said}; use another output or folder, or go back.")
    if old["input"]["sha256"] != digest:
        raise ResumeError(
            f"{path.parent}: the input {recipe.input} has changed since the run began; use another folder."
        )
    return dict(old)


def _finished(recipe: Recipe, run_id: str) -> Summary | None:
    """The summary of a run that is complete and whose output stands as it was written."""
    path = recipe.run_folder / "result.json"
    if not path.exists():
        return None
    with storage_errors(path):
        old = json.loads(path.read_text("utf-8"))
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
    if note.exists():
        with storage_errors(note):
            return _opened(folder, json.loads(note.read_text("utf-8")))
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    reading = Reading(recipe.format, recipe.duplicate_ids, recipe.max_bad, recipe.limit)
    assert recipe.input is not None  # _check_paths refuses a recipe without one
    data = read(recipe.input, Record, reading, folder)
    assert data.source is not None  # read() always says what it read
    broken = [{**dataclasses.asdict(b), "raw": base64.b64encode(b.raw).decode()} for b in data.source.broken]
    fields: dict[str, Any] = {
        **dataclasses.asdict(data.source),
        "broken": broken,
        "left_out": data.left_out(),
    }  # Any: JSON
    write_json(note, fields)
    write_table(folder.parent / "quarantine.parquet", _quarantine(data.source.broken))
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
    return open_dataset(folder, Record, source, note["left_out"])


def _write_output(recipe: Recipe, result: Result, data: Dataset[Record]) -> None:
    if result.data is None:
        raise RunError("the method made no data; use it as a step of another.")
    beside = None
    if result.scores is not None:
        scores = result.scores
        beside = lambda r: {"id": r.id, "scores": {k: _shown(s) for k, s in scores[r.id].items()}}  # noqa: E731
    write_records(result.data, recipe.output, data, beside)


def _shown(score: object) -> dict[str, Any]:  # Any: JSON
    if isinstance(score, Score):
        return {"value": score.value, "parts": dict(score.parts), "note": score.note}
    return {"value": None, "parts": {}, "note": f"{getattr(score, 'kind', '')}: {getattr(score, 'message', '')}"}


def _summarise(recipe: Recipe, run_id: str, counts: Counter[str], data: Dataset[Record], result: Result, run: Run,
               seconds: float) -> Summary:  # fmt: skip
    assert data.source is not None  # data come from a file
    broken = len(data.source.broken)
    names = {"keep": "kept", "drop": "dropped", "replace": "replaced", "create": "created"}
    balance = {"in": data.source.rows, "kept": counts["keep"], "dropped": counts["drop"],
               "quarantined": counts["quarantine"] + broken}  # fmt: skip
    balance |= {names[a]: counts[a] for a in ("replace", "create") if counts[a]}
    reasons = Counter(f"{names.get(d.action, 'quarantined')}: {d.reason.partition(':')[0]}" for d in result.decisions)
    reasons.update(f"quarantined: {b.code} {b.message}"[:80] for b in data.source.broken)
    worked = sum(s.worked for s in run.stages)
    return Summary(run_id, run.folder, recipe.output, run.folder / "report.html", balance, dict(reasons.most_common()),
                   worked, seconds)  # fmt: skip


def _write_report(summary: Summary) -> None:
    page = render(collect(summary.folder, summary.counts))
    part = summary.report.with_name(".report.html.tmp")
    with storage_errors(summary.report):
        part.write_text(page, "utf-8")
        part.replace(summary.report)


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
