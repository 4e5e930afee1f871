"""A span graph net with its windows, words and card: texts in, graphs that keep the schema out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica import safe
from fabrica.encode.spans import PIECES, SpanCollate, pieces_of
from fabrica.errors import UsageError, unknown
from fabrica.models.bundle import CARD, COLLATE, Bundle, Progress, Rows, _chunks, evaluating, to_device
from fabrica.models.multi import CONFIG, WEIGHTS
from fabrica.models.span_decode import decoded, join, pairs_allowed
from fabrica.models.spans import SpanGraphNet, SpanScores
from fabrica.text.graph import TextGraph
from fabrica.types import Record


class SpanBundle(Bundle):
    """`model`, `collate` and `card`; called with texts it is an extractor (`text.graph.Extractor`), as the perceptron
    is. `embed` gives the mean of a report's word states (B, D)."""

    version = "1"
    model: SpanGraphNet  # type: ignore[assignment]
    collate: SpanCollate

    def __init__(self, model: SpanGraphNet, collate: SpanCollate, card: Mapping[str, Any] | None = None) -> None:
        self.model, self.collate, self.card = model, collate, dict(card or {})
        if collate.schema.to_json() != model.schema.to_json() or collate.width != model.width:
            raise UsageError("model and collate have different schemas or widths of spans")
        if collate.field != model.field:
            raise UsageError(f"the model reads field {model.field!r}, the collate gives {collate.field!r}")
        model.encoder.check(collate.words.shape, collate.words.size)
        most = getattr(model.encoder, "length", None)
        if most is not None and collate.words.length > most:
            raise UsageError(f"windows have up to {collate.words.length} tokens, the encoder {most} positions")

    @property
    def fields(self) -> tuple[str, ...]:
        """The text field."""
        return (self.collate.field,)

    @property
    def name(self) -> str:
        """System and the hash of its weights."""
        return f"{self.card.get('system', 'span-graph')}:{self.fingerprint[:12]}"

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str = "cpu", allow_network: bool = False) -> SpanBundle:
        """From a folder that `save_pretrained` wrote."""
        folder = Path(source)
        for name in (CONFIG, WEIGHTS, COLLATE):
            if not (folder / name).is_file():
                raise UsageError(f"{str(source)!r} has no {name}; wanted a folder that `save_pretrained` wrote")
        model = SpanGraphNet.of_files(folder / CONFIG, folder / WEIGHTS, device)
        collate = SpanCollate.from_json(json.loads(safe.read_bytes(folder / COLLATE)))
        card = json.loads(safe.read_bytes(folder / CARD)) if (folder / CARD).is_file() else {}
        return cls(model, collate, card)

    def embed(
        self, records: Iterable[Record], field: str, *, batch: int = 64, progress: Progress | None = None,
        unit: bool = True, **options: Any,
    ) -> Rows:  # fmt: skip
        """ids [n], the mean of a report's word states (n, D) float32 (zero where it is absent), present (n,)."""
        if field not in self.fields:
            raise unknown("field", field, self.fields)
        ids: list[str] = []
        parts: list[NDArray[np.float32]] = []
        here: list[NDArray[np.bool_]] = []
        for chunk in _chunks(records, batch):
            read = [self.collate.rows(r) for r in chunk]
            made = self._scores(read)
            count = max(1, *map(len, read))
            there = made.there.float()
            total = (made.words * there[..., None]).sum(1).reshape(len(chunk), count, -1).sum(1)
            share = there.sum(1).reshape(len(chunk), count).sum(1)
            parts.append((total / share.clamp(min=1)[:, None]).float().cpu().numpy())
            here.append(np.array([r.first(*self.collate.fields[field].roles) is not None for r in chunk]))
            ids += [r.id for r in chunk]
            if progress is not None:
                progress(len(ids), None, f"embed {field}")
        rows = np.concatenate(parts) if parts else np.zeros((0, self.model.encoder.width), np.float32)
        if unit:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return ids, rows.astype(np.float32), np.concatenate(here) if here else np.zeros(0, bool)

    def _scores(self, rows: Sequence[Sequence[Any]]) -> SpanScores:
        """All windows of reports through the net, in evaluation mode."""
        device = next(self.model.parameters()).device
        given, words = (to_device(f, device) for f in pieces_of(rows, self.collate.words.pad))
        with evaluating(self.model):
            made: SpanScores = self.model({self.collate.field: given, PIECES: words})
        return made

    def __call__(self, texts: Sequence[str], /, *, batch: int = 32) -> list[TextGraph]:
        """The graph of each text, in order. Sections that the collate skips give nothing."""
        out: list[TextGraph] = []
        for start in range(0, len(texts), batch):
            some = texts[start : start + batch]
            rows = [self.collate.read(t) for t in some]
            out += self._graphs(some, rows)
        return out

    def _graphs(self, texts: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[TextGraph]:
        made = self._scores(rows)
        row, first, size = (made.spans[:, k].cpu().numpy() for k in range(3))
        labels, relations = made.labels.float().cpu().numpy(), made.relations.float().cpu().numpy()
        pairs, count = made.pairs.cpu().numpy(), max(1, *map(len, rows))
        of_pair = row[pairs[:, 0]] if len(pairs) else np.zeros(0, np.int64)
        out = []
        for b, text in enumerate(texts):
            reads = []
            for n, one in enumerate(rows[b]):
                mine = np.flatnonzero(row == b * count + n)
                entities = decoded(first[mine], first[mine] + size[mine], labels[mine])
                place = {(e.first, e.last): i for i, e in enumerate(entities)}
                at = np.full(len(row), -1)
                at[mine] = [place.get((int(first[m]), int(first[m] + size[m])), -1) for m in mine]
                some = np.flatnonzero(of_pair == b * count + n)
                h, t = (at[pairs[some, k]] for k in (0, 1))
                both = (h >= 0) & (t >= 0)
                told = pairs_allowed(entities, h[both], t[both], relations[some[both]], self.model.schema)
                reads.append((one.window, entities, told))
            out.append(join(text, reads, self.model.schema))
        return out
