"""The fourteen measurements of a text: what each is, and what it needs to be told.

Counts are of words; marks and spaces are left out everywhere. `counting=compat` counts as the labels of the authors'
data do, all tokens and their syllables; it wants annotated texts. All are measured together, in one order, so that no
measurement depends on which others were asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from tunesift.errors import RecipeError
from tunesift.methods.mctune_taggers import AnyTagger, Tagger, annotated
from tunesift.methods.mctune_words import VERSION, Token, compat_syllables, is_word, read_words, syllables
from tunesift.records import Failure, Record, Score
from tunesift.settings import Identified, Settings, digest, semantic

Kind = Literal["count", "ratio", "fkre", "minutes"]
Counting = Literal["words", "compat"]

MOST_FKRE = 206.835 - 1.015 - 84.6
"""121.22: the score of sentences of one word of one syllable."""
WORDS_A_MINUTE = 240
DIGITS = 3
"""Decimals of a measurement."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One measurement of a text."""

    key: str
    kind: Kind
    meaning: str
    """For the preamble: a few words."""
    tagged: bool = False
    """Whether it needs parts of speech."""
    of: tuple[str, ...] = ()
    """Features that it is derived from; empty for those that are measured themselves."""


FEATURES = (
    Feature("t_word", "count", "how many words it has"),
    Feature("t_uword", "count", "how many different words it has"),
    Feature("simp_ttr", "ratio", "different words, divided by all words", of=("t_uword", "t_word")),
    Feature("n_noun", "count", "how many nouns it has", tagged=True),
    Feature("n_verb", "count", "how many verbs it has", tagged=True),
    Feature("n_adj", "count", "how many adjectives it has", tagged=True),
    Feature("n_unoun", "count", "how many different nouns it has", tagged=True),
    Feature("n_uverb", "count", "how many different verbs it has", tagged=True),
    Feature("n_uadj", "count", "how many different adjectives it has", tagged=True),
    Feature("simp_noun_var", "ratio", "different nouns, divided by all nouns", tagged=True, of=("n_unoun", "n_noun")),
    Feature("simp_verb_var", "ratio", "different verbs, divided by all verbs", tagged=True, of=("n_uverb", "n_verb")),
    Feature("simp_adj_var", "ratio", "different adjectives, divided by all adjectives", tagged=True,
            of=("n_uadj", "n_adj")),
    Feature("fkre", "fkre", "the Flesch reading ease; larger is easier to read"),
    Feature("rt_average", "minutes", "the minutes that it takes to read", of=("t_word",)),
)  # fmt: skip
"""In the order in which they are always named (the paper's list)."""
BY_KEY: Mapping[str, Feature] = {feature.key: feature for feature in FEATURES}
_POS = {"noun": "NOUN", "verb": "VERB", "adj": "ADJ"}


@dataclass(frozen=True, kw_only=True)
class Analyser(Settings):
    """What measures a text; always the same one for training rows, test rows and answers."""

    profile: Literal["core", "pos"] = "core"
    """core: words, different words, their ratio, readability and reading time; pos: all fourteen, for which a tagger
    must be given."""
    tagger: AnyTagger | None = None
    """Who tells words, sentences, lemmas and, for profile=pos, parts of speech; None for rules of ours for English, to
    which a lemma is a form without its capitals."""
    counting: Counting = "words"
    """words: marks are no words; compat: every token counts, as in the authors' data; for a tagger."""

    def __post_init__(self) -> None:
        if self.profile == "pos" and self.tagger is None:
            raise RecipeError("analyser.tagger: is not given, and profile=pos needs parts of speech; write "
                              "analyser.tagger.kind=spacy analyser.tagger.name=NAME.")  # fmt: skip
        if self.counting == "compat" and self.tagger is None:
            raise RecipeError("analyser.counting: compat counts annotated tokens, and no tagger is given; write "
                              "analyser.tagger.kind=spacy analyser.tagger.name=NAME.")  # fmt: skip

    @property
    def analyzer_id(self) -> str:
        """Name, version and profile; measurements of two of them are never compared."""
        profile = self.profile if self.counting == "words" else f"{self.profile}-compat"
        if self.tagger is None:
            return f"tunesift/{VERSION}/{profile}"
        whose = self.tagger.identity() if isinstance(self.tagger, Identified) else digest(semantic(self.tagger))[:8]
        return f"{self.tagger.kind}:{whose}/{VERSION}/{profile}"

    @property
    def features(self) -> tuple[Feature, ...]:
        """What it measures, in their order."""
        return tuple(feature for feature in FEATURES if self.profile == "pos" or not feature.tagged)

    def __call__(self, text: str) -> dict[str, float]:
        """Every measurement of a text, to three decimals; the readability of a text without words is missing."""
        tokens = read_words(text) if self.tagger is None else self._annotated(self.tagger, text)
        found = measured(tokens, self.counting)
        return {feature.key: found[feature.key] for feature in self.features if feature.key in found}

    def _annotated(self, tagger: Tagger, text: str) -> Sequence[Token]:
        return annotated(tagger, text, "upos", "lemma") if self.profile == "pos" else annotated(tagger, text, "lemma")


@dataclass(frozen=True, kw_only=True)
class MeasureResponse(Settings):
    """Every measurement of a record's response; the value is its number of words."""

    kind: Literal["words"] = "words"
    analyser: Analyser

    returns: ClassVar[type[Score]] = Score

    def __call__(self, chunk: Sequence[Record], /) -> Sequence[Score | Failure]:
        """One score for each; without a value where there is no response."""
        return [self._score(record.response) for record in chunk]

    def _score(self, text: str) -> Score:
        if not text.strip():
            return Score(None, note="empty_response")
        found = self.analyser(text)
        return Score(found["t_word"], found)


def measured(tokens: Sequence[Token], counting: Counting = "words") -> dict[str, float]:
    """All fourteen of annotated tokens, in their order; fkre only where there is a word."""
    counted = [token for token in tokens if counting == "compat" or is_word(token)]
    found: dict[str, float] = {"t_word": len(counted), "t_uword": _different(counted)}
    for name, upos in _POS.items():
        tagged = [token for token in counted if token.upos == upos]
        found |= {f"n_{name}": len(tagged), f"n_u{name}": _different(tagged)}
    found |= derived(found)
    if counted:
        forms = [token.form for token in counted]
        spoken = compat_syllables(forms) if counting == "compat" else sum(map(syllables, forms))
        found["fkre"] = fkre(len(forms), len({token.sentence for token in counted}), spoken)
    return {f.key: _rounded(found[f.key]) for f in FEATURES if f.key in found}


def fkre(words: int, sentences: int, spoken: int) -> float:
    """Flesch reading ease: 206.835 - 1.015 * words / sentences - 84.6 * syllables / words; at most 121.22 where every
    word has a syllable, and below 0 for long words in long sentences (Flesch 1948). `spoken` counts syllables."""
    return 206.835 - 1.015 * words / sentences - 84.6 * spoken / words


def derived(counts: Mapping[str, float]) -> dict[str, float]:
    """The five features that follow from counts, as far as these are there: ratios from 0 to 1, which of nothing are 0,
    and minutes at 240 words each."""
    found = {}
    for feature in FEATURES:
        if feature.of and all(name in counts for name in feature.of):
            found[feature.key] = _rounded(_DERIVED[feature.kind](*(counts[name] for name in feature.of)))
    return found


def is_measured(found: Mapping[str, float]) -> bool:
    """Whether a text has a word, and a readability from -100 to 121.22; others are no texts to learn from."""
    reads = found.get("fkre")
    return reads is not None and math.isfinite(reads) and -100 <= reads <= MOST_FKRE + 1e-9 and found["t_word"] >= 1


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _minutes(words: float) -> float:
    return words / WORDS_A_MINUTE


_DERIVED: Mapping[Kind, Callable[..., float]] = {"ratio": _ratio, "minutes": _minutes}


def _different(tokens: Sequence[Token]) -> int:
    return len({token.lemma.casefold() for token in tokens})


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else round(value, DIGITS)
