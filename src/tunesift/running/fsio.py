"""Every file operation of a run folder, in one place, so that tests can make each of them fail or die.

Names are never data: what is written here has a name that the program chose. Links are not followed.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tunesift.disk import NO_ROOM, create, sync
from tunesift.errors import ROOM_SAID, DiskFull, StorageError, first_line
from tunesift.settings import Json

RESERVE_BYTES = 64 * 2**20
"""Bytes held back for the answers in flight when the disk is full."""

LEFT = ".left"
"""A file that says of a run's folder: its last process left of its own will, with work in flight."""

NO_ROOM_BYTES = 2**16
"""Free bytes below which a disk that fails is taken for a full one."""

FAILPOINTS = (
    "run.created", "intent.before_commit", "intent.committed", "result.before_commit", "result.committed",
    "part.tmp_written", "part.verified", "part.settled", "seal.mid_txn", "seal.committed", "file.tmp_written",
    "file.synced", "file.renamed", "file.dir_synced", "output.written", "report.written",
)  # fmt: skip
"""Places of the write path at which a test can kill the process."""

_ARMED = os.environ.get("TUNESIFT_FAILPOINT", "")
"""`name:count`: die at the count-th passing of the point with this name. For tests; empty otherwise."""
_PASSED: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Die here, as power loss would have it, when a test has armed this point."""
    if not _ARMED:
        return
    armed, _, count = _ARMED.partition(":")
    _PASSED[name] = _PASSED.get(name, 0) + 1
    if armed == name and _PASSED[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def storage_errors(place: Path) -> Iterator[None]:
    """Turn what the disk says into one sentence; `DiskFull` where there is no room."""
    try:
        yield
    except (sqlite3.Error, OSError, pa.ArrowException) as error:
        said = f"{place}: {first_line(error)}"
        if is_full(error, place):
            raise DiskFull(f"{said}; {ROOM_SAID} and start again.") from error
        raise StorageError(f"{said}; check the disk and start again.") from error


def is_full(error: Exception, place: Path) -> bool:
    """Whether an error of a library that writes there means that there is no room left."""
    code = getattr(error, "sqlite_errorcode", 0) or 0
    if code & 0xFF == sqlite3.SQLITE_IOERR:  # what SQLite says where its index of the log does not fit
        return _free_bytes(place) < NO_ROOM_BYTES
    return code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in NO_ROOM


def _free_bytes(place: Path) -> int:
    there = next(p for p in (place, *place.absolute().parents) if p.exists())
    found = os.statvfs(there)
    return found.f_bavail * found.f_frsize


def make_folder(path: Path) -> None:
    """A folder that only its owner may read, and the missing ones above it likewise."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True, mode=0o700)
    sync(path.parent)


def make_private(path: Path) -> None:
    """Make an empty file that only its owner may read, where none is; a link in its place is refused."""
    refuse_link(path)
    if not path.exists():
        os.close(create(path))
        sync(path.parent)


def refuse_link(path: Path) -> None:
    """Raise `StorageError` where somebody put a link in the place of a file of ours."""
    if path.is_symlink():
        raise StorageError(f"{path}: is a link; remove it, a run writes real files only.")


def settle(part: Path, path: Path) -> None:
    """Give a temporary file its name, durably; a link in the name's place is refused."""
    refuse_link(path)
    sync(part)
    failpoint("file.synced")
    part.replace(path)
    failpoint("file.renamed")
    sync(path.parent)
    failpoint("file.dir_synced")


def temporary(path: Path) -> Path:
    """Where a file is written before it gets its name; the folder must be locked, so that this name is ours."""
    return path.with_name(f"{path.name}.tmp")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a small file whole or not at all."""
    part = temporary(path)
    with storage_errors(path):
        with os.fdopen(create(part), "wb") as file:
            file.write(content)
        failpoint("file.tmp_written")
        settle(part, path)


def jot(path: Path, value: Mapping[str, Json]) -> None:
    """Write a small note for people, whole; it need not survive a loss of power, and nothing is decided by it."""
    part = temporary(path)
    with storage_errors(path):
        refuse_link(path)
        with os.fdopen(create(part), "wb") as file:
            file.write(_checked(value))
        part.replace(path)


def write_json(path: Path, value: Mapping[str, Json]) -> None:
    """Write a small JSON file whole or not at all, with a checksum of itself at its end."""
    write_bytes(path, _checked(value))


def read_json(path: Path) -> dict[str, Any]:  # Any: JSON
    """A file that `write_json` wrote; raises `StorageError` where a byte of it is not as it was written."""
    with storage_errors(path):
        content = path.read_bytes()
    try:
        value = dict(json.loads(content))
        said = value.pop("checksum")
        whole = said == hashlib.sha256(_spelled(value)).hexdigest() and content == _spelled({**value, "checksum": said})
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise StorageError(f"{path}: is damaged; restore it, or delete the run folder to begin anew.")
    return value


def _checked(value: Mapping[str, Json]) -> bytes:
    return _spelled({**value, "checksum": hashlib.sha256(_spelled(value)).hexdigest()})


def _spelled(value: Mapping[str, Json]) -> bytes:
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode(errors="backslashreplace")  # a byte of a file's name that is no UTF-8 becomes JSON's own escape


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file whole or not at all."""
    with storage_errors(path):
        make_folder(path.parent)
    part = temporary(path)
    write_part(part, table)
    with storage_errors(path):
        settle(part, path)


def write_batches(path: Path, schema: pa.Schema, batches: Callable[[], Iterable[pa.RecordBatch]]) -> None:
    """Write a Parquet file of any length whole or not at all; its batches are made twice, to compare what was written.

    Only one of them is in memory at a time.
    """
    part = temporary(path)
    with storage_errors(path):
        make_folder(path.parent)
        os.close(create(part))
        with pq.ParquetWriter(part, schema, compression="zstd", write_page_checksum=True) as writer:
            for batch in batches():
                writer.write_batch(batch)
        failpoint("part.tmp_written")
        if not all(_same(found, batch) for found, batch in zip_longest(_groups(part), batches())):
            raise _changed(part)
        failpoint("part.verified")
        settle(part, path)


def _groups(part: Path) -> Iterator[pa.Table]:
    with pq.ParquetFile(part, page_checksum_verification=True) as file:
        yield from (file.read_row_group(n, use_threads=False) for n in range(file.num_row_groups))


def _same(found: pa.Table | None, batch: pa.RecordBatch | None) -> bool:
    return found is not None and batch is not None and bool(found.equals(pa.Table.from_batches([batch])))


def _changed(part: Path) -> StorageError:
    return StorageError(f"{part}: reads back other than it was written; check the disk.")


def write_part(part: Path, table: pa.Table) -> None:
    """Write a table with page checksums under its temporary name, and read it back.

    Without threads: Arrow's, when one still starts while the process leaves, end it with an abort.
    """
    with storage_errors(part):
        os.close(create(part))
        pq.write_table(table, part, compression="zstd", write_page_checksum=True)
        failpoint("part.tmp_written")
        with pq.ParquetFile(part, page_checksum_verification=True) as file:
            same = file.read(use_threads=False).equals(table)
        if not same:
            raise _changed(part)
    failpoint("part.verified")


def reserve(folder: Path) -> None:
    """Hold back some space for answers that are in flight when the disk fills up."""
    with storage_errors(folder), os.fdopen(create(folder / ".reserve"), "wb") as file:
        os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)


def release(folder: Path) -> bool:
    """Give the held space back; False where it was given back before."""
    path = folder / ".reserve"
    with storage_errors(path):
        if not path.exists():
            return False
        path.unlink()
    return True


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; raises `StorageError` where it cannot be read."""
    with storage_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
