"""Losses of texts in packs, of many architectures: ours against each text by itself, in float64, without padding."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason='needs the "local" extra')
import slow  # noqa: E402
import transformers  # noqa: E402

from harness.tiny import MakeTiny  # noqa: E402
from tunesift import Span, TargetLoss, TransformersModel, heartbeat  # noqa: E402
from tunesift.models import lastlayer, lse, packed, products  # noqa: E402
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
    "DeepseekV3": {"first_k_dense_replace": 2, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16,
                   "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12, "n_routed_experts": 8},
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
    size = len(transformers.AutoTokenizer.from_pretrained(folder)) + 8  # some add a token to pad with
    shape = getattr(transformers, f"{kind}Config")(vocab_size=size, **{**PLAIN, **SHAPES.get(kind, {}), **more})
    torch.manual_seed(0)
    names = {"GPT2": "GPT2LMHeadModel", "OpenAIGPT": "OpenAIGPTLMHeadModel"}
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


@pytest.fixture
def worked_on(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that each network of a Llama's layers is asked for."""
    seen: list[int] = []
    network = transformers.models.llama.modeling_llama.LlamaMLP
    plain = network.forward

    def forward(self: Any, hidden: Any) -> Any:
        seen.append(hidden.shape[1])
        return plain(self, hidden)

    monkeypatch.setattr(network, "forward", forward)
    return seen


@pytest.mark.parametrize("kind", SHAPES)
def test_losses_in_packs_are_those_of_each_text_by_itself(
    make_tiny: MakeTiny, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made(make_tiny, kind)
    agree(folder, SPANS, 2048)
    assert reads_packs(folder)
    assert not caplog.records


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.dtype]]:
    """A processor of AMD's with AVX-512, whatever this one is; types of the weights that oneDNN is given."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.cpu, "get_capabilities"):
        pytest.skip("this torch has no oneDNN, or cannot say what processor it runs on")
    plain, seen = torch.ops.mkldnn._linear_pointwise, []

    def counted(rows: Any, weight: Any, *more: Any) -> Any:
        seen.append(weight.dtype)
        return plain(rows, weight, *more)

    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": "AMD EPYC 9005", "avx512_f": True})
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    products.product.cache_clear()
    yield seen
    products.product.cache_clear()


@pytest.mark.parametrize(("kind", "matrices"), [("Llama", 7), ("GPT2", 4), ("Phi3", 4)])
def test_products_by_onednn_give_the_same_losses(
    make_tiny: MakeTiny, kind: str, matrices: int, onednn: list[torch.dtype]
) -> None:
    """All matrices of both layers, and the head; GPT-2's have a bias and stand the other way round."""
    folder = made(make_tiny, kind)
    assert reads_packs(folder)
    onednn.clear()
    agree(folder, SPANS[:10], 2048)
    assert len(onednn) == 2 * matrices + 1


def test_onednn_is_given_numbers_of_32_bits_only(make_tiny: MakeTiny, onednn: list[torch.dtype]) -> None:
    """The head's, which are made of those of 16."""
    folder = made(make_tiny, "Llama")
    model = TransformersModel(name=str(folder), dtype="bfloat16")
    assert local._weights(model).packed is not None
    onednn.clear()
    assert all(isinstance(loss, TargetLoss) for loss in model.loss(SPANS[:10]))
    assert onednn == [torch.float32]


@pytest.mark.parametrize(
    "told", [{"cpu_name": "Intel Xeon", "avx512_f": True}, {"cpu_name": "AMD EPYC 7003", "avx512_f": False}, {}]
)
def test_other_processors_multiply_as_torch_has_it(
    monkeypatch: pytest.MonkeyPatch, make_tiny: MakeTiny, onednn: list[torch.dtype], told: dict[str, Any]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told)
    agree(made(make_tiny, "Llama"), SPANS, 2048)
    assert not onednn


def test_products_have_few_numbers_of_rows(onednn: list[torch.dtype]) -> None:
    """oneDNN keeps code for each, up to a megabyte."""
    here, there = torch.device("cpu"), torch.device("cuda")
    assert {products.room(n, here) for n in range(1, 1025)} == {1, 2, 4, 8, 16, 32, 64, *range(128, 1025, 128)}
    assert all(products.room(n, here) >= n == products.room(n, there) for n in range(1, 9000))
    with products.multiplying(there):
        torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3))
    assert not onednn


def test_texts_of_many_lengths_make_no_more_code(
    make_tiny: MakeTiny, onednn: list[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TransformersModel(name=str(made(make_tiny, "Llama")))
    model.loss([])
    seen = set()
    counted = torch.ops.mkldnn._linear_pointwise

    def shaped(rows: Any, weight: Any, *more: Any) -> Any:
        seen.add((rows.shape[-2], tuple(weight.shape)))
        return counted(rows, weight, *more)

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", shaped)
    products.product.cache_clear()
    for length in range(20, 100, 3):
        model.loss([Span("", "ab " * length)])
    assert len(seen) > 5
    assert {rows for rows, _ in seen} <= {32, 64, 128, 256, 384}


def test_the_activation_of_gpt2_is_one_call(make_tiny: MakeTiny) -> None:
    """Its losses are held against transformers' own above."""
    model = local._weights(TransformersModel(name=str(made(make_tiny, "GPT2")))).model
    assert [type(layer.mlp.act) for layer in model.transformer.h] == [torch.nn.GELU] * 2


@pytest.mark.parametrize("tokens", [1, 60, 100, 300])
def test_packs_of_any_size_give_the_same_losses(make_tiny: MakeTiny, tokens: int) -> None:
    """Of the shortest, every text is longer than a pack."""
    agree(made(make_tiny, "Llama"), SPANS, tokens)


@pytest.mark.parametrize("kind", ["Mistral", "Qwen2"])
def test_a_text_longer_than_a_window_is_seen_through_the_window(make_tiny: MakeTiny, kind: str) -> None:
    more = {"use_sliding_window": True, "max_window_layers": 0} if kind == "Qwen2" else {}
    folder = made(make_tiny, kind, sliding_window=40, **more)
    whole = made(make_tiny, kind)
    (folder / "model.safetensors").write_bytes((whole / "model.safetensors").read_bytes())
    narrow, wide = agree(folder, SPANS, 2048), agree(whole, SPANS, 2048)
    assert reads_packs(folder)
    assert narrow[-1].nats != pytest.approx(wide[-1].nats, abs=1e-3), "the window is seen"


def test_places_that_are_stretched_for_a_long_text_are_not_for_a_short_one_beside_it(make_tiny: MakeTiny) -> None:
    stretch = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0}
    folder = made(make_tiny, "Llama", rope_parameters=stretch, max_position_embeddings=60)
    model = TransformersModel(name=str(folder), max_length=60)
    assert reads_packs(folder)
    assert all(isinstance(loss, TargetLoss) for loss in model.loss(SPANS))
    assert local._weights(model).packed.reach == 60  # type: ignore[union-attr]


UNFIT: dict[str, dict[str, Any]] = {
    "Gemma2": {"final_logit_softcapping": None, **HEAD_DIM},  # caps its attention
    "Bloom": {"n_head": 4},  # knows places by a bias of its own
    "Mamba": {"state_size": 4},  # sees all that was before it
    "GPTNeo": {"num_heads": 4, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    "OpenAIGPT": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": LENGTH},
}


@pytest.mark.parametrize("kind", UNFIT)
def test_a_model_that_reads_no_packs_is_named_and_its_texts_are_padded(
    make_tiny: MakeTiny, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made(make_tiny, kind, **UNFIT[kind])
    agree(folder, SPANS, 400)
    assert not reads_packs(folder)
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert [text for text in said if text.startswith(f"{folder}: ") and text.endswith("padded instead")] == said[:1]


def test_a_model_that_ignores_where_a_text_ends_is_found_out(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As one would whose every layer asks our attention, and mixes texts besides."""
    plain = transformers.models.llama.modeling_llama.LlamaMLP.forward

    def leaking(self: Any, hidden: Any) -> Any:
        return plain(self, hidden) + 0.1 * hidden.cumsum(1)

    monkeypatch.setattr(transformers.models.llama.modeling_llama.LlamaMLP, "forward", leaking)
    folder = made(make_tiny, "Llama")
    TransformersModel(name=str(folder)).loss(SPANS[:3])
    assert not reads_packs(folder)
    assert "nats off); they are padded instead" in caplog.text


RATED = [s for s in SPANS if "Rate it" in str(s.context)]


def test_the_last_layer_works_on_rows_that_are_read(make_tiny: MakeTiny, worked_on: list[int]) -> None:
    folder = made(make_tiny, "Llama")
    model = TransformersModel(name=str(folder))
    model.loss([])
    worked_on.clear()
    agree(folder, RATED, 2048)
    assert worked_on[0] > 80
    assert worked_on[1] == 2, "two texts, each read at its last row"


def test_a_model_whose_last_layer_works_on_all_rows_or_none_reads_packs_all_the_same(
    make_tiny: MakeTiny, worked_on: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(part: Any, given: Any) -> Any:
        if lastlayer._READ.get() is not None:
            raise TypeError("the layer's network takes several things")
        return given

    monkeypatch.setattr(lastlayer, "_pick", refused)
    folder = made(make_tiny, "Llama")
    assert reads_packs(folder)
    worked_on.clear()
    agree(folder, RATED, 2048)
    assert worked_on[0] == worked_on[1] > 80


@pytest.mark.parametrize(("dtype", "near"), [("bfloat16", 0.1), ("float16", 0.02)])
def test_packs_of_16_bits_are_near_those_of_32(make_tiny: MakeTiny, dtype: Any, near: float) -> None:
    folder = made(make_tiny, "Llama")
    model = TransformersModel(name=str(folder), dtype=dtype)
    assert local._weights(model).packed is not None
    for got, span in zip(model.loss(SPANS), SPANS, strict=True):
        assert isinstance(got, TargetLoss)
        assert list(got.nats) == pytest.approx(one_by_one(folder, span), abs=near)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("way", ["by_mask", pytest.param("by_blocks", marks=pytest.mark.slow)])
def test_every_way_of_attending_gives_the_same(monkeypatch: pytest.MonkeyPatch, make_tiny: MakeTiny, way: str) -> None:
    """A mask, and FlexAttention as it is without a compiler: what other devices do."""
    folder = made(make_tiny, "Llama")
    expected = agree(folder, SPANS, 300)
    monkeypatch.setattr(packed, "by_stretches", getattr(packed, way))
    for ours, plain in zip(TransformersModel(name=str(folder), batch_tokens=300).loss(SPANS), expected, strict=True):
        assert isinstance(ours, TargetLoss)
        assert list(ours.nats) == pytest.approx(plain.nats, abs=1e-5)


@pytest.mark.parametrize("tokens", [1, 20, 100])
def test_texts_that_are_cut_into_tokens_beside_a_gpu_have_the_same_losses(
    make_tiny: MakeTiny, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    """As on a GPU, in parts."""
    folder = made(make_tiny, "Llama")
    model = TransformersModel(name=str(folder), batch_tokens=tokens)
    whole = model.loss(SPANS)
    weights = local._weights(model)
    monkeypatch.setattr(weights, "device", torch.device("meta"))
    parts = weights.parts(SPANS, tokens)
    assert len(parts) > 1
    assert [span for part in parts for span in part] == SPANS
    assert max(map(len, parts)) < len(SPANS)
    assert [span for part in weights.parts([Span("", ""), *SPANS], 10**6) for span in part] == [Span("", ""), *SPANS]
    monkeypatch.setattr(local, "_encoded", in_thread := Spy(local._encoded))
    heartbeat.written()
    monkeypatch.setattr(weights, "parts", lambda spans, tokens: parts)
    weights.device = torch.device("cpu")
    for ours, plain in zip(model.loss(SPANS), whole, strict=True):
        assert isinstance(ours, TargetLoss)
        assert isinstance(plain, TargetLoss)
        assert list(ours.nats) == pytest.approx(plain.nats, abs=1e-5)
    assert in_thread.threads == {"ahead_0"}
    assert 0.9 < heartbeat.share_done() <= 1.0


class Spy:
    """Remembers which threads called."""

    def __init__(self, plain: Any) -> None:
        self.plain, self.threads = plain, set[str]()

    def __call__(self, *given: Any) -> Any:
        self.threads.add(threading.current_thread().name)
        return self.plain(*given)


def test_what_is_asked_twice_is_read_once(make_tiny: MakeTiny, worked_on: list[int]) -> None:
    """The same span, the same text with other targets, and the beginning of a text that is read whole."""
    folder = made(make_tiny, "Llama")
    model = TransformersModel(name=str(folder))
    model.loss([])
    long = Span("Name the sea. ", "It is the Baltic.")
    worked_on.clear()
    (alone,) = model.loss([long])
    rows, more = worked_on[0], [long, Span("Name the sea. It", " is the Baltic."), Span("Name the sea", ".")]
    worked_on.clear()
    got = model.loss([*more, *more])
    assert worked_on[0] == rows
    assert got[:3] == got[3:]
    assert isinstance(alone, TargetLoss)
    assert isinstance(got[0], TargetLoss)
    assert got[0].nats == pytest.approx(alone.nats, abs=1e-5)


def test_a_model_attends_as_before_once_its_losses_are_known(make_tiny: MakeTiny) -> None:
    folder = made(make_tiny, "Llama")
    model = TransformersModel(name=str(folder))
    before = local._weights(model).model.config._attn_implementation
    model.loss(SPANS[:3])
    assert local._weights(model).model.config._attn_implementation == before
    assert before != packed.ATTENTION


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 7), (512, 8192)])
@pytest.mark.parametrize("bias", [True, False])
def test_losses_by_parts_of_rows_and_vocabulary_are_those_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, rows: int, columns: int, bias: bool
) -> None:
    monkeypatch.setattr(lse, "ROWS", rows)
    monkeypatch.setattr(lse, "COLUMNS", columns)
    torch.manual_seed(0)
    linear, hidden = torch.nn.Linear(8, 50, bias=bias), 20 * torch.randn(10, 8)
    which, gold = torch.tensor([0, 0, 2, 3, 3, 3, 9]), torch.tensor([0, 49, 7, 1, 2, 30, 49])
    with torch.inference_mode():
        expected = -linear.double()(hidden.double()).log_softmax(-1)[which, gold]
        got = lse.Head(linear.float()).nats(hidden, which, gold)
        assert got.tolist() == pytest.approx(expected.tolist(), abs=2e-5)
        assert lse.Head(linear).nats(hidden[:0], which[:0], gold[:0]).tolist() == []


PEAK = """
import re, sys
from pathlib import Path
import torch, transformers
from tunesift.models.likelihood import Segment
from tunesift.models.packed import PackedModel, Work

def said(what):
    return int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

rows, vocabulary = map(int, sys.argv[1:])
model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
    vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=8192, tie_word_embeddings=True)).eval()
reads = PackedModel(model, model.lm_head)
def losses(rows):
    work = Work.of([Segment(tuple(n * 7919 % vocabulary for n in range(rows)), 1, truncated=False)])
    with torch.inference_mode(), reads.attending():
        return reads.losses(work, [0])
losses(16)
reads._head._kept.__dict__.clear()
Path("/proc/self/clear_refs").write_text("5")
before = said("VmRSS")
assert len(losses(rows)[0].nats) == rows - 1
print(said("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "vocabulary"), [(8192, 128_256), (2048, 128_256)])
def test_the_memory_that_losses_take_beside_the_weights_is_small_whatever_the_vocabulary(
    rows: int, vocabulary: int
) -> None:
    """Megabytes; the logits of 8,191 rows of 128,256 tokens would be 4,008."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(rows), str(vocabulary)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 64, done.stdout
