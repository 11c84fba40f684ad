"""How many updates will a training make, of how many tokens, and how much memory does it need? Nothing is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesift.datasets import Dataset
from tunesift.errors import ModelUnavailable, told_bytes
from tunesift.models.folders import local_folder, parameters
from tunesift.models.transformers import TransformersModel
from tunesift.prompts import Template, context, input_of
from tunesift.records import Preference, Record
from tunesift.running.result import Planned
from tunesift.tuning.base import Training
from tunesift.tuning.dpo import DPO
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
TILE_TOKENS, TILE_WORDS = 4096, 32768
"""Tokens, and words of the vocabulary, whose logits TRL's loss has at a time (TRL 1.16: `TOKEN_CHUNK_SIZE` and
`_CHUNKED_LOGPROB_CHUNK_SIZE`)."""
TILE_COPIES = 8.25
"""Copies of that tile where no Triton kernel folds it in place, which is everywhere but on a GPU: in TRL's
`_backward_tile` the tile, its two scalings, log-probabilities, probabilities, gradient, and two of the steps towards
that; a mask of a byte each. There every token counts, the prompt's, too."""
AROUND_THE_HEAD = 2
"""Numbers of the width of the model that the loss has of every token: what it reads, copied, and its gradient."""
_DRIVER = Path("/proc/driver/nvidia/gpus")
"""Is there where a GPU can be used, which `auto` then takes; looked at instead of loading the library that knows."""


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
    """What the layers keep for the backward pass of a full part, at the longest record that is trained on."""
    logits: int | None
    """What the loss of that part takes over the vocabulary."""

    @property
    def memory(self) -> int | None:
        """All of them together."""
        parts = (self.weights, self.training, self.activations, self.logits)
        return None if any(part is None for part in parts) else sum(part or 0 for part in parts)

    def __str__(self) -> str:
        size = "memory not known without the student's weights and config.json here"
        if (memory := self.memory) is not None:
            size = (f"about {told_bytes(memory)} of memory ({told_bytes(self.weights or 0)} weights, "
                    f"{told_bytes(self.training or 0)} gradients and AdamW, {told_bytes(self.activations or 0)} "
                    f"activations, {told_bytes(self.logits or 0)} logits)")  # fmt: skip
        return f"at most {self.updates:,} updates, about {self.tokens:,} tokens, {size}"


def forecast(student: TransformersModel, tuner: Training, records: int, tokens: int, longest: int) -> Forecast:
    """What a training on so many records will take; `tokens` are those of all of them once, `longest` those of one."""
    trained = records - int(tuner.held_out * records)
    updates = tuner.updates(trained)
    each = tokens / max(1, records)
    read = round(each * min(updates * tuner.batch, math.ceil(tuner.epochs * trained) if not tuner.steps else math.inf))
    size, shape = parameters(student.location), _shape(student.location)
    if size is None or shape is None:
        return Forecast(updates, read, None, None, None, None)
    one = BYTES[student.dtype]
    limits = [n for n in (limit_of(student, tuner), longest) if n is not None]
    updated = size * one if tuner.lora is None else 4 * tuner.lora.rank * _sides(shape)  # adapters are float32
    at_once = min(limits) * tuner.parts[0] * tuner.texts
    named = tuner.reference if isinstance(tuner, DPO) else None
    beside = size if named is None else parameters(named.location) or 0
    reference = one * beside if tuner.compared and (named or not tuner.lora) else 0
    return Forecast(updates, read, size * one + reference + (updated if tuner.lora else 0), updated * (1 + ADAMW),
                    _activations(shape, tuner, at_once),
                    _logits(shape, tuner, at_once, student.device) if tuner.over_words else 0)  # fmt: skip


def forecast_on(
    student: TransformersModel, tuner: Training, data: Dataset[Any], most: int | None = None
) -> Forecast:  # Any: records or preference pairs
    """The same of these rows, or of at most so many of them, nobody knows yet which; by the bytes of their texts."""
    texts = [_texts(row, tuner.template) for row in data]
    count = len(texts) if most is None else min(most, len(texts))
    read, longest = sum(map(sum, texts)), max(map(max, texts), default=0.0)
    return forecast(student, tuner, count, round(read * count / max(1, len(texts))), round(longest))


def with_forecast(stages: Sequence[Planned], said: Forecast) -> list[Planned]:
    """A plan whose stage that trains tells what it will take."""
    return [replace(one, told=str(said)) if one.stage == "tune" else one for one in stages]


def _texts(row: Record | Preference, template: Template) -> list[float]:
    """Tokens of a record, or of a pair's two texts, by their bytes; without those of a chat template, which only the
    student knows."""
    asked = context(row.prompt, template, input_of(row) if isinstance(row, Record) else "")
    prompt = asked if isinstance(asked, str) else "".join(message.text for message in asked)
    answers = [row.response] if isinstance(row, Record) else [row.chosen.text, row.rejected.text]
    return [len(f"{prompt}{answer}".encode()) / BYTES_PER_TOKEN for answer in answers]


def _activations(shape: Mapping[str, int], tuner: Training, tokens: int) -> int:
    layer = tokens * (KEPT_PER_LAYER * shape["width"] + IN_THE_MLP * shape["inner"])
    if tuner.gradient_checkpointing:
        return 4 * (layer + tokens * shape["width"] * shape["layers"])
    return 4 * layer * shape["layers"]


def _logits(shape: Mapping[str, int], tuner: Training, tokens: int, device: str) -> int:
    around = 4 * tokens * AROUND_THE_HEAD * shape["width"]
    if device.startswith("cuda") or (device == "auto" and _DRIVER.is_dir()):
        one = BYTES["float32" if tuner.precision == "float32" else "bfloat16"]
        return around + one * min(tokens, TILE_TOKENS) * TILE_WORDS  # the whole tile, however few words there are
    return around + round(TILE_COPIES * 4 * min(tokens, TILE_TOKENS) * min(shape["vocabulary"], TILE_WORDS))


def _sides(shape: Mapping[str, int]) -> int:
    """Inputs and outputs of all linear layers but the head, for each number of an adapter's rank."""
    width, inner, keys = shape["width"], shape["inner"], shape["keys"]
    return shape["layers"] * (4 * width + 2 * (width + keys) + 3 * (width + inner))


def _shape(name: str) -> dict[str, int] | None:
    """Width, MLP's width, keys' width, layers and vocabulary of a decoder, by its config.json; None where that is not
    here, or does not say."""
    try:
        folder = local_folder(name)
        said: Any = json.loads((folder / "config.json").read_text("utf-8")) if folder else {}
    except (ModelUnavailable, OSError, ValueError):
        return None
    config = said.get("text_config", said) if isinstance(said, dict) else {}
    width = config.get("hidden_size", config.get("n_embd"))
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    words = config.get("vocab_size")
    if not isinstance(width, int) or not isinstance(layers, int) or not isinstance(words, int):
        return None
    heads = config.get("num_attention_heads") or config.get("n_head") or 1
    keys = (config.get("num_key_value_heads") or heads) * (config.get("head_dim") or width // heads)
    return {"width": width, "inner": config.get("intermediate_size") or 4 * width, "keys": keys, "layers": layers,
            "vocabulary": words}  # fmt: skip
