"""Log-sum-exp and sigmoid sums over a @ b.T that hold `chunk` rows of it at a time, forward and backward.

Each block is computed once forward, keeping (A,) and (C,) log-sums only, and once more backward (a matrix of a single
block is kept instead). One exponential a cell serves rows and columns: E = exp(S - m) with one shift m a block, so that
softmax over rows is E exp(m - row) and over columns E exp(m - col). Where a log-sum lies far under its shift (exp would
underflow) an exact form takes over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

CHUNK = 512  # rows of the score matrix held at a time: 8 MiB at 4,096 candidates in float32
_SAFE = 57.0  # nats below the shift at which float32 sums still hold all that matters (lost terms: e^-87)


@dataclass(frozen=True, slots=True)
class Cells:
    """Which cells (i, j) leave the sums: keys equal under `exclude`, unless i == j or keys equal under `keep`; with
    `diagonal` also those of i == j. Keys are pairs (A,), (C,) int64."""

    exclude: tuple[Tensor, Tensor] | None = None
    keep: tuple[Tensor, Tensor] | None = None
    diagonal: bool = False

    def fill_(self, block: Tensor, start: int, value: float) -> Tensor:
        """Write `value` into the cells left out of rows start... of the matrix."""
        n = len(block)
        own = torch.arange(max(0, min(n, block.shape[1] - start)), device=block.device)
        if self.exclude is not None:
            out = self.exclude[0][start : start + n, None] == self.exclude[1]
            out[own, own + start] = False
            if self.keep is not None:
                out &= self.keep[0][start : start + n, None] != self.keep[1]
            block.masked_fill_(out, value)
        if self.diagonal:
            block[own, own + start] = value
        return block


def logsumexp(
    a: Tensor, b: Tensor, cells: Cells = Cells(), chunk: int = CHUNK, *, need: tuple[bool, bool] = (True, True)
) -> tuple[Tensor, Tensor]:
    """log sum_j exp(a_i . b_j) (A,) and log sum_i exp(a_i . b_j) (C,) over the cells that stay; `need` says which of
    the two are wanted, the other is zeros. A row with no cell is -inf and passes no gradient.

    >>> r, c = logsumexp(torch.eye(3), torch.eye(3), chunk=2)
    >>> bool(torch.allclose(r, torch.logsumexp(torch.eye(3), 1)))
    True
    """
    rows, cols = _LogSumExp.apply(a, b, cells, chunk, need)  # type: ignore[no-untyped-call]
    return rows, cols


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, cells: Cells, chunk: int, need: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor]:
        rows, cols, shifts, block = _fast(a, b, cells, chunk, need)
        if not _sound(rows, cols, shifts, need):
            rows, cols = _exact(a, b, cells, chunk, need)
            shifts, block = [], None
        ctx.save_for_backward(a, b, rows, cols)
        ctx.rest = cells, chunk, need, shifts, block
        return rows, cols

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_rows: Tensor, to_cols: Tensor) -> tuple[Tensor | None, ...]:
        a, b, rows, cols = ctx.saved_tensors
        cells, chunk, need, shifts, kept = ctx.rest
        grad_a, grad_b = torch.empty_like(a), torch.zeros_like(b)
        buffer = a.new_empty(min(chunk, len(a)) if kept is None else 0, len(b))
        for k, i in enumerate(range(0, len(a), chunk)):
            part, r, g = a[i : i + chunk], rows[i : i + chunk], to_rows[i : i + chunk]
            block = torch.mm(part, b.T, out=buffer[: len(part)]) if kept is None else kept
            if shifts:
                if kept is None:
                    cells.fill_(_shifted(block, shifts[k]).exp_(), i, 0.0)
                weight = _ratio(g, shifts[k] - r)[:, None] if need[0] else 0.0
                weight = weight + _ratio(to_cols, shifts[k] - cols) if need[1] else weight
                block = block.mul_(weight) if kept is None else block * weight
            else:
                by_col = (block - _real(cols)).exp_().mul_(to_cols) if need[1] else None
                block.sub_(_real(r)[:, None]).exp_().mul_(g[:, None]) if need[0] else block.zero_()
                block = cells.fill_(block if by_col is None else block.add_(by_col), i, 0.0)
            torch.mm(block, b, out=grad_a[i : i + chunk])
            grad_b.addmm_(block.T, part)
        return grad_a, grad_b, None, None, None


def _shifted(block: Tensor, shift: float) -> Tensor:
    return block.sub_(shift) if shift else block


def _real(values: Tensor) -> Tensor:
    """Infinite log-sums (no cell) as 0: their cells are filled afterwards."""
    return torch.where(torch.isfinite(values), values, 0.0)


def _ratio(gradient: Tensor, exponent: Tensor) -> Tensor:
    return torch.where(torch.isfinite(exponent), gradient * exponent.exp(), 0.0)


def _fast(
    a: Tensor, b: Tensor, cells: Cells, chunk: int, need: tuple[bool, bool]
) -> tuple[Tensor, Tensor, list[float], Tensor | None]:
    """Log-sums with one shift a block: none where the scores are known to be small, else the block's largest. The
    exponentials are given back where they are one block only."""
    bound = float(a.norm(dim=1).amax() * b.norm(dim=1).amax())
    rows, cols = a.new_zeros(len(a)), b.new_full((len(b),), -math.inf if need[1] else 0.0)
    buffer = a.new_empty(min(chunk, len(a)), len(b))
    shifts = []
    for i in range(0, len(a), chunk):
        part = a[i : i + chunk]
        block = torch.mm(part, b.T, out=buffer[: len(part)])
        shift = 0.0 if bound <= _SAFE / 2 else float(block.amax())
        cells.fill_(_shifted(block, shift).exp_(), i, 0.0)
        if need[0]:
            rows[i : i + chunk] = block.sum(1).log_().add_(shift)
        if need[1]:
            cols = torch.logaddexp(cols, block.sum(0).log_().add_(shift))
        shifts.append(shift)
    return rows, cols, shifts, buffer if len(a) <= chunk else None


def _sound(rows: Tensor, cols: Tensor, shifts: list[float], need: tuple[bool, bool]) -> bool:
    """Whether no log-sum lies so far under its shift that terms may have been lost. (-inf is far: then also exact.)"""
    if max(shifts) - min(shifts) > _SAFE:
        return False
    low = min(float(rows.amin()) if need[0] else math.inf, float(cols.amin()) if need[1] else math.inf)
    return low >= max(shifts) - _SAFE


def _exact(a: Tensor, b: Tensor, cells: Cells, chunk: int, need: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    """Log-sums with a shift of their own for every row and column."""
    rows, cols = a.new_zeros(len(a)), b.new_full((len(b),), -math.inf if need[1] else 0.0)
    for i in range(0, len(a), chunk):
        block = cells.fill_(a[i : i + chunk] @ b.T, i, -math.inf)
        if need[0]:
            rows[i : i + chunk] = torch.logsumexp(block, 1)
        if need[1]:
            cols = torch.logaddexp(cols, torch.logsumexp(block, 0))
    return rows, cols


def sigmoid_sum(
    a: Tensor, b: Tensor, bias: Tensor, cells: Cells = Cells(), same: tuple[Tensor, Tensor] | None = None,
    chunk: int = CHUNK,
) -> Tensor:  # fmt: skip
    """sum_ij softplus(-z_ij (a_i . b_j + bias)) over the cells that stay; z = 1 where i == j or keys are equal under
    `same`, else -1. The gradient is made in the same pass, so each block is computed once. Returns ()."""
    total: Tensor = _SigmoidSum.apply(a, b, bias, cells, same, chunk)  # type: ignore[no-untyped-call]
    return total


class _SigmoidSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, bias: Tensor, cells: Cells, same: tuple[Tensor, Tensor] | None, chunk: int
    ) -> Tensor:
        wanted = any(ctx.needs_input_grad[:3])
        grads = [torch.zeros_like(x) for x in (a, b, bias)] if wanted else []
        total = a.new_zeros(())
        for i in range(0, len(a), chunk):
            part = a[i : i + chunk]
            block = torch.addmm(bias, part, b.T)
            _negate(block, i, same)
            total += cells.fill_(softplus(block), i, 0.0).sum()
            if wanted:
                _negate(cells.fill_(block.sigmoid_(), i, 0.0), i, same)
                torch.mm(block, b, out=grads[0][i : i + chunk])
                grads[1].addmm_(block.T, part)
                grads[2].add_(block.sum())
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*(g * gradient for g in ctx.saved_tensors), None, None, None)


def _negate(block: Tensor, start: int, same: tuple[Tensor, Tensor] | None) -> None:
    """Turn the sign of the positives' cells, in place."""
    n = len(block)
    own = torch.arange(max(0, min(n, block.shape[1] - start)), device=block.device)
    if same is None:
        block[own, own + start] *= -1
    else:
        out = same[0][start : start + n, None] == same[1]
        block[out] *= -1
