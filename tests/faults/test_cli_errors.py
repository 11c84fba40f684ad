"""What a user reads when something is wrong: one sentence, on stderr, with the exit code of its family; no traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.command import Command
from tunesift import Local, Run, Stopped

SCRIPTED = "scorer.student.kind=scripted"
ROWS = [{"instruction": f"Question {n}?", "input": "", "output": f"Answer {n} of it."} for n in range(20)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.fixture(autouse=True)
def place(stands_in: Path) -> Path:
    """A folder of one's own to stand in, with a sound file."""
    (stands_in / "a.jsonl").write_text(LINES)
    return stands_in


@pytest.fixture
def select(tunesift: Command) -> Command:
    """`tunesift select` with a scripted student, quiet."""
    return lambda *words: tunesift("select", *words, SCRIPTED, "--quiet")


FILES: dict[str, tuple[str, str | bytes | None, str]] = {
    "no file": ("b.jsonl", None, "E101 b.jsonl: there is no such file; check the path."),
    "no bytes": ("b.jsonl", "", "E101 b.jsonl: the file is empty; give a file with at least one record."),
    "no records": ("b.json", "[]", "E101 b.json: the file has no records; give a file with at least one."),
    "blank lines": ("b.jsonl", "\n  \n\n", "E101 b.jsonl: the file has no records; give a file with at least one."),
    "broken array": (
        "b.json", '[\n {"instruction": "x",\n  "output" "y"}\n]',
        'E105 b.json: none of its rows is a record; the first, b.json:2 (byte 3): not valid JSON: expecting \':\' delimiter; give one '
        "record a line, or one JSON array.",
    ),
    "broken lines": (
        "b.jsonl", '{"instruction": x}\n' * 30,
        "E105 b.jsonl: none of its rows is a record; the first, b.jsonl:1 (byte 0): not valid JSON: expecting value; give one record "
        "a line, or one JSON array.",
    ),
    "Latin-1": (
        "b.jsonl", '{"instruction": "é"}'.encode("latin-1"),
        "E105 b.jsonl: none of its rows is a record; the first, b.jsonl:1 (byte 0): byte 17 is not valid UTF-8; save the file as "
        "UTF-8.",
    ),
    "strange fields": (
        "b.jsonl", '{"text": "x", "label": 1}',
        "E201 b.jsonl:1 (byte 0): fields are text, label, of no format we know; rename them, such as instruction and output, or "
        "messages; docs/formats.md has them all.",
    ),
    "strange ending": (
        "b.txt", "a,b",
        "E116 b.txt: the ending is not one we know; use .json, .jsonl, .csv, .tsv (also .gz, .zst) or .parquet.",
    ),
    "one id twice": (
        "b.jsonl", '{"id": "x", "prompt": "a", "completion": "b"}\n' * 2,
        "E208 b.jsonl:2: an id stands more than once, x; make ids unique, or set duplicate_ids=first or suffix.",
    ),
    "no response": (
        "b.jsonl", '{"instruction": "x", "text": "y"}',
        'E105 b.jsonl: none of its rows is a record; the first, b.jsonl:1 (byte 0): record has neither "output" nor "response"; its '
        "fields are instruction, text; docs/formats.md says what a row needs.",
    ),
    "many broken rows": (
        "b.jsonl", LINES + "{\n" * 30,
        "E199 b.jsonl: 30 of the first 50 rows are broken; first, b.jsonl:21 (byte 1480): not valid JSON: the text ends too early; "
        "raise max_bad to go on without them.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_read_is_named_with_the_trouble(select: Command, place: Path, name: str) -> None:
    path, content, sentence = FILES[name]
    if content is not None:
        (place / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    told = select(path, "-o", "out.jsonl")
    assert (told.code, told.sentence) == (65, sentence)
    assert not (place / "out.jsonl.run").exists()
    assert not (place / "out.jsonl").exists()


SETTINGS = {
    "keep=0": "keep.fraction: 0 is not a fraction above 0 and up to 1; write 0.1 to keep 10 percent.",
    "keep=1.5": "keep.fraction: 1.5 is not a fraction above 0 and up to 1; write 0.1 to keep 10 percent.",
    "keep=20": "keep.fraction: 20 is not a fraction above 0 and up to 1; write keep.count=20 to keep so many records.",
    "keep=abc": "keep: 'abc' is not a fraction; write keep=10% to keep 10 percent, or keep.kind=abc for that rule.",
    "keep=-5%": "keep: '-5%' is not a fraction; write keep=10% to keep 10 percent.",
    "kep=10%": "method.kep: there is no such setting; did you mean keep?",
    "keep.fractoin=0.1": "method.keep.fractoin: there is no such setting; did you mean fraction?",
    "scorer.studnet.name=x": "method.scorer.studnet: there is no such setting; did you mean student?",
    "scorer.x=1": "method.scorer.x: there is no such setting; there are kind, student, profile, ratio, template, turns.",
    "scorer.kind=ifdd": "method.scorer.kind: 'ifdd' is unknown; use one of 'ifd', 'reversed-ifd', 'dual-ifd', 'perplexity'.",
    "scorer.student.kind=gpt": "method.scorer.student.kind: 'gpt' is unknown; use one of 'transformers', 'http', 'scripted'.",
    "scorer.profile=best": "method.scorer.profile: 'best' is unknown; use 'canonical', 'cherry' or 'superfilter'.",
    "seed=x": "seed: 'x' does not fit; write a whole number.",
    "seed=012": "seed: '012' does not fit; write a whole number.",
    "limit=1.5": "limit: 1.5 does not fit; write a whole number.",
    "limit=-1": "limit: -1 reads nothing; write the number of rows to read.",
    "max_bad=5": "max_bad: 5 is not a fraction from 0 to 1; write 0.05 for 5 percent.",
    "max_failures=-1%": "max_failures: '-1%' does not fit; write a number.",
    "keep": '"keep" has no value; write keep=VALUE, without spaces around the sign.',
    "c.jsonl": '"c.jsonl" is a second input; give one file, a folder, or a pattern such as \'data/*.jsonl\'.',
    "scorer=dual-ifd": "scorer.large: is not given; write scorer.large.name=FOLDER.",
    "scorer.kind=dual-ifd": "scorer.large: is not given; write scorer.large.name=FOLDER.",
    "scorer=perplexty": "method.scorer.kind: 'perplexty' is unknown; use one of 'ifd', 'reversed-ifd', 'dual-ifd', 'perplexity'.",
    "scorer.kind=perplexity": "keep.below: 1 is IFD's bound, and every perplexity is above it; write keep.below=null.",
    "=5": '"=5" is not a setting; write name=value, such as keep=10%.',
    "keep..fraction=5": '"keep..fraction=5" is not a setting; write name=value, such as keep=10%.',
    "seed=[1": "seed line 1: is not valid YAML (expected ',' or ']', but got '<stream end>'); check the indentation.",
    "seed={a: 1, a: 2}": 'seed: the key "a" stands twice; write each setting once, as plain YAML.',
    "format=alpacca": "format: 'alpacca' is unknown; use 'alpaca', 'sharegpt', 'messages', 'prompt-completion' or 'preference'.",
    "duplicate_ids=last": "duplicate_ids: 'last' is unknown; use 'refuse', 'first' or 'suffix'.",
    "keep.kind=quota": "method.keep.group: is not given; give it a value.",
}  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_wrong_setting_is_named_with_what_would_be_right(tunesift: Command, place: Path, setting: str) -> None:
    told = tunesift("select", "a.jsonl", "-o", "out.jsonl", setting)
    assert (told.code, told.sentence) == (64, SETTINGS[setting])
    assert sorted(p.name for p in place.iterdir()) == ["a.jsonl"]


def test_several_wrong_settings_are_told_together(tunesift: Command) -> None:
    told = tunesift("select", "a.jsonl", "-o", "out.jsonl", "keep.fraction=2", "seed=x", "kep=1", "scorer.profile=x")
    assert told.code == 64
    assert sorted(line.partition(":")[0] for line in told.err.splitlines()) == [
        "keep.fraction", "method.kep", "method.scorer.profile", "seed",
    ]  # fmt: skip


def test_what_a_message_quotes_is_short_and_cannot_drive_the_terminal(select: Command, place: Path) -> None:
    evil = "\x1b[31m\u202e\r\n" + "x" * 600
    (place / "b.jsonl").write_text(json.dumps({evil: 1}))
    (place / "c.jsonl").write_text(json.dumps({"id": evil, "prompt": "x", "completion": "y"}) + "\n" * 2)
    (place / "d.jsonl").write_text(f'{{"prompt": "x", "{"y" * 600}": 1, "{"y" * 600}": 2}}')
    for words in (
        ["b.jsonl"],
        ["c.jsonl"],
        ["d.jsonl"],
        ["a.jsonl", f"seed={evil}"],
        ["a.jsonl", f"{evil}=1"],
        [evil[:200]],
    ):
        told = select(*words, "-o", "out.jsonl")
        assert told.code in (0, 64, 65)
        assert told.code == 0 or told.sentence.count("x" * 80) + told.sentence.count("y" * 80) <= 3


def test_an_unknown_model_folder_is_named(tunesift: Command, place: Path) -> None:
    told = tunesift("select", "a.jsonl", "-o", "out.jsonl", "scorer.student.name=./nowhere", "--quiet")
    assert (told.code, "./nowhere" in told.sentence) == (69, True)
    assert not (place / "out.jsonl.run").exists(), "the name put right must not meet the run of the wrong one"


def test_an_output_that_exists_is_never_overwritten(select: Command, place: Path) -> None:
    (place / "out.jsonl").write_text("mine")
    (place / "folder.jsonl").mkdir()
    (place / "link.jsonl").symlink_to("nowhere")
    for name in ("out.jsonl", "folder.jsonl", "link.jsonl"):
        told = select("a.jsonl", "-o", name)
        assert (told.code, told.sentence) == (73, f"{name}: exists already; choose another output, or remove it.")
    assert (place / "out.jsonl").read_text() == "mine"


def test_the_output_cannot_be_the_input(select: Command, place: Path) -> None:
    told = select("a.jsonl", "-o", "a.jsonl")
    assert (told.code, told.sentence) == (64, "E701 output: a.jsonl is the input itself; write to another file.")
    assert (place / "a.jsonl").read_text() == LINES


@pytest.mark.parametrize(
    "output", ["a.jsonl/out.jsonl", "/proc/none/out.jsonl", "/dev/null/out.jsonl", f"{'x' * 250}.jsonl"]
)
@pytest.mark.parametrize("folder", [[], ["folder=run"]])
def test_an_output_in_an_impossible_place_is_refused_before_any_work(
    select: Command, place: Path, output: str, folder: list[str]
) -> None:
    told = select("a.jsonl", "-o", output, *folder)
    assert told.code == 73
    assert "cannot be written" in told.sentence
    assert sorted(p.name for p in place.iterdir()) == ["a.jsonl"]


def test_a_run_folder_in_an_impossible_place_is_refused(select: Command, place: Path) -> None:
    told = select("a.jsonl", "-o", "out.jsonl", "folder=a.jsonl/run")
    assert (told.code, "cannot be written" in told.sentence) == (73, True)


@pytest.mark.parametrize(("output", "code"), [("closed/out.jsonl", 73), ("out.jsonl", 65)])
def test_what_permissions_forbid_is_refused(place: Path, output: str, code: int) -> None:
    obey = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if obey and not shutil.which("setpriv"):
        pytest.skip("permission bits do not hold for root, and setpriv is not here to make them hold")
    (place / "closed").mkdir(mode=0o500)
    if code == 65:
        (place / "a.jsonl").chmod(0)
    command = [sys.executable, "-m", "tunesift.cli", "select", "a.jsonl", "-o", output, "keep.kind=random"]
    done = subprocess.run([*obey, *command], cwd=place, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr
    assert "(Permission denied)" in done.stderr


def test_a_run_folder_that_is_being_written_says_by_whom(select: Command, place: Path) -> None:
    with Run(place / "out.jsonl.run", Local()):
        told = select("a.jsonl", "-o", "out.jsonl")
    assert told.code == 75
    assert f"out.jsonl.run is being written by process {os.getpid()} on " in told.sentence
    assert (place / "out.jsonl.run" / "state.db").exists()


def test_a_run_with_other_settings_is_refused_with_the_old_and_the_new(select: Command) -> None:
    assert select("a.jsonl", "-o", "out.jsonl").code == 0
    told = select("a.jsonl", "-o", "out.jsonl", "keep=20%", "seed=5")
    assert told.code == 64
    assert told.sentence == (
        "out.jsonl.run: holds another run: method.keep.fraction was 0.1 and is now 0.2, seed was 0 and is now 5; write "
        "to another output, with --reuse out.jsonl.run to take over what stays the same."
    )
    assert select("a.jsonl", "-o", "out.jsonl").code == 0


def test_a_run_of_another_input_is_refused(select: Command, place: Path) -> None:
    assert select("a.jsonl", "-o", "out.jsonl").code == 0
    (place / "a.jsonl").write_text(LINES + LINES)
    told = select("a.jsonl", "-o", "out.jsonl")
    assert (told.code, "the input a.jsonl has changed since the run began" in told.sentence) == (64, True)


def test_an_output_that_was_changed_by_hand_is_not_taken_for_ours(select: Command, place: Path) -> None:
    assert select("a.jsonl", "-o", "out.jsonl").code == 0
    (place / "out.jsonl").write_text("mine now")
    told = select("a.jsonl", "-o", "out.jsonl")
    assert (told.code, "was changed after the run wrote it" in told.sentence) == (73, True)
    assert (place / "out.jsonl").read_text() == "mine now"


@pytest.mark.parametrize("name", ["run.json", "result.json"])
def test_a_damaged_run_folder_says_so(tunesift: Command, select: Command, place: Path, name: str) -> None:
    assert select("a.jsonl", "-o", "out.jsonl").code == 0
    (place / "out.jsonl.run" / name).write_text('{"recipe": ')
    for told in (select("a.jsonl", "-o", "out.jsonl"), tunesift("inspect", "out.jsonl.run")):
        assert told.code == 74
        said = "is damaged; restore it, or delete the run folder to begin anew."
        assert told.sentence == f"out.jsonl.run/{name}: {said}"


def test_after_a_failure_the_same_command_can_be_put_right(tunesift: Command, place: Path) -> None:
    (place / "b.jsonl").write_text("{\n")
    words = ["b.jsonl", "-o", "out.jsonl", SCRIPTED, "--quiet"]
    assert tunesift("select", *words).code == 65
    (place / "b.jsonl").write_text(LINES)
    assert tunesift("select", *words[:3], "scorer.student.name=./nowhere", "--quiet").code == 69
    assert tunesift("select", *words).code == 0


RECIPES: dict[str, tuple[str | bytes, str]] = {
    "a key twice": ("output: x.jsonl\nseed: 1\nseed: 2\n", 'r.yaml: the key "seed" stands twice; write each setting once, as plain YAML.'),
    "a tab": ("output: x.jsonl\nmethod:\n\tkind: select\n", "r.yaml line 3: is not valid YAML (found character '\\t' that cannot start any token); check the indentation."),
    "anchors": ("output: x.jsonl\na: &a [1]\nb: *a\n", "r.yaml: an alias refers to another place; write each setting once, as plain YAML."),
    "a list": ("- output\n- method\n", "r.yaml: a recipe is a mapping of settings; write `method:` and `output:` in it."),
    "nothing": ("", "r.yaml: a recipe is a mapping of settings; write `method:` and `output:` in it."),
    "no as a number": ("output: x.jsonl\nmethod: {kind: select}\nseed: no\n", "seed: 'no' does not fit; write a whole number."),
    "yes as a text": ("output: yes\nmethod: {kind: select}\nseed: on\n", "seed: 'on' does not fit; write a whole number."),
    "octal": ("output: x.jsonl\nmethod: {kind: select}\nseed: 012\n", "seed: '012' does not fit; write a whole number."),
    "sexagesimal": ("output: x.jsonl\nmethod: {kind: select}\nseed: 1:30\n", "seed: '1:30' does not fit; write a whole number."),
    "a date": ("output: x.jsonl\nmethod: {kind: select}\nseed: 2024-01-01\n", "seed: '2024-01-01' does not fit; write a whole number."),
    "a tag": ("output: !!python/object/apply:os.system [x]\n", "r.yaml line 1: is not valid YAML (could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'); check the indentation."),
    "a number for a key": ("output: x.jsonl\n1: 2\n", "r.yaml: the key 1 is not a text; write each setting once, as plain YAML."),
    "a merge": ("output: x.jsonl\nmethod: {kind: select, <<: {kind: score}}\n", "method.<<: there is no such setting; there are kind, scorer, also, keep, screen."),
    "two documents": ("output: x.jsonl\n---\nseed: 1\n", "r.yaml line 2: is not valid YAML (but found another document); check the indentation."),
    "infinity": ("output: x.jsonl\nmethod: {kind: select}\nmax_bad: 1e999\n", "r.yaml: holds a value that no setting can have; use texts, numbers, lists and mappings."),
    "a control character": ("output: \x01\n", "r.yaml: unacceptable character #x0001: special characters are not allowed; write each setting once, as plain YAML."),
    "Latin-1": ("output: é\n".encode("latin-1"), "r.yaml: byte 8 is not valid UTF-8; save the file as UTF-8."),
    "deep nesting": ("a: " + "[" * 5_000, "r.yaml: is nested too deep; write each setting once, as plain YAML."),
    "no method": ("output: x.jsonl\n", "method: is not given; give it a value."),
    "no output": ("method: {kind: select}\n", "output: is not given; give it a value."),
    "no kind": ("output: x.jsonl\nmethod: {keep: {kind: random}}\n", "method: is not given; name its kind."),
    "no input": ("output: x.jsonl\nmethod: {kind: select}\n", "input: is not given; name the file to read."),
    "a megabyte": ("#" * 2**20 + "#", "r.yaml: a recipe or price table has at most 1048576 bytes; this file is something else."),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_that_does_not_fit_says_why(tunesift: Command, place: Path, name: str) -> None:
    content, sentence = RECIPES[name]
    (place / "r.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    told = tunesift("run", "r.yaml")
    assert told.code == 64
    assert told.sentence == sentence
    assert sorted(p.name for p in place.iterdir()) == ["a.jsonl", "r.yaml"]


def test_a_bomb_of_anchors_is_refused_at_once(tunesift: Command, place: Path) -> None:
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10)]
    (place / "r.yaml").write_text("\n".join(["output: x.jsonl", "l0: &l0 [x]", *levels]))
    assert tunesift("run", "r.yaml").code == 64


def test_a_recipe_that_is_not_there_is_named(tunesift: Command) -> None:
    told = tunesift("run", "nowhere.yaml")
    assert (told.code, told.sentence) == (64, "nowhere.yaml: there is no such file; check the path.")


USAGE = {
    ("selct",): "No such command 'selct'",
    ("select",): "Missing argument",
    ("select", "a.jsonl"): "Missing option '--output' / '-o'",
    ("select", "a.jsonl", "-o", "b.jsonl", "--kep", "5"): "No such option: --kep; settings have no dashes, such as keep=10%; see tunesift select --help.",
    ("select", "a.jsonl", "-o", "b.jsonl", "--limit", "x"): "Invalid value for '--limit'",
    ("select", "a.jsonl", "-o", "b.jsonl", "--limit", "0"): "Invalid value for '--limit'",
    ("inspect",): "Missing argument",
}  # fmt: skip


@pytest.mark.parametrize("words", USAGE)
def test_a_command_that_is_not_one_ends_with_64_and_a_way_to_help(tunesift: Command, words: tuple[str, ...]) -> None:
    told = tunesift(*words)
    assert told.code == 64
    assert USAGE[words] in told.sentence
    assert told.sentence.endswith(" --help.")


def test_what_is_not_there_to_inspect_or_to_plan_is_named(tunesift: Command, select: Command, place: Path) -> None:
    assert select("a.jsonl", "-o", "out.jsonl").code == 0
    wanted = {
        ("inspect", "nowhere"): (65, "nowhere: there is no such folder."),
        ("inspect", "out.jsonl.run", "no\x1bid"): (65, 'out.jsonl.run: no record has the id "no\\x1bid"; ids are in report.html, and 5 means the fifth record.'),
        ("compare", "nowhere", "out.jsonl.run"): (65, "nowhere: there is no such folder."),
        ("plan", "selct", "a.jsonl"): (64, "there is no method selct; use one of cherry, clear, clear-correct, combined, controllability, debatune, genqa, mctune, mctune-evaluate, odin, optune, perplexity, refine-alpaca, refine-wizardlm, reflection, score, select, selectit, selectit-full, selective-reflection, sima, star-agents, superfiltering, superfiltering-d, tune, or a recipe in YAML."),
        ("inspect", "out.jsonl.run", "21"): (65, 'out.jsonl.run: no record has the id "21"; ids are in report.html, and 5 means the fifth record.'),
        ("inspect", "out.jsonl"): (65, "out.jsonl: is not a run's folder; the run that wrote it is in out.jsonl.run."),
        ("plan", "a.jsonl"): (64, "a.jsonl: is no method; write tunesift plan select a.jsonl, or another method."),
        ("run", "selct"): (64, "there is no method selct; use one of cherry, clear, clear-correct, combined, controllability, debatune, genqa, mctune, mctune-evaluate, odin, optune, perplexity, refine-alpaca, refine-wizardlm, reflection, score, select, selectit, selectit-full, selective-reflection, sima, star-agents, superfiltering, superfiltering-d, tune, or a recipe in YAML."),
        ("run", "select"): (64, "input: is not given; write tunesift run select input=FILE output=FILE."),
        ("plan", "select"): (64, "input: is not given; name the file to read."),
        ("plan", "select", "nowhere.jsonl"): (65, "E101 nowhere.jsonl: there is no such file; check the path."),
    }  # fmt: skip
    for words, expected in wanted.items():
        told = tunesift(*words)
        assert (told.code, told.sentence) == expected


def test_ctrl_c_ends_with_a_word_on_how_to_go_on(tunesift: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tunesift.cli.commands.list_everything", interrupted)
    told = tunesift("list")
    assert (told.code, told.sentence) == (130, "stopped; start the same command again to go on")


def test_a_run_that_stops_when_asked_to_says_so_once(tunesift: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*given: object) -> None:
        raise Stopped("out.run: stopped when asked to; start the same command again to go on.")

    monkeypatch.setattr("tunesift.cli.commands.list_everything", stopped)
    told = tunesift("list")
    assert (told.code, told.sentence) == (130, "out.run: stopped when asked to; start the same command again to go on.")


def test_the_installed_command_says_the_same_as_its_function(place: Path) -> None:
    script = [sys.executable, "-m", "tunesift.cli"]
    for words, code, sentence in (
        (["select", "b.jsonl", "-o", "x.jsonl"], 65, "E101 b.jsonl: there is no such file; check the path.\n"),
        (["selct"], 64, "No such command 'selct'"),
    ):
        done = subprocess.run([*script, *words], capture_output=True, text=True, check=False, cwd=place)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith(sentence)
