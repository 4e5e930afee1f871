"""Is the object there at all? A p-value of an answered mask against what the object looked like in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fabrica.errors import UsageError, unknown

Pair = tuple[str, str]  # (modality, object)
F64 = NDArray[np.float64]
STATISTICS = ("probability", "red", "green", "blue")


def statistics(share: NDArray[np.floating], image: NDArray[np.floating]) -> F64:
    """(4,): mean probability and mean red, green, blue within the mask of an answer, share (h, w) > 0.5, on an image
    (1 or 3, h, w) in 0..1; all 0 where the mask is empty. The three of a grey image are one number.

    >>> statistics(np.array([[0.9, 0.1]]), np.array([[[0.5, 0.3]]])).tolist()
    [0.9, 0.5, 0.5, 0.5]
    """
    mask = share > 0.5
    if not mask.any():
        return np.zeros(4)
    colours = image[:, mask].mean(1)
    return np.array([share[mask].mean(), *(colours if len(colours) == 3 else [colours[0]] * 3)], np.float64)


@dataclass(frozen=True, slots=True)
class BetaCheck:
    """For each (modality, object) a Beta(a, b) of each statistic, by moments, on the answers of TRAINING images that
    hold the object (Zhao et al., arXiv 2405.12971; the public code's four statistics).

    `table` pair -> (4, 2) of a, b. A statistic that never varied gets a standard deviation of 0.01.
    """

    table: Mapping[Pair, F64]

    @classmethod
    def fit(cls, rows: Mapping[Pair, ArrayLike], *, least: int = 5) -> BetaCheck:
        """From (n, 4) statistics by pair; a pair with fewer than `least` rows is an error: it would be a guess."""
        made = {}
        for pair, values in rows.items():
            x = np.clip(np.asarray(values, np.float64), 1e-4, 1 - 1e-4)
            if x.ndim != 2 or x.shape[1] != 4 or len(x) < least:
                raise UsageError(f"{pair} has statistics {x.shape}; wanted at least {least} rows of 4")
            m = x.mean(0)
            v = np.minimum(np.maximum(x.var(0), 1e-4), 0.999 * m * (1 - m))
            n = m * (1 - m) / v - 1
            made[pair] = np.stack([m * n, (1 - m) * n], 1)
        return cls(made)

    def each(self, pair: Pair, values: ArrayLike) -> F64:
        """(4,): the one-sample Kolmogorov-Smirnov p-value of each statistic: for one value 2 min(F, 1 - F)."""
        from scipy.stats import beta

        if pair not in self.table:
            raise unknown("modality and object", " ".join(pair), (" ".join(k) for k in self.table))
        a, b = self.table[pair].T
        share = beta.cdf(np.asarray(values, np.float64), a, b)
        return np.asarray(2 * np.minimum(share, 1 - share), np.float64)

    def p(self, pair: Pair, values: ArrayLike) -> float:
        """The geometric mean of the four. No p-value proper: they are not independent, and of one grey image three are
        equal. `Absence` makes one of it."""
        return float(np.prod(self.each(pair, values)) ** 0.25)

    def to_json(self) -> list[list[Any]]:
        """[modality, object, a and b of each statistic]."""
        return [[*pair, ab.tolist()] for pair, ab in self.table.items()]

    @classmethod
    def from_json(cls, data: Sequence[Sequence[Any]]) -> BetaCheck:
        """The inverse of `to_json`."""
        return cls({(m, n): np.asarray(ab, np.float64) for m, n, ab in data})


@dataclass(frozen=True, slots=True)
class Absence:
    """A calibrated p-value that a mask shows the object: the share of held-out answers to objects that are there which
    fit no better, (1 + #{held <= p}) / (1 + n). If a new image is drawn as the held-out ones were, an object that is
    there gets a value <= alpha with a chance of at most alpha (Vovk's conformal p-value): so alpha is the false-alarm
    rate of "absent". `held` (n,) are the `BetaCheck.p` of held-out answers, sorted.
    """

    check: BetaCheck
    held: F64

    @classmethod
    def calibrate(cls, check: BetaCheck, held: Sequence[tuple[Pair, ArrayLike]]) -> Absence:
        """From held-out (pair, statistics) of objects that are there."""
        if not held:
            raise UsageError("no held-out object to calibrate with")
        return cls(check, np.sort([check.p(pair, values) for pair, values in held]))

    def p(self, pair: Pair, values: ArrayLike) -> float:
        """The calibrated p-value of one answer's statistics."""
        return float(self.of_raw(self.check.p(pair, values)))

    def of_raw(self, raw: ArrayLike) -> F64:
        """The same of `BetaCheck.p`."""
        below = np.searchsorted(self.held, np.asarray(raw, np.float64), side="right")
        return np.asarray((1 + below) / (1 + len(self.held)), np.float64)

    def __call__(self, pair: Pair, share: NDArray[np.float32], image: NDArray[np.float32], /) -> float:
        """Of an answer: its probabilities (h, w) on an image (C, h, w)."""
        return self.p(pair, statistics(share, image))

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {"check": self.check.to_json(), "held": self.held.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Absence:
        """The inverse of `to_json`."""
        return cls(BetaCheck.from_json(data["check"]), np.asarray(data["held"], np.float64))
