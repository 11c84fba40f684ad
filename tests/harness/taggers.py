"""A stand-in for spaCy's module, with as much of it as the adapter asks for: pipelines by name, and their annotation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType

TAGGED = {
    "the": "the DET", "quick": "quick ADJ", "brown": "brown ADJ", "foxes": "fox NOUN", "jump": "jump VERB", "and": "and CCONJ",
    "lazy": "lazy ADJ", "dogs": "dog NOUN", "sleep": "sleep VERB", "bark": "bark VERB", "loudly": "loudly ADV",
}  # fmt: skip
"""Lemma and part of speech of every word of the annotated text."""


@dataclass(frozen=True)
class Word:
    """A token as spaCy has it."""

    text: str
    lemma_: str
    pos_: str
    is_sent_start: bool


@dataclass(frozen=True)
class Doc:
    """An annotated text."""

    words: list[Word]
    cut: bool

    def __iter__(self) -> Iterator[Word]:
        return iter(self.words)

    def __len__(self) -> int:
        return len(self.words)

    def has_annotation(self, name: str) -> bool:
        """Whether sentences were found; the adapter asks for nothing else so."""
        assert name == "SENT_START"
        return self.cut


@dataclass(frozen=True)
class Pipeline:
    """Tags by a list, as far as it does."""

    words: Mapping[str, str] = field(default_factory=dict)
    cuts: bool = True
    lemmas: bool = True

    @property
    def meta(self) -> Mapping[str, str]:
        """What it calls itself."""
        return {"lang": "en", "name": f"listed{len(self.words)}", "version": "1.2"}

    def __call__(self, text: str) -> Doc:
        """The words and marks of a text."""
        found: list[Word] = []
        for form in re.findall(r"\w+|[^\w\s]", text):
            lemma, _, upos = self.words.get(form.lower(), f"{form.lower()} {'PUNCT' if self.words else ''}").partition(
                " "
            )
            begins = not found or found[-1].text in ".!?"
            found.append(Word(form, lemma if self.lemmas else "", upos, begins))
        return Doc(found, self.cuts)


def spacy_with(pipelines: Mapping[str, Pipeline]) -> ModuleType:
    """The module, with these pipelines installed."""

    def load(name: str) -> Pipeline:
        if name not in pipelines:
            raise OSError(f"[E050] Can't find model '{name}'. It doesn't seem to be a Python package or a valid path.")
        return pipelines[name]

    module = ModuleType("spacy")
    module.__dict__.update({"load": load, "__version__": "3.8.18"})
    return module
