"""Sections of a radiology report by their headings, and the parts of it that report what was seen."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from types import MappingProxyType

NAMES = MappingProxyType(
    {
        "findings": "findings;finding;description;observations",
        "impression": "impression;impressions;conclusion;conclusions;summary;opinion;diagnosis",
        "indication": "indication;indications;reason for exam;reason for examination;reason for study;reason;"
        "clinical indication;clinical information;clinical question;clinical data",
        "history": "history;clinical history;clinical statement;patient history",
        "comparison": "comparison;comparisons;comparison study;prior studies",
        "technique": "technique;procedure;views;procedure comments",
        "examination": "examination;exam;study;type of examination",
        "recommendation": "recommendation;recommendations",
        "report": "report;final report",
    }
)
SKIPPED = ("indication", "history", "comparison", "technique", "examination")  # what was asked or done, not seen
_OF = {" ".join(w.split()): name for name, many in NAMES.items() for w in many.split(";")}


def _any(upper: bool) -> str:
    known = sorted(_OF, key=len, reverse=True)
    return "|".join(re.escape(w.upper() if upper else w).replace("\\ ", r"\s+") for w in known)


_HEADING = re.compile(  # at the start of a line in any case, elsewhere in capitals
    rf"(?:(?m:^)[ \t]*(?i:({_any(False)}))|(?<![\w-])({_any(True)}))[ \t]*:"
)


@dataclass(frozen=True, slots=True)
class Section:
    """A section's name ("" before the first heading) and its characters, heading left out."""

    name: str
    start: int
    end: int


def sections(text: str) -> list[Section]:
    """Sections in order; one that has no visible character is left out.

    >>> text = "INDICATION: rule out pneumonia. FINDINGS: No effusion."
    >>> [(s.name, text[s.start : s.end].strip()) for s in sections(text)]
    [('indication', 'rule out pneumonia.'), ('findings', 'No effusion.')]
    """
    marks = list(_HEADING.finditer(text))
    ends = [m.start() for m in marks] + [len(text)]
    out = [Section("", 0, ends[0])]
    for mark, end in zip(marks, ends[1:], strict=True):
        out.append(Section(_OF[" ".join((mark[1] or mark[2]).lower().split())], mark.end(), end))
    return [s for s in out if text[s.start : s.end].strip()]


def told(text: str, skip: Collection[str] = SKIPPED) -> list[tuple[int, int]]:
    """(start, end) of the parts that are read: all sections but those of `skip`."""
    return [(s.start, s.end) for s in sections(text) if s.name not in skip]
