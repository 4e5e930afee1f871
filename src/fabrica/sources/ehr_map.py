"""What a database of EHR tables looks like: a small declarative map of its tables, and where they stand on disk."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits
from fabrica.sources import stem, suffix
from fabrica.sources.arrow_rows import Frame, header

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".csv", ".parquet", ".pq")
_EMPTY: Mapping[str, str] = MappingProxyType({})
FIELD = re.compile(r"\{([\w|]+)(!?)\}")  # {column}, {first|second}, {must!}


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of event of a table.

    `code` is a template over columns: `{a}`, `{a|b}` the first that is not empty, `{a!}` without which the row is no
    such event; empty columns at its end are left off with their `//`. `time` is one column, or several ("a|b"); `value`
    a number; `word` what stands for it where there is none ("POS"), added to the code; `visit` the visit at whose end
    it counts where it has no time of its own; `text` the column of a free text, whose role ("note", "report") is then
    the code; `second` events are further readings of a row (its end): no time, no event; `split` cuts the code's one
    column into several codes.
    """

    table: str
    code: str
    time: str = ""
    value: str = ""
    word: str = ""
    visit: str = ""
    text: str = ""
    second: bool = False
    split: str = ""

    @property
    def must(self) -> set[str]:
        """The columns that a table must have for this event: those marked so, the first of alternatives, its text."""
        return {f.split("|")[0] for f, mark in FIELD.findall(self.code) if mark} | ({self.text} - {""})

    @property
    def reads(self) -> set[str]:
        """Every column that it looks at."""
        return {*fields(self.code), *self.time.split("|"), self.value, self.word, self.visit, self.text} - {""}


def fields(template: str) -> set[str]:
    """The columns that a code's template reads.

    >>> sorted(fields("LAB//{itemid!}//{unit|valueuom}"))
    ['itemid', 'unit', 'valueuom']
    """
    return {name for group, _ in FIELD.findall(template) for name in group.split("|")}


@dataclass(frozen=True, slots=True)
class People:
    """The table that lists the patients (or stays). `birth` gives their dates of birth, `age` a column of years
    ("> 89" = withheld); `subject` the patient of a stay; `static` codes; `groups` name -> column, hashed."""

    table: str
    needs: tuple[str, ...]
    birth: Callable[[Frame], pa.Array] | None = None
    birth_reads: tuple[str, ...] = ()
    age: str = ""
    subject: str = ""
    static: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=lambda: _EMPTY)

    @property
    def reads(self) -> set[str]:
        """Every column that it looks at."""
        codes = {name for code in self.static for name in fields(code)}
        return {*codes, *self.birth_reads, *self.groups.values(), self.age, self.subject} - {""}


@dataclass(frozen=True, slots=True)
class TableMap:
    """A database: `key` is the column that every table has, of the patient or the stay that one record is about.

    `visits` (table, visit column, end column) gives times to events that only name their visit. `folders` are those
    beside the people's table's own in which its tables may stand. `minutes`: times are minutes since the stay began.
    `ignored` tables, with why. `names` rewrites codes once all are known (vocabulary tables).
    """

    name: str
    key: str
    people: People
    events: tuple[Event, ...]
    visits: tuple[str, str, str] | None = None
    folders: tuple[str, ...] = ()
    minutes: bool = False
    ignored: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    names: Callable[[Mapping[str, Path], set[str], Limits], Mapping[str, str]] | None = None

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that are read as events, in the map's order."""
        return tuple(dict.fromkeys([*(e.table for e in self.events), *([self.visits[0]] if self.visits else [])]))


# ---------------------------------------------------------------- which files


def is_table(path: Path) -> bool:
    """Whether a file may be one of such tables, by its name."""
    return suffix(path) in SUFFIXES


def beside(path: Path, map: TableMap) -> dict[str, list[Path]]:
    """Every table file of the database whose people's table is `path`: name in lower case -> files."""
    folders = [path.parent]
    if path.parent.name.lower() in map.folders:
        folders += [p for p in sorted(path.parent.parent.iterdir()) if p.name.lower() in map.folders and p.is_dir()]
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(folders):
        for file in sorted(folder.iterdir()):
            if is_table(file) and file.is_file() and not file.name.startswith("."):
                found.setdefault(stem(file).lower(), []).append(file)
    return found


def recognise(path: Path, maps: Sequence[TableMap], limits: Limits = LIMITS) -> TableMap | None:
    """The map whose table of patients this file is: by its name, its columns, and a table of events beside it."""
    for map in maps:
        if stem(path).lower() != map.people.table or not is_table(path):
            continue
        try:
            columns = set(header(path, limits))
        except (Refused, OSError):
            return None
        if {map.key, *map.people.needs} <= columns and beside(path, map).keys() & set(map.tables):
            return map
    return None


def parts(path: Path, map: TableMap) -> set[Path]:
    """The files that are read together with the people's table, or named as not read."""
    return {file for files in beside(path, map).values() for file in files} - {path}
