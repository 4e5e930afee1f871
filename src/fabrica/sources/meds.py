"""MEDS event streams (Parquet: subject_id, time, code, numeric_value) -> one record a subject.

Arnrich et al., "Medical Event Data Standard (MEDS)", 2024. Subjects are contiguous in a shard, as the standard says.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fabrica import safe
from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Ref, rights_of
from fabrica.sources.columns import split_of
from fabrica.sources.rows import parquet_batches, parquet_header
from fabrica.sources.single import hashed
from fabrica.types import Item, Origin, Record, Region, Split, record_id

COLUMNS = ("subject_id", "time", "code", "numeric_value")
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"
YEAR_HOURS = 24 * 365.25


@dataclass(slots=True)
class _Subject:
    id: int
    static: list[str] = field(default_factory=list)
    times: list[dt.datetime] = field(default_factory=list)
    events: list[list[tuple[str, float | None]]] = field(default_factory=list)
    birth: dt.datetime | None = None

    def add(self, time: dt.datetime | None, code: str, value: float | None) -> None:
        if time is None:
            self.static.append(code)
        elif code == BIRTH:
            self.birth = time
        elif self.times and self.times[-1] == time:
            self.events[-1].append((code, value))
        else:
            self.times.append(time)
            self.events.append([(code, value)])


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record]:
    """One record a subject. Hours count from the subject's first event after birth.

    Items: `events` (kind series): at each time the numeric events, values (k,) float32 with `names` their codes;
    `codes` (kind codes): at each time the events without a number, one code a line; static codes have no hours;
    `table`: age in years at the first event. Split from `metadata/subject_splits.parquet`, and tasks of
    `tasks/*.parquet` as time regions on `events` (at the prediction time, score = the boolean value) where these lie
    beside the data.
    Refused: `meds_columns`, `meds_order` (a subject comes twice), `parquet_bad`.
    """
    header = parquet_header(ref.path, limits)
    if missing := {"subject_id", "time", "code"} - set(header):
        raise Refused("meds_columns", f"the file has no column {', '.join(sorted(missing))}: it is not MEDS")
    sha256 = safe.sha256(ref.path)
    root = _root(ref.path)
    splits = _splits(root, limits) if root else {}
    tasks = _tasks(root, limits) if root else {}
    seen: set[int] = set()
    for subject in _subjects(ref.path, [c for c in COLUMNS if c in header], limits):
        if subject.id in seen:
            raise Refused("meds_order", "a subject's events are not together in the file")
        seen.add(subject.id)
        yield _record(ref, sha256, subject, splits.get(subject.id), tasks.get(subject.id, []))


def _subjects(path: Path, columns: list[str], limits: Limits) -> Iterator[_Subject]:
    now: _Subject | None = None
    for batch in parquet_batches(path, limits, columns=columns, size=65536):
        cells = [batch.column(c).to_pylist() for c in columns]
        if len(columns) == 3:
            cells.append([None] * len(batch))
        for who, time, code, value in zip(*cells, strict=True):
            if now is None or now.id != who:
                if now is not None:
                    yield now
                now = _Subject(who)
            now.add(time, str(code), value)
    if now is not None:
        yield now


def _record(
    ref: Ref, sha256: str, subject: _Subject, split: Split | None, tasks: list[tuple[str, Any, bool]]
) -> Record:
    who = hashed("subject", ref.source, str(subject.id))
    origin = Origin(ref.source, f"{ref.key}#{who}", sha256, ref.licence)
    zero = subject.times[0] if subject.times else None
    series, codes = [], []
    if subject.static:
        codes.append(Item("codes", "\n".join(subject.static), origin))
    for time, events in zip(subject.times, subject.events, strict=True):
        hours = (time - zero).total_seconds() / 3600  # type: ignore[operator]
        known = [(c, v) for c, v in events if v is not None and np.isfinite(v)]
        if known:
            values = np.array([v for _, v in known], np.float32)
            series.append(Item("series", values, origin, hours=hours, names=tuple(c for c, _ in known)))
        if bare := [c for c, v in events if v is None or not np.isfinite(v)]:
            codes.append(Item("codes", "\n".join(bare), origin, hours=hours))
    items: dict[str, tuple[Item, ...]] = {}
    if series:
        items["events"] = tuple(series)
    if codes:
        items["codes"] = tuple(codes)
    if subject.birth is not None and zero is not None:
        age = (zero - subject.birth).total_seconds() / 3600 / YEAR_HOURS
        items["table"] = (Item("table", np.array([age], np.float32), origin, names=("age_years",)),)
    regions = tuple(
        Region("events", "time", np.full(2, (at - zero).total_seconds()), f"task:{name}", origin, score=float(value))
        for name, at, value in tasks if zero is not None and at is not None
    )  # fmt: skip
    return Record(
        record_id(ref.source, ref.key, sha256, who), who, groups={"modality": "ehr"}, items=items, regions=regions,
        rights=rights_of(ref), split=split,
    )  # fmt: skip


def _root(path: Path) -> Path | None:
    """The data set's folder: the one that holds `metadata` and `data`, at most three levels up."""
    for folder in list(path.resolve().parents)[:4]:
        if (folder / "metadata").is_dir() and (folder / "data").is_dir():
            return folder
    return None


def _splits(root: Path, limits: Limits) -> Mapping[int, Split | None]:
    path = root / "metadata" / "subject_splits.parquet"
    if not path.is_file():
        return {}
    rows = (row for batch in parquet_batches(path, limits) for row in batch.to_pylist())
    return {row["subject_id"]: split_of(row["split"]) for row in rows}


def _tasks(root: Path, limits: Limits) -> Mapping[int, list[tuple[str, Any, bool]]]:
    found: dict[int, list[tuple[str, Any, bool]]] = {}
    for path in sorted((root / "tasks").rglob("*.parquet")) if (root / "tasks").is_dir() else []:
        if not {"subject_id", "prediction_time", "boolean_value"} <= set(parquet_header(path, limits)):
            continue
        for batch in parquet_batches(path, limits):
            for row in batch.to_pylist():
                if row["boolean_value"] is not None:
                    task = (path.stem, row["prediction_time"], row["boolean_value"])
                    found.setdefault(row["subject_id"], []).append(task)
    return found
