"""How are requests sent as one file that the provider answers within a day, and how is none of them bought twice?

OpenAI's format: upload the requests, make a batch of them, look until it has ended, fetch what was answered and what
was not. Nothing of it is remembered here: a batch says in its metadata which run made it and of which bytes, so
whoever starts again, or never heard that a batch was made, finds it in the provider's own list and waits for that one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from threading import Lock
from typing import Annotated, Any, TypeVar

from tunesift.books import SHELF
from tunesift.errors import BudgetSpent, ModelUnavailable, ParameterRefused, RecipeError
from tunesift.models.batch_files import CUSTOM_ID, Row, digest_of, form, reply_of
from tunesift.models.endpoint import MOST_LIMITED, MOST_TRIES, Call, Endpoint
from tunesift.models.exchange import Exchange
from tunesift.models.faults import Fault
from tunesift.models.pace import LONGEST_OUTAGE_S, Signal
from tunesift.models.replies import Reply, parsed, protocol
from tunesift.records import Failure
from tunesift.settings import INCIDENTAL, Json, Settings, canonical

MOST_BYTES = 100 * 2**20
"""Bytes of one file of requests; more of them go as two."""
MOST_PAGES = 50
"""Pages of the provider's list of batches, a hundred each, that are looked through."""

Made = TypeVar("Made")

_LOG = logging.getLogger(__name__)
_RUN, _FILE = "tunesift_run", "tunesift_file"
_ENDED = ("completed", "failed", "expired", "cancelled")
_CROWDED = re.compile(r"token_limit|rate_limit|enqueued", re.I)


@dataclass(frozen=True, kw_only=True)
class Batching(Settings):
    """How chat requests go to a provider as files that it answers within a day, commonly for half the money."""

    chunk: Annotated[int, INCIDENTAL] = 1000
    """Most requests of one file, and items that are given out together."""
    concurrency: Annotated[int, INCIDENTAL] = 2
    """Most files under way at once."""
    poll_s: Annotated[float, INCIDENTAL] = 30.0
    """Seconds between two looks at a batch."""
    window: Annotated[str, INCIDENTAL] = "24h"
    """Time that the provider may take, as it spells it."""

    def __post_init__(self) -> None:
        for name in ("chunk", "concurrency", "poll_s"):
            if (value := getattr(self, name)) <= 0:
                raise RecipeError(f"batch.{name}: {value:g} must be above 0.")


@dataclass(slots=True)
class _Patience:
    """What one errand at the provider has been through."""

    began: float
    tries: int = 0


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch at the provider."""

    id: str
    holds: frozenset[str]
    """What it was asked, by our names for requests."""
    said: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON


class Office:
    """Sends files of requests to one endpoint, and knows which answers of which batch have found their owner."""

    def __init__(self, there: Endpoint) -> None:
        self._there = there
        self._lock = Lock()
        self._taken: set[tuple[str, str]] = set()
        """Batch and request."""
        self._holds: dict[str, frozenset[str]] = {}
        """What batches of earlier lives were asked."""

    def ask(self, calls: Sequence[Call[Made]], how: Batching) -> list[Made | Failure]:
        """An answer to each call, in order, or why it has none; what an earlier life has bought is not bought again."""
        if not calls:
            return []
        epoch = self._there.turnstile.epoch
        self._there.prove(calls[0], epoch)
        rows = self._rows(calls)
        claimed: set[tuple[str, str]] = set()
        try:
            while pending := [row for row in rows if row.outcome is None]:
                batch = self._earlier(pending, epoch) or self._bought(pending, how, epoch)
                found = [row for row in pending if row.id in batch.holds]
                claimed |= {(batch.id, row.id) for row in found}
                self._answer(batch, found, how, epoch)
        except BaseException:
            with self._lock:  # whoever asks again finds them
                self._taken -= claimed
            raise
        return [row.outcome for row in rows if row.outcome is not None]

    def _rows(self, calls: Sequence[Call[Made]]) -> list[Row[Made]]:
        rows, seen = [], dict[str, int]()
        for call in calls:
            raw = canonical(call.body)
            asking = self._there.exchanges.asking(call.path, raw, call.completion_bound)
            number = seen[asking.request] = seen.get(asking.request, -1) + 1
            name = f"{asking.request}-{number}" if number else asking.request
            line = canonical({"custom_id": name, "method": "POST", "url": f"/v1{call.path}", "body": call.body})
            rows.append(Row(name, call, line + b"\n", replace(asking, request=name)))
        return rows

    def _earlier(self, pending: Sequence[Row[Made]], epoch: int) -> _Batch | None:
        """A batch of this run that was asked some of what is to be asked, and whose answers nobody has taken."""
        wanted, ours = {row.id for row in pending}, digest_of(pending)
        for said in sorted(self._listed(epoch), key=lambda b: bool(b["metadata"].get(_FILE) != ours)):
            id, file = str(said["id"]), str(said["metadata"].get(_FILE))
            if said.get("status") == "failed":
                continue
            holds = frozenset(wanted) if file == ours else self._asked(id, said, epoch)
            with self._lock:
                self._holds[id] = holds
                free = frozenset(name for name in holds & wanted if (id, name) not in self._taken)
                self._taken |= {(id, name) for name in free}
            if free:
                _LOG.info("batch %s was made before and holds %d of %d requests", id, len(free), len(wanted))
                found = [row for row in pending if row.id in free]
                for row in found:
                    row.asking = replace(row.asking, request=f"{row.id}/{file}")
                SHELF.adopt([row.asking for row in found])
                return _Batch(id, free, said)
        return None

    def _listed(self, epoch: int) -> list[Reply]:
        """Batches that this run has made, the oldest first."""
        found: list[Reply] = []
        path = "/batches?limit=100"
        for _ in range(MOST_PAGES):
            page = parsed(self._carried(path, epoch))
            listed = page.get("data")
            if not isinstance(listed, list) or not all(isinstance(b, dict) and b.get("id") for b in listed):
                raise self._no_batches("its list of batches is none")
            found += [b for b in listed if isinstance(b.get("metadata"), dict) and b["metadata"].get(_RUN) == SHELF.run]
            if not page.get("has_more") or not listed:
                break
            path = f"/batches?limit=100&after={listed[-1]['id']}"
        return sorted(found, key=lambda b: (b.get("created_at") or 0, str(b["id"])))

    def _asked(self, id: str, said: Reply, epoch: int) -> frozenset[str]:
        """What a batch was asked, by its own file; nothing where that is gone."""
        with self._lock:
            known = self._holds.get(id)
        if known is None:
            try:
                file = self._carried(f"/files/{said.get('input_file_id')}/content", epoch)
            except ModelUnavailable:
                file = b""
            known = frozenset(name.decode() for name in CUSTOM_ID.findall(file))
        return known

    def _bought(self, pending: Sequence[Row[Made]], how: Batching, epoch: int) -> _Batch:
        """A batch of as much as is to be asked and may be spent."""
        rows = self._reserved(pending[: how.chunk])
        try:
            body, kind = form(b"".join(row.line for row in rows))
            file = parsed(self._carried("/files", epoch, body, kind)).get("id")
        except BaseException:
            _not_sent(rows)
            raise
        order: dict[str, Json] = {"input_file_id": file, "endpoint": f"/v1{rows[0].call.path}",
                                  "completion_window": how.window}  # fmt: skip
        return self._made(order, rows, epoch)

    def _reserved(self, pending: Sequence[Row[Made]]) -> Sequence[Row[Made]]:
        """As many requests as one file and the budget have room for, entered in the books."""
        rows = pending
        while True:
            file = digest_of(rows)
            for row in rows:
                row.asking = replace(row.asking, request=f"{row.id}/{file}")
            try:
                if sum(len(row.line) for row in rows) <= MOST_BYTES or len(rows) == 1:
                    SHELF.reserve_together([row.asking for row in rows])
                    return rows
            except BudgetSpent:
                if len(rows) == 1:
                    raise
            rows = rows[: len(rows) // 2]

    def _made(self, order: dict[str, Json], rows: Sequence[Row[Made]], epoch: int) -> _Batch:
        """Make a batch, once: where the answer is lost, the provider's list says whether there is one."""
        patience = _Patience(self._there.turnstile.clock.now())
        holds, file = frozenset(row.id for row in rows), digest_of(rows)
        order = order | {"metadata": {_RUN: SHELF.run, _FILE: file, "tunesift_rows": str(len(rows))}}
        while True:
            try:
                said = parsed(self._once("/batches", epoch, canonical(order)))
                if not said.get("id"):
                    raise protocol("E624", "the answer names no batch")
            except Fault as fault:
                if fault.blame in ("final", "row"):
                    _not_sent(rows)
                self._bear(fault, patience, epoch)
                found = next((b for b in self._listed(epoch) if self._is_lost(b, file, holds)), None)
                if found is None:
                    continue
                said = found
                self._there.exchanges.tell("lost batch", f"{self._there.name}: the answer to making a batch was lost; "
                                           "it was found in the list")  # fmt: skip
            batch = _Batch(str(said["id"]), holds, said)
            with self._lock:
                self._taken |= {(batch.id, name) for name in holds}
                self._holds[batch.id] = holds
            return batch

    def _is_lost(self, said: Reply, file: str, holds: frozenset[str]) -> bool:
        """Whether a batch is the one that was to be made, which nobody knows of."""
        with self._lock:
            taken = any((str(said["id"]), name) in self._taken for name in holds)
        return said["metadata"].get(_FILE) == file and said.get("status") != "failed" and not taken

    def _answer(self, batch: _Batch, rows: Sequence[Row[Made]], how: Batching, epoch: int) -> None:
        """Wait until a batch has ended, and give every row what it says of it."""
        said: Mapping[str, Any] = batch.said  # Any: JSON
        while said.get("status") not in _ENDED:
            self._there.turnstile.sleep(how.poll_s, epoch)
            said = parsed(self._carried(f"/batches/{batch.id}", epoch))
        if said["status"] == "failed":
            self._refused(said, rows, how, epoch)
            return
        files = [said[name] for name in ("output_file_id", "error_file_id") if said.get(name)]
        lines = chain.from_iterable(self._carried(f"/files/{f}/content", epoch).split(b"\n") for f in files)
        by_id, answered, strange = {row.id: row for row in rows}, set[str](), 0
        for line in lines:
            name = found[1].decode() if (found := CUSTOM_ID.search(line)) else ""
            strange += bool(line.strip()) and (name in answered or name not in self._holds[batch.id])
            if name in by_id and name not in answered:
                answered.add(name)
                self._read(by_id[name], line)
        if strange:
            self._there.exchanges.tell(f"strange {batch.id}", f"{self._there.name}: {strange} answers of the batch "
                                       f"{batch.id} are to nothing that was asked, or come twice")  # fmt: skip
        self._give_up_on([row for row in rows if row.id not in answered], said["status"])

    def _read(self, row: Row[Made], line: bytes) -> None:
        exchange = Exchange(row.asking, 0.0)
        try:
            reply = reply_of(line)
            exchange.replied(reply)
            self._there.exchanges.check_served(reply)
            row.outcome = row.call.read(reply, exchange.tokens.completion)
        except Fault as fault:
            exchange.failed(fault, sent=True)
            if fault.blame == "final":
                raise self._there.final(self._there.error(fault)) from None
            if fault.blame == "row":
                row.outcome = Failure(fault.failure, f"{fault.code} {fault.message}")
            elif fault.blame == "protocol":
                row.unreadable(fault)
            else:
                row.unanswered(fault)
        finally:
            SHELF.settle(exchange.attempt())

    def _give_up_on(self, rows: Sequence[Row[Made]], status: str) -> None:
        """What a batch says nothing of may have been billed, and is sent again."""
        fault = protocol("E650", f"a batch that is {status} does not say what became of the request")
        for row in rows:
            exchange = Exchange(row.asking, 0.0)
            exchange.failed(fault, sent=True)
            SHELF.settle(exchange.attempt())
            row.unreadable(fault) if status == "completed" else row.unanswered(fault)

    def _refused(self, said: Mapping[str, Any], rows: Sequence[Row[Made]], how: Batching, epoch: int) -> None:
        """A batch was not even begun: wait where the provider has enough of ours, else end the run."""
        errors = said["errors"].get("data") if isinstance(said.get("errors"), dict) else None
        told = "; ".join(str(e.get("message"))[:100] for e in (errors or [])[:2] if isinstance(e, dict))
        _not_sent(rows)
        for row in rows:
            row.sent += 1
        if not _CROWDED.search(f"{errors}") or rows[0].sent >= MOST_LIMITED:
            raise self._there.final(ParameterRefused(f"{self._there.name}: E607 a batch was refused ({told[:200]}); "
                                                     "change model, parameters or batch."))  # fmt: skip
        self._there.turnstile.sleep(max(60.0, how.poll_s), epoch)

    def _carried(self, path: str, epoch: int, body: bytes | None = None, kind: bytes = b"application/json") -> bytes:
        """What the provider answers to an errand that may be done twice."""
        patience = _Patience(self._there.turnstile.clock.now())
        while True:
            try:
                return self._once(path, epoch, body, kind)
            except Fault as fault:
                self._bear(fault, patience, epoch)

    def _once(self, path: str, epoch: int, body: bytes | None = None, kind: bytes = b"application/json") -> bytes:
        ticket = self._there.turnstile.enter(epoch)
        signal: Signal = "neutral"
        try:
            found = self._there.exchanges.carry(path, body, kind)
            signal = "good"
            return found
        except Fault as fault:
            signal = "limited" if fault.blame == "limited" else "trouble" if fault.blame == "transient" else "alive"
            raise
        finally:
            self._there.turnstile.leave(ticket, signal)

    def _bear(self, fault: Fault, patience: _Patience, epoch: int) -> None:
        """Return when an errand may be tried again; raises where that is in vain."""
        there = self._there
        if fault.code == "E606":
            raise self._no_batches(fault.message)
        if fault.blame in ("final", "row"):
            raise there.final(there.error(Fault("final", fault.code, fault.message, final=fault.final)))
        patience.tries += fault.blame != "stale"
        if patience.tries >= MOST_TRIES and there.turnstile.clock.now() - patience.began > LONGEST_OUTAGE_S:
            raise there.final(ModelUnavailable(f"{there.name}: {fault.code} {fault.message}; start the same command "
                                               "again later, and what is bought is fetched."))  # fmt: skip
        if fault.blame == "limited":
            there.limited(fault)
        elif fault.blame != "stale":
            there.turnstile.rest(patience.tries, epoch)

    def _no_batches(self, why: str) -> ModelUnavailable:
        return ModelUnavailable(
            f"{self._there.name}: it has no batches, or has this one no longer ({why}); leave batch out."
        )


def _not_sent(rows: Sequence[Row[Made]]) -> None:
    for row in rows:
        SHELF.settle(Exchange(row.asking, 0.0).attempt())


_OPENING = Lock()
_OFFICES: dict[Endpoint, Office] = {}


def office(there: Endpoint) -> Office:
    """The one office of this process for an endpoint."""
    with _OPENING:
        return _OFFICES.setdefault(there, Office(there))
