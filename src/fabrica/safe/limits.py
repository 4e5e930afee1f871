"""What one outside file may cost, checked before anything is allocated; bytes read and inflated within it."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from fabrica.errors import Refused

MIB = 1 << 20
GRACE = MIB  # below this size a compression ratio says nothing
CHUNK = 256 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one outside file may cost. Raise a limit on purpose: `replace(LIMITS, array_bytes=2 << 30)`.

    `file_bytes` on disk; `array_bytes` of one decoded array; `ratio` bytes out per byte in of compressed containers
    (above 1 MiB); `members` of an archive; `depth` of nested sequences; `pixels` of one picture
    (Pillow stops at 179 million of its own; a slide is read in parts and has no such limit).
    """

    file_bytes: int = 8 << 30
    array_bytes: int = 512 * MIB
    ratio: int = 200
    members: int = 200_000
    depth: int = 64
    pixels: int = 160_000_000


LIMITS = Limits()


# ---------------------------------------------------------------- sizes and bytes


def check_array(shape: Sequence[int], dtype: Any, limits: Limits = LIMITS, *, what: str) -> int:
    """The bytes that an array needs, or `Refused` before anything is allocated.

    >>> check_array((4, 4), "int16", what="image")
    32
    >>> check_array((60_000, 60_000), "uint16", what="image")
    Traceback (most recent call last):
    fabrica.errors.Refused: image claims 60000 x 60000 uint16 = 6.7 GiB; the limit is 512 MiB [array_too_large]
    """
    sides = [int(n) for n in shape]
    if any(n < 0 for n in sides):
        raise Refused("array_shape", f"{what} claims a negative size {sides}")
    size = int(np.dtype(dtype).itemsize)
    for n in sides:
        size *= n
    if size > limits.array_bytes:
        claim = " x ".join(map(str, sides))
        raise Refused(
            "array_too_large",
            f"{what} claims {claim} {np.dtype(dtype)} = {human(size)}; the limit is {human(limits.array_bytes)}",
        )
    return size


def human(n: int) -> str:
    """Bytes for people: 1536 -> "2 KiB"."""
    for unit in ("B", "KiB", "MiB"):
        if n < 1024:
            return f"{n:.0f} {unit}"
        n = n // 1024 if n % 1024 == 0 else n / 1024  # type: ignore[assignment]
    return f"{n:.1f} GiB"


def open_file(path: str | Path, limits: Limits = LIMITS) -> BinaryIO:
    """Open a regular file of at most `limits.file_bytes`; pipes, devices and folders are refused without blocking."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise Refused("not_a_file", f"{Path(path).name!r} is not a regular file")
        if info.st_size > limits.file_bytes:
            raise Refused(
                "file_too_large",
                f"{Path(path).name!r} has {human(info.st_size)}; the limit is {human(limits.file_bytes)}",
            )
        return cast(BinaryIO, os.fdopen(fd, "rb"))
    except BaseException:
        os.close(fd)
        raise


def read_bytes(path: str | Path, limits: Limits = LIMITS) -> bytes:
    """The bytes of a regular file within `limits.file_bytes`."""
    with open_file(path, limits) as handle:
        return handle.read()


def sha256(source: str | Path | bytes | bytearray | memoryview) -> str:
    """Hex digest of bytes or of a file's bytes.

    >>> sha256(b"abc")[:16]
    'ba7816bf8f01cfea'
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return hashlib.sha256(source).hexdigest()
    with open_file(source) as handle:
        return hashlib.file_digest(cast(Any, handle), "sha256").hexdigest()


def out_limit(compressed: int, limits: Limits) -> int:
    """How many bytes may come out of so many compressed ones."""
    return max(GRACE, compressed * limits.ratio)


def inflate(
    data: bytes | memoryview | BinaryIO, *, limits: Limits = LIMITS, raw: bool = False, at_most: int | None = None
) -> bytes:
    """Inflate gzip, zlib or (`raw`) bare deflate bytes.

    `Refused("ratio")` above `limits.ratio` bytes out per byte in, `Refused("array_too_large")` above
    `limits.array_bytes`, `Refused("deflate")` for a broken or cut stream. `at_most` stops quietly there.

    >>> inflate(zlib.compress(b"lung" * 3))
    b'lunglunglung'
    """
    packed = data.read() if hasattr(data, "read") else data
    view = memoryview(packed)
    cap = min(out_limit(len(view), limits), limits.array_bytes)
    stop = cap + 1 if at_most is None else min(at_most, cap + 1)
    parts: list[bytes] = []
    total = 0
    try:
        while len(view) and total < stop:  # gzip members may follow each other
            engine = zlib.decompressobj(-15 if raw else 47)
            rest: Any = view
            while total < stop and not engine.eof and len(rest):
                parts.append(engine.decompress(rest, min(stop - total, 8 * MIB)))
                total += len(parts[-1])
                rest = engine.unconsumed_tail
            if total < stop and not engine.eof:
                raise Refused("deflate", f"the compressed stream of {human(len(packed))} ends too early")
            tail = engine.unused_data
            if raw or tail[:2] != b"\x1f\x8b":
                break
            view = memoryview(tail)
    except zlib.error as error:
        raise Refused("deflate", f"the compressed stream is broken: {error}") from error
    if total > cap:
        code = "array_too_large" if cap == limits.array_bytes else "ratio"
        raise Refused(code, f"{human(len(packed))} inflate to more than {human(cap)} (ratio {limits.ratio}:1)")
    return b"".join(parts)
