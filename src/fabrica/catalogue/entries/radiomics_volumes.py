"""Five volumes with lesion masks from the PyRadiomics test set (MR brain and breast, CT lung), NRRD."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fabrica.catalogue.entry import Entry
from fabrica.sources import Quarantined, Ref, read
from fabrica.types import Record

ENTRY = Entry(
    name="radiomics-volumes",
    title="Two brain MR, one breast MR, two lung CT volumes, each with a lesion mask",
    kind="data",
    package="pyradiomics",
    version="3.1.0",
    url_kind="sdist",
    file="pyradiomics-3.1.0.tar.gz",
    sha256="24722c962a6bbd09bc39c1c67dbffe92435f9692a421fabaae8a6b4511eb48e4",
    bytes=34_461_233,
    licence="BSD-3-Clause",
    members=("pyradiomics-*/data/*.nrrd",),
    reader="fabrica.catalogue.entries.radiomics_volumes:records",
    attribution="van Griethuysen et al. 2017, PyRadiomics",
)
MODALITY = {"brain": "mr", "breast": "mr", "lung": "ct"}


def records(folder: Path) -> Iterator[Record | Quarantined]:
    """One record a volume with its affine; the mask is a region labelled "lesion". CT is in HU."""
    for path in sorted(folder.rglob("*_image.nrrd")):
        name = path.stem.removesuffix("_image")
        organ = name.rstrip("0123456789")
        columns = {"subject": name, "modality": MODALITY[organ], "group:organ": organ, "mask_label": "lesion"}
        columns["mask"] = f"{name}_label.nrrd"
        for found in read(Ref(path, path.name, ENTRY.name, ENTRY.licence, columns)):
            yield found if isinstance(found, Quarantined) else _with_unit(found, MODALITY[organ])


def _with_unit(found: Record, modality: str) -> Record:
    unit = "HU" if modality == "ct" else None
    items = {role: tuple(replace(item, unit=unit) for item in items) for role, items in found.items.items()}
    regions = tuple(replace(r, origin=replace(r.origin, by="human")) for r in found.regions)
    return found.updated(items=items, regions=regions, rights=ENTRY.rights)
