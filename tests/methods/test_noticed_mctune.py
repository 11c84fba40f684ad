"""What a user would miss of MCTune's pages: each test here failed on a change of a page that no other noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest

from tunesift import (
    Analyser,
    Completion,
    DataError,
    Dataset,
    Decision,
    Failure,
    Local,
    MCTune,
    MCTuneEvaluate,
    Message,
    RecipeError,
    Record,
    Run,
    Sampling,
    Score,
    ScriptedModel,
    ScriptedTagger,
)
from tunesift.datasets import Source
from tunesift.methods.mctune import FELL_BACK
from tunesift.methods.mctune_controls import Targets, perturbed
from tunesift.methods.mctune_features import MeasureResponse, is_measured
from tunesift.methods.mctune_figures import Prompt, by_feature, controls_of
from tunesift.methods.mctune_words import read_words


def table(folder: Path, name: str) -> list[dict[str, Any]]:  # Any: JSON
    return list(pq.read_table(folder / "tables" / f"{name}.parquet").to_pylist())


def prompt(id: str, controls: object, text: str = "") -> Record:
    return Record(id, (Message("user", text or id), Message("assistant", "")), {"mctune": controls} if controls else {})


def controls(values: Mapping[str, float], **more: object) -> dict[str, object]:
    return {"values": values, "sd": {"t_word": 2.0}, "analyzer_id": "tunesift/1/core", **more}


class Answering(ScriptedModel):
    """Answers by rule, and not at all where it is asked for what is gone."""

    def chat(  # type: ignore[override]
        self, conversations: Sequence[Sequence[Message]], sampling: Sampling
    ) -> list[Completion | Failure]:
        gone = Failure("unanswered", "nobody is there")
        said = super().chat(conversations, sampling)
        return [gone if c[-1].text == "gone" else one for c, one in zip(conversations, said, strict=True)]


def evaluated(folder: Path, records: Sequence[Record], **given: Any) -> None:  # Any: settings of the model
    data = Dataset.of(records)
    with Run(folder, Local()) as run:
        run.finish(data, MCTuneEvaluate(model=Answering(**given))(data, run).decisions)


FOUR = "Rivers run to seas."
ASKING = [
    prompt("all", controls({"t_word": 4}, sigma=0.5, row="one")),
    prompt("some", controls({"t_word": 4, "fkre": -90.0}, sigma=0.1, row="one")),
    prompt("none", controls({"t_word": 40}, sigma=0.1)),
    prompt("plain", None),
    prompt("gone", controls({"t_word": 4}, sigma=0.1)),
    prompt("marks", controls({"t_word": 4}, sigma=0.1)),
]


def test_every_answer_is_told_of_with_what_it_has_of_what_was_asked_for(tmp_path: Path) -> None:
    method = MCTuneEvaluate(model=Answering(replies={"marks": "..."}, otherwise=FOUR))
    with Run(tmp_path, Local(), max_failures=1.0) as run:
        result = method(Dataset.of(ASKING), run)
        assert result.data is not None
        assert [(r.id, r.messages[-1].text) for r in result.data] == [
            ("all~answer", FOUR), ("some~answer", FOUR), ("none~answer", FOUR), ("plain", ""), ("gone", ""),
            ("marks~answer", "..."),
        ]  # fmt: skip
        assert list(result.decisions) == [
            Decision("all", "replace", "all within tolerance: 100% of its controls", ("all",)),
            Decision("some", "replace", "some within tolerance: 50% of its controls", ("some",)),
            Decision("none", "replace", "none within tolerance: 0% of its controls", ("none",)),
            Decision("plain", "keep", 'no controls: no field "mctune"'),
            Decision("gone", "keep", "no answer: unanswered, nobody is there"),
            Decision("marks", "replace", "empty answer", ("marks",)),
        ]
        assert result.scores is not None
        assert result.scores["plain"] == {"mctune-evaluate": Score(None, note='no controls: no field "mctune"')}
        assert result.scores["gone"] == {"mctune-evaluate": Failure("unanswered", "nobody is there")}
        run.finish(Dataset.of(ASKING), result.decisions)
    assert {row["of"]: (row["prompts"], row["without_answer"]) for row in table(tmp_path, "rates")} == {
        "all": (4, 1), "1 control": (3, 1), "2 controls": (1, 0), "sigma 0.1": (3, 1), "sigma 0.5": (1, 0),
    }  # fmt: skip


def test_controls_are_told_of_by_how_far_their_targets_lie(tmp_path: Path) -> None:
    evaluated(tmp_path, ASKING[:3], otherwise=FOUR)
    found = {
        sigma: {
            (row["feature"], row["n"])
            for row in table(tmp_path, f"controls-at-sigma-{sigma}")
            if row["controls"] == "all"
        }
        for sigma in ("0.1", "0.5")
    }
    assert found == {
        "0.1": {("t_word", 2), ("fkre", 1), ("mean over features", 3)},
        "0.5": {("t_word", 1), ("mean over features", 1)},
    }


@pytest.mark.parametrize(("rows", "known"), [({"row": "one"}, False), ({"row": 7}, True), ({}, True)])
def test_prompts_of_one_row_are_drawn_together_and_others_apart(
    rows: Mapping[str, object], known: bool, tmp_path: Path
) -> None:
    """Of one row alone every sample is the same, and so its interval is its rank."""
    asked = [prompt(f"p{n}", controls({"t_word": n}, **rows), f"say {n}") for n in range(2, 8)]
    replies = {f"say {n}": "word " * (n + 2 * (n % 2)) for n in range(2, 8)}
    evaluated(tmp_path, asked, replies=replies)
    (row,) = (r for r in table(tmp_path, "controls") if (r["feature"], r["controls"]) == ("t_word", "all"))
    assert (row["low"] < row["spearman"]) is known
    assert row["length_only"] == row["spearman"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([prompt("a", None), prompt("b", [3])], 'no row has controls (the first: no field "mctune"); give the file that '
         "mctune wrote beside its output, such as train.test.jsonl."),
        ([], "no row has controls (the first: there is no row); give the file that mctune wrote beside its output, such "
         "as train.test.jsonl."),
        ([prompt("a", controls([4]))], 'no row has controls (the first: no values, or no analyzer_id, in its field '  # type: ignore[arg-type]
         '"mctune"); give the file that mctune wrote beside its output, such as train.test.jsonl.'),
        ([prompt("a", {**controls({"t_word": 4}), "analyzer_id": "tunesift/0/core"})],
         'the rows were measured by "tunesift/0/core", and the answers would be by "tunesift/1/core"; give the analyser '
         "that mctune was given."),
        ([prompt("a", {**controls({"t_word": 4}), "analyzer_id": "spacy:x/1/pos"})],
         'the rows were measured by "spacy:x/1/pos", and the answers would be by "tunesift/1/core", which has no parts '
         "of speech (upos); give the analyser that mctune was given."),
    ],
)  # fmt: skip
def test_rows_that_ask_for_nothing_or_were_measured_otherwise_are_refused(
    rows: list[Record], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as refusal:
        evaluated(tmp_path, rows)
    assert str(refusal.value) == said


RIVERS = [
    Record(f"r{n}", (Message("user", f"Name river {n}."), Message("assistant", f"It runs far.{' So it does.' * (n % 4)}")))
    for n in range(12)
]  # fmt: skip


def tuned(
    folder: Path, records: Sequence[Record] = RIVERS, **given: Any
) -> tuple[list[Record], list[Record], list[str]]:
    """Rows to train on, prompts to test with, and reasons."""  # Any: settings
    data = Dataset.of(records)
    with Run(folder, Local()) as run:
        result = MCTune(**{"held_out": 4, "draws": 3, **given})(data, run)
        run.finish(data, result.decisions)
        assert result.data is not None
        test = list(result.also["test"]) if "test" in result.also else []
        return list(result.data), test, [d.reason for d in result.decisions if d.action == "replace"]


def field(record: Record) -> Any:  # Any: JSON
    return record.extra["mctune"]


def test_a_reason_names_the_controls_of_its_row_and_rows_have_different_ones(tmp_path: Path) -> None:
    rows, test, reasons = tuned(tmp_path)
    assert reasons == [f"given controls: {', '.join(field(row)['selected'])}" for row in rows]
    assert len(set(reasons)) > 1
    of = {
        row: {tuple(field(p)["selected"]) for p in test if field(p)["row"] == row}
        for row in {field(p)["row"] for p in test}
    }
    assert [len(chosen) for chosen in of.values()] == [1, 1, 1, 1]
    assert len(set().union(*of.values())) > 1


def test_every_prompt_of_a_held_out_row_asks_for_numbers_of_its_own(tmp_path: Path) -> None:
    """Rows that measure the same are not shifted alike either."""
    said = ["Remarkable rivers overflow.", "Remarkable rivers overflow. It is so."]
    same = [Record(f"r{n}", (Message("user", f"Name {n}."), Message("assistant", said[n > 3]))) for n in range(8)]
    _, test, _ = tuned(tmp_path, same, held_out=7, draws=4, sigma=3.0)
    of: dict[str, list[float]] = {}
    for one in test:
        if "fkre" in field(one)["values"]:
            of.setdefault(field(one)["row"], []).append(field(one)["values"]["fkre"])
    assert all(len(set(values)) == 4 for values in of.values())
    assert len({values[0] for values in of.values()}) == len(of) > 1


def test_what_responses_measure_stands_in_a_table(tmp_path: Path) -> None:
    """Words 3, 6, 9 and 12 of twelve rows, three of each: their mean is 7.5, their deviation the root of 135 / 11."""
    tuned(tmp_path)
    of = {row["feature"]: row for row in table(tmp_path, "features")}
    assert of["t_word"] == {"feature": "t_word", "rows": 12, "mean": 7.5, "sd": 3.5032, "least": 3.0, "most": 12.0,
                            "spearman_t_word": 1.0}  # fmt: skip
    assert table(tmp_path, "test-prompts") == [{"rows_held_out": 4, "prompts": 12, "sigma": 0.1, "fell_back": 0}]


def test_no_row_held_out_has_no_table_of_test_prompts(tmp_path: Path) -> None:
    tuned(tmp_path, held_out=0)
    assert not (tmp_path / "tables" / "test-prompts.parquet").exists()


@pytest.mark.parametrize(
    ("text", "given", "instruction", "input"),
    [
        ("Sum it.\n\n2 and 2", "2 and 2", "Sum it.", "2 and 2 [C]"), ("Sum 2 and 2.", "2 and 2", "Sum 2 and 2.", "[C]"),
        ("Sum it.\n\n ", " ", "Sum it.\n\n ", "[C]"), ("Sum it.", "", "Sum it.", "[C]"),
    ],
)  # fmt: skip
def test_controls_stand_behind_an_input_that_ends_the_instruction_and_else_are_the_input(
    text: str, given: str, instruction: str, input: str, tmp_path: Path
) -> None:
    record = Record("a", (Message("user", text), Message("assistant", "It runs far.")), {"input": given})
    ((row,), _, _) = tuned(tmp_path, [record], held_out=0, layout="alpaca")
    controls = " ".join(f"[{key}: {value:g}]" for key, value in field(row)["values"].items())
    assert row.extra["input"] == input.replace("[C]", controls)
    assert row.messages[1].text == f"{instruction}\n\n{row.extra['input']}"


@pytest.mark.parametrize(
    ("fkre", "words", "usable"),
    [
        (-100.0, 1, True), (-100.5, 9, False), (121.22, 1, True), (121.23, 9, False), (122.0, 9, False), (60.0, 0, False),
        (float("nan"), 9, False),
    ],
)  # fmt: skip
def test_a_text_is_measured_from_one_word_on_and_within_the_readabilities_there_are(
    fkre: float, words: int, usable: bool
) -> None:
    assert is_measured({"fkre": fkre, "t_word": words}) is usable


FOUND = {"t_word": 20, "t_uword": 10, "simp_ttr": 0.5, "fkre": 60.0, "rt_average": 0.08}
WIDE = {"t_word": 5.0, "t_uword": 2.0, "simp_ttr": 0.1, "fkre": 10.0, "rt_average": 0.02}


def test_targets_are_the_measurements_at_sigma_0_and_others_at_1() -> None:
    none, wide = (perturbed(FOUND, WIDE, sigma, Random(1)) for sigma in (0, 1))
    assert none == Targets(FOUND, fell_back=False)
    assert none.fell_back is False
    assert wide.fell_back is False
    assert wide.values["fkre"] != 60.0


def test_sentences_of_a_text_are_numbered_from_0_and_those_without_words_have_no_number() -> None:
    assert read_words("Rain falls. ... Who knows?") == [
        ("Rain", "rain", "", 0), ("falls", "falls", "", 0), ("Who", "who", "", 1), ("knows", "knows", "", 1),
    ]  # fmt: skip


def test_a_control_knows_how_many_words_its_answer_has() -> None:
    (control,) = controls_of({"fkre": 60.0}, {"t_word": 9, "fkre": 61.0}, {"fkre": 2.0})
    assert (control.found, control.words, control.sd) == (61.0, 9, 2.0)


def test_without_prompts_there_is_a_row_of_means_of_nothing() -> None:
    (row,) = by_feature([], lambda *names: Random(0))
    assert (row["feature"], row["controls"], row["n"], row["spearman"]) == ("mean over features", "all", 0, None)


def test_agreement_is_told_to_four_decimals() -> None:
    """Two neighbours of seven change places: 1 - 6 * 2 / (7 * 48)."""
    found = [1, 3, 2, 4, 5, 6, 7]
    prompts = [
        Prompt(controls_of({"t_word": n}, {"t_word": m}, {}), None, str(n)) for n, m in enumerate(found, start=1)
    ]
    first = next(iter(by_feature(prompts, lambda *names: Random(0))))
    assert first["spearman"] == 0.9643


def test_targets_that_cannot_be_drawn_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert told_of(tmp_path / "drawn") == ({}, 0)
    monkeypatch.setattr("tunesift.methods.mctune_controls.MOST_REDRAWS", 0)
    assert told_of(tmp_path / "not") == ({FELL_BACK: 12}, 12)


def told_of(folder: Path) -> tuple[Mapping[str, int], int]:
    """Of test prompts without valid targets: what is noted, and what stands in the table."""
    data = Dataset.of(RIVERS)
    with Run(folder, Local()) as run:
        result = MCTune(held_out=4, draws=3)(data, run)
        run.finish(data, result.decisions)
    return result.notes, table(folder, "test-prompts")[0]["fell_back"]


def test_figures_of_the_responses_have_four_decimals(tmp_path: Path) -> None:
    """Words 3, 6, 9, 12, 3, 6, 9, of which 3 or 5 differ; the agreement is SciPy's."""
    tuned(tmp_path, RIVERS[:7], held_out=0)
    of = {row["feature"]: row for row in table(tmp_path, "features")}
    assert (of["t_word"]["mean"], of["t_word"]["sd"]) == (6.8571, 3.3381)
    assert of["t_uword"] == {"feature": "t_uword", "rows": 7, "mean": 4.4286, "sd": 0.9759, "least": 3.0, "most": 5.0,
                             "spearman_t_word": 0.8126}  # fmt: skip


MARKS = [Record("a", (Message("user", "Draw."), Message("assistant", "***")))]


@pytest.mark.parametrize(
    ("records", "held_out", "said"),
    [
        ([], 0, "no row can be used (there are none); give rows of one instruction and a response in prose."),
        (MARKS, 0, "no row can be used (has no word: its response is marks alone); give rows of one instruction and a "
         "response in prose."),
        ([*RIVERS[:11], *MARKS], 20, "held_out: 20 rows are to be held out, and 12 can be used; write held_out=1, or "
         "give more rows."),
    ],
)  # fmt: skip
def test_too_few_rows_are_refused_with_what_would_do(
    records: Sequence[Record], held_out: int, said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as refusal:
        tuned(tmp_path, records, held_out=held_out)
    assert str(refusal.value) == said


def test_too_few_rows_are_refused_before_any_is_measured(tmp_path: Path) -> None:
    codes = [Record(f"c{n}", (Message("user", f"Code {n}."), Message("assistant", "```\nx\n```"))) for n in range(9)]
    with Run(tmp_path, Local()) as run:
        with pytest.raises(DataError, match="4 rows are to be held out, and 2 can be used"):
            MCTune(held_out=4)(Dataset.of([*RIVERS[:2], *codes]), run)
        assert run.stages == []


def test_more_controls_than_features_are_refused_with_the_usual_number() -> None:
    every = Analyser(profile="pos", tagger=ScriptedTagger())
    with pytest.raises(RecipeError) as refusal:
        MCTune(analyser=every, most_controls=15)
    assert str(refusal.value) == "most_controls: 15 is not from 1 to 14, the features there are; write 5."


def test_an_empty_response_has_no_measurement_and_says_why() -> None:
    empty = Record("a", (Message("user", "Say nothing."), Message("assistant", " ")))
    assert MeasureResponse(analyser=Analyser())([empty]) == [Score(None, note="empty_response")]


def test_preference_pairs_are_refused_as_what_they_are(tmp_path: Path) -> None:
    data = Dataset.of(RIVERS)
    data.source = Source("pairs.jsonl", "preference", "", 0, 12)
    with Run(tmp_path, Local()) as run, pytest.raises(RecipeError) as refusal:
        MCTune(held_out=4)(data, run)
    assert str(refusal.value) == (
        "the input holds preference pairs, and controls say what one response is like; give rows of instructions and "
        "responses."
    )
