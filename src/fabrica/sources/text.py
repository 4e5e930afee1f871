"""Plain text files -> one text item each; role "report" unless `columns["role"]` says caption or text."""

from __future__ import annotations

from collections.abc import Iterator

from fabrica import safe
from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Ref
from fabrica.sources.rows import decode
from fabrica.sources.single import origin, record
from fabrica.types import Item, Record

ROLES = ("report", "caption", "text")
MAX_BYTES = 16 << 20


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record]:
    """One record of a UTF-8, UTF-16 or Windows-1252 text file.

    Refused: `not_text`, `text_empty`, `file_too_large` (above 16 MiB), `text_role`.
    """
    role = ref.get("role") or "report"
    if role not in ROLES:
        raise Refused("text_role", f"text role {role!r} is none of {', '.join(ROLES)}")
    data = safe.read_bytes(ref.path, safe.Limits(file_bytes=min(limits.file_bytes, MAX_BYTES)))
    if ref.path.suffix.lower() == ".gz":
        data = safe.inflate(data, limits=limits)
    sha256 = safe.sha256(data)
    text = decode(data).replace("\r\n", "\n").strip()
    if not text:
        raise Refused("text_empty", "the text file is empty")
    yield record(ref, sha256, {role: (Item("text", text, origin(ref, sha256)),)})
