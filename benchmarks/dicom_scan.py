"""DICOM: scanning headers and decoding pictures, beside pydicom.

    python benchmarks/dicom_scan.py [--json] [--repeat 9] [--folder FOLDER]

Files: a synthetic CT series (60 slices of 512 x 512 int16) whose headers hold what scanners write (about 150 elements,
private groups and nested sequences), the same slices in RLE, and one multi-frame of 60; with --folder the DICOM files
there. Page cache warm, one thread, ours and pydicom alternately in one process; medians of whole passes.
Scan: twelve elements of each file (UIDs, modality, size, spacing, place); pydicom by `dcmread(stop_before_pixels=True,
specific_tags=[those])`, its own fastest way. Decode: the picture in its units (HU); pydicom by `pixel_array` and
`apply_rescale`. Every picture is compared once. Roofs: reading the first 8 KiB of each file; reading each file once
and one pass that converts its pixels. Ratio: peer / ours, above 1 we win.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import apply_rescale

from fabrica.sources import dicom

TAGS = [
    "Modality", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "InstanceNumber", "Rows",
    "Columns", "NumberOfFrames", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
]  # fmt: skip
RLE = "1.2.840.10008.1.2.5"


def slice_of(n: int, values: np.ndarray) -> FileDataset:
    """A synthetic CT slice with a header as long as a scanner's."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = "1.2.840.10008.1.2.1", "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.99.{n}"
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, "CT"
    ds.PatientID, ds.PatientName = "synthetic", "Synthetic^Patient"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.InstanceNumber = "1.2.826.0.1.98", "1.2.826.0.1.97", n
    ds.ImagePositionPatient, ds.ImageOrientationPatient = [-150.0, -150.0, 2.0 * n], [1, 0, 0, 0, 1, 0]
    ds.PixelSpacing, ds.SliceThickness, ds.RescaleSlope, ds.RescaleIntercept = [0.6, 0.6], 2.0, 1, -1024
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 512, 512, 16, 16, 15
    ds.PixelRepresentation, ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, 1, "MONOCHROME2"
    for k in range(60):
        ds.add_new((0x0019, 0x1000 + k), "DS", "1.25")
        ds.add_new((0x0043, 0x1000 + k), "LO", f"private value {k}")
    ds.RequestAttributesSequence = [Dataset() for _ in range(3)]
    for item in ds.RequestAttributesSequence:
        item.ScheduledProcedureStepID, item.RequestedProcedureID = "step", "procedure"
    ds.PixelData = values.tobytes()
    ds["PixelData"].VR = "OW"
    return ds


def synthetic(folder: Path) -> dict[str, list[Path]]:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:512j, -1:1:512j]
    body = np.where(x**2 + y**2 < 0.7, 1060, 24)
    native, packed, frames = [], [], []
    for n in range(60):
        values = (body + rng.normal(0, 12, body.shape)).astype("<i2")
        frames.append(values)
        ds = slice_of(n, values)
        pydicom.dcmwrite(folder / f"ct{n:03}.dcm", ds)
        native.append(folder / f"ct{n:03}.dcm")
        if n < 10:
            ds.compress(RLE)
            pydicom.dcmwrite(folder / f"rle{n:03}.dcm", ds)
            packed.append(folder / f"rle{n:03}.dcm")
    whole = slice_of(0, np.stack(frames))
    whole.NumberOfFrames = 60
    pydicom.dcmwrite(folder / "frames.dcm", whole)
    return {"native 512 x 512": native, "RLE 512 x 512": packed, "60 frames of 512 x 512": [folder / "frames.dcm"]}


def their_pixels(path: Path) -> np.ndarray:
    ds = pydicom.dcmread(path)
    array = ds.pixel_array
    return apply_rescale(array, ds) if "RescaleSlope" in ds else array


def their_scan(path: Path) -> Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS)


def read_head(path: Path) -> bytes:
    with path.open("rb", buffering=0) as handle:
        return handle.read(8192)


def read_and_convert(path: Path) -> np.ndarray:
    data = path.read_bytes()
    return np.frombuffer(data, "<i2", len(data) // 2).astype(np.float32)


def timed(call: Callable[[Path], Any], paths: list[Path]) -> float:
    started = time.perf_counter()
    for path in paths:
        call(path)
    return time.perf_counter() - started


def compare(job: str, paths: list[Path], calls: tuple[Callable[[Path], Any], ...], repeat: int) -> dict[str, Any]:
    """`calls`: ours, pydicom's, the roof."""
    passes = [[timed(call, paths) for call in calls] for _ in range(repeat)]
    ours, peer, roof = (1000 * statistics.median(column) / len(paths) for column in zip(*passes, strict=True))
    return {
        "job": job, "ours": round(ours, 3), "peer": round(peer, 3), "peer_name": "pydicom", "unit": "ms a file",
        "ratio": round(peer / ours, 2), "roof": round(roof, 3), "n": len(paths),
    }  # fmt: skip


def agree(paths: list[Path]) -> None:
    for path in paths:
        got, want = dicom.pixels(path), their_pixels(path)
        np.testing.assert_allclose(got, want, rtol=1e-5)
        head, theirs = dicom.scan(path), their_scan(path)
        assert (head.series, head.instance, head.rows) == (theirs.SeriesInstanceUID, theirs.SOPInstanceUID, theirs.Rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeat", type=int, default=9, help="passes; the median is reported")
    parser.add_argument("--folder", type=Path, help="a folder of real single-frame DICOM files")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        jobs = synthetic(Path(folder))
        if options.folder is not None:
            jobs["real files"] = sorted(options.folder.rglob("*.dcm"))
        for job, paths in jobs.items():
            agree(paths)
            if "RLE" not in job and "frames" not in job:
                calls = (dicom.scan, their_scan, read_head)
                rows.append(compare(f"scan headers: {job}", paths, calls, options.repeat))
            rows.append(
                compare(f"decode: {job}", paths, (dicom.pixels, their_pixels, read_and_convert), options.repeat)
            )
    if options.json:
        print(json.dumps({"rows": rows}))
        return
    for row in rows:
        print("{job:36} ours {ours:8.3f}  {peer_name} {peer:8.3f} {unit}  x{ratio:<6} roof {roof:.3f}".format(**row))


if __name__ == "__main__":
    main()
