"""Modalities as Gaussian vectors around the labels' signs: a task whose best possible score is known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError


@dataclass(frozen=True, slots=True)
class Views:
    """`views`: modality m (n, dims[m]) float32; `labels` (n, tasks) int64 of 0 and 1; `odds` (n, modalities, tasks):
    the log-likelihood ratio that each modality holds for each label, the truth."""

    views: tuple[NDArray[np.float32], ...]
    labels: NDArray[np.int64]
    odds: NDArray[np.float64]

    def best(self, keep: NDArray[np.bool_] | None = None, task: int = 0) -> NDArray[np.float64]:
        """(n,) the best score for a task by one who sees the modalities that `keep` (n, modalities) leaves and draws
        nothing from what is missing: the sum of their log-likelihood ratios."""
        odds = self.odds[:, :, task]
        best: NDArray[np.float64] = (odds if keep is None else np.where(keep, odds, 0.0)).sum(1)
        return best


def views(n: int, seed: int, *, dims: Sequence[int] = (8, 16), shifts: Sequence[float] = (0.22, 0.32),
          tasks: int = 1) -> Views:  # fmt: skip
    """x_m ~ N(shift_m * sum_t (2 y_t - 1) w_t, I) with y_t fair coins and w_t orthogonal vectors of signs, so that
    modality m tells task t apart with d' = 2 shift_m sqrt(dims[m]) whatever the other tasks say.

    `dims` are powers of two, at least `tasks`.

    >>> v = views(4, 0)
    >>> [x.shape for x in v.views], v.labels.shape, v.best().shape
    ([(4, 8), (4, 16)], (4, 1), (4,))
    """
    if len(dims) != len(shifts) or any(d < tasks or d & (d - 1) for d in dims):
        raise UsageError(f"dims {dims} and shifts {shifts}: wanted one shift a modality, dims powers of two >= {tasks}")
    rng = np.random.default_rng([seed, 27])
    labels = rng.integers(0, 2, (n, tasks))
    sign = 2.0 * labels - 1
    made, odds = [], np.zeros((n, len(dims), tasks))
    for m, (dim, shift) in enumerate(zip(dims, shifts, strict=True)):
        way = _signs(dim, tasks)  # (tasks, dim)
        x = rng.standard_normal((n, dim)) + shift * sign @ way
        odds[:, m] = 2 * shift * x @ way.T
        made.append(x.astype(np.float32))
    return Views(tuple(made), labels, odds)


def _signs(dim: int, count: int) -> NDArray[np.float64]:
    """The first `count` Walsh functions of `dim` points: (count, dim) of -1 and 1, orthogonal."""
    both = np.arange(count)[:, None] & np.arange(dim)
    return 1.0 - 2.0 * (np.array([[bin(v).count("1") for v in row] for row in both]) % 2)
