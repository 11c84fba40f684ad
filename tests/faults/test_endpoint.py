"""What endpoints do to a whole run: limits, outages, drips, bombs, wrong keys, and what must never leave the machine."""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from faultserver.client import FaultServer, serving
from faultserver.fixtures import KEY, FastClock, Ledger, Make, spellings
from tunesift import (
    Completion,
    Failure,
    HttpModel,
    Message,
    ModelRefused,
    ModelUnavailable,
    ParameterRefused,
    Sampling,
    Span,
    Stopped,
)
from tunesift.models import endpoint
from tunesift.models.turnstile import INTERRUPTIONS

pytestmark = pytest.mark.slow

SAMPLING = Sampling(max_tokens=32)


def question(row: int) -> list[Message]:
    return [Message("user", f"row={row} what?")]


def chat(model: HttpModel, row: int) -> Completion | Failure:
    return model.chat([question(row)], SAMPLING)[0]


def many(model: HttpModel, rows: range, threads: int) -> dict[int, Completion | Failure]:
    """Ask about many rows from many threads, as a run does."""
    with ThreadPoolExecutor(threads) as pool:
        return dict(zip(rows, pool.map(lambda row: chat(model, row), rows), strict=True))


def right(row: int, made: Completion | Failure) -> bool:
    """Whether an answer is the one to this row."""
    return isinstance(made, Completion) and made.text.startswith(f"reply to row={row} is ")


def test_R16_nobody_sends_before_retry_after_has_passed(server: FaultServer, make: Make) -> None:
    forms = [{"Retry-After": "0.8"}, {"retry-after-ms": "800"}, {"Retry-After": "Thu, 01 Jan 2026 00:00:01 GMT",
             "Date": "Thu, 01 Jan 2026 00:00:00 GMT"}]  # fmt: skip
    for headers in forms:
        server.script({"match": {"row": [3, 7, 20], "nth_attempt": 1}, "do": [{"status": 429, "headers": headers}]})
        found = many(make(concurrency=8), range(40), 8)
        assert all(right(row, made) for row, made in found.items())
        lines = sorted(server.rows(), key=lambda line: float(line["at"]))
        refused = [line["at"] + line["seconds"] for line in lines if line["status"] == 429]
        # Requests that were on their way when the refusal was read are not early; the gate closes within 0.1 s.
        early = [line for line in lines for t in refused if t + 0.1 < line["at"] < t + 0.75]
        assert len(refused) == 3
        assert not early


def test_R17_the_deadline_holds_against_a_server_that_drips(server: FaultServer, make: Make, ledger: Ledger) -> None:
    server.script({"match": {"row": 3, "nth_attempt": 1}, "do": [{"chunk": [4, 0.3]}]})
    assert right(3, chat(make(timeout_s=5.0), 3))
    dripped = next(a for a in ledger.done if a.code == "E620")
    assert 5.0 <= dripped.seconds <= 6.0


BOMB = """
import resource, sys
from tunesift import HttpModel, Message, Sampling
model = HttpModel(url=sys.argv[1], model="bomb")
model.preflight()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
made = model.chat([[Message("user", "row=3")]], Sampling())[0]
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, made.message)
"""


def test_R18_a_bomb_of_512_megabytes_costs_no_memory(server: FaultServer) -> None:
    server.script({"match": {"row": 3}, "do": [{"body": "bomb:512"}, {"encoding": "gzip"}]})
    done = subprocess.run(
        [sys.executable, "-c", BOMB, server.url], capture_output=True, text=True, timeout=120, check=True
    )
    more, code = done.stdout.split()[:2]
    assert code == "E627"
    assert int(more) <= 150, f"{more} MB more"


RANDOM = [
    (0.06, [{"status": 429, "headers": {"Retry-After": "1"}}]),
    (0.12, [{"status": 500}, {"body": "html"}]),
    (0.18, [{"close": True}]),
    (0.22, [{"status": 503}]),
    (0.25, [{"cut_at": 40}]),
    (0.28, [{"body": "truncated"}]),
    (0.30, [{"rst": True}]),
]


def test_R19_under_random_faults_every_row_still_ends(
    server: FaultServer, make: Make, fast: FastClock, ledger: Ledger
) -> None:
    fast.speed = 50
    server.script(*({"match": {"row": list(range(1000)), "rate": rate, "seed": 5}, "do": do} for rate, do in RANDOM))
    found = many(make(concurrency=32), range(1000), 32)
    assert len(found) == 1000
    wrong = {row: made for row, made in found.items() if not right(row, made) and not isinstance(made, Failure)}
    assert not wrong
    assert sum(isinstance(made, Failure) for made in found.values()) <= 5
    lines = server.rows()
    share = sum(line["status"] != 200 or line["sent"] < 200 for line in lines) / len(lines)
    assert 0.25 < share < 0.35, "the faults happened"
    exact = sum(a.prompt_tokens + a.completion_tokens for a in ledger.done if a.billed in ("exact", "counted"))
    unknown = sum(a.prompt_tokens + a.completion_tokens for a in ledger.done if a.billed == "unknown")
    bill = server.bill()
    assert exact <= bill["prompt_tokens"] + bill["completion_tokens"] <= exact + unknown


def test_R20_an_outage_costs_no_row_and_is_probed_seldom(server: FaultServer, make: Make, fast: FastClock) -> None:
    fast.speed = 100  # the outage of 3 s is one of five minutes
    server.script({"match": {"after_s": 0.3, "until_s": 3.3}, "do": [{"status": 503}]},
                  {"do": [{"delay": 0.02}]})  # fmt: skip
    found = many(make(concurrency=8), range(400), 8)
    assert all(right(row, made) for row, made in found.items())
    lines = server.lines()
    down = [line for line in lines if line["status"] == 503]
    began = min(line["at"] for line in down)
    probes = [line for line in down if line["row"] is None and line["at"] > began + 0.5]
    assert len(down) >= 20, "the outage happened"
    assert len(probes) <= 25, "one probe a second at most, of 250 s"
    assert not [line for line in down if line["row"] is not None and line["at"] > began + 1.5], "rows wait meanwhile"
    first = min(line["at"] for line in lines if line["status"] == 200 and line["at"] > began)
    assert first - max(line["at"] for line in down) <= 0.4, "work goes on within 30 s and a little"


@pytest.mark.usefixtures("fast")
def test_an_outage_without_an_end_stops_the_run(server: FaultServer, make: Make) -> None:
    server.script({"match": {"after_s": 0.2}, "do": [{"close": True}]}, {"do": [{"delay": 0.01}]})
    with pytest.raises(ModelUnavailable, match="no answer for 10 minutes") as raised:
        many(make(concurrency=8), range(400), 8)
    assert raised.value.exit_code == 69


@pytest.mark.parametrize(("number", "code"), [(401, 77), (404, 69), (402, 4)])
def test_R21_a_final_no_stops_the_run_at_once(server: FaultServer, make: Make, number: int, code: int) -> None:
    model = make(concurrency=16)
    assert len([m for m in many(model, range(100), 16).values() if isinstance(m, Completion)]) == 100
    server.script({"do": [{"status": number}, {"delay": 0.05}]})
    with pytest.raises((ModelRefused, ModelUnavailable, endpoint.TunesiftError)) as raised:
        many(model, range(100), 16)
    assert raised.value.exit_code == code
    # The pool of this test goes on giving out rows, which a run does not: each of those is refused by one probe.
    first = min(line["at"] + line["seconds"] for line in server.lines())
    assert len([line for line in server.rows() if line["at"] > first]) <= 16
    server.script()
    assert right(1, chat(model, 1)), "a new run in the same process begins anew"


def test_R21_a_wrong_key_is_found_with_one_call_whatever_the_threads(server: FaultServer, make: Make) -> None:
    server.script({"do": [{"status": 401}, {"delay": 0.3}]})
    model = make()
    with ThreadPoolExecutor(16) as pool:
        ended = [pool.submit(chat, model, row) for row in range(16)]
    assert {type(e.exception()) for e in ended} == {ModelRefused}
    assert len(server.lines()) == 1


def test_R22_requests_in_flight_follow_a_servers_cap(server: FaultServer, make: Make, fast: FastClock) -> None:
    fast.speed = 20
    server.script({"do": [{"limits": {"in_flight": 24}}, {"delay": 0.05}]})
    found = many(make(concurrency=64), range(1500), 64)
    assert all(right(row, made) for row, made in found.items())
    refused = [line for line in server.rows() if line["status"] == 429]
    assert 0 < len(refused) <= 0.1 * 1500


@pytest.mark.usefixtures("fast")
def test_R25_another_model_is_told_of_once(make: Make, server: FaultServer, caplog: pytest.LogCaptureFixture) -> None:
    server.script({"do": [{"change": {"model": "smaller-one"}}]})
    model = make()
    with caplog.at_level(logging.WARNING):
        many(model, range(20), 4)
    assert [r.message for r in caplog.records if "smaller-one" in r.message] == [
        f'"{model.model}" at 127.0.0.1:{server.port}: it is "smaller-one" that answers'
    ]


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("do", "code", "exit_code"), [
    ([{"body": "html"}], "E623", 69), ([{"status": 422}, {"body": "text:{}"}], "E634", 64)
])  # fmt: skip
def test_more_than_a_fifth_of_nonsense_stops_the_run(
    server: FaultServer, make: Make, do: list[dict[str, Any]], code: str, exit_code: int
) -> None:
    model = make(concurrency=4)
    model.preflight()
    server.script({"match": {"row": list(range(1000)), "rate": 0.5}, "do": do})
    with pytest.raises(endpoint.TunesiftError, match="check url, model and settings") as raised:
        many(model, range(1000), 4)
    assert raised.value.exit_code == exit_code
    assert code in str(raised.value)
    assert len(server.rows()) <= 150


@pytest.mark.usefixtures("fast")
def test_R19_a_hundred_answers_of_which_many_are_bad_by_chance_stop_no_run(server: FaultServer, make: Make) -> None:
    server.script({"match": {"row": list(range(1500)), "rate": 0.13, "seed": 3}, "do": [{"body": "html"}]})
    found = many(make(concurrency=4), range(1500), 4)
    assert len(found) == 1500
    bad = [line["row"] for line in server.rows() if line["sent"] < 200]
    assert len(bad) > 150


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody has signed."""
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl command")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path) + ".crt"],
                   check=True, capture_output=True)  # fmt: skip
    path.write_bytes(path.read_bytes() + Path(str(path) + ".crt").read_bytes())
    return path


def test_F03_a_certificate_of_nobodys_is_refused_and_one_of_your_own_authority_is_taken(
    certificate: Path, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path, cert=certificate) as server:
        with pytest.raises(ModelUnavailable, match="E602 its certificate is not accepted") as raised:
            make(url=server.url).preflight()
        assert raised.value.exit_code == 69
        monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
        with pytest.raises(ModelUnavailable, match="E602"):
            make(url=server.url).preflight()
        make(url=server.url, trust_env=True).preflight()
        assert len(server.lines()) == 1


def test_F09_an_idle_connection_that_was_closed_uses_no_attempt_up(
    make: Make, one_server: FaultServer, ledger: Ledger
) -> None:
    one_server.script({"match": {"row": 3, "nth_attempt": 1}, "do": [{"close": True}]})
    model = make()
    model.preflight()
    began = time.monotonic()
    assert right(3, chat(model, 3))
    assert time.monotonic() - began < 0.5
    assert [a.code for a in ledger.done] == ["", "E610", ""]
    one_server.script({"match": {"row": 3}, "do": [{"body": "ok"}, {"headers": {"Connection": "close"}}]})
    assert right(3, chat(model, 3))
    assert right(4, chat(model, 4))


def test_F10_too_many_open_files_here_are_waited_for(
    make: Make, fast: FastClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, times = socket.create_connection, iter(range(4))

    def full(*given: Any, **options: Any) -> socket.socket:
        if next(times, None) is not None:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*given, **options)

    model = make()
    monkeypatch.setattr(socket, "create_connection", full)
    assert right(3, chat(model, 3))


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("change", "code"), [
    ({"data": []}, "E628"), ({"data.0.embedding": [0, 0, 0, 0]}, "E628"), ({"data.0.embedding": [1.0, None]}, "E628"),
    ({"data.0.embedding": [1.0, 2.0]}, "E628"), ({"data.0.embedding": "x"}, "E628"), ({"data.1": {"index": 1}}, "E628"),
])  # fmt: skip
def test_F60_vectors_that_are_none_are_refused(
    make: Make, server: FaultServer, change: dict[str, Any], code: str
) -> None:
    server.script({"match": {"row": 3}, "do": [{"change": change}]})
    model = make()
    good, bad = model.embed(["row=2"])[0], model.embed(["row=3"])[0]
    assert isinstance(good, tuple)
    assert isinstance(bad, Failure)
    assert bad.message.startswith(code)
    assert len(server.rows()) == 1 + 3


@pytest.mark.usefixtures("fast")
def test_a_text_that_is_refused_costs_its_neighbours_nothing(make: Make, server: FaultServer) -> None:
    server.script(
        {"match": {"row": 1}, "do": [{"status": 400}, {"body": 'text:{"error": {"code": "context_length_exceeded"}}'}]}
    )
    made = make().embed(["row=1", "b", "c", "d"])
    assert [isinstance(m, Failure) for m in made] == [True, False, False, False]
    assert len(server.lines()) == 6, "a probe, all, two halves, two quarters"


def test_losses_are_those_of_the_prompt_in_both_ways(make: Make, server: FaultServer) -> None:
    spans = [Span("row=3 ", "abc"), Span("", "ab", bos="always"), Span("x", ""), Span("abcdef", "gh", limit=4)]
    echo = make().loss(spans)
    assert echo == make(losses="prompt_logprobs").loss(spans)
    assert [len(e.nats) if not isinstance(e, Failure) else None for e in echo] == [3, 2, 0, 0]
    assert [e.truncated for e in echo if not isinstance(e, Failure)] == [False, False, False, True]
    assert len({line["sha256"] for line in server.lines()}) == 4, "two requests and two probes"


def test_an_endpoint_without_losses_is_refused_with_one_call(make: Make, server: FaultServer) -> None:
    server.script({"do": [{"change": {"choices.0.logprobs": None}}]})
    with pytest.raises(
        ParameterRefused, match="gives no log-probabilities of prompts by way of losses: echo"
    ) as raised:
        make().loss([Span("row=3", "b")])
    assert raised.value.exit_code == 64
    assert len(server.lines()) == 1
    with pytest.raises(ParameterRefused, match="write its folder or hub id as tokenizer"):
        make(tokenizer=None).loss([Span("a", "b")])


def test_S8_images_are_read_from_their_folder_only(make: Make, server: FaultServer, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "good.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    (folder / "no.png").write_bytes(b"#!/bin/sh")
    (tmp_path / "secret").write_bytes(b"\x89PNG\r\n\x1a\n secret")
    (folder / "link.png").symlink_to(tmp_path / "secret")
    model = make(images=folder)
    names = ["good.png", "no.png", "../secret", str(tmp_path / "secret"), "link.png", "gone.png", "a\0b"]
    made = model.chat([[Message("user", "row=3", images=(name,))] for name in names], SAMPLING)
    assert right(3, made[0])
    assert all(isinstance(m, Failure) and m.message.startswith("E638") for m in made[1:])
    assert len(server.rows()) == 1


def test_an_interrupted_run_does_not_sit_out_a_pause(make: Make, server: FaultServer) -> None:
    server.script({"match": {"row": 3}, "do": [{"status": 429, "headers": {"Retry-After": "900"}}]})
    model, began = make(), time.monotonic()
    model.preflight()
    with INTERRUPTIONS.heeding(lambda: time.monotonic() - began > 1), pytest.raises(Stopped):
        chat(model, 3)
    assert time.monotonic() - began < 4


@pytest.fixture
def recipe(tmp_path: Path, server: FaultServer, byte_tokenizer: Path) -> tuple[list[str], Path]:
    """A command that scores five records with losses over http."""
    rows = [{"id": f"r{n}", "instruction": f"row={n} say it", "output": f"it {n}"} for n in range(5)]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    student = {"kind": "http", "url": server.url, "model": "student", "key_env": "CANARY_KEY",
               "tokenizer": str(byte_tokenizer), "timeout_s": 5.0}  # fmt: skip
    method = {"kind": "select", "scorer": {"kind": "ifd", "student": student, "profile": "superfilter"},
              "keep": {"kind": "largest", "fraction": 0.5}}  # fmt: skip
    text = json.dumps({"input": str(tmp_path / "in.json"), "output": str(tmp_path / "out.json"), "method": method})
    (tmp_path / "recipe.yaml").write_text(text)
    return [sys.executable, "-m", "tunesift.cli", "run", str(tmp_path / "recipe.yaml")], tmp_path


SPEAKING = [
    [{"status": 401}, {"body": 'text:{"error": {"message": "wrong key KEY"}}'}],
    [{"status": 400}, {"body": 'text:{"error": {"message": "no: KEY"}}'}],
    [{"body": 'text:{"choices": [], "note": "KEY"}'}],
    [{"status": 307, "headers": {"Location": "http://KEY@127.0.0.2/KEY?KEY"}}],
    [{"change": {"model": "KEY"}}],
    [],
]


@pytest.mark.parametrize("do", SPEAKING, ids=["401", "400", "nonsense", "redirect", "model", "good"])
def test_S7_a_key_that_the_endpoint_repeats_is_nowhere(
    do: list[dict[str, Any]], recipe: tuple[list[str], Path], server: FaultServer
) -> None:
    told = json.dumps(" ".join(spellings()))[1:-1]
    spoken = json.loads(json.dumps(do).replace("KEY", json.dumps(told)[1:-1]))
    for action in spoken:
        if "headers" in action:
            action["headers"] = {k: v.replace(told, KEY) for k, v in action["headers"].items()}
    server.script({"match": {"row": [2]}, "do": spoken})
    command, folder = recipe
    done = subprocess.run(command, capture_output=True, timeout=60, env=os.environ | {"CANARY_KEY": KEY}, check=False)
    said = done.stdout + done.stderr
    assert b"Traceback" not in said
    assert server.rows(), said
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in ("in.json", "recipe.yaml")]
    everything = said + b"".join(p.read_bytes() for p in files)
    assert not [s for s in spellings() if s.encode() in everything], "a secret is told"


def test_a_command_line_run_over_http_scores_and_resumes_without_a_call(
    recipe: tuple[list[str], Path], server: FaultServer
) -> None:
    command, folder = recipe
    for _ in range(2):
        done = subprocess.run(
            command, capture_output=True, timeout=60, env=os.environ | {"CANARY_KEY": KEY}, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        assert len(server.rows()) == 5, "both losses of a record go in one request, and nothing is asked twice"
    assert len(json.loads((folder / "out.json").read_text())) >= 2
    secret = base64.b64encode(KEY.encode())
    assert secret not in (folder / "out.json.run" / "run.json").read_bytes()


def test_a_signal_ends_a_run_that_waits_out_a_pause(recipe: tuple[list[str], Path], server: FaultServer) -> None:
    server.script({"match": {"row": 3}, "do": [{"status": 429, "headers": {"Retry-After": "900"}}]})
    command, _ = recipe
    with subprocess.Popen(command, env=os.environ | {"CANARY_KEY": KEY}, stderr=subprocess.PIPE) as process:
        for _ in range(300):
            if any(line["status"] == 429 for line in server.rows()):
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        said = process.communicate(timeout=20)[1]
        assert process.returncode == 143, said
        assert time.monotonic() - began < 4
    server.script()
    again = subprocess.run(command, env=os.environ | {"CANARY_KEY": KEY}, capture_output=True, timeout=60, check=False)
    assert again.returncode == 0, again.stderr
    assert 1 <= len(server.rows()) < 5, "what was answered before is not asked again"
