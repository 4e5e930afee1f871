"""A U-Net whose decoder can be gated: by its own coarse segmentation (adversarial attention gates), or additively."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fabrica.errors import UsageError
from fabrica.models.dense import Condition, Maps, Net

Gates = Literal["adversarial", "additive", "none"]
Norm = Literal["batch", "instance", "group"]


class GatedUNet(Net):
    """U-Net (Ronneberger 2015) in 2-D or 3-D: max-pooling, `len(widths)` levels over a bottleneck of 1x1 convolutions,
    nearest-neighbour up-sampling.

    `gates` "adversarial" (Valvano, Leo, Tsaftaris, arXiv 2007.01152): at each decoder depth h1, h2 = two conv-norm-ReLU
    maps, a = softmax(conv1(h1)) (B, K, *S/2^d), and h2 times 1 - a_background goes on; `levels` are the logits of a at
    1/2, 1/4, ...; that of full size is `extra["gate"]`. "additive" gates the skips (Oktay et al., arXiv 1804.03999;
    MONAI's block); "none" is the plain U-Net. Sides are multiples of 2^len(widths).
    """

    kind: ClassVar[str] = "gated_unet:GatedUNet"

    def __init__(
        self, channels: int = 1, classes: int = 4, widths: Sequence[int] = (32, 64, 128, 256), bottleneck: int = 512,
        gates: Gates = "adversarial", norm: Norm = "batch", dims: int = 2,
    ) -> None:  # fmt: skip
        super().__init__()
        if gates not in ("adversarial", "additive", "none") or dims not in (2, 3) or not widths or classes < 2:
            raise UsageError(f"a U-Net with gates {gates!r} in {dims} axes, {classes} classes, widths {tuple(widths)}")
        self.channels, self.classes, self.widths, self.width = channels, classes, tuple(widths), bottleneck
        self.gates, self.norm, self.dims = gates, norm, dims
        self.multiple = 2 ** len(self.widths)
        self.down = nn.ModuleList()
        for a, b in zip((channels, *self.widths[:-1]), self.widths, strict=True):
            self.down.append(nn.Sequential(_conv(dims, a, b, 3, norm), _conv(dims, b, b, 3, norm)))
        self.bottom = nn.Sequential(
            _conv(dims, self.widths[-1], bottleneck, 1, norm), _conv(dims, bottleneck, bottleneck, 1, norm)
        )
        self.up = nn.ModuleList()
        for a, b in zip((*self.widths[1:], bottleneck), self.widths, strict=True):
            self.up.append(_Up(dims, a, b, classes, gates, norm))
        self.pool = nn.MaxPool2d(2) if dims == 2 else nn.MaxPool3d(2)
        self.last = (nn.Conv2d if dims == 2 else nn.Conv3d)(self.widths[0], classes, 1)

    def forward(self, image: Tensor, condition: Condition | None = None) -> Maps:
        """Maps of (B, C, *S); `features` are the encoder's levels and the bottleneck."""
        if any(n % self.multiple for n in image.shape[2:]):
            raise UsageError(f"sides {tuple(image.shape[2:])} are no multiples of {self.multiple}: use fit_size")
        skips = []
        x = image
        for level in self.down:
            x = level(x)
            skips.append(x)
            x = self.pool(x)
        x = self.bottom(x)
        features, gates = (*skips, x), []
        for up, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x, gate = up(x, skip)
            gates.append(gate)
        gates.reverse()
        logits = self.last(x)
        if self.gates != "adversarial":
            return Maps(logits, features=features)
        return Maps(logits, tuple(gates[1:]), features, {"gate": gates[0]})

    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "channels": self.channels, "classes": self.classes, "widths": list(self.widths), "bottleneck": self.width,
            "gates": self.gates, "norm": self.norm, "dims": self.dims,
        }  # fmt: skip


class _Up(nn.Module):
    """One decoder depth: up-sampled input and skip -> features, and the gate's logits where there is one."""

    def __init__(self, dims: int, inputs: int, width: int, classes: int, gates: Gates, norm: Norm) -> None:
        super().__init__()
        self.rise = _conv(dims, inputs, width, 3, norm)
        self.first = _conv(dims, 2 * width, width, 3, norm)
        self.second = _conv(dims, width, width, 3, norm)
        self.gate: nn.Module | None = None
        self.attend: nn.Module | None = None
        if gates == "adversarial":
            self.gate = (nn.Conv2d if dims == 2 else nn.Conv3d)(width, classes, 1)
        elif gates == "additive":
            from monai.networks.nets.attentionunet import AttentionBlock

            self.attend = AttentionBlock(dims, f_int=max(1, width // 2), f_g=width, f_l=width)

    def forward(self, x: Tensor, skip: Tensor) -> tuple[Tensor, Tensor | None]:
        x = self.rise(functional.interpolate(x, scale_factor=2, mode="nearest"))
        if self.attend is not None:
            skip = self.attend(g=x, x=skip)
        h1 = self.first(torch.cat([skip, x], 1))
        h2 = self.second(h1)
        if self.gate is None:
            return h2, None
        logits = self.gate(h1)
        return h2 * (1 - logits.softmax(1)[:, :1]), logits


def _conv(dims: int, inputs: int, outputs: int, kernel: int, norm: Norm) -> nn.Module:
    """Convolution, norm, ReLU (MONAI's block)."""
    from monai.networks.blocks.convolutions import Convolution

    kinds: dict[str, Any] = {
        "batch": "BATCH", "instance": ("INSTANCE", {"affine": True}),
        "group": ("GROUP", {"num_groups": 4 if outputs % 4 == 0 else 1}),
    }  # fmt: skip
    if norm not in kinds:
        raise UsageError(f"norm {norm!r} is none of {', '.join(kinds)}")
    return Convolution(dims, inputs, outputs, kernel_size=kernel, norm=kinds[norm], act="RELU", bias=norm != "batch")
