"""Pictures of the report: samples by modality, nearest neighbours and retrieved reports, similarity maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from fabrica.errors import FabricaError
from fabrica.evaluate.features import data_of, embed, roles_of
from fabrica.evaluate.pictures import PICTURED, levels
from fabrica.evaluate.report import figures
from fabrica.evaluate.retrieval import nearest
from fabrica.types import Item, Record, Region

TEXTS = ("report", "caption", "text")
SIGNALS = ("ecg", "eeg", "signal")
TABLES = ("table", "labs")
LONG = 280  # characters of a text on the page


@dataclass(frozen=True, slots=True)
class Figure:
    """One record as the page shows it: a picture, a signal, a table or only words."""

    picture: str = ""  # data URI
    drawing: Markup | None = None
    table: tuple[tuple[str, str], ...] = ()
    text: str = ""
    alt: str = ""
    modality: str = ""
    data: str = "real"
    source: str = ""
    licence: str = ""
    labels: tuple[str, ...] = ()
    score: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Samples:
    """Some records of one modality."""

    modality: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A test record, its nearest pictures and the reports that its picture finds."""

    query: Figure
    pictures: tuple[Figure, ...]
    texts: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Map:
    """A picture, and where on it a text is near: `contrast` is the contrast-to-noise ratio of inside the outline
    against outside, None without an outline."""

    plain: Figure
    heats: tuple[Figure, ...]
    region: str
    contrast: float | None


def figure_of(record: Record, *, width: int = figures.WIDTH, **more: Any) -> Figure:
    """A record as a figure; the first thing of it that can be shown."""
    modality, data = record.groups.get("modality", ""), data_of(record)
    said = record.first(*TEXTS)
    text = short(said.text(), 170) if said is not None and isinstance(said.value, str) else ""
    labels = tuple(sorted(k.replace("_", " ") for k, v in record.labels.items() if v == 1.0))
    item = record.first(*PICTURED, *SIGNALS, *TABLES) or said
    origin = item.origin if item is not None else None
    base = Figure(
        text=text, modality=modality, data=data, labels=labels[:4],
        source=origin.source if origin else record.groups.get("source", ""), licence=origin.licence if origin else "",
    )  # fmt: skip
    if item is None:
        return replace(base, note="nothing of this record can be shown", **more)
    what = {"phantom": "Synthetic ", "real": ""}[data] + (modality.replace("_", " ") or item.kind)
    values = levels(item)
    if values is not None:
        note = "middle slice" if item.kind == "volume" else ""
        alt = f"{what}: {text or ', '.join(labels) or 'no description'}"
        base = replace(base, picture=figures.data_uri(values, width=width), alt=alt, note=note)
    elif item.kind == "signal" and isinstance(item.value, np.ndarray):
        lead = item.names.index("II") if "II" in item.names else 0
        name = item.names[lead] if item.names else "first lead"
        line = np.atleast_2d(item.value)[lead]
        seconds = f"{len(line) / item.rate:.0f} s" if item.rate else f"{len(line)} samples"
        base = replace(
            base, drawing=figures.signal_svg(line, label=f"{what}, lead {name}"), note=f"lead {name}, {seconds}"
        )
    elif item.kind in ("table", "series") and isinstance(item.value, np.ndarray):
        rows = zip(item.names, np.asarray(item.value).ravel().tolist(), strict=False)
        base = replace(
            base, table=tuple((n, f"{v:.4g}" if isinstance(v, int | float) else str(v)) for n, v in rows)[:6]
        )
    return replace(base, **more)


def short(text: str, limit: int = LONG) -> str:
    """White space folded, cut at a word."""
    folded = " ".join(text.split())
    return folded if len(folded) <= limit else folded[:limit].rsplit(" ", 1)[0] + " …"


def samples(corpus: Any, names: Sequence[str], *, each: int = 4) -> list[Samples]:
    """`each` records a modality, spread over its ids."""
    out = []
    for name in names:
        where = _is("modality", name)
        ids = spread(corpus.ids(where), each)
        found = tuple(figure_of(record) for record in corpus.take(ids))
        if found:
            out.append(Samples(name or "not said", found))
    return out


def spread(ids: Sequence[str], count: int) -> list[str]:
    """`count` of the ids at equal distances.

    >>> spread(["a", "b", "c", "d"], 2)
    ['a', 'c']
    """
    if len(ids) <= count:
        return list(ids)
    return [ids[i * len(ids) // count] for i in range(count)]


def _is(column: str, value: str) -> str:
    return f"{column} = '{value.replace(chr(39), chr(39) * 2)}'"


# ---------------------------------------------------------------- neighbours and reports


def found(
    corpus: Any, bundle: Any, names: Sequence[str], *, queries: int = 6, near: int = 4, pool: int = 400,
    image: str = "image", text: str = "text", cache: Any = None,
) -> list[Found]:  # fmt: skip
    """For test pictures spread over modalities: the nearest pictures and texts among `pool` training records."""
    asked = _test_pictures(corpus, names, queries)
    ids = spread(corpus.ids("split = 'train'"), pool)
    if not asked or not ids:
        return []
    pool_records = corpus.take(ids)
    pictures, here = _vectors(bundle, pool_records, image, cache)
    words, said = _vectors(bundle, pool_records, text, cache)
    rows, ok = _vectors(bundle, asked, image, cache)
    out = []
    for record, row, fine in zip(asked, rows, ok, strict=True):
        if fine:
            close = _top(row, pictures, here, pool_records, near)
            reports = _top_texts(row, words, said, pool_records, 3)
            out.append(Found(figure_of(record), close, reports))
    return out


def _test_pictures(corpus: Any, names: Sequence[str], count: int) -> list[Record]:
    per = max(1, -(-count // max(1, len(names))))
    ids: list[str] = []
    for name in names:
        where = f"split = 'test' AND {_is('modality', name)} AND ({' OR '.join(_has(r) for r in PICTURED)})"
        ids += spread(corpus.ids(where), per)
    return list(corpus.take(ids[:count]))


def _has(role: str) -> str:
    return f"array_has(kinds, '{role}')"


def _vectors(bundle: Any, records: Sequence[Record], name: str, cache: Any) -> tuple[NDArray[np.float32], NDArray[Any]]:
    _, made = embed(bundle, records, name, ["features", "embedding"] if cache is not None else ["embedding"], cache)
    return made["embedding"]


def _top(
    row: NDArray[np.float32], vectors: NDArray[np.float32], here: NDArray[Any], records: Sequence[Record], count: int
) -> tuple[Figure, ...]:
    kept = np.flatnonzero(here)
    if not len(kept):
        return ()
    numbers, cosines = nearest(row[None], vectors[kept], count)
    pairs = zip(kept[numbers[0]], cosines[0], strict=True)
    return tuple(figure_of(records[i], width=160, score=float(c)) for i, c in pairs)


def _top_texts(
    row: NDArray[np.float32], vectors: NDArray[np.float32], here: NDArray[Any], records: Sequence[Record], count: int
) -> tuple[Figure, ...]:
    """The best texts, each wording once."""
    kept = np.flatnonzero(here)
    if not len(kept):
        return ()
    numbers, cosines = nearest(row[None], vectors[kept], len(kept))
    out: dict[str, Figure] = {}
    for i, cosine in zip(kept[numbers[0]], cosines[0], strict=True):
        said = records[i].first(*TEXTS)
        if said is not None and isinstance(said.value, str):
            text = short(said.text())
            modality = records[i].groups.get("modality", "")
            out.setdefault(text, Figure(text=text, score=float(cosine), modality=modality, data=data_of(records[i])))
        if len(out) == count:
            break
    return tuple(out.values())


# ---------------------------------------------------------------- similarity maps


def maps(
    corpus: Any, bundle: Any, *, count: int = 4, image: str = "image", texts: Sequence[str] = (), scan: int = 400
) -> list[Map]:
    """Maps of test pictures, those with outlined regions first: of the record's own text, its regions' names, and
    `texts`. An encoder without a grid of tokens gives none."""
    from fabrica.models.maps import heatmap

    roles = roles_of(bundle, image)
    chosen = _outlined(corpus, roles, count, scan)
    out = []
    for record, region, mask in chosen:
        item = record.first(*roles)
        values = None if item is None else levels(item)
        if values is None:
            continue
        own = record.first(*TEXTS)
        asked = [short(own.text(), 90)] if own is not None and isinstance(own.value, str) else []
        asked += [region.label.replace("_", " ")] if region is not None else []
        asked = list(dict.fromkeys([*asked, *texts]))[:2]
        try:
            heats = [(text, heatmap(bundle, record, text, image=image)) for text in asked]
        except FabricaError:
            return []
        shown = tuple(
            Figure(
                picture=figures.data_uri(figures.overlay(values, heat, mask), width=300, quality=88), text=text,
                alt=f"Similarity of each place with the text: {text}", note=_range(heat), data=data_of(record),
            )
            for text, heat in heats
        )  # fmt: skip
        plain = figures.data_uri(figures.outlined(values, mask), width=300, quality=88)
        name = region.label.replace("_", " ") if region is not None else ""
        contrast = contrast_to_noise(heats[-1][1], mask) if mask is not None and heats else None
        out.append(Map(replace(figure_of(record), picture=plain), shown, name, contrast))
    return out


def _outlined(
    corpus: Any, roles: Sequence[str], count: int, scan: int
) -> list[tuple[Record, Region | None, NDArray[np.bool_] | None]]:
    """Test records for maps: real ones with a mask first, then any with a mask, then any picture."""
    ids = spread(corpus.ids(f"split = 'test' AND ({_has('image')})"), scan)
    best: list[tuple[int, Record, Region | None, NDArray[np.bool_] | None]] = []
    for start in range(0, len(ids), 64):
        for record in corpus.take(ids[start : start + 64]):
            region, mask = region_of(record, roles)
            rank = (mask is None) * 2 + (data_of(record) == "phantom")
            best.append((rank, record, region, mask))
        best = sorted(best, key=lambda row: row[0])[:count]
        if len(best) == count and best[-1][0] == 0:
            break
    return [row[1:] for row in best]


def region_of(record: Record, roles: Sequence[str]) -> tuple[Region | None, NDArray[np.bool_] | None]:
    """The outlined regions of the record's picture that share the first one's label, as one mask (H, W)."""
    item = record.first(*roles)
    if item is None or item.kind != "image" or not isinstance(item.value, np.ndarray):
        return None, None
    size = item.value.shape[:2]
    masks = [r for r in record.regions if _drawn(r, item, size) is not None]
    if not masks:
        return None, None
    drawn = [_drawn(r, item, size) for r in masks if r.label == masks[0].label]
    return masks[0], np.logical_or.reduce([d for d in drawn if d is not None])


def _drawn(region: Region, item: Item, size: tuple[int, ...]) -> NDArray[np.bool_] | None:
    data = np.asarray(region.data)
    if region.shape == "mask" and data.shape[:2] == size and data.ndim == 2:
        mask: NDArray[np.bool_] = data > 0
        return mask if mask.any() else None
    if region.shape == "box" and data.size == 4:
        x0, y0, x1, y1 = (round(float(v)) for v in data.ravel())
        mask = np.zeros(size, dtype=bool)
        mask[max(0, y0) : y1 + 1, max(0, x0) : x1 + 1] = True
        return mask if mask.any() else None
    return None


def contrast_to_noise(heat: NDArray[Any], mask: NDArray[np.bool_]) -> float | None:
    """|mean inside - mean outside| over the root of the sum of both variances, with the sign of the difference
    (Boecking et al. 2022, section 4.3).

    >>> contrast_to_noise(np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([[True, True], [False, False]]))
    2.0
    """
    inside, outside = heat[mask], heat[~mask]
    if not len(inside) or not len(outside):
        return None
    noise = float(np.sqrt(inside.var() + outside.var()))
    return float(inside.mean() - outside.mean()) / noise if noise > 0 else None


def _range(heat: NDArray[Any]) -> str:
    return f"cosine {float(heat.min()):.2f} to {float(heat.max()):.2f}"
