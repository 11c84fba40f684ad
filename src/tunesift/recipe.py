"""A recipe is a constructor call, written down: read it, fill it up, check it."""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from tunesift.budget import Budget
from tunesift.catalogue import AnyExecutor, AnyMethod
from tunesift.errors import RecipeError, shown
from tunesift.explaining import Form
from tunesift.formats import Format
from tunesift.inputs import path_as_text, path_of_text
from tunesift.overriding import mapping, override, put
from tunesift.reading import DuplicateIds, Lenience, Reading
from tunesift.running.local import Local
from tunesift.running.result import reads
from tunesift.settings import INCIDENTAL, Json, Settings, canonical
from tunesift.yaml_text import parse_yaml, read_yaml

_VETTED = importlib.resources.files("tunesift") / "recipes"


def _path(value: object) -> Path:
    if not isinstance(value, str | Path):
        raise PydanticCustomError("path_type", "Input is not a valid path")
    return path_of_text(value) if isinstance(value, str) else value


Named = Annotated[
    Path,
    PlainValidator(_path, json_schema_input_type=Path),
    PlainSerializer(path_as_text, return_type=str, when_used="json"),
]
"""A path by any name that a file can have."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """Settings of a whole run."""

    method: AnyMethod
    """What is done."""
    output: Annotated[Named, INCIDENTAL]
    """Where the result goes; the ending says how: .json, .jsonl, .csv, .tsv (also .gz, .zst) or .parquet."""
    input: Annotated[Named | None, INCIDENTAL] = None
    """A file, a folder of files, or a pattern such as data/*.parquet; None for methods that make data from nothing. A
    run knows its input by its bytes, not by its place."""
    folder: Annotated[Named | None, INCIDENTAL] = None
    """Where the run lives; beside the output, with the ending .run, when not given."""
    format: Format | None = None
    """Format of the input; None to recognise it."""
    duplicate_ids: DuplicateIds = "refuse"
    """What becomes of a record whose id another has: refuse the file, read the first only, or suffix an ordinal."""
    limit: int | None = None
    """Read only so many rows of the input."""
    empty: Lenience = "refuse"
    """What becomes of a row whose instruction is empty: it is set aside, or read."""
    turns: Lenience = "refuse"
    """What becomes of a conversation whose turns are out of order: it is set aside, or read."""
    truncated: Lenience = "refuse"
    """What becomes of a compressed input that is cut off: the run ends, or the rows before the cut are read."""
    execution: Annotated[AnyExecutor, INCIDENTAL] = field(default_factory=Local)
    """Where steps run."""
    budget: Annotated[Budget, INCIDENTAL] = field(default_factory=Budget)
    """What may be spent on endpoints."""
    seed: int = 0
    """Where every draw starts."""
    reuse: Annotated[Named | None, INCIDENTAL] = None
    """Another run's folder: what its stages made with the same settings, of items of the same id and content, is not
    done again."""
    max_failures: Annotated[float, INCIDENTAL] = 0.01
    """Fraction of the items of one stage that may fail before the run stops; ten may always fail."""
    max_bad: Annotated[float, INCIDENTAL] = 0.05
    """Fraction of the first 1,000 rows of the input that may be broken; nine may always be."""

    def __post_init__(self) -> None:
        for name, path in (("output", self.output), ("folder", self.folder)):
            if path and any("\udc80" <= c <= "\udcff" for c in str(path)):
                raise RecipeError(f"{name}: {path_as_text(path)} is not valid UTF-8, which Arrow needs; rename it.")
        if self.limit is not None and self.limit < 1:
            raise RecipeError(f"limit: {self.limit} reads nothing; write the number of rows to read.")
        for name, path in (("input", self.input), ("output", self.output), ("folder", self.folder)):
            if "\0" in str(path):
                raise RecipeError(f"{name}: {shown(str(path))} holds a NUL character; no file can have this name.")
        for name, fraction in (("max_failures", self.max_failures), ("max_bad", self.max_bad)):
            if not 0 <= fraction <= 1:
                raise RecipeError(f"{name}: {fraction:g} is not a fraction from 0 to 1; write 0.05 for 5 percent.")

    @property
    def reading(self) -> Reading:
        """How the input is read."""
        given = Reading(self.format, self.duplicate_ids, self.max_bad, self.limit)
        prompts = reads(self.method) == "prompts"
        return dataclasses.replace(given, empty=self.empty, turns=self.turns, truncated=self.truncated, prompts=prompts)

    @property
    def run_folder(self) -> Path:
        """The run's folder: the one given, or the output's name with the ending `.run`."""
        return self.folder or self.output.with_name(f"{self.output.name}.run")


def check_input(recipe: Recipe) -> None:
    """Raise `RecipeError` where an input is missing, or given to a method that reads nothing."""
    nothing = reads(recipe.method) == "nothing"
    if recipe.input is None and not nothing:
        raise RecipeError("input: is not given; name the file to read.")
    if recipe.input is not None and nothing:
        raise RecipeError(f"input: {recipe.method.kind} makes records from nothing; leave {recipe.input} out.")


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a YAML file with dotted overrides (`method.keep.fraction=0.05`); raises `RecipeError`."""
    return check(override(_filled(mapping(read_yaml(Path(path)), str(path))), overrides, _filled), overrides)


def vetted_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(file.name.removesuffix(".yaml") for file in _VETTED.iterdir() if file.name.endswith(".yaml"))


def vetted_summary(name: str) -> str:
    """What a recipe of the package is, in half a line: the first line of its file."""
    return (_VETTED / f"{name}.yaml").read_text("utf-8").split("\n", 1)[0].removeprefix("# ")


def recipe_named(name: str, overrides: Sequence[str]) -> Recipe:
    """A recipe of the package, with input and output among the overrides; settings of the method need no prefix."""
    needs = ("output",) if reads(recipe_for(name, None, Path()).method) == "nothing" else ("input", "output")
    if missing := [n for n in needs if not any(override.startswith(f"{n}=") for override in overrides)]:
        words = " ".join(f"{n}=FILE" for n in needs)
        raise RecipeError(f"{missing[0]}: is not given; write tunesift run {name} {words}.")
    return recipe_for(name, None, Path(), overrides)


def vetted(method: str) -> dict[str, Json]:
    """The recipe that comes with the package for a method, without input and output."""
    names = vetted_names()
    if method not in names:
        raise RecipeError(f"there is no method {shown(method)}; use one of {', '.join(names)}, or a recipe in YAML.")
    file = _VETTED / f"{method}.yaml"
    return mapping(parse_yaml(file.read_text("utf-8"), f"{method}.yaml"), f"{method}.yaml")


def recipe_for(method: str, input: Path | None, output: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The vetted recipe of a method with input, output and overrides; settings of the method need no prefix."""
    whole: dict[str, Json] = {"input": path_as_text(input) if input else None, "output": path_as_text(output)}
    names = {f.name for f in dataclasses.fields(Recipe)}
    full = [o if o.partition("=")[0].split(".")[0] in names else f"method.{o}" for o in overrides]
    return check(override(_filled({**vetted(method), **whole}), full, _filled), full)


def _filled(recipe: dict[str, Json]) -> dict[str, Json]:
    """The recipe with its defaults written out, so that an override can reach into them; as it is if it is wrong."""
    try:
        whole = as_json(check({"output": "", **recipe}))
    except RecipeError:
        return recipe
    return {name: value for name, value in whole.items() if name != "output" or name in recipe}


def with_values(recipe: Recipe, values: Mapping[str, Json]) -> Recipe:
    """The same recipe with other values at some dotted paths."""
    changed: Json = as_json(recipe)
    for path, value in values.items():
        changed = put(changed, path.split("."), value)
    return check(mapping(changed, "the recipe"))


def check(recipe: Mapping[str, Json], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe as an object; raises one `RecipeError` that names every wrong setting."""
    try:
        return _ADAPTER.validate_json(canonical(dict(recipe)))
    except UnicodeEncodeError as error:
        raise RecipeError(f"{shown(str(error.object))}: is not valid UTF-8; rename it, or write it so.") from None
    except ValidationError as error:
        if meant := _FORM.meant(error, overrides):
            return check(override(recipe, meant, _filled))
        raise RecipeError(*_FORM.sentences(error, recipe)) from None


def as_json(recipe: Recipe) -> dict[str, Json]:
    """The recipe as it would be written down, every default included."""
    return dict(_ADAPTER.dump_python(recipe, mode="json"))


@cache
def schema() -> dict[str, Any]:  # Any: a JSON schema
    """JSON schema of a recipe, for editors."""
    found = _ADAPTER.json_schema()
    classes = found["$defs"]
    for field_ in (field_ for definition in classes.values() for field_ in definition.get("properties", {}).values()):
        if set(field_) <= {"$ref", "default"} and "$ref" in field_:  # pydantic describes only what is used once
            field_["description"] = classes[field_["$ref"].rpartition("/")[2]].get("description", "")
    return found


_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)
_FORM = Form(Recipe, schema)
