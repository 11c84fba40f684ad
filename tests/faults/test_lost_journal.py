"""A journal that is lost, emptied, another run's, or changed by a bit: nothing sealed is ever removed, and nothing that was
changed becomes the result."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from faults.test_crash_points import make_input, result, start

MIDDLE = "result.committed:5"
"""Forty of seventy rows are done: two parts of sixteen are sealed, eight rows are open."""


def tell(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command over the run's folder."""
    command = [sys.executable, "-m", "tunesift.cli", words[0], str(home / "kept.jsonl.run"), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def everything(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder: its bytes, and when they were written."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


Make = Callable[[str], Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Puts a run as it was left into one place: "whole" when nobody disturbed it, "halfway" when it died in the middle."""
    place = tmp_path_factory.mktemp("runs")
    home = place / "home"
    for kind, failpoint in (("whole", ""), ("halfway", MIDDLE)):
        make_input(home)
        assert start(home, failpoint).returncode == (-signal.SIGKILL if failpoint else 0)
        home.rename(place / kind)
    assert len(list((place / "halfway" / "kept.jsonl.run").glob("stages/*/part-*.parquet"))) == 2

    def made(kind: str) -> Path:
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(place / kind, home)
        return home

    return made


@pytest.fixture
def halfway(make: Make) -> Path:
    return make("halfway")


@pytest.fixture(params=["halfway", "whole"])
def home(request: pytest.FixtureRequest, make: Make) -> Path:
    return make(request.param)


@pytest.fixture(scope="module")
def whole(make: Make) -> dict[str, bytes]:
    """What nobody disturbed comes to."""
    return result(make("whole"))


def lose(folder: Path) -> None:
    for name in ("state.db", "state.db-wal", "state.db-shm"):
        (folder / name).unlink(missing_ok=True)


def empty(folder: Path) -> None:
    (folder / "state.db").write_bytes(b"")


def empty_without_its_log(folder: Path) -> None:
    lose(folder)
    empty(folder)


def put_in_another(folder: Path) -> None:
    """The database of a run that has done nothing, as a hasty restore would leave it."""
    lose(folder)
    other = folder.parent / "other"
    (other / "kept").mkdir(parents=True)
    make_input(other / "home")
    assert start(other / "home", "intent.committed:1").returncode == -signal.SIGKILL
    for path in (other / "home" / "kept.jsonl.run").glob("state.db*"):
        shutil.copy(path, folder / path.name)
    shutil.rmtree(other)


SLOW = pytest.mark.slow
DAMAGES = [lose, *(pytest.param(d, marks=SLOW) for d in (empty, empty_without_its_log, put_in_another))]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_lost_journal_is_refused_reported_and_repaired_and_its_parts_stay(
    home: Path, whole: dict[str, bytes], damage: Callable[[Path], None]
) -> None:
    folder = home / "kept.jsonl.run"
    damage(folder)
    parts = {p: p.read_bytes() for p in folder.glob("stages/*/part-*.parquet")}
    refused = start(home)
    assert (refused.returncode, "tunesift repair" in refused.stderr) == (74, True), refused.stderr
    found = tell(home, "verify")
    assert (found.returncode, "state.db" in found.stderr) == (74, True)
    assert {p: p.read_bytes() for p in folder.glob("stages/*/part-*.parquet")} == parts
    mended = tell(home, "repair")
    assert mended.returncode == 0, mended.stderr
    assert f"{16 * len(parts) if len(parts) == 2 else 70} rows are kept" in mended.stdout
    again = start(home)
    assert again.returncode == 0, again.stderr
    assert result(home) == whole
    assert tell(home, "verify").returncode == 0


def test_a_part_that_the_journal_does_not_know_stays_and_is_taken_up_again(
    tmp_path: Path, whole: dict[str, bytes]
) -> None:
    """A database restored from a copy that is older than the last parts."""
    home = tmp_path / "home"
    make_input(home)
    assert start(home, "result.committed:1").returncode == -signal.SIGKILL
    folder = home / "kept.jsonl.run"
    old = {p.name: p.read_bytes() for p in folder.glob("state.db*")}
    assert start(home, "seal.committed:2").returncode == -signal.SIGKILL
    lose(folder)
    for name, content in old.items():
        (folder / name).write_bytes(content)
    refused = start(home)
    assert refused.returncode == 74
    assert "part-000000.parquet: holds rows that the journal has lost; tunesift repair" in refused.stderr
    found = tell(home, "verify")
    assert (found.returncode, found.stderr.count("holds rows that the journal has lost")) == (74, 2)
    assert "32 rows are kept" in tell(home, "repair").stdout
    assert start(home).returncode == 0
    assert result(home) == whole


def open_rows(folder: Path, change: str) -> None:
    """Change what the database says of its open rows, as a bit of the disk would, past all checks of SQLite's own."""
    with closing(sqlite3.connect(folder / "state.db")) as db, db:
        assert db.execute(change).rowcount == 1


FLIPS = {
    "outcome": "UPDATE result SET outcome = replace(outcome, '\"value\":', '\"value\":1') WHERE row = 36",
    "id": "UPDATE result SET id = 'r37x' WHERE row = 36",
    "failure": "UPDATE result SET failure = 'refused' WHERE row = 36",
    "digest": "UPDATE result SET digest = x'00' WHERE row = 36",
    "row": "UPDATE result SET row = 44 WHERE row = 36",
    "no text": "UPDATE result SET outcome = CAST(x'7bff7d' AS TEXT) WHERE row = 36",
}


@pytest.mark.parametrize("field", ["outcome", *(pytest.param(f, marks=SLOW) for f in list(FLIPS)[1:])])
def test_a_changed_open_row_is_found_refused_and_done_again(halfway: Path, whole: dict[str, bytes], field: str) -> None:
    home = halfway
    assert tell(home, "verify").returncode == 0
    open_rows(home / "kept.jsonl.run", FLIPS[field])
    found = tell(home, "verify")
    assert (found.returncode, "is not as it was written" in found.stderr) == (74, True), found.stderr
    refused = start(home)
    assert (refused.returncode, refused.stderr.count("\n")) == (74, 1), refused.stderr
    assert "tunesift repair" in refused.stderr
    assert not (home / "kept.jsonl").exists()
    assert "1 rows are lost and will be done again" in tell(home, "repair").stdout
    assert tell(home, "verify").returncode == 0
    assert start(home).returncode == 0
    assert result(home) == whole


def test_a_changed_record_of_a_part_is_found_and_mended(halfway: Path, whole: dict[str, bytes]) -> None:
    home = halfway
    open_rows(home / "kept.jsonl.run", "UPDATE part SET failed = 3 WHERE number = 1")
    assert start(home).returncode == 74
    assert "what it says of part 1" in tell(home, "verify").stderr
    said = tell(home, "repair").stdout
    assert "32 rows are kept" in said
    assert "8 open rows are kept" in said
    assert start(home).returncode == 0
    assert result(home) == whole


def test_looking_at_a_folder_changes_nothing_in_it(home: Path) -> None:
    folder = home / "kept.jsonl.run"
    before = everything(folder)
    for words in (("verify",), ("inspect",), ("inspect", "--json")):
        assert tell(home, *words).returncode == 0
        assert everything(folder) == before, words


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system of its own needs root")
def test_a_folder_on_a_medium_that_cannot_be_written_is_verified_and_shown(home: Path, tmp_path: Path) -> None:
    medium = tmp_path / "medium"
    medium.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=90m", "tmpfs", str(medium)], capture_output=True).returncode:
        pytest.skip("this machine mounts no file system of its own")
    try:
        copied = medium / "home"
        shutil.copytree(home, copied, ignore=shutil.ignore_patterns(".reserve"))
        subprocess.run(["mount", "-o", "remount,ro", str(medium)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (copied / "new").touch()
        assert tell(copied, "verify").returncode == 0
        assert "run 20" in tell(copied, "inspect").stdout
    finally:
        subprocess.run(["umount", str(medium)], check=True)


def test_verify_does_not_count_a_death(tmp_path: Path) -> None:
    """An item in flight is set aside after three deaths; looking at the folder is none."""
    home = tmp_path / "home"
    make_input(home)
    assert start(home, "result.committed:1").returncode == -signal.SIGKILL
    for _ in range(2):
        assert tell(home, "verify").returncode == 0
    with closing(sqlite3.connect(home / "kept.jsonl.run" / "state.db")) as db:
        assert db.execute("SELECT (SELECT count(*) FROM intent), (SELECT count(*) FROM crash)").fetchone() == (8, 0)


def test_an_output_that_was_changed_or_lost_is_told(make: Make) -> None:
    own = make("whole")
    output, sound = own / "kept.jsonl", (own / "kept.jsonl").read_bytes()
    output.write_bytes(sound[:-2] + b" \n")
    found = tell(own, "verify")
    assert found.returncode == 74
    assert f"{output}: is not as the run wrote it; remove it, and the same command writes it again.\n" in found.stderr
    assert "tunesift repair cannot mend this" in found.stderr
    left = tell(own, "repair")
    assert (left.returncode, left.stdout) == (74, ""), "what cannot be repaired is no success"
    assert "cannot be repaired here" in left.stderr
    output.unlink()
    assert "is missing; the same command writes it again" in tell(own, "verify").stderr
    assert tell(own, "repair").returncode == 0
    assert start(own).returncode == 0
    assert output.read_bytes() == sound
    assert tell(own, "verify").returncode == 0


def test_a_damaged_run_json_is_no_success_of_repair_and_nothing_is_touched(home: Path) -> None:
    folder = home / "kept.jsonl.run"
    (folder / "run.json").write_text("{}")
    found = tell(home, "verify")
    assert "tunesift repair cannot mend this" in found.stderr
    assert "keeps what is sound" not in found.stderr
    before = everything(folder)
    done = tell(home, "repair")
    assert (done.returncode, done.stdout) == (74, "")
    assert "run.json: is damaged" in done.stderr
    assert everything(folder) == before


@pytest.mark.slow
def test_a_command_that_has_read_parts_leaves_with_its_own_code(make: Make) -> None:
    """Arrow's threads ended one of twenty such processes with an abort, when three ran at a time."""
    own = make("whole")
    (own / "kept.jsonl").write_bytes(b"junk")
    with ThreadPoolExecutor(3) as pool:
        codes = Counter(pool.map(lambda _: tell(own, "verify").returncode, range(60)))
    assert codes == {74: 60}
