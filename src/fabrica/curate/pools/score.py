"""Steps that write what selectors read: scores as labels "score:NAME", features as items "features/NAME"."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from fabrica.errors import UsageError
from fabrica.types import Drop, Embedder, Item, Record, Scorer

PREFIX = "score:"
FEATURES = "features/"


class Score:
    """Writes each scorer's numbers as labels "score:NAME". It drops nothing: deciding is a selector's work.

    A number that cannot be given (NaN) is no label; a selector counts the row as `no_score`. Two scorers may not write
    one name.
    """

    name = "score"
    version = "1"

    def __init__(self, *scorers: Scorer) -> None:
        if not scorers:
            raise UsageError("Score: no scorer given; give at least one")
        self.scorers = scorers

    def params(self) -> dict[str, Any]:
        """What identifies the step: its scorers by name, which says model and version."""
        return {"scorers": [s.name for s in self.scorers]}

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """The same records with more labels."""
        for record in records:
            found: dict[str, float] = {}
            for scorer in self.scorers:
                new = {PREFIX + k: float(v) for k, v in scorer(record).items() if not math.isnan(v)}
                if twice := sorted(found.keys() & new.keys()):
                    raise UsageError(f"two scorers write {', '.join(twice)}; the second is {scorer.name!r}")
                found |= new
            yield replace(record, labels={**record.labels, **found})


class Features:
    """Writes an embedder's vector of the first item of `roles` as a table item "features/NAME", for `ClusterMatch`.

    A record without such an item passes unchanged.
    """

    name = "features"
    version = "1"

    def __init__(self, embed: Embedder, *, roles: Sequence[str] = ("image",), into: str = "", batch: int = 64) -> None:
        self.embed, self.roles, self.into, self.batch = embed, tuple(roles), into or embed.name, batch

    def params(self) -> Mapping[str, Any]:
        """What identifies the step."""
        return {"embedder": self.embed.name, "roles": self.roles, "into": self.into}

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """The same records with one more item."""
        stream = iter(records)
        while part := list(islice(stream, self.batch)):
            items = [r.first(*self.roles) for r in part]
            known = [i for i in items if i is not None]
            rows = iter(self.embed(known) if known else ())
            for record, item in zip(part, items, strict=True):
                yield record if item is None else self._with(record, item, next(rows))

    def _with(self, record: Record, item: Item, row: Any) -> Record:
        origin = replace(item.origin.then(f"features:{self.embed.name}"), by="model")
        return replace(record, items={**record.items, FEATURES + self.into: (Item("table", row, origin),)})
