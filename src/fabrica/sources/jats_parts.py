"""The parts of a JATS article: sections, figures, tables, references, ids, each from its XML element."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from fabrica.sources.jats_licence import licence
from fabrica.sources.jats_text import Paragraph, attribute, best, children, paragraphs, plain, rows, spaced, tag, under

FigureKind = Literal["figure", "supplement", "formula", "table"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table as text: `rows` a line a row, cells between tabs; "" where the table is a picture."""

    id: str
    label: str
    caption: str
    rows: str
    foot: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A section of the body, the back matter or the floats: its paragraphs, tables, then its own sections."""

    id: str
    kind: str  # sec-type, or "body", "back", "ack", "app", "notes", "floats"
    title: str
    paragraphs: tuple[Paragraph, ...] = ()
    tables: tuple[Table, ...] = ()
    sections: tuple[Section, ...] = ()

    def walk(self) -> Iterator[Section]:
        """This section and all under it, in document order."""
        yield self
        for section in self.sections:
            yield from section.walk()


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture with its words. `graphics` are hrefs as written (often without an extension); `group` the id of the
    `fig-group` around it. kind "formula" and "table" are formulas and tables that are only pictures."""

    id: str
    label: str
    title: str
    caption: tuple[Paragraph, ...]
    graphics: tuple[str, ...]
    kind: FigureKind = "figure"
    group: str = ""
    licence: str = ""  # its own, where it differs from the article's

    @property
    def text(self) -> str:
        """Title and caption paragraphs, a line each."""
        return "\n".join(t for t in (self.title, *(p.text for p in self.caption)) if t)


@dataclass(frozen=True, slots=True)
class Reference:
    """A cited work. `id` of the `ref`, with ".2" for the second citation inside it; ids are normalised."""

    id: str
    label: str
    text: str
    title: str = ""
    year: str = ""
    pmid: str = ""
    doi: str = ""
    pmcid: str = ""


# ---------------------------------------------------------------- sections

_SKIP = frozenset({"ref-list", "floats-group", "sub-article", "response"})


def section(node: Any, kind: str, path: tuple[str, ...] = ()) -> Section:
    """A `sec`, `body`, `back`, `ack`, `app` ... as a tree."""
    title = next((plain(c) for c in children(node, "title")), "")
    own = (*path, title) if title else path
    text: list[Paragraph] = []
    tables: list[Table] = []
    inner: list[Section] = []
    for child in children(node):
        name = tag(child)
        if name == "sec":
            inner.append(section(child, attribute(child, "sec-type") or "sec", own))
        elif name in ("ack", "app", "app-group", "notes", "fn-group", "glossary"):
            inner.append(section(child, {"app-group": "app", "fn-group": "notes"}.get(name, name), own))
        elif name in ("title", "label", *_SKIP):
            continue
        elif name in ("table-wrap", "table-wrap-group"):
            tables += [table(t) for t in _tables(child)]
        elif name not in ("fig", "fig-group", "supplementary-material"):
            text += paragraphs(child, own)
            tables += [table(t) for t in under(child, "table-wrap")]
    return Section(attribute(node, "id"), kind, title, tuple(text), tuple(tables), tuple(inner))


def _tables(node: Any) -> list[Any]:
    return [node] if tag(node) == "table-wrap" else list(under(node, "table-wrap"))


def table(node: Any) -> Table:
    """A `table-wrap`."""
    found = "\n".join(rows(t) for t in under(node, "table"))
    foot = " ".join(plain(c) for c in children(node, "table-wrap-foot"))
    return Table(attribute(node, "id"), _label(node), _caption(node, ())[2], found, foot)


def _label(node: Any) -> str:
    return next((plain(c) for c in children(node, "label")), "")


def _caption(node: Any, path: tuple[str, ...]) -> tuple[str, tuple[Paragraph, ...], str]:
    """(title, paragraphs, all of it a line each) of the captions that stand right under the element."""
    titles: list[str] = []
    text: list[Paragraph] = []
    for caption in children(node, "caption"):
        titles += [plain(t) for t in children(caption, "title")]
        for part in caption:
            if tag(part) not in ("title", ""):
                text += paragraphs(part, path)
        if not len(caption) and (bare := plain(caption)):
            text.append(Paragraph(bare, path))
    title = " ".join(t for t in titles if t)
    return title, tuple(text), "\n".join(t for t in (title, *(p.text for p in text)) if t)


# ---------------------------------------------------------------- figures

PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".gif", ".bmp", ".jp2")
_FILES = frozenset({".mp4", ".avi", ".mov", ".mpg", ".mpeg", ".wmv", ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".zip",
                    ".csv", ".txt", ".mp3", ".wav", ".ppt", ".pptx", ".xml", ".html"})  # fmt: skip


_PICTURED = ("fig", "fig-group", "supplementary-material", "disp-formula", "inline-formula", "table-wrap")


def figures(root: Any) -> tuple[Figure, ...]:
    """Every picture that the article names, in document order, none of a sub-article."""
    found: list[Figure] = []
    grouped: set[Any] = set()
    for node in under(root, *_PICTURED):
        name = tag(node)
        if name == "fig":
            if node not in grouped:
                found.append(_figure(node, "figure"))
        elif name == "fig-group":
            members = list(under(node, "fig"))
            grouped.update(members)
            found += _group(node, members)
        elif name == "supplementary-material":
            found.append(_figure(node, "supplement"))
        elif (graphics := _graphics(node)) and not _written(node):
            found.append(_figure(node, "table" if name == "table-wrap" else "formula", graphics))
    return tuple(found)


def _written(node: Any) -> bool:
    """Whether a formula or a table is there as text too."""
    return any(True for _ in under(node, "math", "tex-math", "table"))


def _group(node: Any, members: list[Any]) -> list[Figure]:
    """The figures of a `fig-group`; what one lacks (label, caption) it takes from the group."""
    label, (title, text, _) = _label(node), _caption(node, ())
    name = attribute(node, "id")
    out = []
    if own := _graphics(node):
        out.append(Figure(name, label, title, text, own, group=name))
    for member in members:
        figure = _figure(member, "figure")
        bare = not figure.text
        out.append(
            Figure(
                figure.id, figure.label or label, title if bare else figure.title, text if bare else figure.caption,
                figure.graphics, group=name or "group", licence=figure.licence,
            )
        )  # fmt: skip
    return out


def _figure(node: Any, kind: FigureKind, graphics: tuple[str, ...] | None = None) -> Figure:
    title, text, _ = _caption(node, ())
    permissions = next(children(node, "permissions"), None)
    return Figure(
        attribute(node, "id"), _label(node), title, text, _graphics(node) if graphics is None else graphics, kind,
        licence="" if permissions is None else licence(permissions)[0],
    )  # fmt: skip


def _graphics(node: Any) -> tuple[str, ...]:
    """Hrefs of the pictures right under an element, or under its `alternatives` (one of these); not of its caption."""
    found: list[str] = []
    for child in children(node):
        name = tag(child)
        if name in ("graphic", "media", "inline-graphic"):
            found += _href(child)
        elif name == "alternatives":
            hrefs = [h for c in children(child, "graphic", "media", "inline-graphic") for h in _href(c)]
            found += sorted(hrefs, key=_preference)[:1]
        elif name in ("p", "fig-panel"):  # older tagging: <fig><p><graphic/></p></fig>
            found += _graphics(child)
    own = _href(node) if tag(node) == "supplementary-material" else []
    return tuple(dict.fromkeys([*found, *own]))


def _href(node: Any) -> list[str]:
    href = attribute(node, "href")
    kind = attribute(node, "mimetype")
    ending = re.search(r"\.[A-Za-z0-9]{2,5}$", href)
    if not href or (ending and ending.group().lower() in _FILES) or kind in ("video", "application", "audio", "text"):
        return []
    return [href]


def _preference(href: str) -> int:
    ending = next((e for e in PICTURES if href.lower().endswith(e)), "")
    return PICTURES.index(ending) if ending else 1


# ---------------------------------------------------------------- references and ids


def references(root: Any) -> tuple[Reference, ...]:
    """Every citation of every `ref`, in order; a `ref` that holds nothing gives a reference with empty text."""
    out: list[Reference] = []
    for n, ref in enumerate(under(root, "ref"), 1):
        name = attribute(ref, "id") or f"ref-{n}"
        cites = [c for c in children(ref) if "citation" in tag(c)] or [ref]
        for m, cite in enumerate(cites):
            out.append(_reference(ref, cite, name if m == 0 else f"{name}.{m + 1}"))
    return tuple(out)


def _reference(ref: Any, cite: Any, name: str) -> Reference:
    ids: dict[str, str] = {}
    for node in under(cite, "pub-id", "ext-link", "article-id", "object-id"):
        kind = attribute(node, "pub-id-type") or attribute(node, "ext-link-type")
        ids.setdefault(*_identifier(kind, plain(node) or attribute(node, "href"), attribute(node, "href")))
    if tag(cite) == "citation-alternatives":
        cite = best(cite)
    title = next((plain(t) for t in under(cite, "article-title", "chapter-title")), "")
    year = next((plain(t) for t in under(cite, "year")), "")
    return Reference(
        name, _label(ref), spaced(cite), title, year, ids.get("pmid", ""), ids.get("doi", ""), ids.get("pmc", "")
    )


_DOI = re.compile(r"10\.\d{4,9}/\S+")


def _identifier(kind: str, text: str, href: str) -> tuple[str, str]:
    """("pmid" | "doi" | "pmc" | "", the id): "" for what is none.

    >>> _identifier("pmid", " 16845428 ", ""), _identifier("uri", "link", "https://doi.org/10.1/x")
    (('pmid', '16845428'), ('', ''))
    >>> _identifier("uri", "link", "https://doi.org/10.1038/NRM1.")
    ('doi', '10.1038/nrm1')
    """
    digits = re.sub(r"\D", "", text)
    if kind in ("pmid", "pubmed") and digits:
        return "pmid", digits.lstrip("0")
    if kind in ("pmc", "pmcid", "pmc-id") and digits:
        return "pmc", f"PMC{digits}"
    if kind == "doi" or "doi.org/" in href:
        found = _DOI.search(text) or _DOI.search(href)
        return ("doi", found.group().rstrip(".,;)").lower()) if found else ("", "")
    return "", ""


def article_ids(meta: Any) -> Mapping[str, str]:
    """Ids of an article by kind: "pmc" ("PMC" + digits), "pmid", "doi" normalised, others as written."""
    out: dict[str, str] = {}
    for node in children(meta, "article-id"):
        kind, text = attribute(node, "pub-id-type"), plain(node)
        known, value = _identifier(kind, text, "")
        if known or text:
            out.setdefault(known or kind or "id", value or text)
    for node in under(meta, "article-version"):
        out.setdefault("version", plain(node))
    return MappingProxyType(out)
