"""Synthetic questions with retrieved references: how many help, how many mislead, and a reader that trusts too much."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError

Floats = NDArray[np.float64]
MOST = 16  # references a case


@dataclass(frozen=True, slots=True)
class References:
    """n cases: `truth` (n,) -1 or 1; `own` (n,) the reader's evidence from the image; `votes` (n, 16) what each
    reference says, -1 or 1, best match first; `relevant` (n,) how many of them are of like patients (1 to 8)."""

    truth: Floats
    own: Floats
    votes: Floats
    relevant: NDArray[np.int64]

    def losses(self, sizes: tuple[int, ...], *, trust: float) -> Floats:
        """(n, J) 0 or 1: whether the sign of own evidence + trust x the sum of the first k votes is wrong."""
        total = np.concatenate([np.zeros((len(self.own), 1)), np.cumsum(self.votes, 1)], 1)
        said = self.own[:, None] + trust * total[:, list(sizes)]
        return np.asarray((said * self.truth[:, None] <= 0), np.float64)


def references(n: int, seed: int, *, own: float = 1.0, like: float = 0.72, other: float = 0.46) -> References:
    """`n` cases: own evidence N(truth x `own`, 1); the 1 to 8 references of like patients come first and are right with
    probability `like`, the rest with `other` (patients who look alike in another way: a little less than even).

    >>> references(3, 0).votes.shape
    (3, 16)
    """
    if n < 1 or not (0 <= like <= 1 and 0 <= other <= 1):
        raise UsageError(f"references: n={n}, like={like}, other={other}; wanted n >= 1 and shares")
    rng = np.random.default_rng([seed, 77])
    truth = rng.choice([-1.0, 1.0], n)
    relevant = rng.integers(1, 9, n)
    right = rng.random((n, MOST)) < np.where(np.arange(MOST) < relevant[:, None], like, other)
    return References(
        truth, truth * own + rng.standard_normal(n), np.where(right, truth[:, None], -truth[:, None]), relevant
    )


def risk(sizes: tuple[int, ...], *, trust: float, own: float = 1.0, like: float = 0.72, other: float = 0.46) -> Floats:
    """(J,) the true risk at each number of contexts, that is what `references(...).losses` come to on average: exact,
    by the binomial shares of right votes among those of like patients and the others.

    >>> [round(float(r), 4) for r in risk((0, 3, 12), trust=0.6)]
    [0.1587, 0.1197, 0.2197]
    """
    from scipy.stats import binom, norm

    out = []
    for k in sizes:
        parts = []
        for relevant in range(1, 9):
            n = min(relevant, k)
            right = np.convolve(binom.pmf(np.arange(n + 1), n, like), binom.pmf(np.arange(k - n + 1), k - n, other))
            parts.append(float(right @ norm.cdf(-(own + trust * (2 * np.arange(k + 1) - k)))))
        out.append(np.mean(parts))
    return np.array(out)


@dataclass(frozen=True, slots=True)
class Readings:
    """n questions to a logistic reader: `truth` (n,) 0 or 1; `features` (n, 3): own evidence, the references' vote from
    -1 to 1, and the vote times how alike the reference is (0 to 1)."""

    truth: NDArray[np.int64]
    features: Floats

    @property
    def alone(self) -> Floats:
        """The same without references: (n, 3) with no vote."""
        return np.asarray(self.features * np.array([1.0, 0.0, 0.0]))


NAMES = ("own", "vote", "vote_by_likeness")


def readings(n: int, seed: int, *, own: float = 0.9, share: float = 0.45) -> Readings:
    """`n` questions. Own evidence is N(+-`own`, 1). A reference that is alike (likeness 0.6 to 1, a `share` of cases)
    votes right with probability 0.85; one that is not (0 to 0.6) with 0.45.

    >>> readings(4, 0).features.shape
    (4, 3)
    """
    if n < 1 or not 0 <= share <= 1:
        raise UsageError(f"readings: n={n}, share={share}; wanted n >= 1 and a share")
    rng = np.random.default_rng([seed, 78])
    truth = rng.integers(0, 2, n)
    sign = truth * 2.0 - 1
    alike = rng.random(n) < share
    likeness = np.where(alike, rng.uniform(0.6, 1.0, n), rng.uniform(0.0, 0.6, n))
    right = rng.random(n) < np.where(alike, 0.85, 0.45)
    vote = np.where(right, sign, -sign) * rng.uniform(0.5, 1.0, n)
    return Readings(truth, np.stack([sign * own + rng.standard_normal(n), vote, vote * likeness], 1))
