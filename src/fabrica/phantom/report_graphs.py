"""Synthetic radiology reports with their exact graphs, in the styles of two hospitals.

A report is a list of `Line`s, drawn first and worded after, so that an edit (`report_edits`) changes the graph in the
way it says. Style 2 draws, at the rate `new`, nouns, modifiers, places and triggers that style 1 does not know.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fabrica.types import Item, Origin, Record

Status = Literal["present", "uncertain", "absent"]
_LABEL = {"present": "OBS-DP", "uncertain": "OBS-U", "absent": "OBS-DA"}
ANAT = "ANAT-DP"


@dataclass(frozen=True, slots=True)
class Words:
    """What a hospital may say."""

    nouns: tuple[str, ...]
    mods: tuple[str, ...]
    heads: tuple[str, ...]
    levels: tuple[str, ...]
    before: dict[Status, tuple[str, ...]]  # stands before the findings
    after: dict[Status, tuple[str, ...]]  # stands after them
    hints: tuple[str, ...]  # between a finding and what it suggests
    same: tuple[str, ...]  # says that a finding has not changed


def _list(text: str) -> tuple[str, ...]:
    return tuple(w.strip() for w in text.split(";"))


OLD = Words(
    _list("effusion;pneumothorax;consolidation;atelectasis;nodule;opacity;edema;fracture;mass;thickening;granuloma;"
          "infiltrate;scarring;volume loss;vascular congestion;pneumonia"),
    _list("small;large;mild;moderate;severe;patchy;focal;new;stable;dense"),
    _list("lung;lobe;base;hemithorax;apex;chest;hilum;zone"),
    _list("upper;lower;middle"),
    {"present": _list("there is a;there is;persistent;again seen is a"),
     "absent": _list("no;no evidence of;without;there is no"),
     "uncertain": _list("possible;probable;findings may represent;cannot exclude")},
    {"present": _list("is seen;is present;are noted"), "absent": _list("is not seen;is absent"),
     "uncertain": _list("cannot be excluded;is suspected")},
    _list("suggesting;which may represent;possibly due to"),
    _list("no change in the;unchanged"),
)  # fmt: skip
NEW = Words(
    _list("hydrothorax;collapse;lucency;density;lesion;bulla;calcification;fibrosis;air trapping;ground glass;"
          "bronchiectasis;pneumonitis"),
    _list("trace;subtle;extensive;faint;marked;hazy;tiny;chronic"),
    _list("lingula;segment;costophrenic angle;retrocardiac region;hemidiaphragm"),
    _list("basal;apical;posterior"),
    {"present": _list("demonstrated is a;redemonstration of;noted is a"),
     "absent": _list("no sign of;absence of;negative for;nothing to suggest"),
     "uncertain": _list("questionable;suspicious for;unable to rule out;equivocal")},
    {"present": _list("is identified;persists"), "absent": _list("is not identified;has resolved;was ruled out"),
     "uncertain": _list("is not excluded;remains a concern")},
    _list("worrisome for;concerning for;suspicious for"),
    _list("no interval change in the;not significantly changed is the"),
)  # fmt: skip
SIDES = ("left", "right")
_FILLER = _list(
    "Comparison is made with the prior study;The patient is rotated;Two views were obtained;Clinical correlation is "
    "advised;Findings were discussed with Dr. ___ at XXXX;Follow-up is recommended"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """An observation and its modifiers."""

    noun: str
    mods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """A part of the body and its modifiers, a side first where there is one."""

    head: str
    mods: tuple[str, ...] = ()


Form = Literal[
    "before", "after", "place_first", "suggests", "same", "not_only", "normal", "pleural", "each", "with", "filler"
]


@dataclass(frozen=True, slots=True)
class Line:
    """What one sentence (or one half of it: `rest` follows after "but") says; `say` is its trigger or filler."""

    form: Form
    status: Status = "present"
    say: str = ""
    findings: tuple[Finding, ...] = ()
    places: tuple[Place, ...] = ()
    hint: Finding | None = None
    rest: Line | None = None


@dataclass(slots=True)
class _Writer:
    """Text in the making; `mark` returns the number of the entity."""

    parts: list[str] = field(default_factory=list)
    at: int = 0
    spans: list[tuple[int, int, str]] = field(default_factory=list)
    relations: list[tuple[int, int, str]] = field(default_factory=list)
    gap: str = ""

    def put(self, text: str, gap: str = " ") -> None:
        text = self.gap + text
        self.parts.append(text)
        self.at += len(text)
        self.gap = gap

    def end(self, mark: str) -> None:
        self.gap = ""
        self.put(mark)

    def mark(self, text: str, label: str) -> int:
        start = self.at + len(self.gap)
        self.put(text)
        self.spans.append((start, start + len(text), label))
        return len(self.spans) - 1

    def noun(self, mods: Sequence[str], head: str, label: str) -> int:
        """Modifiers and their head, each an entity."""
        before = [self.mark(m, label) for m in mods]
        at = self.mark(head, label)
        self.relations += [(b, at, "modify") for b in before]
        return at


@dataclass(frozen=True, slots=True)
class PhantomReport:
    """A report: its text, spans (start, end, label) in characters, relations (head, tail, label) by span number."""

    id: str
    subject: str
    style: int
    text: str
    spans: tuple[tuple[int, int, str], ...]
    relations: tuple[tuple[int, int, str], ...]
    lines: tuple[Line, ...]


def reports(count: int, seed: int, style: int = 1, *, new: float = 0.3, per_patient: int = 1) -> list[PhantomReport]:
    """`count` reports of style 1 or 2; `per_patient` of one subject follow each other.

    >>> r = reports(1, seed=1)[0]
    >>> a, b, label = r.spans[0]
    >>> label in ("ANAT-DP", "OBS-DP", "OBS-U", "OBS-DA"), r.text[a:b] == r.text[a:b].strip()
    (True, True)
    """
    out = []
    for n in range(count):
        rng = random.Random(f"report {seed} {style} {n}")
        lines = tuple(_line(rng, new if style == 2 else 0.0) for _ in range(rng.randint(4, 8)))
        out.append(worded(f"s{style}-{seed}-{n}", lines, style, subject=f"s{style}-{seed}-p{n // per_patient}"))
    return out


def worded(name: str, lines: Sequence[Line], style: int = 1, *, subject: str = "") -> PhantomReport:
    """The report that says these lines: indication (no part of the graph), findings, impression."""
    rng = random.Random(f"wording {name}")
    w = _Writer()
    if rng.random() < 0.5:
        w.put(f"INDICATION: Rule out {rng.choice(OLD.nouns)}.", "\n")
    w.put("FINDINGS:")
    for i, line in enumerate(lines):
        if i == len(lines) - 1:
            w.gap = "\n"
            w.put("IMPRESSION:")
        start, before = w.at + len(w.gap), len(w.parts)
        _say(w, line)
        w.end(".")
        w.gap = "  " if rng.random() < 0.1 else " "
        made = "".join(w.parts[before:])
        lead = start - (w.at - len(made))
        w.parts[before:] = [made[:lead] + made[lead].upper() + made[lead + 1 :]]
    return PhantomReport(
        name, subject or name, style, "".join(w.parts), tuple(w.spans), tuple(w.relations), tuple(lines)
    )


def records(count: int, seed: int, style: int = 1, **options: Any) -> list[Record]:
    """The same reports as records: items "report" and "graph/report" (the form of `text.graph.to_item`)."""
    out = []
    for r in reports(count, seed, style, **options):
        mark = hashlib.sha256(r.text.encode()).hexdigest()
        origin = Origin("phantom-report-graphs", r.id, mark, "CC0-1.0", "synthetic")
        told = {"text": mark, "spans": [list(s) for s in r.spans], "relations": [list(x) for x in r.relations]}
        graph = Item("graph", json.dumps(told, separators=(",", ":")), origin)
        items = {"report": (Item("text", r.text, origin),), "graph/report": (graph,)}
        out.append(Record(r.id, r.subject, {"modality": "xray", "study": r.id}, items))
    return out


# ---------------------------------------------------------------- drawing


def _some(rng: random.Random, new: float, name: str, status: Status | None = None) -> str:
    of = NEW if rng.random() < new else OLD
    found: Any = getattr(of, name)
    return str(rng.choice(found if status is None else found[status]))


def _finding(rng: random.Random, new: float, status: Status) -> Finding:
    count = rng.choice((0, 0, 1)) if status == "absent" else rng.choice((0, 1, 1, 2))
    mods = dict.fromkeys(_some(rng, new, "mods") for _ in range(count))
    return Finding(_some(rng, new, "nouns"), tuple(mods))


def _place(rng: random.Random, new: float) -> Place:
    mods = [rng.choice(SIDES)] if rng.random() < 0.8 else []
    if rng.random() < 0.4:
        mods.append(_some(rng, new, "levels"))
    return Place(_some(rng, new, "heads"), tuple(mods))


_FORMS: dict[Form, float] = {
    "before": 13, "after": 6, "place_first": 4, "suggests": 3, "same": 1, "not_only": 1, "normal": 2, "pleural": 2,
    "each": 2, "with": 3, "filler": 2,
}  # fmt: skip


def _line(rng: random.Random, new: float, *, half: bool = False) -> Line:
    form: Form = "before" if half else rng.choices(list(_FORMS), list(_FORMS.values()))[0]
    if form == "filler":
        return Line(form, say=rng.choice(_FILLER))
    if form == "normal":
        return Line(form, say=rng.choice(("normal", "clear", "unremarkable")), places=(_place(rng, new),))
    if form in ("suggests", "same", "not_only", "pleural", "each", "with"):
        status: Status = "present"
    else:
        status = rng.choices(("present", "absent", "uncertain"), (3, 6, 2))[0]  # reports deny more than they affirm
    most = {"absent": (1, 2, 2, 3), "present": (1, 1, 2), "uncertain": (1, 1, 2)}[status]
    twice, once = ("not_only", "each", "with"), ("suggests", "same", "pleural")
    count = 2 if form in twice else 1 if form in once else rng.choice(most)
    findings = dict.fromkeys(_finding(rng, new, status) for _ in range(count))
    where = {"pleural": 1, "with": 1, "each": 2}.get(form) or rng.choice((0, 1, 1, 1, 2))
    places = tuple(dict.fromkeys(_place(rng, new) for _ in range(where)))
    if form == "place_first":
        places = places[:1] or (_place(rng, new),)
    say = {"before": "before", "after": "after", "suggests": "hints", "same": "same"}.get(form, "")
    if say in ("before", "after"):
        trigger = _some(rng, new, say, status)
    else:
        trigger = _some(rng, new, say) if say else ""
    hint = _finding(rng, new, "uncertain") if form == "suggests" else None
    rest = _line(rng, new, half=True) if form == "before" and not half and rng.random() < 0.25 else None
    return Line(form, status, trigger, tuple(findings), places, hint, rest)


# ---------------------------------------------------------------- wording


def _say(w: _Writer, line: Line) -> None:
    """One sentence without its end."""
    label, found = _LABEL[line.status], list[int]()
    if line.form == "filler":
        w.put(line.say)
    elif line.form == "normal":
        w.put("the")
        where = _places(w, line.places)
        w.put("is")
        found = [w.mark(line.say, label)]
        w.relations += [(f, p, "located_at") for f in found for p in where]
    elif line.form == "pleural":
        finding, place = line.findings[0], line.places[0]
        w.put("there is a")
        mods = [w.mark(m, label) for m in finding.mods]
        at = w.noun(place.mods[:1], "pleural", ANAT)
        head = w.mark(finding.noun, label)
        w.relations += [(m, head, "modify") for m in mods] + [(head, at, "located_at")]
    elif line.form == "place_first":
        w.put("the")
        where = _places(w, line.places)
        w.put({"present": "shows a", "absent": "is free of", "uncertain": "shows possible"}[line.status])
        found = _findings(w, line.findings, label, line.status)
        w.relations += [(f, p, "located_at") for f in found for p in where]
    elif line.form in ("each", "with"):
        _apart(w, line, label)
    else:
        _with_places(w, line, label)
    if line.rest is not None:
        w.end(", but")
        w.gap = " "
        _say(w, line.rest)


def _apart(w: _Writer, line: Line, label: str) -> None:
    """Findings that are not at the same place: "A and B in the P and Q respectively", "A in the P with possible B"."""
    w.put("there is a")
    if line.form == "each":
        found = _findings(w, line.findings, label, line.status)
        w.put("in the")
        where = _places(w, line.places)
        w.put("respectively")
        w.relations += [(f, p, "located_at") for f, p in zip(found, where, strict=False)]
        return
    first = w.noun(line.findings[0].mods, line.findings[0].noun, label)
    w.put("in the")
    w.relations += [(first, p, "located_at") for p in _places(w, line.places)]
    w.put("with possible")
    for f in line.findings[1:]:
        w.noun(f.mods, f.noun, _LABEL["uncertain"])


def _with_places(w: _Writer, line: Line, label: str) -> None:
    """Findings first, then where they are."""
    if line.form in ("before", "same"):
        w.put(line.say)
    if line.form == "not_only":
        w.put("there is not only a")
        found = [w.noun(line.findings[0].mods, line.findings[0].noun, label)]
        w.put("but also a")
        found += [w.noun(f.mods, f.noun, label) for f in line.findings[1:]]
    else:
        found = _findings(w, line.findings, label, line.status)
    if line.places:
        w.put("in the")
        where = _places(w, line.places)
        w.relations += [(f, p, "located_at") for f in found for p in where]
    if line.form == "after":
        w.put(line.say)
    if line.form == "suggests" and line.hint is not None:
        w.put(line.say)
        hint = w.noun(line.hint.mods, line.hint.noun, _LABEL["uncertain"])
        w.relations += [(f, hint, "suggestive_of") for f in found]


def _findings(w: _Writer, findings: Sequence[Finding], label: str, status: Status) -> list[int]:
    out, word = [], "or" if status == "absent" else "and"
    for i, f in enumerate(findings):
        if i and i == len(findings) - 1:
            if len(findings) > 2:
                w.end(",")
                w.gap = " "
            w.put(word)
        elif i:
            w.end(",")
            w.gap = " "
        out.append(w.noun(f.mods, f.noun, label))
    return out


def _places(w: _Writer, places: Sequence[Place]) -> list[int]:
    out = []
    for i, p in enumerate(places):
        if i:
            w.put("and")
        out.append(w.noun(p.mods, p.head, ANAT))
    return out
