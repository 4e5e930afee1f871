"""Residual networks over signals: along time (1-D), or over time x leads as a picture (Symile's ECG tower)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.models.body import Body, Tokens


class SignalTower(Body):
    """Signals (n, leads, samples) -> (n, time, D) tokens in order of time.

    `layout` "time": 1-D convolutions whose channels are the leads. `layout` "picture": the signal is one channel of
    samples x leads, read by 2-D convolutions, as the ResNet with a one-channel first convolution of arXiv 2411.01053
    reads 1 x 5000 x 12; leads are then averaged. Two residual convolutions a width, stride 2 each; the stem has
    stride 4 along time. GroupNorm, so that nothing depends on the batch.
    """

    kind: ClassVar[str] = "signal"

    def __init__(
        self, leads: int = 12, widths: Sequence[int] = (32, 64, 128), layout: Literal["time", "picture"] = "time"
    ) -> None:
        super().__init__()
        if layout not in ("time", "picture"):
            raise UsageError(f"layout {layout!r} is none of time, picture")
        self.leads, self.widths, self.layout, self.width = leads, tuple(widths), layout, widths[-1]
        conv = nn.Conv1d if layout == "time" else nn.Conv2d
        along: Any = 4 if layout == "time" else (4, 1)
        kernel: Any = 15 if layout == "time" else (15, 3)
        pad: Any = 7 if layout == "time" else (7, 1)
        self.stem = nn.Sequential(
            conv(leads if layout == "time" else 1, widths[0], kernel, stride=along, padding=pad, bias=False),
            nn.GroupNorm(8 if widths[0] % 8 == 0 else 1, widths[0]), nn.ReLU(),
        )  # fmt: skip
        pairs = zip((widths[0], *widths[:-1]), widths, strict=True)
        self.blocks = nn.ModuleList(Residual(conv, a, b, 7 if layout == "time" else 3) for a, b in pairs)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        """(n, time, D)."""
        x = values if self.layout == "time" else values.transpose(1, 2)[:, None]
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        x = x if self.layout == "time" else x.mean(3)
        return Tokens(x.transpose(1, 2))

    @property
    def layers(self) -> tuple[str, ...]:
        """The residual blocks."""
        return tuple(f"blocks.{i}" for i in range(len(self.blocks)))

    def check(self, shape: tuple[int, ...] | None, size: int | None) -> None:
        if shape is None or len(shape) != 2 or shape[0] != self.leads:
            raise UsageError(f"this tower reads (leads, samples) of {self.leads} leads; the field gives {shape}")

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this body again."""
        return {"kind": self.kind, "leads": self.leads, "widths": list(self.widths), "layout": self.layout}


class Residual(nn.Module):
    """Two convolutions and a shortcut, stride 2, channels `a` -> `b` (He et al., arXiv 1512.03385)."""

    def __init__(self, conv: Any, a: int, b: int, kernel: int) -> None:
        super().__init__()
        groups = 8 if b % 8 == 0 else 1
        self.way = nn.Sequential(
            conv(a, b, kernel, stride=2, padding=kernel // 2, bias=False), nn.GroupNorm(groups, b), nn.ReLU(),
            conv(b, b, kernel, padding=kernel // 2, bias=False), nn.GroupNorm(groups, b),
        )  # fmt: skip
        self.short = nn.Sequential(conv(a, b, 1, stride=2, bias=False), nn.GroupNorm(groups, b))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(n, a, ...) -> (n, b, ...) at half the size."""
        made: Tensor = self.act(self.way(x) + self.short(x))
        return made
