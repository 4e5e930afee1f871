"""Joining the results of several searches, and carrying results over links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fabrica.errors import UsageError
from fabrica.retrieve import DEPTH, Places, Run, best


def rrf(runs: Sequence[Run], depth: int = DEPTH, *, k: float = 60.0) -> Run:
    """Reciprocal rank fusion: score(d) = sum over runs of 1 / (k + rank(d)), rank 1 = first (Cormack et al. 2009).

    The runs must be of the same queries and documents, in one order; what a run did not find adds nothing there.

    >>> a = Run(("q",), ("x", "y"), np.array([[0, 1]]), np.ones((1, 2), np.float32))
    >>> b = Run(("q",), ("x", "y"), np.array([[1, -1]]), np.ones((1, 2), np.float32))
    >>> rrf([a, b]).found("q")[0][0]
    'y'
    """
    if not runs or k <= 0:
        raise UsageError(f"rrf of {len(runs)} runs with k={k}: wanted at least one run and k > 0")
    first = runs[0]
    if any(run.queries != first.queries or run.documents != first.documents for run in runs):
        raise UsageError("rrf: the runs are of different queries or documents; search the same ones with each index")
    found = []
    for i in range(len(first.queries)):
        scores = np.zeros(len(first.documents))
        for run in runs:
            numbers = run.numbers[i]
            scores[numbers[numbers >= 0]] += 1.0 / (k + 1 + np.flatnonzero(numbers >= 0))
        found.append(best(scores, depth, above=0.0))
    return _places(first.documents).run(first.queries, found, depth)


def propagate(run: Run, links: Mapping[str, Iterable[str]], documents: Sequence[str], *, near: int = 10) -> Run:
    """Nearest-neighbour propagation: what the `near` best neighbours of a query are linked with, by the sum of their
    scores (PMC-Patients' baseline for articles: similar training patients bring the articles relevant to them).

    `links` maps the run's documents to ids among `documents`; others are ignored.
    """
    places = _places(tuple(documents))
    found = []
    for i in range(len(run.queries)):
        scores = np.zeros(len(documents))
        for number, score in zip(run.numbers[i, :near].tolist(), run.scores[i, :near].tolist(), strict=True):
            for id_ in links.get(run.documents[number], ()) if number >= 0 else ():
                if id_ in places.number:
                    scores[places.number[id_]] += score
        found.append(best(scores, DEPTH, above=0.0))
    return places.run(run.queries, found, DEPTH)


def _places(ids: Sequence[str]) -> Places:
    return Places(dict.fromkeys(ids))
