"""RadGraph's JSON form of a text graph: token numbers to characters and back; its files of one or two annotators.

A record is {"text": tokens joined by blanks, "entities": {"1": {"tokens", "label", "start_ix", "end_ix" (inclusive),
"relations": [["modify", "3"], ...]}}} (Jain et al. 2021, arXiv 2106.14463). The `radgraph` package answers in the same
form, in newer versions with long labels: `rename=LONG_LABELS`; its measurements need a schema that names them.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fabrica.errors import Refused
from fabrica.text.graph import (
    ABSENT,
    ANAT,
    PRESENT,
    RADGRAPH,
    UNCERTAIN,
    Cut,
    Relation,
    Schema,
    Span,
    TextGraph,
    blanks,
    clauses,
    words,
)  # fmt: skip

Tokens = Callable[[str], Sequence[Cut]]
LONG_LABELS: Mapping[str, str] = MappingProxyType({
    "Anatomy::definitely present": ANAT, "Observation::definitely present": PRESENT,
    "Observation::uncertain": UNCERTAIN, "Observation::definitely absent": ABSENT,
})  # fmt: skip


def to_radgraph_json(graph: TextGraph, tokens: Tokens = words) -> dict[str, Any]:
    """The graph with token numbers. `tokens` cuts the text: `words`, or `blanks` for a text that came as tokens.

    `Refused("span_tokens")` where a span does not begin and end with a token.

    >>> g = TextGraph("No  effusion.", (Span(4, 12, "OBS-DA"),))
    >>> made = to_radgraph_json(g)
    >>> made["text"], made["entities"]["1"]["tokens"], made["entities"]["1"]["start_ix"]
    ('No effusion .', 'effusion', 1)
    """
    cuts = list(tokens(graph.text))
    first, last = {a: i for i, (a, _) in enumerate(cuts)}, {b: i for i, (_, b) in enumerate(cuts)}
    entities: dict[str, Any] = {}
    for i, starting in clauses(graph):
        span = graph.spans[i]
        if span.start not in first or span.end not in last:
            raise Refused("span_tokens", f"entity {i + 1} ({graph.phrase(i)!r}) does not begin and end with a token")
        a, b = first[span.start], last[span.end]
        entities[str(i + 1)] = {
            "tokens": _said(graph.text, cuts[a : b + 1]), "label": span.label, "start_ix": a, "end_ix": b,
            "relations": [[r.label, str(r.tail + 1)] for r in starting],
        }  # fmt: skip
    return {"text": _said(graph.text, cuts), "entities": entities}


def _said(text: str, cuts: Sequence[Cut]) -> str:
    return " ".join(text[a:b] for a, b in cuts)


def from_radgraph_json(
    data: Mapping[str, Any], *, name: str = "", text: str | None = None, schema: Schema = RADGRAPH,
    rename: Mapping[str, str] = MappingProxyType({}),
) -> TextGraph:  # fmt: skip
    """The graph in characters: of the record's own text, or of the `text` that its tokens were cut from.

    `Refused` names the report and the entity: "report_empty", "entity_bad" (end before start, outside the text, words
    that are not those tokens), "relation_missing", "tokens_differ", and what `Schema.check` refuses. Warns where the
    text does not look English.
    """
    own = str(data.get("text") or "")
    if not own.strip():
        raise Refused("report_empty", f"report {name!r} has no text")
    told = own if text is None else text
    cuts = blanks(own) if text is None else aligned([own[a:b] for a, b in blanks(own)], text, name)
    if not english(told):
        warnings.warn(f"report {name!r} does not look English; labels and cues are English", stacklevel=2)
    found: Mapping[str, Any] = data.get("entities") or {}
    number = {key: i for i, key in enumerate(found)}
    spans, relations = [], []
    for key, entity in found.items():
        where = f"report {name!r}, entity {key!r}"
        a, b, label = _entity(entity, where)
        if not 0 <= a <= b < len(cuts):
            raise Refused("entity_bad", f"{where} goes from token {a} to {b} of {len(cuts)}")
        said = "".join(told[x:y] for x, y in cuts[a : b + 1])
        if (want := entity.get("tokens")) is not None and "".join(str(want).split()) != said:
            raise Refused("entity_bad", f"{where} says {want!r} where the text has {said!r}")
        spans.append(Span(cuts[a][0], cuts[b][1], rename.get(label, label)))
        for kind, tail in entity.get("relations") or ():
            if str(tail) not in number:
                raise Refused("relation_missing", f"{where} has a relation {kind!r} to {tail!r}, which is not there")
            relations.append(Relation(number[key], number[str(tail)], str(kind)))
    try:
        return schema.check(TextGraph(told, tuple(spans), tuple(relations)), name)
    except Refused as error:
        if name in str(error):
            raise
        raise Refused(error.code, f"report {name!r}, {str(error).removesuffix(f' [{error.code}]')}") from error


def _entity(entity: Mapping[str, Any], where: str) -> tuple[int, int, str]:
    try:
        return int(entity["start_ix"]), int(entity["end_ix"]), str(entity["label"])
    except (KeyError, TypeError, ValueError) as error:
        raise Refused("entity_bad", f"{where} lacks start_ix, end_ix or label") from error


def aligned(tokens: Sequence[str], text: str, name: str = "") -> list[Cut]:
    """Where tokens stand in the text they were cut from, blanks aside.

    >>> aligned(["No", "effusion", "."], "No   effusion.")
    [(0, 2), (5, 13), (13, 14)]
    """
    at, out = 0, []
    for token in tokens:
        while at < len(text) and text[at].isspace():
            at += 1
        if not text.startswith(token, at):
            raise Refused("tokens_differ", f"report {name!r}: token {token!r} is not at {at}: {text[at : at + 20]!r}")
        out.append((at, at + len(token)))
        at += len(token)
    return out


def read_radgraph(data: Mapping[str, Any], **options: Any) -> dict[str, dict[str, TextGraph]]:
    """A file of the collection: report -> annotator -> graph. One annotator is called "", two are "labeler_1" and
    "labeler_2" as in the test file. Options as for `from_radgraph_json`."""
    out: dict[str, dict[str, TextGraph]] = {}
    for name, record in data.items():
        many = {k: v for k, v in record.items() if k.startswith("labeler")} or {"": record}
        out[name] = {
            k: from_radgraph_json({"text": record.get("text"), "entities": v.get("entities")}, name=name, **options)
            for k, v in many.items()
        }
    return out


_COMMON = (
    "the of is are was no and in or with for to a an there not without has have been be it this that from by on at "
    "heart lungs lung chest right left clear size within limits seen evidence unchanged small"
)
_ENGLISH = frozenset(_COMMON.split())


def english(text: str) -> bool:
    """Whether a text of eight words or more looks English: Latin letters and a few of its commonest words.

    >>> english("The heart is normal in size and the lungs are clear."), english("Kein Erguss, Herz normal gross " * 3)
    (True, False)
    """
    found = re.findall(r"[^\W\d_]+", text.lower())
    letters = "".join(found)
    if not letters:
        return True
    if sum(c.isascii() for c in letters) < 0.8 * len(letters):
        return False
    return len(found) < 8 or sum(w in _ENGLISH for w in found) >= 0.12 * len(found)
