"""The FHIR R4 specification's own examples (invented patients): one record a patient, every resource accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fabrica.catalogue.entry import Entry
from fabrica.sources import Quarantined, Ref, fhir
from fabrica.types import Item, Record

ENTRY = Entry(
    name="fhir-examples",
    title="Example resources of the FHIR R4 specification (invented patients): 5,307 files",
    kind="data",
    package="hl7.fhir.r4.examples",
    version="4.0.1",
    url_kind="npm",
    file="hl7.fhir.r4.examples-4.0.1.tgz",
    sha256="dce87f1b5b9341867033f7d1f544fa1b5232503f6d62813887ac6b8a8b6cb682",
    bytes=18_849_311,
    licence="CC0-1.0",
    members=("package/*.json",),
    reader="fabrica.catalogue.entries.fhir_examples:records",
    revision=2,
    attribution="HL7 International",
    note="Written by hand for the specification: nothing is learnt from them, they exercise a reader.",
)


def records(folder: Path) -> Iterator[Record | Quarantined]:
    """One record a patient over all files; the files that hold none (definitions, terminology, staff) are named."""
    paths = sorted((folder / "package").glob("*.json"))
    for found in fhir.read_all(Ref(p, p.name, ENTRY.name, ENTRY.licence) for p in paths):
        yield found if isinstance(found, Quarantined) else _invented(found)


def _invented(record: Record) -> Record:
    def of(item: Item) -> Item:
        return replace(item, origin=replace(item.origin, by="synthetic"))

    items = {role: tuple(of(item) for item in group) for role, group in record.items.items()}
    return record.updated(items=items, rights=ENTRY.rights)
