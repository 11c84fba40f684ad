"""MCTune, told whole: rows that cannot be used, real rows end to end, a second file, runs that end and go on."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.halfway import killed
from harness.interrupting import Interrupts
from harness.kill import sealed
from harness.tiny import MakeTiny
from harness.walking import walked
from tunesift import (
    CannotCreate,
    Completion,
    DataError,
    Failure,
    MCTune,
    MCTuneEvaluate,
    Message,
    RecipeError,
    Record,
    Sampling,
    ScriptedModel,
    Summary,
    console,
    read_dataset,
    recipe_for,
    run_recipe,
)
from tunesift.methods.mctune_controls import PREAMBLE, block, parse_block
from tunesift.methods.mctune_features import Analyser
from tunesift.planning import plan
from tunesift.running.mending import verify
from tunesift.telling import told_run

Rows = Callable[[Path], list[dict[str, Any]]]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def tune(input: Path, output: Path, *settings: str) -> Summary:
    return run_recipe(recipe_for("mctune", input, output, settings))


def evaluate(input: Path, output: Path, *settings: str) -> Summary:
    return run_recipe(recipe_for("mctune-evaluate", input, output, ["model=null", *settings]))


def said(id: str, text: str, asked: str = "Say it.", *more: Message, **extra: object) -> Record:
    return Record(id, (*more, Message("user", asked), Message("assistant", text)), extra)


# --- eight rows, and what becomes of each --------------------------------------------------------------------------------------

EIGHT = [
    said("plain", "Dogs bark loudly. Cats sleep."),
    said("given", "Il pleut.", "Translate it.\n\nIt rains.", input="It rains."),
    said("system", "A quiet answer.", "Say it.", Message("system", "Be quiet.")),
    said("empty", "  "),
    said("marks", "?! ... --"),
    said("code", "Like this:\n```\nprint()\n```"),
    said("control", "Four words it has.", "What does [fkre: 60] mean?"),
    Record(
        "turns", (Message("user", "A?"), Message("assistant", "B."), Message("user", "C?"), Message("assistant", "D."))
    ),
    said("heavy", "Internationalisation institutionalisation."),
    said("image", "A dog.", "What is it?"),
]
EIGHT.append(said("tools", "Two.", "One and one?", tools="[{}]"))
EIGHT[-2] = Record("image", (Message("user", "What is it?", ("dog.png",)), Message("assistant", "A dog.")))

REASONS = {
    "empty": "the response is empty", "marks": "has no word: its response is marks alone", "code": "holds code: its response has a fence",
    "control": "holds what could be taken for a control", "turns": "has several turns", "image": "the record has images, which a text model does not read",
    "tools": "the record uses tools, which templates here do not show",
    "heavy": "not readable as prose: its readability is -471.995, not from -100 to 121.22",
}  # fmt: skip


def test_every_row_is_given_controls_or_dropped_with_its_reason(tmp_path: Path) -> None:
    told = walked(MCTune(held_out=0), tmp_path / "run", EIGHT)
    assert {d.record_id: d.reason for d in told.decisions if d.action == "drop"} == REASONS
    assert told.data is not None
    assert [r.id for r in told.data] == ["plain~controls", "given~controls", "system~controls"]
    assert all(d.parents == (d.record_id,) for d in told.decisions if d.action == "replace")
    assert told.also == {}
    kept = walked(MCTune(held_out=0, code="measure"), tmp_path / "code", EIGHT)
    assert "code~controls" in {r.id for r in kept.data or ()}


def test_the_chat_layout_has_the_preamble_before_and_the_controls_as_the_last_line(tmp_path: Path) -> None:
    told = walked(MCTune(held_out=0), tmp_path / "run", EIGHT)
    plain, given, system = told.data or ()
    for record in (plain, given, system):
        field = record.extra["mctune"]
        assert isinstance(field, dict)
        *text, controls = record.messages[1].text.split("\n")
        assert parse_block(controls) == field["values"]
        assert list(field["values"]) == field["selected"]
        assert field["all_measured"] == Analyser()(record.response)
        assert "\n".join(text) in ("Say it.", "Translate it.\n\nIt rains.")
    assert plain.messages[0].text == PREAMBLE
    assert system.messages[0].text == f"{PREAMBLE}\n\nBe quiet."
    assert "input" not in given.extra  # it stands in the prompt


def test_the_alpaca_layout_has_the_controls_behind_the_input_or_in_its_place(tmp_path: Path) -> None:
    source = [{"instruction": "Translate it.", "input": "It rains.", "output": "Il pleut.", "note": 7},
              {"instruction": "Say it.", "input": "", "output": "Dogs bark loudly."}]  # fmt: skip
    (tmp_path / "in.json").write_text(json.dumps(source))
    tune(tmp_path / "in.json", tmp_path / "out.json", "held_out=1", "layout=alpaca", "seed=1")
    rows = [*json.loads((tmp_path / "out.json").read_text()), *json.loads((tmp_path / "out.test.json").read_text())]
    assert len(rows) == 6
    for row in rows:
        old = next(one for one in source if one["instruction"] == row["instruction"])
        controls = block(row["mctune"]["values"])
        assert row["input"] == (f"It rains. {controls}" if old["input"] else controls)
        assert row["system"] == PREAMBLE
        assert row["output"] == ("" if "~test" in row["id"] else old["output"])
        assert row.get("note") == old.get("note")
    again = read_dataset(tmp_path / "out.json")
    assert again[0].messages[1].text == f"{rows[0]['instruction']}\n\n{rows[0]['input']}"


# --- real rows -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Obedient(ScriptedModel):
    """Writes as many words as it is told, where it is told; else ten. Refuses some, and is silent to others."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion | Failure]:  # type: ignore[override]
        return [self._said(conversation[-1].text) for conversation in conversations]

    def _said(self, text: str) -> Completion | Failure:
        if "rabbit" in text:
            return Failure("refused", "not about rabbits")
        if "poem" in text:
            return Completion("", "stop", 0)
        asked = parse_block(text.rpartition("\n")[2])
        assert isinstance(asked, dict)
        words = int(asked.get("t_word", 10))
        return Completion(" ".join(["Dogs bark loudly and sleep."] * (words // 5)) or "Yes.", "stop", words)


def table(run: Path, name: str) -> list[dict[str, Any]]:
    return list(pq.read_table(run / "tables" / f"{name}.parquet").to_pylist())


@pytest.fixture
def five_hundred(shared: Path, tmp_path: Path) -> Path:
    rows = json.loads((shared / "alpaca_gpt4" / "alpaca_gpt4_en.json").read_text("utf-8"))[:500]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    return tmp_path / "alpaca.json"


def test_500_real_rows_from_the_file_to_the_figures(five_hundred: Path, tmp_path: Path) -> None:
    summary = tune(five_hundred, tmp_path / "train.jsonl", "held_out=100")
    assert summary.counts["in"] == 500 == summary.counts["replaced"] + summary.counts["dropped"]
    assert summary.also == {tmp_path / "train.test.jsonl": 500}
    rows, prompts = rows_of(tmp_path / "train.jsonl"), rows_of(tmp_path / "train.test.jsonl")
    assert len(rows) == summary.counts["replaced"]
    assert not {r["id"].partition("~")[0] for r in rows} & {p["id"].partition("~")[0] for p in prompts}
    sizes = Counter(len(r["mctune"]["selected"]) for r in rows)
    assert set(sizes) == {1, 2, 3, 4, 5}
    by_row = Counter(p["mctune"]["row"] for p in prompts)
    assert set(by_row.values()) == {5}
    assert all(p["messages"][-1]["role"] == "user" for p in prompts)
    features = {row["feature"]: row for row in table(tmp_path / "train.jsonl.run", "features")}
    assert features["t_word"]["spearman_t_word"] == 1.0
    assert features["t_word"]["rows"] == len(rows) + 100 + summary.reasons["dropped: repeats a row that is held out"]
    run = tmp_path / "told"
    told = walked(MCTuneEvaluate(model=Obedient()), run, [*read_dataset(tmp_path / "train.test.jsonl", prompts=True)])
    whole, controls = table(run, "rates")[0], {(r["feature"], r["controls"]): r for r in table(run, "controls")}
    assert controls["t_word", "all"]["spearman"] > 0.99
    assert controls["fkre", "all"]["spearman"] is None  # all its answers read alike
    assert controls["t_word", "all"]["low"] > 0.95
    answers = {row["what"]: row["prompts"] for row in table(run, "answers")}
    assert sum(answers.values()) == 500
    assert whole["prompts"] == 500 - answers.get("failed: refused", 0)
    assert whole["without_answer"] == answers.get("empty answer", 0)
    assert {d.action for d in told.decisions} <= {"keep", "replace"}


def test_a_response_from_elsewhere_is_measured_and_the_training_rows_have_what_they_say(
    five_hundred: Path, tmp_path: Path
) -> None:
    tune(five_hundred, tmp_path / "train.jsonl", "held_out=450")
    summary = evaluate(tmp_path / "train.jsonl", tmp_path / "told.jsonl")
    assert set(summary.reasons) == {"kept: all within tolerance"}
    (whole, *_) = table(tmp_path / "told.jsonl.run", "rates")
    assert whole["exact"] == whole["strict"] == 1.0
    row = rows_of(tmp_path / "told.jsonl")[0]
    assert row["scores"]["mctune-evaluate"]["value"] == 1.0
    silent = evaluate(tmp_path / "train.test.jsonl", tmp_path / "silent.jsonl")
    assert set(silent.reasons) == {"kept: empty answer"}


def test_an_interrupted_run_and_one_in_other_chunks_write_the_same_bytes(five_hundred: Path, tmp_path: Path) -> None:
    def recipe(output: Path, *settings: str) -> Any:
        return recipe_for("mctune", five_hundred, output, ["held_out=50", *settings])

    run_recipe(recipe(tmp_path / "whole.jsonl"))
    broken = recipe(tmp_path / "broken.jsonl", "execution.chunk=32")
    for chunks in (1, 3, 5):
        with pytest.raises(KeyboardInterrupt):
            run_recipe(broken, progress=Interrupts(chunks))
        assert not (tmp_path / "broken.jsonl").exists()
        assert not (tmp_path / "broken.test.jsonl").exists()
    run_recipe(broken)
    for name in ("jsonl", "test.jsonl"):
        assert (tmp_path / f"broken.{name}").read_bytes() == (tmp_path / f"whole.{name}").read_bytes()


@pytest.mark.slow
def test_a_run_that_is_killed_writes_what_an_undisturbed_one_does(five_hundred: Path, tmp_path: Path) -> None:
    def command(name: str) -> list[str]:
        words = [str(five_hundred), "-o", str(tmp_path / f"{name}.jsonl"), "held_out=50", "execution.chunk=4", "-q"]
        return [sys.executable, "-m", "tunesift", "mctune", *words]

    def run(name: str) -> Path:
        return tmp_path / f"{name}.jsonl.run"

    assert not killed(command("whole"), run("whole"), 10**6)
    kills = sum(killed(command("broken"), run("broken"), after) for after in (40, 90, 150))
    assert kills == 3
    assert not killed(command("broken"), run("broken"), 10**6)
    for name in ("jsonl", "test.jsonl"):
        assert (tmp_path / f"broken.{name}").read_bytes() == (tmp_path / f"whole.{name}").read_bytes()
    assert sealed(run("broken")) == sealed(run("whole"))


# --- the second file -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def few(tmp_path: Path) -> Path:
    rows = [
        {"instruction": f"Name river {n}.", "output": f"River {n} is long. {'It is wide. ' * (n % 7)}"}
        for n in range(30)
    ]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "few.jsonl"


def test_a_foreign_file_in_its_place_is_refused_before_any_work(few: Path, tmp_path: Path) -> None:
    (tmp_path / "out.test.jsonl").write_text("mine")
    with pytest.raises(CannotCreate, match=r"out\.test\.jsonl: exists already"):
        tune(few, tmp_path / "out.jsonl", "held_out=5")
    assert (tmp_path / "out.test.jsonl").read_text() == "mine"
    assert not (tmp_path / "out.jsonl.run").exists()
    tune(few, tmp_path / "out.jsonl", "held_out=0")  # without test rows nothing is written there
    assert (tmp_path / "out.test.jsonl").read_text() == "mine"


def test_it_may_not_be_the_input(tmp_path: Path, few: Path) -> None:
    few.rename(tmp_path / "out.test.jsonl")
    with pytest.raises(RecipeError, match=r"E701 output: .*is the input itself"):
        tune(tmp_path / "out.test.jsonl", tmp_path / "out.jsonl", "held_out=5")


def test_it_is_written_again_when_it_is_gone_and_refused_when_it_was_changed(few: Path, tmp_path: Path) -> None:
    output, second, run = tmp_path / "out.jsonl", tmp_path / "out.test.jsonl", tmp_path / "out.jsonl.run"
    first = tune(few, output, "held_out=5")
    bytes_ = second.read_bytes()
    assert json.loads((run / "result.json").read_text())["also"][0]["records"] == 25
    assert f"  and: {second}, 25 records" in told_run(run, as_json=False)
    assert f"{second}: 25 records" in console.told(first)
    again = tune(few, output, "held_out=5")
    assert (again.worked, again.also) == (0, first.also)
    second.unlink()
    assert [finding.cure for finding in verify(run)] == ["write again"]
    tune(few, output, "held_out=5")
    assert second.read_bytes() == bytes_
    assert verify(run) == []
    second.write_bytes(bytes_ + b"\n")
    assert ["out.test.jsonl: is not as the run wrote it" in finding.said for finding in verify(run)] == [True]
    with pytest.raises(CannotCreate, match=r"out\.test\.jsonl: was changed after the run wrote it"):
        tune(few, output, "held_out=5")


@pytest.mark.parametrize("ending", ["json", "csv", "parquet", "jsonl.gz", "json.gz"])
def test_it_has_the_ending_of_the_output_and_is_read_back(few: Path, tmp_path: Path, ending: str) -> None:
    summary = tune(few, tmp_path / f"out.{ending}", "held_out=5", "layout=alpaca")
    (second,) = summary.also
    assert second.name == f"out.test.{ending}"
    assert len(read_dataset(second, prompts=True)) == 25
    if ending.endswith("gz"):
        assert gzip.decompress(second.read_bytes())
    if ending in ("parquet", "jsonl.gz"):
        assert evaluate(second, tmp_path / "told.jsonl").counts["kept"] == 25


def test_a_whole_number_stays_one_and_metadata_has_nothing_else(few: Path, tmp_path: Path) -> None:
    tune(few, tmp_path / "out.jsonl", "held_out=5")
    for name, more in (("out.jsonl", set()), ("out.test.jsonl", {"row", "sigma", "sd"})):
        for row in rows_of(tmp_path / name):
            field = row["mctune"]
            assert set(field) == {"selected", "values", "all_measured", "analyzer_id", *more}
            assert isinstance(field["all_measured"]["t_word"], int)
            assert set(field["selected"]) == set(field["values"])


# --- what cannot be done -------------------------------------------------------------------------------------------------------


def test_too_few_rows_are_refused_with_a_number_that_would_do(few: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2,000 rows are to be held out, and 30 can be used; write held_out=3"):
        tune(few, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl.run").exists()
    with pytest.raises(DataError, match="no row can be used \\(has several turns\\)"):
        walked(MCTune(held_out=0), tmp_path / "run", [r for r in EIGHT if r.id == "turns"])


def test_preference_pairs_are_refused(tmp_path: Path) -> None:
    row = {"prompt": "Say it.", "chosen": "Dogs bark.", "rejected": "Cats bark."}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(RecipeError, match="preference pairs"):
        tune(tmp_path / "pairs.jsonl", tmp_path / "out.jsonl", "held_out=0")


@pytest.mark.parametrize(("settings", "why"), [
    (["most_controls=6"], "most_controls: 6 is not from 1 to 5"), (["most_controls=0"], "most_controls: 0"), (["sigma=-1"], "sigma: -1"),
    (["held_out=-1"], "held_out, draws"), (["draws=0"], "held_out, draws"), (["analyser.profile=pos"], "needs parts of speech"),
    (["analyser.counting=compat"], "no tagger is given"), (["layout=vicuna"], "layout"),
])  # fmt: skip
def test_a_setting_that_cannot_be_is_a_sentence(few: Path, tmp_path: Path, settings: list[str], why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        tune(few, tmp_path / "out.jsonl", *settings)


def test_rows_without_controls_are_kept_and_named_unless_none_has_any(few: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no row has controls \\(the first: no field "mctune"\\)'):
        evaluate(few, tmp_path / "none.jsonl")
    tune(few, tmp_path / "out.jsonl", "held_out=5")
    rows = rows_of(tmp_path / "out.jsonl")
    odd = [
        {"values": {"words": 3}, "analyzer_id": "x"},
        {"values": {"t_word": "3"}, "analyzer_id": "x"},
        {"values": {"t_word": 3}},
        [3],
    ]
    rows += [{**rows[0], "id": f"odd-{n}", "mctune": field} for n, field in enumerate(odd)]
    (tmp_path / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = evaluate(tmp_path / "mixed.jsonl", tmp_path / "mixed.told.jsonl")
    assert summary.reasons == {"kept: all within tolerance": 25, "kept: no controls": 4}


def test_a_field_of_scores_that_is_not_ours_is_refused_before_anybody_is_asked(few: Path, tmp_path: Path) -> None:
    tune(few, tmp_path / "out.jsonl", "held_out=5")
    rows = [{**row, "scores": "mine"} for row in rows_of(tmp_path / "out.jsonl")]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="E206"):
        evaluate(tmp_path / "own.jsonl", tmp_path / "told.jsonl")


def test_a_model_that_is_not_given_is_asked_for_by_name(few: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"model: is not given; write model\.name=FOLDER"):
        run_recipe(recipe_for("mctune-evaluate", few, tmp_path / "out.jsonl"))


def test_answers_go_into_their_rows_and_failures_leave_theirs_as_they_were(few: Path, tmp_path: Path) -> None:
    tune(few, tmp_path / "out.jsonl", "held_out=5", "draws=1")
    settings = ["model.kind=scripted", "model.otherwise=River 1 is long.", 'model.replies={"Name river 1": ""}']
    summary = run_recipe(recipe_for("mctune-evaluate", tmp_path / "out.test.jsonl", tmp_path / "told.jsonl", settings))
    rows = rows_of(tmp_path / "told.jsonl")
    assert [row["messages"][-1]["role"] for row in rows] == ["assistant"] * 5
    assert summary.counts["replaced"] == 5
    for row in rows:
        score = row["scores"]["mctune-evaluate"]
        if row["messages"][-1]["content"]:
            assert score["parts"]["t_word"] == 4
        else:
            assert (score["value"], score["note"]) == (None, "empty answer")
    planned = plan(recipe_for("mctune-evaluate", tmp_path / "out.test.jsonl", tmp_path / "x.jsonl", settings)).stages
    assert [(s.stage, s.items) for s in planned] == [("answer", 5), ("score", 5)]


def test_a_text_that_is_not_english_is_told_of(tmp_path: Path, shared: Path) -> None:
    rows = json.loads((shared / "alpaca_gpt4" / "alpaca_gpt4_zh.json").read_text("utf-8"))[:40]
    (tmp_path / "zh.json").write_text(json.dumps(rows))
    summary = tune(tmp_path / "zh.json", tmp_path / "out.json", "held_out=0")
    assert any("not in English, for which syllables and readability are not made" in note for note in summary.notes)


def test_no_row_that_repeats_a_held_out_one_is_trained_on(tmp_path: Path) -> None:
    rows = [said(f"{name}{n}", f"River {n} is long.", f"Name river {n}.") for name in "ab" for n in range(10)]
    told = walked(MCTune(held_out=6), tmp_path / "run", rows)
    tested = {str(r.id).partition("~")[0][1:] for r in told.also["test"]}
    trained = {r.id.partition("~")[0][1:] for r in told.data or ()}
    assert tested
    assert trained
    assert not tested & trained
    assert len(tested | trained) == 10
    reasons = Counter(d.reason for d in told.decisions if d.action == "drop")
    assert reasons["held out for testing"] == 6
    assert reasons["repeats a row that is held out"] == 2 * len(tested) - 6


def test_an_interrupted_evaluation_writes_what_an_undisturbed_one_does(few: Path, tmp_path: Path) -> None:
    tune(few, tmp_path / "out.jsonl", "held_out=8")
    given = ["model.kind=scripted", "model.otherwise=River 1 is long. It is wide."]

    def recipe(name: str, *settings: str) -> Any:
        return recipe_for("mctune-evaluate", tmp_path / "out.test.jsonl", tmp_path / name, [*given, *settings])

    run_recipe(recipe("whole.jsonl"))
    for chunks in (2, 5):  # the first while it answers, the second while it is measured
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe("broken.jsonl", "execution.chunk=10"), progress=Interrupts(chunks))
    run_recipe(recipe("broken.jsonl", "execution.chunk=10"))
    assert (tmp_path / "broken.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    for name in ("controls", "rates", "answers"):
        assert table(tmp_path / "broken.jsonl.run", name) == table(tmp_path / "whole.jsonl.run", name)


def test_a_model_of_this_machine_answers_prompts_in_either_layout(
    few: Path, tmp_path: Path, make_tiny: MakeTiny
) -> None:
    folder = make_tiny(length=2048)
    for layout in ("chat", "alpaca"):
        tune(few, tmp_path / f"{layout}.jsonl", "held_out=2", "draws=1", f"layout={layout}")
        settings = [f"model.name={folder}", "max_tokens=8"]
        recipe = recipe_for(
            "mctune-evaluate", tmp_path / f"{layout}.test.jsonl", tmp_path / f"{layout}.told.jsonl", settings
        )
        assert run_recipe(recipe).counts["replaced"] == 2
        assert table(tmp_path / f"{layout}.told.jsonl.run", "rates")[0]["prompts"] == 2
