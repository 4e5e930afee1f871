"""Phantom P1: two-lung images of six finding shapes with masks, labels and reports, thousands a second a core."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError, unknown
from fabrica.phantom import captions
from fabrica.phantom.shapes import F32, SHAPES, SIZE, STYLES, coverage, f32
from fabrica.types import Absent, Item, Origin, Record, Region, Rights, record_id

LABELS = SHAPES
SIDES, ZONES = ("left", "right"), ("upper", "middle", "lower")
CENTRES_X, CENTRES_Y = (19.0, 45.0), (14.0, 32.0, 50.0)
LICENCE = "CC0-1.0"
MODALITY = {  # style -> the modality that it stands for
    "transmission": "xray", "slice": "ct", "inverted": "mr", "fan": "ultrasound", "stain": "pathology",
    "retina": "fundus",
}  # fmt: skip
Text = Literal["report", "article", "none"]
_REACH = 9  # pixels: the largest radius, the sub-pixel centre and the soft edge


class P1Finding(NamedTuple):
    """One finding: `label` of LABELS; `side` of the image and `zone`; centre `x`, `y` and `radius` in pixels."""

    label: str
    side: str
    zone: str
    x: float
    y: float
    radius: float
    contrast: float

    @property
    def place(self) -> str:
        """Where it is, as a report says it."""
        return f"in the {self.side} {self.zone} zone"


@dataclass(frozen=True, slots=True)
class P1Batch:
    """`images` (n, 64, 64) or (n, 64, 64, 3) float32; `labels` (n, 6) float32 of 0 and 1 in the order of LABELS;
    `packed` (n, 64, 64) uint8, bit k set where LABELS[k] covers the pixel; `findings` and `reports` one a row."""

    images: F32
    labels: F32
    packed: NDArray[np.uint8]
    findings: tuple[tuple[P1Finding, ...], ...]
    reports: tuple[str, ...]
    style: str
    text: Text
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    @property
    def masks(self) -> NDArray[np.bool_]:
        """(n, 6, 64, 64): where each label is."""
        bits = np.arange(len(LABELS), dtype=np.uint8)[:, None, None]
        return (self.packed[:, None] >> bits & 1).astype(bool)

    def records(self, *, source: str = "phantom-p1", regions: bool = False) -> Iterator[Record]:
        """One record a row: role "image", role "report" ("caption" for articles), six labels, on request mask regions.

        >>> r = next(p1(2, 0).records())
        >>> r.groups["modality"], sorted(r.labels) == sorted(LABELS), r.first("report").origin.by
        ('xray', True, 'synthetic')
        """
        for i, found in enumerate(self.findings):
            key = f"{self.style}/{self.seed}/{i}"
            origin = Origin(source, key, "", LICENCE, by="synthetic")
            items = {"image": (Item("image", self.images[i], origin),)}
            role = "caption" if self.text == "article" else "report"
            items[role] = (Item("text", self.reports[i] or Absent.NOT_DONE, origin),)
            yield Record(
                record_id(source, key),
                record_id("subject", source, key)[:16],
                {"modality": MODALITY[self.style], "source": source, "data": "phantom"},
                items,
                tuple(self._region(i, f, origin) for f in found) if regions else (),
                {name: float(v) for name, v in zip(LABELS, self.labels[i], strict=True)},
                rights=Rights(LICENCE),
            )

    def _region(self, i: int, found: P1Finding, origin: Origin) -> Region:
        mask = (self.packed[i] >> LABELS.index(found.label) & 1).astype(bool)
        return Region("image", "mask", mask, found.label, origin, text=found.place)


def p1(
    n: int, seed: int, *, style: str = "transmission", text: Text = "report", least: int = 0, most: int = 3
) -> P1Batch:
    """`n` images of `least` to `most` findings, each of its own label in its own cell of side x zone.

    `style` is one of `shapes.STYLES`: six renderers that stand for six modalities. `text`: "report" (synonym sentences
    and two negated absent findings, shuffled), "article" (a caption of 60 to 120 words in which compound rare terms
    name the findings at a random position) or "none" (label-only source). The same arguments give the same bytes.

    >>> batch = p1(100, seed=0)
    >>> batch.images.shape, batch.labels.shape, batch.masks.shape
    ((100, 64, 64), (100, 6), (100, 6, 64, 64))
    """
    if n < 1 or not 0 <= least <= most <= 4:
        raise UsageError(f"p1 wants n >= 1 and 0 <= least <= most <= 4, got n={n}, least={least}, most={most}")
    if style not in STYLES:
        raise unknown("style", style, STYLES)
    if text not in ("report", "article", "none"):
        raise unknown("text", text, ("report", "article", "none"))
    rng = np.random.default_rng([seed, 1, n])
    table = _place(n, (least, most), rng)
    signal, packed = _stamp(n, table)
    images = f32(STYLES[style](signal, rng))
    labels = f32((packed.reshape(n, 1, -1) >> np.arange(6, dtype=np.uint8)[:, None] & 1).any(-1))
    findings = _findings(n, table)
    return P1Batch(images, labels, packed, findings, _texts(findings, text, seed), style, text, seed)


@dataclass(frozen=True, slots=True)
class _Table:
    """Findings as columns (F,): row of the batch, slot within the row, label, cell, x, y, radius, contrast."""

    row: NDArray[np.int64]
    slot: NDArray[np.int64]
    label: NDArray[np.int64]
    cell: NDArray[np.int64]
    x: F32
    y: F32
    radius: F32
    contrast: F32


def _place(n: int, count: tuple[int, int], rng: np.random.Generator) -> _Table:
    many = rng.integers(count[0], count[1] + 1, n)
    row = np.repeat(np.arange(n), many)
    slot = np.arange(len(row)) - np.repeat(np.cumsum(many) - many, many)
    label = rng.random((n, 6)).argsort(1)[row, slot]
    cell = rng.random((n, 6)).argsort(1)[row, slot]
    jitter = rng.uniform(-3, 3, (2, len(row)))
    x = (np.asarray(CENTRES_X)[cell // 3] + jitter[0]).astype(np.float32)
    y = (np.asarray(CENTRES_Y)[cell % 3] + jitter[1]).astype(np.float32)
    radius, contrast = rng.uniform(4, 7, len(row)), rng.uniform(0.5, 0.9, len(row))
    return _Table(row, slot, label, cell, x, y, radius.astype(np.float32), contrast.astype(np.float32))


def _stamp(n: int, t: _Table) -> tuple[F32, NDArray[np.uint8]]:
    """Draw every finding into its row: sum of contrast x coverage, and the bit map of where each label is."""
    signal, packed = np.zeros((n, SIZE, SIZE), np.float32), np.zeros((n, SIZE, SIZE), np.uint8)
    span = np.arange(-_REACH, _REACH + 1)
    cy, cx = np.rint(t.y).astype(int), np.rint(t.x).astype(int)
    for slot in range(int(t.slot.max(initial=-1)) + 1):
        for k, shape in enumerate(SHAPES):
            i = np.flatnonzero((t.slot == slot) & (t.label == k))
            rows, ys, xs = t.row[i, None, None], (cy[i, None] + span)[:, :, None], (cx[i, None] + span)[:, None, :]
            dy, dx = (ys - t.y[i, None, None]).astype(np.float32), (xs - t.x[i, None, None]).astype(np.float32)
            cover = coverage(shape, dy, dx, t.radius[i, None, None])
            signal[rows, ys, xs] += cover * t.contrast[i, None, None]
            packed[rows, ys, xs] |= (cover > 0.5).astype(np.uint8) << np.uint8(k)
    return signal, packed


def _findings(n: int, t: _Table) -> tuple[tuple[P1Finding, ...], ...]:
    rows: list[list[P1Finding]] = [[] for _ in range(n)]
    columns = (t.row, t.label, t.cell, t.x, t.y, t.radius, t.contrast)
    for row, label, cell, x, y, r, c in zip(*(column.tolist() for column in columns), strict=True):
        rows[row].append(P1Finding(LABELS[label], SIDES[cell // 3], ZONES[cell % 3], x, y, r, c))
    return tuple(map(tuple, rows))


def _texts(findings: Sequence[Sequence[P1Finding]], text: Text, seed: int) -> tuple[str, ...]:
    if text == "none":
        return ("",) * len(findings)
    rng = random.Random(f"p1-{text}-{seed}")
    if text == "report":
        return tuple(captions.report(f, captions.P1, rng) for f in findings)
    return tuple(captions.article(f, captions.COMPOUNDS, rng) for f in findings)
