"""Whose folder is this? What a run writes down when it begins, and what it compares when it begins again."""

from __future__ import annotations

import json
import os
import platform
import secrets
import sqlite3
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tunesift.errors import ResumeError, shown
from tunesift.inputs import path_as_text, path_of_text
from tunesift.recipe import Recipe, as_json
from tunesift.running.database import FORMAT, rows_done
from tunesift.running.fsio import failpoint, read_json, write_json
from tunesift.running.locking import now
from tunesift.running.training import CHECKPOINT, CHECKPOINTS, MODEL
from tunesift.settings import Json, differences, semantic
from tunesift.spelling import command

_LIBRARIES = ("tunesift", "numpy", "pyarrow", "pydantic", "torch", "transformers", "trl", "peft")


def open_folder(recipe: Recipe, sha256: str | None, journal: str) -> dict[str, Any]:  # Any: run.json
    """The folder's run.json, written if it is new; raises `ResumeError` where it holds another run."""
    path = recipe.run_folder / "run.json"
    input: Json = {"path": path_as_text(recipe.input), "sha256": sha256} if recipe.input else {"path": "", "sha256": ""}
    new: dict[str, Json] = {"settings": semantic(recipe), "input": input}
    if not path.exists():
        id = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"
        run = {"format": FORMAT, "run_id": id, "created": now(), "versions": _versions(),
               "command": command(recipe), "recipe": as_json(recipe), "journal": journal,
               **new}  # fmt: skip
        write_json(path, run)
        failpoint("run.created")
        return run
    old = read_json(path)
    if old.get("format") != FORMAT:
        raise ResumeError(f"{path.parent}: is a run of format {old.get('format')}, not {FORMAT}; use another folder.")
    changed = _telling(differences(old["settings"], new["settings"]))
    if changed:
        said = ", ".join(_change(*one) for one in changed[:3])
        right = f"write to another output, with --reuse {path.parent} to take over what stays the same"
        raise ResumeError(f"{path.parent}: holds another run: {said}; {right}.")
    if old["input"]["sha256"] != (sha256 or ""):
        raise ResumeError(
            f"{path.parent}: the input {recipe.input} has changed since the run began; use another folder."
        )
    return old


def begun_with(recipe: Recipe) -> dict[str, Json]:
    """By dotted path, what the run in the recipe's folder was begun with where the recipe says otherwise."""
    path = recipe.run_folder / "run.json"
    old = read_json(path)["recipe"] if path.exists() else as_json(recipe)
    return {path: was for path, was, _ in differences(old, as_json(recipe))}


def _telling(changed: Sequence[tuple[str, Json, Json]]) -> list[tuple[str, Json, Json]]:
    """The differences without the identities of models whose names differ."""
    named = {path.removesuffix(".name") for path, _, _ in changed if path.endswith(".name")}
    return [d for d in changed if d[0].removesuffix(".identity") not in named or not d[0].endswith(".identity")]


def is_ours(recipe: Recipe) -> bool:
    """Whether the run in the recipe's folder is the one that wrote, or will write, the output that stands there."""
    path = recipe.run_folder / "run.json"
    if not path.exists():
        return False
    return os.path.realpath(path_of_text(read_json(path)["recipe"]["output"])) == os.path.realpath(recipe.output)


def has_work(folder: Path) -> bool:
    """Whether anything was done in this folder that a new start would do again."""
    if any((folder / CHECKPOINTS).glob(f"*/{CHECKPOINT}-*")) or any((folder / CHECKPOINTS).glob(f"*/{MODEL}")):
        return True
    try:
        return bool(rows_done(folder))
    except sqlite3.Error:
        return (folder / "state.db").exists()


def _change(path: str, was: Json, now: Json) -> str:
    """What one setting was and is; of long lists that begin alike, how many entries."""
    if isinstance(was, list) and isinstance(now, list) and _told(was) == _told(now):
        return f"{path} had {len(was)} entries and now has {len(now)}"
    return f"{path} was {_told(was)} and is now {_told(now)}"


def _told(value: Json) -> str:
    return shown(json.dumps(value, ensure_ascii=False))


def _versions() -> dict[str, Json]:
    found: dict[str, Json] = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
