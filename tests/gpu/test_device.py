"""Losses on a GPU are those of the processor."""

from __future__ import annotations

import pytest

from tunesift import Failure, Span, TransformersModel

torch = pytest.importorskip("torch", reason='needs the "local" extra')


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
def test_losses_on_a_gpu_equal_those_on_the_processor() -> None:
    spans = [Span("Name a river.", "The Rhine."), Span("", "A much longer response, word after word. " * 20)]
    here, there = (TransformersModel(device=device).loss(spans) for device in ("cpu", "cuda"))
    for ours, theirs in zip(here, there, strict=True):
        assert not isinstance(ours, Failure)
        assert not isinstance(theirs, Failure)
        assert theirs.nats == pytest.approx(ours.nats, abs=1e-3)
