"""A run that is asked to end: who ends the process, and when nobody may."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesift.errors import Stopped
from tunesift.running import stopping
from tunesift.running.stopping import Stop


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Codes with which the process would have ended; signals are put back afterwards."""
    found: list[int] = []
    monkeypatch.setattr(os, "_exit", found.append)
    handlers = {number: signal.getsignal(number) for number in stopping.GRACE_S}
    yield found
    for number, handler in handlers.items():
        signal.signal(number, handler)


def waiting(stop: Stop) -> threading.Thread:
    """The thread that hears signals, after it has heard the first."""
    heard, tell = os.pipe()
    stop._tell = tell
    thread = threading.Thread(target=stop._wait, args=(heard,))
    thread.start()
    os.write(tell, bytes([signal.SIGINT]))
    time.sleep(0.1)
    return thread


def test_work_that_is_over_after_the_first_signal_is_not_taken_for_work_that_takes_too_long(
    exits: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    close = os.close

    def slowly(number: int) -> None:
        """The other thread sees the end of the pipe before this one does anything more."""
        close(number)
        time.sleep(0.3)

    stop = Stop()
    thread = waiting(stop)
    monkeypatch.setattr(os, "close", slowly)
    stop.deafen()
    thread.join(5)
    assert not thread.is_alive()
    assert exits == []
    assert capfd.readouterr().err == ""


def test_work_that_goes_on_when_the_grace_is_over_is_left(
    exits: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(stopping, "GRACE_S", {signal.SIGINT: 0.2})
    stop = Stop()
    stop.folder = tmp_path
    thread = waiting(stop)
    thread.join(5)
    stop.deafen()
    assert exits == [130]
    assert "what is in flight takes longer than 0.2 s" in capfd.readouterr().err
    assert (tmp_path / stopping.LEFT).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_ends_as_asked_ends_with_the_code_that_a_shell_gives_the_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    stop = Stop()
    stop.check(tmp_path)
    stop.ask(number)
    with pytest.raises(Stopped, match="stopped when asked to; start the same command again to go on") as end:
        stop.check(tmp_path)
    assert end.value.exit_code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
