"""With which settings is a model tuned on responses? Supervised fine-tuning, whole or by low-rank adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunesift.tuning.base import Training


@dataclass(frozen=True, kw_only=True)
class SFT(Training):
    """Supervised fine-tuning on responses, by TRL's SFTTrainer; the loss is that of the response alone.

    The defaults are those with which the selections of Cherry LLM are tuned in the authors' repository
    (arXiv:2308.12032): three epochs in batches of 128 at 2e-5.
    """

    kind: Literal["sft"] = "sft"
    packing: bool = False
    """Several records in one row of the batch, none seeing another; needs FlashAttention on a GPU."""
