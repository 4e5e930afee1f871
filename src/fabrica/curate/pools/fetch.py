"""Fills the pictures of a web pool: fetched once, checked, faces blurred; killed, the next run asks for the rest."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import Refused
from fabrica.safe import read_bytes, write_whole
from fabrica.safe.fetch import AGAIN, Fetched, Fetcher, Policy
from fabrica.sources.image import decode
from fabrica.sources.webpool import FACE, RELATIVE
from fabrica.types import Absent, Drop, Record, Region, record_id

WEB = Policy(
    schemes=("https", "http"), accept=("image/*", "application/octet-stream", "binary/octet-stream"),
    max_bytes=32 << 20, seconds=30.0,
)  # fmt: skip
_BATCH = 256  # records whose pictures are fetched side by side
_CELLS = 6  # a blurred face keeps 6 x 6 mean values
_MARGIN = 0.1  # of the box's diagonal, blurred around it


@dataclass(kw_only=True)
class FetchImages:
    """Fetches `role` of every record where it is `Absent.NOT_DONE`, from the URL that is its origin's key.

    What came is kept in the folder `cache`, so that a stopped run asks for nothing twice. Failures that will not pass
    (not found, opted out, another sha256) are remembered there; those that may are asked for again by a plan with a
    higher `again`. Failures are drops, reason "fetch_REASON" (`safe.fetch.Reason`) or "image_CODE", or, with
    `keep_failed`, records whose picture is `Absent.UNREADABLE`. Boxes labelled "face" are blurred before anything is
    written, the cache included. `longest` scales larger pictures down (pixels), their boxes with them.

    Without `allow_network` pictures of the cache are used and the first that is not there is `Refused("network_off")`.
    """

    cache: str
    allow_network: bool = False
    role: str = "image"
    longest: int | None = None
    blur: bool = True
    keep_failed: bool = False
    again: int = 0
    workers: int = 16
    policy: Policy = WEB
    allow_private: bool = False  # for a store inside the house, and for tests
    name: str = field(default="fetch_images", init=False)
    version: str = field(default="1", init=False)

    def __call__(self, records: Iterable[Record], drop: Drop, /) -> Iterator[Record]:
        """Records with their pictures, in their order."""
        source = iter(records)
        web: Fetcher | None = None
        try:
            while batch := list(islice(source, _BATCH)):
                missing = {k: r for r in batch if (k := self._key(r)) and not self._known(k)}
                if missing:
                    web = web or Fetcher(
                        self.policy, allow_network=self.allow_network, allow_private=self.allow_private
                    )
                    self._fetch(web, missing)
                for record in batch:
                    yield from self._filled(record, drop)
        finally:
            if web is not None:
                web.close()

    # ------------------------------------------------------------ the cache

    def _key(self, record: Record) -> str:
        """The cache's name of what is asked for: another URL, hash or blur is another thing. "" = nothing to fetch."""
        items = record.items.get(self.role, ())
        if not items or items[0].value is not Absent.NOT_DONE:
            return ""
        boxes = [[*map(float, box.data), box.text or ""] for box in self._faces(record)]
        sizes = [str(record.labels.get(f"original_{side}")) for side in ("width", "height")] if boxes else []
        origin = items[0].origin
        return record_id("web", origin.key, origin.sha256, json.dumps([boxes, sizes]))

    def _faces(self, record: Record) -> list[Region]:
        found = (r for r in record.regions if r.role == self.role and r.label == FACE and r.shape == "box")
        return list(found) if self.blur else []

    def _place(self, key: str, suffix: str) -> Path:
        return Path(self.cache) / key[:2] / f"{key}{suffix}"

    def _note(self, key: str) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self._place(key, ".json").read_bytes())
        return said

    def _known(self, key: str) -> bool:
        """Whether it need not be asked for."""
        if not self._place(key, ".json").exists():
            return False
        note = self._note(key)
        return note["reason"] not in set(AGAIN) or note["again"] >= self.again

    def _fetch(self, web: Fetcher, missing: Mapping[str, Record]) -> None:
        keys = list(missing)
        origins = [missing[key].items[self.role][0].origin for key in keys]
        for got in web.many([(o.key, o.sha256) for o in origins], workers=self.workers):
            self._keep(keys[got.number], got, missing[keys[got.number]])

    def _keep(self, key: str, got: Fetched, record: Record) -> None:
        """Write the picture, faces blurred, then its note: the note says that it is whole."""
        note: dict[str, Any] = {
            "reason": got.reason.value if got.reason else "", "detail": got.detail, "status": got.status,
            "sha256": got.sha256, "steps": [], "again": self.again,
        }  # fmt: skip
        if got.data is not None:
            try:
                data, note["steps"] = self._prepared(got.data, record)
                with write_whole(self._place(key, ".img")) as out:
                    out.write(data)
            except Refused as error:
                note |= {"reason": f"image_{error.code}", "detail": str(error)}
        with write_whole(self._place(key, ".json")) as out:
            out.write(json.dumps(note).encode())

    def _prepared(self, data: bytes, record: Record) -> tuple[bytes, list[str]]:
        """The bytes to keep, which decode, and the steps that decoding them again does not show."""
        pixels, steps = _picture(data)
        faces = self._faces(record)
        if not faces:
            return data, []
        scale = _scale(record, pixels)
        pixels = blurred(pixels, [_pixels(face, scale, pixels) for face in faces])
        return _png(pixels), [*steps, "faces_blurred"]

    # ------------------------------------------------------------ records

    def _filled(self, record: Record, drop: Drop) -> Iterator[Record]:
        key = self._key(record)
        if not key:
            if record.items.get(self.role, ()) and record.items[self.role][0].value is Absent.UNREADABLE:
                yield from self._failed(record, "fetch_url_bad", drop)
            else:
                yield record
            return
        note = self._note(key)
        if note["reason"]:
            code = note["reason"]
            yield from self._failed(record, code if code.startswith("image_") else f"fetch_{code}", drop)
            return
        pixels, steps = _picture(read_bytes(self._place(key, ".img")))
        steps = ("fetched", *(note["steps"] or steps))
        scale = _scale(record, pixels)
        full = pixels.shape[:2]
        if self.longest is not None and max(full) > self.longest:
            pixels, steps = _smaller(pixels, self.longest), (*steps, "scaled_down")
        ratio = np.array([pixels.shape[1] / full[1], pixels.shape[0] / full[0]])
        item = record.items[self.role][0]
        origin = replace(item.origin, sha256=note["sha256"], steps=(*item.origin.steps, *steps))
        items = {**record.items, self.role: (replace(item, value=pixels, origin=origin), *record.items[self.role][1:])}
        regions = tuple(_moved(r, self.role, scale, ratio, full) for r in record.regions)
        yield record.updated(items=items, regions=regions)

    def _failed(self, record: Record, reason: str, drop: Drop) -> Iterator[Record]:
        if not self.keep_failed:
            drop(record, reason)
            return
        first, *rest = record.items[self.role]
        item = replace(first, value=Absent.UNREADABLE, origin=first.origin.then(reason))
        yield record.updated(items={**record.items, self.role: (item, *rest)})


# ---------------------------------------------------------------- pictures and boxes


def blurred(pixels: NDArray[np.uint8], boxes: Iterable[NDArray[np.float64]]) -> NDArray[np.uint8]:
    """The picture (H, W[, 3]) with each box (x0, y0, x1, y1), widened by a tenth of its diagonal, replaced by 6 x 6
    mean values, smoothed: what was there cannot be had back.

    >>> face = np.random.default_rng(0).integers(0, 255, (40, 40), np.uint8)
    >>> out = blurred(face, [np.array([10.0, 10.0, 30.0, 30.0])])
    >>> bool((out[:6] == face[:6]).all()), float(out[12:28, 12:28].std()) < 0.3 * float(face.std())
    (True, True)
    """
    from PIL import Image

    out = pixels.copy()
    height, width = pixels.shape[:2]
    for x0, y0, x1, y1 in boxes:
        margin = _MARGIN * float(np.hypot(x1 - x0, y1 - y0))
        left, top = (int(np.clip(np.floor(v - margin), 0, n)) for v, n in ((min(x0, x1), width), (min(y0, y1), height)))
        right, low = (int(np.clip(np.ceil(v + margin), 0, n)) for v, n in ((max(x0, x1), width), (max(y0, y1), height)))
        if right <= left or low <= top:
            continue
        part = Image.fromarray(out[top:low, left:right])
        small = part.resize((min(_CELLS, part.width), min(_CELLS, part.height)), Image.Resampling.BOX)
        out[top:low, left:right] = np.asarray(small.resize(part.size, Image.Resampling.BILINEAR))
    return out


def _picture(data: bytes) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """(H, W) or (H, W, 3) uint8 and the steps; of several frames the first."""
    pixels, steps = decode(data)
    if "frames" in steps:
        pixels, steps = pixels[0], tuple(s if s != "frames" else "first_frame" for s in steps)
    if pixels.dtype == np.uint16:
        pixels, steps = (pixels >> 8).astype(np.uint8), (*steps, "16_to_8_bit")
    if pixels.dtype != np.uint8:
        raise Refused("depth", f"pixels of type {pixels.dtype}; wanted 8 or 16 bits")
    if min(pixels.shape[:2]) < 1:
        raise Refused("empty", "a picture without pixels")
    return np.ascontiguousarray(pixels), steps


def _scale(record: Record, pixels: NDArray[Any]) -> NDArray[np.float64]:
    """(x, y): pixels of what came per pixel of the size that the pool states."""
    said = [record.labels.get(f"original_{side}") for side in ("width", "height")]
    have = pixels.shape[1], pixels.shape[0]
    return np.array([h / s if isinstance(s, float) and s > 0 else 1.0 for h, s in zip(have, said, strict=True)])


def _pixels(box: Region, scale: NDArray[np.float64], pixels: NDArray[Any]) -> NDArray[np.float64]:
    """A box in pixels of what came."""
    factor = np.array([pixels.shape[1], pixels.shape[0]], np.float64) if box.text == RELATIVE else scale
    return np.asarray(box.data, np.float64) * np.tile(factor, 2)


def _moved(
    region: Region, role: str, scale: NDArray[np.float64], ratio: NDArray[np.float64], full: tuple[int, ...]
) -> Region:
    """A region of the picture in pixels of what is stored."""
    if region.role != role or region.index or region.shape not in ("box", "polygon", "point"):
        return region
    relative = region.text == RELATIVE
    factor = (np.array([full[1], full[0]], np.float64) if relative else scale) * ratio
    if (factor == 1.0).all():
        return region
    data = np.asarray(region.data, np.float64)
    return replace(
        region, data=data * (np.tile(factor, 2) if region.shape == "box" else factor),
        text=None if relative else region.text,
    )  # fmt: skip


def _smaller(pixels: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    from PIL import Image

    picture = Image.fromarray(pixels)
    share = longest / max(picture.size)
    size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    return np.asarray(picture.resize(size, Image.Resampling.LANCZOS), np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()
