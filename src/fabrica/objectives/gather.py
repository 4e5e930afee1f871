"""All-gather over processes that gradients flow through: the joint batch's embeddings, presence and keys.

Process r of w holds samples r, r + w, ... of the joint batch (`corpus.sample`); what comes back is in the joint order,
so that a loss over it equals the loss of one process on the whole batch, drawn permutations included. The backward of
the gather is its true adjoint: the sum over processes of the gradients of this process's rows. Averaging parameter
gradients over processes (`train.step`) then gives the gradient of one process on the joint batch; a detached gather
would silently scale it by 1 / w.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from fabrica.errors import UsageError


def world() -> int:
    """How many processes there are; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if world() > 1 else 0


def gather(rows: Tensor) -> Tensor:
    """(b, ...) on each process -> (w b, ...) in joint order on all, with gradient. One process: the same tensor."""
    if world() == 1:
        return rows
    _even(rows)
    joined: Tensor = _Gather.apply(rows)  # type: ignore[no-untyped-call]
    return joined


def gather_batch(
    embeddings: Mapping[str, Tensor], presence: Mapping[str, Tensor], keys: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The joint batch's embeddings (with gradient), presence and keys, in two exchanges.

    Names must be the same on every process; local batches of different sizes are refused, on every process."""
    if world() == 1:
        return dict(embeddings), dict(presence), dict(keys)
    rows = [embeddings[name] for name in sorted(embeddings)]
    joined = torch.split(gather(torch.cat(rows, 1)), [r.shape[1] for r in rows], 1)
    flags = [presence[name] for name in sorted(presence)] + [keys[name] for name in sorted(keys)]
    table = torch.stack([f.to(rows[0].device, torch.int64) for f in flags], 1) if flags else None
    columns = [] if table is None else list(_all(table).unbind(1))
    return (
        dict(zip(sorted(embeddings), joined, strict=True)),
        {name: columns.pop(0).bool() for name in sorted(presence)},
        {name: columns.pop(0) for name in sorted(keys)},
    )


def _even(rows: Tensor) -> None:
    shape = torch.tensor([len(rows), rows[:1].numel()], device=rows.device)
    shapes = [torch.empty_like(shape) for _ in range(world())]
    dist.all_gather(shapes, shape)
    sizes = [tuple(s.tolist()) for s in shapes]
    if len(set(sizes)) > 1:
        raise UsageError(
            f"processes hold {', '.join(f'{n} rows of {d}' for n, d in sizes)}: every process must hold as many;"
            " make the batch size a multiple of the number of processes"
        )


def _all(rows: Tensor) -> Tensor:
    parts = [torch.empty_like(rows) for _ in range(world())]
    dist.all_gather(parts, rows.contiguous())
    return torch.stack(parts, 1).flatten(0, 1)  # (b, w, ...) -> joint order


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        return _all(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[rank() :: world()].contiguous()
