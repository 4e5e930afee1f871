"""Files made for tests: small valid ones, and hostile ones byte by byte. All synthetic."""

from __future__ import annotations

import gzip
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"


def write_dicom(path: Path, array: np.ndarray, *, syntax: str = EXPLICIT, compress: str = "", **tags: Any) -> Path:
    """A DICOM file by pydicom of (H, W), (H, W, 3) or with NumberOfFrames; `compress`: a syntax to encode to."""
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = tags.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2")
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.PatientID, ds.PatientName, ds.Modality = "MRN-4711", "Doe^Jane", "CT"
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3.4", "1.2.3.4.5"
    colour = array.ndim >= 3 and array.shape[-1] == 3 and not tags.get("grey")
    tags.pop("grey", None)
    rows, columns = array.shape[-3:-1] if colour else array.shape[-2:]
    bits = 8 * array.dtype.itemsize
    ds.Rows, ds.Columns = rows, columns
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = bits, bits, bits - 1
    ds.PixelRepresentation = int(array.dtype.kind == "i")
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    if array.ndim > (3 if colour else 2):
        ds.NumberOfFrames = array.shape[0]
    if array.dtype.kind == "f":
        del ds.PixelRepresentation, ds.BitsStored, ds.HighBit
        ds.FloatPixelData = array.astype("<f4").tobytes()
    else:
        order = ">" if syntax == "1.2.840.10008.1.2.2" else "<"
        ds.PixelData = array.astype(array.dtype.newbyteorder(order)).tobytes()
        ds["PixelData"].VR = "OB" if bits == 8 else "OW"
    for name, value in tags.items():
        setattr(ds, name, value)
    if compress:
        ds.compress(compress)
    pydicom.dcmwrite(path, ds, enforce_file_format=False)
    return path


def place(z: float = 0.0, spacing: tuple[float, float] = (0.5, 0.75)) -> dict[str, Any]:
    """Tags of an axial slice at z mm."""
    return {
        "ImagePositionPatient": [10.0, -20.0, z], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": list(spacing), "SliceThickness": 2.0,
    }  # fmt: skip


# ---------------------------------------------------------------- hostile DICOM


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """One explicit little-endian element."""
    if vr in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return struct.pack("<HH2sHI", group, number, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def dicom_head(syntax: str) -> bytes:
    """Preamble and file meta group."""
    uid = syntax.encode() + b"\0" * (len(syntax) % 2)
    body = element(2, 0x10, b"UI", uid)
    return b"\0" * 128 + b"DICM" + element(2, 0, b"UL", struct.pack("<I", len(body))) + body


def picture(rows: int, columns: int, *, bits: int = 16, frames: int = 1) -> bytes:
    """The elements that claim a grey picture."""
    u = struct.Struct("<H").pack
    out = element(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.7\0") + element(8, 0x60, b"CS", b"OT")
    out += element(0x28, 2, b"US", u(1)) + element(0x28, 4, b"CS", b"MONOCHROME2 ")
    out += element(0x28, 8, b"IS", str(frames).encode().ljust(8)) + element(0x28, 0x10, b"US", u(rows))
    out += element(0x28, 0x11, b"US", u(columns)) + element(0x28, 0x100, b"US", u(bits))
    return (
        out
        + element(0x28, 0x101, b"US", u(bits))
        + element(0x28, 0x102, b"US", u(bits - 1))
        + element(0x28, 0x103, b"US", u(0))
    )


def zeros_deflated(count: int, *, head: bytes = b"", raw: bool = True, tail: bytes = b"") -> bytes:
    """`head`, `count` MiB of zeros, `tail`, deflated (gzip unless `raw`): the zeros once and repeated, so made fast."""
    engine = zlib.compressobj(9, wbits=-15)
    start = engine.compress(head) + engine.flush(zlib.Z_FULL_FLUSH)
    block = engine.compress(bytes(1 << 20)) + engine.flush(zlib.Z_FULL_FLUSH)
    body = start + block * count + engine.compress(tail) + engine.flush()
    if raw:
        return body
    crc = zlib.crc32(head)
    for _ in range(count):
        crc = zlib.crc32(bytes(1 << 20), crc)
    size = len(head) + (count << 20) + len(tail)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + body + struct.pack("<II", zlib.crc32(tail, crc), size & 0xFFFFFFFF)


def deflated_dicom() -> bytes:
    """About half a megabyte that holds a picture of 512 MiB."""
    rows = picture(16384, 16384)
    claim = element(0x7FE0, 0x10, b"OW", b"")[:-4] + struct.pack("<I", 512 << 20)
    return dicom_head(DEFLATED) + zeros_deflated(512, head=rows + claim)


def rle_dicom(rows: int = 60_000, columns: int = 60_000) -> bytes:
    """A few bytes of RLE that claim rows x columns."""
    frame = struct.pack("<16I", 2, 64, 66, *[0] * 13) + bytes([129, 0, 129, 0])
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
    value = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return dicom_head(RLE) + picture(rows, columns) + value


def jpeg2000_dicom(rows: int = 12_000, columns: int = 12_000) -> bytes:
    """A short JPEG 2000 codestream whose header agrees with the claim of rows x columns."""
    siz = struct.pack(">HHHIIIIIIIIHBBB", 0xFF51, 41, 0, columns, rows, 0, 0, columns, rows, 0, 0, 1, 15, 1, 1)
    frame = b"\xff\x4f" + siz + bytes(200)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(frame)) + frame
    value = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF) + items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return dicom_head("1.2.840.10008.1.2.4.90") + picture(rows, columns) + value


def nested_dicom(depth: int = 5000, *, how: str = "undefined") -> bytes:
    """`depth` sequences inside each other: of undefined length, of known length, or in implicit VR."""
    if how == "defined":
        inner = b""
        for _ in range(depth):
            item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
            inner = element(0x40, 0xA730, b"SQ", item)
        return dicom_head(EXPLICIT) + inner + picture(2, 2) + element(0x7FE0, 0x10, b"OW", bytes(8))
    implicit = how == "implicit"
    start = struct.pack("<HHI" if implicit else "<HH2sHI", *((0x40, 0xA730) if implicit else (0x40, 0xA730, b"SQ", 0)),
                        0xFFFFFFFF)  # fmt: skip
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    ends = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return dicom_head("1.2.840.10008.1.2" if implicit else EXPLICIT) + (start + item) * depth + ends * depth


# ---------------------------------------------------------------- hostile NIfTI and pictures


def nifti_head(shape: tuple[int, ...], *, code: int = 2, bits: int = 8) -> bytes:
    """A NIfTI-1 header of 352 bytes that claims `shape`."""
    head = bytearray(352)
    struct.pack_into("<i", head, 0, 348)
    struct.pack_into("<8h", head, 40, len(shape), *(*shape, *[1] * 7)[:7])
    struct.pack_into("<hh", head, 70, code, bits)
    struct.pack_into("<8f", head, 76, 1, 1, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", head, 108, 352)
    head[344:348] = b"n+1\0"
    return bytes(head)


def nifti_bomb() -> bytes:
    """About 7 MB of gzip that claim and hold 1024 x 1024 x 1500 bytes."""
    noise = random.Random(0).randbytes(5_500_000)
    return zeros_deflated(1500, head=nifti_head((1024, 1024, 1500)), raw=False, tail=noise)


def png(width: int, height: int, *, bits: int = 8, colour: int = 0, rows: bytes = b"") -> bytes:
    """A PNG that claims width x height; `rows` is the compressed data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def png_of_zeros(width: int, height: int) -> bytes:
    """A true PNG of zeros, 8-bit grey, that decodes to width x height."""
    size = (width + 1) * height
    rows = zeros_deflated(size >> 20, tail=bytes(size & 0xFFFFF))
    adler = (size % 65521) << 16 | 1  # of zeros
    return png(width, height, rows=b"\x78\x01" + rows + struct.pack(">I", adler))


# ---------------------------------------------------------------- damage


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Some seeded damage: bytes and bits changed, lengths set to extremes, pieces cut, doubled or put in."""
    out = bytearray(data)
    where = rng.choice([len(out), min(len(out), 600), min(len(out), 1500)])  # headers more often than pixels
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        if len(out) < 8:
            break
        at = rng.randrange(min(where, len(out)))
        kind = rng.randrange(7)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind in (2, 3):
            extreme = rng.choice(
                [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff\x7f", b"\0\0"]
            )
            out[at : at + len(extreme)] = extreme
        elif kind == 4:
            del out[at : at + rng.randrange(1, 40)]
        elif kind == 5:
            out[at:at] = out[at : at + rng.randrange(1, 40)]
        else:
            del out[rng.randrange(len(out) // 4, len(out)) :]
    return bytes(out)


def gz(data: bytes) -> bytes:
    """gzip, fast; the same bytes at any time of day, since tests are named after them."""
    return gzip.compress(data, 1, mtime=0)
