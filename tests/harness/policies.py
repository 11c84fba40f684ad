"""A policy that is a table of probabilities, in place of a model: it says so many words, and learns by DPO's gradient."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tunesift import Completion, Message, TransformersModel, Tuning
from tunesift.datasets import Dataset
from tunesift.models.base import Sampling, Span, TargetLoss
from tunesift.running.sealing import seal
from tunesift.running.step import Watch

LENGTHS = 15
"""A policy says 1 to 15 words."""
TABLE = "policy.json"
Table = dict[str, list[float]]
"""Logits of the lengths, by prompt."""


def drawn_table(seed: int, count: int) -> Table:
    """Prompts whose answers are about as long as each other's, each about a length of its own."""
    draw = random.Random(seed)
    return {f"p{n:02}": [-((k - centre) ** 2) / 18 for k in range(1, LENGTHS + 1)]
            for n in range(count) for centre in [draw.uniform(1, LENGTHS)]}  # fmt: skip


def chances(logits: Sequence[float]) -> list[float]:
    """Softmax."""
    most = max(logits)
    parts = [math.exp(z - most) for z in logits]
    return [p / sum(parts) for p in parts]


def learned(policy: Mapping[str, list[float]], initial: Mapping[str, list[float]], pairs: Dataset[Any]) -> Table:
    """The table after one pass of gradient steps on the weighted loss, whose gradient is the paper's."""
    new = {prompt: list(logits) for prompt, logits in policy.items()}
    for pair in pairs:
        prompt, (w, x) = pair.prompt[-1].text, (len(side.text.split()) - 1 for side in (pair.chosen, pair.rejected))
        now, before = (chances(table[prompt]) for table in (new, initial))
        h = math.log(now[w] / before[w]) - math.log(now[x] / before[x])
        step = 20.0 * pair.extra["weight"] * 0.1 / (1 + math.exp(0.1 * h))
        new[prompt][w] += step
        new[prompt][x] -= step
    return new


def expected(policy: Mapping[str, list[float]], favours: int = 8) -> float:
    """Mean of the stub reward under a policy, exactly."""
    each = [sum(p * -abs(n + 1 - favours) for n, p in enumerate(chances(logits))) for logits in policy.values()]
    return sum(each) / len(each)


def read(folder: Path) -> Table:
    """The table in a folder."""
    table: Table = json.loads((folder / TABLE).read_text())
    return table


@contextmanager
def simulated() -> Iterator[tuple[list[tuple[int, Sampling]], list[Tuning]]]:
    """Students answer, and are trained, by their tables; yields the lengths of all answers with how they were asked
    for, and all trainings."""
    said: list[tuple[int, Sampling]] = []
    tuned: list[Tuning] = []

    def chat(model: TransformersModel, asked: Sequence[Sequence[Message]], sampling: Sampling) -> list[Completion]:
        weights = chances(read(Path(model.location))[asked[0][-1].text])
        drawn = random.Random(sampling.seed).choices(range(LENGTHS), weights)[0] + 1
        said.append((drawn, sampling))
        return [Completion(" ".join("w" * drawn), "stop", drawn)]

    def loss(model: TransformersModel, spans: Sequence[Span]) -> list[TargetLoss]:
        table = read(Path(model.location))
        each = [chances(table[span.context[-1].text])[len(span.target.split()) - 1]  # type: ignore[union-attr]
                for span in spans]  # fmt: skip
        return [TargetLoss((-math.log(p),), truncated=False) for p in each]

    def train(asked: Tuning, data: Dataset[Any], into: Path, watch: Watch) -> None:
        tuned.append(asked)
        kept = getattr(asked.tuner, "reference", None) or asked.student
        (into / "model").mkdir()
        (into / "model/config.json").write_text("{}")
        table = learned(read(Path(asked.student.location)), read(Path(kept.location)), data)
        (into / "model" / TABLE).write_text(json.dumps(table))
        seal(into / "model", {"history": [], "steps": 1, "records": len(data), "left_out": {}, "tokens": 0,
                              "device": "cpu", "precision": "float64", "peak_bytes": 0}, digests=True)  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransformersModel, "chat", chat)
        patch.setattr(TransformersModel, "loss", loss)
        patch.setattr(Tuning, "__call__", train)
        yield said, tuned
