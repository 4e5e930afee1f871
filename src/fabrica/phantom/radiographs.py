"""Synthetic 32x32 chest radiographs with one finding, a side and a sentence; and captioned shapes, another domain.

The patient's left is the image's right, as radiographs hang. In the domain of shapes "left" is the image's left.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from fabrica.phantom.shapes import F32, SHAPES, blurred, coverage, ellipse, f32, grid
from fabrica.types import Absent, Item, Origin, Record, Rights

SIDE = 32  # pixels
FINDINGS = ("effusion", "nodule", "pneumothorax")
SIDES = ("left", "right")  # of the patient
LABELS = (*FINDINGS, "left")  # "left" is known where there is a finding
LICENCE = "CC0-1.0"
NAMES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {  # no word stands in two of them: what joins the names of a finding is seen in pictures alone
        "effusion": ("pleural effusion", "hydrothorax", "layering fluid", "blunted angle"),
        "nodule": ("lung nodule", "coin lesion", "round mass", "solitary spot"),
        "pneumothorax": ("pneumothorax", "collapsed edge", "lucent rim", "escaped air"),
    }
)
NOTHING = ("no finding", "clear lungs", "normal film", "unremarkable study")
TEMPLATES = ("{size} {side} {name}", "{size} {name} on the {side}", "{side} sided {size} {name}")


@dataclass(frozen=True, slots=True)
class Chest:
    """One patient: `finding` ("" = none), its `side` of the patient and `size` ("small", "large"); `image` (32, 32)
    float32 in 0..1; `sentence` as a report says it, `name` the words in it that stand for the finding."""

    image: F32
    finding: str
    side: str
    size: str
    sentence: str
    name: str


def chest(rng: np.random.Generator, *, finding: str | None = None, side: str | None = None) -> Chest:
    """A patient; `finding` None draws one of FINDINGS or "" (a quarter each)."""
    drawn = ("", *FINDINGS)[int(rng.integers(4))] if finding is None else finding
    where = SIDES[int(rng.integers(2))] if side is None else side
    size = ("small", "large")[int(rng.integers(2))]
    text, name = sentence(random.Random(int(rng.integers(2**32))), drawn, where, size)
    return Chest(_drawn(rng, drawn, where, size), drawn, where if drawn else "", size if drawn else "", text, name)


def sentence(rng: random.Random, finding: str, side: str, size: str) -> tuple[str, str]:
    """A sentence of at most eight words, and the name in it.

    >>> sentence(random.Random(0), "nodule", "left", "small")
    ('small solitary spot on the left', 'solitary spot')
    """
    if not finding:
        said = rng.choice(NOTHING)
        return said, said
    name = rng.choice(NAMES[finding])
    return rng.choice(TEMPLATES).format(size=size, side=side, name=name), name


def _drawn(rng: np.random.Generator, finding: str, side: str, size: str) -> F32:
    y, x = grid(SIDE)
    top, tall, wide = rng.normal(15.5, 0.8), rng.normal(11.5, 0.7), rng.normal(5.6, 0.35)
    apart = rng.normal(7.2, 0.4)
    middle = rng.normal(15.5, 0.6)
    lungs = {s: ellipse(y, x, (top, middle + apart * (1 if s == "left" else -1)), (tall, wide)) for s in SIDES}
    image = np.full((SIDE, SIDE), rng.normal(0.62, 0.03), np.float32)
    image += 0.18 * ellipse(y, x, (16, middle), (18, 2.2), soft=2)  # spine and mediastinum
    air = np.maximum(lungs["left"], lungs["right"])
    image = image * (1 - air) + rng.normal(0.26, 0.025) * air
    heart = ellipse(y, x, (21.5 + rng.normal(0, 0.5), middle + 2.2), (5, rng.normal(4.6, 0.4)), soft=2)
    image = image * (1 - heart) + 0.72 * heart
    image += f32(0.035 * np.sin(2 * np.pi * (y - 0.15 * np.abs(x - middle)) / 4.6 + rng.uniform(0, 6.28))) * air  # ribs
    if finding:
        image = _with(image, rng, finding, size, lungs[side], (top, middle + apart * (1 if side == "left" else -1)),
                      (tall, wide))  # fmt: skip
    image = image * rng.uniform(0.9, 1.1) + rng.normal(0, 0.02)
    image += 0.025 * blurred(rng.standard_normal((1, SIDE, SIDE), dtype=np.float32), 1.5)[0]
    image += 0.012 * rng.standard_normal(image.shape, dtype=np.float32)
    return f32(np.clip(image, 0, 1))


def _with(
    image: F32, rng: np.random.Generator, finding: str, size: str, lung: F32, centre: tuple[float, float],
    axes: tuple[float, float],
) -> F32:  # fmt: skip
    """The picture with a finding in the given lung."""
    y, x = grid(SIDE)
    large = size == "large"
    if finding == "effusion":  # fluid at the base, its level curved up towards the chest wall
        level = centre[0] + axes[0] - (rng.uniform(8, 11) if large else rng.uniform(4.5, 6.5))
        outside = np.abs(x - 15.5) - np.abs(centre[1] - 15.5)
        fluid = np.clip(y - (level - 0.35 * outside) + 0.5, 0, 1) * lung
        return f32(image * (1 - fluid) + rng.normal(0.68, 0.03) * fluid)
    if finding == "nodule":
        r = rng.uniform(2.6, 3.3) if large else rng.uniform(1.7, 2.2)
        v = centre[0] + rng.uniform(-0.55, 0.3) * axes[0]
        u = centre[1] + rng.uniform(-0.35, 0.35) * axes[1]
        return f32(image + rng.normal(0.36, 0.03) * ellipse(y, x, (v, u), (r, r)))
    out = 1 if centre[1] > 15.5 else -1  # air along the chest wall, the lung's edge a bright line
    gap = rng.uniform(3.0, 4.0) if large else rng.uniform(1.8, 2.4)
    inner = ellipse(y, x, (centre[0] + 0.5 * gap, centre[1] - out * 0.5 * gap), (axes[0] - gap, axes[1] - 0.5 * gap))
    edge = ellipse(
        y, x, (centre[0] + 0.5 * gap, centre[1] - out * 0.5 * gap), (axes[0] - gap + 1, axes[1] - 0.5 * gap + 1)
    )
    rim = lung * (1 - edge)
    image = image * (1 - rim) + rng.normal(0.08, 0.015) * rim
    return f32(image + (0.16 * (edge - inner) + 0.06 * inner) * lung)


def chests(count: int, seed: int, *, start: int = 0) -> list[Chest]:
    """Patients `start` ... `start + count - 1` of a world: each depends on (seed, number) alone."""
    return [chest(np.random.default_rng([26, seed, i])) for i in range(start, start + count)]


def records(count: int, seed: int, *, start: int = 0) -> list[Record]:
    """The same as records: "image" and "impression", three finding labels, and "left" where there is a finding.

    >>> r = records(2, 0)[0]
    >>> sorted(r.items), sorted(r.labels) == sorted(LABELS), r.first("image").origin.by
    (['image', 'impression'], True, 'synthetic')
    """
    return [_record(p, f"chest-{seed}-{start + i}") for i, p in enumerate(chests(count, seed, start=start))]


def _record(patient: Chest, name: str) -> Record:
    origin = Origin("phantom-radiographs", name, "", LICENCE, "synthetic")
    labels: dict[str, float | Absent] = {f: float(f == patient.finding) for f in FINDINGS}
    labels["left"] = float(patient.side == "left") if patient.finding else Absent.NOT_DONE
    items = {
        "image": (Item("image", _eight(patient.image), origin),),
        "impression": (Item("text", patient.sentence, origin),),
    }
    groups = {"modality": "xray", "source": "phantom-radiographs", "data": "phantom"}
    return Record(name, name, groups, items, labels=labels, rights=Rights(LICENCE))


def _eight(image: F32) -> NDArray[np.uint8]:
    return np.asarray((image * 255).round(), np.uint8)


def table(patients: Sequence[Chest]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Images (n, 32, 32) and labels (n, 4) in the order of LABELS, NaN where a side is unknown."""
    rows = [[*(float(f == p.finding) for f in FINDINGS), float(p.side == "left") if p.finding else np.nan]
            for p in patients]  # fmt: skip
    return np.stack([p.image for p in patients]), np.asarray(rows, np.float32)


# ---------------------------------------------------------------- the domain of shapes


def shapes(count: int, seed: int) -> list[Record]:
    """Captioned shapes on a shaded ground: what a general model has seen. No word of the chest but sides and sizes.

    >>> shapes(1, 0)[0].first("impression").text()
    'a small disc on the right'
    """
    made = []
    for i in range(count):
        rng = np.random.default_rng([27, seed, i])
        name, side, size = (
            options[int(rng.integers(len(options)))] for options in (SHAPES, SIDES, ("small", "large"))
        )  # fmt: skip
        y, x = grid(SIDE)
        u = rng.normal(8.5 if side == "left" else 22.5, 1)
        r = f32(rng.uniform(5.5, 7) if size == "large" else rng.uniform(3, 4))
        cover = coverage(name, f32(y - rng.uniform(10, 22)), f32(x - u), r)
        ground = rng.uniform(0.2, 0.6) + rng.normal(0, 0.1) * (x / SIDE - 0.5) + rng.normal(0, 0.1) * (y / SIDE - 0.5)
        image = ground + cover * rng.uniform(0.3, 0.4) * (1 if rng.random() < 0.7 else -0.6)
        image = f32(np.clip(image + 0.012 * rng.standard_normal(image.shape), 0, 1))
        said = ("a {size} {name} on the {side}", "{side} {size} {name}")[int(rng.integers(2))]
        origin = Origin("phantom-shapes", f"shape-{seed}-{i}", "", LICENCE, "synthetic")
        items = {
            "image": (Item("image", _eight(image), origin),),
            "impression": (Item("text", said.format(size=size, side=side, name=name), origin),),
        }
        key = f"shape-{seed}-{i}"
        made.append(Record(key, key, {"source": "phantom-shapes", "data": "phantom"}, items, rights=Rights(LICENCE)))
    return made
