"""The k-th call to the disk fails, for every k: one of our errors, its code, and a run that goes on to the same bytes."""

from __future__ import annotations

import errno
import shutil
from collections import Counter
from pathlib import Path

import pytest

from harness.failing import Disk
from harness.runs import make_records
from tunesift import CannotCreate, DataError, StorageError, TunesiftError, recipe_for, run_recipe
from tunesift.running import fsio, journal

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
RECORDS = 20
OF_THIS_LIFE = ("LOCK", "holder.json", "state.db", "state.db-wal", "state.db-shm", "run.json", "result.json",
                "report.html", "source.json")  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PART_ROWS", 8)
    monkeypatch.setattr(fsio, "RESERVE_BYTES", 4096)


def live(home: Path) -> int:
    said = ["scorer.student.kind=scripted", "execution.chunk=6", f"folder={home / 'run'}", "keep=40%"]
    return run_recipe(recipe_for("select", home / "input.jsonl", home / "output.jsonl", said)).worked


def left(home: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(home)): p.read_bytes() for p in home.rglob("*") if p.is_file() and p.name not in OF_THIS_LIFE
    }


def fail_every(tmp_path: Path, every: int, errors: tuple[int, ...] = ERRORS) -> Counter[str]:
    """Fail at each of these calls, once and for the rest of the life; returns what was raised, by class and code."""
    home = tmp_path / "home"
    make_records(home, RECORDS)
    with Disk(home).watching() as counted:
        assert live(home) == RECORDS
    expected, calls = left(home), counted.calls
    raised: Counter[str] = Counter()
    for turn, k in enumerate(range(1, len(calls) + 1, every)):
        for error in errors if every == 1 else errors[turn % len(errors) :][:1]:
            shutil.rmtree(home)
            make_records(home, RECORDS)
            raised[fail_at(home, k, error, stays=turn % 2 == 1)] += 1
            assert left(home) == expected, f"call {k}, {calls[k - 1]}, errno {error}"
    print(len(calls), "calls,", sum(raised.values()), "failures:", dict(raised))
    return raised


def fail_at(home: Path, k: int, error: int, *, stays: bool) -> str:
    """One life in which a call fails, then lives without; what the first one raised."""
    with Disk(home, k, error, stays).watching() as disk:
        trouble = ended(home)
    assert disk.failed, f"call {k} was not reached"
    where = f"call {k}, {disk.failed[0]}, errno {error}: {trouble}"
    assert disk.synced_after_failure == [], f"{where}: synced again after it had failed"
    if trouble is not None:
        reading = "input.jsonl" in disk.failed[0]
        assert isinstance(trouble, StorageError | CannotCreate) or (reading and isinstance(trouble, DataError)), where
        assert trouble.exit_code in ((65, 73, 74) if reading else (73, 74)), where
        assert "\n" not in str(trouble), where
    live(home)
    return f"{type(trouble).__name__} {trouble.exit_code}" if trouble else "nothing"


def ended(home: Path) -> TunesiftError | None:
    """What a life raised; nothing but our own errors may."""
    try:
        live(home)
    except TunesiftError as trouble:
        return trouble
    return None


def test_some_calls_that_fail_end_in_one_of_our_errors_and_the_run_goes_on(tmp_path: Path) -> None:
    raised = fail_every(tmp_path, 9)
    assert raised["StorageError 74"] + raised["DiskFull 74"] >= 10


@pytest.mark.slow
def test_any_call_that_fails_ends_in_one_of_our_errors_and_the_run_goes_on(tmp_path: Path) -> None:
    raised = fail_every(tmp_path, 1)
    assert {"StorageError 74", "DiskFull 74", "CannotCreate 73"} <= set(raised)
