"""Tables beside a table: their columns join its rows by a key, as the column map's `join:NAME` says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fabrica.errors import Refused, UsageError, unknown
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Ref
from fabrica.sources.attach import inside
from fabrica.sources.columns import cell, plain
from fabrica.sources.rows import BadRow, Rows, read_rows

_ON = re.compile(r"^(?P<file>.+?)\s+on\s+(?P<theirs>.+?)(?:\s+==\s+(?P<ours>.+))?$")


def files(path: Path, columns: Mapping[str, str]) -> list[Path]:
    """The files that a map joins to a table."""
    found = (_ON.match(said) for key, said in columns.items() if key.startswith("join:"))
    return [path.parent / match["file"] for match in found if match]


def joined(ref: Ref, joins: Sequence[str], table: Rows, limits: Limits = LIMITS) -> Rows:
    """The rows with the columns `NAME.COLUMN` of every `join:NAME`; a key that comes twice there gives its first row,
    a row without a partner has these columns empty.

    `UsageError` for a map that names no such column; `Refused`: `missing_file`, `path_outside`, and what the table's
    reading says. A joined table is held whole, within the limits.
    """
    header, rows = table
    names, tables = list(header), []
    for key in joins:
        name = key.partition(":")[2]
        match = _ON.match(ref.columns[key])
        if match is None:
            raise UsageError(f"{key!r} = {ref.columns[key]!r}; wanted FILE on COLUMN, or FILE on THEIRS == OURS")
        theirs, ours = match["theirs"], match["ours"] or match["theirs"]
        path = inside(ref.path.parent, match["file"])
        if not path.is_file():
            raise Refused("missing_file", f"{key!r} names a table that is not there")
        other, lines = read_rows(path, limits, header=ref.columns.get(f"header:{name}", ""))
        for column, known in ((theirs, other), (ours, header)):
            if column not in known:
                raise unknown("column", column, known)
        found: dict[str, dict[str, Any]] = {}
        for line in lines:
            if not isinstance(line, BadRow) and (value := plain(cell(line.get(theirs)))):
                found.setdefault(value, {f"{name}.{k}": v for k, v in line.items()})
        names += [f"{name}.{column}" for column in other]
        tables.append((ours, found))
    return tuple(names), _rows(rows, tables)


def _rows(rows: Iterator[Any], tables: Sequence[tuple[str, Mapping[str, Mapping[str, Any]]]]) -> Iterator[Any]:
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        whole = dict(row)
        for ours, found in tables:
            whole.update(found.get(plain(cell(row.get(ours))), {}))
        yield whole
