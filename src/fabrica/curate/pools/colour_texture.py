"""An image embedder that needs no download: edges by place and direction, texture at three scales, colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.types import Item

Rows = NDArray[np.float32]
_SIDE, _CELLS, _BINS = 48, 4, 8
_FLAT = 0.04  # grey steps a pixel below this are noise
_STRENGTHS = (0.02, 0.06, 0.15, 0.3)


@dataclass
class ColourTexture:
    """Pictures -> (n, 256) float32 unit rows: histograms of 8 edge directions in 4 x 4 cells (Dalal and Triggs 2005,
    without blocks), of direction and strength together over the whole picture at three scales, and of colourfulness.
    An inverted or brighter picture gives almost the same row. The default port for clustering figures; give a tower
    where one is at hand.

    >>> from fabrica.types import Origin
    >>> item = Item("image", np.eye(20, dtype=np.uint8) * 255, Origin("demo", "a", "", ""))
    >>> ColourTexture()([item]).shape
    (1, 256)
    """

    name: str = "colour-texture-1"
    version: str = "1"

    def __call__(self, items: Sequence[Item], /) -> Rows:
        """One unit row an item; `UsageError` for an item that is no picture."""
        out = np.empty((len(items), _CELLS * _CELLS * _BINS + 3 * _BINS * (len(_STRENGTHS) + 1) + 8), np.float32)
        for row, item in zip(out, items, strict=True):
            row[:] = features(picture(item))
        return out


def picture(item: Item) -> Rows:
    """(48, 48, 3) float32, 0 to 1."""
    if item.kind != "image" or not isinstance(item.value, np.ndarray) or item.value.ndim not in (2, 3):
        raise UsageError(f"item {item.origin.key!r} is no picture; wanted kind image with an array of (H, W[, C])")
    value: Rows = np.asarray(item.value, np.float32)
    if item.value.dtype.kind in "iu" and item.value.dtype.itemsize == 1:
        value = np.asarray(value / 255, np.float32)
    else:
        low, high = float(value.min()), float(value.max())
        value = np.asarray((value - low) / max(high - low, 1e-9), np.float32)
    value = value[..., None] if value.ndim == 2 else value
    value = value[..., :3] if value.shape[-1] >= 3 else np.repeat(value[..., :1], 3, -1)
    return resized(value, _SIDE)


def resized(image: Rows, side: int) -> Rows:
    """(H, W, C) to (side, side, C): area means down, linear up."""
    for axis in (0, 1):
        image = np.moveaxis(np.tensordot(_weights(image.shape[axis], side), image, (1, axis)), 0, axis)
    return np.ascontiguousarray(image, np.float32)


def _weights(n: int, m: int) -> Rows:
    """(m, n) rows that sum to 1: how much of each of n pixels lies under each of m."""
    if n >= m:
        edges = np.linspace(0, n, m + 1)
        at = np.arange(n)
        cover = np.minimum(edges[1:, None], at + 1) - np.maximum(edges[:-1, None], at)
        return np.asarray(np.clip(cover, 0, None) * (m / n), np.float32)
    place = np.clip((np.arange(m) + 0.5) * n / m - 0.5, 0, n - 1)
    return np.asarray(np.clip(1 - np.abs(place[:, None] - np.arange(n)), 0, None), np.float32)


def features(image: Rows) -> Rows:
    """(256,) of a (48, 48, 3) picture."""
    grey = image.mean(-1)
    strength, bins = _edges(grey)
    cell = np.arange(_SIDE) * _CELLS // _SIDE
    place = (cell[:, None] * _CELLS + cell[None]) * _BINS + bins
    kept = np.where(strength > _FLAT, strength, 0)
    places = np.bincount(place.ravel(), kept.ravel(), minlength=_CELLS * _CELLS * _BINS)
    scales: list[NDArray[np.floating[Any]]] = []
    for _ in range(3):
        strength, bins = _edges(grey)
        code = bins * (len(_STRENGTHS) + 1) + np.digitize(strength, _STRENGTHS)
        scales.append(np.bincount(code.ravel(), minlength=_BINS * (len(_STRENGTHS) + 1)) / code.size)
        grey = grey.reshape(len(grey) // 2, 2, -1, 2).mean((1, 3))
    spread = image.max(-1) - image.min(-1)
    colour = np.bincount(np.minimum((spread * 8).astype(int), 7).ravel(), minlength=8) / spread.size
    parts = ((1.0, np.sqrt(places)), (1.0, np.sqrt(np.concatenate(scales))), (0.5, np.sqrt(colour)))
    row = np.concatenate([weight * p / max(float(np.linalg.norm(p)), 1e-6) for weight, p in parts])
    return np.asarray(row / max(float(np.linalg.norm(row)), 1e-6), np.float32)


def _edges(grey: Rows) -> tuple[NDArray[np.floating[Any]], NDArray[np.int64]]:
    """Strength of the grey slope, and its direction (not its sign) as one of 8."""
    gy, gx = np.gradient(grey)
    angle = np.mod(np.arctan2(gy, gx), np.pi)
    return np.hypot(gy, gx), np.minimum((angle / np.pi * _BINS).astype(np.int64), _BINS - 1)
