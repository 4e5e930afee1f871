"""Selectors that read a number: a threshold, the best share of the whole pool, a quota a concept, a random draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.duplicates.hashing import mix
from fabrica.curate.pools.pool import Block, Pool, uids_of
from fabrica.curate.pools.selector import Codes, Ready, Selector, numbers, texts
from fabrica.errors import UsageError


def by_score(score: str, *, fraction: float | None = None, threshold: float | None = None) -> Selector:
    """`TopFraction` or `Threshold`; `UsageError` for both or neither."""
    if (fraction is None) == (threshold is None):
        raise UsageError(f"{score}: fraction={fraction}, threshold={threshold}; give exactly one of them")
    return TopFraction(score, fraction) if fraction is not None else Threshold(score, float(threshold or 0.0))


@dataclass(frozen=True)
class Threshold(Selector):
    """Keeps rows whose `score` is `at` or more. Reasons: below_threshold, no_score."""

    score: str
    at: float
    name: str = field(default="threshold", init=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """The score."""
        return (self.score,)

    def ready(self, pool: Pool) -> Ready:
        """Nothing to know first."""
        return _at_least(self.score, self.at, "below_threshold")


@dataclass(frozen=True)
class TopFraction(Selector):
    """Keeps the best `fraction` of the whole pool: score >= t, where t stands at zero-based rank floor(fraction x n) of
    the n known scores in descending order (ties are in). 0 keeps nothing, 1 every row with a score. Exact in bounded
    memory: the rank is found by counting, 16 bits of the score a pass.

    Reasons: below_top_fraction, no_score.
    """

    score: str
    fraction: float
    name: str = field(default="top_fraction", init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise UsageError(f"fraction {self.fraction} of {self.score!r} is not within 0 and 1")

    @property
    def columns(self) -> tuple[str, ...]:
        """The score."""
        return (self.score,)

    def ready(self, pool: Pool) -> Ready:
        """Find the threshold over all shards."""

        def keys() -> Iterator[NDArray[np.uint64]]:
            for block in pool.blocks([self.score]):
                values = numbers(block, self.score)
                yield sortable(values[~np.isnan(values)])

        n = sum(map(len, keys()))
        rank = int(n * self.fraction)
        if self.fraction == 0 or not n:
            at = np.inf
        else:
            at = -np.inf if rank >= n else _number(ranked(keys, rank))
        made = _at_least(self.score, at, "below_top_fraction", strict=self.fraction == 0)
        unknown_ = float(len(pool) - n)
        return Ready(made.reasons, made.codes, {f"{self.score}: threshold": at, f"{self.score}: unknown": unknown_})


def _at_least(score: str, at: float, reason: str, *, strict: bool = False) -> Ready:
    def codes(block: Block) -> Codes:
        values = numbers(block, score)
        low = (values <= at) if strict else (values < at)
        return np.where(np.isnan(values), 2, low).astype(np.uint8)

    return Ready((reason, "no_score"), codes)


def sortable(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Unsigned keys in the order of the numbers (IEEE 754 bits; -0 equals 0)."""
    bits = (np.asarray(values, np.float64) + 0.0).view(np.uint64)
    top = np.uint64(1) << np.uint64(63)
    return np.where(bits & top, ~bits, bits | top)


def _number(key: int) -> float:
    top = 1 << 63
    bits = key ^ top if key & top else ~key & ((1 << 64) - 1)
    return float(np.uint64(bits).view(np.float64))


def ranked(keys: Callable[[], Iterable[NDArray[np.uint64]]], rank: int) -> int:
    """The key at a zero-based `rank` in descending order, by four passes of counting 16 bits each."""
    prefix, left = 0, rank
    for shift in (48, 32, 16, 0):
        counts = np.zeros(1 << 16, np.int64)
        for block in keys():
            here = block if shift == 48 else block[block >> np.uint64(shift + 16) == np.uint64(prefix)]
            counts += np.bincount(((here >> np.uint64(shift)) & np.uint64(0xFFFF)).astype(np.int64), minlength=1 << 16)
        above = np.cumsum(counts[::-1])
        at = int(np.searchsorted(above, left, "right"))
        left -= int(above[at - 1]) if at else 0
        prefix = prefix << 16 | (0xFFFF - at)
    return prefix


def _hashed(block: Block, seed: int) -> NDArray[np.uint64]:
    """(n,) of each uid a number that looks random and depends on uid and seed alone."""
    rows = uids_of(block)
    return mix(mix(rows["f0"] ^ mix(np.full(1, seed % (1 << 64), np.uint64))) ^ rows["f1"])


@dataclass(frozen=True)
class Random(Selector):
    """A control. `fraction` keeps each row by a hash of its uid (adding rows moves nobody); `count` keeps exactly so
    many (the lowest hashes), or all where the pool has fewer. Reason: random."""

    fraction: float | None = None
    count: int | None = None
    seed: int = 0
    name: str = field(default="random", init=False)

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.count is None):
            raise UsageError(f"Random: fraction={self.fraction}, count={self.count}; give exactly one of them")
        if (self.fraction is not None and not 0 <= self.fraction <= 1) or (self.count is not None and self.count < 0):
            raise UsageError(f"Random: fraction={self.fraction}, count={self.count}; wanted 0 to 1, or 0 or more")

    @property
    def columns(self) -> tuple[str, ...]:
        """None: the uid decides."""
        return ()

    def ready(self, pool: Pool) -> Ready:
        """Find the hash of rank `count`."""
        if self.count is None:
            below = int(float(self.fraction or 0) * 2**53)
            return Ready(
                ("random",), lambda b: (_hashed(b, self.seed) >> np.uint64(11) >= np.uint64(below)).astype(np.uint8)
            )
        if self.count == 0 or self.count >= len(pool):
            code = np.uint8(self.count == 0)
            return Ready(("random",), lambda b: np.full(len(b["uid"]), code, np.uint8))
        least = ranked(lambda: (_hashed(b, self.seed) for b in pool.blocks(["uid"])), self.count - 1)
        return Ready(("random",), lambda b: (_hashed(b, self.seed) < np.uint64(least)).astype(np.uint8))


@dataclass(frozen=True)
class Quota(Selector):
    """At most `most` rows of each value of column `by` (a concept): those with the highest `score`, or drawn by hash.
    Ties are broken by hash, so the cap is exact. Memory: `most` keys a concept. Reasons: over_quota, no_concept."""

    by: str
    most: int
    score: str | None = None
    seed: int = 0
    name: str = field(default="quota", init=False)

    def __post_init__(self) -> None:
        if self.most < 1:
            raise UsageError(f"Quota of {self.most} rows of each {self.by!r}; wanted 1 or more")

    @property
    def columns(self) -> tuple[str, ...]:
        """The concept, and the score."""
        return (self.by, self.score) if self.score else (self.by,)

    def _keys(self, block: Block) -> NDArray[np.uint64]:
        """(n, 2): score and hash; unknown scores last."""
        score = np.zeros(len(block["uid"]))
        if self.score:
            score = np.nan_to_num(numbers(block, self.score), nan=-np.inf)
        return np.stack([sortable(score), _hashed(block, self.seed)], 1)

    def ready(self, pool: Pool) -> Ready:
        """Of each concept the lowest key that is still in."""
        held: dict[str, NDArray[np.uint64]] = {}
        for block in pool.blocks(["uid", *self.columns]):
            keys = self._keys(block)
            for concept, rows in _by_value(texts(block, self.by)):
                every = np.concatenate([held.get(concept, keys[:0]), keys[rows]])
                held[concept] = every[np.lexsort((every[:, 1], every[:, 0]))[-self.most :]]
        least = {concept: keys[0] for concept, keys in held.items()}

        def codes(block: Block) -> Codes:
            keys, out = self._keys(block), np.full(len(block["uid"]), 2, np.uint8)
            for concept, rows in _by_value(texts(block, self.by)):
                bound, mine = least[concept], keys[rows]
                low = (mine[:, 0] < bound[0]) | ((mine[:, 0] == bound[0]) & (mine[:, 1] < bound[1]))
                out[rows] = low
            return out

        return Ready(("over_quota", "no_concept"), codes, {f"{self.by}: concepts": float(len(held))})


def _by_value(values: Sequence[str]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """(value, rows that have it) of each value but ""."""
    names, inverse = np.unique(np.asarray(values, object).astype(str), return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    cuts = np.searchsorted(inverse[order], np.arange(len(names) + 1))
    for k, name in enumerate(names.tolist()):
        if name:
            yield name, order[cuts[k] : cuts[k + 1]]
