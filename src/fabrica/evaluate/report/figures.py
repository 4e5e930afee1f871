"""Pictures and charts of the report: JPEG data URIs, and SVG that takes its colours from the page."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

WIDTH = 240  # pixels of a picture on the page
# matplotlib's "inferno" at nine places (CC0), dark to bright
_MAP = np.array(
    [
        (0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10),
        (249, 201, 50), (252, 255, 164),
    ],
    dtype=np.float32,
)  # fmt: skip
_TINTS = {"pixels": 0, "border only": 1, "random features": 2, "prevalence": 3, "chance": 3}
OUTLINE = (64, 224, 208)


def data_uri(values: NDArray[Any], *, width: int = WIDTH, quality: int = 84) -> str:
    """A picture (H, W) or (H, W, 3) in 0..1 as a JPEG inside the page, at most `width` wide or high."""
    from PIL import Image

    array = (np.clip(np.asarray(values, dtype=np.float32), 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(array)
    scale = width / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def colours(values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Values in 0..1 -> (..., 3) colours in 0..1."""
    at = np.clip(values, 0, 1) * (len(_MAP) - 1)
    low = np.minimum(at.astype(np.int64), len(_MAP) - 2)
    part = (at - low)[..., None]
    return np.asarray((_MAP[low] * (1 - part) + _MAP[low + 1] * part) / 255, dtype=np.float32)


def overlay(grey: NDArray[Any], heat: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """A similarity map (H, W) over a picture (H, W[, 3]) in 0..1, with the outline of a region.

    The map runs from its 5th to its 99th percentile; what is low stays transparent, so that the anatomy shows.
    """
    low, high = np.percentile(heat, [5, 99])
    strength = np.clip((heat - low) / (high - low if high > low else 1.0), 0, 1)
    base = np.repeat(grey[..., None], 3, 2) if grey.ndim == 2 else grey[..., :3]
    opacity = (0.15 + 0.6 * strength)[..., None]
    mixed = base * (1 - opacity) + colours(strength) * opacity
    return outlined(mixed.astype(np.float32), mask)


def outlined(picture: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """A picture (H, W[, 3]) in 0..1 with the outline of a mask (H, W), about half a percent of its width."""
    from scipy.ndimage import binary_erosion

    base = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture[..., :3].copy()
    if mask is not None and mask.any():
        line = mask & ~binary_erosion(mask, iterations=max(1, round(mask.shape[1] / 180)))
        base = np.where(line[..., None], np.array(OUTLINE, dtype=np.float32) / 255, base)
    return np.asarray(base, dtype=np.float32)


def signal_svg(values: NDArray[Any], *, label: str) -> Markup:
    """One lead (samples,) as a line, at most 600 points."""
    line = np.asarray(values, dtype=np.float64).ravel()
    line = line[np.isfinite(line)]
    step = max(1, len(line) // 600)
    line = line[: step * 600 : step]
    if len(line) < 2:
        return Markup("")
    low, high = float(line.min()), float(line.max())
    y = 92 - 84 * (line - low) / (high - low if high > low else 1.0)
    points = " ".join(f"{600 * i / (len(line) - 1):.1f},{v:.1f}" for i, v in enumerate(y))
    grid = "".join(f'<line class="hair" x1="0" x2="600" y1="{v}" y2="{v}"/>' for v in (8, 36, 64, 92))
    return Markup(
        f'<svg class="signal" viewBox="0 0 600 100" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f'{grid}<polyline class="trace" points="{points}"/></svg>'
    )


def curve_svg(steps: Sequence[int], losses: Sequence[float], breaks: Sequence[tuple[int, str]]) -> Markup:
    """The training loss by step: every step pale, its running mean strong; `breaks` are the first steps of stages."""
    at, loss = np.asarray(steps, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    keep = np.isfinite(loss)
    at, loss = at[keep], loss[keep]
    if len(at) < 2:
        return Markup("")
    smooth = _running(loss, max(1, len(loss) // 40))
    low, high = float(np.quantile(loss, 0.002)), float(np.quantile(loss, 0.998))
    ticks_y, ticks_x = ticks(min(low, float(smooth.min())), max(high, float(smooth.max()))), ticks(at[0], at[-1])
    frame = _Frame(at[0], at[-1], ticks_y[0], max(ticks_y[-1], high), 720, 300)
    parts = frame.axes([t for t in ticks_x if at[0] <= t <= at[-1]], ticks_y, x_label="step", y_label="loss")
    for step, name in breaks:
        x = frame.x(step)
        parts.append(f'<line class="break" x1="{x:.1f}" x2="{x:.1f}" y1="{frame.top}" y2="{frame.bottom}"/>')
        parts.append(f'<text class="tick" x="{x + 5:.1f}" y="{frame.top + 11}">{escape(name)}</text>')
    parts.append(frame.line(at, np.clip(loss, ticks_y[0], frame.y1), "raw"))
    parts.append(frame.line(at, smooth, "mean"))
    label = f"Training loss over {len(at)} steps, from {smooth[0]:.3f} to {smooth[-1]:.3f}"
    return frame.svg(parts, label)


def fractions_svg(series: Mapping[str, Sequence[tuple[float, float, float, float]]], metric: str) -> Markup:
    """A metric by label fraction (logarithmic), one line an arm with its interval: (fraction, value, low, high)."""
    points = [p for line in series.values() for p in line if not math.isnan(p[1])]
    places = sorted({p[0] for p in points})
    if len(places) < 2:
        return Markup("")
    low, high = min(p[2] for p in points), max(p[3] for p in points)
    marks = ticks(low, high)
    if low - marks[0] < 0.06 * (marks[-1] - marks[0]):  # nothing lies on the axis
        marks = [round(2 * marks[0] - marks[1], 10), *marks]
    frame = _Frame(math.log10(places[0]), math.log10(places[-1]), marks[0], max(marks[-1], high), 720, 300, right=150)
    parts = frame.axes([], marks, x_label="share of the training labels (logarithmic)", y_label=metric)
    for place in places:
        x = frame.x(math.log10(place))
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{frame.bottom + 18}">{100 * place:g} %</text>'
        )
    ends: list[tuple[float, str, str]] = []
    for number, (arm, line) in enumerate(sorted(series.items(), key=lambda pair: pair[0] == "model")):
        own = sorted(p for p in line if not math.isnan(p[1]))
        if not own:
            continue
        css = "model" if arm == "model" else f"base b{_TINTS.get(arm, number % 4)}"
        places_x = np.log10([p[0] for p in own])
        offset = 0.0 if arm == "model" else 3.0 * (number - 1.5)
        for p, place in zip(own, places_x.tolist(), strict=True):
            px, top, bottom = frame.x(place) + offset, frame.y(p[3]), frame.y(p[2])
            parts.append(f'<line class="bar {css}" x1="{px:.1f}" x2="{px:.1f}" y1="{bottom:.1f}" y2="{top:.1f}"/>')
            radius = 4.5 if arm == "model" else 3
            parts.append(f'<circle class="dot {css}" cx="{px:.1f}" cy="{frame.y(p[1]):.1f}" r="{radius}"/>')
        parts.append(frame.line(places_x, np.array([p[1] for p in own]), css, offset))
        ends.append((frame.y(own[-1][1]), arm, css))
    for y, arm, css in _spread(ends, 16):
        parts.append(f'<text class="end {css}" x="{frame.right + 14}" y="{y + 4:.1f}">{escape(arm)}</text>')
    return frame.svg(parts, f"{metric} by share of the training labels, one line an arm")


def ticks(low: float, high: float, want: int = 5) -> list[float]:
    """Round places that span low to high.

    >>> ticks(0.13, 0.92)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not high > low:
        low, high = low - 0.5, high + 0.5
    raw = (high - low) / want
    power = 10 ** math.floor(math.log10(raw))
    step = min((s * power for s in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


class _Frame:
    """A plot area in a viewBox, and what is drawn in it."""

    def __init__(self, x0: float, x1: float, y0: float, y1: float, width: int, height: int, right: int = 16) -> None:
        self.x0, self.x1, self.y0, self.y1, self.width, self.height = x0, x1, y0, y1, width, height
        self.left, self.right, self.top, self.bottom = 58, width - right, 14, height - 44

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * (value - self.x0) / ((self.x1 - self.x0) or 1)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * (value - self.y0) / ((self.y1 - self.y0) or 1)

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float], *, x_label: str, y_label: str) -> list[str]:
        parts = []
        for t in y_ticks:
            if self.y0 <= t <= self.y1 + 1e-9:
                y = self.y(t)
                parts.append(f'<line class="hair" x1="{self.left}" x2="{self.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
                parts.append(f'<text class="tick" text-anchor="end" x="{self.left - 9}" y="{y + 4:.1f}">{t:g}</text>')
        for t in x_ticks:
            x = self.x(t)
            parts.append(f'<text class="tick" text-anchor="middle" x="{x:.1f}" y="{self.bottom + 18}">{t:g}</text>')
        middle = (self.left + self.right) / 2
        parts.append(
            f'<text class="axis" text-anchor="middle" x="{middle:.0f}" y="{self.height - 6}">{escape(x_label)}</text>'
        )
        y_middle = (self.top + self.bottom) / 2
        parts.append(
            f'<text class="axis" text-anchor="middle" transform="translate(14 {y_middle:.0f}) rotate(-90)">'
            f"{escape(y_label)}</text>"
        )
        return parts

    def line(self, x: NDArray[Any], y: NDArray[Any], css: str, offset: float = 0.0) -> str:
        step = max(1, len(x) // 1200)
        keep = [*range(0, len(x), step)]
        if keep[-1] != len(x) - 1:
            keep.append(len(x) - 1)
        points = " ".join(f"{self.x(float(x[i])) + offset:.1f},{self.y(float(y[i])):.1f}" for i in keep)
        return f'<polyline class="line {css}" points="{points}"/>'

    def svg(self, parts: Sequence[str], label: str) -> Markup:
        return Markup(
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(label)}">'
            f"{''.join(parts)}</svg>"
        )


def _running(values: NDArray[np.float64], span: int) -> NDArray[np.float64]:
    """Centred running mean; the window shrinks at the ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    half = np.minimum(np.minimum(index, len(values) - 1 - index), span)
    return np.asarray((total[index + half + 1] - total[index - half]) / (2 * half + 1))


def _spread(ends: list[tuple[float, str, str]], gap: float) -> list[tuple[float, str, str]]:
    """Labels moved apart so that none covers another."""
    out: list[tuple[float, str, str]] = []
    for y, name, css in sorted(ends):
        out.append((max(y, out[-1][0] + gap) if out else y, name, css))
    return out
