"""The command line, as a user goes through it: select, look, select again."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.command import Command, Told
from tunesift import cli, read_dataset, recipe_for, run_recipe
from tunesift.recipe import check_input

DEMO = Path(__file__).parents[2] / "demo" / "demo.jsonl"
SCRIPTED = "scorer.student.kind=scripted"
ROWS = [
    {"id": f"r{n}", "instruction": f"Question {n} of many?", "output": f"Answer {n} of many, and a word more."}
    for n in range(30)
]
ROWS[7]["output"] = " "


@pytest.fixture(autouse=True)
def place(stands_in: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one's own to stand in, with a file of thirty records, one of them without a response."""
    monkeypatch.setenv("COLUMNS", "100")
    (stands_in / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return stands_in


@pytest.fixture
def tunesift(tunesift: Command) -> Command:
    """The command line, in this process; a command that fails fails the test."""

    def run(*words: str) -> Told:
        told = tunesift(*words)
        assert told.code == 0, told.err
        return told

    return run


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_the_demo_is_selected_from_with_the_scorer_that_comes_along(place: Path) -> None:
    pytest.importorskip("torch", reason='needs the "local" extra')
    words = ["select", str(DEMO), "-o", "kept.jsonl", "--limit", "20", "keep=25%", "--json"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tunesift.cli", *words], capture_output=True, text=True, check=True, env=environment
    )
    told = json.loads(done.stdout)
    assert told["counts"] == {"in": 20, "kept": 5, "dropped": 15, "quarantined": 0}
    assert told["worked"] == 20
    source = DEMO.read_bytes().splitlines(keepends=True)[:20]
    kept = (place / "kept.jsonl").read_bytes().splitlines(keepends=True)
    assert [row for row in source if row in kept] == kept
    page = Path(told["report"]).read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert told["run_id"] in page


def test_select_tells_the_balance_the_reasons_and_where_to_look(tunesift: Command, place: Path) -> None:
    told = tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "keep=20%")
    first, *rest = told.out.splitlines()
    assert first == "kept.jsonl: 30 in = 6 kept + 24 dropped + 0 quarantined"
    assert "   6  kept: largest 20%" in rest
    assert any("no score" in line for line in rest)
    assert rest[-1] == "  report: kept.jsonl.run/report.html"
    assert told.err.startswith("score: 30 items\n")
    source = (place / "a.jsonl").read_text().splitlines()
    kept = (place / "kept.jsonl").read_text().splitlines()
    assert [row for row in source if row in kept] == kept
    assert len(kept) == 6


def test_a_second_start_does_no_work_and_changes_no_byte(tunesift: Command, place: Path) -> None:
    words = ["select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED]
    first = tunesift(*words, "--json").json
    before = (place / "kept.jsonl").read_bytes()
    second = tunesift(*words, "--json").json
    assert (first["worked"], second["worked"]) == (30, 0)
    assert second == first | {"worked": 0, "seconds": 0.0}
    assert (place / "kept.jsonl").read_bytes() == before
    assert "nothing was left to do" in tunesift(*words).out


def test_a_lost_output_is_written_again_from_the_journal(tunesift: Command, place: Path) -> None:
    words = ["select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--json"]
    tunesift(*words)
    before = (place / "kept.jsonl").read_bytes()
    (place / "kept.jsonl").unlink()
    assert tunesift(*words).json["worked"] == 0
    assert (place / "kept.jsonl").read_bytes() == before


def test_quiet_says_nothing(tunesift: Command) -> None:
    told = tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--quiet")
    assert (told.out, told.err) == ("", "")


def test_a_format_can_be_forced_and_rows_limited(tunesift: Command, place: Path) -> None:
    both = [{"instruction": "x", "output": "y", "prompt": "p", "completion": f"c {n}"} for n in range(9)]
    (place / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in both))
    told = tunesift(
        "select",
        "b.jsonl",
        "-o",
        "kept.jsonl",
        SCRIPTED,
        "keep=40%",
        "--format",
        "prompt-completion",
        "--limit",
        "5",
        "--json",
    )
    assert told.json["counts"]["in"] == 5
    run = json.loads((place / "kept.jsonl.run" / "run.json").read_text())
    assert (run["recipe"]["format"], run["recipe"]["limit"]) == ("prompt-completion", 5)


def test_settings_may_stand_before_and_behind_the_options(tunesift: Command, place: Path) -> None:
    told = tunesift("select", "a.jsonl", SCRIPTED, "-o", "kept.jsonl", "keep.count=3", "--json")
    assert told.json["counts"]["kept"] == 3


def test_rows_that_cannot_be_read_are_counted_and_kept_aside(tunesift: Command, place: Path) -> None:
    (place / "a.jsonl").write_text(
        (place / "a.jsonl").read_text() + '{"instruction": "\\ud800", "output": "x"}\n{broken\n'
    )
    told = tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--json").json
    assert told["counts"] == {"in": 32, "kept": 3, "dropped": 27, "quarantined": 2}
    rows = pq.read_table(place / "kept.jsonl.run" / "quarantine.parquet").to_pylist()
    assert [(r["file"], r["line"], r["code"], r["raw"]) for r in rows] == [
        ("a.jsonl", 31, "E302", b'{"instruction": "\\ud800", "output": "x"}'), ("a.jsonl", 32, "E103", b"{broken"),
    ]  # fmt: skip
    noted = json.loads((place / "kept.jsonl.run" / "inputs" / "source.json").read_text())
    assert base64.b64decode(noted["broken"][1]["raw"]) == b"{broken"


@pytest.mark.parametrize("ending", ["jsonl", "json", "jsonl.gz", "parquet"])
def test_score_writes_every_row_with_its_id_and_its_scores(tunesift: Command, place: Path, ending: str) -> None:
    rows = [{k: v for k, v in row.items() if k != "id"} for row in ROWS]
    (place / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tunesift("score", "a.jsonl", "-o", f"scored.{ending}", "scorers.0.student.kind=scripted", "--quiet")
    tunesift("score", f"scored.{ending}", "-o", "again.jsonl", "scorers.0.student.kind=scripted", "--quiet")
    scored = lines(place / "again.jsonl")
    assert [{k: row[k] for k in ("instruction", "output")} for row in scored] == rows
    assert [row["id"] for row in scored] == list(read_dataset("a.jsonl").ids())
    ifd = [row["scores"]["ifd"] for row in scored]
    assert [n for n, score in enumerate(ifd) if score["value"] is None] == [7]
    assert ifd[7]["note"] == "empty_response"
    assert all(score["value"] > 0 and score["parts"]["tokens"] > 0 for n, score in enumerate(ifd) if n != 7)


def test_parquet_keeps_its_columns_when_it_is_scored(tunesift: Command, place: Path) -> None:
    tunesift("select", "a.jsonl", "-o", "kept.parquet", SCRIPTED, "keep=50%", "--quiet")
    tunesift("score", "kept.parquet", "-o", "scored.parquet", "scorers.0.student.kind=scripted", "--quiet")
    old, new = pq.read_table(place / "kept.parquet"), pq.read_table(place / "scored.parquet")
    assert new.column_names == [*old.column_names, "scores"]
    assert new.drop_columns("scores").equals(old)


def test_scores_stand_beside_those_of_an_earlier_scorer(tunesift: Command, place: Path) -> None:
    tunesift("score", "a.jsonl", "-o", "one.jsonl", "scorers.0.student.kind=scripted", "--quiet")
    kind = ["scorers.0.kind=reversed-ifd", "scorers.0.student.kind=scripted"]
    tunesift("score", "one.jsonl", "-o", "two.jsonl", *kind, "--quiet")
    one, two = lines(place / "one.jsonl"), lines(place / "two.jsonl")
    assert all(set(row["scores"]) == {"ifd", "reversed-ifd"} for row in two)
    assert [row["scores"]["ifd"] for row in two] == [row["scores"]["ifd"] for row in one]


def test_a_field_that_stands_where_scores_are_written_is_refused(tunesift: Command, place: Path) -> None:
    (place / "b.jsonl").write_text(json.dumps(ROWS[0] | {"scores": [1, 2]}))
    with pytest.raises(AssertionError, match=r'E206 b\.jsonl: has a field "scores" of its own'):
        tunesift("score", "b.jsonl", "-o", "c.jsonl", "scorers.0.student.kind=scripted")
    assert not (place / "c.jsonl.run").exists()


def test_plan_says_what_a_run_will_ask_for_and_writes_nothing(tunesift: Command, place: Path) -> None:
    told = tunesift("plan", "select", "a.jsonl", SCRIPTED, "--limit", "20")
    assert told.out.splitlines()[:2] == [
        "a.jsonl: 20 records, 0 unreadable rows, about 261 tokens",
        "  stage score: 20 items, 2 forward passes each, by scripted",
    ]
    found = tunesift("plan", "select", "a.jsonl", SCRIPTED, "--json").json
    assert (found["records"], found["stages"][0]["items"], found["calls"]) == (30, 30, 0)
    (place / "r.yaml").write_text(
        "input: a.jsonl\noutput: b.jsonl\nmethod: {kind: cherry, student: {kind: scripted}}\n"
    )
    stages = tunesift("plan", "r.yaml", "method.pre_experience=null", "--json").json["stages"]
    assert [s["stage"] for s in stages] == ["ifd"]
    assert sorted(p.name for p in place.iterdir()) == ["a.jsonl", "r.yaml"]


def test_plan_knows_the_time_of_a_model_in_a_folder_without_loading_it(tunesift: Command) -> None:
    found = tunesift("plan", "select", "a.jsonl", "--json").json
    assert found["seconds"] > 0
    assert " s on this machine's processor" in tunesift("plan", "select", "a.jsonl").out


def test_plan_of_an_endpoint_tells_calls_money_and_time(tunesift: Command, place: Path) -> None:
    words = ["plan", "reflection", "a.jsonl", "teacher.url=http://localhost:1/v1", "teacher.model=toy"]
    calls, cost, time = tunesift(*words).out.splitlines()[-3:]
    assert calls.startswith(
        "  endpoints: 60 calls where every reply can be used, at most 186 calls (6 of them small, one before each stage) and "
    )
    assert (cost, time) == ("  cost: not known: give --prices", "  time: about 12 s if an answer takes 1 s")
    (place / "p.yaml").write_text("toy: {input: 1.0, output: 200.0}\n")
    found = tunesift(*words, "--prices", "p.yaml", "--json").json
    assert 0 < found["expected_money"] < found["money"]
    said = f"about {found['expected_money']:.2f} where an answer is as long as its record, at most {found['money']:.2f}"
    assert f"  cost: {said}" in tunesift(*words, "--prices", "p.yaml").out.splitlines()


def test_one_is_told_as_one(tunesift: Command, place: Path) -> None:
    rows = (place / "a.jsonl").read_text().splitlines(keepends=True)[:1]
    (place / "a.jsonl").write_text(rows[0])
    assert tunesift("plan", "select", "a.jsonl", SCRIPTED).out.splitlines()[:2] == [
        "a.jsonl: 1 record, 0 unreadable rows, about 13 tokens",
        "  stage score: 1 item, 2 forward passes each, by scripted",
    ]
    told = tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "keep=100%")
    assert told.err.startswith("score: 1 item\nscore: done, 1 item in ")
    assert "; 1 item was worked on" in told.out
    assert "  stage score: 1 item done" in tunesift("inspect", "kept.jsonl.run").out
    (place / "b.jsonl").write_text("".join(rows) + rows[0].replace('"r0"', '"other"'))
    told = tunesift("select", "b.jsonl", "-o", "other.jsonl", SCRIPTED, "keep=100%")
    assert "  note: 1 row that repeats an earlier one word for word" in told.out


def test_inspect_shows_a_run_and_one_of_its_records(tunesift: Command) -> None:
    tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--quiet")
    told = tunesift("inspect", "kept.jsonl.run").out.splitlines()
    assert told[0].endswith(", complete")
    assert told[1:3] == ["  input: a.jsonl", "  output: kept.jsonl"]
    assert "  stage score: 30 items done" in told
    assert "  30 in, 3 kept, 27 dropped, 0 quarantined" in told
    found = tunesift("inspect", "kept.jsonl.run", "--json").json
    assert (found["complete"], found["stages"], found["result"]["counts"]["kept"]) == (True, {"score": 30}, 3)
    record = tunesift("inspect", "kept.jsonl.run", "r7").out.splitlines()
    assert record[0] == "r7: drop"
    assert "no score" in record[1]
    one = tunesift("inspect", "kept.jsonl.run", "r7", "--json").json
    assert one["record_id"] == "r7"
    assert [m["role"] for m in one["messages"]] == ["user", "assistant"]
    assert one["stages"]["score"] == {"value": None, "parts": {}, "note": "empty_response"}


def test_a_record_is_found_by_its_number_and_by_the_beginning_of_its_id(tunesift: Command, place: Path) -> None:
    rows = [{"instruction": f"Question {n}?", "output": f"Answer {n}."} for n in range(30)]
    (place / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tunesift("select", "b.jsonl", "-o", "b_kept.jsonl", SCRIPTED, "--quiet")
    fifth = tunesift("inspect", "b_kept.jsonl.run", "5").out.splitlines()
    assert "  user: Question 4?" in fifth
    assert "  assistant: Answer 4." in fifth
    assert not any(re.search(r"\.\d{5}", line) for line in fifth)
    id = fifth[0].partition(":")[0]
    assert tunesift("inspect", "b_kept.jsonl.run", id[:12]).out.splitlines() == fifth


def test_the_version_and_help_are_told(tunesift: Command) -> None:
    assert re.fullmatch(r"tunesift \d+\.\d+\.\d+\n", tunesift("--version").out)
    assert "Usage: tunesift" in tunesift("help").out


def test_a_recipe_may_say_ten_percent(tunesift: Command, place: Path) -> None:
    (place / "r.yaml").write_text(
        "input: a.jsonl\noutput: one.jsonl\nmax_bad: 20%\nmethod:\n  kind: select\n"
        "  scorer: {kind: ifd, student: {kind: scripted}}\n  keep: {kind: largest, fraction: 10%, below: null}\n"
    )
    assert tunesift("run", "r.yaml", "--quiet").code == 0
    recipe = json.loads((place / "one.jsonl.run" / "run.json").read_text())["recipe"]
    assert (recipe["method"]["keep"]["fraction"], recipe["max_bad"]) == (0.1, 0.2)


def test_a_plan_takes_input_and_output_as_a_run_does(tunesift: Command) -> None:
    assert "30 records" in tunesift("plan", "select", "input=a.jsonl", "output=x.jsonl", SCRIPTED).out


def test_another_budget_takes_the_scores_of_the_run_before(tunesift: Command) -> None:
    tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--quiet")
    told = tunesift(
        "select", "a.jsonl", "-o", "more.jsonl", SCRIPTED, "keep=20%", "--reuse", "kept.jsonl.run", "--json"
    ).json
    assert (told["worked"], told["counts"]["kept"]) == (0, 6)


def test_a_run_from_a_recipe_is_the_run_of_the_command(tunesift: Command, place: Path) -> None:
    (place / "r.yaml").write_text(
        "input: a.jsonl\noutput: one.jsonl\nmethod:\n  kind: select\n  scorer: {kind: ifd, student: {kind: scripted}}\n"
    )
    tunesift("run", "r.yaml", "method.keep.fraction=0.2", "--quiet")
    tunesift("select", "a.jsonl", "-o", "two.jsonl", SCRIPTED, "keep=20%", "--quiet")
    assert (place / "one.jsonl").read_bytes() == (place / "two.jsonl").read_bytes()


def test_three_lines_of_python_do_the_same(place: Path) -> None:
    summary = run_recipe(recipe_for("select", Path("a.jsonl"), Path("kept.jsonl"), [SCRIPTED]))
    assert summary.balance == "30 in = 3 kept + 27 dropped + 0 quarantined"
    assert sum(summary.reasons.values()) == 30
    assert len(lines(place / "kept.jsonl")) == 3


def test_list_names_everything_that_a_recipe_may(tunesift: Command) -> None:
    found = tunesift("list", "--json").json
    assert set(found["methods"]) == {
        "select",
        "cherry",
        "selectit",
        "clear",
        "reflection",
        "selective-reflection",
        "genqa",
        "debatune",
        "controllability",
        "mctune",
        "mctune-evaluate",
        "odin",
        "optune",
        "sima",
        "star-agents",
        "tune",
        "score",
    }
    assert set(found["scorers"]) == {"ifd", "reversed-ifd", "dual-ifd", "perplexity"}
    baselines = {"random", "longest", "shortest"}
    by_score = {"confident", "largest", "smallest", "above", "quota", "combined", "diverse"}
    assert set(found["selectors"]) == {*by_score, *baselines, "distinct"}
    assert set(found["models"]) == {"transformers", "http", "scripted", "vision", "nli", "reward"}
    assert {kind for kind, entry in found["selectors"].items() if "only" in entry} == {"confident"}
    assert set(found["embedders"]) == {"sentence-transformers", "hashed-ngrams", "transformers", "http", "scripted"}
    assert {*found["methods"], "superfiltering", "clear-correct"} <= set(found["recipes"])
    told = tunesift("list").out.splitlines()
    lines = [line for line in told if line.startswith("  ")]
    entries = [(kind, entry["summary"]) for group in found.values() for kind, entry in group.items()]
    column = max(len(kind) for kind, _ in entries) + 4
    assert all(
        any(line.split()[0] == kind and line[column:].startswith(said) for line in lines) for kind, said in entries
    )
    assert {line[column - 2 : column] for line in lines} == {"  "}
    assert told[-1] == "every setting: docs/reference.md"


def test_schema_is_json(tunesift: Command) -> None:
    assert tunesift("schema").json["properties"]["input"]["description"]


def test_doctor_says_what_this_machine_can_do(tunesift: Command) -> None:
    found = tunesift("doctor", "--json").json
    assert found["embedded_scorer"] is True
    assert found["processors"] > 0 < found["gflops_float32"]
    assert found["memory_gb"] > 0 < found["open_files"]
    told = tunesift("doctor").out
    assert "embedded scorer: in the package" in told
    assert f"limits: {found['open_files']:,} open files, " in told
    assert re.search(r"^disk: [\d,]+\.\d GB free in this folder$", told, re.M)


COMMANDS = [
    "select",
    "cherry",
    "selectit",
    "clear",
    "reflection",
    "selective-reflection",
    "genqa",
    "debatune",
    "controllability",
    "mctune",
    "mctune-evaluate",
    "odin",
    "optune",
    "sima",
    "star-agents",
    "tune",
    "score",
    "run",
    "plan",
    "inspect",
    "compare",
    "pareto",
    "verify",
    "repair",
    "list",
    "schema",
    "doctor",
]
OF_METHODS = cli.METHODS | cli.MAKERS


def test_help_names_every_command(tunesift: Command) -> None:
    told = tunesift("--help").out
    assert told == tunesift().out == tunesift("-h").out
    assert all(name in told for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(tunesift: Command, name: str) -> None:
    told = " ".join(tunesift(name, "--help").out.split())
    assert f"tunesift {name}" in told
    if name in OF_METHODS:
        words = ("--output", "--reuse", "--quiet", "--json", "NAME=VALUE", f"Example: tunesift {name} ")
        assert all(word in told for word in words)
        assert {word in told for word in ("--format", "--limit")} == {name in cli.METHODS}
        own = OF_METHODS[name].settings
        others = [w for w in ("teacher.url", "raters.0", "scorers.0", "scorer.student", "splits=") if w not in own]
        assert not [word for word in others if word in told], "the settings of other commands"


@pytest.mark.parametrize("name", OF_METHODS)
def test_the_example_of_every_method_is_a_recipe(name: str) -> None:
    before, _, after = OF_METHODS[name].example.rpartition("-o ")
    output, *settings = after.split()
    recipe = recipe_for(name, Path(before.strip()) if before else None, Path(output), settings)
    assert recipe.method.kind == name
    check_input(recipe)


def test_help_of_run_says_that_recipes_go_by_name(tunesift: Command) -> None:
    told = " ".join(tunesift("run", "--help").out.replace("│", " ").split())
    assert "or the name of one of the package; tunesift list has them" in told
    assert "Example: tunesift run superfiltering input=alpaca.json output=kept.json" in told
    assert "Example: tunesift select alpaca.json -o kept.json keep=10%" in tunesift("--help").out


def test_progress_goes_to_stderr_and_the_result_alone_to_stdout(tunesift: Command) -> None:
    told = tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--json")
    assert told.out.count("\n") == 1
    assert told.err == ""


def test_verify_finds_a_changed_byte_and_repair_makes_the_folder_whole(tunesift: Command, place: Path) -> None:
    tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED)
    folder = place / "kept.jsonl.run"
    assert tunesift("verify", "kept.jsonl.run").out == "kept.jsonl.run: every byte is as it was written\n"
    assert tunesift("verify", "kept.jsonl.run", "--json").json == []
    part = folder / "stages" / "score" / "part-000000.parquet"
    whole = part.read_bytes()
    part.write_bytes(whole[:500] + bytes([whole[500] ^ 8]) + whole[501:])
    with pytest.raises(AssertionError, match=r"part-000000\.parquet: is not as it was sealed"):
        tunesift("verify", "kept.jsonl.run")
    assert "its rows will be done again" in tunesift("repair", "kept.jsonl.run").out
    again = tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--json").json
    assert (again["worked"], part.read_bytes()) == (30, whole)
    assert tunesift("repair", "kept.jsonl.run").out == "kept.jsonl.run: nothing is damaged.\n"


def test_changed_inputs_and_results_in_the_folder_are_found_and_made_again(tunesift: Command, place: Path) -> None:
    tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED)
    folder = place / "kept.jsonl.run"
    for name in ("inputs/records.arrow", "inputs/ids.arrow", "inputs/source.json", "report.html", "quarantine.parquet"):
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert str(path.relative_to(place)) in tunesift("repair", "kept.jsonl.run").out
        assert tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--json").json["worked"] == 0
        assert tunesift("verify", "kept.jsonl.run", "--json").json == [], name


def test_failures_are_tried_again_only_where_there_are_any(tunesift: Command, place: Path) -> None:
    for _ in range(2):
        told = tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--retry-failed", "--json").json
    assert (told["worked"], told["counts"]["in"]) == (0, 30)
    tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--retry-failed=crashed")
    with pytest.raises(AssertionError, match="--retry-failed: soon is no kind of failure; write one of refused,"):
        tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--retry-failed=soon")


def test_a_run_that_set_more_aside_than_may_be_is_complete_and_says_so_with_a_code(place: Path) -> None:
    """Among the first thousand rows so many stop it; these come later."""
    rows = [{"instruction": f"Say {n}.", "output": f"{n} it is"} for n in range(1100)]
    lines = [json.dumps(row) + "\n" for row in rows] + ["{}\n"] * 12
    (place / "late.jsonl").write_text("".join(lines))
    command = [sys.executable, "-m", "tunesift", "select", "late.jsonl", "-o", "kept.jsonl", SCRIPTED, "max_bad=0.01"]
    for _ in range(2):  # a run that was complete before says the same
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 3, done.stderr
        assert done.stderr.endswith("kept.jsonl: is written, and 12 of 1,112 rows are quarantined, more than max_bad=0.01; "
                                    "look at the report, or raise max_bad.\n")  # fmt: skip
        assert (place / "kept.jsonl").exists()
    allowed = subprocess.run([*command[:-1], "max_bad=0.02"], capture_output=True, text=True, timeout=60, check=False)
    assert allowed.returncode == 0, allowed.stderr


def test_a_disk_that_may_be_too_small_is_asked_about_before_anything_is_read(
    tunesift: Command, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("tunesift.perform.disk_usage", lambda _: usage(10_000, 1_000, 1_000))
    with pytest.raises(AssertionError, match=r"may need \d kB, and the disk has 1 kB; make room, or say --yes"):
        tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED)
    assert not (place / "kept.jsonl.run").exists()
    assert tunesift("select", "a.jsonl", "-o", "kept.jsonl", SCRIPTED, "--yes", "--json").json["counts"]["in"] == 30
