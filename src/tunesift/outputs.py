"""Which files does a run write beside its folder? Its output, and what a method makes besides, each whole or not at
all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tunesift.datasets import Dataset
from tunesift.errors import CannotCreate, RunError, shown
from tunesift.files import container_of, packing
from tunesift.inputs import check_apart, path_as_text, path_of_text
from tunesift.manifest import is_ours
from tunesift.model_output import check_model_name, makes_model, output_digest, write_model
from tunesift.recipe import Recipe, check_input
from tunesift.records import IN_OUTPUT, Failure, Record, Score
from tunesift.running.result import Result, further
from tunesift.settings import Json
from tunesift.writing import check_place, write_new, write_records


def places(recipe: Recipe) -> dict[str, Path]:
    """Where a run writes: its output, by an empty name, and what its method makes besides, by their names."""
    plain = recipe.output
    beside = plain.with_name(f"{plain.name}.jsonl") if makes_model(recipe) else plain
    return {"": plain, **{name: _beside_output(beside, name) for name in further(recipe.method)}}


def check_places(recipe: Recipe) -> None:
    """Raise before any work where the input is missing, or a file to be written stands there already, or cannot."""
    if makes_model(recipe):
        check_model_name(recipe)
    else:
        container_of(recipe.output)
    check_input(recipe)
    written = places(recipe).values()
    if recipe.input is not None:
        check_apart(recipe.input, *written, recipe.run_folder)
    for path in written:
        if os.path.lexists(path) and not is_ours(recipe):
            raise CannotCreate(f"{path}: exists already; choose another output, or remove it.")
        check_place(path)


def check_decided(result: Result) -> None:
    """The output is exactly what was kept, replaced and created."""
    if result.data is None:
        return
    there = (d for d in result.decisions if d.action in IN_OUTPUT)
    pairs = zip_longest(result.data.ids(), there)
    if all(d is not None and d.record_id == id and d.action != "replace" for id, d in pairs):
        return  # the usual page hands back what it kept, in the order in which it decided
    out = set(result.data.ids())
    counts = Counter(d.action for d in result.decisions)
    missing = next(
        (d.record_id for d in result.decisions if d.action in ("keep", "create") and d.record_id not in out), None
    )
    if missing is not None:
        raise RunError(
            f'the method decided to keep "{shown(missing)}" and did not hand it back; this is a fault of it.'
        )
    if len(out) != (decided := sum(counts[action] for action in IN_OUTPUT)):
        raise RunError(f"the method handed {len(out)} records back and decided on {decided}; this is a fault of it.")


def write_outputs(recipe: Recipe, result: Result, data: Dataset[Record]) -> None:
    """Write the output, and before it what the method made besides."""
    for name, path in places(recipe).items():
        if name:
            assert result.format is not None  # what is made besides was no row of the input
            write_new(result.also[name], path, result.format)
    if result.checkpoint is not None:
        write_model(result.checkpoint.path, recipe.output)
        return
    if result.data is None:
        raise RunError("the method made no data; use it as a step of another.")
    if result.format is not None:
        write_new(result.data, recipe.output, result.format)
        return
    beside = None
    if result.scores is not None:
        beside = partial(_scores_beside, result.scores)
    write_records(result.data, recipe.output, data, beside)


def as_written(recipe: Recipe, also: Mapping[Path, int]) -> dict[str, Json]:
    """What `result.json` says of the files, so that one that was changed since is known; `also` has records of each."""
    found: list[Json] = [{**_of_file(path), "records": records} for path, records in also.items()]
    return {"output": _of_file(recipe.output), **({"also": found} if found else {})}


def still_stand(recipe: Recipe, said: Mapping[str, Any]) -> bool:  # Any: JSON
    """Whether all files are there, as `said` has them; raises `CannotCreate` for one that was changed."""
    files = dict(zip(places(recipe).values(), [said["output"], *said.get("also", ())], strict=True))
    if not all(path.exists() for path in files):
        return False
    for path, file in files.items():
        if output_digest(path) != file["sha256"]:
            raise CannotCreate(f"{path}: was changed after the run wrote it; choose another output, or remove it.")
    return True


def also_said(said: Mapping[str, Any]) -> dict[Path, int]:  # Any: JSON
    """By file, how many records were written besides."""
    return {path_of_text(file["path"]): file["records"] for file in said.get("also", ())}


def _of_file(path: Path) -> dict[str, Json]:
    return {"path": path_as_text(path), "sha256": output_digest(path)}


def _beside_output(output: Path, name: str) -> Path:
    """`train.test.jsonl.gz` for `test` beside `train.jsonl.gz`."""
    plain = output.name[: len(output.name) - len(packing(output))]
    stem, _, ending = plain.rpartition(".")
    return output.with_name(f"{stem}.{name}.{ending}{output.name[len(plain) :]}")


def _scores_beside(scores: Mapping[str, Mapping[str, Score | Failure]], record: Record) -> dict[str, Any]:  # Any: JSON
    """A record's id and its scores, those that it came with included."""
    earlier = record.extra.get("scores")
    found = {scorer: _shown(score) for scorer, score in scores[record.id].items()}
    return {"id": record.id, "scores": {**(earlier if isinstance(earlier, Mapping) else {}), **found}}


def _shown(score: Score | Failure) -> dict[str, Any]:  # Any: JSON
    if isinstance(score, Failure):
        return {"value": None, "parts": {}, "note": f"{score.kind}: {score.message}"}
    return {"value": score.value, "parts": dict(score.parts), "note": score.note}
