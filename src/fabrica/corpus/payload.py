"""The bytes of a corpus' records: appended to a few large files, read back as views of them (memory maps)."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.safe.whole import sync_folder

ALIGN = 64  # each array begins at a multiple of this
_FILE = 1 << 30  # a new file is begun after this many bytes
_VECTOR = 512  # buffers a system call
_PAD = bytes(ALIGN)
Piece = tuple[int, NDArray[Any] | bytes | memoryview]  # offset in the record, what stands there


def padded(size: int) -> int:
    """The next multiple of `ALIGN`.

    >>> padded(65)
    128
    """
    return -(-size // ALIGN) * ALIGN


class Payload:
    """Files `000000.bin`, `000001.bin` ... of a folder. Writers hold the corpus' lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._maps: dict[int, mmap.mmap] = {}

    def _path(self, part: int) -> Path:
        return self.folder / f"{part:06d}.bin"

    def parts(self) -> list[int]:
        """The numbers of the files that are there."""
        return sorted(int(p.stem) for p in self.folder.glob("[0-9]*.bin"))

    def view(self, part: int, start: int, size: int) -> memoryview:
        """A record's bytes, mapped: read when they are touched, kept by nobody."""
        found = self._maps.get(part)
        if found is None or len(found) < start + size:
            path = self._path(part)
            try:
                with path.open("rb") as file:
                    found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise UsageError(f"{path} is missing or cannot be mapped ({error}); the corpus is damaged") from error
            self._maps[part] = found
            if len(found) < start + size:
                raise UsageError(f"{path} has {len(found)} bytes, a record lies at {start} + {size}; it is damaged")
        return memoryview(found)[start : start + size]

    def fetch(self, part: int, start: int, size: int) -> None:
        """Ask the system to read a record's bytes soon."""
        page = start // mmap.PAGESIZE * mmap.PAGESIZE
        self.view(part, start, size)
        self._maps[part].madvise(mmap.MADV_WILLNEED, page, start + size - page)

    def writer(self, ends: Mapping[int, int]) -> Writing:
        """Begin to append; `ends` says where each file's last record ends: what a killed append left after it goes."""
        last = max(ends, default=0)
        for part in self.parts():
            if part > last or part not in ends:
                self._path(part).unlink()
            elif self._path(part).stat().st_size > ends[part]:
                os.truncate(self._path(part), ends[part])
        return Writing(self, last)

    def scrub(self, part: NDArray[Any], start: NDArray[Any], size: NDArray[Any]) -> None:
        """Overwrite with zeros every byte that none of these ranges holds; remove files that none lies in."""
        self._maps.clear()
        for number in self.parts():
            here = part == number
            if not (here & (size > 0)).any():
                self._path(number).unlink()
                continue
            order = np.argsort(start[here], kind="stable")
            with self._path(number).open("r+b") as file:
                for begin, end in _gaps(start[here][order], size[here][order], os.fstat(file.fileno()).st_size):
                    _zero(file, begin, end)
                file.flush()
                os.fsync(file.fileno())


class Sink(Protocol):
    """Takes a record's pieces, each at its offset; says where they are."""

    def add(self, pieces: Sequence[Piece], size: int) -> tuple[int, int]: ...


class Writing:
    """An append under way: `add` arrays, then `close`; or `undo`, which leaves nothing of it."""

    def __init__(self, payload: Payload, part: int) -> None:
        self._payload, self.part = payload, part
        payload.folder.mkdir(exist_ok=True)
        self._fd = self._open()
        self._undo = (self.part, os.fstat(self._fd).st_size)
        self.end = self._undo[1]
        self._waiting: list[Any] = []
        self._size = 0

    def _open(self) -> int:
        return os.open(self._payload._path(self.part), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _pad_to(self, end: int) -> None:
        while end > self.end:
            self._queue(_PAD[: end - self.end])

    def _queue(self, data: Any) -> None:
        self._waiting.append(data)
        self._size += len(data)
        self.end += len(data)
        if len(self._waiting) >= _VECTOR or self._size > 4 << 20:
            self.flush()

    def add(self, pieces: Sequence[Piece], size: int) -> tuple[int, int]:
        """Append a record's pieces, each at its offset, `size` bytes in all; the file's number and where it starts."""
        if self.end >= _FILE:
            self.sync()
            os.close(self._fd)
            self.part += 1
            self.end, self._fd = 0, self._open()
        start = padded(self.end)
        for offset, piece in pieces:
            self._pad_to(start + offset)
            if isinstance(piece, (bytes, memoryview)):
                self._queue(piece)
            elif piece.nbytes:
                self._queue(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)
        return self.part, start

    def flush(self) -> None:
        """Hand what waits to the operating system."""
        waiting, self._waiting, self._size = self._waiting, [], 0
        while waiting:
            done = os.writev(self._fd, waiting[:_VECTOR])
            while waiting and done >= len(waiting[0]):
                done -= len(waiting.pop(0))
            if done:
                waiting[0] = memoryview(waiting[0])[done:]

    def sync(self) -> None:
        """Bring what was added to the disk, files and folder: before a commit that points at it."""
        self.flush()
        os.fsync(self._fd)
        sync_folder(self._payload.folder)

    def close(self) -> None:
        """End the append."""
        self.flush()
        os.close(self._fd)

    def undo(self) -> None:
        """Take back all that was appended."""
        os.close(self._fd)
        part, size = self._undo
        for number in self._payload.parts():
            if number > part or (number == part and size == 0):
                self._payload._path(number).unlink()
            elif number == part:
                os.truncate(self._payload._path(number), size)


def _gaps(starts: NDArray[Any], sizes: NDArray[Any], length: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of what lies between ranges that are sorted by start."""
    at = 0
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        if start > at:
            yield at, start
        at = max(at, start + size)
    if length > at:
        yield at, length


def _zero(file: Any, begin: int, end: int) -> None:
    step = 4 << 20
    for at in range(begin, end, step):
        n = min(step, end - at)
        file.seek(at)
        if any(file.read(n)):
            file.seek(at)
            file.write(bytes(n))
