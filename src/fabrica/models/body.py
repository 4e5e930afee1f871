"""What a tower is built around: a body turns arrays into tokens; the table of bodies; pools over tokens."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError, unknown

Pool = Literal["cls", "max", "mean", "last", "attention"]

BODIES: dict[str, str] = {  # the name in config.json -> where its class is
    "transformers": "fabrica.models.transformers_tower:TransformersTower",
    "text": "fabrica.models.text_tower:TextTower",
    "conv": "fabrica.models.small:ConvTower",
    "volume": "fabrica.models.small:VolumeTower",
    "signal": "fabrica.models.signal_tower:SignalTower",
    "table": "fabrica.models.small:TableTower",
    "linear": "fabrica.models.small:LinearTower",
}


class Tokens(NamedTuple):
    """`values` (n, L, D), `mask` (n, L) bool or None = all real, `grid` (h, w) of the image tokens after `prefix`."""

    values: Tensor
    mask: Tensor | None = None
    grid: tuple[int, int] | None = None
    prefix: int = 0


class Body(nn.Module):
    """Arrays (n, *shape), and for tokens their mask (n, L), -> `Tokens` of `width`.

    `layers` names the submodules that `freeze_layers` counts, first to last; what is registered before the first of
    them (embeddings, stem) freezes with it. `reads` says what the arrays are.
    """

    kind: ClassVar[str]
    width: int
    reads: str = "values"  # "image" | "tokens" | "values"
    has_class_token: bool = False

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        raise NotImplementedError

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return ()

    def check(self, shape: tuple[int, ...] | None, size: int | None) -> None:
        """An error where arrays of `shape` (None = tokens below `size`) cannot be read."""

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this body again."""
        raise NotImplementedError

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "kind"})


def body_from_json(data: Mapping[str, Any]) -> Body:
    """The body (random weights) that `to_json` described."""
    kind = data.get("kind")
    if kind not in BODIES:
        raise unknown("kind of tower", str(kind), BODIES)
    module, _, name = BODIES[kind].partition(":")
    made: Body = getattr(importlib.import_module(module), name).from_json(data)
    return made


class Pooling(nn.Module):
    """Tokens (n, L, D) -> (n, D), blind to masked positions.

    "cls" takes the first token; "last" the last real one; "mean" and "max" go over real tokens, of an image over those
    after the prefix; "attention" is a softmax over the same tokens of their product with a learned query.
    """

    def __init__(self, how: Pool, body: Body) -> None:
        super().__init__()
        if how not in ("cls", "max", "mean", "last", "attention"):
            raise UsageError(f"pool {how!r} is none of cls, max, mean, last, attention")
        if how == "cls" and not body.has_class_token:
            raise UsageError(f"pool 'cls' needs a body with a class token; a {body.kind!r} body has none: use 'mean'")
        self.how = how
        self.query = nn.Parameter(torch.zeros(body.width)) if how == "attention" else None

    def forward(self, tokens: Tokens) -> Tensor:
        """(n, D)."""
        values, mask = tokens.values, tokens.mask
        if self.how == "cls":
            return values[:, 0]
        if self.how == "last":
            if mask is None:
                return values[:, -1]
            at = torch.arange(mask.shape[1], device=mask.device).expand_as(mask).masked_fill(~mask, -1).amax(1)
            return values[torch.arange(len(values), device=values.device), at]
        values = values[:, tokens.prefix :]
        mask = None if mask is None else mask[:, tokens.prefix :]
        if self.how == "max":
            return (values if mask is None else values.masked_fill(~mask[..., None], float("-inf"))).amax(1)
        if self.how == "attention":
            scores = values @ self.query.to(values.dtype) / values.shape[-1] ** 0.5  # type: ignore[union-attr]
            weights = (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(1)
            return torch.einsum("nl,nld->nd", weights, values)
        if mask is None:
            return values.mean(1)
        share = mask.to(values.dtype)[..., None]
        return (values * share).sum(1) / share.sum(1)
