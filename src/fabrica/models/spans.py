"""Span graph net: all spans of a window scored, the best kept, all ordered pairs of those scored (DyGIE++ without graph
propagation; Wadden et al. 2019, arXiv 1909.03546, as RadGraph uses it, arXiv 2106.14463)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fabrica.encode.spans import PIECES
from fabrica.errors import UsageError
from fabrica.models.body import Body, body_from_json
from fabrica.text.graph import RADGRAPH, Schema
from fabrica.types import Field

_FORMAT = 1


class SpanScores(NamedTuple):
    """`spans` (S, 3): window row, first word, words - 1 of each enumerated span; `labels` (S, labels + 1) logits, class
    0 none; `mention` (S,) how likely it is kept; `pairs` (P, 2) numbers of kept spans, both orders of each two of a
    window; `relations` (P, relations + 1) logits, class 0 none and fixed at 0; `words` (R, T, D) states, `there`
    (R, T) which have a piece."""

    spans: Tensor
    labels: Tensor
    mention: Tensor
    pairs: Tensor
    relations: Tensor
    words: Tensor
    there: Tensor


class SpanGraphNet(nn.Module):
    """Pieces through `encoder`, their mean a word h; span g = [h_first; h_last; width embedding]; two-layer nets of
    `hidden` score labels, mentions and, on [g_s; g_t; g_s * g_t], relations, to which both mention scores are added.

    `width`: the most words of a span. `keep`: the share of a window's words that is kept as spans for pairs. `field` is
    the batch's text field; a batch also holds "pieces" (`encode.spans.SpanCollate`).
    """

    def __init__(
        self, encoder: Body, *, schema: Schema = RADGRAPH, width: int = 12, keep: float = 0.5, hidden: int = 150,
        width_dim: int = 20, dropout: float = 0.4, field: str = "report",
    ) -> None:  # fmt: skip
        super().__init__()
        if encoder.reads != "tokens":
            raise UsageError(f"a span graph net reads text; its encoder reads {encoder.reads!r}")
        if width < 1 or not 0 < keep <= 1:
            raise UsageError(f"width {width} and keep {keep}; wanted at least one word, and a share in (0, 1]")
        self.encoder, self.schema, self.field = encoder, schema, field
        self.width, self.keep, self.hidden, self.width_dim, self.dropout = width, keep, hidden, width_dim, dropout
        self.widths = nn.Embedding(width, width_dim)
        size = 2 * encoder.width + width_dim
        self.label = _scorer(size, hidden, dropout, len(schema.labels) + 1)
        self.mention = _scorer(size, hidden, dropout, 1)
        self.relation = _scorer(3 * size, hidden, dropout, len(schema.names))

    def forward(self, fields: Mapping[str, Field]) -> SpanScores:
        """Scores of all windows of a batch; rows are the B x N windows in order."""
        given, pieces = fields[self.field], fields[PIECES]
        if given.mask is None:
            raise UsageError(f"field {self.field!r} has no mask; a `SpanCollate` makes it")
        ids, mask = given.values.flatten(0, 1), given.mask.flatten(0, 1)
        word = pieces.values.flatten(0, 1)
        states, there = self.words(ids, mask, word, given.valid.flatten())
        spans = self._spans(there)
        return self._scored(states, there, spans)

    def words(self, ids: Tensor, mask: Tensor, word: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Pieces (R, L), their mask and words -> states (R, T, D) of words, the mean of their pieces; (R, T) which have
        one. Rows that are not `valid` (R,) do not run."""
        count = int(word.max().clamp(min=-1)) + 1 if word.numel() else 0
        states = torch.zeros(len(ids), max(count, 1), self.encoder.width, device=ids.device)
        share = torch.zeros(len(ids), max(count, 1), device=ids.device)
        rows = valid.nonzero().squeeze(1)
        if len(rows):
            out = self.encoder(ids[rows], mask[rows]).values.to(states.dtype)
            at = word[rows]
            row, piece = (at >= 0).nonzero(as_tuple=True)
            where = rows[row], at[row, piece]
            states = states.index_put(where, out[row, piece], accumulate=True)
            share = share.index_put(where, torch.ones(len(row), device=ids.device), accumulate=True)
        return states / share.clamp(min=1)[..., None], share > 0

    def _spans(self, there: Tensor) -> Tensor:
        """(S, 3): every span of at most `width` words whose first and last word have a piece."""
        count = there.shape[1]
        first = torch.arange(count, device=there.device)
        last = first[:, None] + torch.arange(self.width, device=there.device)
        inside = last < count
        ends = there[:, last.clamp(max=count - 1)] & inside
        found: Tensor = (ends & there[:, :, None]).nonzero()
        return found

    def _scored(self, states: Tensor, there: Tensor, spans: Tensor) -> SpanScores:
        row, first, size = spans.unbind(1)
        g = torch.cat([states[row, first], states[row, first + size], self.widths(size)], 1)
        mention = self.mention(g).squeeze(1)
        pairs = self._pairs(row, mention.detach(), there.sum(1))
        s, t = g[pairs[:, 0]], g[pairs[:, 1]]
        scores = self.relation(torch.cat([s, t, s * t], 1)) + (mention[pairs[:, 0]] + mention[pairs[:, 1]])[:, None]
        relations = torch.cat([scores.new_zeros(len(scores), 1), scores], 1)
        return SpanScores(spans, self.label(g), mention, pairs, relations, states, there)

    def _pairs(self, row: Tensor, mention: Tensor, sizes: Tensor) -> Tensor:
        """(P, 2) both orders of each two of the ceil(keep x words) likeliest mentions of a window."""
        made = [torch.zeros(0, 2, dtype=torch.long, device=row.device)]
        starts = torch.searchsorted(row, torch.arange(len(sizes) + 1, device=row.device)).tolist()
        for n, size in enumerate(sizes.tolist()):
            a, b = starts[n], starts[n + 1]
            kept = min(math.ceil(self.keep * size), b - a)
            if kept > 1:
                best = mention[a:b].topk(kept).indices.sort().values + a
                both = torch.cartesian_prod(best, best)
                made.append(both[both[:, 0] != both[:, 1]])
        return torch.cat(made)

    def to_json(self) -> dict[str, Any]:
        """The architecture as plain JSON."""
        names = ("width", "keep", "hidden", "width_dim", "dropout", "field")
        return {
            "format": _FORMAT, "library": "fabrica", "span_graph": {n: getattr(self, n) for n in names},
            "schema": self.schema.to_json(), "encoder": self.encoder.to_json(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SpanGraphNet:
        """The inverse of `to_json`, with random weights."""
        if "span_graph" not in data or data.get("format") != _FORMAT:
            raise UsageError("config.json describes no span graph net: it is another family's")
        return cls(body_from_json(data["encoder"]), schema=Schema.from_json(data["schema"]), **data["span_graph"])

    @classmethod
    def of_files(cls, config: Path, weights: Path, device: str = "cpu") -> SpanGraphNet:
        """The model of a config.json and a model.safetensors, in evaluation mode."""
        from fabrica import safe
        from fabrica.models.weights import fill

        model = cls.from_json(json.loads(safe.read_bytes(config)))
        fill(model.state_dict(), safe.weights(weights), weights)
        return model.to(device).eval()

    def _save_pretrained(self, folder: Path) -> None:
        """config.json and model.safetensors."""
        from fabrica.models.multi import CONFIG, WEIGHTS
        from fabrica.models.weights import save_weights

        save_weights(self.state_dict(), folder / WEIGHTS, {})
        (folder / CONFIG).write_text(json.dumps(self.to_json(), indent=1) + "\n", "utf-8")


def _scorer(size: int, hidden: int, dropout: float, out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(size, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Dropout(dropout), nn.Linear(hidden, out),
    )  # fmt: skip
