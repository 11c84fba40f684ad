"""How is a request tried until it is answered, given up, or found to be hopeless? The attempt loop of all endpoints."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from threading import Lock
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from tunesift.errors import ModelUnavailable, ParameterRefused, TunesiftError
from tunesift.models.exchange import Exchanges, Place, key_of, name_of
from tunesift.models.faults import Fault
from tunesift.models.pace import Signal, Ticket
from tunesift.models.replies import Reply, parsed, served
from tunesift.models.turnstile import LONGEST_PAUSE_S, Clock, Turnstile
from tunesift.records import Failure
from tunesift.settings import Json

MOST_TRIES, MOST_UNREADABLE, MOST_LIMITED = 6, 3, 20
"""Attempts of one request that end in a transient fault, in an answer that cannot be read, in "too many requests"."""
WINDOW, WINDOW_BAD = 300, 60
"""Of the last so many attempts, more than so many that cannot be read, or that are refused as wrong, end the run. Of
2,000 runs of 14,000 calls in which a tenth is bad by chance, none has more than 60 bad among 300; half have more than
20 among 100."""
LEAST_REST_S = 0.5
"""Seconds that a request rests at least that was told "too many" and not for how long."""
PROBE_TOKENS = 16
"""Most tokens of the answer to a small request; some endpoints take no fewer."""
CLOCK = Clock()

Made = TypeVar("Made")

_SIGNALS: dict[str, Signal] = {"limited": "limited", "transient": "trouble", "protocol": "trouble", "row": "alive",
                               "final": "alive", "stale": "neutral", "ours": "neutral"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call(Generic[Made]):
    """A request, how its answer is read, and a small one like it that finds out whether the endpoint takes such."""

    path: str
    body: dict[str, Json]
    probe: dict[str, Json]
    read: Callable[[Reply, int], Made]
    """From a reply and its completion's tokens to what it says; raises `Fault`."""
    check: Callable[[Reply], object]
    """Reads the answer to the small one; raises `Fault`."""
    completion_bound: int


@dataclass(slots=True)
class _Tries:
    """What one call has been through."""

    began: float
    outages: int
    good: int
    """Good answers that the endpoint had given to anybody by the last attempt but one."""
    transient: int = 0
    unreadable: int = 0
    limited: int = 0
    other: int = 0


class Endpoint:
    """One model at one address under one key."""

    def __init__(self, place: Place, key: str | None, turnstile: Turnstile) -> None:
        self.name = name_of(place)
        self.turnstile = turnstile
        self.width: int | None = None
        """Numbers of a vector that this model gives, once one was seen."""
        self.exchanges = Exchanges(place, key, self._pause_when_used_up)
        self._proving, self._proved = Lock(), list[tuple[str, dict[str, Json]]]()
        self._windows = {"protocol": deque[bool](maxlen=WINDOW), "E634": deque[bool](maxlen=WINDOW)}

    def ask(self, call: Call[Made]) -> Made | Failure:
        """The answer to a call, or why this one call has none; raises `ModelError` where no call would have one."""
        epoch, pace = self.turnstile.epoch, self.turnstile.pace
        self.prove(call, epoch)
        tries = _Tries(self.turnstile.clock.now(), pace.outages, pace.good)
        while True:
            ticket = self.turnstile.enter(epoch)
            if ticket.probe:
                self._probe(call, ticket)
                continue
            made = self._attempt(call, ticket)
            self._watch(made if isinstance(made, Fault) else None)
            if not isinstance(made, Fault):
                return made
            failure = self._after(call, made, tries, epoch)
            if failure is not None:
                return failure

    def prove(self, call: Call[Made], epoch: int) -> None:
        """Find a wrong key, model or parameter with one small request, before any like it; others wait meanwhile."""
        kind = (call.path, call.probe)
        if kind in self._proved:
            return
        with self._proving:
            self.turnstile.check(epoch)
            if kind not in self._proved:
                self.exchanges.check(call.path, call.body, call.completion_bound)
                self._insist(lambda: self._small(call), "even a short request with these settings is refused", epoch)
                self._proved.append(kind)

    def listed(self) -> tuple[str, ...]:
        """Names of the models that are served here, for whose list nobody sends a bill; raises `ModelError`."""

        def look() -> tuple[str, ...] | Fault:
            try:
                return served(parsed(self.exchanges.carry("/models")))
            except Fault as fault:
                return fault

        return self._insist(look, "its list of models is refused", self.turnstile.epoch)

    def final(self, error: TunesiftError) -> TunesiftError:
        """The same error, after everybody who waits for the endpoint was told."""
        self._proved.clear()
        for window in self._windows.values():
            window.clear()
        self.turnstile.stop(error)
        return error

    def _insist(self, exchange: Callable[[], Made | Fault], refused: str, epoch: int) -> Made:
        """What an exchange comes to, tried again where it may work in a moment; raises where it would never."""
        faults = 0
        while True:
            fault = self._with(self.turnstile.enter(epoch), exchange)
            if not isinstance(fault, Fault):
                return fault
            if fault.blame == "final":
                raise self.final(self.error(fault))
            if fault.blame == "row":
                said = f"{refused}: {fault.code} {fault.message}"
                raise self.final(ParameterRefused(f"{self.name}: {said}; change them."))
            if fault.blame == "limited":
                self.limited(fault)
                continue
            faults += 1
            if fault.unresolved or faults >= (MOST_UNREADABLE if fault.blame == "protocol" else MOST_TRIES):
                hint = "check url" if fault.blame != "protocol" else "it does not speak the protocol; check url"
                raise self.final(ModelUnavailable(f"{self.name}: {fault.code} {fault.message}; {hint}."))
            self.turnstile.rest(faults, epoch)

    def _probe(self, call: Call[Made], ticket: Ticket) -> None:
        fault = self._with(ticket, lambda: self._small(call))
        if isinstance(fault, Fault) and fault.blame == "final":
            raise self.final(self.error(fault))
        if isinstance(fault, Fault) and fault.blame == "limited":
            self.limited(fault)

    def _after(self, call: Call[Made], fault: Fault, tries: _Tries, epoch: int) -> Failure | None:
        """What a fault means for the call: a `Failure`, or None to try again after a rest."""
        if fault.blame == "final":
            raise self.final(self.error(fault))
        if fault.blame == "row":
            return Failure(fault.failure, f"{fault.code} {fault.message}")
        if fault.blame == "limited":
            return self._after_limited(fault, tries, epoch)
        if fault.blame == "protocol":
            tries.unreadable += 1
            if tries.unreadable >= MOST_UNREADABLE:
                return Failure("unreadable", f"{fault.code} {fault.message}, {tries.unreadable} times")
            self.turnstile.rest(tries.unreadable, epoch)
            return None
        if fault.blame in ("stale", "ours") and tries.other < MOST_LIMITED:
            tries.other += 1
            if fault.blame == "ours":
                self.turnstile.shrink()
                self.turnstile.rest(tries.other, epoch)
            return None
        return self._after_transient(call, fault, tries, epoch)

    def _after_limited(self, fault: Fault, tries: _Tries, epoch: int) -> Failure | None:
        tries.limited += 1
        if fault.pause is None and self.turnstile.refused_astray:
            self.turnstile.rest(tries.limited, epoch, least=LEAST_REST_S)  # nothing that others would have to wait for
        else:
            self.limited(fault)
        if self.turnstile.pace.good > tries.good:
            if tries.limited >= MOST_LIMITED:
                return Failure(
                    "unanswered", f"E611 too many requests, {tries.limited} times, while others were answered"
                )
        elif self.turnstile.clock.now() - tries.began > 2 * LONGEST_PAUSE_S:
            raise self.final(ModelUnavailable(f"{self.name}: {fault.code} {fault.message}, for two hours."))
        return None

    def _after_transient(self, call: Call[Made], fault: Fault, tries: _Tries, epoch: int) -> Failure | None:
        if fault.pause is not None and not self.turnstile.pause(fault.pause, limited=False):
            raise self.final(self._patience_ends(fault))
        self._renew(tries)
        tries.transient += 1
        if tries.transient < MOST_TRIES:
            tries.good = self.turnstile.pace.good
            self.turnstile.rest(tries.transient, epoch)
            return None
        if self.turnstile.pace.good == tries.good:
            self._find_out(call, epoch)
            if self._renew(tries):
                return None
        said = f"{fault.code} no answer in {tries.transient} attempts, while others were answered"
        return Failure("unanswered", f"{said} (the last: {fault.message})")

    def _renew(self, tries: _Tries) -> bool:
        """Begin to count anew where the endpoint answered nobody meanwhile: an outage is no row's fault."""
        pace = self.turnstile.pace
        if pace.outages == tries.outages:
            return False
        tries.outages, tries.good, tries.transient = pace.outages, pace.good, 0
        return True

    def _find_out(self, call: Call[Made], epoch: int) -> None:
        """Return when a probe was answered: is it only this request that is not?"""
        self.turnstile.suspect()
        while self.turnstile.pace.broken:
            ticket = self.turnstile.enter(epoch)
            if ticket.probe:
                self._probe(call, ticket)
            else:
                self.turnstile.leave(ticket, "neutral")

    def limited(self, fault: Fault) -> None:
        """Let everybody wait as long as the endpoint asks; raises where that was done in vain before."""
        if not self.turnstile.pause(fault.pause):
            raise self.final(self._patience_ends(fault))

    def _pause_when_used_up(self, seconds: float) -> None:
        self.turnstile.pause(min(seconds, LONGEST_PAUSE_S), limited=False)

    def _patience_ends(self, fault: Fault) -> ModelUnavailable:
        asked = f"{fault.code} asks for a pause of {fault.pause or 0:.0f} s after one of an hour"
        return ModelUnavailable(f"{self.name}: {asked}; start the same command again later.")

    def _attempt(self, call: Call[Made], ticket: Ticket) -> Made | Fault:
        return self._with(ticket, lambda: self.exchanges.once(call.path, call.body, call.completion_bound, call.read))

    def _small(self, call: Call[Made]) -> object | Fault:
        return self.exchanges.once(call.path, call.probe, PROBE_TOKENS, lambda r, _: call.check(r))

    def _with(self, ticket: Ticket, exchange: Callable[[], Made | Fault]) -> Made | Fault:
        """Do an exchange, and give the ticket back with what it says about the endpoint."""
        signal: Signal = "neutral"
        try:
            made = exchange()
            signal = _signal(made) if isinstance(made, Fault) else "good"
            return made
        finally:
            self.turnstile.leave(ticket, signal)

    def _watch(self, fault: Fault | None) -> None:
        """Tell of a fault when it is first met; stop where the endpoint gives hardly anything else."""
        if fault is not None:
            self.exchanges.tell(fault.code, f"{self.name}: {fault.code} {fault.message}")
        for name, window in self._windows.items():
            window.append(fault is not None and name in (fault.blame, fault.code))
            if fault is not None and sum(window) > WINDOW_BAD:
                final = ModelUnavailable if name == "protocol" else ParameterRefused
                said = f"{sum(window)} of {len(window)} answers were like this: {fault.code} {fault.message}"
                raise self.final(final(f"{self.name}: {said}; check url, model and settings."))

    def error(self, fault: Fault) -> TunesiftError:
        """What a final fault is to whoever started the run."""
        return fault.final(f"{self.name}: {fault.code} {fault.message}.")


def _signal(fault: Fault) -> Signal:
    return "held" if fault.blame == "limited" and fault.pause is not None else _SIGNALS[fault.blame]


_MAKING = Lock()
_ENDPOINTS: dict[tuple[Place, bytes | None, Clock], Endpoint] = {}
_TURNSTILES: dict[tuple[str, bytes | None, str, Clock], Turnstile] = {}


def endpoint(place: Place) -> Endpoint:
    """The one endpoint of this process for a place and the key that the environment has for it."""
    key = key_of(place)
    known = sha256(key.encode()).digest() if key else None
    found = _ENDPOINTS.get((place, known, CLOCK))
    if found is not None:
        return found
    with _MAKING:
        parts = urlsplit(place.way.url)
        shared = (f"{parts.scheme}://{parts.netloc}", known, place.model, CLOCK)
        turnstile = _TURNSTILES.setdefault(shared, Turnstile(name_of(place), place.concurrency, CLOCK))
        turnstile.pace.most = max(turnstile.pace.most, place.concurrency)
        return _ENDPOINTS.setdefault((place, known, CLOCK), Endpoint(place, key, turnstile))
