"""MEDLINE / PubMed XML (`PubmedArticleSet`, plain or gzip) -> one record an article, one article in memory at a time.

The file is cut at `<PubmedArticle>` and each piece is parsed on its own through `safe.xml`: no DTD, no entities, and a
broken article costs itself alone. Layout: items `title`, `abstract` (one text a section, `names` = its label); labels
`mesh/TERM` = 1 for each MeSH heading, and `major/TERM` where it is a main topic; links `cites`, `corrects`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fabrica.errors import Refused
from fabrica.safe import LIMITS, MIB, Limits, sha256, xml
from fabrica.sources import Quarantined, Ref, rights_of
from fabrica.sources.stream import open_text
from fabrica.types import Absent, Item, Link, Origin, Record, record_id

_BEGIN = re.compile(rb"<PubmedArticle[\s>]")
_END = b"</PubmedArticle>"
_MOST = 16 * MIB  # of one article
_CORRECTS = {"RetractionOf": "retracts", "ErratumFor": "corrects", "CommentOn": "comments_on", "UpdateOf": "updates"}


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """The articles of a file. Quarantined by itself: `xml_bad`, `xml_entity`, `no_pmid`, `no_text` (neither title nor
    abstract), `article_too_large`. Refused for the whole file: `medline_bad` (no article in it),
    `medline_cut`, and those of `safe`."""
    found = 0
    for piece in pieces(ref, limits):
        found += 1
        key = f"{ref.key}#{found}"
        try:
            if piece is None:
                raise Refused("article_too_large", f"an article of more than {_MOST >> 20} MiB")
            yield article(ref, key, xml(piece, limits), sha256(piece))
        except Refused as error:
            yield Quarantined(key, "" if piece is None else sha256(piece), error.code, str(error))
    if not found:
        raise Refused("medline_bad", f"{ref.path.name!r} holds no PubmedArticle")


def pieces(ref: Ref, limits: Limits = LIMITS) -> Iterator[bytes | None]:
    """The bytes of each `<PubmedArticle>...</PubmedArticle>`; None for one that is too large."""
    with open_text(ref.path, limits) as file:
        held, inside, lost = b"", False, False
        while chunk := file.read(MIB):
            held += chunk
            while True:
                if not inside:
                    begin = _BEGIN.search(held)
                    if begin is None:
                        held = held[-32:]
                        break
                    held, inside, lost = held[begin.start() :], True, False
                end = held.find(_END)
                if end < 0:
                    if len(held) > _MOST:
                        held, lost = held[-32:], True
                    break
                end += len(_END)
                yield None if lost else held[:end]
                held, inside = held[end:], False
        if inside:
            raise Refused("medline_cut", f"{ref.path.name!r} ends inside an article")


def article(ref: Ref, key: str, root: Any, digest: str) -> Record:
    """The record of one `PubmedArticle` element."""
    pmid = (root.findtext("MedlineCitation/PMID") or "").strip()
    if not (pmid.isascii() and pmid.isdigit()):
        raise Refused("no_pmid", "an article without a PubMed number")
    origin = Origin(ref.source, f"pmid:{pmid}", digest, ref.licence)
    about = root.find("MedlineCitation/Article")
    items = _texts(about, origin) if about is not None else {}
    if not items:
        raise Refused("no_text", "an article with neither title nor abstract")
    return Record(
        record_id(ref.source, "pmid", pmid, digest), f"pmid:{pmid}", groups=_groups(root, pmid), items=items,
        labels=_mesh(root), links=_links(root, pmid), rights=rights_of(ref),
    )  # fmt: skip


def _texts(about: Any, origin: Origin) -> dict[str, tuple[Item, ...]]:
    items: dict[str, tuple[Item, ...]] = {}
    if title := spaced(about.find("ArticleTitle")):
        items["title"] = (Item("text", title, origin),)
    sections = []
    for node in about.iterfind("Abstract/AbstractText"):
        if text := spaced(node):
            label = (node.get("Label") or "").strip()
            sections.append(Item("text", text, origin, names=(label,) if label else ()))
    if sections:
        items["abstract"] = tuple(sections)
    elif items:
        items["abstract"] = (Item("text", Absent.NOT_DONE, origin),)
    return items


def _groups(root: Any, pmid: str) -> dict[str, str]:
    year = root.findtext("MedlineCitation/Article/Journal/JournalIssue/PubDate/Year") or (
        root.findtext("MedlineCitation/Article/Journal/JournalIssue/PubDate/MedlineDate") or ""
    )
    said = {
        "modality": "article", "article": f"pmid:{pmid}", "pmid": pmid,
        "journal": spaced(root.find("MedlineCitation/MedlineJournalInfo/MedlineTA")),
        "year": year[:4] if year[:4].isdigit() else "",
        "language": (root.findtext("MedlineCitation/Article/Language") or "").strip(),
        "status": (root.find("MedlineCitation").get("Status") or "").lower(),
    }  # fmt: skip
    ids = {n.get("IdType"): (n.text or "").strip() for n in root.iterfind("PubmedData/ArticleIdList/ArticleId")}
    return {k: v for k, v in {**said, "doi": ids.get("doi", ""), "pmc": ids.get("pmc", "")}.items() if v}


def _mesh(root: Any) -> dict[str, float | Absent]:
    labels: dict[str, float | Absent] = {}
    for heading in root.iterfind("MedlineCitation/MeshHeadingList/MeshHeading"):
        name = spaced(heading.find("DescriptorName"))
        if name:
            labels[f"mesh/{name}"] = 1.0
            if any(n.get("MajorTopicYN") == "Y" for n in heading):
                labels[f"major/{name}"] = 1.0
    return labels


def _links(root: Any, pmid: str) -> tuple[Link, ...]:
    links: dict[Link, None] = {}
    for node in root.iterfind("PubmedData/ReferenceList//Reference"):
        ids = {n.get("IdType"): (n.text or "").strip() for n in node.iterfind("ArticleIdList/ArticleId")}
        kind = next((k for k in ("pubmed", "doi", "pmc") if ids.get(k)), None)
        if kind is not None and (kind != "pubmed" or ids["pubmed"] != pmid):
            links[Link("cites", f"{'pmid' if kind == 'pubmed' else kind}:{ids[kind]}")] = None
    for node in root.iterfind("MedlineCitation/CommentsCorrectionsList/CommentsCorrections"):
        to = (node.findtext("PMID") or "").strip()
        if to.isascii() and to.isdigit():
            rel = "cites" if node.get("RefType") == "Cites" else _CORRECTS.get(node.get("RefType") or "")
            if rel:
                links[Link(rel, f"pmid:{to}")] = None
    return tuple(links)


def spaced(node: Any) -> str:
    """The text of an element with its children, white space folded.

    >>> spaced(xml(b"<a>CO<sub>2</sub>  in\\n blood</a>"))
    'CO2 in blood'
    """
    return "" if node is None else " ".join("".join(node.itertext()).split())
