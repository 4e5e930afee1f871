"""Twelve kinds of figure that articles print, drawn small and fast: pictures of patients and cells, plots, tables.

The clinical and microscopy ones hold one thing to be seen in a quarter of the picture (`place`), which captions name.
As in print, one concept comes in several looks: inverted greys, another stain, plots on grey or black.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fabrica.phantom.draw import oval, smooth, step, unit
from fabrica.phantom.shapes import F32, f32

CONCEPTS = (
    "chest radiograph", "computed tomography", "ultrasound", "histology", "fluorescence microscopy",
    "electron microscopy", "gel blot", "bar plot", "line plot", "scatter plot", "flowchart", "table",
)  # fmt: skip
PICTURED = CONCEPTS[:6]  # what clinical and microscopy filters keep
PLOTTED = CONCEPTS[7:]  # what they drop
PLACES = ("upper left", "upper right", "lower left", "lower right")
SIGHTS = {  # concept: what is to be seen there
    "chest radiograph": "an opacity", "computed tomography": "a dense lesion", "ultrasound": "a hypoechoic mass",
    "histology": "a dense cluster of nuclei", "fluorescence microscopy": "a bright cluster of labelled cells",
    "electron microscopy": "a dark granule",
}  # fmt: skip


def draw(concept: str, rng: np.random.Generator, size: int = 48, place: int | None = None) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 of a concept; `place` 0 to 3 is where the thing to be seen lies (drawn where not given)."""
    if concept not in CONCEPTS:
        raise ValueError(f"concept {concept!r} is none of {', '.join(CONCEPTS)}")
    k = CONCEPTS.index(concept)
    where = int(rng.integers(4)) if place is None else place
    v0, u0 = (0.28, 0.72)[where // 2] + 0.06 * rng.normal(), (0.28, 0.72)[where % 2] + 0.06 * rng.normal()
    if k < 6:
        image = _DRAWN[k](rng, size, float(v0), float(u0))
    else:
        image = _printed(k, rng, size)
    image = _look(image if image.ndim == 3 else np.repeat(image[..., None], 3, 2), k, rng.random(), rng)
    gain, lift = 1 + 0.12 * rng.normal(), 0.04 * rng.normal() if k < 6 else 0.0
    image = image * (gain if k < 6 else 1) + lift + 0.02 * rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray((np.clip(image, 0, 1) * 255).round(), np.uint8)


def _look(image: F32, k: int, chance: float, rng: np.random.Generator) -> F32:
    """One of the looks of a concept: greys inverted (blots shine), hematoxylin and DAB, a grey merge, plot themes."""
    if k in (0, 1, 2, 5, 6):
        return f32(1 - image) if chance < 0.3 else image
    if k == 3:
        return f32(image[..., [2, 1, 0]] * [1, 0.95, 0.8]) if chance < 0.35 else image
    if k == 4:
        return f32(np.repeat(image.max(-1, keepdims=True), 3, 2)) if chance < 0.3 else image
    if chance < 0.2:
        return f32(1 - image)
    paper = (image.min(-1, keepdims=True) > 0.97).astype(np.float32)
    shade = 1 - 0.12 * rng.random(3).astype(np.float32) - 0.05 if chance < 0.5 else np.ones(3, np.float32)
    return f32(image * (1 - paper) + paper * shade)


# ---------------------------------------------------------------- patients and cells


def _radiograph(rng: np.random.Generator, n: int, v0: float, u0: float) -> F32:
    v, u = unit(n)
    wide = 1 + 0.08 * rng.normal()
    lung = np.maximum(oval(v, u, 0.5, 0.29, 0.36, 0.17 * wide, 0.04), oval(v, u, 0.5, 0.71, 0.36, 0.17 * wide, 0.04))
    image = 0.75 - 0.5 * lung + 0.05 * np.sin((v + 0.3 * np.abs(u - 0.5)) * 50) * lung
    return f32(image + 0.3 * oval(v, u, v0, u0, 0.09, 0.08, 0.05))


def _ct(rng: np.random.Generator, n: int, v0: float, u0: float) -> F32:
    v, u = unit(n)
    wide, tall = 0.42 + 0.03 * rng.normal(), 0.34 + 0.03 * rng.normal()
    body, inner = oval(v, u, 0.5, 0.5, tall, wide, 0.02), oval(v, u, 0.5, 0.5, tall - 0.05, wide - 0.05, 0.02)
    image = 0.35 * body + 0.2 * (body - inner) + 0.08 * smooth((n, n), n / 12, rng) * inner
    image = image + 0.5 * oval(v, u, 0.5 + tall - 0.1, 0.5, 0.06, 0.05, 0.02)
    shift = 0.75  # lesions lie inside the body
    return f32(image + 0.35 * oval(v, u, 0.5 + shift * (v0 - 0.5), 0.5 + shift * (u0 - 0.5), 0.07, 0.07, 0.03))


def _ultrasound(rng: np.random.Generator, n: int, v0: float, u0: float) -> F32:
    v, u = unit(n)
    sector = (np.abs(np.arctan2(u - 0.5, v + 0.25)) < 0.62).astype(np.float32)
    speckle = np.abs(smooth((n, n), 1.0, rng)) * (0.3 + 0.25 * smooth((n, n), n / 6, rng).clip(-1, 1))
    mass = oval(v, u, v0, 0.5 + 0.7 * (u0 - 0.5), 0.11, 0.12, 0.03)
    return f32(sector * (0.15 + speckle) * (1 - 0.85 * mass))


def _cells(n: int, spots: NDArray[np.float64], r: float) -> F32:
    v, u = unit(n)
    cover = np.zeros((n, n), np.float32)
    for cv, cu in spots:
        y0, y1 = max(0, int((cv - 2 * r) * n)), min(n, int((cv + 2 * r) * n) + 2)
        x0, x1 = max(0, int((cu - 2 * r) * n)), min(n, int((cu + 2 * r) * n) + 2)
        if y0 < y1 and x0 < x1:
            part = step(r - np.hypot(v[y0:y1, x0:x1] - cv, u[y0:y1, x0:x1] - cu), 0.02)
            cover[y0:y1, x0:x1] = np.maximum(cover[y0:y1, x0:x1], part)
    return cover


def _histology(rng: np.random.Generator, n: int, v0: float, u0: float) -> F32:
    pink = np.array([0.92, 0.7 + 0.05 * rng.normal(), 0.8], np.float32)
    image = pink + 0.06 * smooth((n, n), n / 10, rng)[..., None]
    spots = np.concatenate([rng.random((22, 2)), [v0, u0] + 0.07 * rng.normal(size=(14, 2))])
    cover = _cells(n, spots, 0.028)[..., None]
    return f32(image + cover * (np.array([0.35, 0.2, 0.5], np.float32) - image))


def _fluorescence(rng: np.random.Generator, n: int, v0: float, u0: float) -> F32:
    colour = np.roll(np.array([0.1, 1.0, 0.25], np.float32), rng.integers(3))
    sparse, dense = _cells(n, rng.random((9, 2)), 0.035), _cells(n, [v0, u0] + 0.07 * rng.normal(size=(9, 2)), 0.035)
    counter = _cells(n, rng.random((8, 2)), 0.05)[..., None] * np.roll(colour, 1) * 0.4
    return f32((0.45 * sparse + 0.9 * dense)[..., None] * colour + counter + 0.03)


def _electron(rng: np.random.Generator, n: int, v0: float, u0: float) -> F32:
    v, u = unit(n)
    field = smooth((n, n), n / 7, rng)
    membrane = np.exp(-((np.abs(field) / 0.09) ** 2))
    image = 0.62 + 0.05 * smooth((n, n), 1.2, rng) - 0.4 * membrane
    return f32(image - 0.45 * oval(v, u, v0, u0, 0.08, 0.08, 0.02))


_DRAWN = (_radiograph, _ct, _ultrasound, _histology, _fluorescence, _electron)

# ---------------------------------------------------------------- blots, plots, tables


def _printed(k: int, rng: np.random.Generator, n: int) -> F32:
    """On white (blots on grey), with axes or rules as print has them."""
    image = np.ones((n, n, 3), np.float32)
    if k == 6:
        return _blot(rng, n)
    if k in (7, 8, 9):
        left, bottom = int(n * rng.uniform(0.08, 0.2)), int(n * rng.uniform(0.8, 0.93))
        image[: bottom + 1, left : left + 1] = 0.1
        image[bottom : bottom + 1, left:] = 0.1
        (_bars, _lines, _points)[k - 7](image, rng, left, bottom)
        return image
    return (_flow if k == 10 else _table)(image, rng)


def _ink(rng: np.random.Generator) -> F32:
    return np.zeros(3, np.float32) if rng.random() < 0.35 else rng.uniform(0.05, 0.75, 3).astype(np.float32)


def _blot(rng: np.random.Generator, n: int) -> F32:
    v, u = unit(n)
    image = np.full((n, n), 0.72 + 0.08 * rng.normal(), np.float32)
    lanes = int(rng.integers(4, 8))
    for row in np.sort(rng.uniform(0.15, 0.85, int(rng.integers(1, 4)))):
        for lane in range(lanes):
            cover = oval(v, u, row + 0.01 * rng.normal(), (lane + 0.5) / lanes, 0.035, 0.36 / lanes, 0.03)
            image = image - rng.uniform(0.05, 0.65) * cover
    return f32(image)


def _bars(image: F32, rng: np.random.Generator, left: int, bottom: int) -> None:
    n, count, inks = len(image), int(rng.integers(3, 9)), [_ink(rng) for _ in range(2)]
    width = (n - left - 2) / count
    for i in range(count):
        top = int(bottom * (1 - rng.uniform(0.15, 0.95)))
        x0 = int(left + 1 + i * width + 0.15 * width)
        image[top:bottom, x0 : max(x0 + 1, int(left + 1 + (i + 0.85) * width))] = inks[i % 2]


def _lines(image: F32, rng: np.random.Generator, left: int, bottom: int) -> None:
    n = len(image)
    xs = np.arange(left + 1, n - 1)
    for _ in range(int(rng.integers(1, 4))):
        ink = _ink(rng)
        path = np.interp(xs, np.linspace(left, n, 6), rng.uniform(0.08, 0.92, 6) * bottom)
        for x, a, b in zip(xs, path, np.append(path[1:], path[-1]), strict=True):
            image[int(min(a, b)) : int(max(a, b)) + 1, x] = ink


def _points(image: F32, rng: np.random.Generator, left: int, bottom: int) -> None:
    n, count, ink = len(image), int(rng.integers(25, 70)), _ink(rng)
    x = rng.uniform(0, 1, count)
    y = np.clip(0.5 + rng.uniform(-0.8, 0.8) * (x - 0.5) + 0.15 * rng.normal(size=count), 0.03, 0.97)
    for px, py in zip(left + 1 + x * (n - left - 4), y * (bottom - 3), strict=True):
        image[int(py) : int(py) + 2, int(px) : int(px) + 2] = ink


def _flow(image: F32, rng: np.random.Generator) -> F32:
    n, rows = len(image), int(rng.integers(3, 5))
    ink, fill = _ink(rng), (rng.uniform(0.75, 1, 3).astype(np.float32) if rng.random() < 0.6 else 1.0)
    for i in range(rows):
        for j in range(1 if i == 0 else int(rng.integers(1, 3))):
            y, h, w = int((i + 0.15) * n / rows), int(0.5 * n / rows), int(n * rng.uniform(0.28, 0.4))
            x = int(n * (0.5 * j + 0.05)) if i else (n - w) // 2
            image[y : y + h, x : x + w] = ink
            image[y + 1 : y + h - 1, x + 1 : x + w - 1] = fill
            image[y + h // 2, x + 3 : x + w - 3 : 2] = 0.3
            image[y + h : int((i + 1.1) * n / rows), x + w // 2] = ink
    return image


def _table(image: F32, rng: np.random.Generator) -> F32:
    n, rows, columns = len(image), int(rng.integers(5, 10)), int(rng.integers(3, 6))
    step_y, step_x = n / rows, n / columns
    for i in range(rows):
        y = int((i + 0.5) * step_y)
        for j in range(columns):
            word = int(step_x * rng.uniform(0.3, 0.75))
            image[y : y + 2, int(j * step_x + 2) : int(j * step_x + 2) + word] = rng.uniform(0.1, 0.5)
    for y in (1, int(step_y), n - 2):
        image[y, 1 : n - 1] = 0.1
    return image
