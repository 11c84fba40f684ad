"""How is it written what a response is to be like, and which numbers are asked for?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from tunesift.methods.mctune_features import BY_KEY, FEATURES, MOST_FKRE, derived
from tunesift.records import Failure

MOST_REDRAWS = 10_000
"""Times that a vector of targets is drawn until it is valid; the authors'."""
DECIMALS = 2
"""Of a number that is asked for."""

PREAMBLE = (
    "You are given an instruction, and with it an input. The input ends with a list of tags in brackets, each with a "
    "number: they say what your response is to be like. These are the tags, and what they mean:\n"
    + "".join(f"[{feature.key}] {feature.meaning}\n" for feature in FEATURES)
    + "Write a response that does what the instruction asks for, and that has what its tags say."
)
"""What a model is told before anything else; always the same, whichever tags follow. The wording is ours, the content
the paper's: every tag with its meaning."""

_NUMBER = r"(?:0|[1-9]\d*)(?:\.(?:0|\d?[1-9]))?"
_ITEM = re.compile(rf"\[(\w+): (-?{_NUMBER})\]")
_BLOCK = re.compile(rf"{_ITEM.pattern}(?: {_ITEM.pattern})*", re.ASCII)
_LIKE_ONE = re.compile(rf"\[\s*(?:{'|'.join(BY_KEY)})\s*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Targets:
    """What is asked of one answer."""

    values: Mapping[str, float]
    """Of every feature, as it would be written."""
    fell_back: bool
    """Whether no valid vector was found, so that these are the measurements themselves."""


def number_text(value: float) -> str:
    """A number as a control has it: a whole one without a point, others rounded to two decimals, trailing zeros but the
    first left out. 120, 45.0, 0.875, 119.403 and 0.004 are 120, 45, 0.88, 119.4 and 0.0."""
    return str(int(value)) if float(value).is_integer() else str(round(value, DECIMALS) + 0.0)


def as_written(value: float) -> float:
    """The number that its text says."""
    return float(number_text(value))


def block(values: Mapping[str, float]) -> str:
    """The controls of a row, in the order of the features: `[t_word: 120] [fkre: 65.2]`."""
    return " ".join(f"[{key}: {number_text(values[key])}]" for key in BY_KEY if key in values)


def parse_block(text: str) -> dict[str, float] | Failure:
    """The numbers of a text that is just such a block; anything else is unreadable, and says why."""
    if not _BLOCK.fullmatch(text):
        return Failure("unreadable", "is not a list of controls such as [t_word: 120] [fkre: 65.2]")
    items = [(key, number) for key, number in _ITEM.findall(text)]
    keys = [key for key, _ in items]
    if unknown := [key for key in keys if key not in BY_KEY]:
        return Failure("unreadable", f"has the control {unknown[0]}, which is none")
    if keys != [key for key in BY_KEY if key in keys]:
        return Failure("unreadable", "has its controls twice or in another order")
    if any(float(number) == 0 and number[0] == "-" for _, number in items):
        return Failure("unreadable", "has a zero with a sign")
    return {key: float(number) for key, number in items}


def holds_control(text: str) -> bool:
    """Whether a text holds what could be taken for a control."""
    return _LIKE_ONE.search(text) is not None


def draw_subset(keys: Sequence[str], most: int, stream: Random) -> tuple[str, ...]:
    """Which features are asked for: their number uniform on 1 to `most`, then so many different ones, in order."""
    chosen = stream.sample(keys, stream.randint(1, most))
    return tuple(key for key in keys if key in chosen)


def perturbed(found: Mapping[str, float], deviations: Mapping[str, float], sigma: float, stream: Random) -> Targets:
    """What a held-out answer measures, shifted at random: every count and fkre by `sigma` of its standard deviation in
    the corpus times a normal draw, all drawn anew until they are valid as they are written; what is derived follows
    from the shifted and rounded counts. At sigma 0 these are the measurements.
    """
    own = [key for key in found if not BY_KEY[key].of]
    true = _whole({key: found[key] for key in own})
    if sigma == 0:
        return Targets(true, fell_back=False)
    for _ in range(MOST_REDRAWS):
        drawn = {key: found[key] + sigma * deviations[key] * stream.gauss(0, 1) for key in own}
        values = {key: _rounded(key, value) for key, value in drawn.items()}
        if is_valid(values):
            return Targets(_whole(values), fell_back=False)
    return Targets(true, fell_back=True)


def is_valid(values: Mapping[str, float]) -> bool:
    """Whether one text could have these counts: some words, of which the different ones are no more, nor those of three
    parts of speech together; and no more than the largest readability. Of those that are given."""
    words, different = values["t_word"], values["t_uword"]
    pairs = [(values[f"n_{x}"], values[f"n_u{x}"]) for x in ("noun", "verb", "adj") if f"n_{x}" in values]
    return (
        words >= different > 0
        and words >= sum(every for every, _ in pairs)
        and different >= sum(unlike for _, unlike in pairs)
        and all(every >= unlike >= 0 for every, unlike in pairs)
        and values.get("fkre", 0.0) <= MOST_FKRE + 1e-9
    )


def _whole(values: Mapping[str, float]) -> dict[str, float]:
    """All features as they are written, the derived ones from the counts that are."""
    rounded = {key: _rounded(key, value) for key, value in values.items()}
    every = {**rounded, **derived(rounded)}
    return {key: as_written(every[key]) for key in BY_KEY if key in every}


def _rounded(key: str, value: float) -> float:
    return float(round(value)) if BY_KEY[key].kind == "count" else as_written(value)
