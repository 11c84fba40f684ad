"""A folder for as long as it is used; what a killed process left behind is removed by whoever comes next."""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

_NAME = "tunesift-data-"
_HELD = "held"
"""A file that the user of the folder has locked; the kernel frees it when the process is gone."""


class Scratch:
    """A temporary folder of this process."""

    def __init__(self) -> None:
        _remove_stale()
        made = Path(tempfile.mkdtemp(prefix="tunesift-new-"))
        self._held = (made / _HELD).open("wb")
        fcntl.flock(self._held, fcntl.LOCK_EX)
        self.path = made.with_name(made.name.replace("tunesift-new-", _NAME))
        made.rename(self.path)  # only now can it be taken for a stale one, which it is not while it is locked

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        rmtree(self.path, ignore_errors=True)
        self._held.close()


def _remove_stale() -> None:
    """Remove this user's folders that no process holds."""
    for path in Path(tempfile.gettempdir()).glob(f"{_NAME}*"):
        with suppress(OSError):  # it is another user's, or goes at this moment
            if path.is_symlink() or path.stat().st_uid != os.geteuid():
                continue
            with (path / _HELD).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                rmtree(path, ignore_errors=True)
