"""What an article says about its licence -> an SPDX id, "other" for words that name none, "" for silence."""

from __future__ import annotations

import re
from typing import Any

from fabrica.sources.jats_text import attribute, spaced, tag, under

OTHER = "other"
_CC = re.compile(r"creativecommons\.org/licen[sc]es?/(by(?:-nc)?(?:-nd|-sa)?|by-nd-nc)/?(\d\.\d)?", re.I)
_WORDS = re.compile(
    r"\bcc[ -]?by(?:[ -](nc))?(?:[ -](sa|nd))?\b(?:[ -]v?(\d\.\d))?"
    r"|creative commons attribution((?:[ ,/-]*(?:non-?\s?commercial|share-?\s?alike|no-?\s?deriv\w*|works|and))*)"
    r"[^.]{0,40}?(?:licen[cs]e)?[ (,]*(?:version )?(\d\.\d)?",
    re.I,
)


def licence(node: Any) -> tuple[str, str]:
    """(SPDX id, what was written) of `permissions` or `license`; "other" for a text that names no known licence, ""
    where nothing is said. A Creative Commons family whose version is not said has none in its name ("CC-BY")."""
    said = [attribute(n, "href") for n in (node, *under(node, "license", "ext-link", "uri"))]
    said += ["".join(n.itertext()) for n in under(node, "license_ref")]
    words = " ".join(spaced(n) for n in ([node] if tag(node) == "license" else under(node, "license")))
    copyright_ = " ".join(spaced(n) for n in under(node, "copyright-statement"))
    links = [s for s in said if s]
    for text in (*links, words, copyright_):
        if found := spdx(text):
            return found, text
    written = words or " ".join(links)
    return (OTHER, " ".join(written.split())[:500]) if written.strip() else ("", "")


def spdx(text: str) -> str:
    """The SPDX id of a licence URL or sentence, "" for none that is known.

    >>> spdx("http://creativecommons.org/licenses/by-nc/3.0"), spdx("https://creativecommons.org/publicdomain/zero/1.0/")
    ('CC-BY-NC-3.0', 'CC0-1.0')
    >>> spdx("under the Creative Commons Attribution Non-Commercial License"), spdx("all rights reserved")
    ('CC-BY-NC', '')
    """
    low = " ".join(text.split())
    if re.search(r"publicdomain/zero|\bcc[ -]?0\b|cc0-1\.0", low, re.I):
        return "CC0-1.0"
    if re.search(r"publicdomain/mark", low, re.I):
        return "CC-PDM-1.0"
    if found := _CC.search(low):
        family = found.group(1).upper().replace("BY-ND-NC", "BY-NC-ND")
        return f"CC-{family}" + (f"-{found.group(2)}" if found.group(2) else "")
    if not (said := _WORDS.search(low)):
        return ""
    if said.group(4) is None:  # "CC BY-NC 4.0"
        parts = ["CC-BY", *(g.upper() for g in said.group(1, 2) if g)]
        return "-".join(parts + ([said.group(3)] if said.group(3) else []))
    clause = re.sub(r"[^a-z]", "", said.group(4).lower())
    clauses = (("NC", "noncommercial"), ("SA", "sharealike"), ("ND", "noderiv"))
    parts = ["CC-BY", *(short for short, word in clauses if word in clause)]
    return "-".join(parts + ([said.group(5)] if said.group(5) else []))


_COMMERCIAL = ("CC0", "CC-BY", "CC-PDM")


def licence_group(licence: str) -> str:
    """The group of the PMC Open Access list: "commercial" (CC0, BY, BY-SA, BY-ND), "noncommercial" (BY-NC...), "other".

    >>> licence_group("CC-BY-ND-4.0"), licence_group("CC-BY-NC-SA-4.0"), licence_group("other")
    ('commercial', 'noncommercial', 'other')
    """
    if not licence.startswith(_COMMERCIAL):
        return "other"
    return "noncommercial" if "-NC" in licence else "commercial"
