"""Graded retrieval metrics of a run: MRR, P@k, nDCG@k, MAP, R@k, one value a query, so that intervals can be drawn.

`evaluate.retrieval` ranks vectors where one item is right; this judges any search against qrels with grades.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError, unknown

if TYPE_CHECKING:
    from fabrica.retrieve import Run

Qrels = Mapping[str, Mapping[str, int]]  # query -> document -> grade; what is not named or is 0 is not relevant
Column = NDArray[np.float64]
METRICS = ("MRR", "MAP", "P@k", "nDCG@k", "R@k")
USUAL = ("MRR", "P@10", "nDCG@10", "R@1000")  # what PMC-Patients reports


def per_query(run: Run, qrels: Qrels, metrics: Sequence[str] = USUAL) -> dict[str, Column]:
    """metric -> (Q,) values in the order of `run.queries`.

    - MRR: 1 / rank of the first relevant document, 0 where none was found;
    - P@k: relevant among the first k, over k (also where fewer were found);
    - R@k: relevant among the first k, over all relevant ones (trec_eval's recall, not success at k);
    - MAP: mean over all relevant documents of the precision at their ranks, 0 for those not found;
    - nDCG@k: sum of grade / log2(rank + 1) over the first k, over that of the best order (linear gain, as trec_eval and
      BEIR have it).

    A query of the run without a relevant document is a `UsageError`: it has no recall; leave it out.
    """
    gains = np.zeros(run.numbers.shape)
    ideal: list[list[int]] = []
    for i, query in enumerate(run.queries):
        row = {d: g for d, g in qrels.get(query, {}).items() if g > 0}
        if not row:
            raise UsageError(f"query {query!r} has no relevant document in the qrels; search for those that have one")
        ideal.append(sorted(row.values(), reverse=True))
        gains[i] = [row.get(run.documents[n], 0) if n >= 0 else 0 for n in run.numbers[i].tolist()]
    return {name: _metric(name, gains, ideal) for name in metrics}


def ranking_scores(run: Run, qrels: Qrels, metrics: Sequence[str] = USUAL) -> dict[str, float]:
    """metric -> mean over the run's queries; `per_query` says what each is.

    >>> from fabrica.retrieve import Run
    >>> run = Run(("q",), ("a", "b", "c"), np.array([[1, 0, 2]]), np.ones((1, 3), np.float32))
    >>> ranking_scores(run, {"q": {"a": 2, "c": 1}}, ["MRR", "P@2", "R@2", "MAP"])
    {'MRR': 0.5, 'P@2': 0.5, 'R@2': 0.5, 'MAP': 0.5833333333333333}
    """
    if not run.queries:
        raise UsageError("the run has no query")
    return {name: float(values.mean()) for name, values in per_query(run, qrels, metrics).items()}


def _metric(name: str, gains: Column, ideal: Sequence[Sequence[int]]) -> Column:
    hit = gains > 0
    relevant = np.array([len(row) for row in ideal], np.float64)
    ranks = np.arange(1, gains.shape[1] + 1)
    if name == "MRR":
        return np.where(hit.any(1), 1.0 / (1 + hit.argmax(1)), 0.0)
    if name == "MAP":
        precision = hit.cumsum(1) / ranks
        return np.asarray((precision * hit).sum(1) / relevant, np.float64)
    letter, _, digits = name.partition("@")
    if letter not in ("P", "R", "nDCG") or not digits.isdigit() or int(digits) < 1:
        raise unknown("ranking metric", name, METRICS)
    k = int(digits)
    if letter == "P":
        return np.asarray(hit[:, :k].sum(1) / k, np.float64)
    if letter == "R":
        return np.asarray(hit[:, :k].sum(1) / relevant, np.float64)
    best = np.array([np.sum(np.array(row[:k]) / np.log2(np.arange(2, len(row[:k]) + 2))) for row in ideal])
    return np.asarray((gains[:, :k] / np.log2(ranks[:k] + 1)).sum(1) / best, np.float64)
