"""What does chance say about one row of GenQA? Drawn by us, never by the model, from the seed and the row's number."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from tunesift.errors import RecipeError
from tunesift.methods.genqa_prompts import SPLITS, SplitName, Variant
from tunesift.models import ChatModel
from tunesift.models.base import Completion, Sampling
from tunesift.models.http import HttpModel
from tunesift.records import Failure, Message
from tunesift.settings import Settings

Stream = Callable[..., random.Random]
"""A stream of draws by what it is for, such as `Run.random`."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What was drawn for one try of one row; the same whenever and wherever it is drawn."""

    split: SplitName
    idx: int
    """Number of the row within its split, from 0."""
    attempt: int
    """0 for the first try."""
    variant: Variant
    topic: str
    """Empty where the variant begins without one."""
    booster: str
    first: float
    """Where in the first list, from 0 to below 1."""
    second: float
    """Where in the second list."""
    seed: int
    """Of the sampling."""
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Chance:
    """What is drawn from."""

    variants: tuple[Variant, ...]
    topics: Mapping[SplitName, Sequence[str]]
    """By split; none for what begins with nothing."""
    boosters: tuple[str, ...]
    seed: int
    """The run's, which is part of a row's id."""

    def draw(self, stream: Stream, split: SplitName, idx: int, attempt: int = 0) -> Draw:
        """A try of a row, from a stream that is its own."""
        chance = stream("genqa", split, idx, attempt)
        variant = chance.choice(self.variants)
        topics = self.topics[split]
        topic = chance.choice(topics) if topics else ""
        booster = chance.choice(self.boosters) if self.boosters else ""
        first, second, seed = chance.random(), chance.random(), chance.getrandbits(31)
        variant = variant if topics else "static"
        begins = variant in ("static-conditional", "generator-conditional")
        id = f"genqa-{self.seed}-{split}-{idx}{f'~again-{attempt}' if attempt else ''}"
        return Draw(split, idx, attempt, variant, topic if begins else "", booster, first, second, seed, id)


def place(drawn: float, size: int) -> int:
    """A number of 1 to `size`, each as likely as any other, of a draw between 0 and 1."""
    if size < 1:
        raise RecipeError(f"lists: {size} is no number of items; write 1 or more.")
    return 1 + min(int(drawn * size), size - 1)


def check_place(number: int, size: int) -> None:
    """Raise `RecipeError` where a list of this size has no item of this number."""
    if size < 1 or not 1 <= number <= size:
        raise RecipeError(f"lists: number {number} of a list of {size} does not exist; write a size of 1 or more.")


def shares(count: int, splits: Sequence[SplitName], balance: float) -> dict[SplitName, int]:
    """How many rows each split gets: in proportion to a power of the public sizes, by largest remainders."""
    weights = [SPLITS[split].rows ** balance for split in splits]
    exact = [count * weight / sum(weights) for weight in weights]
    found = [math.floor(x) for x in exact]
    by_rest = sorted(range(len(splits)), key=lambda n: (found[n] - exact[n], n))
    for n in by_rest[: count - sum(found)]:
        found[n] += 1
    return dict(zip(splits, found, strict=True))


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, and the seed that its answer is drawn with."""

    id: str
    prompt: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Ask(Settings):
    """Send a prompt as a conversation of one message."""

    model: ChatModel
    sampling: Sampling

    returns: ClassVar[type[Completion]] = Completion

    def __call__(self, chunk: Sequence[Asked], /) -> Sequence[Completion | Failure]:
        """What the model wrote. Every item has a seed of its own: with one for all, an endpoint that heeds it would
        write the same list again and again."""
        if isinstance(self.model, HttpModel) and "seed" in self.model.parameters:
            return self.model.chat([_said(item) for item in chunk], self.sampling)
        return [self.model.chat([_said(item)], replace(self.sampling, seed=item.seed))[0] for item in chunk]


def _said(item: Asked) -> tuple[Message, ...]:
    return (Message("user", item.prompt),)


def check_seeds(model: ChatModel) -> None:
    """Raise `RecipeError` for a model that would be asked with one seed for all, or with one file for each prompt."""
    if not isinstance(model, HttpModel):
        return
    if model.parameters.get("seed") is not None:
        raise RecipeError("model.parameters.seed: one seed for all makes the model repeat itself; write null, or leave "
                          "it out.")  # fmt: skip
    if model.batch is not None and "seed" not in model.parameters:
        raise RecipeError("model.batch: a file has one seed for all its requests; add model.parameters.seed=null, so "
                          "that none is sent.")  # fmt: skip
