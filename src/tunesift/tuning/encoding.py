"""From a preference pair to what is trained on: the tokens of its prompt and of both answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tunesift.models.turns import Encoder, WholeEncoder
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
        """With `empty` answers may be empty."""
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
        for answer in (pair.chosen, pair.rejected):
            found = self._encode(Record(pair.id, (*pair.prompt, answer), pair.extra))
            if isinstance(found, Failure):
                return found
            sides.append(found)
        chosen, rejected = sides
        return EncodedPair(chosen.ids[: chosen.start], chosen.ids[chosen.start :], rejected.ids[rejected.start :])


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """A prompt with each of two answers as a reward model reads them, and how many tokens the texts themselves are."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    prompt: int
    """Tokens of the prompt, up to where an answer begins."""
    answers: tuple[int, int]
    """Tokens of the chosen and of the rejected answer as they were given, without what ends them."""

    @property
    def tokens(self) -> int:
        """All that are read."""
        return len(self.chosen) + len(self.rejected)

    @property
    def longest(self) -> int:
        """Those of the longer of the two."""
        return max(len(self.chosen), len(self.rejected))


class JudgedEncoder:
    """Turns preference pairs into what a reward model reads of them; answers may be empty, and an input is not set
    apart, because nobody who asks such a model does so."""

    def __init__(self, tokenizer: Any, template: Template) -> None:  # Any: transformers' own class
        self._whole = WholeEncoder(tokenizer, template)
        self._apart = PairEncoder(tokenizer, template, empty=True)

    @property
    def last(self) -> int:
        """The token that ends a turn."""
        return self._apart.last

    def __call__(self, pair: Preference) -> JudgedPair | Failure:
        """The tokens of a pair, however many; a `Failure` where there is nothing to train on."""
        plain = replace(pair, extra={name: value for name, value in pair.extra.items() if name != "input"})
        sides = []
        for answer in (pair.chosen, pair.rejected):
            ids = self._whole(Record(pair.id, (*pair.prompt, answer), plain.extra))
            if isinstance(ids, Failure):
                return ids
            sides.append(ids)
        if isinstance(parts := self._apart(plain), Failure):
            return parts
        chosen, rejected = (len(answer) - self._apart.ending for answer in (parts.chosen, parts.rejected))
        return JudgedPair(sides[0], sides[1], len(parts.prompt), (chosen, rejected))
