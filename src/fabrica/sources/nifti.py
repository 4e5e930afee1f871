"""NIfTI-1 and NIfTI-2 (.nii, .nii.gz, .hdr/.img pairs) -> volumes (X, Y, Z[, C]) with an affine in RAS mm.

The header is parsed and its claim checked before the data is touched; the data is inflated straight into the array.
Geometry is what nibabel takes: the sform if it is set, else the qform, else the voxel sizes (nifti1.h of the NIfTI
DFWG, methods 1 to 3); lengths in metres or micrometres become millimetres.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused
from fabrica.safe import LIMITS, MIB, Limits, check_array, read_bytes, sha256
from fabrica.sources import Ref, mask_path, stem
from fabrica.sources.mask import regions
from fabrica.sources.single import origin, record
from fabrica.types import Item, Record

_TYPES: Mapping[int, str] = MappingProxyType(
    {
        2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
        128: "u1", 2304: "u1",
    }
)  # fmt: skip
_COLOURS: Mapping[int, int] = MappingProxyType({128: 3, 2304: 4})  # RGB24, RGBA32: samples a voxel
_TO_MM: Mapping[int, float] = MappingProxyType({1: 1000.0, 3: 0.001})
_LABELS = 1002  # intent code of a label map


@dataclass(frozen=True, slots=True)
class Header:
    """What a NIfTI header says: `shape` as stored, `dtype` with byte order, `offset` of the data, scaling, `affine`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    affine: NDArray[np.float64]
    intent: int
    single: bool  # header and data in one file
    units: float  # mm a unit of length


class Loaded(NamedTuple):
    """A volume (X, Y, Z[, C]), its affine (4, 4) to RAS mm, its header."""

    array: NDArray[Any]
    affine: NDArray[np.float64]
    header: Header


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record]:
    """The record of a NIfTI file: one volume; `columns["mask"]` beside it becomes mask regions.

    Refused: `nifti_magic`, `nifti_header`, `nifti_dtype`, `nifti_cifti`, `nifti_short`, `nifti_pair`,
    `array_too_large`, `deflate`, `mask_shape`, `mask_geometry`.
    """
    data = read_bytes(ref.path, limits)
    volume = _load(ref.path, data, limits)
    where = origin(ref, sha256(data))
    del data
    if volume.header.slope != 1 or volume.header.inter != 0:
        where = where.then("rescaled")
    item = Item("volume", volume.array, where, affine=volume.affine)
    found = mask_path(ref)
    marked = regions(ref, found, load(found, limits), volume, limits) if found is not None else ()
    modality = "seg" if volume.header.intent == _LABELS else ""
    yield record(ref, where.sha256, {"volume": (item,)}, modality=modality, regions=marked)


def load(path: str | Path, limits: Limits = LIMITS) -> Loaded:
    """Read a NIfTI file. The stored type is kept when there is no scaling, else float32.

    >>> import nibabel, numpy as np, tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.nii.gz"
    >>> nibabel.Nifti1Image(np.arange(24, dtype="i2").reshape(2, 3, 4), np.diag([1, 2, 3, 1])).to_filename(path)
    >>> volume = load(path)
    >>> volume.array.shape, volume.array[1, 2, 3], volume.affine.diagonal().tolist()
    ((2, 3, 4), np.int16(23), [1.0, 2.0, 3.0, 1.0])
    """
    return _load(Path(path), read_bytes(path, limits), limits)


def _load(path: Path, data: bytes, limits: Limits) -> Loaded:
    header = parse(_inflate_some(data, 544) if data[:2] == b"\x1f\x8b" else data[:544], limits)
    count = math.prod(header.shape) * _samples(header)
    if header.single:
        flat = _values(data, header, count)
    else:
        flat = _values(_partner(path, limits), header, count)
    array = _folded(_scaled(flat, header, limits), header)
    affine = header.affine
    if header.units != 1.0:
        affine = np.diag([header.units] * 3 + [1.0]) @ affine
    return Loaded(array, affine, header)


def _samples(header: Header) -> int:
    return 1 if header.dtype.subdtype is None else header.dtype.subdtype[1][0]


# ---------------------------------------------------------------- header


def parse(head: bytes, limits: Limits = LIMITS) -> Header:
    """The header in the first bytes (348 of NIfTI-1, 540 of NIfTI-2), with its claim checked against `limits`."""
    for order in "<>":
        size = int.from_bytes(head[:4], "little" if order == "<" else "big")
        if size == 348 and len(head) >= 348 and head[344:348] in (b"n+1\0", b"ni1\0"):
            return _header(_fields_1(head, order), head[344:348] == b"n+1\0", order, 352, limits)
        if size == 540 and len(head) >= 540 and head[4:8] in (b"n+2\0", b"ni2\0"):
            return _header(_fields_2(head, order), head[4:8] == b"n+2\0", order, 544, limits)
    raise Refused("nifti_magic", "the file begins with no NIfTI-1 or NIfTI-2 header")


class _Fields(NamedTuple):
    dim: tuple[int, ...]
    datatype: int
    pixdim: tuple[float, ...]
    offset: float
    slope: float
    inter: float
    units: int
    qform: int
    sform: int
    quatern: tuple[float, ...]  # b, c, d, x, y, z
    srow: tuple[float, ...]
    intent: int


def _fields_1(head: bytes, order: str) -> _Fields:
    def get(fmt: str, at: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + fmt, head, at)

    return _Fields(
        get("8h", 40), get("h", 70)[0], get("8f", 76), get("f", 108)[0], get("f", 112)[0], get("f", 116)[0],
        head[123], get("h", 252)[0], get("h", 254)[0], get("6f", 256), get("12f", 280), get("h", 68)[0],
    )  # fmt: skip


def _fields_2(head: bytes, order: str) -> _Fields:
    def get(fmt: str, at: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + fmt, head, at)

    return _Fields(
        get("8q", 16), get("h", 12)[0], get("8d", 104), get("q", 168)[0], get("d", 176)[0], get("d", 184)[0],
        get("i", 500)[0] & 0xFF, get("i", 344)[0], get("i", 348)[0], get("6d", 352), get("12d", 400), get("i", 504)[0],
    )  # fmt: skip


def _header(f: _Fields, single: bool, order: str, least: int, limits: Limits) -> Header:
    count = f.dim[0]
    if not 1 <= count <= 7 or any(n < 1 for n in f.dim[1 : count + 1]):
        raise Refused("nifti_header", f"the header claims {count} dimensions of {f.dim[1:]}")
    if 3000 <= f.intent < 3100:
        raise Refused("nifti_cifti", "a CIFTI file holds surface values, not a volume")
    code = _TYPES.get(f.datatype)
    if code is None:
        raise Refused("nifti_dtype", f"NIfTI data type {f.datatype} is not read (complex, bits or long double)")
    kind = np.dtype(order + code)
    if f.datatype in _COLOURS:
        kind = np.dtype((kind, (_COLOURS[f.datatype],)))
    shape = tuple(int(n) for n in f.dim[1 : count + 1])
    check_array(shape, kind, limits, what="the NIfTI volume")
    offset = f.offset if f.offset or not single else least
    if not math.isfinite(offset) or not (least if single else 0) <= offset <= 64 * MIB:
        raise Refused("nifti_header", f"the header puts the data at byte {offset}")
    slope, inter = (1.0, 0.0) if f.slope == 0 or not math.isfinite(f.slope) else (f.slope, f.inter)
    if not math.isfinite(inter):
        raise Refused("nifti_header", "the header has a slope but no finite intercept")
    units = _TO_MM.get(f.units & 7, 1.0)
    return Header(shape, kind, int(offset), slope, inter, _affine(f, shape), f.intent, single, units)


def _affine(f: _Fields, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The affine in the header's own unit, chosen as nibabel does: sform, qform, voxel sizes."""
    out = np.eye(4)
    if f.sform > 0:
        out[:3] = np.reshape(f.srow, (3, 4))
    elif f.qform > 0:
        out[:3, :3] = _rotation(f.quatern[:3]) * np.array([*f.pixdim[1:3], f.pixdim[3] * _qfac(f.pixdim[0])])
        out[:3, 3] = f.quatern[3:]
    else:
        said = [*f.pixdim[1 : len(shape) + 1][:3], 1.0, 1.0][:3]
        sizes = np.array([-said[0], said[1], said[2]])  # the first axis runs to the left, as in Analyze
        sides = np.array((*shape, 1, 1, 1)[:3], float)
        out[:3, :3] = np.diag(sizes)
        out[:3, 3] = -(sides - 1) / 2 * sizes
    if not np.isfinite(out).all():
        raise Refused("nifti_header", "the header's affine is not finite")
    return out


def _qfac(said: float) -> float:
    return -1.0 if said == -1 else 1.0


def _rotation(bcd: tuple[float, ...]) -> NDArray[np.float64]:
    """The rotation of a unit quaternion of which b, c, d are stored (nifti1.h, method 2)."""
    b, c, d = (float(v) for v in bcd)
    a2 = 1.0 - (b * b + c * c + d * d)
    if not math.isfinite(a2) or a2 < -1e-5:
        raise Refused("nifti_header", "the header's quaternion is longer than 1")
    a = math.sqrt(max(a2, 0.0))
    return np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )


# ---------------------------------------------------------------- data


def _inflate_some(data: bytes, count: int) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(data[: 64 * 1024], count)
    except zlib.error as error:
        raise Refused("deflate", f"the compressed stream is broken: {error}") from error


def _values(data: bytes | memoryview, header: Header, count: int) -> NDArray[Any]:
    """The stored values, flat, still in the file's byte order."""
    item = header.dtype.base.itemsize
    total = header.offset + count * item
    if data[:2] == b"\x1f\x8b":
        data = inflate_exactly(bytes(data), total)
    if len(data) < total:
        raise Refused("nifti_short", f"the header claims {total} bytes; the file has {len(data)}")
    return np.frombuffer(data, header.dtype.base, count, header.offset)


def inflate_exactly(data: bytes, total: int) -> bytes | memoryview:
    """The first `total` bytes of a gzip stream: by libdeflate in one call where imagecodecs is installed and the
    stream's own size agrees, else by zlib. `Refused("nifti_short")` where it holds less, `Refused("deflate")` where it
    is broken."""
    if int.from_bytes(data[-4:], "little") == total & 0xFFFFFFFF and (fast := _libdeflate(data, total)) is not None:
        return fast
    parts: list[bytes] = []
    have, rest = 0, memoryview(data)
    try:
        while have < total and len(rest):
            engine = zlib.decompressobj(31)
            parts.append(engine.decompress(rest, total - have))
            have += len(parts[-1])
            if have >= total:
                engine.decompress(engine.unconsumed_tail, 1)  # to the end where it is here: checks the CRC
            elif not engine.eof:
                break
            rest = memoryview(engine.unused_data)
    except zlib.error as error:
        raise Refused("deflate", f"the compressed stream is broken: {error}") from error
    if have < total:
        raise Refused("nifti_short", f"the header claims {total} bytes; the compressed stream gives {have}")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _libdeflate(data: bytes, total: int) -> memoryview | None:
    try:
        from imagecodecs import GzipError, gzip_decode
    except ImportError:
        return None
    out = memoryview(np.empty(total, np.uint8))  # type: ignore[arg-type]
    try:
        gzip_decode(data, out=out)
    except (GzipError, ValueError, RuntimeError):
        return None  # several members, or broken: zlib says which
    return out


def _partner(path: Path, limits: Limits) -> bytes:
    """The bytes of the .img (or .img.gz) that belongs to a .hdr."""
    for name in (f"{stem(path)}.img", f"{stem(path)}.img.gz", f"{stem(path)}.IMG"):
        if (found := path.with_name(name)).is_file():
            return read_bytes(found, limits)
    raise Refused("nifti_pair", "the header's image file (.img) is not beside it")


def _scaled(flat: NDArray[Any], header: Header, limits: Limits) -> NDArray[Any]:
    if header.slope == 1 and header.inter == 0:
        if flat.dtype.isnative:
            return flat
        return flat.astype(flat.dtype.newbyteorder("="))
    check_array(flat.shape, np.float32, limits, what="the rescaled NIfTI volume")
    out = flat.astype(np.float32)
    out *= np.float32(header.slope)
    out += np.float32(header.inter)
    return out


def _folded(flat: NDArray[Any], header: Header) -> NDArray[Any]:
    """(X, Y, Z) or (X, Y, Z, C): missing axes are 1; time, vector and colour axes fold into C in stored order."""
    sides = [*header.shape, 1, 1][: max(3, len(header.shape))]
    if header.dtype.subdtype is not None:
        colours = header.dtype.subdtype[1][0]
        moved = flat.reshape(colours, *sides, order="F")  # colour is the fastest axis
        array = np.moveaxis(moved, 0, -1)
        return array.reshape(*sides[:3], -1) if array.ndim > 4 else array
    array = flat.reshape(sides, order="F")
    if array.ndim > 3:
        array = array.reshape(*sides[:3], -1, order="F")
    return array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array
