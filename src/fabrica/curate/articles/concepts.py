"""Concept labels from clusters: many small clusters of embedded figures, a label a cluster by annotators, propagated.

BIOMEDICA (arXiv 2501.07171): embed, PCA, over-cluster, label clusters from a grid of members, propagate. A cluster
whose members do not agree is "mixed", never its majority.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.pools.cluster_match import kmeans, nearest
from fabrica.errors import UsageError
from fabrica.safe import read_bytes, write_whole
from fabrica.types import Drop, Embedder, Item, Record

Rows = NDArray[np.float32]
MIXED = "mixed"


@dataclass(frozen=True, eq=False)
class ClusterModel:
    """`mean` (d,) and `axes` (d, p) of the PCA, `centroids` (k, p) unit rows, `embedder` the name of what made rows."""

    mean: Rows
    axes: Rows
    centroids: Rows
    embedder: str

    def __len__(self) -> int:
        return len(self.centroids)

    def assign(self, rows: Rows) -> tuple[NDArray[np.int64], Rows]:
        """(cluster, distance) of embedded rows (n, d); distance is 1 - cosine to the centroid."""
        spots = _unit((rows - self.mean) @ self.axes)
        near = nearest(spots, self.centroids)
        return near, np.asarray(1 - np.einsum("nd,nd->n", spots, self.centroids[near]), np.float32)

    def save(self, path: str | Path, labels: Mapping[int, ClusterLabel]) -> None:
        """One .npz with the arrays and, as JSON, embedder and labels; whole or absent."""
        said = {"embedder": self.embedder, "labels": [asdict(label) for label in labels.values()]}
        with write_whole(path) as out:
            np.savez(out, mean=self.mean, axes=self.axes, centroids=self.centroids, said=np.array(json.dumps(said)))

    @classmethod
    def load(cls, path: str | Path) -> tuple[ClusterModel, dict[int, ClusterLabel]]:
        """What `save` wrote; `UsageError` for anything else."""
        try:
            with np.load(io.BytesIO(read_bytes(path)), allow_pickle=False) as file:
                mean, axes, centroids = (np.asarray(file[name], np.float32) for name in ("mean", "axes", "centroids"))
                said = json.loads(str(file["said"]))
            labels = {int(row["cluster"]): ClusterLabel(**row) for row in said["labels"]}
            return cls(mean, axes, centroids, str(said["embedder"])), labels
        except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise UsageError(f"{path} is no file of concepts ({type(error).__name__}); make one with save()") from error


@dataclass(frozen=True, eq=False)
class Clusters:
    """What was clustered: `ids` (n,) records in the order of their id, `cluster` (n,), `distance` (n,) to centroids."""

    model: ClusterModel
    ids: tuple[str, ...]
    cluster: NDArray[np.int64]
    distance: Rows

    def members(self, number: int, show: int, seed: int = 0) -> tuple[str, ...]:
        """Up to `show` members to look at, drawn evenly over the distances, so that the odd ones are seen as well."""
        at = np.flatnonzero(self.cluster == number)
        order = at[np.argsort(self.distance[at], kind="stable")]
        if len(order) <= show:
            return tuple(self.ids[i] for i in order)
        rng = np.random.default_rng([seed, number])
        edges = np.linspace(0, len(order), show + 1).astype(int)
        return tuple(self.ids[order[rng.integers(a, b)]] for a, b in pairwise(edges))


def _unit(rows: NDArray[np.floating[Any]]) -> Rows:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), np.float32)


def embedded(
    records: Iterable[Record], embed: Embedder, *, role: str = "image", batch: int = 256
) -> tuple[tuple[str, ...], Rows]:
    """Ids and (n, d) rows of the records that have a picture, in the order of their ids. Memory: n x d x 4 bytes."""
    names: list[str] = []
    rows: list[Rows] = []
    held: list[tuple[str, Item]] = []

    def flush() -> None:
        if held:
            names.extend(name for name, _ in held)
            rows.append(embed([item for _, item in held]))
            held.clear()

    for record in records:
        item = record.first(role)
        if item is not None and item.kind == "image":
            held.append((record.id, item))
        if len(held) >= batch:
            flush()
    flush()
    if not names:
        raise UsageError(f"no record has an image in role {role!r}; there is nothing to cluster")
    order = sorted(range(len(names)), key=names.__getitem__)
    return tuple(names[i] for i in order), np.concatenate(rows)[order]


def pca(rows: Rows, dims: int) -> tuple[Rows, Rows]:
    """Mean (d,) and the `dims` axes (d, p) of largest variance, each with its largest entry positive."""
    mean = rows.mean(0)
    covariance = np.cov(rows - mean, rowvar=False).astype(np.float64)
    _, vectors = np.linalg.eigh(np.atleast_2d(covariance))
    axes = vectors[:, ::-1][:, : min(dims, rows.shape[1])]
    sign = np.sign(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])])
    return np.asarray(mean, np.float32), np.asarray(axes * sign, np.float32)


def cluster(
    ids: Sequence[str], rows: Rows, *, k: int = 2000, dims: int = 25, seed: int = 0, embedder: str = ""
) -> Clusters:
    """PCA to `dims`, then k-means on the unit sphere; `k` well above the number of concepts."""
    if len(ids) != len(rows) or len(ids) < 2:
        raise UsageError(f"{len(ids)} ids and {len(rows)} rows; wanted as many, at least 2")
    mean, axes = pca(rows, dims)
    model = ClusterModel(mean, axes, kmeans(_unit((rows - mean) @ axes), min(k, len(rows)), seed=seed), embedder)
    return Clusters(model, tuple(ids), *model.assign(rows))


# ---------------------------------------------------------------- votes


@dataclass(frozen=True, slots=True)
class Vote:
    """One annotator on one cluster: its concept, `fits` of the `shown` members that it fits, finer words."""

    cluster: int
    annotator: str
    concept: str
    shown: int
    fits: int
    local: str = ""
    panel_type: str = ""


class Annotator(Protocol):
    """Who looks at some members of a cluster and says what they are."""

    name: str

    def __call__(self, number: int, members: Sequence[str], /) -> Vote: ...


@dataclass(frozen=True, slots=True)
class ClusterLabel:
    """What became of a cluster's votes. `votes` concept -> annotators; `purity` the mean share of shown members that
    the winning concept's voters found to fit; `concept` is "mixed" below the bars."""

    cluster: int
    concept: str
    local: str
    panel_type: str
    votes: Mapping[str, int]
    purity: float


def ask(clusters: Clusters, annotators: Sequence[Annotator], *, show: int = 30, seed: int = 0) -> list[Vote]:
    """Votes of two annotators on every cluster, of the third where they differ (fewer where there are fewer)."""
    if not annotators:
        raise UsageError("no annotator was given; wanted one to three")
    votes: list[Vote] = []
    for number in range(len(clusters.model)):
        members = clusters.members(number, show, seed)
        if not members:
            continue
        own = [a(number, members) for a in annotators[:2]]
        if len({v.concept for v in own}) > 1:
            own += [a(number, members) for a in annotators[2:3]]
        votes += own
    return votes


def tally(votes: Iterable[Vote], *, purity: float = 0.6, agreement: float = 0.5) -> dict[int, ClusterLabel]:
    """The label of each cluster by majority; "mixed" where at most `agreement` of the annotators agree, or the winner
    fits less than the share `purity` of what they were shown.

    >>> found = tally([Vote(0, "a", "ct", 30, 29), Vote(0, "b", "ct", 30, 28), Vote(1, "a", "ct", 30, 14)])
    >>> {n: (label.concept, round(label.purity, 2)) for n, label in found.items()}
    {0: ('ct', 0.95), 1: ('mixed', 0.47)}
    """
    by: dict[int, dict[str, Vote]] = {}
    for vote in votes:
        if not 0 <= vote.fits <= vote.shown:
            raise UsageError(f"cluster {vote.cluster}: {vote.fits} of {vote.shown} shown fit; wanted 0 to {vote.shown}")
        if vote.annotator in by.setdefault(vote.cluster, {}):
            raise UsageError(f"cluster {vote.cluster} has two votes of annotator {vote.annotator!r}")
        by[vote.cluster][vote.annotator] = vote
    return {number: _label(number, list(own.values()), purity, agreement) for number, own in sorted(by.items())}


def _label(number: int, votes: Sequence[Vote], purity: float, agreement: float) -> ClusterLabel:
    counts = Counter(v.concept for v in votes)
    best = min(counts, key=lambda c: (-counts[c], c))
    behind = [v for v in votes if v.concept == best]
    share = float(np.mean([v.fits / v.shown if v.shown else 0.0 for v in behind]))
    mixed = counts[best] <= agreement * len(votes) or share < purity or best == MIXED
    local = Counter(v.local for v in behind).most_common(1)[0][0]
    panel = Counter(v.panel_type for v in behind).most_common(1)[0][0]
    return ClusterLabel(
        number, MIXED if mixed else best, "" if mixed else local, panel, dict(sorted(counts.items())), share
    )


# ---------------------------------------------------------------- the step


@dataclass(kw_only=True)
class Propagate:
    """Gives each picture the label of its cluster: groups "cluster", "concept", "concept_local", "panel_type", label
    "cluster_distance". New pictures are embedded and go to the nearest centroid, so any corpus can be labelled. A
    cluster that nobody labelled gives "unlabelled". Records without a picture pass."""

    model: ClusterModel
    labels: Mapping[int, ClusterLabel]
    embed: Embedder
    role: str = "image"
    batch: int = 256
    name: str = field(default="propagate_concepts", init=False)
    version: str = field(default="1", init=False)

    def __post_init__(self) -> None:
        if self.embed.name != self.model.embedder:
            raise UsageError(
                f"the clusters were made with embedder {self.model.embedder!r}, this one is {self.embed.name!r}"
            )

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records with concepts, in order."""
        held: list[Record] = []
        for record in records:
            held.append(record)
            if len(held) >= self.batch:
                yield from self._labelled(held)
                held = []
        yield from self._labelled(held)

    def _labelled(self, records: Sequence[Record]) -> Iterator[Record]:
        items = [r.first(self.role) for r in records]
        at = [i for i, item in enumerate(items) if item is not None and item.kind == "image"]
        found: dict[int, tuple[int, float]] = {}
        if at:
            numbers, far = self.model.assign(self.embed([item for i in at if (item := items[i]) is not None]))
            found = {i: (int(n), float(d)) for i, n, d in zip(at, numbers, far, strict=True)}
        for i, record in enumerate(records):
            if i not in found:
                yield record
                continue
            number, distance = found[i]
            label = self.labels.get(number)
            said = {"cluster": str(number), "concept": label.concept if label else "unlabelled"}
            if label is not None and label.local:
                said["concept_local"] = label.local
            if label is not None and label.panel_type:
                said.setdefault("panel_type", record.groups.get("panel_type", label.panel_type))
            yield replace(
                record, groups={**record.groups, **said}, labels={**record.labels, "cluster_distance": distance}
            )
