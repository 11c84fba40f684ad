"""From a preference pair to what is trained on: the tokens of its prompt and of both answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesift.models.turns import Encoder
from tunesift.prompts import Template
from tunesift.records import Failure, Preference, Record


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Tokens of a prompt, and of two answers with what ends them."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """All that are read: the prompt once with each answer."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def longest(self) -> int:
        """Those of the prompt with the longer answer."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


class PairEncoder:
    """Turns preference pairs into tokens; each answer as `Encoder` has a response, behind the same prompt."""

    def __init__(self, tokenizer: Any, template: Template, empty: bool = False) -> None:  # Any: transformers' own class
        """With `empty` answers may be empty, and an input is not set apart: as a reward model is asked."""
        self._empty = empty
        self._encode = Encoder(tokenizer, template, empty)

    @property
    def last(self) -> int:
        """The token that ends every answer."""
        return self._encode.last

    @property
    def ending(self) -> int:
        """Tokens that stand behind every answer."""
        return self._encode.ending

    def __call__(self, pair: Preference) -> EncodedPair | Failure:
        """The tokens of a pair, however many; a `Failure` where there is nothing to train on."""
        sides = []
        extra = {name: value for name, value in pair.extra.items() if name != "input"} if self._empty else pair.extra
        for answer in (pair.chosen, pair.rejected):
            found = self._encode(Record(pair.id, (*pair.prompt, answer), extra))
            if isinstance(found, Failure):
                return found
            sides.append(found)
        chosen, rejected = sides
        return EncodedPair(chosen.ids[: chosen.start], chosen.ids[chosen.start :], rejected.ids[rejected.start :])
