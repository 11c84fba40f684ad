"""Thousands of rows under faults at random, killed on the way: does every row end, and is the bill in the books?"""

from __future__ import annotations

from pathlib import Path

import pytest

from faultserver.client import FaultServer
from harness.soak import script, soaked

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
