"""A number at the end of its range is accepted, and the next one beyond it is refused with a sentence that names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tunesift import (
    SFT,
    Agent,
    Analyser,
    Asking,
    Clear,
    Confident,
    Correct,
    Debating,
    Debatune,
    GenQA,
    Lists,
    LoRA,
    MCTune,
    MCTuneEvaluate,
    NliModel,
    Parroting,
    PreExperience,
    Rater,
    RecipeError,
    RewardClassifier,
    ScriptedModel,
    SelectIT,
    SelectiveReflection,
    SentenceModel,
    StarAgents,
    TransformersModel,
    VisionModel,
    Writing,
)

TINY = 1e-9
SCRIPTED = ScriptedModel()
AGENTS = tuple(Agent(name=name, model=SCRIPTED) for name in ("one", "two"))


def correct(**given: Any) -> Correct:  # Any: settings
    return Correct(**{"tuned": (TransformersModel(name="tuned"),), **given})


def stars(**given: Any) -> StarAgents:  # Any: settings
    return StarAgents(**{"agents": AGENTS, "judge": SCRIPTED, "small": SCRIPTED, "large": SCRIPTED, **given})


def named(model: Callable[..., object]) -> Callable[..., object]:
    return lambda **given: model(name="folder", **given)


LOCAL = tuple((named(model), counts) for model, counts in (
    (TransformersModel, ("max_length", "batch_tokens")), (VisionModel, ("max_length", "batch_tokens")),
    (RewardClassifier, ("max_length", "batch_tokens")), (NliModel, ("max_length", "batch")), (SentenceModel, ("batch",)),
))  # fmt: skip
"""Models whose weights are here, and what of them is counted."""

RANGES: list[tuple[Callable[..., object], str, tuple[float, ...], tuple[float, ...]]] = [
    (PreExperience, "clusters", (1,), (0,)),
    (PreExperience, "per_cluster", (1,), (0,)),
    (PreExperience, "low", (0.0, 75.0), (-TINY, 75.1)),
    (PreExperience, "high", (100.0, 25.0), (100.1, 24.9)),
    (Confident, "fraction", (TINY, 1.0), (0.0, 1.1)),
    (Confident, "gamma", (0.0, 1.0), (-TINY, 1.1)),
    (Clear, "samples", (0,), (-1,)),
    (Clear, "max_tokens", (1,), (0,)),
    (Clear, "temperature", (0.0,), (-TINY,)),
    (Clear, "w_similarity", (0.0, 1.0), (-TINY, 1.1)),
    (Clear, "w_consistency", (0.0, 1.0), (-TINY, 1.1)),
    (correct, "threshold", (0.0, 1.0), (-TINY, 1.1)),
    (correct, "least_changed", (0.0, 1.0), (-TINY, 1.1)),
    (correct, "max_tokens", (1,), (0,)),
    (Parroting, "most_repeated", (TINY, 1.0), (0.0, 1.1)),
    (Parroting, "least_own", (0,), (-1,)),
    (lambda **given: Debatune(teacher=SCRIPTED, **given), "arguments", (1,), (0,)),
    (lambda **given: Debatune(teacher=SCRIPTED, **given), "rounds", (1,), (0,)),
    (lambda **given: Debatune(teacher=SCRIPTED, **given), "target", (1,), (0,)),
    (lambda **given: Debatune(teacher=SCRIPTED, **given), "max_duplicates", (0.0, 1.0), (-TINY, 1.1)),
    (Debating, "argument_tokens", (1,), (0,)),
    (Debating, "turn_tokens", (1,), (0,)),
    (Debating, "statement_tokens", (1,), (0,)),
    (Debating, "temperature", (0.0,), (-TINY,)),
    (Debating, "retries", (0,), (-1,)),
    (lambda **given: GenQA(model=SCRIPTED, **given), "count", (1,), (0,)),
    (lambda **given: GenQA(model=SCRIPTED, **given), "balance", (0.0, 1.0), (-TINY, 1.1)),
    (lambda **given: GenQA(model=SCRIPTED, **given), "tries", (0,), (-1,)),
    (lambda **given: GenQA(model=SCRIPTED, **given), "round", (1,), (0,)),
    (lambda **given: GenQA(model=SCRIPTED, **given), "measured", (2,), (1,)),
    (lambda **given: GenQA(model=SCRIPTED, **given), "max_tokens", (1,), (0,)),
    (lambda **given: GenQA(model=SCRIPTED, **given), "draws_per_row", (1.0,), (0.999,)),
    (lambda **given: GenQA(model=SCRIPTED, **given), "temperature", (0.5,), (0.499,)),
    (lambda **given: GenQA(model=SCRIPTED, **given), "max_duplicates", (0.0, 1.0), (-TINY, 1.1)),
    (Lists, "subtopics", (1,), (0,)),
    (Lists, "topics", (1,), (0,)),
    (Lists, "nested", (1,), (0,)),
    (Lists, "reuse", (1,), (0,)),
    (lambda **given: MCTune(**{"analyser": Analyser(), **given}), "most_controls", (1, 5), (0, 6)),
    (MCTune, "held_out", (0,), (-1,)),
    (MCTune, "draws", (1,), (0,)),
    (MCTune, "sigma", (0.0, 10.0), (-TINY, 10.1)),
    (lambda **given: MCTuneEvaluate(model=SCRIPTED, **given), "max_tokens", (1,), (0,)),
    (Asking, "max_tokens", (1,), (0,)),
    (Asking, "longest", (1,), (0,)),
    (Asking, "retries", (0,), (-1,)),
    (Asking, "temperature", (0.0,), (-TINY,)),
    (lambda temperatures: Asking(retry_temperature=temperatures), "temperatures", (0.0,), (-TINY,)),
    (lambda **given: Rater(model=SCRIPTED, **given), "parameters", (TINY,), (0.0, -1.0)),
    (SelectIT, "ratings", (2, 9), (1, 10)),
    (SelectIT, "alpha", (0.0,), (-TINY,)),
    (SelectIT, "min_mass", (0.0, 1.0), (-TINY, 1.1)),
    (lambda **given: SelectiveReflection(teacher=SCRIPTED, **given), "fraction", (TINY, 1.0), (0.0, 1.1)),
    (lambda **given: stars(from_near=0, **given), "draws", (1,), (0,)),
    (stars, "near", (0,), (-1,)),
    (stars, "from_near", (0, 4), (-1,)),
    (stars, "judge_tokens", (1,), (0,)),
    (stars, "round_size", (1,), (0,)),
    (stars, "rate", (TINY,), (0.0,)),
    (stars, "floor", (0.0, 0.499), (-TINY, 0.5)),
    (Writing, "temperature", (0.0,), (-TINY,)),
    (Writing, "instruction_tokens", (1,), (0,)),
    (Writing, "response_tokens", (1,), (0,)),
    (LoRA, "rank", (1,), (0,)),
    (LoRA, "alpha", (1,), (0,)),
    (LoRA, "dropout", (0.0, 0.999), (-TINY, 1.0)),
    *((model, name, (1,), (0, -1)) for model, counts in LOCAL for name in counts),
    (SFT, "batch", (1,), (0,)),
    (SFT, "device_batch", (1,), (0,)),
    (SFT, "save_every", (1,), (0,)),
    (SFT, "steps", (1,), (0,)),
    (SFT, "max_length", (1,), (0,)),
    (SFT, "epochs", (TINY,), (0.0,)),
    (SFT, "learning_rate", (TINY,), (0.0,)),
    (SFT, "weight_decay", (0.0,), (-TINY,)),
    (SFT, "warm_up", (0.0, 1.0), (-TINY, 1.1)),
    (SFT, "held_out", (0.0, 0.999), (-TINY, 1.0)),
    (SFT, "seed", (0, 2**32 - 1), (-1, 2**32)),
]


@pytest.mark.parametrize("range_", RANGES, ids=lambda r: f"{getattr(r[0], '__name__', '')}-{r[1]}")
def test_a_range_ends_where_it_says(
    range_: tuple[Callable[..., object], str, tuple[float, ...], tuple[float, ...]],
) -> None:
    make, name, inside, outside = range_
    for value in inside:
        make(**{name: value})
    for value in outside:
        with pytest.raises(RecipeError) as caught:
            make(**{name: value})
        assert name in str(caught.value) or "percentiles" in str(caught.value)
