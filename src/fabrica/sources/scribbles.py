"""Strokes: read from a file of class numbers, or drawn from a full mask where no expert drew (skeleton, walk)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError, need
from fabrica.types import Origin, Region

Mask = NDArray[np.bool_]


def strokes(
    values: NDArray[Any], names: Mapping[int, str], origin: Origin, *, unknown: int, role: str = "image",
    prefix: str = "scribble/",
) -> tuple[Region, ...]:  # fmt: skip
    """A scribble picture (H, W) of class numbers -> one bool region a class that has a stroke.

    `unknown` is the number of unmarked pixels; a picture without one is a full mask and no scribble, and is refused, as
    are numbers that `names` lacks (`UsageError`).

    >>> got = strokes(np.array([[4, 1], [0, 4]]), {0: "background", 1: "rv"}, Origin("demo", "a", "", ""), unknown=4)
    >>> [(r.label, int(r.data.sum())) for r in got]
    [('scribble/background', 1), ('scribble/rv', 1)]
    """
    found = {int(v) for v in np.unique(values)}
    if unknown not in found:
        raise UsageError(
            f"{origin.key!r} has no pixel of the unknown value {unknown}: this is a full mask, no scribble"
        )
    odd = sorted(found - {unknown} - set(names))
    if odd:
        raise UsageError(f"{origin.key!r} holds the values {odd}, which no class has; classes: {dict(names)}")
    return tuple(
        Region(role, "mask", values == v, prefix + names[v], origin) for v in sorted(found - {unknown})
    )  # fmt: skip


def masks(
    values: NDArray[Any], names: Mapping[int, str], origin: Origin, *, role: str = "image", prefix: str = ""
) -> tuple[Region, ...]:
    """A full label map -> one bool region for every class but 0, empty where the class is not there: so that "looked
    for and not found" is not "unknown"."""
    odd = sorted({int(v) for v in np.unique(values)} - {0} - set(names))
    if odd:
        raise UsageError(f"{origin.key!r} holds the values {odd}, which no class has; classes: {dict(names)}")
    return tuple(Region(role, "mask", values == v, prefix + name, origin) for v, name in sorted(names.items()) if v)


def skeleton(mask: Mask, rng: np.random.Generator | None = None) -> Mask:
    """The mask's skeleton (Zhang and Suen 1984), closed, thickened by one pixel, within the mask."""
    from scipy.ndimage import binary_closing, binary_dilation

    if not mask.any():
        return mask.copy()
    thin = np.asarray(need("skimage.morphology", "demo").skeletonize(mask), bool)
    drawn = binary_dilation(binary_closing(thin, iterations=1))
    return np.asarray(drawn & mask, bool)


def random_walk(mask: Mask, rng: np.random.Generator, *, share: float = 0.1) -> Mask:
    """A self-avoiding random walk within the mask until `share` of its area is covered (at least one pixel), thickened
    by one pixel and clipped to the mask; it starts anew where it is stuck."""
    from scipy.ndimage import binary_dilation

    if not mask.any():
        return mask.copy()
    if not 0 < share <= 1:
        raise UsageError(f"share = {share}; wanted above 0, at most 1")
    places = np.argwhere(mask)
    wanted = max(1, round(share * len(places)))
    walked, drawn = np.zeros_like(mask), np.zeros_like(mask)
    at = tuple(places[rng.integers(len(places))])
    heading = int(rng.integers(4))
    for _ in range(8 * wanted + 8):
        walked[at] = True
        drawn |= binary_dilation(_dot(mask.shape, at)) & mask
        if drawn.sum() >= wanted:
            break
        at, heading = _next(mask, walked, at, heading, rng, places)
    return drawn


_TURNS = ((0, 1), (1, 0), (0, -1), (-1, 0))


def _next(
    mask: Mask, walked: Mask, at: tuple[int, ...], heading: int, rng: np.random.Generator, places: NDArray[np.int64]
) -> tuple[tuple[int, ...], int]:
    """One step, straight on where it can (a stroke is smooth), else aside, else somewhere new."""
    for turn in (heading, *((heading + d) % 4 for d in rng.permutation((1, 3)))):
        to = tuple(a + d for a, d in zip(at, _TURNS[turn], strict=True))
        if all(0 <= t < n for t, n in zip(to, mask.shape, strict=True)) and mask[to] and not walked[to]:
            return to, int(turn if rng.random() < 0.85 else (turn + rng.choice((1, 3))) % 4)
    return tuple(places[rng.integers(len(places))]), int(rng.integers(4))


def _dot(shape: tuple[int, ...], at: tuple[int, ...]) -> Mask:
    one = np.zeros(shape, bool)
    one[at] = True
    return one
