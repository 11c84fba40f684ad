"""One number for every record, in order: what such arrays are called, their ranks and their bands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def middle_ranks(values: Numbers) -> Numbers:
    """Ranks from the smallest to the largest, between 0 and the number of values, equal ones sharing the middle one."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - counts / 2)[where], np.float64)


def bands_of(values: Numbers, bands: int) -> Places:
    """The band of every value, from 0 for the smallest; about as many values in each, and equal ones never parted."""
    if not len(values):
        return np.zeros(0, np.int64)
    edges = np.unique(np.quantile(values, np.arange(1, bands) / bands, method="lower"))
    return np.searchsorted(edges, values).astype(np.int64)
