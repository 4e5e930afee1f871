"""NumPy archives of many samples (MedMNIST and its like) -> one record a sample, through a column map.

    columns = { image = "{split}_images", "label:pneumonia" = "{split}_labels" }

`{split}` stands for train, val and test, as far as the archive has them, and gives the record's split. Expressions name
arrays instead of columns: `label:covid = "{split}_labels == 1"`. No pickle is ever loaded; sizes are checked first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica import safe
from fabrica.errors import Refused, UsageError, unknown
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Ref
from fabrica.sources.columns import check, compile_map, label, modality, plain, split_of
from fabrica.sources.single import hashed
from fabrica.types import Absent, Item, Origin, Record, Region, Rights, record_id

SPLITS = ("train", "val", "test")
DEFAULT = {"image": "{split}_images", "label:label": "{split}_labels"}


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record]:
    """One record a row of the arrays' first axis. Refused: `pickle`, `array_too_large`, `npz_bad`, `npz_rows`."""
    arrays = load(ref, limits)
    columns = dict(ref.columns) or _default(arrays)
    check(columns)
    digest = safe.sha256(ref.path)
    splits = [s for s in SPLITS if any(_names(text, s, arrays) for text in columns.values())]
    if any("{split}" in text for text in columns.values()) and not splits:
        raise UsageError(f"{ref.path.name}: no array is named as the map says; there are {', '.join(sorted(arrays))}")
    every: list[str | None] = [*splits] or [None]
    for split in every:
        said = {k: v.replace("{split}", split) if split else v for k, v in columns.items()}
        yield from _rows(ref, said, arrays, digest, split)


def _default(arrays: Mapping[str, Any]) -> dict[str, str]:
    if any(f"{s}_images" in arrays for s in SPLITS):
        return dict(DEFAULT)
    raise Refused("no_map", f"an npz needs a column map that names its arrays: {', '.join(sorted(arrays))[:200]}")


def _names(text: str, split: str, arrays: Mapping[str, Any]) -> bool:
    return "{split}" in text and text.replace("{split}", split).split(" ")[0] in arrays


def load(ref: Ref, limits: Limits = LIMITS) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file; the header of each is checked before it is read.

    >>> import tempfile; from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "a.npz"
    >>> np.savez(path, x=np.arange(3))
    >>> load(Ref(path, "a.npz", "demo"))["x"]
    array([0, 1, 2])
    """
    found = {}
    total = 0
    for name, reader in safe.members(ref.path, limits):
        if not name.endswith(".npy"):
            continue
        try:
            version = np.lib.format.read_magic(reader)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read_header(reader)
        except (ValueError, EOFError) as error:
            raise Refused("npz_bad", f"array {name[:80]!r} has a broken header") from error
        if dtype.hasobject:
            raise Refused("pickle", f"array {name[:80]!r} holds pickled objects, which are never loaded")
        size = safe.check_array(shape, dtype, limits, what=f"array {name[:80]!r}")
        total += size
        if total > 2 * limits.array_bytes:
            raise Refused("array_too_large", f"the arrays of {ref.path.name!r} together exceed the limit")
        data = reader.read(size)
        if len(data) != size:
            raise Refused("npz_bad", f"array {name[:80]!r} ends too early")
        flat = np.frombuffer(data, dtype)
        found[name[:-4]] = flat.reshape(shape, order="F" if fortran else "C")
    if not found:
        raise Refused("npz_bad", f"{ref.path.name!r} holds no arrays")
    return found


def _rows(
    ref: Ref, columns: Mapping[str, str], arrays: Mapping[str, NDArray[Any]], digest: str, split: str | None
) -> Iterator[Record]:
    parts = {k: columns[k] for k in columns if k == "image" or k.partition(":")[0] == "mask"}
    for text in parts.values():
        if text not in arrays:
            raise unknown("array", text, arrays)
    flat = {name: a.reshape(len(a), -1) for name, a in arrays.items() if a.ndim}
    mapping = compile_map({k: v for k, v in columns.items() if k not in parts}, flat)
    used = {*parts.values(), *(c for e in mapping.values() for c in e.columns)}
    counts = {name: len(arrays[name]) for name in used}
    if len(set(counts.values())) > 1:
        raise Refused("npz_rows", f"the arrays have different lengths: {counts}")
    for n in range(next(iter(counts.values()), 0)):
        yield _row(ref, n, {name: arrays[name][n] for name in used}, parts, mapping, digest, split)


def _row(
    ref: Ref, n: int, row: Mapping[str, NDArray[Any]], parts: Mapping[str, str], mapping: Mapping[str, Any],
    digest: str, split: str | None,
) -> Record:  # fmt: skip
    cells = {name: _cell(a) for name, a in row.items() if np.size(a) == 1}
    key = f"{ref.key}#{split or 'row'}/{n}"
    value = {k: e(cells) for k, e in mapping.items() if not k.startswith("label:")}
    licence = plain(value.get("licence")) or ref.licence
    origin = Origin(ref.source, key, digest, licence)
    labels: dict[str, float | Absent] = {}
    for k, e in mapping.items():
        if k.startswith("label:"):
            labels[k[6:]] = Absent.NOT_DONE if (got := label(k, e, cells)) is None else got
    groups = {k[6:]: plain(v) for k, v in value.items() if k.startswith("group:") and v is not None}
    if "modality" in groups:
        groups["modality"] = modality(groups["modality"])
    items: dict[str, tuple[Item, ...]] = {}
    if "image" in parts:
        image = np.ascontiguousarray(row[parts["image"]])
        items["image"] = (Item("volume" if _is_volume(image) else "image", image, origin),)
    for role in ("report", "caption", "text"):
        if plain(value.get(role)):
            items[role] = (Item("text", plain(value[role]), origin),)
    regions = tuple(
        Region("image", "mask", np.ascontiguousarray(row[a]), k.partition(":")[2] or "mask", origin)
        for k, a in parts.items() if k != "image"
    )  # fmt: skip
    subject = value.get("subject")
    return Record(
        record_id(ref.source, ref.key, digest, f"{split}/{n}"),
        hashed("subject", ref.source, f"row:{key}" if subject is None else plain(subject)),
        groups=groups, items=items, regions=regions, labels=labels, rights=Rights(licence=licence),
        split=split_of(split or value.get("split")),
    )  # fmt: skip


def _cell(a: NDArray[Any]) -> Any:
    return np.asarray(a).reshape(-1)[0].item()


def _is_volume(image: NDArray[Any]) -> bool:
    return image.ndim == 4 or (image.ndim == 3 and image.shape[-1] not in (1, 3, 4))
