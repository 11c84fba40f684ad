"""Selective Reflection-Tuning held against its card: arithmetic, the table of decisions, both flows, the number of calls."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from harness.tiny import MakeTiny
from tunesift import (
    IFD,
    Asking,
    Completion,
    Dataset,
    Failure,
    Local,
    Message,
    Record,
    ReversedIFD,
    Run,
    Sampling,
    Score,
    ScriptedModel,
    SelectiveReflection,
    Span,
    TargetLoss,
    TransformersModel,
)
from tunesift.methods.selective_steps import InstructionLoss, Seen, Trial, guess_of
from tunesift.prompts import REVERSED
from tunesift.running.result import Result

ALONE = 2.0
"""Loss of any text alone, in the table's student."""
Ratios = tuple[float | str | None, float | str | None]
"""IFD and r-IFD of a pair; None where its scoring fails, a text for what JSON has no number for."""
CALLS: list[str] = []
"""What teachers were asked."""
PASSES: list[Span] = []
"""What students predicted."""


@pytest.fixture(autouse=True)
def _counted_from_zero() -> None:
    CALLS.clear()
    PASSES.clear()


def record(id: str, response: str = "old answer") -> Record:
    return Record(id, (Message("user", f"old instruction of {id}"), Message("assistant", response)))


@dataclass(frozen=True, kw_only=True)
class Teacher(ScriptedModel):
    """Writes a new pair for every old instruction, and a better answer for every answer."""

    def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        return [Completion(self._said(c[-1].text), "stop", 1) for c in conversations]

    def _said(self, asked: str) -> str:
        CALLS.append(asked)
        whose, id = re.findall(r"(old|new) instruction of (\w+)", asked)[-1]
        if "[Better Answer]" in asked:
            return f"[Better Answer] {'A' if whose == 'old' else 'QA'} answer to {id} [End]"
        return f"[New Instruction] new instruction of {id} [End] [New Answer] new answer to {id} [End]"


@dataclass(frozen=True, kw_only=True)
class Student(ScriptedModel):
    """Losses that give the table's ratios: alone 2 nats, given something 2 plus the logarithm of the ratio."""

    table: Mapping[str, Mapping[str, Ratios]] = field(default_factory=dict)
    """By record, then by pair (O, Q, A, QA)."""

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        PASSES.extend(spans)
        return [self._lost(span) for span in spans]

    def _lost(self, span: Span) -> TargetLoss | Failure:
        if isinstance(span.context, str):
            return TargetLoss((ALONE,) * 3, False)
        text = span.context[-1].text
        guessing = "instruction of" in span.target
        asked, said = (span.target, text) if guessing else (text, span.target)
        id = re.findall(r"instruction of (\w+)", asked)[0]
        found = re.search(r"\b(QA|A|new|old) answer", said)
        assert found is not None
        pair = {"old": "O", "new": "Q"}.get(found[1], found[1])
        ratio = self.table[id][pair][guessing]
        if ratio is None:
            return Failure("crashed", "no memory")
        return TargetLoss((ALONE + _log(float(ratio)),) * 3, False)


def _log(ratio: float) -> float:
    return ratio if not math.isfinite(ratio) else math.log(ratio)


ROWS: dict[str, tuple[Ratios, Ratios, Ratios, Ratios, str, bool]] = {
    "one": ((0.60, 0.70), (0.75, 0.65), (0.62, 0.50), (0.78, 0.55), "QA", True),
    "two": ((0.60, 0.70), (0.75, 0.55), (0.62, 0.50), (0.78, 0.65), "Q", False),
    "three": ((0.75, 0.70), (0.60, 0.40), (0.72, 0.50), (0.62, 0.30), "A", True),
    "four": ((0.75, 0.40), (0.60, 0.30), (0.72, 0.50), (0.62, 0.20), "O", False),
    "five": ((0.60, 0.70), (0.75, 0.65), (0.62, 0.50), (1.08, 0.55), "QA", False),
    "six": ((0.60, 0.70), (0.60, 0.65), (0.62, 0.70), (0.70, 0.50), "O", False),
    "seven": ((0.60, 0.70), ("nan", 0.65), (0.62, 0.50), (0.90, 0.50), "A", True),
    "eight": ((0.60, 0.70), (0.75, 0.65), (0.62, 0.50), (None, None), "Q", False),
}
"""The card's table 5: pairs O, Q, A and QA, what must be chosen, and whether it is kept."""
TABLE = {id: dict(zip(("O", "Q", "A", "QA"), row[:4], strict=True)) for id, row in ROWS.items()}


def done(method: SelectiveReflection, folder: Path, records: Sequence[Record]) -> tuple[Result, Mapping[str, Score]]:
    """What a method decides, and the numbers that it writes down."""
    data = Dataset.of(records)
    with Run(folder, Local(), max_failures=1.0) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
        stage = run._journal.opened("score")
        found = [stage.get(n) for n in range(len(stage))]
    import json

    return result, {e.id: Score(**json.loads(e.outcome)) for e in found if e is not None}


def page(table: Mapping[str, Mapping[str, Ratios]], **settings: Any) -> SelectiveReflection:
    return SelectiveReflection(teacher=Teacher(), student=Student(table=table), **settings)


@pytest.mark.parametrize("flow", ["lazy", "full"])
def test_oracle_5_the_table_of_decisions(tmp_path: Path, flow: str) -> None:
    result, scores = done(page(TABLE, flow=flow), tmp_path, [record(id) for id in ROWS])
    assert {id: s.note for id, s in scores.items()} == {id: f"branch {row[4]}" for id, row in ROWS.items()}
    assert {d.record_id: d.action for d in result.decisions} == {
        id: "replace" if row[5] else "drop" for id, row in ROWS.items()
    }
    assert result.data is not None
    assert [(r.id, r.response) for r in result.data] == [
        ("one~instruction~response", "QA answer to one"), ("three~response", "A answer to three"),
        ("seven~response", "A answer to seven"),
    ]  # fmt: skip


def test_oracle_5_the_reasons_hold_the_four_numbers_or_what_was_wrong(tmp_path: Path) -> None:
    result, _ = done(page(TABLE), tmp_path, [record(id) for id in ROWS])
    assert {d.record_id: d.reason for d in result.decisions} == {
        "one": "rewritten (instruction and response): IFD 0.6000, with the new instruction 0.7500, chosen 0.7800; "
               "r-IFD 0.6500 to 0.5500",
        "two": "response not replaced (not preferred): the instruction's loss is 1.4022 given the old one, 1.5692 given "
               "the new one",
        "three": "rewritten (response): IFD 0.7500, with the new instruction 0.6000, chosen 0.7200; r-IFD 0.7000 to 0.5000",
        "four": "response not replaced (not preferred): the instruction's loss is 1.0837 given the old one, 1.3069 given "
                "the new one",
        "five": "not valid (IFD): 1.0800 is not below 1",
        "six": "response not replaced (not preferred): the instruction's loss is 1.6433 given the old one, 1.6433 given "
               "the new one",
        "seven": "rewritten (response): instruction ok, chosen 0.6200; r-IFD 0.7000 to 0.5000",
        "eight": "response not replaced (no score): the student could not be asked for the instruction",
    }  # fmt: skip


def test_the_published_rule_would_keep_what_could_not_be_scored() -> None:
    """A failure that reads as 0 wins row eight and passes the filter, there; here it is no number, and wins nothing."""
    failed = 0.0
    assert failed < ROWS["eight"][1][1] < 1  # type: ignore[operator]
    assert not Trial(ROWS["eight"][1][1], None).won(larger=False)
    assert not Trial(None, 0.1).won(larger=False)
    assert not Trial(0.5, 0.5).won(larger=True)


def test_capped_a_new_instruction_of_ifd_one_or_more_does_not_win(tmp_path: Path) -> None:
    table = {"one": {"O": (0.6, 0.7), "Q": (1.08, 0.6), "A": (0.7, 0.5), "QA": (1.1, 0.5)}}
    plain, _ = done(page(table), tmp_path / "plain", [record("one")])
    capped, _ = done(page(table, cap_first=True), tmp_path / "capped", [record("one")])
    assert [d.action for d in plain.decisions] == ["drop"]
    assert [d.action for d in capped.decisions] == ["replace"]


def test_the_lazy_flow_decides_as_the_full_flow_and_costs_what_the_card_says(tmp_path: Path) -> None:
    draw = random.Random(7)

    def ratio() -> float | str | None:
        return draw.choice([0.4, 0.5, 0.6, 0.6, 0.8, 0.99, 1.0, 1.2, None, "nan", "inf"])

    table = {f"r{n}": {pair: (ratio(), ratio()) for pair in ("O", "Q", "A", "QA")} for n in range(300)}
    records = [record(id) for id in table]
    lazy, full = page(table), page(table, flow="full")
    first, first_scores = done(lazy, tmp_path / "lazy", records)
    lazy_cost = len(CALLS), len(PASSES)
    CALLS.clear()
    PASSES.clear()
    second, second_scores = done(full, tmp_path / "full", records)
    assert [(d.record_id, d.action) for d in first.decisions] == [(d.record_id, d.action) for d in second.decisions]
    assert first_scores.keys() == second_scores.keys()
    assert {id: s.note for id, s in first_scores.items()} == {id: s.note for id, s in second_scores.items()}
    assert first.data is not None
    assert second.data is not None
    assert list(first.data) == list(second.data)
    accepted = sum("A" in s.note for s in first_scores.values())
    assert lazy_cost == (2 * len(records), 6 * len(records) + 3 * accepted)
    assert (len(CALLS), len(PASSES)) == (3 * len(records), 14 * len(records))
    assert 20 < accepted < len(records)


def test_a_row_that_is_accepted_costs_nine_passes_and_six_without_the_filter(tmp_path: Path) -> None:
    for folder, settings, passes in (("a", {}, 9), ("b", {"valid_only": False}, 6)):
        CALLS.clear()
        PASSES.clear()
        done(page({"one": TABLE["one"]}, **settings), tmp_path / folder, [record("one")])
        assert (len(CALLS), len(PASSES)) == (2, passes)


def test_rows_whose_reply_cannot_be_read_skip_the_passes_of_that_phase(tmp_path: Path) -> None:
    silent = SelectiveReflection(teacher=ScriptedModel(otherwise="No idea."), student=Student(table=TABLE))
    result, _ = done(silent, tmp_path, [record("one")])
    assert PASSES == []
    (decision,) = result.decisions
    assert (decision.action, decision.reason) == ("drop", "response not replaced (no_marker)")


def test_dropped_or_left_as_it_was(tmp_path: Path) -> None:
    result, _ = done(page(TABLE, otherwise="original"), tmp_path, [record(id) for id in ROWS])
    assert result.data is not None
    assert [r.id.partition("~")[0] for r in result.data] == list(ROWS)
    assert result.data.by_id("two") == record("two")
    assert [d.action for d in result.decisions if not ROWS[d.record_id][5]] == ["keep"] * 5


def test_oracle_6_top_fractions_are_nested_rounded_down_and_the_filter_off_keeps_what_is_not_below_one(
    tmp_path: Path,
) -> None:
    table = {
        f"r{n}": {"O": (0.5, 0.9), "Q": (0.4, 0.9), "A": (0.50 + n / 100, 0.5), "QA": (1.0, 1.0)} for n in range(45)
    }
    records = [record(id) for id in table]
    chosen = {}
    for fraction in (0.02, 0.05, 0.5, 1.0):
        result, _ = done(page(table, fraction=fraction), tmp_path / str(fraction), records)
        chosen[fraction] = {d.record_id for d in result.decisions if d.action == "replace"}
    assert [len(ids) for ids in chosen.values()] == [0, 2, 22, 45]  # floor of 0.9, 2.25, 22.5
    assert chosen[0.02] <= chosen[0.05] <= chosen[0.5] <= chosen[1.0]
    assert chosen[0.05] == {"r43", "r44"}
    off, _ = done(page({"five": TABLE["five"]}, valid_only=False), tmp_path / "off", [record("five")])
    assert [d.action for d in off.decisions] == ["replace"]


def test_oracle_6_other_rows_and_their_order_change_nothing(tmp_path: Path) -> None:
    records = [record(id) for id in ROWS]
    whole, _ = done(page(TABLE), tmp_path / "whole", records)
    turned, _ = done(page(TABLE), tmp_path / "turned", records[::-1])
    single, _ = done(page(TABLE), tmp_path / "single", records[:1])
    assert sorted(whole.decisions, key=str) == sorted(turned.decisions, key=str)
    assert single.decisions[0] == whole.decisions[0]


def test_margins_that_are_narrow_are_counted(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = {"one": {"O": (0.6, 0.7), "Q": (0.6004, 0.7), "A": (0.7, 0.5), "QA": (0.7, 0.5)}, "two": TABLE["two"]}
    done(page(table), tmp_path, [record(id) for id in table])
    assert pq.read_table(tmp_path / "tables" / "trials.parquet").to_pylist() == [
        {"trial": "instruction, by IFD", "compared": 2, "new_won": 2, "fragile": 1},
        {"trial": "response, by r-IFD", "compared": 2, "new_won": 1, "fragile": 0},
    ]


# --- arithmetic ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Given(ScriptedModel):
    """Losses as they are given: for a text after something, and for the same alone."""

    after: tuple[float | str, ...] = ()
    alone: tuple[float, ...] = ()

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        return [TargetLoss(tuple(map(float, self.after if s.context else self.alone)), False) for s in spans]


def test_oracle_1_and_2_ratio_of_perplexities_not_of_losses() -> None:
    one = record("one")
    (score,) = IFD(student=Given(after=(1.2, 0.7, 0.5), alone=(2.0, 1.1, 0.9)))([one])
    assert isinstance(score, Score)
    assert score.value == pytest.approx(0.58665, abs=5e-6)
    assert score.parts["ifd_loss"] == pytest.approx(0.6)
    (p,), (q,) = (IFD(student=Given(after=(a,), alone=(b,)))([one]) for a, b in ((1.0, 2.0), (0.2, 0.5)))
    assert isinstance(p, Score)
    assert isinstance(q, Score)
    assert (p.value, q.value) == (pytest.approx(0.36788, abs=5e-6), pytest.approx(0.74082, abs=5e-6))
    assert (p.parts["ifd_loss"], q.parts["ifd_loss"]) == (pytest.approx(0.5), pytest.approx(0.4))


CORPUS = ("<s> add two numbers . sum is four .", "<s> sum of two numbers is four .", "<s> add two . four .")
WORDS = ["<s>", "add", "two", "sum", "of", "numbers", "is", "four", "."]


@dataclass(frozen=True, kw_only=True)
class Bigrams(ScriptedModel):
    """Add-one bigrams over nine words; of the other side, a text sees the last word only."""

    def loss(self, spans: Sequence[Span]) -> list[TargetLoss | Failure]:
        return [TargetLoss(tuple(self._nats(span)), False) for span in spans]

    def _nats(self, span: Span) -> list[float]:
        pairs = Counter(p for line in CORPUS for w in [line.split()] for p in itertools.pairwise(w))
        firsts = Counter(a for a, _ in pairs.elements())
        before = "<s>"
        if span.context:
            text = span.context[-1].text  # type: ignore[union-attr]
            shown = re.search(r"Response:\n(.*)\n\nWrite", text)
            before = (shown[1] if shown else text).split()[-1]
        words = [before, *span.target.split()]
        return [-math.log((pairs[a, b] + 1) / (firsts[a] + len(WORDS))) for a, b in itertools.pairwise(words)]


def test_oracle_4_the_bigram_toy() -> None:
    toy = Record("toy", (Message("user", "add two ."), Message("assistant", "four .")))
    (ifd,) = IFD(student=Bigrams())([toy])
    (rifd,) = ReversedIFD(student=Bigrams())([toy])
    assert isinstance(ifd, Score)
    assert isinstance(rifd, Score)
    assert ifd.value == pytest.approx(0.67700, abs=5e-6)
    assert rifd.value == pytest.approx(1.40102, abs=5e-6)
    steps = [InstructionLoss(student=Bigrams(), template="chat", question=q) for q in (REVERSED, "")]
    guessed, alone = (step([toy])[0] for step in steps)
    assert isinstance(guessed, Seen)
    assert isinstance(alone, Seen)
    assert math.exp(guessed.nats - alone.nats) == pytest.approx(rifd.value)


# --- a real student --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", ["lazy", "full"])
def test_oracle_3_a_model_of_zeros_ties_everywhere_and_keeps_nothing(
    make_tiny: MakeTiny, tmp_path: Path, flow: str
) -> None:
    student = TransformersModel(name=str(make_tiny("llama", zero=True)))
    method = SelectiveReflection(teacher=Teacher(), student=student, flow=flow)  # type: ignore[arg-type]
    result, scores = done(method, tmp_path, [record(f"r{n}") for n in range(5)])
    assert result.data is not None
    assert len(result.data) == 0
    assert {s.note for s in scores.values()} == {"branch O"}
    assert {d.action for d in result.decisions} == {"drop"}


def test_oracle_6_batches_change_no_decision_and_no_score(make_tiny: MakeTiny, tmp_path: Path) -> None:
    folder = str(make_tiny("llama", length=2048))
    records = [record(f"r{n}", "old answer " * (1 + n % 5)) for n in range(12)]
    found = []
    for tokens in (1, 256, 8192):
        method = SelectiveReflection(teacher=Teacher(), student=TransformersModel(name=folder, batch_tokens=tokens))
        found.append(done(method, tmp_path / str(tokens), records))
    for result, scores in found[1:]:
        assert [(d.record_id, d.action) for d in result.decisions] == [
            (d.record_id, d.action) for d in found[0][0].decisions
        ]
        for id, score in scores.items():
            assert score.parts == pytest.approx(found[0][1][id].parts, abs=1e-5)


def test_the_middle_of_a_response_is_left_out_and_the_whole_instruction_predicted(make_tiny: MakeTiny) -> None:
    student = TransformersModel(name=str(make_tiny("llama", length=400)))
    for template in ("chat", "vicuna"):
        step = InstructionLoss(student=student, template=template, question=REVERSED)  # type: ignore[arg-type]
        short, long, vast = (record("r", "w " * n) for n in (5, 900, 5))
        vast = replace(vast, messages=(Message("user", "x" * 500), vast.messages[1]))
        fits, cut, vast_one = step([short, long, vast])
        tokens = len(short.prompt[-1].text)
        assert isinstance(fits, Seen)
        assert isinstance(cut, Seen)
        assert fits.tokens == cut.tokens == pytest.approx(tokens, abs=4)
        assert isinstance(vast_one, Seen)
        assert (
            vast_one.tokens < 400
        )  # what does not fit is never compared: other tokens are seen after another response
        other = step([replace(vast, id="r~response", messages=(vast.messages[0], Message("assistant", "w " * 20)))])[0]
        assert isinstance(other, Seen)
        assert guess_of({"r": vast_one, "r~response": other}, "r") == Trial(None, None)


# --- bad input -------------------------------------------------------------------------------------------------------


def test_oracle_7_bad_rows_are_rejected_with_a_reason_and_the_run_ends_well(tmp_path: Path) -> None:
    rows = [
        record("empty", "  "),
        Record("contained", (Message("user", "old instruction of contained\n\nold instruction of contained"),
                             Message("assistant", "old answer"))),
        record("one"),
    ]  # fmt: skip
    table = {"contained": TABLE["one"], "one": TABLE["one"]}
    result, _ = done(page(table), tmp_path, rows)
    assert [(d.record_id, d.action) for d in result.decisions] == [
        ("empty", "drop"), ("contained", "replace"), ("one", "replace"),
    ]  # fmt: skip
    assert result.decisions[0].reason == "left alone (no response)"


@pytest.mark.parametrize("nats", ["nan", "inf", "-inf"])
def test_losses_that_are_not_finite_win_nothing(tmp_path: Path, nats: str) -> None:
    method = SelectiveReflection(teacher=Teacher(), student=Given(after=(nats,), alone=(1.0,)))
    result, _ = done(method, tmp_path, [record("one"), record("two")])
    assert {d.reason for d in result.decisions} == {
        "response not replaced (no score): the student could not be asked for the instruction"
    }


def test_conversations_are_left_alone_or_refined_at_their_last_turn(tmp_path: Path) -> None:
    turns = Record("one", (Message("user", "Hello"), Message("assistant", "Hi"), *record("one").messages))
    left, _ = done(page(TABLE), tmp_path / "left", [turns])
    assert [(d.action, d.reason) for d in left.decisions] == [("keep", "left alone (several turns)")]
    last, _ = done(page(TABLE, asking=Asking(multi_turn="last")), tmp_path / "last", [turns])
    assert last.data is not None
    assert last.data[0].messages[:2] == turns.messages[:2]
    assert last.data[0].response == "QA answer to one"
