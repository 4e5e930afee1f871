"""BM25 (Robertson and Zaragoza 2009) by the bm25s library, in Lucene's form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fabrica.errors import UsageError, need
from fabrica.retrieve import DEPTH, Exclude, Numbers, Places, Run, Scores, best
from fabrica.retrieve.words import words


class BM25:
    """An index over documents (id -> text). Score: sum over the query's words of
    ln(1 + (N - n + 0.5) / (n + 0.5)) * tf / (tf + k1 (1 - b + b * length / mean length)), N documents, n with the word.

    A document that shares no word with a query is not among its results. Needs `fabrica[retrieve]`.

    >>> index = BM25({"a": "fever and cough", "b": "a broken leg"})
    >>> [d for d, _ in index.search({"q": "coughs"}).found("q")]
    ['a']
    """

    def __init__(self, documents: Mapping[str, str], *, k1: float = 1.5, b: float = 0.75) -> None:
        if k1 < 0 or not 0 <= b <= 1:
            raise UsageError(f"BM25 with k1={k1}, b={b}: wanted k1 >= 0 and b from 0 to 1")
        self.places = Places(documents)
        said = [words(text) for text in documents.values()]
        self._index = None
        if any(said):
            self._index = need("bm25s", "retrieve").BM25(k1=k1, b=b, method="lucene")
            self._index.index(said, show_progress=False)

    def search(self, queries: Mapping[str, str], k: int = DEPTH, *, exclude: Exclude | None = None) -> Run:
        """The k best documents of each query (id -> text)."""
        found = [self._one(text, k, self.places.excluded(query, exclude)) for query, text in queries.items()]
        return self.places.run(list(queries), found, k)

    def _one(self, text: str, k: int, out: list[int]) -> tuple[Numbers, Scores]:
        known = [] if self._index is None else [w for w in words(text) if w in self._index.vocab_dict]
        if not known or self._index is None:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        return best(self._index.get_scores(known), k, out=out, above=0.0)
