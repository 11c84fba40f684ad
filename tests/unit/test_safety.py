"""The rules of safety that a linter or the syntax tree can check, and recipes that try to do harm."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tunesift
from tunesift import RecipeError, load_recipe

SOURCE = Path(tunesift.__file__).parent
RULES = ("S102", "S301", "S302", "S307", "S324", "S501", "S506", "S602", "S605", "S701", "S202", "S113")
"""exec, pickle, marshal, eval, weak hashes, unverified TLS, unsafe YAML, shells, templates, archives, no time limit.
S614 (torch.load) is no rule of ruff; the syntax tree stands in for it below, and in tests/test_architecture.py."""


def test_the_linter_finds_nothing_unsafe_whether_or_not_it_is_told_to_look_away() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", ",".join(RULES)]
    done = subprocess.run(
        [*command, "--output-format", "concise", str(SOURCE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = subprocess.run([*command, "--ignore-noqa", "--output-format", "concise", str(SOURCE)], capture_output=True,
                          text=True, check=False)  # fmt: skip
    hidden = re.findall(r"(S\d+)", told.stdout)
    assert hidden == ["S506"], (
        f"only our own YAML loader, which allows less than the safe one, is let through: {told.stdout}"
    )


def test_the_rules_of_safety_are_on_for_the_package() -> None:
    text = (SOURCE.parents[1] / "pyproject.toml").read_text("utf-8")
    chosen = re.search(r"^select = \[(.+?)\]", text, re.MULTILINE | re.DOTALL)
    assert chosen
    assert '"S"' in chosen[1]
    ignored = re.search(r"^ignore = \[(.+?)\]", text, re.MULTILINE | re.DOTALL)
    assert ignored
    assert not set(RULES) & set(re.findall(r'"(S\d+)"', ignored[1]))


def test_nobody_is_told_to_look_away_without_a_reason() -> None:
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if "noqa" in line and not re.search(r"# noqa: [A-Z]+\d+  \S.{9,}", line):
                wrong.append(f"{path.relative_to(SOURCE)}:{number}: {line.strip()}")
    assert wrong == []


def test_true_is_never_given_to_trust_remote_code_and_weights_are_never_unpickled() -> None:
    wrong, told = [], 0
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            where = f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}"
            given: list[tuple[str | None, ast.expr]] = [(node.arg, node.value)] if isinstance(node, ast.keyword) else []
            given += [(ast.unparse(k).strip("'"), v) for k, v in zip(node.keys, node.values, strict=True) if k] if isinstance(
                node, ast.Dict) else []  # fmt: skip
            said = [value for name, value in given if name == "trust_remote_code"]
            told += len(said)
            wrong += [where for value in said if not (isinstance(value, ast.Constant) and value.value is False)]
            if isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "torch.load",
                "torch.export.load",
                "torch.jit.load",
            ):
                wrong.append(where)
    assert told, "nobody says it; then transformers asks on the terminal"
    assert wrong == []


BASE = "output: out.jsonl\ninput: in.jsonl\nmethod: {kind: select}\n"
"""A sound recipe, to which each attack adds something."""
HARM = {
    "a call": "seed: !!python/object/apply:os.system ['touch canary']\n",
    "a call with arguments": "seed: !!python/object/new:subprocess.Popen [['touch', 'canary']]\n",
    "a name": "seed: !!python/name:os.system\n",
    "a module": "seed: !!python/module:os\n",
    "an object": "seed: !!python/object:builtins.set {}\n",
    "a tuple": "seed: !!python/tuple [1, 2]\n",
    "eval": "seed: !!python/object/apply:eval [\"open('canary', 'w')\"]\n",
    "the short form": "seed: !<tag:yaml.org,2002:python/object/apply:os.system> ['touch canary']\n",
    "a tag of one's own": "seed: !run 'touch canary'\n",
    "a tag that is redefined": "%TAG ! tag:yaml.org,2002:python/object/apply:\n---\nseed: !os.system ['touch canary']\n",
    "a key that is a call": "? !!python/object/apply:os.system ['touch canary']\n: 1\n",
    "binary": "seed: !!binary aGVsbG8=\n",
    "a set": "seed: !!set {a, b}\n",
    "a time": "seed: !!timestamp 2020-01-01\n",
    "ordered pairs": "seed: !!omap [a: 1]\n",
    "a key twice": "seed: 1\nseed: 2\n",
    "a key twice inside": "execution: {kind: local, chunk: 1, chunk: 2}\n",
    "a key twice, once quoted": "seed: 1\n'seed': 2\n",
    "a key twice, by escapes": 'seed: 1\n"\\x73eed": 2\n',
    "a merge": "execution: {<<: {kind: local}, chunk: 1}\n",
    "an anchor": "seed: &s 1\nlimit: *s\n",
    "an anchor to itself": "execution: &e {kind: local, chunk: *e}\n",
    "a bomb of anchors": "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nseed: *c\n",
    "a second document": "---\nseed: 1\n",
    "a number for a key": "1: 2\n",
    "null for a key": "~: 2\n",
    "a list for a key": "[a]: 2\n",
    "true for a key": "true: 2\n",
    "no for a number": "seed: no\n",
    "octal": "seed: 0o17\n",
    "hexadecimal": "seed: 0x1F\n",
    "sexagesimal": "seed: 1:30\n",
    "underscores": "seed: 1_000\n",
    "not a number": "max_bad: .nan\n",
    "infinity": "max_bad: .inf\n",
    "a text for a number": 'seed: "1"\n',
    "a float for a whole number": "seed: 1.5\n",
    "deep nesting": "seed: " + "[" * 3000 + "]" * 3000 + "\n",
    "a control character": "seed: \x07\n",
    "an escape of a terminal": 'kind: "\\x1b[31m"\n',
    "half a surrogate pair": 'folder: "\\ud800"\n',
    "NUL in a path": 'folder: "a\\0b"\n',
    "an unknown key": "sede: 1\n",
    "an unknown key inside": "execution: {kind: local, chnuk: 1}\n",
    "an unknown kind": "execution: {kind: shell}\n",
    "an attribute": "__class__: 1\n",
    "a module to import": "execution: {kind: external, import: 'os:system'}\n",
}


@pytest.mark.parametrize("name", HARM)
def test_a_recipe_that_attacks_is_refused_in_a_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = HARM[name] + BASE if name == "a tag that is redefined" else BASE + HARM[name]
    (tmp_path / "r.yaml").write_text(text, "utf-8")
    with pytest.raises(RecipeError) as refusal:
        load_recipe(tmp_path / "r.yaml")
    assert refusal.value.exit_code == 64
    assert [p.name for p in tmp_path.iterdir()] == ["r.yaml"], "the recipe did something"


def test_there_are_thirty_attacks_and_the_recipe_without_one_is_sound(tmp_path: Path) -> None:
    assert len(HARM) >= 30
    (tmp_path / "r.yaml").write_text(BASE)
    assert load_recipe(tmp_path / "r.yaml").method.kind == "select"


@pytest.mark.parametrize(("name", "hint"), [
    ("an unknown key", "sede: there is no such setting; did you mean seed?"),
    ("an unknown key inside", "execution.chnuk: there is no such setting; did you mean chunk?"),
    ("a key twice", 'the key "seed" stands twice; write each setting once, as plain YAML.'),
])  # fmt: skip
def test_what_is_wrong_and_what_would_be_right_is_said(name: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(BASE + HARM[name])
    with pytest.raises(RecipeError) as refusal:
        load_recipe(tmp_path / "r.yaml")
    assert str(refusal.value).endswith(hint)
