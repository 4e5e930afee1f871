"""Folders of EHR tables (several tables make one record) -> event rows, by a small declarative map a database.

A `TableMap` (see `sources.ehr_map`) says which table lists the patients and, for every table of events, which column
holds the time, which the value, and how its code is written (`"LAB//{itemid}//{valueuom}"`). Tables are
CSV, CSV.gz or Parquet, read in batches and grouped by patient in hash buckets on disk (`sources.spill`): memory does
not grow with the tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from fabrica.safe import LIMITS, Limits
from fabrica.sources import Quarantined, Ref
from fabrica.sources.arrow_rows import Frame, Trouble, batches, header
from fabrica.sources.ehr_map import FIELD, Event, People, TableMap, beside, fields
from fabrica.sources.events import (
    AGE,
    BIRTH,
    EVENT,
    GROUP,
    KNOWN,
    SUBJECT,
    TEXT,
    VISIT_END,
    Layout,
    records,
    schema,
    sort,
)
from fabrica.sources.single import hashed
from fabrica.sources.spill import Spill
from fabrica.types import Record

if TYPE_CHECKING:
    import pyarrow as pa

MASKED = 300.0  # years: an age that the source masks


def read(ref: Ref, map: TableMap, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """One record a key of the map, from the table of patients `ref` and the tables beside it.

    Quarantined, by table and reason with a count and the first rows: `row_shape`, `row_no_patient`, `code_empty`,
    `time_bad`, `time_range` (the rows without a time stay, without hours); tables: `table_not_mapped`, `table_ignored`,
    `table_twice`, `table_columns`; patients: `person_missing`, `person_twice`, `no_events`, `patient_too_large`.
    Refused as a whole, so that no patient is half read: a table that is cut or broken (`deflate`, `csv_bad`,
    `parquet_bad`, `not_text`, `ratio`).
    """
    with Spill(limits) as spill:
        names = _Names(map.names is not None)
        yield from _fill(ref, map, spill, names, limits)
        layout = Layout(ref, relative=map.minutes, stay=bool(map.people.subject))
        for table in spill.tables():
            yield from records(names.applied(table), layout)
        for name, size in spill.too_large:
            why = f"a bucket of {size} bytes that no split makes small enough: one patient has too many rows"
            key = hashed("stay" if layout.stay else "subject", ref.source, name)
            yield Quarantined(f"{ref.key}#{key}", "", "patient_too_large", why)


def event_tables(ref: Ref, map: TableMap, limits: Limits = LIMITS) -> Iterator[pa.Table]:
    """The events alone, as Arrow tables sorted by patient and time (see `sources.events.schema`), every patient whole
    in one of them. The keys are raw: for work inside the process, never to be stored."""
    with Spill(limits) as spill:
        names = _Names(map.names is not None)
        for _ in _fill(ref, map, spill, names, limits):
            pass
        for table in spill.tables():
            yield sort(names.applied(table))


class _Names:
    """Codes seen, and what a vocabulary makes of them."""

    def __init__(self, wanted: bool) -> None:
        self.wanted = wanted
        self.seen: set[str] = set()
        self.to: Mapping[str, str] = {}

    def see(self, codes: pa.Array) -> None:
        """Note the codes of a batch."""
        if self.wanted:
            self.seen.update(c for c in codes.unique().to_pylist() if c is not None)

    def applied(self, table: pa.Table) -> pa.Table:
        """The table with its codes rewritten."""
        import pyarrow as pa

        if not self.to:
            return table
        coded = table.column("code").combine_chunks().dictionary_encode()
        names = pa.array([self.to.get(c, c) for c in coded.dictionary.to_pylist()], pa.string())
        return table.set_column(table.schema.get_field_index("code"), "code", names.take(coded.indices))


def _fill(ref: Ref, map: TableMap, spill: Spill, names: _Names, limits: Limits) -> Iterator[Quarantined]:
    """All rows into the spill; what is not taken is named."""
    files = beside(ref.path, map)
    files[map.people.table] = [ref.path]
    for table in dict.fromkeys((map.people.table, *map.tables)):
        paths = files.get(table, [])
        for extra in paths[1:]:
            why = f"the table stands there more than once; {paths[0].name!r} was read"
            yield Quarantined(f"{ref.key}#{extra.name}", "", "table_twice", why)
        if paths:
            yield from _table(ref, map, table, paths[0], spill, names, limits)
    for table in sorted(files.keys() - {map.people.table, *map.tables}):
        code = "table_ignored" if table in map.ignored else "table_not_mapped"
        why = map.ignored.get(table, f"the {map.name} map has no table of this name")
        yield Quarantined(f"{ref.key}#{table}", "", code, why)
    if map.names is not None:
        names.to = map.names({t: p[0] for t, p in files.items()}, names.seen, limits)


def _table(
    ref: Ref, map: TableMap, table: str, path: Path, spill: Spill, names: _Names, limits: Limits
) -> Iterator[Quarantined]:
    has, trouble = set(header(path, limits)), Trouble()
    events = [e for e in map.events if e.table == table and has.issuperset(e.must)]
    lacking = [e for e in map.events if e.table == table and not e.second and not has.issuperset(e.must)]
    if map.key not in has or lacking:
        wanted = {map.key, *(c for e in lacking for c in e.must)} - has
        why = f"the table lacks the column {', '.join(sorted(wanted))}"
        yield Quarantined(f"{ref.key}#{table}", "", "table_columns", why)
        if map.key not in has:
            return
    visits = map.visits if map.visits and map.visits[0] == table else None
    reads = {map.key}.union(*(e.reads for e in events), visits[1:] if visits else ())
    if table == map.people.table:
        reads |= map.people.reads
    for frame in batches(path, reads, trouble, limits):
        keys = frame.key(map.key)
        frame.count("row_no_patient", keys.is_null())
        if table == map.people.table:
            _people(map.people, frame, keys, spill, names)
        for event in events:
            _event(event, frame, keys, map.minutes, spill, names)
        if visits:
            _add(spill, keys, VISIT_END, time=frame.time(visits[2]), visit=frame.key(visits[1]))
    for reason, count in sorted(trouble.counts.items()):
        first = ", ".join(f"{n:,}" for n in trouble.first[reason])
        why = f"{count:,} rows of {table!r}" + (f" (first: {first})" if first else "")
        yield Quarantined(f"{ref.key}#{table}:{reason}", "", reason, f"{why}: {WHY[reason]}")


WHY: Mapping[str, str] = MappingProxyType(
    {
        "row_shape": "more or fewer cells than the header",
        "row_no_patient": "no patient",
        "code_empty": "nothing that says what happened",
        "time_bad": "a time that is no date: the event is kept without hours",
        "time_range": "a year outside 1800-2299: the event is kept without hours",
    }
)


def _people(people: People, frame: Frame, keys: pa.Array, spill: Spill, names: _Names) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    _add(spill, keys, KNOWN)
    if people.subject:
        _add(spill, keys, SUBJECT, code=frame.key(people.subject))
    if people.birth is not None:
        _add(spill, keys, BIRTH, time=people.birth(frame))
    if people.age:
        text = frame.text(people.age)
        masked = pc.starts_with(text, ">").fill_null(False)
        _add(spill, keys, AGE, value=pc.if_else(masked, pa.scalar(MASKED), frame.number(people.age)))
    for template in people.static:
        code = _code(template, frame)
        names.see(code)
        _add(spill, keys, EVENT, code=code)
    for name, column in people.groups.items():
        _add(spill, keys, GROUP, code=pc.binary_join_element_wise(name, frame.key(column), "\x1f"))


def _event(event: Event, frame: Frame, keys: pa.Array, minutes: bool, spill: Spill, names: _Names) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    time = _minutes(frame, event.time) if minutes else frame.time(event.time)
    code = _code(event.code, frame, time)
    if not event.second and not event.text:
        frame.count("code_empty", pc.and_(keys.is_valid(), code.is_null()))
    if event.second and event.time:
        keys = pc.if_else(time.is_valid(), keys, pa.scalar(None, pa.string()))
    if event.text:
        _add(spill, keys, TEXT, time=time, code=code, text=frame.text(event.text))
        return
    value = frame.number(event.value) if event.value else None
    if value is not None and not FIELD.search(event.code):  # a column of its own: no number, no measurement
        keys = pc.if_else(value.is_valid(), keys, pa.scalar(None, pa.string()))
    if event.word:
        code = _with_word(code, frame.text(event.word), value)
    if event.split:
        (name,) = fields(event.code)
        cells = pc.split_pattern(frame.text(name), event.split)
        at = pc.list_parent_indices(cells)
        code = pc.binary_join_element_wise(event.code.partition("{")[0], pc.list_flatten(cells), "")
        keys, time = keys.take(at), time.take(at)
    names.see(code)
    visit = frame.key(event.visit) if event.visit else None
    _add(spill, keys, EVENT, time=time, code=code, value=value, visit=visit)


def _with_word(code: pa.Array, word: pa.Array, value: pa.Array | None) -> pa.Array:
    """The code with the short word that stands where there is no number: `LAB//51464//NEG`."""
    import pyarrow.compute as pc

    use = pc.less_equal(pc.utf8_length(word), 40).fill_null(False)
    if value is not None:
        use = pc.and_(use, value.is_null())
    return pc.if_else(use, pc.binary_join_element_wise(code, word, "//"), code)


def _minutes(frame: Frame, name: str) -> pa.Array:
    """Minutes since the stay began, as microseconds from 0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if f"minutes {name}" in frame.made:
        return frame.made[f"minutes {name}"]
    minutes = frame.number(name)
    frame.count("time_bad", pc.and_(minutes.is_null(), frame.text(name).is_valid()))
    outside = pc.greater(pc.abs(minutes), 100 * 366 * 1440).fill_null(False)
    frame.count("time_range", outside)
    minutes = pc.if_else(outside, pa.scalar(None, pa.float64()), minutes)
    times = pc.round(pc.multiply(minutes, 60e6)).cast(pa.int64()).cast(pa.timestamp("us"))
    frame.made[f"minutes {name}"] = times
    return times


def _code(template: str, frame: Frame, time: pa.Array | None = None) -> pa.Array:
    """A code a row; absent where a column that must be is empty, and where a row says neither what nor when."""
    import pyarrow as pa
    import pyarrow.compute as pc

    pieces = FIELD.split(template)  # literal, columns, mark, literal, columns, mark, literal
    if len(pieces) == 1:
        return pa.repeat(pa.scalar(template), frame.rows)
    parts: list[Any] = [pieces[0]]
    said = pa.repeat(pa.scalar(False), frame.rows) if time is None else time.is_valid()
    must = pa.repeat(pa.scalar(True), frame.rows)
    for group, mark, literal in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        first, *others = group.split("|")
        column = frame.text(first)
        for other in others:
            column = pc.coalesce(column, frame.key(other))
        said = pc.or_(said, column.is_valid())
        must = pc.and_(must, column.is_valid()) if mark else must
        parts += [column.fill_null(""), literal]
    code = pc.binary_join_element_wise(*parts, "")
    if len(pieces) > 4 or not pieces[2]:
        code = pc.utf8_rtrim(code, "/")
    return pc.if_else(pc.and_(said, must), code, pa.scalar(None, pa.string()))


def _add(spill: Spill, keys: pa.Array, kind: int, **columns: pa.Array | None) -> None:
    """Rows of one kind; those without a patient, a code where one is given, or a text are left out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    shape = schema()
    given = {name: column for name, column in columns.items() if column is not None}
    given |= {"patient": keys, "kind": pa.repeat(pa.scalar(kind, pa.int8()), len(keys))}
    batch = pa.record_batch(
        [given[f.name] if f.name in given else pa.nulls(len(keys), f.type) for f in shape], schema=shape
    )
    keep = keys.is_valid()
    for name in ("code", "text"):
        if name in given:
            keep = pc.and_(keep, given[name].is_valid())
    spill.add(batch if pc.all(keep).as_py() else batch.filter(keep))
