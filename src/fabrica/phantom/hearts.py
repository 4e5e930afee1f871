"""Synthetic short-axis hearts: ring, cavity and crescent among blobs of the same grey values. Truth and strokes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabrica.phantom.shapes import F32, blurred, ellipse, f32, grid
from fabrica.types import Absent, Item, Origin, Record, Region

CLASSES = ("background", "rv", "myo", "lv")  # as numbered in the ACDC challenge
GREY = {"rv": 0.80, "myo": 0.35, "lv": 0.85}
BODY = 0.58
SIZE = 48


@dataclass(frozen=True, slots=True)
class Heart:
    """A slice `image` (size, size) float32 with its `labels` (size, size), 0 to 3 as `CLASSES`, and `blobs`, where a
    distractor lies (bool): grey as a heart, but no heart."""

    image: F32
    labels: NDArray[np.int64]
    blobs: NDArray[np.bool_]


def heart(rng: np.random.Generator, size: int = SIZE, blobs: int = 4, noise: float = 0.1) -> Heart:
    """One slice: a left ventricle (cavity within its ring) anywhere near the middle, the right one as a crescent at its
    side, `blobs` distractors apart from it with the grey of a class each, smooth shading, noise."""
    y, x = grid(size)
    scale = size / 48
    centre = rng.uniform(0.38, 0.62, 2) * size
    outer, thick = rng.uniform(7.0, 9.5) * scale, rng.uniform(2.3, 3.2) * scale
    stretch = rng.uniform(0.92, 1.08)
    at, angle = (float(centre[0]), float(centre[1])), rng.uniform(-0.5, 0.5) + np.pi  # the right ventricle: image left
    whole = ellipse(y, x, at, (outer * stretch, outer / stretch)) > 0.5
    cavity = ellipse(y, x, at, (outer * stretch - thick, outer / stretch - thick)) > 0.5
    side = (at[0] + np.sin(angle) * outer * 0.9, at[1] + np.cos(angle) * outer * 0.9)
    right = (ellipse(y, x, side, (outer * rng.uniform(0.95, 1.15), outer * rng.uniform(0.6, 0.8))) > 0.5) & ~whole
    labels = np.zeros((size, size), np.int64)
    labels[right], labels[whole], labels[cavity] = 1, 2, 3
    image = np.full((size, size), BODY, np.float32)
    near = ellipse(y, x, at, (outer * 1.5, outer * 1.5)) > 0.5
    strange = np.zeros((size, size), bool)
    for number in range(blobs):
        shape = _blob(rng, size, near | right | strange)
        image[shape] = GREY[CLASSES[1 + number % 3]]
        strange |= shape
    for number, name in enumerate(CLASSES[1:], 1):
        image[labels == number] = GREY[name]
    strange &= labels == 0
    shade = 0.05 * blurred(rng.standard_normal((1, size, size), dtype=np.float32), size / 6)[0]
    soft = _seen(image) + shade + noise * rng.standard_normal((size, size), dtype=np.float32)
    return Heart(f32(soft), labels, strange)


def of(seed: int, number: int, size: int = SIZE) -> Heart:
    """The heart of a numbered synthetic patient."""
    return heart(np.random.default_rng([seed, number, 0]), size)


def _seen(image: F32) -> F32:
    """As a scanner sees edges: blurred over half a pixel."""
    from scipy.ndimage import gaussian_filter

    return f32(gaussian_filter(image, 0.5))


def _blob(rng: np.random.Generator, size: int, taken: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A filled ellipse clear of what is taken; where none of 40 draws is, the one that meets it least, cut back."""
    y, x = grid(size)
    best, least = np.zeros((size, size), bool), np.inf
    for _ in range(40):
        radii = rng.uniform(3.0, 6.0, 2) * size / 48
        at = rng.uniform(0.06, 0.94, 2) * size
        shape = ellipse(y, x, (float(at[0]), float(at[1])), (float(radii[0]), float(radii[1]))) > 0.5
        met = float((shape & taken).sum())
        if met < least:
            best, least = shape, met
        if met == 0:
            break
    return best & ~taken


def records(
    count: int, seed: int, *, what: str = "full", size: int = SIZE, share: float = 0.05, start: int = 0
) -> list[Record]:
    """`count` synthetic patients of one slice. `what` "full": image and masks; "scribble": image and strokes (random
    walks over `share` of each class); "image": nothing marked; "mask": masks alone, their image withheld. The patient
    of a number and seed is the same whatever is marked; `start` numbers the first."""
    from fabrica.sources.scribbles import random_walk

    made = []
    for number in range(start, start + count):
        found, pen = of(seed, number, size), np.random.default_rng([seed, number, 1])
        origin = Origin("hearts", f"{seed}/{number}", "", "CC0-1.0", "synthetic")
        regions: list[Region] = []
        if what in ("full", "mask"):
            regions = [Region("image", "mask", found.labels == c, n, origin) for c, n in enumerate(CLASSES) if c]
        elif what == "scribble":
            regions = [
                Region("image", "mask", random_walk(found.labels == c, pen, share=share), f"scribble/{n}", origin)
                for c, n in enumerate(CLASSES)
            ]
        item = Item("image", Absent.WITHHELD if what == "mask" else found.image, origin)
        made.append(
            Record(f"heart-{seed}-{number}-{what}", f"heart-{seed}-{number}", groups={"modality": "mr", "part": what},
                   items={"image": (item,)}, regions=tuple(regions))
        )  # fmt: skip
    return made


def wrong(records: Sequence[Record], seed: int) -> list[Record]:
    """The same masks with the wrong class on each shape (a derangement of the three, drawn a record): a critic's
    negative control."""
    rng, made = np.random.default_rng([seed, 7]), []
    for record in records:
        shift = int(rng.integers(1, 3))
        names = {n: CLASSES[1 + (i + shift) % 3] for i, n in enumerate(CLASSES[1:])}
        regions = tuple(Region(r.role, r.shape, r.data, names[r.label], r.origin) for r in record.regions)
        made.append(record.updated(regions=regions))
    return made
