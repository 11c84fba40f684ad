"""What is wrong with a recipe, in a sentence for each setting, and what was perhaps meant?"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import ValidationError

from tunesift.errors import shown
from tunesift.overriding import PERCENT
from tunesift.settings import Json, members

_WANTED = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "a text", "tuple": "a list"}
"""What pydantic's errors ask for, by how their names begin."""


@dataclass(frozen=True)
class Form:
    """What may stand in a recipe."""

    settings: Any  # Any: a dataclass
    """The class of a whole recipe."""
    schema: Callable[[], Mapping[str, Any]]  # Any: a JSON schema
    """Makes its JSON schema."""

    def sentences(self, error: ValidationError, recipe: Mapping[str, Json]) -> list[str]:
        """Where, what is wrong, and what would be right: one sentence for each wrong setting."""
        return list(dict.fromkeys(self._sentence(problem, recipe) for problem in error.errors(include_url=False)))

    def meant(self, error: ValidationError, overrides: Sequence[str]) -> list[str]:
        """Overrides that give what was meant, where a wrong setting leaves no doubt of it.

        A number of YAML's where a text was wanted, quoted; or else `10%` in a recipe, which an override reads.
        """
        wrong = error.errors()
        texts = {".".join(self._path(p["loc"])) for p in wrong if p["type"] in ("string_type", "path_type")}
        pairs = [o.partition("=") for o in overrides]
        quoted = [f'{name}="{value}"' for name, _, value in pairs if name in texts and not value.startswith('"')]
        numbers = [p for p in wrong if p["type"] == "float_type" and PERCENT.fullmatch(str(p["input"]).strip())]
        return quoted or [f"{'.'.join(self._path(p['loc']))}={p['input']}" for p in numbers]

    def _path(self, place: Sequence[str | int]) -> list[str]:
        """The path of an error without the union tags that pydantic puts in."""
        kinds = self._kinds()
        path: list[str] = []
        for part in place:
            if not (isinstance(part, str) and path and part in kinds):
                path.append(str(part))
        return path

    def _kinds(self) -> set[str]:
        found: set[str] = set()
        for definition in self.schema().get("$defs", {}).values():
            kind = definition.get("properties", {}).get("kind", {})
            found |= {definition.get("title", ""), *([kind["const"]] if "const" in kind else [])}
        return found

    def _sentence(self, problem: Mapping[str, Any], recipe: Mapping[str, Json]) -> str:  # Any: pydantic's details
        path = self._path(problem["loc"])
        where, kind, value = ".".join(path) or "the recipe", problem["type"], problem.get("input")
        if kind == "value_error":
            return self._placed(str(problem["ctx"]["error"]), path, recipe)
        if kind == "unexpected_keyword_argument":
            return f"{where}: there is no such setting; {self._near(path, recipe)}"
        if kind in ("missing", "missing_argument", "union_tag_not_found"):
            return f"{where}: is not given; {'name its kind' if kind == 'union_tag_not_found' else 'give it a value'}."
        if kind == "union_tag_invalid":
            tag, tags = problem["ctx"]["tag"], problem["ctx"]["expected_tags"]
            return f"{where}.kind: {_told(tag)} is unknown; use one of {tags}."
        if kind == "literal_error":
            return f"{where}: {_told(value)} is unknown; use {problem['ctx']['expected']}."
        if kind.startswith(("dataclass", "model_attributes", "dict")):
            of_kind = isinstance(value, str) and value.replace("-", "_").isidentifier()
            right = f"{where.removeprefix('method.')}.{f'kind={value}' if of_kind else 'NAME=VALUE'}"
            return f"{where}: {_told(value)} is no group of settings; write {right}."
        wanted = next((f"write {words}" for begin, words in _WANTED.items() if kind.startswith(begin)), "")
        return f"{where}: {_told(value)} does not fit; {wanted or problem['msg'][0].lower() + problem['msg'][1:]}."

    def _placed(self, said: str, path: Sequence[str], recipe: Mapping[str, Json]) -> str:
        """What settings say of one of their fields, with the place that they cannot know: a model may be any of
        several."""
        inner = path[1:] if path[:1] == ["method"] else path
        is_field = said.partition(":")[0] in self._names_at(path, recipe)
        return f"{'.'.join(inner)}.{said}" if inner and is_field else said

    def _near(self, path: Sequence[str], recipe: Mapping[str, Json]) -> str:
        """What is there in place of a setting that there is not."""
        *outer, name = path
        names = self._names_at(outer, recipe)
        near = difflib.get_close_matches(name, names, 1, 0.5)
        return f"did you mean {near[0]}?" if near else f"there are {', '.join(names) or 'none'}."

    def _names_at(self, path: Sequence[str], recipe: Mapping[str, Json]) -> list[str]:
        """Settings that exist at a place of the recipe."""
        hint: Any = self.settings  # Any: a type of settings
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


def _told(value: object) -> str:
    return shown(repr(value))


def _chosen(hint: Any, value: Json) -> Any:  # Any: types as values
    """The class that a value's kind chooses among those of a union; a hint that is no union, as it is."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    inside = members(hint)
    if inside == [hint]:
        return hint
    kind = value.get("kind") if isinstance(value, dict) else None
    for member in filter(dataclasses.is_dataclass, inside):
        if kind is None or any(f.name == "kind" and f.default == kind for f in dataclasses.fields(member)):
            return member
    return None
