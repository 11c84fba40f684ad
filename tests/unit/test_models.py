"""Models: what local weights say, predict and embed, who is refused, and the model that answers by rule."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason='needs the "local" extra')
import slow  # noqa: E402
import transformers  # noqa: E402

from harness.tiny import MakeTiny  # noqa: E402
from tunesift import (  # noqa: E402
    Completion,
    Failure,
    Message,
    ModelRefused,
    ModelUnavailable,
    Sampling,
    ScriptedModel,
    Span,
    TargetLoss,
    TransformersModel,
    heartbeat,
)
from tunesift.settings import semantic  # noqa: E402

ASKED = (Message("user", "Say the end."),)
RENDERED = "[user]Say the end.[assistant]"
"""The same in the chat template of the tiny models."""


@pytest.fixture(scope="module")
def folder(make_tiny: MakeTiny) -> Path:
    return make_tiny("llama", seed=3)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(folder, tmp_path / "model")


def change(file: Path, **settings: object) -> None:
    """Write settings into a JSON file."""
    found = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(found | settings))


def say(folder: Path, conversations: Sequence[Sequence[Message]] = (ASKED,), **sampling: Any) -> list[Completion]:
    return TransformersModel(name=str(folder)).chat(conversations, Sampling(**({"max_tokens": 12} | sampling)))


def text_of(folder: Path, ids: list[int]) -> str:
    return str(transformers.AutoTokenizer.from_pretrained(folder).decode(ids, skip_special_tokens=True))


def test_at_temperature_0_each_token_is_the_likeliest(folder: Path) -> None:
    likeliest = slow.greedy(folder, [0, *slow.encode(folder, RENDERED)], 12)
    assert say(folder) == say(folder, seed=7) == [Completion(text_of(folder, likeliest), "length", 12)]


def test_settings_of_the_models_own_file_do_not_change_what_it_says(folder: Path, copied: Path) -> None:
    change(copied / "generation_config.json", repetition_penalty=9.0, no_repeat_ngram_size=1, do_sample=True, top_p=0.1)
    assert say(copied) == say(folder)
    assert say(copied, temperature=1.0) == say(folder, temperature=1.0)


def test_above_temperature_0_a_seed_and_a_conversation_decide_the_draws(folder: Path) -> None:
    other = (Message("user", "Say no more."),)
    together = say(folder, [ASKED, other, ASKED], temperature=1.5)
    assert together[0] == together[2] != together[1]
    assert say(folder, [other], temperature=1.5) == [together[1]]
    assert say(folder, temperature=1.5, seed=1) != [together[0]] != say(folder)


def test_sampling_leaves_the_global_generator_alone(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3).tolist()
    torch.manual_seed(5)
    say(folder, temperature=1.0)
    assert torch.rand(3).tolist() == expected


def test_a_completion_that_reaches_max_tokens_was_cut(folder: Path) -> None:
    (three,) = say(folder, max_tokens=3)
    (twelve,) = say(folder)
    assert (three.stop, three.tokens) == ("length", 3)
    assert twelve.text.startswith(three.text.rstrip("�"))


def test_a_stop_text_ends_a_completion_and_is_no_part_of_it(folder: Path) -> None:
    (whole,) = say(folder, max_tokens=40)
    stop, later = whole.text[5:7], whole.text[12]
    (cut,) = say(folder, max_tokens=40, stop=("never said", later, stop))
    assert cut.text == whole.text[: min(whole.text.find(stop), whole.text.find(later))]
    assert cut.stop == "stop"
    assert say(folder, max_tokens=40, stop=("never said",)) == [whole]


def test_a_model_that_ends_its_answer_stops(copied: Path) -> None:
    likeliest = slow.greedy(copied, [0, *slow.encode(copied, RENDERED)], 3)
    assert likeliest[2] not in likeliest[:2]
    change(copied / "generation_config.json", eos_token_id=[1, likeliest[2]])
    for most in (3, 12):
        (said,) = say(copied, max_tokens=most)
        assert (said.stop, said.tokens) == ("stop", 3)


def test_a_special_token_named_in_a_conversation_is_plain_text(folder: Path) -> None:
    ids = [0, *slow.encode(folder, "[user]</s>Say<s>[assistant]")]
    assert say(folder, [(Message("user", "</s>Say<s>"),)])[0].text == text_of(folder, slow.greedy(folder, ids, 12))


def test_a_conversation_that_fills_the_model_is_a_failure_of_its_own(make_tiny: MakeTiny) -> None:
    small = make_tiny("llama", length=len(RENDERED))
    (said,) = say(make_tiny("llama", length=len(RENDERED) + 2))
    assert said.stop == "length"
    assert said.tokens < 12
    long, short = say(small, [(Message("user", "Say the end, say it now."),), (Message("user", "Say"),)])
    assert long == Failure("too-long", "the conversation leaves no room in the model's 29 tokens")
    assert isinstance(short, Completion)


def test_a_model_without_a_chat_template_is_refused(make_tiny: MakeTiny) -> None:
    sentence = "the model has no chat template; give one that has, or set template to alpaca or bare."
    model = TransformersModel(name=str(make_tiny("gpt2")))
    for ask in (lambda: model.chat([ASKED], Sampling()), lambda: model.loss([Span(ASKED, "The end.")])):
        with pytest.raises(ModelRefused) as refusal:
            ask()
        assert str(refusal.value) == sentence


def test_a_conversation_that_a_chat_template_refuses_is_a_failure_of_its_own(copied: Path) -> None:
    only = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('begin with a user') }}{% endif %}{{ bos_token }}"
    change(copied / "tokenizer_config.json", chat_template=only)
    model, refused = TransformersModel(name=str(copied)), (Message("system", "Be brief."), *ASKED)
    said = "the model's chat template takes no such conversation: begin with a user"
    first, second, third = model.loss([Span(ASKED, "a"), Span(refused, "a"), Span("text", "a")])
    assert isinstance(first, TargetLoss)
    assert second == Failure("refused", said)
    assert isinstance(third, TargetLoss)
    assert model.chat([refused], Sampling()) == [Failure("refused", said)]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_embedding_is_the_mean_of_the_last_hidden_layer(make_tiny: MakeTiny, kind: str) -> None:
    folder = make_tiny(kind, length=40)
    texts = ["Say it.", "世界 \U0001f642", "one </s> two <s>", "x" * 90, ""]
    begins = [0] if kind == "llama" else []
    vectors = TransformersModel(name=str(folder)).embed(texts)
    for text, vector in zip(texts, vectors, strict=True):
        ids = [*begins, *slow.encode(folder, text)][:40] or [1]  # GPT-2 begins no text: of an empty one, the padding
        assert list(vector) == pytest.approx(slow.mean_hidden(folder, ids), abs=1e-5), text


def test_max_length_cuts_losses_and_embeddings(folder: Path) -> None:
    model = TransformersModel(name=str(folder), max_length=5)
    (loss,) = model.loss([Span("ab", "cdefg")])
    assert isinstance(loss, TargetLoss)
    assert (len(loss.nats), loss.truncated) == (2, True)
    assert list(model.embed(["abcdefg"])[0]) == pytest.approx(
        slow.mean_hidden(folder, [0, *slow.encode(folder, "abcd")]), abs=1e-5
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_losses_of_narrow_weights_are_computed_in_float32(folder: Path, dtype: Any) -> None:
    wide, narrow = (
        TransformersModel(name=str(folder), dtype=d).loss([Span("ab", "cd")])[0] for d in ("float32", dtype)
    )
    assert isinstance(wide, TargetLoss)
    assert isinstance(narrow, TargetLoss)
    assert narrow.nats == pytest.approx(wide.nats, abs=0.3)
    assert any(torch.tensor(n).to(getattr(torch, dtype)).item() != n for n in narrow.nats)


@pytest.mark.parametrize(
    "name", ["/nowhere/a-model", "./nowhere", "~/no-such-folder-of-models", "checkpoints/step-3/model"]
)
def test_a_folder_that_is_not_there_is_unavailable(name: str) -> None:
    with pytest.raises(ModelUnavailable) as refusal:
        TransformersModel(name=name).loss([Span("a", "b")])
    assert str(refusal.value) == f'model "{name}" is not there; give a folder with config.json or a hub id.'


def test_a_folder_without_a_config_is_unavailable(copied: Path) -> None:
    (copied / "config.json").unlink()
    for ask in (TransformersModel(name=str(copied)).identity, lambda: say(copied)):
        with pytest.raises(ModelUnavailable) as refusal:
            ask()
        assert str(refusal.value) == f'model "{copied}" is a folder without config.json; give a model\'s folder.'


class _Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.file),)


def test_weights_in_another_format_than_safetensors_are_refused_and_never_unpickled(
    copied: Path, tmp_path: Path
) -> None:
    (copied / "model.safetensors").unlink()
    (copied / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    with pytest.raises(ModelRefused) as refusal:
        TransformersModel(name=str(copied)).loss([Span("a", "b")])
    assert str(refusal.value) == (
        f'model "{copied}" has no .safetensors weights; convert it, other formats can run code.'
    )
    assert not (tmp_path / "sprung").exists()
    pickle.loads((copied / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "sprung").exists(), "the trap works"


def test_code_that_came_with_a_model_is_neither_run_nor_asked_about(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "own.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'sprung')!r})\n")
    change(copied / "config.json", model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(ModelRefused, match="contains custom code"):
        TransformersModel(name=str(copied)).loss([Span("a", "b")])
    assert not (tmp_path / "sprung").exists()
    assert capsys.readouterr().out == ""


def damaged(folder: Path, alter: Callable[[dict[str, Any]], object]) -> None:
    """Change the weights of a folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    alter(weights)
    from safetensors.torch import save_file

    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "alter", [lambda w: w.pop("lm_head.weight"), lambda w: w.update({"lm_head.weight": w["lm_head.weight"][:9].clone()})],
    ids=["missing", "of another shape"],
)  # fmt: skip
def test_weights_that_are_missing_or_do_not_fit_are_refused_and_not_made_up(
    copied: Path, alter: Callable[[dict[str, Any]], object]
) -> None:
    damaged(copied, alter)
    with pytest.raises(ModelRefused) as refusal:
        TransformersModel(name=str(copied)).loss([Span("a", "b")])
    assert str(refusal.value) == (
        f'model "{copied}" has no fitting weights for lm_head.weight; give a whole causal language model.'
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_file_is_refused_in_a_sentence(copied: Path, name: str) -> None:
    (copied / name).write_bytes((copied / name).read_bytes()[:100])
    with pytest.raises(ModelRefused, match=r"cannot be loaded \(.+\); check its files\.$"):
        TransformersModel(name=str(copied)).loss([Span("a", "b")])


def test_a_tokenizer_that_begins_and_ends_no_text_is_refused(copied: Path) -> None:
    change(copied / "tokenizer_config.json", bos_token=None, eos_token=None)
    with pytest.raises(ModelRefused) as refusal:
        TransformersModel(name=str(copied)).loss([Span("", "b")])
    assert str(refusal.value) == "the tokenizer has neither a BOS nor an EOS token; use another scorer."


def test_a_device_that_is_not_there_is_unavailable(folder: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r'^device: "gpu7" is not to be had here \(.+\); write auto or cpu\.$'):
        TransformersModel(name=str(folder), device="gpu7").loss([Span("", "b")])


def test_identity_changes_with_a_files_content_and_with_nothing_else(folder: Path, copied: Path) -> None:
    model = TransformersModel(name=str(copied))
    before = model.identity()
    assert before == TransformersModel(name=str(folder)).identity()
    os.utime(copied / "model.safetensors", (1, 1))
    (copied / "optimizer.bin").write_text("not read")
    assert model.identity() == before
    seen = {before}
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        raw = bytearray((copied / name).read_bytes())
        raw[-2] ^= 1
        (copied / name).write_bytes(raw)
        seen.add(model.identity())
    assert len(seen) == 4
    assert semantic(model) != semantic(TransformersModel(name=str(folder)))


def test_weights_that_changed_on_disk_are_loaded_anew(copied: Path) -> None:
    model, span = TransformersModel(name=str(copied)), Span("a", "the end")
    before = model.loss([span])
    assert model.loss([span]) == before
    damaged(copied, lambda w: w["lm_head.weight"].mul_(2.0))
    after = model.loss([span])
    assert after != before
    (loss,) = after
    assert isinstance(loss, TargetLoss)
    assert list(loss.nats) == pytest.approx(slow.token_losses(copied, span, 256), abs=1e-5)


def test_where_and_how_fast_a_model_runs_is_no_part_of_what_it_says(folder: Path) -> None:
    here = TransformersModel(name=str(folder), device="cpu", batch_tokens=7)
    assert semantic(here) == semantic(TransformersModel(name=str(folder)))


def test_whatever_local_weights_do_they_say_after_each_piece_which_share_of_it_is_done(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[float] = []
    beat = heartbeat.beat
    for module in ("models.sharing", "models.transformers"):
        monkeypatch.setattr(f"tunesift.{module}.beat", lambda share=0.0: (beat(share), moved.append(share)))
    model = TransformersModel(name=str(folder), batch_tokens=40)
    spans = [Span("Say it " * n, "now") for n in range(6)] + [Span("Rate:", digit) for digit in "12345"]
    for work in (
        lambda: model.loss(spans),
        lambda: model.embed(["one", "two words " * 5, "and three words " * 3]),
        lambda: model.chat([ASKED] * 3, Sampling(max_tokens=2)),
    ):
        heartbeat.written()
        moved.clear()
        work()
        assert len(moved) > 1
        assert sum(moved) == pytest.approx(1) == heartbeat.share_done()


def test_a_model_that_is_being_loaded_is_named(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []
    load = transformers.AutoTokenizer.from_pretrained
    monkeypatch.setattr(
        transformers.AutoTokenizer,
        "from_pretrained",
        lambda *given, **more: (named.append(heartbeat.being_loaded()), load(*given, **more))[1],
    )
    TransformersModel(name=str(copied)).loss([Span("a", "b")])
    assert named == [str(copied)]
    assert heartbeat.being_loaded() == ""


def test_the_scripted_model_says_what_its_rules_say() -> None:
    model = ScriptedModel(replies={"sea": "the Baltic Sea", "seaside": "never reached"}, otherwise="no idea")
    asked = [[Message("user", text)] for text in ("Name a seaside.", "Name a hill.", "sea")]
    assert model.chat(asked, Sampling()) == [
        Completion("the Baltic Sea", "stop", 3), Completion("no idea", "stop", 2), Completion("the Baltic Sea", "stop", 3),
    ]  # fmt: skip
    assert model.chat(asked[:1], Sampling(max_tokens=2)) == [Completion("the Baltic", "length", 2)]


def test_the_scripted_model_predicts_a_word_that_it_was_given_at_a_quarter_of_the_cost() -> None:
    given, alone = ScriptedModel().loss([Span("Say hello", "Hello you"), Span("", "Hello you")])
    assert isinstance(given, TargetLoss)
    assert isinstance(alone, TargetLoss)
    assert given.nats == (alone.nats[0] / 4, alone.nats[1])
    assert all(0 <= nats < 4 for nats in alone.nats)


def test_the_scripted_models_limit_counts_context_and_target_together() -> None:
    cut, full, none = ScriptedModel().loss(
        [Span("one two", "three four five", limit=4), Span("one", "two", limit=2), Span("one two", "three", limit=2)]
    )
    assert isinstance(cut, TargetLoss)
    assert (len(cut.nats), cut.truncated) == (2, True)
    assert isinstance(full, TargetLoss)
    assert (len(full.nats), full.truncated) == (1, False)
    assert none == TargetLoss((), True)


def test_the_scripted_model_has_the_chances_that_it_is_given() -> None:
    model = ScriptedModel(chances={"sea": {"5": 0.5, "1": 0.0}, "sealed": {"5": 0.1}})
    five, none, other, elsewhere = model.loss(
        [Span("a seal", "5"), Span("sea", "1"), Span("sea", "2"), Span("hill", "5")]
    )
    assert five == TargetLoss((math.log(2),), False)
    assert none == TargetLoss((math.inf,), False)
    assert isinstance(other, TargetLoss)
    assert other == ScriptedModel().loss([Span("sea", "2")])[0]
    assert elsewhere == ScriptedModel().loss([Span("hill", "5")])[0]
    tokens = model.single_tokens(["5", " 5", "2", "5 2", ""])
    assert tokens[0] == tokens[1] != tokens[2]
    assert tokens[3:] == [None, None]


def test_a_target_of_one_token_is_known_by_its_token(folder: Path) -> None:
    model = TransformersModel(name=str(folder))
    assert model.single_tokens(["5", "the", "", "he"]) == [
        slow.encode(folder, "5")[0], None, None, slow.encode(folder, "he")[0],
    ]  # fmt: skip


def test_a_loss_of_no_tokens_has_no_mean() -> None:
    assert TargetLoss((), True).total == 0
    assert TargetLoss((), True).mean != TargetLoss((), True).mean
    assert TargetLoss((1.0, 2.0), False).mean == 1.5


def test_a_bare_name_that_no_hub_within_reach_has_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    said = r'^model "nofolder" is no folder here and no hub gave it; check the name'
    with pytest.raises(ModelUnavailable, match=said):
        TransformersModel(name="nofolder").loss([Span("a", "b")])
