"""Which folders of a training are whole? Those that hold a list of their files, which is written last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree
from typing import Any

from tunesift.disk import sync
from tunesift.errors import StorageError
from tunesift.records import content_digest
from tunesift.running.fsio import digest, read_json, storage_errors, write_json
from tunesift.settings import Json

COMPLETE = "_COMPLETE.json"
"""The file that makes a folder whole: what lies in it, and how large each file is."""


def seal(folder: Path, said: Mapping[str, Json], digests: bool = False) -> None:
    """Write every byte of a folder to the disk, and then the list of its files with `said`; with their SHA-256 for what
    stays."""
    with storage_errors(folder):
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != COMPLETE)
        for path in files:
            sync(path)
        sync(folder)
        listed: dict[str, Json] = {
            str(path.relative_to(folder)): {
                "bytes": path.stat().st_size,
                **({"sha256": digest(path)} if digests else {}),
            }
            for path in files
        }
        write_json(folder / COMPLETE, {**said, "files": listed})


def sealed(folder: Path) -> dict[str, Any] | None:  # Any: JSON
    """What the list of a folder says; None where there is none, or a file of it is missing or of another size."""
    try:
        if not (folder / COMPLETE).exists():
            return None
        said = read_json(folder / COMPLETE)
        whole = all((folder / name).stat().st_size == file["bytes"] for name, file in said["files"].items())
    except (OSError, StorageError):
        return None
    return said if whole else None


def weights_of(folder: Path) -> str:
    """A digest of the weights in a sealed folder, wherever it lies."""
    files = read_json(folder / COMPLETE)["files"]
    return content_digest({name: files[name]["sha256"] for name in files if name.endswith(".safetensors")}).hex()


def newest(into: Path, prefix: str) -> Path | None:
    """The whole folder `prefix-N` of the largest N; those that are not whole, or were left behind, are removed."""
    numbered = (path for path in into.glob(f"{prefix}-*") if path.name.rpartition("-")[2].isdecimal())
    found: list[Path] = sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2]))
    best = next((path for path in reversed(found) if sealed(path) is not None), None)
    for path in found:
        if sealed(path) is None:
            with storage_errors(path):
                rmtree(path)
    return best


def spoilt(folder: Path) -> list[str]:
    """Files of a sealed folder that are not as they were written, by their SHA-256 where the list has it."""
    said = read_json(folder / COMPLETE)["files"]
    return [
        name
        for name, file in said.items()
        if not (folder / name).is_file()
        or (folder / name).stat().st_size != file["bytes"]
        or ("sha256" in file and digest(folder / name) != file["sha256"])
    ]
