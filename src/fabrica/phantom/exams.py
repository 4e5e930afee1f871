"""Examinations: what a patient's picture, signal or tests look like, what was written about it, and planted copies."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np

from fabrica.errors import UsageError, unknown
from fabrica.phantom import captions
from fabrica.phantom.draw import Mask, Picture, scanned, stamped
from fabrica.phantom.findings import IMAGING, MODALITIES, labels, names
from fabrica.phantom.images import fundus, pathology, ultrasound, xray
from fabrica.phantom.patients import Finding, Knobs, Patient, patients
from fabrica.phantom.shapes import F32
from fabrica.phantom.signals import Ecg, ecg, labs, skipped
from fabrica.phantom.volumes import ct, mr
from fabrica.types import Absent

Draw = Callable[[Patient, Sequence[Finding], np.random.Generator, int], tuple[F32, list[Mask]]]
Copy = Literal["", "exact", "near"]

DRAW: Mapping[str, Draw] = MappingProxyType(
    {"xray": xray, "ct": ct, "mr": mr, "ultrasound": ultrasound, "pathology": pathology, "fundus": fundus}
)
VOLUMES = ("ct", "mr")
HEADS: Mapping[str, str] = MappingProxyType(
    {
        "xray": "Frontal chest radiograph", "ct": "Axial CT of the chest", "mr": "Axial FLAIR MR of the head",
        "ultrasound": "Ultrasound of the upper abdomen", "pathology": "Haematoxylin and eosin section",
        "fundus": "Colour photograph of the retina", "ecg": "Twelve lead resting tracing",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exam:
    """One examination. `truth` is what is there; `labels` and `report` are what was recorded of it, with the knobs'
    noise and gaps. One of `picture`, `signal`, `tests` holds the data. `copy` says how it repeats exam `copy_of`."""

    key: str
    patient: Patient
    modality: str
    truth: tuple[Finding, ...]
    labels: Mapping[str, float | Absent]
    report: str | Absent
    picture: Picture | None = None
    signal: Ecg | None = None
    tests: Mapping[str, float | Absent] | None = None
    copy: Copy = ""
    copy_of: str = ""


def exams(n: int, modality: str, seed: int, *, knobs: Knobs = Knobs(), size: int = 128) -> Iterator[Exam]:
    """`n` examinations of patients 0 to n - 1, and the copies that the knobs plant right after their originals.

    A copy is filed under another patient. The same arguments give the same bytes; a larger n only adds at the end.
    """
    if modality not in MODALITIES:
        raise unknown("modality", modality, MODALITIES)
    if n < 0 or size < 32:
        raise UsageError(f"exams wants n >= 0 and size >= 32 pixels, got n={n}, size={size}")
    for patient in patients(n, seed, knobs=knobs):
        exam = examine(patient, modality, knobs=knobs, size=size)
        yield exam
        draw = patient.rng(f"copy-{modality}").random()
        if modality == "labs" or draw >= knobs.duplicates + knobs.near_duplicates:
            continue
        yield copied(exam, "exact" if draw < knobs.duplicates else "near")


def examine(patient: Patient, modality: str, *, knobs: Knobs = Knobs(), size: int = 128) -> Exam:
    """One patient's examination; `size` is the width of pictures in pixels."""
    truth = patient.findings.get(modality, ())
    make = partial(Exam, f"{patient.index:05d}", patient, modality, truth, _recorded(patient, modality, knobs))
    if modality == "labs":
        return make(Absent.NOT_DONE, tests=labs(patient, knobs=knobs))
    planted = patient.rng(f"identifiers-{modality}").random() < knobs.identifiers
    report = _report(patient, modality, knobs, planted=planted and modality != "ultrasound")
    if modality == "ecg":
        return make(report, signal=ecg(patient))
    return make(report, picture=picture(patient, modality, knobs=knobs, size=size, planted=planted))


def picture(
    patient: Patient, modality: str, *, knobs: Knobs = Knobs(), size: int = 128, planted: bool = False
) -> Picture:
    """The picture as stored: uint8 (size, size[, 3]), or int16 (slices, size, size) for ct (HU) and mr. Planted
    identifiers are burnt into ultrasound pictures only; elsewhere they stand in the report."""
    if modality not in IMAGING:
        raise unknown("imaging modality", modality, IMAGING)
    truth = patient.findings[modality]
    image, masks = DRAW[modality](patient, truth, patient.rng(modality), size)
    if modality in VOLUMES:
        return Picture(np.clip(image.round(), -1024, 3071).astype(np.int16), truth, tuple(masks))
    pixels = scanned(image, patient.scanner, knobs.scanner_shift, patient.rng(f"scan-{modality}"))
    if planted and modality == "ultrasound":
        pixels = stamped(pixels, f"{patient.name.upper()} {patient.mrn}")
    return Picture(pixels, truth, tuple(masks))


def _recorded(patient: Patient, modality: str, knobs: Knobs) -> dict[str, float | Absent]:
    rng = patient.rng(f"labels-{modality}")
    have = patient.conditions if modality == "labs" else {f.label for f in patient.findings[modality]}
    out: dict[str, float | Absent] = {}
    for label in labels(modality):
        flip, gone = rng.random(2)
        value = float((label in have) != (flip < knobs.label_noise))
        out[label] = Absent.NOT_DONE if gone < skipped(patient, knobs) else value
    return out


def _report(patient: Patient, modality: str, knobs: Knobs, *, planted: bool) -> str | Absent:
    if patient.rng(f"report-{modality}").random() < skipped(patient, knobs):
        return Absent.NOT_DONE
    rng = random.Random(f"report-{modality}-{patient.seed}-{patient.index}")
    found = patient.findings[modality]
    vocabulary = names(modality)
    for f in found:  # some radiologists write the size
        if modality != "ecg" and rng.random() < 0.6:
            vocabulary[f.label] = tuple(f"{f.grade} {name}" for name in vocabulary[f.label])
    body = captions.report(found, vocabulary, rng, sep=". ")
    who = f"{HEADS[modality]} of a {patient.age}-year-old {'woman' if patient.sex == 'F' else 'man'}"
    head = f"{who}, {patient.name}, MRN {patient.mrn}" if planted else who
    return ". ".join(s[:1].upper() + s[1:] for s in [head, *body.split(". ")]) + "."


def copied(exam: Exam, how: Copy) -> Exam:
    """The same data filed under another patient, byte for byte ("exact") or re-processed ("near": a little brighter
    or darker, a little noise, as after another export)."""
    other = replace(exam.patient, index=exam.patient.index + 500_000)
    rng = exam.patient.rng(f"near-{exam.modality}")
    shot, signal = exam.picture, exam.signal
    if how == "near" and shot is not None:
        low, high = (0, 255) if shot.pixels.dtype == np.uint8 else (-1024, 3071)
        noise = rng.normal(0, 1.0 if high == 255 else 4.0, shot.pixels.shape)
        near = shot.pixels * rng.uniform(0.95, 1.05) + noise
        shot = replace(shot, pixels=np.clip(near.round(), low, high).astype(shot.pixels.dtype))
    if how == "near" and signal is not None:
        signal = replace(signal, values=(np.rint(signal.values * rng.uniform(960, 1040)) / 1000).astype(np.float32))
    return replace(
        exam, key=f"{exam.key}-{how}", patient=other, picture=shot, signal=signal, copy=how, copy_of=exam.key
    )
