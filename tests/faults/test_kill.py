"""`kill -9` at random moments, again and again: the result is that of a run which nobody disturbed, byte for byte."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

PAGE = '''
"""A page in rounds, each of which draws on what the one before it found; every item it works on is logged."""
import os, sys, time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from tunesift import *
from tunesift.records import content_digest
from tunesift.running import journal

journal.PART_ROWS = 16
home, name, slots, chunk = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
log = os.open(home / "work.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


@cache
def up():
    print("up", flush=True)


@dataclass(frozen=True, kw_only=True)
class Measure(Settings):
    student: ScriptedModel
    returns: ClassVar[type] = Score

    def __call__(self, items, /):
        up()
        os.write(log, "".join(f"{name} {item.id}\\n" for item in items).encode())
        time.sleep(sum(content_digest(item.id)[0] for item in items) / 255 * 0.004)
        return [self.one(content_digest(item)) for item in items]

    def one(self, digest):
        return Failure("refused", digest.hex()) if digest[1] < 12 else Score(digest[2] / 255, {"first": digest[3] / 7})


def page(data, run):
    step, weight, decisions = Measure(student=ScriptedModel(concurrency=slots)), 0.0, []
    for number, part in enumerate(data.batches(100)):
        found = run.map("measure", step, part)
        picked = run.random("draft", number).sample(list(found.good()), 20)
        drafts = [Record(f"{id}~draft", (Message("user", f"{id} {weight!r}"),)) for id in picked]
        judged = run.map("judge", step, drafts).good()
        weight += sum(score.value for score in judged.values()) + run.random("noise", number).random()
        run.table("weights", [{"round": number, "weight": weight}])
        for id in found:
            won = id in found.good() and found.good()[id].value > 0.5
            reason = f"measured: {found[id]}, weight {weight!r}"
            decisions.append(Decision(id, "keep" if won else "drop", reason))
    return decisions


data = read_dataset(home / "input.jsonl")
with Run(home / "run", Local(chunk=chunk), seed=3, max_failures=1.0) as run:
    decisions = page(data, run)
    up()
    run.finish(data, decisions)
    write_records(data.only({d.record_id for d in decisions if d.action == "keep"}), home / "output.jsonl", data)
'''
OF_THIS_LIFE = ("LOCK", "holder.json", "state.db", "state.db-wal", "state.db-shm")
SAYS_WHEN = ("run.json", "result.json", "report.html", "source.json")
"""Files of a run folder that say who wrote it, and those that say when, how long it took or where it lies."""
SEED = 20261121


@dataclass
class Lives:
    """What many short lives came to."""

    command: Callable[[Path, str], Sequence[str]]
    """The command line of one life, from its home and its name."""
    longest_s: float
    """Most seconds from the first sign of life to the kill."""
    wanted: int
    """Kills after which a life is left alone."""
    draw: random.Random
    kills: int = 0
    idle: int = 0
    """Kills before which nothing was worked on."""
    repeats: list[int] = field(default_factory=list)
    """Items that each killed life had begun and a later one began again."""

    def spend(self, home: Path) -> None:
        """Start, kill and start again, until a life reaches its end; then count what was done twice."""
        names: list[str] = []
        ended = False
        while not ended:
            names.append(f"life-{len(names)}")
            if self.kills < self.wanted:
                ended = not self._killed(home, names[-1])
            else:
                ended = live(self.command(home, names[-1])) >= 0
        self._count(home / "work.log", names)

    def _count(self, log: Path, names: Sequence[str]) -> None:
        begun: defaultdict[str, list[str]] = defaultdict(list)
        for line in log.read_text().splitlines() if log.exists() else []:
            name, _, id = line.partition(" ")
            begun[name].append(id)
        later: set[str] = set()
        for name in reversed(names):
            assert len(set(begun[name])) == len(begun[name]), f"{name} began an item twice"
            if name != names[-1]:
                self.repeats.append(len(later & set(begun[name])))
                self.idle += not begun[name]
            later |= set(begun[name])

    def _killed(self, home: Path, name: str) -> bool:
        """Whether a life was killed; False where it ended before that."""
        life = subprocess.Popen(self.command(home, name), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, start_new_session=True)  # fmt: skip
        if self.draw.random() < 0.85:
            wait_until_up(life)
            time.sleep(self.draw.uniform(0.0, self.longest_s))
        else:
            time.sleep(self.draw.uniform(0.0, 0.5))  # most likely it is not
        os.killpg(life.pid, signal.SIGKILL)
        said, complaint = life.communicate(timeout=60)
        assert life.returncode in (0, -signal.SIGKILL), f"{name}: {life.returncode} {said} {complaint}"
        self.kills += life.returncode == -signal.SIGKILL
        return life.returncode == -signal.SIGKILL


def wait_until_up(life: subprocess.Popen[str]) -> None:
    """Wait for the first line of a life: it is at work then, or past all work."""
    assert life.stdout is not None
    assert select.select([life.stdout], [], [], 60)[0], "a life shows no sign"
    life.stdout.readline()


def live(command: Sequence[str]) -> float:
    """Let a life reach its end; returns its seconds after its first sign."""
    life = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until_up(life)
    began = time.monotonic()
    said, complaint = life.communicate(timeout=120)
    assert life.returncode == 0, f"{said} {complaint}"
    return time.monotonic() - began


def result(home: Path) -> dict[str, bytes]:
    """Every byte that a run leaves, but for the files that say when and where it was."""
    found = {p.relative_to(home / "run"): p for p in (home / "run").rglob("*") if p.is_file()}
    lasting = {str(name): p.read_bytes() for name, p in found.items() if name.name not in OF_THIS_LIFE + SAYS_WHEN}
    return {**lasting, "output": (home / "output.jsonl").read_bytes()}


def sealed(home: Path) -> Counter[tuple[str, str]]:
    """How often each outcome stands in the sealed parts: by stage and id, with its digest and outcome."""
    return Counter(
        (f"{part.parent.name} {row['id']}", f"{row['row']} {row['digest']} {row['failure']} {row['outcome']}")
        for part in sorted((home / "run" / "stages").glob("*/part-*.parquet"))
        for row in pq.read_table(part).to_pylist()
    )


def balance(home: Path, undisturbed: Path) -> Mapping[str, int]:
    """How many outcomes were lost, duplicated and changed."""
    ours, theirs = sealed(home), sealed(undisturbed)
    return {
        "lost": len({id for id, _ in theirs} - {id for id, _ in ours}),
        "duplicated": sum(n - 1 for n in Counter(id for id, _ in ours.elements()).values()),
        "changed": len(ours.keys() - theirs.keys()),
    }


NOTHING = {"lost": 0, "duplicated": 0, "changed": 0}


def survive(
    tmp_path: Path, command: Callable[[Path, str], Sequence[str]], prepare: Callable[[Path], None], kills: int
) -> Lives:
    """Kill runs of a command so many times in all, and compare each run with an undisturbed one."""
    undisturbed = tmp_path / "undisturbed"
    prepare(undisturbed)
    whole_s = live(command(undisturbed, "life-0"))
    expected = result(undisturbed)
    lives = Lives(command, 0.4 * whole_s, kills, random.Random(SEED))
    while lives.kills < kills:
        home = tmp_path / f"disturbed-after-{lives.kills}"
        prepare(home)
        lives.spend(home)
        when = f"seed {SEED}, kill {lives.kills}"
        assert balance(home, undisturbed) == NOTHING, when
        found = result(home)
        assert [name for name in expected if found.get(name) != expected[name]] == [], when
        assert sorted(found) == sorted(expected), when
    assert len(lives.repeats) == lives.kills == kills
    return lives


def survive_page(tmp_path: Path, kills: int, slots: int, chunk: int) -> None:
    script = tmp_path / "page.py"
    script.write_text(PAGE)

    def command(home: Path, name: str) -> Sequence[str]:
        return [sys.executable, str(script), str(home), name, str(slots), str(chunk)]

    lives = survive(tmp_path, command, page_home, kills)
    parts = sorted((tmp_path / "undisturbed" / "run").glob("stages/*/part-*.parquet"))
    assert len(parts) == 19 + 4, "300 and 60 rows were to be sealed by sixteen"
    assert max(lives.repeats) <= slots * chunk, f"seed {SEED}: {lives.repeats}"
    assert lives.idle < kills / 2, f"seed {SEED}: {lives.idle} of {kills} lives did nothing"


def page_home(home: Path) -> None:
    home.mkdir()
    rows = [{"id": f"r{n}", "instruction": f"Say {n}.", "input": "", "output": f"{n}! " * (n % 9)} for n in range(300)]
    (home / "input.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_five_kills_lose_duplicate_and_change_nothing(tmp_path: Path) -> None:
    survive_page(tmp_path, 5, slots=4, chunk=1)


@pytest.mark.slow
@pytest.mark.parametrize(("slots", "chunk"), [(4, 1), (1, 8)])
def test_twenty_kills_lose_duplicate_and_change_nothing(tmp_path: Path, slots: int, chunk: int) -> None:
    """Ten on threads, ten on chunks."""
    survive_page(tmp_path, 10, slots, chunk)


def command_line(home: Path, name: str) -> Sequence[str]:
    """What a user would type, and type again after each kill."""
    words = ("select", "input.jsonl", "-o", "output.jsonl", "scorer.student.kind=scripted", "folder=run")
    script = f"import os, sys; os.chdir({str(home)!r}); print('up', flush=True); from tunesift.cli import main; main()"
    return [sys.executable, "-c", script, *words]


def demo_home(home: Path) -> None:
    """Many records of the kind that ships with the repository, more than one sealed part of them."""
    home.mkdir()
    sound = (Path(__file__).parents[2] / "demo" / "sound_a.jsonl").read_text("utf-8").splitlines()
    rows = [{**json.loads(sound[n % len(sound)]), "id": f"k{n}"} for n in range(9000)]
    (home / "input.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


@pytest.mark.slow
def test_a_killed_command_started_again_writes_the_same_output(tmp_path: Path) -> None:
    lives = survive(tmp_path, command_line, demo_home, 4)
    assert lives.kills == 4
    home = tmp_path / "undisturbed"
    before = (home / "output.jsonl").stat().st_mtime_ns
    live(command_line(home, ""))
    assert (home / "output.jsonl").stat().st_mtime_ns == before, "a finished run was done again"
