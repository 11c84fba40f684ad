"""With which settings is a model that reads images tuned on preferences?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from tunesift.records import Preference
from tunesift.settings import INCIDENTAL
from tunesift.tuning.base import LoRA, Training, check_beta


@dataclass(frozen=True, kw_only=True)
class VisionDPO(Training):
    """Direct preference optimisation (arXiv:2305.18290) with images in the prompt, by TRL's DPOTrainer. What reads the
    images is not trained; where all weights are, what leads from it to language is."""

    kind: Literal["vision-dpo"] = "vision-dpo"
    template: Annotated[Literal["chat"], INCIDENTAL] = "chat"
    """The student's own chat template, which says where images stand."""
    batch: int = 1
    """Pairs of one update."""
    learning_rate: float = 1e-7
    """Of AdamW, at its height."""
    max_length: int | None = None
    """Most tokens of an image, its question and an answer together; None for as many as the student reads. A longer
    pair is left out, and counted: nothing is cut."""
    lora: LoRA | None = LoRA(rank=128, alpha=256)
    """Adapters instead of all weights; of the authors' rank."""
    beta: float = 0.1
    """How closely the student is kept to what it was: the margin of log-probabilities is multiplied by it."""

    reads: ClassVar[type[Preference]] = Preference
    texts: ClassVar[int] = 2
    compared: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_beta(self.beta)
