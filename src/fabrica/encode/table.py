"""Tables to values beside flags that say which were measured (Symile's laboratory input: percentiles and flags)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode import Plain
from fabrica.errors import Refused, UsageError
from fabrica.types import Item, Record

_GRID = 101  # points of the stored distribution: every percentile


@dataclass(frozen=True, slots=True)
class TableEncode(Plain):
    """A table (columns,) with names -> (2 * len(columns),) float32: values, then flags (1 = measured).

    A value becomes (value - mean) / std, or, where `grid` holds each column's 0th..100th training percentile, its
    percentile in 0..1 (Saporta et al., arXiv 2411.01053). A column that is missing takes the training mean
    of its transformed value (0, or `centre`) and flag 0. Names of other columns are ignored. `flags` False leaves the
    flags away: (len(columns),).

    >>> from fabrica.types import Item, Origin
    >>> item = Item("table", np.array([140.0]), Origin("demo", "a", "", ""), names=("sodium",))
    >>> TableEncode(("sodium", "lactate"), (138.0, 1.5), (4.0, 1.0))(item, np.random.default_rng(0)).tolist()
    [0.5, 0.0, 1.0, 0.0]
    """

    columns: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    grid: tuple[tuple[float, ...], ...] = ()
    centre: tuple[float, ...] = ()  # mean percentile of the training part, with `grid`
    flags: bool = True

    def __post_init__(self) -> None:
        n = len(self.columns)
        if n == 0 or len(set(self.columns)) != n:
            raise UsageError("a table needs at least one column, each named once")
        if len(self.mean) != n or len(self.std) != n or len(self.grid) not in (0, n):
            raise UsageError(f"{n} columns but {len(self.mean)} means, {len(self.std)} stds, {len(self.grid)} grids")
        if len(self.centre) != len(self.grid) or not all(s > 0 for s in self.std):
            raise UsageError("a table's std is above 0, and `centre` goes with `grid`")

    @classmethod
    def fit(
        cls, records: Iterable[Record], roles: Sequence[str], *, columns: Sequence[str] | None = None,
        percentiles: bool = False, flags: bool = True,
    ) -> TableEncode:  # fmt: skip
        """From the training records: `columns` (default: every name met, sorted), their means, spreads, percentiles."""
        seen: dict[str, list[float]] = {c: [] for c in columns or ()}
        for record in records:
            for item in record.all(*roles):
                for name, value in _values(item).items():
                    if columns is None or name in seen:
                        seen.setdefault(name, []).append(value)
        names = tuple(columns or sorted(seen))
        empty = [n for n in names if not seen[n]]
        if not names or empty:
            raise UsageError(f"no value in roles {tuple(roles)} for column(s) {', '.join(map(repr, empty)) or 'any'}")
        values = [np.asarray(seen[n]) for n in names]
        spread = [float(v.std()) for v in values]
        grid, centre = [], []
        if percentiles:
            for v in values:
                points = np.percentile(v, np.linspace(0, 100, _GRID))
                grid.append(tuple(points.tolist()))
                centre.append(float(np.mean([_percentile(float(x), points) for x in v])))
        return cls(
            names, tuple(float(v.mean()) for v in values), tuple(s if s > 1e-12 else 1.0 for s in spread),
            tuple(grid), tuple(centre), flags,
        )  # fmt: skip

    @property
    def shape(self) -> tuple[int, ...]:
        """(2 * columns,), or (columns,) without flags."""
        return (len(self.columns) * (2 if self.flags else 1),)

    def __call__(self, item: Item, rng: np.random.Generator, /) -> NDArray[np.float32]:
        values = _values(item)
        out = np.zeros(self.shape, np.float32)
        n = len(self.columns)
        for i, name in enumerate(self.columns):
            if name not in values:
                out[i] = self.centre[i] if self.grid else 0.0
                continue
            value = values[name]
            out[i] = _percentile(value, self.grid[i]) if self.grid else (value - self.mean[i]) / self.std[i]
            if self.flags:
                out[n + i] = 1.0
        return out

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON."""
        return {"type": "table", **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TableEncode:
        """The inverse of `to_json`."""
        rest: dict[str, Any] = {
            k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in data.items() if k != "type"
        }
        rest["grid"] = tuple(tuple(g) for g in rest.get("grid", ()))
        return cls(**rest)


def _values(item: Item) -> dict[str, float]:
    array = item.array()
    if array.ndim != 1 or len(array) != len(item.names):
        raise Refused(
            "table_shape", f"table {item.origin.key!r} has shape {array.shape} and {len(item.names)} names; one a value"
        )
    return {n: float(v) for n, v in zip(item.names, array, strict=True) if np.isfinite(v)}


def _percentile(value: float, points: Sequence[float] | NDArray[np.float64]) -> float:
    """Mid-rank of a value among the stored percentiles, 0..1, linear between them."""
    grid = np.asarray(points)
    low, high = np.searchsorted(grid, value, "left"), np.searchsorted(grid, value, "right")
    if high > low:  # equal to one or several points: the middle of the run
        return float((low + high - 1) / 2 / (len(grid) - 1))
    if low == 0 or low == len(grid):
        return 0.0 if low == 0 else 1.0
    return float((low - 1 + (value - grid[low - 1]) / (grid[low] - grid[low - 1])) / (len(grid) - 1))
