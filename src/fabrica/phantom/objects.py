"""Synthetic images of three modalities with named objects of four shapes: disc, ring, branching tree, spiral. Truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabrica.phantom.shapes import F32, blurred, f32, grid
from fabrica.types import Item, Origin, Record, Region

SIZE = 48
SHAPES = ("disc", "ring", "tree", "spiral")
PLACES = (("xray", "chest"), ("mr", "brain"), ("pathology", "colon"))
# By modality, one a shape: two qualifiers and two nouns. The name is the first of both; one qualifier with the other
# noun are synonyms; the second of both is kept from training: known words, never heard together.
WORDS = {
    "xray": (("round", "solid", "nodule", "node"), ("hollow", "walled", "cavity", "cyst"),
             ("branching", "forked", "vessel", "bronchus"), ("coiled", "curled", "wire", "lead")),
    "mr": (("round", "solid", "tumour", "mass"), ("hollow", "walled", "abscess", "lesion"),
           ("branching", "forked", "artery", "vein"), ("coiled", "curled", "shunt", "tube")),
    "pathology": (("round", "solid", "nucleus", "cell"), ("hollow", "walled", "gland", "crypt"),
                  ("branching", "forked", "fibre", "strand"), ("coiled", "curled", "worm", "larva")),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Named:
    """An object of a modality: its name, the synonyms of training, the one that training never hears."""

    name: str
    synonyms: tuple[str, str]
    unheard: str
    shape: str
    modality: str
    anatomy: str


def named() -> tuple[Named, ...]:
    """All twelve objects.

    >>> [(n.name, n.unheard) for n in named()][:2]
    [('round nodule', 'solid node'), ('hollow cavity', 'walled cyst')]
    """
    made = []
    for modality, anatomy in PLACES:
        for shape, (q1, q2, n1, n2) in zip(SHAPES, WORDS[modality], strict=True):
            made.append(
                Named(f"{q1} {n1}", (f"{q1} {n2}", f"{q2} {n1}"), f"{q2} {n2}", shape, modality, anatomy)
            )  # fmt: skip
    return tuple(made)


@dataclass(frozen=True, slots=True)
class Scene:
    """An `image` (48, 48) or (48, 48, 3) float32 about 0..1 and the `masks` (4, 48, 48) bool of each shape."""

    image: F32
    masks: NDArray[np.bool_]


def scene(rng: np.random.Generator, modality: str, *, contrast: float = 1.0) -> Scene:
    """One to three objects of other shapes in quarters of the image, on texture as strong as they are."""
    masks = np.zeros((4, SIZE, SIZE), bool)
    quarters = rng.permutation(4)
    for shape, quarter in zip(rng.permutation(4)[: rng.integers(1, 4)], quarters, strict=False):
        centre = (np.array(divmod(int(quarter), 2)) + 0.5) * SIZE / 2 + rng.uniform(-2.5, 2.5, 2)
        masks[shape] = _drawn(SHAPES[shape], centre, rng) & ~masks.any(0)
    return Scene(_rendered(masks, modality, rng, contrast), masks)


def _drawn(shape: str, centre: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.bool_]:
    y, x = grid(SIZE)
    if shape in ("disc", "ring"):
        outer = rng.uniform(4.5, 8.0)
        far = np.hypot(y - centre[0], x - centre[1])
        return np.asarray((far < outer) & (far > (outer - rng.uniform(2.2, 3.0) if shape == "ring" else -1)))
    lines = _tree(rng) if shape == "tree" else _spiral(rng)
    size = rng.uniform(8.0, 10.0)
    return _near(lines * size + np.asarray(centre), rng.uniform(0.95, 1.25))


def _tree(rng: np.random.Generator) -> NDArray[np.float64]:
    """Segments (n, 2, 2) of a tree of depth 3 within the unit circle."""
    turn = rng.uniform(0, 2 * np.pi)
    segments: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    tips = [(-0.95 * np.array([np.sin(turn), np.cos(turn)]), turn, 0.75)]
    for _ in range(3):
        grown = []
        for at, angle, length in tips:
            to = at + length * np.array([np.sin(angle), np.cos(angle)])
            segments.append((at, to))
            spread = rng.uniform(0.45, 0.75)
            grown += [(to, angle + side * spread, length * 0.72) for side in (-1, 1)]
        tips = grown
    return np.asarray(segments)


def _spiral(rng: np.random.Generator) -> NDArray[np.float64]:
    """Segments (n, 2, 2) of an Archimedean spiral of 1.6 to 1.9 turns within the unit circle."""
    t = np.linspace(0.12, 1, 40)
    angle = rng.uniform(0, 2 * np.pi) + rng.choice((-1, 1)) * 2 * np.pi * rng.uniform(1.6, 1.9) * t
    points = t[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)
    return np.stack([points[:-1], points[1:]], 1)


def _near(segments: NDArray[np.float64], width: float) -> NDArray[np.bool_]:
    """Pixels within `width` of any segment (n, 2, 2)."""
    low = np.maximum(np.floor(segments.min((0, 1)) - width), 0).astype(int)
    high = np.minimum(np.ceil(segments.max((0, 1)) + width) + 1, SIZE).astype(int)
    y, x = (g[low[0] : high[0], low[1] : high[1]] for g in grid(SIZE))
    a = segments[:, 0, :, None, None]
    along = segments[:, 1, :, None, None] - a
    dy, dx = y - a[:, 0], x - a[:, 1]
    share = np.clip((dy * along[:, 0] + dx * along[:, 1]) / np.maximum((along**2).sum(1), 1e-9), 0, 1)
    far = np.hypot(dy - share * along[:, 0], dx - share * along[:, 1]).min(0)
    made = np.zeros((SIZE, SIZE), bool)
    made[low[0] : high[0], low[1] : high[1]] = far < width
    return made


def _rendered(masks: NDArray[np.bool_], modality: str, rng: np.random.Generator, contrast: float) -> F32:
    from scipy.ndimage import gaussian_filter

    there = f32(gaussian_filter(masks.any(0).astype(np.float32), 0.5)) * np.float32(contrast * rng.uniform(0.85, 1.15))
    texture = blurred(rng.standard_normal((1, SIZE, SIZE), dtype=np.float32), 1.2)[0]
    slow = blurred(rng.standard_normal((1, SIZE, SIZE), dtype=np.float32), 8)[0]
    noise = rng.standard_normal((SIZE, SIZE), dtype=np.float32)
    if modality == "xray":  # bright on dark
        image = 0.35 + 0.24 * there + 0.06 * texture + 0.05 * slow + 0.05 * noise
    elif modality == "mr":  # dark on bright, through a coil's field
        image = (0.75 - 0.26 * there + 0.06 * texture) * (1 + 0.08 * slow) + 0.05 * noise
    elif modality == "pathology":  # purple on pink
        pink, purple = f32([0.90, 0.66, 0.78]), f32([0.55, 0.38, 0.62])
        stain = np.clip(0.75 * there + 0.16 * texture, -0.3, 1)[..., None]
        colour = f32(0.03) * rng.standard_normal((SIZE, SIZE, 3), dtype=np.float32)
        image = pink + (purple - pink) * stain + 0.03 * slow[..., None] + colour
    else:
        raise ValueError(f"modality {modality!r} is none of {', '.join(WORDS)}")
    return f32(np.clip(image, 0, 1))


def records(count: int, seed: int, *, start: int = 0, partial: float = 0.0) -> list[Record]:
    """`count` synthetic patients of one image, the modalities in turn. Each of its four objects is a mask region, empty
    where it is not there; with a chance of `partial` an object is not annotated at all and has no region."""
    made, names = [], named()
    for number in range(start, start + count):
        modality, anatomy = PLACES[number % 3]
        rng, pen = np.random.default_rng([seed, number]).spawn(2)
        found = scene(rng, modality)
        origin = Origin("objects", f"{seed}/{number}", "", "CC0-1.0", "synthetic")
        mine = [n for n in names if n.modality == modality]
        left_out = pen.random(4) < partial
        regions = tuple(
            Region("image", "mask", mask, n.name, origin)
            for n, mask, gone in zip(mine, found.masks, left_out, strict=True) if not gone
        )  # fmt: skip
        made.append(
            Record(f"object-{seed}-{number}", f"object-{seed}-{number}", {"modality": modality, "anatomy": anatomy},
                   {"image": (Item("image", found.image, origin),)}, regions)
        )  # fmt: skip
    return made
