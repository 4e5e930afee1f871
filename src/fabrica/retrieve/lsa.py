"""Latent semantic analysis (Deerwester et al. 1990) as an `Embedder`: words that occur together come close."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError, need
from fabrica.retrieve.words import words
from fabrica.types import Item


class LSA:
    """tf-idf (1 + ln tf) of words in at least `min_documents` texts, cut to `dim` by a truncated SVD; unit rows.

    `LSA.fit(texts)` learns; the object embeds text items as `types.Embedder` says. A text without a known word is a row
    of zeros. The same texts, `dim` and `seed` give the same rows. Needs `fabrica[evaluate]`.
    """

    def __init__(self, table: Any, turn: Any, name: str) -> None:
        self._table, self._turn, self.name = table, turn, name

    @classmethod
    def fit(cls, texts: Sequence[str], *, dim: int = 100, min_documents: int = 2, seed: int = 0) -> LSA:
        """From the texts alone that will be searched among (or another set of the same kind)."""
        need("sklearn", "evaluate")
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        table = TfidfVectorizer(analyzer=words, min_df=min(min_documents, max(len(texts), 1)), sublinear_tf=True)
        try:
            rows = table.fit_transform(texts)
        except ValueError as error:
            raise UsageError(f"LSA: no word stands in {min_documents} or more of the {len(texts)} texts") from error
        room = min(rows.shape) - 1
        turn = TruncatedSVD(min(dim, room), random_state=seed).fit(rows) if room >= 1 else None
        return cls(table, turn, f"lsa-{min(dim, max(room, 1))}-{len(texts)}-{seed}")

    def __call__(self, items: Sequence[Item], /) -> NDArray[np.float32]:
        """(n, d) unit rows of text items."""
        rows = self._table.transform([item.text() for item in items])
        dense = rows.toarray() if self._turn is None else self._turn.transform(rows)
        length = np.linalg.norm(dense, axis=1, keepdims=True)
        return np.asarray(dense / np.maximum(length, 1e-12), np.float32)
