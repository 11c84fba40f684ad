"""How is one request sent and its answer read, once? With the key, without ever repeating it, and with books kept."""

from __future__ import annotations

import base64
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeVar
from urllib.parse import quote, urlsplit

from tunesift.books import SHELF, Asking, Attempt, Usage, usage
from tunesift.errors import ModelRefused, shown
from tunesift.models.faults import Fault, broken, exhausted, refusal
from tunesift.models.replies import Reply, parsed, streamed
from tunesift.models.transport import Answer, TransportFault, Way, Wire
from tunesift.settings import Json, canonical

Made = TypeVar("Made")

_LOG = logging.getLogger(__name__)
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


class Exchanges:
    """Sends requests to one endpoint under one key, and reads its answers."""

    def __init__(self, place: Place, key: str | None, used_up: Callable[[float], None]) -> None:
        self.name = name_of(place)
        self._place, self._wire, self._used_up = place, Wire(place.way), used_up
        self._headers = [(b"Host", urlsplit(place.way.url).netloc.encode()), (b"Content-Type", b"application/json"),
                         (b"Accept", b"application/json, text/event-stream"), (b"Accept-Encoding", b"gzip"),
                         (b"User-Agent", b"tunesift")]  # fmt: skip
        self._headers += [(b"Authorization", f"Bearer {key}".encode())] if key else []
        self._secrets = _spellings(key) if key and len(key) >= _LEAST_SECRET else ()
        self._told: set[str] = set()

    def once(self, path: str, body: dict[str, Json], bound: int, read: Callable[[Reply, int], Made]) -> Made | Fault:
        """Send a request once; what it came to is entered in the books, whatever happens."""
        raw = canonical(body)
        asking = self.asking(path, raw, bound)
        SHELF.reserve(asking)
        exchange = Exchange(asking, time.monotonic())
        try:
            reply = self._reply(self._wire.send(path, self._headers, raw))
            exchange.replied(reply)
            self.check_served(reply)
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

    def check(self, path: str, body: dict[str, Json], bound: int) -> None:
        """Raise `BudgetSpent` where a request may cost more than may be spent, before a smaller one is paid for."""
        SHELF.check(self.asking(path, canonical(body), bound))

    def asking(self, path: str, raw: bytes, bound: int) -> Asking:
        """A request, as the books know it before it is sent."""
        request = sha256(path.encode() + raw).hexdigest()[:32]
        return Asking(self._place.model, self.name, path, request, len(raw), bound)

    def carry(self, path: str, body: bytes | None = None, kind: bytes = b"application/json") -> bytes:
        """Get what is at a path, or post a body there, for which nobody sends a bill; raises `Fault`."""
        plain = [(name, value) for name, value in self._headers if name != b"Content-Type"]
        try:
            answer = self._wire.send(path, [*plain, (b"Content-Type", kind)] if body is not None else plain, body)
        except TransportFault as error:
            raise broken(error) from None
        found = self._masked(answer.body)
        if not 200 <= answer.status < 300:
            raise refusal(answer.status, answer.headers, _leniently(found))
        return found

    def _masked(self, body: bytes) -> bytes:
        for secret, mark in self._secrets:
            body = body.replace(secret, mark)
        return body

    def _reply(self, answer: Answer) -> Reply:
        body = self._masked(answer.body)
        kind = answer.headers.get("content-type", "")
        if not 200 <= answer.status < 300:
            raise refusal(answer.status, answer.headers, _leniently(body))
        if (pause := exhausted(answer.headers)) is not None:
            self._used_up(pause)
        if kind.startswith("text/event-stream"):
            return streamed(body)
        if "json" not in kind:
            self.tell(
                "type", f"{self.name}: its answers say that they are {kind[:40] or 'nothing'}; they are read as JSON"
            )
        return parsed(body)

    def check_served(self, reply: Reply) -> None:
        served = reply.get("model")
        if not isinstance(served, str) or served == self._place.model:
            return
        if self._place.pinned:
            raise Fault("final", "E608", f'it was "{served[:60]}" that answered; write that as model, or take '
                        "pin_served_model away")  # fmt: skip
        self.tell(f"served {served}", f'{self.name}: it is "{served[:60]}" that answers')

    def tell(self, what: str, message: str) -> None:
        """Warn, the first time."""
        if what not in self._told:
            self._told.add(what)
            _LOG.warning("%s", message)


@dataclass(slots=True)
class Exchange:
    """What is known of a request that is under way."""

    asking: Asking
    began: float
    tokens: Usage = field(default_factory=lambda: Usage(0, 0, "nothing"))
    code: str = ""
    served: str | None = None
    _replied: bool = False

    def replied(self, reply: Reply) -> None:
        """It was answered."""
        self.tokens = usage(reply.get("usage"), self.asking, lambda: _bytes_of(reply.get("choices") or []))
        served = reply.get("model")
        self.served, self._replied = served if isinstance(served, str) else None, True

    def failed(self, fault: Fault, *, sent: bool) -> None:
        """It was not, or with what cannot be used."""
        self.code = fault.code
        if sent and not fault.answered and not self._replied:
            self.tokens = Usage(self.asking.prompt_bound, self.asking.completion_bound, "unknown")

    def attempt(self) -> Attempt:
        """What is to be entered."""
        tokens = self.tokens
        return Attempt(self.asking, self.code, tokens.billed, tokens.prompt, tokens.completion, self.served,
                       time.monotonic() - self.began)  # fmt: skip


def _bytes_of(choices: Sequence[object]) -> int:
    return sum(len(json.dumps(c, ensure_ascii=False).encode(errors="replace")) for c in choices)


def name_of(place: Place) -> str:
    """A model and where it is, as messages name it; without a model the list of those that are there."""
    if not place.model:
        return f"{shown(place.way.url.rstrip('/'))}/models"
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
    plain = {key, key[::-1], base64.b64encode(raw).decode(), quote(key), quote(key, safe="")}
    once = plain | {json.dumps(text)[1:-1] for text in plain}
    found = {text.encode() for text in once | {json.dumps(text)[1:-1] for text in once}}
    return tuple((secret, b"*" * len(secret)) for secret in sorted(found, key=len, reverse=True))


def key_of(place: Place) -> str | None:
    """The key that the environment has for a place; raises `ModelRefused` where it has none that can be one."""
    if place.key_env is None:
        return None
    key = os.environ.get(place.key_env, "")
    if not key:
        raise ModelRefused(f"{name_of(place)}: the environment variable {place.key_env} is not set; put the key there.")
    if not key.isascii() or not key.isprintable() or " " in key:
        odd = "a space, a line feed or a letter beyond ASCII"
        raise ModelRefused(f"{name_of(place)}: the environment variable {place.key_env} holds what is no key: {odd}.")
    return key
