"""Scores of text graphs: entities and relations by exact match, the graph reward between two reports, agreement.

Rows of counts (hit, said, true) a report feed the shared bootstrap; a micro F1 is 2 hit / (said + true).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fabrica.errors import Leak, UsageError
from fabrica.evaluate.bootstrap import Interval, interval
from fabrica.text.graph import ROLE, TextGraph, clauses, from_item, lower, words
from fabrica.types import Record

Level = Literal["simple", "partial", "complete"]
Empty = Literal["zero", "one", "skip"]
Counts = NDArray[np.float64]  # (n, 3): hit, said, true


@dataclass(frozen=True, slots=True)
class F1:
    """Micro precision, recall and F1 of `hit` right ones among `said` and `true`; 0 where nothing was said or true."""

    precision: float
    recall: float
    f1: float
    hit: int
    said: int
    true: int


def _entities(graph: TextGraph) -> set[Any]:
    return {(s.start, s.end, s.label) for s in graph.spans}


def _relations(graph: TextGraph) -> set[Any]:
    at = [(s.start, s.end) for s in graph.spans]
    return {(at[r.head], at[r.tail], r.label) for r in graph.relations}


def counts(said: Sequence[TextGraph], true: Sequence[TextGraph], what: Literal["entity", "relation"]) -> Counts:
    """(n, 3) hit, said and true of each report. An entity is right with its exact boundaries and label, a relation
    with the exact boundaries of both its spans and its type; labels of the spans are not asked (Jain et al. 2021)."""
    if len(said) != len(true):
        raise UsageError(f"{len(said)} graphs and {len(true)} references; wanted one of each a report")
    members: Callable[[TextGraph], set[Any]] = {"entity": _entities, "relation": _relations}[what]
    rows = []
    for i, (a, b) in enumerate(zip(said, true, strict=True)):
        if a.text != b.text:
            raise UsageError(f"graph {i} and its reference mark different texts")
        x, y = members(a), members(b)
        rows.append((len(x & y), len(x), len(y)))
    return np.asarray(rows, np.float64).reshape(-1, 3)


def micro(rows: Counts) -> F1:
    """The micro F1 of counts.

    >>> micro(np.array([[1.0, 2.0, 1.0], [1.0, 1.0, 2.0]]))
    F1(precision=0.6666666666666666, recall=0.6666666666666666, f1=0.6666666666666666, hit=2, said=3, true=3)
    """
    hit, said, true = (int(v) for v in rows.sum(0))
    return F1(hit / said if said else 0.0, hit / true if true else 0.0, _f1(hit, said, true), hit, said, true)


def _f1(hit: float, said: float, true: float) -> float:
    return 2 * hit / (said + true) if said + true else 0.0


def entity_f1(said: Sequence[TextGraph], true: Sequence[TextGraph]) -> F1:
    """Micro F1 of entities: exact boundaries and label."""
    return micro(counts(said, true, "entity"))


def relation_f1(said: Sequence[TextGraph], true: Sequence[TextGraph]) -> F1:
    """Micro F1 of relations: exact boundaries of both spans and type."""
    return micro(counts(said, true, "relation"))


def weighted_f1(columns: Any, weights: Any) -> Any:
    """Micro F1 of columns "hit", "said", "true" for the shared bootstrap: of all rows, or of each row of weights."""
    hit, said, true = (np.asarray(columns[k], np.float64) for k in ("hit", "said", "true"))
    if weights is None:
        return _f1(hit.sum(), said.sum(), true.sum())
    below = weights @ (said + true)
    return np.divide(2 * (weights @ hit), below, out=np.zeros(len(weights)), where=below > 0)


def columns(rows: Counts) -> dict[str, NDArray[np.float64]]:
    """Counts as the bootstrap's columns."""
    return {"hit": rows[:, 0], "said": rows[:, 1], "true": rows[:, 2]}


def f1_interval(rows: Counts, subjects: ArrayLike, **options: Any) -> Interval:
    """A micro F1 with its interval by subject."""
    return interval(weighted_f1, columns(rows), subjects, **options)


# ---------------------------------------------------------------- the reward


@dataclass(frozen=True, slots=True)
class Reward:
    """Precision, recall and F1 of a hypothesis' members among a reference's."""

    precision: float
    recall: float
    f1: float


def members(graph: TextGraph, level: Level = "partial", *, case: bool = False) -> frozenset[tuple[Any, ...]]:
    """What of a graph is compared. Words count as their tokens (`text.graph.words`) joined by blanks, in lower case
    unless `case`; a finding that is repeated counts once, for this is a set (Delbrouck et al. 2022).

    "simple": (tokens, label). "partial": the same, with True behind it where the entity has an outgoing relation.
    "complete": simple and (tokens, label, relation, tokens, label).
    """
    if level not in ("simple", "partial", "complete"):
        raise UsageError(f"level {level!r} is none of simple, partial, complete")

    def said(i: int) -> tuple[str, str]:
        phrase = graph.phrase(i) if case else lower(graph.phrase(i))
        return " ".join(phrase[a:b] for a, b in words(phrase)), graph.spans[i].label

    out: set[tuple[Any, ...]] = set()
    for i, starting in clauses(graph):
        out.add((*said(i), True) if level == "partial" and starting else said(i))
        if level == "complete":
            out |= {(*said(i), r.label, *said(r.tail)) for r in starting}
    return frozenset(out)


def graph_reward(
    hypothesis: TextGraph, reference: TextGraph, *, level: Level = "partial", empty: Empty = "zero", case: bool = False
) -> Reward | None:
    """How much of the reference's facts the hypothesis says, and the other way round: F1 of exact members.

    Precision and recall change places with the arguments, F1 does not. Where one graph has no entity the reward is 0;
    where neither has, `empty` says: "zero" (as the reference code does), "one", or "skip" (None: no row).
    """
    if empty not in ("zero", "one", "skip"):
        raise UsageError(f"empty {empty!r} is none of zero, one, skip")
    said, true = members(hypothesis, level, case=case), members(reference, level, case=case)
    if not said and not true:
        return None if empty == "skip" else Reward(*[float(empty == "one")] * 3)
    hit = len(said & true)
    return Reward(hit / len(said) if said else 0.0, hit / len(true) if true else 0.0, _f1(hit, len(said), len(true)))


def rewards(
    hypotheses: Sequence[TextGraph], references: Sequence[TextGraph], **options: Any
) -> list[float | None]:  # fmt: skip
    """The F1 of each pair; None where `empty="skip"` leaves it out."""
    made = (graph_reward(h, r, **options) for h, r in zip(hypotheses, references, strict=True))
    return [None if r is None else r.f1 for r in made]


# ---------------------------------------------------------------- two annotators


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two annotators: Cohen's kappa over the tokens' labels (none is one), F1 of entities and of relations."""

    kappa: float
    entity: float
    relation: float


def agreement(a: Sequence[TextGraph], b: Sequence[TextGraph]) -> Agreement:
    """The agreement of two annotators on the same reports; the ceiling for a model."""
    one, two = ([k for g in graphs for k in _token_labels(g)] for graphs in (a, b))
    entity, relation = entity_f1(a, b).f1, relation_f1(a, b).f1
    return Agreement(_kappa(one, two), entity, relation)


def _token_labels(graph: TextGraph) -> list[str]:
    cuts = words(graph.text)
    out = [""] * len(cuts)
    for i, (a, b) in enumerate(cuts):
        out[i] = next((s.label for s in graph.spans if s.start <= a and b <= s.end), "")
    return out


def _kappa(a: Sequence[str], b: Sequence[str]) -> float:
    if not a:
        return float("nan")
    x, y = np.asarray(a), np.asarray(b)
    seen = float((x == y).mean())
    chance = sum(float((x == k).mean()) * float((y == k).mean()) for k in {*a, *b})
    return (seen - chance) / (1 - chance) if chance < 1 else 1.0


# ---------------------------------------------------------------- what may be a reference


def references(records: Iterable[Record], *, role: str = f"{ROLE}/report") -> dict[str, TextGraph]:
    """Record -> its reference graph. A graph that a model made is never one: `Leak` names the record."""
    out = {}
    for record in records:
        item, text = record.first(role), record.first("report")
        if item is None or text is None:
            continue
        if item.origin.by == "model":
            raise Leak(f"record {record.id!r}: its graph was made by a model ({item.origin.steps}); no reference")
        out[record.id] = from_item(item, text.text())
    return out
