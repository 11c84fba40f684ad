"""Which few records stand for all? Facility location, k-centre and clusters, after Superfiltering.D (arXiv:2402.00530).

Legend: N rows to choose from, B rows weighed together, T rows of a tile, D numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesift.arrays import Numbers, Places
from tunesift.errors import MissingExtra
from tunesift.heartbeat import beat

Matrix = npt.NDArray[Any]  # Any: float32 or float64
Rows = slice | Places
Block = Callable[[Rows, Places], Matrix]
"""How far some rows, in order, are from some columns, [T, B]; 0 for the same text."""

HELD = 12_000
"""Most rows whose distances are all held, in float32: 0.58 GB; of more, they are computed again when asked for."""
EXACT = 20_000
"""Most rows whose distances are computed in float64; of more, tiles are in float32 and sums in float64."""
TILE = 2**21
"""Numbers of one tile."""
TOGETHER = 256
"""Rows weighed together."""


def spread_out(vectors: Sequence[Sequence[float]] | Matrix, count: int) -> list[tuple[int, float]]:
    """Rows chosen greedily so that every row has a similar one among them, with what each adds: facility location.

    Maximises the sum over rows of the largest similarity to a chosen row, `exp(-distance / width)`: the referenced
    library's Euclidean metric. Above a number of rows by blocks, no matrix of N x N held. Raises `ValueError` unless
    `0 < count < N`.
    """
    points = np.asarray(vectors, np.float64 if len(vectors) <= EXACT else np.float32)
    block = _shortfall(points)
    return _greedy(_held(block, len(points)) if len(points) <= HELD else block, np.ones(len(points)), count)


def _held(block: Block, rows: int) -> Block:
    """The same distances, computed once; a row's distances lie together, and serve as its column."""
    found = np.empty((rows, rows), np.float32)
    step = max(1, TILE // max(1, rows))
    for start in range(0, rows, step):
        found[start : start + step] = block(slice(start, start + step), np.arange(rows))
    return _columns_of(found)


def _columns_of(found: Matrix) -> Block:
    """What is held, a line for each column."""
    return lambda rows, columns: (found[columns, rows] if isinstance(rows, slice) else found[np.ix_(columns, rows)]).T


def _shortfall(points: Matrix) -> Block:
    """1 minus similarity: near 0 for near rows, where a float32 is finer than near 1."""
    squares, ones = np.einsum("nd,nd->n", points, points)[:, None], np.ones((len(points), 1), points.dtype)
    left, right = np.hstack([-2 * points, squares, ones]), np.hstack([points, ones, squares])  # [N, D + 2] each

    def block(rows: Rows, columns: Places) -> Matrix:
        found: Matrix = left[rows] @ right[columns].T  # squares of distances, [T, B]
        np.maximum(found, 0, out=found)
        np.sqrt(found, out=found)
        found /= -points.shape[1]
        np.expm1(found, out=found)
        np.negative(found, out=found)
        at, inside = _own(rows, columns, len(points))
        found[at, inside] = 0  # a row is at no distance from itself, whatever rounding says
        return found

    return block


def _own(rows: Rows, columns: Places, count: int) -> tuple[Places, Places]:
    """Where each of the columns that is one of the rows stands among these, and which columns those are."""
    if isinstance(rows, slice):
        start, stop, _ = rows.indices(count)
        inside = np.flatnonzero((columns >= start) & (columns < stop))
        return columns[inside] - start, inside
    at = np.searchsorted(rows, columns)
    inside = np.flatnonzero(rows[np.minimum(at, len(rows) - 1)] == columns)
    return at[inside], inside


def _greedy(block: Block, lack: Numbers, count: int) -> list[tuple[int, float]]:
    """Lazy greedy: a gain only ever falls, so that one weighed before is a bound, and few are weighed at each step.

    `lack` is what every row wants before anything is chosen; a chosen row leaves each no more than its distance to it.
    """
    if not 0 < count < len(lack):
        raise ValueError(f"{count} is not a number of rows above 0 and below {len(lack)}")
    everybody = slice(None)
    gains = _gains(block, np.arange(len(lack)), everybody, (np.full(len(lack), -np.inf), lack))
    row = int(np.argmax(gains))
    chosen = [(row, float(gains[row]))]
    lazy = _Lazy(block, np.minimum(lack, block(everybody, np.array([row]))[:, 0]), row)
    while len(chosen) < count:
        chosen.append(lazy.choose())
    return chosen


class _Lazy:
    """What each row would add: groups of rows with like gains are brought up to date when they may hold the best.

    A group that was weighed some steps ago loses only by the rows that are better served since; late on, these are few.
    """

    def __init__(self, block: Block, lack: Numbers, first: int) -> None:
        self._block, self._lack = block, lack
        columns = np.arange(len(lack))
        gains = _gains(block, columns, slice(None), (np.full(len(lack), -np.inf), lack))
        gains[first] = -np.inf
        order = np.argsort(-gains, kind="stable")
        groups = [slice(start, start + TOGETHER) for start in range(0, len(order), TOGETHER)]
        self._columns, self._gains = [order[g] for g in groups], [gains[order[g]] for g in groups]
        self._bounds = np.array([gains.max() for gains in self._gains])
        self._weighed = np.zeros(len(groups), np.int64)  # how many steps had been done then
        self._past: list[tuple[Places, Numbers]] = []  # by step: rows that want less after it, and what they wanted

    def choose(self) -> tuple[int, float]:
        """The row that adds the most, and how much; rows that are nearer to it than to those before want less now."""
        while self._weighed[group := int(np.argmax(self._bounds))] < len(self._past):
            self._weigh(group)
        place = int(np.argmax(self._gains[group]))
        row, gain = int(self._columns[group][place]), float(self._gains[group][place])
        nearer = np.minimum(self._lack, self._block(slice(None), np.array([row]))[:, 0])
        rows = np.flatnonzero(nearer < self._lack)
        self._past.append((rows, self._lack[rows]))
        self._lack = nearer
        self._gains[group][place] = -np.inf
        return row, gain

    def _weigh(self, group: int) -> None:
        before, changed = self._lack.copy(), np.zeros(len(self._lack), bool)
        for rows, wanted in self._past[: self._weighed[group] - 1 if self._weighed[group] else None : -1]:
            before[rows], changed[rows] = wanted, True
        rows = np.flatnonzero(changed)
        self._gains[group] -= _gains(self._block, self._columns[group], rows, (self._lack[rows], before[rows]))
        self._bounds[group] = self._gains[group].max()
        self._weighed[group] = len(self._past)


def _gains(block: Block, columns: Places, rows: Rows, lacks: tuple[Numbers, Numbers]) -> Numbers:
    """What rows get from each column between a smaller and a larger lack, summed, [B]."""
    least, most = lacks
    sums = np.zeros(len(columns))
    for first in range(0, len(columns), TOGETHER):
        part = slice(first, first + TOGETHER)
        tile = max(1, TILE // len(columns[part]))
        for start in range(0, len(most), tile):
            some = slice(start, start + tile)
            found = block(some if isinstance(rows, slice) else rows[some], columns[part])  # [T, B]
            low, high = least[some, None].astype(found.dtype), most[some, None].astype(found.dtype)
            np.clip(found, low, high, out=found)
            sums[part] += high.sum(dtype=np.float64) - found.sum(axis=0, dtype=np.float64)
        beat()
    return sums


def k_centre(vectors: Sequence[Sequence[float]] | Matrix, count: int) -> list[tuple[int, float]]:
    """Rows chosen so that no row is far from all of them, with each one's distance to those before it.

    First the row nearest to the mean of all, then always the one farthest from the chosen; among equals the earlier.
    Raises `ValueError` unless `0 < count < N`.
    """
    points = np.asarray(vectors, np.float64 if len(vectors) <= EXACT else np.float32)
    if not 0 < count < len(points):
        raise ValueError(f"{count} is not a number of rows above 0 and below {len(points)}")
    row = int(np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1)))
    chosen = [(row, 0.0)]
    nearest = np.linalg.norm(points - points[row], axis=1)
    nearest[row] = -1  # a chosen row is chosen once, even where all rows are one point
    while len(chosen) < count:
        row = int(np.argmax(nearest))
        chosen.append((row, float(nearest[row])))
        np.minimum(nearest, np.linalg.norm(points - points[row], axis=1), out=nearest)
        nearest[row] = -1
        beat()
    return chosen


def clusters_of(vectors: Sequence[Sequence[float]] | Matrix, clusters: int) -> tuple[Places, Numbers]:
    """The cluster of every row by k-means, one start with seed 0, and its distance to the cluster's centre."""
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise MissingExtra('clusters need the "cluster" extra: pip install "tunesift[cluster]".') from error
    points = np.asarray(vectors, np.float64)
    different = len(np.unique(points, axis=0))
    means = KMeans(min(clusters, different), random_state=0, n_init=1).fit(points)
    labels = np.asarray(means.labels_, np.int64)
    return labels, np.asarray(np.linalg.norm(points - means.cluster_centers_[labels], axis=1), np.float64)
