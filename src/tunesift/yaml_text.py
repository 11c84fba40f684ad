"""YAML as we accept it: plain and small, each key once, no word that turns into something else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tunesift.errors import RecipeError, shown
from tunesift.settings import Json, canonical

MAX_BYTES = 2**20
"""Bytes of a recipe file."""


def read_yaml(path: Path) -> Json:
    """A YAML file as JSON values; raises `RecipeError` for what is no plain, small, unambiguous YAML."""
    if not path.is_file():
        raise RecipeError(f"{path}: there is no such file; check the path.")
    if path.stat().st_size > MAX_BYTES:
        raise RecipeError(
            f"{path}: a recipe or price table has at most {MAX_BYTES} bytes; this file is something else."
        )
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: byte {error.start} is not valid UTF-8; save the file as UTF-8.") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); check the file's permissions.") from None
    return parse_yaml(text, str(path))


class _Loader(yaml.SafeLoader):
    """Plain YAML: keys once, `no` a word and not False, 012 a word and not octal, no merges, no aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:  # Any: PyYAML's own types
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias refers to another place")  # a few of them can unfold into gigabytes
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # Any: PyYAML's own types
        seen: set[str] = set()
        for key in [self.construct_object(key, deep=True) for key, _ in node.value]:
            if not isinstance(key, str):
                raise yaml.YAMLError(f"the key {shown(repr(key))} is not a text")
            if key in seen:
                raise yaml.YAMLError(f'the key "{shown(key)}" stands twice')
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _shape, _first in (
    ("bool", r"^(?:true|false)$", "tf"),
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", "-0123456789"),
    ("float", r"^-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-.0123456789"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_shape), list(_first))


def parse_yaml(text: str, name: str) -> Json:
    """A YAML text as JSON values; `name` is what messages call it."""
    try:
        value: Json = yaml.load(text, _Loader)  # noqa: S506  a SafeLoader that allows less
        canonical(value)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"{name}{line}: is not valid YAML ({error.problem}); check the indentation.") from None
    except (yaml.YAMLError, RecursionError) as error:
        said = "is nested too deep" if isinstance(error, RecursionError) else str(error).partition("\n")[0]
        raise RecipeError(f"{name}: {said}; write each setting once, as plain YAML.") from None
    except (TypeError, ValueError):
        raise RecipeError(
            f"{name}: holds a value that no setting can have; use texts, numbers, lists and mappings."
        ) from None
    return value


def yaml_of(settings: Mapping[str, Json]) -> bytes:
    """Settings as YAML that every reader takes alike, in their order."""
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=120).encode()
