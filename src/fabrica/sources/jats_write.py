"""An article as records: the article's own, then one a figure with its image, caption and context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fabrica import safe
from fabrica.errors import Refused
from fabrica.safe import MIB, Limits
from fabrica.sources import Quarantined, Ref, image
from fabrica.sources.attach import inside
from fabrica.sources.jats_licence import OTHER, licence_group
from fabrica.sources.jats_parts import PICTURES, Figure, Table
from fabrica.sources.rows import read_all
from fabrica.sources.single import hashed
from fabrica.types import Absent, Item, Link, Origin, Record, Region, Rights, record_id

if TYPE_CHECKING:
    from fabrica.sources.jats import Article
    from fabrica.sources.jats_text import Paragraph

MAX_CONTEXT = 64 * MIB  # characters of context of all figures of one article together
MAX_PICTURES = 512 * MIB  # bytes of the pictures of one package that are held at a time


class Pictures:
    """The image files of an article: beside its XML in a folder, or beside it in a package (`inner` its folder)."""

    def __init__(self, ref: Ref, limits: Limits, where: Path, inner: str | None = None) -> None:
        self.ref, self.limits, self.where, self.inner = ref, limits, where, inner
        self.held: dict[str, bytes] = {}

    def prepare(self, hrefs: set[str]) -> None:
        """Hold the bytes of these pictures of a package."""
        if self.inner is None or not hrefs:
            return
        names = {f"{self.inner}/{c}".lstrip("/") for h in hrefs for c in candidates(h)}
        total = 0
        for name, reader in safe.members(self.where, self.limits):
            if name in names and total < MAX_PICTURES:
                self.held[name] = read_all(reader, self.limits)
                total += len(self.held[name])

    def find(self, href: str) -> tuple[str, bytes] | None:
        """(name, bytes) of the picture that `href` means; None where it is missing."""
        for name in candidates(href):
            if self.inner is not None:
                if (data := self.held.get(f"{self.inner}/{name}".lstrip("/"))) is not None:
                    return name, data
                continue
            path = inside(self.where, name)
            if path.is_file():
                return name, safe.read_bytes(path, self.limits)
        return None


def candidates(href: str) -> list[str]:
    """File names that an href may mean, most likely first: JATS often leaves the extension out, and a package holds a
    JPEG where the XML says TIFF.

    >>> candidates("pone.0000217.g001")[:2], candidates("a.tif")[:3]
    (['pone.0000217.g001', 'pone.0000217.g001.jpg'], ['a.tif', 'a.jpg', 'a.jpeg'])
    """
    known = next((e for e in PICTURES if href.lower().endswith(e)), "")
    bare = href[: len(href) - len(known)] if known else href
    return list(dict.fromkeys([href, *(bare + e for e in PICTURES)]))


def records(ref: Ref, article: Article, sha256: str, pictures: Pictures) -> Iterator[Record | Quarantined]:
    """The article's record, then its figures'."""
    kinds = {k.strip() for k in (ref.columns.get("kinds") or "figure").split(",")}
    shown = [f for f in article.figures if f.kind in kinds]
    context = [article.context(f) for f in shown]
    if sum(len(p.text) for c in context for p in c) > MAX_CONTEXT:
        raise Refused("context_too_large", "the figures' context repeats too much text")
    licence = article.licence or ref.licence or OTHER
    subject = article.id or hashed("subject", ref.source, ref.key)
    groups = {
        "article": subject, "journal": article.journal, "pmid": article.ids.get("pmid", ""), "date": article.date,
        "article_type": article.article_type, "licence_group": licence_group(licence), "edition": sha256[:12],
        "version": article.version,
    }  # fmt: skip
    whole = _article(ref, article, Origin(ref.source, ref.key, sha256, licence), subject, groups)
    yield whole
    pictures.prepare({g for f in shown for g in f.graphics})
    for n, (figure, paragraphs) in enumerate(zip(shown, context, strict=True)):
        own = figure.licence or licence
        origin = Origin(ref.source, f"{ref.key}#figure/{figure.id or n + 1}", sha256, own)
        images, problems = _images(figure, origin, pictures)
        yield from (p for p in problems if isinstance(p, Quarantined))
        codes = sorted({p.code if isinstance(p, Quarantined) else p for p in problems})
        said = {
            **groups, "modality": "figure", "figure": figure.label or figure.id or str(n + 1),
            "figure_kind": figure.kind, "figure_group": figure.group, "licence_group": licence_group(own),
            "problem": ",".join(codes),
        }  # fmt: skip
        items: dict[str, tuple[Item, ...]] = {"image": images}
        if figure.text:
            items["caption"] = (Item("text", figure.text, origin),)
        if paragraphs:
            items["context"] = tuple(Item("text", p.text, origin, names=p.path) for p in paragraphs)
        yield Record(
            record_id(ref.source, ref.key, sha256, "figure", str(n), figure.id), subject,
            groups={k: v for k, v in said.items() if v}, items=items, regions=_mentions(figure, paragraphs, origin),
            links=(Link("part_of", whole.id),), rights=Rights(licence=own, attribution=_attribution(article)),
        )  # fmt: skip


def _article(ref: Ref, article: Article, origin: Origin, subject: str, groups: Mapping[str, str]) -> Record:
    def texts(part: str, values: Iterator[tuple[str, str, tuple[str, ...]]]) -> tuple[Item, ...]:
        return tuple(
            Item("text", text, replace(origin, key=f"{ref.key}#{part}/{name}"), names=path)
            for name, text, path in values
            if text
        )

    items = {
        "title": texts("title", iter([("1", article.title, ())])),
        "abstract": texts("abstract", ((str(n), p.text, p.path) for n, p in enumerate(article.abstract, 1))),
        "paragraph": texts("paragraph", ((str(n), p.text, p.path) for n, p in enumerate(article.paragraphs, 1))),
        "table": texts("table", ((t.id or str(n), _table(t), ()) for n, t in enumerate(article.tables, 1))),
        "reference": texts("ref", ((r.id, r.text or r.title, ()) for r in article.references)),
        "keyword": texts("keyword", ((str(n), k, ()) for n, k in enumerate(article.keywords, 1))),
    }
    problems = sorted({n.code for n in article.notes})
    said = {**groups, "modality": "article", "problem": ",".join(problems), "doi": article.ids.get("doi", "")}
    cited = [
        f"{kind}:{value}"
        for r in article.references
        for kind, value in (("pmid", r.pmid), ("doi", r.doi), ("pmc", r.pmcid))
        if value
    ]
    return Record(
        record_id(ref.source, ref.key, origin.sha256, "article"), subject,
        groups={k: v for k, v in said.items() if v}, items={k: v for k, v in items.items() if v},
        links=tuple(Link("cites", c) for c in dict.fromkeys(cited)),
        rights=Rights(licence=origin.licence, attribution=_attribution(article)),
    )  # fmt: skip


def _table(table: Table) -> str:
    return "\n".join(t for t in (f"{table.label} {table.caption}".strip(), table.rows, table.foot) if t)


def _attribution(article: Article) -> str:
    return ", ".join(t for t in (article.title[:200], article.journal, article.date[:4], article.id) if t)


def _mentions(figure: Figure, paragraphs: tuple[Paragraph, ...], origin: Origin) -> tuple[Region, ...]:
    wanted = {figure.id, figure.group} - {""}
    return tuple(
        Region("context", "span", np.array([x.start, x.end], np.int64), "xref", origin, n, p.text[x.start : x.end])
        for n, p in enumerate(paragraphs)
        for x in p.xrefs
        if x.kind == "fig" and wanted & set(x.ids)
    )


def _images(figure: Figure, origin: Origin, pictures: Pictures) -> tuple[tuple[Item, ...], list[str | Quarantined]]:
    """The image items of a figure, one a graphic, and what was wrong with them."""
    if not figure.graphics:
        return (Item("image", Absent.NOT_LINKED, origin),), ["no_figure_graphic"]
    items: list[Item] = []
    problems: list[str | Quarantined] = []
    folder = origin.key.split("#")[0].rpartition("/")[0]
    for href in figure.graphics:
        try:
            found = pictures.find(href)
            if found is None:
                raise Refused("image_missing", "the image is not in the package")
            name, data = found
            key = f"{folder}/{name}".lstrip("/")
            where = Origin(origin.source, key, safe.sha256(data), origin.licence)
            try:
                array, steps = image.decode(data, pictures.limits)
                if "frames" in steps:
                    array = array[0]
            except Refused as error:
                items.append(Item("image", Absent.UNREADABLE, where))
                problems.append(Quarantined(key, where.sha256, error.code, str(error)))
                continue
            items.append(Item("image", array, replace(where, steps=steps)))
        except Refused as error:
            items.append(Item("image", Absent.NOT_LINKED, origin))
            problems.append(error.code)
    return tuple(items), problems
