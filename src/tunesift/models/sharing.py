"""What do many spans have in common, so that it is computed once? Contexts, and the beginnings of contexts.

A model that reads packs has every text once, and every beginning once a pack. For one that reads none, five ratings of
one text are one row of a batch, read at its last place, and rows whose contexts begin alike, with the same rating
prompt or the same record, go on from one remembered beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeVar

from tunesift.heartbeat import beat
from tunesift.models.base import TargetLoss
from tunesift.models.lanes import side_by_side
from tunesift.models.likelihood import Segment, batches
from tunesift.models.packed import MOST_ON_CPU, PackedModel, Work
from tunesift.models.packing import Forest, grown, packs
from tunesift.records import Failure

WORTH = 64
"""Tokens that a common beginning must save; each costs a pass of its own."""
_DEEPEST = 64
"""Beginnings inside beginnings that are looked at."""


Made = TypeVar("Made")


class Weights(Protocol):
    """What computes one batch, or one pack."""

    @property
    def resumes(self) -> bool: ...

    @property
    def packed(self) -> PackedModel | None: ...

    def losses(self, segments: list[Segment], before: int = 0) -> list[TargetLoss | Failure]: ...

    def pack_losses(self, work: Work, numbers: list[int]) -> list[TargetLoss | Failure]: ...

    def mean_hidden(self, segments: list[Segment]) -> list[tuple[float, ...]]: ...

    def pack_means(self, forest: Forest, texts: list[int]) -> list[tuple[float, ...]]: ...


def all_losses(segments: Sequence[Segment], tokens: int, weights: Weights) -> list[TargetLoss | Failure]:
    """Losses of all segments, in order, in packs of so many tokens; in batches of as many where a model reads no packs,
    or where a text is longer than what its tokens see."""
    packed = weights.packed
    read = [n for n, s in enumerate(segments) if len(s.ids) > max(s.start, 1)]
    in_packs = [n for n in read if packed is not None and len(segments[n].ids) <= packed.reach]
    padded = sorted({*read} - {*in_packs})
    done: dict[int, TargetLoss | Failure] = {n: TargetLoss((), s.truncated) for n, s in enumerate(segments)}
    if packed is not None and in_packs:
        work = Work.of([segments[n] for n in in_packs])
        with packed.attending():
            groups = list(work.groups(packed.tokens(tokens)))
            for numbers, losses in _laned(partial(weights.pack_losses, work), groups, work.lengths, packed):
                done |= {in_packs[n]: loss for n, loss in zip(numbers, losses, strict=True)}
                beat(len(numbers) / len(read))
    for number, loss in _padded([segments[n] for n in padded], tokens, weights):
        done[padded[number]] = loss
        beat(1 / len(read))
    return [done[n] for n in range(len(segments))]


def all_means(segments: Sequence[Segment], tokens: int, weights: Weights) -> list[tuple[float, ...]]:
    """Mean of the last hidden layer over each segment's tokens, in order, in packs or batches of so many tokens."""
    packed = weights.packed
    in_packs = [n for n, s in enumerate(segments) if packed is not None and 0 < len(s.ids) <= packed.reach]
    padded = sorted({*range(len(segments))} - {*in_packs})
    done: dict[int, tuple[float, ...]] = {}
    if packed is not None and in_packs:
        owners: dict[tuple[int, ...], list[int]] = {}
        for number in in_packs:
            owners.setdefault(segments[number].ids, []).append(number)
        forest, same = grown(list(owners)), list(owners.values())
        with packed.attending():
            groups = packs(forest, packed.tokens(tokens))
            sizes = [len(ids) for ids in owners]
            for texts, means in _laned(partial(weights.pack_means, forest), groups, sizes, packed):
                done |= {n: mean for text, mean in zip(texts, means, strict=True) for n in same[text]}
                beat(sum(len(same[text]) for text in texts) / len(segments))
    for batch in batches([segments[n] for n in padded], tokens):
        whose = [padded[n] for n in batch]
        done |= zip(whose, weights.mean_hidden([segments[n] for n in whose]), strict=True)
        beat(len(batch) / len(segments))
    return [done[n] for n in range(len(segments))]


def _laned(
    work: Callable[[list[int]], list[Made]], groups: Sequence[list[int]], sizes: Sequence[int], model: PackedModel
) -> Iterator[tuple[list[int], list[Made]]]:
    """What comes of each pack, in order of their kind: on a CPU as many at a time as it has threads, but those of one
    long text one after the other, whose memory would add up."""
    long = [group for group in groups if any(sizes[n] > MOST_ON_CPU for n in group)]
    yield from side_by_side(work, [group for group in groups if group not in long], model.lanes)
    yield from side_by_side(work, long, 1)


def _padded(segments: Sequence[Segment], tokens: int, weights: Weights) -> Iterator[tuple[int, TargetLoss | Failure]]:
    """Losses with the numbers of their segments, batch by batch."""
    rows = _rows(segments)
    alone, several = [row for row in rows if len(row) == 1], [row for row in rows if len(row) > 1]
    yield from ((row[0], loss) for row, loss in _in_batches(segments, alone, tokens, weights))
    for family in families([segments[row[0]].ids[:-1] for row in several]):
        chosen = [several[n] for n in family.members]
        before = family.common if family.common and weights.resumes else 0
        for row, loss in _in_batches(segments, chosen, tokens, weights, before):
            nats: Sequence[float | Failure] = [loss] * len(row) if isinstance(loss, Failure) else loss.nats
            yield from ((n, _own(segments[n], found)) for n, found in zip(row, nats, strict=True))


def _rows(segments: Sequence[Segment]) -> list[list[int]]:
    """Which segments one row answers: those of one target token after the same context."""
    rows: dict[tuple[int, ...] | int, list[int]] = {}
    for number, segment in enumerate(segments):
        single = len(segment.ids) == segment.start + 1 and segment.start > 0
        rows.setdefault(segment.ids[:-1] if single else number, []).append(number)
    return list(rows.values())


def _in_batches(
    segments: Sequence[Segment], rows: Sequence[list[int]], tokens: int, weights: Weights, before: int = 0
) -> Iterator[tuple[list[int], TargetLoss | Failure]]:
    wanted = [replace(segments[first], others=tuple(segments[n].ids[-1] for n in more)) for first, *more in rows]
    for batch in batches([replace(s, ids=s.ids[before:]) for s in wanted], tokens):
        yield from zip([rows[n] for n in batch], weights.losses([wanted[n] for n in batch], before), strict=True)


def _own(segment: Segment, found: float | Failure) -> TargetLoss | Failure:
    return found if isinstance(found, Failure) else TargetLoss((found,), segment.truncated)


@dataclass(frozen=True, slots=True)
class Family:
    """Texts that begin alike."""

    common: int
    """Tokens of the common beginning; 0 for those that share none worth it."""
    members: tuple[int, ...]


def families(texts: Sequence[tuple[int, ...]]) -> list[Family]:
    """All texts, in families whose common beginnings save the most tokens; a beginning is shorter than its texts."""
    order = sorted(range(len(texts)), key=lambda n: texts[n])
    found = [f for f in _best(texts, order, 0) if _saved(f) >= WORTH]
    inside = {n for family in found for n in family.members}
    rest = tuple(n for n in range(len(texts)) if n not in inside)
    return [*found, *([Family(0, rest)] if rest else [])]


def _saved(family: Family) -> int:
    return family.common * (len(family.members) - 1)


def _best(texts: Sequence[tuple[int, ...]], order: list[int], depth: int) -> list[Family]:
    """The texts as one family, or as the families of those that go on alike, whichever saves more."""
    if len(order) < 2:
        return []
    first, last = texts[order[0]], texts[order[-1]]  # sorted: what these share, all share
    least = min(len(first), len(last))
    common = next((n for n in range(least) if first[n] != last[n]), least)
    whole = Family(min(common, min(len(texts[n]) for n in order) - 1), tuple(order))
    branches: dict[tuple[int, ...], list[int]] = {}
    for number in order:
        branches.setdefault(texts[number][common : common + 1], []).append(number)
    if depth == _DEEPEST or len(branches) < 2:
        return [whole]
    apart = [family for branch in branches.values() for family in _best(texts, branch, depth + 1)]
    return apart if sum(map(_saved, apart)) > _saved(whole) else [whole]
