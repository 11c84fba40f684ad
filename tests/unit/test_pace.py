"""The pace against simulated servers: hours of traffic in a moment, because every method is told the time."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from statistics import mean, median
from typing import Protocol

import pytest

from tunesift.models.pace import LEAST_ROUND, START, Pace

MEAN = 2 * math.exp(0.125)
"""Seconds of one call, on average: lognormal, with a median of 2."""


class Endpoint(Protocol):
    def take(self, now: float, seconds: float) -> tuple[float | None, float | None]:
        """When the answer comes, after so many seconds; or None and the Retry-After, if any."""
        ...

    def done(self) -> None: ...


class PerMinute:
    """So many requests in each minute of the clock, or in any 60 seconds."""

    def __init__(self, most: int, sliding: bool) -> None:
        self.most, self.sliding = most, sliding
        self.sent: deque[float] = deque()

    def take(self, now: float, seconds: float) -> tuple[float | None, float | None]:
        begin = now - 60 if self.sliding else now // 60 * 60
        while self.sent and self.sent[0] < begin:
            self.sent.popleft()
        if len(self.sent) >= self.most:
            return None, (self.sent[0] if self.sliding else begin) + 60 - now
        self.sent.append(now)
        return seconds, None

    def done(self) -> None:
        pass


class AtOnce:
    """So many in flight; more are refused without saying for how long."""

    def __init__(self, most: int) -> None:
        self.most, self.here = most, 0

    def take(self, now: float, seconds: float) -> tuple[float | None, float | None]:
        if self.here >= self.most:
            return None, None
        self.here += 1
        return seconds, None

    def done(self) -> None:
        self.here -= 1


class Slots:
    """So many are worked on, the others wait."""

    def __init__(self, slots: int) -> None:
        self.free = [0.0] * slots

    def take(self, now: float, seconds: float) -> tuple[float | None, float | None]:
        ends = max(now, heapq.heappop(self.free)) + seconds
        heapq.heappush(self.free, ends)
        return ends - now, None

    def done(self) -> None:
        pass


class Traffic:
    """Many calls through one pace to one endpoint."""

    def __init__(self, endpoint: Endpoint, calls: int, seed: int) -> None:
        self.pace, self.endpoint, self.left = Pace(1024), endpoint, calls
        self.random = random.Random(seed)
        self.answers: list[tuple[float, float]] = []
        self.refused = self.sent = 0
        self.events: list[tuple[float, int, object, float | None, float | None]] = []

    def play(self) -> None:
        now = 0.0
        while self.left or self.events:
            while self.left and self.pace.wait(now) <= 0:
                self.send(now)
            wait = self.pace.wait(now)
            times = [self.events[0][0]] if self.events else []
            times += [now + wait] if self.left and wait < math.inf else []
            now = max(now, min(times))
            while self.events and self.events[0][0] <= now:
                self.receive(now)

    def send(self, now: float) -> None:
        self.left, self.sent = self.left - 1, self.sent + 1
        took, pause = self.endpoint.take(now, self.random.lognormvariate(math.log(2), 0.5))
        ticket = self.pace.enter(now)
        heapq.heappush(self.events, (now + (took or 0.05), self.sent, ticket, took, pause))

    def receive(self, now: float) -> None:
        _, _, ticket, took, pause = heapq.heappop(self.events)
        if took is None:
            self.refused, self.left = self.refused + 1, self.left + 1
            self.pace.close_until(now + (self.random.uniform(0.5, 1) if pause is None else max(0.5, pause)))
            self.pace.leave(ticket, "limited" if pause is None else "held", now)  # type: ignore[arg-type]
        else:
            self.endpoint.done()
            self.pace.leave(ticket, "good", now)  # type: ignore[arg-type]
            self.answers.append((now, took))

    def after_a_minute(self) -> tuple[float, float, float]:
        """Answers per second from the second minute to the last, the median of their seconds, the share refused."""
        last = int(self.answers[-1][0] // 60) * 60
        late = [took for when, took in self.answers if 60 <= when < last]
        return len(late) / (last - 60), median(late), self.refused / self.sent


def played(make: type[Endpoint], *given: object, calls: int) -> tuple[float, float, float]:
    found = []
    for seed in range(5):
        traffic = Traffic(make(*given), calls, seed)
        traffic.play()
        found.append(traffic.after_a_minute())
    rates, medians, shares = zip(*found, strict=True)
    return mean(rates), max(medians), mean(shares)


@pytest.mark.parametrize("sliding", [False, True])
def test_R22_a_limit_per_minute_is_used_and_hardly_met(sliding: bool) -> None:
    rate, _, refused = played(PerMinute, 3000, sliding, calls=12_000)
    assert rate / 50 >= 0.9
    assert refused <= 0.02


def test_R22_a_limit_in_flight_is_used_and_hardly_met() -> None:
    rate, _, refused = played(AtOnce, 64, calls=12_000)
    assert rate / (64 / MEAN) >= 0.8
    assert refused <= 0.02


def test_R22_a_server_that_queues_is_kept_busy_without_a_long_queue() -> None:
    rate, middle, refused = played(Slots, 96, calls=20_000)
    assert rate / (96 / MEAN) >= 0.95
    assert middle <= 2.5 * 2
    assert refused == 0


class Faulty(Traffic):
    """Of all answers 30 % are trouble, and a few say "too many" whatever is in flight; calls take a quarter second."""

    def send(self, now: float) -> None:
        self.left, self.sent = self.left - 1, self.sent + 1
        heapq.heappush(self.events, (now + 0.25, self.sent, self.pace.enter(now), 0.25, None))

    def receive(self, now: float) -> None:
        _, _, ticket, _took, _ = heapq.heappop(self.events)
        kind = self.random.choices(("good", "trouble", "limited"), (698, 300, 2))[0]
        self.pace.leave(ticket, kind, now)  # type: ignore[arg-type]
        if kind == "good":
            self.answers.append((now, 1.0))
        else:
            self.left += 1
        if kind == "limited":
            self.pace.close_until(now + 0.5)


def test_R19_faults_that_have_nothing_to_do_with_load_do_not_bring_the_pace_down_for_ever() -> None:
    traffic = Faulty(AtOnce(0), 20_000, 1)
    traffic.play()
    assert len(traffic.answers) / traffic.answers[-1][0] > 20, "answers per second"


class Stray(Traffic):
    """A share of all answers is "too many" without a word on how long, whatever is in flight; each takes 0.25 s."""

    share = 0.02

    def send(self, now: float) -> None:
        self.left, self.sent = self.left - 1, self.sent + 1
        took, _ = self.endpoint.take(now, 0.25)
        if took is not None and self.random.random() < self.share:
            self.endpoint.done()
            took = None
        heapq.heappush(self.events, (now + 0.25, self.sent, self.pace.enter(now), took, None))

    def receive(self, now: float) -> None:
        _, _, ticket, took, _ = heapq.heappop(self.events)
        self.pace.leave(ticket, "good" if took else "limited", now)  # type: ignore[arg-type]
        if took:
            self.endpoint.done()
            self.answers.append((now, took))
            return
        self.refused, self.left = self.refused + 1, self.left + 1
        if not self.pace.refusals.stray:
            self.pace.close_until(now + 0.5)  # as `endpoint.py` does; otherwise that one request waits

    def later(self) -> float:
        """Answers per second in the second half of the time."""
        half = self.answers[-1][0] / 2
        return sum(when > half for when, _ in self.answers) / half


@pytest.mark.parametrize("share", [0.02, 0.05])
def test_R22_refusals_that_have_nothing_to_do_with_load_do_not_strangle(share: float) -> None:
    for seed in range(5):
        traffic = Stray(AtOnce(10_000), 20_000, seed)
        traffic.pace, traffic.share = Pace(64), share
        traffic.play()
        assert 0.8 * share < traffic.refused / traffic.sent < 1.2 * share, "it was refused so often"
        assert traffic.later() >= 0.6 * 64 / 0.25


def test_R19_what_a_refusal_means_is_learnt_in_seconds() -> None:
    times = []
    for seed in range(40):
        traffic = Stray(AtOnce(10_000), 3_000, seed)
        traffic.pace, traffic.share = Pace(64), 0.024
        traffic.play()
        times.append(traffic.answers[1000][0])
    assert max(times) < 36, "46 s where the limit was not held below until enough was known"
    assert median(times) < 18


def test_R22_a_real_limit_is_found_among_refusals_that_are_none() -> None:
    for seed in range(5):
        traffic = Stray(AtOnce(24), 20_000, seed)
        traffic.pace = Pace(64)
        traffic.play()
        assert traffic.later() >= 0.4 * 24 / 0.25
        assert traffic.refused / traffic.sent <= 0.1
        assert traffic.pace.limit < 32


def test_an_endpoint_that_refuses_a_fifth_of_everything_is_spared() -> None:
    traffic = Stray(AtOnce(10_000), 2000, 1)
    traffic.share = 0.2
    traffic.play()
    assert traffic.pace.limit <= 2


class Refusing:
    """A server that refuses most of the time, at random, and says for how long."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def take(self, now: float, seconds: float) -> tuple[float | None, float | None]:
        return (None, self.random.uniform(0.5, 3600)) if self.random.random() < 0.6 else (seconds, None)

    def done(self) -> None:
        pass


class Watched(Traffic):
    """The same traffic; who sends although a refusal that has come in forbids it is early."""

    early, gate = 0, -math.inf

    def send(self, now: float) -> None:
        self.early += now < self.gate - 1e-9
        super().send(now)

    def receive(self, now: float) -> None:
        _, _, _, took, pause = self.events[0]
        super().receive(now)
        if took is None and pause is not None:
            self.gate = max(self.gate, now + pause)


def test_R16_with_many_in_flight_nobody_is_early_in_ten_thousand_refusals() -> None:
    refused = 0
    for seed in range(5):
        traffic = Watched(Refusing(seed), 1500, seed)
        traffic.play()
        refused += traffic.refused
        assert traffic.early == 0
    assert refused >= 10_000


def answer(pace: Pace, count: int, now: float, seconds: float = 1.0) -> float:
    """As many good answers as asked for, in waves of the limit; returns the time."""
    while count > 0:
        wave = min(count, int(pace.limit))
        tickets = [pace.enter(now) for _ in range(wave)]
        now += seconds
        for ticket in tickets:
            pace.leave(ticket, "good", now)
        count -= wave
    return now


def test_slow_start_doubles_and_grows_only_when_it_is_used() -> None:
    pace = Pace(1024)
    answer(pace, LEAST_ROUND, 0.0)
    assert pace.limit == 2 * START
    for now in range(200):
        pace.leave(pace.enter(now), "good", now + 0.5)  # one at a time says nothing about more
    assert pace.limit == 2 * START


def test_a_cut_comes_once_in_a_while_and_answers_from_before_it_do_not_count() -> None:
    pace = Pace(1024)
    now = answer(pace, 16, 0.0)
    tickets = [pace.enter(now) for _ in range(16)]
    for ticket in tickets[:4]:
        pace.leave(ticket, "limited", now + 1)
    assert pace.limit == pytest.approx(16 * 0.7)
    for ticket in tickets[4:]:
        pace.leave(ticket, "good", now + 2)
    assert pace.limit == pytest.approx(16 * 0.7)


def test_nobody_sends_before_the_gate_opens() -> None:
    pace = Pace(8)
    pace.close_until(100.0)
    pace.close_until(50.0)
    assert pace.wait(0.0) == 100.0
    assert pace.wait(100.0) == 0.0


def test_three_rounds_without_an_answer_leave_only_probes_and_one_answer_ends_that() -> None:
    pace = Pace(8)
    for _ in range(3 * LEAST_ROUND):
        pace.leave(pace.enter(0.0), "trouble", 1.0)
    assert pace.broken
    assert pace.wait(1.0) == 1.0
    waits = []
    now = 2.0
    for _ in range(8):
        ticket = pace.enter(now)
        assert ticket.probe
        assert pace.wait(now) == math.inf, "one probe at a time"
        pace.leave(ticket, "trouble", now)
        waits.append(pace.wait(now))
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert pace.silence(now) == sum(waits)
    pace.leave(pace.enter(now), "good", now)
    assert not pace.broken
    assert pace.limit == START


def test_work_that_becomes_slow_is_not_mistaken_for_a_queue_for_ever() -> None:
    pace = Pace(64)
    now = answer(pace, 400, 0.0, seconds=0.1)
    assert pace.limit == 64
    answer(pace, 2000, now, seconds=10.0)  # another stage, whose answers are long whatever the limit
    assert pace.limit >= 48
