"""Finding near-duplicates among many: banded MinHash for texts, banded Hamming for pictures, union-find for groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.duplicates import hashing

BANDS = 32  # of 8 rows: P(candidate) = 1 - (1 - s^8)^32 is 0.12 at s = 0.5, 0.85 at 0.7, 0.997 at 0.8 (16 bands: 0.95)
JACCARD = 0.8
HAMMING = 6
DETAIL = 0.7  # of `hashing.same_detail`; two people's radiographs reach 0.3, a re-encoded copy has 0.8 and more
WHOLE = 0.9985  # correlation of synthetic pictures; a generator's patients share an anatomy and reach 0.9975
_COMPARED = 1 << 11  # pairs of texts whose shingles are held at once: about 30 MiB of reports
_SHOWN = 256  # pairs of pictures whose detail is held at once: 16 MiB
WINDOW = 64  # texts of one band are compared with this many neighbours at most

Pairs = NDArray[np.int64]  # (m, 2), i < j, sorted, each once


class Groups:
    """Union-find over 0..n-1 (path halving).

    >>> g = Groups(4)
    >>> g.join(0, 2); g.join(2, 3)
    >>> g.roots().tolist()
    [0, 1, 0, 0]
    """

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def find(self, i: int) -> int:
        """The smallest member of i's group."""
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(self, i: int, j: int) -> None:
        """Put i and j in one group; its root is its smallest member."""
        a, b = self.find(i), self.find(j)
        self._parent[max(a, b)] = min(a, b)

    def roots(self) -> NDArray[np.int64]:
        """The smallest member of each one's group (n,)."""
        return np.array([self.find(i) for i in range(len(self._parent))], np.int64)


def _unique(i: NDArray[np.int64], j: NDArray[np.int64]) -> Pairs:
    if not len(i):
        return np.empty((0, 2), np.int64)
    low, high = np.minimum(i, j), np.maximum(i, j)
    span = int(high.max()) + 1
    key = np.unique(low * span + high)
    return np.stack([key // span, key % span], axis=1)


# ---------------------------------------------------------------- text


def band_keys(signatures: NDArray[np.uint32], *, bands: int = BANDS) -> NDArray[np.uint64]:
    """One key per band (n, bands): equal only where all rows of the band are (but for 64-bit collisions)."""
    n, width = signatures.shape
    rows = signatures.reshape(n, bands, width // bands).astype(np.uint64)
    keys = np.zeros((n, bands), np.uint64)
    for r in range(rows.shape[2]):
        keys = hashing.mix(keys ^ rows[:, :, r])
    return keys


def banded(keys: NDArray[np.uint64], *, window: int = WINDOW) -> Pairs:
    """Pairs of rows that share a key in any column. In a bucket of more than `window` rows each is paired with the
    next `window` ones, which leaves the bucket connected and the work linear."""
    found_i, found_j = [], []
    for column in keys.T:
        order = np.argsort(column, kind="stable")
        ranked = column[order]
        for step in range(1, window + 1):
            hit = np.flatnonzero(ranked[step:] == ranked[:-step])
            if not len(hit):
                break
            found_i.append(order[hit])
            found_j.append(order[hit + step])
    if not found_i:
        return np.empty((0, 2), np.int64)
    return _unique(np.concatenate(found_i), np.concatenate(found_j))


class ShingleSets:
    """The distinct shingles of many texts as a sparse 0/1 matrix, for true Jaccard similarities of pairs."""

    def __init__(self, values: NDArray[np.uint64], offsets: NDArray[np.int64]) -> None:
        from scipy.sparse import csr_array

        names, column = np.unique(values, return_inverse=True)
        shape = (len(offsets) - 1, max(len(names), 1))
        self._rows = csr_array(
            (np.ones(len(column), np.int32), column.astype(np.int64), offsets.astype(np.int64)), shape
        )
        self._rows.sum_duplicates()
        self._rows.data[:] = 1
        self._size = np.diff(self._rows.indptr)

    def jaccard(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.float64]:
        """Similarity (m,) of texts i and j; 0 where both are empty."""
        out = np.zeros(len(i))
        for lo in range(0, len(i), 65536):
            a, b = i[lo : lo + 65536], j[lo : lo + 65536]
            both = self._rows[a].multiply(self._rows[b]).sum(1)
            out[lo : lo + 65536] = both / np.maximum(self._size[a] + self._size[b] - both, 1)
        return out


def near_texts(normalised: Sequence[str], *, threshold: float = JACCARD) -> Pairs:
    """Pairs of texts whose 5-word shingles have a Jaccard similarity of `threshold` or more (MinHash, then checked).

    Texts must be normalised. Equal texts are chained (first with second, second with third ...), not paired each with
    each, and only the first of them is compared with the rest.
    """
    first: dict[str, list[int]] = {}
    for i, text in enumerate(normalised):
        if text:
            first.setdefault(text, []).append(i)
    chained = np.array([pair for same in first.values() for pair in pairwise(same)], np.int64).reshape(-1, 2)
    distinct, index = list(first), np.array([same[0] for same in first.values()], np.int64)
    near = _near_distinct(distinct, threshold)
    return _unique(*np.concatenate([chained, index[near] if len(near) else near]).T)


def _near_distinct(texts: Sequence[str], threshold: float) -> Pairs:
    values, offsets = hashing.shingles(texts)
    pairs = banded(band_keys(hashing.minhash(values, offsets)))
    if not len(pairs):
        return pairs
    used, place = np.unique(pairs, return_inverse=True)
    lengths = np.diff(offsets)[used]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    at = np.arange(starts[-1]) + np.repeat(offsets[:-1][used] - starts[:-1], lengths)
    similar = ShingleSets(values[at], starts).jaccard(*place.reshape(-1, 2).T)
    return pairs[similar >= threshold]


def merged(labels: NDArray[np.int64], i: NDArray[np.int64], j: NDArray[np.int64]) -> NDArray[np.int64]:
    """Group labels (n,) after joining the groups of i and j, pair by pair; a label is its group's smallest member.

    >>> merged(np.arange(5), np.array([4, 1]), np.array([1, 3])).tolist()
    [0, 1, 2, 1, 1]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    used, place = np.unique(np.stack([labels[i], labels[j]]), return_inverse=True)
    if not len(used):
        return labels
    place = place.reshape(2, -1)
    links = coo_array((np.ones(place.shape[1], np.int8), (place[0], place[1])), (len(used), len(used)))
    count, of = connected_components(links, directed=False)
    low = np.full(count, len(labels), np.int64)
    np.minimum.at(low, of, used)
    to = np.arange(len(labels))
    to[used] = low[of]
    out: NDArray[np.int64] = to[labels]
    return out


def near_groups(
    keys: Callable[[int], NDArray[np.uint64]], texts: Callable[[NDArray[np.int64]], Sequence[str]], n: int, *,
    threshold: float = JACCARD, bands: int = BANDS, window: int = WINDOW,
) -> NDArray[np.int64]:  # fmt: skip
    """Groups (n,) of n distinct normalised texts, by their smallest member: what `near_texts` joins, for millions.

    `keys(b)` (n,) are the keys of band b (`band_keys`), `texts(rows)` the texts of some. Band by band, so that one
    column of keys is held; pairs that are joined already are not compared again. About 60 bytes a text.
    """
    labels = np.arange(n)
    for band in range(bands):
        column = keys(band)
        order = np.argsort(column, kind="stable")
        ranked = column[order]
        for step in range(1, window + 1):
            hit = np.flatnonzero(ranked[step:] == ranked[:-step])
            if not len(hit):
                break
            i, j = order[hit], order[hit + step]
            apart = labels[i] != labels[j]
            i, j = i[apart], j[apart]
            for lo in range(0, len(i), _COMPARED):
                a, b = i[lo : lo + _COMPARED], j[lo : lo + _COMPARED]
                same = similarity(texts, a, b) >= threshold
                labels = merged(labels, a[same], b[same])
    return labels


def similarity(
    texts: Callable[[NDArray[np.int64]], Sequence[str]], i: NDArray[np.int64], j: NDArray[np.int64]
) -> NDArray[np.float64]:
    """True Jaccard similarity (m,) of the shingles of texts i and j, pair by pair."""
    used, place = np.unique(np.stack([i, j]), return_inverse=True)
    place = place.reshape(2, -1)
    return ShingleSets(*hashing.shingles(texts(used))).jaccard(place[0], place[1])


# ---------------------------------------------------------------- pictures


def near_hashes(hashes: NDArray[np.uint64], *, distance: int = HAMMING) -> Pairs:
    """All pairs of 64-bit hashes within a Hamming `distance` of at most 7.

    Four bands of 16 bits: of two hashes within 7, some band differs in one bit at most, so that looking up each band
    and its 16 one-bit neighbours finds every pair (pigeonhole).
    """
    return _unique(*np.concatenate([np.empty((0, 2), np.int64), *hash_pairs(hashes, distance=distance)]).T)


def hash_pairs(hashes: NDArray[np.uint64], *, distance: int = HAMMING) -> Iterator[Pairs]:
    """The pairs of `near_hashes` in parts, each pair once, about a million looked at for each part."""
    if not 0 <= distance <= 7:
        raise ValueError(f"distance {distance} is not in 0..7, where the bands miss nothing")
    for band in range(4):
        for i, j in _probe(hashes, hashes, band, distance):
            keep = i < j
            for earlier in range(band):  # found there already
                keep &= np.bitwise_count(_band(hashes[i], earlier) ^ _band(hashes[j], earlier)) > 1
            if keep.any():
                yield np.stack([i[keep], j[keep]], axis=1)


def match_hashes(queries: NDArray[np.uint64], index: NDArray[np.uint64], *, distance: int = HAMMING) -> Pairs:
    """Pairs (query, index) within a Hamming `distance` of at most 7; as `near_hashes`, between two sets."""
    parts = [np.stack(pair, axis=1) for band in range(4) for pair in _probe(queries, index, band, distance)]
    return np.unique(np.concatenate([np.empty((0, 2), np.int64), *parts]), axis=0)


def _band(hashes: NDArray[np.uint64], band: int) -> NDArray[np.int64]:
    return ((hashes >> np.uint64(16 * band)) & np.uint64(0xFFFF)).astype(np.int64)


def _probe(
    queries: NDArray[np.uint64], index: NDArray[np.uint64], band: int, distance: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs that agree in `band` but for one bit and lie within `distance`, in parts."""
    mine, theirs = _band(queries, band), _band(index, band)
    order = np.argsort(theirs, kind="stable")
    starts = np.searchsorted(theirs[order], np.arange(65537))
    for flip in (0, *(1 << bit for bit in range(16))):
        low, high = starts[mine ^ flip], starts[(mine ^ flip) + 1]
        for part in _slices(high - low):
            counts = (high - low)[part]
            i = np.repeat(np.arange(part.start, part.stop), counts)
            run = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
            j = order[np.repeat(low[part], counts) + run]
            close = np.bitwise_count(queries[i] ^ index[j]) <= distance
            yield i[close], j[close]


def _slices(counts: NDArray[np.int64], budget: int = 1_000_000) -> Iterable[slice]:
    """Runs of rows that expand to about `budget` pairs each."""
    total = np.cumsum(counts)
    lo = 0
    while lo < len(counts):
        before = int(total[lo - 1]) if lo else 0
        hi = max(int(np.searchsorted(total, before + budget, "right")), lo + 1)
        yield slice(lo, hi)
        lo = hi


def verified(
    a: NDArray[np.uint8], b: NDArray[np.uint8], pairs: Pairs, *, strict: NDArray[np.bool_] | bool = False,
    detail: float = DETAIL,
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:  # fmt: skip
    """Whether the thumbnails a[i], b[j] of each pair (i, j) show the same thing, (m,), and how far (m,).

    They do if `hashing.same_detail` is `detail` or more. `strict` (of all, or of each pair) asks for a correlation of
    the whole of `WHOLE` as well: for synthetic pictures, whose patients differ by their findings alone.
    """
    score, whole = np.zeros(len(pairs)), np.zeros(len(pairs))
    for lo in range(0, len(pairs), _SHOWN):
        part = pairs[lo : lo + _SHOWN]
        left, at_left = np.unique(part[:, 0], return_inverse=True)
        right, at_right = np.unique(part[:, 1], return_inverse=True)
        tiles_a, tiles_b = hashing.tiles(a[left]), hashing.tiles(b[right])
        score[lo : lo + _SHOWN] = hashing.same_detail(tiles_a[at_left], tiles_b[at_right])
        whole[lo : lo + _SHOWN] = np.einsum("np,np->n", _unit(a[left])[at_left], _unit(b[right])[at_right])
    return (score >= detail) & ((whole >= WHOLE) | ~np.asarray(strict)), score


def _unit(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True), np.float32)


def near_pictures(
    thumbs: NDArray[np.uint8], *, strict: bool = False, distance: int = HAMMING, detail: float = DETAIL
) -> Pairs:
    """Pairs of thumbnails (n, 64, 64) or (n, 32, 32, 32) that show the same thing: perceptual hash, then `verified`.

    Finds images that were re-encoded, rescaled, brightened, cropped by about 1 % (not where `strict`) or given mild
    noise; not flipped, turned by more than a degree or cropped by more. Finds volumes whose intensities were scaled,
    rounded or given mild noise; not resampled or cropped ones. Measured on real sets in
    tests/curate/test_curate_real.py.
    """
    hashes = hashing.perceptual(thumbs) if thumbs.ndim == 3 else hashing.perceptual_volume(thumbs)
    pairs = near_hashes(hashes, distance=distance)
    same: Pairs = pairs[verified(thumbs, thumbs, pairs, strict=strict, detail=detail)[0]]
    return same
