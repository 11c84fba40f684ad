"""What the documentation says is what the code does."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_reference_page_is_what_make_docs_would_write() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.page() == (ROOT / "docs" / "reference.md").read_text("utf-8"), "run `make docs`"


def test_every_table_of_the_reference_is_whole() -> None:
    """Every row has three cells, ends on its line, and says something of its setting."""
    page = (ROOT / "docs" / "reference.md").read_text("utf-8").partition("## Settings")[2]
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)]
        assert (len(cells), cells[0], cells[-1]) == (5, "", ""), row
        assert all(cells[1:-1]), row
        assert cells[1] != "`kind`"
    starts = ("#", "|", "`kind: ")
    loose = [line for line in page.splitlines() if " | " in line and not line.startswith(starts)]
    assert not loose
    assert "| `parameters` | `{}` |" in page
    assert "`keep=10%` and `keep=0.1` are short for `keep.fraction=0.1`" in (ROOT / "docs" / "reference.md").read_text()


def test_every_exit_code_stands_in_the_reference() -> None:
    from tunesift import errors

    page = (ROOT / "docs" / "reference.md").read_text("utf-8")
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TunesiftError)
    ]
    assert len(kinds) > 15
    for kind in kinds:
        row = next(line for line in page.splitlines() if re.match(rf"\| {kind.exit_code}\b", line))
        assert kind is errors.TunesiftError or f"`{kind.__name__}`: " in row


def test_every_dependency_stands_on_the_page_of_dependencies() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    needed = [*project["dependencies"], *(name for extra, names in extras.items() if extra != "dev" for name in names)]
    page = (ROOT / "docs" / "dependencies.md").read_text("utf-8")
    for need in needed:
        name = re.split(r"[<>=\[]", need)[0]
        if name == project["name"]:  # another of its extras, whose packages stand there
            continue
        assert re.search(rf"\| {re.escape(name)} \d", page), name


def test_nothing_refers_to_what_is_not_in_the_repository() -> None:
    texts = [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "src").rglob("*.py"),
        *(ROOT / "src").rglob("*.yaml"),
    ]
    for path in texts:
        found = re.search(r"\bcard \w+\.md|\bthe contract\b|an issue of its own", path.read_text("utf-8"))
        assert not found, f"{path}: {found}"


def test_every_command_of_the_readme_exists() -> None:
    from tunesift.cli import app

    commands = {c.name or (c.callback.__name__ if c.callback else "") for c in app.registered_commands}
    lines = (ROOT / "README.md").read_text("utf-8").replace("`", " ").split()
    named = {word for before, word in itertools.pairwise(lines) if before == "tunesift" and word.isalpha()}
    methods = {
        "select",
        "cherry",
        "selectit",
        "clear",
        "reflection",
        "genqa",
        "debatune",
        "controllability",
        "mctune",
        "odin",
        "optune",
        "sima",
        "tune",
        "score",
    }
    assert named & commands == {*methods, "plan", "run", "compare", "verify", "repair", "export"}


def test_every_test_that_the_page_of_promises_names_is_there() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    named = re.findall(r"`((?:tests|benchmarks)/[\w/]+(?:\.py)?|test_\w+\.py)", page)
    assert len(named) > 50
    there = {path.name for path in (ROOT / "tests").rglob("*.py")}
    assert not [name for name in named if name.startswith("test_") and name not in there]
    assert not [name for name in named if "/" in name and not (ROOT / name).exists()]


def test_every_fault_of_an_endpoint_has_a_test_of_its_number() -> None:
    """Numbers of the fault matrix, in the names of tests and of the matrix's cases."""
    named: set[int] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for line in path.read_text("utf-8").splitlines():
            if "def test_" in line or "Case(" in line:
                named |= {int(number) for number in re.findall(r"F(\d\d)(?!\d)", line)}
    assert named >= set(range(1, 68)), sorted(set(range(1, 68)) - named)


@pytest.mark.slow
def test_the_benchmark_of_endpoints_runs() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "endpoint.py"), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["calls_per_s"]["ours, 8"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diversity", "selecting", "soak"])
def test_a_benchmark_runs(name: str) -> None:
    script = ROOT / "benchmarks" / f"{name}.py"
    done = subprocess.run([sys.executable, str(script), "--smoke"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_published_values_without_weights_say_so(shared: Path) -> None:
    words = [sys.executable, str(ROOT / "benchmarks" / "published.py"), "--data", str(shared), "--smoke"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "not measured: no folder with GPT-2's weights was given" in done.stdout


@pytest.mark.slow
def test_the_benchmark_of_judgements_runs(shared: Path) -> None:
    words = [sys.executable, str(ROOT / "benchmarks" / "judgements.py"), "--data", str(shared), "--smoke"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "| recipe `combined` |" in done.stdout


@pytest.mark.slow
def test_the_benchmark_of_ratings_runs_and_asks_k_times_per_record() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "selectit.py"), "--smoke"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["k_times_records"] < run["passes"]["ours, padded"]["rows"] <= run["k_times_records"] + 10
    assert run["passes"]["ours"]["rows"] < run["k_times_records"], "a pack is one row"
    assert run["passes"]["ours"]["tokens"] < run["passes"]["ours, whole"]["tokens"]
    assert run["passes"]["five spans"]["rows"] == 5 * run["k_times_records"]


@pytest.mark.slow
def test_the_benchmarks_of_growth_and_of_a_screen_run(shared: Path) -> None:
    for words in (["growth.py"], ["screening.py", "--data", str(shared)]):
        command = [sys.executable, str(ROOT / "benchmarks" / words[0]), *words[1:], "--smoke"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert str(shared) not in json.loads(done.stdout)["command"]


@pytest.mark.slow
def test_the_benchmark_of_scoring_runs_and_all_ways_agree() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "scoring.py"), "--smoke"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    compared = json.loads(done.stdout)["compared"]
    assert set(compared["cherry"]["ours_is_times"]) >= {"cherry", "padded by 8"}
    for run in compared.values():
        assert max(run["largest_difference"].values()) < 1e-5
        assert not any(run["neighbours_in_another_order"].values())


@pytest.mark.slow
def test_the_benchmark_of_tokens_runs_and_ours_is_faster() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "tokenising.py"), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["tokens"]["tokenizer"] == told["tokens"]["ours"]
    assert told["ours_is_times"]["published"]["tokens"] > 2


@pytest.mark.slow
def test_the_benchmark_of_refining_runs() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "refining.py"), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["all"]["replaced"] == 40
    assert found["all"]["calls_a_row"] == 2 + 1 / 40  # and one small call before the first


@pytest.mark.slow
def test_the_benchmark_of_generating_runs() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "generating.py"), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for run in (found["20"], found["40"], found["faults"]):
        assert run["prompts"] == run["draws"] + run["lists"] + 1  # one small call before the first
        assert run["calls"] == run["answered_well"] + sum(run["spoiled"].values())
    assert found["faults"]["rows_as_without_faults"] == found["faults"]["rows"] == 40
    assert found["exact"]["calls"] == 200 + 200 // 200 + 1  # n + n / 200
    assert (found["repeating"]["rows"], found["repeating"]["draws"]) == (1, 40)


@pytest.mark.slow
def test_the_benchmark_of_star_agents_runs() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "star_agents.py"), "--smoke"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["seeds_a_second"]) == {"1", "4", "16", "64", "faithful"}
    assert found["calls_a_seed"]["faithful"] == 1 + 4 + 2 * 4  # base, drawn, and each of those judged in both orders
    assert found["calls_default_to_faithful"] < 1


@pytest.mark.slow
def test_the_benchmark_of_tuning_runs(shared: Path) -> None:
    pytest.importorskip("trl", reason='needs the "train" extra')
    words = [sys.executable, str(ROOT / "benchmarks" / "tuning.py"), "--data", str(shared), "--smoke"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (ours,), (theirs,) = found["runs"]["ours"], found["runs"]["theirs"]
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)  # the same training: rows, order, labels, settings
    assert found["forecast, MB"] > 0


@pytest.mark.parametrize("results", ["reward_length", "reward_length_by_accuracy"])
def test_the_page_of_rewards_has_the_figures_that_were_measured(results: str) -> None:
    page = (ROOT / "docs" / "odin.md").read_text("utf-8")
    trials = json.loads((ROOT / "benchmarks" / "results" / f"{results}.json").read_text("utf-8"))["trials"]
    models = [*trials["oasst"], *trials["preference"]]
    assert [model["model"] for model in models] == ["one head", "ODIN"] * 2
    assert f"`benchmarks/results/{results}.json`" in page
    for name in ("Pearson", "accuracy", "accuracy there", "accuracy in those"):
        assert f" | {' | '.join(f'{model[name]:.2f}' for model in models)} |\n" in page, name


def test_rewards_of_two_heads_went_less_with_length_on_both_sets_where_the_last_weights_were_left() -> None:
    """Where the weights were those that judged best it was the other way round, which the page says."""
    for results, is_less in (("reward_length", True), ("reward_length_by_accuracy", False)):
        trials = json.loads((ROOT / "benchmarks" / "results" / f"{results}.json").read_text("utf-8"))["trials"]
        for data in ("oasst", "preference"):
            plain, odin = (abs(model["Pearson"]) for model in trials[data])
            assert (odin < plain) is is_less, (results, data)


@pytest.mark.slow
def test_the_benchmark_of_rewards_runs(shared: Path) -> None:
    pytest.importorskip("trl", reason='needs the "train" extra')
    words = [sys.executable, str(ROOT / "benchmarks" / "reward_length.py"), "--data", str(shared), "--smoke"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.partition("\n{\n")[2]  # behind a line for each training
    plain, odin = json.loads("{" + printed)["trials"]["oasst"]
    assert (plain["model"], odin["model"]) == ("one head", "ODIN")
    assert plain["pairs"] == odin["pairs"] > 0


@pytest.mark.slow
def test_the_benchmark_of_control_runs(shared: Path) -> None:
    pytest.importorskip("trl", reason='needs the "train" extra')
    words = [sys.executable, str(ROOT / "benchmarks" / "controlling.py"), "--data", str(shared), "--smoke"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["training"]["records"] == 20
    assert {row["n"] for row in found["tuned"]["controls"]} == {row["n"] for row in found["untuned"]["controls"]}
