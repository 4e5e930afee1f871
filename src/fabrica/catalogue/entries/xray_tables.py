"""Label tables of public chest X-ray sets (NIH-14, CheXpert, VinBig, RSNA, SIIM): labels and boxes, no pixels."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.catalogue.entries.xray_reports import MEMBERS
from fabrica.catalogue.entry import Entry
from fabrica.sources.columns import cell, number
from fabrica.sources.rows import read_rows
from fabrica.sources.single import hashed
from fabrica.types import Absent, Item, Origin, Record, Region, Rights, record_id

ENTRY = Entry(
    name="xray-tables",
    title="Label tables of NIH-14, CheXpert, VinBig, RSNA and SIIM chest X-rays (no images)",
    kind="data",
    package="torchxrayvision",
    version="1.5.7",
    file="torchxrayvision-1.5.7-py3-none-any.whl",
    sha256="95f6c3475661f3515d4258deb0855bd5d1b1a56e0b65384251d3dd3fa61fac41",
    bytes=29_002_185,
    licence="each set's own terms",
    members=MEMBERS,
    reader="fabrica.catalogue.entries.xray_tables:records",
    access="restricted",
    share="none",
    note="Each record names its set's terms as its licence. The package's PadChest table is never unpacked.",
)
TERMS: Mapping[str, str] = {
    "nih": "NIH-CXR14 (free use with attribution)",
    "chexpert": "CheXpert research use agreement",
    "vinbig": "VinBigData competition terms (non-commercial)",
    "rsna": "RSNA pneumonia challenge terms (non-commercial)",
    "siim": "SIIM-ACR challenge terms (non-commercial)",
}
NIH = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
CHEXPERT = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
SIDE = 1024  # pixels, of the SIIM and RSNA images


@dataclass(slots=True)
class _Row:
    """What one image's rows say."""

    image: str
    subject: str
    labels: dict[str, float | Absent]
    numbers: dict[str, float] = field(default_factory=dict)
    groups: dict[str, str] = field(default_factory=dict)
    boxes: Sequence[tuple[str, Sequence[float], str | None]] = ()


def records(folder: Path) -> Iterator[Record]:
    """One record an image: labels 0/1, an uncertain CheXpert label left out and named in `groups["uncertain"]`.

    The `image` item is absent (not linked), its key is the image's public file name; boxes are regions on it.
    """
    readers: dict[str, tuple[int, Callable[[Iterator[Mapping[str, Any]]], Iterator[_Row]]]] = {
        "nih": (2, _nih), "chexpert": (1, _chexpert), "vinbig": (3, _vinbig), "rsna": (5, _rsna), "siim": (4, _siim),
    }  # fmt: skip
    for name, (member, rows) in readers.items():
        path = folder / MEMBERS[member]
        for row in rows(read_rows(path)[1]):
            yield _record(name, path.name, row)


def _record(name: str, file: str, row: _Row) -> Record:
    source = f"{ENTRY.name}/{name}"
    origin = Origin(source, f"{file}/{row.image}", ENTRY.sha256, TERMS[name])
    image = Item("image", Absent.NOT_LINKED, Origin(source, row.image, "", TERMS[name]))
    items: dict[str, tuple[Item, ...]] = {"image": (image,)}
    if row.numbers:
        values = np.array(list(row.numbers.values()), np.float32)
        items["table"] = (Item("table", values, origin, names=tuple(row.numbers)),)
    regions = tuple(
        Region("image", "box", np.array(box, np.float32), label, origin, text=who) for label, box, who in row.boxes
    )
    return Record(
        record_id(source, row.image, ENTRY.sha256), hashed("subject", source, row.subject),
        groups={"modality": "xray", **row.groups}, items=items, regions=regions, labels=row.labels,
        rights=Rights(TERMS[name], ENTRY.access, ENTRY.share),
    )  # fmt: skip


def _plain(name: str) -> str:
    return name.lower().replace("_", " ")


def _known(row: Mapping[str, Any], **names: str) -> dict[str, float]:
    found = {k: number(cell(row.get(v))) for k, v in names.items()}
    return {k: v for k, v in found.items() if v is not None}


def _groups(row: Mapping[str, Any], **names: str) -> dict[str, str]:
    return {k: str(v) for k, n in names.items() if (v := cell(row.get(n))) is not None}


def _nih(rows: Iterator[Mapping[str, Any]]) -> Iterator[_Row]:
    for row in rows:
        found = set(str(row["Finding Labels"]).split("|"))
        labels: dict[str, float | Absent] = {_plain(n): float(n in found) for n in NIH}
        labels["normal"] = float(found == {"No Finding"})
        groups = _groups(row, view="View Position", sex="Patient Gender")
        yield _Row(row["Image Index"], row["Patient ID"], labels, _known(row, age="Patient Age"), groups)


def _chexpert(rows: Iterator[Mapping[str, Any]]) -> Iterator[_Row]:
    for row in rows:
        said = {_plain(n): number(cell(row[n])) for n in CHEXPERT}
        labels: dict[str, float | Absent] = {k: v for k, v in said.items() if v is not None and v >= 0}
        groups = _groups(row, view="AP/PA", sex="Sex")
        if unsure := [k for k, v in said.items() if v is not None and v < 0]:
            groups["uncertain"] = "|".join(unsure)
        patient = re.search(r"patient\d+", row["Path"])
        yield _Row(row["Path"], patient[0] if patient else row["Path"], labels, _known(row, age="Age"), groups)


def _by_image(rows: Iterator[Mapping[str, Any]], name: str) -> Mapping[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[name], []).append(row)
    return found


def _vinbig(rows: Iterator[Mapping[str, Any]]) -> Iterator[_Row]:
    for image, group in _by_image(rows, "image_id").items():
        found = {_plain(r["class_name"]) for r in group}
        labels: dict[str, float | Absent] = dict.fromkeys(found - {"no finding"}, 1.0)
        labels["normal"] = float(found == {"no finding"})
        boxes = []
        for r in group:
            corners = [number(cell(r[k])) for k in ("x_min", "y_min", "x_max", "y_max")]
            if None not in corners:
                boxes.append((_plain(r["class_name"]), [float(c or 0) for c in corners], str(r["rad_id"])))
        yield _Row(image, image, labels, boxes=boxes)


def _rsna(rows: Iterator[Mapping[str, Any]]) -> Iterator[_Row]:
    for image, group in _by_image(rows, "patientId").items():
        boxes = []
        for r in group:
            x, y, w, h = (number(cell(r[k])) for k in ("x", "y", "width", "height"))
            if x is not None and y is not None and w is not None and h is not None:
                boxes.append(("lung opacity", [x, y, x + w, y + h], None))
        target = max(number(r["Target"]) or 0.0 for r in group)
        yield _Row(image, image, {"lung opacity": target}, boxes=boxes)


def _siim(rows: Iterator[Mapping[str, Any]]) -> Iterator[_Row]:
    for image, group in _by_image(rows, "ImageId").items():
        runs = [str(r["EncodedPixels"]).strip() for r in group]
        boxes = [("pneumothorax", rle_box(run), None) for run in runs if run not in ("-1", "")]
        if runs == [""]:
            continue
        yield _Row(image, image, {"pneumothorax": float(bool(boxes))}, boxes=boxes)


def rle_box(text: str, side: int = SIDE) -> list[float]:
    """The box around a mask in SIIM's run-length code: pairs of (pixels skipped, pixels set), column after column.

    >>> rle_box("5 2 2 2", side=4)  # pixels 5, 6 and 9, 10: columns 1 and 2, rows 1 to 2
    [1.0, 1.0, 3.0, 3.0]
    """
    numbers = np.array(text.split(), np.int64).reshape(-1, 2)
    ends = numbers.sum(1).cumsum()
    starts = ends - numbers[:, 1]
    first, last = starts % side, (ends - 1) % side
    wraps = starts // side != (ends - 1) // side
    top = 0 if wraps.any() else int(first.min())
    bottom = side if wraps.any() else int(last.max()) + 1
    return [float(starts[0] // side), float(top), float((ends[-1] - 1) // side + 1), float(bottom)]
