"""Can the losses of two models be compared? Not if they are one model, read other tokens, or cut a text elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesift.errors import ModelUnavailable, RecipeError, shown
from tunesift.models.folders import folder_identity, local_folder
from tunesift.models.http import HttpModel
from tunesift.models.scripted import ScriptedModel
from tunesift.models.transformers import TransformersModel

AnyLikelihood = TransformersModel | HttpModel | ScriptedModel

_WHOLE = ("tokenizer.json",)
_OTHERS = (("tokenizer.model",), ("spiece.model",), ("vocab.json", "merges.txt"), ("vocab.txt",))
"""Files that say how text is divided, where there is no tokenizer.json; the first that both models have count."""
_SEEN = ("content", "single_word", "lstrip", "rstrip", "normalized")
"""What of an added token decides where text is divided."""


def check_two(small: AnyLikelihood, large: AnyLikelihood, place: str = "") -> None:
    """Raise `RecipeError` for one model under both settings, of which every difference would be 0.

    `place` is where the settings `small` and `large` stand in a recipe: "scorer.".
    """
    if _whose(small) == _whose(large):
        raise RecipeError(f'{place}large: "{_named(large)}" is the same model as {place}small, so that every gap would '
                          "be 0; name a larger model of its family.")  # fmt: skip


def check_tokenizers(small: AnyLikelihood, large: AnyLikelihood, place: str = "") -> None:
    """Raise `RecipeError` for two models that are known to divide text into other tokens; nothing is loaded.

    Known are folders, what is in the hub's store on this machine, and an endpoint's `tokenizer`. Where nothing is
    known, `check_tokens` sees it from the first record of which the models disagree.
    """
    if what := differing(small, large):
        raise RecipeError(f'{place}small and {place}large: the tokenizers of "{_named(small)}" and "{_named(large)}" '
                          f"differ in {what}, and so would perplexities per token; choose {place}ratio=loss or "
                          f"{place}ratio=byte.")  # fmt: skip


def differing(small: AnyLikelihood, large: AnyLikelihood) -> str:
    """In what two models' tokenizers differ, in a word; empty where they do not, or where it is not known."""
    places = [place for place in (_tokenizer_of(small), _tokenizer_of(large)) if place is not None]
    if len(places) < 2 or places[0] == places[1]:
        return ""
    one, other = (_read(place, _WHOLE) for place in places)
    if one is not None and other is not None:
        return "" if one == other else _first_difference(one[0], other[0])
    for names in _OTHERS:
        one, other = (_read(place, names) for place in places)
        if one is not None and other is not None:
            return "" if one == other else names[0]
    return ""


def evened(small: AnyLikelihood, large: AnyLikelihood) -> tuple[AnyLikelihood, AnyLikelihood]:
    """The same models, both with the shorter of their limits, so that a long response is cut alike for both."""
    known = [most for model in (small, large) if (most := _most(model)) is not None]
    return _within(small, min(known, default=None)), _within(large, min(known, default=None))


def _most(model: AnyLikelihood) -> int | None:
    if isinstance(model, TransformersModel):
        return model.most_tokens()
    return model.max_length if isinstance(model, HttpModel) else None


def _within(model: AnyLikelihood, most: int | None) -> AnyLikelihood:
    if most is None or isinstance(model, ScriptedModel):
        return model
    return replace(model, max_length=most)


def _named(model: AnyLikelihood) -> str:
    return shown(str(getattr(model, "name", model.kind)))


def _whose(model: AnyLikelihood) -> object:
    """What two settings have in common that mean the same weights."""
    if isinstance(model, HttpModel):
        return model.url.rstrip("/"), model.model
    if isinstance(model, ScriptedModel):
        return model
    try:
        folder = local_folder(model.name)
    except ModelUnavailable:  # a path that leads nowhere; what it says of itself comes later
        return model.name
    return folder_identity(model.name, None) if folder else (model.name, model.revision or "main")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tokenizer's files are: a folder's or a hub id's name, and which commit of it."""

    name: str
    revision: str | None = None


def _tokenizer_of(model: AnyLikelihood) -> _Place | None:
    if isinstance(model, HttpModel):
        return None if model.tokenizer is None else _Place(model.tokenizer)
    return _Place(model.name, model.revision) if isinstance(model, TransformersModel) else None


def _read(place: _Place, names: Sequence[str]) -> list[bytes] | None:
    """The content of a tokenizer's files; None unless all of them are on this machine."""
    found = []
    for name in names:
        try:
            path = _path(place, name)
            found.append(b"" if path is None else path.read_bytes())
        except OSError:
            return None
    return found if all(found) else None


def _path(place: _Place, file: str) -> Path | None:
    try:
        folder = local_folder(place.name)
        if folder is not None:
            return folder / file
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(place.name, file, revision=place.revision)
    except (ImportError, ValueError, ModelUnavailable):
        return None
    return Path(path) if isinstance(path, str) else None


def _first_difference(one: bytes, other: bytes) -> str:
    try:
        return _differing(json.loads(one), json.loads(other))
    except (ValueError, TypeError, KeyError, AttributeError):  # no tokenizer.json; its library will say what is wrong
        return ""


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:  # Any: JSON
    """The first thing by which two tokenizers divide text otherwise; not the ids of tokens, nor special tokens, which a
    text that is data never becomes, nor what is put around a text."""
    models = [side.get("model") or {} for side in (one, other)]
    pieces = [_pieces(side) for side in (one, other)]
    if pieces[0] != pieces[1]:
        return f"their vocabularies ({len(pieces[0]):,} and {len(pieces[1]):,} tokens)"
    if _merges(models[0]) != _merges(models[1]):
        return "their merges"
    for name in ("normalizer", "pre_tokenizer"):
        if one.get(name) != other.get(name):
            return f"their {name.replace('_', '-')}s"
    if _added(one) != _added(other):
        return "their added tokens"
    rest = [{k: v for k, v in model.items() if k not in ("vocab", "merges") and v} for model in models]
    return "" if rest[0] == rest[1] else "their settings"


def _pieces(tokenizer: Mapping[str, Any]) -> dict[str, float]:  # Any: JSON
    """Tokens that text can become, with what a Unigram vocabulary gives each; 0 for other kinds."""
    vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
    special = {t["content"] for t in tokenizer.get("added_tokens") or () if t.get("special")}
    found = dict.fromkeys(vocabulary, 0.0) if isinstance(vocabulary, dict) else dict(vocabulary)
    return {piece: weight for piece, weight in found.items() if piece not in special}


def _merges(model: Mapping[str, Any]) -> list[tuple[str, ...]]:  # Any: JSON
    return [tuple(m.split(" ") if isinstance(m, str) else m) for m in model.get("merges") or ()]


def _added(tokenizer: Mapping[str, Any]) -> list[tuple[object, ...]]:  # Any: JSON
    plain = [t for t in tokenizer.get("added_tokens") or () if not t.get("special")]
    return sorted((tuple(t.get(name) for name in _SEEN) for t in plain), key=str)
