"""What stands in the files of a batch? A request on each line of one, an answer or an error on those of the others."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Generic, TypeVar

from tunesift.books import Asking
from tunesift.models.endpoint import Call
from tunesift.models.faults import Fault, refusal
from tunesift.models.replies import Reply, parsed, protocol
from tunesift.records import Failure, FailureKind

MOST_SENT = 3
"""Batches that a request is sent with, where they end without an answer to it and without a word against it."""
MOST_MISSED = 2
"""Batches that are complete and miss a request, or answer it with what cannot be read."""

Made = TypeVar("Made")

CUSTOM_ID = re.compile(rb'"custom_id"\s*:\s*"([0-9a-f]{32}(?:-\d+)?)"')
_NEVER_RAN = (b'"batch_expired"', b'"batch_cancelled"')
"""Marks of what the provider did not get to, and does not bill."""


@dataclass(slots=True, eq=False)
class Row(Generic[Made]):
    """One request on its way through batches."""

    id: str
    call: Call[Made]
    line: bytes
    asking: Asking
    outcome: Made | Failure | None = None
    sent: int = 0
    missed: int = 0

    def unanswered(self, fault: Fault) -> None:
        """It is sent again, unless it was often enough."""
        self.sent += 1
        if self.sent >= MOST_SENT:
            self.outcome = Failure("unanswered", f"{fault.code} no answer in {self.sent} batches ({fault.message})")

    def unreadable(self, fault: Fault) -> None:
        """The same where there should have been an answer that can be read."""
        self.missed += 1
        if self.missed >= MOST_MISSED:
            kind: FailureKind = "unanswered" if fault.code == "E650" else "unreadable"
            self.outcome = Failure(kind, f"{fault.code} {fault.message}, {self.missed} times")


def reply_of(line: bytes) -> Reply:
    """The answer that a line of a batch's file holds; raises `Fault`."""
    try:
        said = parsed(line)
    except Fault as fault:
        fault.answered = any(mark in line for mark in _NEVER_RAN)
        raise
    response = said.get("response")
    if not isinstance(response, dict) or not isinstance(body := response.get("body"), dict):
        raise protocol("E624", "a line of the batch holds no answer")
    if (status := response.get("status_code")) != 200 or body.get("error"):
        raise refusal(status if isinstance(status, int) else 500, {}, body)
    return body


def digest_of(rows: Sequence[Row[Made]]) -> str:
    """What a batch is known by: its bytes, and how often they were sent before."""
    return sha256(b"".join(row.line + bytes([row.sent, row.missed]) for row in rows)).hexdigest()[:32]


def form(content: bytes) -> tuple[bytes, bytes]:
    """A form with one file, as it is uploaded, and what kind of thing that is."""
    mark = b"tunesift-" + sha256(content).hexdigest()[:32].encode()
    head = b'Content-Disposition: form-data; name="'
    parts = [head + b'purpose"\r\n\r\nbatch\r\n', head + b'file"; filename="requests.jsonl"\r\n'
             b"Content-Type: application/jsonl\r\n\r\n" + content + b"\r\n"]  # fmt: skip
    return b"".join(
        b"--" + mark + b"\r\n" + part for part in parts
    ) + b"--" + mark + b"--\r\n", b"multipart/form-data; boundary=" + mark
