"""A teacher that teaches by rule: what it writes is a pure function of what it is shown."""

from __future__ import annotations

import re

SHOWN = re.compile(r"<given-(instruction|answer)>\n(.*?)\n</given-\1>", re.S)


def is_taught(text: str) -> bool:
    """Whether a text is what Reflection-Tuning asks a teacher."""
    return "[Better Answer] your answer [End]" in text or "[New Instruction] your instruction [End]" in text


def taught(text: str) -> str:
    """What the teacher writes: of a pair a longer pair, of an answer a longer answer; it repeats what it was shown."""
    shown = {name: body for name, body in SHOWN.findall(text)}
    instruction, answer = shown["instruction"], shown["answer"]
    if "[Better Answer]" in text:
        return f"1. It says too little.\n2. [Better Answer] {answer} Said with more care, it is this. [End]"
    return (f"1. It asks for little.\n2. [New Instruction] {instruction} Give every detail that matters. [End]\n"
            f"3. [New Answer] {answer} Every detail matters. [End]")  # fmt: skip
