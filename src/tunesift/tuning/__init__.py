"""How are models tuned? Thin tuners over TRL, each in a process of its own."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunesift.tuning.dpo import DPO
from tunesift.tuning.reward import RewardTuner
from tunesift.tuning.sft import SFT
from tunesift.tuning.vision_dpo import VisionDPO

AnyTuner = Annotated[SFT | DPO | VisionDPO | RewardTuner, Field(discriminator="kind")]
