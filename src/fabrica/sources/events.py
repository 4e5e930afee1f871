"""Rows of timed events -> one record a patient (or a stay), as `sources.meds` lays them out.

A row says what happened to whom: `patient` (the key of the record), `time` (microseconds, UTC; absent = holds
throughout), `kind` (below), `code`, `value` (a number, or absent), `text`, `visit`. Times leave as hours since the
patient's first event, identifiers as hashes; a record's id hashes the patient's own rows, so that a table that grows by
other patients keeps the ids of those it had.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fabrica.sources import Quarantined, Ref, rights_of
from fabrica.sources.jsons import parse
from fabrica.sources.leads import Channel
from fabrica.sources.leads import items as signals
from fabrica.sources.single import hashed
from fabrica.types import Absent, Item, Origin, Record, record_id

if TYPE_CHECKING:
    import pyarrow as pa

EVENT, BIRTH, SUBJECT, VISIT_END, TEXT, SIGNAL, KNOWN, AGE, GROUP = range(9)
NONE = np.iinfo(np.int64).min  # no time
HOUR_US, YEAR_HOURS = 3_600_000_000, 24 * 365.25
OLDEST = 120.0  # years; above it the source has masked the age (MIMIC-III writes 300)
ROLES = ("report", "note")


def schema() -> pa.Schema:
    """The columns of event rows."""
    import pyarrow as pa

    return pa.schema(
        [
            ("patient", pa.string()), ("time", pa.timestamp("us")), ("kind", pa.int8()), ("code", pa.string()),
            ("value", pa.float64()), ("text", pa.string()), ("visit", pa.string()),
        ]
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows become records: `relative` times count from 0 itself (a stay's admission), not from the first event;
    `people` says that a table of patients exists, so that events of somebody it lacks are quarantined; `stay` says
    that a row's `patient` is a stay, whose patient comes as a SUBJECT row."""

    ref: Ref
    relative: bool = False
    people: bool = True
    stay: bool = False


def sort(table: pa.Table) -> pa.Table:
    """Rows by patient, then time (those without first), then as they came; a row without a time of its own that names
    a visit takes the end of that visit."""
    import pyarrow as pa

    patient = table.column("patient").combine_chunks().dictionary_encode()
    names = patient.dictionary.to_pylist()
    rank = np.empty(len(names), np.int64)
    rank[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    who = rank[patient.indices.to_numpy(zero_copy_only=False)]
    time = _times(table.column("time"))
    filled = _at_visit_end(table, time)
    if filled is not None:
        time = filled
        stamps = pa.array(time, pa.timestamp("us"), mask=time == NONE)
        table = table.set_column(1, "time", stamps)
    return table.take(pa.array(np.lexsort((time, who))))


def _times(column: Any) -> NDArray[np.int64]:
    import pyarrow as pa

    times: NDArray[np.int64] = column.cast(pa.int64()).fill_null(int(NONE)).to_numpy()
    return times


def _at_visit_end(table: pa.Table, time: NDArray[np.int64]) -> NDArray[np.int64] | None:
    import pyarrow.compute as pc

    kind = table.column("kind").to_numpy()
    if not (kind == VISIT_END).any():
        return None
    visit = pc.binary_join_element_wise(table.column("patient"), table.column("visit"), "\x1f").combine_chunks()
    ends = np.flatnonzero((kind == VISIT_END) & (time != NONE))
    wanting = np.flatnonzero((time == NONE) & (kind == EVENT) & visit.is_valid().to_numpy(zero_copy_only=False))
    at = pc.index_in(visit.take(wanting), value_set=visit.take(ends))
    found = at.is_valid().to_numpy(zero_copy_only=False)
    filled = time.copy()
    filled[wanting[found]] = time[ends[at.drop_null().to_numpy()]]
    return filled


def records(table: pa.Table, layout: Layout) -> Iterator[Record | Quarantined]:
    """The records of a table in which every patient is whole, in the order of their keys.

    Quarantined: `person_missing` (rows of somebody that the table of patients lacks), `person_twice` (one key, two
    different patients), `no_events`."""
    if not table.num_rows:
        return
    table = sort(table)
    codes = table.column("code").combine_chunks().dictionary_encode()
    names = np.array([*(" ".join(c.split("\n")) for c in codes.dictionary.to_pylist()), ""], object)
    columns = _Columns(
        _times(table.column("time")),
        table.column("kind").to_numpy(),
        codes.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False),
        table.column("value").fill_null(math.nan).to_numpy(),
        names,
    )
    patient = table.column("patient").combine_chunks().dictionary_encode()
    key = patient.indices.to_numpy(zero_copy_only=False)
    edges = [0, *(np.flatnonzero(key[1:] != key[:-1]) + 1).tolist(), len(key)]
    for a, b in pairwise(edges):
        name = patient.dictionary[int(key[a])].as_py()
        yield from _Patient(layout, name, columns.cut(a, b), table, a).records()


@dataclass(slots=True)
class _Columns:
    time: NDArray[np.int64]
    kind: NDArray[np.int8]
    code: NDArray[np.int64]
    value: NDArray[np.float64]
    names: NDArray[Any]

    def cut(self, a: int, b: int) -> _Columns:
        return _Columns(self.time[a:b], self.kind[a:b], self.code[a:b], self.value[a:b], self.names)


class _Patient:
    """The rows of one key."""

    def __init__(self, layout: Layout, name: str, rows: _Columns, table: pa.Table, first: int) -> None:
        self.layout, self.name, self.rows, self.table, self.first = layout, name, rows, table, first
        self.key = hashed("stay" if layout.stay else "subject", layout.ref.source, name)

    def records(self) -> Iterator[Record | Quarantined]:
        ref, rows = self.layout.ref, self.rows
        kinds = set(np.unique(rows.kind).tolist())
        if self.layout.people and KNOWN not in kinds:
            count = int(np.isin(rows.kind, (EVENT, TEXT, SIGNAL)).sum())
            why = f"{count} events of a {'stay' if self.layout.stay else 'patient'} that the table of patients lacks"
            yield Quarantined(f"{ref.key}#{self.key}", "", "person_missing", why)
            return
        subjects = sorted(set(self._codes(SUBJECT)))
        if len(subjects) > 1:
            yield Quarantined(f"{ref.key}#{self.key}", "", "person_twice", "one stay is said to be of two patients")
            return
        zero = self._zero()
        texts = self._texts(kinds)
        digest = self._digest(texts)
        origin = Origin(ref.source, f"{ref.key}#{self.key}", digest, ref.licence)
        items = self._events(origin, zero)
        if age := self._age(origin, zero, kinds):
            items["table"] = (age,)
        for row, role, text in texts:
            hours = self._hours(int(rows.time[row]), zero)
            if rows.kind[row] == SIGNAL:
                for found_role, found in signals(_channels(text), origin).items():
                    timed = tuple(replace(item, hours=hours) for item in found)
                    items[found_role] = (*items.get(found_role, ()), *timed)
            else:
                items[role] = (*items.get(role, ()), Item("text", text, origin, hours=hours))
        if not items:
            yield Quarantined(
                f"{ref.key}#{self.key}", digest, "no_events", "a patient of whom nothing is said that is read"
            )
            return
        subject = hashed("subject", ref.source, subjects[0]) if subjects else self.key
        yield Record(
            record_id(ref.source, self.key, digest), subject, groups=self._groups(), items=items, rights=rights_of(ref)
        )

    def _codes(self, kind: int) -> list[str]:
        return [str(c) for c in self.rows.names[self.rows.code[self.rows.kind == kind]]]

    def _zero(self) -> int | None:
        if self.layout.relative:
            return 0
        timed = self.rows.time[np.isin(self.rows.kind, (EVENT, TEXT, SIGNAL)) & (self.rows.time != NONE)]
        return int(timed[0]) if len(timed) else None

    @staticmethod
    def _hours(time: int, zero: int | None) -> float | None:
        return None if time == NONE or zero is None else (time - zero) / HOUR_US

    def _events(self, origin: Origin, zero: int | None) -> dict[str, tuple[Item, ...]]:
        rows = self.rows
        event = rows.kind == EVENT
        with np.errstate(over="ignore"):
            values = rows.value.astype(np.float32)
        known = np.isfinite(values)
        found: dict[str, tuple[Item, ...]] = {}
        if series := [
            Item("series", values[part], origin, self._hours(time, zero), names=tuple(names))
            for time, part, names in self._by_time(np.flatnonzero(event & known))
        ]:
            found["events"] = tuple(series)
        if codes := [
            Item("codes", "\n".join(names), origin, self._hours(time, zero))
            for time, _, names in self._by_time(np.flatnonzero(event & ~known))
        ]:
            found["codes"] = tuple(codes)
        return found

    def _by_time(self, at: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], list[str]]]:
        """(time, its rows, their codes) of rows in order of time."""
        if not len(at):
            return
        times, names = self.rows.time[at], self.rows.names[self.rows.code[at]].tolist()
        edges = np.concatenate(([0], np.flatnonzero(times[1:] != times[:-1]) + 1))
        for time, a, b in zip(times[edges].tolist(), edges.tolist(), [*edges[1:].tolist(), len(at)], strict=True):
            yield time, at[a:b], names[a:b]

    def _age(self, origin: Origin, zero: int | None, kinds: set[int]) -> Item | None:
        years = None
        if AGE in kinds:
            years = float(self.rows.value[self.rows.kind == AGE][0])
        elif BIRTH in kinds and zero is not None and not self.layout.relative:
            birth = int(self.rows.time[self.rows.kind == BIRTH][0])
            years = None if birth == NONE else (zero - birth) / HOUR_US / YEAR_HOURS
        if years is None or math.isnan(years) or years < 0:
            return None
        value = Absent.WITHHELD if years > OLDEST else np.array([years], np.float32)
        return Item("table", value, origin, names=("age_years",))

    def _texts(self, kinds: set[int]) -> list[tuple[int, str, str]]:
        """(row, role, text) of notes, reports and sampled signals."""
        if not kinds & {TEXT, SIGNAL}:
            return []
        at = np.flatnonzero((self.rows.kind == TEXT) | (self.rows.kind == SIGNAL))
        texts = self.table.column("text").take(at + self.first).to_pylist()
        roles = self.rows.names[self.rows.code[at]].tolist()
        return [(int(n), r, t) for n, r, t in zip(at, roles, texts, strict=True) if t]

    def _groups(self) -> dict[str, str]:
        source = self.layout.ref.source
        groups = {"modality": "ehr"}
        if self.layout.stay:
            groups["stay"] = self.key
        for said in self._codes(GROUP):
            name, _, value = said.partition("\x1f")
            groups[name] = hashed(name, source, value)
        return groups

    def _digest(self, texts: Sequence[tuple[int, str, str]]) -> str:
        rows = self.rows
        digest = hashlib.sha256(rows.time.tobytes() + rows.kind.tobytes() + rows.value.tobytes())
        digest.update("\x1e".join(rows.names[rows.code].tolist()).encode("utf-8", "surrogatepass"))
        for _, role, text in texts:
            digest.update(f"\x1d{role}\x1e{text}".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def _channels(text: str) -> list[Channel]:
    """Channels from the JSON that the FHIR reader writes for sampled data."""
    return [
        Channel(c["name"], c["unit"], c["rate"], np.array(c["values"], np.float64)) for c in parse(text.encode("utf-8"))
    ]
