"""The command line: `tunesift METHOD INPUT -o OUTPUT`, then settings by dotted name."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

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
    epilog="Example: tunesift select alpaca.json -o kept.json keep=10%",
)

Input = Annotated[
    Path,
    typer.Argument(
        readable=False,
        help="File, folder or pattern of records: .json, .jsonl, .csv, .tsv (also .gz, .zst) or .parquet.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where the result goes; the ending says how.")]
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


def _dotted(own: str) -> Any:  # Any: what typer takes for a default
    return typer.Argument(None, metavar="[NAME=VALUE]...", help=f"Settings by dotted name: {own}")


class Words(NamedTuple):
    """What the help of a method's command says."""

    help: str
    settings: str
    """Its own settings, in a line or two."""
    example: str
    """What may stand behind the command's name."""


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
    "select": Words(
        "Score every record and keep the best: by IFD, the largest tenth, unless settings say otherwise.",
        "keep=5%, or keep.kind=longest and other selectors; scorer.student.name=FOLDER for a model of your own, "
        "scorer.kind=reversed-ifd for another score.",
        "alpaca.json -o kept.json keep=5%",
    ),
    "cherry": Words(
        "Cherry LLM: what the student itself finds instructive, with its pre-experience sample.",
        "student.name=FOLDER, the model that will be tuned; keep=5%; pre_experience=null leaves the sample out.",
        "alpaca.json -o kept.json student.name=llama keep=5%",
    ),
    "selectit": Words(
        "SelectIT: what models rate highly and surely, whatever the wording of the question.",
        "raters.0.model.name=FOLDER, a model that rates; keep=20%; level=token, sentence or model.",
        "alpaca.json -o kept.json raters.0.model.name=llama",
    ),
    "clear": Words(
        "CLEAR's filter: what the model that will be tuned is itself confident is right.",
        "student.name=FOLDER, the model that will be tuned, or student.kind=http with student.url=URL and "
        "student.model=NAME; keep=50%; samples=5.",
        "alpaca.json -o kept.json student.name=llama",
    ),
    "reflection": Words(
        "Reflection-Tuning: have a teacher criticise and rewrite every record.",
        "teacher.url=URL and teacher.model=NAME, teacher.key_env=VARIABLE where a key is asked for; "
        "halves=response for half the calls.",
        "alpaca.json -o better.json teacher.url=http://localhost:8000/v1 teacher.model=NAME",
    ),
    "selective-reflection": Words(
        "The same, where the model that will be tuned accepts or refuses what the teacher writes.",
        "teacher.url=URL, teacher.model=NAME and student.name=FOLDER; otherwise=original keeps what was not accepted.",
        "alpaca.json -o better.json teacher.url=http://localhost:8000/v1 teacher.model=NAME student.name=llama",
    ),
    "debatune": Words(
        "DEBATunE: two agents debate arguments on topics; from topics to statements that argue one side.",
        "teacher.url=URL and teacher.model=NAME; arguments=3; rounds=2; target=1000 statements.",
        "topics.json -o statements.json teacher.url=http://localhost:8000/v1 teacher.model=NAME",
    ),
    "controllability": Words(
        "DEBATunE's evaluation: do statements argue the side that was asked for, and nothing else?",
        "judge.url=URL and judge.model=NAME.",
        "answers.json -o judged.jsonl judge.url=http://localhost:8000/v1 judge.model=NAME",
    ),
    "star-agents": Words(
        "Star-Agents: many models write, two models weigh, and the better pairs are asked more often.",
        "agents.0.name=NAME agents.0.model.url=URL agents.0.model.model=NAME, agents.1 and so on; judge.url=URL and "
        "judge.model=NAME; small.name=FOLDER, the model that will be tuned, and large.name=FOLDER.",
        "seeds.json -o better.json agents.0.model.url=http://localhost:8000/v1 agents.0.model.model=NAME "
        "agents.1.model.url=http://localhost:8001/v1 agents.1.model.model=NAME judge.url=http://localhost:8000/v1 "
        "judge.model=NAME small.name=llama-1b large.name=llama-8b",
    ),
    "tune": Words(
        "Train a model on the records, by supervised fine-tuning; the output is its folder.",
        "student.name=FOLDER, the model to tune; tuner.epochs=3, tuner.learning_rate=2e-5, tuner.lora.rank=16; "
        "tuner.template=alpaca for a model without a chat template.",
        "kept.json -o tuned student.name=llama",
    ),
    "sima": Words(
        "SIMA: have a model that reads images compare its own answers with references, and tune it on what it prefers.",
        "student.name=FOLDER, the model to tune; critic_orders=single for half the comparisons; tuner.epochs=1; "
        "tuner.lora=null for all weights; tuner=null for the preference pairs alone.",
        "questions.json -o tuned student.name=llava",
    ),
    "mctune": Words(
        "MCTune: write what responses measure into their inputs, so that a tuned model answers as it is asked to.",
        "held_out=2000 rows for testing; sigma=0.1; layout=alpaca; for nouns, verbs and adjectives "
        "analyser.profile=pos analyser.tagger.kind=spacy analyser.tagger.name=NAME.",
        "alpaca.json -o train.jsonl held_out=500",
    ),
    "mctune-evaluate": Words(
        "MCTune's evaluation: do answers have the length, vocabulary and readability that was asked for?",
        "model.name=FOLDER, the tuned model, or model.kind=http with model.url=URL and model.model=NAME; model=null "
        "measures the responses that the rows have.",
        "train.test.jsonl -o answers.jsonl model.name=tuned",
    ),
    "odin": Words(
        "ODIN: train a reward model that does not reward length; the output is the folder of a classifier.",
        "student.name=FOLDER, the model whose body it gets; tuner.heads=1 for an ordinary reward model; "
        "baseline.kind=reward baseline.name=FOLDER to compare with; tuner.epochs=3, tuner.held_out=0.1.",
        "pairs.jsonl -o reward student.name=llama",
    ),
    "optune": Words(
        "OPTune: tune on preferences that the student draws itself, and draw again only where its answers are worst.",
        "student.name=FOLDER, the model to tune; reward.model.name=FOLDER, a reward model such as odin leaves, or "
        "reward.kind=rating with reward.model.url=URL and reward.model.model=NAME, a judge; ratio=0.4; rounds=3.",
        "prompts.jsonl -o tuned student.name=llama reward.model.name=reward",
    ),
    "score": Words(
        "Write every record with its id and its scores; drop nothing.",
        "scorers.0.student.name=FOLDER for a model of your own; scorers.0.kind=perplexity for another score.",
        "alpaca.json -o scored.jsonl",
    ),
}
"""The commands of the methods that read data."""

MAKERS = {
    "genqa": Words(
        "GenQA: make questions and answers, tasks and conversations from nothing but a model.",
        'model.url=URL, and model.model=NAME where several are served there; count=1000; splits=["academic"].',
        "-o made.jsonl count=1000 model.url=http://localhost:8000/v1",
    ),
}
"""The commands of the methods that read no data."""


def _add(method: str, words: Words) -> None:
    own = _dotted(words.settings)

    @app.command(name=method, help=words.help, epilog=f"Example: tunesift {method} {words.example}")
    @_with_input(method in METHODS)
    def command(input: Input, output: Output, settings: list[str] | None = own, format: Format = None,
                limit: Limit = None, max_cost: MaxCost = None, max_tokens: MaxTokens = None, prices: Prices = None,
                retry_failed: Retry = None, reuse: Reuse = None, yes: Yes = False, quiet: Quiet = False,
                as_json: AsJson = False) -> None:  # fmt: skip
        said = _said(settings, format=format, limit=limit, reuse=reuse) + _spending(max_cost, max_tokens, prices)
        commands.run_method(method, input, output, said, _manner(quiet, as_json, retry_failed, yes))


def _with_input(reads: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command as it stands; of a method that reads no data, without an input and what says how one is read."""

    def fit(command: Callable[..., None]) -> Callable[..., None]:
        def without(**words: Any) -> None:  # Any: what typer has read, by the signature
            command(None, **words)

        whole = signature(command, eval_str=True)
        left = [word for name, word in whole.parameters.items() if name not in ("input", "format", "limit")]
        without.__signature__ = whole.replace(parameters=left)  # type: ignore[attr-defined]  # typer looks for it here
        return command if reads else without

    return fit


for _name, _words in (METHODS | MAKERS).items():
    _add(_name, _words)


_OF_A_RUN = _dotted(
    "method.keep=5%, or input=FILE, for a file; for a recipe of the package as for its method: input=FILE output=FILE "
    "keep=5%."
)
_OF_A_PLAN = _dotted("what the run would be given, such as keep=5%.")
_OF_AN_EXPORT = _dotted(
    "student.name=FOLDER, the model to tune; tuner.epochs=3 and the other settings of tune. A run of tune has its own."
)


@app.command(epilog="Example: tunesift run superfiltering input=alpaca.json output=kept.json scorer.student.name=gpt2")
def run(recipe: Annotated[Path, typer.Argument(readable=False, help="A recipe in YAML, or the name of one of the "
                                               "package; tunesift list has them.")],
        settings: list[str] | None = _OF_A_RUN, limit: Limit = None,
        max_cost: MaxCost = None, max_tokens: MaxTokens = None, prices: Prices = None,
        retry_failed: Retry = None, reuse: Reuse = None, yes: Yes = False, quiet: Quiet = False,
        as_json: AsJson = False) -> None:  # fmt: skip
    """Do what a recipe says: a file of yours, or one of the package by its name."""
    said = _said(settings, limit=limit, reuse=reuse) + _spending(max_cost, max_tokens, prices)
    commands.run_file(recipe, said, _manner(quiet, as_json, retry_failed, yes))


@app.command(epilog="Example: tunesift plan select alpaca.json keep=5%")
def plan(what: Annotated[str, typer.Argument(help="Name of a method or a recipe of the package, or a YAML file.")],
         input: Annotated[str | None, typer.Argument(help="File of records, for a method that reads some.")] = None,
         settings: list[str] | None = _OF_A_PLAN, format: Format = None, limit: Limit = None, prices: Prices = None,
         as_json: AsJson = False) -> None:  # fmt: skip
    """Say what a run would ask for: stages, calls, tokens, time, money. Loads no weights, calls nobody."""
    said = _said(settings, format=format, limit=limit) + _spending(None, None, prices)
    commands.show_plan(what, input, said, as_json)


@app.command()
def inspect(run: Annotated[Path, typer.Argument(help="A run's folder, such as kept.json.run.")],
            id: Annotated[str | None, typer.Argument(help="A record's id, in the input or in the output.")] = None,
            as_json: AsJson = False) -> None:  # fmt: skip
    """Show a run's settings, balance and reasons; or one record, its scores and its decision."""
    commands.inspect(run, id, as_json)


@app.command()
def compare(runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more runs' folders.")],
            output: Annotated[Path, typer.Option("--output", "-o", help="Where the page goes; an earlier comparison "
                                             "there is replaced.")] = Path("compare.html"),
            as_json: AsJson = False) -> None:  # fmt: skip
    """Compare what runs over the same records kept: scores, overlap, length, and what only one of them keeps."""
    commands.compare(runs, output, as_json)


@app.command(epilog="Example: tunesift pareto runs.jsonl")
def pareto(runs: Annotated[Path, typer.Argument(help="JSON Lines: run, length, score, group.")],
           as_json: AsJson = False) -> None:  # fmt: skip
    """Say which tuned models none beats: no longer answers and no lower score, and of which group they are."""
    commands.pareto(runs, as_json)


@app.command(epilog="Example: tunesift export kept.json.run -o for-axolotl --to axolotl student.name=llama")
def export(run: Annotated[Path, typer.Argument(help="The folder of a complete run, such as kept.json.run.")],
           output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
           to: Annotated[str, typer.Option("--to", help="llama-factory, axolotl or trl.")],
           settings: list[str] | None = _OF_AN_EXPORT, as_json: AsJson = False) -> None:  # fmt: skip
    """Write a run's records, and the settings of their training, as another trainer reads them."""
    commands.export_run(run, output, to, settings or [], as_json)


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
    """List methods, scorers, selectors, models and their settings, and the recipes of the package."""
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
