"""Where does a word begin? At a space; in scripts that write none, at every letter, of which so many make a word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache

WORD = 6
"""Parts of a word by which lengths are counted, so that a half and a third of one are whole numbers."""
_CHARACTERS = (
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\ua000-\ua48c\uf900-\ufaff\uff66-\uff9f\U00016fe0-\U00018d08\U0001b000-\U0001b2fb\U00020000-\U0003ffff"
)
"""Han, kana, bopomofo, Yi: letters of class ID (and CJ, kana) in Unicode's Annex 14, between which any line may break.
Two make a word: of a hundred questions, Chinese ones have 1.45 and Japanese ones 2.33 for a word of the same in English
(benchmarks/telling_apart.py)."""
_SYLLABLES = (
    "\u0e01-\u0e7f\u0e80-\u0eff\u0f00-\u0fbc\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aad\u1b05-\u1b7c"
    "\ua980-\ua9df\ua9e0-\ua9fe\uaa60-\uaa7f\uaa80-\uaadf"
)
"""Thai, Lao, Tibetan, Burmese, Khmer, Tai, Balinese, Javanese: letters of class SA there (or AK), whose words a
dictionary would tell. A letter with its signs is a sound, and three make a word: our choice."""
_HANGUL = "\u1100-\u11ff\uac00-\ud7ff"
"""Words have spaces between them, and their particles behind them without one."""

_ONE = rf"(?=\w)[{_CHARACTERS}{_SYLLABLES}]"
_SPACELESS = re.compile(_ONE)
_SYLLABLE = re.compile(rf"(?=\w)[{_SYLLABLES}]")
_UNIT = re.compile(rf"[^\w\s]{{0,8}}{_ONE}[^\w\s]{{0,8}}|(?:(?!{_ONE})\S)+")
_APART = re.compile(rf"(?<={_ONE})\s+(?={_ONE})")
_NO_LETTER = re.compile(r"[^\w\s]")
_HAN = re.compile("[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]{2,}")
_KATAKANA = re.compile("[\u30a1-\u30fa\u30fc-\u30ff]{2,}")


def units(text: str) -> list[str]:
    """The words of a text, with the marks that stand at them; of scripts without spaces, the letters."""
    if text.isascii() or not _SPACELESS.search(text):
        return text.split()
    return _UNIT.findall(text)


def length(found: Sequence[str]) -> float:
    """How many words so many units make."""
    return sum(map(_size, found)) / WORD


def runs_of(found: Sequence[str], words: int) -> Iterator[str]:
    """Every run of units that is just as long as so many words, in order; a shorter text is one run."""
    sizes = [WORD] * len(found) if " ".join(found).isascii() else [*map(_size, found)]
    end, held = 0, 0
    for start, size in enumerate(sizes):
        while end < len(found) and held < words * WORD:
            held += sizes[end]
            end += 1
        if held < words * WORD and start:
            return
        yield " ".join(found[start:end])
        held -= size
    if not found:
        yield ""


def spelled(text: str) -> str:
    """A text in one spelling: NFKC, lower case, without punctuation; a letter's signs belong to it."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return _NO_LETTER.sub(" " if text.isascii() else _kept, text)


def holds_name(text: str, name: str) -> bool:
    """Whether a name stands in a text as words of their own, as far as its script sets words apart.

    In Hangul it must begin a word, since particles follow without a space; in scripts without spaces it may stand
    anywhere, but not end within a letter's signs.
    """
    said, whole = _joined(text), _joined(name)
    if not whole or whole not in said:
        return False
    left, right = _edge(whole[0], "<"), "" if re.match(f"[{_HANGUL}]", whole[-1]) else _edge(whole[-1], "")
    ends = (m.end() for m in re.finditer(f"{left}{re.escape(whole)}{right}", said))
    return any(not _is_sign(said[end : end + 1]) for end in ends)


def words_of_name(name: str) -> list[str]:
    """What in a name is a word, in order: between spaces; of Han, each two characters; of katakana, each run; of
    scripts with neither, what is as long as two words, since a shorter run of sounds stands in other words too."""
    found: list[str] = []
    for word in spelled(name).split():
        if not _SPACELESS.search(word):
            found.append(word)
            continue
        found += [run[n : n + 2] for run in _HAN.findall(word) for n in range(len(run) - 1)]
        found += _KATAKANA.findall(word)
        for part in re.split(rf"(?:(?!{_ONE})\w)+|[{_CHARACTERS}]+", word):
            sounds = _UNIT.findall(part)
            found += ["".join(sounds[n : n + 6]) for n in range(max(1, len(sounds) - 5))] if len(sounds) > 2 else []
        found += re.findall(rf"(?:(?!{_ONE})\w)+", word)
    return found


def _size(unit: str) -> int:
    if unit.isascii() or not _SPACELESS.search(unit):
        return WORD
    return WORD // 3 if _SYLLABLE.search(unit) else WORD // 2


def _joined(text: str) -> str:
    """A text in lower case with single spaces, and none where they mean nothing."""
    said = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return said if said.isascii() else _APART.sub("", said)


def _edge(letter: str, behind: str) -> str:
    """What must not stand beside a name that ends with this letter."""
    if _SPACELESS.match(letter):
        return ""
    free = "" if re.match(f"[{_HANGUL}]", letter) else _HANGUL
    return rf"(?{behind}![^\W{_CHARACTERS}{_SYLLABLES}{free}])"


@cache
def _is_sign(letter: str) -> bool:
    return letter != "" and unicodedata.category(letter)[0] == "M"


@cache
def _stands_for(letter: str) -> str:
    kind = unicodedata.category(letter)
    return letter if kind[0] == "M" else "" if kind == "Cf" else " "


def _kept(found: re.Match[str]) -> str:
    return _stands_for(found[0])
