"""Exact cosine retrieval in chunks: rank of the best relevant candidate, hits in the first k, ties against the model.

No (queries x candidates) matrix is ever held: a block of queries at a time meets all candidates, and only its ranks
stay. What counts as found is a `Relevance`, so a duplicate caption counts only where the relevance says so;
otherwise it ties with the right one and, pessimistically, stands before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fabrica.errors import UsageError
from fabrica.evaluate.features import Vectors

BLOCK_BYTES = 64 << 20
TIE = 2e-6  # cosines this close are one value: float32 sums differ in the last bits from block to block
Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Relevance:
    """For each of `queries` a set of candidates: `indices[start[i]:stop[i]]`."""

    indices: Indices
    start: Indices
    stop: Indices

    @classmethod
    def by_key(cls, queries: ArrayLike, candidates: ArrayLike) -> Relevance:
        """Candidate j belongs to query i where their keys are equal; the key "" belongs to nothing.

        >>> r = Relevance.by_key(["a", "b", ""], ["b", "a", "a", ""])
        >>> [r[i].tolist() for i in range(3)]
        [[1, 2], [0], []]
        """
        q, c = np.asarray(queries), np.asarray(candidates)
        order = np.argsort(c, kind="stable")
        start, stop = np.searchsorted(c[order], q, "left"), np.searchsorted(c[order], q, "right")
        if q.dtype.kind in "US":
            stop = np.where(q == q.dtype.type(), start, stop)
        return cls(order, start, stop)

    @classmethod
    def by_sets(cls, sets: Sequence[Sequence[int]]) -> Relevance:
        """From one list of candidate numbers a query."""
        lengths = np.array([len(set(s)) for s in sets], dtype=np.int64)
        stop = np.cumsum(lengths)
        flat = [j for s in sets for j in sorted(set(s))]
        return cls(np.array(flat, dtype=np.int64), stop - lengths, stop)

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, query: int) -> Indices:
        return self.indices[self.start[query] : self.stop[query]]


@dataclass(frozen=True, slots=True)
class Found:
    """For each query: `rank` (n,) of the best relevant candidate, 1 = first, 0 = none is relevant; `relevant` (n,) how
    many are; `candidates` (n,) how many it met; `hits` k -> (n,) relevant among the first k."""

    rank: Indices
    relevant: Indices
    candidates: Indices
    hits: dict[int, Indices]

    @classmethod
    def nothing(cls, queries: int, hits: Sequence[int]) -> Found:
        """Columns of zeros, to be filled."""
        rank, relevant, candidates = (np.zeros(queries, dtype=np.int64) for _ in range(3))
        return cls(rank, relevant, candidates, {k: np.zeros(queries, dtype=np.int64) for k in hits})


def search(
    queries: Vectors, candidates: Vectors, relevance: Relevance, *, hits: Sequence[int] = (),
    exclude: Relevance | None = None, block_bytes: int = BLOCK_BYTES,
) -> Found:  # fmt: skip
    """Rank unit `candidates` (C, d) for unit `queries` (Q, d) by cosine.

    `exclude` names candidates that a query does not meet (itself, its own patient). Memory: `block_bytes` and the
    inputs. Time: Q x C x d multiply-adds and one pass over the scores (a partition more where `hits` are asked for).
    """
    q, c = np.ascontiguousarray(queries, dtype=np.float32), np.ascontiguousarray(candidates, dtype=np.float32)
    _check(q, c, relevance, exclude, hits)
    found = Found.nothing(len(q), hits)
    block = max(1, block_bytes // (4 * max(1, len(c))))
    scores = np.empty((min(block, max(1, len(q))), len(c)), dtype=np.float32)
    for start in range(0, len(q), block):
        part = q[start : start + block]
        view = scores[: len(part)]
        np.matmul(part, c.T, out=view)
        for row in range(len(part)):
            _rank(view[row], start + row, relevance, exclude, found)
    return found


def _rank(
    scores: NDArray[np.float32], query: int, relevance: Relevance, exclude: Relevance | None, found: Found
) -> None:
    relevant, met = relevance[query], len(scores)
    if exclude is not None and len(out := exclude[query]):
        scores[out] = -np.inf
        met -= len(out)
        relevant = relevant[np.isfinite(scores[relevant])]
    found.relevant[query], found.candidates[query] = len(relevant), met
    if not len(relevant):
        return
    scores[relevant] -= np.float32(TIE)  # what ties stands before
    own = scores[relevant]
    best = own.max()
    found.rank[query] = 1 + np.count_nonzero(scores >= best) - np.count_nonzero(own >= best)
    if found.hits:
        k = min(max(found.hits), len(scores))
        top = np.argpartition(scores, -k)[-k:]
        top = top[np.argsort(-scores[top], kind="stable")]
        right = np.isin(top, relevant)
        for number, column in found.hits.items():
            column[query] = int(right[:number].sum())


def _check(q: Vectors, c: Vectors, relevance: Relevance, exclude: Relevance | None, hits: Sequence[int]) -> None:
    if q.ndim != 2 or c.ndim != 2 or q.shape[1] != c.shape[1]:
        raise UsageError(f"retrieval: queries have shape {q.shape}, candidates {c.shape}; wanted (Q, d) and (C, d)")
    if not len(c):
        raise UsageError("retrieval: no candidate")
    for what, sets in (("relevance", relevance), ("exclude", exclude)):
        if sets is not None and len(sets) != len(q):
            raise UsageError(f"retrieval: {what} speaks of {len(sets)} queries, there are {len(q)}")
    if not (np.isfinite(q).all() and np.isfinite(c).all()):
        raise UsageError("retrieval: a vector is not finite; leave out what could not be embedded")
    if any(k < 1 for k in hits):
        raise UsageError(f"retrieval: k of {list(hits)}; wanted 1 or more")


def chance(relevant: Indices, candidates: Indices, *, hits: Sequence[int] = (), seed: int = 0) -> Found:
    """What an order drawn at random finds, for as many relevant ones among as many candidates: the baseline's rows."""
    rng = np.random.default_rng(seed)
    rank = np.zeros(len(relevant), dtype=np.int64)
    columns = {k: np.zeros(len(relevant), dtype=np.int64) for k in hits}
    for i, (m, n) in enumerate(zip(relevant.tolist(), candidates.tolist(), strict=True)):
        if m:
            places = rng.choice(n, size=m, replace=False)
            rank[i] = 1 + int(places.min())
            for k, column in columns.items():
                column[i] = int((places < k).sum())
    return Found(rank, np.asarray(relevant), np.asarray(candidates), columns)


def nearest(
    queries: Vectors, candidates: Vectors, k: int, *, block_bytes: int = BLOCK_BYTES
) -> tuple[Indices, Vectors]:
    """The k nearest candidates of each query: numbers (Q, k) and cosines (Q, k), best first, ties by number."""
    q, c = np.ascontiguousarray(queries, dtype=np.float32), np.ascontiguousarray(candidates, dtype=np.float32)
    k = min(k, len(c))
    numbers, values = np.zeros((len(q), k), dtype=np.int64), np.zeros((len(q), k), dtype=np.float32)
    block = max(1, block_bytes // (12 * max(1, len(c))))
    for start in range(0, len(q), block):
        scores: NDArray[Any] = q[start : start + block] @ c.T
        top = np.sort(np.argpartition(scores, len(c) - k, axis=1)[:, len(c) - k :], axis=1)
        near = np.take_along_axis(scores, top, 1)
        order = np.argsort(-near, axis=1, kind="stable")
        numbers[start : start + block] = np.take_along_axis(top, order, 1)
        values[start : start + block] = np.take_along_axis(near, order, 1)
    return numbers, values
