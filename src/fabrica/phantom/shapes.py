"""Six shapes by signed distance and six ways to draw them: the geometry and the looks of phantom P1."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 64
SHAPES = ("disc", "ring", "square", "cross", "bar", "wedge")
F32 = NDArray[np.float32]


def f32(values: Any) -> F32:
    """As float32, without a copy where it is already."""
    return np.asarray(values, np.float32)


def distance(shape: str, y: F32, x: F32, r: F32) -> F32:
    """Signed distance (pixels, negative inside) of points `y`, `x` from `shape` of radius `r`, all broadcastable."""
    ax, ay = np.abs(x), np.abs(y)
    if shape == "disc":
        d = np.hypot(x, y) - r
    elif shape == "ring":
        d = np.abs(np.hypot(x, y) - 0.75 * r) - 0.25 * r
    elif shape == "square":
        d = np.maximum(ax, ay) - 0.85 * r
    elif shape == "cross":
        d = np.minimum(np.maximum(ax - r, ay - 0.28 * r), np.maximum(ax - 0.28 * r, ay - r))
    elif shape == "bar":
        d = np.maximum(ax - r, ay - 0.33 * r)
    elif shape == "wedge":  # apex up: (0, -r), base half-width 0.9 r at y = 0.8 r
        d = np.maximum(y - 0.8 * r, (1.8 * ax - 0.9 * (y + r)) / np.float32(np.hypot(1.8, 0.9)))
    else:
        raise ValueError(f"shape {shape!r} is none of {', '.join(SHAPES)}")
    return f32(d)


def coverage(shape: str, y: F32, x: F32, r: F32) -> F32:
    """How much of each pixel the shape covers, 0 to 1, with an edge one pixel wide."""
    return f32(np.clip(0.5 - distance(shape, y, x, r), 0, 1))


@cache
def grid(size: int = SIZE) -> tuple[F32, F32]:
    """Row and column index of every pixel, each (size, size) float32."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    return y, x


def ellipse(y: F32, x: F32, centre: tuple[float, float], axes: tuple[float, float], soft: float = 1.0) -> F32:
    """Coverage of an ellipse (centre and semi-axes as y, x in pixels) with an edge about `soft` pixels wide."""
    rho = np.hypot((y - centre[0]) / axes[0], (x - centre[1]) / axes[1])
    return f32(np.clip(0.5 - (rho - 1) * min(axes) / soft, 0, 1))


def blurred(noise: F32, sigma: float) -> F32:
    """White noise (n, h, w) smoothed over h and w and scaled back to unit variance."""
    from scipy.ndimage import gaussian_filter

    out = gaussian_filter(noise, (0, sigma, sigma), mode="wrap")
    return f32(out / (out.std() + 1e-9))


def _draw(rng: np.random.Generator, n: int, low: float, high: float) -> F32:
    return rng.uniform(low, high, (n, 1, 1)).astype(np.float32)


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> F32:
    return rng.standard_normal(shape, dtype=np.float32)


@cache
def _lungs() -> F32:
    y, x = grid()
    return f32(np.maximum(ellipse(y, x, (32, 19), (26, 12)), ellipse(y, x, (32, 45), (26, 12))))


def transmission(signal: F32, rng: np.random.Generator) -> F32:
    """X-ray-like: a linear background, two dark elliptical lungs, the signal, a gain of 0.8-1.2, noise of 0.15."""
    n = len(signal)
    y, x = grid()
    slope = rng.uniform(-0.3, 0.3, (n, 2)).astype(np.float32)
    image = slope[:, :1, None] * (y / SIZE - 0.5)
    image += slope[:, 1:, None] * (x / SIZE - 0.5)
    image += _draw(rng, n, 0.5, 0.7)
    image -= 0.4 * _lungs()
    image += signal
    image *= _draw(rng, n, 0.8, 1.2)
    return f32(image + np.float32(0.15) * _noise(rng, image.shape))


def _slice(signal: F32, rng: np.random.Generator) -> F32:
    n = len(signal)
    y, x = grid()
    body, inner = ellipse(y, x, (32, 32), (30, 31)), ellipse(y, x, (32, 32), (27, 28), soft=2)
    spine = ellipse(y, x, (57, 32), (4, 4))
    organ = 0.08 * blurred(_noise(rng, signal.shape), 2.5)
    tissue = body * 0.25 + inner * (_draw(rng, n, 0.1, 0.2) + organ) + 0.5 * spine
    return f32(tissue + 0.9 * signal * inner)


def cut(signal: F32, rng: np.random.Generator) -> F32:
    """CT-like axial slice: body outline, fat rim, spine, smooth organ texture, noise of 0.08."""
    image = _slice(signal, rng) * _draw(rng, len(signal), 0.85, 1.15)
    return f32(image + np.float32(0.08) * _noise(rng, image.shape))


def inverted(signal: F32, rng: np.random.Generator) -> F32:
    """A slice of inverted contrast with a smooth shading field, as a coil gives: findings are dark on bright."""
    field = 1 + 0.15 * blurred(_noise(rng, signal.shape), 12)
    y, x = grid()
    image = (1.1 - _slice(signal, rng)) * field * ellipse(y, x, (32, 32), (31, 31))
    return f32(image + np.float32(0.06) * _noise(rng, image.shape))


def fan(signal: F32, rng: np.random.Generator) -> F32:
    """Ultrasound-like: a sector with multiplicative speckle and depth decay; findings scatter more."""
    y, x = grid()
    angle, depth = np.arctan2(x - 31.5, y + 14), np.hypot(x - 31.5, y + 14)
    sector = ((np.abs(angle) < 0.72) & (depth > 16) & (depth < 76)).astype(np.float32)
    real, imaginary = blurred(_noise(rng, signal.shape), 0.7), blurred(_noise(rng, signal.shape), 0.7)
    speckle = np.hypot(real, imaginary) * np.float32(0.8)
    echo = (0.22 + 0.75 * signal) * np.exp(-(depth - 16) / 120).astype(np.float32)
    return f32(echo * (0.35 + 0.65 * speckle) * _draw(rng, len(signal), 0.85, 1.15) * sector)


def _colour(*levels: float) -> F32:
    return f32(levels)


def stain(signal: F32, rng: np.random.Generator) -> F32:
    """Histology-like RGB (n, 64, 64, 3): pink stroma, purple nuclei, findings take up more of the blue stain."""
    fibre = blurred(_noise(rng, signal.shape), 1.5)[..., None]
    nuclei = (blurred(_noise(rng, signal.shape), 1.0) > 1.7).astype(np.float32)[..., None]
    tint = rng.uniform(0.92, 1.08, (len(signal), 1, 1, 3)).astype(np.float32)
    pink, purple = _colour(0.92, 0.66, 0.78), _colour(0.42, 0.25, 0.55)
    image = pink + _colour(0.03, 0.05, 0.04) * fibre
    image = image + (purple - image) * np.clip(0.75 * nuclei + 0.8 * signal[..., None], 0, 0.95)
    return f32(image * tint + np.float32(0.05) * _noise(rng, image.shape))


def retina(signal: F32, rng: np.random.Generator) -> F32:
    """Fundus-like RGB (n, 64, 64, 3): an orange disc, a bright optic disc, dark vessels; findings are yellow-white."""
    n = len(signal)
    y, x = grid()
    inside = ellipse(y, x, (31.5, 31.5), (31, 31))[..., None]
    vessels = np.zeros(signal.shape, np.float32)
    for sign in (-1, 1):
        for reach in (9, 20):
            bend = _draw(rng, n, 0.8, 1.2) * reach
            line = 31.5 + sign * bend * np.sqrt(np.clip((58 - x) / 50, 0, None))
            vessels = np.maximum(vessels, np.clip(1.6 - np.abs(y - line), 0, 1) * (x < 58))
    papilla = ellipse(y, x, (31.5, 57), (5, 4), soft=2)[..., None]
    image = _colour(0.72, 0.34, 0.16) * _draw(rng, n, 0.85, 1.1)[..., None] * np.ones((n, SIZE, SIZE, 1), np.float32)
    image -= vessels[..., None] * _colour(0.3, 0.2, 0.08)
    image += papilla * _colour(0.25, 0.45, 0.35) + signal[..., None] * _colour(0.25, 0.55, 0.3)
    return f32(image * inside + np.float32(0.04) * _noise(rng, image.shape))


Style = Callable[[F32, np.random.Generator], F32]
STYLES: Mapping[str, Style] = MappingProxyType(
    {
        "transmission": transmission,
        "slice": cut,
        "inverted": inverted,
        "fan": fan,
        "stain": stain,
        "retina": retina,
    }
)
