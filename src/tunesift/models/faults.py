"""What went wrong with a request, and whose fault is it: the row's, the moment's, the endpoint's or ours?"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from tunesift.errors import (
    BudgetSpent,
    ModelRefused,
    ModelUnavailable,
    ParameterRefused,
    TunesiftError,
    shown,
)
from tunesift.models.transport import Broken, TransportFault
from tunesift.records import FailureKind

Blame = Literal["limited", "transient", "protocol", "row", "final", "stale", "ours"]
"""limited: too many requests; transient: it may work in a moment; protocol: no valid answer; row: this request will
never work; final: no request will; stale: an idle connection was closed; ours: this process has too much open."""


class Fault(Exception):
    """A request that came to no usable answer."""

    def __init__(
        self,
        blame: Blame,
        code: str,
        message: str,
        *,
        failure: FailureKind = "unreadable",
        final: type[TunesiftError] = ModelUnavailable,
    ) -> None:
        super().__init__(message)
        self.blame, self.code, self.message, self.failure, self.final = blame, code, message, failure, final
        self.pause: float | None = None
        """Seconds that the endpoint asks us to wait."""
        self.answered = False
        """Whether the endpoint said so by its status: then nothing was billed."""
        self.unresolved = False
        """Whether there is no machine of this name: at first a slip of the pen, later an outage."""


@dataclass(frozen=True, slots=True)
class _Said:
    """An error as endpoints spell it."""

    message: str
    codes: frozenset[str]
    """Its code and its type, in lower case."""
    status: int | None
    param: str


_STATUS = {
    "rate_limit_exceeded": 429, "rate_limit_error": 429, "insufficient_quota": 429, "invalid_api_key": 401,
    "authentication_error": 401, "permission_error": 403, "permission_denied": 403, "model_not_found": 404,
    "not_found_error": 404, "context_length_exceeded": 400, "content_filter": 400, "content_policy_violation": 400,
    "invalid_request_error": 400, "badrequesterror": 400, "unknown_parameter": 400, "unsupported_parameter": 400,
    "overloaded_error": 529, "server_error": 500, "internal_server_error": 500,
}  # fmt: skip
"""Status that an error named so would have had."""
_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_LONG = re.compile(
    r"context.{0,20}(length|window|size)|maximum.{0,20}tokens|too many (input )?tokens|"
    r"(prompt|input|request).{0,20} too (long|large)"
    r"|exceeds? the (available|max)",
    re.I,
)
_POLICY = re.compile(r"content.{0,20}(polic|filter|management)|safety|moderation|flagged", re.I)
_PARAMETERS = frozenset({"unknown_parameter", "unsupported_parameter", "unsupported_value"})
_BROKEN: Mapping[Broken, tuple[Blame, str]] = {
    "refused": ("transient", "E610"), "unresolved": ("transient", "E610"), "closed": ("transient", "E610"),
    "deadline": ("transient", "E610"), "stale": ("stale", "E610"), "files": ("ours", "E610"),
    "cut": ("protocol", "E620"), "slow": ("protocol", "E620"), "large": ("protocol", "E627"),
    "garbled": ("protocol", "E623"),
}  # fmt: skip


def broken(error: TransportFault) -> Fault:
    """The fault of a request without a whole answer."""
    if error.what == "certificate":
        return Fault("final", "E602", f"its certificate is not accepted ({error.message}); where it is signed by an "
                     "authority of your own, name that in SSL_CERT_FILE and set trust_env: true")  # fmt: skip
    if error.what == "public":
        return Fault("final", "E603", f"{error.message}, and http:// would show key and prompts to all on the way; "
                     "write https://, or set insecure: true", final=ParameterRefused)  # fmt: skip
    fault = Fault(*_BROKEN[error.what], error.message)
    fault.unresolved = error.what == "unresolved"
    return fault


def refusal(status: int, headers: Mapping[str, str], body: object) -> Fault:
    """The fault of an answer that is an error, by its status and by what it says."""
    said, answered = _said(body), status != 200
    if status == 200:
        status = said.status or next((_STATUS[c] for c in sorted(said.codes) if c in _STATUS), 500)
    fault = _refusal(status, said, headers)
    fault.pause = asked_pause(headers) if status == 429 or status >= 500 else None
    fault.answered = answered
    return fault


def _refusal(status: int, said: _Said, headers: Mapping[str, str]) -> Fault:
    told = f"HTTP {status}" + (f', "{shown(said.message)}"' if said.message else "")
    if 300 <= status < 400:
        to = re.sub(r"^\w+://(?:[^/@]*@)?|[/?#].*$", "", headers.get("location", ""))
        return Fault("final", "E601", f"{told}: it sends us on to {shown(to) or 'nowhere'}, where no prompt is sent; "
                     "write that address as url if you trust it")  # fmt: skip
    if status == 403 and _POLICY.search(said.message):
        return _bad_request(said, told)
    if status in (401, 403):
        return Fault("final", "E604", f"{told}: the key was refused; put a valid one in the variable of key_env",
                     final=ModelRefused)  # fmt: skip
    if status == 402 or said.codes & _QUOTA:
        return Fault("final", "E605", f"{told}: the account has no credit left; add some, and start the same "
                     "command again", final=BudgetSpent)  # fmt: skip
    if status in (404, 405, 410):
        return Fault("final", "E606", f"{told}: there is no such model or address; check model, and that url ends as "
                     "the endpoint's documentation says, commonly in /v1")  # fmt: skip
    if status == 413 or (status == 429 and _LONG.search(said.message)):
        return Fault("row", "E633", f"the request is too large for the endpoint ({told})", failure="too-long")
    if status == 429:
        return Fault("limited", "E611", told)
    if status >= 500 or status in (408, 409, 425):
        return Fault("transient", "E610", told)
    return _bad_request(said, told)


def _bad_request(said: _Said, told: str) -> Fault:
    if "context_length_exceeded" in said.codes or _LONG.search(said.message):
        return Fault("row", "E631", f"longer than the model's context ({told})", failure="too-long")
    if said.codes & {"content_filter", "content_policy_violation"} or _POLICY.search(said.message):
        return Fault("row", "E632", f"the endpoint's content policy refuses it ({told})", failure="refused")
    if said.codes & _PARAMETERS:
        return Fault("final", "E607", f"{told}: it does not take {said.param or 'a parameter'}; leave that out, or use "
                     "another endpoint", final=ParameterRefused)  # fmt: skip
    return Fault("row", "E634", f"the endpoint refuses the request ({told})", failure="refused")


def _said(body: object) -> _Said:
    found: Any = body.get("error", body) if isinstance(body, dict) else {}  # Any: JSON
    if isinstance(found, str):
        found = {"message": found}
    if not isinstance(found, dict):
        found = {}
    message = found.get("message", found.get("detail", ""))
    named = {str(found[k]).lower() for k in ("code", "type", "status") if found.get(k) is not None}
    numbers = [int(n) for n in named if re.fullmatch("[345][0-9]{2}", n)]
    param = found.get("param")
    text = message if isinstance(message, str) else str(message)[:500]
    return _Said(text, frozenset(named), next(iter(numbers), None), shown(param) if isinstance(param, str) else "")


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)s)?(?:([\d.]+)ms)?", re.A)


def asked_pause(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, in whichever way the endpoint says it; None where it does not, or says nonsense."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        if name in headers:
            seconds = _number(headers[name])
            return seconds / unit if seconds is not None else _until(headers[name], headers.get("date"))
    return exhausted(headers)


def exhausted(headers: Mapping[str, str]) -> float | None:
    """Seconds until an allowance that is used up is there again; None where there is some left."""
    pauses = []
    for name, left in headers.items():
        if name.startswith("x-ratelimit-remaining") and left.strip() == "0":
            pauses.append(_duration(headers.get(name.replace("remaining", "reset"), "")))
    return max((p for p in pauses if p is not None), default=None)


def _duration(text: str) -> float | None:
    """`1.5`, `6m0s` or `250ms` in seconds; None for anything else, points in time included."""
    seconds = _number(text)
    if seconds is not None:
        return seconds if seconds < 10**8 else None
    found = _DURATION.fullmatch(text.strip())
    if not text.strip() or not found:
        return None
    hours, minutes, rest, thousandths = (_number(part or "0") or 0.0 for part in found.groups())
    return hours * 3600 + minutes * 60 + rest + thousandths / 1000


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _until(text: str, date: str | None) -> float | None:
    """Seconds until a point in time by the endpoint's own clock; None where it does not say what time it has.

    Its clock may be wrong by hours, and so may ours.
    """
    if not date:
        return None
    try:
        when, now = parsedate_to_datetime(text), parsedate_to_datetime(date)
        seconds = (when.replace(tzinfo=when.tzinfo or UTC) - now.replace(tzinfo=now.tzinfo or UTC)).total_seconds()
    except (ValueError, OverflowError, IndexError, TypeError):
        return None
    return seconds if seconds >= 0 else None
