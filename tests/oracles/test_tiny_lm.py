"""A really trained model of 260,000 parameters: our losses against the numbers that came with it.

Its numbers are in ../shared/data/tiny_lm/SOURCE.md, from an independent implementation in float64.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason='needs the "local" extra')
import transformers  # noqa: E402
from tokenizers import Tokenizer, decoders, models, normalizers, processors  # noqa: E402

from tunesift import IFD, Message, Record, Sampling, Score, Span, TargetLoss, TransformersModel  # noqa: E402
from tunesift.models.likelihood import Segment, SpanEncoder, losses  # noqa: E402
from tunesift.scoring.ifd import ratios  # noqa: E402

LILY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
STORY = f"{LILY} One day, she saw a big, red ball. She wanted to play with it, but it was too high."  # documented by llama2.c
TEXTS = [
    (LILY, 31, 0.180356, 1.197643),
    ("The quarterly report was delayed because of a tax audit.", 35, 3.955419, 52.217557),
    ("Tom and his dog went to the beach. They saw a big boat and were very happy.", 27, 1.475927, 4.375089),
]
INSTRUCTION = "Lily wanted to play with the red ball. What did she say?"
RESPONSE = 'She said, "Can I play with the red ball, please?"'
INSTRUCTION_IDS = (1, 317, 391, 266, 267, 337, 335, 265, 352, 266, 268, 388, 426, 410, 448, 415, 294, 279, 292, 358, 262,
                   283, 450)  # fmt: skip
RESPONSE_IDS = (338, 336, 432, 313, 457, 303, 359, 337, 335, 265, 352, 266, 268, 388, 432, 282, 305, 412, 372, 450, 436)


def pieces(file: Path) -> list[tuple[str, float]]:
    """The vocabulary of tok512.bin: each piece with its score; a byte is written as in "<0x0A>"."""
    raw, found, place = file.read_bytes(), [], 4
    for number in range(512):
        score, length = struct.unpack_from("<fi", raw, place)
        text = raw[place + 8 : place + 8 + length].decode()
        found.append(({0: "<unk>", 1: "<s>", 2: "</s>"}.get(number, text), score))
        place += 8 + length
    return found


def write_tokenizer(file: Path, folder: Path) -> None:
    """The rule of SOURCE.md as merges: of the pairs that join to a piece, the piece of the highest score first."""
    known = dict(pieces(file))
    pairs = [(left, piece[len(left) :]) for piece in known for left in known if left and piece.startswith(left)]
    merges = sorted(((a, b) for a, b in pairs if b in known), key=lambda pair: -known[pair[0] + pair[1]])
    vocabulary = {piece: number for number, piece in enumerate(known)}
    plain = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True))
    plain.normalizer = normalizers.Prepend(" ")
    plain.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    plain.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    plain.add_special_tokens(["<unk>", "<s>", "</s>"])
    plain.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    names |= {"chat_template": "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))


def halves(rows: Any, heads: int) -> Any:
    """Rows of a projection for rotation by halves, from rows for rotation by neighbours."""
    order = [head * 8 + pair * 2 + side for head in range(heads) for side in (0, 1) for pair in range(4)]
    return rows[order]


def weights(file: Path) -> dict[str, Any]:
    """The tensors of stories260K.bin by the names that transformers gives them."""
    raw = file.read_bytes()
    dim, hidden, layers, heads, groups, vocabulary, _ = struct.unpack_from("<7i", raw)
    numbers: Iterator[float] = iter(np.frombuffer(raw, "<f4", offset=28).tolist())

    def take(*shape: int) -> Any:
        return torch.tensor([next(numbers) for _ in range(math.prod(shape))]).reshape(shape)

    narrow = dim // heads * groups
    shapes = {
        "model.embed_tokens": (vocabulary, dim), "input_layernorm": (layers, dim),
        "self_attn.q_proj": (layers, dim, dim), "self_attn.k_proj": (layers, narrow, dim),
        "self_attn.v_proj": (layers, narrow, dim), "self_attn.o_proj": (layers, dim, dim),
        "post_attention_layernorm": (layers, dim), "mlp.gate_proj": (layers, hidden, dim),
        "mlp.down_proj": (layers, dim, hidden), "mlp.up_proj": (layers, hidden, dim), "model.norm": (dim,),
    }  # fmt: skip
    found = {name: take(*shape) for name, shape in shapes.items()}
    whole = {f"{name}.weight": found.pop(name) for name in ("model.embed_tokens", "model.norm")}
    for name, stacked in found.items():
        for layer, tensor in enumerate(stacked):
            turned = {"self_attn.q_proj": heads, "self_attn.k_proj": groups}.get(name)
            whole[f"model.layers.{layer}.{name}.weight"] = halves(tensor, turned) if turned else tensor
    return whole | {"lm_head.weight": whole["model.embed_tokens.weight"]}


@pytest.fixture(scope="module")
def folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as transformers reads it, made on the spot."""
    source = shared / "tiny_lm"
    made = tmp_path_factory.mktemp("stories260K")
    shape = transformers.LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=172, num_hidden_layers=5, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=512, rms_norm_eps=1e-5, rope_theta=10000.0,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(shape)
    model.load_state_dict(weights(source / "stories260K.bin"))
    model.save_pretrained(made)
    write_tokenizer(source / "tok512.bin", made)
    return made


def one_loss(folder: Path, span: Span) -> TargetLoss:
    (loss,) = TransformersModel(name=str(folder)).loss([span])
    assert isinstance(loss, TargetLoss)
    return loss


@pytest.mark.parametrize(("text", "tokens", "nats", "perplexity"), TEXTS)
def test_losses_and_perplexities_are_the_documented_ones(
    folder: Path, text: str, tokens: int, nats: float, perplexity: float
) -> None:
    loss = one_loss(folder, Span("", f" {text}"))  # its tokenizer begins every text with a space, ours only when told
    assert len(loss.nats) == tokens
    assert loss.mean == pytest.approx(nats, abs=2e-6)
    assert math.exp(loss.mean) == pytest.approx(perplexity, rel=2e-6)


def test_texts_have_the_documented_tokens(folder: Path) -> None:
    encode = SpanEncoder(transformers.AutoTokenizer.from_pretrained(folder), 512)
    segment = encode(Span(INSTRUCTION, f" {RESPONSE}"))
    assert segment.ids == INSTRUCTION_IDS + RESPONSE_IDS
    assert segment.start == len(INSTRUCTION_IDS)
    assert encode(Span("", f" {RESPONSE}")).ids == (1, *RESPONSE_IDS)


def check_pair(conditioned: TargetLoss, direct: TargetLoss) -> None:
    assert direct.mean == pytest.approx(1.657921, abs=2e-6)
    assert math.exp(direct.mean) == pytest.approx(5.248386, rel=2e-6)
    assert conditioned.mean == pytest.approx(0.908553, abs=2e-6)
    assert math.exp(conditioned.mean) == pytest.approx(2.480730, rel=2e-6)
    found = ratios(conditioned, direct)
    assert found is not None
    assert found.perplexity == pytest.approx(0.472665, abs=2e-6)
    assert found.loss == pytest.approx(0.548007, abs=2e-6)


def test_a_response_after_its_instruction_and_alone_gives_the_documented_ratios(folder: Path) -> None:
    check_pair(one_loss(folder, Span(INSTRUCTION, f" {RESPONSE}")), one_loss(folder, Span("", f" {RESPONSE}")))


def test_the_documented_tokens_give_the_documented_ratios_whatever_the_tokenizer(folder: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)

    def hidden_of(batch: Sequence[Segment]) -> Any:
        longest = max(len(s.ids) for s in batch)
        return model.model(torch.tensor([[*s.ids, *[2] * (longest - len(s.ids))] for s in batch])).last_hidden_state

    after = Segment(INSTRUCTION_IDS + RESPONSE_IDS, len(INSTRUCTION_IDS), truncated=False)
    alone = Segment((1, *RESPONSE_IDS), 1, truncated=False)
    with torch.no_grad():
        check_pair(*losses([after, alone], hidden_of, model.lm_head))


def test_the_scorer_gives_the_documented_ratios_of_a_record(folder: Path) -> None:
    given = Record("a", (Message("user", INSTRUCTION), Message("assistant", f" {RESPONSE}")))
    (score,) = IFD(student=TransformersModel(name=str(folder)))([given])
    assert isinstance(score, Score)
    assert score.value == pytest.approx(0.472665, abs=2e-6)
    assert score.parts["ifd_loss"] == pytest.approx(0.548007, abs=2e-6)


def test_the_likeliest_story_is_the_documented_one(folder: Path) -> None:
    (said,) = TransformersModel(name=str(folder)).chat([[Message("user", "")]], Sampling(max_tokens=75))
    assert said.text.startswith(STORY)
