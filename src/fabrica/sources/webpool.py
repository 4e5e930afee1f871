"""Web pools (metadata Parquet of DataComp, LAION and their like) -> one record a row, pictures not fetched yet.

Columns by name, case aside: a URL, a text, an id ("uid", "key", "SAMPLE_ID"); then, where they are, width and height,
`face_bboxes`, `sha256`, a licence; every other number becomes a label ("clip_l14_similarity_score"). The record has
`image` = `Absent.NOT_DONE` with the URL as its origin's key, and `caption`; `curate.fetch.FetchImages` fills it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from fabrica.errors import Refused
from fabrica.safe import LIMITS, Limits, sha256
from fabrica.sources import Quarantined, Ref
from fabrica.sources.rows import parquet_batches, parquet_header
from fabrica.types import Absent, Item, Origin, Record, Region, Rights, record_id

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "url": ("url", "image_url"),
    "text": ("text", "caption", "alt"),
    "uid": ("uid", "key", "sample_id", "id", "hash"),
    "width": ("original_width", "width"),
    "height": ("original_height", "height"),
    "faces": ("face_bboxes",),
    "sha256": ("sha256",),
    "licence": ("licence", "license"),
    "split": ("split",),
}
FACE = "face"
RELATIVE = "relative"  # `Region.text` of a box whose picture's size is not known yet: shares of width and height
_MOST_URL, _MOST_FACES = 8192, 256
_HEX = re.compile(r"[0-9a-f]{64}")


def is_pool(columns: Sequence[str]) -> bool:
    """Whether a Parquet file with these columns is such a pool.

    >>> is_pool(["uid", "url", "text", "width", "height"]), is_pool(["id", "url", "text"])
    (True, False)
    """
    return {"url", "text", "uid", "width", "height"} <= set(mapping(columns))


def mapping(columns: Sequence[str]) -> dict[str, str]:
    """Field -> the column that holds it."""
    low = {c.lower(): c for c in reversed(columns)}
    return {field: low[name] for field, names in COLUMNS.items() if (name := _first(names, low)) is not None}


def _first(names: Sequence[str], known: Mapping[str, str]) -> str | None:
    return next((n for n in names if n in known), None)


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record | Quarantined]:
    """One record a row. Quarantined: `row_empty` (neither URL nor text), `no_uid`. A URL that is none stays, its image
    `Absent.UNREADABLE`: what was in the pool is in the corpus."""
    if ref.columns:  # a map of the user's own
        from fabrica.sources.table import read as read_table

        yield from read_table(ref, limits)
        return
    columns = parquet_header(ref.path, limits)
    fields = mapping(columns)
    if not {"url", "text", "uid"} <= set(fields):
        raise Refused("no_pool", f"{ref.path.name!r} has no columns for url, text and uid; it has {', '.join(columns)}")
    spare = [c for c in columns if c not in fields.values()]
    n = 0
    for batch in parquet_batches(ref.path, limits):
        for row in batch.to_pylist():
            n += 1
            key = f"{ref.key}#{n}"
            try:
                yield record(ref, {f: row[c] for f, c in fields.items()}, {c: row[c] for c in spare})
            except Refused as error:
                yield Quarantined(key, "", error.code, str(error))


def record(ref: Ref, row: Mapping[str, Any], spare: Mapping[str, Any]) -> Record:
    """The record of a row: `row` by field, `spare` by column."""
    uid, url, text = (_text(row.get(f)) for f in ("uid", "url", "text"))
    if not uid:
        raise Refused("no_uid", "the row has no id")
    if not url and not text:
        raise Refused("row_empty", "the row has neither URL nor text")
    licence = _text(row.get("licence")) or ref.licence
    said = _text(row.get("sha256")).lower()
    where = Origin(ref.source, url[:_MOST_URL], said if _HEX.fullmatch(said) else "", licence)
    host = _host(url)
    image = Item("image", Absent.NOT_DONE if host else Absent.UNREADABLE, where)
    words = Origin(ref.source, f"{uid}#text", sha256(text.encode("utf-8", "surrogatepass")), licence)
    caption = Item("text", text or Absent.NOT_DONE, words)
    numbers: dict[str, float | Absent] = {c: v for c, x in spare.items() if (v := _number(x)) is not None}
    width, height = _number(row.get("width")), _number(row.get("height"))
    if width and height:
        numbers |= {"original_width": width, "original_height": height}
    groups = {"modality": "web", "domain": host} if host else {"modality": "web"}
    return Record(
        record_id(ref.source, uid), uid, groups=groups, items={"image": (image,), "caption": (caption,)},
        regions=_faces(row.get("faces"), width, height, where), labels=numbers, rights=Rights(licence=licence),
    )  # fmt: skip


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.hex()
    return "" if value is None or isinstance(value, float) else str(value).strip()


def _number(value: Any) -> float | None:
    """A finite number, else None: NaN is a missing score."""
    if isinstance(value, bool | int | float):
        try:
            found = float(value)
        except OverflowError:
            return None
        return found if math.isfinite(found) else None
    return None


def _host(url: str) -> str:
    """The host of an http(s) URL, "" where it is none."""
    if len(url) > _MOST_URL:
        return ""
    try:
        parts = urlsplit(url)
        return (parts.hostname or "").lower() if parts.scheme in ("http", "https") else ""
    except ValueError:
        return ""


def _faces(value: Any, width: float | None, height: float | None, origin: Origin) -> tuple[Region, ...]:
    """Face boxes as pixels of the original picture: DataComp's (x0, y0, x1, y1) are shares of width and height."""
    if not isinstance(value, list | tuple):
        return ()
    if len(value) > _MOST_FACES:
        raise Refused("face_box", f"more than {_MOST_FACES} face boxes")
    found = []
    for box in value:
        corners = [_number(v) for v in box] if isinstance(box, list | tuple) else []
        if len(corners) != 4 or any(c is None for c in corners):
            raise Refused("face_box", "a face box is not four numbers; its picture could not be blurred")
        data = np.array(corners, np.float64)
        shares = bool((np.abs(data) <= 1.5).all())
        if shares and width and height:
            data, shares = data * np.array([width, height, width, height]), False
        found.append(Region("image", "box", data, FACE, origin, text=RELATIVE if shares else None))
    return tuple(found)
