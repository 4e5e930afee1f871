"""Cells of a table hidden or replaced, and the error of guessing them: numbers by square, categories by entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fabrica.errors import UsageError


class ColumnLike(Protocol):
    """What is read of a column (`encode.cells.Column`)."""

    kind: str
    mean: float
    std: float
    grid: tuple[float, ...]
    categories: tuple[float, ...]
    share: tuple[float, ...]


class Marginals:
    """The training distribution of each column, to draw from: percentiles of standardised numbers, shares of
    categories."""

    def __init__(self, columns: Sequence[ColumnLike]) -> None:
        points = max((len(c.grid) for c in columns if c.kind == "number"), default=2)
        most = max((len(c.share) for c in columns if c.kind == "category"), default=1)
        self.number = torch.tensor([c.kind == "number" for c in columns])
        self.grid = torch.zeros(len(columns), points)
        self.upto = torch.ones(len(columns), most)
        for i, c in enumerate(columns):
            if c.kind == "number":
                if len(c.grid) != points:
                    raise UsageError("every number column wants as many percentiles; fit the schema on records")
                self.grid[i] = (torch.tensor(c.grid, dtype=torch.float64) - c.mean).float() / c.std
            else:
                self.upto[i, : len(c.share) - 1] = torch.tensor(c.share).cumsum(0)[:-1]  # the last one's is 1

    def draw(self, rows: int) -> Tensor:
        """(rows, C) encoded cells, each from its own column."""
        u = torch.rand(rows, len(self.grid))
        at = u * (self.grid.shape[1] - 1)
        low = at.long().clamp(max=self.grid.shape[1] - 2)
        index = torch.arange(len(self.grid)).expand(rows, -1)
        left, right = self.grid[index, low], self.grid[index, low + 1]
        number = left + (at - low) * (right - left)
        code = (u[..., None] >= self.upto[None]).sum(-1).clamp(max=self.upto.shape[1] - 1).float()
        return torch.where(self.number, number, code)


def corrupted(cells: Tensor, marginals: Marginals, rate: float) -> Tensor:
    """Cells (B, 2 C), values then flags, in which each value that is there is replaced by a draw from its column with
    probability `rate` (SCARF, Bahri et al. 2022, arXiv 2106.15147)."""
    values, flags = cells.chunk(2, 1)
    change = (torch.rand(values.shape) < rate).to(cells.device) & (flags > 0.5)
    return torch.cat([torch.where(change, marginals.draw(len(values)).to(cells), values), flags], 1)


def hidden(cells: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Cells with round(ratio C) random columns of each row taken away (value 0, flag 0), and which of those had a value
    (B, C): what is to be guessed."""
    values, flags = cells.chunk(2, 1)
    count = round(ratio * values.shape[1])
    order = torch.rand(values.shape).argsort(1).argsort(1).to(cells.device)
    gone = order < count
    left = torch.cat([values.masked_fill(gone, 0.0), flags.masked_fill(gone, 0.0)], 1)
    return left, gone & (flags > 0.5)


def masked_table(
    numbers: Tensor, categories: Tensor, cells: Tensor, masked: Tensor, offset: Tensor, size: Tensor, *,
    per_column: bool = False,
) -> tuple[Tensor, int, dict[str, float]]:  # fmt: skip
    """Half the mean squared error over masked numbers plus half the mean cross-entropy over masked categories
    (TIP, arXiv 2407.07582, eq. 3); a kind of which nothing is masked counts for nothing.

    `numbers` (B, C) and `categories` (B, C, R) are the guesses, `cells` (B, 2 C) the truth, `masked` (B, C); `offset`
    and `size` (C,) place each column's categories among the R rows (`size` 0: a number). The softmax goes over all R
    rows, as published, or with `per_column` over the column's own. Returns the loss (), masked cells, and the two
    means by name.
    """
    values = cells.chunk(2, 1)[0]
    category = size > 0
    total, told = numbers.new_zeros((), dtype=torch.float32), {}
    at = masked & ~category
    if at.any():
        square = (numbers[at].float() - values[at].float()).pow(2).mean()
        total, told["squared_error"] = total + 0.5 * square, float(square.detach())
    at = masked & category
    if at.any():
        logits, column = categories[at].float(), at.nonzero()[:, 1]
        if per_column:
            rows = torch.arange(logits.shape[1], device=logits.device)
            own = (rows >= offset[column, None]) & (rows < (offset + size)[column, None])
            logits = logits.masked_fill(~own, float("-inf"))
        entropy = cross_entropy(logits, values[at].round().long() + offset[column])
        total, told["cross_entropy"] = total + 0.5 * entropy, float(entropy.detach())
    return total, int(masked.sum()), told
