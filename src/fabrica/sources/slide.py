"""Whole-slide images (SVS, NDPI, MRXS, SCN, BIF, tiled TIFF) -> a `slide` blob with a thumbnail image beside it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fabrica import safe
from fabrica.errors import Refused, need
from fabrica.safe import LIMITS, Limits
from fabrica.sources import Ref
from fabrica.sources.single import origin, record
from fabrica.types import Blob, Item, Record

THUMBNAIL = 512  # pixels of the longer side
MEDIA_TYPES = {
    ".svs": "image/x-aperio-svs",
    ".ndpi": "image/x-hamamatsu-ndpi",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
}
MAX_SIDE = 1 << 20


def read(ref: Ref, limits: Limits = LIMITS) -> Iterator[Record]:
    """One record: `slide` (Blob: path, size, sha256) and `image` (h, w, 3) uint8, the slide shrunk to 512 pixels.

    Groups say `mpp` (micrometres a pixel of level 0), `objective`, `scanner` (vendor), `width` and `height`, where the
    file does. Refused: `slide_unreadable`, `slide_size`, `array_too_large`.
    """
    openslide = need("openslide", "imaging")
    size = ref.path.stat().st_size
    if size > limits.file_bytes:
        raise Refused("file_too_large", f"the slide has {size} bytes")
    try:
        with openslide.OpenSlide(str(ref.path)) as slide:
            groups = _groups(slide)
            image = _thumbnail(slide, limits)
    except openslide.OpenSlideError as error:
        raise Refused("slide_unreadable", f"OpenSlide cannot read the file ({type(error).__name__})") from error
    sha256 = safe.sha256(ref.path)
    media = MEDIA_TYPES.get(ref.path.suffix.lower(), "application/octet-stream")
    blob = Item("slide", Blob(str(ref.path), media, size, sha256), origin(ref, sha256))
    small = Item("image", image, origin(ref, sha256, f"thumbnail:{THUMBNAIL}", part="thumbnail"))
    yield record(ref, sha256, {"slide": (blob,), "image": (small,)}, modality="pathology", groups=groups)


def _groups(slide: object) -> dict[str, str]:
    said = slide.properties  # type: ignore[attr-defined]
    names = {"mpp": "openslide.mpp-x", "objective": "openslide.objective-power", "scanner": "openslide.vendor"}
    found = {k: str(said[v]) for k, v in names.items() if v in said}
    if "mpp" in found:
        found["mpp"] = f"{float(found['mpp']):.4g}"
    width, height = slide.dimensions  # type: ignore[attr-defined]
    return {**found, "width": str(width), "height": str(height)}


def _thumbnail(slide: object, limits: Limits) -> np.ndarray:
    width, height = slide.dimensions  # type: ignore[attr-defined]
    if not 0 < width <= MAX_SIDE or not 0 < height <= MAX_SIDE:
        raise Refused("slide_size", f"the slide claims {width} x {height} pixels")
    level = slide.get_best_level_for_downsample(max(width, height) / THUMBNAIL)  # type: ignore[attr-defined]
    w, h = slide.level_dimensions[level]  # type: ignore[attr-defined]
    safe.check_array((h, w, 4), np.uint8, limits, what="the slide's smallest usable level")
    picture = slide.get_thumbnail((THUMBNAIL, THUMBNAIL))  # type: ignore[attr-defined]
    return np.asarray(picture.convert("RGB"))
