"""Tables whose columns fall into named groups (genes by function): standardised columns, and the groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode import Plain
from fabrica.encode.table import TableEncode
from fabrica.errors import Refused, UsageError
from fabrica.types import Item, Record


@dataclass(frozen=True, slots=True)
class GroupEncode(Plain):
    """A table (columns,) with names -> (C,) float32, each column standardised by the training part (`log`: of
    sign(v) log(1 + |v|)); a column that a table lacks is 0, the training mean. `groups`: name -> columns of the result,
    which may stand in several.
    """

    table: TableEncode
    groups: tuple[tuple[str, tuple[int, ...]], ...]
    log: bool = False

    @classmethod
    def fit(
        cls, records: Iterable[Record], roles: Sequence[str], groups: Mapping[str, Sequence[str]], *, log: bool = False
    ) -> GroupEncode:
        """From the training records. A group's members are columns or their genes: "TP53" takes "TP53", "TP53_cnv" and
        "TP53_rnaseq". A constant column stays 0. A group without a column is an error."""
        known = list(records)
        names = sorted({name for r in known for item in r.all(*roles) for name in item.names})
        by_gene: dict[str, list[str]] = {}
        for name in names:
            for key in {name, name.rpartition("_")[0] or name}:
                by_gene.setdefault(key, []).append(name)
        found = {group: sorted({c for g in members for c in by_gene.get(g, ())}) for group, members in groups.items()}
        empty = [group for group, columns in found.items() if not columns]
        if empty or not found:
            raise UsageError(f"no column of {tuple(roles)} belongs to group {', '.join(map(repr, empty)) or 'any'}")
        columns = tuple(sorted({c for members in found.values() for c in members}))
        at = {c: i for i, c in enumerate(columns)}
        logged = (r.updated(items={k: tuple(_log(i, log) for i in v) for k, v in r.items.items()}) for r in known)
        table = TableEncode.fit(logged, roles, columns=columns, flags=False)
        return cls(table, tuple((g, tuple(at[c] for c in members)) for g, members in found.items()), log)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C,)."""
        return self.table.shape

    def __call__(self, item: Item, rng: np.random.Generator, /) -> NDArray[np.float32]:
        bad = np.flatnonzero(~np.isfinite(np.asarray(item.array(), np.float64)))
        if len(bad):
            name = item.names[bad[0]] if bad[0] < len(item.names) else bad[0]
            raise Refused(
                "gene_not_finite",
                f"column {name!r} of {item.origin.key!r} is NaN or infinite; leave out what is missing",
            )
        return self.table(_log(item, self.log), rng)

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON."""
        groups = [[name, list(members)] for name, members in self.groups]
        return {"type": "groups", "table": self.table.to_json(), "groups": groups, "log": self.log}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GroupEncode:
        """The inverse of `to_json`."""
        groups = tuple((name, tuple(members)) for name, members in data["groups"])
        return cls(TableEncode.from_json(data["table"]), groups, data["log"])


def _log(item: Item, log: bool) -> Item:
    if not log or not isinstance(item.value, np.ndarray):
        return item
    values = item.value.astype(np.float64)
    return Item(item.kind, np.sign(values) * np.log1p(np.abs(values)), item.origin, item.hours, names=item.names)


def groups_in(records: Iterable[Record], roles: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Groups by the letters that columns begin with ("SUPP3_rnaseq" -> "SUPP"), for tables without a list of groups."""
    found: dict[str, set[str]] = {}
    for record in records:
        for item in record.all(*roles):
            for name in item.names:
                found.setdefault(name.partition("_")[0].rstrip("0123456789") or name, set()).add(name)
    return {group: tuple(sorted(members)) for group, members in sorted(found.items())}
