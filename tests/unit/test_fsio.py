"""What the disk says, in a sentence: is it full, or is it broken?"""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesift import StorageError
from tunesift.errors import DiskFull
from tunesift.running import fsio
from tunesift.running.fsio import (
    digest,
    jot,
    read_json,
    storage_errors,
    temporary,
    write_batches,
    write_json,
    write_table,
)
from tunesift.running.parts import Entry, Label, content_sha256, find, part_path, seal


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    return error


def told(error: Exception, place: Path) -> StorageError:
    with pytest.raises(StorageError) as refusal, storage_errors(place):
        raise error
    assert str(refusal.value).startswith(f"{place}: ")
    return refusal.value


IOERR_SHMSIZE = sqlite3.SQLITE_IOERR | 19 << 8


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (sqlite_error(sqlite3.SQLITE_FULL), True), (sqlite_error(sqlite3.SQLITE_CORRUPT), False),
        (OSError(errno.ENOSPC, "no"), True), (OSError(errno.EDQUOT, "no"), True), (OSError(errno.EFBIG, "no"), True),
        (OSError(errno.EIO, "no"), False), (sqlite3.OperationalError("without a code"), False),
        (sqlite_error(IOERR_SHMSIZE), False),
    ],
    ids=repr,
)  # fmt: skip
def test_a_full_disk_is_told_from_a_broken_one(tmp_path: Path, error: Exception, full: bool) -> None:
    assert isinstance(told(error, tmp_path), DiskFull) == full


def test_a_disk_that_fails_with_no_room_left_is_a_full_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsio, "NO_ROOM_BYTES", 2**62)  # more than any disk has free
    assert isinstance(told(sqlite_error(IOERR_SHMSIZE), tmp_path / "not" / "there" / "yet"), DiskFull)
    assert not isinstance(told(sqlite_error(sqlite3.SQLITE_CORRUPT), tmp_path), DiskFull)


@pytest.mark.parametrize(("free", "full"), [(2**16 - 1, True), (2**16, False)])
def test_a_disk_that_fails_is_a_broken_one_where_there_is_room_for_the_index_of_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, full: bool
) -> None:
    monkeypatch.setattr(fsio, "_free_bytes", lambda place: free)
    assert isinstance(told(sqlite_error(IOERR_SHMSIZE), tmp_path), DiskFull) == full


def test_what_is_held_back_for_a_full_disk_is_given_back_once(tmp_path: Path) -> None:
    fsio.reserve(tmp_path)
    held = (tmp_path / ".reserve").stat()
    assert (held.st_size, held.st_blocks * 512 >= 64 * 2**20) == (64 * 2**20, True)
    assert fsio.release(tmp_path)
    assert not fsio.release(tmp_path), "there is no more room than before"
    (tmp_path / ".reserve").mkdir()
    for ask, place in ((fsio.reserve, tmp_path), (fsio.release, tmp_path / ".reserve")):
        with pytest.raises(StorageError) as refusal:
            ask(tmp_path)
        assert str(refusal.value).startswith(f"{place}: ")


def test_a_folder_that_another_process_makes_at_the_same_moment_is_as_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, found = tmp_path / "stages", Path.is_dir

    def made_since(path: Path) -> bool:
        monkeypatch.setattr(Path, "is_dir", found)
        place.mkdir()
        return False

    monkeypatch.setattr(Path, "is_dir", made_since)
    fsio.make_folder(place)
    assert place.is_dir()


@pytest.mark.parametrize(("armed", "dies"), [("", []), ("here", [0]), ("here:1", [0]), ("here:3", [2]), ("there", [])])
def test_a_process_is_killed_at_the_passing_that_a_test_has_armed_and_at_no_other(
    monkeypatch: pytest.MonkeyPatch, armed: str, dies: list[int]
) -> None:
    killed: list[tuple[int, int, int]] = []
    monkeypatch.setattr(fsio, "_ARMED", armed)
    monkeypatch.setattr(fsio, "_PASSED", {})
    for time in range(4):
        monkeypatch.setattr(os, "kill", lambda process, number, time=time: killed.append((time, process, number)))
        fsio.failpoint("elsewhere")
        fsio.failpoint("here")
    assert killed == [(time, os.getpid(), signal.SIGKILL) for time in dies]


def test_a_small_file_has_the_same_bytes_in_every_release(tmp_path: Path) -> None:
    """One that is spelled otherwise is taken for a damaged one: a run begun before could not go on."""
    write_json(tmp_path / "run.json", {"name": "ü", "parts": [1, {"none": None}]})
    value = '{\n "name": "ü",\n "parts": [\n  1,\n  {\n   "none": null\n  }\n ]'
    checksum = hashlib.sha256(f"{value}\n}}\n".encode()).hexdigest()
    assert (tmp_path / "run.json").read_text("utf-8") == f'{value},\n "checksum": "{checksum}"\n}}\n'


ROWS = [Entry(row, f"r{row}", bytes(16), None, "1") for row in range(8)]
TABLE = pa.table({"id": [f"r{n % 7}" for n in range(5000)], "value": [n % 13 for n in range(5000)]})
WRITERS: dict[str, Callable[[Path], None]] = {
    "json": lambda path: write_json(path, {"kept": 1}),
    "note": lambda path: jot(path, {"pid": 1}),
    "table": lambda path: write_table(path, TABLE),
    "batches": lambda path: write_batches(path, TABLE.schema, TABLE.to_batches),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_that_cannot_be_written_is_named_by_its_own_name_and_not_its_temporary_one(
    tmp_path: Path, writer: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "within").mkdir(parents=True)
    for path in (tmp_path / "file" / "x.parquet", tmp_path / "folder"):
        with pytest.raises(StorageError) as refusal:
            WRITERS[writer](path)
        assert str(refusal.value).startswith(f"{path}: ")
        assert str(refusal.value).endswith("; check the disk and start again.")


@pytest.mark.parametrize("writer", ["table", "batches"])
def test_columns_are_compressed_and_a_changed_byte_of_theirs_is_found_by_whoever_reads_them(
    tmp_path: Path, writer: str
) -> None:
    path = tmp_path / "x.parquet"
    WRITERS[writer](path)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    assert column.compression == "ZSTD"
    whole = bytearray(path.read_bytes())
    whole[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(OSError, match=r"(?i)checksum|crc"):
        pq.ParquetFile(path, page_checksum_verification=True).read()


def spoil_checksum(path: Path) -> None:
    """Change the checksum of a column's page, and nothing else: every value still reads as it was written."""
    whole = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    page, end = (
        column.data_page_offset,
        (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size,
    )
    for content in range(page + 8, end):
        crc = zlib.crc32(whole[content:end])
        bits = (crc << 1 ^ (0xFFFFFFFF if crc >> 31 else 0)) & 0xFFFFFFFF  # as its header spells a number with a sign
        said = bytes(
            bits >> 7 * n & 0x7F | (0x80 if bits >> 7 * (n + 1) else 0) for n in range(5) if not n or bits >> 7 * n
        )
        if (place := whole.find(said, page, content)) >= 0:
            whole[place] ^= 1
            path.write_bytes(whole)
            return
    raise AssertionError("no page of the file has a checksum")


@pytest.mark.parametrize("writer", ["table", "batches"])
def test_a_file_whose_checksums_nobody_could_read_it_by_is_not_given_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    path = tmp_path / "x.parquet"
    monkeypatch.setattr(
        fsio, "failpoint", lambda name: spoil_checksum(temporary(path)) if name == "part.tmp_written" else None
    )
    with pytest.raises(StorageError, match=r"(?i)checksum|crc"):
        WRITERS[writer](path)
    assert not path.exists()
    assert pq.read_table(temporary(path)).equals(TABLE), "its values are sound"


def test_a_part_whose_checksums_nobody_could_read_it_by_is_not_taken_up(tmp_path: Path) -> None:
    label = Label("ifd", {}, 1, 8, content_sha256(ROWS))
    seal(tmp_path, 0, label, ROWS)
    assert find(part_path(tmp_path, 0)) is not None
    spoil_checksum(part_path(tmp_path, 0))
    assert find(part_path(tmp_path, 0)) is None


def test_a_file_that_reads_back_otherwise_is_named(tmp_path: Path) -> None:
    path, halves = tmp_path / "x.parquet", iter([TABLE, TABLE.slice(1)])
    with pytest.raises(StorageError) as refusal:
        write_batches(path, TABLE.schema, lambda: next(halves).to_batches())
    assert str(refusal.value) == f"{path}.tmp: reads back other than it was written; check the disk."
    assert not path.exists()


def test_a_table_whose_temporary_file_cannot_be_made_names_that_one(tmp_path: Path) -> None:
    part = tmp_path / "x.parquet.tmp"
    part.mkdir()
    with pytest.raises(StorageError) as refusal:
        write_table(tmp_path / "x.parquet", TABLE)
    assert str(refusal.value).startswith(f"{part}: ")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for read in (read_json, digest):
        with pytest.raises(StorageError) as refusal:
            read(tmp_path / "not there")
        assert str(refusal.value).startswith(f"{tmp_path / 'not there'}: ")
