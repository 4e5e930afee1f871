"""Headers that name people: NIfTI, EDF, WFDB, NRRD and picture files, rewritten with what the format needs alone."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import re
import struct
from collections.abc import Callable

import numpy as np

from fabrica.curate.deid.key import shifted
from fabrica.curate.deid.pixels import Box, TextReader, find_text, to_grey
from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits, check_array, inflate
from fabrica.text.identifiers import Known, scrub

Scrub = Callable[[str], str]  # a text without identifiers, dates moved


# ---------------------------------------------------------------- NIfTI

_NIFTI1 = ((4, 10), (14, 18), (148, 80), (228, 24), (328, 16))  # data_type, db_name, descrip, aux_file, intent_name
_NIFTI2 = ((240, 80), (320, 24), (508, 16))  # descrip, aux_file, intent_name


def clean_nifti(data: bytes, limits: Limits = LIMITS) -> bytes:
    """A NIfTI file (.nii, .nii.gz, .hdr) with its free text and its extensions blanked; voxels as they were.

    Refused: `nifti_header`; what `inflate` refuses.
    """
    packed = data[:2] == b"\x1f\x8b"
    raw = bytearray(inflate(data, limits=limits) if packed else data)
    size = struct.unpack_from("<i", raw)[0] if len(raw) >= 348 else 0
    order = "<" if size in (348, 540) else ">"
    size = struct.unpack_from(order + "i", raw)[0] if len(raw) >= 348 else 0
    if size not in (348, 540) or len(raw) < size:
        raise Refused("nifti_header", "the file is no NIfTI")
    for start, length in _NIFTI1 if size == 348 else _NIFTI2:
        raw[start : start + length] = bytes(length)
    offset = (
        struct.unpack_from(order + "f", raw, 108)[0] if size == 348 else struct.unpack_from(order + "q", raw, 168)[0]
    )
    if not np.isfinite(offset) or offset < 0:
        raise Refused("nifti_header", "the voxel offset is no place in the file")
    end = min(int(offset), len(raw)) if offset > size else len(raw) if _alone(raw, size) else size
    raw[size:end] = bytes(end - size)  # extension flag and extensions
    if size == 540:
        raw[525:540] = bytes(15)  # unused bytes
    return gzip.compress(bytes(raw), mtime=0) if packed else bytes(raw)


def _alone(raw: bytearray, size: int) -> bool:
    """Whether this is a header whose voxels stand in another file."""
    magic = bytes(raw[344:348]) if size == 348 else bytes(raw[4:8])
    return magic[:3] in (b"ni1", b"ni2")


# ---------------------------------------------------------------- EDF


def clean_edf(data: bytes, days: int, words: Scrub) -> bytes:
    """An EDF or BDF recording: patient unknown ("X X X X"), recording fields blank, the start moved by whole days,
    annotations scrubbed in place. Refused: `edf_header`, `edf_date`."""
    from fabrica.sources.edf import parse

    header = parse(data)
    raw = bytearray(data)
    raw[8:88] = b"X X X X".ljust(80)
    start = _edf_day(bytes(raw[168:176]))
    moved = None if start is None else shifted(start, days)
    raw[168:176] = (b"01.01.85" if moved is None else f"{moved:%d.%m.%y}".encode()).ljust(8)
    said = (
        b"Startdate X X X X"
        if moved is None
        else f"Startdate {moved:%d}-{_EDF_MONTHS[moved.month - 1]}-{moved.year} X X X".encode()
    )
    raw[88:168] = said.ljust(80)
    plus = header.reserved[:5]
    raw[192:236] = (plus if plus[:4] in ("EDF+", "BDF+", "24BI") else "").encode().ljust(44)
    signals = len(header.samples)
    base = 256
    for width, kept in (
        (16, True),
        (80, False),
        (8, True),
        (8, True),
        (8, True),
        (8, True),
        (8, True),
        (80, True),
        (8, True),
        (32, False),
    ):
        for n in range(signals):
            at = base + n * width
            text = bytes(raw[at : at + width]).decode("latin-1")
            raw[at : at + width] = (
                (_same(text, words) if kept else "").encode("latin-1", "replace")[:width].ljust(width)
            )
        base += signals * width
    _edf_annotations(raw, header.signals["label"], header.samples, header.width, base, words)
    return bytes(raw)


_EDF_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def _edf_day(text: bytes) -> dt.date | None:
    m = re.fullmatch(rb"(\d\d)\.(\d\d)\.(\d\d)", text.strip())
    if m is None:
        return None
    year = int(m[3])
    try:
        return dt.date(1900 + year if year >= 85 else 2000 + year, int(m[2]), int(m[1]))
    except ValueError:
        return None


def _same(text: str, words: Scrub) -> str:
    """A short field as it is unless scrubbing finds something in it."""
    return text if words(text) == text else ""


def _edf_annotations(
    raw: bytearray, labels: list[str], samples: list[int], width: int, base: int, words: Scrub
) -> None:
    sizes = [n * width for n in samples]
    step = sum(sizes)
    if not step:
        return
    starts = [
        (sum(sizes[:n]), sizes[n])
        for n, label in enumerate(labels)
        if label.strip() in ("EDF Annotations", "BDF Annotations")
    ]
    for record in range(base, len(raw) - step + 1, step):
        for start, size in starts:
            a, b = record + start, record + start + size
            raw[a:b] = re.sub(rb"(?<=\x14)[^\x00\x14]+(?=\x14)", lambda m: _fitting(m[0], words), bytes(raw[a:b]))


def _fitting(old: bytes, words: Scrub) -> bytes:
    text = old.decode("utf-8", "replace")
    new = words(text)
    return old if new == text else new.encode("utf-8")[: len(old)].decode("utf-8", "ignore").encode().ljust(len(old))


# ---------------------------------------------------------------- WFDB


def clean_wfdb(text: str, name: str, rename: Callable[[str], str], days: int, words: Scrub) -> str:
    """A WFDB header: record and files renamed (`rename` keeps suffixes), the base date moved, descriptions of signals
    scrubbed, of the comments ages and sex alone as they are. Refused: `wfdb_header`."""
    lines, seen = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("#"):
            lines.append("#" + words(line.lstrip()[1:]))
        elif not line.strip():
            continue
        elif not seen:
            lines.append(_record_line(line, name, days))
            seen = True
        else:
            lines.append(_signal_line(line, rename, words))
    if not seen:
        raise Refused("wfdb_header", "the header has no record line")
    return "\n".join(lines) + "\n"


def _record_line(line: str, name: str, days: int) -> str:
    parts = line.split()
    if not 2 <= len(parts) <= 6 or not all(re.fullmatch(r"[\d./():e+-]+", p) for p in parts[1:]):
        raise Refused("wfdb_header", "the record line is no record line")
    parts[0] = name + ("/" + parts[0].split("/", 1)[1] if "/" in parts[0] else "")
    if len(parts) == 6:
        m = re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{4})", parts[5])
        moved = None
        if m is not None:
            try:
                moved = shifted(dt.date(int(m[3]), int(m[2]), int(m[1])), days)
            except ValueError:
                moved = None
        parts = [*parts[:5], *([] if moved is None else [f"{moved:%d/%m}/{moved.year}"])]
    return " ".join(parts)


def _signal_line(line: str, rename: Callable[[str], str], words: Scrub) -> str:
    parts = line.split(maxsplit=8)
    parts[0] = parts[0] if parts[0] == "~" else rename(parts[0])
    if len(parts) == 9:
        parts[8] = words(parts[8])
    return " ".join(parts)


def annotations_are_plain(data: bytes) -> bool:
    """Whether a WFDB annotation file (MIT format) holds no free text but rhythm names such as "(AFIB"."""
    at = 0
    while at + 2 <= len(data):
        word = int.from_bytes(data[at : at + 2], "little")
        kind, low = word >> 10, word & 0x3FF
        at += 2
        if word == 0:
            return True
        if kind == 59:
            at += 4
        elif kind == 63:
            note = data[at : at + low].rstrip(b"\0")
            at += low + low % 2
            if re.fullmatch(rb"\([A-Z0-9]{1,8}|[A-Za-z+]{0,3}", note) is None:
                return False
    return True


# ---------------------------------------------------------------- NRRD and pictures


def clean_nrrd(data: bytes) -> bytes:
    """An attached NRRD with the fields that its array needs; comments, key/value pairs and `content` go.

    Refused: `nrrd_header`, `nrrd_detached`."""
    head, sep, body = data.partition(b"\n\n")
    if not sep:
        head, sep, body = data.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").splitlines()
    if not sep or not lines or not lines[0].startswith("NRRD000"):
        raise Refused("nrrd_header", "the file is no NRRD")
    kept = [lines[0]]
    for line in lines[1:]:
        name, colon, value = line.partition(": ")
        if line.startswith("#") or not colon or ":=" in line.split(": ")[0]:
            continue
        if name.lower().replace(" ", "") in ("datafile",):
            raise Refused("nrrd_detached", "the voxels stand in another file")
        if name.lower() in _NRRD and re.fullmatch(r"[\w\s.,()+\-\"/]{0,2000}", value):
            kept.append(f"{name}: {value}")
    return ("\n".join(kept) + "\n\n").encode("latin-1") + body


_NRRD = frozenset(
    (
        "type", "dimension", "sizes", "encoding", "endian", "space", "space dimension", "space directions",
        "space origin", "kinds", "centers", "centerings", "spacings", "axis mins", "axismins", "axis maxs", "axismaxs",
        "thicknesses", "line skip", "lineskip", "byte skip", "byteskip", "block size", "blocksize",
        "measurement frame", "min", "max", "old min", "old max", "units", "space units",
    )
)  # fmt: skip


def clean_picture(
    data: bytes, *, mask: bool, reader: TextReader | None = None, limits: Limits = LIMITS
) -> tuple[bytes, int]:
    """A picture file as a PNG of its pixels alone (turned as EXIF says): no EXIF, XMP, ICC, text or thumbnail; and how
    many boxes of burned-in text were blanked. Refused: `image_frames`, `burned_in`, `undecodable`, `image_pixels`."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            check_array((picture.height, picture.width, 4), np.uint8, limits, what="the picture")
            if picture.width * picture.height > limits.pixels:
                raise Refused("image_pixels", f"the picture has over {limits.pixels} pixels")
            if getattr(picture, "n_frames", 1) != 1:
                raise Refused("image_frames", "a picture file of several frames or pages is not rewritten")
            turned = ImageOps.exif_transpose(picture)
            if turned.mode not in ("1", "L", "RGB", "RGBA", "I;16", "I", "P", "LA"):
                turned = turned.convert("RGB")
            if turned.mode == "P":
                turned = turned.convert("RGBA" if "transparency" in turned.info else "RGB")
            plain = Image.fromarray(np.asarray(turned)) if turned.mode != "1" else turned.copy()
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise Refused("undecodable", f"the picture cannot be read ({type(error).__name__})") from error
    grey = to_grey(np.asarray(plain))
    boxes: list[Box] = [*find_text(grey), *(reader(grey) if reader is not None else [])]
    if boxes and not mask:
        raise Refused("burned_in", "text was found in the picture; ask for masking, or leave the file out")
    for box in boxes:
        plain.paste(0 if len(plain.getbands()) == 1 else (0,) * len(plain.getbands()), box)
    out = io.BytesIO()
    plain.info.clear()
    plain.save(out, "PNG")
    return out.getvalue(), len(boxes)


def scrubber(days: int, uid: Callable[[str], str], known: Known | None) -> Scrub:
    """What the rewriters above take: one subject's scrubbing."""
    return lambda text: scrub(text, days=days, uid=uid, known=known).text
