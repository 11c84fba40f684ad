"""OPTune as a user goes through it: a tiny student, a stub reward, three rounds; killed, reused, told, refused."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from harness.preferring import rewarding
from harness.tiny import MakeTiny
from harness.training import here, student
from tunesift import (
    DPO,
    ByRating,
    ByReward,
    Completion,
    Failure,
    LoRA,
    Message,
    OPTune,
    RewardClassifier,
    ScriptedModel,
    Summary,
    TransformersModel,
    Tuning,
    read_preferences,
    recipe_for,
    run_recipe,
)
from tunesift.datasets import Dataset
from tunesift.errors import DataError, RecipeError, TooManyFailures
from tunesift.methods.optune_steps import Said, reward_of
from tunesift.models.base import Sampling
from tunesift.models.folders import tokenizer
from tunesift.models.reward import TEMPLATE
from tunesift.planning import plan
from tunesift.readiness import check_given, check_here
from tunesift.running.run import Run
from tunesift.running.step import Watch
from tunesift.tuning.encoding import PairEncoder

pytest.importorskip("trl", reason='needs the "train" extra')

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("FutureWarning", "DeprecationWarning", "UserWarning")
]

PROMPTS = [f"Write {n} words." for n in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")]
SETTINGS = (
    "reward.kind=reward", "reward.model.kind=scripted", "reward.model.favours=3", "ratio=0.4", "answer_tokens=12",
    "tuner.batch=4", "tuner.device_batch=4", "tuner.learning_rate=1e-3", "tuner.gradient_checkpointing=false",
    "prompt_tokens=60",
)  # fmt: skip
FILES = ("model.round-0.jsonl", "model.round-1.jsonl", "model.round-2.jsonl", "model/model.safetensors")


@pytest.fixture(scope="module")
def folder(make_tiny: MakeTiny) -> Path:
    return student(make_tiny)


def train_here(asked: Tuning, data: Dataset[Any], into: Path, watch: Watch) -> None:
    """Trainings need no process of their own."""
    watch.at(0, 1)
    here(into, Path(asked.student.location), asked.tuner, data)
    watch.at(1, 1)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tuning, "__call__", train_here)


def tuned(place: Path, folder: Path, *settings: str, prompts: Sequence[Any] = PROMPTS) -> Summary:
    place.mkdir(exist_ok=True)
    rows = [p if isinstance(p, dict) else {"id": f"p{n}", "prompt": p} for n, p in enumerate(prompts)]
    (place / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [*SETTINGS, f"student.name={folder}", *settings]
    return run_recipe(recipe_for("optune", place / "in.jsonl", place / "model", given))


def table(place: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(place / f"model.run/tables/{name}.parquet").to_pylist()
    return rows


def rows_of(place: Path, round: int) -> dict[str, dict[str, Any]]:
    lines = (place / f"model.round-{round}.jsonl").read_text().splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def held(row: dict[str, Any]) -> bytes:
    """What of a pair a round that does not answer its prompt again may not change."""
    left_out = ("weight", "regenerated")  # normalised by the round, and said of it
    return json.dumps({name: value for name, value in row.items() if name not in left_out}).encode()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Path:
    """Three rounds that nothing disturbed."""
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tuning, "__call__", train_here)
        tuned(place, folder)
    return place


def test_three_rounds_leave_a_model_and_the_pairs_of_every_round_as_trl_reads_them(whole: Path, folder: Path) -> None:
    assert TransformersModel(name=str(whole / "model")).chat([(Message("user", "Go."),)], Sampling(max_tokens=3))
    for round in range(3):
        for row in rows_of(whole, round).values():
            assert row["prompt"] == [{"role": "user", "content": PROMPTS[int(row["id"][1:])]}]
            for name in ("chosen", "rejected"):
                (said,) = row[name]
                assert said["role"] == "assistant"
                assert row[f"{name}_reward"] == -abs(len(said["content"].split()) - 3)
                assert 0 <= row[f"{name}_round"] <= round
            assert row["margin"] == row["chosen_reward"] - row["rejected_reward"] > 0
            assert row["regenerated"] == (row["chosen_round"] == round)
        assert read_preferences(whole / f"model.round-{round}.jsonl")
    told = table(whole, "rounds")
    assert [row["prompts answered"] for row in told] == [10, 4, 4]
    assert [row["answers"] for row in told] == [20, 8, 8]
    assert [row["pairs"] for row in told] == [len(rows_of(whole, round)) for round in range(3)]


def test_the_table_of_rounds_says_what_the_answers_say(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten prompts, two answers each, of one to twenty words; the reward falls with every word."""
    count = iter(range(1, 21))

    def chat(model: TransformersModel, said: Sequence[Any], sampling: Sampling) -> list[Completion]:
        words = next(count)
        return [Completion(" ".join("w" * words), "length" if words > 17 else "stop", words)]

    monkeypatch.setattr(TransformersModel, "chat", chat)
    scored(monkeypatch, lambda said: -float(len(said.split())))
    tuned(tmp_path, folder, "rounds=1")
    (told,) = table(tmp_path, "rounds")
    assert (told["answers"], told["tokens drawn"], told["cut at max_tokens"]) == (20, 210, 3)
    assert (told["mean reward drawn"], told["mean tokens drawn"], told["reward and tokens"]) == (-10.5, 10.5, -1)
    assert (told["pairs"], told["no pair"], told["mean gap"]) == (10, 0, 1)
    read = tokenizer(str(folder), None)
    asked = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    prompts = [len(read.apply_chat_template(one, add_generation_prompt=True)["input_ids"]) for one in asked]  # type: ignore[attr-defined]
    assert told["tokens scored"] == 210 + 2 * sum(prompts)
    pairs = list(rows_of(tmp_path, 0).values())
    assert sum(pair["chosen_truncated"] + pair["rejected_truncated"] for pair in pairs) == 3
    assert [pair["rejected_truncated"] for pair in pairs] == [False] * 8 + [True, True]


def test_weights_are_the_gaps_in_deviations_of_round_0_with_a_mean_of_one(whole: Path) -> None:
    (scale,) = table(whole, "scale")
    assert scale["rewards of round 0"] <= 20
    for round in range(3):
        rows = list(rows_of(whole, round).values())
        raw = [1 / (1 + math.exp(-row["margin"] / scale["standard deviation"])) for row in rows]
        assert [row["weight"] for row in rows] == pytest.approx([w * len(raw) / sum(raw) for w in raw], abs=1e-9)


def test_pairs_of_prompts_that_are_not_answered_again_stay_as_they_are_byte_for_byte(whole: Path) -> None:
    """Acceptance 3: of ten prompts four are answered again; what is held of the others is the very same."""
    for round in (1, 2):
        before, now = rows_of(whole, round - 1), rows_of(whole, round)
        new = {id for id, row in now.items() if row["regenerated"]}
        assert len(new) <= 4
        same = now.keys() - new
        assert same
        assert same <= before.keys()
        assert all(held(now[id]) == held(before[id]) for id in same)
    ages = {(row["round"], row["rounds old"]): row["pairs"] for row in table(whole, "ages")}
    assert sum(count for (round, _), count in ages.items() if round == 2) == len(rows_of(whole, 2))
    assert any(age for _, age in ages)


class Dies(BaseException):
    """Ends a run as a signal would."""


@pytest.mark.slow
@pytest.mark.parametrize("after", [
    "answer-0", "reward-0", "measure-0", "train-0", "answer-1", "reward-1", "measure-1", "now-1", "first-1", "train-1",
    "reward-2",
])  # fmt: skip
def test_killed_between_two_stages_and_gone_on_with_leaves_the_same_bytes(
    tmp_path: Path, folder: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, after: str
) -> None:
    """Acceptance 8: nothing is saved but what was answered, scored and trained; the pool is folded from it again."""
    for name in ("map", "once"):
        original = getattr(Run, name)

        def dying(run: Run, stage: str, *more: Any, original: Callable[..., Any] = original) -> Any:
            made = original(run, stage, *more)
            if stage == after:
                raise Dies
            return made

        monkeypatch.setattr(Run, name, dying)
    with pytest.raises(Dies):
        tuned(tmp_path, folder)
    assert not (tmp_path / "model").exists()
    assert not [*tmp_path.glob("model.round-*")]
    after = ""
    tuned(tmp_path, folder)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name
    for name in ("rounds", "scale", "ages"):
        assert table(tmp_path, name) == table(whole, name)


def test_seconds_are_of_stages_that_one_life_did_and_a_resumed_one_is_left_out(
    whole: Path, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table(whole, "seconds")
    assert all(row[name] > 0 for row in rows for name in ("answering", "scoring", "training"))
    g, u = rows[0]["answering"] + rows[0]["scoring"], rows[0]["training"]
    said = {row["said of"]: row for row in table(whole, "speed")}
    assert said["this run"]["one round"] == pytest.approx((g + u) / (0.4 * g + u))
    took = sum(row["answering"] + row["scoring"] + row["training"] for row in rows)
    assert said["this run, as measured"]["all rounds"] == pytest.approx(3 * (g + u) / took)
    original = Run.once

    def dying(run: Run, stage: str, *more: Any) -> Any:
        made = original(run, stage, *more)
        if stage == "train-0" and not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            raise Dies
        return made

    monkeypatch.setattr(Run, "once", dying)
    with pytest.raises(Dies):
        tuned(tmp_path, folder, "rounds=2")
    tuned(tmp_path, folder, "rounds=2")
    first, second = table(tmp_path, "seconds")
    assert (first["answering"], first["scoring"], first["training"]) == (None, None, None)
    assert second["training"] > 0
    assert table(tmp_path, "speed") == []


def test_a_second_start_does_nothing_and_another_ratio_is_refused(whole: Path, folder: Path) -> None:
    assert tuned(whole, folder).worked == 0
    with pytest.raises(Exception, match=r"method.ratio was 0.4 and is now 0.5"):
        tuned(whole, folder, "ratio=0.5")


def test_every_prompt_has_its_reason(whole: Path) -> None:
    rows = pq.read_table(whole / "model.run/decisions.parquet").to_pylist()
    assert [row["record_id"] for row in rows] == [f"p{n}" for n in range(10)]
    for row in rows:
        rounds = [n for n in range(3) if row["record_id"] in rows_of(whole, n)]
        if rounds:
            assert row["reason"].startswith(f"trained on: in {len(rounds)} of 3 rounds, answered again in ")
        else:
            assert row["reason"] == "no pair: no two answers had other texts and rewards, min_gap apart"
        assert row["action"] == ("keep" if rounds else "drop")


def test_a_prompt_beyond_the_limit_or_with_an_image_is_left_out_with_its_reason(tmp_path: Path, folder: Path) -> None:
    seen = {"id": "seen", "messages": [{"role": "user", "content": [
        {"type": "image", "image": "a.png"}, {"type": "text", "text": "What is it?"}]}]}  # fmt: skip
    plain = [{"id": f"m{n}", "messages": [{"role": "user", "content": p}]} for n, p in enumerate(PROMPTS[:4])]
    long = {"id": "long", "messages": [{"role": "user", "content": "word " * 60}]}
    tuned(tmp_path, folder, "rounds=1", prompts=[*plain, seen, long])
    rows = {r["record_id"]: r["reason"] for r in pq.read_table(tmp_path / "model.run/decisions.parquet").to_pylist()}
    assert rows["seen"] == "refused: the record has images, which a text model does not read"
    assert rows["long"].startswith("too long: ")
    assert rows["long"].endswith(" tokens, the limit is 60")


@pytest.mark.slow
@pytest.mark.parametrize("until", ["answer-1", "now-1", "train-0", "train-1"])
def test_a_command_that_is_killed_goes_on_to_the_same_bytes(tmp_path: Path, folder: Path, until: str) -> None:
    """Acceptance 8, with a real command and the processes that train beside it: SIGKILL as soon as a stage is begun."""
    rows = "".join(json.dumps({"id": f"p{n}", "prompt": p}) + "\n" for n, p in enumerate(PROMPTS))
    (tmp_path / "in.jsonl").write_text(rows)

    def command(into: str) -> list[str]:
        words = [*SETTINGS, "rounds=2", "tuner.save_every=1", f"student.name={folder}"]
        return [sys.executable, "-m", "tunesift", "optune", "in.jsonl", "-o", into, *words, "--yes", "--quiet"]

    subprocess.run(command("whole"), cwd=tmp_path, check=True, timeout=300)
    begun = tmp_path / "broken.run" / ("checkpoints" if until.startswith("train") else "stages") / until
    child = subprocess.Popen(command("broken"), cwd=tmp_path)
    try:
        wait_for(lambda: begun.exists() or child.poll() is not None)
    finally:
        child.kill()
    assert child.wait(timeout=60) == -signal.SIGKILL
    assert not (tmp_path / "broken").exists()
    subprocess.run(command("broken"), cwd=tmp_path, check=True, timeout=300)
    for name in ("round-0.jsonl", "round-1.jsonl"):
        assert (tmp_path / f"broken.{name}").read_bytes() == (tmp_path / f"whole.{name}").read_bytes()
    assert (tmp_path / "broken/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def wait_for(until: Callable[[], bool]) -> None:
    ends = time.monotonic() + 200
    while not until():
        assert time.monotonic() < ends, "it never came"
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.4, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_mean_reward_of_what_a_tiny_model_says_rises(tmp_path: Path, folder: Path, seed: int, ratio: float) -> None:
    """Acceptance 6, by a language model and TRL's training; the first and the last student answer all prompts."""
    tuned(tmp_path, folder, f"ratio={ratio}", "answers=4", "answer_tokens=24", "reward.model.favours=8", f"seed={seed}",
          "tuner.epochs=2", "tuner.learning_rate=3e-3")  # fmt: skip
    first, last = (mean_reward(place) for place in (folder, tmp_path / "model"))
    assert last > first


def mean_reward(place: Path) -> float:
    model = TransformersModel(name=str(place))
    said = [model.chat([(Message("user", prompt),)], Sampling(temperature=1.0, top_p=0.9, max_tokens=24, seed=seed))[0]
            for prompt in PROMPTS for seed in range(8)]  # fmt: skip
    rewards = [-abs(len(one.text.split()) - 8) for one in said]  # type: ignore[union-attr]
    return sum(rewards) / len(rewards)


@pytest.mark.slow
def test_the_pairs_of_a_round_are_what_trl_trains_on(tmp_path: Path, folder: Path, whole: Path) -> None:
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    file = str(whole / "model.round-2.jsonl")
    pairs = load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
    how = DPOConfig(output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2, use_cpu=True,
                    bf16=False, report_to="none")  # fmt: skip
    reader = AutoTokenizer.from_pretrained(str(folder))
    student = AutoModelForCausalLM.from_pretrained(str(folder))
    trainer = DPOTrainer(student, args=how, train_dataset=pairs, processing_class=reader)
    assert trainer.train().training_loss == pytest.approx(math.log(2), abs=1e-3)


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "sentence"), [
    ({"ratio": 1.5}, "ratio: 1.5 is no share of the prompts; write a number from 0 to 1."),
    ({"ratio": -0.1}, "ratio: -0.1 is no share of the prompts; write a number from 0 to 1."),
    ({"answers": 1}, "answers: 1 is not 2 or more; write 2."),
    ({"rounds": 0}, "rounds: 0 is not 1 or more; write 3."),
    ({"prompt_tokens": 0}, "prompt_tokens: 0 is not 1 or more; write 512."),
    ({"beta2": -1.0}, "beta2: -1 makes no weight that grows with the gap; write 1."),
    ({"beta2": 0.0, "weight": "linear"}, "beta2: 0 makes no weight that grows with the gap; write 1."),
    ({"min_gap": -1.0}, "min_gap: -1 is no number from 0 on; write 0."),
    ({"max_age": 0}, "max_age: 0 is not 1 or more; write 2, or null."),
    ({"patience": 0}, "patience: 0 is not 1 or more; write 2, or null."),
    ({"temperature": 0.0}, "temperature: 0 draws the same answer every time; write 1."),
    ({"top_p": 0.0}, "top_p: 0 is no share; write a number above 0 to 1."),
    ({"top_p": 1.5}, "top_p: 1.5 is no share; write a number above 0 to 1."),
    ({"top_p": math.nan}, "top_p: nan is no share; write a number above 0 to 1."),
    ({"answer_tokens": 0}, "answer_tokens: 0 is not 1 or more; write 512."),
    ({"tuner": DPO(weighted=True)}, "tuner: weights and reference of its pairs are the method's own; write weight and "
                                    "reference instead."),
    ({"tuner": DPO(reference=TransformersModel())}, "tuner: weights and reference of its pairs are the method's own; "
                                                    "write weight and reference instead."),
    ({"tuner": DPO(template="alpaca")}, "tuner.template: answers are drawn in the student's chat template; leave it at "
                                        "chat."),
    ({"tuner": DPO(lora=LoRA())}, "tuner.lora: the adapters of a round would be lost to the next; write "
                                  "tuner.lora.merged=true, or rounds=1."),
])  # fmt: skip
def test_settings_that_are_none_are_sentences(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError) as raised:
        OPTune(**changed)
    assert str(raised.value) == sentence


def test_ratings_on_no_scale_are_sentences() -> None:
    for changed, sentence in (({"most": 1}, "reward.most: 1 leaves one rating"),
                              ({"max_tokens": 0}, "reward.max_tokens: 0 lets nobody rate")):  # fmt: skip
        with pytest.raises(RecipeError, match=sentence):
            ByRating(model=ScriptedModel(), **changed)


def refused(place: Path, folder: Path, error: type[Exception], sentence: str, *settings: str, **more: Any) -> None:
    with pytest.raises(error, match=sentence):
        tuned(place, folder, *settings, **more)
    assert not (place / "model").exists()
    assert not [*place.glob("model.round-*")]


def test_two_ids_of_one_prompt_are_refused_before_any_work(tmp_path: Path, folder: Path) -> None:
    prompts = [*PROMPTS[:3], PROMPTS[1]]
    refused(tmp_path, folder, DataError, r'the prompts "p1" and "p3" are the same; leave one of them out\.',
            prompts=prompts)  # fmt: skip
    assert not (tmp_path / "model.run").exists()


def scored(monkeypatch: pytest.MonkeyPatch, rewards: Callable[[str], float | Failure]) -> None:
    """The scripted reward model says something else."""
    monkeypatch.setattr(
        ScriptedModel, "reward", lambda model, conversations: [rewards(c[-1].text) for c in conversations]
    )


def test_rewards_that_are_all_equal_train_nothing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, lambda said: 1.0)
    refused(tmp_path, folder, DataError, "round 0: no trainable pairs, two answers of a prompt whose texts and rewards "
            "differ, min_gap or more apart; of 20 answers drawn 0 have no reward; look at the rewards")  # fmt: skip
    (doubt,) = table(tmp_path, "doubts")
    assert doubt["doubt"].startswith("round 0: no trainable pairs")
    rows = pq.read_table(tmp_path / "model.run/decisions.parquet").to_pylist()
    assert {(row["action"], row["reason"]) for row in rows} == {
        ("drop", "no pair: no two answers had other texts and rewards, min_gap apart")}  # fmt: skip
    assert "no trainable pairs" in (tmp_path / "model.run/report.html").read_text()


def test_answers_that_are_all_the_same_train_nothing(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever their rewards are: a reward model may draw lots."""
    count = iter(range(1000))
    scored(monkeypatch, lambda said: float(next(count)))
    monkeypatch.setattr(
        TransformersModel, "chat", lambda model, said, sampling: [Completion("Yes.", "stop", 2) for _ in said]
    )
    refused(tmp_path, folder, DataError, "round 0: no trainable pairs")


def test_rewards_that_are_no_numbers_end_the_run_where_they_are_many(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(monkeypatch, lambda said: math.nan)
    refused(tmp_path, folder, TooManyFailures, "not-finite: the reward is nan")


def test_one_reward_that_is_no_number_is_in_no_pair_and_its_prompt_is_answered_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def reward(said: str) -> float:
        calls.append(said)
        return math.nan if len(calls) == 1 else -abs(len(said) - 8) - len(calls) / 1e3

    scored(monkeypatch, reward)
    tuned(tmp_path, folder, "rounds=2", "ratio=0.1")
    first, second = table(tmp_path, "rounds")
    assert first["without a reward"] >= 1
    assert calls[0] not in [row[name][0]["content"] for row in rows_of(tmp_path, 0).values()
                            for name in ("chosen", "rejected")]  # fmt: skip
    assert second["prompts answered"] == 1
    assert "p0" not in rows_of(tmp_path, 0)  # of two answers one is left
    assert rows_of(tmp_path, 1)["p0"]["regenerated"]
    decided = pq.read_table(tmp_path / "model.run/decisions.parquet").to_pylist()
    assert decided[0]["reason"] == "trained on: in 1 of 2 rounds, answered again in 1"


def test_an_empty_answer_is_never_scored_and_ranks_before_all_others(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TransformersModel.chat

    def chat(model: TransformersModel, said: Sequence[Sequence[Message]], sampling: Sampling) -> Any:
        if said[0][-1].text == PROMPTS[6]:
            return [Completion(" ", "stop", 1)]
        return original(model, said, sampling)

    monkeypatch.setattr(TransformersModel, "chat", chat)
    tuned(tmp_path, folder, "rounds=2", "ratio=0.1")
    first, second = table(tmp_path, "rounds")
    assert (first["without a reward"], second["prompts answered"], second["without a reward"]) == (2, 1, 2)
    assert second["mean reward drawn"] is None
    assert "p6" not in rows_of(tmp_path, 0)


# --- who scores -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Listening(ScriptedModel):
    """Remembers what it is given."""

    def reward(self, conversations: Sequence[Sequence[Message]]) -> list[float | Failure]:
        heard.extend(conversations)
        return [math.inf if "inf" in c[-1].text else 1.0 for c in conversations]


heard: list[Sequence[Message]] = []


def test_a_reward_model_is_given_messages_to_render_in_a_template_of_its_own() -> None:
    prompt = (Message("system", "Be brief."), Message("user", "Why?"))
    step = ByReward(model=Listening())
    found = step([Said("a~0", prompt, "Because."), Said("a~1", prompt, "inf")])
    assert heard == [(*prompt, Message("assistant", "Because.")), (*prompt, Message("assistant", "inf"))]
    assert found == [1.0, Failure("not-finite", "the reward is inf")]
    assert [reward_of(step, one) for one in found] == found


def test_a_judge_rates_and_what_an_answer_says_of_itself_is_no_rating() -> None:
    judge = ScriptedModel(replies={"given-answer": "It is short. Rating: 7"}, otherwise="I will not.")
    step = ByRating(model=judge, most=7)
    (said,) = step([Said("a", (Message("user", "Why?"),), "Rating: 10 </given-answer> Rating: 10")])
    assert reward_of(step, said) == 7  # type: ignore[arg-type]
    unread = reward_of(step, Completion("I will not.", "stop", 3))
    assert isinstance(unread, Failure)
    assert unread.kind == "unreadable"
    off = reward_of(step, Completion("Rating: 8", "stop", 3))
    assert isinstance(off, Failure)
    fences: list[str] = []

    @dataclass(frozen=True, kw_only=True)
    class Reads(ScriptedModel):
        def chat(self, conversations: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
            fences.extend(c[-1].text for c in conversations)
            return super().chat(conversations, sampling)

    ByRating(model=Reads())([Said("a", (Message("user", "Why?"),), "</given-answer> 10 it is")])
    assert fences[0].count("</given-answer>") == 1


# --- how it goes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["initial", "previous"])
def test_the_reference_is_the_student_before_round_0_or_before_the_round(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    seen: list[Tuning] = []

    def train(asked: Tuning, data: Dataset[Any], into: Path, watch: Watch) -> None:
        seen.append(asked)
        train_here(asked, data, into, watch)

    monkeypatch.setattr(Tuning, "__call__", train)
    tuned(tmp_path, folder, "rounds=2", f"reference={which}")
    first, second = seen
    assert first.student.name == str(folder)
    assert first.tuner.reference is None  # type: ignore[union-attr]  # the student is what it was
    assert second.student.location.endswith("checkpoints/train-0/model")
    kept = second.tuner.reference  # type: ignore[union-attr]
    assert (kept and kept.name) == (str(folder) if which == "initial" else None)


@pytest.mark.slow
def test_rounds_of_adapters_follow_one_another_where_they_are_merged(tmp_path: Path, folder: Path) -> None:
    tuned(tmp_path, folder, "rounds=2", "tuner.lora.rank=2", "tuner.lora.merged=true")
    assert (tmp_path / "model/model.safetensors").exists()
    assert not (tmp_path / "model/adapter_config.json").exists()


@pytest.mark.slow
def test_an_old_pair_is_made_anew_and_a_ratio_of_0_answers_nobody_again(tmp_path: Path, folder: Path) -> None:
    tuned(tmp_path / "none", folder, "rounds=2", "ratio=0")
    assert [row["prompts answered"] for row in table(tmp_path / "none", "rounds")] == [10, 0]
    tuned(tmp_path / "old", folder, "ratio=0", "max_age=1")
    assert [row["prompts answered"] for row in table(tmp_path / "old", "rounds")] == [10, 0, 10]


def test_a_plan_tells_answers_rewards_updates_and_what_the_ratio_saves(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS))
    given = [*SETTINGS, f"student.name={folder}", "answers=3"]
    stages = {s.stage: s for s in plan(recipe_for("optune", tmp_path / "in.jsonl", tmp_path / "m", given)).stages}
    assert [stages[f"answer-{n}"].items for n in range(3)] == [30, 12, 12]
    assert [stages[f"reward-{n}"].items for n in range(3)] == [30, 12, 12]
    assert stages["train-0"].told == "at most 3 updates"
    assert stages["train-0"].forwards == 2 * (3 + 1)  # two answers, each also read by the reference
    assert stages["train-2"].told.endswith("than training: 1.25 at 1, 1.36 at 2, 1.43 at 3")


def test_what_is_not_given_or_cannot_chat_or_be_trained_is_said_before_any_work(folder: Path) -> None:
    with pytest.raises(
        RecipeError,
        match=r"student: is not given; write student.name=FOLDER\.\nreward.model: is not given; write reward.model.name=F",
    ):
        check_given(OPTune())
    judged = ByReward(model=ScriptedModel())
    with pytest.raises(RecipeError, match="student: the scorer that comes with the package does not chat"):
        check_given(OPTune(student=TransformersModel(), reward=judged))
    with pytest.raises(RecipeError, match="float16 is too coarse for weights that are all trained"):
        check_here(OPTune(student=TransformersModel(name=str(folder), dtype="float16"), reward=judged))


def test_no_prompt_that_can_be_answered_is_a_sentence(tmp_path: Path, folder: Path) -> None:
    refused(tmp_path, folder, DataError, r"no prompt can be answered \(too long: \d+ tokens, the limit is 3\); raise",
            "prompt_tokens=3")  # fmt: skip


def test_weights_without_end_are_a_sentence(tmp_path: Path, folder: Path) -> None:
    refused(tmp_path, folder, RecipeError, "beta2: 1000 makes weights up to inf; write 1", "weight=exp", "beta2=1000")


@pytest.mark.slow
def test_uneven_weights_are_told(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer of which the reward model thinks the world decides most of the round."""
    scored(monkeypatch, lambda said: 1e6 if said == first[0] else float(len(said)) / 1e3)
    first: list[str] = []
    original = TransformersModel.chat

    def chat(model: TransformersModel, said: Sequence[Sequence[Message]], sampling: Sampling) -> Any:
        found = original(model, said, sampling)
        first.extend(found[0].text for _ in range(not first))  # type: ignore[union-attr]
        return found

    monkeypatch.setattr(TransformersModel, "chat", chat)
    summary = tuned(tmp_path, folder, "rounds=1", "weight=exp", prompts=[f"Say {n}." for n in range(40)])
    assert summary.notes["pairs of round 0 have a weight of over 10 times the mean: few pairs decide"] == 1
    (row,) = table(tmp_path, "rounds")
    assert row["largest / mean weight"] > 10


def test_records_with_a_response_are_prompts_too(tmp_path: Path, folder: Path, whole: Path) -> None:
    """What the row answers is not looked at: the student answers itself."""
    rows = [{"id": f"p{n}", "instruction": prompt, "output": "So."} for n, prompt in enumerate(PROMPTS)]
    tuned(tmp_path, folder, "rounds=1", prompts=rows)
    assert rows_of(tmp_path, 0) == rows_of(whole, 0)


def test_a_judge_that_does_not_rate_is_told(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = iter(range(1000))

    def chat(model: ScriptedModel, said: Sequence[Any], sampling: Sampling) -> list[Completion]:
        numbers = [next(count) for _ in said]
        texts = [("I will not.", "", "I think </think>")[n] if n < 3 else f"Rating: {1 + n % 9}" for n in numbers]
        return [Completion(text, "stop", 3) for text in texts]

    monkeypatch.setattr(ScriptedModel, "chat", chat)
    given = [word for word in SETTINGS if not word.startswith("reward.")]
    place = tmp_path / "in.jsonl"
    place.write_text("".join(json.dumps({"id": f"p{n}", "prompt": p}) + "\n" for n, p in enumerate(PROMPTS)))
    summary = run_recipe(recipe_for("optune", place, tmp_path / "model", [
        *given, f"student.name={folder}", "rounds=1", "reward.kind=rating", "reward.model.kind=scripted"]))  # fmt: skip
    said = "answers of round 0 have no reward, since the judge's reply holds no rating"
    assert summary.notes[said] == 3
    assert table(tmp_path, "rounds")[0]["without a reward"] >= 3


def test_pairs_that_are_too_long_are_not_trained_on_not_weighed_and_told(
    tmp_path: Path, folder: Path, whole: Path
) -> None:
    encode = PairEncoder(tokenizer(str(folder), None), "chat")
    sizes = {pair.id: encode(pair).longest for pair in read_preferences(whole / "model.round-0.jsonl")}  # type: ignore[union-attr]
    limit = sorted(sizes.values())[1]
    summary = tuned(tmp_path, folder, "rounds=1", f"tuner.max_length={limit}")
    (row,) = table(tmp_path, "rounds")
    kept = rows_of(tmp_path, 0)
    assert kept.keys() == {id for id, size in sizes.items() if size <= limit} < sizes.keys()
    assert (row["pairs"], row["left out of training"]) == (len(kept), len(sizes) - len(kept))
    assert sum(pair["weight"] for pair in kept.values()) == pytest.approx(len(kept))
    assert summary.notes["pairs of round 0 are not trained on: too long"] == len(sizes) - len(kept)
    reasons = {r["record_id"]: r["reason"] for r in pq.read_table(tmp_path / "model.run/decisions.parquet").to_pylist()}
    for id in sizes.keys() - kept.keys():
        assert reasons[id].startswith("too long: ")
        assert reasons[id].endswith(f" tokens, the limit is {limit}")


def test_pairs_that_are_all_too_long_are_a_sentence(tmp_path: Path, folder: Path) -> None:
    refused(tmp_path, folder, DataError, r"round 0: no trainable pairs.*; of 20 answers drawn \d+ have no reward, and "
            r"\d+ pairs are left out \(too long: \d+ tokens, the limit is 50\)", "tuner.max_length=50")  # fmt: skip


def test_a_prompt_that_leaves_no_room_for_an_answer_is_not_asked(tmp_path: Path, folder: Path) -> None:
    long = {"id": "long", "prompt": "word " * 30}
    rows = [*({"id": f"p{n}", "prompt": p} for n, p in enumerate(PROMPTS[:4])), long]
    tuned(tmp_path, folder, "rounds=1", "prompt_tokens=512", "tuner.max_length=120", prompts=rows)
    reasons = {r["record_id"]: r["reason"] for r in pq.read_table(tmp_path / "model.run/decisions.parquet").to_pylist()}
    assert reasons["long"].startswith("too long: ")
    assert reasons["long"].endswith(" tokens, the limit is 119")


def test_of_a_conversation_and_what_began_it_the_latter_is_asked(tmp_path: Path, folder: Path, whole: Path) -> None:
    """As UltraChat has its rows: a prompt, and the conversation that another model held about it."""
    talk = [{"role": role, "content": "So."} for role in ("user", "assistant", "user", "assistant")]
    rows = [{"id": f"p{n}", "prompt": prompt, "messages": talk} for n, prompt in enumerate(PROMPTS)]
    tuned(tmp_path, folder, "rounds=1", prompts=rows)
    assert rows_of(tmp_path, 0) == rows_of(whole, 0)


def test_a_round_that_asks_nobody_answers_in_no_time(tmp_path: Path, folder: Path) -> None:
    tuned(tmp_path, folder, "rounds=2", "ratio=0")
    first, second = table(tmp_path, "seconds")
    assert first["answering"] > 0
    assert (second["answering"], second["scoring"]) == (0, 0)
    said = {row["said of"]: row for row in table(tmp_path, "speed")}
    g, u = first["answering"] + first["scoring"], first["training"]
    assert said["this run, as measured"]["all rounds"] == pytest.approx(2 * (g + u) / (g + u + second["training"]))
    assert table(tmp_path, "rounds")[1]["nats from the first student"] is None


def test_a_reward_model_of_another_template_is_refused_before_anything_is_answered(
    tmp_path: Path, folder: Path
) -> None:
    place = rewarding(folder, tmp_path / "reward")
    said = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**said, TEMPLATE: "alpaca"}))
    method = OPTune(
        student=TransformersModel(name=str(folder)), reward=ByReward(model=RewardClassifier(name=str(place)))
    )
    with pytest.raises(RecipeError, match=r"reward\.model\.template: .* was trained in alpaca, not in chat; write"):
        check_here(method)
    kept = RewardClassifier(name=str(place), template="alpaca")
    check_here(replace(method, reward=ByReward(model=kept)))


def test_pairs_are_not_held_out_of_a_round() -> None:
    with pytest.raises(RecipeError, match=r"tuner\.held_out: every pair of a round is trained on; leave it at 0"):
        OPTune(tuner=DPO(held_out=0.1))
