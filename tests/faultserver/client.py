"""Starts the scripted server in a process of its own, tells it what to do, and reads what it saw."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class FaultServer:
    """A running server."""

    port: int
    other: int
    log: Path
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/v1"

    def script(self, *rules: dict[str, Any]) -> None:
        """Play other rules from now on; counts, bill and log begin anew."""
        self.post("/__script", list(rules))
        self.log.write_bytes(b"")

    def post(self, path: str, value: object = None) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(value).encode())
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.loads(reply.read())

    def bill(self) -> dict[str, Any]:
        """What a vendor would charge."""
        return dict(self.post("/__bill")["billed"])

    def lines(self) -> list[dict[str, Any]]:
        """The requests that were made, in the order in which they ended; waits for those that have not."""
        for _ in range(500):
            if self.scheme == "https" and self.log.stat().st_size:
                break
            if self.scheme == "http" and not self.post("/__state")["in_flight"]:
                break
            time.sleep(0.01)
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def rows(self) -> list[dict[str, Any]]:
        """Those that were about a row: no probes."""
        return [line for line in self.lines() if line["row"] is not None]


@contextmanager
def serving(folder: Path, *rules: dict[str, Any], cert: Path | None = None) -> Iterator[FaultServer]:
    """A server that lives as long as the block."""
    log = folder / "server.log"
    command = [sys.executable, "-m", "faultserver.server", str(log), json.dumps(rules)]
    command += ["--cert", str(cert)] if cert else []
    with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            yield FaultServer(ready["port"], ready["other"], log, "https" if cert else "http")
        finally:
            process.kill()
