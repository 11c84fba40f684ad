"""A training on a GPU: in bfloat16 where nothing else is said, and packed where FlashAttention is there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.tiny import MakeTiny
from harness.training import letters, student
from tunesift import SFT, Run, TransformersModel, Tuning
from tunesift.running.local import Local
from tunesift.tuning.process import Trained, told

torch = pytest.importorskip("torch", reason='needs the "local" extra')
pytest.importorskip("trl", reason='needs the "train" extra')
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]

TUNER = SFT(batch=4, steps=20, learning_rate=3e-3)


def trained(place: Path, folder: Path, tuner: SFT) -> Trained:
    with Run(place, Local()) as run:
        return told(run.once("tune", Tuning(student=TransformersModel(name=str(folder)), tuner=tuner), letters(40)))


def test_a_training_takes_bfloat16_by_itself_and_goes_where_float32_goes(make_tiny: MakeTiny, tmp_path: Path) -> None:
    folder = student(make_tiny)
    half = trained(tmp_path / "auto", folder, TUNER)
    whole = trained(tmp_path / "float32", folder, replace(TUNER, precision="float32"))
    assert (half.device, half.precision, whole.precision) == ("cuda", "bfloat16", "float32")
    assert half.history[0]["loss"] == pytest.approx(whole.history[0]["loss"], abs=0.05)
    assert half.history[-1]["loss"] < 0.9 * half.history[0]["loss"]


def test_packed_records_see_only_themselves(make_tiny: MakeTiny, tmp_path: Path) -> None:
    pytest.importorskip("flash_attn", reason="packing needs FlashAttention")
    folder = student(make_tiny)
    apart = trained(tmp_path / "apart", folder, replace(TUNER, batch=40, steps=1, max_length=256))
    packed = trained(tmp_path / "packed", folder, replace(TUNER, batch=40, steps=1, max_length=256, packing=True))
    assert packed.history[0]["loss"] == pytest.approx(apart.history[0]["loss"], rel=0.05)
