"""Where do threads wait for their turn at an endpoint? One turnstile per endpoint, key and model, in this process."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

from tunesift.errors import ModelUnavailable, Stopped, TunesiftError
from tunesift.heartbeat import beat, resting, waiting
from tunesift.models.pace import LONGEST_OUTAGE_S, Pace, Signal, Ticket

LONGEST_PAUSE_S = 3600.0
"""Seconds that an endpoint may have us wait; who asks for more is waited for so long, and then given up."""
LEAST_PAUSE_S = 0.1
"""Seconds of the shortest pause that is made, whatever the endpoint says."""
SLICE_S = 1.0
"""Seconds after which a waiting thread looks whether the run is to end."""


class Clock:
    """The time, and waiting for it; tests bring one that runs faster."""

    def now(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def wait(self, condition: Condition, seconds: float) -> None:
        """Wait, holding the condition's lock before and after."""
        condition.wait(seconds)


class Interruptions:
    """Who may end waiting: a run that was asked to stop must not sit out an hour's pause."""

    def __init__(self) -> None:
        self._asked: list[Callable[[], bool]] = []

    @contextmanager
    def heeding(self, asked: Callable[[], bool]) -> Iterator[None]:
        """As long as the block runs, threads that wait for an endpoint raise `Stopped` when `asked` says so."""
        self._asked.append(asked)
        try:
            yield
        finally:
            self._asked.remove(asked)

    def check(self) -> None:
        """Raise `Stopped` where somebody has asked."""
        if any(asked() for asked in self._asked):
            raise Stopped("stopped while it waited for an endpoint; start the same command again to go on.")


INTERRUPTIONS = Interruptions()


class Turnstile:
    """Lets as many threads through as the pace allows, and all of them know when the endpoint has said a final no."""

    def __init__(self, name: str, most: int, clock: Clock) -> None:
        self.clock = clock
        self.pace = Pace(most, clock.now())
        self.epoch = 0
        """How many final noes there have been; a thread that began before the last one ends with it."""
        self._name = name
        self._final: TunesiftError | None = None
        self._room = Condition()
        self._random = random.Random()
        self._limited_in_a_row = 0
        self._waited_longest = False

    def enter(self, epoch: int) -> Ticket:
        """Wait for leave to send.

        After the longest outage nobody waits any more, but a probe that is due is still let through: who comes later
        finds an endpoint that is back.
        """
        with self._room:
            while True:
                self._check(epoch)
                now = self.clock.now()
                wait = self.pace.wait(now)
                if wait <= 0:
                    return self.pace.enter(now)
                if self.pace.broken and self.pace.silence(now) > LONGEST_OUTAGE_S:
                    minutes = LONGEST_OUTAGE_S / 60
                    self._stop(ModelUnavailable(f"{self._name}: no answer for {minutes:.0f} minutes; start the same "
                                                "command again when it is there."))  # fmt: skip
                    continue
                if not math.isinf(wait):
                    waiting(wait)
                self.clock.wait(self._room, min(wait, SLICE_S))

    def leave(self, ticket: Ticket, signal: Signal) -> None:
        """Give the slot back, with what the answer says about the endpoint."""
        beat()
        with self._room:
            if signal == "good":
                self._limited_in_a_row, self._waited_longest = 0, False
            self.pace.leave(ticket, signal, self.clock.now())
            if ticket.probe or not math.isinf(self.pace.wait(self.clock.now())):
                self._room.notify(2)

    def pause(self, seconds: float | None, *, limited: bool = True) -> bool:
        """Let nobody through for so long, where None is for us to choose; False where that was done in vain before."""
        with self._room:
            self._limited_in_a_row += limited
            if seconds is None:
                seconds = self._random.uniform(0.5, max(0.5, min(60.0, 0.25 * 2 ** min(self._limited_in_a_row, 9))))
            seconds = max(LEAST_PAUSE_S, seconds)
            patient = not (seconds > LONGEST_PAUSE_S and self._waited_longest)
            self._waited_longest = seconds > LONGEST_PAUSE_S or self._waited_longest
            self.pace.close_until(self.clock.now() + min(LONGEST_PAUSE_S, seconds))
            return patient

    @property
    def refused_astray(self) -> bool:
        """Whether the refusals of late would have come however few requests there are."""
        with self._room:
            return self.pace.refusals.stray

    def rest(self, number: int, epoch: int, least: float = 0.0) -> None:
        """Let one thread wait before it tries for the `number`th time again; full jitter above the least seconds."""
        with resting():
            self.sleep(self._random.uniform(least, min(60.0, 0.5 * 2 ** min(number, 9))), epoch)

    def sleep(self, seconds: float, epoch: int) -> None:
        """Let one thread wait for so long, unless the endpoint says a final no or the run is to end."""
        with self._room:
            until = self.clock.now() + seconds
            while (left := until - self.clock.now()) > 0:
                self._check(epoch)
                waiting(left)
                self.clock.wait(self._room, min(left, SLICE_S))

    def shrink(self) -> None:
        """Fewer at a time."""
        with self._room:
            self.pace.shrink(self.clock.now())

    def suspect(self) -> None:
        """Let nothing but probes through, until one is answered."""
        with self._room:
            self.pace.suspect(self.clock.now())
            self._room.notify_all()

    def stop(self, error: TunesiftError) -> None:
        """Say the final no to everybody who waits or has something in flight."""
        with self._room:
            self._stop(error)

    def check(self, epoch: int) -> None:
        """Raise the final no that came after `epoch`, or `Stopped` where the run is to end."""
        with self._room:
            self._check(epoch)

    def _stop(self, error: TunesiftError) -> None:
        self.epoch += 1
        self._final = error
        self._room.notify_all()

    def _check(self, epoch: int) -> None:
        if self.epoch != epoch and self._final is not None:
            raise copy.copy(self._final)
        INTERRUPTIONS.check()
