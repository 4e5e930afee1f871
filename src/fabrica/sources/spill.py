"""Rows of many patients grouped by patient within a memory bound: hash buckets on disk, each small enough to hold.

    with Spill(limits) as spill:
        for batch in batches: spill.add(batch)          # pyarrow record batches with a string column "patient"
        for table in spill.tables(): ...                # every patient whole, in exactly one table

What fits the budget never touches the disk. A bucket above it is split again with another salt; one patient that
alone is above it is named in `too_large`. Bucket files stand in a private temporary folder (TMPDIR) that goes with the
object.
"""

from __future__ import annotations

import errno
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fabrica.errors import Full
from fabrica.safe import LIMITS, MIB, Limits

if TYPE_CHECKING:
    import pyarrow as pa

FAN, DEPTH = 64, 3  # 64 buckets a level, 3 levels: 262,144 buckets before a patient is called too large
SHARE = 4  # what is held of arrow rows: a quarter of the limit; the other three are for sorting and for records


class Spill:
    """Rows grouped by the column "patient". The order of a patient's rows is that in which they were added."""

    def __init__(self, limits: Limits = LIMITS, *, level: int = 0) -> None:
        self.limits, self.level = limits, level
        self.budget = max(MIB // 4, min(256 * MIB, limits.array_bytes // SHARE))
        self.held: list[pa.RecordBatch] = []
        self.bytes = self.rows = 0
        self.too_large: list[tuple[str, int]] = []  # (patient, bytes of its bucket)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.held.clear()
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def spilled(self) -> bool:
        """Whether rows went to disk."""
        return self._folder is not None

    def add(self, batch: pa.RecordBatch) -> None:
        """Keep a batch; at the budget, all that is held goes to its buckets on disk."""
        if not batch.num_rows:
            return
        self.held.append(batch)
        self.bytes += batch.nbytes
        self.rows += batch.num_rows
        if self.bytes > self.budget:
            self._flush()

    def tables(self) -> Iterator[pa.Table]:
        """Tables in which every patient is whole, each within the budget."""
        import pyarrow as pa

        if not self.spilled:
            if self.held:
                yield pa.Table.from_batches(self.held)
            return
        self._flush()
        for n in range(FAN):
            path = self._path(n)
            if not path.is_file():
                continue
            if path.stat().st_size <= self.budget:
                yield pa.Table.from_batches(list(_stored(path)))
            elif self.level + 1 < DEPTH:
                with Spill(self.limits, level=self.level + 1) as deeper:
                    for batch in _stored(path):
                        deeper.add(batch)
                    path.unlink()
                    yield from deeper.tables()
                    self.too_large += deeper.too_large
            else:
                names = {name for batch in _stored(path) for name in batch.column("patient").unique().to_pylist()}
                self.too_large += [(name, path.stat().st_size) for name in sorted(names)]
            path.unlink(missing_ok=True)

    def _path(self, bucket: int) -> Path:
        assert self._folder is not None
        return Path(self._folder.name) / f"{self.level}-{bucket}"

    def _flush(self) -> None:
        import numpy as np
        import pyarrow as pa

        if not self.held:
            return
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="fabrica-spill-")
            table = pa.Table.from_batches(self.held)
            self.held, self.bytes = [], 0
            bucket = _buckets(table.column("patient"), self.level)
            order = np.argsort(bucket, kind="stable")
            edges = np.searchsorted(bucket[order], np.arange(FAN + 1))
            for n in range(FAN):
                if edges[n] < edges[n + 1]:
                    self._write(n, table.take(pa.array(order[edges[n] : edges[n + 1]])))
        except OSError as error:
            if error.errno == errno.ENOSPC:
                where = tempfile.gettempdir()
                raise Full(f"no space left in {where} to group rows by patient; set TMPDIR to a larger disk") from error
            raise

    def _write(self, bucket: int, part: pa.Table) -> None:
        import pyarrow as pa

        with self._path(bucket).open("ab") as handle, pa.ipc.new_stream(handle, part.schema) as out:
            out.write_table(part)


def _stored(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a bucket: one Arrow stream a flush, one after the other."""
    import pyarrow as pa

    size = path.stat().st_size
    with path.open("rb") as handle:
        while handle.tell() < size:
            with pa.ipc.open_stream(pa.PythonFile(handle, mode="r")) as stream:
                yield from stream


def _buckets(patients: Any, level: int) -> Any:
    """The bucket of each row: a salted hash of its patient, the same on every machine."""
    import numpy as np

    coded = patients.combine_chunks().dictionary_encode()
    salt = b"fabrica%d" % level
    names = coded.dictionary.to_pylist()
    hashes = np.array(
        [
            hashlib.blake2b(n.encode("utf-8", "surrogatepass"), digest_size=2, salt=salt).digest()[0] % FAN
            for n in names
        ],
        np.int64,
    )
    return hashes[coded.indices.to_numpy(zero_copy_only=False)]
