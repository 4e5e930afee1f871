"""Pre-norm attention blocks over tokens some of which are not there: self-attention, cross-attention, an MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fabrica.errors import UsageError


class Attend(nn.Module):
    """Multi-head attention of `queries` (B, Q, D) to `keys` (B, K, D). `allowed` (B, Q, K), (B, 1, K) or (B, K) bool.

    A query that may attend to nothing gets exactly 0: never NaN, never the mean of padding.

    >>> attend = Attend(8, 2)
    >>> attend(torch.ones(1, 2, 8), torch.ones(1, 3, 8), torch.zeros(1, 3, dtype=torch.bool)).abs().max().item()
    0.0
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise UsageError(f"width {width} does not divide over {heads} heads")
        self.heads = heads
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, queries: Tensor, keys: Tensor, allowed: Tensor | None = None) -> Tensor:
        """(B, Q, D)."""
        q = self._split(self.q(queries))
        k, v = (self._split(part) for part in self.kv(keys).chunk(2, -1))
        if allowed is None:
            return self._merge(scaled_dot_product_attention(q, k, v))
        allowed = allowed[:, None] if allowed.ndim == 2 else allowed
        some = allowed.any(-1, keepdim=True)  # (B, Q or 1, 1)
        mask = (allowed | ~some)[:, None]  # a query without keys would give NaN: let it see all, then drop what it saw
        return torch.where(some, self._merge(scaled_dot_product_attention(q, k, v, attn_mask=mask)), 0.0)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, heads, L, d)

    def _merge(self, x: Tensor) -> Tensor:
        made: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return made


class Block(nn.Module):
    """x + attend(norm x), x + cross(norm x, context) where `cross`, x + mlp(norm x)."""

    def __init__(self, width: int, heads: int, *, cross: bool = False, ratio: int = 4) -> None:
        super().__init__()
        self.norm, self.attend = nn.LayerNorm(width), Attend(width, heads)
        self.cross_norm = nn.LayerNorm(width) if cross else None
        self.cross = Attend(width, heads) if cross else None
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width)
        )

    def forward(
        self, x: Tensor, allowed: Tensor | None = None, context: Tensor | None = None, seen: Tensor | None = None
    ) -> Tensor:
        """`x` (B, L, D) under `allowed` (see `Attend`); `context` (B, K, D) under `seen` (B, K)."""
        y = self.norm(x)
        x = x + self.attend(y, y, allowed)
        if self.cross is not None and context is not None:
            assert self.cross_norm is not None
            x = x + self.cross(self.cross_norm(x), context, seen)
        made: Tensor = x + self.mlp(x)
        return made


class CrossAttend(nn.Module):
    """`layers` blocks in which tokens (B, L, width) read each other and a context (B, K, context_width), projected by
    a linear layer and a norm; a last norm. Without a context, or where none of a row's is `seen`, they read each other
    alone (TIP's interaction module, arXiv 2407.07582, section 3.1)."""

    def __init__(self, width: int, context_width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(context_width, width), nn.LayerNorm(width))
        self.blocks = nn.ModuleList(Block(width, heads, cross=True) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, allowed: Tensor | None = None, context: Tensor | None = None, seen: Tensor | None = None
    ) -> Tensor:
        """(B, L, width)."""
        inner = None if context is None else self.project(context)
        for block in self.blocks:
            tokens = block(tokens, allowed, inner, seen)
        made: Tensor = self.norm(tokens)
        return made
