"""NRRD volumes -> volume items with their affine in RAS mm; `X_label.nrrd` beside `X_image.nrrd` is its mask.

Format: teem.sourceforge.net/nrrd/format.html, "Definition of NRRD File Format". Header and data are decoded here in a
few lines, so that sizes are checked before anything is inflated; detached data must lie beside its header.
"""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica import safe
from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Ref, mask_path
from fabrica.sources.single import origin, record
from fabrica.types import Item, Record, Region

SMALL = 64 << 20  # bytes up to which a header's claim is believed whatever the ratio
DEFLATE_RATIO = 1100  # deflate reaches 1032:1
_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    "float": "f4",
    "double": "f8",
}
_TO_RAS: Mapping[str, tuple[int, int, int]] = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip
_VECTOR = re.compile(r"\(([^()]*)\)|none")
_SPATIAL = ("domain", "space", "none", "???")
_PAIR = re.compile(r"[_-](image|img)$", re.I)
_MASKS = ("_label", "_seg", "_mask", "-label", "-seg", "-mask", ".seg")


@dataclass(frozen=True, slots=True)
class Nrrd:
    """A decoded file: `data` in the header's axis order, its `fields`, the affine (None = the header has none)."""

    data: NDArray[Any]
    fields: Mapping[str, str]
    affine: NDArray[np.float64] | None


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record]:
    """One record of a volume; a mask whose image lies beside it gives none of its own, it is a region of that image.

    Refused: `nrrd_header`, `nrrd_type`, `nrrd_encoding`, `nrrd_data` (too short), `path_outside`, and `safe`'s codes.
    """
    if _image_of(ref.path) is not None and "mask" not in ref.columns:
        return
    raw = safe.read_bytes(ref.path, limits)
    got = decode(raw, ref.path.parent, limits)
    sha256 = safe.sha256(raw)
    where = origin(ref, sha256, *(() if got.affine is not None else ("affine:unknown",)))
    data, kind = _spatial_first(got)
    item = Item(kind, data, where, affine=got.affine)  # type: ignore[arg-type]
    yield record(ref, sha256, {kind: (item,)}, regions=_mask(ref, data.shape, kind, limits))


def decode(raw: bytes, folder: Path, limits: Limits = LIMITS) -> Nrrd:
    """Decode NRRD bytes; `folder` is where a detached data file may lie."""
    fields, start = header(raw)
    dtype = _dtype(fields)
    sizes = [int(n) for n in _numbers(fields, "sizes")]
    if len(sizes) != int(_numbers(fields, "dimension")[0]) or not 1 <= len(sizes) <= 16 or min(sizes) < 1:
        raise Refused("nrrd_header", f"the header gives {len(sizes)} sizes, which do not fit its dimension")
    size = safe.check_array(sizes, dtype, limits, what="the volume")
    body = raw[start:]
    if name := fields.get("data file") or fields.get("datafile"):
        if name != Path(name).name or "\\" in name or name.upper().startswith("LIST"):
            raise Refused("path_outside", "the header names data files that do not lie beside it")
        body = safe.read_bytes(folder / name, limits)
    return Nrrd(_unpack(body, fields, dtype, size, limits).reshape(sizes, order="F"), fields, affine(fields))


def header(raw: bytes) -> tuple[dict[str, str], int]:
    """The header's fields, names in lower case, and where the data begins.

    >>> header(b"NRRD0004\\n# note\\ntype: short\\nsizes: 2 2\\n\\nDATA")
    ({'type': 'short', 'sizes': '2 2'}, 40)
    """
    found = re.match(rb"NRRD000[1-5]\r?\n(?:[^\n]*\n)*?\r?\n|NRRD000[1-5]\r?\n(?:[^\n]+\n?)*$", raw[: 1 << 20])
    if not found:
        raise Refused("nrrd_header", "the file has no complete NRRD header")
    fields: dict[str, str] = {}
    for line in found[0].decode("utf-8", "replace").splitlines()[1:]:
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            fields[name.strip().lower()] = value.lstrip("=").strip()
    return fields, found.end()


def _numbers(fields: Mapping[str, str], name: str) -> list[float]:
    try:
        found = [float(part) for part in fields[name].split()]
    except (KeyError, ValueError) as error:
        raise Refused("nrrd_header", f"the header's field {name!r} is missing or no number") from error
    if not found:
        raise Refused("nrrd_header", f"the header's field {name!r} is empty")
    return found


def _dtype(fields: Mapping[str, str]) -> np.dtype[Any]:
    code = _TYPES.get(fields.get("type", "").lower())
    if code is None:
        raise Refused("nrrd_type", f"NRRD type {fields.get('type', '')[:40]!r} is not read")
    endian = fields.get("endian", "little").lower()
    if endian not in ("little", "big"):
        raise Refused("nrrd_header", "the byte order is neither little nor big")
    return np.dtype(("<" if endian == "little" else ">") + code)


def _unpack(body: bytes, fields: Mapping[str, str], dtype: np.dtype[Any], size: int, limits: Limits) -> NDArray[Any]:
    encoding = fields.get("encoding", "").lower()
    skip = int(float(fields.get("byte skip", "0")))
    for _ in range(min(int(float(fields.get("line skip", "0"))), 1000)):
        body = body.partition(b"\n")[2]
    if encoding in ("gzip", "gz"):
        free = replace(limits, ratio=DEFLATE_RATIO) if size <= SMALL else limits  # an almost empty mask is no bomb
        body = safe.inflate(body, limits=free, at_most=size + max(skip, 0))
    elif encoding in ("bzip2", "bz2"):
        body = _bunzip(body, size + max(skip, 0))
    elif encoding in ("text", "txt", "ascii"):
        values = np.array(body.split()[: size // dtype.itemsize], np.float64)
        return _whole(values.astype(dtype.newbyteorder("=")), size)
    elif encoding != "raw":
        raise Refused("nrrd_encoding", f"NRRD encoding {encoding[:40]!r} is not read")
    body = body[-size:] if skip == -1 else body[skip:]
    return _whole(
        np.frombuffer(body[: size - size % dtype.itemsize], dtype, min(len(body), size) // dtype.itemsize), size
    )


def _whole(flat: NDArray[Any], size: int) -> NDArray[Any]:
    if flat.nbytes != size:
        raise Refused("nrrd_data", f"the data has {flat.nbytes} bytes, the header tells of {size}")
    return flat.astype(flat.dtype.newbyteorder("="), copy=False)


def _bunzip(body: bytes, size: int) -> bytes:
    try:
        return bz2.BZ2Decompressor().decompress(body, size)
    except OSError as error:
        raise Refused("nrrd_data", "the bzip2 stream is broken") from error


def affine(fields: Mapping[str, str]) -> NDArray[np.float64] | None:
    """(4, 4) voxel index -> RAS mm, or None where the header does not orient its axes.

    >>> a = affine({"space": "left-posterior-superior", "space directions": "(2,0,0) (0,2,0) (0,0,3)",
    ...             "space origin": "(10,20,30)"})
    >>> [float(x) for x in a[:3, 3]], [float(x) for x in np.diag(a)]
    ([-10.0, -20.0, 30.0], [-2.0, -2.0, 3.0, 1.0])
    """
    flip = _TO_RAS.get(fields.get("space", "").lower())
    columns = [v for v in _vectors(fields.get("space directions", "")) if v is not None]
    if flip is None or len(columns) != 3:
        return None
    start = next(iter(_vectors(fields.get("space origin", ""))), None)
    found = np.eye(4)
    found[:3, :3] = np.array(columns).T
    found[:3, 3] = start if start is not None else 0.0
    found[:3] = found[:3] * np.array(flip)[:, None] + 0.0  # no negative zeros
    return found if np.isfinite(found).all() else None


def _vectors(text: str) -> list[list[float] | None]:
    found: list[list[float] | None] = []
    for match in _VECTOR.finditer(text):
        if match[1] is None:
            found.append(None)
            continue
        try:
            vector = [float(part) for part in match[1].split(",")]
        except ValueError as error:
            raise Refused("nrrd_header", "a space vector is no list of numbers") from error
        if len(vector) != 3:
            raise Refused("nrrd_header", "a space vector has not three parts")
        found.append(vector)
    return found


def _spatial_first(got: Nrrd) -> tuple[NDArray[Any], str]:
    """(X, Y, Z[, C]) "volume" or (Y, X) "image": other axes (colour, segments) go last."""
    kinds = got.fields.get("kinds", "").lower().split() or ["domain"] * got.data.ndim
    if len(kinds) != got.data.ndim:
        raise Refused("nrrd_header", "the header's kinds do not fit its dimension")
    space = [n for n, k in enumerate(kinds) if k in _SPATIAL]
    data = got.data.transpose([*space, *(n for n in range(got.data.ndim) if n not in space)])
    if len(space) == 2:
        return np.ascontiguousarray(data.swapaxes(0, 1)), "image"
    if len(space) != 3 or data.ndim > 4:
        raise Refused("nrrd_header", f"{len(space)} spatial axes of {data.ndim}; wanted 2 or 3")
    return np.ascontiguousarray(data), "volume"


def _image_of(path: Path) -> Path | None:
    for end in _MASKS:
        if path.stem.lower().endswith(end):
            base = path.stem[: -len(end)]
            for name in (f"{base}_image", f"{base}-image", base):
                if (found := path.with_name(name + path.suffix)).is_file() and found != path:
                    return found
    return None


def _mask_of(path: Path) -> Path | None:
    base = _PAIR.sub("", path.stem)
    return next((p for end in _MASKS if (p := path.with_name(base + end + path.suffix)).is_file() and p != path), None)


def _mask(ref: Ref, shape: tuple[int, ...], kind: str, limits: Limits) -> tuple[Region, ...]:
    path = mask_path(ref) if "mask" in ref.columns else _mask_of(ref.path)
    if path is None:
        return ()
    raw = safe.read_bytes(path, limits)
    data, _ = _spatial_first(decode(raw, path.parent, limits))
    if data.shape[:3] != shape[:3]:
        raise Refused("mask_shape", f"the mask has shape {data.shape}, its image {shape}")
    where = origin(ref, safe.sha256(raw), part="mask")
    return (Region(kind, "mask", data, ref.get("mask_label") or "mask", where),)
