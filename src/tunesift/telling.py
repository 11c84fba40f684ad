"""What a run, a record, the catalogue and this machine look like in words."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import sqlite3
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pyarrow.compute as pc
import pyarrow.parquet as pq

from tunesift import catalogue
from tunesift.console import told_spent
from tunesift.errors import DataError, RunError, printable, shown
from tunesift.methods.clear import AnyFilter
from tunesift.methods.clear_evidence import AnySimilarity
from tunesift.methods.select import AnyScorer
from tunesift.models import ChatModel
from tunesift.models.folders import EMBEDDED, local_folder
from tunesift.planning import Plan, matrix_rate, plan
from tunesift.recipe import Recipe, load_recipe, recipe_for
from tunesift.running.database import open_state
from tunesift.running.fsio import read_json, storage_errors
from tunesift.running.ledger import read_spent
from tunesift.running.local import Local
from tunesift.running.result import Planned

_EXTRAS = {"local": ("torch", "transformers", "safetensors"), "cluster": ("sklearn",), "images": ("PIL",),
           "embed": ("sentence_transformers",)}  # fmt: skip


def recipe_to_plan(what: str, input: str | None, settings: list[str]) -> Recipe:
    """The recipe that a method's name and an input, or a recipe's file, mean."""
    if input is not None and (what.endswith((".yaml", ".yml")) or ("=" in input and not Path(input).exists())):
        settings, input = [input, *settings], None  # a setting stands where other methods have their input
    if what.endswith((".yaml", ".yml")):
        return load_recipe(what, settings)
    return recipe_for(what, Path(input) if input else None, Path("planned.jsonl"), settings)


def told_plan(recipe: Recipe, as_json: bool) -> str:
    """The plan of a recipe in words, or as JSON."""
    found = plan(recipe)
    if as_json:
        return json.dumps(dataclasses.asdict(found))
    read = f"{found.records:,} records, {found.broken:,} unreadable rows, about {found.tokens:,} tokens"
    lines = [f"{recipe.input}: {read}" if recipe.input else f"{recipe.method.kind}: reads no data"]
    lines += [
        f"  stage {s.stage}: {'at most ' if s.spare else ''}{s.items:,} items, "
        + (f"{s.forwards} {_passes(s)} each, by {s.model}" if s.forwards else "no model")
        for s in found.stages
    ]
    if found.calls:
        cost = f"at most {found.money:.4f}" if found.money is not None else "not known: give --prices"
        usual = f"{found.expected:,} calls where every reply can be used, " if found.expected + 1 < found.calls else ""
        lines.append(f"  endpoints: {usual}at most {found.calls:,} calls and {found.billed:,} tokens; cost: {cost}")
        lines.append(f"  time: about {found.waits:,} s for each second that an answer takes, where nothing limits it")
    else:
        lines.append(f"  time: {_told_time(found)}; calls: 0; cost: 0")
    return "\n".join(map(printable, lines))


def _passes(stage: Planned) -> str:
    if stage.answer:
        return "call" if stage.forwards == 1 else "calls"
    return "forward pass" if stage.forwards == 1 else "forward passes"


def _told_time(found: Plan) -> str:
    if found.seconds is None:
        return "not known for a model that is not in a folder here"
    return f"about {max(1, round(found.seconds)):,} s on this machine's processor"


def told_run(folder: Path, as_json: bool) -> str:
    """A run's settings, state, balance and reasons."""
    run = _read(folder, "run.json")
    done = (folder / "result.json").exists()
    result = _read(folder, "result.json") if done else {}
    if as_json:
        return json.dumps({"run": run, "complete": done, "result": result or None, "stages": _stage_rows(folder),
                           "spent": [dataclasses.asdict(spent) for spent in read_spent(folder)]})  # fmt: skip
    lines = [f"{folder}: run {run['run_id']} of {run['created']}, {'complete' if done else 'not complete'}"]
    lines += [f"  input: {run['input']['path'] or 'none'}", f"  output: {run['recipe']['output']}"]
    lines += [f"  settings: {json.dumps(run['settings']['method'])}"]
    lines += [f"  stage {name}: {count:,} items done" for name, count in _stage_rows(folder).items()]
    lines += [f"  {told_spent(spent)}" for spent in read_spent(folder)]
    if done:
        counts = {name: count for name, count in result["counts"].items() if count or result["counts"]["in"]}
        lines.append("  " + (", ".join(f"{count:,} {name}" for name, count in counts.items()) or "0 created"))
        lines += [f"  {result['short']}"] if result.get("short") else []
        lines += [f"  {count:>8,}  {reason}" for reason, count in result["reasons"].items()]
    else:
        lines.append("  start the same command again to finish it")
        if (folder / "progress.json").exists():
            now = read_json(folder / "progress.json")
            lines.append(f"  at {now['at']}: {now['done']:,} of {now['items']:,} items of stage {now['stage']}")
    return "\n".join(map(printable, lines))


def check_run(folder: Path) -> None:
    """Raise `DataError` for what is no run's folder."""
    if not (folder / "run.json").exists():
        raise DataError(f"{folder}: is not a run's folder; it has no run.json.")


def told_record(folder: Path, id: str, as_json: bool) -> str:
    """One record's decision, and its outcome in every stage; with it, outcomes of what was made of it."""
    path = folder / "decisions.parquet"
    _read(folder, "run.json")
    if not path.exists():
        raise RunError(f"{folder}: has no decisions yet; start the run again to finish it.")
    rows = pq.read_table(path, filters=[("record_id", "=", id)]).to_pylist()
    own = (pc.field("id") == id) | pc.starts_with(pc.field("id"), f"{id}~")  # what was made of it, too
    stages: dict[str, object] = {}
    for part in sorted((folder / "stages").glob("*/part-*.parquet")):
        for row in pq.read_table(part, filters=own).to_pylist():
            name = part.parent.name + row["id"].removeprefix(id)
            stages[name] = {"failure": row["failure"]} if row["failure"] else json.loads(row["outcome"])
    if not rows and not stages:
        raise DataError(f'{folder}: no record has the id "{shown(id)}"; ids are in decisions.parquet.')
    nothing = {"record_id": id, "action": "nothing", "reason": _noted(folder, id)}
    found = {**(rows[0] if rows else nothing), "stages": stages}
    if as_json:
        return json.dumps(found)
    lines = [f"{id}: {found['action']}", f"  {found['reason']}"]
    lines += [f"  {name}: {json.dumps(outcome)}" for name, outcome in stages.items()]
    return "\n".join(map(printable, lines))


def _noted(folder: Path, id: str) -> str:
    """What the small tables say about an item that no record was made of."""
    found = [
        ", ".join(str(value) for name, value in row.items() if name != "id" and value)
        for path in sorted((folder / "tables").glob("*.parquet"))
        if "id" in pq.read_schema(path).names
        for row in pq.read_table(path, filters=[("id", "=", id)]).to_pylist()
    ]
    return "; ".join(["no record was made of it", *found])


def told_catalogue(as_json: bool) -> str:
    """Everything a recipe may name, from the unions that the recipe reader reads."""
    unions = {"methods": catalogue.AnyMethod, "scorers": AnyScorer, "selectors": AnyFilter, "executors": Local,
              "models": ChatModel, "similarities": AnySimilarity}  # fmt: skip
    found = {group: {_kind(m): _entry(m) for m in _members(union)} for group, union in unions.items()}
    if as_json:
        return json.dumps(found)
    lines = []
    for group, entries in found.items():
        lines.append(f"{group}:")
        for kind, entry in entries.items():
            lines.append(f"  {kind:<18} {entry['summary']}")
            lines.append(f"  {'':<18} settings: {', '.join(entry['settings']) or 'none'}")
    return "\n".join(lines)


def told_machine(as_json: bool) -> str:
    """Versions, extras, devices, speed and limits of this machine."""
    scorer = local_folder(EMBEDDED)
    found: dict[str, object] = {
        "python": platform.python_version(), "tunesift": _version("tunesift"), "sqlite": sqlite3.sqlite_version,
        "processors": os.cpu_count(), "gflops_float32": round(matrix_rate() / 1e9, 1),
        "free_disk_gb": round(shutil.disk_usage(".").free / 1e9, 1),
        "embedded_scorer": bool(scorer and (scorer / "model.safetensors").exists()),
        "device": _device(),
    }  # fmt: skip
    installed = {name: all(find_spec(m) for m in modules) for name, modules in _EXTRAS.items()}
    if as_json:
        return json.dumps({**found, "extras": installed})
    extras = ", ".join(f"{n} {'installed' if there else 'missing'}" for n, there in installed.items())
    return "\n".join([*(f"{name.replace('_', ' ')}: {value}" for name, value in found.items()), f"extras: {extras}"])


def _device() -> str:
    if not find_spec("torch"):
        return 'none: install the "local" extra'
    import torch

    return f"cuda: {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "cpu"


def _members(union: Any) -> list[type]:  # Any: types as values
    inner = get_args(union)[0] if get_origin(union) is Annotated else union
    return [m for member in get_args(inner) for m in _members(member)] or [inner]


def _kind(member: type) -> str:
    return str(next(f.default for f in dataclasses.fields(member) if f.name == "kind"))


def _entry(member: type) -> dict[str, Any]:  # Any: JSON
    fields = [f for f in dataclasses.fields(member) if f.name != "kind"]
    return {"summary": (member.__doc__ or "").strip().splitlines()[0], "settings": [f.name for f in fields]}


def _stage_rows(folder: Path) -> dict[str, int]:
    """Items done by stage, of a run that may be under way."""
    query = "SELECT stage, rows FROM part UNION ALL SELECT stage, 1 FROM result"
    counts: Counter[str] = Counter()
    with storage_errors(folder), open_state(folder / "state.db") as db:
        for stage, rows in db.execute(query):
            counts[stage] += rows
    return dict(counts)


def _read(folder: Path, name: str) -> Mapping[str, Any]:  # Any: JSON
    check_run(folder)
    return read_json(folder / name)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
