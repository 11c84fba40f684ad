"""Losses of texts in packs, of many architectures: ours against each text by itself, in float64, without padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason='needs the "local" extra')
import slow  # noqa: E402
import transformers  # noqa: E402

from harness.tiny import MakeTiny  # noqa: E402
from tunesift import Span, TargetLoss, TransformersModel  # noqa: E402
from tunesift.models import transformers as local  # noqa: E402
from tunesift.models.likelihood import SpanEncoder  # noqa: E402

LENGTH = 400
PLAIN: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": LENGTH, "bos_token_id": 0, "eos_token_id": 1,
    "initializer_range": 0.2, "pad_token_id": None,
}  # fmt: skip
HEAD_DIM: dict[str, Any] = {"head_dim": 16}
SHAPES: dict[str, dict[str, Any]] = {
    "Llama": {}, "Qwen2": {}, "Qwen3": HEAD_DIM, "Mistral": {"sliding_window": None}, "Gemma": HEAD_DIM,
    "Olmo2": {}, "Phi3": {}, "Phi": {}, "GPTNeoX": {}, "StableLm": {}, "SmolLM3": {}, "GPT2": {},
}  # fmt: skip
INTRO = "Below is an instruction. Write a response.\n\n"
SPANS = [
    *(Span(f"{INTRO}### Say: {text}\n\n### Answer:", f" It is {text}, {n} of them.") for n, text in
      enumerate(["one thing", "the other", "the other", "something longer than the rest " * 3, "\U0001f642"])),
    Span(f"{INTRO}### Say: the other\n\n### Answer:", " It is the other, 1 of them."),  # once more
    *(Span("", f" It is thing {n}, or some other thing, " * (n + 1)) for n in range(4)),
    Span(INTRO, "### Say: one thing"),  # the beginning of another
    Span(INTRO + "### Say", ""),
    Span("", ""),
    Span("", "x"),
    *(Span(f"{INTRO}Rate it.\n{text}\nThe score is ", str(n)) for text in ("good", "bad") for n in range(5)),
    Span("A very long one. " * 12, "In the end, it goes on and on and on, " * 4),
]  # fmt: skip


def made(make_tiny: MakeTiny, kind: str, **more: Any) -> Path:
    """The folder of a tiny random model of an architecture."""
    folder = make_tiny("llama", length=LENGTH)
    size = len(transformers.AutoTokenizer.from_pretrained(folder))
    shape = getattr(transformers, f"{kind}Config")(vocab_size=size, **{**PLAIN, **SHAPES.get(kind, {}), **more})
    torch.manual_seed(0)
    names = {"GPT2": "GPT2LMHeadModel"}
    getattr(transformers, names.get(kind, f"{kind}ForCausalLM"))(shape).save_pretrained(folder)
    return folder


def one_by_one(folder: Path, span: Span) -> list[float]:
    """Losses of one span's target in float64, by a pass of its own."""
    segment = SpanEncoder(transformers.AutoTokenizer.from_pretrained(folder), LENGTH)(span)
    ids, start = segment.ids, segment.start
    with torch.no_grad():
        chances = slow._model(folder)(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [-float(chances[place - 1, ids[place]]) for place in range(start, len(ids)) if place > 0]


def means(losses: list[list[float]]) -> list[float]:
    return [sum(nats) / len(nats) for nats in losses if nats]


def agree(folder: Path, spans: list[Span], tokens: int) -> list[TargetLoss]:
    """Losses that are those of the spans one by one, to 1e-5, in the same order from the largest to the smallest."""
    got = TransformersModel(name=str(folder), batch_tokens=tokens).loss(spans)
    found = [loss for loss in got if isinstance(loss, TargetLoss)]
    assert len(found) == len(spans)
    expected = [one_by_one(folder, span) for span in spans]
    for ours, plain, span in zip(found, expected, spans, strict=True):
        assert list(ours.nats) == pytest.approx(plain, abs=1e-5), span
    here, there = means([list(loss.nats) for loss in found]), means(expected)
    for n, (a, b) in enumerate(zip(here, there, strict=True)):
        for c, d in list(zip(here, there, strict=True))[:n]:
            assert abs(b - d) < 1e-9 or (a < c) == (b < d)
    return found


def reads_packs(folder: Path) -> bool:
    return local._weights(TransformersModel(name=str(folder))).packed is not None


@pytest.mark.parametrize("kind", SHAPES)
def test_losses_in_packs_are_those_of_each_text_by_itself(
    make_tiny: MakeTiny, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made(make_tiny, kind)
    agree(folder, SPANS, 2048)
    assert reads_packs(folder)
    assert not caplog.records
