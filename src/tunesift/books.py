"""What was asked of endpoints, and what did it cost? Every attempt is entered before it is sent and after it ended."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from tunesift.settings import Json

Billed = Literal["exact", "counted", "unknown", "nothing"]
"""exact: by the endpoint's own count; counted: it gave none that can be believed, ours is at least as large; unknown:
it may have billed up to the bound; nothing: it refused, or was never reached."""


@dataclass(frozen=True, slots=True)
class Asking:
    """A request that is about to be sent."""

    model: str
    """The model's name at its endpoint, by which prices are found."""
    endpoint: str
    """Model and address, without credentials."""
    path: str
    """Below the address: `/chat/completions`."""
    request: str
    """Digest of path and bytes that are sent; equal for the attempts of one call."""
    prompt_bound: int
    """Most tokens that may be billed for the prompt: one per byte of the request."""
    completion_bound: int
    """Most tokens that may be billed for what comes back."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of a request."""

    asking: Asking
    code: str
    """Empty for an answer; otherwise the code of the fault."""
    billed: Billed
    prompt_tokens: int
    completion_tokens: int
    served: str | None
    """The model that answered, by the endpoint's own account."""
    seconds: float


class Books(Protocol):
    """Whoever wants to know of every attempt; called from many threads."""

    def reserve(self, asking: Asking) -> None:
        """Before a request is sent; raises `BudgetSpent` where it must not be."""
        ...

    def check(self, asking: Asking) -> None:
        """Before anything is sent for a request; raises `BudgetSpent` where it could not be sent even alone."""
        ...

    def settle(self, attempt: Attempt) -> None:
        """When it has ended."""
        ...

    def reserve_together(self, askings: Sequence[Asking]) -> None:
        """Before requests are sent as one file that may outlive this process; raises `BudgetSpent` for all or none."""
        ...

    def adopt(self, askings: Sequence[Asking]) -> None:
        """Before requests are settled that an earlier process sent so."""
        ...


class _Shelf:
    """The books that are kept now."""

    def __init__(self) -> None:
        self._kept: list[Books] = []
        self._runs = [secrets.token_hex(8)]

    @property
    def run(self) -> str:
        """The name of the run that asks, the same in all its lives; of the process where there is none."""
        return self._runs[-1]

    @contextmanager
    def of_run(self, name: str) -> Iterator[None]:
        """What is asked as long as the block runs is asked by this run."""
        self._runs.append(name)
        try:
            yield
        finally:
            self._runs.remove(name)

    @contextmanager
    def keeping(self, books: Books) -> Iterator[None]:
        """Enter every attempt in these books as long as the block runs."""
        self._kept.append(books)
        try:
            yield
        finally:
            self._kept.remove(books)

    def reserve(self, asking: Asking) -> None:
        """Enter a request before it is sent."""
        for books in self._kept:
            books.reserve(asking)

    def check(self, asking: Asking) -> None:
        """See that a request could be sent if it were the next one."""
        for books in self._kept:
            books.check(asking)

    def reserve_together(self, askings: Sequence[Asking]) -> None:
        """Enter the requests of one file before it is sent."""
        for books in self._kept:
            books.reserve_together(askings)

    def adopt(self, askings: Sequence[Asking]) -> None:
        """Take over what an earlier process entered so."""
        for books in self._kept:
            books.adopt(askings)

    def settle(self, attempt: Attempt) -> None:
        """Enter what became of it."""
        for books in self._kept:
            books.settle(attempt)


SHELF = _Shelf()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that an answer was billed for."""

    prompt: int
    completion: int
    billed: Billed


def usage(said: Json, asking: Asking, completion_bytes: Callable[[], int]) -> Usage:
    """Tokens by the endpoint's count; where that is missing or impossible, by ours if that is larger."""
    numbers = said if isinstance(said, dict) else {}
    prompt, completion = (numbers.get(name, 0) for name in ("prompt_tokens", "completion_tokens"))
    if type(prompt) is int and type(completion) is int and "prompt_tokens" in numbers:
        if 0 <= prompt <= asking.prompt_bound and 0 <= completion <= asking.completion_bound:
            return Usage(prompt, completion, "exact")
        ours = min(completion_bytes(), asking.completion_bound)
        return Usage(max(prompt, asking.prompt_bound), max(completion, ours), "counted")
    return Usage(asking.prompt_bound, min(completion_bytes(), asking.completion_bound), "counted")
