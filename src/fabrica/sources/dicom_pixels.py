"""DICOM pixel values -> arrays: native data read in place, the rest decoded, then bits, colour and look-up tables.

PS3.3 C.7.6.3, C.11.1; PS3.5 section 8."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused
from fabrica.safe import Limits, check_array
from fabrica.sources import dicom_codec
from fabrica.sources.dicom_codec import DECODE_ERRORS
from fabrica.sources.dicom_layout import Layout
from fabrica.sources.dicom_parse import BIG_ENDIAN, DEFLATED, IMPLICIT, PIXELS, DataSet

_NATIVE = frozenset(("", IMPLICIT, "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN))


def stored_values(ds: DataSet, claim: Layout) -> tuple[NDArray[Any], str]:
    """(array (frames, rows, columns[, samples]), photometric interpretation after decoding): stored values as they are.

    Refused: `pixels_short`, `pixels_broken`, `pixels_mismatch` (codestream and header differ), `ratio`,
    `transfer_syntax`.
    """
    start, length = ds.elements[claim.tag][1:]
    data = memoryview(ds.source.all())[start:]
    if ds.syntax in _NATIVE or length >= 0:
        if ds.syntax not in _NATIVE:
            raise Refused("pixels_broken", "compressed pixel data must be encapsulated")
        if length < 0:
            raise Refused("pixels_broken", "native pixel data has no length")
        return _native(ds, claim, data[:length])
    if claim.tag != PIXELS[2]:
        raise Refused("pixels_broken", "float pixel data cannot be compressed")
    return dicom_codec.decode(data, ds.syntax, claim, ds.limits)


# ---------------------------------------------------------------- native


def _native(ds: DataSet, claim: Layout, data: memoryview) -> tuple[NDArray[Any], str]:
    if len(data) < claim.native_bytes:
        raise Refused("pixels_short", f"the picture needs {claim.native_bytes} bytes; the file has {len(data)}")
    if claim.allocated == 1:
        flat = np.unpackbits(np.frombuffer(data, np.uint8, claim.native_bytes), bitorder="little")[: claim.count]
        return flat.reshape(claim.shape), claim.photometric
    if claim.photometric == "YBR_FULL_422":
        return _chroma(np.frombuffer(data, np.uint8, claim.native_bytes), claim), "YBR_FULL"
    kind = claim.dtype.newbyteorder("<" if ds.little else ">")
    if not ds.little and claim.allocated == 8 and ds.elements[claim.tag][0] == b"OW":
        even = claim.native_bytes + claim.native_bytes % 2
        if len(data) < even:
            raise Refused("pixels_short", f"the picture needs {even} bytes; the file has {len(data)}")
        flat = np.frombuffer(data, "<u2", even // 2).byteswap().view(kind)[: claim.count]
    else:
        flat = np.frombuffer(data, kind, claim.count)
    return _ordered(flat, claim), claim.photometric


def _ordered(flat: NDArray[Any], claim: Layout) -> NDArray[Any]:
    if claim.samples > 1 and claim.planar:
        return np.moveaxis(flat.reshape(claim.frames, claim.samples, claim.rows, claim.columns), 1, -1)
    return flat.reshape(claim.shape)


def _chroma(flat: NDArray[Any], claim: Layout) -> NDArray[Any]:
    """YBR_FULL_422 (Y1 Y2 Cb Cr for two pixels, PS3.3 C.7.6.3.1.2) -> (frames, rows, columns, 3)."""
    if claim.samples != 3 or claim.allocated != 8 or claim.columns % 2:
        raise Refused("dicom_pixels", "YBR_FULL_422 needs three 8-bit samples and an even number of columns")
    four = flat.reshape(claim.frames, claim.rows, claim.columns // 2, 4)
    out = np.empty((claim.frames, claim.rows, claim.columns // 2, 2, 3), np.uint8)
    out[..., 0], out[..., 1], out[..., 2] = four[..., :2], four[..., 2, None], four[..., 3, None]
    return out.reshape(claim.frames, claim.rows, claim.columns, 3)


# ---------------------------------------------------------------- meaning


def true_bits(array: NDArray[Any], claim: Layout) -> NDArray[Any]:
    """Stored values without what other bits hold: shifted down to bit 0, masked, sign extended."""
    if claim.tag != PIXELS[2] or claim.allocated in (1, 64) or claim.stored == claim.allocated:
        return array
    spare = claim.allocated - claim.stored
    shift = claim.high + 1 - claim.stored
    if not claim.signed:
        limit = (1 << claim.stored) - 1
        return array if not shift and int(array.max(initial=0)) <= limit else (array >> shift) & array.dtype.type(limit)
    half = 1 << (claim.stored - 1)
    if not shift and -half <= int(array.min(initial=0)) and int(array.max(initial=0)) < half:
        return array
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    out: NDArray[Any] = np.right_shift(np.left_shift(native, spare - shift), spare)
    return out


def to_rgb(array: NDArray[Any], photometric: str) -> NDArray[Any]:
    """YBR -> RGB; RGB and grey as they are. YBR_ICT and YBR_RCT were undone by the codestream's decoder."""
    if array.shape[-1] == 3 and photometric in ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420"):
        from pydicom.pixels.processing import convert_color_space

        if array.dtype != np.uint8:
            raise Refused("dicom_pixels", f"{photometric} with {array.dtype} samples")
        return np.asarray(convert_color_space(array, "YBR_FULL", "RGB"))
    return array


def palette(ds: DataSet, array: NDArray[Any]) -> NDArray[Any]:
    """PALETTE COLOR indices -> (..., 3) RGB of the look-up tables' own width (uint8 or uint16)."""
    from pydicom import Dataset
    from pydicom.pixels.processing import apply_color_lut

    made = Dataset()
    for colour in (1, 2, 3):
        described = ds.array(0x00281100 + colour, "u2")
        if len(described) != 3:
            raise Refused("dicom_palette", "a palette descriptor must have three values")
        made.add_new(0x00281100 + colour, "US", [int(v) for v in described])
        for base in (0x00281200, 0x00281220):
            if base + colour in ds:
                made.add_new(base + colour, "OW", ds.raw(base + colour))
    made.PixelRepresentation = 0
    if not ds.little:
        raise Refused("dicom_palette", "big-endian palettes are not read")
    with quiet_pydicom():
        try:
            return np.asarray(apply_color_lut(array, made))
        except DECODE_ERRORS as error:
            raise Refused("dicom_palette", f"the palette cannot be applied ({type(error).__name__})") from error


def modality_lut(ds: DataSet, array: NDArray[Any], limits: Limits) -> NDArray[Any] | None:
    """Values through the Modality LUT Sequence (PS3.3 C.11.1), None where there is none."""
    table = ds.item(0x00283000)
    if table is None:
        return None
    count, first, bits = [*table.numbers(0x00283002, b"US"), 0, 0, 0][:3]
    entries = table.array(0x00283006, "u2" if bits > 8 else "u1")
    count = count or 65536
    if not 8 <= bits <= 16 or len(entries) < count:
        raise Refused("dicom_lut", "the modality look-up table is shorter than it claims")
    check_array(array.shape, np.float32, limits, what="the rescaled picture")
    at = np.clip(array.astype(np.int64) - int(first), 0, int(count) - 1)
    return entries.astype(np.float32)[at]


@contextlib.contextmanager
def quiet_pydicom() -> Iterator[None]:
    """No warnings and no logged tracebacks from pydicom: they may quote values of the file."""
    log = logging.getLogger("pydicom")
    before = log.disabled
    log.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before
