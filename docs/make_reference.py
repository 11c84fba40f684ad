"""Write docs/reference.md from the code: the help of every command, and everything a recipe may name."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from tunesift.cli import app
from tunesift.errors import TunesiftError
from tunesift.recipe import schema

PAGE = Path(__file__).resolve().parent / "reference.md"


def commands() -> str:
    """The help of every command, as it is printed on a terminal of 100 columns."""
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "_TYPER_STANDARD_TRACEBACK": "1"})
    names = [c.name or str(c.callback and c.callback.__name__) for c in app.registered_commands]
    pages = [runner.invoke(app, [name, "--help"], prog_name="tunesift").output for name in names]
    texts = ["\n".join(line.rstrip() for line in page.strip().splitlines()) for page in pages]
    return "\n".join(f"### {name}\n\n```\n{text}\n```\n" for name, text in zip(names, texts, strict=True))


def settings() -> str:
    """A table per settings class, from the recipe's JSON schema: name, default, meaning."""
    whole = schema()
    return "\n".join(table(name, found) for name, found in [("Recipe", whole), *sorted(whole["$defs"].items())])


def table(name: str, found: dict[str, Any]) -> str:  # Any: JSON schema
    """One settings class: how a recipe names it, what it is, its settings."""
    kind = found["properties"].get("kind", {}).get("const")
    rows = [
        f"| `{n}` | {default(field, n in found.get('required', ()))} | {cell(field.get('description', ''))} |"
        for n, field in found["properties"].items()
        if n != "kind"
    ]
    text = found.get("description", "").split("\n\n")[0]
    parts = [f"### {name}\n", " ".join([*([f"`kind: {kind}`."] if kind else []), cell(text)]) + "\n"]
    heads = ["| setting | default | meaning |", "| --- | --- | --- |"]
    return "\n".join([*parts, *([*heads, *rows, ""] if rows else ["No settings.\n"])])


def cell(text: str) -> str:
    """Text as a table may hold it: on one line, without a bar that would end its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def default(field: dict[str, Any], required: bool) -> str:  # Any: JSON schema
    """A field's default as it would be written in a recipe; of what stands inside it, what is not null."""
    if required:
        return "must be given"
    if "default" not in field:
        name = field.get("$ref", "").rpartition("/")[2]
        return f"those of [{name}](#{name.lower()})" if name else "`{}`"
    value = without_nulls(field["default"])
    if isinstance(value, dict | list) and value:
        return f"`{cell(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000))}`"
    return f"`{cell(json.dumps(value, ensure_ascii=False))}`"


def without_nulls(value: Any) -> Any:  # Any: JSON
    """The value without what is null inside it."""
    if isinstance(value, list):
        return [without_nulls(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {name: without_nulls(inner) for name, inner in value.items() if inner is not None}


HEAD = """# Reference

Written by `make docs` from the code. A recipe's own settings come first [below](#settings); `tunesift list` names
everything in fewer words.

A setting's dotted name is its way through the recipe: `keep.fraction=0.05` is `fraction` of what stands under `keep`,
and `raters.0.model.name=FOLDER` the name of the first rater's model. A method's command leaves `method.` out, and so
does `tunesift run` with a recipe of the package; with a file of yours it is `method.keep.fraction=0.05`. A new `kind`
begins with its own defaults. What a text calls None is `null`.

`keep=10%` and `keep=0.1` are short for `keep.fraction=0.1`, whatever the kind of selector; `keep.count=500` puts a
number of records in place of the fraction. `10%` may stand wherever a fraction is meant.
"""


def exit_codes() -> str:
    """A table of what the command line ends with, from the errors themselves."""
    said: dict[int, list[str]] = {}
    families = [TunesiftError]
    for family in families:
        families += [found for found in family.__subclasses__() if found.__module__ == TunesiftError.__module__]
        first = cell(re.split(r"(?<=\.)\s|, so that|; also", family.__doc__ or "")[0]).rstrip(".")
        said.setdefault(family.exit_code, []).append(f"`{family.__name__}`: {first}")
    said[TunesiftError.exit_code][0] = "anything else; with a traceback it is a fault of ours"
    rows = [f"| {code} | {'; '.join(texts)} |" for code, texts in sorted(said.items())]
    rows = [row.replace("| 130 |", "| 130, 143 |") for row in rows]
    return "\n".join(["| code | what happened |", "| --- | --- |", "| 0 | all is done |", *rows]) + "\n"


def page() -> str:
    """The whole reference."""
    return f"{HEAD}\n## Commands\n\n{commands()}\n## Exit codes\n\n{exit_codes()}\n## Settings\n\n{settings()}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.name}", file=sys.stderr)
