"""The command line: `tunesift METHOD INPUT -o OUTPUT`, then settings by dotted name."""

from __future__ import annotations

import importlib.util
import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesift.errors import RecipeError, TunesiftError, told

if TYPE_CHECKING:
    from tunesift import commands
else:
    _spec = importlib.util.find_spec("tunesift.commands")
    _spec.loader = importlib.util.LazyLoader(_spec.loader)
    commands = sys.modules[_spec.name] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(commands)
    """Loaded when a command begins its work: `--help` must not wait for numpy and Arrow."""

STOPPED = 130
"""Exit code after Ctrl-C."""
_UsageError: Any = typer.BadParameter.__mro__[2]  # Any: click's base class, which moves with typer's version

app = typer.Typer(
    name="tunesift",
    help="Make instruction data better, and prove it: score, select, and see the reason for every row.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Input = Annotated[
    Path,
    typer.Argument(
        readable=False,
        help="File, folder or pattern of records: .json, .jsonl, .csv, .tsv (also .gz, .zst) or .parquet.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where the result goes; the ending says how.")]
Dotted = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=VALUE]...",
        help="Settings by dotted name: keep=5% or scorer.student.name=FOLDER for select, student.name=FOLDER "
        "for cherry, raters.0.model.name=FOLDER for selectit, student.name=FOLDER for clear, "
        "teacher.url=URL and teacher.model=NAME for reflection, selective-reflection and debatune, "
        "judge.url=URL and judge.model=NAME for controllability, "
        "scorers.0.student.name=FOLDER for score, method.keep=5% for run.",
    ),
]
Format = Annotated[
    str | None,
    typer.Option(help="alpaca, sharegpt, messages, prompt-completion or preference; recognised by itself."),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Read only the first N rows.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of words.")]
Retry = Annotated[
    str | None,
    typer.Option(
        metavar="[=KIND]", help="Try failed items again, all or those of one kind, and what was made of them."
    ),
]
MaxCost = Annotated[float | None, typer.Option(help="Most money to spend on endpoints; needs --prices.")]
MaxTokens = Annotated[int | None, typer.Option(help="Most tokens to spend on endpoints.")]
Prices = Annotated[Path | None, typer.Option(help="What models cost: a YAML file.")]
Reuse = Annotated[
    Path | None,
    typer.Option(metavar="RUN", help="Take over what another run's folder holds of stages with the same settings."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Go on without asking: it may cost much, or fill the disk.")]


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"tunesift {version('tunesift')}")
        raise typer.Exit


@app.callback()
def _every(
    tell: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_tell_version, help="Print the version.")
    ] = False,
) -> None:
    pass


METHODS = {
    "select": "Score every record and keep the best: by IFD, the largest tenth, unless settings say otherwise.",
    "cherry": "Cherry LLM: what the student itself finds instructive, with its pre-experience sample.",
    "selectit": "SelectIT: what models rate highly and surely, whatever the wording of the question.",
    "clear": "CLEAR's filter: what the model that will be tuned is itself confident is right.",
    "reflection": "Reflection-Tuning: have a teacher criticise and rewrite every record.",
    "selective-reflection": "The same, where the model that will be tuned accepts or refuses what the teacher writes.",
    "debatune": "DEBATunE: two agents debate arguments on topics; from topics to statements that argue one side.",
    "controllability": "DEBATunE's evaluation: do statements argue the side that was asked for, and nothing else?",
    "score": "Write every record with its id and its scores; drop nothing.",
}
"""The commands of the methods, which all take the same words."""


def _add(method: str, help: str) -> None:
    @app.command(name=method, help=help)
    def command(input: Input, output: Output, settings: Dotted = None, format: Format = None, limit: Limit = None,
                max_cost: MaxCost = None, max_tokens: MaxTokens = None, prices: Prices = None,
                retry_failed: Retry = None, reuse: Reuse = None, yes: Yes = False, quiet: Quiet = False,
                as_json: AsJson = False) -> None:  # fmt: skip
        said = _said(settings, format=format, limit=limit, reuse=reuse) + _spending(max_cost, max_tokens, prices)
        commands.run_method(method, input, output, said, _manner(quiet, as_json, retry_failed, yes))


for _name, _help in METHODS.items():
    _add(_name, _help)


@app.command()
def run(recipe: Annotated[Path, typer.Argument(readable=False, help="A recipe in YAML.")], settings: Dotted = None,
        max_cost: MaxCost = None, max_tokens: MaxTokens = None, prices: Prices = None,
        retry_failed: Retry = None, reuse: Reuse = None, yes: Yes = False, quiet: Quiet = False,
        as_json: AsJson = False) -> None:  # fmt: skip
    """Do what a recipe says; settings have their full path, such as method.keep.fraction=0.05."""
    said = _said(settings, reuse=reuse) + _spending(max_cost, max_tokens, prices)
    commands.run_file(recipe, said, _manner(quiet, as_json, retry_failed, yes))


@app.command()
def plan(what: Annotated[str, typer.Argument(help="A method's name, or a recipe in YAML.")],
         input: Annotated[Path | None, typer.Argument(help="File of records, for a method.")] = None,
         settings: Dotted = None, format: Format = None, limit: Limit = None, prices: Prices = None,
         as_json: AsJson = False) -> None:  # fmt: skip
    """Say what a run would ask for: stages, calls, tokens, time, money. Loads no weights, calls nobody."""
    said = _said(settings, format=format, limit=limit) + _spending(None, None, prices)
    commands.show_plan(what, input, said, as_json)


@app.command()
def inspect(run: Annotated[Path, typer.Argument(help="A run's folder, such as kept.json.run.")],
            id: Annotated[str | None, typer.Argument(help="A record's id.")] = None,
            as_json: AsJson = False) -> None:  # fmt: skip
    """Show a run's settings, balance and reasons; or one record, its scores and its decision."""
    commands.inspect(run, id, as_json)


@app.command()
def compare(runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more runs' folders.")],
            output: Annotated[Path, typer.Option("--output", "-o", help="Where the page goes.")] = Path("compare.html"),
            as_json: AsJson = False) -> None:  # fmt: skip
    """Compare what runs over the same records kept: scores, overlap, length, and what only one of them keeps."""
    commands.compare(runs, output, as_json)


@app.command()
def verify(run: Annotated[Path, typer.Argument(help="A run's folder, such as kept.json.run.")],
           as_json: AsJson = False) -> None:  # fmt: skip
    """Say whether a run's folder is, byte for byte, as it was written; changes nothing."""
    commands.verify(run, as_json)


@app.command()
def repair(run: Annotated[Path, typer.Argument(help="A run's folder, such as kept.json.run.")],
           as_json: AsJson = False) -> None:  # fmt: skip
    """Keep what is sound of a damaged run's folder, so that the same command finishes it; says what is done again."""
    commands.repair(run, as_json)


@app.command(name="list")
def list_(as_json: AsJson = False) -> None:
    """List methods, scorers, selectors, models and executors, with their settings."""
    commands.list_everything(as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    commands.schema()


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can do: versions, extras, devices, speed, limits."""
    commands.doctor(as_json)


def _said(settings: list[str] | None, **named: object) -> list[str]:
    return [*(f"{name}={value}" for name, value in named.items() if value), *(settings or [])]


def _spending(max_cost: float | None, max_tokens: int | None, prices: Path | None) -> list[str]:
    named = {"max_cost": max_cost, "max_tokens": max_tokens, "prices": prices}
    return [f"budget.{name}={value}" for name, value in named.items() if value is not None]


def _manner(quiet: bool, as_json: bool, retry_failed: str | None, yes: bool) -> commands.Manner:
    return commands.Manner("json" if as_json else "nothing" if quiet else "words", retry_failed, yes)


def main() -> None:
    """Run the command line; every error is a sentence and an exit code of its family."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        words = [f"{word}=any" if word == "--retry-failed" else word for word in sys.argv[1:]]
        words = ["--help"] if words == ["help"] else words
        code = app(words or ["--help"], prog_name="tunesift", standalone_mode=False)
    except TunesiftError as error:
        for sentence in error.args:
            print(told(str(sentence)), file=sys.stderr)
        sys.exit(error.exit_code)
    except _UsageError as error:
        print(told(_usage(error, sys.argv[1:])), file=sys.stderr)
        sys.exit(RecipeError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    if code == STOPPED:
        print("stopped; start the same command again to go on", file=sys.stderr)
    sys.exit(code)


def _usage(error: Any, words: list[str]) -> str:  # Any: click's error, whose class moves with typer's version
    """What is wrong with the words of a command, and where help is."""
    known = {command.name for command in app.registered_commands}
    where = f"tunesift {words[0]}" if words and words[0] in known else "tunesift"
    said = error.format_message().rstrip(".")
    if said.startswith("No such option"):
        said = f"{said.partition(' (')[0]}; settings have no dashes, such as keep=10%"
    return f"{said} See {where} --help." if said.endswith("?") else f"{said}; see {where} --help."


if __name__ == "__main__":
    main()
