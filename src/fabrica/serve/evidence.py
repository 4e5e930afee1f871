"""Search over a corpus' texts whose every hit is a receipt: record, place in the text, hash, source, licence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fabrica.errors import Refused, UsageError
from fabrica.safe import sha256
from fabrica.types import Absent, Embedder, Record

if TYPE_CHECKING:
    from fabrica.corpus import Corpus
    from fabrica.retrieve import Retriever

_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+(?=\s|$)|\n|$)|[^.!?\n]+")
MOST = 200_000  # texts of an index that is held in memory


@dataclass(frozen=True, slots=True)
class Receipt:
    """One hit. `text` is what stands at characters `start` to `end` of the item's text, whose UTF-8 has `sha256`;
    `corpus_version` is the state that was searched. Anyone with the corpus can check it: see `verify`."""

    record: str
    role: str
    index: int
    start: int
    end: int
    text: str
    sha256: str
    source: str
    licence: str
    score: float
    corpus_version: int


class Evidence:
    """An index over the texts that may be shown (rights `share` "full"), made when it is opened.

    BM25, joined with a dense search by reciprocal ranks where an `embed` is given. A corpus that has grown is read
    again at the next search.
    """

    def __init__(self, corpus: Corpus, embed: Embedder | None = None, *, most: int = MOST) -> None:
        self.corpus, self.embed, self.most = corpus, embed, most
        self._version = -1
        self.withheld = 0
        self._open()

    def _open(self) -> None:
        from fabrica.retrieve.bm25 import BM25
        from fabrica.retrieve.dense import Dense

        self.texts: dict[str, str] = {}
        self.places: dict[str, tuple[str, str, int]] = {}
        self.withheld = 0
        for record in self.corpus.scan():
            self._add(record)
        self._version = self.corpus.version
        self.indices: list[Retriever] = [] if not self.texts else [BM25(self.texts)]
        if self.texts and self.embed is not None:
            self.indices.append(Dense(self.texts, self.embed))

    def _add(self, record: Record) -> None:
        for role, items in record.items.items():
            for i, item in enumerate(items):
                if item.kind != "text" or isinstance(item.value, Absent) or not str(item.value).strip():
                    continue
                if record.rights.share != "full":
                    self.withheld += 1
                    continue
                if len(self.texts) == self.most:
                    raise Refused("corpus_too_large", f"more than {self.most:,} texts; search a part of the corpus")
                key = f"{record.id}\x1f{role}\x1f{i}"
                self.texts[key], self.places[key] = item.text(), (record.id, role, i)

    def search(self, query: str, k: int = 10, *, where: str | None = None) -> list[Receipt]:
        """The `k` best texts, each shown by the sentence that shares most words with the query; `where` filters by SQL
        on the corpus' columns."""
        from fabrica.retrieve.fuse import rrf

        self.corpus.refresh()
        if self.corpus.version != self._version:
            self._open()
        if not self.indices:
            return []
        allowed = None if where is None else set(self.corpus.ids(where))
        out = [key for key, place in self.places.items() if allowed is not None and place[0] not in allowed]
        runs = [index.search({"q": query}, max(k, 50), exclude={"q": out}) for index in self.indices]
        run = runs[0] if len(runs) == 1 else rrf(runs, max(k, 50))
        found = run.found("q")[:k]
        records = {r.id: r for r in self.corpus.take(list(dict.fromkeys(self.places[key][0] for key, _ in found)))}
        return [self._receipt(key, score, records, query) for key, score in found]

    def _receipt(self, key: str, score: float, records: dict[str, Record], query: str) -> Receipt:
        name, role, i = self.places[key]
        return _of_item(records[name], role, i, score, query, self._version)


def receipts(
    corpus: Corpus, found: Sequence[tuple[str, float]], query: str, *, roles: tuple[str, ...] = ("report",)
) -> list[Receipt]:
    """The receipts of records that another index found in this corpus (id, score): of the first text of `roles` of
    each, in the same order. A record that may not be shown has none."""
    version = corpus.version
    records = {r.id: r for r in corpus.take([id_ for id_, _ in found])} if found else {}
    made = []
    for id_, score in found:
        record = records[id_]
        place = next(
            (
                (role, i)
                for want in roles
                for role, items in record.items.items()
                if role == want or role.startswith(want + "/")
                for i, item in enumerate(items)
                if item.present and item.kind == "text"
            ),
            None,
        )
        if place is not None and record.rights.share == "full":
            made.append(_of_item(record, *place, score, query, version))
    return made


def _of_item(record: Record, role: str, i: int, score: float, query: str, version: int) -> Receipt:
    item = record.items[role][i]
    start, end = best_sentence(item.text(), query)
    return Receipt(
        record.id, role, i, start, end, item.text()[start:end], sha256(item.text().encode()), item.origin.source,
        record.rights.licence or item.origin.licence, round(score, 6), version,
    )  # fmt: skip


def verify(corpus: Corpus, receipt: Receipt) -> bool:
    """Whether the corpus holds what a receipt says, letter by letter.

    Raises `UsageError` where the record is not there (erased, or another corpus).
    """
    try:
        (record,) = corpus.take([receipt.record])
    except (UsageError, ValueError) as error:
        raise UsageError(f"record {receipt.record} is not in this corpus") from error
    items = record.items.get(receipt.role, ())
    if receipt.index >= len(items) or not items[receipt.index].present or items[receipt.index].kind != "text":
        return False
    text = items[receipt.index].text()
    return sha256(text.encode()) == receipt.sha256 and text[receipt.start : receipt.end] == receipt.text


def best_sentence(text: str, query: str) -> tuple[int, int]:
    """(start, end) of the sentence that shares most of the query's words; the first among equals.

    >>> said = "Heart size is normal. There is a small left effusion."
    >>> start, end = best_sentence(said, "effusion on the left")
    >>> said[start:end]
    'There is a small left effusion.'
    """
    from fabrica.retrieve.words import words

    wanted = set(words(query))
    spans = _spans(text)
    return max(spans, key=lambda s: (len(wanted & set(words(text[s[0] : s[1]]))), -s[0]))


def _spans(text: str) -> Sequence[tuple[int, int]]:
    made = []
    for match in _SENTENCE.finditer(text):
        said = match.group()
        start = match.start() + len(said) - len(said.lstrip())
        end = match.end() - (len(said) - len(said.rstrip()))
        if end > start:
            made.append((start, end))
    return made or [(0, len(text))]
