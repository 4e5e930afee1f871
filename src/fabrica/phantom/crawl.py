"""A synthetic crawl: many small pictures with alternative texts, most of which belong to other pictures."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.types import Item, Origin, Record, Rights, record_id

SIZE = 16  # pixels a side
COARSE, FINE = 0.2, 0.3  # how fine patterns and layouts are, in cycles a pixel
LAYOUT = 1.5  # pictures of other classes share one, as pages of a kind do
WHITE = 0.3  # of the noise: pixels without neighbours
CLASSES = 50
TARGETS = 20  # classes 0 .. 19 are what the evaluation asks for; the others are off target
_PARTS = (
    ("bel", "cor", "dun", "fal", "gor", "hem", "jul", "kas", "lom", "mir", "nav", "oss", "pel", "quor", "ras", "sil"),
    ("ado", "eni", "ika", "olu", "uri", "ysa"),
    ("ma", "na", "rix", "tis", "von"),
)
_FILLER = (
    "photo", "image", "buy", "cheap", "best", "view", "old", "new", "free", "large", "original", "download", "gallery",
    "online", "page",
)  # fmt: skip


def names() -> tuple[tuple[str, ...], ...]:
    """Three made-up synonyms of each class.

    >>> len(names()), len({w for of in names() for w in of})
    (50, 150)
    """
    words = [a + b + c for a in _PARTS[0] for b in _PARTS[1] for c in _PARTS[2]]
    random.Random("crawl").shuffle(words)
    return tuple(tuple(words[3 * k : 3 * k + 3]) for k in range(CLASSES))


@dataclass(frozen=True, eq=False)
class Crawl:
    """`images` (n, 16, 16) uint8, `texts`, `shows` (n,) the class of each picture, `says` (n,) that of its text."""

    images: NDArray[np.uint8]
    texts: tuple[str, ...]
    shows: NDArray[np.int64]
    says: NDArray[np.int64]
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def records(self, rows: Sequence[int] | None = None) -> Iterator[Record]:
        """One record a row: role "image", role "caption", group "class".

        >>> r = next(crawl(1, 0).records())
        >>> r.first("image").array().shape, r.first("caption").origin.by
        ((16, 16), 'synthetic')
        """
        for i in range(len(self)) if rows is None else rows:
            origin = Origin("phantom-crawl", f"{self.seed}/{i}", "", "CC0-1.0", "synthetic")
            items = {
                "image": (Item("image", self.images[i], origin),),
                "caption": (Item("text", self.texts[i], origin),),
            }
            groups = {"modality": "web", "source": "phantom-crawl", "data": "phantom", "class": str(self.shows[i])}
            id_ = record_id("crawl", str(self.seed), str(i))
            yield Record(id_, id_, groups, items, rights=Rights("CC0-1.0"))


def crawl(n: int, seed: int, *, mismatch: float = 0.0, off_target: float = 0.0, noise: float = 1.4) -> Crawl:
    """`n` pairs. A share `off_target` of the pictures is of the 30 other classes; a share `mismatch` of the texts
    names a class drawn anew. A picture is its class' smooth pattern, a little shifted, under another one and noise.

    >>> made = crawl(1000, 0, mismatch=0.7, off_target=0.6)
    >>> bool(0.25 < (made.shows == made.says).mean() < 0.4), bool(0.55 < (made.shows >= TARGETS).mean() < 0.65)
    (True, True)
    """
    if n < 1 or not 0 <= mismatch <= 1 or not 0 <= off_target <= 1:
        raise UsageError(f"crawl wants n >= 1 and shares within 0 and 1; got {n}, {mismatch}, {off_target}")
    rng = np.random.default_rng([seed, 51])
    off = rng.random(n) < off_target
    shows = np.where(off, rng.integers(TARGETS, CLASSES, n), rng.integers(0, TARGETS, n))
    drawn = np.where(rng.random(n) < off_target, rng.integers(TARGETS, CLASSES, n), rng.integers(0, TARGETS, n))
    says = np.where(rng.random(n) < mismatch, drawn, shows)
    words, pick = names(), random.Random(f"crawl-{seed}")
    return Crawl(_pictures(shows, rng, noise), tuple(_text(words[k], pick) for k in says.tolist()), shows, says, seed)


def _text(synonyms: Sequence[str], rng: random.Random) -> str:
    said = [rng.choice(synonyms), *rng.sample(_FILLER, 4)]
    rng.shuffle(said)
    return " ".join(said)


def _pictures(shows: NDArray[np.int64], rng: np.random.Generator, noise: float) -> NDArray[np.uint8]:
    """(n, 16, 16): the pattern of a class is drawn once and for all."""
    n = len(shows)
    drawn = np.random.default_rng(51).normal(0, 1, (CLASSES, SIZE, SIZE))
    patterns = _smooth(drawn)
    patterns[TARGETS:] += LAYOUT * _smooth(np.random.default_rng(52).normal(0, 1, (1, SIZE, SIZE)), FINE)
    values = patterns[shows] * rng.uniform(0.6, 1.2, n)[:, None, None]
    row, column = ((np.arange(SIZE)[None] - rng.integers(-1, 2, n)[:, None]) % SIZE for _ in range(2))
    values = values[np.arange(n)[:, None, None], row[:, :, None], column[:, None, :]]
    values += noise * (_smooth(rng.normal(0, 1, (n, SIZE, SIZE))) + WHITE * rng.normal(0, 1, (n, SIZE, SIZE)))
    return np.asarray(np.clip(128 + 28 * values, 0, 255), np.uint8)


def _smooth(noise: NDArray[np.float64], width: float = COARSE) -> NDArray[np.float64]:
    """Low frequencies of white noise (n, 16, 16), a Gaussian of `width` cycles a pixel; each of unit spread."""
    rate = np.fft.fftfreq(SIZE)
    keep = np.exp(-((rate[:, None] ** 2 + rate[None] ** 2) / (2 * width**2)))
    soft = np.fft.ifft2(np.fft.fft2(noise) * keep).real
    return np.asarray(soft / soft.std((1, 2), keepdims=True))
