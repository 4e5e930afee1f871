"""Compressed DICOM frames -> arrays: the codestream's own header is checked before a decoder sees it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused, need
from fabrica.safe import MIB, Limits
from fabrica.sources.dicom_layout import Layout

_RLE = "1.2.840.10008.1.2.5"
_JPEG = "1.2.840.10008.1.2.4."
_BOMB = 64 * MIB  # decoded size from which a ratio above `limits.ratio` is a bomb
_AS_IT_IS = {"colorspace": "YCBCR", "outcolorspace": "YCBCR"}  # no colour transform: the header says what it is
# What the decoders raise on damaged codestreams.
DECODE_ERRORS = (ValueError, RuntimeError, AttributeError, TypeError, KeyError, IndexError, OSError, OverflowError,
                 StopIteration, SyntaxError, MemoryError, ArithmeticError, struct.error)  # fmt: skip


def decode(data: memoryview, syntax: str, claim: Layout, limits: Limits) -> tuple[NDArray[Any], str]:
    """(frames, rows, columns[, samples]) of encapsulated data, and the photometric interpretation after decoding.

    Each frame by the library whose C code stood the mutation tests: libjpeg-turbo, CharLS and OpenJPEG through
    imagecodecs, RLE through pydicom (gdcm ends the process on damaged JPEG-LS, so it is a reference in tests only)."""
    unpack = _decoder(syntax)
    frames = _frames(bytes(data), claim)
    packed = sum(map(len, frames))
    if _BOMB < claim.native_bytes > packed * limits.ratio:
        raise Refused("ratio", f"{packed} bytes claim a picture of {claim.native_bytes}: more than {limits.ratio}:1")
    for frame in frames:
        check_codestream(frame, syntax, claim)
    out = np.empty(claim.shape, claim.dtype)
    for n, frame in enumerate(frames[: claim.frames]):
        try:
            values = unpack(frame, claim)
        except DECODE_ERRORS as error:
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
    except DECODE_ERRORS as error:
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
