"""Thousands of rows under faults at random, killed on the way: does every row end, and is the bill in the books?"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faultserver.client import FaultServer
from harness.soak import PAGE, script, soaked
from tunesift.running.ledger import read_spent

pytestmark = pytest.mark.slow

ROWS = 5000


def test_F67_every_row_ends_under_thirty_percent_of_faults_and_kills(server: FaultServer, tmp_path: Path) -> None:
    script(server, 0.01, 5)
    found = soaked(tmp_path / "run", server, ROWS, kills=3).check()
    assert found.kills >= 2
    assert found.failed <= 0.01 * ROWS
    assert 0.25 < found.faults / found.calls < 0.35
    # Beside one call for each row, one small one in each life: what was spoiled, and what a kill cut off.
    assert found.paid <= ROWS + found.faults + found.kills * 64 + found.kills + 1


KILLS = 40


def test_R26_forty_kills_under_a_cap_that_is_raised_never_pass_it(server: FaultServer, tmp_path: Path) -> None:
    """Sixty-four at once, faults at random, and a death in the middle of each life; a cap that is met ends one early."""
    script(server, 0.02, 5)
    home, draw, killed, capped, cap = tmp_path / "run", random.Random(26), 0, 0, 0
    while killed < KILLS:
        cap += 20_000  # what a life leaves unknown is up to sixty-four times its bound of some two hundred tokens
        command = [sys.executable, str(PAGE), str(home), server.url, "20000", str(cap)]
        before = server.log.stat().st_size
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            while server.log.stat().st_size == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.uniform(0.05, 0.4))
            process.kill()
            _, said = process.communicate()
        killed += process.returncode == -signal.SIGKILL
        capped += process.returncode == 4
        assert process.returncode in (-signal.SIGKILL, 4), said.decode()
        bill = server.bill()
        billed = bill["prompt_tokens"] + bill["completion_tokens"]
        assert 0 < billed <= cap, (killed, cap)
        assert killed + capped <= 2 * KILLS
    with_cap = [sys.executable, str(PAGE), str(home), server.url, "20000", "1"]
    assert subprocess.run(with_cap, capture_output=True, timeout=60, check=False).returncode == 4, "nothing is left"
    (spent,) = read_spent(home)
    exact = spent.exact_prompt + spent.exact_completion
    assert exact <= billed <= exact + spent.unknown_tokens
