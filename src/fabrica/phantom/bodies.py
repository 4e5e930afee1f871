"""Synthetic bodies in 3-D: six organs in every volume, many contrasts; sets that each label one of the organs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabrica.phantom.shapes import F32, f32
from fabrica.types import Item, Origin, Record, Region

ORGANS = ("liver", "spleen", "kidney", "aorta", "spine", "pancreas")
NEW = "pancreas"  # labelled in no set of pre-training
NINTH = 9  # the target's contrast: the first after the sets' eight in which the new organ is two greys from the flesh
SIDE = 24
# centre (x, y, z) and half axes as shares of the side; organs move and swell a little from patient to patient
_PLACES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "liver": ((0.30, 0.45, 0.55), (0.17, 0.20, 0.24)),
    "spleen": ((0.78, 0.40, 0.60), (0.10, 0.12, 0.16)),
    "kidney": ((0.72, 0.62, 0.32), (0.09, 0.10, 0.14)),
    "aorta": ((0.53, 0.58, 0.50), (0.055, 0.055, 0.60)),
    "spine": ((0.50, 0.80, 0.50), (0.11, 0.10, 0.60)),
    "pancreas": ((0.55, 0.36, 0.40), (0.18, 0.10, 0.12)),
}


@dataclass(frozen=True, slots=True)
class Body:
    """`labels` (side, side, side), 0 or 1 + the organ's number; `image` the same shape, float32."""

    image: F32
    labels: NDArray[np.int64]


def body(rng: np.random.Generator, contrast: int, side: int = SIDE, noise: float = 0.08) -> Body:
    """One patient as scanner `contrast` shows it: every organ has a grey of its own there (drawn from the contrast's
    number alone), with shading and noise."""
    axes = np.meshgrid(*[(np.arange(side) + 0.5) / side] * 3, indexing="ij")
    sway, grow = rng.normal(0, 0.02, 3), rng.uniform(0.9, 1.1)
    inside = ((axes[0] - 0.5) / 0.47) ** 2 + ((axes[1] - 0.52) / 0.44) ** 2 < 1
    labels = np.zeros((side,) * 3, np.int64)
    for number, name in enumerate(ORGANS, 1):
        centre, half = _PLACES[name]
        at = np.array(centre) + sway + rng.normal(0, 0.025, 3)
        wide = np.array(half) * grow * rng.uniform(0.85, 1.15, 3)
        reach = sum(((a - c) / w) ** 2 for a, c, w in zip(axes, at, wide, strict=True))
        labels[(reach < 1) & inside & (labels == 0)] = number
    grey = greys(contrast)
    image = np.where(inside, grey[labels], 0.0)
    slope = rng.normal(0, 0.08, 3)
    shade = 1 + sum(s * (a - 0.5) for s, a in zip(slope, axes, strict=True))
    made = _soft(f32(image * shade)) + np.float32(noise) * rng.standard_normal(image.shape, dtype=np.float32)
    return Body(f32(made), labels)


def _soft(image: F32) -> F32:
    from scipy.ndimage import gaussian_filter

    return f32(gaussian_filter(image, 0.5))


def greys(contrast: int) -> F32:
    """Grey of the flesh and of each organ in a contrast: evenly spread over 0.15 to 1, in the contrast's own order."""
    order = np.random.default_rng([17, contrast]).permutation(len(ORGANS) + 1)
    return f32(np.linspace(0.15, 1.0, len(ORGANS) + 1)[order])


def records(
    count: int, seed: int, *, organs: tuple[str, ...], contrast: int, source: str, side: int = SIDE, start: int = 0
) -> list[Record]:
    """`count` synthetic volumes of one set: its contrast, and masks of the `organs` that it labels and of no others."""
    made = []
    for number in range(start, start + count):
        found = body(np.random.default_rng([seed, contrast, number]), contrast, side)
        origin = Origin(f"bodies/{source}", f"{seed}/{number}", "", "CC0-1.0", "synthetic")
        regions = tuple(
            Region("volume", "mask", found.labels == 1 + ORGANS.index(name), name, origin) for name in organs
        )
        made.append(
            Record(f"body-{source}-{seed}-{number}", f"body-{source}-{seed}-{number}", {"source": source},
                   {"volume": (Item("volume", found.image, origin, affine=np.eye(4)),)}, regions)
        )  # fmt: skip
    return made


def sets(count: int, seed: int, many: int = 8, side: int = SIDE) -> list[Record]:
    """`many` sets of `count` volumes: set i has contrast i and labels organ i modulo five alone."""
    return [r for i in range(many) for r in records(count, seed, organs=(labelled(i),), contrast=i, source=f"set{i}",
                                                    side=side)]  # fmt: skip


def labelled(number: int) -> str:
    """The organ that a set of pre-training labels.

    >>> [labelled(i) for i in range(6)]
    ['liver', 'spleen', 'kidney', 'aorta', 'spine', 'liver']
    """
    return ORGANS[number % (len(ORGANS) - 1)]
