"""One member of a zip, asked for by the exact name that the archive gives it, into memory; nothing is written."""

from __future__ import annotations

import io
import stat
import zipfile
from pathlib import Path

from fabrica.errors import Refused
from fabrica.safe.archives import _archive_errors, _Metered
from fabrica.safe.limits import LIMITS, Limits, open_file, out_limit


def read_member(path: str | Path, name: str, limits: Limits = LIMITS) -> bytes:
    """The bytes of the member `name`.

    The name is compared with those of the archive and never becomes a path: a member whose name leads out of the
    archive ("../a.csv"), which `members` and `unpack` refuse, can be read by who asks for that very name.
    Refused: `archive_no_member`, and the codes of `members` but for `archive_path`; `file_too_large` above
    `limits.array_bytes`.
    """
    what = Path(path).name
    with open_file(path, limits) as handle, _archive_errors(what), zipfile.ZipFile(handle) as archive:
        info = _found(archive.infolist(), what, name, limits)
        cap = min(out_limit(info.compress_size, limits), info.file_size)
        with archive.open(info) as inner:
            data = io.BufferedReader(_Metered(inner, cap, limits, f"{what}:{name[:200]}")).read(limits.array_bytes + 1)
    if len(data) > limits.array_bytes:
        raise Refused("file_too_large", f"{what!r}: {name[:200]!r} holds above {limits.array_bytes} bytes")
    return data


def _found(infos: list[zipfile.ZipInfo], what: str, name: str, limits: Limits) -> zipfile.ZipInfo:
    """The one plain file of that name, of a size that the limits allow."""
    if len(infos) > limits.members:
        raise Refused("archive_members", f"{what!r} has {len(infos)} members; the limit is {limits.members}")
    held = [i for i in infos if i.filename == name]
    if len(held) != 1:
        code = "archive_twice" if held else "archive_no_member"
        raise Refused(code, f"{what!r} names {name[:200]!r} {len(held)} times; wanted once")
    (info,) = held
    if info.is_dir() or stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise Refused("archive_link", f"{what!r}: {name[:200]!r} is a folder, link or device")
    if info.flag_bits & 1:
        raise Refused("archive_encrypted", f"{what!r} has an encrypted member {name[:200]!r}")
    if info.file_size > out_limit(info.compress_size, limits):
        raise Refused("ratio", f"{what!r}: {name[:200]!r} expands more than {limits.ratio}:1")
    return info
