"""How is a run asked to end? By a signal, or by a program; what is in flight is finished first."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType

from tunesift.disk import create
from tunesift.errors import Stopped
from tunesift.running.fsio import LEFT

GRACE_S = {signal.SIGINT: 30.0, signal.SIGTERM: 20.0}
"""Longest wait for what is in flight after the first signal; those who send SIGTERM mostly wait for half a minute."""


class Stop:
    """A wish to end, heard between chunks."""

    def __init__(self) -> None:
        self._signal: int | None = None
        self._tell: int | None = None
        self.listening = False
        """Whether the process is this run's own: signals end it, and so does a long standstill."""
        self.folder: Path | None = None
        """The run's folder, once it is open."""

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
        """Ask at the first SIGINT or SIGTERM, and leave at once at the second, or when the grace is over; for the main
        thread of a program."""
        self.listening = True
        heard, self._tell = os.pipe()
        os.set_blocking(self._tell, False)
        for number in GRACE_S:
            signal.signal(number, self._hear)
        signal.set_wakeup_fd(self._tell, warn_on_full_buffer=False)
        # a thread hears of signals even while the main one computes for a minute without looking up
        threading.Thread(target=self._wait, args=(heard,), name="stop", daemon=True).start()

    def deafen(self) -> None:
        """The work is over: a signal that comes now changes nothing, and must not look as if it had."""
        for number in GRACE_S:
            signal.signal(number, signal.SIG_IGN)
        if self._tell is not None:
            signal.set_wakeup_fd(-1)
            os.close(self._tell)
            self._tell = None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal = number
            os.write(sys.stderr.fileno(), b"stopping after what is in flight; a second signal leaves at once\n")

    def _wait(self, heard: int) -> None:
        """Leave at the second signal, or some time after the first; end quietly when nobody listens any more."""
        first = _next(heard, None)
        number = _next(heard, GRACE_S[first]) if first else None
        if first and self._tell is not None:
            if number is None:
                said = (
                    f"what is in flight takes longer than {GRACE_S[first]:g} s; start the same command again to go on\n"
                )
                os.write(sys.stderr.fileno(), said.encode())
            if self.folder is not None:
                say_left(self.folder)
            os._exit(128 + (number or first))
        os.close(heard)


def say_left(folder: Path) -> None:
    """Note that the process leaves of its own will: what is in flight has not killed it."""
    with suppress(OSError):  # the note only spares an item a death that is not its own
        os.close(create(folder / LEFT))


def _next(heard: int, patience_s: float | None) -> signal.Signals | None:
    """The next signal; None when the time is over, or nobody listens any more."""
    while select.select([heard], [], [], patience_s)[0] and (said := os.read(heard, 1)):
        if said[0] in tuple(GRACE_S):
            return signal.Signals(said[0])
    return None
