"""Bytes of real files: DICOM, NIfTI, PNG, WFDB, the same on every run; and files that are broken on purpose."""

from __future__ import annotations

import gzip
import importlib
import io
import struct
import zlib
from collections.abc import Iterator
from datetime import date, timedelta
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.phantom.findings import FIELD_MM
from fabrica.phantom.patients import Patient
from fabrica.phantom.signals import LEADS, Ecg
from fabrica.phantom.volumes import THICKNESS_MM

DAMAGE = ("truncated", "empty", "other_content", "missing", "bomb")


def uid(*parts: str) -> str:
    """A DICOM UID under 2.25 that depends on `parts` alone.

    >>> uid("a") == uid("a"), uid("a") == uid("b"), len(uid("a")) <= 64
    (True, False, True)
    """
    return f"2.25.{int.from_bytes(sha256('/'.join(parts).encode()).digest()[:16], 'big')}"


def as_stored(modality: str, data: NDArray[Any]) -> NDArray[Any]:
    """(slice, row, column) of a drawn volume -> the axes of its record: DICOM (column, row, slice), NIfTI RAS; flat
    pictures as they are."""
    if modality == "ct":
        return data.transpose(2, 1, 0)
    return data.transpose(2, 1, 0)[::-1, ::-1] if modality == "mr" else data


def ct_affine(width: int) -> NDArray[np.float64]:
    """(column, row, slice) -> RAS mm of a written CT: columns run to the left, rows to the back, slices to the head."""
    step, thick = FIELD_MM["ct"] / width, THICKNESS_MM["ct"]
    out = np.diag([-step, -step, thick, 1.0])
    out[:2, 3] = (FIELD_MM["ct"] - step) / 2
    return out


def mr_affine(width: int) -> NDArray[np.float64]:
    """(x, y, z) -> RAS mm of a written MR, all axes positive."""
    step = FIELD_MM["mr"] / width
    out = np.diag([step, step, THICKNESS_MM["mr"], 1.0])
    out[:2, 3] = -(FIELD_MM["mr"] - step) / 2
    return out


def dicom_series(volume: NDArray[Any], key: str, patient: Patient) -> Iterator[tuple[str, bytes]]:
    """(file name, bytes) of each slice of a CT (slices, rows, columns) in HU, numbered from the head down."""
    from pydicom.filewriter import dcmwrite

    root = (str(patient.seed), key)
    affine, n = ct_affine(volume.shape[2]), len(volume)
    ds = _dicom(root, patient, volume.shape[1:])
    for number, z in enumerate(range(n - 1, -1, -1), 1):
        place = (-affine[0, 3], -affine[1, 3], z * THICKNESS_MM["ct"])
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid("instance", *root, str(number))
        ds.ImagePositionPatient, ds.SliceLocation = [f"{x:.6g}" for x in place], f"{place[2]:.6g}"
        ds.InstanceNumber = number
        ds.PixelData = (volume[z].astype(np.int32) + 1024).astype("<u2").tobytes()
        out = io.BytesIO()
        dcmwrite(out, ds, enforce_file_format=True)
        yield f"{number:03d}.dcm", out.getvalue()


def _dicom(root: tuple[str, str], patient: Patient, shape: tuple[int, ...]) -> Any:
    """The data set of a series without what differs from slice to slice."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

    day = date(2020, 1, 1) + timedelta(days=patient.index % 1461)
    ds = Dataset()
    ds.SOPClassUID = CTImageStorage
    ds.StudyInstanceUID, ds.SeriesInstanceUID = uid("study", *root), uid("series", *root)
    ds.FrameOfReferenceUID = uid("frame", *root)
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "CT", "fabrica phantom", patient.scanner
    ds.StudyDescription, ds.SeriesDescription = "SYNTHETIC chest", "SYNTHETIC phantom, no real person"
    ds.StationName, ds.InstitutionName = patient.scanner, patient.site
    first, last = patient.name.split(" ", 1)
    ds.PatientName, ds.PatientID, ds.PatientSex = f"{last}^{first}", patient.id, patient.sex
    ds.PatientBirthDate, ds.PatientAge = f"{day.year - patient.age}0101", f"{patient.age:03d}Y"
    ds.OtherPatientIDs, ds.AccessionNumber, ds.StudyID = patient.mrn, f"A{root[1][:14]}", root[1][:16]
    ds.StudyDate = ds.SeriesDate = ds.ContentDate = day.strftime("%Y%m%d")
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "120000"
    ds.SeriesNumber, ds.BodyPartExamined, ds.PatientPosition = 1, "CHEST", "HFS"
    ds.ImageOrientationPatient, ds.PositionReferenceIndicator = [1, 0, 0, 0, 1, 0], ""
    step = f"{FIELD_MM['ct'] / shape[1]:.10g}"
    ds.PixelSpacing, ds.SliceThickness, ds.SpacingBetweenSlices = [step, step], THICKNESS_MM["ct"], THICKNESS_MM["ct"]
    ds.KVP = 120
    ds.Rows, ds.Columns = shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = -1024, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = -500, 1500
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = CTImageStorage
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID, ds.file_meta.ImplementationVersionName = UID(uid("fabrica")), "FABRICA_PHANTOM"
    return ds


def nifti(volume: NDArray[Any]) -> bytes:
    """A `.nii.gz` of an MR volume (x, y, z) in RAS, int16."""
    nib: Any = importlib.import_module("nibabel")
    image = nib.Nifti1Image(np.ascontiguousarray(volume), mr_affine(volume.shape[0]))
    image.header["descrip"] = b"SYNTHETIC fabrica phantom"
    image.header.set_xyzt_units("mm", "sec")
    return gzip.compress(image.to_bytes(), 3, mtime=0)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of uint8 (H, W) or (H, W, 3)."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=4)
    return out.getvalue()


def wfdb(name: str, signal: Ecg, patient: Patient) -> dict[str, bytes]:
    """Header and data of a WFDB record in format 16 (physionet.org/physiotools/wag/header-5.htm), 1 uV a step."""
    steps = np.rint(signal.values * 1000).astype("<i2")  # (leads, samples)
    lines = [f"{name} {len(LEADS)} {signal.rate} {steps.shape[1]}"]
    for lead, line in zip(LEADS, steps, strict=True):
        check = int(line.astype(np.int64).sum()) & 0xFFFF
        check -= 0x10000 if check > 0x7FFF else 0
        lines.append(f"{name}.dat 16 1000(0)/mV 16 0 {int(line[0])} {check} 0 {lead}")
    lines += [f"# age: {patient.age}", f"# sex: {patient.sex}", "# SYNTHETIC fabrica phantom, no real person"]
    return {f"{name}.hea": ("\n".join(lines) + "\n").encode(), f"{name}.dat": steps.T.tobytes()}


def damaged(kind: str, sound: bytes) -> bytes | None:
    """What is left of a sound file: None = no file at all."""
    if kind == "missing":
        return None
    if kind == "bomb":  # a PNG header that claims 60,000 x 60,000 pixels
        head = b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
        body = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
        return b"\x89PNG\r\n\x1a\n" + body + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return {"truncated": sound[: len(sound) * 3 // 5], "empty": b"", "other_content": b"not an image\n" * 20}[kind]
