"""The five image operations of contrastive pretraining on medical images, drawn from one generator a visit.

Source: Zhang et al., "Contrastive Learning of Medical Visual Representations from Paired Images and Text",
arXiv 2010.00747: crop, flip, affine, brightness and contrast, blur.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Views:
    """One draw: `box` (left, top, right, bottom) in source pixels; the rest as in `MedicalImageAugment`."""

    box: tuple[float, float, float, float]
    flip: bool
    degrees: float
    shift: tuple[float, float]
    zoom: float
    brightness: float
    contrast: float
    sigma: float

    def matrix(self, width: int, height: int) -> tuple[float, float, float, float, float, float]:
        """The six numbers that map an output pixel to its input pixel (inverse affine about the centre)."""
        turn, cx, cy = math.radians(self.degrees), width / 2, height / 2
        cos, sin = math.cos(turn) / self.zoom, math.sin(turn) / self.zoom
        dx, dy = cx + self.shift[0] * width, cy + self.shift[1] * height
        side = -1.0 if self.flip else 1.0
        a, b, d, e = side * cos, side * sin, -sin, cos
        return a, b, cx - a * dx - b * dy, d, e, cy - d * dx - e * dy


@dataclass(frozen=True, slots=True)
class MedicalImageAugment:
    """Random resized crop, horizontal flip, affine, brightness and contrast, Gaussian blur, in that order.

    `area` of the crop as a fraction and its `ratio` relative to the image's own aspect; `flip` probability; `degrees`
    of rotation either way; `shift` per axis as a fraction of the size; `scale` range; `brightness` and `contrast`
    factor ranges; `sigma` range of the blur in pixels of a `reference`-pixel image, scaled with the size. Flip 0
    keeps the sides of reports that name them.
    """

    area: Range = (0.6, 1.0)
    ratio: Range = (3 / 4, 4 / 3)
    flip: float = 0.5
    degrees: float = 20.0
    shift: float = 0.1
    scale: Range = (0.95, 1.05)
    brightness: Range = (0.6, 1.4)
    contrast: Range = (0.6, 1.4)
    sigma: Range = (0.1, 3.0)
    reference: int = 224

    def __post_init__(self) -> None:
        for name in ("area", "ratio", "scale", "brightness", "contrast", "sigma"):
            low, high = getattr(self, name)
            if not 0 <= low <= high:
                raise UsageError(f"augment {name} is ({low}, {high}), wanted 0 <= low <= high")
        if self.area[1] > 1 or self.area[0] == 0 or self.ratio[0] == 0 or self.scale[0] == 0:
            raise UsageError("augment: area lies in (0, 1]; ratio and scale are above 0")

    def draw(self, rng: np.random.Generator, width: int, height: int) -> Views:
        """The parameters of one visit to an image of that size."""
        u = rng.random(11).tolist()  # one call: the generator's overhead is per call
        area = _between(self.area, u[0])
        ratio = math.exp(_between((math.log(self.ratio[0]), math.log(self.ratio[1])), u[1]))
        w, h = min(1.0, math.sqrt(area * ratio)), min(1.0, math.sqrt(area / ratio))
        left, top = u[2] * (1 - w) * width, u[3] * (1 - h) * height
        return Views(
            box=(left, top, min(left + w * width, width), min(top + h * height, height)),
            flip=u[4] < self.flip,
            degrees=(2 * u[5] - 1) * self.degrees,
            shift=((2 * u[6] - 1) * self.shift, (2 * u[7] - 1) * self.shift),
            zoom=_between(self.scale, u[8]),
            brightness=_between(self.brightness, u[9]),
            contrast=_between(self.contrast, u[10]),
            sigma=_between(self.sigma, float(rng.random())),
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> MedicalImageAugment:
        """From the plain JSON of `dataclasses.asdict`."""
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in data.items()}
        return cls(**settings)


def _between(limits: Range, u: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * u


def tone(image: NDArray[np.float32], views: Views) -> NDArray[np.float32]:
    """Brightness (factor on the pixels), then contrast (factor about the mean), clipped to 0..1."""
    bright = np.clip(image * np.float32(views.brightness), 0, 1)
    mean = bright.mean(dtype=np.float32)
    made: NDArray[np.float32] = np.clip((bright - mean) * np.float32(views.contrast) + mean, 0, 1)
    return made


def blur(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian blur of (C, H, W) as two banded products; weights are renormalised at the border."""
    if sigma < 0.2:  # the neighbour's weight is under 4e-6
        return image
    step = round(sigma * 50)  # to 0.02 pixels, so that matrices can be kept
    rows, columns = _band(image.shape[1], step), _band(image.shape[2], step)
    return np.stack([rows @ np.ascontiguousarray(channel) @ columns.T for channel in image])


@lru_cache(maxsize=512)
def _band(size: int, step: int) -> NDArray[np.float32]:
    sigma = step / 50
    at = np.arange(size, dtype=np.float32)
    weights = np.exp(-((at[:, None] - at[None]) ** 2) / (2 * sigma * sigma))
    weights[weights < 1e-7] = 0  # else denormal numbers, which are slow
    made: NDArray[np.float32] = weights / weights.sum(1, keepdims=True)
    return made
