"""What each field changed: the steps of a fusion's reading as differences of probability that add up exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def contributions(readings: NDArray[np.floating], ran: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n, K - 1, C): p(s_i) - p(s_{i-1}) of each step, 0 where it did not run; they sum to p(last) - p(first).

    `readings` (n, K, C) probabilities after each reading, `ran` (n, K).

    >>> contributions(np.array([[[0.5, 0.5], [0.2, 0.8], [0.2, 0.8]]]), np.array([[True, True, False]]))[0, :, 1]
    array([0.3, 0. ])
    """
    steps = np.diff(np.asarray(readings, np.float64), axis=1)
    return np.where(ran[:, 1:, None], steps, 0.0)


def importance(
    readings: NDArray[np.floating], ran: NDArray[np.bool_], step: NDArray[np.int64], names: Sequence[str]
) -> dict[str, float]:
    """Name -> mean over rows that had it of the absolute change in class probabilities (total variation).

    `step` (n, K) says which of `names` was read where; the first reading is the prior's and has no change.
    """
    change = 0.5 * np.abs(contributions(readings, ran)).sum(2)  # (n, K - 1)
    told = {}
    for i, name in enumerate(names):
        mine = (step[:, 1:] == i) & ran[:, 1:]
        rows = mine.any(1)
        if rows.any():
            told[name] = float(np.where(mine, change, 0.0).sum(1)[rows].mean())
    return told
