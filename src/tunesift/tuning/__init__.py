"""How are models tuned? Thin tuners over TRL, each in a process of its own."""

from __future__ import annotations

from tunesift.tuning.sft import SFT

AnyTuner = SFT
"""A union as soon as there is a second tuner."""
