"""DICOM pixel values -> arrays: claims checked first, native data read in place, the rest by pydicom's decoders.

Then bits, colour, palette and look-up tables (PS3.3 C.7.6.3, C.11.1; PS3.5 section 8)."""

from __future__ import annotations

import contextlib
import logging
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused, need
from fabrica.safe import MIB, Limits, check_array
from fabrica.sources.dicom_parse import BIG_ENDIAN, DEFLATED, IMPLICIT, PIXELS, DataSet

_NATIVE = frozenset(("", IMPLICIT, "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN))
_RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
_BOMB = 64 * MIB  # decoded size from which a ratio above `limits.ratio` is a bomb
_AS_IT_IS = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"}  # no colour transform: the header says what it is
# What pydicom's decoders and the plugins below them raise on damaged codestreams.
_DECODE_ERRORS = (ValueError, RuntimeError, AttributeError, TypeError, KeyError, IndexError, OSError, OverflowError,
                  StopIteration, SyntaxError, MemoryError, ArithmeticError)  # fmt: skip


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
    return _compressed(ds, claim, data, ds.limits)


# ---------------------------------------------------------------- native


def _native(ds: DataSet, claim: Layout, data: memoryview) -> tuple[NDArray[Any], str]:
    if len(data) < claim.native_bytes:
        raise Refused("pixels_short", f"the picture needs {claim.native_bytes} bytes; the file has {len(data)}")
    if claim.allocated == 1:
        flat = np.unpackbits(np.frombuffer(data, np.uint8, claim.native_bytes), bitorder="little")[: claim.count]
        return flat.reshape(_shape(claim)), claim.photometric
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


def _shape(claim: Layout) -> tuple[int, ...]:
    return (claim.frames, claim.rows, claim.columns) + ((claim.samples,) if claim.samples > 1 else ())


def _ordered(flat: NDArray[Any], claim: Layout) -> NDArray[Any]:
    if claim.samples > 1 and claim.planar:
        return np.moveaxis(flat.reshape(claim.frames, claim.samples, claim.rows, claim.columns), 1, -1)
    return flat.reshape(_shape(claim))


def _chroma(flat: NDArray[Any], claim: Layout) -> NDArray[Any]:
    """YBR_FULL_422 (Y1 Y2 Cb Cr for two pixels, PS3.3 C.7.6.3.1.2) -> (frames, rows, columns, 3)."""
    if claim.samples != 3 or claim.allocated != 8 or claim.columns % 2:
        raise Refused("dicom_pixels", "YBR_FULL_422 needs three 8-bit samples and an even number of columns")
    four = flat.reshape(claim.frames, claim.rows, claim.columns // 2, 4)
    out = np.empty((claim.frames, claim.rows, claim.columns // 2, 2, 3), np.uint8)
    out[..., 0], out[..., 1], out[..., 2] = four[..., :2], four[..., 2, None], four[..., 3, None]
    return out.reshape(claim.frames, claim.rows, claim.columns, 3)


# ---------------------------------------------------------------- compressed


def _compressed(ds: DataSet, claim: Layout, data: memoryview, limits: Limits) -> tuple[NDArray[Any], str]:
    """Each frame by the library whose C code stood the mutation tests: libjpeg-turbo, CharLS and OpenJPEG through
    imagecodecs, RLE through pydicom (gdcm ends the process on damaged JPEG-LS, so it is a reference in tests only)."""
    if claim.tag != PIXELS[2]:
        raise Refused("pixels_broken", "float pixel data cannot be compressed")
    decode = _decoder(ds.syntax)
    frames = _frames(bytes(data), claim)
    packed = sum(map(len, frames))
    if _BOMB < claim.native_bytes > packed * limits.ratio:
        raise Refused("ratio", f"{packed} bytes claim a picture of {claim.native_bytes}: more than {limits.ratio}:1")
    for frame in frames:
        check_codestream(frame, ds.syntax, claim)
    out = np.empty(_shape(claim), claim.dtype)
    for n, frame in enumerate(frames[: claim.frames]):
        try:
            values = decode(frame, claim)
        except _DECODE_ERRORS as error:
            raise Refused("pixels_broken", f"frame {n} does not decode ({type(error).__name__})") from error
        out[n] = _as_claimed(values, out[n].shape, claim)
    turned = claim.photometric in ("YBR_ICT", "YBR_RCT")  # undone by the JPEG 2000 decoder
    return out, "RGB" if turned else claim.photometric


def _decoder(syntax: str) -> Callable[[bytes, Layout], NDArray[Any]]:
    name = syntax.removeprefix(_JPEG) if syntax.startswith(_JPEG) else ""
    if syntax == _RLE:
        return _rle
    if name in ("50", "51", "57", "70"):
        jpeg = need("imagecodecs", "imaging").jpeg8_decode
        return lambda frame, claim: jpeg(frame, **(_AS_IT_IS if claim.samples == 3 else {}))
    if name in ("80", "81"):
        jpegls = need("imagecodecs", "imaging").jpegls_decode
        return lambda frame, claim: jpegls(frame)
    if name in ("90", "91", "201", "202", "203"):
        jpeg2k = need("imagecodecs", "imaging").jpeg2k_decode
        return lambda frame, claim: jpeg2k(frame)
    raise Refused("transfer_syntax", f"no decoder for the transfer syntax {syntax[:64]!r}")


def _as_claimed(values: NDArray[Any], shape: tuple[int, ...], claim: Layout) -> NDArray[Any]:
    """A decoded frame in the header's own type: the same bits, whatever sign the codestream gave them."""
    if values.shape != shape or values.dtype.kind not in "ui" or values.dtype.itemsize > claim.dtype.itemsize:
        raise Refused("pixels_mismatch", f"a frame decodes to {values.shape} {values.dtype}, the header claims {shape}")
    if values.dtype.kind == claim.dtype.kind:
        return values
    return values.astype(f"{values.dtype.kind}{claim.dtype.itemsize}", copy=False).view(claim.dtype)


def _rle(frame: bytes, claim: Layout) -> NDArray[Any]:
    """RLE Lossless (PS3.5 annex G): PackBits segments, one a byte of a sample, most significant first."""
    offsets = struct.unpack_from("<16I", frame)
    ends = [*offsets[2 : offsets[0] + 1], len(frame)]
    unpack = _packbits()
    pixels, size = claim.rows * claim.columns, claim.dtype.itemsize
    planes = np.zeros((claim.samples, pixels), f"u{size}")
    for n in range(offsets[0]):
        if not 64 <= offsets[n + 1] <= ends[n] <= len(frame):
            raise ValueError("RLE segments out of order")
        part = np.frombuffer(unpack(frame[offsets[n + 1] : ends[n]], pixels), np.uint8, pixels)
        plane = planes[n // size]
        if size > 1:
            plane <<= 8
        plane |= part
    whole = planes.view(claim.dtype).reshape(claim.samples, claim.rows, claim.columns)
    return np.moveaxis(whole, 0, -1) if claim.samples > 1 else whole[0]


def _packbits() -> Callable[[bytes, int], bytes | bytearray]:
    """PackBits by imagecodecs where it is installed, else in Python; at most twice `size` bytes come out."""
    try:
        from imagecodecs import packbits_decode
    except ImportError:
        return unpack_bits
    return lambda data, size: packbits_decode(data, out=2 * size + 256)


def unpack_bits(data: bytes, size: int) -> bytearray:
    """PackBits: n < 128 copies n + 1 bytes, n > 128 repeats the next byte 257 - n times.

    >>> bytes(unpack_bits(bytes([254, 7, 0, 9]), 4))
    b'\\x07\\x07\\x07\\t'
    """
    out = bytearray()
    at = 0
    while at < len(data) and len(out) < size:
        n = data[at]
        if n < 128:
            out += data[at + 1 : at + 2 + n]
            at += 2 + n
        else:
            if n > 128:
                out += data[at + 1 : at + 2] * (257 - n)
            at += 2 if n > 128 else 1
    return out


def _frames(data: bytes, claim: Layout) -> list[bytes]:
    from pydicom.encaps import generate_frames

    try:
        frames = [bytes(f) for f in generate_frames(data, number_of_frames=claim.frames)]
    except _DECODE_ERRORS as error:
        raise Refused("pixels_broken", f"the encapsulated frames cannot be found ({type(error).__name__})") from error
    if len(frames) < claim.frames:
        raise Refused("pixels_short", f"the header claims {claim.frames} frames; the file has {len(frames)}")
    return frames


def check_codestream(frame: bytes, syntax: str, claim: Layout) -> None:
    """Compare a frame's own header (JPEG SOF, JPEG 2000 SIZ, RLE segments) with the claim, before a decoder sees it."""
    if syntax == _RLE:
        _check_rle(frame, claim)
        return
    if not syntax.startswith(_JPEG):
        return
    found = _sof(frame) if frame[:2] == b"\xff\xd8" else _siz(frame)
    if found is None:
        raise Refused("pixels_broken", "the compressed frame has no picture header")
    if found[:2] != (claim.rows, claim.columns) or found[2] != claim.samples:
        raise Refused(
            "pixels_mismatch",
            f"the codestream holds {found[0]} x {found[1]} x {found[2]}, "
            f"the header claims {claim.rows} x {claim.columns} x {claim.samples}",
        )


def _check_rle(frame: bytes, claim: Layout) -> None:
    """RLE (PS3.5 annex G): 2 bytes give at most 128, and there is a segment for each byte of a pixel."""
    segments = int.from_bytes(frame[:4], "little")
    if segments != claim.samples * max(1, claim.allocated // 8):
        raise Refused("pixels_broken", f"{segments} RLE segments; wanted {claim.samples * claim.allocated // 8}")
    if claim.count // claim.frames * claim.dtype.itemsize > 64 * len(frame):
        raise Refused("pixels_short", f"{len(frame)} RLE bytes cannot hold {claim.rows} x {claim.columns} pixels")


def _sof(frame: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) of a JPEG or JPEG-LS frame header."""
    at = 2
    while at + 10 <= len(frame):
        if frame[at] != 0xFF:
            return None
        marker = frame[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return int.from_bytes(frame[at + 5 : at + 7]), int.from_bytes(frame[at + 7 : at + 9]), frame[at + 9]
        if marker in (0xD8, 0xD9, 0x01) or 0xD0 <= marker <= 0xD7:
            at += 2
        else:
            at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    return None


def _siz(frame: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, components) of a JPEG 2000 codestream (SIZ follows SOC), bare or in a JP2 box."""
    at = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0 or at + 42 > len(frame):
        return None
    x1, y1, x0, y0 = (int.from_bytes(frame[at + 8 + 4 * i : at + 12 + 4 * i]) for i in range(4))
    return y1 - y0, x1 - x0, int.from_bytes(frame[at + 40 : at + 42])


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
        except _DECODE_ERRORS as error:
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
