"""A segmenter that needs no download: thresholds, region growing from a box or a point, morphology."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fabrica.encode.image import plane
from fabrica.errors import UsageError
from fabrica.types import Item, Region

_GREY = np.array([0.299, 0.587, 0.114], np.float32)

Window = tuple[float, float]  # lowest and highest value, in the item's unit


class Grow:
    """One mask for each prompt that finds something, with the prompt's label and text.

    - box (x0, y0, x1, y1 pixels, on an image): Otsu's threshold inside the box (Otsu 1979) on the side that the middle
      of the box lies on; the connected part that covers most of that middle.
    - point (x, y) on an image, or (x, y, z) voxels in a volume: the connected part around it whose values differ from
      the median there by at most `reach` of the 1st to 99th percentile range.
    - `text` alone (a region with empty data): values within `windows[text]`, every connected part of `least` pixels.

    Holes are filled and single-pixel bridges opened. `score` is Otsu's separability in 0..1 for boxes, else None. A
    prompt that finds nothing, and a text without a window, has no region in the answer.

    >>> from fabrica.types import Origin
    >>> o, image = Origin("demo", "a", "", ""), np.zeros((32, 32), np.uint8)
    >>> image[8:20, 10:22] = 200
    >>> found = Grow()(Item("image", image, o), [Region("image", "box", np.array([6, 4, 26, 24]), "mass", o)])
    >>> found[0].label, int(found[0].data.sum())
    ('mass', 144)
    """

    version = "1"

    def __init__(self, *, reach: float = 0.15, windows: Mapping[str, Window] | None = None, least: int = 16) -> None:
        if not 0 < reach < 1 or least < 1:
            raise UsageError(f"reach={reach}, least={least}; wanted 0 < reach < 1 and least >= 1")
        self.reach, self.windows, self.least = reach, dict(windows or {}), least
        told = ",".join(f"{k}={low:g}..{high:g}" for k, (low, high) in sorted(self.windows.items()))
        self.name = f"grow@1:{reach:g}:{least}" + (f":{told}" if told else "")

    def __call__(self, item: Item, prompts: Sequence[Region], /) -> tuple[Region, ...]:
        """Masks of the item's own spatial shape."""
        values = _values(item)
        origin = replace(item.origin, by="model").then(f"segment:{self.name}")
        out = []
        for prompt in prompts:
            mask, score = self._mask(values, prompt)
            if mask.any():
                out.append(Region(prompt.role, "mask", mask, prompt.label, origin, prompt.index, prompt.text, score))
        return tuple(out)

    def _mask(self, values: NDArray[np.float32], prompt: Region) -> tuple[NDArray[np.bool_], float | None]:
        if prompt.data.size == 0:
            return self._named(values, (prompt.text or prompt.label).lower()), None
        at = np.asarray(prompt.data, np.float64).ravel()
        if not np.isfinite(at).all():
            raise UsageError(f"prompt {prompt.label!r} has coordinates {at}")
        if prompt.shape == "box" and values.ndim == 2:
            return in_box(values, at)
        if prompt.shape == "point" and len(at) == values.ndim:
            return self._from_point(values, at), None
        raise UsageError(
            f"a {prompt.shape} of {len(at)} numbers on an item of {values.ndim} axes; wanted a box or a point on an "
            "image, or a point in a volume"
        )

    def _named(self, values: NDArray[np.float32], text: str) -> NDArray[np.bool_]:
        window = self.windows.get(text)
        if window is None:
            return np.zeros(values.shape, bool)
        mask = _whole((values >= window[0]) & (values <= window[1]))
        parts, n = ndimage.label(mask)
        sizes = np.bincount(parts.ravel(), minlength=n + 1)
        sizes[0] = 0
        kept: NDArray[np.bool_] = (sizes >= self.least)[parts]
        return kept

    def _from_point(self, values: NDArray[np.float32], at: NDArray[np.float64]) -> NDArray[np.bool_]:
        place = np.rint(at).astype(np.int64)
        index = tuple(int(v) for v in (place[::-1] if values.ndim == 2 else place))  # an image is (y, x)
        if any(not 0 <= i < side for i, side in zip(index, values.shape, strict=True)):
            return np.zeros(values.shape, bool)
        around = values[tuple(slice(max(0, i - 1), i + 2) for i in index)]
        low, high = np.percentile(values, (1, 99))
        near = np.abs(values - np.median(around)) <= self.reach * max(float(high - low), 1e-8)
        near[index] = True
        opened = ndimage.binary_opening(near)
        parts, _ = ndimage.label(opened if opened[index] else near)
        return _whole(near, parts == parts[index])


def in_box(values: NDArray[np.float32], box: NDArray[np.float64]) -> tuple[NDArray[np.bool_], float]:
    """The thing in a box (x0, y0, x1, y1) of an image (H, W), and how well one threshold parts the box (0..1)."""
    h, w = values.shape
    out = np.zeros((h, w), bool)
    x0, x1 = (int(np.clip(np.rint(v), 0, w)) for v in (box[0], box[2]))
    y0, y1 = (int(np.clip(np.rint(v), 0, h)) for v in (box[1], box[3]))
    if x1 - x0 < 2 or y1 - y0 < 2:
        return out, 0.0
    inside = values[y0:y1, x0:x1]
    cut, score = otsu(inside)
    if score == 0:
        return out, 0.0
    dy, dx = max(1, (y1 - y0) // 3), max(1, (x1 - x0) // 3)
    middle = (slice((y1 - y0 - dy) // 2, (y1 - y0 + dy + 1) // 2), slice((x1 - x0 - dx) // 2, (x1 - x0 + dx + 1) // 2))
    bright = inside > cut
    side = bright if bright[middle].mean() >= 0.5 else ~bright
    opened = ndimage.binary_opening(side)
    parts, _ = ndimage.label(opened if opened[middle].any() else side)
    shares = np.bincount(parts[middle].ravel())
    shares[0] = 0
    if shares.any():
        out[y0:y1, x0:x1] = _whole(side, parts == shares.argmax())
    return out, score


def otsu(values: NDArray[Any]) -> tuple[float, float]:
    """Otsu's threshold over 256 bins and its separability, the share of variance between the classes (0..1).

    >>> cut, eta = otsu(np.array([0, 0, 1, 1, 9, 9, 10, 10.0]))
    >>> 1 <= cut < 9, round(eta, 2)
    (True, 0.99)
    """
    low, high = float(values.min()), float(values.max())
    if not high > low:
        return low, 0.0
    counts, edges = np.histogram(values, 256, (low, high))
    share = np.cumsum(counts) / counts.sum()
    centres = (edges[:-1] + edges[1:]) / 2
    mean = np.cumsum(counts * centres) / counts.sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.nan_to_num((mean[-1] * share - mean) ** 2 / (share * (1 - share)))
    level = np.flatnonzero(between[:-1] >= between[:-1].max() * (1 - 1e-9))
    best = int(level[len(level) // 2])  # the middle of a gap between the classes
    spread = float((counts * (centres - mean[-1]) ** 2).sum() / counts.sum())
    return float(edges[best + 1]), float(between[best] / spread) if spread else 0.0


def _whole(mask: NDArray[np.bool_], part: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """A part of a mask after opening (all of it where none is named), given back its rim, holes filled."""
    if part is None:
        opened = ndimage.binary_opening(mask)
        part = opened if opened.any() else mask
    square = np.ones((3,) * mask.ndim, bool)
    rim = ndimage.binary_dilation(part, square, mask=mask)  # one step, within the mask
    filled: NDArray[np.bool_] = ndimage.binary_fill_holes(rim)
    return filled


def _values(item: Item) -> NDArray[np.float32]:
    """(H, W) of an image (luma of a colour one) or (X, Y, Z) of a volume, finite."""
    if item.kind not in ("image", "volume") or not item.present:
        raise UsageError(f"a segmenter reads images and volumes; got an item of kind {item.kind!r}")
    array = plane(item) if item.kind == "image" else item.array()
    values = array.astype(np.float32)
    if item.kind == "image" and values.ndim == 3:
        values = values @ _GREY
    if item.kind == "volume" and values.ndim != 3:
        raise UsageError(f"a volume of shape {values.shape}; wanted one channel (X, Y, Z)")
    if not np.isfinite(values).all():
        raise UsageError(f"{item.kind} {item.origin.key!r} holds NaN or infinite values")
    return values
