"""Is there everything that a run will ask for? Known before anything is read, and before anybody is paid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from tunesift.catalogue import AnyMethod
from tunesift.datasets import Dataset
from tunesift.errors import MissingExtra, ModelError, ModelUnavailable, RecipeError, shown
from tunesift.language import languages, scripts
from tunesift.methods.mctune import MCTune
from tunesift.methods.mctune_taggers import SpacyTagger
from tunesift.methods.select import Select
from tunesift.methods.selectit import SelectIT
from tunesift.methods.selective_reflection import SelectiveReflection
from tunesift.methods.sima import Sima
from tunesift.methods.star_agents import StarAgents
from tunesift.models.alike import check_tokenizers, check_two
from tunesift.models.folders import EMBEDDED, base_of, is_here, local_folder, sees
from tunesift.models.http import NOT_GIVEN, HttpModel
from tunesift.models.nli import NliModel
from tunesift.models.reward import RewardClassifier, check_template
from tunesift.models.sentences import SentenceModel
from tunesift.models.transformers import TransformersModel
from tunesift.models.transport import Way
from tunesift.models.vision import VisionModel
from tunesift.records import Preference, Record
from tunesift.scoring.dual_ifd import DualIFD
from tunesift.scoring.ifd import READINGS
from tunesift.settings import Settings, settings_by_path
from tunesift.tuning.base import Training
from tunesift.tuning.student import check_trainable
from tunesift.tuning.vision_dpo import VisionDPO
from tunesift.tuning.vision_parts import check_parts

SAMPLED = 1_000
"""Records, from the first on, whose language is looked at."""
MANY = 0.1
"""Share of these from which on it is told that they are not in English."""
PAIRS = (DualIFD, StarAgents)
"""Settings that weigh a model `small` against a model `large` by a `ratio`."""
MOST_NAMED = 6
"""Models of an endpoint that a sentence names."""
_LOOKED_AT = 500
"""Characters of a response whose language is looked at."""
_READERS = ("student", "model", "small", "large")
"""Settings whose model reads the records."""
_WITH_TORCH = (TransformersModel, NliModel, RewardClassifier)
_NOT_MADE_FOR: Mapping[type, str] = {
    SelectIT: "records are rated by the scorer that comes with the package, which is not made for ratings",
    SelectiveReflection: "records are judged by the scorer that comes with the package, which is not made for judging",
}


def check_given(method: AnyMethod) -> None:
    """Raise `RecipeError` where a model is still to be given, or is asked to chat and cannot.

    The name of one whose address is given may be missing: the run asks that address for it.
    """
    wrong = []
    chats: tuple[str, ...] = getattr(method, "chats", ())
    for path, model in settings_by_path(method):
        if isinstance(model, HttpModel) and not model.is_placed:
            wrong.append(_to_place(path, model))
        elif isinstance(model, TransformersModel | RewardClassifier) and model.name == NOT_GIVEN:
            wrong.append(f"{path}: is not given; write {path}.name=FOLDER.")
        elif _is_embedded(model) and path.rstrip(".0123456789") in chats:
            wrong.append(f"{path}: the scorer that comes with the package does not chat; write {path}.name=FOLDER, or "
                         f"{path}.kind=http {path}.url=URL {path}.model=NAME.")  # fmt: skip
    if wrong:
        raise RecipeError(*wrong)
    check_pairs(method)


def check_pairs(method: AnyMethod) -> None:
    """Raise `RecipeError` for a small and a large model that are one, or that read other tokens where that matters."""
    for path, pair in settings_by_path(method):
        if isinstance(pair, PAIRS):
            place = f"{path}." if path else ""
            check_two(pair.small, pair.large, place)
            if pair.ratio == "perplexity":
                check_tokenizers(pair.small, pair.large, place)


def _to_place(path: str, model: HttpModel) -> str:
    """What of an endpoint is still to be given."""
    if not model.is_named:
        return f"{path}: is not given; write {path}.url=http://localhost:8000/v1 {path}.model=NAME."
    return f"{path}.url: is not given; write {path}.url=http://localhost:8000/v1."


def unnamed(method: AnyMethod) -> dict[str, HttpModel]:
    """Models whose name is left to their endpoint, by the path of that setting."""
    found = ((path, model) for path, model in _asked(method) if isinstance(model, HttpModel))
    return {f"{path}.model": model for path, model in found if not model.is_named}


def names_from_endpoints(method: AnyMethod, before: Mapping[str, str]) -> dict[str, str]:
    """What those models are called, by the same paths, as their endpoints list them; nothing is paid for that.

    `before` has the names that an earlier life of the run took: where several models are served now, they stand. Raises
    `RecipeError` where an endpoint lists none, or several, and `ModelError` where it cannot be asked.
    """
    open_, wrong, names = unnamed(method), [], dict[str, str]()
    lists: dict[tuple[Way, str | None], tuple[str, ...]] = {}
    for path, model in open_.items():
        there = (model.way, model.key_env)
        if there not in lists:
            lists[there] = _served(path, model)
        listed = lists[there]
        if len(listed) != 1 and before.get(path) not in listed:
            wrong.append(_none_or_several(path, model, listed))
        names[path] = listed[0] if len(listed) == 1 else before.get(path, "")
    if wrong:
        raise RecipeError(*wrong)
    return names


def _served(path: str, model: HttpModel) -> tuple[str, ...]:
    try:
        return model.served()
    except ModelError as error:
        said = f"{path}: is not given, and could not be asked for: {str(error).rstrip('.')}"
        raise type(error)(f"{said}; or write {path}=NAME.") from None


def _none_or_several(path: str, model: HttpModel, listed: Sequence[str]) -> str:
    said = f"{path}: is not given, and {shown(model.list_url)} lists"
    if not listed:
        return f"{said} no model; write {path}=NAME."
    more = f" and {len(listed) - MOST_NAMED} more" if len(listed) > MOST_NAMED else ""
    names = f"{', '.join(map(shown, listed[:MOST_NAMED]))}{more}"
    return f"{said} {len(listed)}: {names}; write {path}={shown(listed[0])}, or another of them."


def missing(method: AnyMethod) -> Iterator[tuple[str, str]]:
    """Where a method names a local model that is not here, and its name; nothing is loaded, and nobody asked."""
    for path, model in _asked(method):
        if isinstance(model, HttpModel) and model.tokenizer is not None and not _is_here(model.tokenizer, None):
            yield f"{path}.tokenizer", model.tokenizer
        if isinstance(model, TransformersModel | NliModel | SentenceModel | RewardClassifier):
            revision = None if isinstance(model, NliModel) else model.revision
            if not _is_here(model.name, revision):
                yield path, model.name


def _asked(method: AnyMethod) -> Iterator[tuple[str, Settings]]:
    """The settings within a method, without the students of scorers that its selector does without."""
    planned = {stage.model for stage in method.plan(1)}
    for path, found in settings_by_path(method):
        of_scorer = isinstance(method, Select) and path.partition(".")[0] in ("scorer", "also")
        if not of_scorer or getattr(found, "name", "") in planned:
            yield path, found


def _is_here(name: str, revision: str | None) -> bool:
    try:
        return is_here(name, revision)
    except ModelUnavailable:  # a path that leads nowhere
        return False


def check_here(method: AnyMethod) -> None:
    """Raise `ModelUnavailable` for a local model that is not here, `MissingExtra` where none could be loaded, and
    `RecipeError` where one is to read images and does not, or the student cannot be trained as is asked for.

    A run downloads nothing: what a hub has is fetched before it.
    """
    lost = [_nowhere(path, name) for path, name in missing(method)]
    if lost:
        raise ModelUnavailable(*lost)
    if lacking := lacking_extras(method):
        raise MissingExtra(*lacking)
    for path, model in _asked(method):
        if isinstance(model, RewardClassifier):
            check_template(path, model)
        if isinstance(model, VisionModel) and sees(model.location, model.revision) is False:
            raise RecipeError(f"{path}.name: {shown(model.name)} reads no images; give a vision-language model, "
                              "such as a LLaVA.")  # fmt: skip
    check_trainings(method)
    student = getattr(method, "student", None)
    for _, tuner in _asked(method):
        if isinstance(tuner, VisionDPO) and isinstance(student, VisionModel):
            check_parts(student, tuner)


def check_trainings(method: AnyMethod) -> None:
    """Raise `RecipeError` where a student cannot be trained as is asked for, `ModelUnavailable` where its GPU is not
    here; of a student that is not here itself, nothing is known."""
    student = getattr(method, "student", None)
    if not isinstance(student, TransformersModel) or not _is_here(student.name, student.revision):
        return
    for _, tuner in _asked(method):
        if isinstance(tuner, Training):
            check_trainable(student, tuner)


def lacking_extras(method: AnyMethod) -> list[str]:
    """Sentences about the extras that a method needs and that are not installed."""
    models = [model for _, model in _asked(method)]
    needs = (
        ("local", ("torch", "transformers"), "local models", any(isinstance(m, _WITH_TORCH) for m in models)),
        ("embed", ("sentence_transformers",), "a sentence encoder", any(isinstance(m, SentenceModel) for m in models)),
        ("train", ("trl", "peft", "datasets"), "tuning", any(isinstance(m, Training) for m in models)),
        (
            "train",
            ("peft",),
            "a model of adapters",
            any(isinstance(m, TransformersModel) and _adapts(m) for m in models),
        ),
        ("vision", ("PIL",), "a model that reads images", _sees(method, models)),
        ("pos", ("spacy",), "a tagger of spaCy", any(isinstance(m, SpacyTagger) for m in models)),
        ("cluster", ("sklearn",), "the pre-experience sample", getattr(method, "pre_experience", None) is not None),
    )
    return [
        f'{what}: needs the "{extra}" extra; write pip install "tunesift[{extra}]", in a clone ".[{extra}]".'
        for extra, libraries, what, needed in needs
        if needed and any(find_spec(library) is None for library in libraries)
    ]


def _sees(method: AnyMethod, models: Sequence[Settings]) -> bool:
    """Whether images are opened here: for a model here, or, whoever answers, by a page that looks at them first."""
    return isinstance(method, Sima) or any(isinstance(model, VisionModel) for model in models)


def _adapts(model: TransformersModel) -> bool:
    """Whether a model is a folder of adapters; a path that leads nowhere is none."""
    try:
        folder = local_folder(model.location)
    except ModelUnavailable:
        return False
    return folder is not None and base_of(folder) is not None


def _nowhere(path: str, name: str) -> str:
    try:
        local_folder(name)
    except ModelUnavailable as error:
        return f"{path}: {error}"
    setting = path if path.endswith(".tokenizer") else f"{path}.name"
    said = f'{path}: model "{shown(name)}" is no folder here, and no copy from a hub is on this machine'
    return f"{said}; write {setting}=FOLDER, or fetch it with hf download {shown(name)}."


def tokens_read(method: AnyMethod) -> int | None:
    """Most tokens of one text that the method's local models read; None where that is not known, or differs."""
    found: set[int | None] = set()
    for _, owner in settings_by_path(method):
        reading = READINGS.get(getattr(owner, "profile", "canonical"))
        for model in (getattr(owner, name, None) for name in _READERS):
            if isinstance(model, TransformersModel):
                limits = [n for n in (model.most_tokens(), reading.limit if reading else None) if n is not None]
                found.add(min(limits, default=None))
    return found.pop() if len(found) == 1 else None


def doubts(method: AnyMethod, data: Dataset[Any]) -> dict[str, int]:  # Any: of what it reads
    """What a model or a measure of the method is not made for, and of how many records; a word, no error."""
    embedded = any(_is_embedded(model) for _, model in _asked(method))
    if not embedded and not isinstance(method, MCTune):
        return {}
    found = {said: len(data) for kind, said in _NOT_MADE_FOR.items() if embedded and isinstance(method, kind)}
    first = data[:SAMPLED]
    foreign = sum(map(_is_foreign, first))
    if foreign > MANY * len(first):
        what = "this scorer is" if embedded else "syllables and readability are"
        found[f"of the first {len(first):,} records are not in English, for which {what} not made"] = foreign
    return found


def _is_embedded(model: object) -> bool:
    return isinstance(model, TransformersModel) and model.name == EMBEDDED


def _is_foreign(record: Record | Preference) -> bool:
    """Whether a response, of a pair the chosen one, is certainly not in English."""
    said = (record.response if isinstance(record, Record) else record.chosen.text)[:_LOOKED_AT]
    found = scripts(said)
    if found and "latin" not in found:
        return True
    spoken = languages(said)
    return bool(spoken) and "en" not in spoken
