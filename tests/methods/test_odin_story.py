"""ODIN as a user goes through it: pairs in, a reward model out, every pair with its reason, figures beside a baseline."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.preferring import pair, pairs, preferences, rewarding
from harness.tiny import MakeTiny
from harness.training import here
from tunesift import (
    DataError,
    Dataset,
    Failure,
    Local,
    Message,
    ModelRefused,
    Odin,
    RecipeError,
    RewardClassifier,
    RewardTuner,
    Run,
    ScriptedModel,
    TransformersModel,
    Tuning,
    recipe_for,
    run_recipe,
)
from tunesift.export import export
from tunesift.methods.odin import MeasurePairs, RewardPairs, _doubts
from tunesift.methods.odin_figures import Answered, Rewarded, curve, figures, left_out
from tunesift.models.folders import tokenizer
from tunesift.planning import plan
from tunesift.prompts import context
from tunesift.records import Preference, Score
from tunesift.running import mending
from tunesift.running.charts import described
from tunesift.tuning.process import Trained

pytest.importorskip("trl", reason='needs the "train" extra')

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("FutureWarning", "DeprecationWarning", "UserWarning")
]
TUNER = RewardTuner(template="alpaca", steps=4, batch=8, device_batch=8, learning_rate=1e-3, held_out=0.25, max_length=300,
                    gradient_checkpointing=False)  # fmt: skip
LONG = "word " * 400
SHORT = [
    pair("same", "Say it.", "The same.", "The same."),
    pair("long", "Say it.", LONG, "Short."),
    pair("long too", "Say it.", f"{LONG} more", "Short."),
    pair("long rejected", "Say it.", "Short.", LONG),
    Preference(
        "image", (Message("user", "Look.", ("a.png",)),), Message("assistant", "A."), Message("assistant", "B.")
    ),
]
"""What cannot be trained on."""


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trainings without a process of their own."""
    monkeypatch.setattr(
        Tuning, "__call__", lambda asked, data, into, _: here(into, Path(asked.student.name), asked.tuner, data)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def done(method: Odin, data: Dataset[Preference], place: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Action and reason by id, and what was worked now by stage."""
    with Run(place, Local()) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
        return {d.record_id: f"{d.action}: {d.reason}" for d in result.decisions}, {
            s.stage: s.worked for s in run.stages
        }


def table(place: Path, name: str) -> list[dict[str, Any]]:  # Any: numbers and texts
    rows: list[dict[str, Any]] = pq.read_table(place / "tables" / f"{name}.parquet").to_pylist()
    return rows


def test_every_pair_has_its_reason_and_the_held_out_ones_their_figures(
    make_tiny: MakeTiny, tmp_path: Path, in_this_process: None
) -> None:
    student = TransformersModel(name=str(make_tiny(length=1024)), device="cpu")
    data = Dataset.of([*pairs(24), *SHORT])
    method = Odin(student=student, tuner=TUNER, baseline=ScriptedModel(favours=30))
    told, worked = done(method, data, tmp_path / "run")
    assert worked == {"measure": 29, "tune": 0, "baseline": 6, "reward": 6}  # nobody counts updates here
    held_out = [id for id, reason in told.items() if reason == "keep: held out: its reward is measured"]
    assert set(held_out) == TUNER.held_out_of([f"p{n:03}" for n in range(24)])
    size = len(tokenizer(student.name)(context((Message("user", "Say it."),), "alpaca") + LONG)["input_ids"]) + 1
    assert [told[p.id] for p in SHORT] == [
        "drop: identical: both answers are the same",
        f"drop: too long: {size:,} tokens, the limit is 300",
        f"drop: too long: {size + 4:,} tokens, the limit is 300",  # two spaces are one token
        f"drop: too long: {size:,} tokens, the limit is 300",
        "drop: refused: the record has images, which a text model does not read",
    ]
    assert sum(reason == "keep: trained on" for reason in told.values()) == 18
    left = {row["left out for"]: (row["pairs"], row["longer chosen"]) for row in table(tmp_path / "run", "left-out")}
    assert left["too long"] == (3, 0.6667)  # not at random
    assert left["identical"] == (1, None)
    assert left["refused"] == (1, None)
    assert left["none: they stay"][0] == 24
    baseline, ours = table(tmp_path / "run", "rewards")
    assert (baseline["model"], ours["model"]) == ("scripted", "quality head")
    assert baseline["pairs"] == ours["pairs"] == 6
    assert 0 <= ours["accuracy"] <= 1
    again = done(method, data, tmp_path / "run")
    assert again == (told, {"measure": 0, "tune": 0, "baseline": 0, "reward": 0})
    shutil.move(tmp_path / "run", tmp_path / "moved")
    assert done(method, data, tmp_path / "moved") == again


def test_the_figures_are_those_of_the_model_that_is_left(
    make_tiny: MakeTiny, tmp_path: Path, in_this_process: None
) -> None:
    student = TransformersModel(name=str(make_tiny(length=1024)), device="cpu")
    data = preferences(24)
    with Run(tmp_path / "run", Local()) as run:
        result = Odin(student=student, tuner=TUNER)(data, run)
        run.finish(data, result.decisions)
    assert result.checkpoint is not None
    model = RewardClassifier(name=str(result.checkpoint.path), template="alpaca", device="cpu")
    aside = TUNER.held_out_of(list(data.ids()))
    right = 0
    for one in data:
        if one.id in aside:
            chosen, rejected = model.reward([(*one.prompt, one.chosen), (*one.prompt, one.rejected)])
            assert isinstance(chosen, float)
            assert isinstance(rejected, float)
            right += chosen > rejected
    (row,) = table(tmp_path / "run", "rewards")
    assert row["accuracy"] == round(right / 6, 4)
    said = json.loads((result.checkpoint.path / "_COMPLETE.json").read_text())
    assert said["best_accuracy"] == pytest.approx(right / 6)  # in its training, too
    (training,) = table(tmp_path / "run", "training")
    assert training["weights of update"] == said["best_step"]
    chart = described("", pq.read_schema(tmp_path / "run" / "tables" / "reward-by-length.parquet"))
    assert chart is not None
    assert len(table(tmp_path / "run", "reward-by-length")) == 10


def test_a_baseline_that_is_none_is_refused_before_anything_is_trained(make_tiny: MakeTiny, tmp_path: Path) -> None:
    body = make_tiny(length=1024)
    two = rewarding(body, tmp_path / "two", labels=2)
    baseline = RewardClassifier(name=str(two), template="alpaca", device="cpu")
    method = Odin(student=TransformersModel(name=str(body), device="cpu"), tuner=TUNER, baseline=baseline)
    with Run(tmp_path / "run", Local()) as run, pytest.raises(ModelRefused, match="has 2 outputs, and a reward is one"):
        method(preferences(24), run)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_baseline_is_named_by_its_settings(tmp_path: Path) -> None:
    words = ["baseline.kind=reward", "baseline.name=plain", "student.name=llama"]
    method = recipe_for("odin", rows_in(tmp_path, 3), tmp_path / "reward", words).method
    assert isinstance(method, Odin)
    assert method.baseline == RewardClassifier(name="plain")


def test_a_reward_that_is_none_is_no_preference(make_tiny: MakeTiny, tmp_path: Path, in_this_process: None) -> None:
    """NaN weights: every held-out pair is dropped with its reason, and no accuracy is made of them."""
    student = TransformersModel(name=str(make_tiny(length=1024)), device="cpu")
    data = preferences(24)
    place = tmp_path / "run"
    tuner = replace(TUNER, held_out=0.5)
    method = Odin(student=student, tuner=tuner)
    with Run(place, Local()) as run:
        made = run.once("tune", Tuning(student=student, tuner=tuner), data)
    from safetensors.torch import load_file, save_file

    weights = load_file(str(made.path / "model.safetensors"))
    weights["score.weight"][0, 0] = float("nan")
    save_file(weights, str(made.path / "model.safetensors"), metadata={"format": "pt"})
    with Run(place, Local(), max_failures=1.0) as run:
        result = method(data, run)
        run.finish(data, result.decisions)
    dropped = [d for d in result.decisions if d.action == "drop"]
    assert {d.record_id for d in dropped} == tuner.held_out_of(list(data.ids()))
    assert {d.reason for d in dropped} == {"not-finite: the reward is nan"}
    (row,) = table(place, "rewards")
    assert (row["pairs"], row["without a reward"], row["accuracy"], row["Pearson"]) == (0, 12, None, None)


def test_equal_rewards_are_told_as_a_doubt_and_make_no_nan(
    make_tiny: MakeTiny, tmp_path: Path, in_this_process: None
) -> None:
    student = TransformersModel(name=str(make_tiny(zero=True, length=1024)), device="cpu")
    told, _ = done(Odin(student=student, tuner=replace(TUNER, steps=1)), preferences(24), tmp_path / "run")
    assert len(told) == 24
    (row,) = table(tmp_path / "run", "rewards")
    assert (row["accuracy"], row["Pearson"], row["Spearman"], row["Kendall"]) == (0.0, None, None, None)
    doubts = [row["doubt"] for row in table(tmp_path / "run", "doubts")]
    assert "The quality head gives every answer the same reward: it says nothing of them." in doubts
    assert any("correlations with the length were not taken" in said for said in doubts)


def doubts(found: Rewarded, looks: Sequence[dict[str, float]] = (), **settings: object) -> list[str]:
    """What is told of a quality head with these rewards after a training of four updates."""
    name = "quality head"
    tuner = replace(TUNER, **settings)  # type: ignore[arg-type]
    return list(
        _doubts({name: found}, figures(name, found), Trained(list(looks), 4, 20, {}, 100, "cpu", "float32", 1), tuner)
    )


LOOKS = [{"step": 0, "eval_accuracy": 0.9}, {"step": 2, "eval_accuracy": 0.7, "eval_quality_corr": 0.02},
         {"step": 4, "eval_accuracy": 0.6, "eval_quality_corr": 0.02}]  # fmt: skip


def test_weights_that_go_with_length_are_told_as_a_doubt_though_few_pairs_say_so() -> None:
    """Three pairs are too few for a correlation in training, and the table has it."""
    found = rewarded((1, 10, 0, 5), (2, 20, 1, 9), (3, 30, 2, 22))
    (said,) = doubts(found, [{"step": 2, "eval_accuracy": 1.0}])
    assert said == (f"The weights that are left, of update 2, go with length: over the 6 answers held out the "
                    f"correlation is {figures('', found)['Pearson']:.2f}. Try tuner.best_by=balanced or last.")  # fmt: skip
    assert doubts(rewarded((1, 10, 0, 5))) == []  # of two answers every correlation is 1 or -1
    assert doubts(found, heads=1) == []  # which promises nothing
    assert list(_doubts({}, {}, Trained([], 4, 20, {}, 100, "cpu", "float32", 1), TUNER)) == []


def test_a_doubt_is_of_all_answers_and_not_of_parts_that_are_sorted_by_length() -> None:
    """Within each part of 16 pairs there is nothing to see of what goes with length over all of them."""
    parts = [
        rewarded(*((k + n % 2, 100 * k + n // 2, k + n % 2, 100 * k + n // 2) for n in range(16))) for k in range(4)
    ]
    within = [figures("", part)["Pearson"] for part in parts]
    assert max(abs(float(str(n))) for n in within) < 0.2
    (said,) = doubts(Rewarded(tuple(pair for part in parts for pair in part.pairs), {}), LOOKS)
    assert "over the 128 answers held out the correlation is 0.9" in said


@pytest.mark.parametrize(("by", "update", "advice"), [
    ("accuracy", 2, "Try tuner.best_by=balanced or last."),
    ("balanced", 2, "Try tuner.best_by=last."),
    ("last", 4, "Try more updates, or a larger tuner.device_batch or tuner.lambda_length."),
])  # fmt: skip
def test_a_doubt_does_not_advise_what_is_set(by: str, update: int, advice: str) -> None:
    (said,) = doubts(rewarded((1, 10, 0, 5), (2, 20, 1, 9)), LOOKS, best_by=by)
    assert said.startswith(f"The weights that are left, of update {update}, go with length")
    assert said.endswith(advice)


def test_nothing_held_out_is_told_and_measures_nothing(
    make_tiny: MakeTiny, tmp_path: Path, in_this_process: None
) -> None:
    student = TransformersModel(name=str(make_tiny(length=1024)), device="cpu")
    with Run(tmp_path / "run", Local()) as run:
        result = Odin(student=student, tuner=replace(TUNER, held_out=0.01))(preferences(24), run)
    assert result.notes == {
        "pairs, of which the share tuner.held_out is none: no reward of held-out ones is measured": 24
    }


def test_pairs_of_which_none_can_be_trained_on_are_refused(make_tiny: MakeTiny, tmp_path: Path) -> None:
    student = TransformersModel(name=str(make_tiny(length=1024)), device="cpu")
    with (
        Run(tmp_path / "run", Local()) as run,
        pytest.raises(DataError, match=r"no pair can be trained on \(identical"),
    ):
        Odin(student=student, tuner=TUNER)(Dataset.of(SHORT), run)
    assert not (tmp_path / "run" / "checkpoints").exists()


# --- the figures by hand ---------------------------------------------------------------------------------------------


def rewarded(*numbers: Sequence[float]) -> Rewarded:
    """Pairs of reward and length of the chosen, then of the rejected answer."""
    return Rewarded(tuple((Answered(a, int(b)), Answered(c, int(d))) for a, b, c, d in numbers), {})


def test_accuracy_is_told_apart_by_which_answer_is_longer() -> None:
    found = figures("x", rewarded((2, 10, 1, 5), (1, 10, 2, 5), (2, 3, 1, 9), (1, 4, 1, 8), (3, 6, 0, 6)))
    assert (found["pairs"], found["accuracy"]) == (5, 0.6)
    assert (found["longer chosen"], found["accuracy there"]) == (2, 0.5)
    assert (found["shorter chosen"], found["accuracy in those"]) == (2, 0.5)  # equal rewards prefer nobody
    assert found["mean reward"] == 1.4


def test_the_curve_has_ten_groups_of_equal_size_in_standard_deviations() -> None:
    found = rewarded(*((n, 10 * n, n + 0.5, 10 * n + 5) for n in range(20)))
    rows = list(curve("x", found))
    assert [row["answers"] for row in rows] == [4] * 10
    assert rows[0]["tokens"] == 7.5  # 0, 5, 10, 15
    rewards = [float(str(row["reward"])) for row in rows]
    assert rewards == sorted(rewards)
    assert sum(rewards) == pytest.approx(0, abs=1e-9)
    assert list(curve("x", rewarded((1, 2, 1, 3)))) == []
    assert list(curve("x", rewarded())) == []


def test_what_is_left_out_says_how_often_the_longer_answer_was_chosen() -> None:
    rows = left_out(
        [("too long", (9, 5)), ("too long", (9, 8)), ("too long", (5, 9)), ("", (1, 2)), ("", (2, 2)), ("empty", None)]
    )
    assert rows == [
        {"left out for": "empty", "pairs": 1, "longer chosen": None},
        {"left out for": "none: they stay", "pairs": 2, "longer chosen": 0.0},
        {"left out for": "too long", "pairs": 3, "longer chosen": 0.6667},
    ]


def test_a_failed_answer_fails_its_pair() -> None:
    step = RewardPairs(model=ScriptedModel(favours=2))
    fine, odd = step([pair("a", "Ask.", "two words", "one"), pair("b", "Ask.", "two words", "")])
    assert fine == Score(1.0, {"chosen": 0.0, "rejected": -1.0})
    assert odd == Failure("empty", "the answer is empty")
    assert step([pair("b", "Ask.", "", "two words")]) == [odd]


def test_tokens_are_those_of_the_answers_without_what_ends_them(make_tiny: MakeTiny) -> None:
    step = MeasurePairs(student=TransformersModel(name=str(make_tiny(length=1024))), template="bare", most=None)
    (found,) = step([pair("a", "x", "yz", "")])
    assert isinstance(found, Score)
    assert (found.parts["chosen"], found.parts["rejected"]) == (2.0, 0.0)
    assert found.value == found.parts["prompt"] + 2 + 1


# --- as a command ----------------------------------------------------------------------------------------------------


def rows_in(place: Path, count: int) -> Path:
    path = place / "pairs.jsonl"
    rows = [
        {"id": p.id, "prompt": p.prompt[0].text, "chosen": p.chosen.text, "rejected": p.rejected.text}
        for p in pairs(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


WORDS = ["tuner.template=alpaca", "tuner.steps=3", "tuner.batch=8", "tuner.device_batch=8", "tuner.held_out=0.25",
         "student.device=cpu"]  # fmt: skip


def test_a_plan_counts_both_answers(make_tiny: MakeTiny, tmp_path: Path) -> None:
    words = [*WORDS, f"student.name={make_tiny(length=1024)}", "baseline.kind=scripted"]
    found = plan(recipe_for("odin", rows_in(tmp_path, 24), tmp_path / "reward", words))
    assert [(s.stage, s.items) for s in found.stages] == [("measure", 24), ("baseline", 6), ("tune", 24), ("reward", 6)]
    assert found.stages[2].told.startswith("at most 3 updates, about ")


def test_rows_that_are_no_pairs_are_refused(make_tiny: MakeTiny, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"instruction": "Say it.", "output": "It."}\n' * 3)
    recipe = recipe_for("odin", tmp_path / "in.jsonl", tmp_path / "reward", [*WORDS, f"student.name={make_tiny()}"])
    with pytest.raises(DataError, match="preference"):
        run_recipe(recipe)
    assert not (tmp_path / "reward").exists()


def test_a_student_behind_an_endpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"method.student"):
        recipe_for("odin", rows_in(tmp_path, 3), tmp_path / "reward", ["student.kind=http", "student.url=http://x/v1"])


def test_a_student_that_is_not_here_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    from tunesift import ModelUnavailable

    recipe = recipe_for("odin", rows_in(tmp_path, 3), tmp_path / "reward", [*WORDS, "student.name=no/such"])
    with pytest.raises(ModelUnavailable, match=r"student: .*no/such"):
        run_recipe(recipe)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.jsonl"]


@pytest.mark.slow
def test_from_a_file_to_a_model_that_others_load(make_tiny: MakeTiny, tmp_path: Path) -> None:
    words = [*WORDS, f"student.name={make_tiny(length=1024)}"]
    summary = run_recipe(recipe_for("odin", rows_in(tmp_path, 24), tmp_path / "reward", words))
    assert summary.balance == "24 in = 24 kept + 0 dropped + 0 quarantined"
    page = summary.report.read_text()
    assert "reward-by-length" in page
    assert "quality head" in page
    from transformers import AutoModelForSequenceClassification

    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward")
    assert found.config.num_labels == 1
    assert mending.verify(summary.folder) == []
    with pytest.raises(RecipeError, match="odin leaves a model and no records"):
        export(summary.folder, tmp_path / "exported", "trl", [])
    baseline = f'baseline={{"kind": "reward", "name": "{tmp_path / "reward"}", "template": "alpaca", "device": "cpu"}}'
    beside = run_recipe(recipe_for("odin", tmp_path / "pairs.jsonl", tmp_path / "other", [*words, baseline]))
    first, second = table(beside.folder, "rewards")
    assert first["Pearson"] == pytest.approx(second["Pearson"], abs=1e-3)  # the same settings, the same model
