"""A debater that argues by rule: what it says is a pure function of what it is shown."""

from __future__ import annotations

import hashlib
import re

WHY = (
    "It is right, because people need water, and because nobody who lives by a river can do without it in a dry summer. "
    "We know this from many years of experience in several countries, where towns that waited have paid for it twice."
)


def is_debated(text: str) -> bool:
    """Whether a text is what DEBATunE asks a debater, an observer or a judge."""
    return text.startswith("Name the strongest") or "it must stand on its own" in text or text.endswith("\n\nAI:") or (
        "exactly two numbers" in text)  # fmt: skip


def debated(text: str) -> str:
    """Three arguments that name the topic; a turn; a statement; or a judgement."""
    mark = hashlib.sha256(text.encode()).hexdigest()[:8]
    row = re.search(r"row=\d+", text)
    named = row[0] if row else "the matter"
    if text.startswith("Name the strongest"):
        side = "for" if "affirmative" in text else "against"
        return "Here they are.\n\n" + "\n".join(f"{n}. Reason {n} {side} {named} counts." for n in (1, 2, 3))
    if "it must stand on its own" in text:
        return f"A statement about {named}, marked {mark}. {_own(WHY, mark)}"
    if "exactly two numbers" in text:
        return f"{int(mark, 16) % 101} 0\nSo it is."
    return f"Turn {mark} about {named}."


def _own(text: str, mark: str) -> str:
    """A text with a number after every fourth word, so that those of two marks are no duplicates, not even nearly."""
    draws = hashlib.shake_256(mark.encode()).digest(len(text))
    return " ".join(
        f"{word} {draw}" if n % 4 == 3 else word
        for n, (word, draw) in enumerate(zip(text.split(), draws, strict=False))
    )
