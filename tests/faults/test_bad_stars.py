"""What a user of `star-agents` reads when something is wrong: one sentence each, or what the guard makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tunesift import HashedNgrams, RecipeError, cli, run_recipe
from tunesift.methods.star_agents_pool import MemoryBank
from tunesift.recipe import check


@dataclass(frozen=True)
class Told:
    """What a command gave."""

    code: int
    err: str


Command = Callable[..., Told]
SCRIPTED: dict[str, Any] = {"kind": "scripted"}


def agent(name: str, said: str = "An answer of some length.", **more: object) -> dict[str, Any]:
    return {"name": name, "model": SCRIPTED | {"otherwise": f"{said} It is by {name}."}, **more}


def scorer(asked: float) -> dict[str, Any]:
    """One that gives b's answer this chance after its question."""
    return SCRIPTED | {"chances": {"Question": {"An answer of some length. It is by b.": asked}}}


METHOD: dict[str, Any] = {
    "agents": [agent("a"), agent("b")], "judge": SCRIPTED | {"otherwise": "[[A]]"}, "small": scorer(0.3),
    "large": scorer(0.9), "ratio": "loss",
}  # fmt: skip


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own to stand in, with seeds."""
    monkeypatch.chdir(tmp_path)
    seeds(tmp_path / "a.jsonl")
    return tmp_path


def test_the_cast_of_this_file_plays(tunesift: Command, place: Path) -> None:
    """What is refused below is refused for what is changed there."""
    assert tunesift() == Told(0, "")
    assert len((place / "out.jsonl").read_text().splitlines()) == 30


def seeds(path: Path, count: int = 30, response: str = "An old answer.") -> None:
    rows = ({"instruction": f"Question {n}?", "input": "", "output": response} for n in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def tunesift(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`tunesift star-agents` over the seeds, in this process; agents and the rest by rule unless said otherwise."""

    def run(*words: str, **method: object) -> Told:
        settings = [f"{name}={json.dumps(value)}" for name, value in (METHOD | method).items()]
        words = ("star-agents", "a.jsonl", "-o", "out.jsonl", *settings, *words, "--yes", "--quiet")
        monkeypatch.setattr(sys, "argv", ["tunesift", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert said.out == ""
        assert "Traceback" not in said.err
        return Told(int(ended.value.code or 0), said.err)

    return run


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no agents": ({"agents": []}, "agents: 0 has nobody to be compared with; name two or more."),
    "one agent": ({"agents": [agent("a")]}, "agents: 1 has nobody to be compared with; name two or more."),
    "two of one name": (
        {"agents": [agent("a"), agent("b"), agent("a", "Else.")]}, 'agents: "a" is the name of two; give each its own.'),
    "no name": ({"agents": [agent("a"), agent("B!")]},
        'agents: "B!" is no name; write small letters, digits, dots and hyphens, 40 at most.'),
    "an unknown base": ({"base": ["gpt"]}, 'base: "gpt" is none of the agents; there are a, b.'),
    "an unknown pair": ({"pairs": ["a+b"]}, 'pairs: "a+b" is none of the pairs; there are a, b.'),
    "a pair without rewriting's first agent": (
        {"pairs": ["b"], "rewrite": True}, 'pairs: "b" is none of the pairs; there are a+a, a+b, b+a, b+b.'),
    "a pair whose first agent writes no instructions": (
        {"pairs": ["a+b"], "rewrite": True, "agents": [agent("a", writes="responses"), agent("b")]},
        'pairs: "a+b" is none of the pairs; there are b+a, b+b.'),
    "no draws": ({"draws": 0}, "draws: 0 is too few; write 1 or more."),
    "fewer than none near": ({"near": -1}, "near: -1 is too few; write 0 or more."),
    "no room to judge": ({"judge_tokens": 0}, "judge_tokens: 0 is too few; write 1 or more."),
    "no rate": ({"rate": 0}, "rate: 0 moves nothing; write a small number such as 0.0001."),
    "too high a floor": ({"floor": 0.5}, "floor: 0.5 times 2 pairs must be below 1; write 0.01."),
    "a floor below 0": ({"floor": -0.1}, "floor: -0.1 times 2 pairs must be below 1; write 0.01."),
    "no draw for other pairs": (
        {"draws": 1, "from_near": 1},
        "from_near: 1 of 1 draws leave none to other pairs, so that nothing new is tried; write 0."),
    "rounds of none": ({"round_size": 0}, "round_size: 0 is too few; write 1 or more."),
    "faithful in rounds of several": (
        {"round_size": 4, "faithful": True}, "round_size: 4 is not faithful, which is 1; leave one of them out."),
    "no tokens": ({"writing": {"response_tokens": 0}},
        "writing: temperature is 0 or more, and instruction_tokens and response_tokens 1 or more."),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_setting_that_cannot_work_is_named_with_what_would_be_right(
    tunesift: Command, place: Path, name: str
) -> None:
    settings, sentence = WRONG[name]
    assert tunesift(**settings) == Told(64, f"{sentence}\n")
    assert sorted(path.name for path in place.iterdir()) == ["a.jsonl"]


def test_one_model_for_both_scorers_is_refused(tunesift: Command, place: Path) -> None:
    told = tunesift(small=SCRIPTED, large=SCRIPTED)
    assert told.code == 64
    assert told.err.startswith('large: "scripted" is the same model as small, ')
    (place / "scorer").mkdir()
    (place / "scorer" / "config.json").write_text("{}")
    weights = {"kind": "transformers", "name": "./scorer"}
    told = tunesift(small=weights, large=weights | {"name": "scorer"})
    assert told.code == 64
    assert "is the same model as small" in told.err


def test_agents_that_are_still_to_be_named_are_named(tunesift: Command) -> None:
    nobody = {"kind": "http", "url": "http://not-given.invalid/v1", "model": "NOT-GIVEN"}
    told = tunesift(agents=[{"name": "a", "model": nobody}, agent("b")])
    wanted = (
        "agents.0.model: is not given; write agents.0.model.url=http://localhost:8000/v1 agents.0.model.model=NAME."
    )
    assert told == Told(64, f"{wanted}\n")


@pytest.mark.parametrize(("content", "sentence"), [
    ("", "E101 a.jsonl: the file is empty; give a file with at least one record."),
    ("\n\n", "E101 a.jsonl: the file has no records; give a file with at least one."),
])  # fmt: skip
def test_a_file_without_seeds_is_a_sentence(tunesift: Command, place: Path, content: str, sentence: str) -> None:
    (place / "a.jsonl").write_text(content)
    assert tunesift() == Told(65, f"{sentence}\n")


def test_a_judge_without_verdicts_ends_the_run_before_wins_rest_on_nothing(tunesift: Command, place: Path) -> None:
    told = tunesift(judge=SCRIPTED | {"otherwise": "Both are nice."})
    assert told.code == 77, told.err
    assert "judge: none of 32 replies ends with [[A]], [[B]] or [[C]], after a second call each" in told.err
    assert not (place / "out.jsonl").exists()


def decided(**method: Any) -> dict[str, list[str]]:
    """Reasons of a run's decisions, by action."""
    recipe: dict[str, Any] = {"input": "a.jsonl", "output": "out.jsonl", "folder": "run", "max_failures": 1.0,
              "method": {"kind": "star-agents", **METHOD, **method}}  # fmt: skip
    run_recipe(check(recipe))
    rows = pq.read_table("run/decisions.parquet").to_pylist()
    return {action: [row["reason"] for row in rows if row["action"] == action] for action in
            {row["action"] for row in rows}}  # fmt: skip


def test_an_embedder_that_returns_zeros_is_told_of_and_nobody_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered: list[object] = []
    plain = MemoryBank.near

    def near(bank: Any, vector: Any, count: int) -> Any:
        found = plain(bank, vector, count)
        remembered.extend(found)
        return found

    monkeypatch.setattr(MemoryBank, "near", near)
    monkeypatch.setattr(HashedNgrams, "embed", lambda self, texts: [(0.0,) * 8 for _ in texts])
    assert len(decided()["replace"]) == 30
    assert remembered == []
    (doubt,) = [
        row["doubt"] for row in pq.read_table("run/tables/doubts.parquet").to_pylist() if "vector" in row["doubt"]
    ]
    assert doubt == "30 of 30 instructions have no vector, or one of zeros: the memory bank knows nothing of them"


def test_seeds_without_a_response_get_one_and_keep_none_where_nobody_writes(place: Path) -> None:
    seeds(place / "a.jsonl", response="")
    found = decided()
    assert set(found) == {"replace"}
    written = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert len(written) == 30
    assert all(row["output"].startswith("An answer of some length.") for row in written)


def test_seeds_without_a_response_are_dropped_where_no_base_can_be_used(place: Path) -> None:
    seeds(place / "a.jsonl", response="")
    found = decided(agents=[agent("a", "I'm sorry, but I cannot help with that."), agent("b")])
    assert set(found) == {"drop"}
    assert set(found["drop"]) == {"no base response: a refused, refusal"}
    assert (place / "out.jsonl").read_text() == ""


def test_what_is_wrong_is_found_when_a_recipe_is_read() -> None:
    with pytest.raises(RecipeError, match="agents: 1 has nobody to be compared with"):
        check({"input": "a.jsonl", "output": "b.jsonl",
               "method": {"kind": "star-agents", **METHOD, "agents": [agent("a")]}})  # fmt: skip


def test_the_installed_command_says_the_same(place: Path) -> None:
    words = [sys.executable, "-m", "tunesift.cli", "star-agents", "a.jsonl", "-o", "out.jsonl", 'agents=[{"name": "a", '
             '"model": {"kind": "scripted"}}]', "--yes"]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=place)
    assert (done.returncode, done.stdout) == (64, "")
    assert "agents: 1 has nobody to be compared with; name two or more.\n" in done.stderr
