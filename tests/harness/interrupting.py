"""Runs that are ended from within, after some chunks, as a user ends them."""

from __future__ import annotations

from tunesift.running.progress import Progress
from tunesift.running.stopping import Stop


class Interrupts(Progress):
    """Ends a run at once, as a Ctrl-C that nobody catches."""

    def __init__(self, chunks: int) -> None:
        self._left = chunks

    def advance(self, stage: str, items: int, failed: int) -> None:
        """Count a chunk, and interrupt at the last."""
        self._left -= 1
        if not self._left:
            raise KeyboardInterrupt


class Asks(Progress):
    """Asks a run to stop, as the first Ctrl-C does; give the run its `stop`."""

    def __init__(self, chunks: int) -> None:
        self._left, self.stop = chunks, Stop()

    def advance(self, stage: str, items: int, failed: int) -> None:
        """Count a chunk, and ask at the last."""
        self._left -= 1
        if not self._left:
            self.stop.ask()
