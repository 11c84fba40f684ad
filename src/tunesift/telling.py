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
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from tunesift import catalogue
from tunesift.console import told_spent
from tunesift.errors import DataError, RecipeError, printable, shown
from tunesift.methods.clear import AnyFilter
from tunesift.methods.clear_evidence import AnySimilarity
from tunesift.methods.select import AnyScorer
from tunesift.models import ChatModel, EmbedModel, LikelihoodModel
from tunesift.models.folders import EMBEDDED, local_folder
from tunesift.models.nli import NliModel
from tunesift.planning import Plan, matrix_rate, plan
from tunesift.recipe import Recipe, load_recipe, members, recipe_for
from tunesift.report.folder import RunFolder, check_run, run_folder
from tunesift.running.database import open_state
from tunesift.running.fsio import read_json, storage_errors
from tunesift.running.ledger import read_spent
from tunesift.running.local import Local
from tunesift.running.result import Planned

MOST_EXCERPT = 600
"""Characters of a text that `inspect` prints."""
_EXTRAS = {"local": ("torch", "transformers", "safetensors"), "cluster": ("sklearn",), "images": ("PIL",),
           "embed": ("sentence_transformers",)}  # fmt: skip


def recipe_to_plan(what: str, input: Path | None, settings: list[str]) -> Recipe:
    """The recipe that a method's name and an input, or a recipe's file, mean."""
    if input is not None and "=" in input.name and not input.exists():
        input, settings = None, [str(input), *settings]
    if what.endswith((".yaml", ".yml")):
        return load_recipe(what, [*([str(input)] if input else []), *settings])
    if Path(what).exists():
        raise RecipeError(f"{shown(what)}: is no method; write tunesift plan select {shown(what)}, or another method.")
    return recipe_for(what, input, Path("planned.jsonl"), settings)


def told_plan(recipe: Recipe, as_json: bool) -> str:
    """The plan of a recipe in words, or as JSON."""
    found = plan(recipe)
    if as_json:
        return json.dumps(dataclasses.asdict(found))
    lines = [
        f"{recipe.input}: {found.records:,} records, {found.broken:,} unreadable rows, about {found.tokens:,} tokens"
    ]
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
    lines += [f"  input: {run['input']['path']}", f"  output: {run['recipe']['output']}"]
    lines += [f"  settings: {json.dumps(run['settings']['method'])}"]
    lines += [f"  stage {name}: {count:,} items done" for name, count in _stage_rows(folder).items()]
    lines += [f"  {told_spent(spent)}" for spent in read_spent(folder)]
    if done:
        lines.append("  " + ", ".join(f"{count:,} {name}" for name, count in result["counts"].items()))
        lines += [f"  {count:>8,}  {reason}" for reason, count in result["reasons"].items()]
    else:
        lines.append("  start the same command again to finish it")
        if (folder / "progress.json").exists():
            now = read_json(folder / "progress.json")
            lines.append(f"  at {now['at']}: {now['done']:,} of {now['items']:,} items of stage {now['stage']}")
    return "\n".join(map(printable, lines))


def told_record(folder: Path, id: str, as_json: bool) -> str:
    """One record, its decision, and its outcome in every stage; with it, outcomes of what was made of it.

    `id` is a record's id, the beginning of just one, or its number, from 1.
    """
    whole = run_folder(folder)
    id, action, reason = _decided(whole, id)
    own = (pc.field("id") == id) | pc.starts_with(pc.field("id"), f"{id}~")  # what was made of it, too
    stages: dict[str, object] = {}
    for part in sorted((folder / "stages").glob("*/part-*.parquet")):
        for row in pq.read_table(part, filters=own).to_pylist():
            name = part.parent.name + row["id"].removeprefix(id)
            stages[name] = {"failure": row["failure"]} if row["failure"] else json.loads(row["outcome"])
    made = whole.made_of({id}).get(id)
    old = whole.data.by_id(id) if whole.data.place(id) is not None else None
    told = [("", m) for m in old.messages] if old else []
    told += [("new ", m) for m in made.messages] if made else []
    if as_json:
        messages = [{"role": f"{new}{m.role}", "text": m.text} for new, m in told]
        return json.dumps({"record_id": id, "action": action, "reason": reason, "messages": messages, "stages": stages})
    lines = [f"{id}: {action}", f"  {reason}"]
    lines += [f"  {new}{m.role}: {_excerpt(m.text)}" for new, m in told]
    outcomes = {name: json.dumps(_rounded(outcome), ensure_ascii=False) for name, outcome in stages.items()}
    lines += [f"  {name}: {_excerpt(outcome)}" for name, outcome in outcomes.items()]
    return "\n".join(map(printable, lines))


def _decided(run: RunFolder, said: str) -> tuple[str, str, str]:
    """The decision on a record of this id, of this number, or else on the only one whose id begins so."""
    begins: list[tuple[str, str, str]] = []
    numbered = None
    for number, decision in enumerate(run.decisions(), start=1):
        if decision[0] == said:
            return decision
        begins += [decision] if decision[0].startswith(said) and len(begins) < 2 else []
        numbered = decision if str(number) == said else numbered
    if numbered is None and len(begins) == 1:
        return begins[0]
    if numbered is None:
        why = "several ids begin with" if begins else "no record has the id"
        raise DataError(f'{run.path}: {why} "{shown(said)}"; ids are in report.html, and 5 means the fifth record.')
    return numbered


def _excerpt(text: str) -> str:
    """A text on one line, its middle left out where it is long."""
    said = " ".join(text.split())
    return said if len(said) <= MOST_EXCERPT else f"{said[: MOST_EXCERPT - 200]} … {said[-190:]}"


def _rounded(outcome: object) -> object:
    """The same with numbers of four digits after the point."""
    if isinstance(outcome, float):
        return round(outcome, 4)
    if isinstance(outcome, dict):
        return {name: _rounded(value) for name, value in outcome.items()}
    return [_rounded(value) for value in outcome] if isinstance(outcome, list) else outcome


def told_catalogue(as_json: bool) -> str:
    """Everything a recipe may name, from the unions that the recipe reader reads."""
    unions = {"methods": catalogue.AnyMethod, "scorers": AnyScorer, "selectors": AnyFilter, "executors": Local,
              "models": ChatModel | LikelihoodModel | EmbedModel | NliModel, "similarities": AnySimilarity}  # fmt: skip
    found = {group: {_kind(m): _entry(m) for m in members(union)} for group, union in unions.items()}
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
