"""Self-attention over bags of any length: exact for short ones, Nystrom's for long ones; position by convolutions.

Tokens (B, L, D) come with a mask (B, L) whose real positions stand first (`packed` makes it so); what a row gives
depends on its own tokens alone, never on how far others made it be padded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from fabrica.errors import UsageError


def packed(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same tokens with the real ones first, in their order, and no position that none of the rows needs.

    >>> v, m = packed(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[False, True, True]]))
    >>> v.flatten().tolist(), m.tolist()
    ([2.0, 3.0], [[True, True]])
    """
    order = torch.sort(~mask, dim=1, stable=True).indices
    longest = max(1, int(mask.sum(1).max()))
    order = order[:, :longest]
    found = mask.gather(1, order)
    values = values.gather(1, order[..., None].expand(-1, -1, values.shape[2]))
    return torch.where(found[..., None], values, 0.0), found


class NystromAttention(nn.Module):
    """Multi-head self-attention plus a depth-wise convolution of the values along the bag.

    Up to `exact` tokens a row is attended to exactly; a longer one by Nystrom's approximation with `landmarks` segment
    means and `steps` of the iterative pseudo-inverse, in memory linear in its length (Xiong et al. 2021,
    arXiv 2102.03902). `kernel` 0 leaves the convolution away: then the order of tokens changes nothing where
    attention is exact.
    """

    def __init__(
        self, width: int, heads: int, *, landmarks: int = 128, steps: int = 6, exact: int = 512, kernel: int = 33,
        dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if heads < 1 or width % heads:
            raise UsageError(f"width {width} does not divide over {heads} heads")
        if landmarks < 1 or exact < landmarks or kernel < 0 or (kernel and kernel % 2 == 0):
            raise UsageError(
                f"landmarks {landmarks}, exact {exact}, kernel {kernel}: wanted exact >= landmarks, odd kernel"
            )
        self.heads, self.landmarks, self.steps, self.exact = heads, landmarks, steps, exact
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.mix = nn.Conv2d(heads, heads, (kernel, 1), padding=(kernel // 2, 0), groups=heads) if kernel else None
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D); what stands at masked positions means nothing."""
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        v = torch.where(mask[:, None, :, None], v, 0.0)  # (B, heads, L, d)
        counts = mask.sum(1)
        long = counts > self.exact
        if not bool(long.any()):
            made = scaled_dot_product_attention(q, k, v, attn_mask=_keys(mask))
        else:
            made = torch.zeros_like(v)
            short = (~long).nonzero().squeeze(1)
            if len(short):
                most = max(1, int(counts[short].max()))
                part = scaled_dot_product_attention(
                    q[short, :, :most], k[short, :, :most], v[short, :, :most], attn_mask=_keys(mask[short, :most])
                )
                made[short, :, :most] = part
            for i in long.nonzero().squeeze(1).tolist():
                n = int(counts[i])
                made[i, :, :n] = self._nystrom(q[i, :, :n], k[i, :, :n], v[i, :, :n])
        if self.mix is not None:
            made = made + self.mix(v)
        out: Tensor = self.drop(self.out(made.transpose(1, 2).flatten(2)))
        return out

    def _nystrom(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One row: (heads, n, d) each -> (heads, n, d)."""
        n, d = q.shape[1:]
        q = q * d**-0.5
        segment = torch.arange(n, device=q.device) * self.landmarks // n
        size = torch.bincount(segment, minlength=self.landmarks).to(q.dtype)[:, None]
        few_q = q.new_zeros(q.shape[0], self.landmarks, d).index_add(1, segment, q) / size
        few_k = k.new_zeros(k.shape[0], self.landmarks, d).index_add(1, segment, k) / size
        left = (q @ few_k.mT).softmax(-1)  # (heads, n, m)
        middle = (few_q @ few_k.mT).softmax(-1)  # (heads, m, m)
        right = (few_q @ k.mT).softmax(-1)  # (heads, m, n)
        return left @ (inverse(middle, self.steps) @ (right @ v))


def inverse(matrix: Tensor, steps: int = 6) -> Tensor:
    """Moore-Penrose inverse (..., m, m) by the iteration of Razavi et al. 2014, as in Nystromformer, equation 11.

    >>> m = torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    >>> bool(torch.allclose(inverse(m, 20) @ m, torch.eye(2), atol=1e-4))
    True
    """
    absolute = matrix.abs()
    z = matrix.mT / (absolute.sum(-1).amax((-1,)) * absolute.sum(-2).amax((-1,)))[..., None, None]
    one = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    for _ in range(steps):
        product = matrix @ z
        z = 0.25 * z @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
    return z


def _keys(mask: Tensor) -> Tensor | None:
    """What each query may see; a row without any token sees all, and means nothing."""
    if bool(mask.all()):
        return None
    return (mask | ~mask.any(1, keepdim=True))[:, None, None, :]


class GridPosition(nn.Module):
    """Position of a bag's tokens: laid out in rows on the smallest square that holds them (the first tokens again fill
    what is left), x + conv7(x) + conv5(x) + conv3(x), depth-wise (TransMIL's PPEG, Shao et al. 2021, arXiv 2106.00908).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width, width, s, padding=s // 2, groups=width) for s in (7, 5, 3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) with real tokens first."""
        rows, length, width = x.shape
        n = mask.sum(1).clamp(min=1)[:, None, None]  # (B, 1, 1)
        side = n.double().sqrt().ceil().long()
        most = int(side.max())
        line = torch.arange(most, device=x.device)
        y, x_at = line[None, :, None], line[None, None, :]
        inside = ((y < side) & (x_at < side)).flatten(1)  # (B, G * G)
        source = torch.where(inside, ((y * side + x_at) % n).flatten(1), 0)
        canvas = x.gather(1, source[..., None].expand(-1, -1, width)) * inside[..., None]
        canvas = canvas.transpose(1, 2).reshape(rows, width, most, most)
        made = (canvas + sum(conv(canvas) for conv in self.convs)).flatten(2).transpose(1, 2)
        token = torch.arange(length, device=x.device)[None].expand(rows, -1)
        side = side[:, :, 0]
        back = torch.where(mask, token // side * most + token % side, 0)
        found: Tensor = made.gather(1, back[..., None].expand(-1, -1, width))
        return found


class BagEncoder(nn.Module):
    """CLS + tokens through two attention layers, with `position` between them: (CLS (B, D), tokens (B, L, D)).

    CMTA's encoders and decoders (arXiv 2309.12855, section 3.3); `position` for patches, not for gene groups.
    """

    def __init__(
        self, width: int, heads: int, *, position: bool, landmarks: int = 128, exact: int = 512, kernel: int = 33,
        dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.cls = nn.Parameter(torch.randn(width) * 0.02)
        options = {"landmarks": landmarks, "exact": exact, "kernel": kernel}
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.layers = nn.ModuleList(NystromAttention(width, heads, dropout=dropout, **options) for _ in range(2))
        self.position = GridPosition(width) if position else None
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`tokens` (B, L, D) with those that `mask` (B, L) says are real first."""
        x = torch.cat([self.cls.to(tokens.dtype).expand(len(tokens), 1, -1), tokens], 1)
        seen = torch.cat([mask.new_ones(len(mask), 1), mask], 1)
        x = x + self.layers[0](self.norms[0](x), seen)
        if self.position is not None:
            x = torch.cat([x[:, :1], self.position(x[:, 1:], mask)], 1)
        x = x + self.layers[1](self.norms[1](x), seen)
        x = self.norm(x)
        return x[:, 0], x[:, 1:]
