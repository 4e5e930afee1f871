"""Fingerprints of texts, images and volumes: exact digests, MinHash signatures, perceptual hashes, thumbnails."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERMUTATIONS = 256  # of a MinHash signature
SHINGLE = 5  # words a shingle
THUMB = 64  # pixels a side of an image thumbnail
VOLUME_THUMB = 32  # voxels a side of a volume thumbnail
TILE = 8  # pixels a side of the tiles that two thumbnails are compared by: 64 tiles of either

_ASCII = {i: (chr(i).lower() if chr(i).isalnum() else " ") for i in range(128)}
_CJK = re.compile(r"([\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af])")
_U64 = np.uint64
_GOLDEN = _U64(0x9E3779B97F4A7C15)


# ---------------------------------------------------------------- text


def normalise_text(text: str) -> str:
    """Text as duplicates are judged: NFKC, case folded, words alone, one space between; a CJK character is a word.

    >>> normalise_text("No  PLEURAL effusion,\\nor pneumothorax.")
    'no pleural effusion or pneumothorax'
    """
    if text.isascii():
        return " ".join(text.translate(_ASCII).split())
    folded = unicodedata.normalize("NFKC", text).casefold()
    spaced = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in folded)
    return " ".join(_CJK.sub(r" \1 ", spaced).split())


def text_sha(text: str) -> str:
    """Hex digest of the normalised text.

    >>> text_sha("No effusion.") == text_sha(" no  EFFUSION")
    True
    """
    return hashlib.sha256(normalise_text(text).encode("utf-8", "surrogatepass")).hexdigest()


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit."""
    z = values + _GOLDEN
    z = (z ^ (z >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> _U64(27))) * _U64(0x94D049BB133111EB)
    return z ^ (z >> _U64(31))


@cache
def _powers(base: int, count: int) -> NDArray[np.uint64]:
    powers = np.full(count, base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers, dtype=np.uint64)  # wraps at 2^64 by design


def word_hashes(normalised: Sequence[str]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of all words (W,) and where each text's words begin (n + 1,). Texts must be normalised."""
    counts = np.fromiter((t.count(" ") + 1 if t else 0 for t in normalised), np.int64, len(normalised))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    joined = " ".join(t for t in normalised if t)
    if not joined:
        return np.empty(0, np.uint64), offsets
    raw = np.frombuffer((joined + " ").encode("utf-8", "surrogatepass"), np.uint8)
    ends = np.flatnonzero(raw == 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    place = np.arange(raw.size) - np.repeat(starts, lengths)
    limit = 1 << int(lengths.max() - 1).bit_length()
    weighted = (raw.astype(np.uint64) + _U64(1)) * _powers(0x100000001B3, max(limit, 64))[place]
    return mix(np.add.reduceat(weighted, starts)), offsets


def shingles(normalised: Sequence[str], *, words: int = SHINGLE) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes of every run of `words` words (S,), repeats included, and where each text's begin (n + 1,).

    A text of fewer words is one shingle; an empty text has none.

    >>> values, offsets = shingles(["a b c", "a b c d e f", ""])
    >>> offsets.tolist()
    [0, 1, 3, 3]
    """
    blocks = [_shingles(normalised[i : i + 512], words) for i in range(0, len(normalised), 512)]
    counts = np.concatenate([np.zeros(1, np.int64), *(count for _, count in blocks)])
    return np.concatenate([np.empty(0, np.uint64), *(values for values, _ in blocks)]), np.cumsum(counts)


def _shingles(normalised: Sequence[str], words: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hashes and their number a text, of a block that stays in the cache."""
    hashes, offsets = word_hashes(normalised)
    lengths = np.diff(offsets)
    counts = np.where(lengths > 0, np.maximum(lengths - words + 1, 1), 0)
    text = np.repeat(np.arange(len(counts)), counts)
    ends = np.cumsum(counts)
    start = offsets[:-1][text] + np.arange(len(text)) - (ends - counts)[text]
    end = offsets[1:][text]
    padded = np.concatenate([hashes, np.zeros(words, np.uint64)])
    total = np.zeros(len(text), np.uint64)
    for i in range(words):
        at = start + i
        total = total * _U64(0x9E3779B97F4A7C55) + np.where(at < end, padded[at], _U64(0))
    return mix(total), counts


@cache
def _permutations(count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    rng = np.random.default_rng(0x6D696E68617368)
    factor = rng.integers(0, 2**32, count, np.uint32) | np.uint32(1)
    return factor, rng.integers(0, 2**32, count, np.uint32)


def minhash(
    values: NDArray[np.uint64], offsets: NDArray[np.int64], *, permutations: int = PERMUTATIONS
) -> NDArray[np.uint32]:
    """MinHash signatures (n, permutations) of the sets `values[offsets[i]:offsets[i + 1]]` (Broder 1997).

    The share of equal columns of two rows estimates the Jaccard similarity of their sets. Permutation i is
    x -> a_i x + b_i modulo 2^32 with odd a_i over well-mixed 32-bit values. A row of an empty set is all 2^32 - 1.
    """
    factor, shift = _permutations(permutations)
    x = (values >> _U64(32)).astype(np.uint32)
    out = np.full((len(offsets) - 1, permutations), 0xFFFFFFFF, np.uint32)
    filled = np.flatnonzero(np.diff(offsets))
    starts = offsets[:-1][filled]
    lo = 0
    while lo < len(filled):  # blocks that stay in the cache
        hi = max(int(np.searchsorted(starts, starts[lo] + 16384)), lo + 1)
        block = x[starts[lo] : offsets[filled[hi - 1] + 1]]
        at, work = starts[lo:hi] - starts[lo], np.empty_like(block)
        mins = np.empty((permutations, hi - lo), np.uint32)
        for i in range(permutations):
            np.multiply(block, factor[i], out=work)
            np.add(work, shift[i], out=work)
            np.minimum.reduceat(work, at, out=mins[i])
        out[filled[lo:hi]] = mins.T
        lo = hi
    return out


# ---------------------------------------------------------------- pixels


def canonical(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """Pixel values free of how they were stored: grey RGB to one channel, whole numbers to the smallest type."""
    if (array.ndim == 3 and array.shape[-1] == 1) or (array.ndim == 3 and array.shape[-1] == 3 and _grey(array)):
        array = array[..., 0]
    if array.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.int32)
        array = whole if np.array_equal(whole, array) else array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize > 1 and array.size:
        low, high = int(array.min()), int(array.max())
        array = array.astype(np.min_scalar_type(high) if low >= 0 else np.result_type(_signed(low), _signed(high)))
    return np.ascontiguousarray(array)


def _signed(value: int) -> np.dtype[np.signedinteger]:
    return np.min_scalar_type(-abs(value) - 1)


def _grey(array: NDArray[np.generic]) -> bool:
    probe = array[:: max(array.shape[0] // 16, 1)]
    for part in (probe, array):
        if not (np.array_equal(part[..., 0], part[..., 1]) and np.array_equal(part[..., 0], part[..., 2])):
            return False
    return True


def pixel_sha(array: NDArray[np.generic]) -> str:
    """Hex digest of decoded pixel values: equal for the same image stored as uint8, uint16, float or grey RGB.

    >>> grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    >>> pixel_sha(grey) == pixel_sha(np.stack([grey] * 3, -1).astype(np.float32))
    True
    """
    plain = canonical(array)
    digest = hashlib.sha256(f"{plain.dtype.str}{plain.shape}".encode())
    digest.update(plain.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def thumbnail(image: NDArray[np.generic], *, size: int = THUMB) -> NDArray[np.uint8] | None:
    """A grey (size, size) thumbnail by area averaging, stretched to 0..255; None where the image is constant.

    `image` (H, W) or (H, W, C): of three or four channels the luma (ITU-R 601) is taken, else the first.
    """
    from PIL import Image

    grey = _luma(image)
    if grey.size == 0:
        return None
    if grey.dtype != np.uint8:
        grey = np.nan_to_num(grey.astype(np.float32), posinf=0.0, neginf=0.0)
    small = Image.fromarray(grey).resize((size, size), Image.Resampling.BOX, reducing_gap=None)
    return _stretched(np.asarray(small, np.float32))


def _luma(image: NDArray[np.generic]) -> NDArray[np.generic]:
    if image.ndim == 2:
        return np.ascontiguousarray(image)
    if image.ndim != 3:
        raise ValueError(f"an image has shape (H, W) or (H, W, C), not {image.shape}")
    if image.shape[-1] not in (3, 4):
        return np.ascontiguousarray(image[..., 0])
    luma = image[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
    return luma.astype(np.uint8) if image.dtype == np.uint8 else luma


def _stretched(small: NDArray[np.float32]) -> NDArray[np.uint8] | None:
    low, high = float(small.min()), float(small.max())
    if not high - low > 1e-6 * max(abs(low), abs(high), 1e-6):
        return None
    return np.round((small - low) * (255 / (high - low))).astype(np.uint8)


def volume_thumbnail(volume: NDArray[np.generic], *, size: int = VOLUME_THUMB) -> NDArray[np.uint8] | None:
    """A (size, size, size) thumbnail of a volume (X, Y, Z) or (X, Y, Z, C) (the first channel), stretched to 0..255.

    Block averages where an axis is longer than `size`, nearest voxels where it is shorter; None where constant.
    """
    small: NDArray[Any] = (volume[..., 0] if volume.ndim == 4 else volume).astype(np.float32)
    if small.size == 0:
        return None
    small = np.nan_to_num(small, posinf=0.0, neginf=0.0)
    for axis, length in enumerate(small.shape):
        edges = np.arange(size) * length // size
        if length > size:
            widths = np.diff(np.append(edges, length)).astype(np.float32)
            shape = [-1 if i == axis else 1 for i in range(3)]
            small = np.add.reduceat(small, edges, axis=axis) / widths.reshape(shape)
        else:
            small = np.take(small, edges, axis=axis)
    return _stretched(np.asarray(small, np.float32))


@cache
def _cosines(size: int, keep: int) -> NDArray[np.float32]:
    """The first `keep` rows of the orthonormal DCT-II matrix of `size` points."""
    k, i = np.arange(keep)[:, None], np.arange(size)[None, :]
    rows = np.cos(np.pi * (2 * i + 1) * k / (2 * size)) * np.sqrt(2 / size)
    rows[0] /= np.sqrt(2)
    return np.asarray(rows, np.float32)


def _bits(low: NDArray[np.float32]) -> NDArray[np.uint64]:
    """(n, 64) coefficients -> (n,) hashes: bit i says whether coefficient i is above the row's median."""
    above = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(above, axis=1).view(">u8")[:, 0].astype(np.uint64)


def perceptual(thumbs: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """64-bit perceptual hashes (n,) of thumbnails (n, 64, 64): pHash (Zauner 2010; as imagehash and imagededup do it).

    Area average to 32 x 32, DCT-II, the 8 x 8 lowest frequencies, one bit each: above their median or not.
    """
    n, size = len(thumbs), thumbs.shape[-1]
    if not n:
        return np.empty(0, np.uint64)
    rows = _cosines(32, 8) @ np.kron(np.eye(32, dtype=np.float32), np.full((1, size // 32), 32 / size, np.float32))
    low = np.empty((n, 64), np.float32)
    for i in range(0, n, 512):
        block = thumbs[i : i + 512].astype(np.float32)
        low[i : i + 512] = (rows @ block @ rows.T).reshape(-1, 64)
    return _bits(low)


def perceptual_volume(thumbs: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """64-bit perceptual hashes (n,) of volume thumbnails (n, s, s, s): the 4 x 4 x 4 lowest 3-D DCT frequencies."""
    if not len(thumbs):
        return np.empty(0, np.uint64)
    rows = _cosines(thumbs.shape[-1], 4)
    low = [np.einsum("xyz,ax,by,cz->abc", t.astype(np.float32), rows, rows, rows, optimize="greedy") for t in thumbs]
    return _bits(np.stack(low).reshape(-1, 64))


def tiles(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What thumbnails (n, 64, 64) or (n, 32, 32, 32) hold beyond their coarse layout: (n, 64 tiles, pixels), mean 0.

    The mean of a 5 wide box around each pixel is taken away first: two people's chest radiographs share their layout
    and correlate at 0.9 and more; their detail does not.
    """
    from scipy.ndimage import uniform_filter

    flat = thumbs.astype(np.float32)
    axes = flat.ndim - 1
    high = flat - uniform_filter(flat, (0, *(5,) * axes), mode="nearest")
    split = high.reshape(len(flat), *(n for side in flat.shape[1:] for n in (side // TILE, TILE)))
    grid, inner = range(1, 2 * axes, 2), range(2, 2 * axes + 1, 2)
    rows = split.transpose(0, *grid, *inner).reshape(len(flat), 64, TILE**axes)
    return np.asarray(rows - rows.mean(2, keepdims=True), np.float32)


def same_detail(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far pairs of `tiles` (n, 64, pixels) show the same thing, (n,) in -1..1: the lower quartile over tiles of
    their normalised correlation.

    Tiles flat in both (under 2 of 255 grey levels) do not count. A quartile, because frames that a device draws around
    every picture (the disc of a fundus camera, an ultrasound fan) may fill half of the tiles but not three quarters.
    """
    size_a, size_b = (np.sqrt((x * x).mean(2)) for x in (a, b))
    corr = np.einsum("ntp,ntp->nt", a, b) / a.shape[2] / np.maximum(size_a * size_b, 1e-6)
    corr = np.where(np.minimum(size_a, size_b) < 0.5, 0.0, corr)
    counts = np.maximum(size_a, size_b) >= 2.0
    ranked = np.sort(np.where(counts, corr, np.inf), axis=1)
    number = counts.sum(1)
    place = np.maximum((number - 1) // 4, 0)
    return np.where(number > 0, ranked[np.arange(len(a)), place], 0.0).astype(np.float64)
