"""How is a request tried until it is answered, given up, or found to be hopeless? The attempt loop of all endpoints."""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from threading import Lock
from typing import Generic, TypeVar
from urllib.parse import quote, urlsplit

from tunesift.errors import ModelRefused, ModelUnavailable, ParameterRefused, TunesiftError
from tunesift.models.books import SHELF, Asking, Attempt, Usage, usage
from tunesift.models.faults import Fault, broken, exhausted, refusal
from tunesift.models.pace import Signal, Ticket
from tunesift.models.replies import Reply, parsed, streamed
from tunesift.models.transport import Answer, TransportFault, Way, Wire
from tunesift.models.turnstile import LONGEST_PAUSE_S, Clock, Turnstile
from tunesift.records import Failure
from tunesift.settings import Json, canonical

MOST_TRIES, MOST_UNREADABLE, MOST_LIMITED = 6, 3, 20
"""Attempts of one request that end in a transient fault, in an answer that cannot be read, in "too many requests"."""
WINDOW, WINDOW_BAD = 100, 20
"""Of so many attempts, more than so many that cannot be read, or that are refused as wrong, end the run."""
PROBE_TOKENS = 16
"""Most tokens of the answer to a small request; some endpoints take no fewer."""
CLOCK = Clock()

Made = TypeVar("Made")

_LOG = logging.getLogger(__name__)
_SIGNALS: dict[str, Signal] = {"limited": "limited", "transient": "trouble", "protocol": "trouble", "row": "alive",
                               "final": "alive", "stale": "neutral", "ours": "neutral"}  # fmt: skip
_NOT_SENT = ("refused", "unresolved", "certificate", "public", "files")
_LEAST_SECRET = 12
"""Characters of a key that is looked for in answers; "EMPTY" and the like are no secrets."""


@dataclass(frozen=True, slots=True)
class Place:
    """Which model, where, and how it is reached."""

    way: Way
    model: str
    key_env: str | None
    concurrency: int
    pinned: bool


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
        self._place, self._wire = place, Wire(place.way)
        self._headers = [(b"Host", urlsplit(place.way.url).netloc.encode()), (b"Content-Type", b"application/json"),
                         (b"Accept", b"application/json, text/event-stream"), (b"Accept-Encoding", b"gzip"),
                         (b"User-Agent", b"tunesift")]  # fmt: skip
        self._headers += [(b"Authorization", f"Bearer {key}".encode())] if key else []
        self._secrets = _spellings(key) if key and len(key) >= _LEAST_SECRET else ()
        self._proving, self._proved = Lock(), set[bytes]()
        self._windows = {"protocol": deque[bool](maxlen=WINDOW), "E634": deque[bool](maxlen=WINDOW)}
        self._told: set[str] = set()

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
        kind = sha256(call.path.encode() + canonical(call.probe)).digest()
        if kind in self._proved:
            return
        with self._proving:
            self.turnstile.check(epoch)
            if kind not in self._proved:
                self._preflight(call, epoch)
                self._proved.add(kind)

    def final(self, error: TunesiftError) -> TunesiftError:
        """The same error, after everybody who waits for the endpoint was told."""
        self._proved.clear()
        for window in self._windows.values():
            window.clear()
        self.turnstile.stop(error)
        return error

    def _preflight(self, call: Call[Made], epoch: int) -> None:
        faults = 0
        while True:
            ticket = self.turnstile.enter(epoch)
            fault = self._attempt_probe(call, ticket)
            if fault is None:
                return
            if fault.blame == "final":
                raise self.final(self._error(fault))
            if fault.blame == "row":
                raise self.final(ParameterRefused(f"{self.name}: {fault.code} even a short request with these settings is "
                                                  f"refused ({fault.message})."))  # fmt: skip
            if fault.blame == "limited":
                self._limited(fault)
                continue
            faults += 1
            if (
                faults >= (MOST_UNREADABLE if fault.blame == "protocol" else MOST_TRIES)
                or "is not known" in fault.message
            ):
                hint = "check url" if fault.blame != "protocol" else "it does not speak the protocol; check url"
                raise self.final(ModelUnavailable(f"{self.name}: {fault.code} {fault.message}; {hint}."))
            self.turnstile.rest(faults, epoch)

    def _probe(self, call: Call[Made], ticket: Ticket) -> None:
        fault = self._attempt_probe(call, ticket)
        if fault is not None and fault.blame == "final":
            raise self.final(self._error(fault))
        if fault is not None and fault.blame == "limited":
            self._limited(fault)

    def _after(self, call: Call[Made], fault: Fault, tries: _Tries, epoch: int) -> Failure | None:
        """What a fault means for the call: a `Failure`, or None to try again after a rest."""
        if fault.blame == "final":
            raise self.final(self._error(fault))
        if fault.blame == "row":
            return Failure(fault.failure, f"{fault.code} {fault.message}")
        if fault.blame == "limited":
            return self._after_limited(fault, tries)
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

    def _after_limited(self, fault: Fault, tries: _Tries) -> Failure | None:
        self._limited(fault)
        tries.limited += 1
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
            self.turnstile.rest(tries.transient, epoch)
            return None
        if self.turnstile.pace.good == tries.good:
            self._find_out(call, epoch)
            if self._renew(tries):
                return None
        return Failure("unanswered", f"{fault.code} no answer in {tries.transient} attempts, while others were answered "
                       f"(the last: {fault.message})")  # fmt: skip

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

    def _limited(self, fault: Fault) -> None:
        if not self.turnstile.pause(fault.pause):
            raise self.final(self._patience_ends(fault))

    def _patience_ends(self, fault: Fault) -> ModelUnavailable:
        return ModelUnavailable(f"{self.name}: {fault.code} asks for a pause of {fault.pause or 0:.0f} s after one of an hour; "
                                "start the same command again later.")  # fmt: skip

    def _attempt(self, call: Call[Made], ticket: Ticket) -> Made | Fault:
        return self._with(ticket, lambda: self._exchange(call.path, call.body, call.completion_bound, call.read))

    def _attempt_probe(self, call: Call[Made], ticket: Ticket) -> Fault | None:
        made = self._with(
            ticket, lambda: self._exchange(call.path, call.probe, PROBE_TOKENS, lambda r, _: call.check(r))
        )
        return made if isinstance(made, Fault) else None

    def _with(self, ticket: Ticket, exchange: Callable[[], Made | Fault]) -> Made | Fault:
        """Do an exchange, and give the ticket back with what it says about the endpoint."""
        signal: Signal = "neutral"
        try:
            made = exchange()
            signal = _SIGNALS[made.blame] if isinstance(made, Fault) else "good"
            return made
        finally:
            self.turnstile.leave(ticket, signal)

    def _exchange(
        self, path: str, body: dict[str, Json], bound: int, read: Callable[[Reply, int], Made]
    ) -> Made | Fault:
        """Send a request once; what it came to is entered in the books, whatever happens."""
        raw = canonical(body)
        asking = Asking(self.name, path, sha256(path.encode() + raw).hexdigest()[:32], len(raw), bound)
        SHELF.reserve(asking)
        exchange = _Exchange(asking, time.monotonic())
        try:
            reply = self._reply(self._wire.send(path, self._headers, raw))
            exchange.replied(reply)
            self._check_served(reply)
            return read(reply, exchange.tokens.completion)
        except TransportFault as error:
            fault = broken(error)
            exchange.failed(fault, sent=error.what not in _NOT_SENT)
            return fault
        except Fault as fault:
            exchange.failed(fault, sent=True)
            return fault
        finally:
            SHELF.settle(exchange.attempt())

    def _reply(self, answer: Answer) -> Reply:
        body = answer.body
        for secret, mark in self._secrets:
            body = body.replace(secret, mark)
        kind = answer.headers.get("content-type", "")
        if not 200 <= answer.status < 300:
            raise refusal(answer.status, answer.headers, _leniently(body))
        if (pause := exhausted(answer.headers)) is not None:
            self.turnstile.pause(min(pause, LONGEST_PAUSE_S), limited=False)
        if kind.startswith("text/event-stream"):
            return streamed(body)
        if "json" not in kind:
            self._tell(
                "type", f"{self.name}: its answers say that they are {kind[:40] or 'nothing'}; they are read as JSON"
            )
        return parsed(body)

    def _check_served(self, reply: Reply) -> None:
        served = reply.get("model")
        if not isinstance(served, str) or served == self._place.model:
            return
        if self._place.pinned:
            raise Fault("final", "E608", f'it was "{served[:60]}" that answered; write that as model, or take '
                        "pin_served_model away")  # fmt: skip
        self._tell(f"served {served}", f'{self.name}: it is "{served[:60]}" that answers')

    def _watch(self, fault: Fault | None) -> None:
        """Tell of a fault when it is first met; stop where the endpoint gives hardly anything else."""
        if fault is not None:
            self._tell(fault.code, f"{self.name}: {fault.code} {fault.message}")
        for name, window in self._windows.items():
            window.append(fault is not None and name in (fault.blame, fault.code))
            if fault is not None and len(window) == WINDOW and sum(window) > WINDOW_BAD:
                final = ModelUnavailable if name == "protocol" else ParameterRefused
                raise self.final(final(f"{self.name}: {sum(window)} of {WINDOW} answers were {fault.code} {fault.message}; "
                                       "check url, model and settings."))  # fmt: skip

    def _tell(self, what: str, message: str) -> None:
        if what not in self._told:
            self._told.add(what)
            _LOG.warning("%s", message)

    def _error(self, fault: Fault) -> TunesiftError:
        return fault.final(f"{self.name}: {fault.code} {fault.message}.")


@dataclass(slots=True)
class _Exchange:
    """What is known of a request that is under way."""

    asking: Asking
    began: float
    tokens: Usage = field(default_factory=lambda: Usage(0, 0, "nothing"))
    code: str = ""
    served: str | None = None
    _replied: bool = False

    def replied(self, reply: Reply) -> None:
        said = sum(len(json.dumps(c, ensure_ascii=False).encode(errors="replace")) for c in reply.get("choices") or [])
        self.tokens = usage(reply.get("usage"), self.asking, said)
        served = reply.get("model")
        self.served, self._replied = served if isinstance(served, str) else None, True

    def failed(self, fault: Fault, *, sent: bool) -> None:
        self.code = fault.code
        if sent and not fault.answered and not self._replied:
            self.tokens = Usage(self.asking.prompt_bound, self.asking.completion_bound, "unknown")

    def attempt(self) -> Attempt:
        tokens = self.tokens
        return Attempt(self.asking, self.code, tokens.billed, tokens.prompt, tokens.completion, self.served,
                       time.monotonic() - self.began)  # fmt: skip


def name_of(place: Place) -> str:
    """A model and where it is, as messages name it."""
    return f'"{place.model}" at {urlsplit(place.way.url).netloc}'


def _leniently(body: bytes) -> object:
    """What an error says, if that can be read at all."""
    try:
        return json.loads(body[: 2**16].decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _spellings(key: str) -> tuple[tuple[bytes, bytes], ...]:
    """Ways in which an answer might repeat a key, and marks of the same length."""
    raw = key.encode()
    found = {raw, raw[::-1], base64.b64encode(raw), quote(key, safe="").encode(), json.dumps(key)[1:-1].encode()}
    return tuple((secret, b"*" * len(secret)) for secret in sorted(found))


_MAKING = Lock()
_ENDPOINTS: dict[tuple[Place, bytes | None, Clock], Endpoint] = {}
_TURNSTILES: dict[tuple[str, bytes | None, str, Clock], Turnstile] = {}


def endpoint(place: Place) -> Endpoint:
    """The one endpoint of this process for a place and the key that the environment has for it."""
    key = _key(place)
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


def _key(place: Place) -> str | None:
    if place.key_env is None:
        return None
    key = os.environ.get(place.key_env, "")
    if not key:
        raise ModelRefused(f"{name_of(place)}: the environment variable {place.key_env} is not set; put the key there.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ModelRefused(f"{name_of(place)}: the environment variable {place.key_env} holds what is no key: a space, a "
                           "line feed or a letter beyond ASCII.")  # fmt: skip
    return key
