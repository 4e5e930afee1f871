"""Files that another file names (images of a table's rows, of a report): found inside a folder only, read like any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fabrica.errors import Refused
from fabrica.safe import Limits
from fabrica.sources import Quarantined, Ref, read
from fabrica.types import Record


def inside(folder: Path, name: str) -> Path:
    """The file `name` under `folder`; anything that leads out of it (`..`, absolute, a link) is `Refused`.

    >>> inside(Path("/data"), "../etc/passwd")
    Traceback (most recent call last):
    fabrica.errors.Refused: a cell names a file outside of its folder [path_outside]
    """
    base = folder.resolve()
    if not name or "\0" in name or len(name) > 1024:
        raise Refused("path_bad", "a cell names no usable file")
    path = (base / name).resolve()
    if base != path and base not in path.parents:
        raise Refused("path_outside", "a cell names a file outside of its folder")
    return path


def attach(path: Path, ref: Ref, licence: str, limits: Limits) -> Record:
    """The first record of a file that `ref` names, read through the same limits; `Refused` where it cannot be."""
    if not path.is_file():
        raise Refused("missing_file", "the file that is named is not there")
    try:
        key = path.relative_to(ref.path.parent.resolve()).as_posix()
    except ValueError:
        key = path.name
    for found in read(replace(ref, path=path, key=key, licence=licence, columns={}), limits):
        if isinstance(found, Quarantined):
            raise Refused(found.code, found.message.rsplit(" [", 1)[0])
        return found
    raise Refused("no_record", "the file that is named holds nothing to read")
