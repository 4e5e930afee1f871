"""Where DICOM pixels lie: image position and orientation -> affines in RAS mm (PS3.3 C.7.6.2, C.7.6.16).

DICOM speaks of LPS (left, posterior, superior); negating the first two rows gives RAS. Affines map array indices: of an
image (row, column, 0), of a volume (column, row, slice).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabrica.sources.dicom_parse import DataSet


@dataclass(frozen=True, slots=True)
class Plane:
    """One frame's place: `origin` (3,) RAS mm of the first pixel's centre, `down` the rows and `across` the columns as
    (3,) unit vectors RAS, `spacing` (between rows, between columns) mm, `thick` mm to the next slice."""

    origin: NDArray[np.float64]
    down: NDArray[np.float64]
    across: NDArray[np.float64]
    spacing: tuple[float, float]
    thick: float

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across x down."""
        (a, b, c), (d, e, f) = self.across.tolist(), self.down.tolist()
        return np.array([b * f - c * e, c * d - a * f, a * e - b * d])

    @property
    def position(self) -> float:
        """mm along the normal: orders the slices of a series."""
        return float(self.origin @ self.normal)

    def affine(self) -> NDArray[np.float64]:
        """(4, 4): (row, column, 0) -> RAS mm of a single image; the third column steps by the slice distance."""
        return _affine(
            self.down * self.spacing[0], self.across * self.spacing[1], self.normal * self.thick, self.origin
        )


def _ras(lps: Sequence[float], length: float = 1.0) -> NDArray[np.float64]:
    return np.array([-lps[0] / length, -lps[1] / length, lps[2] / length])


def _affine(*columns: NDArray[np.float64]) -> NDArray[np.float64]:
    out = np.eye(4)
    out[:3] = np.stack(columns, 1)
    return out


def plane(ds: DataSet, *groups: DataSet | None) -> Plane | None:
    """The place of a frame; `groups` are functional groups that are looked in first. None where the file does not say
    or what it says is no geometry."""
    position = _found(0x00200032, 3, (0x00209113,), ds, groups)
    orientation = _found(0x00200037, 6, (0x00209116,), ds, groups)
    spacing = _found(0x00280030, 2, (0x00289110,), ds, groups)
    if position is None or orientation is None or spacing is None or min(spacing) <= 0:
        return None
    across, down = orientation[:3], orientation[3:]
    lengths = math.hypot(*across), math.hypot(*down)
    slant = sum(a * b for a, b in zip(across, down, strict=True))
    if not all(0.9 < n < 1.1 for n in lengths) or abs(slant) > 0.01:
        return None
    thick = _found(0x00180088, 1, (0x00289110,), ds, groups) or _found(0x00180050, 1, (0x00289110,), ds, groups)
    step = abs(thick[0]) if thick and thick[0] else 1.0
    return Plane(
        _ras(position), _ras(down, lengths[1]), _ras(across, lengths[0]), (spacing[0], spacing[1]), step,
    )  # fmt: skip


def _found(
    tag: int, count: int, inside: tuple[int, ...], ds: DataSet, groups: Sequence[DataSet | None]
) -> list[float] | None:
    for group in groups:
        holder = group.item(*inside) if group is not None else None
        if holder is not None and len(got := holder.numbers(tag)) >= count:
            return got[:count]
    got = ds.numbers(tag)
    return got[:count] if len(got) >= count else None


def frame_planes(ds: DataSet, frames: int) -> list[Plane] | None:
    """The place of each frame of a multi-frame file, None where they are not all known."""
    shared, per_frame = ds.item(0x52009229), ds.items(0x52009230)
    if len(per_frame) >= frames:
        planes = [plane(ds, group, shared) for group in per_frame[:frames]]
        known = [p for p in planes if p is not None]
        return known if len(known) == frames else None
    offsets = ds.numbers(0x3004000C)  # RT dose: GridFrameOffsetVector
    first = plane(ds)
    if first is None and (detector := ds.item(0x00540022)) is not None:  # nuclear medicine, reconstructed
        first = _detector_plane(ds, detector)
        offsets = [i * first.thick for i in range(frames)] if first is not None else []
    if first is None or len(offsets) < frames:
        return None
    if offsets[0] != 0 and first.position:
        offsets = [o - offsets[0] for o in offsets]
    return [
        Plane(first.origin + first.normal * o, first.down, first.across, first.spacing, first.thick)
        for o in offsets[:frames]
    ]


def _detector_plane(ds: DataSet, detector: DataSet) -> Plane | None:
    if "RECON TOMO" not in ds.text(0x00080008):
        return None
    position, orientation = detector.numbers(0x00200032), detector.numbers(0x00200037)
    spacing, step = ds.numbers(0x00280030), ds.number(0x00180088) or ds.number(0x00180050)
    if len(position) != 3 or len(orientation) != 6 or len(spacing) != 2 or not step:
        return None
    across, down = _ras(orientation[:3]), _ras(orientation[3:])
    return Plane(_ras(position), down, across, (spacing[0], spacing[1]), abs(step))


def stack(planes: Sequence[Plane]) -> tuple[NDArray[np.int64], NDArray[np.float64], bool] | None:
    """How frames make a volume: (order (slices, channels) of frame numbers, affine (4, 4) of (column, row, slice), even
    spacing?), None where they are not parallel, not aligned, or several at a place in unequal numbers.

    Slices run along across x down; the affine is right for the first and the last slice.
    """
    first = planes[0]
    if len(planes) < 2 or any(
        abs(p.across @ first.across) < 0.9999 or abs(p.down @ first.down) < 0.9999 or p.spacing != first.spacing
        for p in planes
    ):
        return None
    at = np.round([p.position for p in planes], 3)
    places, inverse, counts = np.unique(at, return_inverse=True, return_counts=True)
    if len(places) < 2 or counts.min() != counts.max():
        return None
    order = np.argsort(inverse, kind="stable").reshape(len(places), int(counts[0]))
    steps = np.diff(places)
    low, high = planes[int(order[0, 0])], planes[int(order[-1, 0])]
    affine = _affine(
        first.across * first.spacing[1], first.down * first.spacing[0],
        (high.origin - low.origin) / (len(places) - 1), low.origin,
    )  # fmt: skip
    return order, affine, bool(np.ptp(steps) <= 0.01 * steps.mean() + 2e-3)
