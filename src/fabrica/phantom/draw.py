"""Brushes of the phantom hospital: irregular blobs, smooth noise, scanners, planted text. Pictures are 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.phantom.findings import FIELD_MM, labels
from fabrica.phantom.patients import SCANNERS, Finding
from fabrica.phantom.shapes import F32, f32

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Picture:
    """`pixels` as stored (uint8 (H, W) or (H, W, 3), int16 (Z, H, W) for volumes) and where each finding is: masks of
    the spatial shape, in the order of `findings`."""

    pixels: NDArray[Any]
    findings: tuple[Finding, ...]
    masks: tuple[Mask, ...]


@cache
def unit(size: int) -> tuple[F32, F32]:
    """Pixel centres in the unit square: v down, u to the right, each (size, size) float32."""
    line = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return np.broadcast_to(line[:, None], (size, size)), np.broadcast_to(line[None], (size, size))


def streams(rng: np.random.Generator, modality: str) -> tuple[np.random.Generator, dict[str, np.random.Generator]]:
    """A generator for what every picture has, and one for each finding: so that a finding changes its own place only,
    and the picture without it is the same picture."""
    ground, *own = rng.spawn(1 + len(labels(modality)))
    return ground, dict(zip(labels(modality), own, strict=True))


def step(x: NDArray[np.floating[Any]], soft: float = 0.01) -> F32:
    """A smooth step from 0 (x << 0) to 1 (x >> 0) about `soft` wide."""
    return f32(np.clip(0.5 + x / soft, 0, 1))


def oval(v: F32, u: F32, cv: float, cu: float, rv: float, ru: float, soft: float = 0.01) -> F32:
    """Coverage of an ellipse in the unit square."""
    return step((1 - np.hypot((v - cv) / rv, (u - cu) / ru)) * min(rv, ru), soft)


def blob(
    v: F32, u: F32, f: Finding, r: float, rng: np.random.Generator, *, rough: float = 0.1, soft: float = 0.012
) -> F32:
    """Coverage of an irregular disc of radius `r` at the finding, its outline wavy by the share `rough`."""
    dv, du = v - np.float32(f.y), u - np.float32(f.x)
    angle, edge = np.arctan2(dv, du), np.ones((), np.float32)
    for k in (2, 3, 5):
        edge = edge + rough * rng.normal() / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) * 2
    return step(r * edge - np.hypot(dv, du), soft)


def smooth(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> F32:
    """Gaussian noise of unit variance, smooth over `sigma` pixels (a coarse grid interpolated where sigma is large)."""
    from scipy.ndimage import gaussian_filter

    shrink = max(1, int(sigma / 2))
    coarse = tuple(-(-n // shrink) + 2 for n in shape)
    noise = gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), sigma / shrink, mode="wrap")
    for axis, n in enumerate(shape):
        noise = np.moveaxis(np.tensordot(_linear(n, noise.shape[axis], shrink), noise, (1, axis)), 0, axis)
    return f32((noise - noise.mean()) / (noise.std() + 1e-9))


@cache
def _linear(n: int, m: int, shrink: int) -> F32:
    """(n, m) weights of linear interpolation from a grid whose points lie `shrink` apart."""
    at = np.arange(n)[:, None] / shrink
    return f32(np.clip(1 - np.abs(at - np.arange(m)), 0, None))


def radius(f: Finding, modality: str) -> float:
    """Half the finding's diameter as a share of the picture's width."""
    return f.size_mm / 2 / FIELD_MM[modality]


def scanned(image: F32, scanner: str, shift: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """As a scanner stores it: its own gain, gamma and blur times `shift`, noise, 8 bits."""
    from scipy.ndimage import gaussian_filter

    k = SCANNERS.index(scanner)
    gain, gamma, blur = ((0, 0, 0), (0.18, -0.25, 0.6), (-0.2, 0.3, 0.0), (0.08, 0.15, 1.0))[k]
    gain += 0.1 * rng.normal()
    image = np.clip(image, 0, 1.2) ** np.float32(np.exp(shift * gamma)) * np.float32(np.exp(shift * gain))
    if blur * shift > 0.05:
        image = gaussian_filter(image, (blur * shift, blur * shift, 0)[: image.ndim])
    image = image + np.float32(0.012) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray((np.clip(image, 0, 1) * 255).round(), np.uint8)


def stamped(pixels: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """The picture with `text` burnt into its upper left corner, as old devices do."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.fromarray(pixels)
    font = ImageFont.load_default(max(9, pixels.shape[0] // 12))
    ImageDraw.Draw(picture).text((2, 1), text, fill=255 if pixels.ndim == 2 else (255, 255, 255), font=font)
    return np.asarray(picture).copy()
