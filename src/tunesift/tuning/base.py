"""With which settings is a model trained, whatever it learns? Order, rate, batches, adapters, precision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tunesift.errors import RecipeError
from tunesift.prompts import Template
from tunesift.records import Preference, Record, content_digest
from tunesift.settings import INCIDENTAL, Settings

SEEDS = 2**32
"""How many seeds there are: the libraries take no others."""


def check_beta(beta: float) -> None:
    """Raise `RecipeError` for a beta of DPO with which nothing would be learned, or the opposite."""
    if not beta > 0:
        raise RecipeError(f"tuner.beta: {beta:g} is not above 0; write 0.1.")


@dataclass(frozen=True, kw_only=True)
class LoRA(Settings):
    """Adapters of low rank beside frozen weights (arXiv:2106.09685)."""

    rank: int = 16
    """Rank r of the two matrices beside each layer."""
    alpha: int = 32
    """What they add is multiplied by alpha / rank."""
    dropout: float = 0.05
    """Share of an adapter's inputs that is left out in training, 0 to below 1."""
    targets: tuple[str, ...] = ()
    """Last parts of the names of the layers that get adapters, such as q_proj; none for every linear layer but the
    head."""
    merged: bool = False
    """Whether they are added to the weights in the end, and a whole model is left."""

    def __post_init__(self) -> None:
        for name, number, usual in (("rank", self.rank, 16), ("alpha", self.alpha, 32)):
            if number < 1:
                raise RecipeError(f"tuner.lora.{name}: {number} is not 1 or more; write {usual}.")
        if not 0 <= self.dropout < 1:
            raise RecipeError(f"tuner.lora.dropout: {self.dropout:g} is no share; write a number from 0 to below 1.")


@dataclass(frozen=True, kw_only=True)
class Training(Settings):
    """Settings that every tuner has; a tuner changes what its paper has otherwise."""

    kind: str
    template: Template = "chat"
    """What stands around a prompt: the student's own chat template, or a fixed one for a student without."""
    epochs: float = 3.0
    """Times that every record is read."""
    steps: int | None = None
    """Updates of the weights, in place of epochs."""
    batch: int = 128
    """Records of one update."""
    learning_rate: float = 2e-5
    """Of AdamW, at its height; with adapters ten times as much is usual."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls once the warm-up is over."""
    warm_up: float = 0.03
    """Share of all updates in which the learning rate rises, 0 to 1."""
    weight_decay: float = 0.0
    """Of AdamW."""
    max_length: int | None = None
    """Most tokens of prompt and response together, as far as the student reads; None for 2,048 or the student's own
    limit, whichever is smaller. A longer record is left out, and counted: nothing is cut."""
    lora: LoRA | None = None
    """Adapters instead of all weights."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the arithmetic; the weights that are updated stay as the student's dtype says. auto: bfloat16 on a GPU that
    has it, else float32."""
    held_out: float = 0.0
    """Share of the records that is not trained on, and whose loss is measured now and then, 0 to below 1."""
    seed: int = 0
    """Where order and dropout start, 0 to 4,294,967,295."""
    device_batch: Annotated[int, INCIDENTAL] = 8
    """Most records on the device at a time; an update is made of as many such parts as it needs."""
    gradient_checkpointing: Annotated[bool, INCIDENTAL] = True
    """Compute activations twice instead of keeping them: less memory, about a fifth more time."""
    save_every: Annotated[int, INCIDENTAL] = 200
    """Updates between two checkpoints from which a training that was cut off goes on."""

    reads: ClassVar[type[Record] | type[Preference]] = Record
    """What it is trained on."""
    texts: ClassVar[int] = 1
    """Texts that one of them is: so many are on the device together."""
    compared: ClassVar[bool] = False
    """Whether a reference reads them, too."""
    over_words: ClassVar[bool] = True
    """Whether the loss is over the vocabulary."""

    def __post_init__(self) -> None:
        for name, number, usual in (
            ("batch", self.batch, "128"), ("device_batch", self.device_batch, "8"),
            ("save_every", self.save_every, "200"), ("steps", self.steps, "200, or null for epochs"),
            ("max_length", self.max_length, "1024, or null"),
        ):  # fmt: skip
            if number is not None and number < 1:
                raise RecipeError(f"tuner.{name}: {number} is not 1 or more; write {usual}.")
        for name, rate, usual in (("epochs", self.epochs, "3"), ("learning_rate", self.learning_rate, "2e-5")):
            if not rate > 0:
                raise RecipeError(f"tuner.{name}: {rate:g} is not above 0; write {usual}.")
        if not self.weight_decay >= 0:
            raise RecipeError(f"tuner.weight_decay: {self.weight_decay:g} is below 0; write 0.")
        if not 0 <= self.warm_up <= 1:
            raise RecipeError(f"tuner.warm_up: {self.warm_up:g} is no share of all updates; write 0.03.")
        if not 0 <= self.held_out < 1:
            raise RecipeError(f"tuner.held_out: {self.held_out:g} is no share; write a number from 0 to below 1.")
        if not 0 <= self.seed < SEEDS:
            raise RecipeError(f"tuner.seed: {self.seed} is not from 0 to {SEEDS - 1:,}; write 0.")

    def held_out_of(self, ids: Sequence[str]) -> frozenset[str]:
        """The ids that are not trained on: drawn by themselves and the seed, whatever their order."""
        count = int(self.held_out * len(ids))
        return frozenset(sorted(ids, key=lambda id: content_digest((self.seed, id)))[:count])

    def updates(self, records: int) -> int:
        """Updates of the weights for so many records that are trained on."""
        return self.steps or math.ceil(self.epochs * math.ceil(records / self.batch))

    def passes(self, records: int) -> int:
        """Forward passes that each of so many records costs in all: a backward pass costs two, activations that are
        computed again one more, and so does a reference; all of them for each text."""
        each = 3 + self.gradient_checkpointing + self.compared
        read = self.epochs if self.steps is None else self.steps * self.batch / max(1, records)
        return max(1, round(each * self.texts * read))

    @property
    def parts(self) -> tuple[int, int]:
        """Records on the device at a time, and parts of one update: as few of them as divide the batch evenly."""
        size = next(n for n in range(min(self.batch, self.device_batch), 0, -1) if self.batch % n == 0)
        return size, self.batch // size
