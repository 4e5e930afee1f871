"""WebDataset: tar shards whose samples are named parts (`KEY.report.0.txt`, `KEY.image.0.npy`) and `KEY.json`."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fabrica.corpus.rights import Use
from fabrica.corpus.store import Corpus
from fabrica.corpus.views.parts import Exported, Shared, from_npy, key_of, npy, put_together, split_up
from fabrica.errors import Refused, UsageError
from fabrica.safe import LIMITS, Limits, folder_whole, members
from fabrica.types import Record


def write(
    corpus: Corpus,
    folder: str | Path,
    *,
    where: str | None = None,
    use: Use | None = None,
    shard_bytes: int = 1 << 30,
    shard_records: int = 10_000,
) -> Exported:
    """Write shards `SPLIT-000000.tar` (records without a split: `all-`) into a new folder, whole or not at all.

    The same corpus gives the same bytes: parts are sorted, times and owners are zero. What rights forbid, and for
    `use` more (see `Shared`), is left out. `webdataset.WebDataset(shards).decode()` reads them; `read` gives the
    records back.
    """
    shared = Shared(corpus, where, use)
    with folder_whole(folder) as temp:
        shards: dict[str, _Shards] = {}
        try:
            for record in shared:
                name = record.split or "all"
                if name not in shards:
                    shards[name] = _Shards(temp, name, shard_bytes, shard_records)
                shards[name].add(record)
        finally:
            for of in shards.values():
                of.close()
    return shared.report()


class _Shards:
    """The shards of one split, one open at a time."""

    def __init__(self, folder: Path, name: str, max_bytes: int, max_records: int) -> None:
        self.folder, self.name, self.max_bytes, self.max_records = folder, name, max_bytes, max_records
        self.number = self.count = 0
        self.tar: tarfile.TarFile | None = None

    def add(self, record: Record) -> None:
        if self.tar is not None and (self.count >= self.max_records or self.tar.offset >= self.max_bytes):
            self.close()
        if self.tar is None:
            path = self.folder / f"{self.name}-{self.number:06d}.tar"
            self.tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
            self.number, self.count = self.number + 1, 0
        key = key_of(record)
        meta, parts = split_up(record)
        data = {"json": meta.encode()} | {n: p.encode() if isinstance(p, str) else npy(p) for n, p in parts.items()}
        for name in sorted(data):
            info = tarfile.TarInfo(f"{key}.{name}")
            info.size, info.mode = len(data[name]), 0o644
            self.tar.addfile(info, io.BytesIO(data[name]))
        self.count += 1

    def close(self) -> None:
        if self.tar is not None:
            self.tar.close()
            self.tar = None


def read(folder: str | Path, limits: Limits = LIMITS) -> Iterator[Record]:
    """The records of a folder of shards that `write` made, shard by shard."""
    shards = sorted(Path(folder).glob("*.tar"))
    if not shards:
        raise UsageError(f"there are no .tar shards in {folder}")
    for shard in shards:
        for parts in _samples(shard, limits):
            if "json" not in parts:
                raise Refused("view_bad", f"{shard.name} has a sample without its .json")
            yield put_together(parts.pop("json"), parts)


def _samples(shard: Path, limits: Limits) -> Iterator[dict[str, Any]]:
    current, parts = "", dict[str, Any]()
    for name, reader in members(shard, limits):
        key, _, part = name.partition(".")
        if key != current and parts:
            yield parts
            parts = {}
        current = key
        data = reader.read(limits.array_bytes + 1)
        if len(data) > limits.array_bytes:
            raise Refused("array_too_large", f"{shard.name}: {name!r} is larger than {limits.array_bytes} bytes")
        parts[part] = data if part == "json" else from_npy(data) if part.endswith(".npy") else data.decode("utf-8")
    if parts:
        yield parts
