"""How does a report become one file that needs no network and runs nothing from the data?"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from importlib.resources import files

from tunesift.report.data import CompareData, ReportData

# Left alone, these end the script block, or cannot be written as UTF-8 (halves of a surrogate pair).
_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")
_MARK = re.compile("<!--(head|data|script)-->")


def render(data: ReportData | CompareData) -> str:
    """The page as HTML; write it as UTF-8, and it opens from disk."""
    is_report = isinstance(data, ReportData)
    name, styles = ("page", ["page"]) if is_report else ("compare", ["page", "compare"])
    scripts = ["elements", "charts", "page"] if is_report else ["elements", "compare"]
    style = "".join(_text(f"{style}.css") for style in styles)
    script = "".join(_text(f"{script}.js") for script in scripts)
    policy = f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:"
    blocks = {
        "head": f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>',
        "data": f'<script type="application/json" id="report-data">{_json(data)}</script>',
        "script": f"<script>{script}</script>",
    }
    # One pass over the page, so that nothing inside a block is ever taken for a mark.
    return _MARK.sub(lambda mark: blocks[mark[1]], _text(f"{name}.html"))


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _digest(block: str) -> str:
    """How a content security policy names an inline block."""
    return "sha256-" + base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()


def _json(data: ReportData | CompareData) -> str:
    text = json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda unsafe: f"\\u{ord(unsafe[0]):04x}", text)


def _plain(value: object) -> object:
    """The same value in the types JSON knows; a number that is not finite becomes None."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
