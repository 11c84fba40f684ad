"""A recipe is a constructor call, written down: read it, override it, check it."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from tunesift.budget import Budget
from tunesift.catalogue import AnyExecutor, AnyMethod
from tunesift.errors import RecipeError, shown
from tunesift.formats import Format
from tunesift.inputs import path_as_text, path_of_text
from tunesift.reading import DuplicateIds, Lenience, Reading
from tunesift.running.local import Local
from tunesift.running.result import reads
from tunesift.settings import INCIDENTAL, Json, Settings, canonical
from tunesift.yaml_text import parse_yaml, read_yaml

_VETTED = importlib.resources.files("tunesift") / "recipes"
_FILES = (".json", ".jsonl", ".csv", ".tsv", ".gz", ".zst", ".parquet")
_PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")


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
    return check(override(_filled(_mapping(read_yaml(Path(path)), str(path))), overrides), overrides)


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
    return _mapping(parse_yaml(file.read_text("utf-8"), f"{method}.yaml"), f"{method}.yaml")


def recipe_for(method: str, input: Path | None, output: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The vetted recipe of a method with input, output and overrides; settings of the method need no prefix."""
    whole: dict[str, Json] = {"input": path_as_text(input) if input else None, "output": path_as_text(output)}
    names = {f.name for f in dataclasses.fields(Recipe)}
    full = [o if o.partition("=")[0].split(".")[0] in names else f"method.{o}" for o in overrides]
    return check(override(_filled({**vetted(method), **whole}), full), full)


def _filled(recipe: dict[str, Json]) -> dict[str, Json]:
    """The recipe with its defaults written out, so that an override can reach into them; as it is if it is wrong."""
    try:
        whole = as_json(check({"output": "", **recipe}))
    except RecipeError:
        return recipe
    return {name: value for name, value in whole.items() if name != "output" or name in recipe}


def override(recipe: Mapping[str, Json], overrides: Sequence[str]) -> dict[str, Json]:
    """The recipe with dotted settings put in; a new `kind` drops its neighbours, a `count` the fraction beside it."""
    changed: dict[str, Json] = {k: v for k, v in recipe.items()}
    pairs = [said(text) for text in overrides]
    for path, value in sorted(
        pairs, key=lambda pair: (pair[0][-1] != "kind", len(pair[0]) if pair[0][-1] == "kind" else 0)
    ):
        changed = _mapping(_put(changed, path, value), "the recipe")
    given = {tuple(path) for path, _ in pairs}
    for path, value in pairs:
        if (
            path[-1] == "count"
            and path[:-1] != ["method"]
            and value is not None
            and (*path[:-1], "fraction") not in given
        ):
            changed = _mapping(_put(changed, [*path[:-1], "fraction"], None), "the recipe")
    return changed


def with_values(recipe: Recipe, values: Mapping[str, Json]) -> Recipe:
    """The same recipe with other values at some dotted paths."""
    changed: Json = as_json(recipe)
    for path, value in values.items():
        changed = _put(changed, path.split("."), value)
    return check(_mapping(changed, "the recipe"))


def check(recipe: Mapping[str, Json], overrides: Sequence[str] = ()) -> Recipe:
    """The recipe as an object; raises one `RecipeError` that names every wrong setting."""
    try:
        return _ADAPTER.validate_json(canonical(dict(recipe)))
    except UnicodeEncodeError as error:
        raise RecipeError(f"{shown(str(error.object))}: is not valid UTF-8; rename it, or write it so.") from None
    except ValidationError as error:
        if meant := _meant_as_text(error, overrides) or _meant_as_percent(error):
            return check(override(recipe, meant))
        lines = dict.fromkeys(_sentence(problem, recipe) for problem in error.errors(include_url=False))
        raise RecipeError(*lines) from None


def as_json(recipe: Recipe) -> dict[str, Json]:
    """The recipe as it would be written down, every default included."""
    return dict(_ADAPTER.dump_python(recipe, mode="json"))


def schema() -> dict[str, Any]:  # Any: a JSON schema
    """JSON schema of a recipe, for editors."""
    found = _ADAPTER.json_schema()
    classes = found["$defs"]
    for field_ in (field_ for definition in classes.values() for field_ in definition.get("properties", {}).values()):
        if set(field_) <= {"$ref", "default"} and "$ref" in field_:  # pydantic describes only what is used once
            field_["description"] = classes[field_["$ref"].rpartition("/")[2]].get("description", "")
    return found


_ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)


def _mapping(value: Json, name: str) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of settings; write `method:` and `output:` in it.")
    return value


def said(text: str) -> tuple[list[str], Json]:
    """The path and the value that an override gives."""
    name, equals, value = text.partition("=")
    if not equals or not name or not all(name.split(".")):
        raise RecipeError(_no_setting(text.removeprefix("method.")))
    if found := _PERCENT.fullmatch(value.strip()):
        return name.split("."), float(found[1]) / 100
    return name.split("."), parse_yaml(value, name)


def _no_setting(text: str) -> str:
    """Why a word of the command line is no setting, and what was perhaps meant."""
    if Path(text).suffix in _FILES and "=" not in text:
        return f"\"{shown(text)}\" is a second input; give one file, a folder, or a pattern such as 'data/*.jsonl'."
    if text.isidentifier():
        return f'"{text}" has no value; write {text}=VALUE, without spaces around the sign.'
    return f'"{shown(text)}" is not a setting; write name=value, such as keep=10%.'


def _put(place: Json, path: Sequence[str], value: Json) -> Json:
    """A mapping or a list with a value put in at a path; what is neither becomes a mapping."""
    head, rest = path[0], path[1:]
    if head == "kind" and isinstance(place, dict) and place.get("kind", value) != value:
        return {"kind": value}
    if isinstance(place, list) and head.isdigit() and int(head) < len(place):
        number = int(head)
        return [*place[:number], _put(place[number], rest, value) if rest else value, *place[number + 1 :]]
    found = place if isinstance(place, dict) else {}
    old = found.get(head)
    if rest:
        inner = _put(old, rest, value)
    elif head == "keep" and isinstance(value, int | float) and not isinstance(value, bool):
        others = old if isinstance(old, dict) else {"kind": "largest"}
        inner = {**{k: v for k, v in others.items() if k != "count"}, "fraction": float(value)}
    elif head == "keep" and isinstance(value, str):
        kind = f", or keep.kind={value} for that rule" if value.isidentifier() else ""
        raise RecipeError(f"keep: {_shown(value)} is not a fraction; write keep=10% to keep 10 percent{kind}.")
    else:
        inner = value
    return {**found, head: inner}


def _meant_as_text(error: ValidationError, overrides: Sequence[str]) -> list[str]:
    """Overrides whose value YAML read as a number where a text was wanted, quoted."""
    wanted = {".".join(_plain(p["loc"])) for p in error.errors() if p["type"] in ("string_type", "path_type")}
    pairs = [o.partition("=") for o in overrides]
    return [f'{name}="{value}"' for name, _, value in pairs if name in wanted and not value.startswith('"')]


def _meant_as_percent(error: ValidationError) -> list[str]:
    """Settings that a recipe has as `10%` where a number was wanted, as overrides, which read it so."""
    wanted = [p for p in error.errors() if p["type"] == "float_type" and _PERCENT.fullmatch(str(p["input"]).strip())]
    return [f"{'.'.join(_plain(p['loc']))}={p['input']}" for p in wanted]


def _plain(place: Sequence[str | int]) -> list[str]:
    """The dotted path of an error without the union tags that pydantic puts in."""
    kinds = _kinds()
    path: list[str] = []
    for part in place:
        if not (isinstance(part, str) and path and part in kinds):
            path.append(str(part))
    return path


def _kinds() -> set[str]:
    found: set[str] = set()
    for definition in schema().get("$defs", {}).values():
        kind = definition.get("properties", {}).get("kind", {})
        found |= {kind["const"], definition.get("title", "")} if "const" in kind else {definition.get("title", "")}
    return found


def _sentence(problem: Mapping[str, Any], recipe: Mapping[str, Json]) -> str:  # Any: pydantic's error details
    path = _plain(problem["loc"])
    where = ".".join(path) or "the recipe"
    kind, value = problem["type"], problem.get("input")
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    if kind == "unexpected_keyword_argument":
        names = _names_at(path[:-1], recipe)
        near = difflib.get_close_matches(path[-1], names, 1, 0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}."
        return f"{where}: there is no such setting; {hint}"
    if kind in ("missing", "missing_argument", "union_tag_not_found"):
        return f"{where}: is not given; {'name its kind' if kind == 'union_tag_not_found' else 'give it a value'}."
    if kind == "union_tag_invalid":
        tag, tags = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
        return f"{where}.kind: {_shown(tag)} is unknown; use one of {tags}."
    if kind == "literal_error":
        return f"{where}: {_shown(value)} is unknown; use {problem['ctx']['expected']}."
    if kind.startswith(("dataclass", "model_attributes", "dict")):
        here = where.removeprefix("method.")
        kind = isinstance(value, str) and value.isidentifier()
        hint = f"write {here}.kind={value}" if kind else f"write {here}.NAME=VALUE"
        return f"{where}: {_shown(value)} is no group of settings; {hint}."
    wanted = next((words for begin, words in _WANTED.items() if kind.startswith(begin)), "")
    if wanted:
        return f"{where}: {_shown(value)} does not fit; write {wanted}."
    said = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{where}: {_shown(value)} does not fit; {said}."


_WANTED = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "a text", "tuple": "a list"}
"""What pydantic's errors ask for, by how their names begin."""


def _shown(value: object) -> str:
    return shown(repr(value))


def _names_at(path: Sequence[str], recipe: Mapping[str, Json]) -> list[str]:
    """Settings that exist at a place of the recipe."""
    hint: Any = Recipe  # Any: a type of settings
    value: Json = dict(recipe)
    for name in path:
        if isinstance(value, list):
            value = value[int(name)] if name.isdigit() and int(name) < len(value) else None
            hint = _chosen(get_args(hint)[0], value)
            continue
        hints = get_type_hints(hint, include_extras=False) if dataclasses.is_dataclass(hint) else {}
        value = value.get(name) if isinstance(value, dict) else None
        hint = _chosen(hints.get(name), value)
    return [f.name for f in dataclasses.fields(hint)] if dataclasses.is_dataclass(hint) else []


def _chosen(hint: Any, value: Json) -> Any:  # Any: types as values
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    kind = value.get("kind") if isinstance(value, dict) else None
    for member in filter(dataclasses.is_dataclass, members(hint)):
        if kind is None or any(f.name == "kind" and f.default == kind for f in dataclasses.fields(member)):
            return member
    return None


def members(union: Any) -> list[Any]:  # Any: types as values
    """The classes of a union, also of unions inside it."""
    if get_origin(union) is Annotated:
        return members(get_args(union)[0])
    inside = get_args(union) if get_origin(union) in (Union, types.UnionType) else ()
    return list(dict.fromkeys(m for member in inside for m in members(member))) if inside else [union]
