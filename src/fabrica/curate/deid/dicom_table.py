"""DICOM PS3.15 Table E.1-1 and E.3.4-1 (edition 2026d): what the Basic Profile and its options do to each attribute.

The rows stand in two CSV files beside this one: tags, names and action letters are facts of the standard. The rows of
edition 2026d were compared with an independent transcription of 2026c: 654 rows are equal, 2026d adds (3004,007F).
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.resources import files

EDITION = "2026d"
ACTIONS = ("D", "Z", "X", "K", "C", "U")  # dummy, zero length, remove, keep, clean, new UID
METHODS: Mapping[str, tuple[str, str]] = {  # PS3.16 CID 7050, coding scheme DCM
    "basic": ("113100", "Basic Application Confidentiality Profile"),
    "pixels": ("113101", "Clean Pixel Data Option"),
    "graphics": ("113103", "Clean Graphics Option"),
    "structured": ("113104", "Clean Structured Content Option"),
    "descriptors": ("113105", "Clean Descriptors Option"),
    "full_dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "modified_dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "patient": ("113108", "Retain Patient Characteristics Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "uids": ("113110", "Retain UIDs Option"),
    "institution": ("113112", "Retain Institution Identity Option"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of the Basic Profile (PS3.15 E.3). Retain Safe Private and Clean Graphics are not offered: private
    attributes, curves, overlays and graphic annotations always go.

    `modified_dates` shifts dates by the patient's whole days (`full_dates` keeps them and wins); `descriptors` keeps
    the words of descriptions that are in a closed list of protocol words; `structured` cleans report trees;
    `pixels` masks burned-in text instead of refusing the picture; `patient` keeps sex, age (over 89 as 90), size.
    """

    uids: bool = False
    device: bool = False
    institution: bool = False
    patient: bool = True
    full_dates: bool = False
    modified_dates: bool = True
    descriptors: bool = True
    structured: bool = True
    pixels: bool = False

    def on(self) -> tuple[str, ...]:
        """The names of what is switched on."""
        names = tuple(f.name for f in fields(self) if getattr(self, f.name))
        return tuple(n for n in names if n != "modified_dates" or not self.full_dates)


@dataclass(frozen=True, slots=True)
class Row:
    """One attribute of the table: the basic action ("X/Z/D" ...) and what options change it to."""

    tag: str  # eight hexadecimal digits, X for any; "PRIVATE"
    name: str
    basic: str
    options: Mapping[str, str]

    def action(self, options: Options) -> str:
        """One letter. Of a combined action the last, which every information object allows: zero length where removal
        may break a type 2 attribute, a dummy where it may break a type 1, new UIDs where a sequence of references may
        be needed. An option's Keep wins over its Clean.

        >>> table()[0x00080022].action(Options(modified_dates=False)), table()[0x00080022].action(Options())
        ('Z', 'C')
        """
        said = {self.options[name] for name in options.on() if name in self.options}
        return "K" if "K" in said else "C" if "C" in said else self.basic.rstrip("*").split("/")[-1]


@functools.cache
def rows() -> tuple[Row, ...]:
    """Every row of Table E.1-1, in order of tag."""
    return tuple(Row(r["tag"], r["name"], r["basic"], _pairs(r["options"])) for r in _csv("ps3_15_2026d.csv"))


@functools.cache
def table() -> Mapping[int, Row]:
    """The rows by tag, without the repeating groups and the private attributes, which `row_of` knows.

    >>> table()[0x00100010].basic, table()[0x0020000D].basic
    ('Z', 'U')
    """
    return {int(row.tag, 16): row for row in rows() if row.tag != "PRIVATE" and "X" not in row.tag}


@functools.cache
def content_table() -> Mapping[tuple[str, str], Row]:
    """Table E.3.4-1: what becomes of a content item by its concept's (scheme, code)."""
    found = _csv("ps3_15_2026d_content.csv")
    return {
        (r["scheme"], r["code"]): Row(f"{r['scheme']} {r['code']}", r["name"], r["basic"], _pairs(r["options"]))
        for r in found
    }


def row_of(tag: int) -> Row | None:
    """The row that governs a tag: its own, that of private attributes (odd group), curves or overlays; None."""
    group = tag >> 16
    special = _special()
    if group % 2:
        return special["PRIVATE"] if tag not in table() else table()[tag]
    if group & 0xFF00 == 0x5000:
        return special["50XXXXXX"]
    if group & 0xFF00 == 0x6000:
        return special.get(f"60XX{tag & 0xFFFF:04X}")
    return table().get(tag)


@functools.cache
def _special() -> Mapping[str, Row]:
    return {row.tag: row for row in rows() if row.tag == "PRIVATE" or "X" in row.tag}


def _pairs(text: str) -> Mapping[str, str]:
    return dict(part.split("=") for part in text.split())


def _csv(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(files(__package__).joinpath(name).read_text("utf-8").splitlines()))
