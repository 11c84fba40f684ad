"""Write docs/reference.md from the code: the help of every command, and everything a recipe may name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from tunesift.cli import app
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
    parts = []
    for name, found in sorted(schema()["$defs"].items()):
        rows = [
            f"| `{n}` | {default(field)} | {field.get('description', '')} |" for n, field in found["properties"].items()
        ]
        text = found.get("description", "").splitlines()
        head = f"### {name}\n\n{text[0] if text else ''}\n"
        parts.append("\n".join([head, "| setting | default | meaning |", "| --- | --- | --- |", *rows, ""]))
    return "\n".join(parts)


def default(field: dict[str, Any]) -> str:  # Any: JSON schema
    """A field's default as it would be written in a recipe."""
    return f"`{field['default']!r}`" if "default" in field else "must be given"


def page() -> str:
    """The whole reference."""
    head = "# Reference\n\nWritten by `make docs` from the code."
    return f"{head}\n\n## Commands\n\n{commands()}\n## Settings\n\n{settings()}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"wrote {PAGE.name}", file=sys.stderr)
