"""Marks on a text as one typed graph: spans in characters, directed relations, and the schema that says what may be.

Offsets count characters of a text that never changes; tokens are a view (`text.radgraph`). Graphs travel in records as
items of kind "graph" that name their text by hash and do not hold it, so that a text removed is removed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NoReturn, Protocol, runtime_checkable

from fabrica.errors import Refused, UsageError
from fabrica.types import Item, Origin

Pair = tuple[str, str]  # labels of head and tail
Cut = tuple[int, int]  # start and end of a token, characters


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters `start` to `end` (exclusive) of a text, with a label."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True, order=True)
class Relation:
    """From span number `head` to span number `tail` of the graph."""

    head: int
    tail: int
    label: str


@dataclass(frozen=True, slots=True)
class TextGraph:
    """A text, its spans and the relations between them. `Refused` for a span outside the text or without characters
    ("span_bounds") and a relation to a span that is not there ("relation_missing") or to itself ("relation_self").

    >>> g = TextGraph("Small effusion.", (Span(0, 5, "OBS-DP"), Span(6, 14, "OBS-DP")), (Relation(0, 1, "modify"),))
    >>> g.phrase(0), g.phrase(1), len(g.sorted().relations)
    ('Small', 'effusion', 1)
    """

    text: str
    spans: tuple[Span, ...] = ()
    relations: tuple[Relation, ...] = ()

    def __post_init__(self) -> None:
        for i, s in enumerate(self.spans):
            if not 0 <= s.start < s.end <= len(self.text):
                _refuse("span_bounds", "", i, f"stands at {s.start} to {s.end} of {len(self.text)} characters")
        for r in self.relations:
            if not (0 <= r.head < len(self.spans) and 0 <= r.tail < len(self.spans)):
                _refuse("relation_missing", "", r.head, f"has a relation {r.label!r} to {r.tail}, which is not there")
            if r.head == r.tail:
                _refuse("relation_self", "", r.head, f"has a relation {r.label!r} to itself")

    def phrase(self, i: int) -> str:
        """The words of span i as they stand in the text."""
        return self.text[self.spans[i].start : self.spans[i].end]

    def sorted(self) -> TextGraph:
        """The same graph with spans in order of place and relations in order of their spans, each once."""
        order = sorted(range(len(self.spans)), key=lambda i: self.spans[i])
        new = {old: i for i, old in enumerate(order)}
        relations = sorted({Relation(new[r.head], new[r.tail], r.label) for r in self.relations})
        return TextGraph(self.text, tuple(self.spans[i] for i in order), tuple(relations))


@runtime_checkable
class Extractor(Protocol):
    """Reports -> their graphs, in order; `name` says which model and all that changes its answers, `version` which
    code."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def __call__(self, texts: Sequence[str], /) -> list[TextGraph]: ...


@dataclass(frozen=True, slots=True)
class Schema:
    """Labels of spans, and for each relation the pairs (head label, tail label) that it may join. `overlap` lets spans
    share characters. A relation that names an unknown label is refused here.

    >>> RADGRAPH.allows("OBS-DP", "located_at", "ANAT-DP"), RADGRAPH.allows("ANAT-DP", "located_at", "OBS-DP")
    (True, False)
    """

    labels: tuple[str, ...]
    relations: Mapping[str, frozenset[Pair]] = field(default_factory=lambda: MappingProxyType({}))
    overlap: bool = False

    def __post_init__(self) -> None:
        if not self.labels or len(set(self.labels)) < len(self.labels):
            raise UsageError(f"a schema wants labels, none twice; got {self.labels}")
        for name, pairs in self.relations.items():
            if odd := sorted({label for pair in pairs for label in pair} - set(self.labels)):
                raise UsageError(f"relation {name!r} joins {odd[0]!r}, which is no label: {', '.join(self.labels)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The relations, in order."""
        return tuple(self.relations)

    def allows(self, head: str, relation: str, tail: str) -> bool:
        """Whether the relation may join spans of these labels."""
        return (head, tail) in self.relations.get(relation, frozenset())

    def check(self, graph: TextGraph, name: str = "") -> TextGraph:
        """The graph, if it keeps the schema. `Refused` names the report and the entity: "label_unknown",
        "span_overlap", "relation_unknown", "pair_invalid"."""
        for i, s in enumerate(graph.spans):
            if s.label not in self.labels:
                _refuse("label_unknown", name, i, f"has label {s.label!r}; known: {', '.join(self.labels)}")
        order = sorted(range(len(graph.spans)), key=lambda i: graph.spans[i])
        for a, b in pairwise(order):
            if not self.overlap and graph.spans[b].start < graph.spans[a].end:
                _refuse("span_overlap", name, b, f"shares characters with entity {a + 1} ({graph.phrase(a)!r})")
        for r in graph.relations:
            if r.label not in self.relations:
                _refuse("relation_unknown", name, r.head, f"has a relation {r.label!r}; known: {', '.join(self.names)}")
            pair = graph.spans[r.head].label, graph.spans[r.tail].label
            if pair not in self.relations[r.label]:
                _refuse("pair_invalid", name, r.head, f"is {r.label!r} of entity {r.tail + 1}: {pair[0]} -> {pair[1]}")
        return graph

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        pairs = {n: sorted(map(list, p)) for n, p in self.relations.items()}
        return {"labels": list(self.labels), "relations": pairs, "overlap": self.overlap}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Schema:
        """The inverse of `to_json`."""
        relations = {n: frozenset((a, b) for a, b in p) for n, p in data["relations"].items()}
        return cls(tuple(data["labels"]), relations, bool(data["overlap"]))


def _refuse(code: str, name: str, entity: int, why: str) -> NoReturn:
    where = f"report {name!r}, " if name else ""
    raise Refused(code, f"{where}entity {entity + 1} {why}")


ANAT, PRESENT, UNCERTAIN, ABSENT = "ANAT-DP", "OBS-DP", "OBS-U", "OBS-DA"
OBSERVATIONS = (PRESENT, UNCERTAIN, ABSENT)
STATUS = MappingProxyType({"present": PRESENT, "uncertain": UNCERTAIN, "absent": ABSENT})
MODIFY, LOCATED, SUGGESTS = "modify", "located_at", "suggestive_of"
_BOTH = frozenset((a, b) for a in OBSERVATIONS for b in OBSERVATIONS)
RADGRAPH = Schema(  # Jain et al. 2021: anatomy, and observations present, uncertain, absent
    (ANAT, PRESENT, UNCERTAIN, ABSENT),
    MappingProxyType({
        MODIFY: _BOTH | {(ANAT, ANAT)}, LOCATED: frozenset((a, ANAT) for a in OBSERVATIONS), SUGGESTS: _BOTH,
    }),
)  # fmt: skip


# ---------------------------------------------------------------- tokens

_WORD = re.compile(r"\d+(?:\.\d+)+|[^\W_]+|_+|[^\w\s]")
_BLANK = re.compile(r"\S+")


def words(text: str) -> list[Cut]:
    """Words, numbers with their point, runs of "_", and each other mark alone; every visible character is in one.

    >>> [("No 2.5cm ___ (new)."[a:b]) for a, b in words("No 2.5cm ___ (new).")]
    ['No', '2.5', 'cm', '___', '(', 'new', ')', '.']
    """
    return [m.span() for m in _WORD.finditer(text)]


def blanks(text: str) -> list[Cut]:
    """What stands between blanks: the tokens of a text that came as tokens joined by blanks."""
    return [m.span() for m in _BLANK.finditer(text)]


def lower(text: str) -> str:
    """Lower case, character for character: offsets stay.

    >>> len("İ".lower()), len(lower("İ"))
    (2, 1)
    """
    made = text.lower()
    return made if len(made) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else "i" for c in text)


# ---------------------------------------------------------------- in a record

ROLE = "graph"


def text_hash(text: str) -> str:
    """Hex sha256 of a text."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def to_item(graph: TextGraph, origin: Origin) -> Item:
    """The graph as the value of an item: offsets, and the hash of the text that they count in."""
    said = {
        "text": text_hash(graph.text), "spans": [[s.start, s.end, s.label] for s in graph.spans],
        "relations": [[r.head, r.tail, r.label] for r in graph.relations],
    }  # fmt: skip
    return Item("graph", json.dumps(said, separators=(",", ":")), replace(origin, sha256=text_hash(graph.text)))


def from_item(item: Item, text: str) -> TextGraph:
    """The graph on its text. `Refused("graph_text")` where the text is another one, "graph_bad" for no graph."""
    try:
        said = json.loads(item.text())
        of = said["text"]
        spans = tuple(Span(int(a), int(b), str(label)) for a, b, label in said["spans"])
        relations = tuple(Relation(int(h), int(t), str(label)) for h, t, label in said["relations"])
    except (ValueError, KeyError, TypeError) as error:
        raise Refused("graph_bad", f"item {item.origin.key!r} holds no graph: {str(error)[:100]}") from error
    if of != text_hash(text):
        raise Refused("graph_text", f"item {item.origin.key!r} marks another text than the one given")
    return TextGraph(text, spans, relations)


def clauses(graph: TextGraph) -> Iterator[tuple[int, list[Relation]]]:
    """(span number, relations that start there), in order."""
    out: dict[int, list[Relation]] = {i: [] for i in range(len(graph.spans))}
    for r in graph.relations:
        out[r.head].append(r)
    yield from out.items()
