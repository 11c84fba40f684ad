"""Reward models: one number for an answer, the same alone and in a batch, and sentences for what is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.preferring import rewarding
from harness.tiny import MakeTiny
from harness.training import CHATML, student
from tunesift import Failure, Message, ModelRefused, ModelUnavailable, RewardClassifier
from tunesift.models.reward import TEMPLATE, TunedReward
from tunesift.settings import semantic

torch = pytest.importorskip("torch", reason='needs the "local" extra')


@pytest.fixture(scope="module")
def folder(make_tiny: MakeTiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rewarding(student(make_tiny, CHATML, length=256), tmp_path_factory.mktemp("reward"))


def asked(text: str, answer: str) -> tuple[Message, ...]:
    return Message("user", text), Message("assistant", answer)


TALKS = [asked("Hi?", "Yes."), asked("A longer question, of more words?", "No, and here is why that is so."), asked("So?", ""),
         (Message("system", "Be short."), *asked("Well?", "A"), *asked("And?", "B"))]  # fmt: skip


def test_a_reward_is_the_output_at_the_last_token_of_the_rendered_conversation(folder: Path) -> None:
    """Word for word as transformers renders and reads it, each conversation alone and without padding."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    expected = []
    for talk in TALKS:
        turns = [{"role": m.role, "content": m.text} for m in talk]
        text = tokenizer.apply_chat_template(turns, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            outputs = model.score(model.model(torch.tensor([ids])).last_hidden_state)
        expected.append(float(outputs[0, -1, 0]))
    assert len({round(value, 4) for value in expected}) == len(TALKS)
    for batch_tokens in (1, 64, 4096):
        found = RewardClassifier(name=str(folder), device="cpu", batch_tokens=batch_tokens).reward(TALKS)
        assert found == pytest.approx(expected, abs=1e-4)


def test_texts_that_end_with_the_padding_token_are_read_to_their_end(folder: Path, tmp_path: Path) -> None:
    """A model whose padding is what ends its turns; the reward would be read a token too early."""
    import shutil

    same = tmp_path / "same"
    shutil.copytree(folder, same)
    config = json.loads((same / "config.json").read_text())
    plain = RewardClassifier(name=str(folder), device="cpu").reward(TALKS)
    last = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]["Ċ"]
    (same / "config.json").write_text(json.dumps({**config, "pad_token_id": last}))
    assert RewardClassifier(name=str(same), device="cpu").reward(TALKS) == pytest.approx(plain, abs=1e-4)


def test_what_has_no_reward_is_a_failure_beside_the_others(folder: Path) -> None:
    model = RewardClassifier(name=str(folder), device="cpu", max_length=40)
    found = model.reward([TALKS[0], asked("x" * 50, "y"), (Message("user", "Nobody answers."),), ()])
    assert isinstance(found[0], float)
    assert [one.kind for one in found[1:] if isinstance(one, Failure)] == ["too-long", "refused", "refused"]
    assert model.reward([]) == []


def test_a_reward_that_is_no_number_is_a_failure(folder: Path, tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    odd = tmp_path / "odd"
    shutil.copytree(folder, odd)
    weights = load_file(str(odd / "model.safetensors"))
    weights["score.weight"][0, 0] = float("inf")
    save_file(weights, str(odd / "model.safetensors"), metadata={"format": "pt"})
    found = RewardClassifier(name=str(odd), device="cpu").reward(TALKS[:2])
    assert [one.kind for one in found if isinstance(one, Failure)] == ["not-finite", "not-finite"]


def test_two_outputs_are_refused(make_tiny: MakeTiny, tmp_path: Path) -> None:
    two = rewarding(student(make_tiny, CHATML), tmp_path, labels=2)
    with pytest.raises(ModelRefused, match="has 2 outputs, and a reward is one; give a classifier of one label"):
        RewardClassifier(name=str(two), device="cpu").reward(TALKS)


def test_a_language_model_is_refused(make_tiny: MakeTiny) -> None:
    with pytest.raises(ModelRefused, match=r"has no fitting weights for score.weight; give a whole classifier"):
        RewardClassifier(name=str(student(make_tiny, CHATML)), device="cpu").reward(TALKS)


def test_another_template_than_that_of_its_training_is_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    trained = tmp_path / "trained"
    shutil.copytree(folder, trained)
    config = json.loads((trained / "config.json").read_text())
    (trained / "config.json").write_text(json.dumps({**config, TEMPLATE: "alpaca"}))
    with pytest.raises(
        ModelRefused, match="was trained in the template alpaca and is asked in chat; write template=alpaca"
    ):
        RewardClassifier(name=str(trained), device="cpu").reward(TALKS)
    assert RewardClassifier(name=str(trained), device="cpu", template="alpaca").reward(TALKS[:1])


def test_a_model_without_a_chat_template_is_refused(make_tiny: MakeTiny, tmp_path: Path) -> None:
    plain = rewarding(student(make_tiny, None), tmp_path)
    with pytest.raises(
        ModelRefused, match="has no chat template; give one that has, or set template to alpaca or bare"
    ):
        RewardClassifier(name=str(plain), device="cpu").reward(TALKS)


def test_weights_that_can_run_code_are_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(ModelRefused, match=r"has no .safetensors weights"):
        RewardClassifier(name=str(pickled), device="cpu").reward(TALKS)


def test_a_model_that_is_not_here_is_named() -> None:
    with pytest.raises(ModelUnavailable, match="no/such/model"):
        RewardClassifier(name="no/such/model").reward(TALKS)


def test_it_is_known_by_its_content_and_a_trained_one_by_what_it_was_made_of(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "elsewhere")
    one, other = (RewardClassifier(name=str(place)) for place in (folder, tmp_path / "elsewhere"))
    assert one.identity() == other.identity()
    made = [TunedReward(name="tuned:abc", place=str(place)) for place in (folder, tmp_path / "elsewhere")]
    assert semantic(made[0]) == semantic(made[1])
    assert made[1].reward(TALKS[:1]) == one.reward(TALKS[:1])
