"""How many requests may be in flight, and when may the next be sent? The endpoint's own limits, found by asking.

Arithmetic only: every method is told the time, nothing waits and nothing is locked, so that hours can be simulated in
a test. `turnstile.py` makes threads keep to it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

from tunesift.models.refusals import Refusals

START = 8
"""Requests in flight at first."""
CUT, GUARD_CUT = 0.8, 0.85
"""What is left of the limit after an answer that says "too many", and after a round that only queued."""
GROWTH = 0.05
"""What a clean round adds to the limit, once it has been cut for the first time; before, it doubles."""
COOL_DOWN_S = 5.0
"""Seconds between two cuts."""
LEAST_ROUND = 16
"""Answers of a round; more where the limit is higher."""
TROUBLE = 0.5
"""Trouble for each good answer above which a round lets nothing grow."""
BARREN_ROUNDS = 3
"""Rounds without one good answer after which nothing is sent but probes."""
MOST_PROBE_WAIT_S = 30.0
LONGEST_OUTAGE_S = 600.0
"""Seconds without an answer to a probe after which the endpoint counts as gone."""
REST_WHEN_GONE = 9
"""Times as long as a probe took that nothing is sent once the endpoint counts as gone: what goes on without it sits out
hanging probes a tenth of its time at most."""
EASED = 1.05
"""After a cut, requests leave no closer together than answers came in; then so much closer after each clean round. A
limit on requests per minute is a rate, which a limit on those in flight only follows by overshooting."""
RATES_S = (10.0, 60.0)
"""Seconds over which that rate is measured; the larger one counts."""

Signal = Literal["good", "alive", "limited", "held", "trouble", "neutral"]
"""good: answered; alive: refused for a reason of the request's own; limited: told to send less; held: told so, and for
how long; trouble: no answer, or none that can be read; neutral: says nothing about the endpoint."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave to send one request."""

    began: float
    cuts: int
    """How often the limit had been cut when the request was sent."""
    probe: bool = False
    """Nothing but a probe may be sent: the endpoint has stopped answering."""


@dataclass(slots=True)
class _Round:
    began: float
    limited: bool = False
    troubled: int = 0
    peak: int = 0
    seconds: list[float] = field(default_factory=list)
    """How long each good answer took."""

    @property
    def clean(self) -> bool:
        """Nobody said "too many", and trouble was no more than here and there: it says nothing about the limit."""
        return not self.limited and self.troubled <= TROUBLE * len(self.seconds)


class Pace:
    """What is known of one endpoint's limits: slow start, additive growth, multiplicative cuts, a gate, a circuit."""

    def __init__(self, most: int, now: float = 0.0) -> None:
        self.most = most
        self.limit = float(min(START, most))
        self.in_flight = 0
        self.good = 0
        """Good answers so far; an answer to a probe, whatever it says, is one."""
        self.opens = -math.inf
        """Nobody sends before this time."""
        self.cuts = 0
        self.refusals = Refusals()
        self.outages = 0
        """How often a probe found that the endpoint answers nobody."""
        self._cut_at = -math.inf
        self._spacing, self._next = 0.0, -math.inf
        self._recent: deque[float] = deque(maxlen=4096)
        self._starting = True
        self._round = _Round(now)
        self._best = math.inf
        self._rate = 0.0
        self._before_guard: tuple[float, float] | None = None
        """The limit, and the median of a round, when the latency guard first cut."""
        self._barren = 0
        self._probe_at: float | None = None
        self._probe_wait = 1.0
        self._probing = False
        self._silent_since: float | None = None

    @property
    def broken(self) -> bool:
        """Whether nothing but probes is sent."""
        return self._probe_at is not None

    def wait(self, now: float) -> float:
        """Seconds until a request may be sent: 0 for now, infinity for "when another has ended"."""
        if self._probe_at is not None:
            return math.inf if self._probing else max(0.0, self._probe_at - now, self.opens - now)
        if self.in_flight >= max(1, int(self.limit)):
            return math.inf
        return max(0.0, self.opens - now, self._next - now)

    def enter(self, now: float) -> Ticket:
        """Take the leave that `wait` has said is there."""
        self.in_flight += 1
        if self._probe_at is not None:
            self._probing = True
            return Ticket(now, self.cuts, probe=True)
        self._round.peak = max(self._round.peak, self.in_flight)
        self._next = max(self._next, now - self._spacing, self.opens) + self._spacing
        return Ticket(now, self.cuts)

    def leave(self, ticket: Ticket, signal: Signal, now: float) -> None:
        """What became of a request; one that was sent before the last cut says nothing about the limit since."""
        self.in_flight -= 1
        if ticket.probe:
            self._after_probe(ticket, signal, now)
        elif signal == "good":
            self._answered(ticket, now)
        elif signal == "limited":
            self._refused(ticket, now)
        elif signal == "held":
            self.shrink(now)
        elif signal == "trouble":
            self._troubled(now)
        elif signal == "alive":
            self._barren = 0

    def close_until(self, when: float) -> None:
        """Nobody sends before `when`."""
        self.opens = max(self.opens, when)

    def shrink(self, now: float) -> None:
        """Cut the limit, at most once in a while."""
        self._round.limited = True
        if now - self._cut_at >= COOL_DOWN_S:
            self.refusals.cut(self.limit)
            self._cut(min(self.limit * CUT, self.refusals.teaches_below), now)
            rate = max(self._rate_over(seconds, now) for seconds in RATES_S)
            self._spacing = 1 / max(rate, self.limit / (4 * self._best)) if rate else 0.0

    def _refused(self, ticket: Ticket, now: float) -> None:
        if ticket.cuts == self.cuts:
            self.refusals.add(True, self.limit)
        if self.refusals.stray:
            self._spacing = 0.0
        elif self.refusals.calls_for_cut(self.limit):
            self.shrink(now)
        else:
            self._round.limited = True

    def suspect(self, now: float) -> None:
        """Send nothing but probes, the first at once, until one is answered."""
        if self._probe_at is None:
            self._probe_at, self._probe_wait = now, 1.0

    def silence(self, now: float) -> float:
        """Seconds since the first probe that was not answered; 0 where the last one was."""
        return 0.0 if self._silent_since is None else now - self._silent_since

    def _answered(self, ticket: Ticket, now: float) -> None:
        self.good += 1
        self._recent.append(now)
        self._barren = 0
        if ticket.cuts != self.cuts:
            return
        self.refusals.add(False, self.limit)
        self._round.seconds.append(now - ticket.began)
        if len(self._round.seconds) >= max(self.limit, LEAST_ROUND):
            self._end_round(now)

    def _troubled(self, now: float) -> None:
        self._round.troubled += 1
        self._recent.append(now)
        self._barren += 1
        if self._barren >= BARREN_ROUNDS * max(self.limit, LEAST_ROUND):
            self.suspect(now + 1.0)

    def _after_probe(self, ticket: Ticket, signal: Signal, now: float) -> None:
        self._probing = False
        if signal == "neutral":
            self._probe_at = now
        elif signal != "trouble":
            self.good += 1
            self._probe_at = self._silent_since = None
            self._barren, self._round = 0, _Round(now)
        else:
            self.outages += 1
            self._silent_since = now if self._silent_since is None else self._silent_since
            gone = now - self._silent_since > LONGEST_OUTAGE_S
            self._probe_at = now + max(self._probe_wait, REST_WHEN_GONE * gone * (now - ticket.began))
            self._probe_wait = min(MOST_PROBE_WAIT_S, self._probe_wait * 2)

    def _cut(self, limit: float, now: float) -> None:
        self.limit = max(1.0, limit)
        self.cuts += 1
        self._cut_at, self._starting = now, False
        self._round = _Round(now)

    def _rate_over(self, seconds: float, now: float) -> float:
        """Requests per second that were let through in the last seconds; 0 where they are too few to tell."""
        recent = [when for when in self._recent if when > now - seconds]
        return len(recent) / (now - recent[0]) if len(recent) >= LEAST_ROUND and now > recent[0] else 0.0

    def _end_round(self, now: float) -> None:
        ended, middle = self._round, median(self._round.seconds)
        rate = len(ended.seconds) / max(now - ended.began, 1e-9)
        grew, self._rate = rate >= 1.1 * self._rate, rate
        self._best = min(self._best, middle)
        self._round = _Round(now)
        if middle > 2 * self._best and not grew:
            self._guard(middle, now)
        else:
            self._before_guard = None
            self._spacing /= EASED if ended.clean else 1.0
            if ended.clean and ended.peak >= 0.8 * self.limit:
                step = self.limit if self._starting else max(1.0, GROWTH * self.limit)
                self.limit = max(self.limit, min(self.most, self.limit + step, self.refusals.teaches_below))

    def _guard(self, middle: float, now: float) -> None:
        """Answers take twice as long and are no more: they wait in the server's queue, unless less does not help."""
        if not self._before_guard:
            self._before_guard = (self.limit, middle)
        limit, longest = self._before_guard
        if self.limit < 0.4 * limit and middle > 0.7 * longest:
            self.limit, self._best, self._before_guard = limit, middle, None
        else:
            self._cut(self.limit * GUARD_CUT, now)
