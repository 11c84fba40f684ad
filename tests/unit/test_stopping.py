"""A run that is asked to end: who ends the process, and when nobody may."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
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
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield found
    signal.set_wakeup_fd(-1)
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


def soon(so: Callable[[], object]) -> bool:
    """Whether something comes to be so within some seconds."""
    until = time.monotonic() + 10
    while not so() and time.monotonic() < until:
        time.sleep(0.01)
    return bool(so())


def listening() -> list[bool]:
    """Threads that hear signals: whether each lets the process end without it."""
    return [t.daemon for t in threading.enumerate() if t.name == "stop"]


@pytest.mark.parametrize(("first", "second"), [(signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)])
def test_the_first_signal_asks_and_the_second_leaves_at_once_with_its_own_code(
    exits: list[int], capfd: pytest.CaptureFixture[str], tmp_path: Path, first: signal.Signals, second: signal.Signals
) -> None:
    stop = Stop()
    stop.folder = tmp_path
    assert (stop.listening, stop.asked) == (False, False)
    stop.listen()
    assert (stop.listening, stop.asked, listening()) == (True, False, [True])
    os.kill(os.getpid(), first)
    assert soon(lambda: stop.asked)
    assert capfd.readouterr().err == "stopping after what is in flight; a second signal leaves at once\n"
    assert (exits, (tmp_path / stopping.LEFT).exists()) == ([], False)
    os.kill(os.getpid(), second)
    assert soon(lambda: not listening())
    assert (exits, (tmp_path / stopping.LEFT).exists()) == ([128 + second], True)
    with pytest.raises(Stopped) as end:
        stop.check(tmp_path)
    assert end.value.exit_code == 128 + first
    stop.deafen()
    assert capfd.readouterr().err == ""


def test_more_signals_than_anybody_has_read_yet_are_no_trouble(
    exits: list[int], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unread: list[int] = []
    monkeypatch.setattr(Stop, "_wait", lambda _, heard: unread.append(heard))
    stop = Stop()
    stop.listen()
    assert stop._tell is not None
    with suppress(BlockingIOError):
        while True:
            os.write(stop._tell, bytes(4096))
    os.kill(os.getpid(), signal.SIGINT)
    assert soon(lambda: stop.asked)
    assert capfd.readouterr().err == "stopping after what is in flight; a second signal leaves at once\n"
    stop.deafen()
    os.close(unread[0])


@pytest.mark.parametrize("listened", [True, False])
def test_a_signal_that_comes_when_the_work_is_over_changes_nothing(
    exits: list[int], capfd: pytest.CaptureFixture[str], listened: bool
) -> None:
    stop = Stop()
    if listened:
        stop.listen()
    stop.deafen()
    assert soon(lambda: not listening())
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    time.sleep(0.05)
    assert (stop.asked, exits, capfd.readouterr().err) == (False, [], "")
    assert signal.set_wakeup_fd(-1) == -1, "signals would be written into whatever file is opened next"
    stop.deafen()  # once more


def test_other_signals_are_neither_the_first_nor_the_second_nor_the_end_of_the_grace() -> None:
    heard, tell = os.pipe()
    os.write(tell, bytes([signal.SIGCHLD, signal.SIGWINCH, signal.SIGTERM]))
    assert stopping._next(heard, None) == signal.SIGTERM
    os.write(tell, bytes([signal.SIGCHLD]))
    assert stopping._next(heard, 0.05) is None
    os.close(tell)
    with pytest.raises(stopping._NobodyListens):
        stopping._next(heard, None)
    os.close(heard)


def test_a_run_is_left_whether_its_folder_is_open_or_gone_or_was_never_there(exits: list[int], tmp_path: Path) -> None:
    stop = Stop()
    stop._leave(signal.SIGINT, signal.SIGTERM)
    stop.folder = tmp_path / "gone"
    stop._leave(signal.SIGTERM, None)
    assert exits == [143, 143]


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


def test_a_second_signal_that_was_on_its_way_when_the_work_was_over_ends_no_process(
    exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    heard, stop._tell = os.pipe()
    signals = iter([signal.SIGINT, signal.SIGTERM])

    def late(*_: object) -> signal.Signals:
        if (number := next(signals)) == signal.SIGTERM:
            stop.deafen()
        return number

    monkeypatch.setattr(stopping, "_next", late)
    stop._wait(heard)
    assert exits == []


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
