"""What a selection makes of input that gives it nothing to choose by, through the command line: it says so in one
sentence, or keeps what the rule says; never a traceback, never a number that stands for trouble."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.tiny import MakeTiny
from tunesift import cli

SCRIPTED = "{kind: scripted}"
ROWS = [{"id": f"r{n}", "instruction": f"Ask {n} of it.", "output": f"Say {'so ' * (n + 1)}."} for n in range(10)]


@dataclass(frozen=True)
class Done:
    """What a command gave: its exit code, its words, and what became of each record."""

    code: int
    said: str
    decisions: Mapping[str, str]
    kept: Sequence[str]


Command = Callable[..., Done]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of one's own to stand in."""
    monkeypatch.chdir(tmp_path)
    handlers = logging.root.handlers[:]
    yield tmp_path
    logging.root.handlers[:] = handlers


@pytest.fixture
def ran(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`tunesift METHOD in.jsonl -o out.jsonl SETTINGS`, over these rows."""

    def run(method: str, rows: Sequence[Mapping[str, Any]], *settings: str) -> Done:
        (place / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        monkeypatch.setattr(sys, "argv", ["tunesift", method, "in.jsonl", "-o", "out.jsonl", "--quiet", *settings])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr().err
        assert "Traceback" not in said
        out, table = place / "out.jsonl", place / "out.jsonl.run" / "decisions.parquet"
        decided = pq.read_table(table).to_pylist() if table.exists() else []
        kept = [json.loads(line)["id"] for line in out.read_text().splitlines()] if out.exists() else []
        assert kept == [d["record_id"] for d in decided if d["action"] == "keep"]
        decisions = {d["record_id"]: f"{d['action']}: {d['reason']}" for d in decided}
        return Done(int(ended.value.code or 0), said, decisions, kept)

    return run


def student(model: str) -> dict[str, list[str]]:
    """How each method is told to use a model for everything."""
    return {
        "select": [f"scorer.student={model}", "scorer.template=bare", "keep.below=null"],
        "selectit": [f"raters=[{{model: {model}}}]", "min_mass=0"],
        "clear": [f"student={model}", "samples=1"],
        "cherry": [f"student={model}", "keep.at_most=null", "pre_experience.tuner=null"],
    }


def tiny(make_tiny: MakeTiny, **how: Any) -> str:
    return f"{{kind: transformers, name: {make_tiny('llama', length=1024, **how)}}}"


ONE_FOR_ALL = (
    "{kind: scripted, chances: {Ask: {'1': 0.1, '2': 0.1, '3': 0.1, '4': 0.1, '5': 0.1}}, otherwise: 'Answer: A'}"
)


def test_a_tokenizer_without_digits_is_refused_before_anything_is_rated(
    ran: Command, make_tiny: MakeTiny, place: Path
) -> None:
    folder = make_tiny("llama", length=1024)
    rules = json.loads((folder / "tokenizer.json").read_text())
    for digit in "12345":
        rules["model"]["vocab"][f"<{digit}>"] = rules["model"]["vocab"].pop(digit)
    rules["model"]["unk_token"] = "!"
    (folder / "tokenizer.json").write_text(json.dumps(rules))
    done = ran("selectit", ROWS, f"raters.0.model.name={folder}")
    assert done.code == 77
    assert done.said == "the tokenizer has no token for the digit 1 alone; use a model that has.\n"
    assert sorted(p.name for p in place.iterdir()) == ["in.jsonl"], "nothing was begun"


@pytest.mark.parametrize("method", ["select", "selectit", "clear", "cherry"])
def test_scores_that_are_all_equal_keep_the_earlier_records(ran: Command, make_tiny: MakeTiny, method: str) -> None:
    model = ONE_FOR_ALL if method == "clear" else tiny(make_tiny, zero=True)
    settings = student(model)[method]
    if method == "clear":
        settings = [f"student={model}", "samples=0", "keep.fraction=0.4"]  # reflection alone: A of every record
    else:
        settings = [*settings, "keep=40%", *(["keep.rule=ours"] if method == "cherry" else [])]
    done = ran(method, ROWS, *settings)
    assert done.code == 0, done.said
    assert list(done.kept) == ["r0", "r1", "r2", "r3"]
    label, value = {"selectit": ("SelectIT", 0.0), "clear": ("confidence", 1.0)}.get(method, ("IFD", 1.0))
    assert all(f"{label} {value:.4f}" in reason for reason in done.decisions.values())


def test_equal_scores_at_the_bound_keep_nothing_and_say_why(ran: Command, make_tiny: MakeTiny) -> None:
    done = ran("select", ROWS, *student(tiny(make_tiny, zero=True))["select"], "keep.below=1.0")
    assert (done.code, done.kept) == (0, [])
    assert set(done.decisions.values()) == {"drop: IFD not below 1: 1.0000"}


BUDGETS = {
    "largest": ["keep.fraction=null", "keep.count=99"],
    "longest": ["keep.kind=longest", "keep.fraction=null", "keep.count=99"],
    "random": ["keep.kind=random", "keep.fraction=null", "keep.count=99"],
    "combined": ["keep.kind=combined", "keep.weights.ifd=1", "keep.fraction=null", "keep.count=99"],
    **{
        rule: ["keep.kind=diverse", f"keep.rule={rule}", "keep.fraction=null", "keep.count=99", "keep.candidates=1.0"]
        for rule in ("facility-location", "k-centre", "clusters")
    },
}


@pytest.mark.parametrize("budget", BUDGETS)
def test_a_budget_above_the_pool_keeps_the_pool(ran: Command, budget: str) -> None:
    settings = [s for s in student(SCRIPTED)["select"] if s != "keep.below=null"]
    done = ran("select", ROWS, *settings, *BUDGETS[budget], *(["keep.below=null"] if budget == "largest" else []))
    assert done.code == 0, done.said
    assert list(done.kept) == [row["id"] for row in ROWS]


@pytest.mark.parametrize("method", ["selectit", "clear", "cherry"])
def test_a_budget_above_the_pool_keeps_the_pool_whatever_the_method(ran: Command, method: str) -> None:
    kind = [] if method != "clear" else ["keep.kind=largest"]
    done = ran(method, ROWS, *student(ONE_FOR_ALL)[method], *kind, "keep.fraction=null", "keep.count=99")
    assert done.code == 0, done.said
    assert list(done.kept) == [row["id"] for row in ROWS]


@pytest.mark.parametrize("budget", BUDGETS)
def test_one_record_is_a_pool_for_every_selector(ran: Command, budget: str) -> None:
    settings = [s for s in student(SCRIPTED)["select"] if s != "keep.below=null"]
    done = ran("select", ROWS[:1], *settings, *BUDGETS[budget], *(["keep.below=null"] if budget == "largest" else []))
    assert (done.code, list(done.kept)) == (0, ["r0"]), done.said


@pytest.mark.parametrize("method", ["select", "selectit", "clear", "cherry"])
def test_one_record_is_a_pool_for_every_method(ran: Command, method: str) -> None:
    done = ran(method, ROWS[:1], *student(ONE_FOR_ALL)[method], "keep=100%")
    assert (done.code, list(done.kept)) == (0, ["r0"]), done.said


@pytest.mark.parametrize("rule", ["facility-location", "k-centre", "clusters"])
def test_zero_vectors_are_a_place_like_any_other(ran: Command, make_tiny: MakeTiny, rule: str) -> None:
    settings = ["keep.kind=diverse", f"keep.rule={rule}", "keep.candidates=null", "keep.fraction=0.4"]
    done = ran("select", ROWS, *settings, f"keep.embedder={tiny(make_tiny, zero=True)}")
    assert done.code == 0, done.said
    assert len(done.kept) == 4
    assert not any("nan" in reason or "inf" in reason for reason in done.decisions.values())


def with_nan(folder: Path, token: int | None) -> str:
    """The model with one token, or all of it, made no number."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        embeddings = model.get_input_embeddings().weight
        embeddings[slice(None) if token is None else token] = math.nan
    model.save_pretrained(folder)
    return f"{{kind: transformers, name: {folder}}}"


def token_of(folder: Path, text: str) -> int:
    import slow

    return slow.encode(folder, text)[-1]


@pytest.mark.parametrize("method", ["select", "selectit", "cherry"])
def test_a_score_that_is_no_number_sets_its_record_aside_and_moves_no_other(
    ran: Command, make_tiny: MakeTiny, method: str
) -> None:
    folder = make_tiny("llama", length=1024)
    smile = token_of(folder, "\U0001f642")
    rows = [*ROWS[:4], {"id": "odd", "instruction": "Smile.", "output": "A \U0001f642 it is."}, *ROWS[4:]]
    settings = [*student(with_nan(folder, smile))[method], "keep=50%"]
    done = ran(method, rows, *settings)
    assert done.code == 0, done.said
    assert done.decisions["odd"].startswith("quarantine: not-finite: ")
    assert Counter(reason.partition(":")[0] for reason in done.decisions.values())["quarantine"] == 1
    assert len(done.kept) == 5


def test_a_model_that_gives_nothing_but_nan_ends_the_run_and_says_how_often(ran: Command, make_tiny: MakeTiny) -> None:
    rows = [{**row, "id": f"{row['id']}-{n}"} for n in range(2) for row in ROWS]
    model = with_nan(make_tiny("llama", length=1024), None)
    done = ran("select", rows, *student(model)["select"])
    assert done.code == 5
    assert done.said.startswith('stage "score": 20 items failed, more than 10 (')
    assert "times not-finite: losses nan and nan over" in done.said
    assert done.said.endswith("raise max_failures to go on.\n")
    again = ran("select", rows, *student(model)["select"], "max_failures=100%")
    assert (again.code, again.kept) == (3, [])
    assert {reason.partition(":")[0] for reason in again.decisions.values()} == {"quarantine"}


@pytest.mark.parametrize("method", ["select", "selectit", "clear", "cherry"])
@pytest.mark.parametrize("keep", ["quota", "combined"])
def test_a_group_column_that_is_missing_is_refused_before_anybody_is_asked(
    ran: Command, place: Path, method: str, keep: str
) -> None:
    name = {"select": "ifd", "cherry": "ifd"}.get(method, method)
    settings = [f"keep.weights.{name}=1"] if keep == "combined" else []
    given = [s for s in student(SCRIPTED)[method] if not s.startswith("keep.")]
    done = ran(method, ROWS, *given, f"keep.kind={keep}", "keep.group=topic", *settings)
    assert done.code == 64
    assert done.said == "keep.group: no record has the field 'topic'; name a field of the input.\n"
    assert sorted(p.name for p in place.iterdir()) == ["in.jsonl"], "nothing was begun"
