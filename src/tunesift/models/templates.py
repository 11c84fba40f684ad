"""How is a conversation rendered by a template that nobody here has read? By a child process that has limits."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

from tunesift.models import template_child
from tunesift.models.template_child import MOST_CPU_S

LONGEST_S = 60.0
"""Seconds of the clock, on a machine that does other things, for what is limited to seconds of the processor."""
MOST_ENDS = 3
"""Processes that one template may end; then it is refused without another."""


class TemplateFault(Exception):
    """A conversation that the template does not render."""


class Renderer:
    """One child that renders, begun when it is first needed and anew when a template has ended it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._ended: Counter[str] = Counter()
        atexit.register(self.close)

    def render(self, template: str, turns: list[dict[str, str]], more: Mapping[str, object], open: bool = True) -> str:
        """The rendered conversation, up to where a response begins if it is `open`; raises `TemplateFault`."""
        asked = {"template": template, "turns": turns, "more": dict(more), "open": open}
        with self._lock:
            if self._ended[template] >= MOST_ENDS:
                raise TemplateFault(f"it ended {MOST_ENDS} processes that tried")
            said = self._said(json.dumps(asked, default=str).encode() + b"\n", template)
        if "error" in said:
            raise TemplateFault(said["error"])
        return said["text"]

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _said(self, line: bytes, template: str) -> dict[str, str]:
        child = self._child = self._child or _begun()
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.write(line)
            child.stdin.flush()
        answer = _line(child, time.monotonic() + LONGEST_S)
        if answer.endswith(b"\n"):
            found: dict[str, str] = json.loads(answer)
            return found
        with suppress(subprocess.TimeoutExpired):
            child.wait(1.0)  # who has closed its output ends at once
        late = child.returncode in (None, -signal.SIGPROF)
        self.close()
        self._ended[template] += 1
        raise TemplateFault(f"it takes more than {MOST_CPU_S:g} s" if late else "it ends the process that renders it")


def _begun() -> subprocess.Popen[bytes]:
    """A child without our environment, and so without our keys; a signal to our process group is not for it."""
    given = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONUTF8": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", str(Path(template_child.__file__))]
    return subprocess.Popen(  # noqa: S603  no word of it is data
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=given,
        start_new_session=True,
    )


def _line(child: subprocess.Popen[bytes], until: float) -> bytes:
    """What the child says up to a line feed, or up to its end, or to the last moment."""
    assert child.stdout is not None
    handle, said = child.stdout.fileno(), bytearray()
    ready = select.poll()
    ready.register(handle, select.POLLIN | select.POLLHUP)
    while not said.endswith(b"\n") and (left := until - time.monotonic()) > 0:
        if ready.poll(left * 1000):
            more = os.read(handle, 2**20)
            if not more:
                break
            said += more
    return bytes(said)


RENDERER = Renderer()
