"""What frozen features hold: nearest neighbours, a linear probe at fractions of the labels, and their controls."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fabrica.errors import UsageError, need
from fabrica.evaluate.features import Strings, Vectors
from fabrica.evaluate.retrieval import nearest

STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of the logistic probe, tuned on training data
Floats = NDArray[np.float64]


def label_fraction(truth: ArrayLike, fraction: float, *, seed: int, names: Sequence[str] = ()) -> NDArray[np.int64]:
    """The numbers of the rows that a probe may see: a seeded share of each class, in order.

    `truth` (n,) class numbers or (n, L) labels with NaN = unknown; rows without any known label are never taken. Rows
    of one stratum (class, or combination of labels) get places (r + u) / n in a shuffled order and a fraction f takes
    those below f, so that 1 % lies inside 10 %. An error where a class is left without a positive, or a label without
    a negative.

    >>> label_fraction([0] * 10 + [1] * 10, 0.2, seed=0).size
    4
    """
    t = np.asarray(truth, dtype=np.float64)
    if not 0 < fraction <= 1:
        raise UsageError(f"label fraction {fraction}; wanted more than 0 and at most 1")
    table = t[:, None] if t.ndim == 1 else t
    usable = np.flatnonzero((~np.isnan(table)).any(1))
    filled = np.nan_to_num(table[usable], nan=-1.0)
    strata, inverse = np.unique(filled, axis=0, return_inverse=True)
    rng = np.random.default_rng(seed)
    place = np.empty(len(usable))
    for s in range(len(strata)):
        rows = rng.permutation(np.flatnonzero(inverse.ravel() == s))
        offset = 0.5 if t.ndim == 1 else rng.random()
        place[rows] = (np.arange(len(rows)) + offset) / len(rows)
    taken = usable[np.sort(np.flatnonzero(place < fraction))]
    _both_sides(t, taken, fraction, names)
    return taken.astype(np.int64)


def _both_sides(t: Floats, taken: NDArray[np.int64], fraction: float, names: Sequence[str]) -> None:
    classes = max(len(names), int(np.nanmax(t, initial=0)) + 1)
    columns = t if t.ndim == 2 else np.where(np.isnan(t)[:, None], np.nan, t[:, None] == np.arange(classes))
    for side, value in (("positive", 1.0), ("negative", 0.0)):
        for j in range(columns.shape[1]):
            if not (columns[taken, j] == value).any():
                name = names[j] if j < len(names) else str(j)
                total = int((columns[:, j] == value).sum())
                raise UsageError(
                    f"{100 * fraction:g} % of the labels leaves {name!r} without a {side} ({total} of {len(t)} rows "
                    "are): take a larger fraction or more data"
                )


def knn(
    train: Vectors, truth: ArrayLike, test: Vectors, *, classes: int, k: int = 20, temperature: float = 0.07
) -> Floats:
    """(n, classes) shares of the k nearest training rows, weighted by exp(cosine / temperature) (Wu et al. 2018).

    `truth` (N,) class numbers, or (N, L) labels with NaN = unknown: each label then asks its known neighbours.
    """
    t = np.asarray(truth, dtype=np.float64)
    if not len(t):
        raise UsageError("kNN: no training row with a label")
    columns = t if t.ndim == 2 else (t[:, None] == np.arange(classes)).astype(np.float64)
    near, cosine = nearest(test, train, k)
    weight = np.exp((cosine - cosine.max(1, keepdims=True)).astype(np.float64) / temperature)
    votes = columns[near]  # (n, k, classes)
    known = ~np.isnan(votes) * weight[..., None]
    total = known.sum(1)
    prior = np.nanmean(columns, 0)
    share = (np.nan_to_num(votes) * weight[..., None]).sum(1)
    out: Floats = np.broadcast_to(prior, total.shape).copy()
    np.divide(share, total, out=out, where=total > 0)
    return out


def linear_probe(
    train: NDArray[Any], truth: ArrayLike, test: NDArray[Any], *, classes: int, subjects: ArrayLike, seed: int
) -> Floats:
    """(n, classes) probabilities of a logistic regression on standardised features.

    The scaler sees the training rows alone; C is chosen by log-loss on an inner split of the training rows by
    subject. `truth` (N,) class numbers, or (N, L) labels with NaN = unknown: one regression a label, on its known rows.
    """
    t, group = np.asarray(truth, dtype=np.float64), np.asarray(subjects)
    if t.ndim == 1:
        return _logistic(train, t.astype(np.int64), test, classes, group, seed)
    out = np.zeros((len(test), classes))
    for j in range(classes):
        known = ~np.isnan(t[:, j])
        out[:, j] = _logistic(train[known], t[known, j].astype(np.int64), test, 2, group[known], seed)[:, 1]
    return out


def _logistic(
    x: NDArray[Any], y: NDArray[np.int64], test: NDArray[Any], classes: int, group: Strings, seed: int
) -> Floats:
    need("sklearn", "evaluate")
    from sklearn.preprocessing import StandardScaler

    strength = _tune(x, y, group, seed)
    scaler = StandardScaler().fit(x)
    model = _fit(scaler.transform(x), y, strength)
    out = np.zeros((len(test), classes))
    out[:, model.classes_] = model.predict_proba(scaler.transform(test))
    return out


def _fit(x: NDArray[Any], y: NDArray[np.int64], strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(x, y)


def _tune(x: NDArray[Any], y: NDArray[np.int64], group: Strings, seed: int) -> float:
    """C by log-loss on inner folds of the training rows, no subject on both sides; 0.1 where classes are too small."""
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.preprocessing import StandardScaler

    present = np.unique(y)
    smallest = min(len(np.unique(group[y == c])) for c in present)
    if smallest < 2:
        return 0.1
    folds = list(StratifiedGroupKFold(min(4, smallest), shuffle=True, random_state=seed).split(x, y, group))
    losses = dict.fromkeys(STRENGTHS, 0.0)
    used = 0
    for fit, held in folds if len(y) < 400 else folds[:1]:
        if len(np.unique(y[fit])) < len(present):
            continue
        used += 1
        scaler = StandardScaler().fit(x[fit])
        inner, outer = scaler.transform(x[fit]), scaler.transform(x[held])
        for strength in STRENGTHS:
            chances = _fit(inner, y[fit], strength).predict_proba(outer)
            losses[strength] += float(log_loss(y[held], chances, labels=present)) * len(held)
    return min(losses, key=lambda s: (losses[s], s)) if used else 0.1


def prevalence(truth: ArrayLike, rows: int, classes: int) -> Floats:
    """(rows, classes) the training shares for everybody: the answer that looks at nothing."""
    t = np.asarray(truth, dtype=np.float64)
    columns = t if t.ndim == 2 else np.where(np.isnan(t)[:, None], np.nan, t[:, None] == np.arange(classes))
    known = ~np.isnan(columns)
    count = known.sum(0)
    share = np.divide(np.where(known, columns, 0).sum(0), count, out=np.full(classes, 1 / classes), where=count > 0)
    return np.broadcast_to(share, (rows, classes)).copy()


# ---------------------------------------------------------------- what controls look at: (n, 64, 64) uint8 -> (n, d)


def pixels(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """32 x 32 grey levels: a logistic regression on them is the floor that a learned encoder must clear."""
    return _halved(pictures).reshape(len(pictures), -1)


def border(pictures: NDArray[np.uint8], width: int = 2) -> NDArray[np.float32]:
    """The outer `width` of 32 pixels alone. What it can tell is a shortcut of the collection, not medicine."""
    small = _halved(pictures)
    ring = np.ones((32, 32), dtype=bool)
    ring[width:-width, width:-width] = False
    return small[:, ring]


def random_features(pictures: NDArray[np.uint8], *, filters: int = 128, seed: int = 0) -> NDArray[np.float32]:
    """A tower that learned nothing: random 8 x 8 filters at stride 4, ReLU, mean over four quadrants (n, 4 x filters).

    (Random features after Coates, Lee and Ng 2011, without their k-means.)
    """
    rng = np.random.default_rng(seed)
    bank = rng.standard_normal((64, filters)).astype(np.float32)
    bank = (bank - bank.mean(0)) / np.linalg.norm(bank - bank.mean(0), axis=0)
    out = np.zeros((len(pictures), 4 * filters), dtype=np.float32)
    for start in range(0, len(pictures), 256):
        block = pictures[start : start + 256].astype(np.float32) / 255
        windows = np.lib.stride_tricks.sliding_window_view(block, (8, 8), axis=(1, 2))[:, ::4, ::4]  # (b, 15, 15, 8, 8)
        answer = np.maximum(windows.reshape(*windows.shape[:3], 64) @ bank, 0)  # (b, 15, 15, filters)
        quarters = [answer[:, r, c].mean((1, 2)) for r in _HALVES for c in _HALVES]
        out[start : start + 256] = np.concatenate(quarters, 1)
    return out


_HALVES = (slice(0, 8), slice(7, 15))
CONTROLS: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.float32]]] = {
    "pixels": pixels,
    "border only": border,
    "random features": random_features,
}


def _halved(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    n, h, w = pictures.shape
    return np.asarray(pictures.reshape(n, h // 2, 2, w // 2, 2).mean((2, 4), dtype=np.float32) / 255)
