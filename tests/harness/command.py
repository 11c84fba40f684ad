"""The command line in this process, for tests that go through it as a user does; a plugin of pytest's."""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tunesift import cli


@dataclass(frozen=True)
class Told:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The object on stdout."""
        return json.loads(self.out)

    @property
    def sentence(self) -> str:
        """The one line on stderr; fails where there is none or more."""
        assert self.out == ""
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        assert len(self.err) <= 401
        assert self.err[:-1].isprintable()
        return self.err[:-1]


Command = Callable[..., Told]


@pytest.fixture
def stands_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of one's own to stand in; what a command changes in this process is put back."""
    monkeypatch.chdir(tmp_path)
    handlers = logging.root.handlers[:]
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    logging.root.handlers[:] = handlers
    for number, handler in signals.items():
        signal.signal(number, handler)


@pytest.fixture
def tunesift(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in this process."""

    def run(*words: str) -> Told:
        monkeypatch.setattr(sys, "argv", ["tunesift", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return Told(int(ended.value.code or 0), said.out, said.err)

    return run
