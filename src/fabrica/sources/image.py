"""PNG, JPEG, TIFF, GIF, BMP, JPEG 2000 -> (H, W) or (H, W, 3) pictures in their own depth (uint8, uint16, float32).

Sizes are checked from the header before a pixel is decoded. Metadata is dropped; EXIF orientation is applied.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import MissingExtra, Refused, need
from fabrica.safe import LIMITS, MIB, Limits, check_array, read_bytes, sha256
from fabrica.sources import Ref, mask_path
from fabrica.sources.mask import binary
from fabrica.sources.single import origin, record
from fabrica.types import Item, Record, Region

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "JPEG2000", "MPO")
_BOMB = 64 * MIB  # decoded size from which a ratio above `limits.ratio` is a bomb
_MOST_FRAMES = 10_000
_SCANS = 200  # of a progressive JPEG: each is a pass over the picture
# What Pillow raises on broken files; SyntaxError is its own for a bad header.
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, AttributeError, MemoryError,
           OverflowError, RuntimeError, ArithmeticError, AssertionError)  # fmt: skip


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record]:
    """The record of a picture; several frames of one size (TIFF stack, GIF) are a video. `columns["mask"]` beside it
    becomes mask regions.

    Refused: `too_many_pixels`, `array_too_large`, `ratio`, `image_broken`, `image_format`, `jpeg_scans`,
    `too_many_frames`, `mask_shape`.
    """
    data = read_bytes(ref.path, limits)
    array, steps = decode(data, limits)
    where = origin(ref, sha256(data), *steps)
    video = "frames" in steps
    role = "video" if video else "image"
    item = Item("video" if video else "image", array, where)
    yield record(ref, where.sha256, {role: (item,)}, regions=() if video else _mask(ref, array, limits))


def _mask(ref: Ref, array: NDArray[Any], limits: Limits) -> tuple[Region, ...]:
    path = mask_path(ref)
    if path is None:
        return ()
    values, _ = decode(read_bytes(path, limits), limits, indices=True)
    values = values[..., :3].max(-1) if values.ndim == 3 else values
    if values.shape != array.shape[:2]:
        raise Refused("mask_shape", f"the mask is {values.shape}, its picture {array.shape[:2]}")
    return binary(ref, "image", path, values)


def decode(data: bytes, limits: Limits = LIMITS, *, indices: bool = False) -> tuple[NDArray[Any], tuple[str, ...]]:
    """(H, W[, 3]) (or (T, H, W[, 3]) with step "frames") and the steps done. `indices` keeps a palette's indices."""
    from PIL import Image

    if data[:2] == b"\xff\xd8" and data.count(b"\xff\xda") > _SCANS:
        raise Refused("jpeg_scans", f"the JPEG has more than {_SCANS} scans")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
                _check(picture, len(data), limits)
                if _deep_colour(picture) and (deep := _deeper(picture, data, limits)) is not None:
                    return deep
                return _frames(picture, data, limits, indices)
        except Image.DecompressionBombError:
            raise Refused("too_many_pixels", "the picture claims more pixels than Pillow's own limit") from None
        except _BROKEN as error:
            if _wants_tifffile(data):
                return _tiff(data, limits)
            raise Refused("image_broken", f"the picture does not decode ({type(error).__name__})") from error


def _check(picture: Image, size: int, limits: Limits) -> None:
    width, height = picture.size
    if width * height > limits.pixels:
        raise Refused("too_many_pixels", f"a picture of {width} x {height}; the limit is {limits.pixels} pixels")
    kind = np.dtype({"I": np.int32, "F": np.float32}.get(picture.mode, np.uint8))
    kind = np.dtype(np.uint16) if picture.mode.startswith("I;16") else kind
    shape = (height, width, max(3 if picture.mode == "P" else 1, len(picture.getbands())))
    claimed = check_array(shape, kind, limits, what="the picture")
    if claimed > _BOMB and claimed > size * limits.ratio:
        raise Refused("ratio", f"{size} bytes claim {width} x {height} pixels: more than {limits.ratio}:1")


def _frames(picture: Image, data: bytes, limits: Limits, indices: bool) -> tuple[NDArray[Any], tuple[str, ...]]:
    first, steps = _pixels(picture, indices)
    if picture.format not in ("TIFF", "GIF") or indices:
        return first, steps
    out = [first]
    while _next(picture, len(out)):
        if len(out) >= _MOST_FRAMES:
            raise Refused("too_many_frames", f"the picture has more than {_MOST_FRAMES} frames")
        check_array((len(out) + 1, *first.shape), first.dtype, limits, what="the picture's frames")
        _check(picture, len(data), limits)
        frame, _ = _pixels(picture, indices)
        if frame.shape != first.shape or frame.dtype != first.dtype:  # a pyramid, a thumbnail: the first is the picture
            return first, (*steps, "first_page")
        out.append(frame)
    return (np.stack(out), (*steps, "frames")) if len(out) > 1 else (first, steps)


def _next(picture: Image, n: int) -> bool:
    try:
        picture.seek(n)
    except EOFError:
        return False
    return True


def _pixels(picture: Image, indices: bool) -> tuple[NDArray[Any], tuple[str, ...]]:
    from PIL import ImageOps

    steps: tuple[str, ...] = ()
    if _deep_colour(picture):
        steps = ("16_to_8_bit",)
    if picture.format in ("JPEG", "MPO") and picture.getexif().get(0x0112, 1) != 1:
        picture, steps = ImageOps.exif_transpose(picture), (*steps, "exif_upright")
    mode = picture.mode
    if mode == "P" and not indices:
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
        if picture.mode == "RGB" and _grey(np.asarray(picture)):
            picture = picture.getchannel(0)
    elif mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX", "RGBa", "La", "PA"):
        picture = picture.convert("RGBA" if mode in ("RGBa", "La", "PA") else "RGB")
    array = np.asarray(picture)
    if mode == "1":
        array = array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        array = array.astype(np.uint16, copy=False)
    if array.ndim == 3 and array.shape[-1] in (2, 4):
        return _opaque(array, steps)
    return array, steps


def _grey(array: NDArray[Any]) -> bool:
    return bool((array[..., :1] == array[..., 1:]).all())


def _deep_colour(picture: Image) -> bool:
    """Whether Pillow would cut 16-bit colour down to 8 bits."""
    return picture.mode in ("RGB", "RGBA") and any(";16" in str(t[3]) for t in getattr(picture, "tile", ()))


def _deeper(picture: Image, data: bytes, limits: Limits) -> tuple[NDArray[Any], tuple[str, ...]] | None:
    """16-bit colour by tifffile or imagecodecs, None where they are not installed."""
    check_array((*picture.size, len(picture.getbands())), np.uint16, limits, what="the picture")
    try:
        if picture.format == "TIFF":
            return _tiff(data, limits)
        if picture.format == "PNG":
            array = need("imagecodecs", "imaging").png_decode(data)
            return np.ascontiguousarray(array[..., :3]), ("imagecodecs",)
    except MissingExtra:
        pass
    return None


def _opaque(array: NDArray[Any], steps: tuple[str, ...]) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Drop a full alpha; lay a partial one over white."""
    colour, alpha = array[..., :-1], array[..., -1:]
    if alpha.min() < 255:
        over = colour.astype(np.uint16) * alpha + np.uint16(255) * (255 - alpha.astype(np.uint16))
        colour, steps = ((over + 127) // 255).astype(np.uint8), (*steps, "alpha_over_white")
    return (colour[..., 0] if colour.shape[-1] == 1 else np.ascontiguousarray(colour)), steps


# ---------------------------------------------------------------- TIFF kinds that Pillow leaves


def _wants_tifffile(data: bytes) -> bool:
    return data[:4] in (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def _tiff(data: bytes, limits: Limits) -> tuple[NDArray[Any], tuple[str, ...]]:
    """A TIFF by tifffile: 16-bit colour, float, uncommon compressions."""
    tifffile = need("tifffile", "imaging")
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            claimed = check_array(page.shape, page.dtype, limits, what="the picture")
            if page.shape[0] * page.shape[1] > limits.pixels:
                raise Refused("too_many_pixels", f"a picture of {page.shape}; the limit is {limits.pixels} pixels")
            if claimed > _BOMB and claimed > len(data) * limits.ratio:
                raise Refused("ratio", f"{len(data)} bytes claim {page.shape}: more than {limits.ratio}:1")
            array = np.asarray(page.asarray())
    except _BROKEN as error:
        raise Refused("image_broken", f"the picture does not decode ({type(error).__name__})") from error
    if array.ndim not in (2, 3) or array.dtype.kind not in "uif":
        raise Refused("image_format", f"a TIFF page of {array.ndim} axes of {array.dtype} is no picture")
    if array.ndim == 3 and array.shape[0] in (3, 4) and array.shape[-1] not in (3, 4):
        array = np.moveaxis(array, 0, -1)
    return (np.ascontiguousarray(array[..., :3]) if array.ndim == 3 else array), ("tifffile",)
