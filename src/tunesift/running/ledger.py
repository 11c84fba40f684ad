"""What has a run spent? Reserved before it is sent, settled when it has ended, and forgotten by no end of the process.

A reservation is durable before the request leaves. What was reserved when a process died may have been billed: it
is counted as unknown, at its bound, so that exact <= billed <= exact + unknown. What went into a provider's batch
outlives the process: it is unknown until a later life fetches the batch and settles it, once.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tunesift.books import Asking, Attempt
from tunesift.budget import Caps, Price
from tunesift.errors import BudgetSpent, StorageError
from tunesift.running.database import connected, make_durable, open_state, transaction
from tunesift.running.fsio import storage_errors

_LOG = logging.getLogger(__name__)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS reservation (
    number INTEGER PRIMARY KEY, model TEXT NOT NULL, tokens INTEGER NOT NULL, micros INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS batched (
    number INTEGER PRIMARY KEY, request TEXT NOT NULL, model TEXT NOT NULL, tokens INTEGER NOT NULL,
    micros INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS spend (
    model TEXT PRIMARY KEY, calls INTEGER NOT NULL, exact_prompt INTEGER NOT NULL, exact_completion INTEGER NOT NULL,
    exact_micros INTEGER NOT NULL, unknown_tokens INTEGER NOT NULL, unknown_micros INTEGER NOT NULL) STRICT;
"""
_ADD = """
INSERT INTO spend VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    calls = calls + excluded.calls, exact_prompt = exact_prompt + excluded.exact_prompt,
    exact_completion = exact_completion + excluded.exact_completion,
    exact_micros = exact_micros + excluded.exact_micros, unknown_tokens = unknown_tokens + excluded.unknown_tokens,
    unknown_micros = unknown_micros + excluded.unknown_micros
"""
_GONE = "DELETE FROM reservation WHERE number = ?"
_GONE_BATCHED = "DELETE FROM batched WHERE number = ?"
_READ = """
SELECT model, sum(calls), sum(exact_prompt), sum(exact_completion), sum(exact_micros), sum(unknown_tokens),
    sum(unknown_micros)
FROM (SELECT * FROM spend UNION ALL SELECT model, 1, 0, 0, 0, tokens, micros FROM batched WHERE number <= ?)
GROUP BY model ORDER BY model
"""
_TOGETHER = 256
"""Most entries of one transaction."""
HOLD_S = 0.05
"""Seconds for which what nobody waits for may be held back, to be written with what somebody waits for."""
WARN = 0.8
"""Share of a cap at which a word is said."""
MOST_OVERRUNS = 1
"""Times that a provider may bill more than its bound before the run ends."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Calls, tokens and money, together."""

    calls: int = 0
    tokens: int = 0
    micros: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.calls + other.calls, self.tokens + other.tokens, self.micros + other.micros)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.calls - other.calls, self.tokens - other.tokens, self.micros - other.micros)


@dataclass(frozen=True, slots=True)
class Spent:
    """What one model was asked and paid."""

    model: str
    calls: int
    exact_prompt: int
    exact_completion: int
    exact_micros: int
    """Millionths of the currency, by the endpoint's own count of tokens."""
    unknown_tokens: int
    """Most tokens that may have been billed beside the exact ones."""
    unknown_micros: int


@dataclass(slots=True)
class _Entry:
    """Something to be written, and whoever waits until it is."""

    statements: list[tuple[str, tuple[object, ...]]]
    awaited: bool = False
    written: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class _Reserved:
    number: int
    bound: Amount
    gone: str
    """Statement that takes it out of the books."""


class Ledger:
    """The money of a run folder, kept in `money.db`; called from many threads."""

    def __init__(self, folder: Path, caps: Caps, prices: Mapping[str, Price]) -> None:
        self._folder, self._caps, self._prices = folder, caps, prices
        with storage_errors(folder):
            self._db = connected(folder / "money.db")
            make_durable(self._db)
            self._db.executescript(_SCHEMA)
            self._give_up_reservations()
            batched = self._db.execute("SELECT number, request, tokens, micros FROM batched").fetchall()
        self._last = max((number for number, *_ in batched), default=0)
        self._numbers = count(self._last + 1)
        self._waiting: defaultdict[str, list[_Reserved]] = defaultdict(list)
        """What earlier lives sent in batches, by request."""
        for number, request, tokens, micros in batched:
            self._waiting[request].append(_Reserved(number, Amount(1, tokens, micros), _GONE_BATCHED))
        self._changed = threading.Condition()
        self._spent = sum((Amount(s.calls, s.exact_prompt + s.exact_completion + s.unknown_tokens,
                                  s.exact_micros + s.unknown_micros) for s in self._read()), Amount())  # fmt: skip
        self._reserved = Amount()
        self._open: dict[int, _Reserved] = {}
        self._overruns = 0
        self._warned = False
        self._trouble: BaseException | None = None
        self._entries: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._writer.start()

    def close(self) -> None:
        """Write what waits to be written, and close."""
        self._entries.put(None)
        self._writer.join()
        with storage_errors(self._folder):
            self._db.close()

    def spent(self) -> list[Spent]:
        """What every model was paid, as it is written down."""
        self._put(_Entry([]), wait=True)
        return self._read()

    def _read(self) -> list[Spent]:
        with storage_errors(self._folder):
            return [Spent(*row) for row in self._db.execute(_READ, (self._last,))]

    def reserve(self, asking: Asking) -> None:
        """Hold back what a request may cost, durably; raises `BudgetSpent` where the caps leave no room for it.

        Waits where they would have room if those under way cost less than they may.
        """
        (held,) = self._hold([asking], _GONE)
        row = (held.number, asking.model, held.bound.tokens, held.bound.micros)
        self._put(_Entry([("INSERT INTO reservation VALUES (?, ?, ?, ?)", row)]), wait=True)

    def reserve_together(self, askings: Sequence[Asking]) -> None:
        """The same for the requests of one file, all or none of them; these reservations outlive the process."""
        rows = [
            (held.number, asking.request, asking.model, held.bound.tokens, held.bound.micros)
            for asking, held in zip(askings, self._hold(askings, _GONE_BATCHED), strict=True)
        ]
        self._put(_Entry([("INSERT INTO batched VALUES (?, ?, ?, ?, ?)", row) for row in rows]), wait=True)

    def adopt(self, askings: Sequence[Asking]) -> None:
        """Take over what an earlier life reserved for these; what it has settled already is not entered again."""
        with self._changed:
            for asking in askings:
                if waiting := self._waiting.get(asking.request):
                    held = self._open[id(asking)] = waiting.pop()
                    self._spent -= held.bound
                    self._reserved += held.bound

    def _hold(self, askings: Sequence[Asking], gone: str) -> list[_Reserved]:
        bounds = [Amount(1, a.prompt_bound + a.completion_bound,
                         self._micros(a.model, a.prompt_bound, a.completion_bound)) for a in askings]  # fmt: skip
        bound = sum(bounds, Amount())
        with self._changed:
            while self._room(self._spent + self._reserved + bound) is not None:
                if (said := self._room(self._spent + bound)) is not None:
                    raise BudgetSpent(said)
                self._changed.wait()
            if self._overruns > MOST_OVERRUNS:
                raise BudgetSpent(f"{askings[0].model}: billed {self._overruns} times more than a request can cost; "
                                  "check its prices and its tokens_name.")  # fmt: skip
            held = [_Reserved(next(self._numbers), one, gone) for one in bounds]
            self._reserved += bound
            self._open |= {id(asking): one for asking, one in zip(askings, held, strict=True)}
        return held

    def settle(self, attempt: Attempt) -> None:
        """Enter what a request did cost, and give back what was held for it beyond that."""
        asking = attempt.asking
        prompt, completion = attempt.prompt_tokens, attempt.completion_tokens
        exact, unknown = Amount(), Amount()
        with self._changed:
            held = self._open.pop(id(asking), None)
        if held is None:
            return  # an earlier life did
        if attempt.billed == "exact":
            exact = Amount(1, prompt + completion, self._micros(asking.model, prompt, completion))
        elif attempt.billed == "counted":
            unknown = Amount(1, prompt + completion, self._micros(asking.model, prompt, completion))
        elif attempt.billed == "unknown":
            unknown = held.bound
        paid = exact + unknown
        with self._changed:
            self._reserved -= held.bound
            self._spent += paid
            self._overruns += paid.tokens > held.bound.tokens
            self._warn()
            self._changed.notify_all()
        split = (prompt, completion) if attempt.billed == "exact" else (0, 0)
        row = (asking.model, paid.calls, *split, exact.micros, unknown.tokens, unknown.micros)
        gone = (held.gone, (held.number,))
        self._put(_Entry([gone, (_ADD, row)] if paid.calls else [gone]), wait=False)

    def _micros(self, model: str, prompt: int, completion: int) -> int:
        price = self._prices.get(model)
        return price.micros(prompt, completion) if price else 0

    def _room(self, total: Amount) -> str | None:
        """None where a total is within the caps; otherwise which one it is above, in a sentence."""
        caps, spent = self._caps, self._spent
        if caps.micros is not None and total.micros > caps.micros:
            return f"{spent.micros / 1e6:g} of {caps.micros / 1e6:g} is spent; raise max_cost and start again to go on."
        if caps.tokens is not None and total.tokens > caps.tokens:
            return f"{spent.tokens:,} of {caps.tokens:,} tokens are spent; raise max_tokens and start again to go on."
        if caps.calls is not None and total.calls > caps.calls:
            return f"{spent.calls:,} of {caps.calls:,} calls are made; raise max_calls and start again to go on."
        return None

    def _warn(self) -> None:
        limits = ((self._spent.micros, self._caps.micros), (self._spent.tokens, self._caps.tokens),
                  (self._spent.calls, self._caps.calls))  # fmt: skip
        if not self._warned and any(cap is not None and have > WARN * cap for have, cap in limits):
            self._warned = True
            _LOG.warning("more than %d percent of the budget is spent", WARN * 100)

    def _give_up_reservations(self) -> None:
        """What was reserved when a process ended may have been billed."""
        with transaction(self._db):
            for model, calls, tokens, micros in self._db.execute(
                "SELECT model, count(*), sum(tokens), sum(micros) FROM reservation GROUP BY model"
            ).fetchall():
                self._db.execute(_ADD, (model, calls, 0, 0, 0, tokens, micros))
            self._db.execute("DELETE FROM reservation")

    def _put(self, entry: _Entry, wait: bool) -> None:
        if self._trouble is None:
            entry.awaited = wait
            self._entries.put(entry)
            if not wait:
                return
            entry.written.wait()
        if self._trouble is not None:
            raise StorageError(f"{self._folder / 'money.db'}: {self._trouble}; check the disk and start again.")

    def _write(self) -> None:
        """Write entries down, many in one transaction; after trouble, only wake those who wait."""
        while (first := self._entries.get()) is not None:
            together, last = self._gathered(first)
            try:
                self._commit(together)
            except sqlite3.Error as error:
                self._trouble = error
            for entry in together:
                entry.written.set()
            if last:
                return

    def _gathered(self, first: _Entry) -> tuple[list[_Entry], bool]:
        """What waits to be written, and whether nothing comes after it."""
        together, awaited = [first], first.awaited
        while len(together) < _TOGETHER:
            try:
                more = self._entries.get(block=not awaited, timeout=HOLD_S)
            except queue.Empty:
                break
            if more is None:
                return together, True
            together.append(more)
            awaited = awaited or more.awaited
        return together, False

    def _commit(self, entries: list[_Entry]) -> None:
        if self._trouble is not None:
            return
        with transaction(self._db):
            for entry in entries:
                for statement, row in entry.statements:
                    self._db.execute(statement, row)


def read_spent(folder: Path) -> list[Spent]:
    """What a run has spent, as its folder says; nothing where it asked no endpoint."""
    path = folder / "money.db"
    if not path.exists():
        return []
    with storage_errors(path), open_state(path) as db:
        return [Spent(*row) for row in db.execute(_READ, (2**62,))]
