"""Pictures stretched onto one grid, aspect not kept, and masks with them; answers go back to the picture's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode.grid import F32, GridEncode
from fabrica.errors import Refused, UsageError
from fabrica.types import Item

BYTES = (0.0, 255.0)


@dataclass(frozen=True, slots=True)
class StretchEncode(GridEncode):
    """A `GridEncode` of pictures that resizes where that crops or pads: bilinear with antialiasing for the picture,
    nearest neighbour for masks, bilinear for maps on their way back.

    `scale` (0, 255) is for 8-bit pictures alone: other depths have no such window and are `Refused("window")`, so a
    16-bit or float picture is read with a window that somebody chose (or "percentile").
    """

    def __post_init__(self) -> None:
        GridEncode.__post_init__(self)
        if len(self.size) != 2:
            raise UsageError(f"pictures are stretched onto a grid of two sides; got {self.size}")

    def whole(self, item: Item) -> F32:
        """(channels, *size)."""
        import torch
        from torch.nn import functional

        if self.scale == BYTES and item.array().dtype != np.uint8:
            raise Refused("window", f"picture {item.origin.key!r} is {item.array().dtype}: the window {BYTES} is for "
                          "8 bits; choose scale=(low, high) or 'percentile'")  # fmt: skip
        picture = torch.from_numpy(GridEncode.whole(self, item))[None]
        if tuple(picture.shape[2:]) != self.size:
            picture = functional.interpolate(picture, size=self.size, mode="bilinear", antialias=True)
        made: F32 = np.ascontiguousarray(picture[0].numpy())
        return made

    def whole_labels(self, mask: NDArray[Any], item: Item | None = None) -> NDArray[Any]:
        """The mask (*size)."""
        if mask.ndim != 2:
            raise Refused("mask_shape", f"a mask of shape {mask.shape} on a grid of two axes")
        rows, columns = ((np.arange(n) + 0.5) * have / n for n, have in zip(self.size, mask.shape, strict=True))
        return np.ascontiguousarray(mask[rows.astype(int)[:, None], columns.astype(int)])

    def restore(self, maps: F32, item: Item) -> F32:
        """Maps (K, *size) on the item's own grid (K, H, W)."""
        import torch
        from torch.nn import functional

        own = self.sides(item)
        if maps.shape[1:] == own:
            return maps
        flat = torch.from_numpy(np.ascontiguousarray(maps))[None]
        back: F32 = functional.interpolate(flat, size=own, mode="bilinear", align_corners=False)[0].numpy()
        return back

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON."""
        return {**asdict(self), "type": "stretch"}
