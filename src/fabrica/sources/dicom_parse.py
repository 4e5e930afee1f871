"""DICOM bytes -> elements by tag: one pass, no recursion, nothing decoded before it is asked for (PS3.5 section 7).

Nothing here trusts a length: an element that runs past the end, nesting above `limits.depth` and a deflated body above
`limits.ratio` are `Refused`. Values are read where they lie; the pixel value is never copied.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits, inflate

PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # float, double, integer pixel data
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQ_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_SHORT = frozenset(
    (
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
        b"SS", b"ST", b"TM", b"UI", b"UL", b"US",
    )
)  # fmt: skip
_BINARY: Mapping[bytes, str] = {
    b"US": "u2", b"SS": "i2", b"UL": "u4", b"SL": "i4", b"FL": "f4", b"FD": "f8", b"UV": "u8", b"SV": "i8", b"OW": "u2",
    b"OB": "u1", b"OF": "f4", b"OD": "f8", b"AT": "u2",
}  # fmt: skip
IMPLICIT, DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_CHUNK = 16 * 1024


class Source:
    """The bytes read so far of a file; `ensure` reads on. A deflated body takes the buffer's place."""

    __slots__ = ("buffer", "handle", "size", "unpacked")

    def __init__(self, handle: BinaryIO) -> None:
        self.handle, self.size = handle, os.fstat(handle.fileno()).st_size
        self.buffer = bytearray(handle.read(_CHUNK))
        self.unpacked = False

    def ensure(self, end: int) -> int:
        """Have at least the first `end` bytes, or all; returns how many there are."""
        have = len(self.buffer)
        if have < end and have < self.size:
            self.buffer += self.handle.read(max(end - have, have))
        return len(self.buffer)

    def all(self) -> bytearray:
        """Every byte."""
        self.ensure(self.size)
        return self.buffer

    def become(self, data: bytes) -> None:
        """Go on reading in `data`."""
        self.buffer, self.size, self.unpacked = bytearray(data), len(data), True


@dataclass(frozen=True, slots=True)
class DataSet:
    """Elements by tag, each (VR, offset, length) in `source.buffer`; VR is b"" where the syntax does not say it.

    A length of -1 is an undefined one; `ends` has then where the value ends.
    """

    source: Source
    elements: Mapping[int, tuple[bytes, int, int]]
    explicit: bool
    little: bool
    limits: Limits
    depth: int = 0
    syntax: str = ""
    has_header: bool = True  # preamble and file meta group

    def __contains__(self, tag: int) -> bool:
        return tag in self.elements

    def raw(self, tag: int) -> bytes:
        """The value's bytes; b"" where there is no such element or its length is undefined."""
        found = self.elements.get(tag)
        return b"" if found is None or found[2] < 0 else bytes(self.source.buffer[found[1] : found[1] + found[2]])

    def text(self, tag: int) -> str:
        """The value as text without padding, "" where there is none (latin-1: only codes and UIDs are read so)."""
        return self.raw(tag).decode("latin-1").strip(" \0\r\n\t")

    def texts(self, tag: int) -> list[str]:
        """The values of a text element of any multiplicity."""
        said = self.text(tag)
        return [part.strip(" \0") for part in said.split("\\")] if said else []

    def numbers(self, tag: int, vr: bytes = b"DS") -> list[float]:
        """The values as numbers, [] where there are none; `vr` says how to read them when the file does not."""
        said = self.elements.get(tag, (b"", 0, 0))[0]
        vr = said if said and said not in (b"UN", b"OB", b"OW") else vr
        if vr in _BINARY:
            return [float(v) for v in self.array(tag, _BINARY[vr])]
        try:
            found = [float(part) for part in self.texts(tag) if part]
        except ValueError:
            raise Refused("dicom_value", f"element {_name(tag)} is not a number") from None
        if not all(map(math.isfinite, found)):
            raise Refused("dicom_value", f"element {_name(tag)} is not finite")
        return found

    def number(self, tag: int, vr: bytes = b"DS", default: float | None = None) -> float | None:
        """The first value as a number, or `default`."""
        found = self.numbers(tag, vr)
        return found[0] if found else default

    def integer(self, tag: int, default: int, vr: bytes = b"US") -> int:
        """The first value as an integer, or `default`."""
        found = self.numbers(tag, vr)
        return int(found[0]) if found else default

    def array(self, tag: int, code: str) -> NDArray[np.generic]:
        """The value as a one-dimensional array of numpy type `code` ("u2") in this data set's byte order."""
        data = self.raw(tag)
        kind = np.dtype(("<" if self.little else ">") + code)
        return np.frombuffer(data, kind, len(data) // kind.itemsize)

    def items(self, tag: int) -> list[DataSet]:
        """The items of a sequence, [] where there are none."""
        found = self.elements.get(tag)
        if found is None or found[2] == 0:
            return []
        vr, start, length = found
        explicit = self.explicit and vr != b"UN"
        return _items(self, start, -1 if length < 0 else start + length, explicit)

    def item(self, *tags: int) -> DataSet | None:
        """The first item of the sequence, then of the sequence inside it ... None where one is missing."""
        here: DataSet | None = self
        for tag in tags:
            inside = here.items(tag) if here is not None else []
            here = inside[0] if inside else None
        return here


def _name(tag: int) -> str:
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


class _Short(Refused):
    """The bytes at hand end too early; there may be more in the file."""


def _short(what: str) -> _Short:
    return _Short("dicom_short", f"the file ends inside {what}")


# ---------------------------------------------------------------- the file


def parse(handle: BinaryIO, limits: Limits = LIMITS) -> DataSet:
    """The top level of a DICOM file up to its pixel data. `Refused` codes: `dicom_magic` (not DICOM), `dicom_short`,
    `dicom_depth`, `dicom_sequence`, `ratio`, `deflate`."""
    source = Source(handle)
    if source.buffer[:2] == b"\x1f\x8b":
        source.become(inflate(bytes(source.all()), limits=limits))
    buffer = source.buffer
    has_header = bytes(buffer[128:132]) == b"DICM"
    at = 132 if has_header else 0
    if not has_header and not _plausible(buffer):
        raise Refused("dicom_magic", "the file has neither the DICOM preamble nor a data set at its start")
    syntax = ""
    if _group(buffer, at, True) == 2:
        meta, at = _elements(source, at, True, True, limits, group=2)
        syntax = DataSet(source, meta, True, True, limits).text(0x00020010)
    if syntax == DEFLATED:
        source.become(inflate(bytes(source.all()[at:]), limits=limits, raw=True))
        at = 0
    little = syntax != BIG_ENDIAN
    group = _group(source.buffer, at, little)
    if not syntax and group > 0xFF and _group(source.buffer, at, False) <= 0xFF:
        little = False
    explicit = bytes(source.buffer[at + 4 : at + 6]) in (_LONG | _SHORT)
    found, _ = _elements(source, at, explicit, little, limits)
    return DataSet(source, found, explicit, little, limits, 0, syntax, has_header)


def _group(buffer: bytearray, at: int, little: bool) -> int:
    return int.from_bytes(buffer[at : at + 2], "little" if little else "big")


def _plausible(buffer: bytearray) -> bool:
    """Whether the bytes could begin a data set: a first group of 2 or 8 and a length that stays small."""
    if len(buffer) < 16 or bytes(buffer[:2]) not in (b"\x02\x00", b"\x08\x00", b"\x00\x08", b"\x00\x02"):
        return False
    if bytes(buffer[4:6]) in (_LONG | _SHORT):
        return True
    return int.from_bytes(buffer[4:8], "little" if buffer[0] else "big") <= 1024


def _elements(
    source: Source, at: int, explicit: bool, little: bool, limits: Limits, *, group: int | None = None
) -> tuple[dict[int, tuple[bytes, int, int]], int]:
    """The elements from `at` to the pixel data or the end of the file (or of `group`), and where they stop."""
    found: dict[int, tuple[bytes, int, int]] = {}
    order = "<" if little else ">"
    head, wide = struct.Struct(order + "HH2sH").unpack_from, struct.Struct(order + "I").unpack_from
    buffer, have, size = source.buffer, len(source.buffer), source.size
    while at + 8 <= size:
        if at + 12 > have:
            have = source.ensure(at + 12)
        first, second, vr, length = head(buffer, at)
        if group is not None and first != group:
            break
        tag = first << 16 | second
        start = at + 8
        if not explicit:
            vr, length = b"", wide(buffer, at + 4)[0]
        elif vr in _LONG:
            if have < at + 12:
                raise _short(f"element {_name(tag)}")
            length, start = wide(buffer, at + 8)[0], at + 12
        elif vr not in _SHORT and not vr.isalpha():  # a VR that is none: some writers fall back to implicit here
            vr, length = b"", wide(buffer, at + 4)[0]
        if tag in PIXELS:
            found[tag] = (vr, start, -1 if length == _UNDEFINED else length)
            return found, start
        end = start + length
        if length == _UNDEFINED:
            end, have = _skip_reading(source, start, explicit and vr != b"UN", little, limits.depth)
            found[tag] = (vr, start, -1)
        else:
            if end > size:
                if first == 0xFFFC or (found and first == 0):  # trailing padding
                    break
                raise _short(f"element {_name(tag)}")
            if end > have:
                have = source.ensure(end)
            if (
                vr == b"SQ"
                and length
                and buffer.count(b"\xe0\x00" if not little else b"\x00\xe0", start, end) > limits.depth
            ):
                skip_sequence(buffer, start, end, vr == b"SQ", little, limits.depth, defined=True)
            found[tag] = (vr, start, length)
        at = end
    return found, at


def _skip_reading(source: Source, start: int, explicit: bool, little: bool, depth: int) -> tuple[int, int]:
    """Where a sequence of undefined length ends, reading on as far as it takes, and how many bytes are then at hand."""
    have = source.ensure(start)
    while True:
        try:
            return skip_sequence(source.buffer, start, have, explicit, little, depth), have
        except _Short:
            before, have = have, source.ensure(2 * have)
            if have == before:
                raise


# ---------------------------------------------------------------- sequences


def _items(parent: DataSet, start: int, end: int, explicit: bool) -> list[DataSet]:
    """The items of the sequence at `start` (to `end`, or to its delimiter when `end` is -1)."""
    if parent.depth >= parent.limits.depth:
        raise Refused("dicom_depth", f"sequences nest more than {parent.limits.depth} deep")
    buffer, little = parent.source.buffer, parent.little
    stop = end if end >= 0 else len(buffer)
    wide = struct.Struct(("<" if little else ">") + "HHI").unpack_from
    out: list[DataSet] = []
    at = start
    while at + 8 <= stop:
        first, second, length = wide(buffer, at)
        tag = first << 16 | second
        at += 8
        if tag == _SEQ_END:
            break
        if tag != _ITEM:
            raise Refused("dicom_sequence", f"a sequence holds {_name(tag)} where an item must stand")
        last = stop if length == _UNDEFINED else at + length
        if last > stop:
            raise _short("a sequence item")
        found, at = _item(buffer, at, last, explicit, little, parent.limits.depth)
        out.append(DataSet(parent.source, found, explicit, little, parent.limits, parent.depth + 1))
        if len(out) > parent.limits.members:
            raise Refused("dicom_sequence", f"a sequence has more than {parent.limits.members} items")
    return out


def _item(
    buffer: bytearray, at: int, end: int, explicit: bool, little: bool, depth: int
) -> tuple[dict[int, tuple[bytes, int, int]], int]:
    found: dict[int, tuple[bytes, int, int]] = {}
    while at + 8 <= end:
        tag, vr, start, length = _header(buffer, at, end, explicit, little)
        if tag == _ITEM_END:
            return found, start
        if length == _UNDEFINED:
            found[tag] = (vr, start, -1)
            at = skip_sequence(buffer, start, end, explicit and vr != b"UN", little, depth)
        else:
            found[tag] = (vr, start, length)
            at = start + length
        if at > end:
            raise _short(f"element {_name(tag)} of a sequence item")
    return found, at


def _header(buffer: bytearray, at: int, end: int, explicit: bool, little: bool) -> tuple[int, bytes, int, int]:
    """(tag, VR, where the value starts, its length) of the element at `at`."""
    order = "<" if little else ">"
    first, second, vr, length = struct.unpack_from(order + "HH2sH", buffer, at)
    tag = first << 16 | second
    if first == 0xFFFE or not explicit or (vr not in _LONG and vr not in _SHORT and not vr.isalpha()):
        return tag, b"", at + 8, struct.unpack_from(order + "I", buffer, at + 4)[0]
    if vr not in _LONG:
        return tag, vr, at + 8, length
    if at + 12 > end:
        raise _short(f"element {_name(tag)}")
    return tag, vr, at + 12, struct.unpack_from(order + "I", buffer, at + 8)[0]


def skip_sequence(
    buffer: bytearray, at: int, end: int, explicit: bool, little: bool, depth: int, *, defined: bool = False
) -> int:
    """Where the sequence (or encapsulated value) of undefined length that starts at `at` ends.

    A stack instead of recursion; more than `depth` levels are `Refused("dicom_depth")`. With `defined` the sequence
    ends at `end`, and only its depth is checked.
    """
    stack: list[tuple[bool, int, bool]] = [(True, end if defined else -1, explicit)]  # (is a sequence, end, explicit)
    while stack:
        is_sequence, stop, explicit = stack[-1]
        if stop >= 0 and at >= stop:
            stack.pop()
            at = stop
            continue
        if at + 8 > end:
            raise _short("a sequence")
        tag, vr, start, length = _header(buffer, at, end, explicit, little)
        at = start
        if is_sequence:
            if tag == _SEQ_END:
                stack.pop()
            elif tag == _ITEM:
                stack.append((False, -1 if length == _UNDEFINED else at + length, explicit))
            else:
                raise Refused("dicom_sequence", f"a sequence holds {_name(tag)} where an item must stand")
        elif tag == _ITEM_END:
            stack.pop()
        elif length == _UNDEFINED or vr == b"SQ" or (not vr and _looks_nested(buffer, at, length, little)):
            stack.append((True, -1 if length == _UNDEFINED else at + length, explicit and vr != b"UN"))
        else:
            at += length
        if len(stack) > 2 * depth:
            raise Refused("dicom_depth", f"sequences nest more than {depth} deep")
        if at > end or (stack and stack[-1][1] > end):
            raise _short("a sequence")
    return at


def _crowded(buffer: bytearray, start: int, end: int, little: bool, depth: int) -> bool:
    """Whether a sequence of known length holds so many items that its depth must be looked at."""
    mark = b"\xfe\xff\x00\xe0" if little else b"\xff\xfe\xe0\x00"
    return buffer.startswith(mark, start) and buffer.count(mark, start, end) > depth


def _looks_nested(buffer: bytearray, at: int, length: int, little: bool) -> bool:
    return length >= 8 and bytes(buffer[at : at + 4]) == (b"\xfe\xff\x00\xe0" if little else b"\xff\xfe\xe0\x00")
