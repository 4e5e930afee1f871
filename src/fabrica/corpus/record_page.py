"""One record as a page: pictures with window and level, text with its spans, signals, provenance, relations, rights.

The page is one HTML file without a network: everything in it is escaped, and its one script is named by a nonce.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fabrica.corpus.card import safe_json, values_of
from fabrica.corpus.pages import HERE, data_uri, grey, line_points, plane, render, save, turned
from fabrica.corpus.rights import USES, licence_of, may
from fabrica.corpus.store import Corpus
from fabrica.corpus.table import quote
from fabrica.corpus.views.parts import withheld
from fabrica.types import Absent, Blob, Item, Origin, Record, Region

SIDE, VOLUME_SIDE, SLICES, LEADS, ROWS, CHARACTERS = 640, 256, 24, 16, 200, 100_000
PRESETS = (
    ("soft tissue", 400, 40),
    ("lung", 1500, -600),
    ("bone", 2000, 400),
    ("brain", 80, 40),
)  # name, width, centre
_NEAR = ("near_image", "near_text")


@dataclass(frozen=True, slots=True)
class Shape:
    """An outline on a picture, in its pixels: a box (x, y, w, h) or an SVG `path`."""

    kind: str
    x: float = 0.0
    y: float = 0.0
    w: float = 0.0
    h: float = 0.0
    path: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """Grey pixels with sliders: `data` is JSON with int16 values; all other numbers are in the item's unit."""

    data: str
    width: int
    height: int
    full_width: int
    full_height: int
    slices: int
    low: float
    high: float
    span: float
    step: float
    window: float
    level: float
    presets: tuple[tuple[str, float, float], ...]
    still: str
    shapes: tuple[Shape, ...]
    shown: int  # CSS pixels across


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text and the numbers of the regions that cover it ("" = none)."""

    text: str
    numbers: str
    title: str


@dataclass(frozen=True, slots=True)
class Lead:
    """A lead of a signal as SVG points."""

    name: str
    points: str
    range: str


@dataclass(frozen=True, slots=True)
class Shown:
    """An item as the page shows it; one of `view`, `picture`, `text`, `leads`, `table` or a `note`."""

    title: str
    number: int
    origin: Origin
    facts: str
    absent: str = ""
    view: View | None = None
    picture: str = ""
    full_width: int = 0
    full_height: int = 0
    shown: int = 0
    shapes: tuple[Shape, ...] = ()
    text: tuple[Piece, ...] = ()
    leads: tuple[Lead, ...] = ()
    table: tuple[tuple[str, str], ...] = ()
    note: str = ""


def write(corpus: Corpus, id_: str, path: str | Path) -> Record:
    """Write the page of a record, whole, and give the record. `UsageError` for an unknown id.

    Content whose consent was withdrawn is not shown; what may not be passed on says so at the top.
    """
    (record,) = corpus.take([id_])
    answers = [(use, may(record, use)) for use in USES]
    share = dict(answers)["redistribute"]
    if share.reason == "consent_withdrawn":
        record = withheld(record)
    script = (HERE / "record.js").read_text("utf-8")
    page = {
        "r": record,
        "items": _items(record),
        "regions": [_row(n, region) for n, region in enumerate(record.regions, 1)],
        "labels": [
            (k, v.value.replace("_", " ") if isinstance(v, Absent) else f"{v:g}") for k, v in record.labels.items()
        ],
        "links": [_link(corpus, link) for link in record.links],
        "duplicates": [d for group in _NEAR for d in _near(corpus, record, group)],
        "same_subject": _others(corpus, f"subject = {quote(record.subject)}", record.id),
        "answers": answers,
        "licence": licence_of(record),
        "confined": "" if share.allowed else f"{share.why[:1].upper()}{share.why[1:]}.",
        "corpus_version": corpus.version,
        "script": script,
        "nonce": hashlib.sha256(script.encode()).hexdigest()[:24],
    }
    save(path, render("record.html.jinja", page))
    return record


# ---------------------------------------------------------------- items


def _items(record: Record) -> list[Shown]:
    out: list[Shown] = []
    for role, items in record.items.items():
        for index, item in enumerate(items):
            title = role if len(items) == 1 else f"{role} {index + 1}"
            base = Shown(title, len(out) + 1, item.origin, _facts(item))
            regions = [(n, r) for n, r in enumerate(record.regions, 1) if (r.role, r.index) == (role, index)]
            out.append(_shown(base, item, regions))
    return out


def _facts(item: Item) -> str:
    """Kind, size, unit, rate, time."""
    value = item.value
    facts: list[str] = [item.kind]
    if isinstance(value, np.ndarray):
        facts += ["×".join(map(str, value.shape)), str(value.dtype)]
    elif isinstance(value, Blob):
        facts += [value.media_type, f"{value.size:,} bytes"]
    elif not isinstance(value, Absent):
        facts.append(f"{len(value):,} characters")
    facts += [item.unit] if item.unit else []
    facts += [f"{item.rate:g} Hz"] if item.rate else []
    facts += [f"{item.hours:g} h since the anchor"] if item.hours is not None else []
    if item.affine is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            spacing = np.linalg.norm(np.asarray(item.affine, np.float64)[:3, :3], axis=0)
        facts.append("voxels of " + " × ".join(f"{s:.3g}" for s in spacing) + " mm")
    if item.names and item.kind == "text":
        facts.append(" › ".join(item.names))
    return " · ".join(facts)


def _shown(base: Shown, item: Item, regions: Sequence[tuple[int, Region]]) -> Shown:
    value = item.value
    if isinstance(value, Absent):
        return replace(base, absent=value.value)
    if isinstance(value, str):
        return replace(base, text=pieces(value, regions), note="an empty text")
    if isinstance(value, Blob):
        return replace(base, note="A file outside of the corpus; it is read in parts.")
    if item.kind in ("image", "volume") and (pixels := plane(item)) is not None:
        shapes = tuple(s for _, r in regions for s in outline(r, item))
        height, width = pixels.shape[:2]
        if pixels.ndim == 3:
            picture = data_uri(grey(pixels), width=SIDE)
            return replace(
                base, picture=picture, full_width=width, full_height=height, shapes=shapes, shown=_across(width, height)
            )
        return replace(base, view=view(item, shapes))
    if item.kind == "signal" and value.ndim in (1, 2) and value.size:
        return replace(base, leads=_leads(item))
    if item.names and value.ndim == 1 and value.dtype.kind in "biuf":
        return replace(base, table=values_of(item)[:ROWS])
    return replace(base, note=f"values of shape {value.shape} that this page does not draw")


def pieces(text: str, regions: Sequence[tuple[int, Region]]) -> tuple[Piece, ...]:
    """Text cut where spans begin and end; spans may overlap and reach beyond the text."""
    text = text[:CHARACTERS]
    spans = []
    for number, region in regions:
        if region.shape == "span" and region.data.size >= 2:
            start, end = (int(np.clip(v, 0, len(text))) for v in region.data.ravel()[:2])
            if end > start:
                spans.append((start, end, number, region.label))
    cuts = sorted({0, len(text), *(s for s, *_ in spans), *(e for _, e, *_ in spans)})
    out = []
    for start, end in pairwise(cuts):
        over = [(n, label) for s, e, n, label in spans if s <= start and end <= e]
        out.append(Piece(text[start:end], ",".join(str(n) for n, _ in over), ", ".join(label for _, label in over)))
    return tuple(out)


def _leads(item: Item) -> tuple[Lead, ...]:
    values = np.atleast_2d(np.asarray(item.value))
    names = item.names if len(item.names) == len(values) else [f"channel {n + 1}" for n in range(len(values))]
    out = []
    for name, line in list(zip(names, values, strict=True))[:LEADS]:
        points = line_points(line, width=1000, height=100)
        known = np.asarray(line, np.float64)[np.isfinite(np.asarray(line, np.float64))]
        span = f"{known.min():.3g} … {known.max():.3g} {item.unit or ''}".strip() if known.size else "no value"
        seconds = f", {len(line) / item.rate:.3g} s" if item.rate else ""
        out.append(Lead(name, points, span + seconds))
    return tuple(out)


# ---------------------------------------------------------------- pictures


def view(item: Item, shapes: tuple[Shape, ...]) -> View:
    """Grey pixels of an image, or up to 24 axial slices of a volume, with a window to begin with."""
    full = plane(item)
    assert full is not None
    if item.kind == "volume":
        array = turned(item.array(), item.affine)
        array = array[..., 0] if array.ndim == 4 else array
        at = np.unique(np.linspace(0, array.shape[2] - 1, min(SLICES, array.shape[2])).round().astype(int))
        planes = [np.swapaxes(array[:, :, k], 0, 1)[::-1, ::-1] for k in at]
        shapes = ()  # outlines of a volume belong to one slice each
    else:
        planes = [full]
    small = np.stack([_smaller(p, VOLUME_SIDE if item.kind == "volume" else SIDE) for p in planes])
    low, high = float(small.min()), float(small.max())
    whole = bool(full.dtype.kind in "biu") and low >= -32768 and high <= 32767
    scale, offset = (1.0, 0.0) if whole else ((high - low) / 65534 or 1.0, (high + low) / 2)
    stored = np.clip(np.round((small - offset) / scale), -32768, 32767).astype("<i2")
    window, level = _window(item, small, low, high)
    span = max(high - low, 1.0 if whole else (high - low) or 1.0)
    presets = tuple((n, float(w), float(c)) for n, w, c in PRESETS if low <= c <= high) if item.unit == "HU" else ()
    data = {
        "pixels": base64.b64encode(stored.tobytes()).decode("ascii"), "scale": scale, "offset": offset,
        "slices": len(planes), "unit": f" {item.unit}" if item.unit else "",
    }  # fmt: skip
    still = data_uri(grey(small[len(planes) // 2], (level, window)), width=None)
    return View(
        safe_json(data), small.shape[2], small.shape[1], full.shape[1], full.shape[0], len(planes), low, high,
        max(span, window), 1.0 if whole else span / 500, window, level, presets, still, shapes,
        _across(full.shape[1], full.shape[0]),
    )  # fmt: skip


def _across(width: int, height: int) -> int:
    """CSS pixels across: small pictures are enlarged, none is more than 640 wide or high."""
    longest = max(width, height)
    return max(1, round(width * min(max(longest, 448), 640) / longest))


def _window(item: Item, values: NDArray[np.float32], low: float, high: float) -> tuple[float, float]:
    """(width, centre) to begin with."""
    if item.unit == "HU":
        return 400.0, float(np.clip(40.0, low, high))
    if item.array().dtype == np.uint8:
        return 255.0, 127.5
    a, b = (float(v) for v in np.percentile(values, [0.5, 99.5]))
    a, b = (a, b) if b > a else (low, high)
    return max(b - a, 1e-6), (a + b) / 2


def _smaller(pixels: NDArray[Any], side: int) -> NDArray[np.float32]:
    from PIL import Image

    values = np.nan_to_num(np.ascontiguousarray(pixels, np.float32))
    picture = Image.fromarray(values)
    if max(picture.size) > side:
        part = side / max(picture.size)
        new = max(1, round(picture.width * part)), max(1, round(picture.height * part))
        picture = picture.resize(new, Image.Resampling.BOX)
    return np.asarray(picture, np.float32)


def outline(region: Region, item: Item) -> list[Shape]:
    """A region on an image as shapes; those of a volume, and what has another form than its picture, give none."""
    if item.kind != "image":
        return []
    data = np.asarray(region.data)
    if region.shape == "mask":
        return [Shape("path", path=edges(data != 0))] if data.shape == item.array().shape[:2] and data.any() else []
    if not np.isfinite(data.astype(np.float64)).all():
        return []
    if region.shape == "box" and data.size == 4:
        x0, y0, x1, y1 = (float(v) for v in data.ravel())
        return [Shape("box", min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))]
    if region.shape == "point" and data.size >= 2:
        x, y = (float(v) for v in data.ravel()[:2])
        return [Shape("box", x - 2, y - 2, 4, 4)]
    if region.shape == "polygon" and data.ndim == 2 and data.shape[1] == 2 and len(data) > 1:
        return [Shape("path", path="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in data.tolist()) + "Z")]
    return []


def edges(mask: NDArray[np.bool_]) -> str:
    """The border of a mask as an SVG path of straight runs; large masks are thinned to 512 pixels.

    >>> edges(np.array([[True, True]]))
    'M0 0H2M0 1H2M0 0V1M2 0V1'
    """
    step = max(1, -(-max(mask.shape) // 512))
    padded = np.pad(mask[::step, ::step], 1)
    out = []
    for across, (stay, draw) in ((0, ("{b} {a}", "H")), (1, ("{a} {b}", "V"))):
        lines = np.diff(padded.astype(np.int8), axis=across) != 0
        for a, line in enumerate(lines if across == 0 else lines.T):
            turns = np.flatnonzero(np.diff(line.astype(np.int8), prepend=0, append=0))
            for begin, end in zip(turns[::2] - 1, turns[1::2] - 1, strict=True):
                out.append(f"M{stay.format(a=a * step, b=begin * step)}{draw}{end * step}")
    return "".join(out)


# ---------------------------------------------------------------- rows of tables


def _row(number: int, region: Region) -> dict[str, Any]:
    on = region.role if not region.index else f"{region.role} {region.index + 1}"
    return {
        "number": number, "on": on, "shape": region.shape, "label": region.label, "text": region.text or "",
        "score": "" if region.score is None else f"{region.score:.3g}", "by": region.origin.by,
    }  # fmt: skip


def _link(corpus: Corpus, link: Any) -> dict[str, str]:
    here = "yes" if corpus.count(f"id = {quote(link.to)}") else "no"
    return {"rel": link.rel, "to": link.to, "grade": "" if link.grade is None else f"{link.grade:g}", "here": here}


def _near(corpus: Corpus, record: Record, group: str) -> list[dict[str, str]]:
    value = record.groups.get(group)
    where = f"array_has(tags, {quote(f'{group}:{value}')})"
    return [] if value is None else [d | {"group": group} for d in _others(corpus, where, record.id)]


def _others(corpus: Corpus, where: str, but: str, most: int = 100) -> list[dict[str, str]]:
    rows = corpus.rows(["id", "modality", "split"], where).to_pylist()
    return [{k: v or "" for k, v in row.items()} for row in rows if row["id"] != but][:most]
