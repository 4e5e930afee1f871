"""What retrieval does to a reader: accuracy without and with contexts, and both ways of changing its mind together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fabrica.errors import UsageError
from fabrica.evaluate import bootstrap
from fabrica.evaluate.bootstrap import Interval
from fabrica.evaluate.metrics import Columns, Value, Weights, mean

Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Effect:
    """Accuracy `alone` and `shown` (with contexts); `over_reliance` P(wrong with | right without) and `helped`
    P(right with | wrong without), NaN intervals where nobody could; `unread` share of answers with contexts that could
    not be read (wrong ones); `contexts` shown on average. `shown - alone` = helped x (1 - alone) - over_reliance x
    alone: neither is reported without the other."""

    alone: Interval
    shown: Interval
    gain: Interval
    over_reliance: Interval
    helped: Interval
    unread: float
    contexts: float

    def table(self) -> dict[str, list[float]]:
        """Value and interval by name."""
        named = {n: getattr(self, n) for n in ("alone", "shown", "gain", "over_reliance", "helped")}
        made = {n: [i.value, i.low, i.high] for n, i in named.items()}
        return {**made, "unread": [self.unread], "contexts": [self.contexts]}


def effect(
    alone: ArrayLike, shown: ArrayLike, subjects: Sequence[str], *, unread: ArrayLike | None = None,
    contexts: ArrayLike | None = None, count: int = bootstrap.RESAMPLES,
) -> Effect:  # fmt: skip
    """From whether each answer was right without contexts `alone` (n,) and with them `shown` (n,), the same questions
    in one order; an answer that cannot be read is not right, and `unread` (n,) counts it apart.

    >>> e = effect([1, 1, 1, 0, 0], [1, 1, 0, 1, 0], list("abcde"), count=50)
    >>> [round(x.value, 3) for x in (e.alone, e.shown, e.over_reliance, e.helped)]
    [0.6, 0.6, 0.333, 0.5]
    """
    a, s = _bools(alone), _bools(shown)
    if len(a) != len(s) or len(a) != len(subjects) or not len(a):
        raise UsageError(
            f"{len(a)} answers without, {len(s)} with contexts, {len(subjects)} subjects; wanted one number"
        )
    columns = {"alone": a.astype(np.float64), "shown": s.astype(np.float64)}

    def measured(name: str) -> Interval:
        return bootstrap.interval(
            lambda c, w: mean(c[name], w), columns, subjects, count=count, share=True
        )  # fmt: skip

    gain = bootstrap.interval(lambda c, w: mean(c["shown"] - c["alone"], w), columns, subjects, count=count)
    return Effect(
        measured("alone"), measured("shown"), gain,
        bootstrap.interval(over_reliance, columns, subjects, count=count),
        bootstrap.interval(helped, columns, subjects, count=count),
        float("nan") if unread is None else float(_bools(unread).mean()),
        float("nan") if contexts is None else float(np.asarray(contexts, np.float64).mean()),
    )  # fmt: skip


def over_reliance(columns: Columns, weights: Weights = None) -> Value:
    """P(wrong with contexts | right without): the share of what was known that contexts undo."""
    return mean(np.where(columns["alone"] > 0, 1 - columns["shown"], np.nan), weights)


def helped(columns: Columns, weights: Weights = None) -> Value:
    """P(right with contexts | wrong without)."""
    return mean(np.where(columns["alone"] > 0, np.nan, columns["shown"]), weights)


def factual(gold: ArrayLike, said: Sequence[bool | None]) -> Mapping[str, float]:
    """Accuracy, precision, recall and F1 of yes among yes/no questions; None = could not be read: wrong, and no yes.

    >>> factual([True, True, False, False], [True, None, True, False])["accuracy"]
    0.5
    """
    truth = _bools(gold)
    if len(truth) != len(said):
        raise UsageError(f"{len(truth)} gold answers, {len(said)} given ones")
    yes = np.array([v is True for v in said])
    right = np.array([v is not None and v == g for v, g in zip(said, truth.tolist(), strict=True)])
    both = float((yes & truth).sum())
    precision = both / yes.sum() if yes.any() else float("nan")
    recall = both / truth.sum() if truth.any() else float("nan")
    f1 = 2 * both / (yes.sum() + truth.sum()) if yes.any() or truth.any() else float("nan")
    return {"accuracy": float(right.mean()), "precision": precision, "recall": recall, "f1": float(f1)}


def copied(said: Sequence[object], swapped: Sequence[object]) -> float:
    """The share of answers that stay the same when the image is another patient's and the contexts are kept: near 1
    where the reader copies its contexts."""
    if len(said) != len(swapped) or not said:
        raise UsageError(f"{len(said)} and {len(swapped)} answers; wanted the same questions twice")
    return float(np.mean([a == b for a, b in zip(said, swapped, strict=True)]))


def _bools(values: ArrayLike) -> Bools:
    made = np.asarray(values)
    if made.ndim != 1 or not np.isin(made, (0, 1)).all():
        raise UsageError("answers are right (1) or not (0); wanted one row of those")
    return made.astype(bool)
