"""Symile's XOR task: three binary vectors whose joint information no pair of them carries."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError


class Xor(NamedTuple):
    """Bits `a`, `b`, `c`, each (n, d) float32 of 0 and 1; `mixed` (n,) bool: where c = a XOR b (elsewhere c = a)."""

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    c: NDArray[np.float32]
    mixed: NDArray[np.bool_]


def xor(n: int, seed: int, *, p: float, d: int = 5) -> Xor:
    """a_j, b_j ~ Bernoulli(1/2); i ~ Bernoulli(p) once a row; c = a XOR b where i = 1, else c = a (Symile, section 5).

    >>> s = xor(4, 0, p=1.0)
    >>> bool((s.c == np.abs(s.a - s.b)).all())
    True
    """
    _check(p, d)
    rng = np.random.default_rng([seed, 2, d])
    a, b = rng.integers(0, 2, (2, n, d)).astype(np.float32)
    mixed = rng.random(n) < p
    return Xor(a, b, np.where(mixed[:, None], np.abs(a - b), a), mixed)


def total_correlation(p: float, d: int = 2) -> float:
    """KL(joint || product of marginals) in nats, by enumeration of the 2^(3d) table.

    At p = 1 and at p = 0 it is d ln 2: c is a function of the others.

    >>> float(round(total_correlation(1.0, 2) / np.log(2), 9))
    2.0
    """
    _check(p, d)
    if d > 6:
        raise UsageError(f"the table of d = {d} has 2^{3 * d} cells; enumeration stops at d = 6")
    size = 2**d
    joint = np.zeros((size, size, size))
    for a, b in product(range(size), repeat=2):
        joint[a, b, a ^ b] += p / size**2
        joint[a, b, a] += (1 - p) / size**2
    pa, pb, pc = joint.sum((1, 2)), joint.sum((0, 2)), joint.sum((0, 1))
    independent = pa[:, None, None] * pb[None, :, None] * pc[None, None, :]
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / independent[some])).sum())


def _check(p: float, d: int) -> None:
    if not 0 <= p <= 1 or d < 1:
        raise UsageError(f"xor wants 0 <= p <= 1 and d >= 1, got p={p}, d={d}")
