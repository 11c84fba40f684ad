"""What a browser makes of a page, opened from disk with no network."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tunesift.report.data import ReportData
from tunesift.report.html import render

HERE = Path(__file__).parents[1] / "report"
CHROMIUM = shutil.which("chromium")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: the page was not opened in a browser")

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--virtual-time-budget=5000",
    "--dump-dom",
)


def look_at(data: ReportData, look: str, folder: Path, *more: str) -> dict[str, Any]:
    """What a script of tests/report saw and wrote down, let in by its own hash so that the policy of the page holds."""
    driver = "".join((HERE / name).read_text(encoding="utf-8") for name in ("watch.js", look))
    digest = base64.b64encode(hashlib.sha256(driver.encode()).digest()).decode()
    page = render(data).replace("script-src ", f"script-src 'sha256-{digest}' ", 1)
    file = folder / "report.html"
    file.write_text(page.replace("</head>", f"<script>{driver}</script></head>", 1), encoding="utf-8")
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, *more, f"--user-data-dir={folder / 'profile'}", file.as_uri()]
    shown = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout.decode("utf-8")
    written = re.search('<pre id="seen">(.*?)</pre>', shown, re.DOTALL)
    assert written, shown[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(written[1]))
    return seen
