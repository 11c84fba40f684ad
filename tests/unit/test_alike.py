"""Two models are compared only where that means something: two of them, that read the same tokens, and as many."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesift import HttpModel, RecipeError, ScriptedModel, TransformersModel
from tunesift.models.alike import check_tokenizers, check_two, differing, evened

MakeTiny = Callable[..., Path]


def of(folder: Path | str, **settings: Any) -> TransformersModel:
    return TransformersModel(name=str(folder), **settings)


def behind(tokenizer: Path | None, **settings: Any) -> HttpModel:
    given = None if tokenizer is None else str(tokenizer)
    return HttpModel(url="http://localhost:9/v1", model="large", tokenizer=given, **settings)


def changed(folder: Path, place: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a model's folder with a tokenizer that was changed."""
    copy = shutil.copytree(folder, place)
    found = json.loads((copy / "tokenizer.json").read_text())
    change(found)
    (copy / "tokenizer.json").write_text(json.dumps(found))
    return copy


def a_token_more(found: dict[str, Any]) -> None:
    found["model"]["vocab"]["Ġthe Ġ"] = len(found["model"]["vocab"])


def merges_turned(found: dict[str, Any]) -> None:
    found["model"]["merges"].reverse()


def a_space_before(found: dict[str, Any]) -> None:
    found["pre_tokenizer"]["add_prefix_space"] = True


def capitals_lowered(found: dict[str, Any]) -> None:
    found["normalizer"] = {"type": "Lowercase"}


def a_plain_token_added(found: dict[str, Any]) -> None:
    found["added_tokens"].append({"id": 999, "content": "    ", "special": False, "normalized": False})


def an_unknown_token(found: dict[str, Any]) -> None:
    found["model"]["unk_token"] = "<s>"


DIVIDES = {
    a_token_more: "their vocabularies (262 and 263 tokens)",
    merges_turned: "their merges",
    a_space_before: "their pre-tokenizers",
    capitals_lowered: "their normalizers",
    a_plain_token_added: "their added tokens",
    an_unknown_token: "their settings",
}


@pytest.mark.parametrize("change", DIVIDES, ids=lambda change: change.__name__)
def test_what_divides_text_otherwise_is_named(make_tiny: MakeTiny, tmp_path: Path, change: Any) -> None:
    folder = make_tiny("llama")
    other = changed(folder, tmp_path / "other", change)
    assert differing(of(folder), of(other)) == DIVIDES[change]
    with pytest.raises(RecipeError) as refusal:
        check_tokenizers(of(folder), of(other), "scorer.")
    assert str(refusal.value) == (
        f'scorer.small and scorer.large: the tokenizers of "{folder}" and "{other}" differ in {DIVIDES[change]}, and so '
        "would perplexities per token; choose scorer.ratio=loss or scorer.ratio=byte."
    )


def a_special_token_added(found: dict[str, Any]) -> None:
    found["added_tokens"].append({"id": 999, "content": "<|im_start|>", "special": True})


def a_special_token_in_the_vocabulary(found: dict[str, Any]) -> None:
    found["model"]["vocab"]["[INST]"] = 999
    found["added_tokens"].append({"id": 999, "content": "[INST]", "special": True})


def other_numbers(found: dict[str, Any]) -> None:
    found["model"]["vocab"] = {piece: n + 7 for piece, n in found["model"]["vocab"].items()}


def merges_in_the_old_spelling(found: dict[str, Any]) -> None:
    found["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in found["model"]["merges"]]


def what_is_put_around(found: dict[str, Any]) -> None:
    found["post_processor"], found["truncation"] = None, {"max_length": 9}


@pytest.mark.parametrize("change", [
    a_special_token_added, a_special_token_in_the_vocabulary, other_numbers, merges_in_the_old_spelling, what_is_put_around,
])  # fmt: skip
def test_a_chat_model_and_its_base_model_are_of_one_family(make_tiny: MakeTiny, tmp_path: Path, change: Any) -> None:
    folder = make_tiny("llama")
    other = changed(folder, tmp_path / "other", change)
    assert differing(of(folder), of(other)) == ""
    check_tokenizers(of(folder), of(other))


def test_two_architectures_with_one_tokenizer_are_of_one_family(make_tiny: MakeTiny) -> None:
    check_tokenizers(of(make_tiny("llama")), of(make_tiny("gpt2")))


def test_a_unigram_vocabulary_is_compared_with_its_weights(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, weight in zip(folders, (-1.0, -2.0, -1.0), strict=True):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        model = {"type": "Unigram", "vocab": [["a", weight], ["b", -3.0]]}
        (folder / "tokenizer.json").write_text(json.dumps({"model": model, "version": folder.name}))
    one, other, same = map(of, folders)
    assert differing(one, other) == "their vocabularies (2 and 2 tokens)"
    assert differing(one, same) == ""


@pytest.mark.parametrize("names", [("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",)])
def test_older_files_are_compared_by_their_bytes(tmp_path: Path, names: tuple[str, ...]) -> None:
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, last in zip(folders, (b"x", b"x", b"y"), strict=True):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        for name in names:
            (folder / name).write_bytes(b"same" + (last if name == names[-1] else b""))
    one, same, other = map(of, folders)
    assert differing(one, same) == ""
    assert differing(one, other) == names[0]


def test_what_is_not_known_is_not_refused(make_tiny: MakeTiny, tmp_path: Path) -> None:
    folder = make_tiny("llama")
    for other in (behind(None), ScriptedModel(), of("/no/such/folder/here"), of("me/unknown")):
        check_tokenizers(of(folder), other)
    broken = shutil.copytree(folder, tmp_path / "broken")
    for content in ("{", "[]", '{"model": 3}', '{"model": {"vocab": [1]}}', '{"added_tokens": [{"special": true}]}'):
        (broken / "tokenizer.json").write_text(content)
        differing(of(folder), of(broken))


def test_an_endpoint_s_tokenizer_is_known_by_its_folder(make_tiny: MakeTiny, tmp_path: Path) -> None:
    folder = make_tiny("llama")
    check_tokenizers(of(folder), behind(folder))
    with pytest.raises(RecipeError, match=r'^small and large: .+ and "large" differ in their merges'):
        check_tokenizers(of(folder), behind(changed(folder, tmp_path / "other", merges_turned)))


def test_one_model_under_both_settings_is_refused_also_in_a_copy(make_tiny: MakeTiny, tmp_path: Path) -> None:
    folder = make_tiny("llama")
    copy = shutil.copytree(folder, tmp_path / "copy")
    same = [
        (of(folder), of(folder)), (of(folder), of(copy)), (of(folder), of(folder, dtype="bfloat16", max_length=9)),
        (behind(None), behind(folder)), (ScriptedModel(), ScriptedModel()), (of("me/a"), of("me/a", revision="main")),
        (of("/no/such/folder/here"), of("/no/such/folder/here")),
    ]  # fmt: skip
    for small, large in same:
        with pytest.raises(RecipeError) as refusal:
            check_two(small, large, "scorer.")
        assert str(refusal.value).endswith(
            "is the same model as scorer.small, so that every gap would be 0; name a larger model of its family."
        )
    check_two(of(folder), of(make_tiny("llama", seed=1)))
    check_two(of("me/a"), of("me/b"))
    check_two(of("me/a"), of("me/a", revision="v2"))
    check_two(of(folder), behind(folder))
    check_two(ScriptedModel(), ScriptedModel(otherwise="Else."))


def test_both_models_read_with_the_shorter_limit(make_tiny: MakeTiny) -> None:
    short, long = make_tiny("llama", length=64), make_tiny("llama", length=256)
    limits = [
        ((of(short), of(long)), 64), ((of(long), of(short)), 64), ((of(long), of(long, max_length=100)), 100),
        ((of(long), behind(None)), 256), ((behind(None, max_length=50), of(long)), 50), ((of(short), ScriptedModel()), 64),
    ]  # fmt: skip
    for models, limit in limits:
        assert {m.max_length for m in evened(*models) if not isinstance(m, ScriptedModel)} == {limit}
    assert evened(behind(None), ScriptedModel()) == (behind(None), ScriptedModel()), (
        "where no limit is known, none is set"
    )
