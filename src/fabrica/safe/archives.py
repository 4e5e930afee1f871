"""zip and tar members within limits: no path that leads out, no link, no bomb; unpacked all or nothing."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from fabrica.errors import Refused
from fabrica.safe.limits import CHUNK, LIMITS, Limits, human, open_file, out_limit
from fabrica.safe.whole import folder_whole


def member_name(name: str) -> str:
    """A safe relative POSIX path for an archive member, or `Refused("archive_path")`.

    >>> member_name("./a/b.txt")
    'a/b.txt'
    """
    parts = [p for p in PurePosixPath(name).parts if p != "."]
    bad = (
        not parts
        or name.startswith(("/", "~"))
        or "\\" in name
        or any(ord(c) < 32 or c == "\x7f" for c in name)
        or any(p == ".." or len(os.fsencode(p)) > 255 for p in parts)
        or (len(name) > 1 and name[1] == ":")
        or len(name) > 2048
    )
    if bad:
        raise Refused("archive_path", f"the archive names a member {name[:200]!r}, which is not a plain relative path")
    return "/".join(parts)


_ARCHIVE_ERRORS = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, RuntimeError,
    ValueError, struct.error,
)  # fmt: skip


@contextlib.contextmanager
def _archive_errors(what: str) -> Iterator[None]:
    try:
        yield
    except _ARCHIVE_ERRORS as error:
        raise Refused("archive_bad", f"{what!r} is a broken archive: {str(error)[:200]}") from error
    except OSError as error:
        if error.errno is None:  # the decompressors' "Invalid data stream" carries no errno
            raise Refused("archive_bad", f"{what!r} is a broken archive: {str(error)[:200]}") from error
        raise


class _Metered(io.RawIOBase):
    """A reader that counts what comes out, refuses above `cap`, and turns decoder errors into `Refused`."""

    def __init__(self, inner: IO[bytes], cap: int, limits: Limits, what: str) -> None:
        self.inner, self.cap, self.limits, self.what, self.out = inner, cap, limits, what, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        with _archive_errors(self.what):
            data = self.inner.read(min(len(view), CHUNK))
        self.out += len(data)
        if self.out > self.cap:
            raise Refused("ratio", f"{self.what!r} expands above {human(self.cap)} ({self.limits.ratio}:1)")
        view[: len(data)] = data
        return len(data)


def members(path: str | Path, limits: Limits = LIMITS) -> Iterator[tuple[str, BinaryIO]]:
    """(name, reader) of each file in a zip (also wheel) or tar (plain, gz, bz2, xz; sdist, npm), in archive order.

    Read each member before taking the next. Refused with a code: `archive_path` (absolute, `..`), `archive_link`
    (links, devices), `archive_members` (too many), `archive_encrypted`, `archive_overlap`, `ratio`, `archive_bad`.
    """
    with open_file(path, limits) as handle:
        head = handle.read(6)
        handle.seek(0)
        name = Path(path).name
        with _archive_errors(name):
            if head[:2] == b"PK":
                yield from _zip_members(handle, name, limits)
            else:
                yield from _tar_members(handle, head, name, limits)


def _zip_members(handle: BinaryIO, what: str, limits: Limits) -> Iterator[tuple[str, BinaryIO]]:
    size = os.fstat(handle.fileno()).st_size
    with zipfile.ZipFile(handle) as archive:
        files = _checked_zip(archive.infolist(), size, what, limits)
        for info, name in files:
            with archive.open(info) as inner:
                cap = min(out_limit(info.compress_size, limits), info.file_size)
                yield name, io.BufferedReader(_Metered(inner, cap, limits, f"{what}:{name}"))


def _checked_zip(
    infos: list[zipfile.ZipInfo], size: int, what: str, limits: Limits
) -> list[tuple[zipfile.ZipInfo, str]]:
    if len(infos) > limits.members:
        raise Refused("archive_members", f"{what!r} has {len(infos)} members; the limit is {limits.members}")
    if sum(i.compress_size for i in infos) > size:
        raise Refused("archive_overlap", f"{what!r} has members that overlap")
    kept: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        mode = info.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise Refused("archive_link", f"{what!r} has a link or device {info.filename[:200]!r}")
        name = member_name(info.filename)
        if info.is_dir():
            continue
        if info.flag_bits & 1:
            raise Refused("archive_encrypted", f"{what!r} has an encrypted member {name!r}")
        if info.file_size > out_limit(info.compress_size, limits):
            raise Refused("ratio", f"{what!r}: {name!r} expands more than {limits.ratio}:1")
        if name in kept:
            raise Refused("archive_twice", f"{what!r} names {name!r} twice")
        kept[name] = info
    return [(info, name) for name, info in kept.items()]


def _tar_members(handle: BinaryIO, head: bytes, what: str, limits: Limits) -> Iterator[tuple[str, BinaryIO]]:
    size = os.fstat(handle.fileno()).st_size
    plain: Any = handle
    cap = size
    if head[:2] == b"\x1f\x8b":
        plain = gzip.GzipFile(fileobj=handle)
    elif head[:3] == b"BZh":
        plain = bz2.BZ2File(handle)
    elif head[:6] == b"\xfd7zXZ\x00":
        plain = lzma.LZMAFile(handle, format=lzma.FORMAT_XZ)  # noqa: SIM115
    if plain is not handle:
        cap = out_limit(size, limits)
    stream = io.BufferedReader(_Metered(plain, cap, limits, what), CHUNK)
    count = 0
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for info in archive:
            count += 1
            if count > limits.members:
                raise Refused("archive_members", f"{what!r} has more than {limits.members} members")
            if info.isdir():
                if info.name.strip("./"):
                    member_name(info.name)
                continue
            name = member_name(info.name)
            if not info.isreg() or info.issparse():
                raise Refused("archive_link", f"{what!r} has a link, device or sparse file {name!r}")
            if info.size > cap:
                raise Refused("ratio", f"{what!r}: {name!r} claims {human(info.size)}; the limit is {human(cap)}")
            inner = archive.extractfile(info)
            if inner is not None:
                yield name, io.BufferedReader(_Metered(inner, info.size, limits, f"{what}:{name}"))


def unpack(
    path: str | Path, dest: str | Path, limits: Limits = LIMITS, *, only: Callable[[str], bool] | None = None
) -> list[str]:
    """Unpack an archive's files into the new folder `dest`, all or nothing; returns the names written, sorted.

    `only(name)` picks members. Files get mode 0644, never executable, never a link.
    """
    names: list[str] = []
    with folder_whole(dest) as folder:
        for name, reader in members(path, limits):
            if only is not None and not only(name):
                continue
            target = folder / name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as out:
                    shutil.copyfileobj(reader, out, CHUNK)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise Refused("archive_twice", f"{Path(path).name!r} names {name!r} twice") from error
            names.append(name)
    return sorted(names)
