"""TIP's pre-training: contrast of image and table, matching with hard negatives, masked cells (arXiv 2407.07582)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fabrica.errors import UsageError
from fabrica.objectives.contrast import pair_contrast
from fabrica.objectives.masked_table import Marginals, corrupted, hidden, masked_table
from fabrica.objectives.matching import alike, hard_negatives, matching_loss
from fabrica.types import Batch, Loss

if TYPE_CHECKING:
    from torch import nn


@dataclass(slots=True)
class TablePretrain:
    """(contrast + matching + masked) with `weights`, a third each in the paper.

    Contrast and matching see rows that have an image and some cell, of whose table a share `corrupt` of cells is drawn
    anew; two rows of one "subject", or with the same table, are no hard negatives. Masked cells (a share `mask` of the
    columns) are guessed for every row with a table, with its image where it has one. `per_column`: see `masked_table`.

    >>> TablePretrain().reads
    ('image', 'table', 'subject')
    """

    weights: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    corrupt: float = 0.3
    mask: float = 0.5
    per_column: bool = False
    reads: tuple[str, ...] = dataclasses.field(init=False, default=("image", "table", "subject"))

    def __post_init__(self) -> None:
        if min(self.weights) < 0 or sum(self.weights) <= 0:
            raise UsageError(f"weights {self.weights}: wanted three numbers >= 0, not all 0")
        if not 0 <= self.corrupt <= 1 or not 0 < self.mask < 1:
            raise UsageError(f"corrupt={self.corrupt}, mask={self.mask}: wanted shares, mask above 0 and below 1")

    def __call__(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of one batch; its terms; the rows with a table."""
        net: Any = model
        if len(batch) < 2:
            raise UsageError("a batch of 1 has no negatives: raise the batch")
        field = batch.fields["image"]
        image, seen = net.encode_image(field)
        cells = net.cells(batch.fields["table"])
        there = cells.chunk(2, 1)[1] > 0.5
        told = there.any(1)
        pairs = (field.valid.any(1) & told).nonzero().squeeze(1)
        marginals = Marginals(net.table.schema.columns)
        total, terms = cells.new_zeros(()), dict[str, float]()
        if len(pairs) > 1 and (self.weights[0] or self.weights[1]):
            view = corrupted(cells[pairs], marginals, self.corrupt)
            tokens, real = net.encode_table(view)
            z_image = net.tower("image").head(image.pooled[pairs])
            z_table = net.tower("table").head(tokens[:, 0])
            scale = net.logit_scale()
            contrast = pair_contrast(z_image, z_table, scale)
            same = alike(batch.keys["subject"][pairs], view)
            match, right = _matching(
                net, (tokens, real), (image.tokens[pairs], seen[pairs]), scale * z_image @ z_table.T, same
            )
            total = total + self.weights[0] * contrast + self.weights[1] * match
            terms |= {"contrast": float(contrast.detach()), "matching": float(match.detach()), "matched": right}
        rows = told.nonzero().squeeze(1)
        if len(rows) and self.weights[2]:
            left, masked = hidden(cells[rows], self.mask)
            fused = net.fuse(*net.encode_table(left), image.tokens[rows], seen[rows])
            numbers, categories = net.reconstruct(fused)
            known = net.table.tokens
            error, _, said = masked_table(
                numbers, categories, cells[rows], masked, known.offset, known.size, per_column=self.per_column
            )
            total = total + self.weights[2] * error
            terms |= {"masked": float(error.detach()), **said}
        return Loss(total, terms, len(rows))


def _matching(
    net: Any, table: tuple[Tensor, Tensor], image: tuple[Tensor, Tensor], scores: Tensor, same: Tensor
) -> tuple[Tensor, float]:
    """Pairs, each image with a hard negative table, each table with a hard negative image."""
    tables, has_table = hard_negatives(scores, same)
    images, has_image = hard_negatives(scores.T, same)
    rows = torch.arange(len(scores), device=scores.device)
    t = torch.cat([rows, tables[has_table], rows[has_image]])
    i = torch.cat([rows, rows[has_table], images[has_image]])
    logits = net.match(net.fuse(table[0][t], table[1][t], image[0][i], image[1][i]))
    return matching_loss(logits[: len(rows)], logits[len(rows) :])
