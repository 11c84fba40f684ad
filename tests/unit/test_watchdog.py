"""Nothing moves any more: the process is ended, and only then, and it is said where every thread stands."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesift import heartbeat
from tunesift.running import watchdog
from tunesift.running.watchdog import STALLED, Watchdog


def soon(so: Callable[[], object]) -> bool:
    """Whether something comes to be so within some seconds."""
    until = time.monotonic() + 10
    while not so() and time.monotonic() < until:
        time.sleep(0.01)
    return bool(so())


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Codes with which the process would have ended."""
    found: list[int] = []
    monkeypatch.setattr(os, "_exit", found.append)
    return found


def test_a_run_in_which_nothing_moves_is_ended_and_says_where_it_stood(
    exits: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    still = [0.0]
    monkeypatch.setattr(watchdog, "still_s", lambda: still[0])
    with Watchdog(0.2).watching(tmp_path):
        watchers = [t for t in threading.enumerate() if t.name == "watchdog"]
        assert [t.daemon for t in watchers] == [True], "a thread that nobody ends would keep the process from ending"
        still[0] = 0.2  # as long as it may
        time.sleep(0.3)
        assert exits == []
        still[0] = 0.3
        assert soon(lambda: exits)
    assert set(exits) == {STALLED}
    said = capfd.readouterr().err
    assert said.startswith(f"{tmp_path}: nothing has moved for 0.2 s; start the same command again to go on. Where every "
                           "thread stands:\n")  # fmt: skip
    assert "test_watchdog.py" in said
    assert said.count("hread 0x") > 1, "of this thread and of the one that watches"


def test_work_that_is_over_is_no_longer_watched_whether_it_ended_well_or_not(exits: list[int], tmp_path: Path) -> None:
    with Watchdog(0.05).watching(tmp_path):
        pass
    with pytest.raises(KeyError), Watchdog(0.05).watching(tmp_path):
        raise KeyError
    assert [t for t in threading.enumerate() if t.name == "watchdog"] == []
    assert exits == []


def test_a_standstill_before_the_work_began_is_not_the_work_s(
    exits: list[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(heartbeat, "_waiting_until", 0.0)
    monkeypatch.setattr(heartbeat, "_moved", time.monotonic() - 3600)
    with Watchdog(60.0).watching(tmp_path):
        assert heartbeat.still_s() < 60


class Over(threading.Event):
    """Over at the first look; remembers how long it was to be waited for it."""

    waited: float | None = None

    def wait(self, timeout: float | None = None) -> bool:
        self.waited = timeout
        return True


@pytest.mark.parametrize(("patience_s", "every_s"), [(0.2, 0.02), (600.0, 5.0)])
def test_a_standstill_is_noticed_soon_and_not_looked_for_all_the_time(
    tmp_path: Path, patience_s: float, every_s: float
) -> None:
    over = Over()
    Watchdog(patience_s)._watch(tmp_path, over)
    assert over.waited == pytest.approx(every_s)
