"""Report graphs by rules: names of findings, places and modifiers from tables, assertions by `text.assertions`.

A silver labeller and a baseline, no RadGraph: a name from the table of findings is one entity even where people mark
two ("pleural effusion"), and relations are read off the words between.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from fabrica.text.assertions import Span as Place
from fabrica.text.assertions import judged, sentences
from fabrica.text.graph import (
    ANAT,
    LOCATED,
    MODIFY,
    RADGRAPH,
    STATUS,
    SUGGESTS,
    Relation,
    Span,
    TextGraph,
    lower,
    text_hash,
)
from fabrica.text.lexicon import FINDINGS, Names, found
from fabrica.text.sections import SKIPPED, told


def _set(text: str) -> frozenset[str]:
    return frozenset(w.strip() for w in text.split(";"))


ANATOMY = _set(
    "lung;lungs;lobe;lobes;base;bases;apex;apices;hemithorax;chest;thorax;hilum;hila;zone;zones;heart;mediastinum;aorta;"
    "trachea;diaphragm;hemidiaphragm;pleura;pleural space;costophrenic angle;costophrenic sulcus;lingula;fissure;rib;"
    "ribs;spine;thoracic spine;clavicle;shoulder;stomach;cardiac silhouette;pulmonary vasculature;soft tissues"
)
SITES = _set(
    "left;right;bilateral;upper;lower;middle;mid;apical;basal;basilar;lateral;posterior;anterior;medial;central;"
    "peripheral;perihilar;retrocardiac;thoracic"
)
DEGREES = _set(
    "small;large;mild;moderate;severe;minimal;trace;tiny;slight;marked;extensive;patchy;focal;diffuse;multifocal;dense;"
    "calcified;chronic;acute;new;old;stable;unchanged;healed;scattered;subtle;faint;subsegmental;linear;streaky"
)
_SUGGESTING = re.compile(
    r"[\s,]*(?:(?:which|that)\s+)?(?:suggest(?:s|ing|ive of)|(?:may|might|could)\s+(?:be|represent|reflect)|"
    r"(?:most\s+)?(?:consistent|compatible)\s+with|(?:worrisome|suspicious|concerning)\s+for|(?:likely|possibly|"
    r"probably)\s+(?:represent\w*|due\s+to|reflect\w*)|representing)\s+(?:an?\s+|the\s+)?"
)
_TOGETHER = re.compile(r"[\s,]*(?:(?:and|or|nor|as well as)\s+)?(?:an?\s+|the\s+|any\s+)?")
_WHERE = re.compile(
    r"[\s,]*(?:\w+\s+){0,2}?(?:in|of|at|within|over|along|on|to|involving|overlying)\s+(?:the\s+|both\s+)?"
)


class RuleGraphs:
    """Texts -> graphs, always of schema RADGRAPH. `findings` are names by label.

    >>> g = RuleGraphs()(["No small effusion in the left base."])[0]
    >>> [(g.phrase(i), s.label) for i, s in enumerate(g.spans)]
    [('small', 'OBS-DA'), ('effusion', 'OBS-DA'), ('left', 'ANAT-DP'), ('base', 'ANAT-DP')]
    >>> [(g.phrase(r.head), r.label, g.phrase(r.tail)) for r in g.relations]
    [('small', 'modify', 'effusion'), ('effusion', 'located_at', 'base'), ('left', 'modify', 'base')]
    """

    version = "1"

    def __init__(self, findings: Names = FINDINGS, *, skip: Sequence[str] = SKIPPED) -> None:
        self.findings, self.skip = findings, tuple(skip)
        told_ = json.dumps([{k: list(v) for k, v in findings.items()}, self.skip], sort_keys=True)
        self.name = f"rule-graphs:{text_hash(told_)[:12]}"

    def __call__(self, texts: Sequence[str], /) -> list[TextGraph]:
        """The graph of each text, in order; sections of `skip` give nothing."""
        return [self.one(t) for t in texts]

    def one(self, text: str) -> TextGraph:
        """The graph of one text."""
        spans: list[Span] = []
        relations: list[Relation] = []
        for start, end in told(text, self.skip):
            part = lower(text[start:end])
            marks = self._marked(part)
            said = judged(part, [(a, b) for a, b, kind in marks if kind == "finding"])
            status = iter([STATUS[s[0]] for s in said])
            labels = [next(status) if kind == "finding" else ANAT for *_, kind in marks]
            ends = [b for _, b in sentences(part)]
            linked = _linked(part, marks, ends)
            for h, t, r in linked:
                if r == MODIFY and marks[h][2] == "degree":
                    labels[h] = labels[t]
            used = {i for i, m in enumerate(marks) if m[2] != "degree"} | {h for h, _, r in linked if r == MODIFY}
            number = {i: len(spans) + n for n, i in enumerate(sorted(used))}
            spans += [Span(start + marks[i][0], start + marks[i][1], labels[i]) for i in sorted(used)]
            relations += [Relation(number[h], number[t], r) for h, t, r in linked if h in number and t in number]
        kept = [r for r in relations if RADGRAPH.allows(spans[r.head].label, r.label, spans[r.tail].label)]
        return RADGRAPH.check(TextGraph(text, tuple(spans), tuple(sorted(set(kept)))))

    @cached_property
    def _others(self) -> re.Pattern[str]:
        groups = (("site", SITES), ("degree", DEGREES), ("anatomy", ANATOMY))
        parts = [
            f"(?P<{kind}>{'|'.join(re.escape(w) for w in sorted(of, key=len, reverse=True))})" for kind, of in groups
        ]
        return re.compile(rf"(?<![\w-])(?:{'|'.join(reversed(parts))})(?:-sided)?(?![\w-])")

    def _marked(self, part: str) -> list[tuple[int, int, str]]:
        """(start, end, kind) of findings, then of other names where no finding stands; in order."""
        out = [(a, b, "finding") for _, a, b in found(part, self.findings)]
        taken = {i for a, b, _ in out for i in range(a, b)}
        for m in self._others.finditer(part):
            if not taken.intersection(range(*m.span())):
                out.append((m.start(), m.end(), str(m.lastgroup)))
        return sorted(out)


def _linked(part: str, marks: Sequence[tuple[int, int, str]], ends: Sequence[int]) -> list[tuple[int, int, str]]:
    """Relations between marks of one sentence, by the words between them."""
    out: list[tuple[int, int, str]] = []
    sentence = [sum(m[0] >= e for e in ends) for m in marks]

    def gap(i: int, j: int) -> str | None:
        return part[marks[i][1] : marks[j][0]] if sentence[i] == sentence[j] else None

    head = [i for i, m in enumerate(marks) if m[2] in ("finding", "anatomy")]
    for i, (_, _, kind) in enumerate(marks):
        if kind in ("site", "degree"):
            wanted = {"site": "anatomy", "degree": "finding"}[kind]
            j = next((j for j in range(i + 1, len(marks)) if marks[j][2] == wanted), None)
            if j is not None and _adjoining(part, marks, i, j) and gap(i, j) is not None:
                out.append((i, j, MODIFY))
    chain: list[int] = []
    for n, i in enumerate(head):
        if marks[i][2] != "finding":
            continue
        before = head[n - 1] if n else None
        near = before is not None and marks[before][2] == "finding" and _between(part, marks, before, i, _TOGETHER)
        chain = [*chain, i] if near and sentence[chain[-1]] == sentence[i] else [i]
        if n + 1 < len(head) and sentence[i] == sentence[head[n + 1]]:
            j = head[n + 1]
            if marks[j][2] == "anatomy" and _between(part, marks, i, j, _WHERE):
                out += [(c, j, LOCATED) for c in chain]
            elif marks[j][2] == "finding" and _between(part, marks, i, j, _SUGGESTING):
                out.append((i, j, SUGGESTS))
        if before is not None and marks[before][2] == "anatomy" and (gap(before, i) or "x").isspace():
            out.append((i, before, LOCATED))
    return sorted(set(out))


def _adjoining(part: str, marks: Sequence[tuple[int, int, str]], i: int, j: int) -> bool:
    """Whether only blanks and other modifiers stand between two marks."""
    between = [marks[k] for k in range(i + 1, j)]
    if any(m[2] not in ("site", "degree") for m in between):
        return False
    at = marks[i][1]
    for a, b, _ in [*between, marks[j]]:
        if re.fullmatch(r"[\s,]*(?:and\s+)?", part[at:a]) is None:
            return False
        at = b
    return True


def _between(part: str, marks: Sequence[tuple[int, int, str]], i: int, j: int, words: re.Pattern[str]) -> bool:
    """Whether the words between two marks, modifiers left out, are of that kind."""
    at, said = marks[i][1], ""
    for a, b, kind in marks[i + 1 : j]:
        if kind not in ("site", "degree"):
            return False
        said, at = said + part[at:a], b
    said += part[at : marks[j][0]]
    return words.fullmatch(re.sub(r"\s+", " ", said)) is not None


def asserted(graph: TextGraph) -> TextGraph:
    """The same graph with every observation's label by the rules: present, absent or uncertain as `judged` says of the
    observation that nothing follows by "modify", and so of its modifiers."""
    obs = [i for i, s in enumerate(graph.spans) if s.label != ANAT]
    head = {i: i for i in obs}
    up = {r.head: r.tail for r in graph.relations if r.label == MODIFY}
    for i in obs:
        seen = set[int]()
        while head[i] in up and head[i] not in seen:
            seen.add(head[i])
            head[i] = up[head[i]]
    order = sorted(set(head.values()), key=lambda i: graph.spans[i].start)
    places: list[Place] = [(graph.spans[i].start, graph.spans[i].end) for i in order]
    said = {i: STATUS[s[0]] for i, s in zip(order, judged(lower(graph.text), places), strict=True)}
    spans = [replace(s, label=said[head[i]]) if i in head else s for i, s in enumerate(graph.spans)]
    return replace(graph, spans=tuple(spans))
