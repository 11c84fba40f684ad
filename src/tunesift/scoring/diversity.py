"""Which few records stand for all? Facility location, after Superfiltering.D (arXiv:2402.00530)."""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


def similarity(vectors: Matrix) -> Matrix:
    """`exp(-distance / width)` of every pair of rows, [N, N]: the referenced library's Euclidean metric."""
    squares = np.square(vectors[:, None, :] - vectors[None, :, :]).sum(-1)  # [N, N]
    return np.asarray(np.exp(-np.sqrt(squares) / vectors.shape[1]), np.float64)


def facility_location(similar: Matrix, count: int) -> list[tuple[int, float]]:
    """Rows chosen greedily so that every row has a similar one among them, with what each adds; lazy and in float64.

    Maximises the sum over rows of the largest similarity to a chosen row. Raises `ValueError` unless
    `0 < count < N`.
    """
    if not 0 < count < len(similar):
        raise ValueError(f"{count} is not a number of rows above 0 and below {len(similar)}")
    covered = np.zeros(len(similar))
    bounds = [(-float(gain), row) for row, gain in enumerate(similar.sum(axis=1))]
    heapq.heapify(bounds)
    chosen: list[tuple[int, float]] = []
    while len(chosen) < count:
        _, row = heapq.heappop(bounds)
        gain = float(np.maximum(similar[:, row] - covered, 0).sum())
        if bounds and gain < -bounds[0][0]:
            heapq.heappush(bounds, (-gain, row))  # another may add more; a gain only ever falls
            continue
        chosen.append((row, gain))
        covered = np.maximum(covered, similar[:, row])
    return chosen
