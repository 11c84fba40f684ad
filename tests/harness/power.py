"""What a loss of power leaves: of each file what was last synced, of each folder the names that were last synced.

A model, and a harsh one: nothing that was not synced survives, neither content nor a new, changed or removed name. What it
does not model: the database and its log are taken as they are, since SQLite syncs them below our calls when a transaction
commits (its own tests cover that); pages of one file torn apart from one another; disks that lie about a sync.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

DATABASE = ("state.db", "state.db-wal")


@dataclass
class Picture:
    """What would be on the disk, had the power failed then."""

    moment: str
    """The call before which it would have failed."""
    files: dict[str, bytes]
    folders: list[str]

    def restore(self, home: Path) -> None:
        """Put it there."""
        home.mkdir()
        for name in sorted(self.folders):
            (home / name).mkdir()
        for name, content in self.files.items():
            (home / name).write_bytes(content)


@dataclass
class Power:
    """Watches a home and takes a picture before every call that makes something last."""

    home: Path
    names: dict[Path, dict[str, int]] = field(default_factory=dict)
    """By folder: the names that last, and the number of the file each of them names."""
    content: dict[int, bytes] = field(default_factory=dict)
    """By file: the bytes that last."""
    handles: dict[int, int] = field(default_factory=dict)
    """Files held open, so that no number is given to another file."""
    pictures: list[Picture] = field(default_factory=list)

    def sync(self, path: Path) -> None:
        """What a sync of this file or folder makes last."""
        if path.is_dir():
            self.names[path] = {p.name: self._number(p) for p in path.iterdir()}
        elif path.exists():
            self.content[self._number(path)] = path.read_bytes()

    def _number(self, path: Path) -> int:
        number = path.lstat().st_ino
        if number not in self.handles:
            self.handles[number] = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        return number

    def shoot(self, moment: str) -> None:
        """Take a picture."""
        files: dict[str, bytes] = {}
        folders: list[str] = []
        self._walk(self.home, files, folders)
        self.pictures.append(Picture(moment, files, folders))

    def _walk(self, folder: Path, files: dict[str, bytes], folders: list[str]) -> None:
        for name, number in self.names.get(folder, {}).items():
            path = folder / name
            if path.is_dir():
                folders.append(str(path.relative_to(self.home)))
                self._walk(path, files, folders)
            elif name not in DATABASE:
                files[str(path.relative_to(self.home))] = self.content.get(number, b"")
        for name in DATABASE if folder in self.names or folder.name == "run" else ():
            path = folder / name
            if path.exists() and (folder == self.home or folder.name in self.names.get(folder.parent, {})):
                files[str(path.relative_to(self.home))] = path.read_bytes()

    def watched(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:  # Any: the act's own
        """The same call, with a picture before it; a sync makes its file last."""

        def call(what: Any, *given: Any, **options: Any) -> Any:  # Any: the act's own
            path = Path(os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else what).absolute()
            ours = path.is_relative_to(self.home)
            if ours:
                self.shoot(f"{name} {path.name}")
            done = act(what, *given, **options)
            if ours and name == "fsync":
                self.sync(path)
            return done

        return call

    @contextmanager
    def watching(self) -> Iterator[Power]:
        """Begin with everything synced, and watch for a while."""
        for path in (self.home, *self.home.rglob("*")):
            self.sync(path)
        with pytest.MonkeyPatch.context() as patch:
            for name in ("fsync", "replace", "unlink"):
                patch.setattr(os, name, self.watched(name, getattr(os, name)))
            yield self
        self.shoot("the end")
        for handle in self.handles.values():
            os.close(handle)
