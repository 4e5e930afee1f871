"""Small bodies that train on a CPU: 2-D and 3-D convolutions, tables, one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from fabrica.errors import UsageError
from fabrica.models.body import Body, Tokens


class ConvTower(Body):
    """Images (n, channels, H, W) -> a grid of tokens: `len(widths)` 3x3 convolutions, all but the last of stride 2.

    64x64 gives an 8x8 grid with the default widths. `norm`: "group" (8 groups; independent of the batch, so that it
    works with a gradient cache) or "batch".
    """

    kind: ClassVar[str] = "conv"

    def __init__(
        self, channels: int = 1, widths: Sequence[int] = (24, 48, 72, 96), norm: Literal["group", "batch"] = "group"
    ) -> None:
        super().__init__()
        self.channels, self.widths, self.norm, self.width, self.reads = (
            channels,
            tuple(widths),
            norm,
            widths[-1],
            "image",
        )
        self.blocks = nn.ModuleList(_convs(nn.Conv2d, channels, self.widths, norm))

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        """(n, h * w, D) tokens in rows from the top left."""
        for block in self.blocks:
            values = block(values)
        return Tokens(values.flatten(2).transpose(1, 2), grid=(values.shape[2], values.shape[3]))

    @property
    def layers(self) -> tuple[str, ...]:
        """The convolution blocks."""
        return tuple(f"blocks.{i}" for i in range(len(self.blocks)))

    def check(self, shape: tuple[int, ...] | None, size: int | None) -> None:
        _wanted(shape, 3, self.channels, "image (channels, height, width)")

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this body again."""
        return {"kind": self.kind, "channels": self.channels, "widths": list(self.widths), "norm": self.norm}


class VolumeTower(Body):
    """Volumes (n, channels, X, Y, Z) -> (n, x * y * z, D) tokens: 3x3x3 convolutions, all but the last of stride 2."""

    kind: ClassVar[str] = "volume"

    def __init__(self, channels: int = 1, widths: Sequence[int] = (16, 32, 64, 96)) -> None:
        super().__init__()
        self.channels, self.widths, self.width = channels, tuple(widths), widths[-1]
        self.blocks = nn.ModuleList(_convs(nn.Conv3d, channels, self.widths, "group"))

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        """(n, x * y * z, D)."""
        for block in self.blocks:
            values = block(values)
        return Tokens(values.flatten(2).transpose(1, 2))

    @property
    def layers(self) -> tuple[str, ...]:
        """The convolution blocks."""
        return tuple(f"blocks.{i}" for i in range(len(self.blocks)))

    def check(self, shape: tuple[int, ...] | None, size: int | None) -> None:
        _wanted(shape, 4, self.channels, "volume (channels, X, Y, Z)")

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this body again."""
        return {"kind": self.kind, "channels": self.channels, "widths": list(self.widths)}


class TableTower(Body):
    """Rows (n, inputs), values and flags, -> one token: an MLP with GELU and dropout.

    Symile's laboratory tower is `TableTower(100, (256, 1024))` under a head (1024, d) (arXiv 2411.01053).
    """

    kind: ClassVar[str] = "table"

    def __init__(self, inputs: int, widths: Sequence[int] = (256, 1024), dropout: float = 0.0) -> None:
        super().__init__()
        self.inputs, self.widths, self.dropout, self.width = inputs, tuple(widths), dropout, widths[-1]
        pairs = zip((inputs, *widths[:-1]), widths, strict=True)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(a, b), nn.GELU(), nn.Dropout(dropout)) for a, b in pairs)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        """(n, 1, D)."""
        for block in self.blocks:
            values = block(values)
        return Tokens(values[:, None])

    @property
    def layers(self) -> tuple[str, ...]:
        """The linear layers."""
        return tuple(f"blocks.{i}" for i in range(len(self.blocks)))

    def check(self, shape: tuple[int, ...] | None, size: int | None) -> None:
        _wanted(shape, 1, self.inputs, "row (inputs,)")

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this body again."""
        return {"kind": self.kind, "inputs": self.inputs, "widths": list(self.widths), "dropout": self.dropout}


class LinearTower(Body):
    """Rows (n, inputs) -> one token of `width`: a single linear layer (Symile's synthetic experiment)."""

    kind: ClassVar[str] = "linear"

    def __init__(self, inputs: int, width: int, bias: bool = True) -> None:
        super().__init__()
        self.inputs, self.width, self.bias = inputs, width, bias
        self.layer = nn.Linear(inputs, width, bias=bias)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tokens:
        """(n, 1, width)."""
        return Tokens(self.layer(values)[:, None])

    @property
    def layers(self) -> tuple[str, ...]:
        """The one layer."""
        return ("layer",)

    def check(self, shape: tuple[int, ...] | None, size: int | None) -> None:
        _wanted(shape, 1, self.inputs, "row (inputs,)")

    def to_json(self) -> dict[str, Any]:
        """The arguments that make this body again."""
        return {"kind": self.kind, "inputs": self.inputs, "width": self.width, "bias": self.bias}


def _convs(conv: type[nn.Module], channels: int, widths: tuple[int, ...], norm: str) -> list[nn.Module]:
    if norm not in ("group", "batch"):
        raise UsageError(f"norm {norm!r} is none of group, batch")
    made: list[nn.Module] = []
    for i, (a, b) in enumerate(zip((channels, *widths[:-1]), widths, strict=True)):
        stride = 2 if i < len(widths) - 1 else 1
        three = conv is nn.Conv3d
        batch = nn.BatchNorm3d(b) if three else nn.BatchNorm2d(b)
        after: nn.Module = batch if norm == "batch" else nn.GroupNorm(8 if b % 8 == 0 else 1, b)
        made.append(nn.Sequential(conv(a, b, 3, stride=stride, padding=1, bias=False), after, nn.ReLU()))
    return made


def _wanted(shape: tuple[int, ...] | None, axes: int, first: int, what: str) -> None:
    if shape is None or len(shape) != axes or shape[0] != first:
        got = "token ids" if shape is None else shape
        raise UsageError(f"this tower reads one {what} with first axis {first}; the field gives {got}")
