"""Radiology reports in the Indiana / Open-i XML form -> report text, its sections as spans, MeSH labels.

A file is one report, or a tar or zip of them (`reports.tgz`). With `columns["image_dir"]` the report's images
(`CXR1_1_IM-0001-3001.png` ...) are attached from that folder, which must lie inside the folder of the file.
Demner-Fushman et al., "Preparing a collection of radiology examinations for distribution and retrieval", JAMIA 2016.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fabrica import safe
from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Quarantined, Ref
from fabrica.sources.attach import attach, inside
from fabrica.sources.rows import read_all
from fabrica.sources.single import hashed
from fabrica.types import Item, Origin, Record, Region, Rights, record_id

BODY = ("FINDINGS", "IMPRESSION")
NOT_FINDINGS = ("normal", "no indexing", "technical quality of image unsatisfactory")
LICENCES = {
    "http://creativecommons.org/licenses/by-nc-nd/4.0/": "CC-BY-NC-ND-4.0",
    "http://creativecommons.org/licenses/by/4.0/": "CC-BY-4.0",
}
_ARCHIVES = (".tgz", ".tar", ".zip", ".gz", ".bz2", ".xz", ".whl")


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """One record a report. In an archive, a member that is no report is quarantined and the rest goes on.

    Items: `report` (findings and impression; regions of shape span, labelled "section:findings" ..., say where each
    is), `indication`. Labels: `normal`, and each major MeSH heading's first term as 1.0. Licence: the one in the XML.
    Refused: `xml_bad`, `xml_entity`, `not_a_report`, `report_empty`.
    """
    if ref.path.suffix.lower() not in _ARCHIVES:
        yield _report(ref, ref.key, safe.read_bytes(ref.path, limits), limits)
        return
    for name, reader in safe.members(ref.path, limits):
        if not name.lower().endswith(".xml"):
            continue
        data = read_all(reader, limits)
        key = f"{ref.key}/{name}"
        try:
            yield _report(ref, key, data, limits)
        except Refused as error:
            yield Quarantined(key, safe.sha256(data), error.code, str(error))


def _report(ref: Ref, key: str, data: bytes, limits: Limits) -> Record:
    root = safe.xml(data, limits)
    sections = _sections(root)
    if not sections:
        raise Refused("not_a_report", "the XML has no AbstractText: it is no Open-i report")
    sha256 = safe.sha256(data)
    licence = LICENCES.get((root.findtext("licenseURL") or "").strip(), ref.licence)
    origin = Origin(ref.source, key, sha256, licence)
    text, spans = _joined(sections, origin)
    items: dict[str, tuple[Item, ...]] = {}
    if text:
        items["report"] = (Item("text", text, origin),)
    if sections.get("INDICATION"):
        items["indication"] = (Item("text", sections["INDICATION"], origin),)
    if images := _images(ref, root, limits):
        items["image"] = images
    if not items:
        raise Refused("report_empty", "every section of the report is empty")
    uid = (root.find("uId").get("id") if root.find("uId") is not None else None) or key
    return Record(
        record_id(ref.source, key, sha256),
        hashed("subject", ref.source, uid),
        groups={"modality": "xray", "study": hashed("study", ref.source, uid)},
        items=items,
        regions=spans,
        labels=labels([m.text or "" for m in root.iter("major")]),
        rights=Rights(licence=licence),
    )


def _sections(root: Any) -> dict[str, str]:
    found = {}
    for node in root.iter("AbstractText"):
        name = (node.get("Label") or "").upper()
        found[name] = " ".join("".join(node.itertext()).split())
    return found


def _joined(sections: dict[str, str], origin: Origin) -> tuple[str, tuple[Region, ...]]:
    parts: list[str] = []
    spans = []
    at = 0
    for name in BODY:
        if text := sections.get(name):
            span = np.array([at, at + len(text)], np.int64)
            spans.append(Region("report", "span", span, f"section:{name.lower()}", origin))
            parts.append(text)
            at += len(text) + 1
    return "\n".join(parts), tuple(spans)


def labels(headings: list[str]) -> dict[str, float]:
    """Labels of major MeSH headings: the first term of each, and `normal` 1 or 0. What is not named is unknown.

    >>> labels(["Cardiomegaly/mild", "Pleural Effusion/left"])
    {'cardiomegaly': 1.0, 'pleural effusion': 1.0, 'normal': 0.0}
    >>> labels(["normal"]), labels(["No Indexing"])
    ({'normal': 1.0}, {})
    """
    terms = [h.split("/")[0].strip().lower() for h in headings]
    found = {t: 1.0 for t in terms if t and t not in NOT_FINDINGS}
    if found:
        found["normal"] = 0.0
    elif "normal" in terms:
        found["normal"] = 1.0
    return found


def _images(ref: Ref, root: Any, limits: Limits) -> tuple[Item, ...]:
    folder = ref.columns.get("image_dir")
    if folder is None:
        return ()
    items: list[Item] = []
    for node in root.iter("parentImage"):
        for suffix in (".png", ".jpg", ".dcm"):
            path = inside(ref.path.parent / folder, f"{node.get('id')}{suffix}")
            if path.is_file():
                items += attach(path, ref, ref.licence, limits).all("image")
                break
    return tuple(items)
