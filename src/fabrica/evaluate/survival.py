"""How well a risk orders times and a curve tells them: C-indices, Brier score, calibration, the log-rank test; and the
penalised Cox model that every survival net should be held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fabrica.errors import Leak, UsageError, need
from fabrica.evaluate.metrics import Columns, Measure, Value, Weights

Floats = NDArray[np.float64]
Setting = TypeVar("Setting")


def c_index(label: ArrayLike, risk: ArrayLike, weights: Weights = None) -> Value:
    """Harrell's C: of the pairs whose order is known (i had the event before j's time, or at it where j was censored),
    the share in which i has the higher risk; equal risks count half. `label` (n,) as `objectives.survival.signed` makes
    it; `weights` (B, n) gives (B,). NaN without such a pair.

    >>> c_index([1.0, 2.0, -3.0], [0.9, 0.5, 0.1])
    1.0
    """
    y, r = np.asarray(label, np.float64), np.asarray(risk, np.float64)
    if y.ndim != 1 or y.shape != r.shape:
        raise UsageError(f"label and risk have shapes {y.shape} and {r.shape}; wanted one number a person")
    time, event = np.abs(y), y > 0
    known = event[:, None] & ((time[:, None] < time) | ((time[:, None] == time) & ~event))
    won = np.where(known, (r[:, None] > r) + 0.5 * (r[:, None] == r), 0.0)
    w = np.ones((1, len(y))) if weights is None else np.atleast_2d(np.asarray(weights, np.float64))
    top, bottom = ((w @ m.astype(np.float32)) * w for m in (won, known))
    total = bottom.sum(1)
    out = np.full(len(w), np.nan)
    np.divide(top.sum(1), total, out=out, where=total > 0)
    return float(out[0]) if weights is None else out


C_INDEX = Measure("C-index", lambda c, w: c_index(c["truth"], c["scores"], w), ("truth", "scores"))


def c_index_within(columns: Columns, weights: Weights = None) -> Value:
    """The mean of Harrell's C over folds, each of its own people: columns "truth", "score" and "fold" (n,). Risks of
    models of different folds are never compared. NaN folds (no pair of known order) do not count.

    >>> c = {"truth": np.array([1.0, 2.0, 1.0, 2.0]), "score": np.array([9, 8, 1, 0]), "fold": np.array([0, 0, 1, 1])}
    >>> float(c_index_within(c))
    1.0
    """
    found = []
    for fold in np.unique(columns["fold"]):
        here = columns["fold"] == fold
        part = None if weights is None else np.atleast_2d(weights)[:, here]
        found.append(np.atleast_1d(c_index(columns["truth"][here], columns["score"][here], part)))
    each = np.stack(found)
    known = np.isfinite(each)
    out = np.full(each.shape[1], np.nan)
    np.divide(np.where(known, each, 0.0).sum(0), known.sum(0), out=out, where=known.any(0))
    return float(out[0]) if weights is None else out


def uno(train: ArrayLike, test: ArrayLike, risk: ArrayLike, *, until: float | None = None) -> float:
    """Uno's C: pairs weighted by the inverse probability of not being censored, from the training part (torchsurv;
    Uno et al. 2011). `until`: the last time that counts, by default the last event of the test part."""
    torch = need("torch", "train")
    metric = need("torchsurv.metrics.cindex", "train").ConcordanceIndex()
    time, event = _tensors(test)
    weight = _ipcw(train, time)
    end = torch.tensor(float(time[event].max()) if until is None else until)
    return float(metric(torch.as_tensor(np.asarray(risk)).float(), event, time, weight=weight, tmax=end))


def integrated_brier(train: ArrayLike, test: ArrayLike, curve: ArrayLike, times: Sequence[float]) -> float:
    """Brier score of survival `curve` (n, T) at rising `times` (T,), weighted for censoring by the training part and
    integrated over them (torchsurv; Graf et al. 1999). 0.25 is what 'one half for all' earns at any one time."""
    torch = need("torch", "train")
    metric = need("torchsurv.metrics.brier_score", "train").BrierScore()
    at = torch.as_tensor(np.asarray(times)).float()
    time, event = _tensors(test)
    metric(
        torch.as_tensor(np.asarray(curve)).float(), event, time, new_time=at, weight=_ipcw(train, time),
        weight_new_time=_ipcw(train, at),
    )  # fmt: skip
    return float(metric.integral())


def _tensors(label: ArrayLike) -> tuple[Any, Any]:
    torch = need("torch", "train")
    values = torch.as_tensor(np.asarray(label)).float()
    return values.abs(), values > 0


def _ipcw(train: ArrayLike, at: Any) -> Any:
    time, event = _tensors(train)
    return need("torchsurv.stats.ipcw", "train").get_ipcw(event, time, at)


def d_calibration(label: ArrayLike, at_time: ArrayLike, *, bins: int = 10) -> float:
    """p value that S(t_i | x_i) (`at_time`, (n,)) is uniform over those with the event; a censored person spreads over
    the bins below (Haider et al. 2020). Small: the curves are not calibrated.

    >>> round(d_calibration(np.ones(100), np.linspace(0.005, 0.995, 100)), 3)
    1.0
    """
    from scipy import stats

    event, s = np.asarray(label, np.float64) > 0, np.clip(np.asarray(at_time, np.float64), 1e-12, 1.0)
    counts = np.bincount(np.minimum((s[event] * bins).astype(int), bins - 1), minlength=bins).astype(np.float64)
    edges = np.arange(bins + 1) / bins
    for value in s[~event]:
        counts += np.clip(np.minimum(edges[1:], value) - edges[:-1], 0, None) / value
    expected = len(s) / bins
    return float(stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), bins - 1))


def log_rank(label: ArrayLike, group: ArrayLike) -> float:
    """p value that two groups (0/1, (n,)) have the same survival (Mantel 1966).

    >>> log_rank([1, 2, 3, 4, 11, 12, 13, 14], [1, 1, 1, 1, 0, 0, 0, 0]) < 0.02
    True
    """
    from scipy import stats

    y, one = np.asarray(label, np.float64), np.asarray(group).astype(bool)
    time, event = np.abs(y), y > 0
    gap = spread = 0.0
    for t in np.unique(time[event]):
        risk, dies = time >= t, (time == t) & event
        n, d, n1 = risk.sum(), dies.sum(), (risk & one).sum()
        gap += (dies & one).sum() - d * n1 / n
        if n > 1:
            spread += d * (n1 / n) * (1 - n1 / n) * (n - d) / (n - 1)
    return float(stats.chi2.sf(gap**2 / spread, 1)) if spread else 1.0


def ridge_cox(x: NDArray[np.floating[Any]], label: ArrayLike, penalty: float) -> Floats:
    """Coefficients (p,) of Cox's model of standardised columns `x` (n, p) with penalty x |b|^2 / 2 on the mean log
    partial likelihood (Breslow). Solved among the n people where p > n, so that ten thousand genes are no matter."""
    from scipy.optimize import minimize

    x, y = np.asarray(x, np.float64), np.asarray(label, np.float64)
    order = np.argsort(-np.abs(y), kind="stable")  # the longest first: who is still there is what came before
    time, event = np.abs(y)[order], (y > 0)[order]
    base, u = x[order], None
    if x.shape[1] > len(x):
        u, s, vt = np.linalg.svd(base, full_matrices=False)
        base = u * s
    last = np.searchsorted(-time, -time, side="right") - 1  # equal times are all there
    events = max(int(event.sum()), 1)

    def loss(b: Floats) -> tuple[float, Floats]:
        eta = base @ b
        top = eta.max()
        weight = np.exp(eta - top)
        total = np.cumsum(weight)[last]
        value = -(eta - top - np.log(total))[event].sum() / events + penalty / 2 * b @ b
        share = np.zeros(len(eta))
        np.add.at(share, last[event], 1.0 / total[event])
        pull = weight * np.cumsum(share[::-1])[::-1] - event
        return float(value), base.T @ pull / events + penalty * b

    found = minimize(loss, np.zeros(base.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    coefficients: Floats = found.x if u is None else vt.T @ found.x
    return coefficients


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold of a nested evaluation: rows to train on, rows to report, the setting that the training rows chose."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]
    chosen: Any
    scores: tuple[float, ...]  # of each setting, on inner rows


def nested(
    subjects: Sequence[str], grid: Sequence[Setting],
    score: Callable[[NDArray[np.int64], NDArray[np.int64], Setting], float], *, folds: int = 5, seed: int = 0,
) -> list[Fold]:  # fmt: skip
    """Folds by subject; in each, the setting of `grid` with the best `score(train rows, validation rows, setting)` on
    an inner split of its training rows. The rows to report never reach `score`: nothing can be chosen on them."""
    names, at = np.unique(np.asarray(subjects), return_inverse=True)
    if len(names) < 2 * folds:
        raise UsageError(f"{len(names)} subjects for {folds} folds; wanted {2 * folds} or more")
    of = np.random.default_rng([seed, 11]).permutation(len(names)) % folds
    made = []
    for fold in range(folds):
        test, rest = np.flatnonzero(of[at] == fold), np.flatnonzero(of[at] != fold)
        inner = of[at[rest]] == (fold + 1) % folds
        scores = tuple(score(rest[~inner], rest[inner], setting) for setting in grid) if len(grid) > 1 else ()
        chosen = grid[int(np.argmax(scores))] if scores else grid[0]
        apart([str(subjects[int(i)]) for i in rest], [str(subjects[int(i)]) for i in test])
        made.append(Fold(rest, test, chosen, scores))
    return made


def apart(train: Sequence[str], test: Sequence[str]) -> None:
    """A `Leak` where a subject stands in both."""
    both = set(train) & set(test)
    if both:
        raise Leak(f"{len(both)} subjects stand in two folds, one of them {min(both)!r}: fold by subject")
