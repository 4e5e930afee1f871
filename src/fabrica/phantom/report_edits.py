"""One planted edit of a synthetic report, its effect known: a denial, a side, a severity, a synonym, an order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from fabrica.phantom.report_graphs import OLD, Line, PhantomReport, Status, worded

Edit = Literal["negation", "side", "severity", "synonym", "order"]
EDITS: tuple[Edit, ...] = ("negation", "side", "severity", "synonym", "order")
_TURNED = {"left": "right", "right": "left"}
_WEIGHT = {
    "small": "large", "large": "small", "mild": "severe", "severe": "mild", "moderate": "mild", "trace": "extensive",
    "extensive": "trace", "subtle": "marked", "marked": "subtle", "tiny": "extensive", "faint": "marked",
}  # fmt: skip
_SYNONYM = {
    "effusion": "fluid", "opacity": "opacification", "edema": "oedema", "mass": "tumor", "scarring": "scar",
    "infiltrate": "airspace disease", "fracture": "broken rib", "nodule": "coin lesion",
    "atelectasis": "subsegmental collapse",
}  # fmt: skip


def edited(report: PhantomReport, edit: Edit, seed: int = 0) -> PhantomReport | None:
    """The report with one such edit, worded anew; None where it has nothing of that kind to change."""
    rng = random.Random(f"edit {edit} {seed} {report.id}")
    if edit == "order":
        order = list(range(len(report.lines)))
        for _ in range(20):
            rng.shuffle(order)
            lines = tuple(report.lines[i] for i in order)
            if lines != report.lines:
                return _again(report, lines)
        return None
    places = list(range(len(report.lines)))
    rng.shuffle(places)
    for i in places:
        made = {"negation": _negated, "side": _turned, "severity": _weighed, "synonym": _renamed}[edit](report.lines[i])
        if made is not None:
            return _again(report, (*report.lines[:i], made, *report.lines[i + 1 :]))
    return None


def _again(report: PhantomReport, lines: Sequence[Line]) -> PhantomReport:
    return worded(report.id, lines, report.style, subject=report.subject)


def _negated(line: Line) -> Line | None:
    """Affirmed to denied or back, by the first trigger of the other kind."""
    if line.form not in ("before", "after") or line.status == "uncertain":
        return None
    other: Status = "absent" if line.status == "present" else "present"
    table = OLD.before if line.form == "before" else OLD.after
    return replace(line, status=other, say=table[other][0])


def _turned(line: Line) -> Line | None:
    """The first side of a place."""
    for i, p in enumerate(line.places):
        if p.mods and p.mods[0] in _TURNED:
            turned = replace(p, mods=(_TURNED[p.mods[0]], *p.mods[1:]))
            return replace(line, places=(*line.places[:i], turned, *line.places[i + 1 :]))
    return None


def _weighed(line: Line) -> Line | None:
    """The first severity."""
    for i, f in enumerate(line.findings):
        for j, m in enumerate(f.mods):
            if m in _WEIGHT:
                made = replace(f, mods=(*f.mods[:j], _WEIGHT[m], *f.mods[j + 1 :]))
                return replace(line, findings=(*line.findings[:i], made, *line.findings[i + 1 :]))
    return None


def _renamed(line: Line) -> Line | None:
    """The first noun that has a synonym."""
    for i, f in enumerate(line.findings):
        if f.noun in _SYNONYM:
            made = replace(f, noun=_SYNONYM[f.noun])
            return replace(line, findings=(*line.findings[:i], made, *line.findings[i + 1 :]))
    return None
