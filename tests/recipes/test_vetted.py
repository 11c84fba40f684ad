"""Every vetted recipe loads, is the constructor call that it looks like, and says where its numbers come from."""

from __future__ import annotations

import json
import re
from pathlib import Path, PosixPath

import pytest

import tunesift
import tunesift.methods
from harness.seeing import embedded
from harness.tiny import MakeTiny
from tunesift import Recipe, ScriptedModel, load_recipe, recipe_for, run_recipe
from tunesift.planning import plan
from tunesift.recipe import as_json, check, vetted, vetted_summary

FILES = sorted((Path(tunesift.__file__).parent / "recipes").glob("*.yaml"))
NAMES = [file.stem for file in FILES]
PUBLIC = {name: getattr(tunesift, name) for name in tunesift.__all__} | {"PosixPath": PosixPath}


@pytest.fixture(params=FILES, ids=NAMES)
def file(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def recipe(file: Path) -> Recipe:
    return recipe_for(file.stem, Path("in.jsonl"), Path("out.jsonl"))


def test_the_table_of_methods_names_every_recipe_and_the_page_of_its_method() -> None:
    rows = [line.split() for line in (tunesift.methods.__doc__ or "").splitlines() if ".yaml" in line]
    pages = {name.rstrip(",").removesuffix(".yaml"): row for row in rows for name in row if ".yaml" in name}
    assert sorted(pages) == sorted(NAMES)
    for name, row in pages.items():
        home = type(recipe_for(name, Path("in.jsonl"), Path("out.jsonl")).method).__module__
        assert f"{home.rpartition('.')[2]}.py" in row, name


def test_there_is_a_recipe_for_every_method() -> None:
    kinds = {str(vetted(name)["method"]["kind"]) for name in NAMES}  # type: ignore[call-overload, index]
    assert kinds == {
        "select", "cherry", "selectit", "clear", "reflection", "selective-reflection", "genqa", "debatune", "controllability",
        "mctune", "mctune-evaluate", "odin", "optune", "sima",
        "star-agents", "tune", "score",
    }  # fmt: skip
    assert {
        "select",
        "cherry",
        "score",
        "superfiltering",
        "selectit",
        "selectit-full",
        "clear",
        "refine-alpaca",
        "refine-wizardlm",
    } <= set(NAMES)


def test_it_loads_as_a_file_too(file: Path, recipe: Recipe) -> None:
    assert load_recipe(file, ["input=in.jsonl", "output=out.jsonl"]) == recipe


def test_it_comes_back_from_json(recipe: Recipe) -> None:
    assert check(json.loads(json.dumps(as_json(recipe)))) == recipe


def test_it_equals_the_constructor_call_that_it_prints_as(recipe: Recipe) -> None:
    assert eval(repr(recipe), dict(PUBLIC)) == recipe


def test_it_names_the_source_of_its_numbers(file: Path) -> None:
    text = file.read_text("utf-8")
    comment = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert text.startswith("#")
    assert re.search(r"arXiv:\d{4}\.\d{5}", comment), "name a paper"
    assert len(vetted_summary(file.stem)) <= 110


def test_it_names_nothing_that_has_to_be_downloaded_unless_its_comment_says_so(file: Path) -> None:
    names = re.findall(r"name: ([\w/.-]+)", file.read_text("utf-8"))
    assert set(names) <= {"embedded"} or re.search(r"Set [\w.]+\.name to a folder", file.read_text("utf-8"))


def test_what_trains_a_model_is_planned_for_tiny_weights(tmp_path: Path, make_tiny: MakeTiny) -> None:
    """It runs in `tests/tuning/test_tune.py`; a scripted student cannot be trained."""
    rows = [{"instruction": f"Question {n}?", "output": "Answer " * n} for n in range(1, 41)]
    (tmp_path / "in.json").write_text(json.dumps(rows))
    recipe = recipe_for("tune", tmp_path / "in.json", tmp_path / "tuned", [f"student.name={make_tiny()}"])
    measure, tune = plan(recipe).stages
    assert (measure.items, measure.forwards, tune.items) == (40, 0, 40)
    assert tune.told.startswith("at most 3 updates, about ")  # 40 records are one batch of 128, read three times


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.stem not in ("tune", "optune", "odin", "sima")],
    indirect=True,
    ids=lambda f: f.stem,
)
def test_it_plans_and_runs_dry_with_a_scripted_student(recipe: Recipe, tmp_path: Path) -> None:
    rows = rows_for(recipe.method.kind)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = as_json(recipe) | {"input": str(tmp_path / "in.jsonl"), "output": str(tmp_path / "out.jsonl")}
    method = fields["method"]
    for holder in (method, method.get("scorer", {}), *method.get("scorers", ()), *method.get("also", ())):
        if "student" in holder:
            holder["student"] = {"kind": "scripted"}
    if "embedder" in method.get("keep", {}):
        scripted: dict[str, object] = {
            "embedder": {"kind": "scripted"},
            "below": None,
        }  # as many candidates as are planned
        method["keep"] |= scripted | {"fraction": 0.1}  # of 40 records, 2 percent are none
    if method.get("correct"):
        method["correct"]["tuned"] = [{"kind": "scripted", "otherwise": "Another answer."}]
    scripted_roles = {
        "teacher": {"kind": "scripted", "replies": TAUGHT},
        "judge": {"kind": "scripted", "otherwise": "Cannot be read."},  # so that all are asked again
    }
    method |= {role: model for role, model in scripted_roles.items() if role in method}
    if method["kind"] == "genqa":
        fields["input"] = None
        method |= {"model": {"kind": "scripted", "replies": GENERATES}, "count": 1}
    method |= OF_METHOD.get(method["kind"], {})
    for rater in method.get("raters", ()):
        rater["model"] = {"kind": "scripted"}
    if method["kind"] == "cherry":
        pytest.importorskip("sklearn", reason='needs the "cluster" extra')
        method["pre_experience"] |= {"clusters": 3, "tuner": None}
    dry = check(fields)
    assert ScriptedModel() in (
        getattr(dry.method, "student", ScriptedModel()),
        *(getattr(s, "student", None) for s in scorers(dry)),
        *(rater.model for rater in getattr(dry.method, "raters", ())),
    )
    stages = plan(dry).stages
    summary = run_recipe(dry)
    planned = sum(s.items for s in stages)
    if method["kind"] == "genqa":
        assert summary.counts == {"in": 0, "kept": 0, "dropped": 0, "quarantined": 0, "created": 1}
        assert 0 < summary.worked <= planned
        return
    at_most = {"teacher", "agents", "critic_orders"} & set(method) or method.get(
        "correct"
    )  # further tries, and what a verdict may need
    assert planned == summary.worked > 0 or (at_most and planned > summary.worked >= 80)
    assert summary.counts["in"] == 40 == sum(n for name, n in summary.counts.items() if name not in ("in", "created"))


def rows_for(kind: str) -> list[dict[str, object]]:
    """Forty rows that a method can read."""
    rows: list[dict[str, object]] = [
        {"instruction": f"Question {n}?", "input": "", "output": f"Answer {n} and more.", "topic": "Zoos are good",
         "side": "negative", "argument": "They are not."} for n in range(40)
    ]  # fmt: skip
    if kind == "mctune-evaluate":
        return [row | {"mctune": {"values": {"t_word": 4}, "analyzer_id": "tunesift/1/core"}} for row in rows]
    return [row | {"image": embedded()} for row in rows] if kind == "sima" else rows


OF_METHOD: dict[str, dict[str, object]] = {
    "star-agents": {
        "agents": [{"name": n, "model": {"kind": "scripted", "otherwise": n}} for n in ("a", "b")],
        "small": {"kind": "scripted"}, "large": {"kind": "scripted", "otherwise": "Another model."},
        "judge": {"kind": "scripted", "otherwise": "[[C]]"}, "faithful": True,
    },
    "mctune": {"held_out": 5},
    "sima": {"tuner": None},  # what is scripted is one answer, of which there is no pair
    "mctune-evaluate": {"model": {"kind": "scripted"}},
    "debatune": {"max_duplicates": 1.0},  # what is scripted is one statement for all
}  # fmt: skip
"""Further settings of a method that scripted models can take part in."""


TAUGHT = {
    "[Better Answer] your answer": "[Better Answer] The answer is this, and it is more than that. [End]",
    "Name the strongest": "1. It is cheap.\n2. It is fast.\n3. It is safe.",
    "must stand on its own": "It is right because of what everybody knows.",
    "[New Instruction] your instruction": "[New Instruction] What is it? [End] [New Answer] This and that. [End]",
}
"""What a teacher says to anything."""


GENERATES = {
    "nothing before or after the list": "\n".join(f"{n}. Subject {n}" for n in range(1, 61)),
    "Start the line": "Question: Why do leaves fall in autumn? Explain.\nAnswer: Abscission.",
}
"""What a generator says to anything."""


def scorers(recipe: Recipe) -> list[object]:
    return [getattr(recipe.method, "scorer", None), *getattr(recipe.method, "scorers", ())]
