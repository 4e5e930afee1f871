"""Selecting: which rows of a pool to keep. Scores are columns that others wrote; a selector decides, with reasons.

`Threshold`, `TopFraction`, `Quota`, `Random`, `ClusterMatch`, `TextMatch`, `Basic` and `InSet` combine by `&`, `|`, `~`
(the filters of DataComp, Gadre et al. 2023, section 3.3). `choose` streams a pool into a `Subset`; `Selected` makes a
survey of a selector, for `curate.run`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.pools.by_content import Basic, InSet, TextMatch
from fabrica.curate.pools.by_score import Quota, Random, Threshold, TopFraction, by_score
from fabrica.curate.pools.cluster_match import ClusterMatch, Target
from fabrica.curate.pools.pool import ROWS, Pool, columns_of, row_of, uids_of
from fabrica.curate.pools.selector import And, Not, Or, Selector
from fabrica.curate.pools.subset import Subset, gathered
from fabrica.types import Decision, Record

__all__ = [
    "And", "Basic", "ClusterMatch", "InSet", "Not", "Or", "Pool", "Quota", "Random", "Selected", "Selection",
    "Selector", "Subset", "Target", "TextMatch", "Threshold", "TopFraction", "by_score", "choose",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Selection:
    """What `choose` kept. `left_out`: reason -> rows; `repeated`: kept rows whose uid an earlier one had (once in the
    subset); `found`: what was computed (thresholds, unknown scores ...)."""

    subset: Subset
    rows: int
    left_out: Mapping[str, int]
    repeated: int = 0
    found: Mapping[str, float] = field(default_factory=dict)


def choose(selector: Selector, pool: Pool, into: str | Path | None = None, *, rows: int = ROWS) -> Selection:
    """Stream the pool through a selector. With `into` the subset is written there and mapped from disk, and memory
    stays bounded however large the pool; without, the kept uids are held (16 bytes each). `rows` is a block's size.

    >>> pool = Pool.of({"uid": [f"{i:032x}" for i in range(10)], "clip": [i / 10 for i in range(10)]})
    >>> made = choose(TopFraction("clip", 0.3) & ~Threshold("clip", 0.9), pool)
    >>> len(made.subset), dict(made.left_out)
    (3, {'below_top_fraction': 6, 'not_threshold': 1})
    """
    columns = tuple(dict.fromkeys(("uid", *selector.columns)))
    selector.need(pool)
    ready = selector.ready(pool)
    count: Counter[int] = Counter()

    def kept() -> Iterator[NDArray[np.void]]:
        for block in pool.blocks(columns, rows=rows):
            codes = ready.codes(block)
            count.update(dict(zip(*(u.tolist() for u in np.unique(codes, return_counts=True)), strict=True)))
            yield uids_of(block)[codes == 0]

    if into is None:
        found, repeated = gathered(kept())
        subset = Subset(found)
    else:
        Path(into).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=Path(into).parent, prefix=".select") as folder:
            found, repeated = gathered(_batched(kept(), 32 * rows), Path(folder))
            Subset(found).save(into)
        subset = Subset.load(into)
    reasons: Counter[str] = Counter()
    for code, n in sorted(count.items()):
        if code:
            reasons[ready.reasons[code - 1]] += n
    return Selection(subset, sum(count.values()), reasons, repeated, ready.found)


def _batched(parts: Iterable[NDArray[np.void]], rows: int) -> Iterator[NDArray[np.void]]:
    held: list[NDArray[np.void]] = []
    total = 0
    for part in parts:
        held.append(part)
        total += len(part)
        if total >= rows:
            yield np.concatenate(held)
            held, total = [], 0
    if held:
        yield np.concatenate(held)


@dataclass
class Selected:
    """A selector as a survey, so that `curate.run` drops what it leaves out, each with its reason.

    Labels (scores), groups, texts, image sizes and `features/NAME` items of the records are the columns
    (`pool.row_of`).
    """

    selector: Selector
    name: str = field(default="selected", init=False)
    version: str = field(default="1", init=False)

    def note(self, record: Record, /) -> dict[str, Any]:
        """The columns that the selector reads."""
        row = row_of(record, self.selector.columns)
        lists = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in row.items()}
        return {"uid": row["uid"], "id": record.id} | {c: lists.get(c) for c in self.selector.columns}

    def decide(self, rows: Sequence[Mapping[str, Any]], /) -> dict[str, Decision]:
        """A drop for every id that is not kept."""
        pool = Pool([_Noted(rows, self.selector.columns)])
        ready = self.selector.ready(pool)
        out = {}
        for block in pool.blocks(["id", "uid", *self.selector.columns]):
            for id_, code in zip(block["id"].tolist(), ready.codes(block).tolist(), strict=True):
                if code:
                    out[id_] = Decision(drop=ready.reasons[code - 1])
        return out


class _Noted:
    """The notes of a survey as a shard of a pool."""

    def __init__(self, noted: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        self.noted, self.rows, self.names = noted, len(noted), tuple(dict.fromkeys(("uid", "id", *columns)))

    def read(self, columns: Sequence[str], size: int) -> Iterator[dict[str, Any]]:
        held: list[Mapping[str, Any]] = []
        for row in self.noted:
            held.append(row)
            if len(held) == size:
                yield self._block(held, columns)
                held = []
        if held:
            yield self._block(held, columns)

    def _block(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
        found = columns_of(rows, self.names)
        found["uid"] = uids_of(found)
        unknown_ = np.full(len(rows), np.nan)
        return {c: found[c] if any(row.get(c) is not None for row in rows) else unknown_ for c in columns}
