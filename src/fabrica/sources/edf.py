"""EDF, EDF+ and BDF recordings -> signal items in physical units, annotations -> time regions.

Kemp et al., "A simple format for exchange of digitized polygraphic recordings", 1992; Kemp & Olivan, EDF+, 2003.
Decoded here in a few lines of NumPy: a header of 256 bytes, 256 more a signal, then data records of 16 (BDF: 24) bit
samples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica import safe
from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Ref
from fabrica.sources.leads import Channel, items, modality
from fabrica.sources.single import origin, record
from fabrica.types import Origin, Record, Region

_FIELDS = (
    ("label", 16), ("transducer", 80), ("unit", 8), ("pmin", 8), ("pmax", 8), ("dmin", 8), ("dmax", 8),
    ("prefilter", 80), ("samples", 8), ("reserved", 32),
)  # fmt: skip
_TAL = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14((?:[^\x00\x14]*\x14)*)\x00")
_NOBODY = re.compile(r"^[Xx\s?]*$")


@dataclass(frozen=True, slots=True)
class Header:
    """What the header says. `width` bytes a sample; `samples` of each signal in a data record of `seconds`."""

    patient: str
    reserved: str
    start: int
    records: int
    seconds: float
    width: int
    signals: dict[str, list[str]]
    samples: list[int]

    def numbers(self, name: str) -> list[float]:
        """A numeric field of all signals."""
        return [_number(text, name) for text in self.signals[name]]


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record]:
    """One record; the subject is the hashed patient field unless it is anonymised ("X X X X").

    Refused: `edf_header`, `edf_no_signals`, `edf_short` (less data than one record), `edf_discontinuous` (EDF+D),
    `array_too_large`.
    """
    data = safe.read_bytes(ref.path, limits)
    header = parse(data)
    if header.reserved[:5] in ("EDF+D", "BDF+D"):
        raise Refused("edf_discontinuous", "the recording has gaps (EDF+D); joining its pieces would misplace time")
    grid = _data(data, header, limits)
    sha256 = safe.sha256(data)
    channels, notes = [], []
    at = 0
    for n, size in enumerate(header.samples):
        block = grid[:, at * header.width : (at + size) * header.width]
        at += size
        name = header.signals["label"][n]
        if name in ("EDF Annotations", "BDF Annotations"):
            notes.append(block)
        elif size:
            values = _scaled(_integers(block, header.width), header, n)
            channels.append(Channel(name, header.signals["unit"][n], size / header.seconds, values))
    found = items(channels, origin(ref, sha256))
    if not found:
        raise Refused("edf_no_signals", "the recording holds annotations only")
    regions = _annotations(notes, ref, sha256, next(iter(found)))
    subject = None if _NOBODY.match(header.patient) else header.patient
    yield record(ref, sha256, found, modality=modality(found), subject=subject, regions=regions)


def parse(data: bytes) -> Header:
    """The header of EDF or BDF bytes; `Refused("edf_header")` where it is none."""
    if data[:8] not in (b"0       ", b"\xffBIOSEMI"):
        raise Refused("edf_header", "the file does not begin as EDF or BDF")
    text = data[8:256].decode("latin-1")
    start = int(_number(text[176:184], "header size"))
    count = int(_number(text[244:248], "number of signals"))
    if not 0 < count <= 4096 or start != 256 * (count + 1) or start > len(data):
        raise Refused("edf_header", f"the header tells of {count} signals in {start} bytes")
    signals: dict[str, list[str]] = {}
    at = 256
    for name, width in _FIELDS:
        block = data[at : at + width * count].decode("latin-1")
        signals[name] = [block[i * width : (i + 1) * width].strip() for i in range(count)]
        at += width * count
    samples = [int(_number(s, "samples")) for s in signals["samples"]]
    seconds = _number(text[236:244], "record duration")
    only_notes = all(label.endswith("Annotations") for label in signals["label"])
    if min(samples) < 0 or (seconds <= 0 and not only_notes):
        raise Refused("edf_header", f"the header tells of records of {seconds} seconds")
    width = 2 if data[:1] == b"0" else 3
    records = int(_number(text[228:236], "number of records"))
    return Header(text[:80].strip(), text[184:228], start, records, seconds, width, signals, samples)


def _number(text: str, what: str) -> float:
    try:
        return float(text.strip().rstrip("\0"))
    except ValueError as error:
        raise Refused("edf_header", f"the header's {what} is no number") from error


def _data(data: bytes, header: Header, limits: Limits) -> NDArray[np.uint8]:
    """(records, bytes a record): the whole records that are there (a recording may have been cut)."""
    size = sum(header.samples) * header.width
    there = (len(data) - header.start) // size if size else 0
    count = there if header.records < 0 else min(header.records, there)
    if count <= 0:
        raise Refused("edf_short", "the file ends before its first data record")
    safe.check_array((count, sum(header.samples)), np.float64, limits, what="the recording")
    return np.frombuffer(data, np.uint8, count * size, header.start).reshape(count, size)


def _integers(block: NDArray[np.uint8], width: int) -> NDArray[np.int32]:
    raw = np.ascontiguousarray(block).reshape(-1, width)
    if width == 2:
        return raw.view("<i2")[:, 0].astype(np.int32)
    wide = np.zeros((len(raw), 4), np.uint8)
    wide[:, 1:] = raw
    return wide.view("<i4")[:, 0] >> 8


def _scaled(digital: NDArray[np.int32], header: Header, n: int) -> NDArray[Any]:
    pmin, pmax, dmin, dmax = (header.numbers(k)[n] for k in ("pmin", "pmax", "dmin", "dmax"))
    if dmax == dmin:
        raise Refused("edf_header", "a signal's digital range is empty")
    return (digital - dmin) * ((pmax - pmin) / (dmax - dmin)) + pmin


def _annotations(blocks: list[NDArray[np.uint8]], ref: Ref, sha256: str, role: str) -> tuple[Region, ...]:
    where = Origin(ref.source, f"{ref.key}#annotations", sha256, ref.licence)
    found = []
    for block in blocks:
        for onset, length, texts in _TAL.findall(block.tobytes()):
            for text in texts.split(b"\x14"):
                if words := text.decode("utf-8", "replace").strip():
                    start = float(onset)
                    span = np.array([start, start + float(length or 0)])
                    found.append(Region(role, "time", span, words[:200], where))
    return tuple(found)
