"""Modality dropout: an objective that sees, at each visit, only some of what a record has.

Training with kinds of data hidden at random makes a fusion answer from any subset (ModDrop, Neverova et al. 2016, arXiv
1501.00102). What is hidden is said by `valid` (by a cell's own flag for cells) and nowhere else; nothing is imputed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from fabrica.errors import UsageError, unknown
from fabrica.types import Batch, Contrastive, Field, Loss, Objective

if TYPE_CHECKING:
    from torch import nn

Unit = Literal["role", "cell", "time"]


@dataclass(slots=True)
class ModalityDropout:
    """`objective` on batches of which each unit of `fields` that is there is hidden with probability `p`; of each row
    at least `keep` of the units that were there stay (never more than there were).

    Unit "role": a whole field of a row; "time": each of a field's items (the hours of a stay) on its own; "cell": each
    cell of a table that says which of its cells are there (`encode.cells`: values, then flags). No `fields`: every one
    that the objective reads. Draws come from torch's generator, which training seeds anew by each step.

    >>> def seen(model, batch): return Loss(batch.fields["a"].values.sum(), {}, int(batch.fields["a"].valid.sum()))
    >>> seen.reads = ("a",)
    >>> batch = Batch(("r",), {"a": Field(torch.ones(1, 1, 2), torch.ones(1, 1, dtype=torch.bool))})
    >>> ModalityDropout(seen, 1.0)(None, batch).count, ModalityDropout(seen, 1.0, keep=0)(None, batch).count
    (1, 0)
    """

    objective: Objective
    p: float
    fields: tuple[str, ...] = ()
    keep: int = 1
    unit: Unit = "role"
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if self.unit not in get_args(Unit):
            raise unknown("unit of modality dropout", self.unit, get_args(Unit))
        if not 0 <= self.p <= 1 or self.keep < 0:
            raise UsageError(f"p={self.p:g}, keep={self.keep}: wanted a share from 0 to 1, and 0 units or more")
        if isinstance(self.objective, Contrastive):
            raise UsageError("a contrastive objective is given embeddings, not fields: it cannot hide any of them")
        for name in self.fields:
            if name not in self.objective.reads:
                raise unknown("field that the objective reads", name, self.objective.reads)
        self.reads = self.objective.reads

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The objective's loss of what is left of the batch."""
        read = {name: field for name, field in batch.fields.items() if name in self.reads}
        return self.objective(model, replace(batch, fields={**batch.fields, **self.hidden(read)}))

    def hidden(self, fields: Mapping[str, Field]) -> dict[str, Field]:
        """The fields with some of their units hidden; those not among `self.fields` stay and count as kept."""
        there = {name: _units(field, self.unit) for name, field in fields.items()}  # (B, U) each
        moves = [torch.full_like(u, not self.fields or n in self.fields) for n, u in there.items()]
        kept = keep_some(torch.cat(list(there.values()), 1), torch.cat(moves, 1), self.p, self.keep)
        parts = torch.split(kept, [u.shape[1] for u in there.values()], 1)
        return {n: _left(f, part, self.unit) for (n, f), part in zip(fields.items(), parts, strict=True)}


def keep_some(there: Tensor, moves: Tensor, p: float, keep: int = 1) -> Tensor:
    """Which units (B, U) stay of those that are `there`: each that `moves` goes with probability `p`, but for as many
    as a row needs to keep `keep` of its own, drawn with equal chances."""
    draw = torch.rand(there.shape).to(there.device).masked_fill(~moves, 2.0).masked_fill(~there, -1.0)
    first = draw.argsort(1, descending=True)[:, :keep]  # those nearest to staying
    stays = draw >= p
    stays.scatter_(1, first, True)
    return there & stays


def _units(field: Field, unit: Unit) -> Tensor:
    """Which units of a field are there (B, U)."""
    if unit == "role":
        return field.valid.any(1, keepdim=True)
    if unit == "time":
        return field.valid
    flags = _flags(field) > 0.5
    return (flags & field.valid[..., None]).flatten(1)


def _left(field: Field, kept: Tensor, unit: Unit) -> Field:
    if unit == "role":
        return replace(field, valid=field.valid & kept)
    if unit == "time":
        return replace(field, valid=kept)
    flags = _flags(field)
    kept = kept.view(flags.shape)
    values = field.values.clone()
    size = flags.shape[-1]
    values[..., :size] = torch.where(kept, values[..., :size], 0.0)
    values[..., size:] = torch.where(kept, flags, 0.0)
    return replace(field, values=values, valid=field.valid & kept.any(-1))


def _flags(field: Field) -> Tensor:
    """The flags (B, N, C) of cells (B, N, 2 C)."""
    if field.values.ndim != 3 or field.values.shape[-1] % 2 or not field.values.is_floating_point():
        raise UsageError(f"unit 'cell' wants fields of cells with flags (B, N, 2 C); got {tuple(field.values.shape)}")
    return field.values.chunk(2, -1)[1]
