"""The pictures beside an article's XML that are its own: read with it, and never as files in their own right."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from fabrica import safe
from fabrica.errors import Refused
from fabrica.sources.attach import inside
from fabrica.sources.jats_parts import PICTURES
from fabrica.sources.jats_text import attribute, tag, under
from fabrica.sources.jats_write import candidates

_SHOWN = ("graphic", "inline-graphic", "media", "supplementary-material", "inline-supplementary-material")
_LIMITS = safe.Limits(file_bytes=32 << 20)  # as `jats.MAX_XML`


def beside(path: Path) -> list[Path]:
    """The picture files that a JATS file names (figures, formulas, tables, supplements), in its folder or below, under
    any extension that is there; sorted. Of a file that is no article, or cannot be parsed, all pictures of its
    folder: nobody can say which of them are its own."""
    try:
        stat = path.stat()
    except OSError:
        return []
    names = _named(path, stat.st_mtime_ns, stat.st_size)
    if names is None:
        return sorted(p for p in path.parent.iterdir() if p.suffix.lower() in PICTURES)
    found: set[Path] = set()
    for name in names:
        where = path.parent / os.path.normpath(name)
        if where.suffix.lower() in PICTURES and where.is_file():
            try:
                inside(path.parent, name)
            except Refused:
                continue  # it leads out of the folder
            found.add(where)
    return sorted(found)


@lru_cache(maxsize=4096)
def _named(path: Path, changed: int, size: int) -> tuple[str, ...] | None:
    """File names that the article's hrefs may mean; None where it is no article or broken."""
    try:
        root = safe.xml(safe.read_bytes(path, _LIMITS))
    except (Refused, OSError):
        return None
    if tag(root) != "article" and not any(True for _ in under(root, "article")):
        return None
    hrefs = {attribute(node, "href") for node in under(root, *_SHOWN)} - {""}
    return tuple(sorted({name for href in hrefs for name in candidates(href)}))
