"""A tower: a body, a pool over its tokens, a masked mean over a record's items, and a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.models.adapt import Freeze, apply_freeze, rest_frozen
from fabrica.models.body import Body, Pool, Pooling, Tokens, body_from_json
from fabrica.models.heads import ProjectionHead
from fabrica.types import Features, Field


class Tower(nn.Module):
    """`Field` (B, N, *shape) -> `Features`: `pooled` (B, D) is the encoder's output before the head.

    Only items that are there go through the body, so an absent item costs nothing and changes nothing; a record's items
    are averaged; a record without any gives zeros. `head` maps `pooled` to the shared space (default: L2 alone).
    `freeze` says what of the body does not train; frozen parts stay in evaluation mode, and a body without any
    trainable parameter runs without a graph.
    """

    def __init__(
        self, body: Body, head: ProjectionHead | None = None, *, pool: Pool = "mean", freeze: Freeze | None = None
    ) -> None:
        super().__init__()
        self.body = body
        self.pool = Pooling(pool, body)
        self.head = ProjectionHead((body.width,)) if head is None else head
        self.freeze = freeze or Freeze()
        if self.head.dims[0] != body.width:
            raise UsageError(f"the head takes {self.head.dims[0]} values, the body gives {body.width}")
        apply_freeze(body, body.layers, self.freeze)
        rest_frozen(self.body)

    @property
    def width(self) -> int:
        """Values a row after the head."""
        return self.head.width

    def train(self, mode: bool = True) -> Self:
        """As usual, but frozen parts stay in evaluation mode."""
        super().train(mode)
        if mode:
            rest_frozen(self.body)
        return self

    def forward(self, field: Field, *, tokens: bool = True) -> Features:
        """Features before the head; `tokens` False leaves the tokens out and saves their memory."""
        rows, count = field.valid.shape
        where = field.valid.reshape(-1).nonzero().squeeze(1)
        shape = (rows * count, self.body.width)
        if len(where) == 0:
            nothing = field.valid.new_zeros((rows, self.body.width), dtype=torch.float32)
            return Features(nothing)
        out = self._encode(field, where)
        pooled = self.pool(out).float()
        if len(where) < rows * count:
            pooled = pooled.new_zeros(shape).index_copy(0, where, pooled)
        pooled = pooled.view(rows, count, -1)
        if count > 1:
            pooled = pooled.sum(1) / field.valid.sum(1, keepdim=True).clamp(min=1)
        else:
            pooled = pooled[:, 0]
        return self._with_tokens(pooled, out, where, (rows, count)) if tokens else Features(pooled)

    def _encode(self, field: Field, where: Tensor) -> Tokens:
        flat = field.values.flatten(0, 1)
        mask = None if field.mask is None else field.mask.flatten(0, 1)
        if len(where) < len(flat):
            flat, mask = flat[where], None if mask is None else mask[where]
            if mask is not None:  # padding that only absent items needed
                longest = int(mask.any(0).nonzero().max()) + 1
                flat, mask = flat[:, :longest], mask[:, :longest]
        learns = any(p.requires_grad for p in self.body.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and learns):
            made: Tokens = self.body(flat, mask)
        return made

    def _with_tokens(self, pooled: Tensor, out: Tokens, where: Tensor, shape: tuple[int, int]) -> Features:
        rows, count = shape
        values, mask = out.values.float(), out.mask
        if len(where) < rows * count:
            values = values.new_zeros((rows * count, *values.shape[1:])).index_copy(0, where, values)
            real = mask if mask is not None else values.new_ones((len(where), values.shape[1]), dtype=torch.bool)
            mask = real.new_zeros((rows * count, real.shape[1])).index_copy(0, where, real)
        values = values.reshape(rows, -1, values.shape[-1])
        mask = None if mask is None else mask.reshape(rows, -1)
        one = count == 1  # the grid of several pictures is not one grid
        return Features(pooled, values, mask, out.grid if one else None, out.prefix if one else 0)

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON."""
        return {
            "body": self.body.to_json(), "head": self.head.to_json(), "pool": self.pool.how,
            "freeze": {"names": list(self.freeze.names), "layers": self.freeze.layers},
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tower:
        """The inverse of `to_json`, with random weights."""
        freeze = Freeze(tuple(data["freeze"]["names"]), data["freeze"]["layers"])
        head = ProjectionHead.from_json(data["head"])
        return cls(body_from_json(data["body"]), head, pool=data["pool"], freeze=freeze)
