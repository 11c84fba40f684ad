"""Which changes of the code does no test notice? Mutations of one package by mutmut, and those that survive.

    pip install mutmut==3.8.1
    python tests/mutate.py scoring [--children 2] [--folder /tmp/mutants]

Works on a clone of what is committed, in a folder of its own, so that this one stays as it is. Mutations of text literals
are left out: how a sentence is worded is no behaviour, and kinds and actions are checked by mypy. Left out too are tests
of more than a second, and so all that start processes of their own: a mutant that survives here may be noticed by
`make test`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNIT = "tests/unit/test_"
PACKAGES: dict[str, tuple[str, list[str]]] = {
    "parsing": ("src/tunesift/parsing.py", [f"{UNIT}parsing.py"]),
    "scoring": ("src/tunesift/scoring/*", [
        *(f"{UNIT}{name}.py" for name in ("selectors", "quota_early", "combined", "diverse", "baselines", "spans")),
        "tests/oracles/test_ifd.py", "tests/oracles/test_ifd_items.py", "tests/oracles/test_published_rules.py",
        "tests/faults/test_bad_selection.py", "tests/methods/test_select.py",
    ]),
    "running": ("src/tunesift/running/*", [
        f"{UNIT}{name}.py" for name in ("journal", "door", "outcomes", "threads", "lives", "run_folder", "ledger", "mending", "mounts",
                                        "walking", "perform", "scratch", "step_notes", "fsio", "locking", "results", "reusing", "stopping",
                                        "watchdog", "charts")
    ]),
    "pages": ("src/tunesift/methods/*", ["tests/oracles", "tests/methods", f"{UNIT}step_notes.py", f"{UNIT}bounds.py"]),
}  # fmt: skip
COPIED = ["tests", "benchmarks", "docs", "demo", "training", "README.md", "Makefile", "constraints.txt", "LICENSE",
          "CHANGELOG.md"]  # fmt: skip
LONGEST_S = 1.0
"""Seconds of a test that is asked of every mutant; whatever starts a process of its own takes longer."""
_TOOK = re.compile(r"^[\d.]+s (?:call|setup) +(tests/.*)$", re.MULTILINE)


def slow(folder: Path, tests: list[str]) -> list[str]:
    """The tests among these that take too long, measured once."""
    command = [sys.executable, "-m", "pytest", *tests, "-p", "no:cacheprovider", "--durations=0", "--durations-min",
               str(LONGEST_S), "-m", "not slow and not gpu"]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(folder / "src")}
    return _TOOK.findall(
        subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout
    )


def prepare(folder: Path, package: str) -> None:
    """A clone of what is committed, told what to mutate and by which tests."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    if (ROOT.parent / "shared").is_dir():
        (folder / "shared").symlink_to(ROOT.parent / "shared")  # the tests run in mutants/, and look beside it
    (folder / "mutants" / "src").mkdir(parents=True)  # Python looks once for a folder of PYTHONPATH, when it starts
    pattern, tests = PACKAGES[package]
    left_out = [word for test in slow(folder, tests) for word in ("--deselect", test)]
    options = ["-p", "no:cacheprovider", "-q", "-m", "not slow and not gpu", *left_out]
    said = {"source_paths": ["src"], "only_mutate": [pattern], "also_copy": COPIED,
            "pytest_add_cli_args_test_selection": tests, "pytest_add_cli_args": options}  # fmt: skip
    with (folder / "pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n" + "".join(f"{key} = {value!r}\n" for key, value in said.items()))


def mutmut(words: list[str]) -> None:
    """The tool's own command line, without mutations of texts."""
    operators = import_module("mutmut.mutation.mutators").mutation_operators
    operators[:] = [pair for pair in operators if pair[1].__name__ != "operator_string"]
    cli = import_module("mutmut.__main__").cli
    if words == ["survivors"]:
        for line in Path("results.txt").read_text().splitlines():
            if (name := line.strip().split(":")[0]) and not line.endswith("not checked"):
                print(line.strip(), flush=True)
                cli(["show", name], standalone_mode=False)
    else:
        cli(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("package", choices=PACKAGES)
    parser.add_argument("--children", default="2", help="processes at once")
    parser.add_argument("--folder", type=Path, help="an empty one for the clone; a temporary one if none is given")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="mutants-"))
    prepare(folder, given.package)
    command = [sys.executable, __file__, "--mutmut"]
    there = {"cwd": folder, "env": {**os.environ, "PYTHONPATH": str(folder / "mutants" / "src")}}
    subprocess.run([*command, "run", "--max-children", given.children], check=True, **there)
    with (folder / "results.txt").open("w") as file:
        subprocess.run([*command, "results"], check=True, stdout=file, **there)
    subprocess.run([*command, "survivors"], check=True, **there)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--mutmut"]:
        mutmut(sys.argv[2:])
    else:
        main()
