"""Indiana University chest X-ray reports (Open-i), text and MeSH labels; the images are not in the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fabrica.catalogue.entry import Entry
from fabrica.safe import LIMITS
from fabrica.sources import Quarantined, Ref, reader
from fabrica.types import Record

MEMBERS = (
    "torchxrayvision/data/NLMCXR_reports.tgz",
    "torchxrayvision/data/chexpert_train.csv.gz",
    "torchxrayvision/data/Data_Entry_2017_v2020.csv.gz",
    "torchxrayvision/data/vinbigdata-train.csv.gz",
    "torchxrayvision/data/siim-pneumothorax-train-rle.csv.gz",
    "torchxrayvision/data/kaggle_stage_2_train_labels.csv.zip",
)  # shared with xray-tables; the restricted PadChest table is never unpacked
ENTRY = Entry(
    name="xray-reports",
    title="3,955 Indiana University chest X-ray reports with MeSH labels (no images)",
    kind="data",
    package="torchxrayvision",
    version="1.5.7",
    file="torchxrayvision-1.5.7-py3-none-any.whl",
    sha256="95f6c3475661f3515d4258deb0855bd5d1b1a56e0b65384251d3dd3fa61fac41",
    bytes=29_002_185,
    licence="CC-BY-NC-ND-4.0",
    members=MEMBERS,
    reader="fabrica.catalogue.entries.xray_reports:records",
    share="ids_only",
    attribution="Demner-Fushman et al. 2016, Indiana University",
    note="NC-ND: no derived text may be passed on; exports carry ids only.",
)


def records(folder: Path) -> Iterator[Record | Quarantined]:
    """One record a report (see `sources.xml_report`); reports whose every section is empty are quarantined."""
    path = folder / MEMBERS[0]
    for found in reader("xml_report")(Ref(path, path.name, ENTRY.name, ENTRY.licence), LIMITS):
        yield found if isinstance(found, Quarantined) else found.updated(rights=ENTRY.rights)
