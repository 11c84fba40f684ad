"""From a complete run to a folder that LLaMA-Factory, axolotl or TRL trains from: data, settings, what differs."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, get_args

import orjson

from tunesift.datasets import Dataset
from tunesift.disk import sync
from tunesift.errors import CannotCreate, DataError, RecipeError, RunError, printable, shown, told_count
from tunesift.export_images import PictureRows, Seeing, picture_rows, seeing
from tunesift.export_rows import PairRows, Rows, Target, rows_for
from tunesift.export_settings import (
    CALLED,
    Training,
    differences_for,
    registry,
    settings_file,
    settings_for,
    start,
)
from tunesift.formats import PREFERENCE
from tunesift.methods.sima import Sima
from tunesift.methods.tune import Tune
from tunesift.model_output import makes_model
from tunesift.models.folders import EMBEDDED, base_of, local_folder
from tunesift.models.transformers import TransformersModel
from tunesift.overriding import said
from tunesift.recipe import Recipe, check, recipe_for, with_values
from tunesift.records import IN_OUTPUT, noun
from tunesift.report.folder import RunFolder, check_run, run_folder
from tunesift.running.fsio import read_json, storage_errors
from tunesift.settings import Json
from tunesift.tuning.dpo import DPO
from tunesift.tuning.vision_dpo import VisionDPO
from tunesift.writing import check_place, create_errors, write_json_rows
from tunesift.yaml_text import yaml_of

LEFT_OUT = "left_out.jsonl"
README = "README.txt"
HELD_OUT = "held out"
"""How the reason of a record begins that a tuning did not train on."""
AnyRows = Rows | PairRows | PictureRows
Files = dict[str, Callable[[Path], object]]
"""By name, what writes each file of a folder."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote."""

    run: Path
    folder: Path
    to: Target
    files: tuple[str, ...]
    """Names of the files, in the folder."""
    settings: str
    """Name of the one that has the settings."""
    start: str
    """The command that begins the training, in the folder."""
    noun: str
    """What one of them is called."""
    records: int
    """Records, or preference pairs, that are trained on."""
    held_out: int
    """Those whose loss is measured."""
    left_out: Mapping[str, int]
    """Why records are not written: how many of each."""
    differences: tuple[str, ...]
    """Settings that have no counterpart, or mean something else there."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The records, or preference pairs, of a run, by what becomes of them."""

    trained: Dataset[Any]  # Any: of what the tuner reads, and below
    held_out: Dataset[Any]
    left_out: Mapping[str, str]
    """By id, why a record is not written."""


def export(run: Path, folder: Path, to: str, settings: Sequence[str] = ()) -> Exported:
    """Write the records of a complete run, and the settings of their training, as another trainer reads them.

    Of a run of `tune`, the records are those that it trained on, and the settings its own; of another, those of `tune`
    with `settings` put in by dotted name (`student.name=llama`, `tuner.epochs=2`). The folder is new, and written whole
    or not at all. Raises `RecipeError`, `DataError`, `RunError` or `ModelError`; each says what would be right.
    """
    target = _target(to)
    begun = _begun(run)
    if os.path.lexists(folder):
        raise CannotCreate(f"{folder}: exists already; choose another folder, or remove it.")
    check_place(folder)
    tune = _tuning(begun, settings)
    of_pairs = isinstance(tune.tuner, DPO | VisionDPO)
    reference = tune.tuner.reference if isinstance(tune.tuner, DPO) else None
    base = _base("student.name", tune.student.name)
    beside = None if reference is None else _base("tuner.reference.name", reference.name)
    rows: AnyRows = (
        picture_rows(target, begun.method, begun.input)
        if isinstance(begun.method, Sima) and begun.input is not None
        else rows_for(target, tune.tuner.template, tune.student, of_pairs)
    )
    with storage_errors(run):
        chosen = _chosen(run_folder(run), begun, tune, rows)
    counts = len(chosen.trained), len(chosen.held_out)
    training = Training(tune.student, tune.tuner, base, beside, tune.limit, _name(begun), *counts)
    differs = (*differences_for(target, training), *(() if of_pairs else _of_pairs(chosen.trained)))
    names = settings_file(target, of_pairs), start(target, of_pairs)
    done = Exported(run, folder, target, (), *names, noun(tune.tuner.reads), *counts, _reasons(chosen), differs)
    files = _files(target, training, rows, chosen)
    done = replace(done, files=(*files, README))
    _write({**files, README: lambda path: path.write_bytes(_readme(done).encode())}, folder)
    return done


def _target(to: str) -> Target:
    for target in get_args(Target):
        if to == target:
            return target  # type: ignore[no-any-return]  # one of the literal's own values
    raise RecipeError(f'--to: "{shown(to)}" is no trainer; write one of {", ".join(get_args(Target))}.')


def _begun(run: Path) -> Recipe:
    """The recipe of a complete run."""
    check_run(run)
    if not (run / "result.json").exists():
        raise RunError(f"{run}: the run is not complete; start it again to finish it.")
    begun = check(read_json(run / "run.json")["recipe"])
    if makes_model(begun) and not isinstance(begun.method, Tune):
        raise RecipeError(f"{run}: {begun.method.kind} leaves a model and no records; export the run of a method that "
                          "leaves records, or of tune.")  # fmt: skip
    return begun


def _tuning(begun: Recipe, settings: Sequence[str]) -> Tune | Seeing:
    """The tuning that is exported: the run's own, or that of what it made; with settings put in."""
    for text in settings:
        if text.partition(".")[0] not in ("student", "tuner"):
            said_so = f'"{shown(text)}" is no setting of a training'
            raise RecipeError(f"{said_so}; write student.name=FOLDER or tuner.epochs=3.")
    if isinstance(begun.method, Sima):
        return seeing(begun.method, list(settings))
    if not isinstance(begun.method, Tune):
        student = getattr(begun.method, "student", None)
        own = [f"student.name={json.dumps(student.name)}"] if isinstance(student, TransformersModel) else []
        whole = recipe_for("tune", None, Path("tuned"), [*own, *settings])
        return _with_student(whole.method)
    if any(text.startswith(("tuner.held_out=", "tuner.seed=")) for text in settings):
        raise RecipeError("tuner.held_out and tuner.seed: say which records the run held out; leave them as they were.")
    changed = {f"method.{'.'.join(path)}": value for path, value in map(said, settings)}
    tune = with_values(begun, changed).method
    assert isinstance(tune, Tune)  # its kind cannot be named here
    return tune


def _with_student(tune: object) -> Tune:
    assert isinstance(tune, Tune)  # the vetted recipe of that name
    if tune.student.name == EMBEDDED:
        raise RecipeError("student.name: is not given; write student.name=FOLDER, the model that is to be tuned.")
    return tune


def _base(setting: str, name: str) -> str:
    """What another trainer is told: the absolute folder of a local model, or the hub id."""
    folder = local_folder(name)
    if folder is None:
        return name
    if base_of(folder) is not None:
        raise RecipeError(f'{setting}: "{shown(name)}" holds adapters, not a whole model; give a model.')
    return str(folder.absolute())


def _name(begun: Recipe) -> str:
    """What the data are called: as the file that they came in, or were written to."""
    of_input = isinstance(begun.method, Tune) and begun.input is not None
    path = begun.input if of_input and begun.input is not None else begun.output
    return re.sub(r"[^A-Za-z0-9_-]+", "_", path.name.partition(".")[0]).strip("_") or "records"


def _chosen(run: RunFolder, begun: Recipe, tune: Tune | Seeing, rows: AnyRows) -> _Chosen:
    kept = {id for id, action, _ in run.decisions() if action in IN_OUTPUT}
    data: Dataset[Any] | None = run.data.only(kept) if run.made is None else run.made
    if data is not None and not isinstance(rows, Rows):
        data = data.as_pairs()
    if data is None:
        raise DataError(f"{run.path}: holds records, not preference pairs; write tuner.kind=sft.")
    left_out = {record.id: why for record in data if (why := rows.refused(record))}
    aside: Collection[str] = ()
    if isinstance(begun.method, Tune):
        aside = {id for id, _, reason in run.decisions() if reason.startswith(HELD_OUT)}
    elif tune.tuner.held_out:
        aside = tune.tuner.held_out_of([id for id in data.ids() if id not in left_out])
    places = [(id in left_out, id in aside) for id in data.ids()]
    trained = data.where(not left and not held for left, held in places)
    if not len(trained):
        why = next(iter(left_out.values()), "it kept none")
        raise DataError(f"{run.path}: has no {noun(tune.tuner.reads)} to train on ({why}); export another run.")
    return _Chosen(trained, data.where(not left and held for left, held in places), left_out)


def _of_pairs(data: Dataset[Any]) -> tuple[str, ...]:
    """What becomes of preference pairs; empty of other records."""
    if data.source is None or data.source.format != PREFERENCE:
        return ()
    return ("the records are preference pairs: the chosen answer is trained on, the rejected one is not written",)


def _reasons(chosen: _Chosen) -> dict[str, int]:
    return dict(Counter(chosen.left_out.values()).most_common())


def _files(to: Target, training: Training, rows: AnyRows, chosen: _Chosen) -> Files:
    """The files of an export but for the one that tells of it."""
    ending = "parquet" if isinstance(rows, PictureRows) else "jsonl"
    sets = [data for data in (chosen.trained, chosen.held_out) if len(data)]
    names = {"llama-factory": [f"{name}.json" for name in training.data],
             "axolotl": [f"{name}.jsonl" for name in training.data],
             "trl": [f"{training.name}/train.{ending}", f"{training.name}/test.{ending}"][: len(sets)]}[to]  # fmt: skip
    files: Files = {name: _data(rows, data) for name, data in zip(names, sets, strict=True)}
    if to == "llama-factory":
        files["dataset_info.json"] = _small(_json(registry(training)))
    files[settings_file(to, training.pairs)] = _small(yaml_of(settings_for(to, training)))
    if chosen.left_out:
        found = [{"id": id, "reason": reason} for id, reason in chosen.left_out.items()]
        files[LEFT_OUT] = lambda path: write_json_rows(map(orjson.dumps, found), path, Path(LEFT_OUT))
    return files


def _data(rows: AnyRows, data: Iterable[Any]) -> Callable[[Path], object]:  # Any: records or pairs
    if isinstance(rows, PictureRows):
        return lambda path: rows.write(data, path)

    def texts() -> Iterator[bytes]:
        return (orjson.dumps(rows.row(record)) for record in data)

    return lambda path: write_json_rows(texts(), path, path)


def _small(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


def _json(value: Mapping[str, Json]) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"


def _write(files: Files, folder: Path) -> None:
    """A folder of files, whole or not at all."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with create_errors(folder):
        try:
            rmtree(part, ignore_errors=True)
            for name, write in files.items():
                path = part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path)
                sync(path)
            for place in (*(path for path in part.iterdir() if path.is_dir()), part):
                sync(place)
            part.rename(folder)
            sync(folder.absolute().parent)
        finally:
            rmtree(part, ignore_errors=True)


def _readme(done: Exported) -> str:
    """What the folder holds, for who finds it on another machine."""
    who = CALLED[done.to]
    lines = [f"{done.noun.capitalize()}s of the tunesift run {done.run.name} for {who}: {told_of(done)}.", "",
             f"Start in this folder, since the paths in {done.settings} are relative to it:", "",
             f"    {done.start}", "", "What differs from the training that tunesift does:", ""]  # fmt: skip
    lines += [f"- {difference}" for difference in done.differences]
    if done.left_out:
        lines += ["", f"Left out, with their ids in {LEFT_OUT}:", ""]
        lines += [f"- {count:,}: {why}" for why, count in done.left_out.items()]
    return "".join(f"{printable(line)}\n" for line in lines)


def told_of(done: Exported) -> str:
    """How many records, or preference pairs, are trained on, held out, and left out."""
    told = [f"{told_count(done.records, done.noun)} to train on"]
    told += [f"{done.held_out:,} held out"] if done.held_out else []
    told += [f"{sum(done.left_out.values()):,} left out"] if done.left_out else []
    return ", ".join(told)
