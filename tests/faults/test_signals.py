"""Ctrl-C and SIGTERM at random moments: no new call, no call twice, the code of the signal, soon."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from itertools import combinations, cycle
from pathlib import Path

import pytest

from harness.endpoint import serving
from harness.kill import LOG, SEED, Command, balance, begun_by_life, live, result, wait_until_up
from harness.runs import ask_command, make_records, select_command

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
LONGEST_CALL_S = 0.016
PATIENCE_S = 2.0
"""What a signal may take beyond the longest call in flight."""


def begin(command: Command, home: Path, name: str) -> subprocess.Popen[str]:
    """A life that has shown its first sign, after which it hears signals."""
    child = subprocess.Popen(command(home, name), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until_up(child)
    return child


def interrupt(place: Path, command: Command, prepare: Callable[[Path], None], moments: int) -> list[float]:
    """Ask runs to stop at so many moments in all; returns how long each life went on after it was asked."""
    undisturbed = place / "undisturbed"
    prepare(undisturbed)
    whole_s = live(command(undisturbed, "undisturbed.0"))
    draw, signals, waited, homes = random.Random(SEED), cycle(CODES), list[float](), 0
    while len(waited) < moments:
        home = place / f"disturbed-{homes}"
        homes += 1
        prepare(home)
        names: list[str] = []
        code = -1
        while code != 0:
            names.append(f"{home.name}.{len(names)}")
            if len(waited) == moments:
                live(command(home, names[-1]))
                break
            child, number = begin(command, home, names[-1]), next(signals)
            time.sleep(draw.uniform(0.0, 0.5 * whole_s))
            asked = time.monotonic()
            child.send_signal(number)
            _, said = child.communicate(timeout=30)
            code = child.returncode
            assert code in (0, CODES[number]), f"seed {SEED}: {code} {said}"
            assert "Traceback" not in said
            if code:
                waited.append(time.monotonic() - asked)
                assert "start the same command again" in said
        begun = begun_by_life(place / LOG)
        again = [set(begun[one]) & set(begun[other]) for one, other in combinations(names, 2)]
        assert not any(again), f"seed {SEED}: begun twice: {again}"
        assert balance(home, undisturbed) == {"lost": 0, "duplicated": 0, "changed": 0}
        assert result(home) == result(undisturbed)
    print(f"{moments} moments, {homes} runs, most {max(waited):.2f} s")
    return waited


def interrupt_select(place: Path, moments: int) -> None:
    waited = interrupt(place, select_command(8), lambda home: make_records(home, 600), moments)
    assert max(waited) <= LONGEST_CALL_S + PATIENCE_S, waited


def interrupt_asker(place: Path, moments: int) -> None:
    with serving(place / LOG) as port:
        waited = interrupt(place, ask_command(port), lambda home: make_records(home, 300), moments)
    assert max(waited) <= LONGEST_CALL_S + PATIENCE_S, waited


def test_three_signals_to_the_command_line_repeat_no_call(tmp_path: Path) -> None:
    interrupt_select(tmp_path, 3)


def test_two_signals_while_an_endpoint_answers_pay_for_no_call_again(tmp_path: Path) -> None:
    interrupt_asker(tmp_path, 2)


@pytest.mark.slow
def test_25_signals_to_the_command_line_repeat_no_call(tmp_path: Path) -> None:
    interrupt_select(tmp_path, 25)


@pytest.mark.slow
def test_25_signals_while_an_endpoint_answers_pay_for_no_call_again(tmp_path: Path) -> None:
    interrupt_asker(tmp_path, 25)


def slow_input(home: Path) -> None:
    """Records to which the endpoint takes half a minute each."""
    make_records(home, 20)
    rows = [json.loads(line) for line in (home / "input.jsonl").read_text().splitlines()]
    (home / "input.jsonl").write_text(
        "".join(json.dumps(r | {"output": f"half a minute, {r['id']}"}) + "\n" for r in rows)
    )


HASTY = """
import runpy, signal, sys
from tunesift.running import stopping
stopping.GRACE_S = {signal.SIGINT: 0.9, signal.SIGTERM: 0.6}
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""A life whose grace is over sooner than half a minute."""


def test_when_the_grace_is_over_a_run_leaves_and_its_items_have_killed_nobody(tmp_path: Path) -> None:
    """Four times, which is once more than an item may end the process before it is set aside."""
    home = tmp_path / "home"
    slow_input(home)
    with serving(tmp_path / LOG) as port:
        for life, (number, grace_s) in enumerate([(signal.SIGINT, 0.9), (signal.SIGTERM, 0.6)] * 2):
            python, *words = ask_command(port)(home, f"home.{life}")
            child = begin(lambda *_, c=[python, "-c", HASTY, *words]: c, home, "")
            while len(begun_by_life(tmp_path / LOG)[f"home.{life}"]) < 8:
                time.sleep(0.01)
            asked = time.monotonic()
            child.send_signal(number)
            _, said = child.communicate(timeout=20)
            waited = time.monotonic() - asked
            assert (child.returncode, grace_s <= waited <= grace_s + PATIENCE_S) == (CODES[number], True), (
                waited,
                said,
            )
            assert f"what is in flight takes longer than {grace_s:g} s; start the same command again" in said
            assert "Traceback" not in said
        child = begin(ask_command(port), home, "home.last")
        with closing(sqlite3.connect(home / "run" / "state.db")) as db:
            assert db.execute("SELECT count(*) FROM crash").fetchone() == (0,)
        child.kill()
        child.communicate()


AT_IMPORT = """
import os, signal, sys

class AtImport:
    def find_spec(self, name, path=None, target=None):
        if name == "{}":
            sys.meta_path.remove(self)
            os.write(1, b"sent")
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, AtImport())
from tunesift.__main__ import main
main()
"""
"""The command line, which gets a signal when it begins to load a certain module."""


@pytest.mark.parametrize("module", ["typer", "tunesift.cli", "numpy", "pyarrow", "pydantic", "tunesift.perform"])
def test_a_signal_while_the_program_is_loaded_ends_it_in_a_sentence(tmp_path: Path, module: str) -> None:
    make_records(tmp_path / "home", 5)
    code = AT_IMPORT.format(module)
    words = ["select", "input.jsonl", "-o", "output.jsonl", "scorer.student.kind=scripted"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path / "home", capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert (done.stdout, done.returncode) == ("sent", 130), done.stderr
    assert done.stderr == "stopped; start the same command again to go on\n"


def test_a_signal_after_the_summary_leaves_a_finished_run_finished(tmp_path: Path) -> None:
    make_records(tmp_path / "home", 5)
    code = ("import atexit, os, signal\natexit.register(lambda: (os.kill(os.getpid(), signal.SIGINT), os.write(2, b'sent')))\n"
            "from tunesift.__main__ import main\nmain()\n")  # fmt: skip
    words = ["select", "input.jsonl", "-o", "output.jsonl", "scorer.student.kind=scripted", "keep=40%"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=tmp_path / "home", capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.endswith("sent")
    assert "5 in = 2 kept" in done.stdout


def test_a_second_signal_waits_for_nothing_and_the_run_goes_on_later(tmp_path: Path) -> None:
    """One call takes half a minute; the first signal waits for it, the second does not."""
    home = tmp_path / "home"
    slow_input(home)
    with serving(tmp_path / LOG) as port:
        for number, code in CODES.items():
            child = begin(ask_command(port), home, f"home.{number.name}")
            while len(begun_by_life(tmp_path / LOG)[f"home.{number.name}"]) < 8:
                time.sleep(0.01)
            child.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.5)
            asked = time.monotonic()
            child.send_signal(number)
            _, said = child.communicate(timeout=20)
            assert (child.returncode, time.monotonic() - asked <= PATIENCE_S) == (code, True), said
            assert "Traceback" not in said
    assert [len(ids) for ids in begun_by_life(tmp_path / LOG).values()] == [8, 8], "calls were begun after a signal"
