"""Pages of a corpus: its datasheet and single records, as one HTML file each that opens from disk without a network."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.errors import UsageError
from fabrica.safe import write_whole
from fabrica.types import Item

WIDTH = 240  # pixels of a picture on a page
PICTURES = ("image", "volume")
HERE = Path(__file__).parent


def render(template: str, page: Mapping[str, Any]) -> str:
    """The HTML of a template of this folder; every value is escaped."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    filters: dict[str, Callable[..., Any]] = {"count": lambda n: f"{n:,}", "words": words, "size": size, "share": share}
    made.filters.update(filters)
    style = (HERE / "page.css").read_text("utf-8") + (HERE / "corpus.css").read_text("utf-8")
    try:
        return made.get_template(template).render(**page, style=style, version=_version())
    except jinja2.TemplateNotFound as error:
        raise UsageError(f"the installation lacks {error.name}; reinstall fabrica") from error


def save(path: str | Path, html: str) -> Path:
    """Write a page whole; `UsageError` where the path is a folder."""
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give the name of an HTML file")
    with write_whole(path) as out:
        out.write(html.encode("utf-8", "replace"))
    return path


def words(code: str) -> str:
    """A code for people: "share_ids_only" -> "share ids only"; "" -> "not said"."""
    return code.replace("_", " ") or "not said"


def size(n: float) -> str:
    """Bytes for people.

    >>> size(1536), size(3 << 30)
    ('1.5 KiB', '3.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024 or unit == "GiB":
            break
        n /= 1024
    return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"


def share(n: int, of: int) -> str:
    """A share in per cent; a small one is never rounded to nothing, a large one never to all.

    >>> share(1, 3), share(1, 10_000), share(9_999, 10_000), share(0, 5)
    ('33 %', '< 1 %', '> 99 %', '0 %')
    """
    if not of or n in (0, of):
        return "0 %" if not n else "100 %"
    part = 100 * n / of
    return "< 1 %" if part < 1 else "> 99 %" if part > 99 else f"{part:.0f} %"


def _version() -> str:
    try:
        return version("fabrica")
    except PackageNotFoundError:
        return "from source"


# ---------------------------------------------------------------- pictures


def plane(item: Item, at: float = 0.5) -> NDArray[Any] | None:
    """(H, W) or (H, W, 3) of an image; of a volume the axial slice at fraction `at`, patient's right at the left,
    anterior up; None for what has no pixels."""
    if item.kind not in PICTURES or not isinstance(item.value, np.ndarray):
        return None
    array = item.value
    if item.kind == "volume":
        array = turned(array, item.affine)
        array = np.swapaxes(array[:, :, min(int(array.shape[2] * at), array.shape[2] - 1)], 0, 1)[::-1, ::-1]
    if array.ndim == 3 and array.shape[2] in (1, 2):
        array = array[..., 0]
    if array.ndim == 3 and array.shape[2] == 4:
        array = array[..., :3]
    if array.ndim not in (2, 3) or 0 in array.shape or (array.ndim == 3 and array.shape[2] != 3):
        return None
    return array if array.dtype.kind in "biuf" else None


def turned(volume: NDArray[Any], affine: NDArray[np.float64] | None) -> NDArray[Any]:
    """A volume (X, Y, Z[, C]) with its axes turned to right, anterior, superior, by the nearest axes of its affine."""
    if volume.ndim not in (3, 4) or affine is None or not np.isfinite(affine).all():
        return volume if volume.ndim in (3, 4) else volume.reshape(*volume.shape, *(1,) * (3 - volume.ndim))
    directions = np.asarray(affine, np.float64)[:3, :3]
    left, order = np.abs(directions).copy(), [0, 0, 0]
    for _ in range(3):
        world, voxel = np.unravel_index(int(left.argmax()), left.shape)
        order[int(world)] = int(voxel)
        left[world, :] = -1.0
        left[:, voxel] = -1.0
    out = np.transpose(volume, (*order, *range(3, volume.ndim)))
    flips = tuple(axis for axis, voxel in enumerate(order) if directions[axis, voxel] < 0)
    return np.flip(out, flips) if flips else out


def grey(values: NDArray[Any], window: tuple[float, float] | None = None) -> NDArray[np.uint8]:
    """Pixels for display: 8-bit ones as they are, others from the 0.5th to the 99.5th percentile, or `window`
    (centre, width)."""
    if values.dtype == np.uint8 and window is None:
        return values
    data = np.nan_to_num(values.astype(np.float32))
    if window is not None:
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    else:
        low, high = (float(v) for v in np.percentile(data, [0.5, 99.5]))
    if not high > low:
        low, high = float(data.min()), float(data.max())
    scaled = (data - low) / (high - low) if high > low else np.zeros_like(data)
    return np.asarray(np.clip(scaled, 0, 1) * 255, np.uint8)


def data_uri(pixels: NDArray[np.uint8], *, width: int | None = WIDTH, lossless: bool = False) -> str:
    """A picture inside the page: JPEG, or PNG where `lossless`; at most `width` wide or high."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if width is not None and max(picture.size) > width:
        part = width / max(picture.size)
        new = max(1, round(picture.width * part)), max(1, round(picture.height * part))
        picture = picture.resize(new, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "PNG") if lossless else picture.save(out, "JPEG", quality=84, optimize=True)
    kind = "png" if lossless else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(out.getvalue()).decode("ascii")


def line_points(values: NDArray[Any], *, width: float, height: float, most: int = 1200) -> str:
    """SVG points of a line, lowest value at the bottom: of each of at most `most` stretches the lowest and highest, so
    that a spike is never lost; "" where there is nothing to draw."""
    line = np.asarray(values, np.float64).ravel()
    line = np.where(np.isfinite(line), line, np.nan)
    if len(line) < 2 or np.isnan(line).all():
        return ""
    low, high = float(np.nanmin(line)), float(np.nanmax(line))
    span = high - low if high > low else 1.0
    step = max(1, math.ceil(len(line) / most))
    points = []
    for start in range(0, len(line), step):
        part = line[start : start + step]
        known = np.flatnonzero(~np.isnan(part))
        for i in sorted({int(known[part[known].argmin()]), int(known[part[known].argmax()])}) if len(known) else ():
            x = width * (start + i) / (len(line) - 1)
            points.append(f"{x:.1f},{height - height * (part[i] - low) / span:.1f}")
    return " ".join(points)
