"""The faults of an endpoint (R15 of docs/reliability.md): each ends in its class, over both routes, with the right attempts and bill."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from faultserver.client import FaultServer
from faultserver.fixtures import Ledger, Make, spellings
from tunesift import (
    BudgetSpent,
    Completion,
    Failure,
    HttpModel,
    Message,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    ParameterRefused,
    Sampling,
    Span,
)

pytestmark = pytest.mark.slow

LATER = format_datetime(datetime.now(UTC) + timedelta(hours=1, seconds=2), usegmt=True)
AHEAD = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)


@dataclass(frozen=True)
class Case:
    """A fault, and what must become of the row that meets it."""

    name: str
    do: list[dict[str, Any]]
    ends: str
    """"good", the code of a failure, or the class of an error."""
    attempts: int = 1
    """Requests about the row that the server must see."""
    first: int = 10**9
    """The fault is played for so many attempts; the next is answered."""
    timeout_s: float = 10.0
    routes: str = "both"
    billed: str = ""
    """How the first attempt at the row must stand in the books."""
    settings: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        return self.name


def status(number: int, message: str = "", **more: Any) -> list[dict[str, Any]]:
    error = {"message": message, "code": more.pop("code", ""), "param": more.pop("param", "")}
    return [{"status": number, "headers": more}, {"body": f"text:{json.dumps({'error': error})}"}]


HOUR = {"Retry-After": "3000000000"}
CASES = [
    # One more than six: the first goes over the connection that was idle, and counts as F09.
    Case("F04 closed without a byte", [{"close": True}], "E610", 7, billed="unknown"),
    Case("F04 reset without a byte", [{"rst": True}], "good", 2, 1),
    Case("F05 reset in mid-body", [{"cut_at": 20}, {"rst": True}], "E620", 3, billed="unknown"),
    Case("F06 silence before headers", [{"hang": 3}], "E610", 6, timeout_s=0.3, billed="unknown"),
    Case("F07 silence in mid-body", [{"chunk": [10, 0]}, {"hang_at": [40, 3]}], "E620", 3, timeout_s=0.3, billed="unknown"),
    Case("F08 slow drip", [{"chunk": [4, 0.3]}], "E620", 3, timeout_s=1.0, billed="unknown"),
    Case("F11 Retry-After seconds", status(429, **{"Retry-After": "2"}), "good", 4, 3, billed="nothing"),
    Case("F12 Retry-After date by a clock that is an hour ahead",
         status(429, **{"Retry-After": LATER, "Date": AHEAD}), "good", 3, 2),
    Case("F13 retry-after-ms", status(429, **{"retry-after-ms": "1500"}), "good", 3, 2),
    Case("F13 x-ratelimit-reset", status(429, **{"x-ratelimit-remaining-requests": "0",
                                                 "x-ratelimit-reset-requests": "1m2s"}), "good", 3, 2),
    Case("F14 429 without a header", status(429), "good", 8, 7),
    *[Case(f"F15 Retry-After {v}", status(429, **{"Retry-After": v}), "good", 4, 3)
      for v in ("-5", "inf", "NaN", "soon", "", "Fri, 99 Foo 2020 00:00:00 GMT")],
    Case("F15 Retry-After ten years, once", status(429, **HOUR), "good", 2, 1),
    Case("F15 Retry-After ten years, again", status(429, **HOUR), "ModelUnavailable 69", 2),
    Case("F16 no quota", status(429, code="insufficient_quota"), "BudgetSpent 4"),
    Case("F16 payment required", status(402), "BudgetSpent 4"),
    Case("F17 500 with HTML", [{"status": 500}, {"body": "html"}], "E610", 6, billed="nothing"),
    Case("F18 502", status(502), "good", 6, 5),
    Case("F19 503 with Retry-After", status(503, **{"Retry-After": "20"}), "good", 3, 2),
    Case("F20 529 overloaded", status(529), "E610", 6),
    Case("F21 408", status(408), "E610", 6),
    Case("F22 409", status(409), "E610", 6),
    Case("F23 context length", status(400, "This model's maximum context length is 8192 tokens"), "E631"),
    Case("F23 context length by its code", status(400, code="context_length_exceeded"), "E631"),
    Case("F24 content policy", status(400, code="content_policy_violation"), "E632"),
    Case("F25 unknown parameter", status(400, "Unrecognized request argument", code="unknown_parameter", param="seed"), "ParameterRefused 64"),
    Case("F26 401", status(401, "Incorrect API key provided"), "ModelRefused 77"),
    Case("F27 403", status(403), "ModelRefused 77"),
    Case("F28 404", status(404, "The model does not exist"), "ModelUnavailable 69"),
    Case("F29 413", status(413), "E633"),
    Case("F30 422", status(422, "bad"), "E634"),
    *[Case(f"F31 {c} to another host", status(c, Location="http://127.0.0.2:OTHER/v1/chat/completions"),
           "ModelUnavailable 69") for c in (301, 302, 307, 308)],
    Case("F32 200 with a rate limit's error", [{"body": 'text:{"error": {"code": "rate_limit_exceeded"}}'}], "good", 3, 2),
    Case("F32 200 with an error object", [{"body": 'text:{"error": {"message": "no", "code": 503}}'}], "E610", 6),
    Case("F32 200 with a wrong key", [{"body": 'text:{"error": {"code": "invalid_api_key"}}'}], "ModelRefused 77"),
    Case("F33 truncated JSON", [{"body": "truncated"}], "E620", 3, billed="unknown"),
    Case("F34 body shorter than its length", [{"cut_at": 30}], "E620", 3, billed="unknown"),
    Case("F35 invalid UTF-8", [{"body": "utf8"}], "E621", 3),
    Case("F36 empty body", [{"body": "empty"}], "E622", 3),
    Case("F37 login page", [{"body": "html"}, {"headers": {"Content-Type": "text/html"}}], "E623", 3),
    *[Case(f"F38 {b}", [{"body": b}], "E623", 3) for b in ("null", "list", "number")],
    Case("F39 choices empty", [{"change": {"choices": []}}], "E624", 3),
    Case("F40 choices null", [{"change": {"choices": None}}], "E624", 3),
    Case("F40 choices missing", [{"change": {"choices": "-"}}], "E624", 3),
    Case("F41 content filter", [{"change": {"choices.0.message.content": None, "choices.0.finish_reason": "content_filter"}}],
         "E632", routes="chat", billed="exact"),
    Case("F42 tool calls", [{"change": {"choices.0.message.content": None, "choices.0.finish_reason": "tool_calls",
                                        "choices.0.message.tool_calls": [{"id": "x"}]}}], "E635", routes="chat"),
    Case("F43 finish length", [{"change": {"choices.0.finish_reason": "length"}}], "length", routes="chat"),
    Case("F44 repeated keys", [{"body": "twice"}], "E625", 3),
    Case("F45 NaN", [{"body": "nan"}], "E625", 3),
    Case("F45 Infinity", [{"body": "infinity"}], "E625", 3),
    Case("F45 NaN as a log-probability", [{"body": "nanprob"}], "E641", routes="completion"),
    Case("F46 5,000 digits", [{"body": "digits"}], "E625", 3),
    Case("F47 100,000 levels", [{"body": "deep"}], "E625", 3),
    Case("F48 lone surrogate", [{"body": "surrogate"}], "E637"),
    *[Case(f"F49 log-probabilities {n}", [{"change": {f"choices.0.logprobs{at}": v}}], "E640", routes="completion")
      for n, at, v in (("of wrong type", ".token_logprobs.1", "x"), ("true", ".token_logprobs.1", True),
                       ("positive", ".token_logprobs.1", 0.5), ("too few", ".token_logprobs", [None]),
                       ("missing", "", None), ("null", ".token_logprobs.2", None))],
    Case("F50 usage missing", [{"change": {"usage": "-"}}], "good", billed="counted"),
    Case("F51 usage negative", [{"change": {"usage.completion_tokens": -5}}], "good", billed="counted"),
    Case("F51 usage huge", [{"change": {"usage.completion_tokens": 10**9}}], "good", billed="counted"),
    Case("F52 three for four", [{"change": {"choices.3": "-"}}], "E626", 3, routes="draws"),
    Case("F52 five for four", [{"change": {"choices.4": {"index": 4}}}], "E626", 3, routes="draws"),
    Case("F53 choices out of order", [{"change": {"choices.0.index": 1, "choices.1.index": 0}}], "swapped", routes="draws"),
    Case("F54 index repeated", [{"change": {"choices.0.index": 1}}], "E626", 3, routes="draws"),
    Case("F54 index missing", [{"change": {"choices.0.index": "-"}}], "E626", 3, routes="draws"),
    Case("F55 another model", [{"change": {"model": "other-model"}}], "good"),
    Case("F55 another model, pinned", [{"change": {"model": "other-model"}}], "ModelUnavailable 69",
         settings=(("pin_served_model", True),)),
    Case("F56 gzip bomb", [{"body": "bomb:40"}, {"encoding": "gzip"}], "E627", 3),
    Case("F57 headers of 200 KB", [{"headers": {"X-Long": "x" * 200_000}}], "E627", 3),
    Case("F58 wrong content type", [{"headers": {"Content-Type": "text/plain"}}], "good"),
    Case("a packed answer", [{"encoding": "gzip"}], "good"),
    Case("a packing that was not asked for", [{"headers": {"Content-Encoding": "br"}}], "E623", 3),
    *[Case(f"F59 {n}", do, ends, attempts, routes="stream") for n, do, ends, attempts in (
        ("whole", [{"chunk": [7, 0]}], "good", 1),
        ("cut in mid-event", [{"cut_at": 500}], "E620", 3),
        ("an error event", [{"body": 'text:data: {"error": {"message": "x", "code": 503}}\n\n'}], "E610", 6),
        ("HTML instead", [{"body": "html"}], "E623", 3),
        ("comments and split UTF-8", [{"chunk": [1, 0]}], "good", 1))],
]  # fmt: skip


def ask(model: HttpModel, route: str) -> Any:
    if route == "completion":
        return model.loss([Span("row=3 é ", "target")])[0]
    if route == "draws":
        return model.draws([[Message("user", "row=3 é")]], Sampling(temperature=1.0), 4)[0]
    return model.chat([[Message("user", "row=3 é")]], Sampling())[0]


def routes(case: Case) -> list[str]:
    return ["chat", "completion"] if case.routes == "both" else [case.routes]


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("case", "route"), [pytest.param(c, r, id=f"{c}-{r}") for c in CASES for r in routes(c)])
def test_every_fault_ends_in_its_class(
    case: Case, route: str, server: FaultServer, make: Make, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    do = [{k: v for k, v in action.items()} for action in case.do]
    if "F31" in case.name:
        do[0]["headers"] = {"Location": f"http://127.0.0.2:{server.other}/v1/chat/completions"}
    server.script({"match": {"row": 3, "nth_attempt": [1, case.first]}, "do": do})
    model = make(timeout_s=case.timeout_s, stream=route == "stream", **dict(case.settings))
    model.preflight() if route != "completion" else model.loss([Span("a", "b")])
    outcome = ended(lambda: ask(model, route))
    assert outcome == case.ends
    told = f"{caplog.text} {outcome} {ledger} {model!r}"
    assert not [s for s in spellings() if s in told], "a secret is told"
    seen = server.rows()
    assert len(seen) == case.attempts, seen
    assert {line["host"] for line in seen} == {"127.0.0.1"}, "nothing is ever posted elsewhere"
    billed = [a.billed for a in ledger.done if a.asking.completion_bound != 16]
    if case.billed:
        assert billed[-case.attempts] == case.billed
    exact = sum(a.prompt_tokens + a.completion_tokens for a in ledger.done if a.billed in ("exact", "counted"))
    most = exact + sum(a.prompt_tokens + a.completion_tokens for a in ledger.done if a.billed == "unknown")
    bill = server.bill()
    assert "F51" in case.name or bill["prompt_tokens"] + bill["completion_tokens"] <= most


def ended(do: Callable[[], Any]) -> str:
    """How a row ended, in a word or two."""
    try:
        made = do()
    except ModelError as error:
        return f"{type(error).__name__} {error.exit_code}" if len(str(error)) <= 400 else f"a long message: {error}"
    if isinstance(made, Failure):
        return made.message.split(" ")[0]
    if isinstance(made, tuple):
        return "swapped" if len({c.text for c in made}) == 4 else "four alike"
    if isinstance(made, Completion):
        return "good" if made.stop == "stop" and made.text.startswith("reply to row=3") else made.stop
    return "good" if len(made.nats) == 6 else f"{len(made.nats)} losses"


FIRST = {"F25": ParameterRefused, "F26": ModelRefused, "F27": ModelRefused, "F28": ModelUnavailable, "F16": BudgetSpent}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("case", [c for c in CASES if c.name[:3] in FIRST], ids=str)
def test_preflight_finds_it_with_one_call(case: Case, server: FaultServer, make: Make) -> None:
    server.script({"do": case.do})
    with pytest.raises(FIRST[case.name[:3]]) as raised:
        make().chat([[Message("user", "row=3")]], Sampling())
    assert f"{type(raised.value).__name__} {raised.value.exit_code}" == case.ends
    assert len(server.lines()) == 1
    assert server.rows() == []


@pytest.mark.usefixtures("fast")
def test_F01_a_refused_connection_ends_the_run(make: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ModelUnavailable, match="Connection refused") as raised:
            make(url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1").preflight()
    assert raised.value.exit_code == 69


@pytest.mark.usefixtures("fast")
def test_F02_a_name_that_does_not_resolve_ends_the_run_at_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unknown(address: object, *_: object, **__: object) -> None:
        asked.append(address)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ModelUnavailable, match=r"the name vllm\.example is not known"):
        make(url="http://vllm.example/v1").preflight()
    assert len(asked) == 1


@pytest.mark.usefixtures("fast")
def test_a_lookup_that_takes_for_ever_ends_with_the_attempt(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5) or [])
    began = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"no address of vllm\.example within 0 s"):
        make(url="http://vllm.example/v1", timeout_s=0.2).preflight()
    assert time.monotonic() - began < 6 * 0.2 + 1
