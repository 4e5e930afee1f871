"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from fabrica.errors import Full, UsageError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def _full_as_error(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # libraries in Rust raise errors of their own, with the number in the text
        number = error.errno if isinstance(error, OSError) else None
        if number in _FULL or any(f"(os error {n})" in str(error) for n in _FULL):
            raise Full(f"no space left to write {str(path)!r}; nothing partial was kept") from error
        raise


def sync_folder(path: Path) -> None:
    """Bring a folder's list of names to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _temp(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.parent / f".{path.name[:200]}.{secrets.token_hex(6)}.part"


@contextlib.contextmanager
def write_whole(path: str | Path) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` complete (written, synced, renamed) or not at all.

    The yielded file's `.name` is the hidden temporary path, for libraries that want one. A full disk is `Full`.

    >>> import tempfile
    >>> where = Path(tempfile.mkdtemp()) / "card.json"
    >>> with write_whole(where) as out:
    ...     _ = out.write(b"{}")
    >>> where.read_bytes()
    b'{}'
    """
    path = Path(path)
    with _full_as_error(path):
        temp = _temp(path)
        try:
            with temp.open("xb") as out:
                yield cast(BinaryIO, out)
                out.flush()
                os.fsync(out.fileno())
            os.replace(temp, path)
            sync_folder(path.parent)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def folder_whole(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """A new folder that appears under `path` complete or not at all; `replace` swaps an existing one out at the end."""
    path = Path(path)
    if path.exists() and not replace and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{str(path)!r} exists already and is not an empty folder; choose another name or remove it")
    with _full_as_error(path):
        temp = _temp(path)
        temp.mkdir()
        try:
            yield temp
            for where, _, files in os.walk(temp):
                for name in files:
                    fd = os.open(os.path.join(where, name), os.O_RDONLY)
                    try:
                        os.fsync(fd)
                    finally:
                        os.close(fd)
                sync_folder(Path(where))
            old = _swap(temp, path)
            sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


def _swap(temp: Path, path: Path) -> Path | None:
    """Put the new folder in the old one's place; where the old one is now.

    One exchange where the system can (Linux and its usual file systems); elsewhere two renames, and a kill between them
    leaves the old folder under a hidden name.
    """
    if not path.exists():
        os.rename(temp, path)
        return None
    if _exchanged(temp, path):
        return temp
    old = _temp(path)
    os.rename(path, old)
    try:
        os.rename(temp, path)
    except OSError:
        os.rename(old, path)
        raise
    return old


def _exchanged(a: Path, b: Path) -> bool:
    """Whether two names were exchanged in one step: renameat2 with RENAME_EXCHANGE."""
    import ctypes

    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of linux/fs.h
    return call is not None and call(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0
