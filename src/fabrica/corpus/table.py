"""One Lance data set under a folder: whole appends, filters with clear errors, erasure to the last byte."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import queue
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fabrica.errors import Full, UsageError, unknown

if TYPE_CHECKING:
    import lance

_CACHE = 64 << 20  # bytes of page metadata to keep; without a bound Lance keeps whole large values
_NO_SPACE = tuple(f"(os error {n})" for n in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


@functools.cache
def _lance() -> Any:
    os.environ.setdefault("LANCE_LOG", "error")
    import lance

    return lance


@functools.cache
def _session() -> Any:
    return _lance().Session(index_cache_size_bytes=_CACHE, metadata_cache_size_bytes=_CACHE)


class Table:
    """A Lance data set that may not exist yet. Writers hold the corpus' lock; readers stay at their version."""

    def __init__(self, path: Path, schema: pa.Schema, version: int | None = None) -> None:
        self.path, self.schema = path, schema
        self._at = version
        self._data: lance.LanceDataset | None = None

    def data(self) -> lance.LanceDataset | None:
        """The data set at this handle's version, or None while nothing was written."""
        if self._data is None and (self.path / "_versions").is_dir() and self._at != 0:
            try:
                self._data = _lance().dataset(str(self.path), version=self._at, session=_session())
            except (ValueError, OSError) as error:
                known = self._versions() if self._at is not None else ""
                if not known:
                    raise UsageError(f"the corpus {self.path.parent} is damaged: {_short(str(error))}") from error
                raise UsageError(f"{self.path.parent} has no version {self._at}; the newest are {known}") from error
        return self._data

    def _versions(self) -> str:
        """The newest version numbers; "" where the data set cannot be opened at all."""
        try:
            return ", ".join(str(v["version"]) for v in _lance().dataset(str(self.path)).versions()[-8:])
        except (ValueError, OSError):
            return ""

    def refresh(self) -> None:
        """Move to the newest version, and stay there."""
        self._at, self._data = None, None
        self.data()

    @property
    def version(self) -> int:
        """0 while nothing was written."""
        data = self.data()
        return 0 if data is None else int(data.version)

    def __len__(self) -> int:
        data = self.data()
        return 0 if data is None else int(data.count_rows())

    def read(self, columns: Sequence[str], where: str | None = None, **options: Any) -> pa.Table:
        """Some columns of the rows that `where` (SQL) takes."""
        data = self.data()
        if data is None:
            return self.schema.empty_table().select([c for c in columns if c in self.schema.names])
        with self._readable(where):
            return data.to_table(columns=list(columns), filter=where, **options)

    def batches(self, columns: Sequence[str], where: str | None = None) -> Iterator[pa.RecordBatch]:
        """The same in batches, in no order that holds."""
        data = self.data()
        if data is None:
            return
        with self._readable(where):
            found = data.to_batches(columns=list(columns), filter=where, batch_size=8192, batch_readahead=2)
        while True:
            with self._readable(where):
                batch = next(found, None)
            if batch is None:
                return
            yield batch

    def take(self, offsets: Any, columns: Sequence[str]) -> pa.Table:
        """The rows at `offsets` (0 = first inserted), in the order asked for."""
        data = self.data()
        if data is None or not len(offsets):
            return self.schema.empty_table().select(list(columns))
        with self._readable(None):
            return data.take(offsets, columns=list(columns))

    @contextlib.contextmanager
    def _readable(self, where: str | None) -> Iterator[None]:
        try:
            yield
        except (ValueError, OSError) as error:
            text = str(error)
            missing = re.search(r"No field named \"?(\w+)\"?", text)
            if missing and missing[1] in self.schema.names:
                raise
            if missing:
                raise unknown("column", missing[1], [n for n in self.schema.names if n != "token"]) from error
            if where is not None and not text.startswith("LanceError(IO)"):
                raise UsageError(f"the filter {where!r} does not work: {_short(text)}") from error
            if "not found" in text.lower():
                raise UsageError(
                    f"{self.path.parent}: version {self.version} is gone (erased or damaged); reopen"
                ) from error
            raise

    # ------------------------------------------------------------ writes (the caller holds the lock)

    def append(self, batches: Iterator[pa.RecordBatch]) -> None:
        """Append all batches in one commit, or nothing: what a failure left behind is removed.

        Batches are taken in the caller's thread, one ahead of the writing.
        """
        first = next(batches, None)
        if first is None:
            return
        second = next(batches, None)
        before, files = self.version, self._files()
        try:
            if second is None:
                self._write(pa.Table.from_batches([first]))
            else:
                self._stream(first, second, batches)
        except BaseException:
            self.refresh()
            if self.version == before:
                self._remove(self._files() - files)
            raise
        self.refresh()

    def _write(self, data: Any) -> None:
        mode = "append" if self.version else "create"
        target = self.data() if self.version else str(self.path)
        _lance().write_dataset(data, target, schema=self.schema, mode=mode, data_storage_version="2.2")

    def _stream(self, first: pa.RecordBatch, second: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> None:
        ready: queue.Queue[pa.RecordBatch | _Stop | None] = queue.Queue(maxsize=1)
        failed: list[BaseException] = []

        def feed() -> Iterator[pa.RecordBatch]:
            while (batch := ready.get()) is not None:
                if isinstance(batch, _Stop):
                    raise InterruptedError("the records' source failed")
                yield batch

        def write() -> None:
            try:
                self._write(pa.RecordBatchReader.from_batches(self.schema, feed()))
            except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
                failed.append(error)

        writer = threading.Thread(target=write, name="corpus-append")
        writer.start()
        try:
            for batch in _chain(first, second, rest):
                if not _put(ready, batch, failed):
                    break
            _put(ready, None, failed)
        except BaseException:
            _put(ready, _Stop(), failed)
            raise
        finally:
            writer.join()
        if failed:
            raise failed[0]

    def delete(self, where: str) -> int:
        """Delete rows (still in old versions: see `purge`); how many."""
        data = self.data()
        if data is None:
            return 0
        count = int(data.count_rows(filter=where))
        if count:
            data.delete(where)
            self.refresh()
        return count

    def purge(self) -> None:
        """Leave no byte of what was deleted: rewrite its files, rebuild indices, drop every old version and stray."""
        self.refresh()
        data = self.data()
        if data is None:
            return
        data.optimize.compact_files(materialize_deletions=True, materialize_deletions_threshold=0.0)
        data.optimize.optimize_indices()
        data.update_config({"fabrica.purged": "1"})  # so that the newest commit is not the deletion, which names keys
        data.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
        self.refresh()

    def config(self) -> dict[str, str]:
        """Small named strings that are versioned with the data."""
        data = self.data()
        return {} if data is None else dict(data.config())

    def configure(self, values: Mapping[str, str | None]) -> None:
        """Set some of them."""
        data = self.data()
        if data is None:
            _lance().write_dataset(self.schema.empty_table(), str(self.path), mode="create", data_storage_version="2.2")
            self.refresh()
            data = self.data()
        assert data is not None
        data.update_config(dict(values))
        self.refresh()

    def _files(self) -> set[Path]:
        return {Path(where) / name for where, _, names in os.walk(self.path) for name in names}

    @staticmethod
    def _remove(files: set[Path]) -> None:
        for file in files:
            file.unlink(missing_ok=True)


class _Stop:
    """Ends a stream of batches with a failure."""


def _chain(first: pa.RecordBatch, second: pa.RecordBatch, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield first
    yield second
    yield from rest


def _put(ready: queue.Queue[Any], value: Any, failed: list[BaseException]) -> bool:
    """Hand over, unless the writer has failed."""
    while not failed:
        try:
            ready.put(value, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False


def raise_full(error: BaseException, path: Path) -> None:
    """Raise `Full` where the error says that the disk is full, from the system or inside Lance's message."""
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    inside = isinstance(error, (OSError, RuntimeError, ValueError)) and any(code in str(error) for code in _NO_SPACE)
    if full or inside:
        raise Full(f"no space left to write {path}; nothing partial was kept") from error


def _short(text: str) -> str:
    """Lance's message without its Rust file names."""
    return re.sub(r",? ?/\S+\.rs:\d+(:\d+)?", "", text).removeprefix("Invalid user input: ").strip()[:300]


def quote(text: str) -> str:
    """A SQL string literal.

    >>> quote("O'Brien")
    "'O''Brien'"
    """
    return "'" + text.replace("'", "''") + "'"
