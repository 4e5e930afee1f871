"""Metrics: pure functions of columns. Each takes an optional `weights` (B, n) and then answers B resamples at once.

A metric without weights gives a float, with weights (B, n) an array (B,): the bootstrap of `bootstrap.py` is a matrix
of integer weights, so 2,000 resamples of an AUC cost two cumulative sums and no sort. Undefined (no positive, no row)
is NaN; the card says so in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fabrica.errors import UsageError, unknown

Columns = Mapping[str, NDArray[Any]]
Weights = NDArray[np.floating[Any]] | None
Value = float | NDArray[np.float64]


def _weights(weights: Weights, n: int) -> NDArray[np.float64]:
    return np.ones((1, n)) if weights is None else np.atleast_2d(np.asarray(weights, dtype=np.float64))


def _out(values: NDArray[np.float64], weights: Weights) -> Value:
    return float(values[0]) if weights is None else values


def _divide(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    """top / bottom with NaN where bottom is 0."""
    out = np.full(np.broadcast(top, bottom).shape, np.nan)
    np.divide(top, bottom, out=out, where=bottom > 0)
    return out


def _nanmean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis of what is not NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return _divide(np.where(known, values, 0.0).sum(-1), known.sum(-1).astype(np.float64))


def mean(values: ArrayLike, weights: Weights = None) -> Value:
    """Weighted mean of (n,) values, those that are not NaN.

    >>> mean([1.0, 0.0, 1.0, float("nan")])
    0.6666666666666666
    """
    column = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(column)
    w = _weights(weights, len(column))[:, known]
    return _out(_divide(w @ column[known], w.sum(1)), weights)


def accuracy(truth: ArrayLike, answer: ArrayLike, weights: Weights = None) -> Value:
    """Share of rows whose answer is the truth; both (n,) of one dtype.

    >>> accuracy([0, 1, 2, 2], [0, 1, 1, 2])
    0.75
    """
    return mean((np.asarray(truth) == np.asarray(answer)).astype(np.float64), weights)


def balanced_accuracy(truth: ArrayLike, answer: ArrayLike, weights: Weights = None) -> Value:
    """Mean recall of the classes that occur in `truth` (n,), as scikit-learn's `balanced_accuracy_score`.

    >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 0, 0])
    0.5
    """
    t, a = np.asarray(truth), np.asarray(answer)
    w = _weights(weights, len(t))
    recalls = [_divide(w[:, t == c] @ (a[t == c] == c).astype(np.float64), w[:, t == c].sum(1)) for c in np.unique(t)]
    return _out(_nanmean(np.stack(recalls, -1)) if recalls else np.full(len(w), np.nan), weights)


def auc(truth: ArrayLike, score: ArrayLike, weights: Weights = None) -> Value:
    """Area under the ROC curve of binary truth (n,) and scores (n,); ties count one half (Mann-Whitney).

    Weighted form: sum over positives of w_p (N_<(s_p) + N_<=(s_p)) / 2, over W_pos W_neg, where N counts the weight of
    negatives; the sort is done once for all resamples.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    t, s = np.asarray(truth), np.asarray(score, dtype=np.float64)
    known = ~np.isnan(s) & ~np.isnan(t.astype(np.float64))
    pos, neg = np.flatnonzero(known & (t == 1)), np.flatnonzero(known & (t == 0))
    w = _weights(weights, len(t))
    if not len(pos) or not len(neg):
        return _out(np.full(len(w), np.nan), weights)
    neg = neg[np.argsort(s[neg], kind="stable")]
    below, upto = np.searchsorted(s[neg], s[pos], "left"), np.searchsorted(s[neg], s[pos], "right")
    cumulative = np.zeros((len(w), len(neg) + 1))
    np.cumsum(w[:, neg], axis=1, out=cumulative[:, 1:])
    wins = cumulative[:, below]
    wins += cumulative[:, upto]
    w_pos = w[:, pos]
    area = np.einsum("bp,bp->b", w_pos, wins) / 2
    return _out(_divide(area, w_pos.sum(1) * cumulative[:, -1]), weights)


def macro_auc(truth: ArrayLike, score: ArrayLike, weights: Weights = None) -> Value:
    """Mean AUC over labels: truth (n, L) of 0/1 with NaN = unknown, or (n,) class numbers (one against the rest).

    Labels without a known positive and a known negative are left out (`undefined_labels` counts them).

    >>> macro_auc([[1, 0], [0, 1], [1, float("nan")], [0, 0]], [[0.9, 0.1], [0.2, 0.8], [0.1, 0.5], [0.3, 0.2]])
    0.75
    """
    s = np.asarray(score, dtype=np.float64)
    t = _columns_of(truth, s.shape[1])
    w = _weights(weights, len(t))
    values = np.stack([np.atleast_1d(auc(t[:, j], s[:, j], w)) for j in range(t.shape[1])], -1)
    return _out(_nanmean(values), weights)


def undefined_labels(truth: ArrayLike, labels: int) -> list[int]:
    """The columns of `truth` in which an AUC has no meaning (no known positive or no known negative)."""
    t = _columns_of(truth, labels)
    return [j for j in range(labels) if not ((t[:, j] == 1).any() and (t[:, j] == 0).any())]


def _columns_of(truth: ArrayLike, labels: int) -> NDArray[np.float64]:
    t = np.asarray(truth, dtype=np.float64)
    return t if t.ndim == 2 else np.where(np.isnan(t)[:, None], np.nan, t[:, None] == np.arange(labels))


def brier(truth: ArrayLike, probability: ArrayLike, weights: Weights = None) -> Value:
    """Brier score. (n,) classes with (n, L) probabilities: sum over classes of squared errors (Brier 1950); (n, L)
    labels with NaN = unknown: mean squared error over the known.

    >>> round(brier([1, 0], [[0.2, 0.8], [0.6, 0.4]]), 3)
    0.2
    """
    p = np.asarray(probability, dtype=np.float64)
    error = (_columns_of(truth, p.shape[1]) - p) ** 2
    return mean(error.sum(1) if np.ndim(truth) == 1 else _nanmean(error), weights)


def ece(truth: ArrayLike, probability: ArrayLike, weights: Weights = None, *, bins: int = 10) -> Value:
    """Expected calibration error with equal-mass bins (Nixon et al. 2019): sum over bins of the weight's share times
    |accuracy - confidence|.

    (n,) classes with (n, L) probabilities: of the chosen class; (n, L) labels: of each known label's probability. Bin
    borders are quantiles of all rows and stay fixed over the resamples.

    >>> round(ece([1, 1], [[0.2, 0.8], [0.2, 0.8]], bins=1), 3)
    0.2
    """
    p, t = np.asarray(probability, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    rows = np.arange(len(p))
    if t.ndim == 1:
        confidence, right = p.max(1), (p.argmax(1) == t).astype(np.float64)
    else:
        at, label = np.nonzero(~np.isnan(t))
        rows, confidence, right = at, p[at, label], t[at, label]
    w = _weights(weights, len(p))[:, rows]
    edges = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1]) if len(confidence) else np.zeros(0)
    member = (np.searchsorted(edges, confidence, "left")[:, None] == np.arange(bins)).astype(np.float64)
    gap = np.abs(w @ (member * (right - confidence)[:, None]))
    return _out(_divide(gap.sum(1), w.sum(1)), weights)


def recall_at(rank: ArrayLike, k: int, weights: Weights = None) -> Value:
    """R@k: share of queries whose best relevant candidate stands at rank <= k (1 = first).

    >>> recall_at([1, 3, 20], 5)
    0.6666666666666666
    """
    return mean((np.asarray(rank) <= k).astype(np.float64), weights)


def precision_at(hits: ArrayLike, k: int, weights: Weights = None) -> Value:
    """P@k: mean share of relevant ones among the first k, from `hits` (n,), the number of relevant in the first k.

    >>> precision_at([5, 0], 5)
    0.5
    """
    return mean(np.asarray(hits, dtype=np.float64) / k, weights)


def mrr(rank: ArrayLike, weights: Weights = None) -> Value:
    """Mean reciprocal rank of the best relevant candidate.

    >>> mrr([1, 2, 4])
    0.5833333333333334
    """
    return mean(1.0 / np.asarray(rank, dtype=np.float64), weights)


def dice(answer: ArrayLike, truth: ArrayLike) -> float:
    """Dice overlap of two masks of one shape: 2|A and B| / (|A| + |B|); NaN where both are empty.

    >>> dice([[1, 1], [0, 0]], [[1, 0], [0, 0]])
    0.6666666666666666
    """
    a, b = np.asarray(answer, dtype=bool), np.asarray(truth, dtype=bool)
    if a.shape != b.shape:
        raise UsageError(f"dice: answer has shape {a.shape}, truth {b.shape}; wanted one shape")
    size = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / size if size else float("nan")


@dataclass(frozen=True, slots=True)
class Measure:
    """A named metric as a card reads it: `function(columns, weights)`, the columns it `reads`, its range."""

    name: str
    function: Callable[[Columns, Weights], Value]
    reads: tuple[str, ...]
    higher_is_better: bool = True
    share: bool = False  # a mean of 0/1 (or of shares): Wilson's interval where nothing varies
    constants: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, columns: Columns, weights: Weights = None) -> Value:
        missing = [name for name in self.reads if name not in columns]
        if missing:
            raise UsageError(f"metric {self.name!r} reads columns {missing}; the rows have {sorted(columns)}")
        return self.function(columns, weights)


MEASURES: Mapping[str, Measure] = {
    m.name: m
    for m in (
        Measure("accuracy", lambda c, w: accuracy(c["truth"], c["answer"], w), ("truth", "answer"), share=True),
        Measure("balanced accuracy", lambda c, w: balanced_accuracy(c["truth"], c["answer"], w), ("truth", "answer")),
        Measure("macro AUC", lambda c, w: macro_auc(c["truth"], c["scores"], w), ("truth", "scores")),
        Measure("AUC", lambda c, w: auc(_only(c["truth"]), _only(c["scores"]), w), ("truth", "scores")),
        Measure("Brier", lambda c, w: brier(c["truth"], c["scores"], w), ("truth", "scores"), higher_is_better=False),
        Measure("ECE", lambda c, w: ece(c["truth"], c["scores"], w), ("truth", "scores"), higher_is_better=False),
        Measure("MRR", lambda c, w: mrr(c["rank"], w), ("rank",)),
        Measure("Dice", lambda c, w: mean(c["dice"], w), ("dice",)),
    )
}


def _only(column: NDArray[Any]) -> NDArray[Any]:
    if column.ndim == 2 and column.shape[1] != 1:
        raise UsageError(f"AUC takes one label, the rows have {column.shape[1]}: use 'macro AUC'")
    return column[:, 0] if column.ndim == 2 else column


def measure(name: str) -> Measure:
    """The metric of that name; "R@5" and "P@5" take their number from the name.

    >>> measure("R@5")({"rank": np.array([1, 9])})
    0.5
    """
    if name in MEASURES:
        return MEASURES[name]
    letter, _, digits = name.partition("@")
    if letter in ("R", "P") and digits.isdigit() and int(digits) > 0:
        k = int(digits)
        if letter == "R":
            return Measure(name, lambda c, w: recall_at(c["rank"], k, w), ("rank",), share=True)
        return Measure(name, lambda c, w: precision_at(c[f"hits_{k}"], k, w), (f"hits_{k}",), share=True)
    raise unknown("metric", name, [*MEASURES, "R@k", "P@k"])
