"""What a corpus holds, counted: subjects, modalities, splits, sources, licences, roles, kinds, labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fabrica.corpus.table import Table

_SCALARS = ("modality", "split", "source", "licence")
_LISTS = ("roles", "kinds", "tags")


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of records by value; "" stands for "not said". `labels` maps a label to its values' counts ("1", "0",
    "not_done" ...); `bytes` is the size of the decoded records; `quarantined` maps a reason code to its files."""

    records: int
    subjects: int
    bytes: int
    modality: Mapping[str, int]
    split: Mapping[str, int]
    source: Mapping[str, int]
    licence: Mapping[str, int]
    roles: Mapping[str, int]
    kinds: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    quarantined: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, for JSON."""
        return asdict(self)


def stats(table: Table, where: str | None, quarantined: Mapping[str, int]) -> Stats:
    """Count in one pass over the small columns."""
    import pyarrow.compute as pc

    counts: dict[str, Counter[str]] = {name: Counter() for name in (*_SCALARS, *_LISTS)}
    subjects: set[str] = set()
    records = size = 0
    for batch in table.batches((*_SCALARS, *_LISTS, "subject", "bytes"), where):
        records += batch.num_rows
        size += pc.sum(batch.column("bytes")).as_py() or 0
        subjects.update(pc.unique(batch.column("subject")).to_pylist())
        for name in (*_SCALARS, *_LISTS):
            column = batch.column(name)
            values = column.flatten() if name in _LISTS else column
            for pair in pc.value_counts(values).to_pylist():
                counts[name][pair["values"] or ""] += pair["counts"]
    labels: dict[str, dict[str, int]] = {}
    for tag, n in sorted(counts.pop("tags").items()):
        if tag.startswith("label:"):
            name, _, value = tag[6:].rpartition("=")
            labels.setdefault(name, {})[value] = n
    by = {name: dict(sorted(counter.items())) for name, counter in counts.items()}
    return Stats(records, len(subjects), size, **by, labels=labels, quarantined=dict(quarantined))
