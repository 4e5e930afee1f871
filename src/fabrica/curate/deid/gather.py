"""The first pass over a folder: names and numbers of structured fields, and whose the patient identifiers are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fabrica import safe
from fabrica.curate.deid.cells import kind_of
from fabrica.curate.deid.dicom import header_identifiers, subject_of
from fabrica.errors import MissingExtra, Refused
from fabrica.safe import Limits
from fabrica.sources import DECODER_ERRORS, Ref, sniff
from fabrica.sources.dicom_parse import parse
from fabrica.sources.rows import BadRow, parquet_batches, parquet_header, read_rows
from fabrica.sources.single import hashed

UNREADABLE: tuple[type[Exception], ...] = (Refused, MissingExtra, *DECODER_ERRORS)


@dataclass(slots=True)
class Gathered:
    """`values` to look for in every text; `patients`: raw identifier in small letters -> record subject."""

    source: str
    pattern: re.Pattern[str] | None
    limits: Limits
    values: set[str] = field(default_factory=set)
    patients: dict[str, str] = field(default_factory=dict)

    def gather(self, ref: Ref) -> None:
        """Names and numbers that the file's fields state. What cannot be read here is refused in the second pass."""
        try:
            found = sniff(ref.path)
            if found == "dicom":
                with safe.open_file(ref.path, self.limits) as handle:
                    data = parse(handle, self.limits)
                self.values |= set(header_identifiers(data))
                who = subject_of(data, self.source)
                if who is not None and data.text(0x00100020):
                    self._patient(data.text(0x00100020), who)
            elif found in ("table", "meds"):
                for row in rows(ref.path, self.limits):
                    self._row(row)
            elif found == "edf":
                with safe.open_file(ref.path, self.limits) as handle:
                    said = handle.read(88)[8:88].decode("latin-1").strip()
                if not re.fullmatch(r"[Xx\s?]*", said):
                    self._patient(said, hashed("subject", self.source, said))
                    self.values |= {w.replace("_", " ") for w in said.split() if len(w) > 2 and w not in ("M", "F")}
        except UNREADABLE:
            return
        if self.pattern is not None and (m := self.pattern.search(ref.key)) and m[1]:
            self._patient(m[1], hashed("subject", self.source, m[1]))

    def _row(self, row: Mapping[str, Any]) -> None:
        for column, value in row.items():
            kind = kind_of(column)
            if not isinstance(value, (str, int)) or isinstance(value, bool):
                continue
            if kind == "name" and isinstance(value, str):
                self.values.add(value)
            elif kind == "subject":
                self._patient(str(value), hashed("subject", self.source, str(value)))
            elif kind == "id" and len(str(value)) >= 6:
                self.values.add(str(value))

    def _patient(self, raw: str, subject: str) -> None:
        self.patients[raw.lower()] = subject
        if sum(c.isdigit() for c in raw) >= 4 or len(raw) >= 8:
            self.values.add(raw)


def batches(path: Path, limits: Limits) -> Iterator[Any]:
    """Record batches of a Parquet file."""
    yield from parquet_batches(path, limits, columns=list(parquet_header(path, limits)), size=4096)


def rows(path: Path, limits: Limits) -> Iterator[dict[str, Any]]:
    """The rows of a CSV, TSV, JSONL or Parquet file as they are; a row that does not fit is `Refused("table_row")`,
    since nobody knows whose cells it holds."""
    _, found = read_rows(path, limits)
    for row in found:
        if isinstance(row, BadRow):
            raise Refused("table_row", f"a row does not fit the table: {row.why}")
        yield dict(row)
