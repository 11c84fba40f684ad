"""What if nothing moves any more? Say where every thread stands, and end the process; what is committed stays."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesift.errors import TunesiftError, printable
from tunesift.heartbeat import beat, still_s

STALLED = TunesiftError.exit_code
"""Exit code of a run that stood still."""


class Watchdog:
    """Ends the process when nothing has moved for some time; for programs that own their process.

    A thread that hangs in a library cannot be asked to stop. What was in flight counts as a crash: an item that
    hangs every life is found, as one that kills every life is.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s

    @contextmanager
    def watching(self, folder: Path) -> Iterator[None]:
        """Watch until the block ends."""
        over = threading.Event()
        beat()
        watcher = threading.Thread(target=self._watch, args=(folder, over), name="watchdog", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()

    def _watch(self, folder: Path, over: threading.Event) -> None:
        while not over.wait(min(5.0, self._patience_s / 10)):
            if still_s() > self._patience_s:
                said = (f"{folder}: nothing has moved for {self._patience_s:g} s; start the same command again to go "
                        "on. Where every thread stands:")  # fmt: skip
                os.write(sys.stderr.fileno(), printable(said).encode() + b"\n")
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                os._exit(STALLED)
