"""A small convolutional reader of pictures: findings as logits, and the features beneath them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.types import Field


class PictureReader(nn.Module):
    """Images (n, channels, side, side) -> `features` (n, width) and `labels` logits. Three convolutions of stride 2,
    then a layer over places, so that it can tell sides.

    `embed` answers as `objectives.labels.Labels` asks.
    """

    def __init__(
        self, labels: int, side: int = 32, channels: int = 1, widths: Sequence[int] = (16, 24, 32), width: int = 32
    ) -> None:
        super().__init__()
        if side % 2 ** len(widths):
            raise UsageError(f"a side of {side} is no multiple of {2 ** len(widths)}")
        self.side, self.channels, self.width = side, channels, width
        layers: list[nn.Module] = []
        for a, b in zip((channels, *widths[:-1]), widths, strict=True):
            layers += [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.ReLU()]
        small = side // 2 ** len(widths)
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.neck = nn.Linear(widths[-1] * small * small, width)
        self.head = nn.Linear(width, labels)

    def features(self, images: Tensor) -> Tensor:
        """(n, width), before the last non-linearity."""
        return cast(Tensor, self.neck(self.body(images)))

    def forward(self, images: Tensor) -> Tensor:
        """(n, labels) logits."""
        return cast(Tensor, self.head(self.features(images).relu()))

    def embed(self, fields: Mapping[str, Field]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Logits and presence by field."""
        made = {name: self(field.values[:, 0]) for name, field in fields.items()}
        return made, {name: field.valid[:, 0] for name, field in fields.items()}


def pixels(images: object, device: torch.device | None = None) -> Tensor:
    """Pictures (n, H, W) or (n, H, W, C), uint8 or floats in 0..1, as (n, C, H, W) float32 in [-1, 1]."""
    held = torch.as_tensor(images, device=device)
    values = held.float() / 255 if held.dtype == torch.uint8 else held.float()
    values = values[:, None] if values.ndim == 3 else values.permute(0, 3, 1, 2)
    return values * 2 - 1
