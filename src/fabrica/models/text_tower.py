"""A small text transformer that trains on a CPU: learned positions, pre-norm blocks, masked attention."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fabrica.errors import UsageError
from fabrica.models.body import Body, Tokens


class TextTower(Body):
    """Token ids (n, L) and their mask -> (n, L, width); `size` of the vocabulary, `length` the most positions.

    Bidirectional; a padded position changes nothing. An error where L is above `length`.
    """

    kind: ClassVar[str] = "text"

    def __init__(
        self, size: int, width: int = 128, depth: int = 1, heads: int = 4, length: int = 256, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"width {width} is no multiple of {heads} heads")
        self.size, self.width, self.depth, self.heads = size, width, depth, heads
        self.length, self.dropout, self.reads, self.has_class_token = length, dropout, "tokens", True
        self.words = nn.Embedding(size, width)
        self.places = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.places, std=0.01)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.last = nn.LayerNorm(width)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        """(n, L, width)."""
        if values.shape[1] > self.length:
            raise UsageError(f"texts of {values.shape[1]} tokens; this tower has {self.length} positions")
        x = self.words(values) + self.places[: values.shape[1]]
        for block in self.blocks:
            x = block(x, mask)
        return Tokens(self.last(x), mask)

    @property
    def layers(self) -> tuple[str, ...]:
        """The blocks."""
        return tuple(f"blocks.{i}" for i in range(self.depth))

    def check(self, shape: tuple[int, ...] | None, size: int | None) -> None:
        if shape is not None:
            raise UsageError(f"this tower reads token ids; the field gives arrays {shape}")
        if size is not None and size > self.size:
            raise UsageError(f"the tokenizer has {size} tokens, this tower {self.size}: make it as large")

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this body again."""
        names = ("size", "width", "depth", "heads", "length", "dropout")
        return {"kind": self.kind, **{n: getattr(self, n) for n in names}}


class Block(nn.Module):
    """A pre-norm transformer block; attention sees only positions that `mask` (n, L) marks."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(n, L, width) -> the same."""
        n, length, width = x.shape
        q, k, v = self.qkv(self.before(x)).view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = None if mask is None else mask[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, dropout_p=self.dropout if self.training else 0.0
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, width))
        made: Tensor = x + self.mlp(self.between(x))
        return made
