"""Synthetic articles as JATS XML: `Paper` is the truth, `write` its bytes, with each trap of real files on request.

Texts are written with marks, `[[fig:F1|Figure 1A]]`, `[[cite:R3|3]]`, `[[tex:x^{2}|x^2]]`, `[[italic:p]]`, `[[sub:2]]`;
`plain` gives what a reader must read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr


@dataclass(frozen=True, slots=True)
class PaperFigure:
    """`caption` are its paragraphs (marked text), `panels` (letter, sub-caption) where it is compound, `graphics` the
    image file names; `kind` "fig" or "formula" (a picture of an equation: no label, no caption)."""

    id: str
    label: str = ""
    title: str = ""
    caption: tuple[str, ...] = ()
    panels: tuple[tuple[str, str], ...] = ()
    graphics: tuple[str, ...] = ()
    group: str = ""  # figures of one group stand in one `fig-group`
    kind: str = "fig"

    @property
    def text(self) -> str:
        """Title and caption as a reader must read them, a line each."""
        return "\n".join(plain(t) for t in (self.title, *self.caption) if t)


@dataclass(frozen=True, slots=True)
class PaperReference:
    """A cited work; ids as they are written ("" = none)."""

    id: str
    title: str
    pmid: str = ""
    doi: str = ""
    journal: str = "J Synth Med"
    year: str = "2019"


@dataclass(frozen=True, slots=True)
class PaperSection:
    """`paragraphs` are marked texts; `figures` are written behind them."""

    title: str
    paragraphs: tuple[str, ...] = ()
    sections: tuple[PaperSection, ...] = ()
    figures: tuple[PaperFigure, ...] = ()
    tables: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = ()  # (caption, rows of cells)

    def walk(self, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], PaperSection]]:
        """(titles around it and its own, section) in document order."""
        own = (*path, self.title) if self.title else path
        return [(own, self), *(x for s in self.sections for x in s.walk(own))]


@dataclass(frozen=True, slots=True)
class Paper:
    """The truth of an article. `traps` are ways to write it that change nothing of what it says: see `TRAPS`."""

    pmcid: str = ""
    pmid: str = ""
    doi: str = ""
    title: str = ""
    abstract: tuple[str, ...] = ()
    journal: str = "Journal of Synthetic Medicine"
    date: str = "2020-01-01"
    keywords: tuple[str, ...] = ()
    categories: tuple[str, ...] = ("Research Article",)
    licence: str = "CC-BY-4.0"  # SPDX, "other", "" = nothing said
    article_type: str = "research-article"
    sections: tuple[PaperSection, ...] = ()
    references: tuple[PaperReference, ...] = ()
    traps: frozenset[str] = field(default_factory=frozenset)

    @property
    def figures(self) -> tuple[PaperFigure, ...]:
        """All figures in document order."""
        return tuple(f for top in self.sections for _, s in top.walk() for f in s.figures)

    @property
    def paragraphs(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        """(section titles, marked text) of every paragraph, in order."""
        return tuple((path, p) for top in self.sections for path, s in top.walk() for p in s.paragraphs)

    def context(self, figure: str) -> tuple[str, ...]:
        """The paragraphs, as a reader must read them, that mention the figure of this id."""
        return tuple(plain(p) for _, p in self.paragraphs if figure in mentioned(p))


TRAPS = (
    "cdata",  # captions as CDATA where they hold no mark
    "entities",  # ISO entity names for Greek letters and dashes, under a DOCTYPE
    "floats",  # figures in a floats-group behind the back matter
    "nested_xref",  # the cross reference inside <sup> or <bold>, its text inside <bold>
    "ranges",  # "Figs 2-4" as two cross references with a dash between, the middle not named
    "namespace",  # a prefix on every element
    "spaces",  # line breaks and indents inside texts
    "alternatives",  # two forms of a graphic, one to be taken
)
_MARK = re.compile(r"\[\[(\w+):([^|\]]*)(?:\|([^\]]*))?\]\]")


def plain(marked: str) -> str:
    """The text without its marks.

    >>> plain("See [[fig:F1|Figure 1A]] and [[cite:R3|3]]; x[[sub:2]] = [[tex:x^{2}|x^2]].")
    'See Figure 1A and 3; x2 = x^2.'
    """
    return _MARK.sub(lambda m: m[2] if m[3] is None else m[3], marked)


def mentioned(marked: str, kind: str = "fig") -> tuple[str, ...]:
    """The ids that marks of `kind` name ("fig", "cite"), in order, each once.

    >>> mentioned("[[fig:F2,F3,F4|Figs 2-4]]")
    ('F2', 'F3', 'F4')
    """
    return tuple(dict.fromkeys(i for m in _MARK.finditer(marked) if m[1] == kind for i in m[2].split(",")))


_GREEK = {"α": "&alpha;", "β": "&beta;", "μ": "&mu;", "–": "&ndash;", "±": "&plusmn;", "≥": "&ge;", "≤": "&le;"}


@dataclass(frozen=True, slots=True)
class _Writer:
    traps: frozenset[str]

    def text(self, marked: str) -> str:
        out, at = [], 0
        for m in _MARK.finditer(marked):
            out.append(self.bare(marked[at : m.start()]))
            out.append(self.mark(m[1], m[2], m[3]))
            at = m.end()
        return "".join([*out, self.bare(marked[at:])])

    def bare(self, text: str) -> str:
        text = escape(text)
        if "entities" in self.traps:
            for letter, name in _GREEK.items():
                text = text.replace(letter, name)
        if "spaces" in self.traps:
            text = text.replace(". ", ".\n      ")
        return text

    def mark(self, kind: str, value: str, said: str | None) -> str:
        if kind in ("fig", "cite"):
            return self.xref("fig" if kind == "fig" else "bibr", value.split(","), said or "")
        if kind == "tex":
            body = rf"\documentclass{{minimal}}\begin{{document}}$${value}$$\end{{document}}"
            return f"<inline-formula><tex-math><![CDATA[{body}]]></tex-math></inline-formula>"
        return f"<{kind}>{self.bare(value)}</{kind}>"

    def xref(self, kind: str, ids: list[str], said: str) -> str:
        last = re.search(r"(.*\d)\s*([-–])\s*(\d+)$", said)
        if kind == "fig" and "ranges" in self.traps and len(ids) > 2 and last:
            first = self.xref(kind, ids[:1], last[1])
            return first + self.bare(last[2]) + self.xref(kind, ids[-1:], last[3])
        text = self.bare(said)
        if "nested_xref" in self.traps:
            text = f"<bold>{text}</bold>"
        found = f"<xref ref-type={quoteattr(kind)} rid={quoteattr(' '.join(ids))}>{text}</xref>"
        return f"<sup>{found}</sup>" if "nested_xref" in self.traps and kind == "bibr" else found

    def paragraph(self, marked: str) -> str:
        if "cdata" in self.traps and "[[" not in marked and "]]>" not in marked:
            return f"<p><![CDATA[{marked}]]></p>"
        return f"<p>{self.text(marked)}</p>"

    def figure(self, f: PaperFigure) -> str:
        graphics = "".join(self.graphic(g) for g in f.graphics)
        if f.kind == "formula":
            return f"<disp-formula id={quoteattr(f.id)}>{graphics}</disp-formula>"
        label = f"<label>{self.bare(f.label)}</label>" if f.label else ""
        title = f"<title>{self.text(f.title)}</title>" if f.title else ""
        words = title + "".join(map(self.paragraph, f.caption))
        caption = f"<caption>{words}</caption>" if words else ""
        return f'<fig id={quoteattr(f.id)} position="float">{label}{caption}{graphics}</fig>'

    def graphic(self, name: str) -> str:
        found = f"<graphic xlink:href={quoteattr(name)}/>"
        if "alternatives" in self.traps:
            small = quoteattr(name.rpartition(".")[0] + ".gif" if "." in name else name + ".gif")
            return f"<alternatives><graphic xlink:href={small}/>{found}</alternatives>"
        return found

    def figures(self, figures: tuple[PaperFigure, ...]) -> str:
        out, group = [], ""
        for f in figures:
            if f.group != group:
                out.append("</fig-group>" if group else "")
                out.append(f"<fig-group id={quoteattr(f.group)}>" if f.group else "")
                group = f.group
            out.append(self.figure(f))
        return "".join([*out, "</fig-group>" if group else ""])

    def section(self, s: PaperSection, n: str) -> str:
        title = f"<title>{self.text(s.title)}</title>" if s.title else ""
        shown = tuple(f for f in s.figures if f.kind == "formula" or "floats" not in self.traps)
        tables = "".join(self.table(c, r, f"T{n}.{i}") for i, (c, r) in enumerate(s.tables, 1))
        inner = "".join(self.section(x, f"{n}.{i}") for i, x in enumerate(s.sections, 1))
        text = "".join(map(self.paragraph, s.paragraphs))
        return f'<sec id="s{n}">{title}{text}{self.figures(shown)}{tables}{inner}</sec>'

    def table(self, caption: str, rows: tuple[tuple[str, ...], ...], name: str) -> str:
        lines = "".join("<tr>" + "".join(f"<td>{self.text(c)}</td>" for c in row) + "</tr>" for row in rows)
        words = f"<caption>{self.paragraph(caption)}</caption>" if caption else ""
        return f"<table-wrap id={quoteattr(name)}>{words}<table><tbody>{lines}</tbody></table></table-wrap>"

    def reference(self, r: PaperReference) -> str:
        ids = "".join(
            f'<pub-id pub-id-type="{k}">{self.bare(v)}</pub-id>' for k, v in (("pmid", r.pmid), ("doi", r.doi)) if v
        )
        return (
            f"<ref id={quoteattr(r.id)}><mixed-citation><article-title>{self.text(r.title)}</article-title>. "
            f"<source>{self.bare(r.journal)}</source>. <year>{r.year}</year>{ids}</mixed-citation></ref>"
        )

    def front(self, p: Paper) -> str:
        ids = "".join(
            f'<article-id pub-id-type="{k}">{self.bare(v)}</article-id>'
            for k, v in (("pmc", p.pmcid.removeprefix("PMC")), ("pmid", p.pmid), ("doi", p.doi)) if v
        )  # fmt: skip
        day = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("year", "month", "day"), p.date.split("-"), strict=False))
        return (
            f"<front><journal-meta><journal-title-group><journal-title>{self.bare(p.journal)}</journal-title>"
            f"</journal-title-group></journal-meta><article-meta>{ids}<article-categories>"
            + "".join(f"<subj-group><subject>{self.bare(c)}</subject></subj-group>" for c in p.categories)
            + f"</article-categories><title-group><article-title>{self.text(p.title)}</article-title></title-group>"
            f'<pub-date pub-type="epub">{day}</pub-date>{permissions(p.licence)}'
            + (f"<abstract>{''.join(map(self.paragraph, p.abstract))}</abstract>" if p.abstract else "")
            + (
                f"<kwd-group>{''.join(f'<kwd>{self.bare(k)}</kwd>' for k in p.keywords)}</kwd-group>"
                if p.keywords
                else ""
            )
            + "</article-meta></front>"
        )


def permissions(licence: str) -> str:
    """The `permissions` element of an SPDX id; "other" a text that names no licence, "" nothing."""
    if not licence:
        return ""
    if licence == "other":
        return "<permissions><license><license-p>Readable on this synthetic site.</license-p></license></permissions>"
    found = re.fullmatch(r"CC-(BY(?:-NC)?(?:-SA|-ND)?)-(\d\.\d)", licence)
    path = (
        "publicdomain/zero/1.0" if licence == "CC0-1.0" else f"licenses/{found[1].lower()}/{found[2]}" if found else ""
    )
    if not path:
        raise ValueError(f"licence {licence!r}; wanted CC0-1.0, CC-BY...-V, other or nothing")
    url = f"https://creativecommons.org/{path}/"
    return (
        f"<permissions><license xlink:href={quoteattr(url)}><license-p>Open access.</license-p></license></permissions>"
    )


_DOCTYPE = (
    '<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) Journal Archiving and Interchange DTD v1.2 20190208//EN" '
    '"JATS-archivearticle1.dtd">\n'
)


def write(paper: Paper) -> bytes:
    """The article as JATS 1.2 XML, the same bytes every time.

    >>> from fabrica.sources.jats import parse
    >>> figure = PaperFigure("F1", "Figure 1", "Chest.", ("(A) A lung.",), graphics=("g1",))
    >>> body = PaperSection("Results", ("Seen in [[fig:F1|Figure 1]].",), figures=(figure,))
    >>> a = parse(write(Paper("PMC1", title="T", sections=(body,), traps=frozenset({"cdata", "nested_xref"}))))
    >>> a.figures[0].text == figure.text, [p.text for p in a.context(a.figures[0])]
    (True, ['Seen in Figure 1.'])
    """
    if stray := paper.traps - set(TRAPS):
        raise ValueError(f"traps {sorted(stray)}; known: {', '.join(TRAPS)}")
    w = _Writer(paper.traps)
    body = "".join(w.section(s, str(n)) for n, s in enumerate(paper.sections, 1))
    refs = "".join(map(w.reference, paper.references))
    floats = w.figures(tuple(f for f in paper.figures if f.kind != "formula")) if "floats" in paper.traps else ""
    text = (
        f'<article xmlns:xlink="http://www.w3.org/1999/xlink" article-type={quoteattr(paper.article_type)}>'
        f"{w.front(paper)}"
        + (f"<body>{body}</body>" if body else "")
        + (f"<back><ref-list>{refs}</ref-list></back>" if refs else "")
        + (f"<floats-group>{floats}</floats-group>" if floats else "")
        + "</article>"
    )
    if "namespace" in paper.traps:
        text = re.sub(r"<(/?)(?=[a-z])", r"<\1j:", text).replace("<j:article ", '<j:article xmlns:j="urn:jats" ', 1)
    head = '<?xml version="1.0" encoding="UTF-8"?>\n' + (_DOCTYPE if "entities" in paper.traps else "")
    return (head + text + "\n").encode()
