"""Embedders that need no download: hashed n-grams of texts, colour and texture of images. numpy alone."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.encode.image import ImageEncode
from fabrica.errors import UsageError
from fabrica.types import Item

_GRAMS = (3, 4, 5)  # bytes
_PLACE = 0x100000001B3  # the value of one place in a polynomial code
_BACK = pow(_PLACE, -1, 1 << 64)
_SIDE = 64  # pixels of the picture that is described
_GREY = np.array([0.299, 0.587, 0.114], np.float32)


class HashedText:
    """Text items -> (n, width) unit rows: signed hashes of words, pairs of words and byte 3- to 5-grams.

    Weinberger et al. 2009; a count c weighs 1 + ln(c). Case, compatibility forms and runs of blanks do not count; the
    same text gives the same bytes in every process. A text without letters is the first unit vector.

    >>> from fabrica.types import Origin
    >>> o = Origin("demo", "a", "", "")
    >>> rows = HashedText()([Item("text", t, o) for t in ("pleural effusion", "Pleural  effusions", "ECG")])
    >>> [f"{x:.1f}" for x in (rows @ rows.T)[0]]
    ['1.0', '0.9', '0.0']
    """

    version = "1"

    def __init__(self, width: int = 1024) -> None:
        if width < 16:
            raise UsageError(f"width={width}; wanted at least 16")
        self.width, self.name = width, f"hashed-text@1:{width}"

    def __call__(self, items: Sequence[Item], /) -> NDArray[np.float32]:
        """(n, width) float32."""
        out = np.zeros((len(items), self.width), np.float32)
        for row, item in zip(out, items, strict=True):
            if item.kind != "text" or not item.present:
                raise UsageError(f"hashed-text reads texts; got an item of kind {item.kind!r} ({_state(item)})")
            row[:] = self._row(item.text())
        return out

    def _row(self, text: str) -> NDArray[np.float32]:
        words = unicodedata.normalize("NFKC", text).lower().split()
        codes = _codes(" " + " ".join(words) + " ") if words else np.zeros(0, np.uint64)
        if not len(codes):
            nothing = np.zeros(self.width, np.float32)
            nothing[0] = 1
            return nothing
        found, counts = np.unique(codes, return_counts=True)
        mixed = _mix(found)
        signs = np.where(mixed >> np.uint64(63), 1.0, -1.0)
        weights = signs * (1 + np.log(counts))
        row = np.bincount((mixed % np.uint64(self.width)).astype(np.int64), weights, self.width)
        made: NDArray[np.float32] = _unit(row)
        return made


def _codes(text: str) -> NDArray[np.uint64]:
    """One code for each n-gram, word and pair of words of a text with blanks at both ends."""
    raw = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8)
    place = np.uint64(_PLACE)
    parts = []
    with np.errstate(over="ignore"):
        for n in _GRAMS:
            if len(raw) >= n:
                codes = np.full(len(raw) - n + 1, n, np.uint64)
                for k in range(n):
                    codes = codes * place + raw[k : len(raw) - n + 1 + k]
                parts.append(codes)
        ends = np.flatnonzero(raw == 32)  # blanks; a word or pair is what lies between two of them
        powers = np.cumprod(np.full(len(raw), place, np.uint64), dtype=np.uint64)
        back = np.cumprod(np.full(len(raw), _BACK, np.uint64), dtype=np.uint64)  # one over `powers`, modulo 2^64
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(powers * raw, dtype=np.uint64)])
        for span in (1, 2):
            starts, stops = ends[:-span] + 1, ends[span:]
            if len(starts):
                parts.append((sums[stops] - sums[starts]) * back[starts] + np.uint64(100 + span))
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class ColourTexture:
    """Images (or a volume's middle slice) -> (n, 296) unit rows that need no training.

    Four blocks of equal weight: a 4 x 4 x 4 colour histogram, gradient directions in 4 x 4 cells (Dalal & Triggs 2005,
    plain), rotation-invariant uniform local binary patterns in 2 x 2 cells (Ojala et al. 2002), an 8 x 8 picture.

    >>> from fabrica.types import Origin
    >>> item = Item("image", np.arange(4096, dtype=np.uint8).reshape(64, 64), Origin("demo", "a", "", ""))
    >>> ColourTexture()([item]).shape
    (1, 296)
    """

    name = "colour-texture@1"
    version = "1"

    def __init__(self) -> None:
        self._encode = ImageEncode(_SIDE, 3, (0.0,) * 3, (1.0,) * 3, fit="resize")

    def __call__(self, items: Sequence[Item], /) -> NDArray[np.float32]:
        """(n, 296) float32."""
        rng = np.random.default_rng(0)
        out = np.zeros((len(items), 296), np.float32)
        for row, item in zip(out, items, strict=True):
            if item.kind not in ("image", "volume") or not item.present:
                raise UsageError(f"{self.name} reads images; got an item of kind {item.kind!r} ({_state(item)})")
            picture = np.moveaxis(self._encode(item, rng), 0, -1)  # (64, 64, 3) in 0..1
            row[:] = _unit(np.concatenate([_unit(block) for block in _blocks(picture)]))
        return out


def _blocks(picture: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    grey = picture @ _GREY
    bins = np.minimum((picture * 4).astype(np.int64), 3) @ np.array([16, 4, 1])
    yield np.sqrt(np.bincount(bins.ravel(), minlength=64) / bins.size)
    dy, dx = np.gradient(grey)
    way = np.minimum((np.arctan2(dy, dx) % np.pi) / np.pi * 8, 7).astype(np.int64)
    size = np.hypot(dx, dy)
    cell = np.arange(_SIDE) // (_SIDE // 4)
    where = (cell[:, None] * 4 + cell[None]) * 8 + way
    yield np.sqrt(np.bincount(where.ravel(), size.ravel(), 128))
    pattern = _patterns(grey)
    half = np.arange(_SIDE - 2) // ((_SIDE - 2 + 1) // 2)
    where = (half[:, None] * 2 + half[None]) * 10 + pattern
    yield np.sqrt(np.bincount(where.ravel(), minlength=40) / pattern.size)
    small = grey.reshape(8, 8, 8, 8).mean((1, 3)).astype(np.float64)
    yield (small - small.mean()).ravel()


def _patterns(grey: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rotation-invariant uniform patterns of the eight neighbours: 0..8 by how many are as bright, 9 = not uniform."""
    middle = grey[1:-1, 1:-1]
    ring = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    n = _SIDE - 2
    bits = np.stack([grey[y : y + n, x : x + n] >= middle for y, x in ring])
    changes = (bits != np.roll(bits, 1, 0)).sum(0)
    return np.where(changes <= 2, bits.sum(0), 9)


def _unit(row: NDArray[Any]) -> NDArray[np.float32]:
    length = float(np.linalg.norm(row))
    return (row / length if length > 0 else row).astype(np.float32)


def _state(item: Item) -> str:
    return "present" if item.present else f"absent: {item.value}"
