"""What will a run ask for? Stages, passes, tokens, time and money, without loading weights or calling anyone."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tunesift.budget import Price
from tunesift.datasets import Dataset
from tunesift.errors import shown
from tunesift.models.endpoint import PROBE_TOKENS
from tunesift.models.folders import parameters
from tunesift.perform import asked as asked_models
from tunesift.perform import endpoints
from tunesift.readiness import check_given, check_trainings, missing, unnamed
from tunesift.reading import read
from tunesift.recipe import Recipe, check_input
from tunesift.running.result import Planned, kind_read, planned
from tunesift.tuning.forecast import BYTES_PER_TOKEN

REQUEST_BYTES = 512
"""Bytes of a request around what it asks, roles and settings."""
SHARE_OF_PEAK = 0.55
"""Part of the matrix rate that scoring reaches on a CPU (docs/speed.md), for the time to expect."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will ask for."""

    records: int
    broken: int
    tokens: int
    """Tokens of all texts once, estimated from their bytes."""
    stages: tuple[Planned, ...]
    seconds: float | None
    """Time to expect on this machine's processor; None where the model's size is not known here, or lies elsewhere."""
    expected: int
    """Requests to endpoints where all goes well, without probes."""
    calls: int
    """Most requests to endpoints, where none has to be tried again; a probe of each stage included."""
    probes: int
    """How many of these are probes: small requests that see, before the first of a stage, what an endpoint takes."""
    billed: int
    """Most tokens that those can be billed for: a token is at least a byte."""
    money: float | None
    """Most that they can cost; None where a model has no price."""
    expected_money: float | None
    """What those where all goes well cost, if an answer is as long as its record; None where a model has no price."""
    missing: tuple[str, ...]
    """Local models that are not here: where the recipe names them, and by what name."""
    unnamed: tuple[str, ...]
    """Models whose names the run asks of their endpoints first: where the recipe leaves them out, and whom it asks."""
    waits: int
    """Answers of endpoints that are waited for one after the other, at the concurrency that is set: the seconds to
    expect for each second that an answer takes."""

    @property
    def spares(self) -> bool:
        """Whether calls are made only where an earlier one came out so."""
        return self.expected + self.probes < self.calls


def plan(recipe: Recipe) -> Plan:
    """Read the data, ask the method for its stages, estimate; nothing is loaded, called or written."""
    check_input(recipe)
    check_given(recipe.method)
    check_trainings(recipe.method)
    data: Dataset[Any] = Dataset.of([])  # Any: of what the method reads
    if recipe.input:
        data = read(recipe.input, kind_read(recipe.method), recipe.reading)
    size = sum(len(m.text.encode()) for record in data for m in record.messages)
    tokens = int(size / BYTES_PER_TOKEN)
    stages = tuple(planned(recipe.method, data))
    at_once = {model.name: model.concurrency for model in asked_models(recipe)}
    models = endpoints(recipe)
    prices = recipe.budget.price_table({model.name for model in asked_models(recipe) if model.is_named})
    asked = [s for s in stages if s.model in models]
    each = math.ceil(size / max(1, len(data)))
    priced = models <= set(prices)
    return Plan(
        records=len(data), broken=len(data.source.broken) if data.source else 0, tokens=tokens, stages=stages,
        seconds=None if asked else _seconds(stages, tokens), calls=sum(s.items * s.forwards + 1 for s in asked),
        expected=sum(s.items * s.forwards for s in asked if not s.spare),
        probes=len(asked), billed=sum(sum(_bound(s, each)) for s in asked),
        money=sum(_micros(s, each, prices) for s in asked) / 1e6 if priced else None,
        expected_money=sum(_usual(s, each, prices) for s in asked if not s.spare) / 1e6 if priced else None,
        missing=tuple(f"{path}: {shown(name)}" for path, name in missing(recipe.method)),
        unnamed=tuple(f"{path}: is not given; the run first asks {shown(model.list_url)}, and takes "
                      "the one that it lists" for path, model in unnamed(recipe.method).items()),
        waits=_waits(asked, at_once),
    )  # fmt: skip


def _waits(asked: Sequence[Planned], at_once: Mapping[str, int]) -> int:
    """How many answers are waited for one after the other, a probe before each stage included."""
    longest: dict[str | int, int] = {}
    for number, stage in enumerate(asked):
        own = stage.rounds * math.ceil(stage.items * stage.forwards / stage.rounds / at_once[stage.model]) + 1
        together = stage.stage if stage.rounds > 1 else number
        longest[together] = max(own, longest.get(together, 0))
    return sum(longest.values())


def _bound(stage: Planned, each: int) -> tuple[int, int]:
    """Most tokens of all prompts and of all answers of a stage over records of so many bytes, its probe included."""
    passes = stage.items * stage.forwards
    return (passes + 1) * (each + stage.around + REQUEST_BYTES), passes * stage.answer + PROBE_TOKENS


def _micros(stage: Planned, each: int, prices: Mapping[str, Price]) -> int:
    return prices[stage.model].micros(*_bound(stage, each))


def _usual(stage: Planned, each: int, prices: Mapping[str, Price]) -> int:
    """What a stage costs where all goes well, if an answer is as long as its record."""
    passes = stage.items * stage.forwards
    prompt, answer = (each + stage.around) / BYTES_PER_TOKEN, min(stage.answer, each / BYTES_PER_TOKEN)
    return prices[stage.model].micros(math.ceil(passes * prompt), math.ceil(passes * answer))


def _seconds(stages: tuple[Planned, ...], tokens: int) -> float | None:
    sizes = {s.model: parameters(s.model) for s in stages if s.forwards}
    if any(size is None for size in sizes.values()):
        return None
    operations = sum(2.0 * (sizes[s.model] or 0) * tokens * s.forwards for s in stages if s.forwards)
    return operations / (SHARE_OF_PEAK * matrix_rate()) if operations else 0.0


def matrix_rate(size: int = 768) -> float:
    """Floating-point operations per second of this processor in a float32 matrix product, measured for a moment."""
    a = np.ones((size, size), np.float32)
    a @ a  # the first product pays for waking the threads
    began, products = time.perf_counter(), 0
    while time.perf_counter() - began < 0.15:
        a @ a
        products += 1
    return 2.0 * size**3 * products / (time.perf_counter() - began)
