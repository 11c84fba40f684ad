"""Which few records stand for all? Facility location, k-centre and clusters, after Superfiltering.D (arXiv:2402.00530).

Legend: N rows to choose from, B rows weighed together, T rows of a tile, D numbers of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesift.errors import MissingExtra
from tunesift.heartbeat import beat
from tunesift.scoring.deciding import Numbers, Places

Matrix = npt.NDArray[Any]  # Any: float32 or float64
Block = Callable[[slice, Places], Matrix]
"""How far some rows are from some columns, [T, B]; 0 for the same text."""

HELD = 12_000
"""Most rows whose distances are all held, in float32: 0.58 GB; of more, they are computed again when asked for."""
EXACT = 20_000
"""Most rows whose distances are computed in float64; of more, tiles are in float32 and sums in float64."""
TILE = 2**21
"""Numbers of one tile."""
MOST_TOGETHER = 256
"""Rows weighed together at most; the first few of a step are weighed in smaller company."""


def similarity(vectors: Numbers) -> Numbers:
    """`exp(-distance / width)` of every pair of rows, [N, N]: the referenced library's Euclidean metric."""
    everything = np.arange(len(vectors))
    return np.asarray(1 - _shortfall(vectors.astype(np.float64))(slice(None), everything), np.float64)


def facility_location(similar: Numbers, count: int) -> list[tuple[int, float]]:
    """Rows chosen greedily so that every row has a similar one among them, with what each adds; lazy and in float64.

    Maximises the sum over rows of the largest similarity to a chosen row. Raises `ValueError` unless
    `0 < count < N`.
    """
    return _greedy(lambda rows, columns: -similar[rows, columns], np.zeros(len(similar)), count)


def spread_out(vectors: Sequence[Sequence[float]] | Matrix, count: int) -> list[tuple[int, float]]:
    """Facility location over the similarity of vectors; above a number of rows by blocks, no matrix of N x N held."""
    points = np.asarray(vectors, np.float64 if len(vectors) <= EXACT else np.float32)
    block = _shortfall(points)
    return _greedy(_held(block, len(points)) if len(points) <= HELD else block, np.ones(len(points)), count)


def _held(block: Block, rows: int) -> Block:
    """The same distances, computed once; a row's distances lie together, and serve as its column."""
    found = np.empty((rows, rows), np.float32)
    step = max(1, TILE // max(1, rows))
    for start in range(0, rows, step):
        found[start : start + step] = block(slice(start, start + step), np.arange(rows))
    return lambda rows, columns: found[columns, rows].T


def _shortfall(points: Matrix) -> Block:
    """1 minus similarity: near 0 for near rows, where a float32 is finer than near 1."""
    squares = np.einsum("nd,nd->n", points, points)

    def block(rows: slice, columns: Places) -> Matrix:
        found: Matrix = points[rows] @ points[columns].T  # [T, B]
        found *= -2
        found += squares[rows, None]
        found += squares[None, columns]
        np.maximum(found, 0, out=found)
        np.sqrt(found, out=found)
        found /= -points.shape[1]
        np.expm1(found, out=found)
        found *= -1
        own = columns - (rows.start or 0)
        inside = np.flatnonzero((own >= 0) & (own < len(found)))
        found[own[inside], inside] = 0  # a row is at no distance from itself, whatever rounding says
        return found

    return block


def _greedy(block: Block, lack: Numbers, count: int) -> list[tuple[int, float]]:
    """Lazy greedy: a gain only ever falls, so that one weighed before is a bound, and few are weighed at each step.

    `lack` is what every row wants before anything is chosen; a chosen row leaves each no more than its distance to it.
    """
    if not 0 < count < len(lack):
        raise ValueError(f"{count} is not a number of rows above 0 and below {len(lack)}")
    bounds = _gains(block, np.arange(len(lack)), lack)
    weighed = np.ones(len(lack), bool)
    chosen: list[tuple[int, float]] = []
    while True:
        together = 8
        while not weighed[row := int(np.argmax(bounds))]:
            best = np.argpartition(bounds, -min(together, len(bounds)))[-together:]
            stale = best[~weighed[best]]
            bounds[stale] = _gains(block, stale, lack)
            weighed[stale] = True
            together = min(2 * together, MOST_TOGETHER)
        chosen.append((row, float(bounds[row])))
        if len(chosen) == count:
            return chosen
        lack = np.minimum(lack, block(slice(None), np.array([row]))[:, 0])
        bounds[row] = -np.inf
        weighed[:] = False
        weighed[[row for row, _ in chosen]] = True


def _gains(block: Block, columns: Places, lack: Numbers) -> Numbers:
    """What each of these rows would add, [B]."""
    gains = np.zeros(len(columns))
    for first in range(0, len(columns), MOST_TOGETHER):
        part = slice(first, first + MOST_TOGETHER)
        tile = max(1, TILE // len(columns[part]))
        for start in range(0, len(lack), tile):
            rows = slice(start, start + tile)
            found = block(rows, columns[part])  # [T, B]
            np.subtract(lack[rows, None].astype(found.dtype), found, out=found)
            np.maximum(found, 0, out=found)
            gains[part] += found.sum(axis=0, dtype=np.float64)
        beat()
    return gains


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
