"""Which texts are read together, and what do they share? A forest of beginnings, and packs of its branches.

Texts that begin alike share a piece, which a pack holds once; pieces stand one behind the other, each beginning
followed by all that goes on from it, so that a token may see another that is no later and whose piece's branch has
not ended. No padding, and no text twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

LEAST = 8
"""Tokens that a shared piece has at least; every piece is a call of its own to the attention of each layer."""
_DEEPEST = 16
"""Shared pieces that one text is made of at most; what would be a further one, each text reads for itself."""
_UNIT = 4
"""A branch of at most one part in so many of a pack is not divided among packs."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens that stand one behind the other in every text of a branch."""

    parent: int
    """Number of the piece that they go on from; -1 for none."""
    text: int
    """Number of a text that has them."""
    first: int
    """Place in that text of the first of them."""
    last: int
    """Place behind the last."""

    @property
    def length(self) -> int:
        return self.last - self.first


@dataclass(slots=True)
class Forest:
    """Texts as paths of pieces."""

    texts: Sequence[tuple[int, ...]]
    pieces: list[Piece] = field(default_factory=list)
    paths: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Pieces of each text, in reading order; of texts that begin alike, neighbours."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece's rows in a pack."""

    first: int
    last: int
    """Row behind the piece's last."""
    end: int
    """Row behind the last of all that goes on from it."""


@dataclass(frozen=True, slots=True)
class Pack:
    """What goes through the model in one piece, T rows of it."""

    ids: tuple[int, ...]
    """The token of each row, [T]."""
    places: tuple[int, ...]
    """Place of each token in its text, [T]."""
    stretches: tuple[Stretch, ...]
    """In order of their rows."""
    rows: dict[int, list[int]]
    """Rows of each text's tokens, in reading order."""


def filled(pack: Pack, rows: int) -> Pack:
    """The pack with as many rows, of which nobody reads those behind its own."""
    own, more = len(pack.ids), [0] * (rows - len(pack.ids))
    behind = (Stretch(own, rows, rows),) if more else ()
    return Pack((*pack.ids, *more), (*pack.places, *more), (*pack.stretches, *behind), pack.rows)


def grown(texts: Sequence[tuple[int, ...]]) -> Forest:
    """The forest of texts, each of which is there once."""
    forest = Forest(texts)
    branches = [_Branch(sorted(range(len(texts)), key=lambda n: texts[n]), (), 0)]
    while branches:
        branch = branches.pop()
        if len(branch.texts) < 2 or len(branch.path) == _DEEPEST:
            for number in branch.texts:
                forest.paths[number] = _extended(forest, branch, number, len(texts[number])).path
        else:
            branches += _parted(forest, branch)
    return forest


@dataclass(frozen=True, slots=True)
class _Branch:
    """Texts in alphabetical order, whose first `known` tokens are the path."""

    texts: list[int]
    path: tuple[int, ...]
    known: int


def _parted(forest: Forest, branch: _Branch) -> list[_Branch]:
    """The branches of a branch, behind a piece of what they share, if that is worth one."""
    texts = forest.texts
    first, last = texts[branch.texts[0]], texts[branch.texts[-1]]  # in order: what these share, all share
    least = min(len(first), len(last))
    common = next((n for n in range(branch.known, least) if first[n] != last[n]), least)
    if common - branch.known >= LEAST:
        branch = _extended(forest, branch, branch.texts[0], common)
    parts: dict[tuple[int, ...], list[int]] = {}
    for number in branch.texts:
        parts.setdefault(texts[number][common : common + 1], []).append(number)
    return [_Branch(part, branch.path, branch.known) for part in parts.values()]


def _extended(forest: Forest, branch: _Branch, text: int, last: int) -> _Branch:
    if branch.known == last:
        return branch
    forest.pieces.append(Piece(branch.path[-1] if branch.path else -1, text, branch.known, last))
    return _Branch(branch.texts, (*branch.path, len(forest.pieces) - 1), last)


@dataclass(slots=True)
class _Bin:
    """A pack that is being filled."""

    room: int
    texts: list[int] = field(default_factory=list)
    pieces: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Unit:
    """Texts that are put into one pack."""

    texts: tuple[int, ...]
    before: tuple[int, ...]
    """Pieces that they go on from, which a pack may have already."""
    tokens: int


def packs(forest: Forest, tokens: int) -> list[list[int]]:
    """Which texts go together: first fit, in falling size, so many tokens at most, or one branch that is longer.

    Those that go on from one beginning come first and stay together, so that few packs hold it.
    """
    units = sorted(_units(forest, tokens), key=lambda u: (not u.before, u.before, u.tokens > 0, -u.tokens))
    smallest = min((u.tokens for u in units), default=0)
    made: list[_Bin] = []
    open_: list[_Bin] = []
    for unit in units:
        place = next((b for b in open_ if _needed(forest, unit, b) <= b.room), None)
        if place is None:
            place = _Bin(tokens)
            made.append(place)
            open_.append(place)
        place.room -= _needed(forest, unit, place)
        place.texts += unit.texts
        place.pieces.update(unit.before)
        if place.room < max(smallest, 1):
            open_.remove(place)
    return [b.texts for b in made]


def _needed(forest: Forest, unit: _Unit, place: _Bin) -> int:
    return unit.tokens + sum(forest.pieces[s].length for s in unit.before if s not in place.pieces)


def _units(forest: Forest, tokens: int) -> list[_Unit]:
    """Texts one by one, but those of a small branch together."""
    sizes = [s.length for s in forest.pieces]
    for number in range(len(sizes) - 1, -1, -1):  # what goes on from a piece has a higher number
        parent = forest.pieces[number].parent
        if parent >= 0:
            sizes[parent] += sizes[number]
    together: dict[tuple[int, ...], list[int]] = {}
    for text, path in forest.paths.items():
        cut = next((n for n, s in enumerate(path) if sizes[s] * _UNIT <= tokens), None)
        key = path if cut is None else path[: cut + 1]
        together.setdefault(key, []).append(text)
    return [_unit(forest, k, texts, sizes[k[-1]] if k else 0, tokens) for k, texts in together.items()]


def _unit(forest: Forest, path: tuple[int, ...], texts: list[int], size: int, tokens: int) -> _Unit:
    """What hangs on the end of a path; of a text that is itself the beginning of much, nothing but the path."""
    if path and (size * _UNIT <= tokens or size == forest.pieces[path[-1]].length):
        return _Unit(tuple(texts), path[:-1], size)
    return _Unit(tuple(texts), path, 0)


def laid(forest: Forest, texts: Iterable[int]) -> Pack:
    """The rows of some texts: every piece of theirs once, behind what it goes on from."""
    ids: list[int] = []
    places: list[int] = []
    firsts: dict[int, int] = {}
    ends: dict[int, int] = {}
    rows: dict[int, list[int]] = {}
    for text in sorted(texts, key=lambda t: forest.paths[t]):
        for number in forest.paths[text]:
            piece = forest.pieces[number]
            if number not in firsts:
                firsts[number] = len(ids)
                ids += forest.texts[piece.text][piece.first : piece.last]
                places += range(piece.first, piece.last)
        own = [(firsts[n], forest.pieces[n].length) for n in forest.paths[text]]
        rows[text] = [row for first, length in own for row in range(first, first + length)]
        ends |= dict.fromkeys(forest.paths[text], len(ids))
    stretches = (Stretch(f, f + forest.pieces[n].length, ends[n]) for n, f in firsts.items())
    return Pack(tuple(ids), tuple(places), tuple(stretches), rows)
