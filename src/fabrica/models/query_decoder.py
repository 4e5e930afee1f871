"""Masks by text: an encoder that runs once an image, and queries that read a prompt and the image where it may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fabrica.errors import UsageError
from fabrica.models.dense import Condition, Maps, Net, Part
from fabrica.models.gated_unet import GatedUNet, Norm
from fabrica.models.text_tower import TextTower

Set = tuple[Tensor, Tensor]  # mask vectors (R, Q, C + 1), see `drawn`, and language vectors (R, Q, D) of R rows


class PromptText(Part):
    """Prompts to what the decoder reads: token features and one unit vector a prompt, their mean.

    Words start far apart (unit variance): from the tower's own small start, all prompts soon become one.
    """

    kind: ClassVar[str] = "query_decoder:PromptText"

    def __init__(self, size: int, width: int = 512, depth: int = 12, heads: int = 8, length: int = 77) -> None:
        super().__init__()
        self.tower = TextTower(size, width, depth, heads, length)
        nn.init.normal_(self.tower.words.weight)

    def forward(self, ids: Tensor, mask: Tensor) -> Condition:
        """Ids and mask (B, K, T) -> tokens (B, K, T, D), valid (B, K, T), vector (B, K, D)."""
        flat = ids.flatten(0, 1)
        seen = mask.flatten(0, 1).clone()
        seen[:, 0] = True  # a prompt that was not asked: attention still needs a place to look
        tokens = self.tower(flat, seen).values.unflatten(0, ids.shape[:2])
        part = mask[..., None].to(tokens.dtype)
        return Condition(tokens, mask, functional.normalize((tokens * part).sum(2) / part.sum(2).clamp(min=1), dim=-1))

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        t = self.tower
        return {"size": t.size, "width": t.width, "depth": t.depth, "heads": t.heads, "length": t.length}


class QueryDecoder(nn.Module):
    """`queries` learned vectors, `layers` times: masked cross-attention to one of the maps in turn (Cheng et al. 2022,
    arXiv 2112.01527), self-attention among queries and prompt tokens, feed-forward; post-norm.

    A key is blocked where the query's previous mask is below 0.5; a query that would see nothing sees everything; the
    blocking has no gradient.
    """

    def __init__(
        self, width: int, text: int, masks: int, queries: int = 101, layers: int = 9, heads: int = 8,
        feedforward: int = 2048, scales: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        if width % heads or width % 4:
            raise UsageError(f"width {width} is no multiple of {heads} heads and of 4")
        self.queries, self.heads = queries, heads
        self.start, self.own = (nn.Parameter(torch.randn(queries, width) * 0.5) for _ in range(2))
        self.scale = nn.Parameter(torch.randn(scales, width) * 0.02)
        self.read, self.lead = nn.Linear(text, width), nn.Linear(text, width)
        nn.init.normal_(self.lead.weight, std=4 * text**-0.5)  # at the start prompts differ as much as queries do
        self.layers = nn.ModuleList(_Layer(width, heads, feedforward) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.mask = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, masks + 1)
        )
        self.direct = nn.Linear(text, masks + 1)
        self.word = nn.Linear(width, text, bias=False)

    def forward(
        self, maps: Sequence[Tensor], pixels: Tensor, tokens: Tensor, valid: Tensor, of: Tensor, alone: bool = True
    ) -> list[Set]:
        """Of R rows (a prompt, or all of an image), row r on image `of[r]`, those of an image one after the other:
        `maps` (B, width, h, w) coarse first, `pixels` (B, masks, H, W), `tokens` (R, L, text), `valid` (R, L). One set
        at the start and one a layer.
        Where a row is one prompt `alone`, its queries start from its words' mean, which also makes a mask of its own
        that they correct; else they start as they were learned."""
        x, words, plain = self.start.expand(len(of), -1, -1), self.read(tokens), None
        if alone:
            part = valid[..., None].to(tokens.dtype)
            said = (tokens * part).sum(1, keepdim=True) / part.sum(1, keepdim=True).clamp(min=1)
            x, plain = x + self.lead(said), self.direct(said)
        keys = [
            (m.flatten(2).transpose(1, 2) + self.scale[i], places(m), tuple(m.shape[2:]))
            for i, m in enumerate(maps[: len(self.layers)])
        ]
        keys = [(k[of], p, side) for k, p, side in keys]
        small = [functional.interpolate(pixels.detach(), k[2], mode="bilinear", align_corners=False) for k in keys]
        made = [self._said(x, plain)]
        for number, layer in enumerate(self.layers):
            memory, where, side = keys[number % len(keys)]
            seen = allowed(drawn(made[-1][0], small[number % len(keys)], of), side)
            x, words = layer(x, words, valid, self.own, memory, where, seen)
            made.append(self._said(x, plain))
        return made

    def _said(self, x: Tensor, plain: Tensor | None) -> Set:
        x = self.norm(x)
        return self.mask(x) if plain is None else self.mask(x) + plain, self.word(x)


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.cross, self.mix = _Attention(width, heads), _Attention(width, heads)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.feed = nn.Sequential(nn.Linear(width, feedforward), nn.ReLU(), nn.Linear(feedforward, width))

    def forward(
        self, x: Tensor, words: Tensor, valid: Tensor, own: Tensor, memory: Tensor, where: Tensor, open_: Tensor
    ) -> tuple[Tensor, Tensor]:
        x = self.norms[0](x + self.cross(x + own, memory + where, memory, open_))
        both = torch.cat([x, words], 1)
        seen = torch.cat([valid.new_ones(x.shape[:2]), valid], 1)[:, None]
        placed = torch.cat([x + own, words], 1)
        both = self.norms[1](both + self.mix(placed, placed, both, seen))
        both = self.norms[2](both + self.feed(both))
        return both[:, : x.shape[1]], both[:, x.shape[1] :]


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        """`seen` (R, 1 or Q, L) bool."""
        q, k, v = (f(t).unflatten(2, (self.heads, -1)).transpose(1, 2) for f, t in
                   ((self.q, q), (self.k, k), (self.v, v)))  # fmt: skip
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None])
        made: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return made


def on_pixels(queries: Tensor, pixels: Tensor, of: Tensor) -> Tensor:
    """Mask logits (R, Q, H, W): queries (R, Q, C) by the features (B, C, H, W) of their image `of` (R,), rows of an
    image one after the other. One product an image: no copy of its features for each of its rows.

    >>> on_pixels(torch.tensor([[[2.0]], [[3.0]]]), torch.tensor([[[[1.0]]], [[[5.0]]]]), torch.tensor([0, 1])).tolist()
    [[[[2.0]]], [[[15.0]]]]
    """
    count = torch.bincount(of, minlength=len(pixels))
    slot = torch.arange(len(of), device=of.device) - (count.cumsum(0) - count)[of]
    rows = queries.new_zeros(len(pixels), int(count.max()), *queries.shape[1:])
    rows[of, slot] = queries
    made = rows.flatten(1, 2) @ pixels.flatten(2)
    return made.reshape(*rows.shape[:3], *pixels.shape[2:])[of, slot]


def drawn(vectors: Tensor, pixels: Tensor, of: Tensor) -> Tensor:
    """Mask logits (R, Q, H, W) of mask vectors (R, Q, C + 1), whose last entry is the same on all pixels: how a query
    says that its object is not there."""
    return on_pixels(vectors[..., :-1], pixels, of) + vectors[..., -1:, None]


def allowed(masks: Tensor, side: tuple[int, ...]) -> Tensor:
    """(R, Q, h * w) bool: which keys of a map of `side` a query may read, by its mask logits (R, Q, H, W).

    >>> allowed(torch.tensor([[[[9.0, -9.0]], [[-9.0, -9.0]]]]), (1, 2)).tolist()  # the second would see nothing
    [[[True, False], [True, True]]]
    """
    small = functional.interpolate(masks.detach(), size=side, mode="bilinear", align_corners=False)
    seen = small.flatten(2) >= 0  # sigmoid >= 0.5
    return seen | ~seen.any(2, keepdim=True)


def places(grid: Tensor) -> Tensor:
    """Sine and cosine positions (1, h * w, width) of a map (B, width, h, w)."""
    width, (h, w) = grid.shape[1], grid.shape[2:]
    rate = 10000 ** (-torch.arange(0, width, 4, device=grid.device) / width)
    parts = []
    for n, axis in ((h, 0), (w, 1)):
        turn = 6.2832 * (torch.arange(n, device=grid.device) + 0.5)[:, None] / n * rate
        both = torch.cat([turn.sin(), turn.cos()], 1)
        parts.append((both[:, None] if axis == 0 else both[None]).expand(h, w, -1))
    return torch.cat(parts, 2).flatten(0, 1)[None].to(grid.dtype)


class Patched(Net):
    """A plain `GatedUNet` on patches of `patch` x `patch` pixels, which are its channels; the patches of its answer are
    put together again, to full size. So its time goes to coarse levels, where shapes are told apart."""

    kind: ClassVar[str] = "query_decoder:Patched"

    def __init__(
        self, channels: int = 3, classes: int = 2, widths: Sequence[int] = (32, 64), bottleneck: int = 64,
        norm: Norm = "batch", patch: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        area = patch**2
        self.body = GatedUNet(channels * area, classes * area, widths, bottleneck, "none", norm)
        self.dims, self.channels, self.classes, self.patch = 2, channels, classes, patch
        self.width, self.multiple = bottleneck, patch * self.body.multiple

    def forward(self, image: Tensor, condition: Condition | None = None) -> Maps:
        """Maps of (B, C, *S); `features` are the U-Net's, the finest of them S / patch."""
        maps: Maps = self.body(functional.pixel_unshuffle(image, self.patch))
        return Maps(functional.pixel_shuffle(maps.logits, self.patch), features=maps.features)

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        b = self.body
        return {
            "channels": self.channels, "classes": self.classes, "widths": list(b.widths), "bottleneck": b.width,
            "norm": b.norm, "patch": self.patch,
        }  # fmt: skip


class PromptNet(Net):
    """An image and prompts -> a mask a prompt: `logits` (B, K, *S), `extra["score"]` (B, K), the similarity of
    the query that answered.

    The encoder and pixel decoder are a `Patched` U-Net whose last maps are the mask features; its three coarsest levels
    are what queries attend to. Each prompt has its own copy of the queries, so its mask depends on no other prompt; the
    encoder still runs once. The condition holds tokens (B, K, T, D), valid (B, K, T), vector (B, K, D).
    """

    kind: ClassVar[str] = "query_decoder:PromptNet"

    def __init__(
        self, channels: int = 3, text: int = 512, widths: Sequence[int] = (64, 128, 256, 512), bottleneck: int = 512,
        masks: int = 512, width: int = 512, queries: int = 101, layers: int = 9, heads: int = 8,
        feedforward: int = 2048, norm: Norm = "batch", patch: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.body = Patched(channels, masks, widths, bottleneck, norm, patch)
        self.dims, self.channels, self.width, self.multiple = 2, channels, bottleneck, self.body.multiple
        self.inward = nn.ModuleList(nn.Conv2d(n, width, 1) for n in (bottleneck, *reversed(tuple(widths)))[:3])
        self.decoder = QueryDecoder(width, text, masks, queries, layers, heads, feedforward, len(self.inward))
        self.tau = nn.Parameter(torch.tensor(2.0))
        self.made = {"text": text, "masks": masks, "width": width, "layers": layers, "feedforward": feedforward}

    def look(self, image: Tensor) -> Maps:
        """Mask features as `logits` (B, masks, *S) and the maps of the encoder, once for any number of prompts."""
        made: Maps = self.body(image)
        return made

    def decode(self, seen: Maps, tokens: Tensor, valid: Tensor, of: Tensor, alone: bool = True) -> list[Set]:
        """The sets of R rows on images `of` (R,), see `QueryDecoder`."""
        maps = [f(m) for f, m in zip(self.inward, reversed(seen.features), strict=False)]
        return self.decoder(maps, seen.logits, tokens, valid, of, alone)  # type: ignore[no-any-return]

    def draw(self, vectors: Tensor, pixels: Tensor, of: Tensor) -> Tensor:
        """Mask logits of mask vectors on mask features, see `drawn`."""
        return drawn(vectors, pixels, of)

    def similar(self, vectors: Tensor, prompts: Tensor) -> Tensor:
        """exp(tau) x cosine of queries (R, Q, D) and unit prompts (R, K, D): (R, Q, K); tau at most log 100."""
        cosine = functional.normalize(vectors, dim=-1) @ prompts.transpose(1, 2)
        return cosine * self.tau.clamp(max=4.6052).exp()

    def forward(self, image: Tensor, condition: Condition | None = None) -> Maps:
        """Maps of (B, C, *S); without a condition there is no logit, only features."""
        seen = self.look(image)
        if condition is None:
            return Maps(image.new_zeros((len(image), 0, *image.shape[2:])), features=seen.features)
        return self.answer(seen, condition)

    def answer(self, seen: Maps, condition: Condition) -> Maps:
        """Maps of images that were encoded before."""
        tokens, valid, vector = condition.tokens, condition.valid, condition.vector
        if tokens is None or valid is None or vector is None or tokens.ndim != 4:
            raise UsageError("prompts come as tokens (B, K, T, D), valid (B, K, T) and vector (B, K, D)")
        b, k = tokens.shape[:2]
        of = torch.arange(b, device=tokens.device).repeat_interleave(k)
        masks, vectors = self.decode(seen, tokens.flatten(0, 1), valid.flatten(0, 1), of)[-1]
        scores, best = self.similar(vectors, vector.reshape(b * k, 1, -1)).squeeze(2).max(1)
        chosen = drawn(masks[torch.arange(b * k), best][:, None], seen.logits, of)
        logits = chosen.reshape(b, k, *chosen.shape[2:])
        return Maps(logits, features=seen.features, extra={"score": scores.reshape(b, k)})

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        b, d = self.body.arguments(), self.decoder
        same = {k: b[k] for k in ("channels", "widths", "bottleneck", "norm", "patch")}
        return {**same, "queries": d.queries, "heads": d.heads, **self.made}
