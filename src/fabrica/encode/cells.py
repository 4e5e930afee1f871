"""Tables of numbers and categories with holes, cell by cell: what a transformer over columns reads."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fabrica.encode import Plain
from fabrica.encode.table import _values
from fabrica.errors import Refused, UsageError, unknown
from fabrica.types import Item, Record

Unseen = Literal["missing", "error"]
_GRID = 21  # points of the stored distribution of a number


@dataclass(frozen=True, slots=True)
class Column:
    """One column. A number has `mean` and `std` (training part, in `unit`) and `grid`, its percentiles in steps of 5;
    a category has `categories`, the codes that the training part knows in rising order, and their `share`."""

    name: str
    kind: Literal["number", "category"]
    mean: float = 0.0
    std: float = 1.0
    unit: str = ""
    grid: tuple[float, ...] = ()
    categories: tuple[float, ...] = ()
    share: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("number", "category"):
            raise unknown("kind of column", self.kind, ("number", "category"))
        if self.kind == "category" and (not self.categories or len(self.categories) != len(self.share)):
            raise UsageError(f"category column {self.name!r}: wanted its categories, with a share each")
        if self.kind == "number" and not self.std > 0:
            raise UsageError(f"number column {self.name!r}: std {self.std}; wanted a number above 0")


@dataclass(frozen=True, slots=True)
class TableSchema:
    """The columns of a table, in order. `fit` reads them off the training part alone."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names = [c.name for c in self.columns]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"a table needs at least one column, each named once; got {names}")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the columns."""
        return tuple(c.name for c in self.columns)

    @classmethod
    def fit(
        cls, records: Iterable[Record], roles: Sequence[str], *, categories: Sequence[str] = (),
        columns: Sequence[str] | None = None,
    ) -> TableSchema:  # fmt: skip
        """From the training records: `columns` (default: every name met, sorted), of which `categories` hold codes.

        `UsageError` for a column without any value, and for a category column with a value that is no whole number;
        a constant column is warned of.
        """
        seen: dict[str, list[float]] = {c: [] for c in columns or ()}
        units: dict[str, str] = {}
        for record in records:
            for item in record.all(*roles):
                for name, value in _values(item).items():
                    if columns is None or name in seen:
                        seen.setdefault(name, []).append(value)
                        units.setdefault(name, item.unit or "")
        names = tuple(columns or sorted(seen))
        for name in categories:
            if name not in names:
                raise unknown("category column", name, names)
        if empty := [n for n in names if not seen[n]]:
            raise UsageError(f"no value in roles {tuple(roles)} for column(s) {', '.join(map(repr, empty))}")
        if not names:
            raise UsageError(f"no table in roles {tuple(roles)}")
        return cls(tuple(_column(n, np.asarray(seen[n]), n in categories, units[n]) for n in names))

    def permuted(self, order: Sequence[int]) -> TableSchema:
        """The same columns in another order."""
        return TableSchema(tuple(self.columns[i] for i in order))

    def to_json(self) -> list[dict[str, Any]]:
        """Every column as plain JSON."""
        return [{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(c).items()} for c in self.columns]

    @classmethod
    def from_json(cls, data: Sequence[Mapping[str, Any]]) -> TableSchema:
        """The inverse of `to_json`."""
        made = []
        for column in data:
            plain: dict[str, Any] = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in column.items()}
            made.append(Column(**plain))
        return cls(tuple(made))


@dataclass(frozen=True, slots=True)
class CellsEncode(Plain):
    """A table (columns,) with names -> (2 C,) float32: C cells, then C flags (1 = there).

    A number becomes (value - mean) / std, a category its place among the schema's categories. A cell that is missing
    is 0 with flag 0. A category that the training part never had is missing (`unseen` "missing"; `unseen_in` counts
    them) or an error. Columns that the schema lacks are ignored.

    >>> from fabrica.types import Item, Origin
    >>> schema = TableSchema((Column("age", "number", 50.0, 10.0), Column("sex", "category", categories=(1.0, 2.0),
    ...                                                                   share=(0.5, 0.5))))
    >>> item = Item("table", np.array([2.0]), Origin("demo", "a", "", ""), names=("sex",))
    >>> CellsEncode(schema)(item, np.random.default_rng(0)).tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    schema: TableSchema
    unseen: Unseen = "missing"

    def __post_init__(self) -> None:
        if self.unseen not in get_args(Unseen):
            raise unknown("treatment of an unseen category", self.unseen, get_args(Unseen))

    @property
    def shape(self) -> tuple[int, ...]:
        """(2 * columns,)."""
        return (2 * len(self.schema.columns),)

    def __call__(self, item: Item, rng: np.random.Generator, /) -> NDArray[np.float32]:
        values, n = _values(item), len(self.schema.columns)
        out = np.zeros(2 * n, np.float32)
        for i, column in enumerate(self.schema.columns):
            if column.name not in values:
                continue
            cell = _cell(column, values[column.name])
            if cell is None and self.unseen == "error":
                raise Refused(
                    "category_unseen",
                    f"column {column.name!r} holds a category that the training part never had; "
                    f"known: {', '.join(f'{c:g}' for c in column.categories)}",
                )
            if cell is not None:
                out[i], out[n + i] = cell, 1.0
        return out

    def unseen_in(self, records: Iterable[Record], roles: Sequence[str]) -> dict[str, int]:
        """Category column -> values in these records that the training part never had (columns with none left out)."""
        found: dict[str, int] = {}
        categories = {c.name: c for c in self.schema.columns if c.kind == "category"}
        for record in records:
            for item in record.all(*roles):
                for name, value in _values(item).items():
                    if name in categories and _cell(categories[name], value) is None:
                        found[name] = found.get(name, 0) + 1
        return found

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON."""
        return {"type": "cells", "schema": self.schema.to_json(), "unseen": self.unseen}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CellsEncode:
        """The inverse of `to_json`."""
        return cls(TableSchema.from_json(data["schema"]), data["unseen"])


def _column(name: str, values: NDArray[np.float64], category: bool, unit: str) -> Column:
    if values.min() == values.max():
        warnings.warn(f"column {name!r} is constant in the training part: it can teach nothing", stacklevel=3)
    if category:
        for value in values:
            _whole(name, float(value))
        codes, counts = np.unique(values, return_counts=True)
        return Column(name, "category", categories=tuple(codes.tolist()), share=tuple((counts / len(values)).tolist()))
    spread = float(values.std())
    grid = tuple(np.percentile(values, np.linspace(0, 100, _GRID)).tolist())
    return Column(name, "number", float(values.mean()), spread if spread > 1e-12 else 1.0, unit, grid)


def _cell(column: Column, value: float) -> float | None:
    """The encoded cell; None for an unseen category."""
    if column.kind == "number":
        return (value - column.mean) / column.std
    _whole(column.name, value)
    return float(column.categories.index(value)) if value in column.categories else None


def _whole(name: str, value: float) -> None:
    if not math.isfinite(value) or value != round(value):
        raise Refused("category_number", f"category column {name!r} holds a number that is no code (not whole)")
