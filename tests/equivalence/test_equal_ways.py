"""Pairs of ways that must give one answer: chunks of any size, threads, interruption, YAML, the command line, the order
of a hash table. Every answer is compared in bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from harness.interrupting import Interrupts
from tunesift import IFD, Largest, Local, Recipe, ScriptedModel, Select, load_recipe, recipe_for, run_recipe
from tunesift.cli import app
from tunesift.running import journal as storage

SAYS_WHEN = ("LOCK", "holder.json", "state.db", "state.db-wal", "state.db-shm", "run.json", "result.json", "report.html",
             "source.json")  # fmt: skip
"""Files of a run folder that say who made it, when and how."""
METHODS = {
    "select": ["scorer.student.kind=scripted", "scorer.template=bare", "keep=20%"],
    "score": ['scorers=[{kind: ifd, student: {kind: scripted}}, {kind: reversed-ifd, student: {kind: scripted}}]'],
    "selectit": ["raters.0.model.kind=scripted", "alpha=0.4"],
    "clear": ["student.kind=scripted", "samples=2"],
    "cherry": ["student.kind=scripted", "pre_experience.clusters=3", "pre_experience.per_cluster=2",
               "pre_experience.tuner=null"],
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PART_ROWS", 16)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Sixty records, some without a response, and a line that cannot be read."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    rows = [
        {
            "id": f"r{n}", "instruction": f"Count to {words[n % 10]}, twice {n}.", "input": words[n % 7] if n % 3 else "",
            "output": " ".join(words[: n * 7 % 11]), "kept_as_it_is": {"n": n},
        }
        for n in range(60)
    ]  # fmt: skip
    path = tmp_path / "input.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"instruction": "cut o')
    return path


@pytest.fixture(params=["select", "score", "selectit", "clear", pytest.param("cherry", marks=pytest.mark.slow)])
def method(request: pytest.FixtureRequest) -> str:
    if request.param == "cherry":
        pytest.importorskip("sklearn", reason='needs the "cluster" extra')
    return str(request.param)


Answer = Callable[..., dict[str, bytes]]


@pytest.fixture
def answer(source: Path, tmp_path: Path) -> Answer:
    """Runs a method with more settings, in a folder of its own; gives all that it leaves."""
    numbers = iter(range(100))

    def run(method: str, *settings: str) -> dict[str, bytes]:
        home = tmp_path / f"way-{next(numbers)}"
        home.mkdir()
        run_recipe(recipe_for(method, source, home / "output.jsonl", [*METHODS[method], *settings]))
        return left(home)

    return run


def left(home: Path) -> dict[str, bytes]:
    """Every file that a run leaves, but for those that say when it was."""
    return {str(p.relative_to(home)): p.read_bytes() for p in files(home) if p.name not in SAYS_WHEN}


def files(home: Path) -> Iterator[Path]:
    return (p for p in sorted(home.rglob("*")) if p.is_file())


def test_chunks_of_one_are_chunks_of_any_size(answer: Answer, method: str) -> None:
    one = answer(method, "execution.chunk=1")
    assert len([name for name in one if "/part-" in name]) >= 4
    assert one["output.jsonl"]
    for size in (7, 64):
        assert answer(method, f"execution.chunk={size}") == one, size


def test_threads_are_one_thread(answer: Answer) -> None:
    assert answer("select", "scorer.student.concurrency=4") == answer("select", "scorer.student.concurrency=1")


def test_interrupted_and_resumed_is_never_interrupted(
    answer: Answer, source: Path, tmp_path: Path, method: str
) -> None:
    """In one process, at every chunk; tests/faults kills processes."""
    undisturbed = answer(method, "execution.chunk=8")
    home = tmp_path / "disturbed"
    home.mkdir()
    recipe = recipe_for(method, source, home / "output.jsonl", [*METHODS[method], "execution.chunk=8"])
    interrupted = 0
    for chunks in (2, 1, 4, 3, 3, 2, 5, 1, 4, 6, 10, 100):
        try:
            run_recipe(recipe, progress=Interrupts(chunks))
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted >= 3
    assert left(home) == undisturbed


def test_a_run_that_is_done_is_not_done_again(answer: Answer, source: Path, tmp_path: Path, method: str) -> None:
    home = tmp_path / "twice"
    home.mkdir()
    recipe = recipe_for(method, source, home / "output.jsonl", METHODS[method])
    first = run_recipe(recipe)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files(home) if p.name not in ("holder.json", "LOCK")}
    again = run_recipe(recipe)
    after = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in files(home) if p.name not in ("holder.json", "LOCK")}
    assert (first.worked > 0, again.worked) == (True, 0)
    assert [p.name for p in before if before[p] != after.get(p)] == []
    assert (again.counts, again.run_id) == (first.counts, first.run_id)
    (home / "output.jsonl").unlink()
    third = run_recipe(recipe)
    assert third.worked == 0
    assert (home / "output.jsonl").read_bytes() == before[home / "output.jsonl"][0]


YAML = """
input: {input}
output: {output}
method:
  kind: select
  scorer:
    kind: ifd
    student: {{kind: scripted}}
    template: bare
  keep: {{kind: largest, fraction: 0.2, below: 1.0}}
execution: {{kind: local, chunk: 7}}
"""


def test_yaml_is_python_is_the_command_line(answer: Answer, source: Path, tmp_path: Path) -> None:
    homes = {way: tmp_path / way for way in ("yaml", "python", "method", "run")}
    for home in homes.values():
        home.mkdir()
        (home / "recipe.yaml").write_text(YAML.format(input=source, output=home / "output.jsonl"))
    python = Recipe(
        method=Select(scorer=IFD(student=ScriptedModel(), template="bare"), keep=Largest(fraction=0.2, below=1.0)),
        input=source,
        output=homes["python"] / "output.jsonl",
        execution=Local(chunk=7),
    )
    yaml = load_recipe(homes["yaml"] / "recipe.yaml")
    assert yaml == load_recipe(homes["python"] / "recipe.yaml", [f"output={yaml.output}"])
    assert python == load_recipe(homes["python"] / "recipe.yaml")
    run_recipe(yaml)
    run_recipe(python)
    words = ["select", str(source), "-o", str(homes["method"] / "output.jsonl"), *METHODS["select"], "--quiet"]
    for said in (words, ["run", str(homes["run"] / "recipe.yaml"), "--quiet"]):
        done = CliRunner().invoke(app, said, catch_exceptions=False)
        assert (done.exit_code, done.output) == (0, "")
    answers = {}
    for way, home in homes.items():
        (home / "recipe.yaml").unlink()
        answers[way] = left(home)
    assert answers["yaml"] == answers["python"] == answers["method"] == answers["run"] == answer("select")


def test_the_order_of_a_set_decides_nothing(source: Path, tmp_path: Path, method: str) -> None:
    """Text hashes differ from process to process; no result may."""
    found = []
    for seed in ("1", "2"):
        home = tmp_path / f"seed-{seed}"
        home.mkdir()
        words = [method, str(source), "-o", str(home / "output.jsonl"), *METHODS[method], "--quiet"]
        subprocess.run([sys.executable, "-m", "tunesift.cli", *words], check=True, timeout=120,
                       env={**os.environ, "PYTHONHASHSEED": seed})  # fmt: skip
        found.append(left(home))
    assert found[0] == found[1]


def test_json_is_json_lines_is_parquet(source: Path, tmp_path: Path) -> None:
    """One dataset in three containers: the same decisions, the same reasons, the same records kept."""
    rows = [json.loads(line) for line in source.read_text().splitlines()[:60]]
    (tmp_path / "array.json").write_text(json.dumps(rows))
    (tmp_path / "lines.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "table.parquet")
    decided, kept = [], []
    for name in ("array.json", "lines.jsonl", "table.parquet"):
        output = tmp_path / f"kept-{name}.jsonl"
        run_recipe(recipe_for("select", tmp_path / name, output, METHODS["select"]))
        decided.append(pq.read_table(tmp_path / f"{output.name}.run" / "decisions.parquet").to_pylist())
        kept.append([json.loads(line) for line in output.read_text().splitlines()])
    assert decided[0] == decided[1] == decided[2]
    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) == 12
