"""Record <-> bytes, lossless, and Record -> the row by which SQL finds it.

A record's bytes: its arrays (C order, each on a 64-byte boundary), its texts (UTF-8), then JSON of all that is small,
and the JSON's length in 8 bytes. In the JSON `["x", dtype, shape, offset]` is an array and `["t", offset, length]` a
text of the same record. Arrays read back are views of the file: no copy, read-only. JSON keeps floats exactly.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fabrica.corpus.payload import Piece, Sink, padded
from fabrica.errors import UsageError
from fabrica.types import Absent, Blob, Item, Link, Origin, Record, Region, Rights

FORMAT = 1
_TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        ("id", pa.string()), ("subject", pa.string()), ("split", pa.string()), ("modality", pa.string()),
        ("source", pa.string()), ("licence", pa.string()), ("roles", _TEXTS), ("kinds", _TEXTS), ("tags", _TEXTS),
        ("bytes", pa.int64()), ("texts", _TEXTS), ("part", pa.int32()), ("start", pa.int64()), ("token", pa.string()),
    ]
)  # fmt: skip
PACKED = SCHEMA.append(pa.field("payload", pa.large_binary()))
SQL_COLUMNS = ("id", "subject", "split", "modality", "source", "licence", "roles", "kinds", "tags", "bytes", "texts")
TEXTS = SCHEMA.get_field_index("texts")
PLACE = ("part", "start", "bytes")  # where a record's bytes are


# ---------------------------------------------------------------- encode


class Writer:
    """Collects one record's arrays and texts and says where each will stand; a view overrides `array` and `text`."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []  # (offset, what)
        self.size = 0
        self.origins: dict[Origin, int] = {}

    def array(self, value: NDArray[Any]) -> list[Any]:
        value = np.asarray(value)
        if value.dtype.hasobject:
            raise UsageError(f"an array of dtype {value.dtype} cannot be stored; give numbers, or text as str")
        dtype = value.dtype.str if value.dtype.names is None else value.dtype.descr
        offset = padded(self.size)
        self.pieces.append((offset, value))
        self.size = offset + value.nbytes
        return ["x", dtype, value.shape, offset]

    def text(self, value: str) -> list[Any]:
        data = value.encode("utf-8", "surrogatepass")
        offset = self.size
        self.pieces.append((offset, data))
        self.size += len(data)
        return ["t", offset, len(data)]

    def at(self, *place: object) -> None:
        """Where the next value stands: a role and number, or "region" and number."""

    def value(self, value: Any) -> list[Any]:
        if isinstance(value, Absent):
            return ["a", value.value]
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Blob):
            return ["b", value.path, value.media_type, value.size, value.sha256]
        if isinstance(value, np.ndarray):
            return self.array(value)
        raise UsageError(f"an item's value is {type(value).__name__}; wanted an array, str, Blob or Absent")

    def origin(self, origin: Origin) -> int:
        return self.origins.setdefault(origin, len(self.origins))

    def item(self, item: Item, role: str, number: int) -> list[Any]:
        self.at(role, number, "affine")
        affine = None if item.affine is None else self.array(item.affine)
        self.at(role, number)
        return [
            item.kind, self.value(item.value), self.origin(item.origin), item.hours, item.unit, affine, item.rate,
            item.names,
        ]  # fmt: skip

    def region(self, region: Region, number: int) -> list[Any]:
        self.at("region", number)
        return [
            region.role, region.shape, self.array(region.data), region.label, self.origin(region.origin),
            region.index, region.text, region.score,
        ]  # fmt: skip


def sql_text(text: str | None) -> str | None:
    """The text as a SQL column holds it: lone surrogates (undecodable file names) become backslash escapes."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()


def _scalar(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise UsageError(f"{type(value).__name__} {value!r} cannot be stored in a record; wanted a number, str or Absent")


def meta_of(record: Record, writer: Writer, *, ascii_only: bool = False) -> str:
    """The JSON of one record; `writer` gets its texts and arrays."""
    items = [[role, [writer.item(i, role, n) for n, i in enumerate(of_role)]] for role, of_role in record.items.items()]
    regions = [writer.region(r, n) for n, r in enumerate(record.regions)]
    rights = record.rights
    data = {
        "format": FORMAT,
        "id": record.id,
        "subject": record.subject,
        "groups": dict(record.groups),
        "items": items,
        "regions": regions,
        "labels": dict(record.labels),
        "links": [[k.rel, k.to, k.grade] for k in record.links],
        "rights": [rights.licence, rights.access, rights.share, rights.consent, rights.attribution],
        "split": record.split,
        "origins": [[o.source, o.key, o.sha256, o.licence, o.by, o.steps] for o in writer.origins],
    }
    return json.dumps(data, separators=(",", ":"), default=_scalar, ensure_ascii=ascii_only)


def tags(record: Record) -> list[str]:
    """What `array_has(tags, ...)` finds: "group:value" and "label:name=value".

    >>> tags(Record("r", "p", groups={"site": "A"}, labels={"effusion": 1.0, "mass": Absent.NOT_DONE}))
    ['site:A', 'label:effusion=1', 'label:mass=not_done']
    """
    of_labels = [f"label:{k}={v.value if isinstance(v, Absent) else f'{v:g}'}" for k, v in record.labels.items()]
    return [f"{k}:{v}" for k, v in record.groups.items()] + of_labels


def source_of(record: Record) -> str:
    """The data set that a record came from: its "source" group, or its first item's origin."""
    named = record.groups.get("source")
    if named:
        return named
    return next((i.origin.source for items in record.items.values() for i in items), "")


def size_of(record: Record) -> int:
    """About the bytes that the record takes in memory."""
    total = 1024
    for items in record.items.values():
        for item in items:
            total += 256 + (item.value.nbytes if isinstance(item.value, np.ndarray) else len(str(item.value)))
    return total + sum(256 + np.asarray(region.data).nbytes for region in record.regions)


Row = tuple[Any, ...]  # the values of SCHEMA, in its order


def encode(record: Record, payload: Sink, *, token: str | None = None) -> Row:
    """The record's row; its bytes are appended to the payload."""
    writer = Writer()
    meta = meta_of(record, writer).encode("utf-8", "surrogatepass")
    writer.pieces.append((writer.size, meta + len(meta).to_bytes(8, "little")))
    size = writer.size + len(meta) + 8
    part, start = payload.add(writer.pieces, size)
    texts = [sql_text(i.value) for i in _items(record) if isinstance(i.value, str) and i.present]
    return (
        _key(record.id, "id"), _key(record.subject, "subject"), record.split,
        sql_text(record.groups.get("modality")), sql_text(source_of(record)), sql_text(record.rights.licence),
        [sql_text(role) for role in record.items], sorted({i.kind for i in _items(record)}),
        [sql_text(t) for t in tags(record)], size, texts, part, start, token,
    )  # fmt: skip


def place(row: Row) -> tuple[int, int, int]:
    """`PLACE` of a row."""
    part, start, size = (row[SCHEMA.get_field_index(name)] for name in PLACE)
    return part, start, size


def _items(record: Record) -> Iterator[Item]:
    for items in record.items.values():
        yield from items


def batch(rows: Sequence[Row]) -> pa.RecordBatch:
    """Rows as one Arrow batch of `SCHEMA`."""
    columns = zip(*rows, strict=True)
    return pa.RecordBatch.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


class Held:
    """Records' bytes in memory, for `pack`."""

    def __init__(self) -> None:
        self.records: list[bytearray] = []

    def add(self, pieces: Sequence[Piece], size: int) -> tuple[int, int]:
        """Keep one record's bytes; its place is not known yet."""
        data = bytearray(size)
        for offset, piece in pieces:
            flat = (
                piece
                if isinstance(piece, (bytes, memoryview))
                else np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data
            )
            data[offset : offset + len(flat)] = flat
        self.records.append(data)
        return 0, 0


def pack(records: Iterable[Record]) -> pa.Table:
    """Records as a table of `PACKED`: their rows and, in `payload`, their bytes. A worker makes it, `Corpus.adopt`
    takes it."""
    held = Held()
    rows = [encode(record, held) for record in records]
    if not rows:
        return PACKED.empty_table()
    payload = pa.array(held.records, pa.large_binary())
    return pa.Table.from_arrays([*pa.Table.from_batches([batch(rows)]).columns, payload], schema=PACKED)


def _key(text: str, what: str) -> str:
    if not text or sql_text(text) != text:
        raise UsageError(f"a record's {what} is {text!r}; wanted a non-empty string that UTF-8 can hold")
    return text


# ---------------------------------------------------------------- decode

_DTYPES: dict[str, np.dtype[Any]] = {}
_ABSENT = {a.value: a for a in Absent}


def _dtype(spec: Any) -> np.dtype[Any]:
    key = spec if isinstance(spec, str) else json.dumps(spec)
    found = _DTYPES.get(key)
    if found is None:
        if not isinstance(spec, str):
            spec = [tuple(tuple(p) if isinstance(p, list) else p for p in part) for part in spec]
        found = np.dtype(spec)
        if found.hasobject:
            raise UsageError(f"the corpus claims an array of dtype {found}, which is never read")
        _DTYPES[key] = found
    return found


class Reader:
    """Turns one record's references back into values; a view overrides `array` and `value`."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def array(self, spec: Sequence[Any]) -> NDArray[Any]:
        dtype, shape, offset = _dtype(spec[1]), spec[2], spec[3]
        if offset < 0 or any(n < 0 for n in shape):
            raise ValueError(f"an array of shape {shape} at byte {offset}")
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.ndarray(shape, dtype, self.data, offset)

    def value(self, spec: Sequence[Any]) -> Any:
        tag = spec[0]
        if tag == "x":
            return self.array(spec)
        if tag == "t":
            return str(self.data[spec[1] : spec[1] + spec[2]], "utf-8", "surrogatepass")
        if tag == "a":
            return _ABSENT[spec[1]]
        if tag == "b":
            return Blob(*spec[1:])
        return spec[1]

    def item(self, spec: Sequence[Any], origins: Sequence[Origin]) -> Item:
        kind, value, origin, hours, unit, affine, rate, names = spec
        return Item(
            kind, self.value(value), origins[origin], hours, unit,
            None if affine is None else cast(Any, self.array(affine)), rate, tuple(names),
        )  # fmt: skip


def wants(role: str, roles: Sequence[str] | None) -> bool:
    """Whether `role` is one of `roles` or lies under one ("image" takes "image/frontal"); None takes all."""
    return roles is None or any(role == r or role.startswith(r + "/") for r in roles)


def build(meta: Mapping[str, Any], reader: Reader, roles: Sequence[str] | None = None) -> Record:
    """One record from its parsed `meta`; items and regions of other roles are left out."""
    origins = [Origin(o[0], o[1], o[2], o[3], o[4], tuple(o[5])) for o in meta["origins"]]
    items = {
        role: tuple([reader.item(spec, origins) for spec in specs])
        for role, specs in meta["items"]
        if roles is None or wants(role, roles)
    }
    regions = tuple(
        Region(role, shape, reader.array(data), label, origins[origin], index, text, score)
        for role, shape, data, label, origin, index, text, score in meta["regions"]
        if roles is None or wants(role, roles)
    )
    labels = {k: _ABSENT[v] if isinstance(v, str) else v for k, v in meta["labels"].items()}
    links = tuple(Link(*k) for k in meta["links"])
    rights = Rights(*meta["rights"])
    return Record(
        meta["id"], meta["subject"], meta["groups"], items, regions, labels, links, rights, meta["split"]
    )  # fmt: skip


def decode(data: memoryview, roles: Sequence[str] | None = None) -> Record:
    """A record from its bytes; `UsageError` where they are not a record's."""
    end = len(data) - 8
    begin = end - int.from_bytes(data[end:], "little")
    try:
        meta = json.loads(str(data[begin:end], "utf-8", "surrogatepass"))
        return build(meta, Reader(data), roles)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise UsageError(f"the corpus is damaged: a record of {len(data)} bytes does not decode ({error})") from error
