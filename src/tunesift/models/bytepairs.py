"""Can a text be cut into tokens without its tokenizer? By tiktoken, where its tokens are provably the same.

Both put bytes together, pair by pair: the tokenizer the pair that comes first in its list of merges, tiktoken the pair
whose bytes together are the token of the lowest id; of equals both take the leftmost. Let both have come to the same
state of a piece, and let x, y be neighbours in it that together spell a token t. Nothing was ever merged across their
outer ends, so that what happened between these is what happens when the bytes of t are cut alone, and [x, y] is the
state before its last step. Cutting each token's own bytes by the tokenizer's merges therefore tells all:

    t alone ends as [t]         the pair is in the list, and gives t; it is the only pair that ever stands for t
    t alone ends as two tokens  tiktoken would merge them, the tokenizer never does
    t alone ends as more        no pair of neighbours ever spells t

With the tokens of the first kind alone both have the same pairs to choose from at every step, and with ids that rise in
the order of merges they choose the same one. A piece that is a token is taken whole by tiktoken, and by a tokenizer
that says `ignore_merges`: there the third kind is kept, and the second refused. Pieces come from one of a few
published expressions (`EXPRESSIONS`), which two libraries run: a text is cut here only if both have been seen to treat
each of its characters alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    import tiktoken

LONGEST = 100_000
"""Characters of the longest text that is cut here: of a run of a million spaces tiktoken has no memory left."""
WORTH = 5_000
"""Texts after which a quick way is looked for: looking costs what it saves in about so many of Alpaca's
(benchmarks/results/tokenising.json)."""

_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SHORT_BY_LETTER = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""How GPT-2 cuts a text into pieces, which tokenizers call ByteLevel."""
LLAMA3 = _SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + _SPACES
"""How Llama 3 does, as GPT-4 does."""
QWEN2 = LLAMA3.replace("{1,3}", "")
"""How Qwen 2 to 3 do."""
QWEN35 = _SHORT + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*" + _SPACES
"""How Qwen 3.5 does."""
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SHORT}?|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SHORT}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + _SPACES
)
"""How GPT-4o, gpt-oss and Llama 4 do."""
EXPRESSIONS = frozenset(
    form for known in (GPT2, LLAMA3, QWEN2, QWEN35, GPT4O) for form in (known, known.replace(_SHORT, _SHORT_BY_LETTER))
)
"""Those that are known to mean the same in both libraries, and to need no more of tiktoken than `LONGEST` allows."""

_UNIFORM = ((0x4E, 0x9E), (0xAC, 0xD6))
"""Blocks of 256 characters of one class, ideographs and Hangul, of which every sixteenth character is looked at."""
_LAST = 0x1FF
"""The last block that is looked at, at 5 to 20 ms each: beyond it are few but ideographs of old books."""
_CONTEXTS = "{} a{}a A{}A a{}A A{}a 1{}1 !{}! '{}' '{}l 'l{} '{}e 'r{} x'{}  {}  x {} \n{}\n{}{}\t{}/{}"
"""Neighbours beside which two classes of characters come to different pieces."""
_ASCII = "".join(map(chr, range(128)))
_SEEN = "aBzeélsßüΩж字あ한١27٣ '’\t\n\r!?/.,-_#|<>\u00a0\u0301\u200d😀"
"""Characters of all classes that the expressions name."""


def _alphabet() -> dict[int, int]:
    """The byte that each letter of a byte-level vocabulary stands for."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {**dict(zip(plain, plain, strict=True)), **{256 + n: byte for n, byte in enumerate(others)}}


_BYTES = _alphabet()
_LETTERS = frozenset(map(chr, _BYTES))


class QuickEncoder:
    """A tokenizer's texts by a quicker way, which is looked for once it is worth it; the tokens are the same."""

    def __init__(self, tokenizer: Any) -> None:  # Any: transformers' own class
        self._tokenizer, self._asked, self._looked = tokenizer, 0, False
        self._way: BytePairs | None = None

    def __call__(self, text: str) -> list[int] | None:
        """Tokens of a text, without special ones; None for a text that is the tokenizer's own affair."""
        way = self._ready()
        return None if way is None else way(text)

    def joint(self, before: str, after: str, known: dict[str, list[int]]) -> tuple[list[int], int] | None:
        """As `BytePairs.joint`."""
        way = self._ready()
        return None if way is None else way.joint(before, after, known)

    def _ready(self) -> BytePairs | None:
        self._asked += 1
        if self._asked > WORTH and not self._looked:
            self._looked = True
            self._way = byte_pairs(self._tokenizer)
        return self._way


class BytePairs:
    """Cuts texts by tiktoken, as the tokenizer would whose ranks these are."""

    def __init__(self, backend: Any, expression: str, ranks: Mapping[bytes, int]) -> None:  # Any: tokenizers' own class
        self._backend, self._expression = backend, expression
        self._encoding = _encoding(expression, ranks)
        self._alike: set[str] = set()  # characters that both libraries treat alike
        self._looked_at: set[int] = set()  # blocks of 256 characters
        names = {token.content for token in backend.get_added_tokens_decoder().values()}
        names |= {self._normal(name) for name in names}
        self._named = re.compile("|".join(re.escape(n) for n in sorted(names) if n) or r"(?!)")

    def __call__(self, text: str) -> list[int] | None:
        """Tokens of a text, without special ones; None for a text that is the tokenizer's own affair."""
        return self._encoding.encode_ordinary(self._normal(text)) if self._is_ours(text) else None

    def joint(self, before: str, after: str, known: dict[str, list[int]]) -> tuple[list[int], int] | None:
        """Tokens of two texts as one, and how many the first has alone; None where they are the tokenizer's affair.

        What is `known` is not cut again: two texts that end alike, in parts, are cut alike there.
        """
        whole = before + after
        if not self._is_ours(whole) or not (whole.isascii() or self._is_ours(before)):
            return None
        place = gap(before)
        parts = before[:place], before[place:], before[place:] + after
        for part in parts:
            if part not in known:
                known[part] = self._encoding.encode_ordinary(self._normal(part))
        first, last, both = (known[part] for part in parts)
        return [*first, *both], len(first) + len(last)

    def _is_ours(self, text: str) -> bool:
        if len(text) > LONGEST or self._named.search(text):
            return False
        if text.isascii():
            return True
        if not self.alike(text):
            return False
        normal = self._normal(text)
        return not self._named.search(normal) and self.alike(normal)

    def _normal(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return text if normalizer is None or text.isascii() else str(normalizer.normalize_str(text))

    def alike(self, text: str) -> bool:
        """Whether both libraries treat every character of a text alike."""
        new = set(text) - self._alike
        for block in sorted({ord(c) >> 8 for c in new} - self._looked_at):
            self._alike.update(self._alike_of(block))
            self._looked_at.add(block)
        return new <= self._alike

    def _alike_of(self, block: int) -> list[str]:
        if block > _LAST:
            return []
        letters = [chr(n) for n in range(block << 8, (block + 1) << 8) if not 0xD800 <= n < 0xE000]
        if not any(first <= block <= last for first, last in _UNIFORM):
            return self._cut_alike(letters)
        return letters if len(self._cut_alike(letters[::16])) == 16 else []

    def _cut_alike(self, letters: Sequence[str]) -> list[str]:
        """Those around which both libraries see the same pieces.

        Every piece that the tokenizer sees is made a token here, and so is every two that are neighbours: what merges
        inside a larger piece then leaves no two of them, and inside a smaller one gives none.
        """
        texts = [_CONTEXTS.replace("{}", letter) for letter in letters]
        cut = self._backend.pre_tokenizer.pre_tokenize_str
        pieces = [[piece.translate(_BYTES).encode("latin-1") for piece, _ in cut(text)] for text in texts]
        ranks = {bytes([byte]): byte for byte in range(256)}
        for row in pieces:
            for token in (*row, *(a + b for a, b in pairwise(row))):
                ranks.setdefault(token, len(ranks))
        probe = _encoding(self._expression, ranks)
        seen = ([ranks[piece] for piece in row] for row in pieces)
        return [c for c, text, ids in zip(letters, texts, seen, strict=True) if probe.encode_ordinary(text) == ids]


def gap(text: str) -> int:
    """The last place where a text falls into two that are cut by themselves, whatever follows; 0 where there is none.

    It is before a space that stands behind a visible ASCII character: in all `EXPRESSIONS` a space is the first
    character of its piece or stands among spaces alone, no piece depends on what stands before it, and only a piece of
    spaces on what comes after it. Nor does a space become one with what stands before it when a text is normalised.
    """
    place = text.rfind(" ")
    while place > 0 and not "!" <= text[place - 1] <= "~":
        place = text.rfind(" ", 0, place)
    return max(0, place)


def byte_pairs(tokenizer: Any) -> BytePairs | None:  # Any: transformers' own class
    """The quick way to a tokenizer's tokens; None where there is none that is known to give the same."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not find_spec("tiktoken"):
        return None
    said = orjson.loads(backend.to_str())
    expression = _expression(said["pre_tokenizer"])
    if expression is None or said["normalizer"] not in (None, {"type": "NFC"}):
        return None
    ranks = _ranks(said["model"])
    if ranks is None:
        return None
    way = BytePairs(backend, expression, ranks)
    return way if way.alike(_ASCII) and _same(way, tokenizer) else None


def _expression(splitter: Mapping[str, Any] | None) -> str | None:  # Any: JSON
    """What a tokenizer cuts texts into pieces by; None where that is not one of those known."""
    match splitter:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(found)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        } if found in EXPRESSIONS:
            return found
    return None


def _ranks(model: Mapping[str, Any]) -> dict[bytes, int] | None:  # Any: JSON
    """The id of each byte and each token that tiktoken is to know; None where it would merge otherwise."""
    odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if model["type"] != "BPE" or any(model.get(key) for key in odd):
        return None
    vocab: dict[str, int] = model["vocab"]
    merges: list[tuple[str, str]] = [(a, b) for a, b in model["merges"]]
    order = [vocab[a + b] for a, b in merges]
    if not vocab.keys() >= _LETTERS or any(b < a for a, b in pairwise(order)):
        return None
    kept = _kept(vocab, merges, bool(model.get("ignore_merges")))
    if kept is None:
        return None
    return {text.translate(_BYTES).encode("latin-1"): vocab[text] for text in (*sorted(_LETTERS), *kept)}


def _kept(vocab: dict[str, int], merges: Sequence[tuple[str, str]], whole: bool) -> list[str] | None:
    """Tokens of several bytes that come about, by merging or as a whole piece; None where tiktoken makes more."""
    from tokenizers import models

    model = models.BPE(vocab=vocab, merges=merges, cache_capacity=0)
    texts: Iterable[str] = vocab if whole else dict.fromkeys(a + b for a, b in merges)
    lengths = {t: len(model.tokenize(t)) for t in texts if len(t) > 1 and _LETTERS.issuperset(t)}
    if not whole:
        return [t for t, count in lengths.items() if count == 1]
    return None if 2 in lengths.values() else list(lengths)


def _encoding(expression: str, ranks: Mapping[bytes, int]) -> tiktoken.Encoding:
    import tiktoken

    return tiktoken.Encoding("bytes", pat_str=expression, mergeable_ranks=dict(ranks), special_tokens={})


def _same(way: BytePairs, tokenizer: Any) -> bool:  # Any: transformers' own class
    """Whether texts of all classes of characters come to the same tokens, whatever the tokenizer does beside."""
    chance = Random(0)
    texts = ["".join(chance.choices(_SEEN, k=chance.randrange(1, 40))) for _ in range(200)]
    plain = {"add_special_tokens": False}
    ways = (plain, {**plain, "split_special_tokens": True})
    found = ((way(text), [list(tokenizer(text, **how)["input_ids"]) for how in ways]) for text in texts)
    return all(ids is None or both == [ids, ids] for ids, both in found)
