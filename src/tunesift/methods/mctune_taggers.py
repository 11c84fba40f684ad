"""Who tells parts of speech and lemmas? A pipeline of spaCy that the user names, or a rule; any callable will do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from tunesift.errors import MissingExtra, RecipeError, shown
from tunesift.methods.mctune_words import Token, is_word
from tunesift.settings import Settings

_MISSING = {"upos": "no parts of speech (upos)", "lemma": "no lemmas (lemma)"}
_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")


class Tagger(Protocol):
    """Any callable from a text to its tokens, with lemmas, universal parts of speech, and numbers of sentences."""

    def __call__(self, text: str, /) -> Sequence[Token]: ...


@dataclass(frozen=True, kw_only=True)
class SpacyTagger(Settings):
    """A pipeline of spaCy that tags, lemmatises and finds sentences, such as en_core_web_sm; it is not fetched."""

    kind: Literal["spacy"] = "spacy"
    name: str
    """Name of an installed pipeline, or its folder."""

    def identity(self) -> str:
        """What the pipeline calls itself, its version, and spaCy's: other versions tag otherwise."""
        meta, version = _loaded(self.name).meta, _spacy().__version__
        return f"{meta['lang']}_{meta['name']}-{meta['version']}+spacy-{version}"

    def __call__(self, text: str, /) -> list[Token]:
        """The tokens of a text; raises `RecipeError` where the pipeline finds no sentences."""
        doc = _loaded(self.name)(text)
        if len(doc) > 1 and not doc.has_annotation("SENT_START"):
            raise RecipeError(f"analyser.tagger: the pipeline {shown(self.name)} finds no sentences (sent_start); use "
                              "one with a parser or a sentencizer.")  # fmt: skip
        found: list[Token] = []
        number = -1
        for token in doc:
            number += not found or bool(token.is_sent_start)
            found.append(Token(token.text, token.lemma_, token.pos_, number))
        return found


@dataclass(frozen=True, kw_only=True)
class ScriptedTagger(Settings):
    """Tags by a list of words, at once and always the same: for tests and dry runs."""

    kind: Literal["scripted"] = "scripted"
    words: Mapping[str, str] = field(default_factory=dict)
    """Lemma and universal part of speech of a form in small letters: foxes: fox NOUN."""
    otherwise: str = "X"
    """Part of speech of a word that is not listed; its lemma is its form."""

    def __call__(self, text: str, /) -> list[Token]:
        """Words and marks; a full stop, question or exclamation mark ends a sentence."""
        found: list[Token] = []
        number = 0
        for form in _TOKEN.findall(text):
            lemma, _, upos = self.words.get(form.lower(), f"{form.lower()} {self.otherwise}").partition(" ")
            found.append(Token(form, lemma, upos if any(map(str.isalnum, form)) else "PUNCT", number))
            number += form in ".!?"
        return found


AnyTagger = Annotated[SpacyTagger | ScriptedTagger, Field(discriminator="kind")]


def annotated(tagger: Tagger, text: str, *needed: Literal["upos", "lemma"]) -> Sequence[Token]:
    """What a tagger tells of a text; raises `RecipeError` that names the annotation that its words lack.

    A pipeline without a tagger would count no noun, and one without a lemmatiser one lemma, in every text.
    """
    tokens = tagger(text)
    words = [token for token in tokens if is_word(token)]
    for name in needed:
        if words and not any(getattr(token, name) for token in words):
            whose = shown(str(getattr(tagger, "name", getattr(tagger, "kind", type(tagger).__name__))))
            raise RecipeError(f"analyser.tagger: {whose} gives {_MISSING[name]}; use one that does, or leave it out, "
                              "with analyser.profile=core.")  # fmt: skip
    return tokens


def _spacy() -> Any:  # Any: spaCy, an optional library
    try:
        import spacy
    except ImportError:
        raise MissingExtra(
            'analyser.tagger: needs the "pos" extra; write pip install "tunesift[pos]", in a clone ".[pos]".'
        ) from None
    return spacy


@cache
def _loaded(name: str) -> Any:  # Any: a pipeline of spaCy
    try:
        return _spacy().load(name)
    except OSError:
        raise RecipeError(f"analyser.tagger.name: spaCy loads no pipeline {shown(name)} here; install one, or name the "
                          "folder of one.") from None  # fmt: skip
