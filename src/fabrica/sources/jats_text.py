"""Mixed XML content -> running text: paragraphs with their cross references, formulas, table rows. Pure functions of
lxml elements that `safe.xml` gave."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.entities import html5
from typing import Any

from fabrica.sources.jats_math import formula


@dataclass(frozen=True, slots=True)
class Xref:
    """A cross reference in a paragraph: `kind` as JATS names it ("fig", "bibr", "table" ...), the ids it names, and
    where its text stands (characters)."""

    kind: str
    ids: tuple[str, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Text with white space collapsed, the titles of the sections around it, its cross references in order."""

    text: str
    path: tuple[str, ...] = ()
    xrefs: tuple[Xref, ...] = ()

    def ids(self, kind: str) -> tuple[str, ...]:
        """The ids named by cross references of `kind`, in order, each once."""
        return tuple(dict.fromkeys(i for x in self.xrefs if x.kind == kind for i in x.ids))


FLOATS = frozenset(
    {"fig", "fig-group", "table-wrap", "table-wrap-group", "supplementary-material", "floats-group", "ref-list",
     "object-id", "permissions", "sub-article", "response"}
)  # fmt: skip
_BLOCKS = frozenset(
    {"p", "list", "list-item", "disp-quote", "boxed-text", "statement", "def-list", "def-item", "def", "term",
     "verse-group", "verse-line", "speech", "disp-formula-group", "fn", "fn-group", "ack", "app", "app-group", "notes",
     "glossary", "question", "answer", "caption", "title", "sec", "note", "bio"}
)  # fmt: skip
_FORMULAS = frozenset({"disp-formula", "inline-formula", "tex-math", "math"})
_SILENT = frozenset({"graphic", "inline-graphic", "media", "alt-text", "long-desc", "index-term", "object-id"})
INLINE = frozenset(
    {"italic", "bold", "sub", "sup", "sc", "underline", "roman", "monospace", "named-content", "xref", "ext-link",
     "styled-content", "overline", "strike"}
)  # fmt: skip


def tag(node: Any) -> str:
    """The element's name without its namespace; "" for comments, instructions and entities.

    >>> from fabrica.safe import xml
    >>> tag(xml('<m:math xmlns:m="urn:x"/>'))
    'math'
    """
    return node.tag.rsplit("}", 1)[-1] if isinstance(node.tag, str) else ""


def attribute(node: Any, name: str) -> str:
    """An attribute by its local name ("href" takes `xlink:href`), "" where there is none."""
    for key, value in node.attrib.items():
        if key.rsplit("}", 1)[-1] == name:
            return str(value).strip()
    return ""


def children(node: Any, *names: str) -> Iterator[Any]:
    """The child elements with one of `names` (all named ones where none is given)."""
    return (c for c in node if tag(c) and (not names or tag(c) in names))


def under(node: Any, *names: str) -> Iterator[Any]:
    """Descendants with one of `names` in document order, but none inside a sub-article or a response."""
    for child in node:
        name = tag(child)
        if name in ("sub-article", "response"):
            continue
        if name in names:
            yield child
        yield from under(child, *names)


def plain(node: Any) -> str:
    """All text of an element on one line, floats left out.

    >>> from fabrica.safe import xml
    >>> plain(xml("<p>M<italic>m</italic>PPOX at 10<sup>-6</sup> M<fig><label>no</label></fig>\\n now</p>"))
    'MmPPOX at 10^-6 M now'
    """
    return " ".join(p.text for p in paragraphs(node))


def paragraphs(node: Any, path: tuple[str, ...] = ()) -> tuple[Paragraph, ...]:
    """The paragraphs of an element, floats left out; nested lists, quotes and boxes give paragraphs of their own."""
    flow = _Flow(path)
    flow.walk(node)
    flow.flush()
    return tuple(flow.done)


@dataclass(slots=True)
class _Flow:
    path: tuple[str, ...]
    done: list[Paragraph] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    length: int = 0
    space: bool = False  # a space is owed before the next character
    xrefs: list[Xref] = field(default_factory=list)

    def add(self, text: str | None) -> None:
        """Append text, white space collapsed to one space, none at the start."""
        if not text:
            return
        words = text.split()
        if not words:
            self.space = self.space or self.length > 0
            return
        lead = self.length > 0 and (self.space or text[0].isspace())
        piece = (" " if lead else "") + " ".join(words)
        self.parts.append(piece)
        self.length += len(piece)
        self.space = text[-1].isspace()

    def flush(self) -> None:
        """End the paragraph."""
        if self.length:
            self.done.append(Paragraph("".join(self.parts), self.path, tuple(self.xrefs)))
        self.parts, self.length, self.space, self.xrefs = [], 0, False, []

    def walk(self, node: Any) -> None:
        """The content of `node`; its tail is its parent's."""
        self.add(node.text if tag(node) else None)
        for child in node:
            self.child(child)
            self.add(child.tail)

    def child(self, node: Any) -> None:
        name = tag(node)
        if not name:
            self.add(entity(node))
        elif name in FLOATS or name in _SILENT:
            self.space = self.space or self.length > 0
        elif name in _FORMULAS:
            self.formula(node, name)
        elif name == "xref":
            self.xref(node)
        elif name == "alternatives":
            self.child(best(node)) if len(node) else None
        elif name in ("break", "hr"):
            self.add(" ")
        elif name == "sup" and self.parts and self.parts[-1][-1:].isdigit() and not self.space:
            if _EXPONENT.match((node.text or "").strip()) and not len(node):  # 10^-6
                self.parts.append("^")
                self.length += 1
            elif any(tag(c) == "xref" for c in node):  # a citation's number behind a number
                self.space = True
            self.walk(node)
        elif name in _BLOCKS:
            self.flush()
            self.walk(node)
            self.flush()
        else:
            self.walk(node)

    def formula(self, node: Any, name: str) -> None:
        text = formula(node)
        self.add(f" {text} " if name == "disp-formula" else text)

    def xref(self, node: Any) -> None:
        start = self.length + (1 if self.space and self.length else 0)
        self.walk(node)
        ids = tuple(attribute(node, "rid").split())
        if ids and self.length >= start:
            self.xrefs.append(Xref(attribute(node, "ref-type"), ids, start, self.length))


def entity(node: Any) -> str:
    """The text of an entity reference that no DTD was read for: the names that HTML shares with the ISO sets.

    `&alpha;` is "α"; a name that is not known stays as it is written."""
    text = getattr(node, "text", None) or ""
    if not (text.startswith("&") and text.endswith(";")):
        return ""  # a comment or a processing instruction
    return html5.get(text[1:], text)


def best(node: Any) -> Any:
    """Of `alternatives` the one that holds text: a table, MathML, TeX, before a picture of it."""
    order = ("table", "math", "tex-math", "textual-form", "inline-formula", "citation", "mixed-citation")
    named = list(children(node))
    return next((c for want in order for c in named if tag(c) == want), named[0] if named else node)


_EXPONENT = re.compile(r"[-+\u2212\u2013]?\d{1,3}$")


def rows(table: Any) -> str:
    """A table as text: a line a row, cells between tabs; a cell over several columns is written once.

    >>> from fabrica.safe import xml
    >>> rows(xml("<table><tr><th>a</th><th/></tr><tr><td>1</td><td>2 <b>x</b></td></tr></table>"))
    'a\\t\\n1\\t2 x'
    """
    return "\n".join("\t".join(plain(cell) for cell in children(row, "td", "th")) for row in under(table, "tr"))


def spaced(node: Any) -> str:
    """The text of a citation: elements that touch each other get a space, unless one is a formatting element.

    >>> from fabrica.safe import xml
    >>> spaced(xml("<c><name><surname>Rich</surname><given-names>KM</given-names></name>. <volume>8</volume>: 52</c>"))
    'Rich KM. 8: 52'
    """
    return " ".join(_spaced(node).split())


def _spaced(node: Any) -> str:
    parts = [node.text or ""] if tag(node) else [entity(node)]
    last = ""
    for child in node:
        name = tag(child)
        if name in _SILENT:
            continue
        if name and last and not parts[-1] and name not in INLINE and last not in INLINE:
            parts.append(", " if name == last == "name" else " ")
        parts.append(formula(child) if name in _FORMULAS else _spaced(child))
        parts.append(child.tail or "")
        last = name
    return "".join(parts)
