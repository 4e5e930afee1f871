"""Reports and their graphs as windows of words for span models: what is read, what is known, what is lost by it.

The nouns (`Span`, `Relation`, `TextGraph`, `Schema`, `RADGRAPH`) and the JSON form stand in `fabrica.text`, which
earlier rooms use as well, and are given here again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fabrica.encode.collate import Collate
from fabrica.encode.text import TextEncode
from fabrica.errors import UsageError
from fabrica.text.assertions import sentences
from fabrica.text.graph import (
    RADGRAPH,
    ROLE,
    Cut,
    Extractor,
    Relation,
    Schema,
    Span,
    TextGraph,
    from_item,
    lower,
    to_item,
    words,
)  # fmt: skip
from fabrica.text.radgraph import from_radgraph_json, to_radgraph_json
from fabrica.text.sections import SKIPPED, told
from fabrica.types import Batch, Field, Item, Record

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "RADGRAPH", "Extractor", "Relation", "Schema", "Span", "SpanCollate", "TextGraph", "Window", "from_radgraph_json",
    "gold", "to_radgraph_json", "windows",
]  # fmt: skip
How = Literal["sentence", "report"]
PIECES, SPANS, RELATIONS = "pieces", "spans", "relations"


@dataclass(frozen=True, slots=True)
class Window:
    """Words that are read together: their places in the text."""

    words: tuple[Cut, ...]

    @property
    def start(self) -> int:
        """The first character."""
        return self.words[0][0]

    @property
    def end(self) -> int:
        """The end of the last character."""
        return self.words[-1][1]

    def text(self, text: str) -> str:
        """Its part of the text."""
        return text[self.start : self.end]


def windows(text: str, how: How = "sentence", *, skip: Sequence[str] = SKIPPED) -> list[Window]:
    """One window a sentence or a section, in order; sections of `skip` (the indication, what was done) are not read.

    >>> text = "INDICATION: rule out mass. FINDINGS: No  effusion. Clear."
    >>> [w.text(text) for w in windows(text)], [w.text(text) for w in windows(text, "report")]
    (['No  effusion.', 'Clear.'], ['No  effusion. Clear.'])
    """
    if how not in ("sentence", "report"):
        raise UsageError(f"window {how!r} is none of sentence, report")
    out = []
    for start, end in told(text, skip):
        part = text[start:end]
        for a, b in sentences(lower(part)) if how == "sentence" else [(0, len(part))]:
            if cuts := words(part[a:b]):
                out.append(Window(tuple((start + a + x, start + a + y) for x, y in cuts)))
    return out


class Gold(NamedTuple):
    """What a window knows: spans (first word, last word, label) and relations (span, span, label) by number."""

    spans: list[tuple[int, int, str]]
    relations: list[tuple[int, int, str]]


def gold(graph: TextGraph, window: Window) -> Gold:
    """The graph's spans that are whole words of the window, and the relations between them."""
    first = {a: i for i, (a, _) in enumerate(window.words)}
    last = {b: i for i, (_, b) in enumerate(window.words)}
    number: dict[int, int] = {}
    spans: list[tuple[int, int, str]] = []
    for i, s in enumerate(graph.spans):
        if s.start in first and s.end in last:
            number[i] = len(spans)
            spans.append((first[s.start], last[s.end], s.label))
    kept = [(number[r.head], number[r.tail], r.label) for r in graph.relations if r.head in number and r.tail in number]
    return Gold(spans, kept)


class _Row(NamedTuple):
    """A window as a model reads it: piece ids, the word of each piece (-1 none), the window, what is known of it."""

    ids: NDArray[np.int64]
    word: NDArray[np.int64]
    window: Window
    gold: Gold | None


@dataclass(frozen=True, slots=True)
class SpanCollate(Collate):
    """A `Collate` of one text field with span targets; every window of a report is one of its N items.

    Beside the text field there is a field "pieces" (B, N, L): the word that each piece belongs to, -1 for none.
    Targets: "spans" (B, N, T, W) label numbers, 0 = none, of the span from word t of w + 1 words, known where the
    window has them; "relations" (B, N, P, 3) (head, tail, label), head and tail as t * W + w, known where there is one.
    A record without a graph (`graph_role`), or without the text, teaches nothing: nothing is known.

    A window longer than the encoding's `length` is cut into several: no word is lost, relations between them are.
    """

    schema: Schema = RADGRAPH
    width: int = 12
    window: How = "sentence"
    skip: tuple[str, ...] = SKIPPED
    graph_role: str = f"{ROLE}/report"

    def __post_init__(self) -> None:
        Collate.__post_init__(self)
        if len(self.fields) != 1 or self.width < 1 or not isinstance(self.words, TextEncode):
            raise UsageError(f"spans want one text field and width >= 1; got {list(self.fields)} and {self.width}")

    @property
    def field(self) -> str:
        """The text field."""
        return next(iter(self.fields))

    @property
    def words(self) -> TextEncode:
        """How text becomes pieces."""
        encode = self.fields[self.field].encode
        assert isinstance(encode, TextEncode)
        return encode

    def __call__(self, records: Sequence[Record], epoch: int = 0) -> Batch:
        import torch

        batch = Collate.__call__(self, records, epoch)
        rows = [self.rows(r) for r in records]
        pieces, words = pieces_of(rows, self.words.pad)
        targets, known = self._targets(rows)
        return replace(
            batch, fields={self.field: pieces, PIECES: words},
            targets={k: torch.from_numpy(v) for k, v in targets.items()},
            known={k: torch.from_numpy(v) for k, v in known.items()},
        )  # fmt: skip

    def rows(self, record: Record) -> list[_Row]:
        """The windows of a record's text, with its graph where it has one."""
        item = record.first(*self.fields[self.field].roles)
        if item is None:
            return []
        marked = record.first(self.graph_role)
        graph = None if marked is None else self.schema.check(from_item(marked, item.text()), record.id)
        return self.read(item.text(), graph)

    def read(self, text: str, graph: TextGraph | None = None) -> list[_Row]:
        """The windows of a text."""
        out = []
        for window in windows(text, self.window, skip=self.skip):
            for ids, word, part in self._cut(text, window):
                out.append(_Row(ids, word, part, None if graph is None else gold(graph, part)))
        return out

    def _cut(self, text: str, window: Window) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Window]]:
        """Piece ids and their words; halves of a window that is too long."""
        made = self.words.tokenizer.encode(window.text(text))
        if len(made.ids) > self.words.length and len(window.words) > 1:
            half = len(window.words) // 2
            for part in (window.words[:half], window.words[half:]):
                yield from self._cut(text, Window(part))
            return
        ids = np.asarray(made.ids[: self.words.length], np.int64)
        starts = np.array([a - window.start for a, _ in window.words])
        last = np.array([max(b - 1, 0) for _, b in made.offsets])[: len(ids)]
        special = np.asarray(made.special_tokens_mask, bool)[: len(ids)]
        word = np.searchsorted(starts, last, side="right") - 1
        yield ids, np.where(special, -1, word), window

    def _targets(self, rows: Sequence[Sequence[_Row]]) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        count = max(1, *map(len, rows)) if rows else 1
        each = [r for row in rows for r in row]
        longest = max((len(r.window.words) for r in each), default=1)
        pairs = max((len(r.gold.relations) for r in each if r.gold is not None), default=1) or 1
        spans = np.zeros((len(rows), count, longest, self.width), np.int64)
        relations = np.zeros((len(rows), count, pairs, 3), np.int64)
        here, some = np.zeros(spans.shape, bool), np.zeros(relations.shape[:3], bool)
        label = {name: i + 1 for i, name in enumerate(self.schema.labels)}
        kind = {name: i + 1 for i, name in enumerate(self.schema.names)}
        for b, row in enumerate(rows):
            for n, one in enumerate(row):
                if one.gold is None:
                    continue
                size = len(one.window.words)
                here[b, n, :size] = np.add.outer(np.arange(size), np.arange(self.width)) < size
                fits = [q - p < self.width for p, q, _ in one.gold.spans]
                for p, q, name in one.gold.spans:
                    if q - p < self.width:
                        spans[b, n, p, q - p] = label[name]
                at = [p * self.width + q - p for p, q, _ in one.gold.spans]
                told_ = [(at[h], at[t], kind[name]) for h, t, name in one.gold.relations if fits[h] and fits[t]]
                for j, triple in enumerate(told_):
                    relations[b, n, j], some[b, n, j] = triple, True
        return {SPANS: spans, RELATIONS: relations}, {SPANS: here, RELATIONS: some}

    def only(self, *names: str) -> SpanCollate:
        """The same: there is one field."""
        if any(n != self.field for n in names):
            raise UsageError(f"no field {names[0]!r}; there is {self.field}")
        return self

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON."""
        return {
            **Collate.to_json(self), "schema": self.schema.to_json(), "width": self.width, "window": self.window,
            "skip": list(self.skip), "graph_role": self.graph_role,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Any) -> SpanCollate:
        """The inverse of `to_json`."""
        plain = Collate.from_json(data)
        return cls(
            plain.fields, plain.targets, plain.keys, plain.seed, schema=Schema.from_json(data["schema"]),
            width=data["width"], window=data["window"], skip=tuple(data["skip"]), graph_role=data["graph_role"],
        )  # fmt: skip


def pieces_of(rows: Sequence[Sequence[_Row]], fill: int) -> tuple[Field, Field]:
    """Piece ids and their words as two fields (B, N, L)."""
    import torch

    count = max(1, *map(len, rows)) if rows else 1
    longest = max((len(r.ids) for row in rows for r in row), default=1)
    ids = np.full((len(rows), count, longest), fill, np.int64)
    word, mask = np.full(ids.shape, -1, np.int64), np.zeros(ids.shape, bool)
    valid = np.zeros((len(rows), count), bool)
    for b, row in enumerate(rows):
        for n, one in enumerate(row):
            size = len(one.ids)
            ids[b, n, :size], word[b, n, :size], mask[b, n, :size], valid[b, n] = one.ids, one.word, True, True
    masks: Tensor = torch.from_numpy(mask)
    told_ = torch.from_numpy(valid)
    return Field(torch.from_numpy(ids), told_, mask=masks), Field(torch.from_numpy(word), told_, mask=masks)


def marked(record: Record, graph: TextGraph, *, role: str = f"{ROLE}/report") -> Record:
    """The record with a graph beside its text; who made it is the graph's origin, here the text's own."""
    item = record.first("report")
    if item is None:
        raise UsageError(f"record {record.id!r} has no report to mark")
    made: Item = to_item(graph, item.origin)
    return record.updated(items={**record.items, role: (made,)})
