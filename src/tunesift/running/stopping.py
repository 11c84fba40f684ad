"""How is a run asked to end? By a signal, or by a program; what is in flight is finished first."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

from tunesift.errors import Stopped


class Stop:
    """A wish to end, heard between chunks."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self.listening = False
        """Whether the process is this run's own: signals end it, and so does a long standstill."""

    @property
    def asked(self) -> bool:
        """Whether somebody has asked."""
        return self._signal is not None

    def ask(self, number: int = signal.SIGINT) -> None:
        """Ask; `number` is the signal that a shell would name as the reason."""
        self._signal = number

    def check(self, folder: Path) -> None:
        """Raise `Stopped` where somebody has asked."""
        if self._signal is not None:
            error = Stopped(f"{folder}: stopped when asked to; start the same command again to go on.")
            error.exit_code = 128 + self._signal
            raise error

    def listen(self) -> None:
        """Ask at the first SIGINT or SIGTERM, and leave at once at the second; for the main thread of a program."""
        self.listening = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number
        os.write(sys.stderr.fileno(), b"stopping after what is in flight; a second signal leaves at once\n")
