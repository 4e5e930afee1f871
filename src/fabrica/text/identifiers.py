"""Free-text identifiers: found by rules that can be read, replaced by typed tags, dates by shifted dates.

Covers the kinds of HIPAA's safe harbour (45 CFR 164.514(b)(2)) as they stand in clinical English and German: names,
dates, ages over 89, telephone and record numbers, e-mail, URLs, network addresses, places smaller than a state,
institutions, device serials, DICOM UIDs. Clinical eponyms, measurements, scores and scanner models stay.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fabrica.text.identifier_dates import dates, shift_date
from fabrica.text.identifier_names import names
from fabrica.text.identifier_numbers import numbers, places, windows
from fabrica.text.identifier_words import vocabulary

KINDS = ("name", "date", "age", "phone", "email", "url", "ip", "id", "uid", "address", "place", "institution")
VERSION = "2"  # part of every step's and report's version: change it with any rule or list


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters [start, end) that identify somebody, and how (`KINDS`)."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """A text without identifiers. `edits`: (start, end) in the old text and the new words; `counts` by kind."""

    text: str
    edits: tuple[tuple[int, int, str], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)

    def moved(self, at: int) -> int:
        """Where a character offset of the old text lies in the new one; inside a replaced part: its start.

        >>> scrub("Seen by Dr. Kowalski today.").moved(21)
        19
        """
        drift = 0
        for start, end, new in self.edits:
            if at <= start:
                break
            if at < end:
                return start + drift
            drift += len(new) - (end - start)
        return at + drift


class Known:
    """Names and numbers known from structured fields (patients, staff): found wherever they stand in a text.

    A part of a name counts from three letters, unless it is a word of clinical prose ("Long", "Brown"): those are
    found beside another part of the same name only. Any number of values: a text is looked up word by word.

    >>> known = Known(["Nowicka^Zofia", "A-77231", "Long^June"])
    >>> known.spans("zofia nowicka (A-77231), June Long; as long as June")
    [(0, 5, 'name'), (6, 13, 'name'), (15, 22, 'id'), (25, 34, 'name')]
    """

    __slots__ = ("_numbers", "_pairs", "_parts", "values", "version")
    name = "known_identifiers"

    def __init__(self, values: Iterable[str]) -> None:
        self.values = tuple(sorted({v.strip() for v in values if len(v.strip()) >= 3}))
        self.version = hashlib.sha256("\x1f".join(self.values).encode()).hexdigest()[:8]
        self._parts: set[str] = set()
        self._pairs: set[tuple[str, str]] = set()
        self._numbers: set[str] = set()
        for value in self.values:
            if any(c.isdigit() for c in value):
                self._numbers.add(value.lower())
                continue
            words = [w.lower() for w in _PART.findall(value) if len(w) > 1]
            self._parts |= {w for w in words if len(w) > 2 and w not in vocabulary()}
            self._pairs |= {(a, b) for a in words for b in words if a != b and (a in vocabulary() or b in vocabulary())}

    def __bool__(self) -> bool:
        return bool(self.values)

    def spans(self, text: str) -> list[tuple[int, int, str]]:
        """(start, end, "name" or "id") of every occurrence."""
        out: list[tuple[int, int, str]] = []
        before, start, end = "", 0, -9
        for m in _PART.finditer(text) if self._parts or self._pairs else ():
            word = m[0].lower()
            if word in self._parts:
                out.append((m.start(), m.end(), "name"))
            elif (before, word) in self._pairs and m.start() - end <= 2:
                out.append((start, m.end(), "name"))
            before, start, end = word, m.start(), m.end()
        if self._numbers:
            out += [(m.start(), m.end(), "id") for m in _CODE.finditer(text) if m[0].lower() in self._numbers]
        return sorted(out)


_PART = re.compile(r"[^\W\d_][^\W\d_'’-]*(?:['’-][^\W\d_]+)*")
_CODE = re.compile(r"\w(?:[\w./-]*\w)?")
_RANK = {"email": 0, "url": 0, "uid": 1, "ip": 1, "address": 2, "date": 3, "phone": 4, "id": 5, "age": 6}


def find(text: str, known: Known | None = None) -> tuple[Span, ...]:
    """Identifiers in order, without overlap: where two meet, the longer kept whole and the rest joined to it.

    >>> [(s.kind, "Call 617-555-0143 on 2 May 2020"[s.start : s.end]) for s in find("Call 617-555-0143 on 2 May 2020")]
    [('phone', '617-555-0143'), ('date', '2 May 2020')]
    """
    near = windows(text)
    found = [*numbers(text, near), *dates(text, near), *places(text, near), *names(text)]
    if known is not None:
        found += known.spans(text)
    found.sort(key=lambda s: (s[0], -s[1], _RANK.get(s[2], 9)))
    out: list[Span] = []
    for start, end, kind in found:
        if out and start < out[-1].end:
            last = out[-1]
            if end > last.end:  # they overlap: one span of both, of the kind of the longer part
                kept = kind if end - start > last.end - last.start else last.kind
                out[-1] = Span(last.start, end, "id" if kept in ("date", "uid", "age") else kept)
            continue
        out.append(Span(start, end, kind))
    return tuple(out)


def scrub(
    text: str, *, days: int | None = None, uid: Callable[[str], str] | None = None, known: Known | None = None
) -> Scrubbed:
    """The text with identifiers replaced: "[NAME]", "[ID]" ...; full dates moved by `days` in their own format (else
    "[DATE]"); UIDs through `uid` (else "[UID]"); ages over 89 become 90+. `known` names of patients and staff go too.

    >>> scrub("Mr. Jan Kowalski, MRN 4471932, seen 03/02/2021; GCS 15, BP 120/80.", days=-31).text
    'Mr. [NAME], MRN [ID], seen 01/30/2021; GCS 15, BP 120/80.'
    """
    spans = find(text, known)
    edits = tuple((s.start, s.end, _instead(text[s.start : s.end], s.kind, days, uid)) for s in spans)
    parts, at = [], 0
    for start, end, new in edits:
        parts += [text[at:start], new]
        at = end
    return Scrubbed("".join([*parts, text[at:]]), edits, dict(Counter(s.kind for s in spans)))


def _instead(old: str, kind: str, days: int | None, uid: Callable[[str], str] | None) -> str:
    if kind == "date" and days is not None:
        return shift_date(old, days) or "[DATE]"
    if kind == "uid" and uid is not None:
        return uid(old)
    return "90+" if kind == "age" else f"[{kind.upper()}]"
