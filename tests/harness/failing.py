"""Make the k-th call to the disk fail, for any k: file calls of `os` and `io`, Arrow's files, SQLite's statements.

Only calls that touch the home are counted. Opened for one life at a time; SQLite's own writes below a statement are its
affair, and a commit that fails does so before it has begun.
"""

from __future__ import annotations

import errno
import io
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SAYS = {
    errno.ENOSPC: (sqlite3.SQLITE_FULL, "database or disk is full"),
    errno.EIO: (sqlite3.SQLITE_IOERR, "disk I/O error"),
    errno.EACCES: (sqlite3.SQLITE_READONLY, "attempt to write a readonly database"),
}
"""What SQLite says where the system says this."""
BY_PATH = ("open", "replace", "rename", "unlink", "mkdir", "scandir", "link")
BY_HANDLE = ("fsync", "fdatasync", "ftruncate", "posix_fallocate", "write")
LETS_GO = ("close", "ROLLBACK")
"""Calls that give something back; they fail on no disk."""


class Disk:
    """Counts calls below a home; the k-th fails, and so do those after it where the disk stays broken."""

    def __init__(self, home: Path, k: int = 0, error: int = errno.EIO, stays: bool = False) -> None:
        self.home, self.k, self.error, self.stays = str(home), k, error, stays
        self.calls: list[str] = []
        self.failed: list[str] = []
        self.synced_after_failure: list[str] = []
        self._bad: set[tuple[int, int]] = set()

    def _due(self, name: str, what: object) -> bool:
        self.calls.append(f"{name} {Path(str(what)).name}")
        due = len(self.calls) == self.k or (self.stays and 0 < self.k < len(self.calls))
        if due:
            self.failed.append(self.calls[-1])
        return due

    def _is_ours(self, what: object) -> bool:
        if isinstance(what, int):
            what = os.readlink(f"/proc/self/fd/{what}")
        return isinstance(what, str | os.PathLike) and os.path.abspath(os.fspath(what)).startswith(self.home)

    def file_call(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:  # Any: the act's own
        """The same call, which may fail before it does anything."""

        def watched(what: Any = ".", *given: Any, **options: Any) -> Any:  # Any: the act's own
            if self._is_ours(what) and self._due(
                name, os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else what
            ):
                if name == "fsync":
                    self._bad.add(_identity(what))
                raise OSError(self.error, os.strerror(self.error))
            if name == "fsync" and _identity(what) in self._bad:
                self.synced_after_failure.append(os.readlink(f"/proc/self/fd/{what}"))
            return act(what, *given, **options)

        return watched

    def table_call(self, name: str, act: Callable[..., Any], place: int) -> Callable[..., Any]:  # Any: Arrow's own
        """The same for a function of Arrow whose argument at this place is a file's path."""

        def watched(*given: Any, **options: Any) -> Any:  # Any: Arrow's own
            if self._is_ours(given[place]) and self._due(name, given[place]):
                raise OSError(self.error, os.strerror(self.error))
            return act(*given, **options)

        return watched

    def statement(self, text: str) -> None:
        """Fail before a statement where it is its turn."""
        if text not in LETS_GO and self._due("sql", text.split("(")[0].strip()[:30]):
            code, said = SAYS[self.error]
            error = sqlite3.OperationalError(said)
            error.sqlite_errorcode = code  # type: ignore[misc]
            raise error

    def connection(self) -> type[sqlite3.Connection]:
        """A connection whose statements are counted."""
        disk = self

        class Watched(sqlite3.Connection):
            """The same connection."""

            def execute(self, text: str, *given: Any) -> sqlite3.Cursor:
                disk.statement(text)
                return super().execute(text, *given)

            def executemany(self, text: str, *given: Any) -> sqlite3.Cursor:
                disk.statement(text)
                return super().executemany(text, *given)

            def executescript(self, text: str) -> sqlite3.Cursor:
                disk.statement("script")
                return super().executescript(text)

        return Watched

    @contextmanager
    def watching(self) -> Iterator[Disk]:
        """Put the calls in place for a while."""
        connect = sqlite3.connect
        with pytest.MonkeyPatch.context() as patch:
            for name in (*BY_PATH, *BY_HANDLE):
                patch.setattr(os, name, self.file_call(name, getattr(os, name)))
            patch.setattr(io, "open", self.file_call("io.open", io.open))
            for module, name, place in (
                (pq, "write_table", 1),
                (pq, "read_table", 0),
                (pq, "ParquetWriter", 0),
                (pq, "ParquetFile", 0),
                (pa, "OSFile", 0),
                (pa, "memory_map", 0),
            ):
                patch.setattr(module, name, self.table_call(name, getattr(module, name), place))
            patch.setattr(
                sqlite3,
                "connect",
                lambda *given, **options: connect(*given, **{"factory": self.connection(), **options}),
            )
            yield self


def _identity(handle: int) -> tuple[int, int]:
    found = os.fstat(handle)
    return found.st_dev, found.st_ino
