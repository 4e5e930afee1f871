"""Volumes to (1, X, Y, Z) float32: RAS axes, one spacing, an intensity window, cropped or padded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode import Plain
from fabrica.errors import Refused, UsageError
from fabrica.types import Item


@dataclass(frozen=True, slots=True)
class VolumeEncode(Plain):
    """A volume (X, Y, Z) with its affine -> (1, *size) float32 in 0..1, axes R, A, S.

    `spacing` in mm a voxel (None: the whole volume is stretched onto `size`); `window` (low, high) in the item's unit,
    None = the 0.5th and 99.5th percentile. Errors: `Refused("volume_shape" | "volume_nonfinite" | "volume_affine")`.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if len(self.size) != 3 or min(self.size) < 1:
            raise UsageError(f"a volume's size is three numbers >= 1; got {self.size}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(1, X, Y, Z)."""
        return (1, *self.size)

    def __call__(self, item: Item, rng: np.random.Generator, /) -> NDArray[np.float32]:
        import torch
        from torch.nn import functional

        array = item.array()
        if array.ndim == 4 and array.shape[3] == 1:
            array = array[..., 0]
        if array.ndim != 3 or 0 in array.shape:
            raise Refused("volume_shape", f"volume {item.origin.key!r} has shape {array.shape}, wanted (X, Y, Z)")
        turned, affine = canonical(array, np.eye(4) if item.affine is None else item.affine)
        real = np.ascontiguousarray(turned, np.float32)
        if not np.isfinite(real).all():
            raise Refused("volume_nonfinite", f"volume {item.origin.key!r} holds NaN or infinite voxels")
        low, high = self.window or np.percentile(real.reshape(-1)[:: max(1, real.size // 65_536)], (0.5, 99.5))
        scaled = torch.from_numpy(np.clip((real - np.float32(low)) / np.float32(max(high - low, 1e-8)), 0, 1))
        target = self.size
        if self.spacing is not None:
            mm = np.linalg.norm(affine[:3, :3], axis=0)
            new = (max(1, round(n * a / b)) for n, a, b in zip(real.shape, mm, self.spacing, strict=True))
            target = (next(new), next(new), next(new))
        grid = functional.interpolate(scaled[None, None], size=target, mode="trilinear", align_corners=False)[0]
        return _centre(grid.numpy(), self.size)

    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON."""
        return {"type": "volume", **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> VolumeEncode:
        """The inverse of `to_json`."""
        rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items() if k != "type"}
        return cls(**rest)


def canonical(array: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The volume with its axes closest to R, A, S (a view, no resampling) and the affine that goes with it.

    >>> turned, affine = canonical(np.zeros((2, 3, 4)), np.diag([-1.0, 1, 2, 1]))
    >>> turned.shape, affine[0].tolist()
    ((2, 3, 4), [1.0, 0.0, 0.0, -1.0])
    """
    from scipy.optimize import linear_sum_assignment

    axes = affine[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if not np.isfinite(affine).all() or (lengths == 0).any():
        raise Refused("volume_affine", "the affine has an axis of no length or a value that is not finite")
    cosines = axes / lengths
    world, voxel = linear_sum_assignment(-np.abs(cosines))  # world axis -> voxel axis
    order = [int(voxel[list(world).index(k)]) for k in range(3)]
    turned = np.transpose(array, (*order, *range(3, array.ndim)))
    new = affine.copy()
    new[:3, :3] = axes[:, order]
    for k in range(3):
        if new[k, k] < 0:
            turned = np.flip(turned, k)
            new[:3, 3] += new[:3, k] * (turned.shape[k] - 1)
            new[:3, k] = -new[:3, k]
    return turned, new


def _centre(grid: NDArray[np.float32], size: tuple[int, int, int]) -> NDArray[np.float32]:
    """(1, *any) -> (1, *size), cropped or zero-padded about the centre."""
    out = np.zeros((1, *size), np.float32)
    to, of = [slice(None)], [slice(None)]
    for have, want in zip(grid.shape[1:], size, strict=True):
        both = min(have, want)
        of.append(slice((have - both) // 2, (have - both) // 2 + both))
        to.append(slice((want - both) // 2, (want - both) // 2 + both))
    out[tuple(to)] = grid[tuple(of)]
    return out
