"""What each command does, once its words are read."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from tunesift import console, telling
from tunesift.budget import told_money
from tunesift.errors import CannotCreate, FewMade, ManyQuarantined, RecipeError, StorageError, printable, shown
from tunesift.evaluation.pareto import read_points, standings
from tunesift.export import export
from tunesift.perform import Summary, asked, prepared, run_recipe
from tunesift.planning import plan
from tunesift.reading import FEW_BROKEN
from tunesift.recipe import Recipe, load_recipe, recipe_for, recipe_named
from tunesift.recipe import schema as recipe_schema
from tunesift.records import FailureKind
from tunesift.report.compare import compare as compare_runs
from tunesift.report.compare import told_compare
from tunesift.report.folder import check_run
from tunesift.report.html import render
from tunesift.running import mending
from tunesift.running.fsio import write_bytes
from tunesift.running.stopping import Stop
from tunesift.writing import check_place


@dataclass(frozen=True, slots=True)
class Manner:
    """How a run goes about its work, and tells of it."""

    told: Literal["words", "json", "nothing"]
    retry_failed: str | None
    """A kind of failures to try again; "any" for all kinds, None for none."""
    yes: bool

    def kinds(self) -> tuple[FailureKind, ...]:
        """The kinds of failures that are tried again."""
        known: tuple[FailureKind, ...] = get_args(FailureKind)
        chosen = tuple(kind for kind in known if self.retry_failed in (kind, "any"))
        if self.retry_failed and not chosen:
            raise RecipeError(f"--retry-failed: {shown(self.retry_failed)} is no kind of failure; "
                              f"write one of {', '.join(known)}.")  # fmt: skip
        return chosen


def run_method(method: str, input: Path | None, output: Path, settings: list[str], manner: Manner) -> None:
    """Run a method's vetted recipe with the settings put in."""
    if input is None and (given := [word for word in settings if "=" not in word]):
        raise RecipeError(f'"{shown(given[0])}": {method} makes records from nothing; leave it out, or write a setting '
                          "as NAME=VALUE.")  # fmt: skip
    _run(recipe_for(method, input, output, settings), manner)


def run_file(recipe: Path, settings: list[str], manner: Manner) -> None:
    """Run a recipe's file with the settings put in."""
    name = str(recipe)
    if not recipe.exists() and recipe.suffix not in (".yaml", ".yml"):
        _run(recipe_named(name, settings), manner)
        return
    _run(load_recipe(recipe, settings), manner)


def show_plan(what: str, input: str | None, settings: list[str], as_json: bool) -> None:
    """Print what a run would ask for."""
    print(telling.told_plan(telling.recipe_to_plan(what, input, settings), as_json))


def inspect(run: Path, id: str | None, as_json: bool) -> None:
    """Print what a run's folder holds, of all records or of one."""
    print(telling.told_run(run, as_json) if id is None else telling.told_record(run, id, as_json))


def compare(runs: list[Path], output: Path, as_json: bool) -> None:
    """Write a page that compares runs, and print what it says; the page of an earlier comparison is replaced."""
    check_place(output)
    if output.exists() and b"<title>tunesift comparison</title>" not in output.read_bytes()[:100_000]:
        raise CannotCreate(f"{output}: exists already and is no comparison; choose another output, or remove it.")
    found, again = compare_runs(runs), output.exists()
    write_bytes(output, render(found).encode())
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        page = f"page: {output.absolute()}{', in place of the one that was there' if again else ''}"
        print("\n".join(map(printable, [*told_compare(found).split("\n"), page])))


def pareto(runs: Path, as_json: bool) -> None:
    """Print the fronts of the runs in a file."""
    print(telling.told_standings(standings(read_points(runs)), as_json))


def export_run(run: Path, folder: Path, to: str, settings: list[str], as_json: bool) -> None:
    """Write a folder that another trainer trains from, and print what it holds."""
    print(telling.told_export(export(run, folder, to, settings), as_json))


def verify(run: Path, as_json: bool) -> None:
    """Print what of a run's folder is not as it was written; raises `StorageError` where anything is not."""
    check_run(run)
    found = mending.verify(run)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found]))
    if found:
        raise StorageError(*(finding.said for finding in found), _advice(run, found))
    if not as_json:
        print(f"{printable(str(run))}: every byte is as it was written")


def _advice(run: Path, found: Sequence[mending.Finding]) -> str:
    left = sum(finding.cure == "none" for finding in found)
    if left == len(found):
        return f"{run}: tunesift repair cannot mend this; do as is said above, or delete the run folder to begin anew."
    more = f", but cannot mend {left} of these" if left else ""
    return f"{run}: tunesift repair keeps what is sound of it{more}."


def repair(run: Path, as_json: bool) -> None:
    """Print what was done to a damaged folder; raises `StorageError` where something cannot be repaired."""
    check_run(run)
    done = mending.repair(run)
    said = list(done.said) or ([] if done.left else [f"{run}: nothing is damaged."])
    if as_json:
        print(json.dumps(said))
    elif said:
        print("\n".join(map(printable, said)))
    if done.left:
        raise StorageError(*(finding.said for finding in done.left), f"{run}: this cannot be repaired here.")


def list_everything(as_json: bool) -> None:
    """Print everything a recipe may name."""
    print(telling.told_catalogue(as_json))


def schema() -> None:
    """Print the JSON schema of a recipe."""
    print(json.dumps(recipe_schema(), indent=1))


def doctor(as_json: bool) -> None:
    """Print what this machine can do."""
    print(telling.told_machine(as_json))


def _run(recipe: Recipe, manner: Manner) -> None:
    kinds = manner.kinds()
    if not manner.yes:
        recipe = prepared(recipe, kinds)
        _ask(recipe)
    stop = Stop()
    stop.listen()
    progress = console.progress_for(manner.told != "words")
    try:
        summary = run_recipe(recipe, progress=progress, stop=stop, retry_failed=kinds, yes=manner.yes)
    finally:
        stop.deafen()
    if manner.told == "json":
        print(json.dumps(console.as_fields(summary)))
    elif manner.told == "words":
        print(console.told(summary))
    _check_quarantined(summary, recipe.max_bad)
    if summary.short:
        raise FewMade(f"{summary.output}: is written, with fewer records than asked for: {summary.short}.")


def _check_quarantined(summary: Summary, most: float) -> None:
    """Raise `ManyQuarantined` where more rows were set aside than may be; nine may always be."""
    count, rows = summary.counts["quarantined"], summary.counts["in"]
    if count > FEW_BROKEN and count > most * rows:
        said = f"{count:,} of {rows:,} rows are quarantined, more than max_bad={most:g}"
        raise ManyQuarantined(f"{summary.output}: is written, and {said}; look at the report, or raise max_bad.")


def _ask(recipe: Recipe) -> None:
    """Say what a run over an endpoint may cost, and ask, before it begins; a cap or --yes is an answer given before."""
    budget = recipe.budget
    capped = (budget.max_cost, budget.max_tokens, budget.max_calls) != (None, None, None)
    models = asked(recipe)
    priced = budget.price_table({model.name for model in models})
    free = all(model.is_here and model.name not in priced for model in models)
    if capped or free or (recipe.run_folder / "money.db").exists():
        return
    found = plan(recipe)
    if found.money is not None and found.money <= budget.ask_above:
        return
    cost = "what is not known"
    if found.money is not None and found.expected_money is not None:
        cost = f"about {told_money(found.expected_money)}, at most {told_money(found.money)}"
    said = f"at most {found.calls:,} calls and {found.billed:,} tokens, and may cost {cost}"
    if not sys.stdin.isatty():
        raise RecipeError(f"budget: the run makes {said}; say --yes, or set --max-cost or --max-tokens.")
    if input(f"The run makes {said}. Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        raise RecipeError("budget: not begun; nothing was asked of anybody.")
