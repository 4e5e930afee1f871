"""One bootstrap for every number: resample subjects, percentile 95 %, paired where two arms answer the same rows.

Rows of one subject stay together. A resample is a row of integer weights over subjects, drawn from the seed and the
number of subjects alone; two arms on the same rows therefore meet the same resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fabrica.errors import UsageError
from fabrica.evaluate.metrics import Columns, Value, Weights

RESAMPLES = 2000
BLOCK_BYTES = 32 << 20  # of weights at a time
Weighted = Callable[[Columns, Weights], Value]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its interval; `n` rows of `subjects` subjects; `undefined` is the share of resamples without a
    value (no positive drawn); `method` is "bootstrap", "wilson" (nothing varied) or "t"."""

    value: float
    low: float
    high: float
    n: int
    subjects: int
    undefined: float = 0.0
    method: str = "bootstrap"


def resamples(subjects: ArrayLike, *, count: int = RESAMPLES, seed: int = 0) -> Iterator[NDArray[np.float64]]:
    """Blocks (b, n) of row weights: how often each row's subject was drawn; `count` rows in all.

    >>> [w.shape for w in resamples(["a", "a", "b"], count=5)]
    [(5, 3)]
    """
    names, inverse = np.unique(np.asarray(subjects), return_inverse=True)
    total, n = len(names), len(inverse)
    if total == 0:
        return
    block = max(1, min(_CHUNK, BLOCK_BYTES // (8 * max(n, total))))
    draw = _kept if total <= _KEEP else _draw
    for chunk in range(-(-count // _CHUNK)):
        drawn = draw(total, seed, chunk)[: count - chunk * _CHUNK]
        for start in range(0, len(drawn), block):
            yield drawn[start : start + block].astype(np.float64)[:, inverse]


_CHUNK = 250  # resamples drawn at once: what is drawn depends on subjects, seed and number alone
_KEEP = 5000  # subjects up to which draws are kept: a card asks for the same ones many times


def _draw(total: int, seed: int, chunk: int) -> NDArray[np.uint16]:
    """(_CHUNK, total): how often each of `total` subjects is drawn, `total` draws a row."""
    rng = np.random.default_rng((seed, chunk))
    out = np.empty((_CHUNK, total), dtype=np.uint16)
    for row in out:
        row[:] = np.bincount(rng.integers(0, total, size=total), minlength=total)
    out.setflags(write=False)
    return out


_kept = lru_cache(maxsize=16)(_draw)


def interval(
    metric: Weighted, columns: Columns, subjects: ArrayLike, *, count: int = RESAMPLES, seed: int = 0,
    level: float = 0.95, share: bool = False,
) -> Interval:  # fmt: skip
    """A metric of columns with its percentile interval by subject (Efron and Tibshirani 1993, 13.3).

    `share` says that the metric is a mean of shares: where no resample differs (all right or all wrong), a percentile
    interval would have no width, and Wilson's interval over subjects stands in.

    >>> from fabrica.evaluate.metrics import accuracy
    >>> c = {"t": np.array([1, 1, 0, 0]), "a": np.array([1, 0, 0, 0])}
    >>> i = interval(lambda c, w: accuracy(c["t"], c["a"], w), c, ["p1", "p2", "p3", "p4"])
    >>> i.value, 0 <= i.low < i.value < i.high <= 1, i.subjects
    (0.75, True, 4)
    """
    subject = np.asarray(subjects)
    _same_length(columns, subject)
    value = float(metric(columns, None))
    drawn = [np.asarray(metric(columns, w)) for w in resamples(subject, count=count, seed=seed)]
    return _summary(value, np.concatenate(drawn) if drawn else np.zeros(0), subject, level, share)


def paired(
    metric: Weighted, a: Columns, b: Columns, subjects: ArrayLike, *, count: int = RESAMPLES, seed: int = 0,
    level: float = 0.95,
) -> Interval:  # fmt: skip
    """metric(a) - metric(b) of two arms that answered the same rows in the same order, resampled together."""
    subject = np.asarray(subjects)
    _same_length(a, subject)
    _same_length(b, subject)
    value = float(metric(a, None)) - float(metric(b, None))
    drawn = [np.asarray(metric(a, w)) - np.asarray(metric(b, w)) for w in resamples(subject, count=count, seed=seed)]
    return _summary(value, np.concatenate(drawn) if drawn else np.zeros(0), subject, level, False)


def paired_seeds(a: Sequence[float], b: Sequence[float], *, level: float = 0.95) -> Interval:
    """Mean of a_s - b_s over seeds with Student's t interval: one value per seed and arm, same seeds, same order.

    >>> i = paired_seeds([0.80, 0.82, 0.81], [0.70, 0.71, 0.73])
    >>> round(i.value, 3), round(i.low, 3), round(i.high, 3)
    (0.097, 0.059, 0.135)
    """
    if len(a) != len(b) or len(a) < 2:
        raise UsageError(f"paired_seeds: {len(a)} and {len(b)} values; wanted the same seeds in both arms, at least 2")
    from scipy import stats

    difference = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    if not np.isfinite(difference).all():
        raise UsageError(
            f"paired_seeds: values that are not finite at seeds {np.flatnonzero(~np.isfinite(difference))}"
        )
    half = float(stats.t.ppf((1 + level) / 2, len(difference) - 1) * difference.std(ddof=1) / math.sqrt(len(a)))
    middle = float(difference.mean())
    return Interval(middle, middle - half, middle + half, len(a), len(a), method="t")


def paired_seeds_rows(
    metric: Weighted, a: Sequence[Columns], b: Sequence[Columns], subjects: ArrayLike, *, count: int = RESAMPLES,
    seed: int = 0, level: float = 0.95,
) -> Interval:  # fmt: skip
    """Mean over seeds of metric(a_s) - metric(b_s), resampling seeds and subjects (two levels, crossed).

    `a[s]` and `b[s]` are the columns that seed s of each arm answered, all on the same rows of `subjects` in one
    order; both arms of a seed and all seeds meet the same drawn subjects.
    """
    if len(a) != len(b) or not a:
        raise UsageError(f"paired_seeds_rows: {len(a)} and {len(b)} seeds; wanted the same seeds in both arms")
    subject = np.asarray(subjects)
    for columns in (*a, *b):
        _same_length(columns, subject)
    value = float(np.mean([float(metric(x, None)) - float(metric(y, None)) for x, y in zip(a, b, strict=True)]))
    rng = np.random.default_rng((seed, 1))
    drawn = []
    for w in resamples(subject, count=count, seed=seed):
        each = np.stack([np.asarray(metric(x, w)) - np.asarray(metric(y, w)) for x, y in zip(a, b, strict=True)], 1)
        picks = rng.integers(0, len(a), size=(len(w), len(a)))
        drawn.append(np.take_along_axis(each, picks, 1).mean(1))
    return _summary(value, np.concatenate(drawn), subject, level, False)


def wilson(share: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's (1927) interval of a share of n independent cases.

    >>> [round(x, 3) for x in wilson(1.0, 10)]
    [0.722, 1.0]
    """
    from scipy import stats

    z = float(stats.norm.ppf((1 + level) / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def _summary(value: float, drawn: NDArray[np.float64], subject: NDArray[Any], level: float, share: bool) -> Interval:
    subjects, known = len(np.unique(subject)), drawn[~np.isnan(drawn)]
    undefined = 1 - len(known) / len(drawn) if len(drawn) else 1.0
    if math.isnan(value) or not len(known):
        return Interval(math.nan, math.nan, math.nan, len(subject), subjects, undefined)
    if share and known.min() == known.max() and 0 <= value <= 1:
        low, high = wilson(value, subjects, level)
        return Interval(value, low, high, len(subject), subjects, undefined, "wilson")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), len(subject), subjects, undefined)


def _same_length(columns: Columns, subject: NDArray[Any]) -> None:
    wrong = {name: len(column) for name, column in columns.items() if len(column) != len(subject)}
    if wrong:
        raise UsageError(f"columns {wrong} and {len(subject)} subjects; wanted one subject a row")
