"""Corpus: records in Lance under one folder, with versions, filters, random access, whole appends and erasure."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fabrica.corpus import codec
from fabrica.corpus.appending import Batches, adopted, batches, fresh_of, tombstone
from fabrica.corpus.ids import Ids, Place
from fabrica.corpus.ledger import QUARANTINE, FileRow, Ledger
from fabrica.corpus.payload import Payload
from fabrica.corpus.stats import Stats, stats
from fabrica.corpus.table import Table, quote, raise_full
from fabrica.errors import UsageError, unknown
from fabrica.safe import write_whole
from fabrica.types import Origin, Record

_MARK = "corpus.json"
_ERASING = "erasing.json"  # a subject whose erasure has begun; finished by the next writer


@dataclass(frozen=True, slots=True)
class Version:
    """One state of a corpus: its number, when it was written (local time), how many records it held."""

    number: int
    at: datetime
    records: int


class Corpus:
    """Records on disk. Make one with `at` (open or create), `create` or `open`.

    A handle reads one version: the newest when it was opened, later its own appends; `refresh` moves it to the newest.
    It pickles as path and version, so workers (spawned: Lance does not survive a fork) read exactly what their
    parent does. SQL columns: id, subject, split, modality, source, licence, bytes, and the lists roles, kinds, tags
    ("group:value", "label:name=1") and texts, asked with `array_has(tags, 'label:effusion=1')`.
    """

    def __init__(self, path: str | Path, version: int | None = None) -> None:
        self.path = Path(path)
        self._fixed = version is not None
        self._records = Table(self.path / "records.lance", codec.SCHEMA, version)
        self._ids: tuple[int, Ids] | None = None  # of a version
        self._ledger = Ledger(self.path)
        self._payload = Payload(self.path / "payload")

    # ------------------------------------------------------------ opening

    @classmethod
    def at(cls, path: str | Path) -> Corpus:
        """Open the corpus at `path`, or make an empty one there."""
        path = Path(path)
        return cls.open(path) if (path / _MARK).exists() else cls.create(path)

    @classmethod
    def create(cls, path: str | Path) -> Corpus:
        """A new corpus in a folder that is missing or empty; `UsageError` otherwise."""
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(not _left(p) for p in path.iterdir())):
            here = (
                "a file" if not path.is_dir() else "a corpus" if (path / _MARK).exists() else "a folder of other things"
            )
            raise UsageError(f"{path} is {here}; give a new or empty folder for the corpus")
        try:
            path.mkdir(parents=True, exist_ok=True)
            with write_whole(path / _MARK) as out:
                out.write(json.dumps({"what": "fabrica corpus", "format": codec.FORMAT}).encode())
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise UsageError(
                f"no corpus can be made at {path}: {error.strerror}; give a folder you may write"
            ) from error
        return cls(path)

    @classmethod
    def open(cls, path: str | Path, version: int | None = None) -> Corpus:
        """The corpus at `path`, at its newest version, or read-only at an older one; `UsageError` if there is none."""
        path = Path(path)
        if not (path / _MARK).is_file():
            here = "nothing there" if not path.exists() else f"no {_MARK} in it"
            raise UsageError(f"no corpus at {path} ({here}); make one with: fabrica ingest FILES --into {path}")
        try:
            form = json.loads((path / _MARK).read_bytes()).get("format")
        except (OSError, ValueError, AttributeError) as error:
            raise UsageError(f"{path / _MARK} cannot be read ({error}); it should be this corpus' own mark") from error
        if form != codec.FORMAT:
            raise UsageError(f"{path} has corpus format {form!r}; this version reads {codec.FORMAT}")
        corpus = cls(path, version)
        if version is not None:
            corpus._records.data()
        return corpus

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path.absolute(), "version": self.version}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"], state["version"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"Corpus({str(self.path)!r}, version={self.version}, records={len(self)})"

    # ------------------------------------------------------------ reading

    def __len__(self) -> int:
        return len(self._records)

    @property
    def version(self) -> int:
        """The version that this handle reads; 0 is the empty corpus."""
        return self._records.version

    def versions(self) -> list[Version]:
        """All versions that can still be opened, oldest first."""
        data = self._records.data()
        found: list[Any] = [] if data is None else data.versions()
        return [Version(int(v["version"]), v["timestamp"], int(v["metadata"].get("total_rows", 0))) for v in found]

    def refresh(self) -> Corpus:
        """Move to the newest version (after another process wrote)."""
        self._records.refresh()
        self._fixed = False
        return self

    def rows(self, columns: Sequence[str], where: str | None = None) -> pa.Table:
        """SQL columns of the records that `where` takes, in order of insertion."""
        for name in columns:
            if name not in codec.SQL_COLUMNS:
                raise unknown("column", name, codec.SQL_COLUMNS)
        return self._ordered(columns, where)

    def _ordered(self, columns: Sequence[str], where: str | None) -> pa.Table:
        """Columns in order of insertion, which is that of the payload; compaction may have moved rows about."""
        table = self._records.read([*columns, *(n for n in codec.PLACE[:2] if n not in columns)], where)
        part, start = (table.column(n).to_numpy() for n in codec.PLACE[:2])
        later = (part[1:] > part[:-1]) | ((part[1:] == part[:-1]) & (start[1:] > start[:-1]))
        if not later.all():
            table = table.take(np.lexsort((start, part)))
        return table.select(list(columns))

    def ids(self, where: str | None = None) -> list[str]:
        """Ids of the records that `where` takes, sorted."""
        return sorted(self._records.read(["id"], where).column("id").to_pylist())

    def count(self, where: str | None = None) -> int:
        """How many records `where` takes."""
        return len(self) if where is None else self._records.read(["id"], where).num_rows

    def split_hash(self, where: str | None = None) -> str:
        """sha256 of the sorted ids, one a line: the same records, the same hash."""
        return hashlib.sha256("\n".join(self.ids(where)).encode()).hexdigest()

    def scan(
        self, where: str | None = None, *, roles: Sequence[str] | None = None, limit: int | None = None, start: int = 0
    ) -> Iterator[Record]:
        """Records in order of insertion, from the `start`-th that `where` takes; `roles` leaves out other items.

        Arrays are read-only views of the corpus' files: their bytes are read when they are touched.
        """
        places = self._ordered(codec.PLACE, where).slice(start, limit)
        for batch in places.to_batches(max_chunksize=4096):
            for place in zip(*(batch.column(name).to_pylist() for name in codec.PLACE), strict=True):
                yield codec.decode(self._payload.view(*place), roles)

    def take(self, ids: Sequence[str], *, roles: Sequence[str] | None = None) -> list[Record]:
        """Records by id, in the order asked for; an id may come twice. `UsageError` for an unknown one."""
        return [codec.decode(self._payload.view(*place), roles) for place in self._places(ids)]

    def layout(self, columns: Sequence[str] = ()) -> pa.Table:
        """Ids, where their bytes are (`codec.PLACE`) and some SQL columns, in order of insertion: for `read_at`, which
        needs no index."""
        return self._ordered(["id", *columns, *codec.PLACE], None)

    def read_at(self, layout: pa.Table, *, roles: Sequence[str] | None = None) -> Iterator[Record]:
        """The records of some rows of `layout()`, in their order."""
        for place in zip(*(layout.column(name).to_pylist() for name in codec.PLACE), strict=True):
            yield codec.decode(self._payload.view(*place), roles)

    def prefetch(self, ids: Sequence[str]) -> None:
        """Ask the system to read these records from disk soon; returns at once."""
        for place in self._places(ids):
            self._payload.fetch(*place)

    def _places(self, ids: Sequence[str]) -> list[list[int]]:
        try:
            places: list[list[int]] = self._index().places(ids).tolist()
        except KeyError as error:
            raise UsageError(f"no record {error} in {self.path} at version {self.version}; see Corpus.ids()") from error
        return places

    def _index(self) -> Ids:
        version = self.version
        if self._ids is None or self._ids[0] != version:
            ids = Ids()
            for batch in self._records.batches(["id", *codec.PLACE]):
                places = np.stack([batch.column(n).to_numpy().astype(np.int64) for n in codec.PLACE], axis=1)
                ids.add(batch.column("id").to_pylist(), places)
            self._ids = (version, ids)
        return self._ids[1]

    def stats(self, where: str | None = None) -> Stats:
        """Counts by modality, split, source, licence, role, kind and label."""
        return stats(self._records, where, self._ledger.codes())

    # ------------------------------------------------------------ writing

    def append(self, records: Iterable[Record], *, token: str | None = None) -> int:
        """Add records, all or none; how many were new (an id that is there is skipped, the first of two wins).

        `token` is stored in the same commit and read back as `.token`: what a resumable job has done so far. Records of
        an erased subject are left out. One record at a time is held in memory, and at most 16 MiB of text.
        """
        return self._append(
            lambda index, payload, places: batches(fresh_of(records, index, self.erased()), payload, token, places),
            token,
        )

    def adopt(self, parts: Iterable[pa.Table], *, token: str | None = None) -> int:
        """Add records that were encoded elsewhere (`codec.pack`) as `append` does: the same bytes, all or none."""
        return self._append(
            lambda index, payload, places: adopted(parts, index, self.erased(), payload, token, places), token
        )

    def _append(self, make: Batches, token: str | None) -> int:
        with self._writing():
            fresh: dict[str, Place] = {}
            index, before = self._index(), self.version
            payload = self._payload.writer(index.ends())
            try:
                self._records.append(make(index, payload, fresh))
            except BaseException:
                if self.version == before:
                    payload.undo()
                raise
            payload.close()
            if not fresh and token is not None and token != self.token:
                self._records.configure({"fabrica.token": token, "fabrica.token.after": self._last_token()})
            index.add(fresh, list(fresh.values()))
            self._ids = (self.version, index)
            return len(fresh)

    @property
    def token(self) -> str | None:
        """The token of the newest append, None where none was given."""
        last, config = self._last_token(), self._records.config()
        if config.get("fabrica.token.after") == last:
            return config["fabrica.token"]
        return last or None

    def _last_token(self) -> str:
        n = len(self)
        if n and "fabrica.purged" in self._records.config():
            return self._ordered(["token"], None).column(0)[n - 1].as_py() or ""
        return "" if n == 0 else self._records.take([n - 1], ["token"]).column(0)[0].as_py() or ""

    def compact(self) -> None:
        """Merge small files and drop old versions."""
        with self._writing():
            self._purge()

    def _purge(self) -> None:
        self._records.purge()
        rows = self._records.read(codec.PLACE)
        self._payload.scrub(*(rows.column(n).to_numpy() for n in codec.PLACE))

    def erase(self, subject: str) -> int:
        """Erase a subject: no byte of its records stays in data, indices, old versions or file lists; how many records.

        Later appends leave the subject out. Killed half-way, it is finished by the next write. Old versions go.
        """
        with self._writing():
            with write_whole(self.path / _ERASING) as out:
                out.write(json.dumps(subject).encode())
            return self._finish_erasing()

    def _finish_erasing(self) -> int:
        subject = json.loads((self.path / _ERASING).read_bytes())
        erased = sorted(self.erased() | {tombstone(subject)})
        with write_whole(self.path / "erased.json") as out:
            out.write(json.dumps(erased).encode())
        self._records.refresh()
        where = f"subject = {quote(subject)}"
        self._ledger.forget({(o.source, o.key) for record in self.scan(where) for o in _origins(record)})
        count = self._records.delete(where)
        self._purge()
        (self.path / _ERASING).unlink()
        return count

    def erased(self) -> frozenset[str]:
        """Tombstones (hashes, see `tombstone`) of the subjects that were erased."""
        path = self.path / "erased.json"
        return frozenset(json.loads(path.read_bytes())) if path.exists() else frozenset()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time, at the newest version."""
        if self._fixed:
            raise UsageError(f"{self.path} was opened at version {self.version}; open it without one to write")
        try:
            fd = os.open(self.path / "writer.lock", os.O_RDWR | os.O_CREAT, 0o644)
        except (PermissionError, FileNotFoundError) as error:
            raise UsageError(f"{self.path} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if (self.path / _ERASING).exists():
                self._finish_erasing()
            self._records.refresh()
            yield
        except BaseException as error:
            raise_full(error, self.path)
            raise
        finally:
            os.close(fd)

    # ------------------------------------------------------------ what could not be read

    def quarantine(self, items: Iterable[Any], *, source: str = "") -> int:
        """Note files that could not be read (`sources.Quarantined`: key, sha256, code, message); how many were new."""
        with self._writing():
            return self._ledger.quarantine(items, source)

    def note_files(
        self, done: Iterable[FileRow], bad: Mapping[str, Sequence[Any]], mended: Mapping[str, Sequence[str]]
    ) -> None:
        """For `ingest`: files that were read whole; by source, what could not be read and keys that now can be."""
        with self._writing():
            self._ledger.finish(done)
            for source, items in bad.items():
                self._ledger.quarantine(items, source)
            for source, keys in mended.items():
                self._ledger.mended(source, keys)

    def files_done(self) -> Mapping[tuple[str, str, str], int]:
        """For `ingest`: (source, key, mark) of the files that were read whole -> their records."""
        return self._ledger.done()

    def quarantined(self) -> pa.Table:
        """What could not be read: source, key, sha256, code, message; sorted by source and key."""
        return (
            self._ledger.quarantined().select(QUARANTINE.names).sort_by([("source", "ascending"), ("key", "ascending")])
        )


def _left(path: Path) -> bool:
    """What a creation that was killed may have left behind."""
    return path.name.startswith(f".{_MARK}.") and path.suffix == ".part"


def _origins(record: Record) -> Iterator[Origin]:
    for items in record.items.values():
        yield from (item.origin for item in items)
    yield from (region.origin for region in record.regions)
