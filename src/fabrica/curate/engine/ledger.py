"""What a run writes down on its way: survey notes, drops and decisions, in parts that are whole or absent."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fabrica.safe import write_whole
from fabrica.types import Decision, Split

_PART = re.compile(r"(\d+)-(\d+)\.arrow$")
DROPS = pa.schema([("id", pa.string()), ("step", pa.string()), ("reason", pa.string()), ("detail", pa.string())])
DROPPED, BAD = "drops", "bad"  # folders of a pass: what it left out; in a pass that only notes, what raised
Left = dict[str, str | None]  # a row of `DROPS`
DECISIONS = pa.schema([("id", pa.string()), ("drop", pa.string()), ("groups", pa.string()), ("split", pa.string())])


class Notes:
    """A folder of parts, each the rows of records `start` to `end` of a pass."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, start: int, end: int) -> Path:
        """Where the part of these records stands."""
        return self.folder / f"{start:010d}-{end:010d}.arrow"

    def parts(self) -> list[tuple[int, int, Path]]:
        """(start, end, path) of each, in order."""
        found = ((m, p) for p in self.folder.iterdir() if (m := _PART.match(p.name)))
        return sorted((int(m[1]), int(m[2]), p) for m, p in found)

    def end(self) -> int:
        """How far the parts reach without a gap."""
        reach = 0
        for start, end, _ in self.parts():
            if start != reach:
                break
            reach = end
        return reach

    def cut(self, end: int, keep: frozenset[tuple[int, int]] = frozenset()) -> None:
        """Remove parts of units beyond `end` that are not to be kept."""
        for start, upto, path in self.parts():
            if upto > end and (start, upto) not in keep:
                path.unlink()

    def raised(self, start: int, end: int) -> list[Left]:
        """Of a part of `DROPS`: the rows of what a step raised on."""
        rows: list[Left] = mapped(self.path(start, end)).to_pylist()
        return [row for row in rows if row["detail"] is not None]

    def write(self, start: int, end: int, rows: Sequence[Mapping[str, Any]] | pa.Table) -> None:
        """One part, whole. A part of no rows is written as well: it says that the unit is done."""
        if isinstance(rows, pa.Table):
            table = rows
        else:
            table = pa.Table.from_pylist([dict(row) for row in rows]) if rows else pa.table({})
        with write_whole(self.path(start, end)) as out, pa.ipc.new_file(out, table.schema) as file:
            file.write_table(table)

    def table(self) -> pa.Table:
        """All rows, mapped from disk."""
        tables = [mapped(path) for _, _, path in self.parts()]
        tables = [t for t in tables if t.num_rows]
        return (
            pa.concat_tables(tables, promote_options="permissive")
            if tables
            else pa.table({"id": pa.array([], pa.string())})
        )


def mapped(path: Path) -> pa.Table:
    """An Arrow file, read when it is touched."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


class Rows(Sequence[Mapping[str, Any]]):
    """Survey rows in order of id, read from disk as they are asked for: as mappings, or by column.

    >>> rows = Rows(pa.table({"id": ["b", "a"], "n": [2, 1]}))
    >>> [row["n"] for row in rows], rows.column("n").to_pylist(), rows.gather("n", np.array([1])).to_pylist()
    ([1, 2], [1, 2], [2])
    """

    def __init__(self, table: pa.Table) -> None:
        import pyarrow.compute as pc

        self._table = table
        self._order: NDArray[np.int64] = pc.sort_indices(table["id"]).to_numpy().astype(np.int64)

    @classmethod
    def of(cls, folder: Path) -> Rows:
        """The rows of a folder of parts."""
        return cls(Notes(folder).table())

    @classmethod
    def wrap(cls, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> Rows:
        """The same rows, by column; `schema` says what the columns are where the rows are mappings or none."""
        if isinstance(rows, Rows):
            return rows if len(rows) else cls(schema.empty_table())
        return cls(pa.Table.from_pylist([{n: row[n] for n in schema.names} for row in rows], schema))

    def select(self, *names: str) -> Rows:
        """The same rows with these columns alone."""
        out = object.__new__(Rows)
        out._table, out._order = self._table.select([n for n in names if n in self._table.column_names]), self._order
        return out

    def column(self, name: str) -> pa.Array:
        """One column (n,), in memory: for numbers and short texts."""
        return self.gather(name, np.arange(len(self)))

    def gather(self, name: str, rows: NDArray[np.int64]) -> pa.Array:
        """A column's values at some rows, in the order asked for; nothing else is read."""
        column = self._table[name]
        places = self._order[rows]
        ends = np.cumsum([len(chunk) for chunk in column.chunks], dtype=np.int64)
        if not len(places):
            return pa.array([], column.type)
        if len(ends) == 1:
            return column.chunk(0).take(pa.array(places))
        number = np.searchsorted(ends, places, "right")
        by_chunk = np.argsort(number, kind="stable")
        used, firsts = np.unique(number[by_chunk], return_index=True)
        found = [
            column.chunk(int(c)).take(pa.array(places[at] - (ends[c - 1] if c else 0)))
            for c, at in zip(used, np.split(by_chunk, firsts[1:]), strict=True)
        ]
        back = np.empty(len(places), np.int64)
        back[by_chunk] = np.arange(len(places))
        return pa.concat_arrays(found).take(pa.array(back))

    def pick(self, rows: NDArray[np.int64]) -> list[dict[str, Any]]:
        """Some rows, as mappings."""
        names = self._table.column_names
        found: list[dict[str, Any]] = pa.table([self.gather(name, rows) for name in names], names=names).to_pylist()
        return found

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for lo in range(0, len(self), 512):
            yield from self.pick(np.arange(lo, min(lo + 512, len(self))))

    @overload
    def __getitem__(self, i: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Mapping[str, Any]]: ...
    def __getitem__(self, i: int | slice) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        return self.pick(np.array([i % len(self)]))[0]


class Decisions(Mapping[str, Decision]):
    """Decisions by id, held as Arrow columns (`DECISIONS`; groups as JSON): a survey of millions answers with these.

    >>> d = Decisions.of(["b", "a"], drop=["copy", None], split=[None, "train"])
    >>> d["b"], len(d)
    (Decision(drop='copy', groups={}, split=None), 2)
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table.select(DECISIONS.names).cast(DECISIONS).sort_by("id").combine_chunks()
        self._place: dict[str, int] | None = None

    @classmethod
    def of(cls, ids: Any, *, drop: Any = None, groups: Any = None, split: Any = None) -> Decisions:
        """From columns; `groups` are JSON objects as texts; a column left out says nothing of any id."""
        given = {"id": ids, "drop": drop, "groups": groups, "split": split}
        columns = [
            pa.nulls(len(ids), pa.string()) if v is None else v if isinstance(v, pa.Array) else pa.array(v, pa.string())
            for v in given.values()
        ]
        return cls(pa.table(columns, schema=DECISIONS))

    @classmethod
    def wrap(cls, decisions: Mapping[str, Decision]) -> Decisions:
        """The same decisions, by column."""
        if isinstance(decisions, Decisions):
            return decisions
        groups = [json.dumps(dict(d.groups), sort_keys=True) if d.groups else None for d in decisions.values()]
        drop, split = ([getattr(d, name) for d in decisions.values()] for name in ("drop", "split"))
        return cls.of(list(decisions), drop=drop, groups=groups, split=split)

    def and_drop(self, ids: pa.Array, reasons: pa.Array) -> Decisions:
        """These, but `ids` are dropped for `reasons`."""
        import pyarrow.compute as pc

        rest = self.table.filter(pc.invert(pc.is_in(self.table["id"], value_set=ids)))
        return Decisions(pa.concat_tables([rest, Decisions.of(ids, drop=reasons).table]))

    def aligned(self, ids: pa.Array) -> pa.Table:
        """Columns drop, groups and split (n,) of `ids`; null where nothing was said."""
        import pyarrow.compute as pc

        at = pc.index_in(ids, value_set=self.table["id"])
        return self.table.select(["drop", "groups", "split"]).take(at)

    def __getitem__(self, id_: str) -> Decision:
        if self._place is None:
            self._place = {name: i for i, name in enumerate(self.table["id"].to_pylist())}
        i = self._place[id_]
        return decision(*(self.table[name][i].as_py() for name in ("drop", "groups", "split")))

    def __iter__(self) -> Iterator[str]:
        return iter(self.table["id"].to_pylist())

    def __len__(self) -> int:
        return int(self.table.num_rows)


def decision(drop: str | None, groups: str | None, split: str | None) -> Decision:
    """From the columns of `DECISIONS`."""
    return Decision(drop, json.loads(groups) if groups else {}, cast(Split, split))


def save_decisions(path: Path, decisions: Decisions) -> None:
    """One Arrow file, whole."""
    with write_whole(path) as out, pa.ipc.new_file(out, DECISIONS) as file:
        file.write_table(decisions.table)


def load_decisions(path: Path) -> Decisions:
    """What `save_decisions` wrote."""
    return Decisions(mapped(path))


def write_ledger(path: Path, passes: Sequence[Path]) -> pa.Table:
    """All drops of the passes in order, as one parquet file: id, step, reason, and of a step that raised where."""
    import pyarrow.parquet as pq

    table = _joined(passes, DROPPED)
    raised = _joined(passes, BAD).to_pylist()  # while noting: left out by the decisions of a later pass
    if raised:
        where = {(row["id"], row["step"]): row["detail"] for row in raised}
        ids, steps, details = (table[name].to_pylist() for name in ("id", "step", "detail"))
        full = [d or where.get((i, s)) for i, s, d in zip(ids, steps, details, strict=True)]
        table = table.set_column(3, "detail", pa.array(full, pa.string()))
    with write_whole(path) as out:
        pq.write_table(table, out)
    return table


def _joined(passes: Sequence[Path], name: str) -> pa.Table:
    tables = [Notes(folder / name).table() for folder in passes]
    filled = [t.cast(DROPS) for t in tables if t.num_rows]
    return pa.concat_tables(filled) if filled else DROPS.empty_table()
