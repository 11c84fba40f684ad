"""Is no cap ever passed, does the ledger bracket the server's own bill, and is nothing lost when a cap ends a run?"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from faultserver.client import FaultServer
from tunesift.budget import Budget, read_prices
from tunesift.errors import RecipeError
from tunesift.running.ledger import Spent, read_spent

ROWS = 40


@pytest.fixture
def home(tmp_path: Path, server: FaultServer, byte_tokenizer: Path) -> Path:
    """A folder with a recipe that scores forty records with losses over http, and a price table."""
    rows = [{"id": f"r{n}", "instruction": f"row={n} say it", "output": f"it {n}"} for n in range(ROWS)]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    student = {"kind": "http", "url": server.url, "model": "student", "tokenizer": str(byte_tokenizer),
               "timeout_s": 5.0, "concurrency": 8}  # fmt: skip
    method = {"kind": "select", "scorer": {"kind": "ifd", "student": student, "profile": "superfilter"},
              "keep": {"kind": "largest", "fraction": 0.5}}  # fmt: skip
    recipe = {"input": str(tmp_path / "in.json"), "output": str(tmp_path / "out.json"), "method": method,
              "max_failures": 1.0}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    (tmp_path / "prices.yaml").write_text("student:\n  input: 2.5\n  output: 10\n")
    return tmp_path


def tunesift(home: Path, *words: str, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunesift.cli", words[0], str(home / "recipe.yaml"), *words[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=home, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    if check is not None:
        assert done.returncode == check, done.stderr
    return done


def spent(home: Path) -> Spent:
    (found,) = read_spent(home / "out.json.run")
    return found


def answered(server: FaultServer) -> int:
    """Requests that have ended, without waiting for others."""
    return server.log.read_bytes().count(b"\n")


def billed(server: FaultServer) -> int:
    """Tokens that the server's own bill counts."""
    bill = server.bill()
    return int(bill["prompt_tokens"] + bill["completion_tokens"])


def exact(found: Spent) -> int:
    return found.exact_prompt + found.exact_completion


def test_what_was_spent_is_what_the_server_billed_to_the_token(home: Path, server: FaultServer) -> None:
    told = json.loads(tunesift(home, "run", "--prices", "prices.yaml", "--json").stdout)
    found = spent(home)
    assert (exact(found), found.unknown_tokens) == (billed(server), 0)
    assert told["spent"][0]["exact_micros"] == found.exact_micros > 0
    again = json.loads(tunesift(home, "run", "--json").stdout)
    assert (again["worked"], again["spent"]) == (0, told["spent"])


def test_a_cap_ends_the_run_loses_nothing_and_a_higher_one_goes_on(home: Path, server: FaultServer) -> None:
    tunesift(home, "run", "--json")
    whole, bill = (home / "out.json").read_bytes(), billed(server)
    for path in (home / "out.json", *sorted((home / "out.json.run").rglob("*"), reverse=True)):
        path.rmdir() if path.is_dir() else path.unlink()
    server.script()  # its bill and log begin anew
    lives = 0
    cap = bill // 3
    while (done := tunesift(home, "run", "--max-tokens", str(cap), "--json", check=None)).returncode == 4:
        lives += 1
        assert "are spent; raise --max-tokens and start again to go on" in done.stderr
        assert billed(server) <= cap
        cap += bill // 3
    assert (done.returncode, lives >= 2) == (0, True), done.stderr
    assert (home / "out.json").read_bytes() == whole
    asked = [line["row"] for line in server.rows()]
    assert sorted(asked) == sorted(set(asked)), "no row was asked twice"


def test_a_run_that_is_killed_over_and_over_brackets_the_bill(home: Path, server: FaultServer) -> None:
    server.script({"match": {}, "do": [{"delay": 0.2}]})
    draw, kills = random.Random(11), 0
    command = [sys.executable, "-m", "tunesift.cli", "run", str(home / "recipe.yaml"), "--json"]
    for _ in range(4):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            before = answered(server)
            for _ in range(400):
                if answered(server) > before or process.poll() is not None:
                    break
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 0.05))
            process.kill()
        kills += process.returncode == -signal.SIGKILL
    tunesift(home, "run", "--json")
    found, bill = spent(home), billed(server)
    assert kills >= 2
    assert exact(found) <= bill <= exact(found) + found.unknown_tokens
    asked = [line["row"] for line in server.rows()]
    assert len(asked) - len(set(asked)) <= 8 * kills


def set_aside(home: Path) -> dict[str, str]:
    """The records that came to nothing, and why."""
    rows = pq.read_table(home / "out.json.run" / "decisions.parquet").to_pylist()
    return {row["record_id"]: row["reason"] for row in rows if row["action"] == "quarantine"}


def test_failed_calls_are_final_until_they_are_tried_again_and_then_only_they_are_paid(
    home: Path, server: FaultServer
) -> None:
    """From the command line, with an endpoint that refuses four of forty rows, and then no more."""
    ill = [3, 7, 11, 30]
    server.script({"match": {"row": ill}, "do": [{"status": 422}]})
    first = json.loads(tunesift(home, "run", "--json").stdout)
    assert first["counts"] == {"in": 40, "kept": 20, "dropped": 16, "quarantined": 4}
    assert sorted(set_aside(home)) == sorted(f"r{n}" for n in ill)
    server.script()
    assert json.loads(tunesift(home, "run", "--json").stdout)["worked"] == 0, "a failure is final for its run"
    assert json.loads(tunesift(home, "run", "--json", "--retry-failed=crashed").stdout)["worked"] == 0
    assert server.rows() == []
    again = json.loads(tunesift(home, "run", "--json", "--retry-failed", check=None).stdout or "{}")
    if not again:  # the output stands there already, and is another's now
        raise AssertionError(tunesift(home, "run", "--json", "--retry-failed", check=None).stderr)
    assert (again["worked"], again["counts"]) == (4, {"in": 40, "kept": 20, "dropped": 20, "quarantined": 0})
    assert sorted({line["row"] for line in server.rows()}) == ill
    assert set_aside(home) == {}
    whole = (home / "out.json").read_bytes()
    for path in (home / "out.json", *sorted((home / "out.json.run").rglob("*"), reverse=True)):
        path.rmdir() if path.is_dir() else path.unlink()
    tunesift(home, "run", "--json")
    assert (home / "out.json").read_bytes() == whole, "it is not what a run without failures makes"


def test_a_cap_on_money_without_a_price_is_refused_before_anything_is_sent(home: Path, server: FaultServer) -> None:
    said = tunesift(home, "run", "--max-cost", "1", check=64).stderr
    assert said == (
        'budget.max_cost: "student" has no price; name a file of prices with --prices, or limit tokens with '
        "--max-tokens instead.\n"
    )
    (home / "prices.yaml").write_text("teacher:\n  input: 1\n  output: 1\n")
    assert (
        "has no price in prices.yaml"
        in tunesift(home, "run", "--max-cost", "1", "--prices", "prices.yaml", check=64).stderr
    )
    assert server.rows() == []


def test_the_plan_bounds_what_is_then_spent(home: Path, server: FaultServer) -> None:
    planned = json.loads(tunesift(home, "plan", "--prices", "prices.yaml", "--json").stdout)
    assert server.rows() == []
    tunesift(home, "run", "--prices", "prices.yaml", "--json")
    found = spent(home)
    assert found.calls <= planned["calls"]
    assert exact(found) <= planned["billed"]
    assert found.exact_micros / 1e6 <= planned["money"] < 1
    words = tunesift(home, "plan").stdout
    assert "cost: not known: give --prices" in words
    # Two losses for each of forty records, at most eight calls at once, and the first small one.
    assert planned["waits"] == 80 // 8 + 1
    assert "time: about 11 s if an answer takes 1 s" in words


@pytest.mark.slow
def test_the_plan_bounds_what_a_method_that_chats_then_spends(home: Path, server: FaultServer) -> None:
    recipe: dict[str, Any] = json.loads((home / "recipe.yaml").read_text())
    student = recipe["method"]["scorer"]["student"]
    recipe["method"] = {"kind": "clear", "student": student, "max_tokens": 40}
    (home / "recipe.yaml").write_text(json.dumps(recipe))
    planned = json.loads(tunesift(home, "plan", "--prices", "prices.yaml", "--json").stdout)
    tunesift(home, "run", "--prices", "prices.yaml", "--json")
    found = spent(home)
    assert 0 < found.calls <= planned["calls"]
    assert (exact(found), found.unknown_tokens) == (billed(server), 0)
    assert exact(found) <= planned["billed"]
    assert found.exact_micros / 1e6 <= planned["money"]


@pytest.fixture
def far(home: Path) -> Path:
    """The same, of a model at an address that may send a bill."""
    recipe: dict[str, Any] = json.loads((home / "recipe.yaml").read_text())
    recipe["method"]["scorer"]["student"]["url"] = "https://llm.example.invalid/v1"
    (home / "recipe.yaml").write_text(json.dumps(recipe))
    return home


def test_what_may_cost_much_is_asked_about_before_it_begins(far: Path) -> None:
    said = tunesift(far, "run", check=64).stderr
    assert said.startswith("budget: the run makes at most 81 calls and ")
    assert said.endswith("may cost what is not known; say --yes, or set --max-cost or --max-tokens.\n")
    (far / "prices.yaml").write_text("student:\n  input: 4000\n  output: 4000\n")
    said = tunesift(far, "run", "--prices", "prices.yaml", check=64).stderr
    assert re.search(r"and may cost about 1\.\d\d, at most 1\d\d\.\d\d; say --yes, or set --max-cost", said), said
    assert not (far / "out.json.run").exists()


def test_a_model_that_has_a_price_is_asked_about_wherever_it_is(home: Path, server: FaultServer) -> None:
    (home / "prices.yaml").write_text("student:\n  input: 4000\n  output: 4000\n")
    said = tunesift(home, "run", "--prices", "prices.yaml", check=64).stderr
    assert re.search(r"and may cost about 1\.\d\d, at most 1\d\d\.\d\d; say --yes, or set --max-cost", said), said
    assert server.lines() == []
    assert not (home / "out.json.run").exists()


def test_a_request_that_can_never_fit_under_the_cap_is_refused_before_a_small_one_is_paid(
    home: Path, server: FaultServer
) -> None:
    said = tunesift(home, "run", "--max-tokens", "30", check=4).stderr
    assert re.search(r"the next request may take up to \d+ tokens and 0 of 30 are spent; raise --max-tokens and start again "
                     r"to go on, or lower the model's max_tokens\.\n$", said), said  # fmt: skip
    assert server.lines() == []
    said = tunesift(home, "run", "--max-cost", "0.0001", "--prices", "prices.yaml", check=4).stderr
    assert re.search(r"the next request may cost up to 0\.0\d+ and 0 of 0\.0001 is spent; raise --max-cost", said), said
    assert server.lines() == []


@pytest.mark.parametrize("words", [["--yes"], ["--max-tokens", "100000"]])
def test_a_yes_or_a_cap_is_an_answer_given_before(far: Path, words: list[str]) -> None:
    environment = dict(os.environ)
    command = [sys.executable, "-m", "tunesift.cli", "run", str(far / "recipe.yaml"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert done.returncode == 69, done.stderr  # the address does not exist: it was gone on to
    assert "llm.example.invalid" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "a price table has models' names, and `input` and `output` under each."),
        ("m:\n  input: 1\n", "m needs `input` and `output`, numbers of 0 or more for a million tokens each, and nothing else."),
        ("m:\n  input: -1\n  output: 1\n", "m needs `input` and `output`"),
        ("m:\n  input: true\n  output: 1\n", "m needs `input` and `output`"),
        ("m:\n  input: 1\n  output: 1\n  cached: 1\n", "m needs `input` and `output`"),
        ("m: 3\n", "m needs `input` and `output`"),
    ],
)  # fmt: skip
def test_a_price_table_that_is_none_says_why(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError) as refusal:
        read_prices(path)
    assert str(refusal.value).startswith(f"{path}: {said}")


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"^budget\.max_tokens: 0 allows nothing; write a number above 0\.$"):
        Budget(max_tokens=0)
