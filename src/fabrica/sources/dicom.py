"""DICOM files -> one record each: picture, volume, video or waveform with geometry in RAS mm; identifiers only hashed.

A single slice is role "image" with kind image, `affine` of (row, column, 0) and `groups["slice_mm"]`, its place along
the normal, so that slices of a series can be stacked. Frames that form a volume become (column, row, slice[, channel]);
other multi-frame pictures are kind video, (frame, row, column[, colour]). CT is float32 HU. No name, date or
identifier is kept; study, series and frame of reference are hashes in `groups`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits, check_array, open_file, sha256
from fabrica.sources import Ref, dicom_geometry, dicom_pixels, dicom_waveform
from fabrica.sources.dicom_layout import Layout, layout
from fabrica.sources.dicom_parse import DataSet, parse
from fabrica.sources.single import hashed, origin, record
from fabrica.types import Absent, Item, Kind, Origin, Record

MODALITIES: Mapping[str, str] = MappingProxyType(
    {
        "CT": "ct", "MR": "mr", "US": "ultrasound", "IVUS": "ultrasound", "CR": "xray", "DX": "xray", "RG": "xray",
        "XA": "xray", "RF": "xray", "MG": "mammography", "IO": "xray", "PX": "xray", "SM": "pathology",
        "GM": "photo", "XC": "photo", "DMS": "dermoscopy", "OP": "fundus", "OPT": "oct", "OCT": "oct",
        "ES": "endoscopy", "NM": "nuclear", "PT": "nuclear", "ST": "nuclear", "ECG": "ecg", "EEG": "eeg",
        "HD": "signal", "SEG": "seg", "SR": "report",
        "RTDOSE": "rtdose", "RTSTRUCT": "rtstruct", "RTPLAN": "rtplan", "RTIMAGE": "xray",
    }
)  # fmt: skip
_GROUPS: Mapping[str, int] = MappingProxyType(
    {"view": 0x00185101, "body": 0x00180015, "sex": 0x00100040, "scanner": 0x00081090, "maker": 0x00080070}
)
_ECG_CLASSES = "1.2.840.10008.5.1.4.1.1.9.1."
_DICOMDIR = "1.2.840.10008.1.3.10"


@dataclass(frozen=True, slots=True)
class Header:
    """What a scan of a file's header says, without its pixels. UIDs are raw: hash them before they are kept.

    `spacing` (between rows, between columns) mm; `slice_mm` along the slice normal; None where the file does not say.
    """

    modality: str
    sop_class: str
    study: str
    series: str
    instance: str
    number: int | None
    rows: int
    columns: int
    frames: int
    spacing: tuple[float, float] | None
    slice_mm: float | None
    syntax: str


def scan(path: str | Path, limits: Limits = LIMITS) -> Header:
    """Read a header only: nothing of the pixels is read or allocated. `Refused` for what is no DICOM."""
    with open_file(path, limits) as handle:
        ds = parse(handle, limits)
    place = dicom_geometry.plane(ds)
    spacing = ds.numbers(0x00280030)
    number = ds.number(0x00200013, b"IS")
    return Header(
        ds.text(0x00080060), ds.text(0x00080016), ds.text(0x0020000D), ds.text(0x0020000E), ds.text(0x00080018),
        None if number is None else int(number), ds.integer(0x00280010, 0), ds.integer(0x00280011, 0),
        ds.integer(0x00280008, 1, b"IS"), (spacing[0], spacing[1]) if len(spacing) > 1 else None,
        None if place is None else place.position, ds.syntax,
    )  # fmt: skip


def pixels(path: str | Path, limits: Limits = LIMITS) -> NDArray[Any]:
    """The picture alone as `read` gives it: (H, W[, C]), (T, H, W[, C]), or a volume (X, Y, Z[, C])."""
    with open_file(path, limits) as handle:
        ds = parse(handle, limits)
        claim = layout(ds, limits)
        if claim is None:
            raise Refused("no_pixels", "the file has no pixel data")
        return _picture(ds, claim, Origin("", "", "", ""), limits).array()


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record]:
    """The record of a DICOM file. A file without picture or waveform (report, plan, structure) gives a record whose
    image is `Absent.NOT_DONE`; a DICOMDIR is `Refused("dicomdir")`."""
    with open_file(ref.path, limits) as handle:
        ds = parse(handle, limits)
        if ds.text(0x00080016) == _DICOMDIR or 0x00041220 in ds:
            raise Refused("dicomdir", "a DICOMDIR lists other files; those are read themselves")
        claim = layout(ds, limits)
        digest = sha256(ref.path) if ds.source.unpacked else sha256(ds.source.all())
        items = _items(ds, claim, origin(ref, digest), limits)
    yield record(ref, digest, items, modality=_modality(ds), subject=_subject(ds), groups=_groups(ds, ref.source))


def _items(ds: DataSet, claim: Layout | None, where: Origin, limits: Limits) -> dict[str, tuple[Item, ...]]:
    if claim is not None:
        item = _picture(ds, claim, where, limits)
        return {"volume" if item.kind == "volume" else "video" if item.kind == "video" else "image": (item,)}
    if dicom_waveform.SEQUENCE in ds:
        role = "ecg" if _modality(ds) == "ecg" else "eeg" if _modality(ds) == "eeg" else "signal"
        return {role: dicom_waveform.items(ds, where, limits)}
    return {"image": (Item("image", Absent.NOT_DONE, where),)}


# ---------------------------------------------------------------- who and what


def _modality(ds: DataSet) -> str:
    said = ds.text(0x00080060)
    if ds.text(0x00080016).startswith(_ECG_CLASSES):
        return "ecg"
    return MODALITIES.get(said, "other")


def _subject(ds: DataSet) -> str | None:
    """The raw identifier to hash: PatientID with its issuer, else the study, else None (the file is its own)."""
    if said := ds.text(0x00100020):
        return f"{ds.text(0x00100021)}|{said}" if ds.text(0x00100021) else said
    return f"study:{ds.text(0x0020000D)}" if ds.text(0x0020000D) else None


def _groups(ds: DataSet, source: str) -> dict[str, str]:
    out = {name: ds.text(tag).lower() for name, tag in _GROUPS.items()}
    out["laterality"] = (ds.text(0x00200062) or ds.text(0x00200060)).lower()
    out["image_type"] = "/".join(ds.texts(0x00080008)).lower()
    for name, tag in (("study", 0x0020000D), ("series", 0x0020000E), ("frame_of_reference", 0x00200052)):
        out[name] = hashed(name, source, ds.text(tag)) if ds.text(tag) else ""
    number = ds.number(0x00200013, b"IS")
    out["instance"] = "" if number is None else str(int(number))
    if (place := dicom_geometry.plane(ds)) is not None:
        out["slice_mm"] = f"{place.position:.4f}"
    if len(spacing := ds.numbers(0x00280030) or ds.numbers(0x00181164)) >= 2:
        out["spacing_mm"] = f"{spacing[0]:g}x{spacing[1]:g}"
    return {name: value[:64] for name, value in out.items()}


# ---------------------------------------------------------------- the picture


def _picture(ds: DataSet, claim: Layout, where: Origin, limits: Limits) -> Item:
    stored, photometric = dicom_pixels.stored_values(ds, claim)
    if photometric == "PALETTE COLOR" and claim.samples == 1:
        values, steps = dicom_pixels.palette(ds, stored), ["palette"]
    elif claim.samples > 1:
        values = dicom_pixels.to_rgb(stored, photometric)
        steps = ["to_rgb"] if values is not stored else []
    else:
        values, steps = _grey(ds, claim, dicom_pixels.true_bits(stored, claim), limits)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    for step in steps:
        where = where.then(step)
    return _shaped(ds, values, where, _unit(ds, claim))


def _grey(ds: DataSet, claim: Layout, values: NDArray[Any], limits: Limits) -> tuple[NDArray[Any], list[str]]:
    steps = []
    if claim.photometric == "MONOCHROME1":  # 0 is white: turn it, so that high is bright everywhere
        values, steps = ~values if claim.signed else _top(claim, values.dtype) - values, ["monochrome1_inverted"]
    if (through := dicom_pixels.modality_lut(ds, values, limits)) is not None:
        return through, [*steps, "modality_lut"]
    slope, shift = _rescale(ds, claim.frames)
    if (slope == 1).all() and (shift == 0).all() and _modality(ds) != "ct":
        return values, steps
    check_array(values.shape, np.float32, limits, what="the rescaled picture")
    out = values.astype(np.float32)
    if not (slope == 1).all():
        out *= slope.astype(np.float32)[:, None, None]
    if (shift != 0).any():
        out += shift.astype(np.float32)[:, None, None]
    return out, [*steps, "rescaled"]


def _top(claim: Layout, dtype: np.dtype[Any]) -> Any:
    if dtype.kind == "f":
        return dtype.type(1)
    return dtype.type(np.iinfo(dtype).max if claim.stored == 8 * dtype.itemsize else (1 << claim.stored) - 1)


def _rescale(ds: DataSet, frames: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and intercept of each frame, 1 and 0 where the file says nothing."""
    if (scaling := ds.number(0x3004000E)) is not None:  # RT dose
        return np.full(frames, scaling), np.zeros(frames)
    shared, per_frame = ds.item(0x52009229), ds.items(0x52009230)[:frames]
    out = np.tile([1.0, 0.0], (frames, 1))
    for n in range(frames):
        holders = (per_frame[n] if n < len(per_frame) else None, shared)
        inside = [h.item(0x00289145) for h in holders if h is not None]
        where = next((h for h in inside if h is not None), ds)
        slope, shift = where.number(0x00281053), where.number(0x00281052)
        out[n] = (1.0 if slope is None or slope == 0 else slope, shift or 0.0)
        if not per_frame:
            out[:] = out[n]
            break
    return out[:, 0], out[:, 1]


def _unit(ds: DataSet, claim: Layout) -> str | None:
    if claim.samples > 1:
        return None
    said = ds.text(0x00281054)
    if _modality(ds) == "ct":
        return "HU" if said in ("", "HU") else None
    if _modality(ds) == "rtdose":
        return "Gy" if ds.text(0x30040002).upper() == "GY" else None
    units = {"BQML": "Bq/mL", "SUV": "SUV", "CNTS": "counts", "GML": "g/mL"}
    return units.get(ds.text(0x00541001))


def _shaped(ds: DataSet, values: NDArray[Any], where: Origin, unit: str | None) -> Item:
    """(frames, rows, columns[, colour]) -> image, volume or video."""
    make = functools.partial(Item, unit=unit)
    if len(values) == 1:
        place = dicom_geometry.plane(ds, *_first_groups(ds))
        return make("image", values[0], where, affine=place.affine() if place is not None else None)
    planes = dicom_geometry.frame_planes(ds, len(values))
    stacked = dicom_geometry.stack(planes) if planes is not None and values.ndim == 3 else None
    kind: Kind = "video"
    if stacked is None:
        return make(kind, values, where)
    order, affine, even = stacked
    flat = order.ravel()
    values = values if (np.diff(flat) == 1).all() else values[flat]
    volume = values.reshape(*order.shape, *values.shape[1:])  # (slices, channels, rows, columns)
    volume = np.ascontiguousarray(volume.transpose(3, 2, 0, 1))
    where = where if even else where.then("uneven_slices")
    return make("volume", volume[..., 0] if volume.shape[-1] == 1 else volume, where, affine=affine)


def _first_groups(ds: DataSet) -> tuple[DataSet | None, DataSet | None]:
    return ds.item(0x52009230), ds.item(0x52009229)
