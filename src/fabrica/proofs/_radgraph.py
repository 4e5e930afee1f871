"""What RadGraph's proof runs beside the system: graphs of phantom reports, a lexicon, planted edits, real texts."""

from __future__ import annotations

import random
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fabrica.text.graph import (
    ANAT,
    LOCATED,
    MODIFY,
    PRESENT,
    RADGRAPH,
    Relation,
    Span,
    TextGraph,
    lower,
)
from fabrica.types import Record

if TYPE_CHECKING:
    from fabrica.phantom.report_graphs import PhantomReport
    from fabrica.text.graph import Extractor


def graph(report: PhantomReport) -> TextGraph:
    """The exact graph of a phantom report."""
    spans, relations = (Span(*s) for s in report.spans), (Relation(*r) for r in report.relations)
    return RADGRAPH.check(TextGraph(report.text, tuple(spans), tuple(relations)), report.id)


def permuted(graphs: Sequence[TextGraph], seed: int) -> list[TextGraph]:
    """The same graphs with the labels of all observations dealt out anew: what is asserted can no longer be learned."""
    labels = [s.label for g in graphs for s in g.spans if s.label != ANAT]
    random.Random(f"permuted {seed}").shuffle(labels)
    dealt = iter(labels)
    return [
        replace(g, spans=tuple(s if s.label == ANAT else replace(s, label=next(dealt)) for s in g.spans))
        for g in graphs
    ]  # fmt: skip


# ---------------------------------------------------------------- baselines


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The phrases that were marked in training, longest first; anatomy, or an observation that is there. With
    `nearest`, each observation is located at the anatomy next to it, and modifiers modify what follows them."""

    phrases: Mapping[str, str]
    modifiers: frozenset[str]
    longest: int
    nearest: bool = False

    @classmethod
    def fit(cls, graphs: Sequence[TextGraph]) -> Lexicon:
        """From marked reports."""
        said: dict[str, Counter[str]] = {}
        modifies: Counter[str] = Counter()
        for g in graphs:
            heads = {r.head for r in g.relations if r.label == MODIFY}
            for i, s in enumerate(g.spans):
                phrase = _plain(g.phrase(i))
                said.setdefault(phrase, Counter())[ANAT if s.label == ANAT else PRESENT] += 1
                modifies[phrase] += 1 if i in heads else -1
        phrases = {p: c.most_common(1)[0][0] for p, c in said.items()}
        found = frozenset(p for p, n in modifies.items() if n > 0)
        return cls(phrases, found, max(len(p.split()) for p in phrases))

    @property
    def name(self) -> str:
        """What it is."""
        return "lexicon"

    @property
    def version(self) -> str:
        """Of the code."""
        return "1"

    def __call__(self, texts: Sequence[str], /) -> list[TextGraph]:
        """The graph of each text."""
        return [self._one(t) for t in texts]

    def _one(self, text: str) -> TextGraph:
        from fabrica.encode.spans import windows

        spans: list[Span] = []
        relations: list[Relation] = []
        for window in windows(text):
            start, i = len(spans), 0
            while i < len(window.words):
                for k in range(min(self.longest, len(window.words) - i), 0, -1):
                    a, b = window.words[i][0], window.words[i + k - 1][1]
                    if (label := self.phrases.get(_plain(text[a:b]))) is not None:
                        spans.append(Span(a, b, label))
                        i += k
                        break
                else:
                    i += 1
            if self.nearest:
                relations += self._linked(text, spans, start)
        return TextGraph(text, tuple(spans), tuple(relations))

    def _linked(self, text: str, spans: Sequence[Span], start: int) -> list[Relation]:
        here = range(start, len(spans))
        modifier = {i: _plain(text[spans[i].start : spans[i].end]) in self.modifiers for i in here}
        out = []
        for i in here:
            kin = [j for j in here if (spans[j].label == ANAT) == (spans[i].label == ANAT) and not modifier[j]]
            if modifier[i]:
                if j := next((j for j in kin if j > i), None):
                    out.append(Relation(i, j, MODIFY))
            elif spans[i].label != ANAT:
                places = [j for j in here if spans[j].label == ANAT and not modifier[j]]
                if places:
                    nearest = min(places, key=lambda j: abs(spans[j].start - spans[i].start))
                    out.append(Relation(i, nearest, LOCATED))
        return out


def _plain(phrase: str) -> str:
    return " ".join(lower(phrase).split())


# ---------------------------------------------------------------- planted edits


def falls(reports: Sequence[PhantomReport], seed: int, model: Extractor | None) -> dict[str, NDArray[np.float64]]:
    """Edit -> (n, 2): how far graph reward (complete) and ROUGE-L of the edited report against the report fall below 1.
    Graphs are those of `model`, or the exact ones; reports that an edit cannot change are left out."""
    from fabrica.evaluate.graph import graph_reward
    from fabrica.evaluate.overlap import rouge_l
    from fabrica.phantom.report_edits import EDITS, edited

    def marked(some: Sequence[PhantomReport]) -> list[TextGraph]:
        return [graph(r) for r in some] if model is None else model([r.text for r in some])

    before = marked(reports)
    out = {}
    for edit in EDITS:
        pairs = [(i, made) for i, r in enumerate(reports) if (made := edited(r, edit, seed)) is not None]
        after = marked([made for _, made in pairs])
        rows = []
        for (i, made), g in zip(pairs, after, strict=True):
            reward = graph_reward(g, before[i], level="complete", empty="one")
            assert reward is not None
            rows.append((1 - reward.f1, 1 - rouge_l(made.text, reports[i].text)))
        out[str(edit)] = np.asarray(rows)
    return out


# ---------------------------------------------------------------- real texts


def negex(folder: Path) -> dict[str, NDArray[np.bool_]]:
    """Of each NegEx sentence: whether its marked condition is negated ("true"), whether the rules say so, whether any
    negation of the data set's own list of triggers stands anywhere in the sentence ("any")."""
    from fabrica.text.assertions import judged

    triggers = [
        line.split("\t")[0].strip() for line in (folder / "negex_triggers.txt").read_text("latin1").splitlines()
        if "[PREN]" in line or "[POST]" in line
    ]  # fmt: skip
    said = "|".join(re.escape(t) for t in sorted(triggers, key=len, reverse=True))
    negation = re.compile(rf"(?<!\w)(?:{said})(?!\w)", re.IGNORECASE)
    rows = []
    for line in (folder / "rs_public.txt").read_text("latin1").splitlines()[1:]:
        _, condition, sentence, status, *_ = line.split("\t")
        pattern = r"\s+".join(map(re.escape, condition.split()))
        places = [m.span() for m in re.finditer(pattern, sentence, re.IGNORECASE)]
        marked = [p for p in places if sentence[slice(*p)] == sentence[slice(*p)].upper()] or places
        span = marked[-1] if marked else (max(len(sentence) - 1, 0), len(sentence))
        negated = judged(sentence, [span])[0][0] == "absent"
        rows.append((status == "Negated", negated, negation.search(sentence) is not None))
    return dict(zip(("true", "rules", "any"), np.asarray(rows).T, strict=True))


TAGS: Mapping[str, str] = {  # the collection's own tag (first term of a heading) -> a finding of `text.lexicon`
    "pleural effusion": "effusion", "pneumothorax": "pneumothorax", "pneumonia": "pneumonia",
    "consolidation": "consolidation", "pulmonary atelectasis": "atelectasis", "pulmonary edema": "edema",
    "cardiomegaly": "cardiomegaly", "nodule": "nodule", "mass": "mass", "emphysema": "emphysema",
    "pulmonary emphysema": "emphysema", "granuloma": "granuloma", "calcified granuloma": "granuloma",
    "hernia, hiatal": "hernia", "fractures, bone": "fracture", "scoliosis": "scoliosis",
}  # fmt: skip


def real_reports(folder: Path) -> list[Record]:
    """The reports of the collection that have a text."""
    from fabrica.sources import Ref
    from fabrica.sources.xml_report import read

    file = next(folder.glob("*.tgz"))
    made = [r for r in read(Ref(file, file.name, "openi_reports", "CC-BY-NC-ND-4.0")) if isinstance(r, Record)]
    return [r for r in made if r.first("report") is not None]


def findings(g: TextGraph, *, asserted: bool) -> frozenset[str]:
    """The findings of TAGS that a graph's observations name; with `asserted` those that are there alone."""
    from fabrica.text.lexicon import found

    known, out = set(TAGS.values()), set[str]()
    for i, s in enumerate(g.spans):
        if s.label == PRESENT or (not asserted and s.label != ANAT):
            out |= {name for name, *_ in found(g.phrase(i)) if name in known}
    return frozenset(out)


def tag_counts(graphs: Sequence[TextGraph], records: Sequence[Record], *, asserted: bool) -> NDArray[np.float64]:
    """(n, 3) hit, said, true of the findings of each report against its tags."""
    rows = []
    for g, r in zip(graphs, records, strict=True):
        said, true = findings(g, asserted=asserted), {TAGS[t] for t in r.labels if t in TAGS}
        rows.append((len(said & true), len(said), len(true)))
    return np.asarray(rows, np.float64)


def valid(graphs: Sequence[TextGraph]) -> float:
    """The share of graphs that keep the schema and are the same after a way through their JSON form."""
    from fabrica.text.radgraph import from_radgraph_json, to_radgraph_json

    with warnings.catch_warnings():  # one report of the collection is in another language
        warnings.simplefilter("ignore")
        return sum(from_radgraph_json(to_radgraph_json(g), text=g.text) == g for g in graphs) / len(graphs)


def f1_of(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n, 3) hit, said, true of yes-or-no answers."""
    return np.stack([said & true, said, true], 1).astype(np.float64)
