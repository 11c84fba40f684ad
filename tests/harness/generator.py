"""A model that generates by rule: what it writes is a pure function of the prompt and the seed."""

from __future__ import annotations

import hashlib
import re

LIST_ONLY = "nothing before or after the list"
_SIZE = re.compile(r"numbered list of (\d+)")
_FIELD = re.compile(r"The field is: (.+)")
_SUBTOPIC = re.compile(r"The subtopic is: (.+)")
_NUMBER = re.compile(r"`(Topic|Subtopic) ?(\d*):`")
CLUMSY = "Forget the labels now and then."
"""Whoever ends a prompt so gets a tenth of its rows without them."""
STUCK = "Say it again."
"""Whoever ends a prompt so gets the same row each time."""
SOUNDS = ("ka", "lo", "mi", "ne", "pu", "ri", "sa", "to", "ve", "zu", "bo", "di", "fe", "gu", "hy", "ja")


def is_generating(text: str) -> bool:
    """Whether a text is what GenQA asks a model."""
    return "Write in English." in text and ("Write " in text[:400] or "The field is:" in text[:20])


def word(*parts: object) -> str:
    """A word that nobody knows, always the same for the same parts."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return "".join(SOUNDS[b % 16] for b in digest[:6])


def numbered(names: list[str]) -> str:
    return "\n".join(f"{n}. {name}" for n, name in enumerate(names, 1))


def generated(text: str, seed: object) -> str:
    """What the model writes: the list that was asked for, or a row with its lists before it."""
    field = found[1] if (found := _FIELD.search(text)) else ""
    if LIST_ONLY in text:
        size = int(_SIZE.findall(text)[0])
        return numbered([f"{word(field, seed, n)} studies".capitalize() for n in range(size)])
    subtopic = found[1] if (found := _SUBTOPIC.search(text)) else ""
    before = []
    if not subtopic:
        for size, (label, number) in zip(_SIZE.findall(text), _NUMBER.findall(text), strict=False):
            names = [f"{word(field, seed, label, n)} studies".capitalize() for n in range(int(size))]
            chosen = int(number or 1)
            before += [numbered(names), f"{label} {number}: {names[chosen - 1]}".replace(" :", ":")]
    written = row(text, ("again",) if STUCK in text else (field, subtopic, seed))
    if CLUMSY in text and int.from_bytes(hashlib.sha256(written.encode()).digest()[:2], "big") % 10 == 0:
        written = written.replace("Question: ", "")
    return "\n".join([*before, written])


def row(text: str, about: tuple[object, ...]) -> str:
    """A question and its answer in the form that is asked for."""
    name = word("row", about)
    asked = f"How would you measure the {name} of a {word('thing', about)} when its valve is stuck? Give each step."
    if "`A)`" in text:
        options = "\n".join(f"{letter}) {word(letter, about)} first" for letter in "ABCD")
        return f"Question: {asked}\n{options}\nAnswer: B. It is the safest way to do it."
    if "`User:`" in text:
        return (f"User: {asked}\nAssistant: Begin with the {name}, and go on slowly.\n"
                "User: And if that is harder?\nAssistant: Then halve the pressure and begin again.")  # fmt: skip
    if "which is lost" in text:
        return f"Question: {asked}"
    code = "\n```python\nprint(1)\n```" if "fenced block" in text else ""
    return f"Question: {asked}\nAnswer: First find the {name}. Then measure it twice and take the mean.{code}"
