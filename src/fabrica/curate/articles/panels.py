"""Panel boxes of a compound figure by its gutters: recursive cuts at rows and columns of background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 pixels, end exclusive


@dataclass(frozen=True, slots=True)
class _Cut:
    score: float
    axis: int  # 0: a horizontal gutter, rows; 1: a vertical one, columns
    start: int
    end: int


def panels(
    image: NDArray[Any], count: int | None = None, *, tolerance: float = 0.06, gutter: float = 0.02, least: float = 0.3
) -> tuple[Box, ...]:
    """Boxes of an image (H, W[, C]) in reading order.

    Background is the brightest colour where the edge shows it, else the edge's median; a gutter is a run of rows or
    columns that differ from it by at most `tolerance` of the range, with content on both sides. With `count` (from the
    caption's letters) the strongest cuts are taken until there are so many panels, each at least a tenth of the shorter
    side, gutters of 2 pixels included; without, every gutter of `gutter` of the longer side (3 pixels) is cut whose
    sides have at least the share `least`: plots and tables have gaps of their own.

    >>> image = np.full((40, 90), 255, np.uint8); image[:, :40] = 9; image[:, 50:] = 99
    >>> panels(image)
    ((0, 0, 40, 40), (50, 0, 90, 40))
    """
    busy = _busy(image, tolerance)
    high, wide = busy.shape
    if not busy.any():
        return ((0, 0, wide, high),)
    thin = 2 if count is not None else max(3, round(gutter * max(high, wide)))
    side = max(4, int((least if count is None else 0.1) * min(high, wide)))
    boxes = [_trim(busy, (0, 0, wide, high))]
    cuts = [_best(busy, boxes[0], thin, side)]
    while len(boxes) < (count or 10_000):
        open_cuts = [(c.score, -i, c) for i, c in enumerate(cuts) if c is not None]
        if not open_cuts:
            break
        _, behind, cut = max(open_cuts, key=lambda found: found[:2])
        at = -behind
        halves = [_trim(busy, half) for half in _halves(boxes[at], cut)]
        boxes[at : at + 1] = halves
        cuts[at : at + 1] = [_best(busy, half, thin, side) for half in halves]
    return reading_order(boxes)


def _busy(image: NDArray[Any], tolerance: float) -> NDArray[np.bool_]:
    """Where the picture is not background, (H, W)."""
    values = np.asarray(image, np.float32)
    values = values[..., None] if values.ndim == 2 else values
    edge = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    span = 255.0 if image.dtype == np.uint8 else max(float(values.max() - values.min()), 1e-9)
    corner = np.median(edge, 0)
    white = values.max((0, 1))
    # a figure without a margin has panels at its edge: paper is the brightest there is, where the edge shows some of it
    paper = white if (np.abs(edge - white).max(-1) <= tolerance * span).mean() >= 0.02 else corner
    return np.asarray(np.abs(values - paper).max(-1) > tolerance * span)


def _best(busy: NDArray[np.bool_], box: Box, thin: int, side: int) -> _Cut | None:
    """The strongest gutter of a box: width times length, the wider of two alike."""
    x0, y0, x1, y1 = box
    part = busy[y0:y1, x0:x1]
    found: list[_Cut] = []
    for axis in (0, 1):
        line: NDArray[np.bool_] = np.asarray(part.any(1 - axis))
        length = part.shape[1 - axis]
        for start, end in _runs(~line):
            if start < side or len(line) - end < side or end - start < thin:
                continue
            found.append(_Cut((end - start) * float(length) ** 1.5, axis, start, end))
    return max(found, key=lambda c: c.score, default=None)


def _runs(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """[start, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _halves(box: Box, cut: _Cut) -> tuple[Box, Box]:
    x0, y0, x1, y1 = box
    if cut.axis == 0:
        return (x0, y0, x1, y0 + cut.start), (x0, y0 + cut.end, x1, y1)
    return (x0, y0, x0 + cut.start, y1), (x0 + cut.end, y0, x1, y1)


def _trim(busy: NDArray[np.bool_], box: Box) -> Box:
    """The box without its empty edge."""
    x0, y0, x1, y1 = box
    part = busy[y0:y1, x0:x1]
    ys, xs = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    if not len(ys):
        return box
    return x0 + int(xs[0]), y0 + int(ys[0]), x0 + int(xs[-1]) + 1, y0 + int(ys[-1]) + 1


def reading_order(boxes: list[Box]) -> tuple[Box, ...]:
    """Rows from the top, left to right in a row; boxes are in a row where their heights overlap by half.

    >>> reading_order([(50, 2, 90, 40), (0, 50, 90, 90), (0, 0, 40, 41)])
    ((0, 0, 40, 41), (50, 2, 90, 40), (0, 50, 90, 90))
    """
    rows: list[list[Box]] = []
    for box in sorted(boxes, key=lambda b: (b[1], b[0])):
        for row in rows:
            top, bottom = max(box[1], row[0][1]), min(box[3], row[0][3])
            if bottom - top >= 0.5 * min(box[3] - box[1], row[0][3] - row[0][1]):
                row.append(box)
                break
        else:
            rows.append([box])
    return tuple(b for row in rows for b in sorted(row))


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes.

    >>> iou((0, 0, 10, 10), (5, 0, 15, 10))
    0.3333333333333333
    """
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0, wide) * max(0, high)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union else 0.0
