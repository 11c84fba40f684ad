"""What agents of planted quality write, and a judge says: pure functions of who speaks, what is asked, and the seed."""

from __future__ import annotations

import hashlib
import random
import re

BASE, JUDGE = "base", "umpire"
QUALITY: dict[str, float | None] = {BASE: None, "good": 0.9, "fair": 0.5, "plain": 0.4, "weak": 0.3, "poor": 0.1}
"""Chance of each agent that what it writes is better than the base, which has none of its own."""
GAP, OF_BASE = 0.2, 0.01
"""By how much the large scorer understands a response better: of all agents, and of the base."""


def planted(name: str, quality: float | None, gap: float, text: str, seed: object) -> str:
    """A response: its level and its gap in words, and something of what was asked. The base has level 1, others 2 as
    often as their quality says, else 0."""
    chance = random.Random(f"{name} {text} {seed}").random()
    level = 1 if quality is None else 2 if chance < quality else 0
    mark = hashlib.sha256(f"{name} {text} {seed}".encode()).hexdigest()[:8]
    return f"level={level} gap={gap} by={name} {mark}. It is about this: {' '.join(text.split())[:40]}"


def verdict(text: str) -> str:
    """The mark of the better answer among two that stand in a text, by their levels."""
    one, two = (int(level) for level in re.findall(r"level=(\d)", text)[:2])
    return "[[C]]" if one == two else "[[A]]" if one > two else "[[B]]"
