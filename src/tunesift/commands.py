"""What each command does, once its words are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from tunesift import console, telling
from tunesift.perform import run_recipe
from tunesift.recipe import Recipe, load_recipe, recipe_for
from tunesift.recipe import schema as recipe_schema
from tunesift.running.stopping import Stop

Told = Literal["words", "json", "nothing"]
"""How a run tells what it did."""


def run_method(method: str, input: Path, output: Path, settings: list[str], told: Told) -> None:
    """Run a method's vetted recipe with the settings put in."""
    _run(recipe_for(method, input, output, settings), told)


def run_file(recipe: Path, settings: list[str], told: Told) -> None:
    """Run a recipe's file with the settings put in."""
    _run(load_recipe(recipe, settings), told)


def plan(what: str, input: Path | None, settings: list[str], as_json: bool) -> None:
    """Print what a run would ask for."""
    print(telling.told_plan(telling.recipe_to_plan(what, input, settings), as_json))


def inspect(run: Path, id: str | None, as_json: bool) -> None:
    """Print what a run's folder holds, of all records or of one."""
    print(telling.told_run(run, as_json) if id is None else telling.told_record(run, id, as_json))


def list_everything(as_json: bool) -> None:
    """Print everything a recipe may name."""
    print(telling.told_catalogue(as_json))


def schema() -> None:
    """Print the JSON schema of a recipe."""
    print(json.dumps(recipe_schema(), indent=1))


def doctor(as_json: bool) -> None:
    """Print what this machine can do."""
    print(telling.told_machine(as_json))


def _run(recipe: Recipe, told: Told) -> None:
    stop = Stop()
    stop.listen()
    summary = run_recipe(recipe, progress=console.progress_for(told != "words"), stop=stop)
    if told == "json":
        print(json.dumps(console.as_fields(summary)))
    elif told == "words":
        print(console.told(summary))
