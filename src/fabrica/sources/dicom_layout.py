"""What a DICOM header claims of its pixels, checked before anything is allocated (PS3.3 C.7.6.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fabrica.errors import Refused
from fabrica.safe import Limits, check_array
from fabrica.sources.dicom_parse import PIXELS, DataSet


@dataclass(frozen=True, slots=True)
class Layout:
    """What a header claims of its pixels: (frames, rows, columns[, samples]) of `dtype`."""

    tag: int
    frames: int
    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool
    planar: bool
    photometric: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored type in native byte order; bits are unpacked to uint8."""
        if self.tag != PIXELS[2]:
            return np.dtype(np.float32 if self.tag == PIXELS[0] else np.float64)
        return np.dtype(f"{'i' if self.signed else 'u'}{max(1, self.allocated // 8)}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(frames, rows, columns[, samples])."""
        return (self.frames, self.rows, self.columns) + ((self.samples,) if self.samples > 1 else ())

    @property
    def count(self) -> int:
        """Values in all frames."""
        return self.frames * self.rows * self.columns * self.samples

    @property
    def native_bytes(self) -> int:
        """Bytes that uncompressed data of this layout takes."""
        if self.allocated == 1:
            return (self.count + 7) // 8
        if self.photometric == "YBR_FULL_422":
            return self.frames * self.rows * self.columns * 2 * self.allocated // 8
        return self.count * self.dtype.itemsize


def layout(ds: DataSet, limits: Limits) -> Layout | None:
    """What the header claims, checked against `limits`; None where there are no pixels.

    Refused: `array_too_large`, `too_many_pixels`, `dicom_pixels` (a claim that no picture can have).
    """
    tag = next((t for t in PIXELS if t in ds), None)
    if tag is None:
        return None
    rows, columns = ds.integer(0x00280010, 0), ds.integer(0x00280011, 0)
    samples, frames = ds.integer(0x00280002, 1), ds.integer(0x00280008, 1, b"IS") or 1
    allocated = {PIXELS[0]: 32, PIXELS[1]: 64}.get(tag) or ds.integer(0x00280100, 16)
    stored = ds.integer(0x00280101, allocated)
    made = Layout(
        tag, frames, rows, columns, samples, allocated, stored, ds.integer(0x00280102, stored - 1),
        ds.integer(0x00280103, 0) == 1, ds.integer(0x00280006, 0) == 1, ds.text(0x00280004) or "MONOCHROME2",
    )  # fmt: skip
    if min(rows, columns, frames) < 1 or samples not in (1, 3, 4) or allocated not in (1, 8, 16, 32, 64):
        raise Refused(
            "dicom_pixels", f"{frames} frames of {rows} x {columns} x {samples}, {allocated} bits: no picture"
        )
    if not 1 <= stored <= allocated or not stored - 1 <= made.high < allocated:
        raise Refused("dicom_pixels", f"{stored} bits up to bit {made.high} of {allocated} allocated: no picture")
    check_array((frames, rows, columns, samples), made.dtype, limits, what="the DICOM picture")
    if rows * columns > limits.pixels:
        raise Refused("too_many_pixels", f"a picture of {rows} x {columns}; the limit is {limits.pixels} pixels")
    return made
