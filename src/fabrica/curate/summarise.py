"""Timed events to tables: for each field the mean and the last value (or others) of each of its codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from fabrica.errors import UsageError, unknown
from fabrica.types import Absent, Drop, Item, Origin, Record

STATISTICS: Mapping[str, Callable[[list[float]], float]] = {  # of values in order of time
    "mean": lambda v: float(np.mean(v)),
    "last": lambda v: v[-1],
    "first": lambda v: v[0],
    "min": min,
    "max": max,
    "count": lambda v: float(len(v)),
}


@dataclass(kw_only=True)
class Summarise:
    """For each field, an item of kind "table" under that role: `statistics` of each of its codes ("HR.mean") over the
    events of `roles` from `start` to `stop` hours, and those without a time. A code that was never measured is no
    column of the record; a field of which nothing was measured is absent (NOT_DONE). `keep` keeps the events.
    """

    fields: Mapping[str, tuple[str, ...]]
    statistics: tuple[str, ...] = ("mean", "last")
    roles: tuple[str, ...] = ("events",)
    start: float = 0.0
    stop: float = 48.0
    keep: bool = True
    name: str = field(default="summarise", init=False)
    version: str = field(default="1", init=False)

    def __post_init__(self) -> None:
        for name in self.statistics:
            if name not in STATISTICS:
                raise unknown("statistic", name, STATISTICS)
        if not self.fields or not self.statistics or not self.start < self.stop:
            raise UsageError("summarise wants fields with their codes, statistics, and start < stop in hours")
        if taken := sorted(set(self.fields) & set(self.roles)):
            raise UsageError(f"field {taken[0]!r} is the role that the events stand in; give it another name")

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records with the tables."""
        for record in records:
            yield self._one(record)

    def _one(self, record: Record) -> Record:
        values: dict[str, list[float]] = {}
        origin = Origin("", "", "", "", "source")
        for item in sorted(record.all(*self.roles), key=_hours):
            origin = item.origin
            if item.kind == "series" and (item.hours is None or self.start <= item.hours <= self.stop):
                for code, value in zip(item.names, item.array().tolist(), strict=True):
                    values.setdefault(code, []).append(float(value))
        made = {name: (self._table(codes, values, origin),) for name, codes in self.fields.items()}
        kept = {role: items for role, items in record.items.items() if self.keep or role not in self.roles}
        return record.updated(items={**kept, **made})

    def _table(self, codes: Iterable[str], values: Mapping[str, list[float]], origin: Origin) -> Item:
        found = [(f"{c}.{s}", STATISTICS[s](values[c])) for c in codes if c in values for s in self.statistics]
        said = origin.then(f"summarise {self.start:g}-{self.stop:g} h")
        if not found:
            return Item("table", Absent.NOT_DONE, said)
        return Item("table", np.array([v for _, v in found], np.float32), said, names=tuple(n for n, _ in found))


def _hours(item: Item) -> float:
    return float("-inf") if item.hours is None else item.hours
