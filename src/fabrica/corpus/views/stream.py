"""Figures of an archive one by one, from a folder or over HTTP, filtered by their fields before a picture is read."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from fabrica.corpus.views.archive import INDEX, Shard, listed, shards
from fabrica.corpus.views.parts import from_png
from fabrica.errors import Refused, UsageError
from fabrica.safe import LIMITS, Limits, members

if TYPE_CHECKING:
    from fabrica.safe.fetch import Fetcher

Keep = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Sample:
    """A figure: its fields (`archive.FIELDS`) and PNG bytes; `image()` decodes them."""

    fields: Mapping[str, Any]
    png: bytes

    def image(self) -> NDArray[Any]:
        """(H, W) or (H, W, 3)."""
        return from_png(self.png)


def open_stream(
    base: str | Path, *, groups: tuple[str, ...] = (), keep: Keep | None = None, buffer: int = 0, seed: int = 0,
    rank: int = 0, world: int = 1, fetcher: Fetcher | None = None, limits: Limits = LIMITS,
) -> Iterator[Sample]:  # fmt: skip
    """The samples of an archive under a folder or an http(s) URL (then with an open `fetcher`).

    `groups` are licence groups: shards of others are not opened, and a row of another group inside is
    `Refused("licence")`. `keep` reads the fields. With a `buffer` shards are shuffled by `seed` and samples in a buffer
    of that many; without, the order is the archive's. Rank r of w reads every w-th shard. Over HTTP the next shard is
    fetched while one is read; what comes is compared with its digest in the index (`Refused("shard_bad")`).

    Memory: the buffer's samples. Disk over HTTP: two shards.
    """
    if not 0 <= rank < world:
        raise UsageError(f"rank {rank} of {world}; wanted 0 to {world - 1}")
    with ExitStack() as stack:
        source = _Remote(str(base).rstrip("/"), fetcher, stack) if _is_url(base) else _Local(Path(base))
        found = [s for s in source.shards if not groups or s.group in groups][rank::world]
        rng = random.Random(f"{seed}-{rank}")
        if buffer:
            rng.shuffle(found)
        flow = _samples(source, found, groups, keep, limits)
        yield from _shuffled(flow, buffer, rng) if buffer else flow


def _is_url(base: str | Path) -> bool:
    return isinstance(base, str) and base.startswith(("http://", "https://"))


class _Local:
    def __init__(self, folder: Path) -> None:
        self.folder, self.shards = folder, shards(folder)

    def paths(self, wanted: list[Shard]) -> Iterator[tuple[Shard, Path]]:
        """Shards and where they are."""
        yield from ((s, self.folder / f"{s.name}.tar") for s in wanted)


class _Remote:
    def __init__(self, base: str, fetcher: Fetcher | None, stack: ExitStack) -> None:
        if fetcher is None:
            raise Refused("network_off", "an archive under a URL needs a Fetcher(allow_network=True)")
        self.base, self.fetcher = base, fetcher
        self.temp = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.pool = stack.enter_context(ThreadPoolExecutor(1))
        got = fetcher.get(f"{base}/{INDEX}")
        if not got.ok or got.data is None:
            raise Refused("no_index", f"{base}/{INDEX} did not come: {got.reason} {got.detail}")
        self.shards = listed(json.loads(got.data))

    def paths(self, wanted: list[Shard]) -> Iterator[tuple[Shard, Path]]:
        """Shards and where their fetched copies are; each is removed when the next is asked for."""
        ahead = self.pool.submit(self._fetch, wanted[0]) if wanted else None
        for n, shard in enumerate(wanted):
            assert ahead is not None
            path = ahead.result()
            ahead = self.pool.submit(self._fetch, wanted[n + 1]) if n + 1 < len(wanted) else None
            yield shard, path
            path.unlink()

    def _fetch(self, shard: Shard) -> Path:
        path = self.temp / f"{shard.name}.tar"
        got = self.fetcher.to_file(f"{self.base}/{shard.name}.tar", path, sha256=shard.sha256)
        if not got.ok:
            raise Refused("shard_bad", f"{shard.name}.tar did not come whole: {got.reason} {got.detail}")
        return path


def _samples(
    source: _Local | _Remote, wanted: list[Shard], groups: tuple[str, ...], keep: Keep | None, limits: Limits
) -> Iterator[Sample]:
    for shard, path in source.paths(wanted):
        fields: dict[str, Any] = {}
        for name, reader in members(path, limits):
            key, _, suffix = name.rpartition(".")
            if suffix == "json":
                fields = json.loads(reader.read(limits.array_bytes))
                if groups and fields.get("licence_group") not in groups:
                    raise Refused(
                        "licence", f"{shard.name} holds a row of licence group {fields.get('licence_group')!r}"
                    )
            elif suffix == "png" and key == fields.get("key") and (keep is None or keep(fields)):
                yield Sample(fields, reader.read(limits.array_bytes))


def _shuffled(flow: Iterator[Sample], size: int, rng: random.Random) -> Iterator[Sample]:
    held: list[Sample] = []
    for sample in flow:
        if len(held) < size:
            held.append(sample)
            continue
        at = rng.randrange(size)
        held[at], sample = sample, held[at]
        yield sample
    rng.shuffle(held)
    yield from held
