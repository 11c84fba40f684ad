"""Kill a run at random moments, start it again until it ends, and hold it against one that nobody disturbed.

A command is given its home and the name of its life. It works below `home`, prints a line when it begins to work (or ends
without one), and somebody, the command or an endpoint it asks, appends `life item` to `work.log` beside the homes for every
item that work begins on, one write per line, so that the log survives any death.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sqlite3
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

Command = Callable[[Path, str], Sequence[str]]
"""The command line of one life, from its home and its name."""

SEED = int(os.environ.get("TUNESIFT_KILL_SEED", "20261121"))
LOG = "work.log"
EARLY = 0.06
"""Fraction of the kills that do not wait for a sign of life."""
OF_THIS_LIFE = ("LOCK", "holder.json", "state.db", "state.db-wal", "state.db-shm", "money.db", "money.db-wal",
                "money.db-shm")  # fmt: skip
SAYS_WHEN = ("run.json", "result.json", "report.html", "source.json")
"""Files of a run folder that say who wrote it, and those that say when, how long it took or where it lies."""
NOTHING = {"lost": 0, "duplicated": 0, "changed": 0}


@dataclass
class Lives:
    """What many short lives came to."""

    command: Command
    longest_s: float
    """Most seconds from the first sign of life to the kill."""
    wanted: int
    """Kills after which a life is left alone."""
    kills: int = 0
    idle: int = 0
    """Kills before which nothing was worked on."""
    spared: int = 0
    """Runs that were let live since an item of theirs had been in flight at two deaths: a third would set it aside."""
    ended: int = 0
    """Lives that ended before their kill; these are no kills."""
    repeats: list[int] = field(default_factory=list)
    """Items that each killed life had begun and a later one began again."""
    seeds: list[int] = field(default_factory=list)
    """Of the draws of each run, in order; the first one alone replays the first run."""
    seconds: float = 0.0

    def spend(self, home: Path) -> None:
        """Start, kill and start again, until a life reaches its end; then count what was done twice."""
        self.seeds.append(SEED + len(self.seeds))
        draw = random.Random(self.seeds[-1])
        names: list[str] = []
        done = False
        while not done:
            names.append(f"{home.name}.{len(names)}")
            in_danger = was_in_flight_twice(home)
            self.spared += in_danger
            if self.kills < self.wanted and not in_danger:
                done = not self._killed(home, names[-1], draw)
            else:
                done = live(self.command(home, names[-1])) >= 0
        self._count(home.parent / LOG, names)

    def _count(self, log: Path, names: Sequence[str]) -> None:
        begun = begun_by_life(log)
        later: set[str] = set()
        for name in reversed(names):
            assert len(set(begun[name])) == len(begun[name]), f"{name} began an item twice"
            if name != names[-1]:
                self.repeats.append(len(later & set(begun[name])))
                self.idle += not begun[name]
            later |= set(begun[name])

    def _killed(self, home: Path, name: str, draw: random.Random) -> bool:
        """Whether a life was killed; False where it ended before that. The whole process group dies."""
        life = subprocess.Popen(self.command(home, name), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, start_new_session=True)  # fmt: skip
        if draw.random() < EARLY:
            time.sleep(draw.uniform(0.0, 0.5))  # most likely it does nothing yet
        else:
            wait_until_up(life)
            time.sleep(draw.uniform(0.0, self.longest_s))
        os.killpg(life.pid, signal.SIGKILL)
        said, complaint = life.communicate(timeout=60)
        assert life.returncode in (0, -signal.SIGKILL), f"{name}: {life.returncode} {said} {complaint}"
        self.kills += life.returncode == -signal.SIGKILL
        self.ended += life.returncode == 0
        return life.returncode == -signal.SIGKILL

    def told(self) -> dict[str, object]:
        """The figures, as JSON values."""
        return {
            "kills": self.kills, "runs": len(self.seeds), "kills_before_any_work": self.idle,
            "lives_that_ended_before_their_kill": self.ended, "runs_spared_a_third_death": self.spared,
            "repeats_most": max(self.repeats, default=0), "repeats_all": sum(self.repeats),
            "seconds": round(self.seconds, 1), "seed_first": self.seeds[0], "seed_last": self.seeds[-1],
        }  # fmt: skip


def begun_by_life(log: Path) -> defaultdict[str, list[str]]:
    """The items that each life began to work on, in order."""
    begun: defaultdict[str, list[str]] = defaultdict(list)
    for line in log.read_text().splitlines() if log.exists() else []:
        name, _, id = line.partition(" ")
        begun[name].append(id)
    return begun


def was_in_flight_twice(home: Path) -> bool:
    """Whether a third death may find an item in flight for the third time, which by promise would set it aside (R8)."""
    state = home / "run" / "state.db"
    if not state.exists():
        return False
    open_twice = "SELECT 1 FROM crash WHERE lives > 1 AND (stage, row) NOT IN (SELECT stage, row FROM result)"
    begun_again = f"SELECT 1 FROM intent JOIN crash USING (stage, row) UNION ALL {open_twice}"
    try:
        with closing(sqlite3.connect(state)) as db:
            return db.execute(f"SELECT EXISTS ({begun_again})").fetchone() == (1,)
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        return False


def wait_until_up(life: subprocess.Popen[str]) -> None:
    """Wait for the first line of a life, or for its end: it is at work then, or past all work."""
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


def survive(place: Path, command: Command, prepare: Callable[[Path], None], kills: int) -> Lives:
    """Kill runs of a command so many times in all, and compare each run with an undisturbed one."""
    undisturbed = place / "undisturbed"
    prepare(undisturbed)
    whole_s = live(command(undisturbed, f"{undisturbed.name}.0"))
    expected = result(undisturbed)
    lives = Lives(command, 0.6 * whole_s, kills)
    began = time.monotonic()
    while lives.kills < kills:
        home = place / f"disturbed-{len(lives.seeds)}"
        prepare(home)
        lives.spend(home)
        when = f"seed {lives.seeds[-1]}, kill {lives.kills}"
        assert balance(home, undisturbed) == NOTHING, when
        found = result(home)
        assert [name for name in expected if found.get(name) != expected[name]] == [], when
        assert sorted(found) == sorted(expected), when
    lives.seconds = time.monotonic() - began
    assert len(lives.repeats) == lives.kills == kills
    return lives
