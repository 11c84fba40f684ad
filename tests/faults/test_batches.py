"""Files of requests: does every row get its one answer, is no batch bought twice, and do the books bracket the bill?"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from faultserver.client import FaultServer
from faultserver.fixtures import FastClock, Make, spellings
from tunesift import (
    Batching,
    BudgetSpent,
    Completion,
    Failure,
    HttpModel,
    Message,
    ModelRefused,
    ModelUnavailable,
    ParameterRefused,
    RecipeError,
    Sampling,
    Stopped,
)
from tunesift.books import SHELF
from tunesift.budget import Caps
from tunesift.models.turnstile import INTERRUPTIONS
from tunesift.running.ledger import Ledger, read_spent

pytestmark = pytest.mark.slow

SAMPLING = Sampling(max_tokens=32)
MAKES = {"route": "/v1/batches", "method": "POST"}
ROWS = 20


@pytest.fixture
def model(make: Make, fast: FastClock) -> HttpModel:
    return make(batch=Batching(chunk=ROWS, poll_s=1.0))


@pytest.fixture
def money(tmp_path: Path) -> Iterator[Ledger]:
    """The books of a run."""
    ledger = Ledger(tmp_path, Caps(), {})
    with SHELF.keeping(ledger):
        yield ledger
    ledger.close()


def asked(model: HttpModel, count: int = ROWS) -> list[Completion | Failure]:
    return model.chat([[Message("user", f"row={row} what?")] for row in range(count)], SAMPLING)


def lost(made: list[Completion | Failure]) -> list[int]:
    """Rows without the answer that is theirs."""
    return [
        n for n, m in enumerate(made) if not isinstance(m, Completion) or not m.text.startswith(f"reply to row={n} is ")
    ]


def batches(server: FaultServer) -> int:
    return int(server.post("/__state")["batches"])


def billed(server: FaultServer) -> int:
    bill = server.bill()
    return int(bill["prompt_tokens"] + bill["completion_tokens"])


def check_books(folder: Path, server: FaultServer, *, exactly: bool = True) -> None:
    """What was billed lies between what the books know exactly and what they fear."""
    (spent,) = read_spent(folder)
    exact = spent.exact_prompt + spent.exact_completion
    assert exact <= billed(server) <= exact + spent.unknown_tokens
    assert not exactly or spent.unknown_tokens == 0


def test_a_file_of_requests_is_answered_as_each_of_them_would_be(
    model: HttpModel, make: Make, server: FaultServer, money: Ledger, tmp_path: Path
) -> None:
    server.script({"match": MAKES, "do": [{"batch": {"takes": 3}}]})
    made = asked(model, 50)
    assert not lost(made)
    assert batches(server) == 3
    assert made == asked(make(model=model.model), 50)
    money.spent()
    check_books(tmp_path, server)
    key = [line for line in server.lines() if any(s in json.dumps(line) for s in spellings())]
    assert not key


@pytest.mark.parametrize(("status", "error"), [(401, ModelRefused), (404, ModelUnavailable), (400, ParameterRefused)])
def test_one_small_call_finds_what_is_wrong_before_a_file_is_sent(
    model: HttpModel, server: FaultServer, status: int, error: type[Exception]
) -> None:
    server.script({"match": {"route": "/v1/chat/completions"}, "do": [{"status": status}]})
    with pytest.raises(error):
        asked(model)
    assert [line["route"] for line in server.lines()] == ["/v1/chat/completions"]


def test_the_small_call_comes_first_and_once(model: HttpModel, server: FaultServer) -> None:
    assert not lost(asked(model, 50))
    lines = sorted(server.lines(), key=lambda line: float(line["at"]))
    assert [line["route"] for line in lines].count("/v1/chat/completions") == 1
    assert lines[0]["route"] == "/v1/chat/completions"


@pytest.mark.parametrize("route", ["/v1/files", "/v1/batches"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_S9_a_file_of_prompts_is_posted_nowhere_else(
    model: HttpModel, server: FaultServer, route: str, status: int
) -> None:
    there = f"http://127.0.0.2:{server.other}{route}"
    server.script({"match": {"route": route}, "do": [{"status": status, "headers": {"Location": there}}]})
    with pytest.raises(ModelUnavailable, match="where no prompt is sent"):
        asked(model)
    assert {line["host"] for line in server.lines()} == {"127.0.0.1"}


def test_equal_requests_of_one_file_are_both_made(model: HttpModel, server: FaultServer) -> None:
    made = model.chat([[Message("user", "row=1")]] * 3, SAMPLING)
    assert all(isinstance(m, Completion) for m in made)
    assert server.bill()["calls"] == 3 + 1  # and the first small one


@pytest.mark.parametrize("status", ["expired", "cancelled"])
def test_F61_F65_what_was_finished_is_kept_and_the_rest_is_sent_again(
    model: HttpModel, server: FaultServer, money: Ledger, tmp_path: Path, status: str
) -> None:
    server.script({"match": MAKES | {"nth_attempt": 1}, "do": [{"batch": {"status": status, "rows": list(range(7))}}]})
    assert not lost(asked(model))
    assert batches(server) == 2
    assert server.bill()["calls"] == ROWS + 1, "nothing was bought twice"
    money.spent()
    check_books(tmp_path, server)


def test_F61_a_batch_that_always_expires_ends_in_failures(model: HttpModel, server: FaultServer) -> None:
    server.script({"match": MAKES, "do": [{"batch": {"status": "expired", "rows": [0]}}]})
    made = asked(model, 10)
    assert batches(server) == 3
    assert lost(made) == list(range(3, 10))
    assert {m.message[:31] for m in made if isinstance(m, Failure)} == {"E610 no answer in 3 batches (HT"}


@pytest.mark.parametrize(("body", "status", "code", "sent"), [
    ({"error": {"code": "context_length_exceeded"}}, 400, "E631", 1), ({"error": {"message": "no"}}, 422, "E634", 1),
    ({"error": {"message": "busy"}}, 503, "E610", 3), ({"error": {"message": "slow down"}}, 429, "E611", 3),
])  # fmt: skip
def test_F62_an_error_file_alone_gives_each_row_its_code(
    model: HttpModel, server: FaultServer, body: Any, status: int, code: str, sent: int
) -> None:
    plan = {"rows": [], "error": {"status": status, "body": body}}
    server.script({"match": MAKES, "do": [{"batch": plan}]})
    made = asked(model)
    assert {m.message.split()[0] for m in made if isinstance(m, Failure)} == {code}
    assert (len(lost(made)), batches(server)) == (ROWS, sent)


def test_F63_a_missing_row_is_sent_once_more(
    model: HttpModel, server: FaultServer, money: Ledger, tmp_path: Path
) -> None:
    server.script({"match": MAKES | {"nth_attempt": 1}, "do": [{"batch": {"silent": [3, 4]}}]},
                  {"match": MAKES, "do": [{"batch": {"silent": [1]}}]})  # fmt: skip
    made = asked(model)
    assert lost(made) == [4]
    assert isinstance(made[4], Failure)
    assert made[4].message.startswith("E650 a batch that is completed does not say what became of the request, 2 times")
    assert batches(server) == 2
    money.spent()
    check_books(tmp_path, server, exactly=False)


def test_F64_what_comes_twice_and_what_nobody_asked_for_is_counted(
    model: HttpModel, server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.script({"match": MAKES, "do": [{"batch": {"twice": [2, 5], "unknown": 3}}]})
    with caplog.at_level(logging.WARNING):
        assert not lost(asked(model))
    said = [r.message for r in caplog.records if "answers of the batch" in r.message]
    assert len(said) == 1
    assert "5 answers of the batch batch-0 are to nothing that was asked, or come twice" in said[0]


@pytest.mark.parametrize("how", [{"cut_at": 0}, {"status": 502}, {"cut_at": 20}, {"body": "html"}])
def test_F66_a_lost_reply_to_create_is_found_in_the_list(
    model: HttpModel, server: FaultServer, money: Ledger, tmp_path: Path, how: dict[str, Any]
) -> None:
    server.script({"match": MAKES | {"nth_attempt": 1}, "do": [{"batch": {"takes": 2}}, how]})
    assert not lost(asked(model))
    assert batches(server) == 1
    money.spent()
    check_books(tmp_path, server)


def test_F66_what_never_arrived_is_made(model: HttpModel, server: FaultServer) -> None:
    server.script({"match": MAKES | {"nth_attempt": [1, 3]}, "do": [{"close": True}]})
    assert not lost(asked(model))
    assert batches(server) == 1


def test_somebody_elses_batches_are_left_alone(model: HttpModel, server: FaultServer) -> None:
    with SHELF.of_run("one"):
        first = asked(model)
    with SHELF.of_run("other"):
        assert asked(model) == first
    assert batches(server) == 2


def test_a_wait_that_is_stopped_is_gone_on_with(model: HttpModel, server: FaultServer) -> None:
    server.script({"match": MAKES, "do": [{"batch": {"takes": 10}}]})
    times = iter(range(12))
    with INTERRUPTIONS.heeding(lambda: next(times, None) is None), pytest.raises(Stopped):
        asked(model)
    assert not lost(asked(model))
    assert batches(server) == 1


def test_other_chunks_find_their_rows_in_the_batches_of_before(
    model: HttpModel, make: Make, server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a change of batch.chunk, or of what had failed: the rows are asked in another company."""
    ledger = Ledger(tmp_path, Caps(), {})
    with SHELF.keeping(ledger):
        assert not lost(asked(model))
    ledger.close()
    from tunesift.models import batches as desk

    monkeypatch.setattr(desk, "_OFFICES", {})  # a new process
    again = Ledger(tmp_path, Caps(), {})
    with SHELF.keeping(again):
        made = asked(make(model=model.model, batch=Batching(chunk=7, poll_s=1.0)), 30)
    again.close()
    assert not lost(made)
    assert server.bill()["calls"] == 30 + 1
    check_books(tmp_path, server)


def test_a_cap_lets_as_much_through_as_it_has_room_for(model: HttpModel, server: FaultServer, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, Caps(tokens=280), {})
    with SHELF.keeping(ledger), pytest.raises(BudgetSpent):
        asked(model)
    ledger.close()
    bought = server.bill()["calls"]
    assert 4 < bought < ROWS
    assert billed(server) <= 280
    higher = Ledger(tmp_path, Caps(), {})
    with SHELF.keeping(higher):
        assert not lost(asked(model))
    higher.close()
    assert server.bill()["calls"] == ROWS + 1, "what was bought under the cap was fetched, not bought again"
    check_books(tmp_path, server)


def test_a_batch_that_is_refused_ends_the_run_and_a_crowded_queue_is_waited_for(
    model: HttpModel, server: FaultServer
) -> None:
    crowded = {"status": "failed", "error": {"code": "token_limit_exceeded", "message": "Enqueued token limit reached"}}
    server.script({"match": MAKES | {"nth_attempt": [1, 2]}, "do": [{"batch": crowded}]})
    assert not lost(asked(model))
    assert batches(server) == 3
    server.script({"match": MAKES, "do": [{"batch": {"status": "failed"}}]})
    with pytest.raises(
        ParameterRefused, match=r"E607 a batch was refused \(no\); change model, parameters or batch"
    ) as no:
        asked(model)
    assert no.value.exit_code == 64
    assert batches(server) == 1


def test_an_endpoint_without_batches_says_so(model: HttpModel, server: FaultServer) -> None:
    server.script({"match": {"route": "/v1/batches"}, "do": [{"status": 404}]})
    with pytest.raises(ModelUnavailable, match="it has no batches, or has this one no longer"):
        asked(model)


def test_settings_of_batches_that_are_none_are_refused(make: Make) -> None:
    with pytest.raises(RecipeError, match=r"^batch\.chunk: 0 must be above 0\.$"):
        Batching(chunk=0)
    with pytest.raises(RecipeError, match="leave stream or batch out"):
        make(batch=Batching(), stream=True)


LIFE = """
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from contextlib import closing
from tunesift import Batching, Completion, HttpModel, Local, Message, Run, Sampling, Settings
from tunesift.books import SHELF
from tunesift.budget import Caps
from tunesift.running.ledger import Ledger

@dataclass(frozen=True)
class Question:
    id: str

@dataclass(frozen=True, kw_only=True)
class Ask(Settings):
    model: HttpModel
    returns: ClassVar[type[Completion]] = Completion
    def __call__(self, chunk, /):
        return self.model.chat([[Message("user", f"row={q.id} what?")] for q in chunk], Sampling(max_tokens=32))

folder, url = Path(sys.argv[1]), sys.argv[2]
model = HttpModel(url=url, model="batched", batch=Batching(chunk=50, poll_s=0.05, concurrency=2))
with Run(folder, Local()) as run, closing(Ledger(folder, Caps(), {})) as money, SHELF.keeping(money):
    made = run.map("ask", Ask(model=model), [Question(str(n)) for n in range(170)])
    assert len(made.good()) == 170, made.failures()
    for id, answer in made.good().items():
        assert answer.text.startswith(f"reply to row={id} is "), answer
    run.finish(None, [])
print("done")
"""


def test_R23_a_run_killed_at_any_moment_buys_no_batch_twice(server: FaultServer, tmp_path: Path) -> None:
    server.script({"match": MAKES, "do": [{"batch": {"takes_s": 2.5}}]})
    command = [sys.executable, "-c", LIFE, str(tmp_path / "run"), server.url]
    kills, pause = 0, 0.0
    for _ in range(30):
        before = len(server.log.read_text().splitlines())
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while len(server.log.read_text().splitlines()) <= before and process.poll() is None:
                time.sleep(0.01)
            try:
                process.communicate(timeout=pause)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        kills += process.returncode == -signal.SIGKILL
        pause += 0.03
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert kills >= 5
    assert batches(server) == 4, "of fifty, fifty, fifty and twenty"
    calls = server.bill()["calls"]
    assert calls == 170 + len([line for line in server.lines() if line["route"] == "/v1/chat/completions"])
    (spent,) = read_spent(tmp_path / "run")
    exact = spent.exact_prompt + spent.exact_completion
    assert exact <= billed(server) <= exact + spent.unknown_tokens
