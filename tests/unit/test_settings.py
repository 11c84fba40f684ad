"""Which settings decide a result, and how two sets of them are told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesift import INCIDENTAL, Recipe, Settings
from tunesift.catalogue import AnyMethod as AnyMethod  # loads every class that a recipe may name
from tunesift.settings import canonical, differences, digest, field_names, incidental_fields, semantic, settings_within

OPERATIONAL = {
    "Recipe": {"input", "output", "folder", "execution", "budget", "reuse", "max_failures", "max_bad"},
    "Debatune": {"max_duplicates"},
    "GenQA": {"topics", "against", "cold", "draws_per_row", "max_duplicates"},
    "Budget": {"max_cost", "max_tokens", "max_calls", "prices", "ask_above"},
    "Local": {"chunk", "stall_s"},
    "Training": {"device_batch", "gradient_checkpointing", "save_every"},
    "SFT": {"device_batch", "gradient_checkpointing", "save_every"},
    "LookAtImages": {"images"},
    "VisionDPO": {"device_batch", "gradient_checkpointing", "save_every", "template"},
    "VisionModel": {"batch_tokens", "device", "images"},
    "DPO": {"device_batch", "gradient_checkpointing", "save_every"},
    "RewardTuner": {"gradient_checkpointing", "save_every"},
    "LocalModel": {"device", "batch_tokens"},
    "RewardClassifier": {"device", "batch_tokens"},
    "TunedReward": {"place", "device", "batch_tokens"},
    "TransformersModel": {"device", "batch_tokens"},
    "TunedModel": {"place", "device", "batch_tokens"},
    "NliModel": {"device", "batch"},
    "ScriptedModel": {"concurrency"},
    "SentenceModel": {"device", "batch"},
    "Batching": {"chunk", "concurrency", "poll_s", "window"},
    "HttpModel": {
        "url", "key_env", "concurrency", "timeout_s", "insecure", "trust_env", "stream", "pin_served_model", "tokens_name",
        "losses", "images", "batch",
    },
}  # fmt: skip
"""Settings of place, speed and patience: they may change between two lives of a run. All others decide its result."""


def classes(base: type = Settings) -> Iterator[type[Any]]:  # Any: a settings class
    for derived in base.__subclasses__():
        if derived.__module__.startswith("tunesift."):
            yield derived
            yield from classes(derived)


def test_every_setting_is_known_to_decide_the_result_or_not_to() -> None:
    marked = {c.__name__: set(incidental_fields(c)) for c in classes() if dataclasses.is_dataclass(c)}
    assert "Recipe" in marked
    assert {name: fields for name, fields in marked.items() if fields} == OPERATIONAL
    assert len(marked) > 12


@dataclass(frozen=True, kw_only=True)
class Model(Settings):
    """A model with a speed."""

    name: str = "a"
    speed: Annotated[int, INCIDENTAL] = 1
    maybe: Annotated[int | None, INCIDENTAL] = None


@dataclass(frozen=True, kw_only=True)
class Weights(Settings):
    """A model whose meaning lies in its folder."""

    folder: Annotated[Path, INCIDENTAL]

    def identity(self) -> str:
        return f"weights of {self.folder.name}"


@dataclass(frozen=True, kw_only=True)
class Method(Settings):
    """Something with models in it."""

    model: Model = Model()
    others: tuple[Model | Weights, ...] = ()
    by_name: Mapping[str, Model] = field(default_factory=dict)
    share: float = 0.5
    path: Path | None = None


def test_incidental_settings_are_left_out_at_any_depth() -> None:
    slow = Method(others=(Model(name="b"),), by_name={"x": Model()}, path=Path("a/b"))
    fast = Method(
        model=Model(speed=9),
        others=(Model(name="b", speed=9, maybe=1),),
        by_name={"x": Model(speed=9)},
        path=Path("a/b"),
    )
    assert semantic(slow) == semantic(fast) == {
        "model": {"name": "a"}, "others": [{"name": "b"}], "by_name": {"x": {"name": "a"}}, "share": 0.5, "path": "a/b",
    }  # fmt: skip
    assert incidental_fields(Model) == {"speed", "maybe"}


def test_a_setting_is_known_by_what_it_names_where_it_says_so() -> None:
    assert (
        semantic(Weights(folder=Path("/a/gpt")))
        == semantic(Weights(folder=Path("/b/gpt")))
        == {"identity": "weights of gpt"}
    )
    assert semantic(Weights(folder=Path("/a/llama"))) != semantic(Weights(folder=Path("/a/gpt")))


def test_what_is_no_setting_is_refused() -> None:
    for value in (object(), {1, 2}, Method, 1j):
        with pytest.raises(TypeError, match="is not a setting"):
            semantic(value)


def test_differences_are_named_by_their_path() -> None:
    old = semantic(Method(others=(Model(),)))
    new = semantic(Method(model=Model(name="b"), others=(Model(), Model()), share=0.25))
    assert differences(old, new) == [
        ("model.name", "a", "b"),
        ("others", [{"name": "a"}], [{"name": "a"}, {"name": "a"}]),
        ("share", 0.5, 0.25),
    ]
    twice = [semantic(Method(others=(Model(), Model(name=name)))) for name in "bc"]
    assert differences(twice[0], twice[1]) == [("others.1.name", "b", "c")]
    assert differences({"a": 1}, {"b": 2}) == [("a", 1, None), ("b", None, 2)]
    assert differences({}, {"new_setting": None}) == []


def test_true_is_not_one_and_a_number_is_not_its_text() -> None:
    assert differences({"a": True}, {"a": 1}) == [("a", True, 1)]
    assert differences({"a": [0, 1]}, {"a": [False, 1]}) == [("a.0", 0, False)]
    assert differences({"a": 1}, {"a": "1"}) == [("a", 1, "1")]
    assert differences({"a": 1}, {"a": 1.0}) == []


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_equal_settings_have_one_digest_and_no_differences(value: Any) -> None:  # Any: JSON
    def reversed_keys(v: Any) -> Any:  # Any: JSON
        if isinstance(v, dict):
            return {k: reversed_keys(v[k]) for k in reversed(list(v))}
        return [reversed_keys(i) for i in v] if isinstance(v, list) else v

    assert digest(value) == digest(reversed_keys(value))
    assert differences(value, reversed_keys(value)) == []
    assert len(digest(value)) == 32


def test_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical(float("nan"))
    assert canonical({"b": 1, "a": ["ü", None]}) == '{"a":["ü",null],"b":1}'.encode()


def test_settings_are_found_wherever_they_are_inside_one_another() -> None:
    method = Method(others=(Model(name="b"), Weights(folder=Path("w"))), by_name={"x": Model(name="c")})
    names = [getattr(s, "name", type(s).__name__) for s in settings_within(method)]
    assert names == ["Method", "a", "b", "Weights", "c"]
    assert settings_within(7) == []
    assert field_names(Model) == ["name", "speed", "maybe"]


def test_a_recipe_names_every_setting_once() -> None:
    assert len(set(field_names(Recipe))) == len(field_names(Recipe))
