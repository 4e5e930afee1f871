"""Text tables as streams: plain or gzip, never more held than asked for."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from fabrica import safe
from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits
from fabrica.safe.limits import human, out_limit

CHUNK = 1 << 20


class _Checked(io.RawIOBase):
    """What comes out of a file or a decompressor: counted (also its quotes and lines), decoder errors as `Refused`."""

    def __init__(self, inner: IO[bytes], handle: BinaryIO, cap: int, what: str) -> None:
        self.inner, self.handle, self.cap, self.what, self.out = inner, handle, cap, what, 0
        self.quotes = self.lines = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        try:
            data = self.inner.read(min(len(view), CHUNK))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Refused("deflate", f"{self.what!r} is a broken or cut gzip file") from error
        if self.out == 0 and data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise Refused("not_text", f"{self.what!r} is UTF-16; tables of events are read as UTF-8: convert it")
        self.out += len(data)
        if self.out > self.cap:
            raise Refused("ratio", f"{self.what!r} expands above {human(self.cap)}")
        if b"\0" in data:
            raise Refused("not_text", f"{self.what!r} holds zero bytes: it is not text")
        self.quotes += data.count(b'"')
        self.lines += data.count(b"\n")
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self.inner.close()
            self.handle.close()
        super().close()


def open_text(path: Path, limits: Limits = LIMITS) -> BinaryIO:
    """A reader of the file's text as bytes: gunzipped and without the UTF-8 mark.

    Bytes that are no UTF-8 come as they are. Refused while reading: `deflate` (cut or broken gzip), `ratio` (a bomb),
    `not_text` (zero bytes, UTF-16); `file_too_large`, `not_a_file` on opening.
    """
    handle = safe.open_file(path, limits)
    size = os.fstat(handle.fileno()).st_size
    packed = handle.read(2) == b"\x1f\x8b"
    handle.seek(0)
    inner: IO[bytes] = cast(IO[bytes], gzip.GzipFile(fileobj=handle)) if packed else handle
    raw = _Checked(inner, handle, out_limit(size, limits) if packed else size, path.name)
    reader = io.BufferedReader(raw, CHUNK)
    if reader.peek(3)[:3] == codecs.BOM_UTF8:
        reader.read(3)
    return reader


def open_quote(reader: BinaryIO, rows: int) -> bool:
    """Whether a table that was read to its end as so many rows (with its header) has a quote that nothing closes: their
    number is odd, and some value runs over lines. (A lone inch mark in a value of one line is none.)"""
    raw = reader.raw  # type: ignore[attr-defined]
    return bool(raw.quotes % 2 and raw.lines > rows)


def lines(reader: BinaryIO, most: int) -> Iterator[tuple[int, bytes | None]]:
    """(number from 1, line without its end, or None where it is longer than `most` bytes)."""
    number = 0
    while line := reader.readline(most + 1):
        number += 1
        if len(line) > most and not line.endswith(b"\n"):
            while (rest := reader.readline(most)) and not rest.endswith(b"\n"):
                pass
            yield number, None
        else:
            yield number, line.rstrip(b"\r\n")
