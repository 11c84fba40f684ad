"""With which settings is a model tuned on preferences? Direct preference optimisation, pair by pair of given weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tunesift.models.transformers import TransformersModel
from tunesift.records import Preference
from tunesift.tuning.base import Training, check_beta

WEIGHT = "weight"
"""Field of a pair that its loss is multiplied by."""


@dataclass(frozen=True, kw_only=True)
class DPO(Training):
    """Direct preference optimisation (arXiv:2305.18290), by TRL's DPOTrainer."""

    kind: Literal["dpo"] = "dpo"
    epochs: float = 1.0
    """Times that every pair is read."""
    learning_rate: float = 5e-7
    """Of the optimiser, at its height; with adapters ten times as much is usual."""
    warm_up: float = 0.1
    """Share of all updates in which the learning rate rises, 0 to 1."""
    beta: float = 0.1
    """How closely the student is kept to the reference: the margin of log-probabilities is multiplied by it."""
    optimiser: Literal["adamw", "rmsprop"] = "adamw"
    """What the weights are updated by."""
    weighted: bool = False
    """Whether the loss of each pair is multiplied by its field `weight`, which is then 0 or more."""
    reference: TransformersModel | None = None
    """The model that the student is kept near to; None for the student as it is before."""

    reads: ClassVar[type[Preference]] = Preference
    texts: ClassVar[int] = 2
    compared: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)
