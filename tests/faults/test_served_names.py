"""A model that the recipe leaves to its endpoint: its name is asked for once, written down, and held to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from faultserver.client import FaultServer
from faultserver.fixtures import FastClock
from tunesift import (
    HttpModel,
    ModelRefused,
    ModelUnavailable,
    RecipeError,
    ResumeError,
    Summary,
    recipe_for,
    run_recipe,
)
from tunesift.planning import plan
from tunesift.recipe import Recipe
from tunesift.telling import told_plan

FEW = ["count=3", "topics=[Tides]", "variants=[static-conditional]"]


def serving(server: FaultServer, *names: object, **also: Any) -> None:
    """Have the server list these models."""
    listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}
    server.script({"match": {"route": "/models"}, "do": [{"body": f"text:{json.dumps(listed)}"}, also]})


def genqa(place: Path, server: FaultServer, *words: str) -> Recipe:
    return recipe_for("genqa", None, place / "out.jsonl", [f"model.url={server.url}", *FEW, *words])


def lists(server: FaultServer) -> int:
    """How often the list of models was asked for."""
    return sum(line["route"] == "/v1/models" for line in server.lines())


def written(summary: Summary) -> dict[str, Any]:
    return dict(json.loads((summary.folder / "run.json").read_text()))


def test_the_command_of_an_address_alone_takes_the_one_model_that_is_served(
    server: FaultServer, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "tunesift", "genqa", "-o", "out.jsonl", f"model.url={server.url}", *FEW]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "out.jsonl: 3 created"), done.stderr
    assert lists(server) == 1
    assert server.lines()[0]["route"] == "/v1/models", "before anything that is paid"
    run = json.loads((tmp_path / "out.jsonl.run" / "run.json").read_text())
    assert run["recipe"]["method"]["model"]["model"] == run["settings"]["method"]["model"]["model"] == "tiny"
    assert "model.model=tiny" in run["command"].split()


def test_a_run_whose_server_now_serves_another_model_is_another_run(server: FaultServer, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="2 of 2 calls are made"):
        run_recipe(genqa(tmp_path, server, "budget.max_calls=2"))
    serving(server, "other")
    with pytest.raises(ResumeError, match=r'holds another run: method\.model\.model was "tiny" and is now "other"'):
        run_recipe(genqa(tmp_path, server))
    assert [line["route"] for line in server.lines()] == ["/v1/models"], "nothing was paid to the other one"
    serving(server, "other", "tiny")
    done = run_recipe(genqa(tmp_path, server))
    assert (done.counts["created"], written(done)["recipe"]["method"]["model"]["model"]) == (3, "tiny")


def test_a_run_that_is_complete_asks_nobody_which_model_it_was(server: FaultServer, tmp_path: Path) -> None:
    first = run_recipe(genqa(tmp_path, server))
    serving(server, "other")
    again = run_recipe(genqa(tmp_path, server))
    assert (again.run_id, again.worked, server.lines()) == (first.run_id, 0, [])
    with pytest.raises(ResumeError, match='was "tiny" and is now "other"'):
        run_recipe(genqa(tmp_path, server), retry_failed=("refused",))


def test_a_folder_of_another_method_lends_no_name(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps([{"instruction": "Why?", "output": "So."}]))
    words = ["keep.kind=longest", "keep.fraction=1.0", f"folder={tmp_path / 'out.jsonl.run'}"]
    run_recipe(recipe_for("select", tmp_path / "in.json", tmp_path / "out.jsonl", words))
    serving(server, "a", "b")
    with pytest.raises(RecipeError, match="lists 2: a, b"):
        run_recipe(genqa(tmp_path, server))


def test_a_run_that_ended_short_asks_again_before_it_goes_on(server: FaultServer, tmp_path: Path) -> None:
    short = ("boosters=[Forget the labels now and then.]", "count=30", "tries=0", "draws_per_row=1")
    assert run_recipe(genqa(tmp_path, server, *short)).short
    serving(server, "other")
    with pytest.raises(ResumeError, match='was "tiny" and is now "other"'):
        run_recipe(genqa(tmp_path, server, *short))


@pytest.mark.parametrize(("names", "said"), [
    ((), "lists no model; write model.model=NAME."),
    (("b", "a"), "lists 2: b, a; write model.model=b, or another of them."),
    (tuple(f"m{n}" for n in range(9)), "lists 9: m0, m1, m2, m3, m4, m5 and 3 more; write model.model=m0, or another "
                                       "of them."),
])  # fmt: skip
def test_none_and_several_are_a_sentence_that_names_them_and_what_to_write(
    server: FaultServer, tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    serving(server, *names)
    with pytest.raises(RecipeError) as refusal:
        run_recipe(genqa(tmp_path, server))
    assert str(refusal.value) == f"model.model: is not given, and {server.url}/models {said}"
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_listed_twice_is_one_and_a_list_of_null_is_empty(server: FaultServer, tmp_path: Path) -> None:
    serving(server, "twice", "twice")
    assert HttpModel(url=server.url).served() == ("twice",)
    server.script({"match": {"route": "/models"}, "do": [{"change": {"data": None}}]})
    assert HttpModel(url=server.url).served() == ()


COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "reflection": (["teacher"], ["teacher.url=URL"]),
    "selective-reflection": (["teacher"], ["teacher.url=URL", "student.kind=scripted"]),
    "refine-alpaca": (["teacher"], ["teacher.url=URL"]),
    "debatune": (["teacher"], ["teacher.url=URL"]),
    "controllability": (["judge"], ["judge.url=URL"]),
    "clear": (["student"], ["student.kind=http", "student.url=URL"]),
    "selectit": (["raters.0.model"], ['raters=[{"model": {"kind": "http", "url": "URL", "tokenizer": "BYTES"}}]']),
    "select": (["scorer.student"], [f"scorer.student.{word}" for word in ("kind=http", "url=URL", "tokenizer=BYTES")]),
    "score": (["scorers.0.student"],
              ['scorers=[{"kind": "ifd", "student": {"kind": "http", "url": "URL", "tokenizer": "BYTES"}}]']),
    "genqa": (["model", "embedder"], ["model.url=URL", "embedder.kind=http", "embedder.url=URL"]),
}  # fmt: skip
"""By command: the models that are left to their endpoint, and the words that say so."""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_takes_an_endpoint_asks_it_once_for_its_models_name(
    server: FaultServer, tmp_path: Path, byte_tokenizer: Path, name: str
) -> None:
    serving(server, "a", "b")
    paths, more = COMMANDS[name]
    rows = [{"instruction": "Why?", "output": "So."}]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    words = [word.replace("BYTES", str(byte_tokenizer)).replace("URL", server.url) for word in more]
    recipe = recipe_for(name, None if name == "genqa" else tmp_path / "in.json", tmp_path / "out.jsonl", words)
    with pytest.raises(RecipeError) as refusal:
        run_recipe(recipe)
    said = [f"{path}.model: is not given, and {server.url}/models lists 2: a, b; write {path}.model=a, or another of "
            "them." for path in paths]  # fmt: skip
    assert str(refusal.value).splitlines() == said
    assert lists(server) == 1
    assert len(server.lines()) == 1
    found = plan(recipe)
    assert [line.partition(":")[0] for line in found.unnamed] == [f"{path}.model" for path in paths]


def test_a_plan_says_what_the_run_will_ask_and_asks_nobody(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("tiny: {input: 1, output: 1}\n")
    lines = told_plan(genqa(tmp_path, server, f"budget.prices={tmp_path / 'prices.yaml'}"), as_json=False).splitlines()
    host = f"127.0.0.1:{server.port}"
    assert lines[1] == f"  stage ask: 3 items, 1 call each, by the model at {host}"
    assert (
        f"  model.model: is not given; the run first asks {server.url}/models, and takes the one that it lists" in lines
    )
    assert "  cost: not known before the model is" in lines
    assert "at most 11 calls" in next(line for line in lines if "endpoints:" in line)
    assert server.lines() == []


@pytest.mark.parametrize(
    "body", ['{"data": [{"name": "a"}]}', '{"data": [{"id": ""}]}', '{"data": "a"}', "<html>", "[1]"]
)
def test_a_list_that_is_none_is_no_name(server: FaultServer, tmp_path: Path, fast: FastClock, body: str) -> None:
    server.script({"match": {"route": "/models"}, "do": [{"body": f"text:{body}"}]})
    with pytest.raises(ModelUnavailable) as refusal:
        run_recipe(genqa(tmp_path, server))
    assert str(refusal.value).startswith(
        f"model.model: is not given, and could not be asked for: {server.url}/models: E62"
    )
    assert str(refusal.value).endswith("; check url; or write model.model=NAME.")
    assert list(tmp_path.iterdir()) == []


def test_an_endpoint_without_a_list_is_said_to_have_none(server: FaultServer, tmp_path: Path) -> None:
    server.script({"match": {"route": "/models"}, "do": [{"status": 404, "body": "text:{}"}]})
    with pytest.raises(
        ModelUnavailable, match=r"could not be asked for: .+/v1/models: E606 HTTP 404: .+ or write model"
    ):
        run_recipe(genqa(tmp_path, server))


def test_a_list_behind_a_key_is_asked_for_with_it_and_a_key_that_is_missing_is_said(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_KEY", raising=False)
    with pytest.raises(
        ModelRefused, match=r"model\.model: is not given, .+ the environment variable NO_KEY is not set"
    ):
        run_recipe(genqa(tmp_path, server, "model.key_env=NO_KEY"))
    assert server.lines() == []


def test_a_list_is_asked_for_again_where_it_may_work_in_a_moment(
    server: FaultServer, tmp_path: Path, fast: FastClock
) -> None:
    server.script(
        {"match": {"route": "/models", "nth_attempt": 1}, "do": [{"cut_at": 9}]},
        {"match": {"route": "/models", "nth_attempt": 2}, "do": [{"status": 429}]},
        {"match": {"route": "/models", "nth_attempt": 3}, "do": [{"rst": True}]},
        {"match": {"route": "/models", "nth_attempt": 4}, "do": [{"status": 503}]},
    )
    assert HttpModel(url=server.url).served() == ("tiny",)
    assert lists(server) == 5


def test_a_wrong_path_is_found_before_anybody_is_asked(server: FaultServer, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine\n")
    with pytest.raises(Exception, match="exists already"):
        run_recipe(genqa(tmp_path, server))
    assert server.lines() == []


def test_a_model_without_a_name_is_asked_nothing_but_its_name(server: FaultServer) -> None:
    model = HttpModel(url=server.url)
    with pytest.raises(RecipeError, match=r"model: is not given; write model=NAME, as GET http.+/models lists it\."):
        model.preflight()
    assert server.lines() == []
