"""Images and volumes on a grid that masks share: one set of voxels from file to net, and back to the file's grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fabrica.encode import Plain
from fabrica.errors import Refused, UsageError
from fabrica.types import Item

Scale = Literal["robust", "zscore", "percentile"] | tuple[float, float]
F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class GridEncode(Plain):
    """An image (H, W[, 1|3|4]) or a volume (X, Y, Z) -> (channels, *size) float32, cropped or padded about its centre.

    Pixels keep their size: nothing is stretched. Volumes are turned to axes R, A, S and brought to `spacing` (mm a
    voxel, trilinear; None = the file's own). `scale` of intensities: "robust" (x - median) / IQR, "zscore"
    (x - mean) / sd, "percentile" the 0.5th to 99.5th onto 0..1, or a window (low, high) in the item's unit onto 0..1;
    statistics are of the voxels above `above` (None = all: say it for CT, where 0 HU is water). Padding is 0.
    `labels` puts a mask on the same grid by nearest neighbour, `inside` says what is no padding, `restore` brings maps
    of the whole grid back to the item's own.

    Errors: `Refused("image_shape" | "volume_shape" | "image_nonfinite" | "mask_shape")`.

    >>> from fabrica.types import Item, Origin
    >>> item = Item("image", np.arange(12.0).reshape(3, 4), Origin("demo", "a", "", ""))
    >>> grid = GridEncode((4, 4), scale=(0.0, 11.0))
    >>> grid(item, np.random.default_rng(0)).shape, grid.inside(item).sum(), grid.whole(item).shape
    ((1, 4, 4), np.int64(12), (1, 3, 4))
    """

    size: tuple[int, ...]
    channels: int = 1
    spacing: tuple[float, ...] | None = None
    scale: Scale = "robust"
    above: float | None = None

    def __post_init__(self) -> None:
        if len(self.size) not in (2, 3) or min(self.size) < 1 or self.channels not in (1, 3):
            raise UsageError(f"a grid has two or three sides and 1 or 3 channels; got {self.size} and {self.channels}")
        if self.spacing is not None and (len(self.size) != 3 or len(self.spacing) != 3 or min(self.spacing) <= 0):
            raise UsageError(f"spacing {self.spacing} wants three lengths in mm and a grid of three sides")
        if not isinstance(self.scale, str) and not self.scale[0] < self.scale[1]:
            raise UsageError(f"scale {self.scale} needs low < high")

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, *size)."""
        return (self.channels, *self.size)

    def __call__(self, item: Item, rng: np.random.Generator, /) -> F32:
        return centred(self.whole(item), self.size)

    def whole(self, item: Item) -> F32:
        """(channels, *S): the whole item on this grid, neither cropped nor padded."""
        if len(self.size) == 3:
            return self._scaled(self._resampled(self._volume(item)[0][None], item), item)
        from fabrica.encode.image import plane

        pixels = np.asarray(plane(item), np.float32)
        if pixels.ndim == 3 and self.channels == 1:
            pixels = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
        planes = np.moveaxis(pixels, -1, 0) if pixels.ndim == 3 else np.stack([pixels] * self.channels)
        return self._scaled(np.ascontiguousarray(planes), item)

    def labels(self, mask: NDArray[Any], item: Item | None = None) -> NDArray[Any]:
        """A mask of the item's own spatial shape on the grid (*size), 0 outside it. Without an item the mask's own grid
        is taken as R, A, S and 1 mm."""
        if item is not None and mask.shape != self.sides(item):
            raise Refused("mask_shape", f"a mask {mask.shape} on an item {self.sides(item)}: {item.origin.key!r}")
        made: NDArray[Any] = centred(self.whole_labels(mask, item)[None], self.size)[0]
        return made

    def whole_labels(self, mask: NDArray[Any], item: Item | None = None) -> NDArray[Any]:
        """The mask on the whole grid (*S)."""
        if mask.ndim != len(self.size):
            raise Refused("mask_shape", f"a mask of shape {mask.shape} on a grid of {len(self.size)} axes")
        if mask.ndim == 2:
            return mask
        if item is not None:
            from fabrica.encode.volume import canonical

            mask = canonical(mask, _affine(item))[0]
        if self.spacing is None or item is None:
            return np.ascontiguousarray(mask)
        import torch
        from torch.nn import functional

        flat = torch.from_numpy(np.ascontiguousarray(mask).astype(np.float32))[None, None]
        near = functional.interpolate(flat, size=self._target(mask.shape, item), mode="nearest-exact")
        return np.asarray(near[0, 0].numpy(), mask.dtype)

    def inside(self, item: Item | None, shape: tuple[int, ...] | None = None) -> NDArray[np.bool_]:
        """(*size) bool: where the grid shows the item (or an array of `shape`) and not padding."""
        sides = self.sides(item) if item is not None else tuple(shape or ())
        return self.labels(np.ones(sides, bool), item)

    def sides(self, item: Item) -> tuple[int, ...]:
        """The item's own spatial shape."""
        from fabrica.encode.image import plane

        return tuple(self._own(item).shape if len(self.size) == 3 else plane(item).shape[:2])

    def restore(self, maps: F32, item: Item) -> F32:
        """Maps (K, *S) of the whole grid on the item's own: (K, *shape). Inverse of `whole` but for interpolation."""
        if len(self.size) == 2:
            return maps
        from fabrica.encode.volume import canonical

        own = self._own(item).shape
        index = canonical(np.arange(int(np.prod(own))).reshape(own), _affine(item))[0]
        if maps.shape[1:] != index.shape:
            import torch
            from torch.nn import functional

            flat = torch.from_numpy(np.ascontiguousarray(maps))[None]
            maps = functional.interpolate(flat, size=index.shape, mode="trilinear", align_corners=False)[0].numpy()
        out = np.empty((len(maps), index.size), np.float32)
        out[:, index.ravel()] = maps.reshape(len(maps), -1)
        return out.reshape(len(maps), *own)

    def mm(self, item: Item) -> tuple[float, ...]:
        """Lengths of a voxel of the item's own grid, in mm (1 where nothing is known)."""
        if item.affine is None:
            return (1.0,) * len(self.size)
        return tuple(float(v) for v in np.linalg.norm(item.affine[:3, :3], axis=0)[: len(self.size)])

    def _own(self, item: Item) -> NDArray[Any]:
        array = item.array()
        if array.ndim == 4 and array.shape[3] == 1:
            array = array[..., 0]
        if array.ndim != 3 or 0 in array.shape:
            raise Refused("volume_shape", f"volume {item.origin.key!r} has shape {array.shape}, wanted (X, Y, Z)")
        return array

    def _volume(self, item: Item) -> tuple[F32, NDArray[np.float64]]:
        from fabrica.encode.volume import canonical

        turned, affine = canonical(self._own(item), _affine(item))
        return np.ascontiguousarray(turned, np.float32), affine

    def _target(self, shape: tuple[int, ...], item: Item) -> tuple[int, ...]:
        from fabrica.encode.volume import canonical

        affine = canonical(np.empty((1, 1, 1)), _affine(item))[1]
        mm = np.linalg.norm(affine[:3, :3], axis=0)
        assert self.spacing is not None
        return tuple(max(1, round(n * a / b)) for n, a, b in zip(shape, mm, self.spacing, strict=True))

    def _resampled(self, volume: F32, item: Item) -> F32:
        if self.spacing is None:
            return volume
        import torch
        from torch.nn import functional

        size = self._target(volume.shape[1:], item)
        made: F32 = functional.interpolate(
            torch.from_numpy(volume)[None], size=size, mode="trilinear", align_corners=False
        )[0].numpy()
        return made

    def _scaled(self, values: F32, item: Item) -> F32:
        if not np.isfinite(values).all():
            raise Refused("image_nonfinite", f"{item.kind} {item.origin.key!r} holds NaN or infinite voxels")
        seen = values.reshape(-1)
        if self.above is not None:
            seen = seen[seen > self.above]
            seen = seen if len(seen) else values.reshape(-1)
        if not isinstance(self.scale, str):
            low, high = self.scale
            return np.asarray(np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1), np.float32)
        if self.scale == "zscore":
            middle, wide = seen.mean(), seen.std()
        elif self.scale == "robust":
            quarter, middle, upper = np.percentile(seen, (25, 50, 75))
            wide = upper - quarter or seen.std()
        else:
            low, high = np.percentile(seen, (0.5, 99.5))
            return np.asarray(np.clip((values - low) / max(high - low, 1e-8), 0, 1), np.float32)
        return np.asarray((values - np.float32(middle)) / np.float32(max(float(wide), 1e-8)), np.float32)

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON."""
        return {"type": "grid", **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> GridEncode:
        """The inverse of `to_json`."""
        rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "type"}
        return cls(**rest)


def _affine(item: Item) -> NDArray[np.float64]:
    return np.eye(4) if item.affine is None else item.affine


def centred(grid: NDArray[Any], size: tuple[int, ...]) -> NDArray[Any]:
    """(C, *any) -> (C, *size), cropped or zero-padded about the centre."""
    if grid.shape[1:] == tuple(size):
        return grid
    out = np.zeros((len(grid), *size), grid.dtype)
    to, of = [slice(None)], [slice(None)]
    for have, want in zip(grid.shape[1:], size, strict=True):
        both = min(have, want)
        of.append(slice((have - both) // 2, (have - both) // 2 + both))
        to.append(slice((want - both) // 2, (want - both) // 2 + both))
    out[tuple(to)] = grid[tuple(of)]
    return out
