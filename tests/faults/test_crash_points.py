"""A process that dies at any named point of the write path, or twice, loses, doubles and changes nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tunesift.running.fsio import FAILPOINTS

SOURCE = Path(__file__).parents[2] / "src" / "tunesift"
CHILD = """
import sys
from tunesift.cli import main
from tunesift.running import journal
journal.PART_ROWS = 16
sys.argv = ["tunesift", *sys.argv[1:]]
main()
"""
RECORDS = 70


def start(home: Path, failpoint: str = "", *settings: str) -> subprocess.CompletedProcess[str]:
    """One life of a selection with a scripted student."""
    command = ["select", str(home / "input.jsonl"), "-o", str(home / "kept.jsonl"), "keep=40%", "--quiet"]
    extra = ["scorer.student.kind=scripted", "execution.chunk=8", *settings]
    environment = {**os.environ, "TUNESIFT_FAILPOINT": failpoint}
    return subprocess.run(
        [sys.executable, "-c", CHILD, *command, *extra], env=environment, capture_output=True, text=True, timeout=60
    )


def make_input(home: Path) -> None:
    home.mkdir()
    rows = [
        {"id": f"r{n}", "instruction": f"Name the river {n}.", "output": f"River {n % 7} of {n}"}
        for n in range(RECORDS)
    ]
    (home / "input.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")


def result(home: Path) -> dict[str, bytes]:
    """The bytes that must not depend on what happened on the way."""
    files = [home / "kept.jsonl", home / "kept.jsonl.run" / "decisions.parquet"]
    return {
        p.name: p.read_bytes() for p in [*files, *sorted((home / "kept.jsonl.run").glob("stages/*/part-*.parquet"))]
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    home = tmp_path_factory.mktemp("undisturbed") / "home"
    make_input(home)
    done = start(home)
    assert done.returncode == 0, done.stderr
    found = result(home)
    assert len(found) == 2 + RECORDS // 16 + 1
    return found


def test_every_point_of_the_code_is_in_the_list_and_the_other_way_round() -> None:
    placed = {name for path in SOURCE.rglob("*.py") for name in re.findall(r'failpoint\("([^"]+)"\)', path.read_text())}
    assert placed == set(FAILPOINTS)


PASSINGS = {
    "run.created": 1, "intent.before_commit": 1, "intent.committed": 1, "result.before_commit": 9, "result.committed": 9,
    "part.tmp_written": 7, "part.verified": 7, "part.settled": 5, "seal.mid_txn": 5, "seal.committed": 5,
    "file.tmp_written": 5, "file.synced": 12, "file.renamed": 12, "file.dir_synced": 12, "output.written": 1,
    "report.written": 1,
}  # fmt: skip
"""How often a run passes each point. What is begun after the first chunk is written down with the results of the one before,
in one transaction. A file is settled twelve times: run.json, quarantine.parquet, source.json, five parts, _SUCCESS.json,
decisions.parquet, the report and result.json; seven of them are tables."""
EVERY = [(point, number) for point, count in PASSINGS.items() for number in range(1, count + 1)]
LAST_FILES = ("run.json", "quarantine.parquet", "inputs/source.json", *(f"stages/score/part-{n:06d}.parquet" for n in range(5)),
              "stages/score/_SUCCESS.json", "decisions.parquet", "report.html", "result.json")  # fmt: skip
"""Those twelve, in the order in which they are written."""


def test_the_passings_are_counted_as_they_are(tmp_path: Path) -> None:
    """No point is passed once more, so that dying at each of these is dying everywhere."""
    assert set(PASSINGS) == set(FAILPOINTS)
    make_input(tmp_path / "home")
    told = tmp_path / "passed"
    code = CHILD.replace(
        "main()\n",
        f"""
import json
from tunesift.running import fsio
try:
    main()
finally:
    open({str(told)!r}, "w").write(json.dumps(fsio._PASSED))
""".lstrip(),
    )
    home = tmp_path / "home"
    words = ["select", str(home / "input.jsonl"), "-o", str(home / "kept.jsonl"), "keep=40%", "--quiet"]
    environment = {**os.environ, "TUNESIFT_FAILPOINT": "none:1"}
    command = [sys.executable, "-c", code, *words, "scorer.student.kind=scripted", "execution.chunk=8"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(told.read_text()) == PASSINGS


@pytest.mark.slow
@pytest.mark.parametrize(("point", "number"), EVERY)
def test_a_death_at_every_passing_of_every_point_changes_nothing(
    point: str, number: int, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    home = tmp_path / "home"
    make_input(home)
    died = start(home, f"{point}:{number}")
    assert died.returncode == -signal.SIGKILL, f"{point}:{number} did not fire: {died.stderr}"
    if point in ("file.synced", "file.renamed"):
        assert (home / "kept.jsonl.run" / LAST_FILES[number - 1]).exists() == (point == "file.renamed"), number
    again = start(home)
    assert again.returncode == 0, again.stderr
    assert result(home) == undisturbed


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_death_at_this_point_changes_nothing(point: str, tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    home = tmp_path / "home"
    make_input(home)
    died = start(home, f"{point}:1")
    assert died.returncode == -signal.SIGKILL, f"{point} did not fire: {died.stderr}"
    again = start(home)
    assert again.returncode == 0, again.stderr
    assert result(home) == undisturbed


LATE = ("output.written", "report.written")
SECONDS = {point: ("file.renamed:1", "report.written:1") if point in LATE
           else ("result.committed:2", "file.renamed:2", "seal.mid_txn:1") for point in FAILPOINTS}  # fmt: skip
"""Where the lives after the first death die: when the output is written no row is left to do."""


@pytest.mark.slow
@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_second_death_while_going_on_changes_nothing(
    point: str, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    home = tmp_path / "home"
    make_input(home)
    assert start(home, f"{point}:1").returncode == -signal.SIGKILL
    for second in SECONDS[point]:
        died = start(home, second)
        assert died.returncode == -signal.SIGKILL, f"{second} did not fire: {died.stderr}"
    assert start(home).returncode == 0
    assert result(home) == undisturbed
