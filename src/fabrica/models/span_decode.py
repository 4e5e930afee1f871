"""From scores to a graph that keeps its schema: spans that do not overlap, relations between labels that may have them.

What the span graph net and the perceptron share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fabrica.encode.spans import Window
from fabrica.text.graph import Relation, Schema, Span, TextGraph

I64 = NDArray[np.int64]
Read = tuple[Window, list["Entity"], list[tuple[int, int, int]]]  # entities; (head, tail, relation from 1)


class Entity(NamedTuple):
    """First and last word of a window, and the number of the label, from 1."""

    first: int
    last: int
    label: int


def decoded(first: I64, last: I64, scores: NDArray[Any]) -> list[Entity]:
    """Spans (n,) whose best class of `scores` (n, classes) is not 0; of those that overlap the surer one stays (by the
    lead over class 0; the earlier, then the shorter where equal). In order of place.

    >>> decoded(np.array([0, 0]), np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 2.0]]))
    [Entity(first=0, last=1, label=1)]
    """
    best = scores.argmax(1)
    lead = scores[np.arange(len(scores)), best] - scores[:, 0]
    some = np.flatnonzero(best > 0)
    order = some[np.lexsort((last[some] - first[some], first[some], -lead[some]))]
    taken = np.zeros(int(last.max(initial=0)) + 1, bool)
    out = []
    for i in order.tolist():
        a, b = int(first[i]), int(last[i])
        if not taken[a : b + 1].any():
            taken[a : b + 1] = True
            out.append(Entity(a, b, int(best[i])))
    return sorted(out)


def pairs_allowed(
    entities: Sequence[Entity], heads: I64, tails: I64, scores: NDArray[Any], schema: Schema
) -> list[tuple[int, int, int]]:
    """(head, tail, relation from 1) of pairs (n,) whose best class of `scores` (n, relations + 1), of 0 and those that
    the schema allows for the labels, is not 0. Where both directions of a pair have one, the surer stays."""
    allowed = _allowed(schema)
    label = np.array([e.label for e in entities], np.int64)
    kept = np.where(allowed[label[heads], label[tails]], scores, -np.inf)
    best = kept.argmax(1)
    lead = kept[np.arange(len(kept)), best] - scores[:, 0]
    found: dict[tuple[int, int], tuple[float, int, int, int]] = {}
    for i in np.flatnonzero(best > 0).tolist():
        h, t = int(heads[i]), int(tails[i])
        pair = (min(h, t), max(h, t))
        if pair not in found or lead[i] > found[pair][0]:
            found[pair] = (float(lead[i]), h, t, int(best[i]))
    return sorted((h, t, r) for _, h, t, r in found.values())


def _allowed(schema: Schema) -> NDArray[np.bool_]:
    """(labels + 1, labels + 1, relations + 1): which relation may join which labels; none always may."""
    n = len(schema.labels) + 1
    out = np.zeros((n, n, len(schema.names) + 1), bool)
    out[:, :, 0] = True
    number = {name: i + 1 for i, name in enumerate(schema.labels)}
    for k, name in enumerate(schema.names):
        for a, b in schema.relations[name]:
            out[number[a], number[b], k + 1] = True
    return out


def join(text: str, reads: Sequence[Read], schema: Schema) -> TextGraph:
    """The graph of a text whose windows were read; it keeps the schema, or this raises."""
    spans: list[Span] = []
    relations: list[Relation] = []
    for window, entities, told in reads:
        start = len(spans)
        spans += [Span(window.words[a][0], window.words[b][1], schema.labels[k - 1]) for a, b, k in entities]
        relations += [Relation(start + h, start + t, schema.names[k - 1]) for h, t, k in told]
    return schema.check(TextGraph(text, tuple(spans), tuple(relations)))
