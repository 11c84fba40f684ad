"""The attempt loop over a scripted transport and a clock of its own: hours of limits and outages in a moment."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import count, pairwise
from threading import Condition
from typing import Any

import pytest

from tunesift import Completion, ModelUnavailable, Sampling
from tunesift.models.endpoint import Call, Endpoint
from tunesift.models.exchange import Place
from tunesift.models.replies import completions
from tunesift.models.transport import Answer, TransportFault, Way
from tunesift.models.turnstile import Clock, Turnstile

PROBE = {"model": "m", "messages": [{"role": "user", "content": "Say OK."}]}
SAID = {"model": "m", "choices": [{"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1}}  # fmt: skip
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
Script = Callable[[float, dict[str, Any]], Answer]


class OwnClock(Clock):
    """Time that passes when somebody waits, and while a request is answered."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> float:
        return self.at

    def wait(self, condition: Condition, seconds: float) -> None:
        self.at += seconds


class Scripted:
    """A wire that says what a script says, each answer after a tenth of a second."""

    def __init__(self, clock: OwnClock, script: Script) -> None:
        self.clock, self.script = clock, script

    def send(self, path: str, headers: object, body: bytes) -> Answer:
        answer = self.script(self.clock.at, json.loads(body))
        self.clock.at += 0.1
        return answer


def endpoint_of(script: Script) -> tuple[Endpoint, OwnClock]:
    clock = OwnClock()
    place = Place(Way("http://127.0.0.1:1/v1", 10.0, False, False), "m", None, 8, False)
    there = Endpoint(place, None, Turnstile("m", 8, clock))
    there.exchanges._wire = Scripted(clock, script)  # type: ignore[assignment]
    return there, clock


def call(row: int) -> Call[tuple[Completion, ...]]:
    body: Any = {"model": "m", "messages": [{"role": "user", "content": f"row={row}"}], "max_tokens": 9}
    probe: Any = PROBE
    read = completions
    return Call(
        "/chat/completions", body, probe, lambda r, t: read(r, 1, t), lambda r: read(r, 1, 0), Sampling().max_tokens
    )


def ok() -> Answer:
    return Answer(200, {"content-type": "application/json"}, json.dumps(SAID).encode())


def pauses(draw: random.Random, seconds: float, now: float) -> dict[str, str]:
    """One way of asking for so many seconds; the server's clock is some hours wrong."""
    skewed = EPOCH + timedelta(seconds=int(now), hours=draw.choice((-7, 0, 3)))
    return draw.choice([
        {"retry-after": f"{seconds:.3f}"}, {"retry-after-ms": f"{seconds * 1000:.0f}"},
        {"retry-after": format_datetime(skewed + timedelta(seconds=int(seconds)), usegmt=True),
         "date": format_datetime(skewed, usegmt=True)},
        {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": f"{seconds:.3f}s"},
    ])  # fmt: skip


def test_R16_nobody_is_early_in_ten_thousand_refusals_of_every_form() -> None:
    draw, gate, refused, early = random.Random(16), 0.0, 0, 0
    numbers = count()

    def script(now: float, body: dict[str, Any]) -> Answer:
        nonlocal gate, refused, early
        early += now < gate - 1e-6
        if (number := next(numbers)) % 10 == 0:
            return ok()
        refused += 1
        seconds = 3599.0 if number % 50 == 1 else draw.choice((0.6, 1.0, 7.0, 59.0, 300.0))
        # A date is read in whole seconds, and every pause begins when its answer has come.
        gate = now + 0.1 + seconds - (seconds % 1)
        return Answer(429, pauses(draw, seconds, now), b"{}")

    there, clock = endpoint_of(script)
    made = [there.ask(call(row)) for row in range(1112)]
    assert all(isinstance(m, tuple) for m in made)
    assert refused >= 10_000
    assert early == 0
    assert clock.at > 10_000 * 100, "they were hours, and nobody slept"


@pytest.mark.parametrize("seed", range(20))
def test_R20_five_minutes_of_outage_cost_no_row_and_a_probe_a_second_at_most(seed: int) -> None:
    draw = random.Random(seed)
    begins = draw.uniform(1, 30)
    ends, down, first = begins + 300, list[tuple[float, bool]](), []

    def script(now: float, body: dict[str, Any]) -> Answer:
        if begins <= now < ends:
            down.append((now, "row=" not in str(body)))
            return Answer(draw.choice((500, 502, 503, 529)), {}, b"{}")
        if now >= ends:
            first.append(now)
        return ok()

    there, _ = endpoint_of(script)
    made = [there.ask(call(row)) for row in range(400)]
    assert all(isinstance(m, tuple) for m in made), "no row is set aside"
    assert first[0] - ends <= 30.2
    probes = [now for now, probe in down if probe]
    assert probes
    assert all(later - earlier >= 0.99 for earlier, later in pairwise(probes))
    assert len(probes) <= 20, "1, 2, 4, ... 30 s apart"
    rows = [now for now, probe in down if not probe]
    assert len(rows) <= 8, "six attempts at one row, and then nothing but probes"


class Unreachable(Scripted):
    """A wire on which some requests come to no answer at all."""

    def __init__(self, clock: OwnClock, broken: Callable[[float], TransportFault | None]) -> None:
        super().__init__(clock, lambda _now, _body: ok())
        self.broken, self.tried = broken, list[float]()

    def send(self, path: str, headers: object, body: bytes) -> Answer:
        self.tried.append(self.clock.at)
        if (fault := self.broken(self.clock.at)) is not None:
            self.clock.at += 0.1
            raise fault
        return super().send(path, headers, body)


def unreachable(broken: Callable[[float], TransportFault | None]) -> tuple[Endpoint, Unreachable]:
    there, clock = endpoint_of(lambda _now, _body: ok())
    wire = Unreachable(clock, broken)
    there.exchanges._wire = wire  # type: ignore[assignment]
    return there, wire


def test_F01_connections_that_are_refused_for_ten_minutes_end_the_run_and_not_sooner() -> None:
    there, wire = unreachable(lambda now: TransportFault("refused", "no connection") if now > 5 else None)
    with pytest.raises(ModelUnavailable, match="no answer for 10 minutes") as raised:
        assert all(isinstance(there.ask(call(row)), tuple) for row in range(400)), "no row is set aside"
    assert raised.value.exit_code == 69
    assert 600 <= wire.clock.at - 5 <= 720
    assert len(wire.tried) <= 50 + 6 + 30


def test_an_endpoint_that_comes_back_after_it_counted_as_gone_is_found_again_and_meanwhile_nobody_waits() -> None:
    there, wire = unreachable(lambda now: TransportFault("refused", "no connection") if 5 < now < 2_000 else None)
    lost, waited = list[int](), list[float]()
    for row in range(300):
        began = wire.clock.at
        try:
            assert isinstance(there.ask(call(row)), tuple)
        except ModelUnavailable:
            lost.append(row)
            waited.append(wire.clock.at - began)
        wire.clock.at += 10  # others of the run have their turn
    assert waited[0] >= 600
    assert max(waited[1:]) < 1, "who comes later does not sit out the outage again"
    assert 100 < len(lost) < 150
    assert lost == list(range(lost[0], lost[-1] + 1)), "once it is back, everybody is answered"
    down = [when for when in wire.tried if 700 < when < 2_000]
    assert all(29 <= later - earlier <= 41 for earlier, later in pairwise(down)), "a probe each half minute, no more"


def test_what_goes_on_without_an_endpoint_that_hangs_waits_for_it_a_tenth_of_its_time() -> None:
    there, wire = unreachable(lambda now: None)

    def hang(now: float) -> TransportFault | None:
        if not 5 < now < 8_000:
            return None
        wire.clock.at += 120
        return TransportFault("deadline", "no answer in time")

    wire.broken = hang
    waited, lost = 0.0, 0
    while (began := wire.clock.at) < 12_000:
        try:
            assert isinstance(there.ask(call(0)), tuple)
        except ModelUnavailable:
            waited += wire.clock.at - began if lost else 0.0
            lost += 1
        wire.clock.at += 10  # others of the run have their turn
    assert lost > 100
    assert 0 < waited < 0.12 * 8_000
    assert isinstance(there.ask(call(1)), tuple), "and it is found when it is back"


@pytest.mark.parametrize("what", ["refused", "unresolved", "closed", "deadline"])
def test_F01_F02_what_cannot_be_reached_for_a_while_costs_no_row(what: Any) -> None:
    there, wire = unreachable(lambda now: TransportFault(what, "gone") if 5 < now < 125 else None)
    assert all(isinstance(there.ask(call(row)), tuple) for row in range(200))
    assert len([t for t in wire.tried if 5 < t < 125]) >= 6, "it was tried meanwhile"


def test_R25_a_model_that_changes_during_a_stage_is_told_of_each_time(caplog: pytest.LogCaptureFixture) -> None:
    def script(now: float, body: dict[str, Any]) -> Answer:
        name = "m" if now < 2 else "m-of-may" if now < 4 else "m-of-june"
        return Answer(200, {"content-type": "application/json"}, json.dumps(SAID | {"model": name}).encode())

    there, _ = endpoint_of(script)
    with caplog.at_level("WARNING"):
        for row in range(60):
            assert isinstance(there.ask(call(row)), tuple)
    told = [r.message for r in caplog.records if "answers" in r.message]
    assert [name for text in told for name in ("m-of-may", "m-of-june") if name in text] == ["m-of-may", "m-of-june"]
