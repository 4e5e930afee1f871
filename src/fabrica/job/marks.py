"""What a job remembers between runs: small JSON files that say of what each stage's result was made."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fabrica.errors import UsageError

if TYPE_CHECKING:
    from fabrica.corpus import Corpus


def mark(*parts: Any) -> str:
    """A digest of plain values: equal values, equal mark.

    >>> mark("a", {"b": 1}) == mark("a", {"b": 1}), mark("a") == mark("b")
    (True, False)
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def contents(corpus: Corpus, where: str | None = None) -> str:
    """A digest of what the records of `where` say: ids, subjects, splits, labels, groups, texts, sizes."""
    table = corpus.rows(["id", "subject", "split", "tags", "texts", "bytes"], where).sort_by("id")
    digest = hashlib.sha256()
    for batch in table.to_batches(max_chunksize=4096):
        digest.update(json.dumps(batch.to_pylist(), default=str).encode())
    return digest.hexdigest()[:16]


def listing(path: Path) -> str:
    """A digest of the files at or under a path: names, sizes, times of change."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return mark([(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files])


def read(path: Path) -> dict[str, Any]:
    """A JSON object that `write` wrote; {} where there is none."""
    if not path.is_file():
        return {}
    try:
        data: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not what a job wrote ({error}); remove it and run again") from error
    return data


def write(path: Path, data: dict[str, Any]) -> None:
    """Whole or not at all; a file that says the same already is left alone."""
    from fabrica.safe import write_whole

    body = (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode()
    if path.is_file() and path.read_bytes() == body:
        return
    with write_whole(path) as file:
        file.write(body)


def mib(*paths: Path) -> float:
    """MiB on disk of files and folders."""
    files = (f for p in paths for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file())
    return round(sum(f.stat().st_size for f in files) / 2**20, 1)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run at a time in a folder."""
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another run is writing into {folder}; wait for it, or give another folder") from None
        yield
