"""Records on their way into a corpus: new ones alone, bytes to the payload first, rows in batches after."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa

from fabrica.corpus import codec
from fabrica.corpus.ids import Ids, Place
from fabrica.corpus.payload import Writing
from fabrica.types import Record, record_id

MIB = 1 << 20
Batches = Callable[[Ids, Writing, dict[str, Place]], Iterator[pa.RecordBatch]]  # index, payload, places to fill


def tombstone(subject: str) -> str:
    """The hash under which an erased subject is remembered, so that it does not come back."""
    return record_id("erased", subject)


def fresh_of(records: Iterable[Record], index: Ids, erased: frozenset[str]) -> Iterator[Record]:
    """The records whose id is new and whose subject was not erased."""
    here: set[str] = set()
    for record in records:
        if record.id in here or record.id in index or (erased and tombstone(record.subject) in erased):
            continue
        here.add(record.id)
        yield record


def batches(
    records: Iterator[Record], payload: Writing, token: str | None, fresh: dict[str, Place]
) -> Iterator[pa.RecordBatch]:
    """Batches of rows whose bytes are in the payload already; `fresh` gets id -> place."""
    held: list[codec.Row] = []
    size = 0
    for record in records:
        row = codec.encode(record, payload, token=token)
        fresh[record.id] = codec.place(row)
        held.append(row)
        size += 512 + sum(map(len, row[codec.TEXTS]))
        if size > 16 * MIB or len(held) >= 8192:
            payload.flush()
            yield codec.batch(held)
            held, size = [], 0
    payload.sync()
    if held:
        yield codec.batch(held)


def adopted(
    parts: Iterable[pa.Table], index: Ids, erased: frozenset[str], payload: Writing, token: str | None,
    fresh: dict[str, Place],
) -> Iterator[pa.RecordBatch]:  # fmt: skip
    """Batches of packed records that are new, their bytes in the payload."""
    held: pa.RecordBatch | None = None  # one behind, so that all bytes are on the disk before the last is handed over
    for part in parts:
        for batch in part.to_batches(max_chunksize=8192):
            ids, subjects = (batch.column(name).to_pylist() for name in ("id", "subject"))
            keep, places = [], []
            for i, (id_, subject) in enumerate(zip(ids, subjects, strict=True)):
                if id_ in fresh or id_ in index or (erased and tombstone(subject) in erased):
                    continue
                data = batch.column("payload")[i].as_buffer()
                fresh[id_] = (*payload.add([(0, memoryview(data))], data.size), data.size)
                keep.append(i)
                places.append(fresh[id_])
            if not keep:
                continue
            if held is not None:
                payload.flush()
                yield held
            held = _placed(batch.select(codec.SCHEMA.names).take(pa.array(keep)), places, token)
    payload.sync()
    if held is not None:
        yield held


def _placed(batch: pa.RecordBatch, places: Sequence[Place], token: str | None) -> pa.RecordBatch:
    """Rows with their places and token."""
    part, start, _ = zip(*places, strict=True)
    given = {"part": pa.array(part, pa.int32()), "start": pa.array(start, pa.int64())}
    given["token"] = pa.array([token] * len(places), pa.string())
    columns = [given.get(f.name, batch.column(f.name)) for f in codec.SCHEMA]
    return pa.RecordBatch.from_arrays(columns, schema=codec.SCHEMA)
