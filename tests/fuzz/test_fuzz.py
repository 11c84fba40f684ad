"""Readers of what strangers wrote: whatever the bytes, only our errors come out, and no row is lost in silence."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest

from harness.kill import SEED

sys.path.insert(0, str(Path(__file__).parent))
from targets import MOST_S, SEEDS, TARGETS, timed

INPUTS = 300
"""Inputs of one target in the quick tests."""
PIECES = (b"{", b"}", b"[", b"]", b'"', b":", b",", b"\\", b"\n", b"\r", b"\0", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"NaN",
          b"1e999", b"null", b"true", b"-", b"&a ", b"*a", b"!!python/name:os.system ", b"? ", b"<<: ", b"%TAG ", b"---\n",
          b"\xe2\x80\xa8", b"\x1b[31m", b"9" * 400, b"id", b"[" * 100)  # fmt: skip

NO_LIMIT = "-rss_limit_mb=0"
"""A child's peak memory, as the kernel tells it, begins at its parent's, which may have been large."""


def mutated(draw: random.Random, seeds: list[bytes]) -> bytes:
    """A seed with some pieces cut out, doubled, put in, swapped with another seed, or a few bits changed."""
    content = draw.choice(seeds)
    for _ in range(draw.randint(1, 6)):
        at, to = sorted((draw.randint(0, len(content)), draw.randint(0, len(content))))
        content = draw.choice((
            content[:at] + draw.choice(PIECES) + content[at:],
            content[:at] + content[to:],
            content[:to] + content[at:to] + content[to:],
            content[:at] + draw.randbytes(draw.randint(1, 4)) + content[at + 1 :],
            content[:at] + draw.choice(seeds)[at:],
        ))  # fmt: skip
    return content


@pytest.mark.parametrize("name", [name for name in TARGETS if name in MOST_S])
def test_an_input_that_takes_long_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOST_S, name, 0.0)
    with pytest.raises(AssertionError, match="seconds of processor time"):
        timed(name, SEEDS[name][0])


def drive(name: str, inputs: int) -> Counter[str]:
    """What came of so many mutated seeds."""
    draw = random.Random(SEED)
    came: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(inputs):
            content = SEEDS[name][number] if number < len(SEEDS[name]) else mutated(draw, SEEDS[name])
            try:
                came[timed(name, content)] += 1
            except Exception as error:
                error.add_note(f"seed {SEED}, input {number}: {content!r}")
                raise
    print(name, dict(came))
    return came


@pytest.mark.parametrize("name", TARGETS)
def test_only_our_errors_come_out_of_mutated_seeds(name: str) -> None:
    came = drive(name, INPUTS)
    assert len(came) >= 2, f"the inputs are all of one kind: {came}"


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_only_our_errors_come_out_of_many_mutated_seeds(name: str) -> None:
    drive(name, 20 * INPUTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_only_our_errors_come_out_when_a_fuzzer_looks_for_others(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install atheris")
    script = str(Path(__file__).with_name("targets.py"))
    words = [name, "-max_total_time=20", "-max_len=4096", NO_LIMIT, f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run([sys.executable, script, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
