"""What a training on images takes as its reference, and which rows it can do without."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.seeing import job, llava, pair, pictured, trained
from tunesift import Dataset, LoRA, VisionDPO, VisionModel

pytest.importorskip("trl", reason='needs the "train" extra')


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What TRL, PEFT and transformers say to one another is theirs."""
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning, UserWarning):
            warnings.simplefilter("ignore", kind)
        yield


def test_all_weights_of_an_adapted_student_are_held_to_the_student_and_not_to_what_it_was_made_of(
    tmp_path: Path,
) -> None:
    """A second round: the adapters of the first are a part of the reference, so that its first loss is ln 2."""
    pictured(tmp_path / "data", 2)
    base = VisionModel(name=str(llava(tmp_path / "llava")), device="cpu", images=tmp_path / "data")
    data = Dataset.of([pair(f"p{n}", f"{n}.png", rejected="A dog. " * (n + 1)) for n in range(2)])
    once = VisionDPO(steps=3, batch=2, learning_rate=1e-2, warm_up=0.0, lora=LoRA(rank=4, alpha=8, dropout=0.0))
    first = trained(job(tmp_path / "one", base, once, data))
    assert first.history[-1]["loss"] < math.log(2) - 1e-3  # the adapters have learned something
    adapted = VisionModel(name=str(tmp_path / "one" / "model"), device="cpu", images=tmp_path / "data")
    again = VisionDPO(steps=1, batch=2, learning_rate=1e-3, warm_up=0.0, lora=None)
    found = trained(job(tmp_path / "two", adapted, again, data))
    assert found.history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
