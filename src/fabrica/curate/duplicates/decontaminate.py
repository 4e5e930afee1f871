"""Takes evaluation data out of a training set: records whose picture or text an evaluation set holds are dropped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.curate.duplicates import hashing
from fabrica.curate.duplicates.dedup import Picture, picture
from fabrica.curate.duplicates.near import DETAIL, HAMMING, JACCARD, match_hashes, near_texts, verified
from fabrica.errors import UsageError
from fabrica.types import Drop, Embedder, Item, Record

COSINE = 0.95  # of embeddings; DataComp's copy detector uses 0.604 of its own (as recalled), each model has its own
TEXT_ROLES = ("report", "caption", "text")
_BATCH = 256
_DIMS = {2: "image", 3: "volume"}


class Evaluation:
    """Fingerprints of evaluation sets, registered once: exact pixels, perceptual hash with detail, texts, embeddings.

    `embed` adds a cosine of `cosine` or more between unit vectors of images, as a second look where hashes miss
    (DataComp's way: a copy-detection model). Machine-made texts are not compared by whoever has none of a person's.
    """

    def __init__(self, *, embed: Embedder | None = None, cosine: float = COSINE, min_words: int = 20) -> None:
        if not 0 < cosine <= 1:
            raise UsageError(f"cosine {cosine} is not within 0 and 1")
        self.embed, self.cosine, self.min_words = embed, cosine, min_words
        self.sets: dict[str, int] = {}
        self._held: list[Picture] = []
        self._texts: dict[str, None] = {}
        self._vectors: list[NDArray[np.float32]] = []

    def add(self, name: str, records: Iterable[Record]) -> Evaluation:
        """Register an evaluation set; the index itself."""
        for record in records:
            self.sets[name] = self.sets.get(name, 0) + 1
            items = list(_pictures(record))
            self._held += [p for i in items if (p := picture(record, i)) is not None]
            self._texts |= dict.fromkeys(_texts(record, self.min_words))
            if self.embed is not None and items:
                self._vectors.append(np.asarray(self.embed(items), np.float32))
        return self

    @property
    def digest(self) -> str:
        """Of everything registered: the same sets, the same digest."""
        body = "\n".join([*sorted({p.sha for p in self._held}), *sorted(self._texts)])
        return sha256(f"{self.cosine} {self.min_words}\n{body}".encode("utf-8", "surrogatepass")).hexdigest()

    def found(self, records: Sequence[Record]) -> list[str]:
        """(n,) why each is in an evaluation set, "" where it is not: same_pixels, near_pixels, embedding, text."""
        why = [""] * len(records)
        owners, mine = [], []
        for i, record in enumerate(records):
            for item in _pictures(record):
                if (p := picture(record, item)) is not None:
                    owners.append(i)
                    mine.append(p)
        exact = {p.sha for p in self._held}
        for i, p in zip(owners, mine, strict=True):
            if p.sha in exact:
                why[i] = "same_pixels"
        for dims in _DIMS:
            for at in self._near(mine, dims):
                why[owners[at]] = why[owners[at]] or "near_pixels"
        self._by_embedding(records, why)
        self._by_text(records, why)
        return why

    def _near(self, mine: Sequence[Picture], dims: int) -> set[int]:
        left = [k for k, p in enumerate(mine) if p.thumb.ndim == dims]
        right = [p for p in self._held if p.thumb.ndim == dims]
        if not left or not right:
            return set()
        hashes = [np.array([p.hash for p in side], np.uint64) for side in ([mine[k] for k in left], right)]
        pairs = match_hashes(hashes[0], hashes[1], distance=HAMMING)
        if not len(pairs):
            return set()
        strict = np.array([mine[left[i]].synthetic or right[j].synthetic for i, j in pairs.tolist()])
        used_i, at_i = np.unique(pairs[:, 0], return_inverse=True)
        used_j, at_j = np.unique(pairs[:, 1], return_inverse=True)
        thumbs = np.stack([mine[left[i]].thumb for i in used_i]), np.stack([right[j].thumb for j in used_j])
        same, _ = verified(*thumbs, np.stack([at_i, at_j], 1), strict=strict, detail=DETAIL)
        return {left[i] for i in pairs[same, 0].tolist()}

    def _by_embedding(self, records: Sequence[Record], why: list[str]) -> None:
        if self.embed is None or not self._vectors:
            return
        held = np.concatenate(self._vectors)
        for i, record in enumerate(records):
            items = list(_pictures(record))
            if items and not why[i] and (np.asarray(self.embed(items)) @ held.T).max() >= self.cosine:
                why[i] = "embedding"

    def _by_text(self, records: Sequence[Record], why: list[str]) -> None:
        """Evaluation texts stand first in one list with the batch's: a pair across the border is a match."""
        said = [(i, t) for i, r in enumerate(records) for t in _texts(r, self.min_words)]
        if not said or not self._texts:
            return
        held = list(self._texts)
        for i, _ in ((i, t) for i, t in said if t in self._texts):
            why[i] = why[i] or "text"
        rest = [(i, t) for i, t in said if t not in self._texts]
        for a, b in near_texts([*held, *(t for _, t in rest)], threshold=JACCARD).tolist():
            if a < len(held) <= b:
                i = rest[b - len(held)][0]
                why[i] = why[i] or "text"


class Decontaminate:
    """A step that drops records which an evaluation set holds, near-copies among them.

    Reasons: evaluation_same_pixels, evaluation_near_pixels, evaluation_embedding, evaluation_text. The number that was
    removed stands in the ledger and the report of `curate.run`; a leaderboard wants it.
    """

    name = "decontaminate"
    version = "1"

    def __init__(self, against: Evaluation) -> None:
        if not against.sets:
            raise UsageError("Decontaminate: no evaluation set is registered; Evaluation().add(name, records)")
        self.against = against

    def params(self) -> dict[str, Any]:
        """What identifies the step: the registered sets."""
        return {"sets": self.against.sets, "digest": self.against.digest}

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records that no evaluation set holds."""
        stream = iter(records)
        while part := list(islice(stream, _BATCH)):
            for record, why in zip(part, self.against.found(part), strict=True):
                if why:
                    drop(record, f"evaluation_{why}")
                else:
                    yield record


def _pictures(record: Record) -> Iterator[Item]:
    for items in record.items.values():
        yield from (i for i in items if i.kind in ("image", "volume") and isinstance(i.value, np.ndarray))


def _texts(record: Record, min_words: int) -> Iterator[str]:
    """Normalised texts long enough that two people would not write them alike by chance."""
    for item in record.all(*TEXT_ROLES):
        if item.kind == "text" and item.origin.by != "model":
            text = hashing.normalise_text(item.text())
            if text.count(" ") + 1 >= min_words:
                yield text
