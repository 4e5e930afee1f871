"""The image-based filter of DataComp: keep what lies in a cluster of the pool that target images fall into."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.duplicates.hashing import mix
from fabrica.curate.pools.pool import Block, Pool, uids_of
from fabrica.curate.pools.selector import Codes, Ready, Selector, vectors
from fabrica.errors import Leak, UsageError
from fabrica.safe import write_whole
from fabrica.sources import Ref, npz
from fabrica.types import Embedder, Item, Record

Rows = NDArray[np.float32]  # (n, d)
_ROUNDS = 20


@dataclass(frozen=True, eq=False)
class Target:
    """Features of the images that the data set is meant for, of the training split alone: `Leak` for any other split,
    since a pool chosen by its likeness to test images has seen them."""

    rows: Rows
    split: str
    name: str = ""

    def __post_init__(self) -> None:
        if self.split != "train":
            raise Leak(
                f"target images {self.name!r} are of split {self.split!r}; only training images may steer a filter"
            )
        if np.ndim(self.rows) != 2 or not len(self.rows):
            raise UsageError(f"target features of shape {np.shape(self.rows)}; wanted (n, d) with n >= 1")

    @classmethod
    def of(cls, records: Iterable[Record], embed: Embedder, *, roles: tuple[str, ...] = ("image",)) -> Target:
        """Embed the first image of each record. One record of another split, or of none, is a `Leak`."""
        items: list[Item] = []
        for record in records:
            if record.split != "train":
                raise Leak(
                    f"target record {record.id} is of split {record.split!r}; only training images may steer a filter"
                )
            items += [i for i in [record.first(*roles)] if i is not None]
        if not items:
            raise UsageError(f"no target record has an item of {', '.join(roles)}")
        return cls(embed(items), "train", embed.name)

    def save(self, path: str | Path) -> Path:
        """An .npz with the rows and the split."""
        path = Path(path)
        with write_whole(path) as out:
            np.savez(out, rows=self.rows, split=_bytes(self.split), name=_bytes(self.name))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Target:
        """What `save` wrote; `UsageError` for another file, `Leak` where it is of another split."""
        if not Path(path).is_file():
            raise UsageError(
                f"no target features at {path}; write them with select.Target.of(records, embed).save(...)"
            )
        held = npz.load(Ref(Path(path), Path(path).name, "target"))
        if missing := {"rows", "split", "name"} - held.keys():
            raise UsageError(f"{path} is no file of target features: it lacks {', '.join(sorted(missing))}")
        split, name = (bytes(held[k]).decode("utf-8", "replace") for k in ("split", "name"))
        return cls(held["rows"], split, name)


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


@dataclass(frozen=True)
class ClusterMatch(Selector):
    """Keeps rows whose nearest of `clusters` centroids is also that of some target image. Centroids are k-means of a
    `sample` of the pool's own rows, drawn by hash, on unit vectors (cosine). Reasons: off_target, no_feature."""

    features: str
    target: Target
    clusters: int = 100
    sample: int = 50_000
    seed: int = 0
    name: str = field(default="cluster_match", init=False)

    @property
    def columns(self) -> tuple[str, ...]:
        """The features."""
        return (self.features,)

    def need(self, pool: Pool) -> None:
        """`UsageError` for a pool without embeddings."""
        pool.need(
            (self.features,), "an image-based filter needs the pool's embeddings (.npz shards, or the step Features)"
        )

    def ready(self, pool: Pool) -> Ready:
        """Cluster a sample of the pool; find the clusters of the target."""
        drawn = _sample(pool.blocks(["uid", self.features]), self.features, self.sample, self.seed)
        target = _unit(self.target.rows)
        if not len(drawn):
            return Ready(("off_target", "no_feature"), lambda b: np.full(len(b["uid"]), 2, np.uint8))
        if drawn.shape[1] != target.shape[1]:
            raise UsageError(
                f"{self.features!r} has {drawn.shape[1]} dimensions, the target {target.shape[1]}; one model for both"
            )
        centroids = kmeans(drawn, self.clusters, seed=self.seed)
        wanted = np.zeros(len(centroids), bool)
        wanted[nearest(target, centroids)] = True

        def codes(block: Block) -> Codes:
            rows = vectors(block, self.features)
            known = np.isfinite(rows).all(1)
            out = np.full(len(rows), 2, np.uint8)
            out[known] = ~wanted[nearest(rows[known], centroids)]
            return out

        return Ready(("off_target", "no_feature"), codes, {"clusters": len(centroids), "on target": wanted.sum()})


def _unit(rows: Rows) -> Rows:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def _sample(blocks: Iterator[Block], name: str, count: int, seed: int) -> Rows:
    """(<= count, d) the known rows with the lowest hashes of uid and seed, in order of hash."""
    kept, marks = None, np.empty(0, np.uint64)
    for block in blocks:
        rows, uid = vectors(block, name), uids_of(block)
        known = np.isfinite(rows).all(1)
        mark = mix(mix(uid["f0"] ^ mix(np.full(1, seed, np.uint64))) ^ uid["f1"])[known]
        rows, mark = rows[known], np.concatenate([marks, mark])
        every = rows if kept is None or not len(kept) else np.concatenate([kept, rows])
        order = np.argsort(mark, kind="stable")[:count]
        kept, marks = every[order], mark[order]
    return np.empty((0, 1), np.float32) if kept is None else kept


def kmeans(rows: Rows, clusters: int, *, seed: int = 0) -> Rows:
    """(<= clusters, d) unit centroids of unit rows (n, d): Lloyd's iterations on cosine (spherical k-means, Dhillon and
    Modha 2001) from distinct rows; a cluster that empties takes the row that lies farthest from its centroid.

    >>> x = np.array([[1, 0], [0.99, 0.14], [0, 1], [0.14, 0.99]], np.float32)
    >>> sorted(round(float(v), 1) for v in kmeans(x, 2)[:, 0])
    [0.1, 1.0]
    """
    if clusters < 1:
        raise UsageError(f"{clusters} clusters; wanted 1 or more")
    rng = np.random.default_rng(seed)
    distinct = np.unique(rows, axis=0)
    if len(distinct) <= clusters:
        return _unit(distinct)
    centroids = distinct[_spread(distinct, clusters, rng)]
    for _ in range(_ROUNDS):
        near = nearest(rows, centroids)
        sums = np.zeros((clusters, rows.shape[1]), np.float64)
        np.add.at(sums, near, rows)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        moved = np.divide(sums, length, out=centroids.astype(np.float64), where=length > 1e-12)
        empty = np.flatnonzero(np.bincount(near, minlength=clusters) == 0)
        if len(empty):
            far = np.argsort(np.einsum("nd,nd->n", rows, centroids[near]), kind="stable")[: len(empty)]
            moved[empty] = rows[far]
        before, centroids = centroids, moved.astype(np.float32)
        if np.allclose(before, centroids, atol=1e-5):
            break
    return centroids


def _spread(rows: Rows, clusters: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Seeds drawn with a chance that grows with the distance to those there (k-means++, on at most 20 rows a seed)."""
    pick = np.sort(rng.permutation(len(rows))[: 20 * clusters])
    some = rows[pick]
    chosen = [int(rng.integers(len(some)))]
    far = 1 - some @ some[chosen[0]]
    for _ in range(clusters - 1):
        weight = np.maximum(far, 0).astype(np.float64)
        weight[chosen] = 0
        total = weight.sum()
        free = np.setdiff1d(np.arange(len(some)), chosen)
        chosen.append(int(rng.choice(len(some), p=weight / total) if total > 0 else free[0]))
        far = np.minimum(far, 1 - some @ some[chosen[-1]])
    return pick[chosen]


def nearest(rows: Rows, centroids: Rows, *, block: int = 8192) -> NDArray[np.int64]:
    """(n,) the centroid with the highest cosine, of unit rows; the lowest number of equal ones."""
    out = np.empty(len(rows), np.int64)
    for lo in range(0, len(rows), block):
        out[lo : lo + block] = (rows[lo : lo + block] @ centroids.T).argmax(1)
    return out
