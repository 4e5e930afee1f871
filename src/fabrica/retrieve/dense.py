"""Search by vectors: any `Embedder` over the documents, exact cosine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.retrieve import DEPTH, Exclude, Places, Run, best
from fabrica.types import Embedder, Item, Origin

BLOCK = 256  # queries that meet all documents at a time


class Dense:
    """An index over documents (id -> text) by the cosine of an embedder's rows; `queries` embeds what is asked where it
    is another model's work (two towers), else the same one does.

    Every document is a result: the least similar stands last.
    """

    def __init__(self, documents: Mapping[str, str], embed: Embedder, *, queries: Embedder | None = None) -> None:
        self.places = Places(documents)
        self.embed = queries or embed
        self.rows = _rows(embed, list(documents.values()))

    def search(self, queries: Mapping[str, str], k: int = DEPTH, *, exclude: Exclude | None = None) -> Run:
        """The k best documents of each query (id -> text)."""
        names, found = list(queries), []
        rows = _rows(self.embed, list(queries.values()))
        if len(rows) and rows.shape[1] != self.rows.shape[1]:
            raise UsageError(f"queries have {rows.shape[1]} dimensions, documents {self.rows.shape[1]}: not one space")
        for start in range(0, len(names), BLOCK):
            block = rows[start : start + BLOCK] @ self.rows.T
            for name, scores in zip(names[start : start + BLOCK], block, strict=True):
                out = self.places.excluded(name, exclude)
                found.append(best(scores, k, out=out))
        return self.places.run(names, found, k)


def _rows(embed: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    rows = np.asarray(embed(as_items(texts)), np.float32)
    if rows.shape[:1] != (len(texts),) or not np.isfinite(rows).all():
        raise UsageError(f"embedder {embed.name!r} gave {rows.shape} for {len(texts)} texts; wanted finite (n, d)")
    return rows


def as_items(texts: Sequence[str]) -> list[Item]:
    """Texts as the items that an embedder reads."""
    origin = Origin("retrieve", "", "", "")
    return [Item("text", text, origin) for text in texts]
