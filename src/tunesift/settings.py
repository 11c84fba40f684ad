"""What is a setting, which settings change a result, and how are two sets of them compared?"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    ClassVar,
    Protocol,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from pydantic import ConfigDict, GetJsonSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema


class _Incidental:
    def __repr__(self) -> str:
        return "INCIDENTAL"


INCIDENTAL = _Incidental()
"""Marks a setting that may change between two runs without changing a result: `Annotated[int, INCIDENTAL]`."""

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class Settings:
    """Base of every dataclass a recipe can name."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The JSON schema, in which fields of a base are described as they are there: pydantic reads only the class."""
        found = handler(schema)
        fields = handler.resolve_ref_schema(found).get("properties", {})
        for base in filter(dataclasses.is_dataclass, cls.__mro__[1:]):
            described = TypeAdapter(base).json_schema()["properties"]
            for name in fields.keys() & described.keys():
                fields[name] = {**described[name], **fields[name]}
        return found


@runtime_checkable
class Identified(Protocol):
    """A setting whose meaning lies outside its fields, such as the weights in the folder that a model names."""

    def identity(self) -> str: ...


def field_names(settings: type[Any]) -> list[str]:  # Any: a dataclass
    """Names of the fields of a settings class, in order."""
    return [f.name for f in dataclasses.fields(settings)]


@cache
def incidental_fields(settings: type[Settings]) -> frozenset[str]:
    """Names of the fields of a settings class that are marked `INCIDENTAL`."""
    hints = get_type_hints(settings, include_extras=True)
    return frozenset(n for n, hint in hints.items() if INCIDENTAL in getattr(hint, "__metadata__", ()))


def semantic(value: object) -> Json:
    """What of a setting, or of a tree of settings, decides the result, as JSON."""
    if isinstance(value, Settings):
        skip = incidental_fields(cast(Any, type(value)))  # Any: a class is hashable, whatever mypy makes of it
        fields = {name: semantic(getattr(value, name)) for name in field_names(type(value)) if name not in skip}
        return fields | ({"identity": value.identity()} if isinstance(value, Identified) else {})
    if isinstance(value, Mapping):
        return {str(k): semantic(v) for k, v in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [semantic(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is not a setting")


def canonical(value: Json) -> bytes:
    """One spelling for equal JSON values: keys sorted, no spaces, UTF-8, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Json) -> str:
    """128 bits of SHA-256 over the canonical spelling, in hexadecimal."""
    return hashlib.sha256(canonical(value)).hexdigest()[:32]


def differences(old: Json, new: Json, path: str = "") -> list[tuple[str, Json, Json]]:
    """Every leaf at which two JSON values differ: its dotted path, the old value, the new one. 1 is 1.0, not true."""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = ({str(n): value for n, value in enumerate(values)} for values in (old, new))
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    return [] if old == new and isinstance(old, bool) == isinstance(new, bool) else [(path, old, new)]


def settings_within(value: object) -> list[Any]:  # Any: models, scorers and tuners have no common base but Settings
    """The settings objects inside a settings object, itself first."""
    return [found for _, found in settings_by_path(value)]


def settings_by_path(value: object, path: str = "") -> Iterator[tuple[str, Any]]:  # Any: as above
    """The settings objects inside a settings object, itself first, each with its dotted path as in a recipe."""
    inner: Iterable[tuple[str, object]] = ()
    if isinstance(value, Settings):
        yield path, value
        inner = ((name, getattr(value, name)) for name in field_names(type(value)))
    elif isinstance(value, tuple | list):
        inner = ((str(number), v) for number, v in enumerate(value))
    elif isinstance(value, Mapping):
        inner = ((str(name), v) for name, v in value.items())
    for name, v in inner:
        yield from settings_by_path(v, f"{path}.{name}" if path else name)


def members(union: Any) -> list[Any]:  # Any: types as values
    """The classes of a union, also of unions inside it."""
    if get_origin(union) is Annotated:
        return members(get_args(union)[0])
    inside = get_args(union) if get_origin(union) in (Union, types.UnionType) else ()
    return list(dict.fromkeys(m for member in inside for m in members(member))) if inside else [union]
