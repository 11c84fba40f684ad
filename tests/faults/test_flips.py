"""Any flipped bit of a sealed part, and of the manifest beside it, is found."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from harness.kill import SEED
from tunesift import Failure, Local, Message, Record, Run, Score, ScriptedModel, Settings
from tunesift.running import fsio, journal
from tunesift.running.mending import verify

RECORDS = [
    Record(f"r{n}", (Message("user", f"Say {n}."), Message("assistant", f"{n}! " * (n % 7)))) for n in range(160)
]


@dataclass(frozen=True, kw_only=True)
class Measure(Settings):
    """A number from each response; some fail."""

    student: ScriptedModel = ScriptedModel()
    returns: ClassVar[type] = Score

    def __call__(self, chunk: Sequence[Record], /) -> list[Score | Failure]:
        return [Score(len(r.response) / 7) if r.response else Failure("empty", "nothing is said") for r in chunk]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose stage is sealed in ten parts."""
    monkeypatch.setattr(journal, "PART_ROWS", 16)
    monkeypatch.setattr(fsio, "RESERVE_BYTES", 4096)
    with Run(tmp_path / "run", Local(), max_failures=1.0) as run:
        run.map("measure", Measure(), RECORDS)
        run.finish(None, [])
        fsio.write_json(run.folder / "run.json", {})
    assert len(list((tmp_path / "run" / "stages" / "measure").glob("part-*"))) == 10
    return tmp_path / "run"


def finds(folder: Path) -> bool:
    """Whether a damaged folder is noticed, and the file named."""
    return any("part-" in found.said or "_SUCCESS" in found.said for found in verify(folder))


def flip(folder: Path, count: int) -> None:
    files = sorted(p for name in ("part-*", "_SUCCESS.json") for p in (folder / "stages" / "measure").glob(name))
    draw = random.Random(SEED)
    assert not finds(folder), "a sound folder is called damaged"
    missed = []
    for _ in range(count):
        path = draw.choice(files)
        sound = path.read_bytes()
        place, bit = draw.randrange(len(sound)), draw.randrange(8)
        path.write_bytes(sound[:place] + bytes([sound[place] ^ (1 << bit)]) + sound[place + 1 :])
        if not finds(folder):
            missed.append((path.name, place, bit))
        path.write_bytes(sound)
    assert missed == [], f"seed {SEED}"
    assert not finds(folder), "a sound folder is called damaged"


def test_50_flipped_bits_are_found(folder: Path) -> None:
    flip(folder, 50)


@pytest.mark.slow
def test_1000_flipped_bits_are_found(folder: Path) -> None:
    flip(folder, 1000)


def test_a_changed_byte_stops_a_run_from_the_command_line(tmp_path: Path) -> None:
    """The whole way: exit 74, one sentence with the file's name, no traceback."""
    rows = [{"id": f"r{n}", "instruction": f"Say {n}.", "output": f"{n} {n}"} for n in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    words = ["select", "in.jsonl", "-o", "out.jsonl", "scorer.student.kind=scripted", "keep=40%", "-q"]
    command = [sys.executable, "-m", "tunesift.cli", *words]
    assert subprocess.run(command, cwd=tmp_path, timeout=60, check=False).returncode == 0
    (part,) = (tmp_path / "out.jsonl.run" / "stages" / "score").glob("part-*")
    sound = part.read_bytes()
    part.write_bytes(sound[:100] + bytes([sound[100] ^ 1]) + sound[101:])
    (tmp_path / "out.jsonl").unlink()  # so that the run is made anew from its journal
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (74, 1), done.stderr
    assert part.name in done.stderr
    assert not (tmp_path / "out.jsonl").exists()
