"""`SpanGraph`: spans as one of the labels or none, ordered pairs of kept spans as one of the relations or none."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fabrica.errors import UsageError
from fabrica.types import Batch, Loss

if TYPE_CHECKING:
    from torch import nn


def span_graph(
    labels: Tensor, wanted: Tensor, relations: Tensor, told: Tensor, *, entity: float = 1.0, relation: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """entity x sum over spans CE(labels, wanted) + relation x sum over kept pairs CE(relations, told), and both sums.

    `labels` (S, K + 1), `wanted` (S,) int64, `relations` (P, R + 1), `told` (P,) int64; class 0 is none.

    >>> total, e, r = span_graph(torch.zeros(2, 4), torch.tensor([0, 3]), torch.zeros(1, 2), torch.tensor([1]))
    >>> [round(x.item(), 4) for x in (total, e, r)]  # 2 log 4 + log 2
    [3.4657, 2.7726, 0.6931]
    """
    if labels.shape[:1] != wanted.shape or relations.shape[:1] != told.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (labels, wanted, relations, told))
        raise UsageError(f"shapes {shapes}; wanted (S, K), (S,), (P, R), (P,)")
    e = cross_entropy(labels.float(), wanted, reduction="sum")
    r = cross_entropy(relations.float(), told, reduction="sum")
    return entity * e + relation * r, e, r


@dataclass(slots=True)
class SpanGraph:
    """The loss of a span graph net on a batch of `SpanCollate`, a record's mean. A record without a graph does not
    count. Gold relations of spans that were not kept teach nothing: `terms["missed"]` is their share."""

    field: str = "report"
    entity: float = 1.0
    relation: float = 1.0
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.reads = (self.field, "pieces", "spans", "relations")

    def __call__(self, model: nn.Module, batch: Batch, /) -> Loss:
        """The loss of a batch."""
        known = batch.known["spans"].flatten(1).any(1) & batch.fields[self.field].valid.any(1)
        rows = int(known.sum())
        made: Any = model({n: batch.fields[n] for n in (self.field, "pieces")})
        windows = batch.targets["spans"].shape[1]
        of_record = made.spans[:, 0] // windows
        at, keep = self._place(made, batch), known[of_record]
        wanted = batch.targets["spans"].flatten()[at]
        kept = keep[made.pairs[:, 0]]
        told, missed, of = self._told(made, batch)
        total, e, r = span_graph(
            made.labels[keep], wanted[keep], made.relations[kept], told[kept], entity=self.entity,
            relation=self.relation,
        )  # fmt: skip
        scale = 1 / max(rows, 1)
        terms = {"entity": float(e.detach()) * scale, "relation": float(r.detach()) * scale}
        return Loss(total * scale, {**terms, "missed": missed / max(of, 1)}, rows)

    def _place(self, made: Any, batch: Batch) -> Tensor:
        """Where each enumerated span stands in the flat target (B, N, T, W)."""
        _, _, words, width = batch.targets["spans"].shape
        row, first, size = made.spans.unbind(1)
        return (row * words + first) * width + size  # type: ignore[no-any-return]

    def _told(self, made: Any, batch: Batch) -> tuple[Tensor, int, int]:
        """(P,) the relation of each kept pair; gold relations that no kept pair holds, and all of them."""
        _, _, words, width = batch.targets["spans"].shape
        cells = words * width
        gold, known = batch.targets["relations"].flatten(0, 1), batch.known["relations"].flatten(0, 1)
        row, number = known.nonzero(as_tuple=True)
        head, tail, label = gold[row, number].unbind(1)
        wanted = (row * cells + head) * cells + tail
        told = torch.zeros(len(made.pairs), dtype=torch.long, device=gold.device)
        if not len(wanted) or not len(made.pairs):
            return told, len(wanted), len(wanted)
        inside = made.spans[:, 1] * width + made.spans[:, 2]
        code = (made.spans[made.pairs[:, 0], 0] * cells + inside[made.pairs[:, 0]]) * cells + inside[made.pairs[:, 1]]
        order = wanted.argsort()
        near = torch.searchsorted(wanted[order], code).clamp(max=len(wanted) - 1)
        hit = wanted[order][near] == code
        told[hit] = label[order][near][hit]
        return told, len(wanted) - int(hit.sum()), len(wanted)
