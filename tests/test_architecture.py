"""Does the package keep its own rules? Rows, lengths, heavy imports, forbidden names, public names; from the syntax
tree alone."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import tunesift
from tunesift import errors

SOURCE = Path(tunesift.__file__).parent

ROWS = {
    0: ("errors",),
    1: ("arrays", "settings", "heartbeat", "books", "records", "datasets", "files", "json_text", "formats", "reading", "rewriting",
        "writing", "prompts", "parsing", "parquet", "tables", "inputs", "images", "image_fields", "notes",
        "yaml_text", "budget", "language", "words", "numbered", "scratch", "disk", "memory"),
    2: ("models", "running"),
    3: ("scoring", "tuning"),
    4: ("evaluation",),
    5: ("methods",),
    6: ("recipe", "overriding", "explaining", "spelling", "catalogue", "perform", "outputs", "model_output", "manifest", "intake", "planning", "readiness", "report",
        "export", "export_rows", "export_images", "export_settings"),
    7: ("__main__", "cli", "commands", "console", "telling"),
}  # fmt: skip
ROW = {name: row for row, names in ROWS.items() for name in names}
OPEN_ROWS = (1, 6, 7)
"""Rows on which one file may import another."""
REPORT_KNOWS = (0, 1, 2)
"""Rows that the report may import: it must draw a run of a method it has never heard of."""

HEAVY: Mapping[str, tuple[str, ...]] = {
    "torch": (
        "models.fused",
        "models.lanes",
        "models.lastlayer",
        "models.likelihood",
        "models.lse",
        "models.packed",
        "models.products",
        "models.transformers",
        "models.vision",
        "models.loading",
        "models.nli",
        "models.reward",
        "tuning",
        "telling",
    ),
    "transformers": (
        "models.fused",
        "models.packed",
        "models.transformers",
        "models.vision",
        "models.folders",
        "models.loading",
        "models.template_child",
        "models.reward",
        "tuning",
    ),
    "tiktoken": ("models.bytepairs",),
    "safetensors": ("models.loading", "models.reward", "tuning"),
    "vllm": ("models.vllm",),
    "ray": ("running.ray",),
    "trl": ("tuning",),
    "peft": ("tuning", "models.loading"),
    "datasets": ("tuning",),
    "sklearn": ("methods.cherry", "scoring.diversity"),
    "sentence_transformers": ("models.sentences",),
    "PIL": ("images",),
    "spacy": ("methods.mctune_taggers",),
}
"""Libraries that take seconds to import, and the only modules that may, inside a function."""

PRINTING = ("cli", "commands", "console")

NESTING = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.TryStar, ast.Match)


@dataclass(frozen=True)
class Module:
    """A file of the package and its syntax tree."""

    name: str
    """Without the package's own name: `models.base`; a package is known by its `__init__`: `models`."""
    path: Path
    tree: ast.Module
    lines: int

    @property
    def home(self) -> str:
        """The package or single file that has a place in the table of rows."""
        return self.name.partition(".")[0]

    def at(self, node: ast.AST) -> str:
        """Where a node stands, as an editor reads it."""
        return f"{self.path.relative_to(SOURCE.parent)}:{getattr(node, 'lineno', 1)}"

    def calls(self) -> Iterator[tuple[ast.Call, str]]:
        """Every call, with the dotted name of what is called."""
        return ((n, dotted(n.func)) for n in ast.walk(self.tree) if isinstance(n, ast.Call))

    def functions(self) -> Iterator[ast.FunctionDef]:
        """Every function and method, at any depth."""
        return (n for n in ast.walk(self.tree) if isinstance(n, ast.FunctionDef))

    def public(self) -> Iterator[ast.ClassDef | ast.FunctionDef]:
        """Classes and functions of the module itself that a reader may use."""
        return (n for n in self.tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef) and n.name[0] != "_")


@cache
def modules() -> tuple[Module, ...]:
    """Every file of the package but the front door, which imports nothing at run time and has tests of its own."""
    return tuple(_module(path) for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "__init__.py")


def _module(path: Path) -> Module:
    text = path.read_text("utf-8")
    parts = path.relative_to(SOURCE).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    return Module(name, path, ast.parse(text), len(text.splitlines()))


def dotted(node: ast.AST) -> str:
    """`os.environ.get` of the expression that spells it; empty for what is no plain name."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else f".{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def ours(module: Module) -> Iterator[tuple[str, ast.AST]]:
    """Modules of the package that a module imports, wherever in it, functions and type checking included."""
    known = {m.name for m in modules()}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.at(node)}: relative import; write it out"
            found = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in found:
            if name.split(".")[0] == "tunesift":
                inner = name.removeprefix("tunesift").removeprefix(".")
                yield (inner if inner in known else inner.rpartition(".")[0]), node


def theirs(module: Module) -> Iterator[tuple[str, ast.AST, bool]]:
    """Heavy libraries that a module imports; True where that happens as soon as the module is imported."""
    late: set[ast.AST] = set()
    for node in ast.walk(module.tree):
        typing = isinstance(node, ast.If) and dotted(node.test) == "TYPE_CHECKING"
        if typing or isinstance(node, ast.FunctionDef):
            late.update(ast.walk(node))
    for node in ast.walk(module.tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from ((n.partition(".")[0], node, node not in late) for n in names if n.partition(".")[0] in HEAVY)


def test_every_file_has_a_row() -> None:
    homeless = sorted({m.home for m in modules()} - set(ROW))
    assert not homeless, f"give these a row in the table: {homeless}"


def test_a_module_imports_from_lower_rows_or_from_its_own_package() -> None:
    wrong = [
        f"{module.at(node)}: {module.name} (row {ROW[module.home]}) imports {name} (row {ROW[name.partition('.')[0]]})"
        for module in modules()
        for name, node in ours(module)
        if name and not may_import(module.home, name.partition(".")[0])
    ]
    assert not wrong, "\n".join(wrong)


def drawn(heading: str) -> str:
    """The drawing below a heading of docs/architecture.md."""
    page = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text("utf-8")
    return page.partition(f"\n## {heading}\n")[2].partition("```\n")[2].partition("\n```")[0]


def test_the_document_draws_the_rows_and_every_module_as_they_are() -> None:
    rows: dict[int, set[str]] = {}
    row = -1
    for line in drawn("Who may import whom").splitlines():
        number, names = line[:2].strip(), line[2:].split()
        row = int(number) if number else row
        rows.setdefault(row, set()).update(names)
    there = {m.home for m in modules()}
    assert rows == {row: found for row, names in ROWS.items() if (found := set(names) & there)}
    named = set(re.findall(r"\w+", drawn("The tree")))
    assert not {m.name.rpartition(".")[2] for m in modules()} - named


def may_import(home: str, other: str) -> bool:
    """The rule of the rows."""
    if home == other:
        return True
    if home == "report":
        return ROW[other] in REPORT_KNOWS
    return ROW[other] < ROW[home] or (ROW[other] == ROW[home] and ROW[home] in OPEN_ROWS)


def test_nobody_imports_through_the_front_door() -> None:
    wrong = [f"{module.at(node)}: import it from its home" for module in modules() for n, node in ours(module) if not n]
    assert not wrong, "\n".join(wrong)


def test_imports_never_run_in_a_circle() -> None:
    graph = {m.name: {name for name, _ in ours(m) if name and name != m.name} for m in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_heavy_libraries_are_imported_inside_functions_of_their_own_modules() -> None:
    wrong = []
    for module in modules():
        for library, node, at_once in theirs(module):
            if not any(module.name == m or module.home == m for m in HEAVY[library]):
                wrong.append(f"{module.at(node)}: {library} is not for {module.name}")
            elif at_once:
                wrong.append(f"{module.at(node)}: {library} is imported before it is needed")
    assert not wrong, "\n".join(wrong)


def loaded(statement: str, libraries: tuple[str, ...]) -> set[str]:
    """Which libraries a statement loads in a fresh process."""
    script = f"import sys; {statement}; print(*(m for m in {libraries!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_package_loads_no_library() -> None:
    light = ("numpy", "pyarrow", "pydantic", "typer", "rich", "yaml", "orjson", "httpx2", "filelock")
    assert loaded("import tunesift", (*HEAVY, *light)) == set()


def test_checking_a_recipe_and_running_a_scripted_model_load_no_heavy_library() -> None:
    assert loaded("import tunesift.commands, tunesift.perform, tunesift.recipe", tuple(HEAVY)) == set()


def test_help_waits_for_neither_numpy_nor_arrow() -> None:
    assert loaded("import tunesift.cli", ("numpy", "pyarrow", *HEAVY)) == set()


def test_no_module_has_more_than_400_lines_and_no_method_page_more_than_300() -> None:
    limits = {m: 300 if m.home == "methods" else 400 for m in modules()}
    wrong = [f"{m.at(m.tree)}: {m.lines} lines, at most {limit}" for m, limit in limits.items() if m.lines > limit]
    assert not wrong, "\n".join(wrong)


def test_no_function_has_more_than_60_lines() -> None:
    lengths = {f"{m.at(f)} {f.name}": (f.end_lineno or 0) - f.lineno + 1 for m in modules() for f in m.functions()}
    long = sorted(((n, name) for name, n in lengths.items() if n > 40), reverse=True)
    assert not [n for n, _ in long if n > 60], "\n".join(f"{name}: {n} lines" for n, name in long)


def test_a_function_has_at_most_five_parameters_unless_it_is_a_command() -> None:
    wrong = []
    for module in modules():
        for function in module.functions():
            if any(dotted(getattr(d, "func", d)) == "app.command" for d in function.decorator_list):
                continue
            given = function.args
            names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            count = len([n for n in names if n not in ("self", "cls")])
            if count > 5:
                wrong.append(f"{module.at(function)}: {function.name} has {count}")
    assert not wrong, "\n".join(wrong)


def test_statements_nest_at_most_three_deep() -> None:
    wrong = [
        f"{module.at(function)}: {function.name} goes {depth} deep"
        for module in modules()
        for function in module.functions()
        if (depth := deepest(function.body)) > 3
    ]
    assert not wrong, "\n".join(wrong)


def deepest(statements: list[ast.stmt]) -> int:
    """Levels of control flow below a list of statements; an `elif` is no deeper than its `if`."""
    return max((_depth(s) for s in statements), default=0)


def _depth(statement: ast.stmt) -> int:
    if not isinstance(statement, NESTING):
        return 0
    if isinstance(statement, ast.Match):
        return 1 + max(deepest(case.body) for case in statement.cases)
    inside = [*statement.body]
    for handler in getattr(statement, "handlers", []):
        inside += handler.body
    orelse: list[ast.stmt] = getattr(statement, "orelse", [])
    chained = isinstance(statement, ast.If) and len(orelse) == 1 and isinstance(orelse[0], ast.If)
    inside += [*([] if chained else orelse), *getattr(statement, "finalbody", [])]
    return max(1 + deepest(inside), deepest(orelse) if chained else 0)


IMPURE_MODULES = re.compile(
    r"(time|datetime|calendar|uuid|secrets|threading|asyncio|subprocess|socket|multiprocessing|concurrent|os|sys|io"
    r"|shutil|tempfile|glob|locale|platform"
    r"|random\.(?!Random$)\w+|numpy\.random|contextvars|atexit|signal|urllib|httpx2?|requests|importlib)(\.|$)"
)
"""What a page must not import from: the clock, the environment, a shared generator, the disk, another thread."""
IMPURE_NAMES = re.compile(
    r"(np|numpy)\.random(\.|$)|random\.(?!Random$)|(open|input|print|hash|globals|vars|__import__)$"
    r"|.*\.(read_text|read_bytes|write_text|write_bytes|unlink|mkdir|touch|rename|exists|is_file|is_dir|stat|iterdir|glob|rglob"
    r"|resolve|cwd|home)$"
)
"""The same, by the names that are there without an import."""
ORDERLESS = ("sorted", "set", "frozenset", "len", "any", "all", "min", "max")
"""What gives the same of a set in whatever order."""


def impurities(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Where a page asks for more than it is given: its imports, its names, its global state, the order of a set."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            asked = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            asked = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            asked = []
        yield from ((node, name) for name in asked if IMPURE_MODULES.match(name))
        if isinstance(node, ast.Attribute | ast.Name) and IMPURE_NAMES.match(found := dotted(node)):
            yield node, found
        if isinstance(node, ast.Global):
            yield node, f"state that outlives a call: {', '.join(node.names)}"
        if isinstance(node, ast.FunctionDef | ast.Module):
            yield from ((n, "the order of a set") for n in in_order_of_a_set(node))


def in_order_of_a_set(scope: ast.FunctionDef | ast.Module) -> Iterator[ast.AST]:
    """Where the items of a set are taken one after another: loops, comprehensions, and calls that keep an order."""
    nodes = list(ast.walk(scope)) if isinstance(scope, ast.FunctionDef) else scope.body
    named = {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and is_set(node.value, frozenset())
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    if not isinstance(scope, ast.FunctionDef):
        return
    harmless = {
        made for node in nodes if isinstance(node, ast.Call) and dotted(node.func) in ORDERLESS for made in node.args
    } | {node for node in nodes if isinstance(node, ast.SetComp)}
    for node in nodes:
        if isinstance(node, ast.For) and is_set(node.iter, named):
            yield node
        if isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp) and node not in harmless:
            yield from (g.iter for g in node.generators if is_set(g.iter, named))
        if isinstance(node, ast.Call) and dotted(node.func) not in (*ORDERLESS, "isinstance"):
            ordering = dotted(node.func) in (
                "list",
                "tuple",
                "iter",
                "next",
                "enumerate",
                "zip",
                "map",
                "filter",
                "sum",
            )
            if ordering or dotted(node.func).endswith((".join", ".extend", ".fromkeys", "chain")):
                yield from (given for given in node.args if is_set(given, named))
            if isinstance(node.func, ast.Attribute) and node.func.attr == "pop" and is_set(node.func.value, named):
                yield node


def is_set(node: ast.AST, named: Set[str]) -> bool:
    """Whether an expression is seen to be a set."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr | ast.BitAnd | ast.Sub | ast.BitXor):
        return is_set(node.left, named) or is_set(node.right, named)
    if isinstance(node, ast.Call):
        return dotted(node.func) in ("set", "frozenset")
    return isinstance(node, ast.Set | ast.SetComp) or (isinstance(node, ast.Name) and node.id in named)


def test_method_pages_and_selectors_are_pure_functions_of_what_they_are_given() -> None:
    pages = [m for m in modules() if m.home in ("methods", "scoring")]
    wrong = [f"{page.at(node)}: {found}" for page in pages for node, found in impurities(page.tree)]
    assert len(pages) > 20
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("spoilt", [
    "import time", "from datetime import datetime", "from random import shuffle", "import random\nrandom.shuffle([])", "import os.path",
    "from numpy import random", "def f():\n    return np.random.rand()", "def f(p):\n    return p.read_text()", "x = hash('a')",
    "def f():\n    global seen\n    seen = 1", "def f(a):\n    for x in set(a): yield x", "def f(a):\n    return [x for x in {*a}]",
    "def f(a):\n    b = {x for x in a}\n    return list(b)", "def f(a, b):\n    b = set(b)\n    return {x: 1 for x in b - a}",
    "def f(a):\n    return ', '.join({*a})", "def f(a):\n    b = set(a)\n    return b.pop()",
    "def f(a):\n    return sum({*a})", "def f(a):\n    return dict.fromkeys(set(a))",
])  # fmt: skip
def test_a_page_that_is_not_pure_is_found_out(spoilt: str) -> None:
    assert list(impurities(ast.parse(spoilt)))


@pytest.mark.parametrize("sound", [
    "from random import Random", "def f(a):\n    return sorted({*a})", "def f(a, b):\n    return [x for x in a if x in {*b}]",
    "def f(a):\n    b = set(a)\n    return len(b), max(x for x in b), {x + 1 for x in b}",
])  # fmt: skip
def test_a_set_that_is_only_asked_what_is_in_it_is_pure(sound: str) -> None:
    assert not list(impurities(ast.parse(sound)))


def test_any_in_a_public_signature_says_why() -> None:
    """On method pages and in scorers there is none at all."""
    wrong = []
    for module in modules():
        lines = module.path.read_text("utf-8").splitlines()
        for function in (f for f in module.functions() if f.name[0] != "_"):
            given = function.args
            hints = [a.annotation for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)] + [function.returns]
            loose = any(isinstance(n, ast.Name) and n.id == "Any" for hint in hints if hint for n in ast.walk(hint))
            said = any("# Any: " in line for line in lines[function.lineno - 1 : function.body[0].lineno])
            if loose and (not said or module.home in ("methods", "scoring")):
                wrong.append(f"{module.at(function)}: {function.name}")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_asynchronous() -> None:
    waiting = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    wrong = [m.at(n) for m in modules() for n in ast.walk(m.tree) if isinstance(n, waiting)]
    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_prints() -> None:
    wrong = [
        m.at(call)
        for m in modules()
        if m.name not in PRINTING
        for call, name in m.calls()
        if name in ("print", "sys.stdout.write", "sys.stderr.write")
    ]
    assert not wrong, "\n".join(wrong)


def test_nobody_catches_everything() -> None:
    wrong = []
    for module in modules():
        for handler in (n for n in ast.walk(module.tree) if isinstance(n, ast.ExceptHandler)):
            caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
            names = {dotted(c) for c in caught if c is not None}
            passed_on = isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None
            if handler.type is None or (names & {"Exception", "BaseException"} and not passed_on):
                wrong.append(module.at(handler))
    assert not wrong, "\n".join(wrong)


def test_nothing_runs_code_that_came_with_data() -> None:
    forbidden = re.compile(
        r"(eval|exec|compile|__import__)$|(pickle|cPickle|marshal|shelve|dill|cloudpickle)(\.|$)|os\.(system|popen)"
        r"|torch\.load$|joblib\.load$|(np|numpy)\.load$|yaml\.(unsafe_load|full_load|load_all|unsafe_load_all)$"
    )
    wrong = [f"{m.at(call)}: {name}" for m in modules() for call, name in m.calls() if forbidden.match(name)]
    for module in modules():
        for node in ast.walk(module.tree):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{module.at(node)}: {n}" for n in names if forbidden.match(n)]
    assert not wrong, "\n".join(wrong)


def test_no_call_switches_a_safeguard_off() -> None:
    off = {"shell": True, "verify": False, "trust_remote_code": True, "weights_only": False, "use_safetensors": False}
    wrong = [
        f"{module.at(call)}: {keyword.arg}"
        for module in modules()
        for call, _ in module.calls()
        for keyword in call.keywords
        if keyword.arg in off and isinstance(keyword.value, ast.Constant) and keyword.value.value is off[keyword.arg]
    ]
    assert not wrong, "\n".join(wrong)


def test_yaml_is_read_by_our_loader_only() -> None:
    loads = [(module, call) for module in modules() for call, name in module.calls() if name == "yaml.load"]
    wrong = [m.at(c) for m, c in loads if [dotted(a) for a in c.args[1:]] != ["_Loader"] or c.keywords]
    assert loads, "where is YAML read?"
    assert not wrong, "\n".join(wrong)


def test_no_file_is_a_drawer() -> None:
    drawers = re.compile(r"(^|_)(utils?|common|helpers?|misc)(_|$)")
    assert not [m.name for m in modules() if any(drawers.search(part) for part in m.name.split("."))]


def test_every_module_public_class_and_public_function_says_what_it_is() -> None:
    silent = [module.at(module.tree) for module in modules() if not ast.get_docstring(module.tree)]
    silent += [f"{m.at(node)}: {node.name}" for m in modules() for node in m.public() if not ast.get_docstring(node)]
    assert not silent, "\n".join(silent)


def test_zip_refuses_lists_of_unequal_length() -> None:
    wrong = []
    for module in modules():
        for call, name in module.calls():
            strict = [k.value.value for k in call.keywords if k.arg == "strict" and isinstance(k.value, ast.Constant)]
            if name == "zip" and strict != [True]:
                wrong.append(module.at(call))
    assert not wrong, "\n".join(wrong)


def test_no_reminders_are_left_in_the_code() -> None:
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    wrong = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in SOURCE.rglob("*")
        if path.suffix in (".py", ".yaml", ".html", ".css", ".js")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if words.search(line)
    ]
    assert not wrong, "\n".join(wrong)


NOT_OUR_WORDS = re.compile(
    r"synthes|augment|recycl|sampler|metric|utils|helper|handler|processor|operator|grader|evaluator|critic"
    r"|datapoint|workflow|pipeline|perplexit(?:y|ies)_score|ckpt|model_dir|manager|factory|nll|logp(?!rob)|(^|_)ppl",
    re.IGNORECASE,
)
"""Words of the column "we do not say" that are never right in the name of a class or a function."""


def test_classes_and_functions_are_named_in_the_words_of_the_house() -> None:
    wrong = [
        f"{module.at(node)}: {node.name}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and NOT_OUR_WORDS.search(node.name)
    ]
    assert not wrong, "\n".join(wrong)


def front_door() -> tuple[dict[str, str], dict[str, str]]:
    """Home by public name: as type checkers see it, and as the program looks it up."""
    tree = ast.parse((SOURCE / "__init__.py").read_text("utf-8"))
    typed: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tunesift."):
            assert all(a.name == a.asname for a in node.names), "write `X as X`, so that type checkers export it"
            typed |= {a.name: str(node.module).removeprefix("tunesift.") for a in node.names}
    return typed, dict(tunesift._HOME)


def test_the_front_door_says_the_same_to_type_checkers_and_to_programs() -> None:
    typed, looked_up = front_door()
    assert typed == looked_up
    assert tunesift.__all__ == sorted(looked_up) == dir(tunesift)
    assert len(looked_up) == sum(map(len, tunesift._HOMES.values())), "a name stands twice"


def test_every_public_name_is_there_and_at_home() -> None:
    for name, home in front_door()[1].items():
        there = getattr(tunesift, name)
        assert there is getattr(import_module(f"tunesift.{home}"), name)
        if inspect.isclass(there) or inspect.isfunction(there):
            assert there.__module__ == f"tunesift.{home}", name


def test_every_error_of_ours_is_public() -> None:
    there = {n for n, c in vars(errors).items() if inspect.isclass(c) and issubclass(c, errors.TunesiftError)}
    assert there == set(tunesift._HOMES["errors"])


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in inspect.cleandoc(errors.__doc__ or "").splitlines():
        if found := re.match(r" *((?:│  |   )*(?:├─ |└─ )?)([A-Z]\w+)(?:  .*)?$", line):
            depth = len(found[1].strip(" ") and found[1]) // 3
            path[depth:] = [found[2]]
            drawn[found[2]] = path[depth - 1] if depth else "Exception"
    real = {
        name: next(b.__name__ for b in there.__bases__ if issubclass(b, Exception))
        for name, there in vars(errors).items()
        if inspect.isclass(there) and issubclass(there, errors.TunesiftError)
    }
    assert drawn == real
