"""Many rows under faults at random: does every row end, what does it cost, and do the books bracket the server's bill?"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from faultserver.client import FaultServer
from tunesift.running.ledger import read_spent

PAGE = Path(__file__).with_name("soaked.py")
FAULTS: list[tuple[float, list[dict[str, Any]]]] = [
    (0.002, [{"status": 429, "headers": {"retry-after-ms": "100"}}]),
    (0.022, [{"status": 429}]),
    (0.08, [{"status": 500}, {"body": "html"}]),
    (0.14, [{"close": True}]),
    (0.20, [{"status": 503}]),
    (0.23, [{"cut_at": 40}]),
    (0.25, [{"body": "truncated"}]),
    (0.27, [{"rst": True}]),
    (0.28, [{"body": "empty"}]),
    (0.29, [{"change": {"choices": []}}]),
    (0.30, [{"body": "html"}]),
]
"""Shares of the calls up to which a fault is played, one after the other; 30 % together.

"Too many" with a time is rare among them: whoever names one is obeyed by everybody, whatever the reason.
"""


@dataclass(frozen=True)
class Soaked:
    """What became of a run, by its own account and by the server's."""

    rows: int
    good: int
    wrong: int
    failed: int
    seconds: float
    calls: int
    """Requests about rows that the server saw."""
    faults: int
    """Those of them that it spoiled."""
    paid: int
    """Those that it billed."""
    exact: int
    billed: int
    """Tokens, by the server's own bill."""
    unknown: int
    kills: int = 0

    def check(self) -> Soaked:
        """Nothing lost, nothing answered wrongly, the bill within the bracket; raises `AssertionError`."""
        assert (self.good + self.failed, self.wrong) == (self.rows, 0)
        assert self.exact <= self.billed <= self.exact + self.unknown
        return self

    def told(self) -> dict[str, Any]:
        return asdict(self)


def script(server: FaultServer, delay_s: float, seed: int | None) -> None:
    """Answers after so long; with a seed, faults."""
    faults = [] if seed is None else FAULTS
    rules = [
        {"match": {"route": "/chat/completions", "row": list(range(100_000)), "rate": rate, "seed": seed},
         "do": [*do, {"delay": delay_s}]}
        for rate, do in faults
    ]  # fmt: skip
    server.script(*rules, {"do": [{"delay": delay_s}]})


def soaked(home: Path, server: FaultServer, rows: int, kills: int = 0) -> Soaked:
    """Run to the end, killed so often on the way."""
    command = [sys.executable, str(PAGE), str(home), server.url, str(rows)]
    draw, killed, began = random.Random(7), 0, time.monotonic()
    for _ in range(kills):
        before = server.log.stat().st_size
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            while server.log.stat().st_size == before and process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.uniform(0.3, 2.5))
            process.kill()
        killed += process.returncode < 0
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout) | {"seconds": round(time.monotonic() - began, 2)}
    lines, bill = server.rows(), server.bill()
    (spent,) = read_spent(home)
    spoiled = sum(line["status"] != 200 or line["sent"] < 200 for line in lines)
    return Soaked(**said, calls=len(lines), faults=spoiled, paid=int(bill["calls"]), kills=killed,
                  exact=spent.exact_prompt + spent.exact_completion, unknown=spent.unknown_tokens,
                  billed=int(bill["prompt_tokens"] + bill["completion_tokens"]))  # fmt: skip
