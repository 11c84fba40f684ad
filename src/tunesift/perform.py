"""From a recipe to its result: open the folder, read, run the page, write the output, draw the report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from shutil import disk_usage, rmtree
from typing import Any

from tunesift.books import SHELF
from tunesift.datasets import Dataset
from tunesift.errors import (
    ROOM_SAID,
    CannotCreate,
    DataError,
    DiskFull,
    RunLocked,
    Stopped,
    TunesiftError,
    told_bytes,
)
from tunesift.inputs import input_digest, room_needed
from tunesift.intake import read_input
from tunesift.manifest import begun_with, has_work, open_folder
from tunesift.memory import give_back
from tunesift.methods.controllability import Controllability
from tunesift.methods.mctune_evaluate import MCTuneEvaluate
from tunesift.methods.score import ScoreRecords
from tunesift.methods.star_agents import StarAgents
from tunesift.models.http import HttpModel
from tunesift.models.turnstile import INTERRUPTIONS
from tunesift.outputs import also_said, as_written, check_decided, check_places, places, still_stand, write_outputs
from tunesift.readiness import check_given, check_here, doubts, names_from_endpoints, tokens_read, unnamed
from tunesift.recipe import Recipe, as_json, check, with_values
from tunesift.records import FailureKind, Record, rule_of
from tunesift.report.collect import collect
from tunesift.report.html import render
from tunesift.running.fsio import (
    RESERVE_BYTES,
    digest,
    failpoint,
    read_json,
    storage_errors,
    write_bytes,
    write_json,
)
from tunesift.running.ledger import Ledger, Spent, read_spent
from tunesift.running.progress import Progress
from tunesift.running.result import Result
from tunesift.running.run import Run
from tunesift.running.stopping import Stop
from tunesift.settings import Json, settings_within

_MADE = ("decisions.parquet", "quarantine.parquet", "report.html", "tables/*.parquet", "inputs/*.arrow",
         "checkpoints/*/model/_COMPLETE.json")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did."""

    run_id: str
    folder: Path
    output: Path
    report: Path
    counts: Mapping[str, int]
    """in, kept, dropped, quarantined; and replaced, created where there are any."""
    reasons: Mapping[str, int]
    """Decisions by the rule that made them, the commonest first."""
    worked: int
    """Items of all stages that were done now; the others were in the journal."""
    seconds: float
    notes: Mapping[str, int] = field(default_factory=dict)
    """What was read or measured and is worth a word: how many of each."""
    short: str = ""
    """Why fewer records were made than asked for; empty where they were not."""
    also: Mapping[Path, int] = field(default_factory=dict)
    """What was written besides the output: by file, how many records."""

    @property
    def spent(self) -> list[Spent]:
        """What every endpoint's model was paid, over all lives of the run."""
        return read_spent(self.folder)

    @property
    def balance(self) -> str:
        """`in = kept + dropped + quarantined`, in words; of a method that reads nothing, what was created."""
        if not self.counts["in"]:
            return f"{self.counts.get('created', 0):,} created"
        parts = [f"{self.counts[name]:,} {name}" for name in self.counts if name not in ("in", "created")]
        created = f"; {self.counts['created']:,} created" if "created" in self.counts else ""
        return f"{self.counts['in']:,} in = {' + '.join(parts)}{created}"


@dataclass(frozen=True, slots=True)
class _Manner:
    """How a run goes about its work; nothing here decides what it makes."""

    progress: Progress
    stop: Stop
    retry_failed: Collection[FailureKind]
    yes: bool


def run_recipe(
    recipe: Recipe,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    retry_failed: Collection[FailureKind] = (),
    yes: bool = False,
) -> Summary:
    """Do what a recipe says; what its folder already holds is not done again.

    Failures of the kinds in `retry_failed` are tried again, and with them whatever was made of them. `yes` goes on
    where a run would stop and ask, since the disk may be too small.

    Raises `RecipeError`, `DataError`, `ModelError` or `RunError`; each says what would be right. A run that ends so
    before it has done anything leaves no folder behind, so that it can be started again with what was wrong put right.
    """
    recipe = prepared(recipe, retry_failed)
    recipe.budget.price_table(endpoints(recipe))  # what has no price is refused before anything is read
    new = not recipe.run_folder.exists()
    try:
        return _run(recipe, _Manner(progress or Progress(), stop or Stop(), retry_failed, yes))
    except RunLocked:
        raise
    except TunesiftError as error:
        if isinstance(error, DiskFull) and recipe.input:
            _say_how_much(error, recipe.run_folder, recipe.input)
        if new and not has_work(recipe.run_folder):
            rmtree(recipe.run_folder, ignore_errors=True)
        raise


def prepared(recipe: Recipe, retry_failed: Collection[FailureKind] = ()) -> Recipe:
    """The recipe as it is run: checked, with the names of models that it leaves to their endpoints.

    Those are asked, each once, unless the run is complete; a name that the run was begun with stands where several are
    served. Nothing is paid, and nothing written.
    """
    recipe = check(as_json(recipe))
    check_places(recipe)
    check_given(recipe.method)
    if not (paths := unnamed(recipe.method)):
        return recipe
    old = begun_with(recipe)
    before = {path: was for path in paths if isinstance(was := old.get(f"method.{path}"), str)}
    over = before.keys() == paths.keys() and _is_over(recipe.run_folder) and not retry_failed
    names = before if over else names_from_endpoints(recipe.method, before)
    return with_values(recipe, {f"method.{path}": name for path, name in names.items()})


def _is_over(folder: Path) -> bool:
    """Whether a run made all that it was asked for, and asks nobody any more."""
    path = folder / "result.json"
    return path.exists() and not read_json(path).get("short")


def _run(recipe: Recipe, manner: _Manner) -> Summary:
    place = recipe.run_folder, recipe.execution
    with Run(*place, recipe.seed, recipe.max_failures, manner.progress, manner.stop) as run:
        began = time.monotonic()
        if not (run.folder / "result.json").exists():  # a run that is complete asks nobody any more
            check_here(recipe.method)
        manifest = open_folder(recipe, input_digest(recipe.input) if recipe.input else None, run.journal)
        run.retry(manner.retry_failed)
        if recipe.reuse is not None:
            run.reuse(recipe.reuse)
        if (done := _finished(recipe, manifest["run_id"])) is not None:
            if not done.short:
                return done
            run.reopen()  # a limit may have been raised since
        if not manner.yes:
            _check_room(recipe)
        data = read_input(recipe, run.folder / "inputs")
        give_back()
        _check_fields(recipe, data)
        result = _walked(recipe, data, run)
        balance = _balance(run.finish(data, result.decisions), data)
        if result.refused is not None:
            _write_report(run.folder, balance)
            raise result.refused
        give_back()
        check_decided(result)
        write_outputs(recipe, result, data)
        failpoint("output.written")
        worked, seconds = sum(s.worked for s in run.stages), time.monotonic() - began
        summary = Summary(manifest["run_id"], run.folder, recipe.output, run.folder / "report.html", balance,
                          _reasons(result, data, tokens_read(recipe.method)), worked, seconds,
                          _worth_a_word(recipe, data, result),
                          result.short, _also(recipe, result))  # fmt: skip
        give_back()
        _write_report(run.folder, balance, result.short)
        failpoint("report.written")
        write_json(run.folder / "result.json", _as_result(recipe, summary, run))
        return summary


def _also(recipe: Recipe, result: Result) -> dict[Path, int]:
    return {path: len(result.also[name]) for name, path in places(recipe).items() if name}


def _worth_a_word(recipe: Recipe, data: Dataset[Record], result: Result) -> dict[str, int]:
    """What was read, asked of a model that is not made for it, or measured, and should be told."""
    read = data.source.notes if data.source else {}
    return {**read, **doubts(recipe.method, data), **result.notes}


def endpoints(recipe: Recipe) -> set[str]:
    """Names of the models behind endpoints that a recipe asks."""
    return {model.name for model in asked(recipe)}


def asked(recipe: Recipe) -> list[HttpModel]:
    """The models behind endpoints that a recipe asks."""
    return [model for model in settings_within(recipe.method) if isinstance(model, HttpModel)]


def _walked(recipe: Recipe, data: Dataset[Any], run: Run) -> Result:  # Any: of what the method reads
    """What the page makes; who waits for an endpoint meanwhile hears that the run is to stop."""
    models = endpoints(recipe)
    prices = recipe.budget.price_table(models)
    with ExitStack() as meanwhile:
        meanwhile.enter_context(INTERRUPTIONS.heeding(lambda: run.stop.asked))
        if models:
            ledger = meanwhile.enter_context(closing(Ledger(run.folder, recipe.budget.caps, prices)))
            meanwhile.enter_context(SHELF.keeping(ledger))
        try:
            return recipe.method(data, run)
        except Stopped:
            run.stop.check(run.folder)
            raise


def _check_room(recipe: Recipe) -> None:
    """Refuse to begin what the disk cannot hold, by a rough bound."""
    if recipe.input is None or (recipe.run_folder / "inputs" / "source.json").exists():
        return
    need, free = room_needed(recipe.input), disk_usage(recipe.run_folder).free
    if need > free:
        raise CannotCreate(f"{recipe.run_folder}: may need {told_bytes(need)}, and the disk has {told_bytes(free)}; "
                           "make room, or say --yes to try.")  # fmt: skip


def _say_how_much(error: DiskFull, folder: Path, input: Path) -> None:
    """Put into the sentence how much room the run may still need, by the same rough bound, where that can be found."""
    try:
        need = room_needed(input)
        there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except (OSError, DataError):
        return
    room = f"{ROOM_SAID}, of which the run may need {told_bytes(max(need - there, 0) + RESERVE_BYTES)},"
    error.args = tuple(str(said).replace(ROOM_SAID, room) for said in error.args)


def _finished(recipe: Recipe, run_id: str) -> Summary | None:
    """The summary of a run that is complete and whose files stand as they were written."""
    path = recipe.run_folder / "result.json"
    if not path.exists():
        return None
    old = read_json(path)
    if not still_stand(recipe, old):
        path.unlink()
        return None
    report = recipe.run_folder / "report.html"
    return Summary(run_id, recipe.run_folder, recipe.output, report, old["counts"], old["reasons"], 0, 0.0,
                   old["notes"], old.get("short", ""), also_said(old))  # fmt: skip


_DONE = {"keep": "kept", "drop": "dropped", "replace": "replaced", "create": "created", "quarantine": "quarantined"}


def _check_fields(recipe: Recipe, data: Dataset[Record]) -> None:
    """Refuse input whose own field stands where scores are to be written, before any work is done for it."""
    own = data[0].extra.get("scores") if len(data) else None
    if (
        isinstance(recipe.method, ScoreRecords | Controllability | MCTuneEvaluate | StarAgents)
        and own is not None
        and not isinstance(own, Mapping)
    ):
        raise DataError(f'E206 {recipe.input}: has a field "scores" of its own, where scores are written; rename it.')


def _balance(counts: Counter[str], data: Dataset[Record]) -> dict[str, int]:
    assert data.source is not None  # data come from a file
    balance = {"in": data.source.rows, "kept": counts["keep"], "dropped": counts["drop"],
               "quarantined": counts["quarantine"] + len(data.source.broken)}  # fmt: skip
    return balance | {_DONE[action]: counts[action] for action in ("replace", "create") if counts[action]}


def _reasons(result: Result, data: Dataset[Record], most_tokens: int | None) -> dict[str, int]:
    """How many records each rule decided on; of those without a score, why they have none."""
    assert data.source is not None  # data come from a file
    reasons = Counter(f"{_DONE[d.action]}: {rule_of(d.reason, most_tokens)}" for d in result.decisions)
    told = dict(reasons.most_common())
    for code, count in Counter(b.code for b in data.source.broken).most_common():
        first = next(b for b in data.source.broken if b.code == code)
        told[f"quarantined: {code}, first at {first.place}: {first.message}"] = count
    return told


def _write_report(folder: Path, counts: Mapping[str, int], short: str = "") -> None:
    with storage_errors(folder):
        page = render(collect(folder, counts, short))
    write_bytes(folder / "report.html", page.encode())


def _as_result(recipe: Recipe, summary: Summary, run: Run) -> dict[str, Json]:
    stages: list[Json] = [
        {"stage": s.stage, "items": s.items, "worked": s.worked, "failed": s.failed, "seconds": round(s.seconds, 3)}
        for s in run.stages
    ]
    with storage_errors(summary.folder):
        made = sorted(p for pattern in _MADE for p in summary.folder.glob(pattern))
        files: Json = {p.relative_to(summary.folder).as_posix(): digest(p) for p in made}
    return {"run_id": summary.run_id, "counts": dict(summary.counts), "reasons": dict(summary.reasons),
            "notes": dict(summary.notes), "short": summary.short, "stages": stages,
            "seconds": round(summary.seconds, 3), **as_written(recipe, summary.also), "files": files}  # fmt: skip
