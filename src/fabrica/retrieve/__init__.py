"""Search among texts: BM25, latent semantics, any embedder, and the fusion of their results."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError, unknown

DEPTH = 1000  # results a query, unless asked for others
Exclude = Mapping[str, Collection[str]]  # query -> documents that it does not meet: itself, its own patient
Scores = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Run:
    """What a search found for each query: `numbers` (Q, k) into `documents`, best first, -1 where nothing more was
    found; `scores` (Q, k) beside them (0 there)."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]
    numbers: Numbers
    scores: Scores

    def found(self, query: str) -> list[tuple[str, float]]:
        """Documents and scores of one query, best first."""
        if query not in self.queries:
            raise unknown("query in the run", query, self.queries)
        i = self.queries.index(query)
        return [(self.documents[n], float(s)) for n, s in zip(self.numbers[i], self.scores[i], strict=True) if n >= 0]

    def cut(self, k: int) -> Run:
        """The first k of each query."""
        return Run(self.queries, self.documents, self.numbers[:, :k], self.scores[:, :k])


@runtime_checkable
class Retriever(Protocol):
    """An index over documents that were given to it."""

    def search(self, queries: Mapping[str, str], k: int = DEPTH, *, exclude: Exclude | None = None) -> Run: ...


class Places:
    """The ids of an index' documents and their numbers; checks what every index checks."""

    def __init__(self, documents: Mapping[str, Any]) -> None:
        if not documents:
            raise UsageError("no document to search among")
        self.ids = tuple(documents)
        self.number = {id_: n for n, id_ in enumerate(self.ids)}

    def excluded(self, query: str, exclude: Exclude | None) -> list[int]:
        """The numbers of what a query does not meet; ids that are no document are ignored."""
        return [self.number[d] for d in (exclude or {}).get(query, ()) if d in self.number]

    def run(self, queries: Sequence[str], found: Sequence[tuple[Numbers, Scores]], k: int) -> Run:
        """Rows of (numbers, scores), padded to one width."""
        width = min(max(k, 1), len(self.ids))
        numbers = np.full((len(queries), width), -1, np.int64)
        scores = np.zeros((len(queries), width), np.float32)
        for i, (row, values) in enumerate(found):
            numbers[i, : len(row)], scores[i, : len(row)] = row, values
        return Run(tuple(queries), self.ids, numbers, scores)


def best(scores: NDArray[Any], k: int, *, out: Sequence[int] = (), above: float = -np.inf) -> tuple[Numbers, Scores]:
    """The numbers and values of the k largest `scores` (C,) that are > `above`, best first; ties by number.

    >>> best(np.array([1.0, 3.0, 3.0, 2.0]), 3, out=[3])
    (array([1, 2, 0]), array([3., 3., 1.], dtype=float32))
    """
    if k < 1:
        raise UsageError(f"k={k}: wanted 1 or more results")
    values = np.array(scores, np.float32)
    values[list(out)] = -np.inf
    k = min(k, len(values))
    edge = np.partition(values, len(values) - k)[len(values) - k]
    kept = np.flatnonzero((values >= edge) & (values > above))  # all ties of the last place, in order of number
    order = kept[np.argsort(-values[kept], kind="stable")][:k]
    return order.astype(np.int64), values[order]
