"""A pool: candidate samples as columns of metadata, scores and features, read block by block from wherever they lie."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fabrica.curate.pools.subset import UID, from_digits, uid_of, uids
from fabrica.errors import UsageError, unknown
from fabrica.types import Absent, Record

if TYPE_CHECKING:
    from fabrica.corpus import Corpus

ROWS = 1 << 16  # of a block
TEXT_ROLES = ("caption", "report", "text")
_TABLES = (".parquet", ".arrow", ".feather")
Column = NDArray[Any]  # (n,) numbers or str, (n, d) features; an unknown number is NaN, an unknown text ""
Block = Mapping[str, Column]


class Shard(Protocol):
    """One part of a pool: `rows` rows, of which `read` gives the asked columns in blocks of at most `size`."""

    rows: int
    names: tuple[str, ...]

    def read(self, columns: Sequence[str], size: int) -> Iterator[dict[str, Column]]: ...


class Pool:
    """Candidate samples. Column "uid" (`subset.UID`) names each; the others are what selectors read.

    `open` reads DataComp's layout: tables (.parquet, .arrow) with, beside each, an .npz of the same stem that holds
    feature matrices in the same order. `of` takes arrays, `of_corpus` and `of_records` what this library stores: labels
    (scores), groups, "text" and its language, sizes of the first image, and features that a step stored as items.

    Every pass holds one block of `ROWS` rows; of an .npz, the asked arrays of one shard.

    >>> pool = Pool.of({"uid": ["0" * 31 + c for c in "12"], "score": [0.1, 0.4]})
    >>> len(pool), pool.names, next(pool.blocks(["score"]))["score"].tolist()
    (2, ('uid', 'score'), [0.1, 0.4])
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = tuple(shards)
        here: dict[str, int] = {}
        for shard in self.shards:
            for name in shard.names:
                here[name] = here.get(name, 0) + 1
        self.names = tuple(n for n in here if here[n] == len(self.shards))
        self._some = {n: here[n] for n in here if here[n] < len(self.shards)}

    @classmethod
    def open(cls, path: str | Path) -> Pool:
        """A table, or a folder of them in order of name."""
        path = Path(path)
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in _TABLES)
        if not files or files[0].suffix not in _TABLES:
            raise UsageError(f"no pool at {path}; wanted .parquet or .arrow tables with a column uid or id")
        return cls([_File(f) for f in files])

    @classmethod
    def of(cls, columns: Mapping[str, ArrayLike]) -> Pool:
        """From arrays of one length; "uid" as 32 hex digits each (or "id", any names)."""
        arrays = {k: _plain(np.asarray(v)) for k, v in columns.items()}
        lengths = {k: len(v) for k, v in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise UsageError(f"pool: columns of different lengths {lengths}")
        return cls([_Memory(arrays)])

    @classmethod
    def of_records(cls, records: Iterable[Record], names: Sequence[str] | None = None) -> Pool:
        """From records in memory; `names` limits the columns."""
        return cls.of(columns_of([row_of(r, names) for r in records], names))

    @classmethod
    def of_corpus(cls, corpus: Corpus, where: str | None = None) -> Pool:
        """A corpus as a pool: the records that `where` takes, uids from their ids (`subset.uid_of`)."""
        return cls([_Stored(corpus, where)])

    def __len__(self) -> int:
        return sum(shard.rows for shard in self.shards)

    def need(self, columns: Iterable[str], why: str = "") -> None:
        """`UsageError` for a column that is not there, or not in every shard."""
        for name in columns:
            if name in self._some:
                raise UsageError(
                    f"pool: column {name!r} is missing from {len(self.shards) - self._some[name]} of its "
                    f"{len(self.shards)} shards (a .npz that was not downloaded?){why and '; ' + why}"
                )
            if name not in self.names:
                error = unknown("pool column", name, self.names)
                raise UsageError(f"{error}{why and '; ' + why}")

    def blocks(self, columns: Sequence[str], *, rows: int = ROWS) -> Iterator[dict[str, Column]]:
        """The asked columns, block by block, in the order of the pool."""
        self.need(c for c in columns if c != "uid")
        for shard in self.shards:
            yield from shard.read(columns, rows)


def uids_of(block: Block) -> NDArray[np.void]:
    """(n,) the uids of a block that was read with "uid"."""
    column = block["uid"]
    return column if column.dtype == UID else uids(column.tolist())


def _plain(column: NDArray[Any]) -> Column:
    """Numbers as they are (integers and booleans as float64), text as objects."""
    if column.dtype.kind in "biu":
        return column.astype(np.float64)
    if column.dtype.kind == "f" or column.dtype == UID:
        return column
    return np.array(["" if v is None else str(v) for v in column.tolist()], object)


class _Memory:
    def __init__(self, arrays: Mapping[str, Column]) -> None:
        if "uid" not in arrays:
            if "id" not in arrays:
                raise UsageError(f"pool: no column uid or id among {', '.join(arrays) or 'none'}")
            arrays = {"uid": np.array([uid_of(i) for i in arrays["id"].tolist()], object), **arrays}
        arrays = {**arrays, "uid": uids_of(arrays)}
        self.arrays, self.names, self.rows = arrays, tuple(arrays), len(arrays["uid"])

    def read(self, columns: Sequence[str], size: int) -> Iterator[dict[str, Column]]:
        for lo in range(0, self.rows, size):
            yield {c: self.arrays[c][lo : lo + size] for c in columns}


class _File:
    """A table on disk and the features beside it."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path, self.features = path, path.with_suffix(".npz")
        try:
            if path.suffix == ".parquet":
                file = pq.ParquetFile(path)
                schema, self.rows = file.schema_arrow, file.metadata.num_rows
            else:
                opened = pa.ipc.open_file(pa.memory_map(str(path)))
                schema = opened.schema
                self.rows = sum(opened.get_batch(i).num_rows for i in range(opened.num_record_batches))
        except (pa.ArrowInvalid, OSError) as error:
            raise UsageError(f"pool: {path.name} cannot be read: {error}") from error
        self.kind = "uid" if "uid" in schema.names else "id"
        if self.kind not in schema.names:
            raise UsageError(f"pool: {path.name} has no column uid or id; it has {', '.join(schema.names)}")
        arrays = npz_names(self.features) if self.features.is_file() else ()
        self.arrays = frozenset(arrays)
        self.names = tuple(dict.fromkeys(["uid", *schema.names, *arrays]))

    def read(self, columns: Sequence[str], size: int) -> Iterator[dict[str, Column]]:
        matrices = {c: self._matrix(c) for c in columns if c in self.arrays}
        asked = [c for c in columns if c not in matrices]
        wanted = sorted({self.kind if c == "uid" else c for c in asked} or {self.kind})
        start = 0
        for batch in self._batches(wanted, size):
            n = batch.num_rows
            block = {c: m[start : start + n] for c, m in matrices.items()}
            for c in asked:
                values = batch.column(self.kind if c == "uid" else c)
                block[c] = _uids(values, self.kind) if c == "uid" else _numpy(values)
            yield {c: block[c] for c in columns}
            start += n

    def _batches(self, columns: list[str], size: int) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.path.suffix == ".parquet":
            with pq.ParquetFile(self.path) as file:
                for group in range(file.num_row_groups):  # all groups at once would hold the whole file by the end
                    yield from file.iter_batches(size, row_groups=[group], columns=columns, use_threads=False)
            return
        opened = pa.ipc.open_file(pa.memory_map(str(self.path)))
        for i in range(opened.num_record_batches):
            batch = opened.get_batch(i).select(columns)
            for lo in range(0, batch.num_rows, size):
                yield batch.slice(lo, size)

    def _matrix(self, name: str) -> Column:
        from fabrica.sources import Ref, npz

        found = npz.load(Ref(self.features, self.features.name, "pool"))[name]
        if len(found) != self.rows:
            raise UsageError(
                f"pool: {self.features.name} has {len(found)} rows of {name!r}, {self.path.name} has {self.rows}"
            )
        return found


def _uids(column: Any, kind: str) -> NDArray[np.void]:
    """An Arrow column of uids, straight from its bytes; of ids, by their hash."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if kind == "id":
        return uids([uid_of(str(v)) for v in column.to_pylist()])
    text = pc.cast(column, pa.large_binary())
    lengths = pc.binary_length(text)
    if text.null_count or pc.any(pc.not_equal(lengths, 32)).as_py():
        return uids(["" if v is None else str(v) for v in column.to_pylist()])  # names the malformed one
    start = np.frombuffer(text.buffers()[1], np.int64)[text.offset]
    data = (
        np.frombuffer(text.buffers()[2], np.uint8)[start : start + 32 * len(text)]
        if len(text)
        else np.empty(0, np.uint8)
    )
    return from_digits(data.reshape(-1, 32))


def npz_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays of an .npz file, in order."""
    from fabrica import safe

    return tuple(name[:-4] for name, _ in safe.members(path, safe.LIMITS) if name.endswith(".npy"))


def _numpy(column: Any) -> Column:
    """An Arrow column as numbers with NaN, as str with "", or as a matrix where its cells are lists of one length."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_floating(kind):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False))
    if pa.types.is_fixed_size_list(kind):
        return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(column), -1)
    return np.array(["" if v is None else str(v) for v in column.to_pylist()], object)


# ---------------------------------------------------------------- records as rows


def row_of(record: Record, names: Sequence[str] | None = None) -> dict[str, Any]:
    """A record's columns: "uid", "id", "text", groups and labels by name, "original_width" and "original_height" of its
    first image (pixels), "features/NAME" items as vectors. A label that is absent is left out."""
    row: dict[str, Any] = {**record.groups}
    row |= {k: v for k, v in record.labels.items() if not isinstance(v, Absent)}
    text = record.first(*TEXT_ROLES)
    row["text"] = text.text() if text is not None and text.kind == "text" else ""
    image = next((i for i in record.all(*record.items) if i.kind == "image" and isinstance(i.value, np.ndarray)), None)
    if image is not None:
        height, width = image.array().shape[:2]
        row |= {"original_width": float(width), "original_height": float(height)}
    for role, items in record.items.items():
        if role.startswith("features/") and items and items[0].present:
            row[role] = items[0].array()
    if names is not None:
        row = {k: v for k, v in row.items() if k in names}
    return {"uid": uid_of(record.id), "id": record.id, **row}


def columns_of(rows: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None) -> dict[str, Column]:
    """Columns of such rows; where a row lacks one, NaN or "" stands."""
    found = dict.fromkeys(k for row in rows for k in row)
    keys = [k for k in found if names is None or k in (*names, "uid", "id")]
    out: dict[str, Column] = {}
    for key in keys or ["uid"]:
        values = [row.get(key) for row in rows]
        known = next((v for v in values if v is not None), "")
        if isinstance(known, (np.ndarray, list)):
            empty = np.full(len(known), np.nan, np.float32)
            out[key] = np.stack([empty if v is None else np.asarray(v, np.float32) for v in values])
        elif isinstance(known, str):
            out[key] = np.array(["" if v is None else str(v) for v in values], object)
        else:
            out[key] = np.array([np.nan if v is None else float(v) for v in values])
    return out


class _Stored:
    """A corpus. Its columns are those of all its records (one pass over tags and roles finds them)."""

    def __init__(self, corpus: Corpus, where: str | None) -> None:
        self.corpus, self.where = corpus, where
        self.rows = corpus.count(where)
        table = corpus.rows(["tags", "roles"], where)
        seen: dict[str, None] = dict.fromkeys(("uid", "id", "text"))
        for column in ("tags", "roles"):
            for value in sorted({v for cell in table.column(column).to_pylist() for v in cell}):
                seen |= dict.fromkeys(_names_in(value, column))
        self.names = tuple(seen)

    def read(self, columns: Sequence[str], size: int) -> Iterator[dict[str, Column]]:
        records = self.corpus.scan(self.where)
        while part := list(itertools.islice(records, min(size, 4096))):
            found = columns_of([row_of(r, columns) for r in part], columns)
            missing = {c: np.full(len(part), np.nan) for c in columns if c not in found}
            found["uid"] = uids_of(found)
            yield {c: found[c] if c in found else missing[c] for c in columns}


def _names_in(value: str, column: str) -> tuple[str, ...]:
    """The pool columns that a tag ("label:name=1", "group:value") or a role stands for."""
    if column == "roles":
        if value.startswith("features/"):
            return (value,)
        return ("original_width", "original_height") if value.split("/")[0] == "image" else ()
    if value.startswith("label:"):
        return (value.removeprefix("label:").rpartition("=")[0],)
    return (value.partition(":")[0],)
