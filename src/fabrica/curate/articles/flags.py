"""Marks identifiers that survive in published texts: nothing is changed, a reader is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fabrica.errors import UsageError, unknown
from fabrica.text import identifiers
from fabrica.types import Drop, Record, Region


@dataclass(kw_only=True)
class FlagIdentifiers:
    """Names and dates (or other `kinds` of `text.identifiers.KINDS`) in the texts of `roles` become spans
    "identifier/KIND", and the kinds stand in `groups["identifiers"]` ("date,name"), so that they are counted on cards.

    A published case report may name a patient all the same. Nothing is removed or dropped: `curate.deid` does that.
    """

    roles: Sequence[str] = ("note",)
    kinds: Sequence[str] = ("name", "date")
    name: str = field(default="flag_identifiers", init=False)
    version: str = field(default=f"1.{identifiers.VERSION}", init=False)

    def __post_init__(self) -> None:
        if isinstance(self.roles, str) or isinstance(self.kinds, str):
            raise UsageError(f"roles={self.roles!r}, kinds={self.kinds!r}: wanted lists")
        for kind in self.kinds:
            if kind not in identifiers.KINDS:
                raise unknown("kind of identifier", kind, identifiers.KINDS)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """All records, marked where something was found."""
        for record in records:
            found = list(self._spans(record))
            if found:
                kinds = ",".join(sorted({region.label.split("/")[1] for region in found}))
                groups = {**record.groups, "identifiers": kinds}
                record = replace(record, groups=groups, regions=(*record.regions, *found))
            yield record

    def _spans(self, record: Record) -> Iterator[Region]:
        for role in self.roles:
            for index, item in enumerate(record.items.get(role, ())):
                if item.kind != "text" or not item.present:
                    continue
                for span in identifiers.find(item.text()):
                    if span.kind in self.kinds:
                        place = np.array([span.start, span.end])
                        origin = item.origin.then(self.name)
                        yield Region(role, "span", place, f"identifier/{span.kind}", origin, index)
