"""With which settings is a reward model trained? With a head for quality and one for length, or one head for both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tunesift.errors import RecipeError
from tunesift.records import Preference
from tunesift.settings import INCIDENTAL
from tunesift.tuning.base import Training
from tunesift.tuning.reward_losses import Weights


@dataclass(frozen=True, kw_only=True)
class RewardTuner(Training):
    """A reward model of preference pairs, by TRL's RewardTrainer; with two heads that of ODIN (arXiv:2402.07319), with
    one that of Bradley and Terry. Its defaults are those of the authors' repository where nothing else is said."""

    kind: Literal["reward"] = "reward"
    heads: Literal[1, 2] = 2
    """2: one head for quality and one for length, of which the first is left; 1: the ordinary reward model."""
    warm_up: float = 0.0
    """Share of all updates in which the learning rate rises, 0 to 1."""
    weight_decay: float = 0.1
    """Of AdamW."""
    betas: tuple[float, float] = (0.9, 0.99)
    """How much AdamW remembers of gradients and of their squares, each 0 to below 1."""
    max_length: int | None = 1024
    """Most tokens of a prompt with one answer, as far as the student reads; None for 2,048 or the student's own limit,
    whichever is smaller. A pair with a longer one is left out, and counted: nothing is cut."""
    held_out: float = 0.1
    """Share of the pairs that is not trained on, 0 to below 1: about five times an epoch, or in all `steps`, and at the
    end it is looked on how many of them the quality head prefers what was chosen, and the best weights are
    left. Our choice."""
    seed: int = 1234
    """Where order, dropout and heads start, 0 to 4,294,967,295."""
    device_batch: int = 16
    """Most pairs on the device at a time, and the pairs of which one correlation is taken: it decides the result. The
    authors have 8, one on each of 8 GPUs; below 16 a correlation is mostly noise."""
    lambda_length: float = 1.0
    """How much the length loss counts: the quality head's correlation with length, and what the length head lacks of
    it."""
    lambda_orthogonal: float = 1.0
    """How much it counts that the two heads are not at right angles."""
    total_corr_coef: float = 0.0
    """How much the correlation of both heads' sum with length counts; the authors' code has 1, their paper no such
    term."""
    length_mode: Literal["response", "sequence"] = "response"
    """What the length is: tokens of the answer, our choice; or of prompt and answer, as in the authors' code."""
    least_sequences: int = 8
    """Sequences, two for each pair, below which no correlation is taken. Our choice."""
    best_by: Literal["accuracy", "balanced", "last"] = "accuracy"
    """Which weights are left. accuracy: those that judge most held-out pairs as people did, as in the authors' code;
    balanced: the same, pairs whose longer and whose shorter answer was chosen counting alike, so that weights which
    know of length alone do not win, our addition; last: those of the last update."""
    gradient_checkpointing: Annotated[bool, INCIDENTAL] = True
    """Compute activations twice instead of keeping them: less memory, about a fifth more time."""

    reads: ClassVar[type[Preference]] = Preference
    texts: ClassVar[int] = 2
    over_words: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, number in (("lambda_length", self.lambda_length), ("lambda_orthogonal", self.lambda_orthogonal),
                             ("total_corr_coef", self.total_corr_coef)):  # fmt: skip
            if not number >= 0:
                raise RecipeError(f"tuner.{name}: {number:g} is no number from 0 on; write 1.")
        if self.lora is not None and not self.lora.merged:
            raise RecipeError("tuner.lora.merged: false would leave adapters, and a reward model is left whole, for "
                              "others to load by its folder; write tuner.lora.merged=true.")  # fmt: skip
        if not all(0 <= beta < 1 for beta in self.betas):
            raise RecipeError("tuner.betas: one of them is not from 0 to below 1; write [0.9, 0.99].")
        if self.least_sequences < 3:
            raise RecipeError(f"tuner.least_sequences: of {self.least_sequences} sequences every correlation is 1 or "
                              "-1, and nothing is learned of it; write 8.")  # fmt: skip
        if self.heads == 2 and 2 * self.parts[0] < self.least_sequences:
            enough = max(16, math.ceil(self.least_sequences / 2))
            raise RecipeError(f"tuner.device_batch: {self.parts[0]} pairs at a time are {2 * self.parts[0]} sequences, "
                              f"and a correlation is taken of {self.least_sequences} or more; write {enough}, and a "
                              "batch that it divides.")  # fmt: skip

    @property
    def weights(self) -> Weights:
        """How much each part of the loss counts."""
        return Weights(self.lambda_length, self.lambda_orthogonal, self.total_corr_coef, self.least_sequences)

    def counted(self, prompt: int, answer: int) -> int:
        """The length of an answer, of its tokens and those of its prompt."""
        return answer if self.length_mode == "response" else prompt + answer

    def evaluated_every(self, records: int) -> int:
        """Updates between two looks at the pairs that are held out: about five looks an epoch, or in all `steps`, and
        no more than one an update."""
        epoch = self.updates(records) if self.steps else math.ceil(records / self.batch)
        return max(1, round(min(epoch, self.updates(records)) / LOOKS))


LOOKS = 5
"""About how many times an epoch the pairs that are held out are looked at, as in the authors' code."""
