"""The phantom hospital as records in memory, and as real files that `sources` reads back through column maps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from fabrica.errors import UsageError, unknown
from fabrica.phantom import files
from fabrica.phantom.desk import LICENCE, SOURCE, Desk
from fabrica.phantom.exams import VOLUMES, Exam, exams
from fabrica.phantom.findings import MODALITIES
from fabrica.phantom.patients import Knobs
from fabrica.phantom.signals import LEADS
from fabrica.safe import folder_whole
from fabrica.types import Absent, Item, Link, Origin, Record, Region, Rights, record_id

WRITTEN = ("ct", "mr", "ultrasound", "pathology", "fundus", "ecg", "labs")
DEMO = Knobs(missing=0.05, duplicates=0.04, near_duplicates=0.04)
VERSION = 1  # of what is drawn: raise it when the same seed gives other bytes
Progress = Callable[[int, int | None, str], None]

# ---------------------------------------------------------------- in memory


def records(
    n: int, modality: str, seed: int, *, knobs: Knobs = Knobs(), size: int = 128, source: str = SOURCE
) -> Iterator[Record]:
    """`n` records of a modality (and planted copies), with reports, labels and the truth as mask regions.

    `modality` is one of MODALITIES. Subjects are the same people in every modality of a seed.

    >>> r = next(records(1, "ultrasound", 0))
    >>> r.groups["modality"], r.first("image").array().shape, r.first("image").origin.by
    ('ultrasound', (128, 128), 'synthetic')
    """
    for exam in exams(n, modality, seed, knobs=knobs, size=size):
        yield to_record(exam, source)


def joint(
    n: int, modalities: Sequence[str], seed: int, *, knobs: Knobs = Knobs(), size: int = 128, source: str = SOURCE
) -> Iterator[Record]:
    """One record a patient with an item of each modality, role "image/MODALITY" and so on; labels "MODALITY.NAME".

    >>> r = next(joint(1, ("xray", "ecg", "labs"), 0))
    >>> sorted(r.items)
    ['ecg', 'image/xray', 'report/ecg', 'report/xray', 'table/labs']
    """
    plain = Knobs(**{**asdict(knobs), "duplicates": 0.0, "near_duplicates": 0.0})
    streams = [exams(n, m, seed, knobs=plain, size=size) for m in modalities]
    for parts in zip(*streams, strict=True):
        items: dict[str, tuple[Item, ...]] = {}
        found: dict[str, float | Absent] = {}
        for exam in parts:
            one = to_record(exam, source)
            items |= {r if r == "ecg" else f"{r}/{exam.modality}": held for r, held in one.items.items()}
            found |= {f"{exam.modality}.{k}": v for k, v in one.labels.items()}
        groups = {"modality": "joint", "source": source, "data": "phantom", "site": parts[0].patient.site}
        key = f"joint/{parts[0].patient.id}"
        yield Record(record_id(source, key), one.subject, groups, items, (), found, rights=Rights(LICENCE))


def to_record(exam: Exam, source: str = SOURCE) -> Record:
    """An examination as a record of synthetic origin."""
    key = f"{exam.modality}/{exam.patient.seed}/{exam.key}"
    origin = Origin(source, key, "", LICENCE, by="synthetic")
    items: dict[str, tuple[Item, ...]] = {}
    regions: tuple[Region, ...] = ()
    if exam.picture is not None:
        role, item = _shown(exam, origin)
        items[role] = (item,)
        regions = tuple(
            Region(role, "mask", files.as_stored(exam.modality, m), f.label, origin, text=f.place or None)
            for f, m in zip(exam.truth, exam.picture.masks, strict=True)
        )
    if exam.signal is not None:
        s = exam.signal
        items["ecg"] = (Item("signal", s.values, origin, unit="mV", rate=float(s.rate), names=LEADS),)
    if exam.tests is not None:
        known = {k: v for k, v in exam.tests.items() if not isinstance(v, Absent)}
        values = np.fromiter(known.values(), np.float32, len(known))
        items["table"] = (Item("table", values if known else Absent.NOT_DONE, origin, names=tuple(known)),)
    else:
        items["report"] = (Item("text", exam.report, origin),)
    patient = exam.patient
    groups = {
        "modality": exam.modality, "source": source, "data": "phantom", "site": patient.site, "scanner": patient.scanner
    }  # fmt: skip
    original = f"{exam.modality}/{patient.seed}/{exam.copy_of}"
    links = (Link("derived_from", record_id(source, original)),) if exam.copy else ()
    return Record(
        record_id(source, key), record_id("subject", source, patient.id)[:16], groups, items, regions,
        dict(exam.labels), links, Rights(LICENCE),
    )  # fmt: skip


def _shown(exam: Exam, origin: Origin) -> tuple[str, Item]:
    assert exam.picture is not None
    pixels = files.as_stored(exam.modality, exam.picture.pixels)
    if exam.modality not in VOLUMES:
        return "image", Item("image", pixels, origin)
    affine = files.ct_affine(pixels.shape[0]) if exam.modality == "ct" else files.mr_affine(pixels.shape[0])
    unit = "HU" if exam.modality == "ct" else None
    return "volume", Item("volume", np.ascontiguousarray(pixels), origin, unit=unit, affine=affine)


# ---------------------------------------------------------------- on disk


@dataclass(frozen=True, slots=True)
class Table:
    """One CSV of the hospital: what `sources.table` needs to read it."""

    modality: str
    path: Path
    columns: Mapping[str, str]
    rows: int
    source: str = SOURCE
    licence: str = LICENCE


@dataclass(frozen=True, slots=True)
class Hospital:
    """What was written: its tables with their column maps, and the truth about what was planted.

    `copies` file -> (file it repeats, "exact" or "near"); `broken` file -> kind; `identifiers`: the made-up names and
    numbers of every patient whose DICOM headers, pictures or reports may carry them.
    """

    folder: Path
    tables: tuple[Table, ...]
    copies: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    identifiers: tuple[str, ...] = ()

    @property
    def manifest(self) -> Path:
        """The JSON file that `load` reads."""
        return self.folder / "manifest.json"


def write(
    folder: str | Path, *, n_per_modality: int, seed: int, n_broken: int = 0, knobs: Knobs = DEMO, size: int = 128,
    modalities: Sequence[str] = WRITTEN, progress: Progress | None = None,
) -> Hospital:  # fmt: skip
    """Write real files: CT as DICOM series, MR as NIfTI, flat pictures as PNG, ECG as WFDB, tests and tables as CSV.

    The folder appears whole or not at all. Run again with the same arguments it is left as it is; the same arguments
    give the same bytes. Every table stands at the top of the folder with its files below it; every patient is the same
    person in all of them. `n_broken` files are damaged on purpose, each with its row.
    """
    for m in modalities:
        if m not in MODALITIES:
            raise unknown("modality", m, MODALITIES)
    if n_per_modality < 1 or not modalities:
        raise UsageError(f"wanted at least one patient and one modality, got {n_per_modality} and {list(modalities)}")
    folder = Path(folder)
    plan = {
        "version": VERSION, "n_per_modality": n_per_modality, "seed": seed, "n_broken": n_broken,
        "knobs": asdict(knobs), "size": size, "modalities": list(modalities),
    }  # fmt: skip
    if (folder / "manifest.json").is_file():
        if json.loads((folder / "manifest.json").read_text("utf-8")).get("plan") != plan:
            raise UsageError(f"{str(folder)!r} holds another phantom hospital; give another folder or remove it")
        return load(folder / "manifest.json")
    with folder_whole(folder) as temp:
        desk = Desk(temp)
        for i, m in enumerate(modalities):
            for j, exam in enumerate(exams(n_per_modality, m, seed, knobs=knobs, size=size)):
                desk.take(exam)
                if progress is not None and j < n_per_modality:
                    progress(i * n_per_modality + j + 1, n_per_modality * len(modalities), f"phantom {m}")
        desk.damage(n_broken, modalities)
        desk.close(plan, modalities)
    return load(folder / "manifest.json")


def load(manifest: str | Path) -> Hospital:
    """The hospital that `write` wrote."""
    manifest = Path(manifest)
    if not manifest.is_file():
        raise UsageError(f"no phantom hospital at {str(manifest)!r}; write one with phantom.hospital.write")
    said = json.loads(manifest.read_text("utf-8"))
    tables = tuple(
        Table(t["modality"], manifest.parent / t["file"], t["columns"], t["rows"], said["source"], said["licence"])
        for t in said["tables"]
    )
    copies = {k: (v[0], v[1]) for k, v in said["copies"].items()}
    return Hospital(manifest.parent, tables, copies, said["broken"], tuple(said["identifiers"]))
