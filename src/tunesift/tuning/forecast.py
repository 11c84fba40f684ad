"""How many updates will a training make, of how many tokens, and how much memory does it need? Nothing is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesift.errors import ModelUnavailable, told_bytes
from tunesift.models.folders import local_folder, parameters
from tunesift.models.transformers import TransformersModel
from tunesift.tuning.base import Training
from tunesift.tuning.student import limit_of

BYTES_PER_TOKEN = 4.0
"""UTF-8 bytes of English text per token, roughly."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ADAMW = 2
"""Numbers that AdamW keeps for each that it updates."""
KEPT_PER_LAYER = 18
"""Numbers of the width of the model that one layer of a Llama keeps of every token for the backward pass, its MLP's
aside: two norms and what they make on the way, the inputs of its products, queries and keys before and after they are
turned, values, what attention gives. Attention's own weights are not kept where it is FlashAttention or the like."""
IN_THE_MLP = 4
"""Numbers of the width of the MLP that one layer keeps of every token: gate, its activation, up, their product."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a training will take. Bytes are of the device, without what the libraries themselves take."""

    updates: int
    tokens: int
    """Of all epochs, prompts and responses; from the bytes of the texts."""
    weights: int | None
    """None where the student is not in a folder here; so the next two."""
    training: int | None
    """Gradients and AdamW's numbers."""
    activations: int | None
    """What the backward pass needs of a full part, at the longest record that is trained on."""

    @property
    def memory(self) -> int | None:
        """All of them together."""
        parts = (self.weights, self.training, self.activations)
        return None if any(part is None for part in parts) else sum(part or 0 for part in parts)

    def __str__(self) -> str:
        size = "memory not known without the student's weights and config.json here"
        if (memory := self.memory) is not None:
            size = (f"about {told_bytes(memory)} of memory ({told_bytes(self.weights or 0)} weights, "
                    f"{told_bytes(self.training or 0)} gradients and AdamW, {told_bytes(self.activations or 0)} "
                    "activations)")  # fmt: skip
        return f"at most {self.updates:,} updates, about {self.tokens:,} tokens, {size}"


def forecast(student: TransformersModel, tuner: Training, records: int, tokens: int, longest: int) -> Forecast:
    """What a training on so many records will take; `tokens` are those of all of them once, `longest` those of one."""
    trained = records - int(tuner.held_out * records)
    updates = tuner.updates(trained)
    each = tokens / max(1, records)
    read = round(each * min(updates * tuner.batch, math.ceil(tuner.epochs * trained) if not tuner.steps else math.inf))
    size, shape = parameters(student.location), _shape(student.location)
    if size is None or shape is None:
        return Forecast(updates, read, None, None, None)
    one = BYTES[student.dtype]
    limits = [n for n in (limit_of(student, tuner), longest) if n is not None]
    updated = size * one if tuner.lora is None else 4 * tuner.lora.rank * _sides(shape)  # adapters are float32
    return Forecast(updates, read, size * one + (updated if tuner.lora else 0), updated * (1 + ADAMW),
                    _activations(shape, tuner, min(limits) * tuner.parts[0]))  # fmt: skip


def _activations(shape: Mapping[str, int], tuner: Training, tokens: int) -> int:
    layer = tokens * (KEPT_PER_LAYER * shape["width"] + IN_THE_MLP * shape["inner"])
    if tuner.gradient_checkpointing:
        return 4 * (layer + tokens * shape["width"] * shape["layers"])
    return 4 * layer * shape["layers"]


def _sides(shape: Mapping[str, int]) -> int:
    """Inputs and outputs of all linear layers but the head, for each number of an adapter's rank."""
    width, inner, keys = shape["width"], shape["inner"], shape["keys"]
    return shape["layers"] * (4 * width + 2 * (width + keys) + 3 * (width + inner))


def _shape(name: str) -> dict[str, int] | None:
    """Width, MLP's width, keys' width and layers of a decoder, by its config.json; None where that is not here."""
    try:
        folder = local_folder(name)
        said: Any = json.loads((folder / "config.json").read_text("utf-8")) if folder else {}
    except (ModelUnavailable, OSError, ValueError):
        return None
    config = said.get("text_config", said) if isinstance(said, dict) else {}
    width = config.get("hidden_size", config.get("n_embd"))
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    if not isinstance(width, int) or not isinstance(layers, int):
        return None
    heads = config.get("num_attention_heads") or config.get("n_head") or 1
    keys = (config.get("num_key_value_heads") or heads) * (config.get("head_dim") or width // heads)
    return {"width": width, "inner": config.get("intermediate_size") or 4 * width, "keys": keys, "layers": layers}
