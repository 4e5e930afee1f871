"""Articles in JATS / NLM XML (PMC Open Access) -> one record an article, then one a figure with caption and context.

A file is one article, or a tar or zip package of articles with their images. JATS 1.3 is ANSI/NISO Z39.96-2021; what
PubMed Central stores is also NLM DTD 2.x and 3.0. The XML goes through `safe.xml`: no DTD, no entity is ever expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fabrica import safe
from fabrica.errors import Refused
from fabrica.safe import LIMITS, MIB, Limits
from fabrica.sources import Quarantined, Ref
from fabrica.sources.jats_licence import OTHER, licence, spdx
from fabrica.sources.jats_parts import (
    Figure,
    FigureKind,
    Reference,
    Section,
    Table,
    article_ids,
    figures,
    references,
    section,
)
from fabrica.sources.jats_text import Paragraph, Xref, attribute, children, plain, tag, under
from fabrica.sources.jats_write import Pictures, records
from fabrica.sources.rows import read_all
from fabrica.types import Record

__all__ = ["OTHER", "Article", "Figure", "FigureKind", "Note", "Paragraph", "Reference", "Section", "Table", "Xref",
           "parse", "read", "spdx"]  # fmt: skip

MAX_XML = 32 * MIB  # one article; the largest of PMC are about 20 MiB
MOST = 20_000  # figures, references of one article


@dataclass(frozen=True, slots=True)
class Note:
    """What an article lacks: `code` ("no_body", "no_figure_graphic", "licence_other", "licence_none",
    "sub_article", "xref_dangling") and the element's id or the licence's words."""

    code: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Article:
    """One article. `ids` by kind ("pmc", "pmid", "doi", "publisher-id" ...); `sections` the body, then the back matter
    and the floats; `date` "2012", "2012-05" or "2012-05-24", the earliest that is said."""

    ids: Mapping[str, str]
    title: str
    abstract: tuple[Paragraph, ...]
    journal: str
    date: str
    keywords: tuple[str, ...]
    categories: tuple[str, ...]
    licence: str  # SPDX id, "other", or "" where the article says nothing
    article_type: str
    sections: tuple[Section, ...]
    figures: tuple[Figure, ...]
    references: tuple[Reference, ...]
    notes: tuple[Note, ...] = ()

    @property
    def id(self) -> str:
        """The public id: "PMC123", else "pmid:123", else "doi:...", else ""."""
        if pmc := self.ids.get("pmc"):
            return pmc
        return next((f"{k}:{self.ids[k]}" for k in ("pmid", "doi") if self.ids.get(k)), "")

    @property
    def version(self) -> str:
        """The number of the version, as `article-version` or the id "PMC123.2" say it; "" where neither does."""
        return self.ids.get("version", "") or self.ids.get("pmcid-ver", "").partition(".")[2]

    @property
    def paragraphs(self) -> tuple[Paragraph, ...]:
        """All paragraphs of all sections, in order."""
        return tuple(p for top in self.sections for s in top.walk() for p in s.paragraphs)

    @property
    def tables(self) -> tuple[Table, ...]:
        """All tables, in order."""
        return tuple(t for top in self.sections for s in top.walk() for t in s.tables)

    def context(self, figure: Figure) -> tuple[Paragraph, ...]:
        """The paragraphs whose cross references name the figure, or the range that it lies in."""
        wanted = {figure.id, figure.group} - {""}
        return tuple(p for p in self.paragraphs if wanted & set(p.ids("fig")))


def parse(data: bytes, limits: Limits = LIMITS) -> Article:
    """The article of JATS or NLM XML bytes.

    Refused: `xml_bad`, `xml_entity`, `file_too_large` (above 32 MiB), `not_an_article`, `jats_too_many` (above 20,000
    figures or references).

    >>> a = parse(b'<article><front><article-meta><article-id pub-id-type="pmc">7</article-id></article-meta></front>'
    ...           b'<body><p>See <xref ref-type="fig" rid="f">Fig 1</xref>.</p><fig id="f"><caption><p>A cell.</p>'
    ...           b'</caption><graphic href="g1"/></fig></body></article>')
    >>> a.id, a.figures[0].text, a.figures[0].graphics, a.context(a.figures[0])[0].text
    ('PMC7', 'A cell.', ('g1',), 'See Fig 1.')
    """
    if len(data) > MAX_XML:
        raise Refused("file_too_large", f"an article of {len(data) >> 20} MiB; the limit is {MAX_XML >> 20} MiB")
    root = safe.xml(data, limits)
    root = root if tag(root) == "article" else next(iter(under(root, "article")), root)
    if tag(root) != "article":
        raise Refused("not_an_article", f"the XML's root is {tag(root)[:40]!r}, wanted 'article'")
    found = _article(root)
    if max(len(found.figures), len(found.references)) > MOST:
        raise Refused("jats_too_many", f"the article has more than {MOST} figures or references")
    return _ranged(found)


def _article(root: Any) -> Article:
    front = next(children(root, "front"), root)
    meta = next(iter(under(front, "article-meta")), front)
    body, back = next(children(root, "body"), None), next(children(root, "back"), None)
    floats = next(children(root, "floats-group", "floats-wrap"), None)
    parts = [section(n, k) for n, k in ((body, "body"), (back, "back"), (floats, "floats")) if n is not None]
    all_figures = figures(root)
    code, written = _licence(meta)
    notes = [] if body is not None and any(s.paragraphs for s in parts[0].walk()) else [Note("no_body")]
    notes += [Note("no_figure_graphic", f.id) for f in all_figures if f.kind == "figure" and not f.graphics]
    notes += [Note("licence_other", written)] if code == OTHER else []
    notes += [] if code else [Note("licence_none")]
    notes += [Note("sub_article", attribute(c, "id")) for c in children(root, "sub-article", "response")]
    return Article(
        article_ids(meta), _title(meta), _abstract(meta), _journal(front), _date(meta),
        tuple(plain(k) for k in under(meta, "kwd")), tuple(dict.fromkeys(plain(s) for s in under(meta, "subject"))),
        code, attribute(root, "article-type"), tuple(parts), all_figures, references(root), tuple(notes),
    )  # fmt: skip


def _title(meta: Any) -> str:
    return next((plain(t) for g in children(meta, "title-group") for t in children(g, "article-title")), "")


def _journal(front: Any) -> str:
    names = [plain(t) for m in children(front, "journal-meta") for t in under(m, "journal-title", "journal-id")]
    return next((n for m in children(front, "journal-meta") for n in map(plain, under(m, "journal-title"))), "") or (
        names[0] if names else ""
    )


def _abstract(meta: Any) -> tuple[Paragraph, ...]:
    """The abstract proper: the one without a type, else the first."""
    found = list(children(meta, "abstract"))
    node = next((a for a in found if not attribute(a, "abstract-type")), found[0] if found else None)
    if node is None:
        return ()
    return tuple(p for s in section(node, "abstract").walk() for p in s.paragraphs)


def _date(meta: Any) -> str:
    dates = []
    for node in children(meta, "pub-date"):
        got = {k: re.sub(r"\D", "", next((plain(c) for c in children(node, k)), "")) for k in ("year", "month", "day")}
        if len(got["year"]) == 4:
            rest = [got[k].zfill(2) for k in ("month", "day") if got[k]]
            dates.append("-".join([got["year"], *(rest if got["month"] else [])]))
    return min(dates, key=lambda d: (d + "-99-99")[:10], default="")


def _licence(meta: Any) -> tuple[str, str]:
    for node in children(meta, "permissions", "license"):
        if (found := licence(node))[0]:
            return found
    written = " ".join(plain(c) for c in children(meta, "copyright-statement"))  # NLM 2.x
    return spdx(written), written


# ---------------------------------------------------------------- ranges of figures

_DASH = re.compile(r"\s*(?:[-\u2010-\u2015\u2212]|to|through)\s*$", re.I)
_SPAN = re.compile(r"(\d+)\s*(?:[-\u2010-\u2015\u2212]|to|through)\s*(\d+)\b", re.I)
_LONGEST = 50


def _ranged(article: Article) -> Article:
    """Cross references to a range name every figure in it: "Figs 2-4" as one reference or as two with a dash."""
    shown = [f for f in article.figures if f.kind == "figure"]
    order = {f.id: n for n, f in reversed(list(enumerate(shown))) if f.id}
    numbers = {m.group(): f.id for f in reversed(shown) if f.id and (m := re.search(r"\d+", f.label))}

    def fill(p: Paragraph) -> Paragraph:
        if not any(x.kind == "fig" for x in p.xrefs):
            return p
        out: list[Xref] = []
        for x in p.xrefs:
            ids = list(x.ids)
            if x.kind == "fig":
                if (said := _SPAN.search(p.text[x.start : x.end])) and int(said[2]) - int(said[1]) < _LONGEST:
                    ids += [numbers[n] for n in map(str, range(int(said[1]), int(said[2]) + 1)) if n in numbers]
                before = out[-1] if out and out[-1].kind == "fig" else None
                if before is not None and _DASH.match(p.text[before.end : x.start]):
                    a, b = order.get(before.ids[-1], -1), order.get(x.ids[0], -1)
                    ids = [f.id for f in shown[a + 1 : b] if f.id and 0 <= a < b <= a + _LONGEST] + ids
            out.append(replace(x, ids=tuple(dict.fromkeys(ids))))
        return replace(p, xrefs=tuple(out))

    def each(s: Section) -> Section:
        return replace(s, paragraphs=tuple(map(fill, s.paragraphs)), sections=tuple(map(each, s.sections)))

    return replace(article, sections=tuple(map(each, article.sections)))


# ---------------------------------------------------------------- records

_PACKAGES = (".tar", ".tgz", ".zip", ".gz", ".bz2", ".xz")
_XML = (".nxml", ".xml", ".jats")


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """The record of an article, then one a figure; of a package (`PMC123.tar.gz`) those of each article in it.

    Article: subject and group "article" its public id; items `title`, `abstract`, `paragraph` (`names`: titles of the
    sections around it), `table`, `reference` (origin key "#ref/ID"); links "cites" to "pmid:N", "doi:D", "pmc:P".
    Figure: items `image` (the file beside the XML, else `Absent`), `caption`, `context` (each paragraph that refers to
    it; its cross references to it are span regions "xref"); link "part_of" to the article record. Group "problem" names
    what is wrong ("no_body", "licence_other", "image_missing" ...), "licence_group" is "commercial", "noncommercial"
    or "other". Other kinds of picture on request: `columns["kinds"]` = "figure,supplement,formula,table".
    An image that does not decode is also `Quarantined`. Refused: as `parse`, and `context_too_large`.
    """
    if ref.path.suffix.lower() not in _PACKAGES:
        data = safe.read_bytes(ref.path, replace(limits, file_bytes=min(limits.file_bytes, MAX_XML)))
        yield from records(ref, parse(data, limits), safe.sha256(data), Pictures(ref, limits, ref.path.parent))
        return
    seen = 0
    for name, reader in safe.members(ref.path, limits):
        if not name.lower().endswith(_XML):
            continue
        seen += 1
        part = replace(ref, key=f"{ref.key}/{name}")
        data = read_all(reader, replace(limits, array_bytes=min(limits.array_bytes, MAX_XML)))
        try:
            found = parse(data, limits)
        except Refused as error:
            yield Quarantined(part.key, safe.sha256(data), error.code, str(error))
            continue
        yield from records(part, found, safe.sha256(data), Pictures(part, limits, ref.path, name.rpartition("/")[0]))
    if not seen:
        raise Refused("no_article", "the package holds no .nxml or .xml file")
