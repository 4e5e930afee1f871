"""What a selector is: it reads columns of a pool and says which rows to keep; and, or, not of selectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.pools.pool import Block, Pool
from fabrica.curate.pools.subset import Subset
from fabrica.errors import UsageError

Codes = NDArray[np.uint8]  # (n,) of a block: 0 = keep, k = left out for the k-th reason


@dataclass(frozen=True, slots=True)
class Ready:
    """A selector that has seen the pool: `codes(block)` says of each row 0 = keep, or k = left out for `reasons[k-1]`;
    `found` holds what was computed on the way (the threshold of a fraction ...)."""

    reasons: tuple[str, ...]
    codes: Callable[[Block], Codes]
    found: Mapping[str, float] = field(default_factory=dict)


class Selector(ABC):
    """Decides which rows to keep. A part that needs the whole pool (a rank, a quota, clusters) reads it in `ready`."""

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """The pool columns that it reads."""

    @abstractmethod
    def ready(self, pool: Pool) -> Ready:
        """Read what must be known of the whole pool first."""

    def need(self, pool: Pool) -> None:
        """`UsageError` where the pool lacks a column that it reads."""
        pool.need(self.columns, f"{getattr(self, 'name', 'the selector')} reads it")

    def select(self, pool: Pool, into: str | Path | None = None) -> Subset:
        """The uids that are kept; see `choose`."""
        from fabrica.curate.pools.select import choose

        return choose(self, pool, into).subset

    def __and__(self, other: Selector) -> Selector:
        return And((self, other))

    def __or__(self, other: Selector) -> Selector:
        return Or((self, other))

    def __invert__(self) -> Selector:
        return Not(self)


# ---------------------------------------------------------------- columns of a block


def numbers(block: Block, name: str) -> NDArray[np.float64]:
    """(n,) a numeric column, NaN = unknown; `UsageError` where it holds text or features."""
    column = np.asarray(block[name])
    if column.dtype == object:
        if any(v for v in column.tolist()):
            raise UsageError(f"column {name!r} holds text; wanted numbers (a score)")
        return np.full(len(column), np.nan)
    if column.ndim != 1:
        raise UsageError(f"column {name!r} holds features of shape {column.shape[1:]}; wanted numbers (a score)")
    return column.astype(np.float64)


def texts(block: Block, name: str) -> list[str]:
    """A text column; "" = unknown."""
    column = np.asarray(block[name])
    return [str(v) for v in column.tolist()] if column.dtype == object else ["" if v != v else f"{v:g}" for v in column]


def vectors(block: Block, name: str) -> NDArray[np.float32]:
    """(n, d) unit rows of a feature column; a row that is unknown or zero is NaN."""
    column = np.asarray(block[name])
    if column.ndim == 1:
        if column.dtype == object or not np.isnan(column).all():
            raise UsageError(f"column {name!r} holds no features; wanted a vector a row (see the step Features)")
        return np.full((len(column), 1), np.nan, np.float32)
    rows = column.astype(np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, length, out=np.full_like(rows, np.nan), where=length > 0))


# ---------------------------------------------------------------- algebra


@dataclass(frozen=True)
class And(Selector):
    """Keeps what every part keeps; the reason is that of the first part that does not."""

    parts: tuple[Selector, ...]
    name: str = field(default="and", init=False)

    def need(self, pool: Pool) -> None:
        """Each part says what it lacks."""
        for part in self.parts:
            part.need(pool)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of all parts."""
        return _columns(self.parts)

    def ready(self, pool: Pool) -> Ready:
        """All parts see the whole pool: a fraction is one of the pool, not of what another part keeps."""
        return _joined(self.parts, pool, every=True)


@dataclass(frozen=True)
class Or(Selector):
    """Keeps what any part keeps; the reason is that of the last part."""

    parts: tuple[Selector, ...]
    name: str = field(default="or", init=False)

    def need(self, pool: Pool) -> None:
        """Each part says what it lacks."""
        for part in self.parts:
            part.need(pool)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of all parts."""
        return _columns(self.parts)

    def ready(self, pool: Pool) -> Ready:
        """All parts see the whole pool."""
        return _joined(self.parts, pool, every=False)


@dataclass(frozen=True)
class Not(Selector):
    """Keeps what `part` does not, rows without a score among them (reason "not_NAME")."""

    part: Selector
    name: str = field(default="not", init=False)

    def need(self, pool: Pool) -> None:
        """The part says what it lacks."""
        self.part.need(pool)

    @property
    def columns(self) -> tuple[str, ...]:
        """Those of the part."""
        return self.part.columns

    def ready(self, pool: Pool) -> Ready:
        """The part sees the pool."""
        inner = self.part.ready(pool)
        reason = f"not_{getattr(self.part, 'name', 'selected')}"
        return Ready((reason,), lambda block: (inner.codes(block) == 0).astype(np.uint8), inner.found)


def _columns(parts: Sequence[Selector]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(c for part in parts for c in part.columns))


def _joined(parts: Sequence[Selector], pool: Pool, *, every: bool) -> Ready:
    if not parts:
        raise UsageError(f"{'And' if every else 'Or'} of no selectors; give at least one")
    inner = [part.ready(pool) for part in parts]
    reasons = tuple(r for one in inner for r in one.reasons)
    if len(reasons) > 255:
        raise UsageError(f"a selector of {len(parts)} parts has {len(reasons)} reasons; 255 at most")
    starts = np.cumsum([0, *(len(one.reasons) for one in inner[:-1])])

    def codes(block: Block) -> Codes:
        out = np.zeros(len(block["uid"]), np.uint8)
        kept = np.zeros(len(out), bool)
        for one, start in zip(inner, starts.tolist(), strict=True):
            found = one.codes(block)
            moved = np.where(found > 0, found + start, 0).astype(np.uint8)
            kept |= found == 0
            out = np.where(out > 0, out, moved) if every else moved
        return out if every else np.where(kept, 0, out).astype(np.uint8)

    return Ready(reasons, codes, {k: v for one in inner for k, v in one.found.items()})
