"""How does a setting come into a recipe by its dotted name?"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tunesift.errors import RecipeError, shown
from tunesift.settings import Json
from tunesift.yaml_text import parse_yaml

PERCENT = re.compile(r"(\d+(?:\.\d+)?)\s*%")
_FILES = (".json", ".jsonl", ".csv", ".tsv", ".gz", ".zst", ".parquet")


def override(
    recipe: Mapping[str, Json],
    overrides: Sequence[str],
    filled: Callable[[dict[str, Json]], dict[str, Json]] = dict,
) -> dict[str, Json]:
    """The recipe with dotted settings put in; a new `kind` drops its neighbours, a `count` the fraction beside it.

    A word for a group of settings is its kind: `scorer=dual-ifd` is `scorer.kind=dual-ifd`. Kinds come first, an outer
    one before those inside it; what they bring with them is written out by `filled`, so that the others can reach into
    it.
    """
    changed: dict[str, Json] = {k: v for k, v in recipe.items()}
    pairs = [_as_kind(recipe, *said(text)) for text in overrides]
    kinds = sorted((pair for pair in pairs if pair[0][-1] == "kind"), key=lambda pair: len(pair[0]))
    for path, value in kinds:
        changed = mapping(put(changed, path, value), "the recipe")
    changed = filled(changed) if kinds else changed
    for path, value in (pair for pair in pairs if pair[0][-1] != "kind"):
        changed = mapping(put(changed, path, value), "the recipe")
    given = {tuple(path) for path, _ in pairs}
    for path, value in pairs:
        fraction = [*path[:-1], "fraction"]
        of_selector = path[-1] == "count" and path != ["method", "count"]
        if of_selector and value is not None and tuple(fraction) not in given:
            changed = mapping(put(changed, fraction, None), "the recipe")
    return changed


def _as_kind(recipe: Mapping[str, Json], path: list[str], value: Json) -> tuple[list[str], Json]:
    """The same, but a word that is given for a group of settings with a kind stands for that kind."""
    place: Json = dict(recipe)
    for name in path:
        if isinstance(place, list):
            place = place[int(name)] if name.isdigit() and int(name) < len(place) else None
        else:
            place = place.get(name) if isinstance(place, dict) else None
    is_group = isinstance(place, dict) and "kind" in place
    is_word = isinstance(value, str) and value.replace("-", "_").isidentifier() and path[-1] != "keep"
    return ([*path, "kind"], value) if is_group and is_word else (path, value)


def mapping(value: Json, name: str) -> dict[str, Json]:
    """The settings that a recipe has; raises `RecipeError` for one that is no mapping, by the `name` of its place."""
    if not isinstance(value, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of settings; write `method:` and `output:` in it.")
    return value


def said(text: str) -> tuple[list[str], Json]:
    """The path and the value that an override gives."""
    name, equals, value = text.partition("=")
    if not equals or not name or not all(name.split(".")):
        raise RecipeError(_no_setting(text.removeprefix("method.")))
    if found := PERCENT.fullmatch(value.strip()):
        return name.split("."), float(found[1]) / 100
    return name.split("."), parse_yaml(value, name)


def _no_setting(text: str) -> str:
    """Why a word of the command line is no setting, and what was perhaps meant."""
    if Path(text).suffix in _FILES and "=" not in text:
        return f"\"{shown(text)}\" is a second input; give one file, a folder, or a pattern such as 'data/*.jsonl'."
    if text.isidentifier():
        return f'"{text}" has no value; write {text}=VALUE, without spaces around the sign.'
    return f'"{shown(text)}" is not a setting; write name=value, such as keep=10%.'


def _kinds_in(entry: Json) -> dict[str, Json]:
    """The kinds of the groups of settings in an entry of a list: those of a further entry, where it names none."""
    groups = entry.items() if isinstance(entry, dict) else ()
    return {name: {"kind": group["kind"]} for name, group in groups if isinstance(group, dict) and "kind" in group}


def put(place: Json, path: Sequence[str], value: Json) -> Json:
    """A mapping or a list with a value put in at a path; what is neither becomes a mapping."""
    head, rest = path[0], path[1:]
    if head == "kind" and isinstance(place, dict) and place.get("kind", value) != value:
        return {"kind": value}
    if isinstance(place, list) and head.isdigit() and int(head) <= len(place):
        number = int(head)
        further = _kinds_in(place[-1]) if place else {}  # the number behind the last one is a further entry
        old = next(iter(place[number:]), further)
        return [*place[:number], put(old, rest, value) if rest else value, *place[number + 1 :]]
    found = place if isinstance(place, dict) else {}
    old = found.get(head)
    if rest:
        inner = put(old, rest, value)
    elif head == "keep" and isinstance(value, int | float) and not isinstance(value, bool):
        others = old if isinstance(old, dict) else {"kind": "largest"}
        inner = {**{k: v for k, v in others.items() if k != "count"}, "fraction": float(value)}
    elif head == "keep" and isinstance(value, str):
        kind = f", or keep.kind={value} for that rule" if value.isidentifier() else ""
        raise RecipeError(f"keep: {shown(repr(value))} is not a fraction; write keep=10% to keep 10 percent{kind}.")
    else:
        inner = value
    return {**found, head: inner}
