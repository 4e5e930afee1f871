"""Reshard: WebDataset shards that hold the samples of a subset, each as often as it counts."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fabrica.curate.pools.subset import Subset, uid_of, uids
from fabrica.errors import Refused, UsageError
from fabrica.safe import LIMITS, Limits, folder_whole, members

Sample = tuple[str, dict[str, bytes]]  # key, part -> bytes
_UID = re.compile(r"[0-9a-fA-F]{32}\Z")


@dataclass(frozen=True, slots=True)
class Resharded:
    """`read` samples, of which `kept` are in the subset; `written` counts repeats; `missing` uids are in no shard."""

    read: int
    kept: int
    written: int
    missing: int
    shards: int


def reshard(
    source: str | Path, subset: Subset, into: str | Path, *, shard_samples: int = 10_000, limits: Limits = LIMITS
) -> Resharded:
    """Copy the samples of `subset` from a folder of WebDataset tars into new shards `000000.tar`, whole or not at all.

    A sample's uid is the "uid" (32 hex digits) of its .json, as DataComp's downloads have it, else that of the record
    id in it ("id") or of its key (`subset.uid_of`). A sample that counts k times is written k times, as KEY, KEY-1, ...
    The same shards and subset give the same bytes. Refused: what `safe.members` refuses, and `sample_json`.
    """
    tars = sorted(Path(source).glob("*.tar"))
    if not tars:
        raise UsageError(f"there are no .tar shards in {source}")
    if shard_samples < 1:
        raise UsageError(f"shard_samples {shard_samples}; wanted 1 or more")
    read = kept = written = shards = 0
    seen: set[str] = set()
    with folder_whole(into) as temp:
        out: tarfile.TarFile | None = None
        try:
            for key, parts in (sample for tar in tars for sample in samples(tar, limits)):
                read += 1
                uid = _uid(key, parts)
                times = int(subset.count(uids([uid]))[0])
                if not times:
                    continue
                kept += 1
                seen.add(uid)
                for repeat in range(times):
                    if out is None or written % shard_samples == 0:
                        if out is not None:
                            out.close()
                        out = tarfile.open(temp / f"{shards:06d}.tar", "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
                        shards += 1
                    _add(out, f"{key}-{repeat}" if repeat else key, parts)
                    written += 1
        finally:
            if out is not None:
                out.close()
    return Resharded(read, kept, written, len(subset) - len(seen), shards)


def samples(tar: Path, limits: Limits = LIMITS) -> Iterator[Sample]:
    """The samples of a shard: files that stand together and share the name before the first dot."""
    current, parts = "", dict[str, bytes]()
    for name, reader in members(tar, limits):
        key, _, part = name.partition(".")
        if key != current and parts:
            yield current, parts
            parts = {}
        data = reader.read(limits.array_bytes + 1)
        if len(data) > limits.array_bytes:
            raise Refused("array_too_large", f"{tar.name}: {name!r} is larger than {limits.array_bytes} bytes")
        current, parts[part] = key, data
    if parts:
        yield current, parts


def _uid(key: str, parts: dict[str, bytes]) -> str:
    if "json" not in parts:
        return uid_of(key)
    try:
        about = json.loads(parts["json"])
    except ValueError as error:
        raise Refused("sample_json", f"sample {key[:80]!r} has a .json that is none: {error}") from error
    if isinstance(about, dict) and isinstance(about.get("uid"), str) and _UID.match(about["uid"]):
        return str(about["uid"]).lower()
    if isinstance(about, dict) and isinstance(about.get("id"), str):
        return uid_of(about["id"])
    return uid_of(key)


def _add(out: tarfile.TarFile, key: str, parts: dict[str, bytes]) -> None:
    for name in sorted(parts):
        info = tarfile.TarInfo(f"{key}.{name}")
        info.size, info.mode = len(parts[name]), 0o644
        out.addfile(info, io.BytesIO(parts[name]))


def uids_in(folder: str | Path, limits: Limits = LIMITS) -> Subset:
    """The subset that a folder of shards holds, counts and all: the check that resharding kept what it should."""
    found = [uid for tar in sorted(Path(folder).glob("*.tar")) for uid in _uids_of(tar, limits)]
    return Subset.of(uids(found), repeats=True)


def _uids_of(tar: Path, limits: Limits) -> Iterator[str]:
    for key, parts in samples(tar, limits):
        yield _uid(key, parts)
