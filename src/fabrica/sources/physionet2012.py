"""PhysioNet/CinC Challenge 2012 stays: one text file a stay, `Time,Parameter,Value`, outcomes in a file beside the set.

Silva et al., "Predicting in-hospital mortality of ICU patients" (2012). -1 stands for a value that is not known.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from fabrica import safe
from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Quarantined, Ref
from fabrica.sources.events import EVENT, Layout, records, schema
from fabrica.sources.rows import decode
from fabrica.types import Record

HEAD = b"Time,Parameter,Value"
DESCRIPTORS = ("Age", "Gender", "Height", "ICUType")  # said once, at 00:00: they hold throughout
MAX_BYTES = 4 << 20
_HOUR_US = 3_600_000_000
_LABELS = {
    "SAPS-I": "saps_i", "SOFA": "sofa", "Length_of_stay": "length_of_stay_days", "Survival": "survival_days",
    "In-hospital_death": "in_hospital_death",
}  # fmt: skip
_TIME = re.compile(r"(\d{1,4}):([0-5]\d)")


def outcomes(path: Path) -> Path | None:
    """The outcomes of the set that a stay belongs to: `Outcomes-a.txt` beside the folder `set-a`."""
    found = re.fullmatch(r"set-(\w{1,8})", path.parent.name)
    beside = path.parent.parent / f"Outcomes-{found[1]}.txt" if found else None
    return beside if beside is not None and beside.is_file() else None


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """One record a stay: "events", series items by hours since admission; what holds throughout without hours; labels
    from the outcomes where they are at hand ("in_hospital_death" 0/1, scores, days).

    Refused: `stay_no_id`, `not_text`, `file_too_large`. Rows that cannot be read are quarantined with their count.
    """
    import pyarrow as pa

    small = safe.Limits(file_bytes=min(limits.file_bytes, MAX_BYTES))
    stay, rows, bad = _rows(decode(safe.read_bytes(ref.path, small)))
    if bad:
        yield Quarantined(ref.key, safe.sha256(ref.path), "row_shape", f"{bad} rows without time, parameter and number")
    if not rows:
        yield Quarantined(ref.key, safe.sha256(ref.path), "no_events", "a stay of which nothing is known")
    columns = {
        "patient": [stay] * len(rows), "time": [t for t, _, _ in rows], "kind": [EVENT] * len(rows),
        "code": [c for _, c, _ in rows], "value": [v for _, _, v in rows], "text": [None] * len(rows),
        "visit": [None] * len(rows),
    }  # fmt: skip
    beside = outcomes(ref.path)
    labels = _outcomes(beside, limits.file_bytes).get(stay, {}) if beside is not None else {}
    for found in records(pa.table(columns, schema=schema()), Layout(ref, relative=True, people=False, stay=True)):
        yield found.updated(labels=labels) if isinstance(found, Record) else found


def _rows(text: str) -> tuple[str, list[tuple[int | None, str, float]], int]:
    """The stay's number, (microseconds or None, parameter, value) of what is known, and how many rows are bad."""
    stay, rows, bad = "", [], 0
    for line in list(csv.reader(io.StringIO(text)))[1:]:
        time = _TIME.fullmatch(line[0]) if len(line) == 3 else None
        value = _number(line[2]) if time is not None else None
        if time is None or value is None or not line[1]:
            bad += bool(line)
            continue
        if line[1] == "RecordID":
            stay = f"{value:.0f}"
        elif value != -1:
            at = (int(time[1]) * 60 + int(time[2])) * _HOUR_US // 60
            rows.append((None if line[1] in DESCRIPTORS else at, line[1], value))
    if not stay:
        raise Refused("stay_no_id", "the file names no RecordID")
    return stay, rows, bad


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


@lru_cache(maxsize=4)
def _outcomes(path: Path, most: int) -> Mapping[str, Mapping[str, float]]:
    """Stay -> labels; what is -1 is left out: not known."""
    text = decode(safe.read_bytes(path, safe.Limits(file_bytes=min(most, MAX_BYTES))))
    made = {}
    for row in csv.DictReader(io.StringIO(text)):
        known = {ours: _number(row.get(theirs) or "") for theirs, ours in _LABELS.items()}
        made[(row.get("RecordID") or "").strip()] = {k: v for k, v in known.items() if v is not None and v != -1}
    return MappingProxyType(made)
