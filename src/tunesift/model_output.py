"""How does a model come to stand where a run was told to leave it? As a folder, whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from shutil import copy2, rmtree

from tunesift.disk import sync
from tunesift.errors import CannotCreate, RecipeError
from tunesift.recipe import Recipe
from tunesift.running.fsio import digest, storage_errors
from tunesift.running.sealing import COMPLETE, sealed
from tunesift.writing import create_errors

_WEIGHTS = ".safetensors"
_FILE_ENDINGS = (".json", ".jsonl", ".csv", ".tsv", ".parquet", ".gz", ".zst", ".safetensors", ".txt", ".md")


def makes_model(recipe: Recipe) -> bool:
    """Whether the method's output is a model's folder."""
    return getattr(recipe.method, "makes", "records") == "model"


def check_model_name(recipe: Recipe) -> None:
    """Raise `RecipeError` where the output of a method that makes a model is named as a file."""
    if recipe.output.suffix.lower() in _FILE_ENDINGS:
        raise RecipeError(f"output: {recipe.output} is a file's name; {recipe.method.kind} leaves a model's folder, "
                          "write -o model.")  # fmt: skip


def write_model(model: Path, output: Path) -> None:
    """A sealed folder under another name, whole or not at all; its files are the same where the disk allows it.

    Raises `CannotCreate` where what stands there has a file that is none of the model's.
    """
    part = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    with create_errors(output):
        _check_own(model, output)
        try:
            rmtree(part, ignore_errors=True)
            for path in sorted(p for p in model.rglob("*") if p.is_file()):
                place = part / path.relative_to(model)
                place.parent.mkdir(parents=True, exist_ok=True)
                _same_or_copy(path, place)
            for folder in {path.parent for path in part.rglob("*")}:
                sync(folder)
            rmtree(output, ignore_errors=True)
            part.rename(output)
            sync(output.parent)
        finally:
            rmtree(part, ignore_errors=True)


def _check_own(model: Path, output: Path) -> None:
    """An older writing of the model goes for a new one, and nothing that somebody put beside it."""
    for path in sorted(p for p in output.rglob("*") if not p.is_dir()):
        if not (model / path.relative_to(output)).exists():
            raise CannotCreate(f"{path}: is none of the model's files; move it away and start again.")


def _same_or_copy(path: Path, place: Path) -> None:
    """Weights under a second name, where the disk allows it; small files as copies, which somebody may edit."""
    if path.suffix == _WEIGHTS:
        try:
            os.link(path, place)
            return
        except OSError as error:  # another disk, or one without links
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                raise
    copy2(path, place)
    sync(place)


def output_digest(output: Path) -> str:
    """SHA-256 of a file; of a model's folder that of the list of its files, empty where one of them is not there."""
    with storage_errors(output):
        if not output.is_dir():
            return digest(output)
        return digest(output / COMPLETE) if sealed(output) is not None else ""
