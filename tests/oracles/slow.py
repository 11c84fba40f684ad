"""The slow, obvious versions: bytes merged by hand, and token losses one token at a time, in float64, without padding
and without batches. They read a model's folder for themselves and share no line with what they check."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tunesift import Span


def encode(folder: Path, text: str) -> list[int]:
    """Tokens of a text with the byte-level tokenizer of a tiny model: its merges, in order, wherever they fit."""
    rules = json.loads((folder / "tokenizer.json").read_text())["model"]
    pieces = [_letters()[byte] for byte in text.encode()]
    for merge in rules["merges"]:
        left, right = merge if isinstance(merge, list) else merge.split(" ")
        merged: list[str] = []
        for piece in pieces:
            if piece == right and merged[-1:] == [left]:
                merged[-1] = left + right
            else:
                merged.append(piece)
        pieces = merged
    return [rules["vocab"][piece] for piece in pieces]


@cache
def _letters() -> list[str]:
    """GPT-2's letter for each byte: itself where it can be printed, else one from 256 on."""
    plain = {*range(33, 127), *range(161, 173), *range(174, 256)}
    odd = [byte for byte in range(256) if byte not in plain]
    return [chr(byte) if byte in plain else chr(256 + odd.index(byte)) for byte in range(256)]


def tokens(folder: Path, span: Span, limit: int) -> tuple[list[int], int]:
    """Tokens of a span as far as they fit, and where its target starts."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    begins = {"<s>": [0], None: []}[config.get("bos_token")]
    if span.bos == "always" and not begins:
        begins = [1]  # EOS
    assert isinstance(span.context, str)
    context = begins + encode(folder, span.context)
    if span.seam == "joint":
        whole = begins + encode(folder, span.context + span.target)
    else:
        whole = context + encode(folder, span.target)
    return whole[: min(limit, span.limit or limit)], len(context)


@cache
def _model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).double().eval()


def token_losses(folder: Path, span: Span, limit: int) -> list[float]:
    """Nats of each token of the target; a token with nothing before it has no prediction."""
    ids, start = tokens(folder, span, limit)
    return [one_loss(folder, tuple(ids[:place]), ids[place]) for place in range(start, len(ids)) if place > 0]


@cache
def one_loss(folder: Path, before: tuple[int, ...], token: int) -> float:
    """Minus the logarithm of the probability of a token after others."""
    with torch.no_grad():
        logits = _model(folder)(torch.tensor([before])).logits[0, -1].tolist()
    largest = max(logits)
    return math.log(sum(math.exp(x - largest) for x in logits)) - float(logits[token] - largest)


def greedy(folder: Path, ids: list[int], count: int) -> list[int]:
    """The likeliest next tokens, one after another."""
    found: list[int] = []
    for _ in range(count):
        with torch.no_grad():
            found.append(int(_model(folder)(torch.tensor([ids + found])).logits[0, -1].argmax()))
    return found


def mean_hidden(folder: Path, ids: list[int]) -> list[float]:
    """Mean of the last hidden layer over all tokens."""
    with torch.no_grad():
        states = _model(folder)(torch.tensor([ids]), output_hidden_states=True).hidden_states[-1]
    return [float(x) for x in states[0].sum(0) / len(ids)]
