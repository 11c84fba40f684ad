"""What a run, a record, the catalogue and this machine look like in words."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import resource
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from tunesift import catalogue
from tunesift.budget import told_money
from tunesift.console import told_spent
from tunesift.errors import DataError, RecipeError, printable, shown, told_bytes, told_count
from tunesift.evaluation.pareto import Standing
from tunesift.export import Exported, told_of
from tunesift.inputs import path_as_text
from tunesift.methods.clear import AnyFilter
from tunesift.methods.clear_evidence import AnySimilarity
from tunesift.methods.select import AnyScorer, AnySelector
from tunesift.models import ChatModel, EmbedModel, LikelihoodModel, RewardModel, VisionChatModel
from tunesift.models.folders import EMBEDDED, local_folder
from tunesift.models.nli import NliModel
from tunesift.planning import Plan, matrix_rate, plan
from tunesift.recipe import Recipe, load_recipe, recipe_for, vetted_names, vetted_summary
from tunesift.records import noun
from tunesift.report.folder import RunFolder, check_run, run_folder, turns_of
from tunesift.running.database import rows_done
from tunesift.running.fsio import read_json, storage_errors
from tunesift.running.ledger import read_spent
from tunesift.running.local import Local
from tunesift.running.result import Planned, kind_read
from tunesift.running.training import trainings, updates_done
from tunesift.settings import members

MOST_EXCERPT = 600
"""Characters of a text that `inspect` prints."""
_EXTRAS = {"local": ("torch", "transformers", "safetensors"), "cluster": ("sklearn",), "images": ("PIL",),
           "embed": ("sentence_transformers",), "pos": ("spacy",), "vision": ("torch", "PIL")}  # fmt: skip


def recipe_to_plan(what: str, input: str | None, settings: list[str]) -> Recipe:
    """The recipe that a method's name and an input, or a recipe's file, mean."""
    if input is not None and (what.endswith((".yaml", ".yml")) or ("=" in input and not Path(input).exists())):
        settings, input = [input, *settings], None  # a setting stands where other methods have their input
    if what.endswith((".yaml", ".yml")):
        return load_recipe(what, settings)
    if Path(what).exists():
        raise RecipeError(f"{shown(what)}: is no method; write tunesift plan select {shown(what)}, or another method.")
    return recipe_for(what, Path(input) if input else None, Path("planned.jsonl"), settings)


def told_plan(recipe: Recipe, as_json: bool) -> str:
    """The plan of a recipe in words, or as JSON."""
    found = plan(recipe)
    if as_json:
        return json.dumps(dataclasses.asdict(found))
    size = f"{told_count(found.records, noun(kind_read(recipe.method)))}, {told_count(found.broken, 'unreadable row')}"
    read = f"{size}, about {told_count(found.tokens, 'token')}"
    lines = [f"{recipe.input}: {read}" if recipe.input else f"{recipe.method.kind}: reads no data"]
    for s in found.stages:
        asked = f"{s.forwards} {_passes(s)} each, by {s.model}" if s.forwards else "no model"
        lines.append(f"  stage {s.stage}: {'at most ' if s.spare else ''}{told_count(s.items, 'item')}, {asked}")
        lines += [f"    {s.told}"] if s.told else []
    lines += [f"  {model} is in no folder here" for model in found.missing]
    lines += [f"  {model}" for model in found.unnamed]
    if found.calls:
        lines += _told_calls(found)
    else:
        lines.append(f"  time: {_told_time(found)}; calls: 0; cost: 0")
    return "\n".join(map(printable, lines))


def _told_calls(found: Plan) -> list[str]:
    """What is asked of endpoints, what it costs, how long it takes."""
    usual = f"{told_count(found.expected, 'call')} where every reply can be used, " if found.spares else ""
    most = f"{told_count(found.calls, 'call')} ({found.probes} of them small, one before each stage)"
    cost = "not known before the model is" if found.unnamed else "not known: give --prices"
    if found.money is not None and found.expected_money is not None:
        cost = (f"about {told_money(found.expected_money)} where an answer is as long as its record, "
                f"at most {told_money(found.money)}")  # fmt: skip
    return [
        f"  endpoints: {usual}at most {most} and {told_count(found.billed, 'token')}",
        f"  cost: {cost}",
        f"  time: about {found.waits:,} s if an answer takes 1 s",
    ]


def _passes(stage: Planned) -> str:
    if stage.answer:
        return "call" if stage.forwards == 1 else "calls"
    return "forward pass" if stage.forwards == 1 else "forward passes"


def _told_time(found: Plan) -> str:
    if found.seconds is None:
        return "not known for a model that is not in a folder here"
    return f"about {max(1, round(found.seconds)):,} s on this machine's processor"


def told_export(done: Exported, as_json: bool) -> str:
    """What an export wrote, in words or as JSON."""
    if as_json:
        paths: dict[str, object] = {"run": path_as_text(done.run), "folder": path_as_text(done.folder)}
        return json.dumps(dataclasses.asdict(done) | paths)
    lines = [f"{done.folder}: {told_of(done)}"]
    lines += [f"  {count:,} left out: {why}" for why, count in done.left_out.items()]
    lines += [f"  {difference}" for difference in done.differences]
    lines += [f"  start it there: {done.start}"]
    return "\n".join(map(printable, lines))


def told_standings(found: Sequence[Standing], as_json: bool) -> str:
    """The fronts of groups of runs, in words or as JSON."""
    if as_json:
        return json.dumps([dataclasses.asdict(one) for one in found])
    lines = []
    for one in found:
        share = f"{len(one.unbeaten)} of {len(one.front)} unbeaten by all runs"
        lines.append(f"{one.group or 'all'}: {told_count(one.runs, 'run')}, front: {', '.join(one.front)}; {share}")
        lines += [f"  unbeaten: {', '.join(one.unbeaten)}"] if len(found) > 1 and one.unbeaten else []
    return "\n".join(map(printable, lines))


def told_run(folder: Path, as_json: bool) -> str:
    """A run's settings, state, balance and reasons."""
    run = _read(folder, "run.json")
    done = (folder / "result.json").exists()
    result = _read(folder, "result.json") if done else {}
    if as_json:
        return json.dumps({"run": run, "complete": done, "result": result or None, "stages": _stage_rows(folder),
                           "trainings": updates_done(folder),
                           "spent": [dataclasses.asdict(spent) for spent in read_spent(folder)]})  # fmt: skip
    lines = [f"{folder}: run {run['run_id']} of {run['created']}, {'complete' if done else 'not complete'}"]
    lines += [f"  input: {run['input']['path'] or 'none'}", f"  output: {run['recipe']['output']}"]
    lines += [f"  and: {file['path']}, {told_count(file['records'], 'record')}" for file in result.get("also", ())]
    lines += [f"  settings: {json.dumps(run['settings']['method'])}"]
    lines += [f"  stage {name}: {told_count(count, 'item')} done" for name, count in _stage_rows(folder).items()]
    lines += [f"  training {name}: {told_count(count, 'update')} done" for name, count in updates_done(folder).items()]
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
            what = "updates of training" if now["stage"] in trainings(folder) else "items of stage"
            lines.append(f"  at {now['at']}: {now['done']:,} of {now['items']:,} {what} {now['stage']}")
    return "\n".join(map(printable, lines))


def told_record(folder: Path, id: str, as_json: bool) -> str:
    """One record, its decision, and its outcome in every stage; with it, outcomes of what was made of it.

    `id` is a record's id, that of a record that was made of it, the beginning of just one, or its number, from 1.
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
    old = whole.read_of(id) if whole.data.place(id) is not None else None
    told = turns_of(old) if old else []
    told += [(f"new {role}", text) for role, text in turns_of(made)] if made else []
    if as_json:
        messages = [{"role": role, "text": text} for role, text in told]
        return json.dumps({"record_id": id, "action": action, "reason": reason, "messages": messages, "stages": stages})
    lines = [f"{id}: {action}", f"  {reason}"]
    lines += [f"  {role}: {_excerpt(text)}" for role, text in told]
    outcomes = {name: json.dumps(_rounded(outcome), ensure_ascii=False) for name, outcome in stages.items()}
    lines += [f"  {name}: {_excerpt(outcome)}" for name, outcome in outcomes.items()]
    return "\n".join(map(printable, lines))


def _decided(run: RunFolder, said: str) -> tuple[str, str, str]:
    """The decision on a record of this id, of this number, or of which this was made; or else on the only one whose id
    begins so."""
    begins: list[tuple[str, str, str]] = []
    numbered = None
    parents: list[tuple[str, str, str]] = []
    for number, decision in enumerate(run.decisions(), start=1):
        if decision[0] == said:
            return decision
        begins += [decision] if decision[0].startswith(said) and len(begins) < 2 else []
        numbered = decision if str(number) == said else numbered
        parents += [decision] if said.startswith(f"{decision[0]}~") else []
    if numbered is None and (noted := _noted(run.path, said)):
        return said, "nothing", noted
    if numbered is None and len(begins) == 1:
        return begins[0]
    if numbered is None and parents:
        return max(parents, key=lambda parent: len(parent[0]))
    if numbered is None:
        why = "several ids begin with" if begins else "no record has the id"
        raise DataError(f'{run.path}: {why} "{shown(said)}"; ids are in report.html, and 5 means the fifth record.')
    return numbered


def _noted(folder: Path, id: str) -> str:
    """What the small tables say about an item that no record was made of; empty where they say nothing."""
    found = [
        ", ".join(str(value) for name, value in row.items() if name != "id" and value)
        for path in sorted((folder / "tables").glob("*.parquet"))
        if "id" in pq.read_schema(path).names
        for row in pq.read_table(path, filters=[("id", "=", id)]).to_pylist()
    ]
    return "; ".join(["no record was made of it", *found]) if found else ""


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
    """Everything a recipe may name, from the unions that the recipe reader reads, and the recipes of the package."""
    unions = {"methods": catalogue.AnyMethod, "scorers": AnyScorer, "selectors": AnyFilter, "executors": Local,
              "models": ChatModel | LikelihoodModel | VisionChatModel | NliModel | RewardModel, "embedders": EmbedModel,
              "similarities": AnySimilarity}  # fmt: skip
    found = {group: {_kind(m): _entry(m) for m in members(union)} for group, union in unions.items()}
    for kind in set(found["selectors"]) - {_kind(m) for m in members(AnySelector)}:
        found["selectors"][kind]["only"] = "clear"
    found["recipes"] = {name: {"summary": vetted_summary(name)} for name in vetted_names()}
    if as_json:
        return json.dumps(found)
    width = max(len(kind) for entries in found.values() for kind in entries)
    lines = []
    for group, entries in found.items():
        lines.append(f"{group}:")
        for kind, entry in entries.items():
            only = f" (for {entry['only']} only)" if "only" in entry else ""
            lines.append(f"  {kind:<{width}}  {entry['summary']}{only}")
            if "settings" in entry:
                lines.append(f"  {'':<{width}}  settings: {', '.join(entry['settings']) or 'none'}")
    return "\n".join([*lines, "every setting: docs/reference.md"])


def told_machine(as_json: bool) -> str:
    """Versions, extras, devices, speed and limits of this machine."""
    scorer = local_folder(EMBEDDED)
    files, space = (_limit(which) for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS))
    found: dict[str, Any] = {  # Any: JSON
        "python": platform.python_version(), "tunesift": _version("tunesift"), "sqlite": sqlite3.sqlite_version,
        "processors": os.cpu_count(), "gflops_float32": round(matrix_rate() / 1e9, 1),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "free_disk_gb": round(shutil.disk_usage(".").free / 1e9, 1), "open_files": files, "address_space": space,
        "embedded_scorer": bool(scorer and (scorer / "model.safetensors").exists()),
        "device": _device(),
    }  # fmt: skip
    installed = {name: all(find_spec(m) for m in modules) for name, modules in _EXTRAS.items()}
    if as_json:
        return json.dumps({**found, "extras": installed})
    there, missing = ([name for name, has in installed.items() if has is wanted] for wanted in (True, False))
    return "\n".join([
        f"tunesift {found['tunesift']} on Python {found['python']}, with SQLite {found['sqlite']}",
        f"processor: {told_count(found['processors'], 'core')}, {found['gflops_float32']:,.1f} billion operations a "
        "second in a float32 matrix product",
        f"device: {found['device']}",
        f"memory: {found['memory_gb']:,.1f} GB in all",
        f"disk: {found['free_disk_gb']:,.1f} GB free in this folder",
        f"limits: {'no limit of' if files is None else f'{files:,}'} open files, "
        f"{'no limit of' if space is None else told_bytes(space)} address space",
        f"embedded scorer: {'in the package' if found['embedded_scorer'] else 'missing; install tunesift anew'}",
        f"extras: {', '.join(there) or 'none'} installed"
        + (f'; missing: {", ".join(missing)} (pip install "tunesift[{",".join(missing)}]")' if missing else ""),
    ])  # fmt: skip


def _limit(which: int) -> int | None:
    """What this process may have of something; None for as much as it likes."""
    soft, _ = resource.getrlimit(which)
    return None if soft == resource.RLIM_INFINITY else soft


def _device() -> str:
    if not find_spec("torch"):
        return 'none: install the "local" extra'
    import torch

    return f"cuda: {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "cpu; torch finds no GPU"


def _kind(member: type) -> str:
    return str(next(f.default for f in dataclasses.fields(member) if f.name == "kind"))


def _entry(member: type) -> dict[str, Any]:  # Any: JSON
    fields = [f for f in dataclasses.fields(member) if f.name != "kind"]
    return {"summary": (member.__doc__ or "").strip().splitlines()[0], "settings": [f.name for f in fields]}


def _stage_rows(folder: Path) -> dict[str, int]:
    with storage_errors(folder):
        return rows_done(folder)


def _read(folder: Path, name: str) -> Mapping[str, Any]:  # Any: JSON
    check_run(folder)
    return read_json(folder / name)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
