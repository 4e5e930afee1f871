"""What a score is worth when things are missing: simulated absences, a score a subset of fields, the presence leak.

A simulator says of n rows and named columns (fields of a record, or columns of a table) what is kept: `Removal.keep`.
`remove` and `remove_cells` carry that out on records; nothing is imputed, a removed item is `Absent.WITHHELD`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError, unknown
from fabrica.evaluate import bootstrap
from fabrica.types import Absent, Item, Record

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Removal:
    """`keep` (n, columns) bool, False = removed; `columns` their names; `rates`: what share of each was removed."""

    keep: Bools
    columns: tuple[str, ...]

    @property
    def rates(self) -> dict[str, float]:
        """Column -> realised share removed."""
        return {c: float(1 - self.keep[:, i].mean()) for i, c in enumerate(self.columns)}

    def permuted(self, seed: int) -> Removal:
        """The same patterns given to other rows: presence that knows nothing of the row."""
        return replace(self, keep=self.keep[np.random.default_rng([seed, 7]).permutation(len(self.keep))])


class Simulator(Protocol):
    """(columns, n, seed) -> what is kept. The same arguments give the same removal."""

    def __call__(self, columns: Sequence[str], n: int, seed: int, /) -> Removal: ...


@dataclass(frozen=True, slots=True)
class Mcar:
    """Completely at random: each cell of `only` (default all columns) is removed with probability `rate`. `leave` cells
    at least stay in each row.

    >>> Mcar(0.5)(("a", "b"), 4, 0).keep.shape
    (4, 2)
    """

    rate: float
    only: tuple[str, ...] = ()
    leave: int = 0

    def __call__(self, columns: Sequence[str], n: int, seed: int, /) -> Removal:
        _rate(self.rate)
        draw = np.random.default_rng([seed, 1]).random((n, len(columns)))
        keep = (draw >= self.rate) | ~_among(columns, self.only)
        if self.leave:
            order = np.argsort(-draw, axis=1)[:, : self.leave]  # the cells that came nearest to staying
            keep[np.arange(n)[:, None], order] = True
        return Removal(keep, tuple(columns))


@dataclass(frozen=True, slots=True)
class ByValue:
    """With a probability that depends on `value` (n,): rows in the `top` share of it lose cells of `only` with
    probability `high`, the others with `low`. At random (MAR) where `value` is observed, not at random where it is the
    removed column's own. Rows whose value is NaN count as low.
    """

    value: Floats
    only: tuple[str, ...]
    high: float
    low: float = 0.0
    top: float = 0.5

    def __call__(self, columns: Sequence[str], n: int, seed: int, /) -> Removal:
        _rate(self.high, self.low, self.top)
        _rows(self.value, n, "value")
        known = self.value[np.isfinite(self.value)]
        above = self.value > np.quantile(known, 1 - self.top) if len(known) else np.zeros(n, bool)
        return _by_row(np.where(above, self.high, self.low), columns, self.only, seed)


@dataclass(frozen=True, slots=True)
class ByClass:
    """Not at random by the label: rows of class c lose all of `only` together with probability `rates[c]`.

    MultiModN's protocol takes the image from a share of the positives in training and, `flip`ped, from the negatives in
    the test (arXiv 2309.14118, section 5).

    >>> rule = ByClass(np.array([0, 1, 1]), ("image",), {1: 1.0})
    >>> rule(("image", "labs"), 3, 0).keep[:, 0].tolist(), rule.flip()(("image", "labs"), 3, 0).keep[:, 0].tolist()
    ([True, False, False], [False, True, True])
    """

    label: NDArray[np.int64]
    only: tuple[str, ...]
    rates: Mapping[int, float]

    def __call__(self, columns: Sequence[str], n: int, seed: int, /) -> Removal:
        _rate(*self.rates.values())
        _rows(self.label, n, "label")
        rate = np.zeros(n)
        for one, share in self.rates.items():
            rate[self.label == one] = share
        return _by_row(rate, columns, self.only, seed)

    def flip(self) -> ByClass:
        """The same rule with the rates of the two classes exchanged."""
        if not set(self.rates) <= {0, 1}:
            raise UsageError(f"only a rule for classes 0 and 1 can be flipped; this one has {sorted(self.rates)}")
        return replace(self, rates={1 - one: share for one, share in self.rates.items()})


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole columns, the same in every row (and, with one seed, in every split): a share `rate` of `order`, from its
    front; without `order` a random share. TIP's protocols: random features, most and least important first
    (arXiv 2407.07582, section 4)."""

    rate: float
    order: tuple[str, ...] = ()

    def __call__(self, columns: Sequence[str], n: int, seed: int, /) -> Removal:
        _rate(self.rate)
        among = list(self.order) or [columns[i] for i in np.random.default_rng([seed, 2]).permutation(len(columns))]
        _among(columns, tuple(among))
        gone = set(among[: round(self.rate * len(columns))])
        keep = np.tile(np.array([c not in gone for c in columns]), (n, 1))
        return Removal(keep, tuple(columns))


@dataclass(frozen=True, slots=True)
class Blocks:
    """Patterns of columns that go together: pattern i (a tuple of columns) with probability `shares[i]`, else none."""

    patterns: tuple[tuple[str, ...], ...]
    shares: tuple[float, ...]

    def __call__(self, columns: Sequence[str], n: int, seed: int, /) -> Removal:
        if len(self.patterns) != len(self.shares) or sum(self.shares) > 1 + 1e-9:
            raise UsageError(f"{len(self.patterns)} patterns with shares {self.shares}: one each, at most 1 together")
        _rate(*self.shares)
        drawn = np.searchsorted(np.cumsum(self.shares), np.random.default_rng([seed, 3]).random(n), side="right")
        keep = np.ones((n, len(columns)), bool)
        for i, pattern in enumerate(self.patterns):
            keep[np.ix_(drawn == i, _among(columns, pattern))] = False
        return Removal(keep, tuple(columns))


def _by_row(rate: Floats, columns: Sequence[str], only: Sequence[str], seed: int) -> Removal:
    gone = np.random.default_rng([seed, 4]).random(len(rate)) < rate
    return Removal(~(gone[:, None] & _among(columns, only)), tuple(columns))


def _among(columns: Sequence[str], only: Sequence[str]) -> Bools:
    for name in only:
        if name not in columns:
            raise unknown("column", name, columns)
    return np.array([not only or c in only for c in columns])


def _rate(*rates: float) -> None:
    if any(not 0 <= rate <= 1 for rate in rates):
        raise UsageError(f"rates {rates}: wanted shares from 0 to 1")


def _rows(column: NDArray[np.generic], n: int, what: str) -> None:
    if len(column) != n:
        raise UsageError(f"{what} has {len(column)} rows, there are {n}")


# ---------------------------------------------------------------- on records


def remove(records: Sequence[Record], removal: Removal) -> list[Record]:
    """Records without the items of the roles that a removal takes ("image" takes "image/frontal")."""
    _rows(removal.keep, len(records), "the removal")
    made = []
    for record, keep in zip(records, removal.keep, strict=True):
        gone = [c for c, k in zip(removal.columns, keep, strict=True) if not k]
        items = {
            role: tuple(replace(i, value=Absent.WITHHELD) for i in held) if _under(role, gone) else held
            for role, held in record.items.items()
        }
        made.append(record.updated(items=items) if gone else record)
    return made


def _under(role: str, gone: Sequence[str]) -> bool:
    return any(role == name or role.startswith(name + "/") for name in gone)


def remove_cells(records: Sequence[Record], role: str, removal: Removal) -> list[Record]:
    """Records whose tables of `role` lack the columns that a removal takes: name and value are left out. A table that
    loses all is absent."""
    _rows(removal.keep, len(records), "the removal")
    made = []
    for record, keep in zip(records, removal.keep, strict=True):
        gone = {c for c, k in zip(removal.columns, keep, strict=True) if not k}
        items = tuple(_less(item, gone) for item in record.items.get(role, ()))
        made.append(record.updated(items={**record.items, role: items}) if gone and items else record)
    return made


def _less(item: Item, gone: set[str]) -> Item:
    if not item.present:
        return item
    keep = [i for i, name in enumerate(item.names) if name not in gone]
    if not keep:
        return replace(item, value=Absent.WITHHELD, names=())
    return replace(item, value=item.array()[keep], names=tuple(item.names[i] for i in keep))


# ---------------------------------------------------------------- scores


@dataclass(frozen=True, slots=True)
class Cell:
    """One score: what was there (`present` fields or a `rate` of cells), its value with the interval by subject."""

    present: tuple[str, ...]
    value: float
    low: float
    high: float
    n: int
    rate: float = 0.0
    realised: Mapping[str, float] = field(default_factory=dict)


Answer = Callable[[Sequence[Record]], NDArray[np.floating]]  # records -> scores (n,)


def subsets(names: Sequence[str], *, most: int = 6, sample: int = 64, seed: int = 0) -> list[tuple[str, ...]]:
    """All subsets of up to `most` names, the whole first, by size; of more names each one alone, each one left out,
    and a sample of the others.

    >>> subsets(("a", "b"))
    [('a', 'b'), ('a',), ('b',), ()]
    """
    names = tuple(names)
    if len(names) <= most:
        return [s for k in range(len(names), -1, -1) for s in combinations(names, k)]
    found = {names: None, **{tuple(n for n in names if n != out): None for out in names}}
    rng = np.random.default_rng([seed, 5])
    while len(found) < sample:
        found.setdefault(tuple(n for n, k in zip(names, rng.random(len(names)) < 0.5, strict=True) if k))
    found |= {(n,): None for n in names} | {(): None}
    return sorted(found, key=lambda s: -len(s))


def subset_grid(
    answer: Answer, records: Sequence[Record], roles: Sequence[str], metric: bootstrap.Weighted,
    truth: NDArray[np.floating], *, count: int = bootstrap.RESAMPLES,
) -> list[Cell]:  # fmt: skip
    """The score with each subset of `roles` present, on records that keep nothing else of them.

    `metric` reads columns "truth" and "score" (see `bootstrap`); rows whose truth is NaN do not count.
    """
    made = []
    for present in subsets(roles):
        gone = np.tile(np.array([role in present for role in roles]), (len(records), 1))
        left = remove(records, Removal(gone, tuple(roles)))
        made.append(_cell(answer(left), left, truth, metric, count, present=present))
    return made


def rate_curve(
    answer: Answer, records: Sequence[Record], make: Callable[[float], Callable[[Sequence[Record]], list[Record]]],
    rates: Sequence[float], metric: bootstrap.Weighted, truth: NDArray[np.floating], *,
    count: int = bootstrap.RESAMPLES,
) -> list[Cell]:  # fmt: skip
    """The score at each rate of missing; `make(rate)` takes things from records."""
    made = []
    for rate in rates:
        left = make(rate)(records)
        made.append(_cell(answer(left), left, truth, metric, count, rate=rate))
    return made


def area(cells: Sequence[Cell]) -> float:
    """Area under score against rate, divided by the width of the rates: a mean score.

    >>> area([Cell((), 0.9, 0, 1, 1, 0.0), Cell((), 0.7, 0, 1, 1, 1.0)])
    0.8
    """
    rates = np.array([c.rate for c in cells])
    if len(rates) < 2 or (np.diff(rates) <= 0).any():
        raise UsageError(f"rates {rates.tolist()}: wanted at least two, rising")
    return float(np.trapezoid([c.value for c in cells], rates) / (rates[-1] - rates[0]))


def presence_leak(
    answer: Answer, records: Sequence[Record], removal: Removal, metric: bootstrap.Weighted,
    truth: NDArray[np.floating], *, seed: int = 0, count: int = bootstrap.RESAMPLES,
) -> bootstrap.Interval:  # fmt: skip
    """How much of a score is presence itself: score under the removal minus score where the same patterns are given to
    other rows. 0 within its interval: what is missing says nothing that the model uses."""
    as_is, other = answer(remove(records, removal)), answer(remove(records, removal.permuted(seed)))
    known = np.isfinite(truth)
    rows = [{"truth": truth[known], "score": np.asarray(s)[known]} for s in (as_is, other)]
    subjects = np.array([r.subject for r in records])[known]
    return bootstrap.paired(metric, rows[0], rows[1], subjects, count=count, seed=seed)


def _cell(
    score: NDArray[np.floating], records: Iterable[Record], truth: NDArray[np.floating], metric: bootstrap.Weighted,
    count: int, *, present: tuple[str, ...] = (), rate: float = 0.0,
) -> Cell:  # fmt: skip
    known = np.isfinite(truth)
    subjects = np.array([r.subject for r in records])[known]
    columns = {"truth": truth[known], "score": np.asarray(score)[known]}
    found = bootstrap.interval(metric, columns, subjects, count=count)
    return Cell(present, found.value, found.low, found.high, found.n, rate)
