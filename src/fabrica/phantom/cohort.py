"""A biobank in small: a person's image and table of numbers and categories come from the same three hidden traits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fabrica.types import Item, Origin, Record, Rights

NUMBERS, CATEGORIES, TRAITS = 8, 4, 3
NAMES = (*(f"number{j}" for j in range(NUMBERS)), *(f"category{j}" for j in range(CATEGORIES)))
EDGES = (-0.7, 0.0, 0.7)  # of a trait's bins: four categories
CLEAR = 0.8  # share of a number's standard deviation that the traits explain


@dataclass(frozen=True, slots=True)
class Cohort:
    """`traits` (n, 3), the truth; `numbers` (n, 8); `categories` (n, 4) codes 0..3; `images` (n, size, size) in 0..1;
    `label` (n,) 0/1: whether the non-linear score of the traits is above its median."""

    traits: NDArray[np.float64]
    numbers: NDArray[np.float64]
    categories: NDArray[np.int64]
    images: NDArray[np.float32]
    label: NDArray[np.int64]

    def records(self, *, labelled: bool = True, prefix: str = "") -> Iterator[Record]:
        """Records with "image" and "table" (codes stand beside numbers); label "case" where `labelled`."""
        origin = Origin("phantom cohort", "", "", "CC0-1.0", "synthetic")
        for i in range(len(self.label)):
            row = np.concatenate([self.numbers[i], self.categories[i]])
            items = {
                "image": (Item("image", self.images[i], origin),),
                "table": (Item("table", row, origin, names=NAMES),),
            }
            labels = {"case": float(self.label[i])} if labelled else {}
            yield Record(
                f"{prefix}{i}", f"{prefix}{i}", {"data": "phantom"}, items, labels=labels, rights=Rights("CC0-1.0")
            )


def cohort(n: int, seed: int, *, size: int = 48) -> Cohort:
    """n people. Every number is a mix of two traits and noise; a category is the bin of one trait, one time in five of
    another person's; the image shows an ellipse whose axes follow the first trait, whose tilt follows the second, with
    stripes whose width follows the third, under noise.

    >>> c = cohort(3, 0)
    >>> c.numbers.shape, int(c.categories.max()) <= 3, c.images.shape
    ((3, 8), True, (3, 48, 48))
    """
    rng = np.random.default_rng([seed, 86])
    traits = rng.standard_normal((n, TRAITS))
    ways = np.array([[np.cos(a), np.sin(a)] for a in np.linspace(0, np.pi, NUMBERS, endpoint=False)])
    mixed = np.stack([traits[:, [j % 3, (j + 1) % 3]] @ ways[j] for j in range(NUMBERS)], 1)
    numbers = CLEAR * mixed + np.sqrt(1 - CLEAR**2) * rng.standard_normal((n, NUMBERS))
    shown = traits[:, [j % TRAITS for j in range(CATEGORIES)]]
    other = rng.random((n, CATEGORIES)) < 0.2
    shown = np.where(other, rng.standard_normal((n, CATEGORIES)), shown)
    score = traits[:, 0] * traits[:, 1] + traits[:, 2] + 0.5 * (traits[:, 0] ** 2 - 1)
    label = (score > 0.0).astype(np.int64)
    return Cohort(traits, numbers, np.digitize(shown, EDGES), _images(traits, rng, size), label)


def _images(traits: NDArray[np.float64], rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    half = size / 2
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    squeezed = np.tanh(traits / 1.5)  # (n, 3) in -1..1
    made = np.empty((len(traits), size, size), np.float32)
    for i, (a, b, c) in enumerate(squeezed):
        tilt = 0.6 * b
        u, v = x * np.cos(tilt) + y * np.sin(tilt), y * np.cos(tilt) - x * np.sin(tilt)
        inside = (u / (half * (0.55 + 0.25 * a))) ** 2 + (v / (half * (0.55 - 0.2 * a))) ** 2 < 1
        stripes = 0.5 + 0.5 * np.sin(2 * np.pi * u / (size * (0.18 + 0.08 * c)) + rng.uniform(0, 2 * np.pi))
        made[i] = 0.2 + inside * (0.3 + 0.4 * stripes)
    return np.clip(made + 0.08 * rng.standard_normal(made.shape), 0, 1).astype(np.float32)
