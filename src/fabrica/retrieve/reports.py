"""A store of reports that is searched by picture, by words, or by both, and never gives a patient their own report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.retrieve import Numbers, Places, Run, Scores, best
from fabrica.types import Record

if TYPE_CHECKING:
    from fabrica.retrieve.bm25 import BM25

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: whose it is (`subject`), the picture's `row` in the space of the store's rows (d,), and words."""

    id: str
    subject: str
    row: F32 | None = None
    text: str = ""


class ReportStore:
    """Reports by id with the patient of each, and, for search by picture, their rows (n, d) in the shared space.

    A search joins what picture and words find by reciprocal ranks; reports of the query's own patient, and the one with
    the query's id, are never among the results. Fewer than k are given where there are fewer.
    """

    def __init__(self, texts: Mapping[str, str], subjects: Mapping[str, str], rows: F32 | None = None) -> None:
        self.places, self.texts = Places(texts), dict(texts)
        lost = [i for i in texts if not subjects.get(i)]
        if lost:
            raise UsageError(f"{len(lost)} reports without a patient ({lost[0]} ...): their own could be shown to them")
        self.subjects = {i: subjects[i] for i in texts}
        self.rows = None if rows is None else _unit(rows, len(texts), "the store's rows")
        self._of: dict[str, list[str]] = {}
        for id_, subject in self.subjects.items():
            self._of.setdefault(subject, []).append(id_)
        self._words: BM25 | None = None

    @classmethod
    def of_records(
        cls, records: Iterable[Record], rows: Mapping[str, F32] | None = None, *, roles: tuple[str, ...] = ("report",)
    ) -> ReportStore:
        """From records (of a corpus' training part): the first text of `roles` of each that has one; `rows` record ->
        (d,), without which there is no search by picture. Records whose rights forbid showing are left out."""
        texts, subjects = {}, {}
        for record in records:
            item = record.first(*roles)
            if item is not None and item.kind == "text" and item.text().strip() and record.rights.share == "full":
                texts[record.id], subjects[record.id] = item.text(), record.subject
        if not texts:
            raise UsageError(f"no record has a text of role {', '.join(roles)} that may be shown: the store is empty")
        return cls(texts, subjects, None if rows is None else np.stack([rows[i] for i in texts]))

    @property
    def sha256(self) -> str:
        """Hex hash of ids, patients, texts and rows: what a certificate of this store is bound to."""
        digest = hashlib.sha256()
        for id_, text in self.texts.items():
            digest.update("\x1f".join((id_, self.subjects[id_], text)).encode("utf-8", "surrogatepass") + b"\n")
        if self.rows is not None:
            digest.update(self.rows.tobytes())
        return digest.hexdigest()

    def search(self, queries: Sequence[Query], k: int) -> Run:
        """The k best reports of each query. Queries of one call carry the same: a row, words, or both."""
        from fabrica.retrieve.fuse import rrf

        if len({q.id for q in queries}) < len(queries):
            raise UsageError("two queries have one id")
        exclude = {q.id: [q.id, *self._of.get(q.subject, ())] for q in queries}
        runs = []
        if seen := [q for q in queries if q.row is not None]:
            runs.append(self._by_row(queries, seen, k if not any(q.text for q in queries) else max(k, 50), exclude))
        if any(q.text for q in queries):
            runs.append(self._index().search({q.id: q.text for q in queries}, max(k, 50), exclude=exclude))
        if not runs:
            raise UsageError("queries with neither a row nor words: nothing to search by")
        return runs[0].cut(k) if len(runs) == 1 else rrf(runs, k)

    def _by_row(
        self, queries: Sequence[Query], seen: Sequence[Query], k: int, exclude: Mapping[str, Sequence[str]]
    ) -> Run:
        if self.rows is None or len(seen) < len(queries):
            raise UsageError("search by picture wants rows of the store and a row of every query")
        asked = _unit(np.stack([q.row for q in queries if q.row is not None]), len(queries), "the queries' rows")
        if asked.shape[1] != self.rows.shape[1]:
            raise UsageError(f"queries have {asked.shape[1]} dimensions, reports {self.rows.shape[1]}: not one space")
        found: list[tuple[Numbers, Scores]] = []
        for q, scores in zip(queries, asked @ self.rows.T, strict=True):
            found.append(best(scores, k, out=self.places.excluded(q.id, exclude)))
        kept = [(n[np.isfinite(s)], s[np.isfinite(s)]) for n, s in found]
        return self.places.run([q.id for q in queries], kept, k)

    def _index(self) -> BM25:
        from fabrica.retrieve.bm25 import BM25

        if self._words is None:
            self._words = BM25(self.texts)
        return self._words


def _unit(rows: F32, n: int, what: str) -> F32:
    values = np.asarray(rows, np.float32)
    if values.ndim != 2 or len(values) != n or not np.isfinite(values).all():
        raise UsageError(f"{what} have shape {values.shape}; wanted finite ({n}, d)")
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12), np.float32)
