"""Where patient notes stand in a case report: four passes in a fixed order (PMC-Patients, Zhao et al. 2023)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Pass = Literal["section", "label", "trigger", "title"]
PASSES: tuple[Pass, ...] = ("section", "label", "trigger", "title")


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph and the titles of the sections that hold it, outermost first."""

    path: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """Text that may be one patient's note, and which pass found it."""

    text: str
    found_by: Pass


_START = r"^\W*(?:(?:\d{1,2}|[IVX]{1,4})(?:\.\d{1,2})*[.)]?\s+)?"
_NOUN = r"(?:reports?|presentations?|descriptions?|details?|histor(?:y|ies)|stud(?:y|ies)|summar(?:y|ies)|vignettes?)"
_ORDER = r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|last|other)"
_COUNT = r"(?:\d{1,2}|[ivx]{1,4}|[a-h]|one|two|three|four|five|six|seven|eight|nine|ten)"
_LABEL = (
    rf"(?:(?:clinical\s+)?(?:case|patient)(?:\s+{_NOUN})?\s*(?:no\.?|number|nr\.?|\#|:|-)?\s*[(\[]?{_COUNT}[)\]]?(?![\w-])"
    rf"|(?:the\s+)?{_ORDER}\s+(?:case|patient)(?:\s+{_NOUN})?)"
)
_SECTION = re.compile(rf"{_START}{_LABEL}(?:\s*[.:,(]|\s+[-\u2013\u2014]\s|\s*$)(?!\s*(?:and|&|to)\b)", re.IGNORECASE)
_EXACT = re.compile(rf"{_START}{_LABEL}\s*[.:]?\s*$", re.IGNORECASE)
_TRIGGER = re.compile(
    rf"^\W*(?:(?:case|patient)(?:\s+{_NOUN})?\s*(?:no\.?|number|nr\.?|\#)?\s*[(\[]?{_COUNT}[)\]]?(?![\w-])"
    rf"|(?:the|our)\s+{_ORDER}\s+(?:case|patient)\b)",
    re.IGNORECASE,
)
_ABOUT = re.compile(r"\b(?:cases?|patients?|clinical|medical)\b", re.IGNORECASE)
MOST_HEAD = 200  # characters of a title or paragraph that the patterns read
_CONSENT = re.compile(r"consent|approv", re.IGNORECASE)
_CASE = re.compile(
    rf"{_START}(?:clinical\s+)?(?:cases?|patients?)(?:\s+{_NOUN}(?:\s*(?:and|&|with|of|/|:|-)\s.*)?)?(?:\(s\))?\W*$",
    re.IGNORECASE,
)


def candidates(paragraphs: Sequence[Paragraph]) -> list[Candidate]:
    """The notes of one article by the first pass that finds any:

    1. "section": sections titled "Case 1", "Patient B", "Case report (iii)", level by level, the outermost first;
    2. "label": paragraphs that are exactly such a label, at least two in a section about cases or patients: what
       stands between them, without them, the last up to the section's end;
    3. "trigger": paragraphs there that begin with "Case n ..." or "The/Our first patient ...", at least two: from one
       to the next, with them;
    4. "title": the first section titled "Case report", "Clinical case", "Patient presentation" ... as one note.

    Sections on consent or approval are nobody's note. Paragraphs are joined by line breaks.

    >>> p = [Paragraph(("Cases", "Case 1"), "A man."), Paragraph(("Cases", "Case 2"), "A woman.")]
    >>> [(c.text, c.found_by) for c in candidates(p)]
    [('A man.', 'section'), ('A woman.', 'section')]
    """
    short = (Paragraph(tuple(map(_head, p.path)), p.text) for p in paragraphs)
    kept = [p for p in short if not any(_CONSENT.search(title) for title in p.path)]
    for name, rule in _RULES.items():
        texts = [text for text in rule(kept) if text.strip()]
        if texts:
            return [Candidate(text, name) for text in texts]
    return []


def _sections(paragraphs: Sequence[Paragraph]) -> list[str]:
    for level in range(max((len(p.path) for p in paragraphs), default=0)):
        found = [
            _joined(run)
            for path, run in _runs(paragraphs, lambda p, level=level: p.path[: level + 1])  # type: ignore[misc]
            if len(path) == level + 1 and _SECTION.search(path[level])
        ]
        if found:
            return found
    return []


def _labelled(paragraphs: Sequence[Paragraph]) -> list[str]:
    return _cut(paragraphs, _EXACT, keep=False)


def _triggered(paragraphs: Sequence[Paragraph]) -> list[str]:
    return _cut(paragraphs, _TRIGGER, keep=True)


def _cut(paragraphs: Sequence[Paragraph], mark: re.Pattern[str], *, keep: bool) -> list[str]:
    """Notes of the sections about cases in which at least two paragraphs match `mark`."""
    out: list[str] = []
    for path, run in _runs(paragraphs, lambda p: _about(p.path)):
        at = [i for i, p in enumerate(run) if mark.search(_head(p.text))]
        if path and len(at) >= 2:
            ends = [*at[1:], len(run)]
            out += [_joined(run[start + (not keep) : end]) for start, end in zip(at, ends, strict=True)]
    return out


def _titled(paragraphs: Sequence[Paragraph]) -> list[str]:
    for paragraph in paragraphs:
        for level, title in enumerate(paragraph.path):
            if _CASE.search(title):
                path = paragraph.path[: level + 1]
                return [_joined([p for p in paragraphs if p.path[: level + 1] == path])]
    return []


_RULES: dict[Pass, Callable[[Sequence[Paragraph]], list[str]]] = {
    "section": _sections, "label": _labelled, "trigger": _triggered, "title": _titled,
}  # fmt: skip


def _about(path: tuple[str, ...]) -> tuple[str, ...]:
    """The outermost section about cases or patients that holds a paragraph; () where there is none."""
    return next((path[: i + 1] for i, title in enumerate(path) if _ABOUT.search(title)), ())


def _runs(
    paragraphs: Sequence[Paragraph], key: Callable[[Paragraph], tuple[str, ...]]
) -> Iterator[tuple[tuple[str, ...], list[Paragraph]]]:
    """Neighbours of one key."""
    held: list[Paragraph] = []
    for paragraph in paragraphs:
        if held and key(held[0]) != key(paragraph):
            yield key(held[0]), held
            held = []
        held.append(paragraph)
    if held:
        yield key(held[0]), held


def _head(text: str) -> str:
    """The beginning of a text with single spaces: what the patterns read, however long or blank a paragraph is."""
    return " ".join(text[:MOST_HEAD].split()) + ("\u2026" if len(text) > MOST_HEAD else "")


def _joined(paragraphs: Sequence[Paragraph]) -> str:
    return "\n".join(p.text for p in paragraphs)
