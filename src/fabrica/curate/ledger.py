"""What a run writes down on its way: survey notes, drops and decisions, in parts that are whole or absent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, overload

import pyarrow as pa

from fabrica.safe import write_whole
from fabrica.types import Decision, Split

_PART = re.compile(r"(\d+)-(\d+)\.arrow$")
DROPS = pa.schema([("id", pa.string()), ("step", pa.string()), ("reason", pa.string())])


class Notes:
    """A folder of parts, each the rows of records `start` to `end` of a pass."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def parts(self) -> list[tuple[int, int, Path]]:
        """(start, end, path) of each, in order."""
        found = ((m, p) for p in self.folder.iterdir() if (m := _PART.match(p.name)))
        return sorted((int(m[1]), int(m[2]), p) for m, p in found)

    def end(self) -> int:
        """How far the parts reach."""
        return max((end for _, end, _ in self.parts()), default=0)

    def cut(self, end: int) -> None:
        """Remove parts of units that were not finished."""
        for _, upto, path in self.parts():
            if upto > end:
                path.unlink()

    def write(self, start: int, end: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """One part, whole. A part of no rows is written as well: it says that the unit is done."""
        table = pa.Table.from_pylist([dict(row) for row in rows]) if rows else pa.table({})
        with (
            write_whole(self.folder / f"{start:010d}-{end:010d}.arrow") as out,
            pa.ipc.new_file(out, table.schema) as file,
        ):
            file.write_table(table)

    def table(self) -> pa.Table:
        """All rows, mapped from disk."""
        tables = [pa.ipc.open_file(pa.memory_map(str(path))).read_all() for _, _, path in self.parts()]
        tables = [t for t in tables if t.num_rows]
        return (
            pa.concat_tables(tables, promote_options="permissive")
            if tables
            else pa.table({"id": pa.array([], pa.string())})
        )


class Rows(Sequence[Mapping[str, Any]]):
    """Survey rows in order of id, read from disk as they are asked for."""

    def __init__(self, table: pa.Table) -> None:
        import pyarrow.compute as pc

        self._table = table
        self._order = pc.sort_indices(table["id"])

    @classmethod
    def of(cls, folder: Path) -> Rows:
        """The rows of a folder of parts."""
        return cls(Notes(folder).table())

    def select(self, *names: str) -> Rows:
        """The same rows with these columns alone."""
        out = object.__new__(Rows)
        out._table, out._order = self._table.select([n for n in names if n in self._table.column_names]), self._order
        return out

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for lo in range(0, len(self), 512):
            yield from self._table.take(self._order.slice(lo, 512)).to_pylist()

    @overload
    def __getitem__(self, i: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, i: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        row: Mapping[str, Any] = self._table.slice(self._order[i % len(self)].as_py(), 1).to_pylist()[0]
        return row


def save_decisions(path: Path, decisions: Mapping[str, Decision]) -> None:
    """One parquet file, whole."""
    import pyarrow.parquet as pq

    ids = sorted(decisions)
    table = pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "drop": pa.array([decisions[i].drop for i in ids], pa.string()),
            "groups": pa.array([json.dumps(dict(decisions[i].groups), sort_keys=True) for i in ids], pa.string()),
            "split": pa.array([decisions[i].split for i in ids], pa.string()),
        }
    )
    with write_whole(path) as out:
        pq.write_table(table, out)


def load_decisions(path: Path) -> dict[str, Decision]:
    """What `save_decisions` wrote."""
    import pyarrow.parquet as pq

    columns = pq.read_table(path).to_pydict().values()
    return {
        i: Decision(drop, json.loads(groups), cast(Split, split))
        for i, drop, groups, split in zip(*columns, strict=True)
    }


def write_ledger(path: Path, passes: Sequence[Path]) -> pa.Table:
    """All drops of the passes in order of step and id, as one parquet file: id, step, reason."""
    import pyarrow.parquet as pq

    tables = [Notes(folder / "drops").table() for folder in passes]
    filled = [t.cast(DROPS) for t in tables if t.num_rows]
    table = pa.concat_tables(filled) if filled else DROPS.empty_table()
    with write_whole(path) as out:
        pq.write_table(table, out)
    return table
