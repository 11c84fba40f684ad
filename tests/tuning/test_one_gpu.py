"""Which GPU does a training see? One, whatever the machine has."""

from __future__ import annotations

import pytest

from tunesift.tuning.child import on_one_gpu


@pytest.mark.parametrize(("device", "before", "called", "after"), [
    ("auto", None, "auto", "0"),
    ("cuda", None, "cuda", "0"),
    ("cuda:1", None, "cuda", "1"),
    ("auto", "2,3", "auto", "2"),
    ("cuda:1", "2,3", "cuda", "3"),
    ("cuda:1", "GPU-a,GPU-b", "cuda", "GPU-b"),
    ("cuda:5", "2,3", "cuda:5", "2,3"),  # is not there, and loading says so
    ("auto", "", "auto", ""),  # none is to be seen
    ("cpu", "2,3", "cpu", "2,3"),
    ("mps", None, "mps", None),
])  # fmt: skip
def test_a_training_sees_one_gpu(device: str, before: str | None, called: str, after: str | None) -> None:
    environment = {} if before is None else {"CUDA_VISIBLE_DEVICES": before}
    assert on_one_gpu(device, environment) == called
    assert environment.get("CUDA_VISIBLE_DEVICES") == after
