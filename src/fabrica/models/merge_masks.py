"""One picture of named parts from many masks: what is rejected, what gives way, who gets a pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def merge(
    shares: NDArray[np.floating], p: Sequence[float], names: Sequence[str], *, alpha: float = 0.05,
    overlap: float = 0.5, floor: float = 0.1, keep: float = 0.5,
) -> dict[str, NDArray[np.bool_]]:  # fmt: skip
    """Disjoint masks (H, W) by name from probabilities (K, H, W) and a p-value each, as BiomedParse recognises:

    masks with p below `alpha` or without a pixel above 0.5 are dropped; in order of p (then of mean probability, then
    of name) a mask is skipped of which more than `overlap` is taken; a pixel goes to the highest probability above
    `floor`; an object that keeps less than `keep` of its area is dropped, but for the first; what is left is where the
    probability is above 0.5. The order in which objects are given has no influence.

    >>> made = merge(np.array([[[0.9, 0.8, 0.1]], [[0.1, 0.9, 0.9]]]), [0.5, 0.4], ["a", "b"])
    >>> {k: v.astype(int).tolist() for k, v in made.items()}
    {'a': [[1, 0, 0]], 'b': [[0, 1, 1]]}
    """
    hard = shares > 0.5
    sure = [float(s[h].mean()) if h.any() else 0.0 for s, h in zip(shares, hard, strict=True)]
    order = [k for k in range(len(names)) if p[k] >= alpha and hard[k].any()]
    order.sort(key=lambda k: (-p[k], -sure[k], names[k]))
    taken, chosen = np.zeros(shares.shape[1:], bool), list[int]()
    for k in order:
        if (hard[k] & taken).sum() <= overlap * hard[k].sum():
            chosen.append(k)
            taken |= hard[k]
    if not chosen:
        return {}
    some = shares[chosen]
    owner = np.where(some.max(0) > floor, some.argmax(0), -1)
    made = {}
    for rank, k in enumerate(chosen):
        mine = (owner == rank) & hard[k]
        if mine.any() and (rank == 0 or mine.sum() >= keep * hard[k].sum()):
            made[names[k]] = mine
    return made
