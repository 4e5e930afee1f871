"""The filing desk of the phantom hospital: examinations -> files and rows, damage, tables, the manifest."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fabrica.errors import UsageError
from fabrica.phantom import files
from fabrica.phantom.exams import VOLUMES, Exam
from fabrica.phantom.findings import IMAGING, labels
from fabrica.phantom.signals import LABS
from fabrica.types import Absent

SOURCE, LICENCE = "phantom", "CC0-1.0"
NOTE = """This folder holds a phantom hospital: SYNTHETIC data drawn by fabrica.

No person, picture, signal, number or report in it is real; names and numbers are made up. Licence: CC0-1.0.
manifest.json says how it was made, how each table is read, and what was planted.
"""


class Desk:
    """Files examinations away and keeps the rows of the tables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, list[dict[str, str]]] = {}
        self.copies: dict[str, tuple[str, str]] = {}
        self.broken: dict[str, str] = {}
        self.identifiers: dict[str, None] = {}

    def take(self, exam: Exam) -> None:
        """Write the files of an examination and note its rows."""
        p = exam.patient
        row = {"patient": p.id, "age": str(p.age), "sex": p.sex, "site": p.site, "scanner": p.scanner}
        row |= {k: "" if isinstance(v, Absent) else str(int(v)) for k, v in exam.labels.items()}
        if exam.tests is not None:
            row |= {f"{k} [{LABS[k].unit}]": "" if isinstance(v, Absent) else str(v) for k, v in exam.tests.items()}
            self._row(exam, row)
            return
        text = "" if isinstance(exam.report, Absent) else exam.report
        if exam.modality in ("ct", "ultrasound"):  # reports as files of their own
            row["report_file"] = f"reports/{exam.modality}/{exam.key}.txt" if text else ""
            if text:
                self._put(row["report_file"], text.encode() + b"\n")
        else:
            row["report"] = text
        self.identifiers |= {p.name: None, p.mrn: None}
        if exam.modality == "ecg":
            assert exam.signal is not None
            for name, data in files.wfdb(f"ecg-{exam.key}", exam.signal, p).items():
                self._put(f"ecg/{name}", data)
            self._row(exam, row | {"file": f"ecg/ecg-{exam.key}.hea"}, f"ecg/ecg-{exam.key}.hea")
            return
        assert exam.picture is not None
        if exam.modality == "ct":
            for name, data in files.dicom_series(exam.picture.pixels, exam.key, p):
                self._row(exam, row | {"file": f"ct/{exam.key}/{name}", "series": exam.key})
                self._put(f"ct/{exam.key}/{name}", data)
            self._note_copy(exam, f"ct/{exam.key}")
        elif exam.modality == "mr":
            self._put(f"mr/{exam.key}.nii.gz", files.nifti(files.as_stored("mr", exam.picture.pixels)))
            self._row(exam, row | {"file": f"mr/{exam.key}.nii.gz"}, f"mr/{exam.key}.nii.gz")
        else:
            name = f"{exam.modality}/{exam.key}.png"
            self._put(name, files.png(exam.picture.pixels))
            for f, mask in zip(exam.truth, exam.picture.masks, strict=True):
                row[f"mask_{f.label}"] = f"masks/{exam.modality}/{exam.key}-{f.label}.png"
                self._put(row[f"mask_{f.label}"], files.png(mask.astype(np.uint8) * 255))
            self._row(exam, row | {"file": name}, name)

    def _row(self, exam: Exam, row: dict[str, str], file: str = "") -> None:
        self.rows.setdefault(exam.modality, []).append(row)
        if file:
            self._note_copy(exam, file)

    def _note_copy(self, exam: Exam, file: str) -> None:
        if exam.copy:
            self.copies[file] = (file.replace(exam.key, exam.copy_of), exam.copy)

    def _put(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def damage(self, n: int, modalities: Sequence[str]) -> None:
        """Add `n` damaged files, in turn over the imaging modalities and the kinds of damage."""
        where = [m for m in modalities if m in IMAGING]
        if n and not where:
            raise UsageError("n_broken needs an imaging modality to break")
        for i in range(n):
            m = where[i % len(where)]
            kind = files.DAMAGE[(i + i // len(where)) % len(files.DAMAGE)]
            sound = self.rows[m][0]
            suffix = {"ct": ".dcm", "mr": ".nii.gz"}.get(m, ".png")
            name = f"{m}/broken-{i:03d}{suffix}"
            data = files.damaged(kind, (self.folder / sound["file"]).read_bytes())
            if data is not None:
                self._put(name, data)
            row = {k: v for k, v in sound.items() if not k.startswith("mask_")}  # the row outlives its file
            row |= {"patient": f"PHBROKEN{i:03d}", "file": name, "series": name, "report": "", "report_file": ""}
            self.rows[m].append(row)
            self.broken[name] = kind

    def close(self, plan: dict[str, Any], modalities: Sequence[str]) -> None:
        """Write tables, note and manifest."""
        tables = []
        for m in modalities:
            header = _header(m)
            self._put(f"{m}.csv", _csv(header, self.rows[m]))
            tables.append({"modality": m, "file": f"{m}.csv", "columns": columns(m), "rows": len(self.rows[m])})
        said = {
            "synthetic": True, "source": SOURCE, "licence": LICENCE, "plan": plan, "tables": tables,
            "copies": self.copies, "broken": self.broken, "identifiers": list(self.identifiers),
            "labs": {k: {"unit": v.unit, "low": v.low, "high": v.high} for k, v in LABS.items()},
        }  # fmt: skip
        self._put("PHANTOM.txt", NOTE.encode())
        self._put("manifest.json", json.dumps(said, indent=1).encode() + b"\n")


def columns(modality: str) -> dict[str, str]:
    """The column map of a modality's CSV (`sources.columns` says what the keys mean)."""
    names = _header(modality)
    out = {"subject": "patient", "group:modality": f"'{modality}'", "group:data": "'phantom'"}
    out |= {f"group:{k}": k for k in ("site", "scanner")}
    out |= {"image": "file", "id": "file"} if "file" in names else {"id": "patient"}
    out |= {k: k for k in ("report", "report_file") if k in names}
    out |= {"study": "series"} if "series" in names else {}
    out |= {f"label:{k}": k for k in labels(modality)}
    out |= {f"value:{k.split(' [')[0]}": k for k in names if " [" in k}
    return out | {f"mask:{k[5:]}": k for k in names if k.startswith("mask_")}


def _header(modality: str) -> list[str]:
    who = ["patient", "age", "sex", "site", "scanner"]
    if modality == "labs":
        return [*who, *(f"{k} [{v.unit}]" for k, v in LABS.items()), *labels(modality)]
    head = ["file", *who, "report_file" if modality in ("ct", "ultrasound") else "report"]
    head += ["series"] if modality == "ct" else []
    masks = [f"mask_{k}" for k in labels(modality)] if modality in IMAGING and modality not in VOLUMES else []
    return [*head, *labels(modality), *masks]


def _csv(header: Sequence[str], rows: Sequence[Mapping[str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, header, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()
