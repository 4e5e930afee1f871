"""Files -> records in a corpus: what is in is skipped, what is bad is quarantined, killed at any point it goes on."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fabrica.corpus.appending import MIB, tombstone
from fabrica.corpus.codec import size_of
from fabrica.corpus.ledger import FileRow, text
from fabrica.corpus.store import Corpus
from fabrica.errors import Refused, UsageError
from fabrica.safe import LIMITS, Limits, sha256
from fabrica.sources import Quarantined, Ref, mask_path, read, walk
from fabrica.sources import parts as beside
from fabrica.types import Record

Progress = Callable[[int, int | None, str], None]  # (files done, files in all, what)
_HEADERS = (".hea", ".hdr", ".nhdr")  # formats whose data stand in files beside them


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What came of an ingest: new `records`, `skipped` ones that were in already, `quarantined` files by reason code,
    `files` looked at, their `bytes` on disk, `seconds`."""

    records: int
    skipped: int
    quarantined: Mapping[str, int]
    files: int
    seconds: float
    bytes: int


@dataclass(slots=True)
class _Batch:
    """What waits for the next write."""

    records: list[Record] = field(default_factory=list)
    files: list[FileRow] = field(default_factory=list)
    bad: dict[str, list[Quarantined]] = field(default_factory=dict)  # by source
    mended: dict[str, list[str]] = field(default_factory=dict)
    size: int = 0
    notes: int = 0


def ingest(
    paths: str | Path | Sequence[str | Path],
    corpus: Corpus,
    *,
    source: str | None = None,
    licence: str = "",
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    max_memory: int | None = None,
    progress: Progress | None = None,
) -> IngestReport:
    """Read files and folders into the corpus, in batches that are whole or absent.

    `source` names the data set (default: the file's or folder's name); `columns` says how to read tables and names
    (see `sources.Ref`); `limit` takes the first N records; `max_memory` bytes bounds what is held at once: an array
    that needs over a quarter of it is quarantined as `array_too_large`. Files that could not be read are tried again on
    the next run. `UsageError` for a path that is missing, unreadable or empty, or where no file became a record.
    """
    began = time.monotonic()
    roots = [Path(paths)] if isinstance(paths, (str, Path)) else [Path(p) for p in paths]
    if limit is not None and limit < 1:
        raise UsageError(f"limit = {limit}; wanted at least 1")
    total = _check(roots, source, licence, columns)
    run = _Run(corpus, limit, max_memory)
    for done, ref in enumerate(_refs(roots, source, licence, columns)):
        if progress is not None:
            progress(done, total, "reading files")
        if not run.file(ref):
            break
    run.flush()
    if progress is not None:
        progress(total if limit is None else run.files, total, "reading files")
    if run.new + run.skipped + run.withheld == 0:
        why = ", ".join(f"{n} {code}" for code, n in sorted(run.codes.items())) or "they hold none"
        raise UsageError(
            f"{run.files} files of {', '.join(map(str, roots))} gave no record ({why}); "
            "the reasons stand in the corpus' quarantine"
        )
    return IngestReport(
        run.new, run.skipped, dict(sorted(run.codes.items())), run.files, time.monotonic() - began, run.bytes
    )


def _refs(roots: Iterable[Path], source: str | None, licence: str, columns: Mapping[str, str] | None) -> Iterator[Ref]:
    for root in roots:
        yield from walk(root, source=source or root.resolve().name, licence=licence, columns=columns)


def _check(roots: Sequence[Path], source: str | None, licence: str, columns: Mapping[str, str] | None) -> int:
    """How many files there are; every root must exist and hold some, before anything is read."""
    if not roots:
        raise UsageError("no path was given; name the files or folders to ingest")
    total = 0
    for root in roots:
        try:
            found = sum(1 for _ in _refs([root], source, licence, columns))
        except PermissionError as error:
            raise UsageError(f"{root} cannot be read: {error.strerror}; check its permissions") from error
        if found == 0:
            raise UsageError(f"there are no files in {root}; give a folder that holds medical files")
        total += found
    return total


class _Run:
    """One ingest under way."""

    def __init__(self, corpus: Corpus, limit: int | None, max_memory: int | None) -> None:
        self.corpus, self.left = corpus, limit
        self.limits: Limits = LIMITS
        self.batch_bytes = 64 * MIB
        if max_memory is not None:
            self.batch_bytes = max(MIB, min(self.batch_bytes, max_memory // 4))
            self.limits = replace(LIMITS, array_bytes=min(LIMITS.array_bytes, max(MIB, max_memory // 4)))
        corpus.note_files((), {}, {})  # says now whether it can be written, and finishes what was cut short
        self.done = corpus.files_done()
        self.bad: dict[tuple[str, str], set[str]] = {}
        known = corpus.quarantined()
        for of, key in zip(known.column("source").to_pylist(), known.column("key").to_pylist(), strict=True):
            for file in {key, key.rpartition("#")[0]} - {""}:  # a row of a table is KEY#ROW
                self.bad.setdefault((of, file), set()).add(key)
        self.erased = corpus.erased()
        self.batch = _Batch()
        self.new = self.skipped = self.withheld = self.files = self.bytes = 0
        self.codes: Counter[str] = Counter()

    def file(self, ref: Ref) -> bool:
        """Read one file; False when the limit is reached."""
        if self.left == 0:
            return False
        self.files += 1
        mark = _mark(ref)
        known = self.done.get((text(ref.source), text(ref.key), mark))
        if known is not None and (self.left is None or known <= self.left):
            self.skipped += known
            self.left = None if self.left is None else self.left - known
            self.bytes += ref.path.stat().st_size
            return True
        self._read(ref, mark)
        return True

    def _read(self, ref: Ref, mark: str) -> None:
        count, whole, bad = 0, mark != "", set[str]()
        for found in read(ref, self.limits):
            if isinstance(found, Quarantined):
                self.batch.bad.setdefault(ref.source, []).append(found)
                self.batch.notes += 1
                self.codes[found.code] += 1
                bad.add(text(found.key))
                whole = False
                continue
            if self.left == 0:
                whole = False
                break
            self.left = None if self.left is None else self.left - 1
            count += 1
            if self.erased and tombstone(found.subject) in self.erased:
                self.withheld += 1
                whole = False
            else:
                self._hold(found)
        stale = self.bad.get((text(ref.source), text(ref.key)), set()) - bad
        if stale:
            self.batch.mended.setdefault(ref.source, []).extend(sorted(stale))
        if whole and count:
            self.batch.files.append(FileRow(ref.source, ref.key, mark, count))
            self.batch.notes += 1
        if mark:
            self.bytes += ref.path.stat().st_size
        if self.batch.notes >= 4096:
            self.flush()

    def _hold(self, record: Record) -> None:
        grows = size_of(record)
        if self.batch.records and self.batch.size + grows > self.batch_bytes:
            self.flush()
        self.batch.records.append(record)
        self.batch.size += grows

    def flush(self) -> None:
        """Write what waits: records first, then that their files are done."""
        batch, self.batch = self.batch, _Batch()
        new = self.corpus.append(batch.records) if batch.records else 0
        self.new += new
        self.skipped += len(batch.records) - new
        self.corpus.note_files(batch.files, batch.bad, batch.mended)


def _mark(ref: Ref) -> str:
    """What tells a changed file from one that was read: its bytes, those of the files beside it, how it is read."""
    parts = [ref.path]
    if ref.path.suffix.lower() in _HEADERS:
        parts += sorted(
            p for p in ref.path.parent.iterdir() if p.stem == ref.path.stem and p != ref.path and p.is_file()
        )
    mask = mask_path(ref)
    parts += [mask] if mask is not None else []
    parts += beside(ref.path, ref.columns)
    digest = hashlib.sha256(repr((ref.licence, sorted(ref.columns.items()))).encode("utf-8", "surrogatepass"))
    try:
        for part in parts:
            digest.update(sha256(part).encode())
    except (OSError, Refused):
        return ""  # the reader says why
    return digest.hexdigest()
