"""How is a recipe said on the command line?"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

from tunesift.errors import RecipeError
from tunesift.inputs import path_as_text
from tunesift.overriding import said
from tunesift.recipe import Recipe, as_json, recipe_for
from tunesift.settings import Json, Settings


def command(recipe: Recipe) -> str:
    """The command line that means this recipe: its method, and what differs from the method's vetted settings."""
    plain = recipe_for(recipe.method.kind, recipe.input, recipe.output)
    words = [s.removeprefix("method.") for s in _changes(plain, recipe, as_json(recipe), "")]
    paths = [*([path_as_text(recipe.input)] if recipe.input else []), "-o", path_as_text(recipe.output)]
    return shlex.join(["tunesift", recipe.method.kind, *paths, *words])


def _changes(old: object, new: Settings, told: Mapping[str, Json], path: str) -> Iterator[str]:
    """The overrides that make the new settings out of the old; out of defaults where they are of another kind."""
    same = type(old) is type(new)
    if not same:
        yield f"{path}kind={told['kind']}"
    for field_ in dataclasses.fields(cast(Any, new)):  # Any: Settings are dataclasses
        name, value, inner = field_.name, getattr(new, field_.name), told[field_.name]
        before = getattr(old, name) if same else _default(field_)
        if name == "kind" or before == value:
            continue
        if isinstance(value, Settings) and isinstance(before, Settings) and isinstance(inner, dict):
            yield from _changes(before, value, inner, f"{path}{name}.")
        else:
            yield f"{path}{name}={_spelled(inner)}"


def _spelled(value: Json) -> str:
    """A value as an override says it: a text as it stands where it is read back as the same text."""
    if isinstance(value, str) and value[:1] not in "\"'":
        with suppress(RecipeError):
            if said(f"x={value}") == (["x"], value):
                return value
    return json.dumps(value, ensure_ascii=False)


def _default(field_: dataclasses.Field[Any]) -> object:  # Any: of any type
    return field_.default_factory() if callable(field_.default_factory) else field_.default
