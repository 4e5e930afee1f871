"""A segmentation file beside a picture -> mask regions on it, one a label."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused, UsageError
from fabrica.safe import LIMITS, Limits, sha256
from fabrica.sources import Ref
from fabrica.types import Origin, Region

MOST_LABELS = 64  # above it one region of integer labels


class Placed(Protocol):
    """An array with its affine (4, 4) to RAS mm."""

    @property
    def array(self) -> NDArray[np.generic]: ...

    @property
    def affine(self) -> NDArray[np.float64]: ...


def names(ref: Ref) -> dict[int, str]:
    """`columns["mask_names"]` as value -> label: "1=anterior,2=posterior"."""
    said = ref.get("mask_names")
    if not said:
        return {}
    try:
        pairs = [part.split("=", 1) for part in said.split(",")]
        return {int(value): label.strip() for value, label in pairs}
    except ValueError:
        raise UsageError(f"columns['mask_names'] is {said!r}; wanted \"1=anterior,2=posterior\"") from None


def regions(ref: Ref, path: Path, mask: Placed, volume: Placed, limits: Limits = LIMITS) -> tuple[Region, ...]:
    """A volume's label map as regions; shape and affine must be the volume's own.

    `Refused("mask_shape")`, `Refused("mask_geometry")`, `Refused("mask_values")`.
    """
    shape = volume.array.shape[:3]
    if mask.array.shape != shape:
        raise Refused("mask_shape", f"the mask is {mask.array.shape}, its volume {shape}")
    if not np.allclose(mask.affine, volume.affine, atol=1e-2):
        raise Refused("mask_geometry", "the mask lies elsewhere than its volume: their affines differ")
    return labelled(ref, "volume", path, mask.array)


def labelled(ref: Ref, role: str, path: Path, values: NDArray[np.generic]) -> tuple[Region, ...]:
    """One bool region for each value but 0, named by `mask_names` or the value's digits."""
    if values.dtype.kind == "f":
        whole = np.asarray(np.rint(values))
        if not np.array_equal(whole, values):
            raise Refused("mask_values", "the mask holds values that are no integer labels")
        values = whole.astype(np.int32)
    where = Origin(ref.source, f"{ref.key}#mask", sha256(path), ref.licence)
    known = names(ref)
    found = [int(v) for v in np.unique(values) if v != 0]
    if len(found) > MOST_LABELS:
        return (Region(role, "mask", values, "labels", where),)
    return tuple(Region(role, "mask", values == v, known.get(v, str(v)), where) for v in found)


def binary(ref: Ref, role: str, path: Path, values: NDArray[Any]) -> tuple[Region, ...]:
    """A picture's mask: by `mask_names` or a few distinct values as labels; else what lies above half of its range is
    one region, `columns["mask_label"]` or "mask" (JPEG masks have grey borders)."""
    distinct = np.unique(values)
    if names(ref) or (2 < len(distinct) <= 32 and int(distinct[-1]) < 64):
        return labelled(ref, role, path, values)
    where = Origin(ref.source, f"{ref.key}#mask", sha256(path), ref.licence)
    top = int(distinct[-1])
    return (Region(role, "mask", values > top / 2, ref.get("mask_label") or "mask", where),)
