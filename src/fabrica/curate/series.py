"""Slices to volumes and volumes to slices: DICOM series are stacked, a volume gives one picture for 2-D encoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.corpus.rights import join
from fabrica.types import Drop, Item, Record, record_id

_OF_SLICE = ("slice_mm", "instance")  # groups that tell slices of a series apart


@dataclass(kw_only=True)
class StackSeries:
    """Joins the slices of a series (`groups["series"]`, place in `groups["slice_mm"]`) to one volume (column, row,
    slice) with its affine; the slices go with reason "stacked".

    Slices must agree in shape, channels and orientation, each at its own place, `min_slices` at least; otherwise they
    pass as they came. Uneven distances are kept and said: `groups["spacing"]` = "uneven" (a step differs by more than
    2 % and 0.01 mm), "gap" (some step is 1.5 times the median or more: slices are missing); the affine is then right
    for the first and the last slice. Items besides the image come from the first slice; labels and groups that all
    slices share stay; rights are the strictest. Slices with regions are not stacked.
    """

    min_slices: int = 3
    modalities: tuple[str, ...] = ("ct", "mr", "nuclear")
    by: str = field(default="series", init=False, repr=False)
    name: str = field(default="stack_series", init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Volumes in place of their slices. Records of one series must arrive together."""
        for key, together in groupby(records, key=lambda r: r.groups.get("series", "")):
            if not key:
                yield from together
                continue
            slices = list(together)
            volume = self._stacked(key, slices)
            if volume is None:
                yield from slices
            else:
                for record in slices:
                    drop(record, "stacked")
                yield volume

    def _stacked(self, key: str, slices: Sequence[Record]) -> Record | None:
        placed = sorted((float(r.groups["slice_mm"]), r.id, r) for r in slices if _is_slice(r, self.modalities))
        if len(placed) < max(self.min_slices, 2) or len(placed) != len(slices):
            return None
        ordered = [r for _, _, r in placed]
        images = [_image(r) for r in ordered]
        if not _agree(images, [mm for mm, _, _ in placed]):
            return None
        values = np.stack([i.array() for i in images], axis=2).swapaxes(0, 1)
        affine = _affine(images)
        spacing = _spacing(np.diff([mm for mm, _, _ in placed]))
        origin = images[0].origin.then(f"stacked({len(images)}, {spacing})")
        item = replace(images[0], kind="volume", value=np.ascontiguousarray(values), affine=affine, origin=origin)
        return _joined(key, ordered, item, spacing)


def _is_slice(record: Record, modalities: Sequence[str]) -> bool:
    items = record.items.get("image", ())
    return (
        record.groups.get("modality") in modalities
        and "slice_mm" in record.groups
        and not record.regions
        and len(items) == 1
        and isinstance(items[0].value, np.ndarray)
        and items[0].affine is not None
    )


def _image(record: Record) -> Item:
    return record.items["image"][0]


def _agree(images: Sequence[Item], places: Sequence[float]) -> bool:
    """One shape, type, unit and orientation, and no two at one place."""
    first = images[0]
    axes = _axes(first)
    same = all(
        i.array().shape == first.array().shape
        and i.array().dtype == first.array().dtype
        and i.unit == first.unit
        and np.allclose(_axes(i)[:, :2], axes[:, :2], rtol=1e-3, atol=1e-3)
        for i in images
    )
    return same and bool(np.min(np.diff(places)) > 1e-3)


def _axes(item: Item) -> NDArray[np.float64]:
    assert item.affine is not None
    return np.asarray(item.affine[:3, :3], np.float64)


def _affine(images: Sequence[Item]) -> NDArray[np.float64]:
    """(column, row, slice) -> RAS mm, from slices' (row, column, 0)."""
    first, last = images[0].affine, images[-1].affine
    assert first is not None
    assert last is not None
    out = np.eye(4)
    out[:3, 0], out[:3, 1] = first[:3, 1], first[:3, 0]
    out[:3, 2] = (last[:3, 3] - first[:3, 3]) / (len(images) - 1)
    out[:3, 3] = first[:3, 3]
    return out


def _spacing(steps: NDArray[np.float64]) -> str:
    middle = float(np.median(steps))
    if steps.max() >= 1.5 * middle:
        return "gap"
    return "uneven" if np.abs(steps - middle).max() > max(0.02 * middle, 0.01) else "even"


def _joined(key: str, slices: Sequence[Record], item: Item, spacing: str) -> Record:
    first = slices[0]
    groups = {k: v for k, v in first.groups.items() if k not in _OF_SLICE and all(r.groups.get(k) == v for r in slices)}
    labels = {k: v for k, v in first.labels.items() if all(r.labels.get(k) == v for r in slices)}
    rest = {role: items for role, items in first.items.items() if role != "image"}
    splits = {r.split for r in slices}
    return Record(
        id=record_id("stack", key, *(r.id for r in slices)), subject=first.subject,
        groups={**groups, "spacing": spacing}, items={"volume": (item,), **rest}, labels=labels, links=first.links,
        rights=join(*(r.rights for r in slices)), split=splits.pop() if len(splits) == 1 else None,
    )  # fmt: skip


# ---------------------------------------------------------------- volume -> picture


@dataclass(kw_only=True)
class MiddleSlice:
    """Adds one picture (role "image", uint8) of each volume to records that have no image, for 2-D encoders.

    The cut lies in the middle of what is brighter than the volume's mean, across the axis of coarsest voxels (the
    acquired plane), or head to foot where voxels are about isotropic. It is shown as radiologists do: axial and coronal
    with the patient's right at the left, sagittal with the front at the left, head or front up. CT is windowed to
    `window` = (centre, width) HU (default 40/400, soft tissue; lung -600/1500, brain 40/80, bone 480/2500); other
    volumes from their 1st to their 99th percentile of non-zero voxels. The step and its window stand in `Origin.steps`.
    """

    window: tuple[float, float] = (40.0, 400.0)
    name: str = field(default="middle_slice", init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records, with a picture where there was only a volume."""
        for record in records:
            volumes = (i for i in record.all("volume") if isinstance(i.value, np.ndarray) and i.value.ndim in (3, 4))
            volume = next(volumes, None)
            if volume is None or record.first("image") is not None:
                yield record
            else:
                yield replace(record, items={**record.items, "image": (self.cut(volume),)})

    def cut(self, volume: Item) -> Item:
        """The picture of a volume item (X, Y, Z[, C]); of several channels the first, unless they are RGB."""
        value = volume.array()
        colour = value.ndim == 4 and value.shape[-1] == 3 and value.dtype == np.uint8
        if value.ndim == 4 and not colour:
            value = value[..., 0]
        affine = np.eye(4) if volume.affine is None else np.asarray(volume.affine, np.float64)
        value, affine = to_ras(value, affine)
        axis = _cut_axis(affine)
        at = _middle(value.mean(-1) if colour else value, axis)
        picture, picture_affine = _plane(value, affine, axis, at)
        step = "cut"
        if not colour:
            low, high, step = self._range(value, volume.unit)
            scaled = (picture.astype(np.float32) - low) * (255.0 / max(high - low, 1e-6))
            picture = np.clip(np.round(np.nan_to_num(scaled)), 0, 255).astype(np.uint8)
        origin = volume.origin.then(f"{self.name}({'xyz'[axis]}={at}, {step})")
        known = None if volume.affine is None else picture_affine
        return Item("image", np.ascontiguousarray(picture), origin, volume.hours, None, known)

    def _range(self, value: NDArray[Any], unit: str | None) -> tuple[float, float, str]:
        if unit == "HU":
            centre, width = self.window
            return centre - width / 2, centre + width / 2, f"window {centre:g}/{width:g} HU"
        finite = value[np.isfinite(value) & (value != 0)]
        if not finite.size:
            return 0.0, 1.0, "empty"
        low, high = np.percentile(finite, (1, 99))
        return float(low), float(high), "percentiles 1-99"


def to_ras(value: NDArray[Any], affine: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The array with its axes turned and ordered right, anterior, superior (a view), and its affine."""
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    turned = io_orientation(affine)  # type: ignore[no-untyped-call]
    if np.isnan(turned).any():  # a degenerate affine says nothing
        return value, affine
    back = inv_ornt_aff(turned, value.shape[:3])  # type: ignore[no-untyped-call]
    return apply_orientation(value, turned), affine @ back  # type: ignore[no-untyped-call]


def _cut_axis(affine: NDArray[np.float64]) -> int:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    coarse = int(np.argmax(spacing))
    return coarse if spacing[coarse] > 1.5 * np.median(spacing) else 2


def _middle(value: NDArray[Any], axis: int) -> int:
    """The middle index along `axis` of what is brighter than the mean."""
    other = tuple(i for i in range(3) if i != axis)
    known = np.isfinite(value)
    level = value.mean(dtype=np.float64, where=known) if known.any() else 0.0
    bright = np.flatnonzero((value > level).any(axis=other))
    return int(bright[0] + bright[-1]) // 2 if bright.size else value.shape[axis] // 2


def _plane(
    value: NDArray[Any], affine: NDArray[np.float64], axis: int, at: int
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The cut of a RAS array as shown, (row, column[, C]), and its affine from (row, column, 0)."""
    across, down = [(1, 2), (0, 2), (0, 1)][axis]  # both run backwards: from right or front, from head or front
    cut = np.take(value, at, axis=axis)[::-1, ::-1].swapaxes(0, 1)
    corner = np.zeros(4)
    corner[[across, down, axis, 3]] = value.shape[across] - 1, value.shape[down] - 1, at, 1
    out = np.eye(4)
    out[:3, 0], out[:3, 1], out[:3, 2] = -affine[:3, down], -affine[:3, across], affine[:3, axis]
    out[:, 3] = affine @ corner
    return cut, out
