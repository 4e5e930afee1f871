"""Case reports to patient notes: one record a patient, with age and gender, from articles whose licence allows it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from fabrica.curate.articles.note_grammar import Candidate, Paragraph, candidates
from fabrica.errors import UsageError
from fabrica.text.demographics import Found, demographics, to_text, years
from fabrica.types import Drop, Item, Link, Record, Region, record_id

STEP = "case_notes"  # in `Origin.steps` of every note
LICENCES = ("CC0", "CC-BY", "CC-BY-NC", "CC-BY-NC-SA")  # families of the PMC open access subset that may be cut up
NOTE, ARTICLE = "note", "article"  # values of groups["modality"], and the note's role


@dataclass(kw_only=True)
class CaseNotes:
    """Article records (role "paragraph", `names` = titles of the sections around it) -> their notes.

    A note record: role "note" (text), `groups` modality "note", article, patient (ARTICLE-k, k from 1), pmid, and
    "pass", which of the four passes of `note_grammar.candidates` found it; labels `age_years` and `female` (0/1), and
    spans "age" and "gender" that say where they were read (`text.demographics.from_text` reads the span's text); a link
    "derived_from" the article. It belongs to the article's subject and has its rights.

    Articles whose licence is in none of the families `licences` are left out altogether (licence), as are those without
    title or body text (no_title, no_body) and records that are no articles (not_article). Notes are left out that are
    equal to an earlier one of the article (duplicate_text), have fewer than `min_words` words (short_text) or more than
    `max_non_ascii` of their characters outside ASCII (non_ascii), are of animals (animal), or tell no age (no_age), no
    gender (no_gender) or two (gender_conflict). An age or a gender that the note does not tell is taken from the
    article's title where the article has one candidate alone. Articles pass on before their notes if `keep_articles`;
    else those without a note are dropped (no_note).
    """

    licences: Sequence[str] = LICENCES
    min_words: int = 10
    max_non_ascii: float = 0.03
    gender_conflict_chars: int = 20
    keep_articles: bool = True
    name: str = field(default=STEP, init=False)
    version: str = field(default="1", init=False)

    def __post_init__(self) -> None:
        if (
            isinstance(self.licences, str)
            or not self.licences
            or self.min_words < 1
            or not 0 <= self.max_non_ascii <= 1
        ):
            raise UsageError(
                f"licences={self.licences!r}, min_words={self.min_words}, max_non_ascii={self.max_non_ascii}: wanted a "
                "list of licence families, at least 1 word and a share from 0 to 1"
            )

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Articles (if kept), each followed by its notes."""
        allowed = {family(name) for name in self.licences}
        for record in records:
            reason = self._refused(record, allowed)
            if reason is not None:
                drop(record, reason)
                continue
            if self.keep_articles:
                yield record
            notes = list(self._notes(record, drop))
            if not notes and not self.keep_articles:
                drop(record, "no_note")
            yield from notes

    def _refused(self, record: Record, allowed: set[str]) -> str | None:
        if record.groups.get("modality") != ARTICLE:
            return "not_article"
        if family(record.rights.licence) not in allowed:
            return "licence"
        if record.first("title") is None:
            return "no_title"
        return "no_body" if record.first("paragraph") is None else None

    def _notes(self, article: Record, drop: Drop) -> Iterator[Record]:
        items = [item for item in article.all("paragraph") if item.kind == "text"]
        found = candidates([Paragraph(item.names, item.text()) for item in items])
        title = article.first("title") if len(found) == 1 else None
        seen: set[str] = set()
        kept = 0
        for number, candidate in enumerate(found):
            read = self._read(candidate.text, title.text() if title is not None else "")
            reason = "duplicate_text" if candidate.text in seen else self._why_not(candidate, read)
            note = _note(article, items[0], candidate, number, read)
            seen.add(candidate.text)
            if reason is None:
                kept += 1
                patient = f"{article.groups.get('article') or article.subject}-{kept}"
                yield replace(note, groups={**note.groups, "patient": patient})
            else:
                drop(note, reason)

    def _read(self, text: str, title: str) -> _Read:
        """What note and title tell; the title speaks only where the note is silent."""
        note = demographics(text, conflict_chars=self.gender_conflict_chars)
        silent = not note.conflict and (note.age is None or note.gender is None)
        return _Read(
            note, demographics(title, conflict_chars=self.gender_conflict_chars) if silent and title else Found()
        )

    def _why_not(self, candidate: Candidate, read: _Read) -> str | None:
        text = candidate.text
        if len(text.split()) < self.min_words:
            return "short_text"
        if sum(not c.isascii() for c in text) > self.max_non_ascii * len(text):
            return "non_ascii"
        if read.note.animal or read.title.animal:
            return "animal"
        if read.note.conflict or (read.note.gender is None and read.title.conflict):
            return "gender_conflict"
        if read.note.age is None and read.title.age is None:
            return "no_age"
        return "no_gender" if read.note.gender is None and read.title.gender is None else None


class _Read(NamedTuple):
    note: Found
    title: Found


def family(licence: str) -> str:
    """A Creative Commons licence without its version, in upper case with hyphens.

    >>> family("CC-BY-NC-4.0"), family("cc by 3.0 IGO"), family("CC0-1.0"), family("NO-CC CODE")
    ('CC-BY-NC', 'CC-BY', 'CC0', 'NO-CC-CODE')
    """
    return re.sub(r"-\d+(\.\d+)*.*$", "", re.sub(r"[\s_-]+", "-", licence.strip()).upper())


def _note(article: Record, first: Item, candidate: Candidate, number: int, read: _Read) -> Record:
    origin = first.origin.then(STEP)
    items = {"title": tuple(article.all("title")), NOTE: (Item("text", candidate.text, origin),)}
    groups = {"modality": NOTE, ARTICLE: article.groups.get("article") or article.subject, "pass": candidate.found_by}
    groups |= {k: v for k in ("pmid", "journal") if (v := article.groups.get(k))}
    labels: dict[str, float] = {}
    regions: list[Region] = []
    for role, found in (("title", read.title), (NOTE, read.note)):  # the note's own word comes last and stands
        if found.age is not None and found.age_span is not None and not (role == "title" and read.note.age):
            labels["age_years"] = years(found.age)
            regions.append(Region(role, "span", np.array(found.age_span), "age", origin, text=to_text(found.age)))
        if found.gender is not None and found.gender_span is not None and not (role == "title" and read.note.gender):
            labels["female"] = float(found.gender == "F")
            regions.append(Region(role, "span", np.array(found.gender_span), "gender", origin, text=found.gender))
    return Record(
        record_id("note", article.id, str(number)), article.subject, groups, items, tuple(regions), labels,
        (Link("derived_from", article.id),), article.rights,
    )  # fmt: skip
