"""Full disks, links, prying eyes, signals, and an item that kills the process."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from contextlib import closing
from pathlib import Path

import pytest

from tunesift import Local, Run, StorageError, recipe_for, run_recipe

POISON = textwrap.dedent("""
    import os, signal, sys
    from dataclasses import dataclass
    from pathlib import Path
    from typing import ClassVar
    from tunesift import *

    @dataclass(frozen=True, kw_only=True)
    class Deadly(Settings):
        student: ScriptedModel = ScriptedModel()
        returns: ClassVar[type] = Score

        def __call__(self, chunk, /):
            for record in chunk:
                if record.id == "r5":
                    os.kill(os.getpid(), signal.SIGKILL)
            return [Score(1.0) for _ in chunk]

    data = [Record(f"r{n}", (Message("user", "a"), Message("assistant", str(n)))) for n in range(20)]
    with Run(Path(sys.argv[1]), Local(chunk=4)) as run:
        found = run.map("deadly", Deadly(), data)
        print({id: failure.kind for id, failure in found.failures().items()}, len(found.good()))
""")


def test_an_item_that_kills_the_process_is_set_aside_at_the_fourth_start(tmp_path: Path) -> None:
    lives = [
        subprocess.run(
            [sys.executable, "-c", POISON, str(tmp_path / "run")], capture_output=True, text=True, timeout=60
        )
        for _ in range(4)
    ]
    assert [life.returncode for life in lives] == [-9, -9, -9, 0], [life.stderr for life in lives]
    assert lives[3].stdout.strip() == "{'r5': 'crashed'} 19"


SIGNALLED = textwrap.dedent("""
    import sys, time
    from tunesift.models.scripted import ScriptedModel as Model
    from tunesift.cli import main
    plain = Model.loss
    def slow(self, spans):
        print("working", flush=True)
        time.sleep(0.4)
        return plain(self, spans)
    Model.loss = slow
    sys.argv = ["tunesift", *sys.argv[1:]]
    main()
""")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_what_is_in_flight(number: signal.Signals, code: int, tmp_path: Path) -> None:
    rows = [{"id": f"r{n}", "instruction": f"Say {n}.", "output": f"{n} {n}"} for n in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    command = ["select", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "kept.jsonl"), "--quiet"]
    settings = ["scorer.student.kind=scripted", "execution.chunk=4"]
    child = subprocess.Popen(
        [sys.executable, "-c", SIGNALLED, *command, *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "working\n"
    child.send_signal(number)
    began = time.monotonic()
    _, said = child.communicate(timeout=30)
    assert child.returncode == code, said
    assert time.monotonic() - began < 3
    assert "start the same command again" in said
    assert "Traceback" not in said
    with closing(sqlite3.connect(tmp_path / "kept.jsonl.run" / "state.db")) as db:
        assert db.execute("SELECT count(*) FROM result").fetchone()[0] >= 4
        assert db.execute("SELECT count(*) FROM intent").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM crash").fetchone() == (0,)


FULL = textwrap.dedent("""
    import sys
    from dataclasses import dataclass
    from pathlib import Path
    from typing import ClassVar
    from tunesift import *
    from tunesift.running import fsio

    fsio.RESERVE_BYTES = 2 * 2**20

    @dataclass(frozen=True, kw_only=True)
    class Wordy(Settings):
        student: ScriptedModel = ScriptedModel()
        returns: ClassVar[type] = str

        def __call__(self, chunk, /):
            return [record.id * 4000 for record in chunk]

    data = [Record(f"r{n}", (Message("user", "a"), Message("assistant", str(n)))) for n in range(int(sys.argv[2]))]
    try:
        with Run(Path(sys.argv[1]), Local(chunk=8)) as run:
            print("done", len(run.map("wordy", Wordy(), data).good()))
    except TunesiftError as error:
        print(type(error).__name__, error.exit_code)
        sys.exit(error.exit_code)
""")


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system of its own needs root")
def test_a_full_disk_keeps_every_answer_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine mounts no file system of its own")
    try:
        command = [sys.executable, "-c", FULL, str(small / "run"), "600"]
        first = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert first.returncode == 74, first.stdout + first.stderr
        assert first.stdout.startswith("DiskFull")
        with closing(sqlite3.connect(f"file:{small / 'run' / 'state.db'}?mode=ro", uri=True)) as db:
            done = db.execute("SELECT count(*) FROM result").fetchone()[0]
            left = db.execute("SELECT count(*) FROM intent").fetchone()[0]
        assert done >= 8
        assert done % 8 == 0, "a chunk that was in flight when the disk filled up was lost"
        assert left == 0
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        again = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert again.stdout.strip() == "done 600", again.stdout + again.stderr
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_runs_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"instruction": "Say a.", "output": "a"}\n' * 20)
    old = os.umask(0)
    try:
        settings = ["scorer.student.kind=scripted", "keep=50%"]
        run_recipe(recipe_for("select", tmp_path / "in.jsonl", tmp_path / "kept.jsonl", settings))
    finally:
        os.umask(old)
    folder = tmp_path / "kept.jsonl.run"
    folders = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
    assert {str(f): oct(stat.S_IMODE(f.stat().st_mode)) for f in folders if f.stat().st_mode & 0o077} == {}
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert len(files) >= 10
    assert {p.name: oct(stat.S_IMODE(p.stat().st_mode)) for p in files if p.stat().st_mode & 0o077} == {}


@pytest.mark.parametrize("name", ["state.db", "decisions.parquet", "holder.json"])
def test_a_link_in_the_place_of_a_file_is_refused_and_its_target_left_alone(name: str, tmp_path: Path) -> None:
    folder, target = tmp_path / "run", tmp_path / "precious"
    folder.mkdir()
    target.write_text("mine")
    (folder / name).symlink_to(target)
    with pytest.raises(StorageError, match="is a link"), Run(folder, Local()) as run:
        run.finish(None, [])
    assert target.read_text() == "mine"


STANDSTILL = """
import sys, threading, time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from tunesift import Dataset, Local, Message, Record, Run, Settings
from tunesift.heartbeat import beat
from tunesift.running.stopping import Stop

hangs = sys.argv[2] == "hangs"

@dataclass(frozen=True, kw_only=True)
class Slow(Settings):
    returns: ClassVar[type[str]] = str

    def __call__(self, chunk, /):
        if any(r.id == "r7" for r in chunk):
            stands_still() if hangs else works_slowly()
        return ["done" for r in chunk]

def stands_still():
    threading.Event().wait(60)

def works_slowly():
    for _ in range(8):
        time.sleep(0.1)
        beat()

data = Dataset.of(Record(f"r{n}", (Message("user", "a"), Message("assistant", "b"))) for n in range(10))
stop = Stop()
stop.listen()
with Run(Path(sys.argv[1]), Local(chunk=2, stall_s=0.4), stop=stop) as run:
    print(len(run.map("slow", Slow(), data).good()))
"""


def test_a_standstill_ends_the_process_says_where_it_stood_and_is_resumable(tmp_path: Path) -> None:
    def life(how: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", STANDSTILL, str(tmp_path / "run"), how]
        return subprocess.run(words, capture_output=True, text=True, timeout=50)

    hung = life("hangs")
    assert hung.returncode == 70, hung.stderr
    assert "nothing has moved for 0.4 s; start the same command again to go on" in hung.stderr
    assert "stands_still" in hung.stderr
    slow = life("works")  # takes twice as long as a standstill may, and says all the time that it moves
    assert (slow.returncode, slow.stdout.strip()) == (0, "10"), slow.stderr
