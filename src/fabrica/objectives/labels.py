"""`Labels`: findings learned from labels some of which are unknown; fine-tuning is this objective on one tower."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fabrica.errors import UsageError
from fabrica.objectives import check
from fabrica.types import Batch, Loss

if TYPE_CHECKING:
    from torch import nn


def masked_bce(logits: Tensor, targets: Tensor, known: Tensor) -> tuple[Tensor, int]:
    """Binary cross-entropy over what is known: the mean over rows of a row's mean over its known labels.

    `logits` (B, L), `targets` (B, L) in [0, 1], `known` (B, L) bool; an unknown cell has no gradient, a row without a
    known label does not count. Returns the loss () and the rows that counted; 0 rows give a loss of 0.

    >>> logits, known = torch.tensor([[0.0, 9.0], [9.0, 9.0]]), torch.tensor([[True, False], [False, False]])
    >>> loss, rows = masked_bce(logits, torch.ones(2, 2), known)
    >>> round(loss.item(), 4), rows  # log 2
    (0.6931, 1)
    """
    if logits.ndim != 2 or not logits.shape == targets.shape == known.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (logits, targets, known))
        raise UsageError(f"logits, targets and known have shapes {shapes}; wanted three times (rows, labels)")
    wrong = known & ~((targets >= 0) & (targets <= 1))
    if wrong.any():
        raise UsageError(f"a label is {targets[wrong][0].item():g}; wanted numbers from 0 to 1")
    cells = binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")
    share = known / known.sum(1, keepdim=True).clamp(min=1)
    rows = int(known.any(1).sum())
    return (torch.where(known, cells, 0.0) * share).sum() / max(rows, 1), rows


@dataclass(slots=True)
class Labels:
    """Each of `labels` (names of the batch's targets) as a yes or no: the model's embedding of `field` is one logit a
    label, as `models.classifier` makes it. A label that a record lacks, and a record without the field, do not count.

    >>> Labels(("edema", "effusion")).reads
    ('image', 'edema', 'effusion')
    """

    labels: tuple[str, ...]
    field: str = "image"
    reads: tuple[str, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.labels = tuple(self.labels)
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise UsageError(f"labels to learn: wanted at least one and none twice, got {self.labels}")
        self.reads = (self.field, *self.labels)

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch, and that of each label as a term."""
        embedded, presence = model.embed({self.field: batch.fields[self.field]})  # type: ignore[operator]
        logits = embedded[self.field]
        check.finite(self.field, logits)
        if logits.shape[1] != len(self.labels):
            raise UsageError(
                f"the model gives {logits.shape[1]} values for {self.field!r}, there are {len(self.labels)} labels; "
                "make it with models.classifier"
            )
        targets = torch.stack([batch.targets[name] for name in self.labels], 1)
        known = torch.stack([batch.known[name] for name in self.labels], 1) & presence[self.field][:, None]
        total, rows = masked_bce(logits, targets, known)
        return Loss(total, {}, rows)
